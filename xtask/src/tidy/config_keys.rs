//! Configuration: every key stands in `config/default.toml` with a comment that says what it does.
//!
//! Not here: whether the values there are the code's defaults; a test of the server compares them.

use std::collections::BTreeSet;

use super::Finding;
use super::lexer::{closing, name_at, words};
use super::tree::{File, Tree};

const DEFAULTS: &str = "config/default.toml";

pub(super) fn are_documented(tree: &Tree) -> Vec<Finding> {
    let Some(defaults) = tree.file(DEFAULTS) else {
        return vec![Finding::new(
            DEFAULTS,
            1,
            "the documented defaults are missing",
        )];
    };
    let mut found = keys_without_comment(defaults);
    let config = tree.under("src/config").filter(|file| file.is_rust());
    for file in config {
        for (at, field) in fields(file) {
            if !is_mentioned(&defaults.text, field) {
                let says = format!("key `{field}` is not in {DEFAULTS}");
                found.push(Finding::new(&file.path, file.line(at), says));
            }
        }
    }
    found
}

fn keys_without_comment(defaults: &File) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut is_told = false;
    // Of a list of tables the first one tells what its keys are.
    let (mut list, mut told) = (None, BTreeSet::new());
    for (index, line) in defaults.text.lines().map(str::trim).enumerate() {
        if line.starts_with('#') {
            is_told = true;
        } else if line.is_empty() || line.starts_with('[') {
            is_told = false;
            if line.starts_with('[') {
                list = line.strip_prefix("[[");
            }
        } else if let Some((key, value)) = line.split_once('=') {
            let is_known = list.is_some_and(|list| !told.insert((list, key.trim())));
            if !is_told && !is_known && !value.contains('#') {
                let says = format!("key `{}` has no comment", key.trim());
                found.push(Finding::new(&defaults.path, index + 1, says));
            }
            is_told = false;
        }
    }
    found
}

/// The fields of the structs that are read from the file.
fn fields(file: &File) -> Vec<(usize, &str)> {
    let code = file.code.as_str();
    let mut all = Vec::new();
    for at in words(code, "struct").filter(|&at| is_read(code, at)) {
        let Some(open) = code.get(at..).and_then(|rest| rest.find(['{', ';', '('])) else {
            continue;
        };
        let open = at + open;
        if code.as_bytes().get(open) == Some(&b'{') {
            all.extend(names_with_type(code, open + 1, closing(code, open) - 1));
        }
    }
    all
}

/// Whether the attributes before the declaration derive `Deserialize`.
fn is_read(code: &str, at: usize) -> bool {
    let before = code.get(..at).unwrap_or_default();
    let start = before.rfind(['}', ';']).map_or(0, |end| end + 1);
    before
        .get(start..)
        .unwrap_or_default()
        .contains("Deserialize")
}

fn names_with_type(code: &str, from: usize, to: usize) -> Vec<(usize, &str)> {
    let inside = code.get(from..to).unwrap_or_default();
    let mut names = Vec::new();
    let mut at = from;
    for line in inside.split_inclusive('\n') {
        let indent = line.len() - line.trim_start().len();
        let visible = line.trim_start();
        let skip = visible
            .strip_prefix("pub")
            .map_or(0, |rest| match rest.find(") ") {
                Some(end) if rest.starts_with('(') => "pub".len() + end + 2,
                _ => "pub ".len(),
            });
        let name = name_at(code, at + indent + skip);
        let after = code
            .get(at + indent + skip + name.len()..)
            .unwrap_or_default();
        if !name.is_empty() && after.starts_with(": ") {
            names.push((at + indent + skip, name));
        }
        at += line.len();
    }
    names
}

/// As a key, a key that is commented out because it has no default, or a table.
fn is_mentioned(defaults: &str, key: &str) -> bool {
    defaults.lines().any(|line| {
        let line = line.trim_start_matches(['#', ' ']);
        let is_key = line
            .split_once('=')
            .is_some_and(|(name, _)| name.trim() == key);
        is_key || line.trim().trim_matches(['[', ']']).split('.').next_back() == Some(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "//! Config.\n#[derive(Deserialize)]\nstruct Config {\n    http: Http,\n}\n\
        #[derive(Debug, Deserialize)]\npub(crate) struct Http {\n    /// Why.\n    \
        pub(crate) listen: String,\n    admin: u16,\n}\nstruct Other {\n    free: u8,\n}\n";

    fn says(defaults: &str) -> Vec<String> {
        let tree = Tree::of(&[(DEFAULTS, defaults), ("src/config.rs", CODE)]);
        are_documented(&tree)
            .into_iter()
            .map(|it| it.says)
            .collect()
    }

    #[test]
    fn a_key_of_the_code_that_the_defaults_lack_is_flagged() {
        let defaults = "[http]\n# Where it listens.\nlisten = \"x\"\n";
        assert_eq!(
            says(defaults),
            ["key `admin` is not in config/default.toml"]
        );
    }

    #[test]
    fn a_key_without_a_comment_is_flagged() {
        let defaults = "[http]\n# Where it listens.\nlisten = \"x\"\nadmin = 1\n";
        assert_eq!(says(defaults), ["key `admin` has no comment"]);
    }

    #[test]
    fn a_key_without_a_default_may_stand_commented_out() {
        let defaults =
            "[http]\n# Where it listens.\nlisten = \"x\"\n# Off unless set.\n# admin = 1\n";
        assert_eq!(says(defaults), Vec::<String>::new());
    }
}
