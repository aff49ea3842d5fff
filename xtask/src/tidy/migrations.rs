//! Migrations: both databases have the same ones.

use std::collections::BTreeSet;

use super::Finding;
use super::tree::Tree;

const FOLDERS: [&str; 2] = ["migrations/sqlite/", "migrations/postgres/"];

pub(super) fn stand_in_both_folders(tree: &Tree) -> Vec<Finding> {
    let [sqlite, postgres] = FOLDERS;
    let mut found = missing(tree, sqlite, postgres);
    found.extend(missing(tree, postgres, sqlite));
    found
}

fn missing(tree: &Tree, from: &str, to: &str) -> Vec<Finding> {
    let there: BTreeSet<_> = names(tree, to).collect();
    names(tree, from)
        .filter(|name| !there.contains(name))
        .map(|name| {
            Finding::new(
                &format!("{from}{name}"),
                1,
                format!("{to}{name} is missing"),
            )
        })
        .collect()
}

fn names<'a>(tree: &'a Tree, folder: &'a str) -> impl Iterator<Item = &'a str> {
    let files = tree.under(folder);
    files.filter_map(move |file| file.path.strip_prefix(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_of_one_database_only_is_flagged() {
        let tree = Tree::of(&[
            ("migrations/sqlite/0001_init.sql", ""),
            ("migrations/postgres/0001_init.sql", ""),
            ("migrations/postgres/0002_more.sql", ""),
        ]);
        let found = stand_in_both_folders(&tree);
        let paths: Vec<_> = found.iter().map(|it| it.path.as_str()).collect();
        assert_eq!(paths, ["migrations/postgres/0002_more.sql"]);
    }
}
