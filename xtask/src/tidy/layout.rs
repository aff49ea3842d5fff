//! Files: their length, their names, their first line, and the inner shape of a module.

use super::tree::{File, Tree};
use super::{Finding, arrows};

const LINES_MAX: usize = 700;
const COLUMNS_MAX: usize = 100;
const WRITTEN: [&str; 8] = [".rs", ".ts", ".tsx", ".mjs", ".css", ".sh", ".sql", ".html"];
const BANNED: [&str; 8] = [
    "common", "helper", "helpers", "misc", "type", "types", "util", "utils",
];
/// A product module, from accounts upwards, has files of these names.
const SHAPE: [&str; 7] = [
    "mod", "model", "store", "service", "routes", "jobs", "tests",
];
/// What else a module holds, and why it is not one of the files above.
const MORE: [(&str, &str, &str); 53] = [
    ("orders", "views", "orders as the wire shows them"),
    ("rooms", "replay", "cards on the clock of a recording"),
    (
        "rooms",
        "clock",
        "room time: one clock over all instances of a room's media",
    ),
    ("rooms", "envelope", "what a card says, to the byte"),
    ("rooms", "goods", "what rooms ask of the catalogue"),
    (
        "rooms",
        "offers",
        "which price is in force, and the tokens that promise it",
    ),
    (
        "rooms",
        "shelf",
        "which products a room sells, in which order",
    ),
    ("rooms", "timeline", "the state that cards fold to"),
    (
        "live",
        "hub",
        "one audience per room, for which everything is rendered once",
    ),
    (
        "live",
        "stream",
        "one open stream: the state first, then what follows",
    ),
    ("catalog", "sequencer", "the one writer of stock"),
    (
        "catalog",
        "goods",
        "what an order needs to know of variants",
    ),
    (
        "catalog",
        "stock",
        "stock over HTTP, apart from shops and products",
    ),
    (
        "orders",
        "place",
        "placing, as a rider on the reservation of stock",
    ),
    (
        "orders",
        "pay",
        "paying out of a wallet, as a rider on the confirmation of stock",
    ),
    (
        "orders",
        "close",
        "expiring and cancelling, as a rider on the release of stock",
    ),
    (
        "payments",
        "post",
        "posting recipes, with the accounts they need",
    ),
    (
        "payments",
        "split",
        "splitting amounts without losing a unit",
    ),
    ("orders", "ship", "parcels of an order"),
    ("orders", "complete", "receipt, the split, and its release"),
    ("ledger", "signer", "the key that signs day closes"),
    ("ledger", "book", "what posting does, on accounts in memory"),
    (
        "ledger",
        "verify",
        "everything computed anew from the transfers, and compared",
    ),
    ("payments", "recipes", "which transfers each cause makes"),
    (
        "broadcasts",
        "running",
        "what runs now, over the API: broadcasts, their sessions, ending one",
    ),
    (
        "broadcasts",
        "playback",
        "who may watch a room that is not public: tokens, and what they open",
    ),
    (
        "broadcasts",
        "admission",
        "whether this node has room for one more: egress and memory",
    ),
    ("broadcasts", "thumb", "thumbnails of live rooms"),
    (
        "broadcasts",
        "flv",
        "HTTP-FLV: requests to viewers of the media core",
    ),
    (
        "broadcasts",
        "play",
        "RTMP play: requests of its connections to grants",
    ),
    (
        "broadcasts",
        "metrics",
        "what the media core counted, as text for a collector",
    ),
    (
        "broadcasts",
        "whep",
        "WHEP over HTTP: a protocol's routes, apart from those of the others",
    ),
    (
        "broadcasts",
        "whip",
        "WHIP over HTTP: a protocol's routes, apart from those of the others",
    ),
    (
        "broadcasts",
        "signal",
        "what WHIP and WHEP have in common over HTTP",
    ),
    (
        "broadcasts",
        "hls",
        "LL-HLS over HTTP: a protocol's routes, apart from those of the others",
    ),
    (
        "broadcasts",
        "outputs",
        "what is made of a live broadcast, started and stopped with it",
    ),
    (
        "broadcasts",
        "cues",
        "timed data handed to the media core, by routes and by higher modules",
    ),
    (
        "broadcasts",
        "recording",
        "recordings: their store, who writes it, and replays over HTTP",
    ),
    (
        "rooms",
        "cards",
        "the room's timeline: numbered, enveloped, carried by cues",
    ),
    (
        "accounts",
        "audit",
        "the audit log, which the changes of all modules write",
    ),
    (
        "creators",
        "rights",
        "what operators may do: bits, presets, and the question whether one may",
    ),
    (
        "creators",
        "operators",
        "who operates a creator, over HTTP: invitations, changes, ends",
    ),
    (
        "accounts",
        "me",
        "what people do with their own account, over HTTP",
    ),
    (
        "accounts",
        "password",
        "which passwords are good enough, and how they are hashed",
    ),
    ("accounts", "keys", "API keys: their rows"),
    ("accounts", "sessions", "logins that are open: their rows"),
    (
        "accounts",
        "scopes",
        "what callers may do: roles, and the scopes of keys",
    ),
    (
        "accounts",
        "extract",
        "who is calling, which the handlers of all modules take",
    ),
    ("catalog", "access", "who may do what in a shop"),
    (
        "catalog",
        "merchants",
        "shops, their staff and keys: objects of their own beside products",
    ),
    (
        "catalog",
        "prices",
        "price windows, and which of them is in force",
    ),
    (
        "catalog",
        "bulk",
        "files of products and prices, a line each",
    ),
    (
        "catalog",
        "views",
        "products as the wire shows them, for lists, reads and writes",
    ),
];
/// The modules with the inner shape: below are the foundations, above is what starts them all.
const FIRST_PRODUCT: &str = "accounts";
const ENTRY: &str = "router";

pub(super) fn files_are_short(tree: &Tree) -> Vec<Finding> {
    let written = tree.files().iter().filter(|file| is_written(file));
    written
        .filter_map(|file| {
            let lines = file.lines_without_tests();
            let says = format!("{lines} lines without tests, {LINES_MAX} is the limit");
            (lines > LINES_MAX).then(|| Finding::new(&file.path, LINES_MAX + 1, says))
        })
        .collect()
}

fn is_written(file: &File) -> bool {
    WRITTEN.iter().any(|ending| file.path.ends_with(ending))
}

pub(super) fn files_are_named_for_the_field(tree: &Tree) -> Vec<Finding> {
    let written = tree.files().iter().filter(|file| is_written(file));
    written
        .filter_map(|file| {
            let folders = file.path.rsplit('/').skip(1);
            let mut names = folders.chain(std::iter::once(file.stem()));
            let bad = names.find(|name| BANNED.contains(name))?;
            let says = format!("`{bad}` says nothing about what is inside: name it for that");
            Some(Finding::new(&file.path, 1, says))
        })
        .collect()
}

pub(super) fn modules_have_one_shape(tree: &Tree) -> Vec<Finding> {
    let rust = tree.under("src/").filter(|file| file.is_rust());
    rust.filter_map(|file| {
        let module = arrows::module(&file.path)?;
        let row = arrows::row(module)?;
        let inside = file
            .path
            .strip_prefix("src/")?
            .strip_prefix(module)?
            .strip_prefix('/')?;
        let inner = inside.strip_suffix(".rs")?;
        // Tests that outgrow their file become a folder of that name.
        let first = inner.split('/').next()?;
        let is_known = SHAPE.contains(&inner)
            || first == "tests"
            || MORE
                .iter()
                .any(|&(of, name, _)| of == module && name == first);
        let has_shape = (arrows::row(FIRST_PRODUCT)?..arrows::row(ENTRY)?).contains(&row);
        let says =
            format!("`{inner}` is none of {SHAPE:?}; put it in one, or name it in tidy's list");
        (has_shape && !is_known).then(|| Finding::new(&file.path, 1, says))
    })
    .collect()
}

pub(super) fn files_say_what_they_are_for(tree: &Tree) -> Vec<Finding> {
    tree.rust()
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| {
            Finding::new(
                &file.path,
                1,
                "the first line is not `//!`: say what it is for",
            )
        })
        .collect()
}

pub(super) fn lines_fit(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (index, line) in file.text.lines().enumerate() {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                let says = format!("{columns} columns, {COLUMNS_MAX} is the limit");
                found.push(Finding::new(&file.path, index + 1, says));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flagged(rule: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)]) -> Vec<String> {
        let found = rule(&Tree::of(files));
        found.into_iter().map(|it| it.path).collect()
    }

    #[test]
    fn a_long_file_is_flagged_and_its_tests_do_not_count() {
        let long = "\n".repeat(LINES_MAX + 1);
        let tests = "    fn t() {}\n".repeat(LINES_MAX);
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{tests}}}\n");
        let files = [
            ("src/a.rs", long.as_str()),
            ("src/b.rs", &tested),
            ("x.ts", &long),
        ];
        assert_eq!(flagged(files_are_short, &files), ["src/a.rs", "x.ts"]);
    }

    #[test]
    fn a_name_that_says_nothing_is_flagged() {
        let files = [
            ("src/http/utils.rs", ""),
            ("web/src/helpers/money.ts", ""),
            ("src/http/page.rs", ""),
        ];
        let expected = ["src/http/utils.rs", "web/src/helpers/money.ts"];
        assert_eq!(flagged(files_are_named_for_the_field, &files), expected);
    }

    #[test]
    fn a_file_outside_the_shape_of_a_product_module_is_flagged() {
        let files = [
            ("src/rooms/store.rs", ""),
            ("src/rooms/sql.rs", ""),
            ("src/rooms/tests/cards.rs", ""),
            ("src/events/outbox.rs", ""),
            ("src/serve/demo.rs", ""),
        ];
        assert_eq!(
            flagged(modules_have_one_shape, &files),
            ["src/rooms/sql.rs"]
        );
    }

    #[test]
    fn a_file_without_a_header_is_flagged() {
        let files = [
            ("src/a.rs", "use std::fmt;\n"),
            ("src/b.rs", "//! What b is.\n"),
        ];
        assert_eq!(flagged(files_say_what_they_are_for, &files), ["src/a.rs"]);
    }

    #[test]
    fn a_wide_line_is_flagged_by_characters_not_bytes() {
        let wide = "x".repeat(COLUMNS_MAX + 1);
        let full = "é".repeat(COLUMNS_MAX);
        let files = [("src/a.rs", wide.as_str()), ("src/b.rs", &full)];
        assert_eq!(flagged(lines_fit, &files), ["src/a.rs"]);
    }
}
