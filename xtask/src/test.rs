//! `cargo xtask test`: the ordinary test build, and the server's tests on PostgreSQL.
//!
//! The corpora of the fuzz targets are replayed by the ordinary tests of `media`. End to end is a
//! command of its own (`cargo xtask e2e`).

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, ValueEnum};

use crate::command;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The database of the server's store and HTTP tests
    #[arg(long, value_enum, default_value_t = Database::Sqlite)]
    db: Database,
    /// Run only the tests whose name contains this
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Database {
    Sqlite,
    Postgres,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match options.db {
        Database::Sqlite => {
            run_tests(&["--workspace"], options)?;
            if options.filter.is_none() {
                // nextest runs no doc tests.
                command::run("cargo", &["test", "--workspace", "--doc"])?;
            }
            reject_new_snapshots(command::root())
        }
        // The media core has no database: only the server's package runs again.
        Database::Postgres => run_tests(&["--package", "lamplight"], options),
    }
}

fn run_tests(packages: &[&str], options: &Options) -> anyhow::Result<()> {
    let has_nextest = command::is_installed("cargo", &["nextest", "--version"]);
    let mut words = vec!["test"];
    if has_nextest {
        words = vec!["nextest", "run", "--no-fail-fast"];
    }
    words.extend(packages);
    if !has_nextest {
        words.extend(["--lib", "--bins", "--tests", "--no-fail-fast"]);
    }
    words.extend(options.filter.as_deref());
    let mut tests = command::command("cargo", &words);
    // A snapshot that differs fails the test; it is never accepted by the run itself.
    tests.env("INSTA_UPDATE", "no");
    if options.db == Database::Postgres {
        tests.env("LAMPLIGHT_TEST_DB", "postgres");
    }
    command::finish(&mut tests)
}

/// A pending snapshot is always rejected, an unused one where cargo-insta is there to tell.
fn reject_new_snapshots(root: &Path) -> anyhow::Result<()> {
    let pending = pending_snapshots(root)?;
    if let Some(first) = pending.first() {
        bail!(
            "{} snapshots wait for review, the first is {}: read the difference, then accept it \
             with `cargo insta review` or delete it",
            pending.len(),
            first.display()
        );
    }
    if !command::is_installed("cargo", &["insta", "--version"]) {
        return Ok(());
    }
    command::run(
        "cargo",
        &[
            "insta",
            "test",
            "--workspace",
            "--unreferenced=reject",
            "--check",
        ],
    )
}

fn pending_snapshots(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    const SKIPPED: [&str; 4] = [".git", ".tools", "node_modules", "target"];
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.contains(&name.as_ref()) {
                found.extend(pending_snapshots(&entry.path())?);
            }
        } else if name.ends_with(".snap.new") || name.ends_with(".pending-snap") {
            found.push(entry.path());
        }
    }
    Ok(found)
}
