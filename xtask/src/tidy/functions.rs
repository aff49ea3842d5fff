//! The length of functions, counted as clippy does: lines that hold code.
//!
//! Clippy passes over what macros make and what a build leaves out; this does not.

use super::Finding;
use super::lexer::{closing, name_at, words};
use super::tree::{File, Tree};

const LINES_MAX: usize = 70;

pub(super) fn are_short(tree: &Tree) -> Vec<Finding> {
    tree.rust().flat_map(long_functions).collect()
}

fn long_functions(file: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    for at in words(&file.code, "fn") {
        let name = name_at(&file.code, at + "fn ".len());
        let Some((open, close)) = body(&file.code, at) else {
            continue;
        };
        let inside = file.code.get(open + 1..close - 1).unwrap_or_default();
        let lines = inside
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        if !name.is_empty() && lines > LINES_MAX {
            let says = format!("function `{name}` has {lines} lines, {LINES_MAX} is the limit");
            found.push(Finding::new(&file.path, file.line(at), says));
        }
    }
    found
}

/// Its braces, if the declaration has a body.
fn body(code: &str, at: usize) -> Option<(usize, usize)> {
    let mut depth = 0_usize;
    for (place, byte) in code.bytes().enumerate().skip(at) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.checked_sub(1)?,
            b'{' if depth == 0 => return Some((place, closing(code, place))),
            b';' | b',' | b'}' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_over_the_limit_is_flagged_and_comments_do_not_count() {
        let long = format!(
            "fn long() {{\n{}}}\n",
            "    step();\n".repeat(LINES_MAX + 1)
        );
        let full = format!(
            "fn full() {{\n{}}}\n",
            "    step(); // x\n".repeat(LINES_MAX)
        );
        let noted = format!("fn noted() {{\n{}}}\n", "    // why\n\n".repeat(LINES_MAX));
        let tree = Tree::of(&[("a.rs", &format!("{full}{noted}{long}"))]);
        let found = are_short(&tree);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found.iter().all(|it| it.says.contains("`long`")));
    }
}
