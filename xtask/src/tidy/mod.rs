//! `cargo xtask tidy`: the house rules of docs/STYLE.md that a program can check.
//!
//! Each rule is a function from the [`tree::Tree`] to the [`Finding`]s in it, and has a test with
//! a bad example that it must flag.
//!
//! Not here: what rustfmt and clippy check already.

mod api;
mod arrows;
mod config_keys;
mod functions;
mod layout;
mod lexer;
mod migrations;
mod tree;
mod words;

use anyhow::bail;

use self::tree::Tree;
use crate::command;

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    says: String,
}

impl Finding {
    fn new(path: &str, line: usize, says: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line,
            says: says.into(),
        }
    }
}

type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: [Rule; 19] = [
    arrows::point_down,
    arrows::go_through_mod_rs,
    arrows::media_has_one_door,
    arrows::media_knows_no_server,
    layout::files_are_short,
    layout::files_are_named_for_the_field,
    layout::modules_have_one_shape,
    layout::files_say_what_they_are_for,
    layout::lines_fit,
    functions::are_short,
    words::types_are_nouns_of_the_field,
    words::no_test_is_ignored,
    words::no_marker_is_left,
    words::no_lint_is_allowed,
    words::no_path_of_a_machine,
    words::lock_files_name_no_host,
    config_keys::are_documented,
    migrations::stand_in_both_folders,
    api::document_has_every_route,
];

pub(crate) fn run() -> anyhow::Result<()> {
    let tree = Tree::read(command::root())?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    findings.sort();
    for Finding { path, line, says } in &findings {
        eprintln!("{path}:{line}: {says}");
    }
    if !findings.is_empty() {
        bail!("{} findings; docs/STYLE.md has the rules", findings.len());
    }
    eprintln!("xtask: {} files are tidy", tree.files().len());
    Ok(())
}
