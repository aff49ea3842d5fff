//! Words that may not stand in the code: empty type names, ignored tests, leftovers, machine paths.

use super::Finding;
use super::lexer::{name_at, words};
use super::tree::Tree;

const EMPTY_NOUNS: [&str; 5] = ["Manager", "Helper", "Handler", "Factory", "Impl"];
const DECLARATIONS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];
// Written in two pieces so that this file is not a finding of its own rules.
const MARKERS: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
];
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wor", "k/"),
    concat!("/roo", "t/"),
    concat!("/tmp", "/w/"),
    concat!("/tmp", "/bash_jobs"),
];
/// Documents may speak of markers; nothing may name a machine's paths.
const PROSE: [&str; 1] = [".md"];

pub(super) fn types_are_nouns_of_the_field(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for declaration in DECLARATIONS {
            for at in words(&file.code, declaration) {
                let name = name_at(&file.code, at + declaration.len() + 1);
                if let Some(noun) = EMPTY_NOUNS.iter().find(|noun| has_part(name, noun)) {
                    let says = format!("type `{name}`: `{noun}` is no noun of the field");
                    found.push(Finding::new(&file.path, file.line(at), says));
                }
            }
        }
    }
    found
}

/// Whether a name in camel case has this as one of its words.
fn has_part(name: &str, part: &str) -> bool {
    name.match_indices(part).any(|(at, _)| {
        let after = name.get(at + part.len()..).unwrap_or_default();
        after.chars().next().is_none_or(char::is_uppercase)
    })
}

pub(super) fn no_test_is_ignored(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (at, _) in file.code.match_indices("#[ignore") {
            let says = "an ignored test: repair it or delete it";
            found.push(Finding::new(&file.path, file.line(at), says));
        }
    }
    let scripts = tree
        .files()
        .iter()
        .filter(|file| is_script_test(&file.path));
    for file in scripts {
        for (at, word) in switched_off(&file.text) {
            let says = format!("`{word}`: a test that does not run, or keeps others from it");
            found.push(Finding::new(&file.path, file.line(at), says));
        }
    }
    found
}

fn switched_off(text: &str) -> impl Iterator<Item = (usize, &str)> {
    [".skip", ".only"].into_iter().flat_map(move |word| {
        text.match_indices(word).filter(move |&(at, _)| {
            let before = text.get(..at).unwrap_or_default();
            ["it", "test", "describe"]
                .iter()
                .any(|it| before.ends_with(it))
        })
    })
}

fn is_script_test(path: &str) -> bool {
    [".test.ts", ".test.tsx", ".test.mjs"]
        .iter()
        .any(|ending| path.ends_with(ending))
}

pub(super) fn no_marker_is_left(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_prose = |path: &str| PROSE.iter().any(|ending| path.ends_with(ending));
    for file in tree.files().iter().filter(|file| !is_prose(&file.path)) {
        // Hashes and base64 of lock files spell anything by chance.
        if file.path.ends_with("-lock.json") || file.path.ends_with(".lock") {
            continue;
        }
        for marker in MARKERS {
            for at in words(&file.text, marker) {
                let says = format!("`{marker}` is left: finish it or open an issue");
                found.push(Finding::new(&file.path, file.line(at), says));
            }
        }
    }
    found
}

pub(super) fn no_lint_is_allowed(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for attribute in ["#[allow(", "#![allow("] {
            for (at, _) in file.code.match_indices(attribute) {
                let says = "`allow` outlives its cause: write `expect(lint, reason = \"...\")`";
                found.push(Finding::new(&file.path, file.line(at), says));
            }
        }
    }
    found
}

pub(super) fn no_path_of_a_machine(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files() {
        for machine_path in MACHINE_PATHS {
            for (at, _) in file.text.match_indices(machine_path) {
                let before = file
                    .text
                    .get(..at)
                    .and_then(|text| text.chars().next_back());
                // A longer path may hold the same letters.
                if before.is_some_and(|letter| letter.is_alphanumeric() || "._-/".contains(letter))
                {
                    continue;
                }
                let says = format!("`{machine_path}` is a path of one machine");
                found.push(Finding::new(&file.path, file.line(at), says));
            }
        }
    }
    found
}

pub(super) fn lock_files_name_no_host(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files() {
        if !file.path.ends_with("package-lock.json") {
            continue;
        }
        for (at, _) in file.text.match_indices("\"resolved\": \"http") {
            let says = "a download address: npm's `omit-lockfile-registry-resolved` leaves it out";
            found.push(Finding::new(&file.path, file.line(at), says));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rule: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> Vec<usize> {
        let found = rule(&Tree::of(&[(path, text)]));
        found.into_iter().map(|it| it.line).collect()
    }

    #[test]
    fn an_empty_noun_in_a_type_name_is_flagged() {
        let text = "struct Implied;\nstruct RoomManager;\nenum HandlerKind {}\nstruct Room;\n";
        assert_eq!(lines(types_are_nouns_of_the_field, "a.rs", text), [2, 3]);
    }

    #[test]
    fn an_ignored_test_is_flagged() {
        let rust = "#[test]\n#[ignore = \"slow\"]\nfn t() {}\n";
        assert_eq!(lines(no_test_is_ignored, "a.rs", rust), [2]);
        let script = "it('a', f);\nit.skip('b', f);\nattributes.skip(1);\n";
        assert_eq!(lines(no_test_is_ignored, "a.test.ts", script), [2]);
    }

    #[test]
    fn a_leftover_marker_is_flagged_as_a_whole_word() {
        let text = format!(
            "let x = 1; // {}: later\nlet {}ING = 2;\n",
            MARKERS[0], MARKERS[2]
        );
        assert_eq!(lines(no_marker_is_left, "a.rs", &text), [1]);
        assert_eq!(lines(no_marker_is_left, "a.md", &text), [0_usize; 0]);
    }

    #[test]
    fn an_allowed_lint_is_flagged_and_an_expected_one_is_not() {
        let text = "#[allow(dead_code)]\nfn a() {}\n#[expect(dead_code, reason = \"b\")]\n";
        assert_eq!(lines(no_lint_is_allowed, "a.rs", text), [1]);
    }

    #[test]
    fn a_machine_path_is_flagged_in_any_file() {
        let text = format!(
            "see {}x\nsee target{}x\n",
            MACHINE_PATHS[0], MACHINE_PATHS[0]
        );
        assert_eq!(lines(no_path_of_a_machine, "a.md", &text), [1]);
    }

    #[test]
    fn a_download_address_in_a_lock_file_is_flagged() {
        let text = "{\n\"resolved\": \"player\",\n\"resolved\": \"https://example.org/a.tgz\"\n}";
        assert_eq!(
            lines(lock_files_name_no_host, "web/package-lock.json", text),
            [3]
        );
    }
}
