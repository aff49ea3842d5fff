//! The table of arrows: which module may use which, and who may use the media core.

use super::Finding;
use super::lexer::{closing, name_at, words};
use super::tree::{File, Tree};

/// The table of docs/STYLE.md, lowest row first. A module uses only modules of lower rows.
const ROWS: [&[&str]; 16] = [
    &["money", "clock", "config"],
    &["ids"],
    &["db", "tasks"],
    &["events"],
    &["app"],
    &["http"],
    &["accounts"],
    &["creators", "catalog", "ledger"],
    &["communities", "payments", "broadcasts"],
    &["rooms"],
    &["orders", "posts"],
    &["meetups", "promotion", "webhooks"],
    &["feeds"],
    &["live", "support"],
    &["router"],
    &["serve"],
];
const MEDIA_USERS: [&str; 3] = ["app", "broadcasts", "serve"];
const NOT_IN_MEDIA: [&str; 7] = [
    "axum",
    "hyper",
    "hyper-util",
    "lamplight",
    "reqwest",
    "sqlx",
    "tower-http",
];

pub(super) fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// The server's module a file belongs to; none for the crate's root files.
pub(super) fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    let first = inside.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(name, "lib" | "main")).then_some(name)
}

/// A path from the crate's root that some code names.
#[derive(Debug, PartialEq, Eq)]
struct Reach<'a> {
    at: usize,
    module: &'a str,
    inner: Option<&'a str>,
}

pub(super) fn point_down(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.under("src/").filter(|file| file.is_rust()) {
        let Some(from) = module(&file.path) else {
            continue;
        };
        let Some(from_row) = row(from) else {
            let says = format!("module `{from}` has no row in the table of arrows");
            found.push(Finding::new(&file.path, 1, says));
            continue;
        };
        for reach in reaches(file).filter(|reach| reach.module != from) {
            let says = match row(reach.module) {
                Some(to_row) if to_row < from_row => continue,
                Some(_) => format!("the arrow to `{}` does not point down", reach.module),
                None => format!("`crate::{}` has no row in the table", reach.module),
            };
            found.push(Finding::new(&file.path, file.line(reach.at), says));
        }
    }
    found
}

pub(super) fn go_through_mod_rs(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.under("src/").filter(|file| file.is_rust()) {
        let from = module(&file.path);
        for reach in reaches(file).filter(|reach| Some(reach.module) != from) {
            let Some(inner) = reach.inner else { continue };
            let folder = format!("src/{}/{inner}", reach.module);
            if tree.has(&format!("{folder}.rs")) || tree.has(&format!("{folder}/mod.rs")) {
                let to = reach.module;
                let says = format!("`{to}::{inner}` is not offered by src/{to}/mod.rs itself");
                found.push(Finding::new(&file.path, file.line(reach.at), says));
            }
        }
    }
    found
}

pub(super) fn media_has_one_door(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.under("src/").filter(|file| file.is_rust()) {
        let Some(from) = module(&file.path) else {
            continue;
        };
        if MEDIA_USERS.contains(&from) {
            continue;
        }
        for at in words(&file.code, "lamplight_media") {
            let says = format!("`{from}` uses the media core; only {MEDIA_USERS:?} may");
            found.push(Finding::new(&file.path, file.line(at), says));
        }
    }
    found
}

pub(super) fn media_knows_no_server(tree: &Tree) -> Vec<Finding> {
    let Some(manifest) = tree.file("media/Cargo.toml") else {
        return vec![Finding::new(
            "media/Cargo.toml",
            1,
            "the media core is missing",
        )];
    };
    let table: toml::Table = match manifest.text.parse() {
        Ok(table) => table,
        Err(error) => return vec![Finding::new(&manifest.path, 1, error.to_string())],
    };
    let parts = ["dependencies", "dev-dependencies", "build-dependencies"];
    let names = parts
        .iter()
        .filter_map(|part| table.get(*part)?.as_table())
        .flat_map(toml::Table::keys);
    names
        .filter(|name| NOT_IN_MEDIA.contains(&name.as_str()))
        .map(|name| {
            let line = manifest
                .text
                .lines()
                .position(|line| line.starts_with(name.as_str()));
            let says = format!("the media core may not depend on `{name}`");
            Finding::new(&manifest.path, line.map_or(1, |line| line + 1), says)
        })
        .collect()
}

/// Every path from the root: `crate::a::b`, `crate::{a::b, c}`, and `super` where it leads there.
fn reaches(file: &File) -> impl Iterator<Item = Reach<'_>> {
    let absolute = words(&file.code, "crate").map(|at| at + "crate".len());
    let climbing = words(&file.code, "super").filter_map(|at| climbed_to_root(file, at));
    absolute
        .chain(climbing)
        .flat_map(|at| paths_from(&file.code, at))
}

/// The place after a chain of `super` that ends at the crate's root.
fn climbed_to_root(file: &File, at: usize) -> Option<usize> {
    let code = &file.code;
    if code.get(..at)?.ends_with("super::") {
        return None;
    }
    let chain = code.get(at..)?;
    let steps = chain
        .split("::")
        .take_while(|step| *step == "super")
        .count();
    // `pub(super)` and the like end in something else than a path.
    if steps == 0 {
        return None;
    }
    let inside = file.path.strip_prefix("src/")?;
    let folders = inside.matches('/').count();
    let is_folder_itself = inside.ends_with("/mod.rs");
    let depth = folders + usize::from(!is_folder_itself) + usize::from(file.is_in_test_module(at));
    (steps == depth).then(|| at + steps * "super::".len() - "::".len())
}

/// The paths that go on at `at`, which stands before `::`.
fn paths_from(code: &str, at: usize) -> Vec<Reach<'_>> {
    let Some(rest) = code.get(at..) else {
        return Vec::new();
    };
    if !rest.starts_with("::") {
        return Vec::new();
    }
    let at = at + "::".len();
    if code.as_bytes().get(at) != Some(&b'{') {
        return one_path(code, at).into_iter().collect();
    }
    let end = closing(code, at) - 1;
    items(code, at + 1, end)
        .into_iter()
        .filter_map(|at| one_path(code, at))
        .collect()
}

/// Where each item of a braced list begins; inner lists are passed over.
fn items(code: &str, from: usize, to: usize) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut depth = 0_usize;
    let mut is_new = true;
    for (at, byte) in code.bytes().enumerate().take(to).skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => is_new = true,
            _ if is_new && !byte.is_ascii_whitespace() => {
                starts.push(at);
                is_new = false;
            }
            _ => {}
        }
    }
    starts
}

fn one_path(code: &str, at: usize) -> Option<Reach<'_>> {
    let module = name_at(code, at);
    // A macro of the crate or a type at its root is no module.
    let is_module = module.chars().next().is_some_and(char::is_lowercase);
    let after = at + module.len();
    if !is_module || code.as_bytes().get(after) == Some(&b'!') {
        return None;
    }
    let has_more = code.get(after..)?.starts_with("::");
    let inner = has_more.then(|| name_at(code, after + "::".len()));
    Some(Reach {
        at,
        module,
        inner: inner.filter(|inner| !inner.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<(String, usize)> {
        let found = rule(&Tree::of(files));
        found.into_iter().map(|it| (it.path, it.line)).collect()
    }

    #[test]
    fn an_arrow_that_points_up_or_sideways_is_flagged() {
        let up = ("src/db/mod.rs", "use crate::app::App;");
        let own_row = (
            "src/posts/service.rs",
            "fn f() {\n  crate::orders::place();\n}",
        );
        let listed = ("src/rooms/mod.rs", "use crate::{ids::RoomId, orders};");
        let climbing = ("src/rooms/service.rs", "use super::super::orders;");
        let down = ("src/orders/service.rs", "use crate::{app::App, rooms};");
        let files = [up, own_row, listed, climbing, down];
        let expected = [
            ("src/db/mod.rs".to_owned(), 1),
            ("src/posts/service.rs".to_owned(), 2),
            ("src/rooms/mod.rs".to_owned(), 1),
            ("src/rooms/service.rs".to_owned(), 1),
        ];
        assert_eq!(flagged(point_down, &files), expected);
    }

    #[test]
    fn a_module_without_a_row_is_flagged() {
        let files = [
            ("src/extras/mod.rs", ""),
            ("src/app.rs", "use crate::extras::X;"),
        ];
        assert_eq!(flagged(point_down, &files).len(), 2);
    }

    #[test]
    fn comments_literals_and_the_root_files_make_no_arrow() {
        let files = [
            (
                "src/db/mod.rs",
                "// crate::orders\nconst A: &str = \"crate::orders::x\";",
            ),
            ("src/lib.rs", "pub use crate::serve::run;"),
            (
                "src/orders/store.rs",
                "pub(super) fn f() { super::model::g() }",
            ),
        ];
        assert_eq!(flagged(point_down, &files), []);
    }

    #[test]
    fn reaching_past_a_mod_rs_is_flagged() {
        let files = [
            ("src/orders/service.rs", "use crate::rooms::store::find;"),
            ("src/rooms/store.rs", "use crate::rooms::model::Room;"),
            ("src/rooms/model.rs", ""),
            ("src/posts/service.rs", "use crate::rooms::Room;"),
        ];
        let expected = [("src/orders/service.rs".to_owned(), 1)];
        assert_eq!(flagged(go_through_mod_rs, &files), expected);
    }

    #[test]
    fn only_its_three_users_may_name_the_media_core() {
        let files = [
            ("src/broadcasts/routes.rs", "use lamplight_media::whep;"),
            (
                "src/rooms/service.rs",
                "use lamplight_media::time::MediaTime;",
            ),
        ];
        let expected = [("src/rooms/service.rs".to_owned(), 1)];
        assert_eq!(flagged(media_has_one_door, &files), expected);
    }

    #[test]
    fn a_web_framework_in_the_media_core_is_flagged() {
        let manifest = "[dependencies]\nbytes = \"1\"\naxum.workspace = true\n";
        let expected = [("media/Cargo.toml".to_owned(), 3)];
        let files = [("media/Cargo.toml", manifest)];
        assert_eq!(flagged(media_knows_no_server, &files), expected);
    }
}
