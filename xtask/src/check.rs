//! `cargo xtask check`: everything that reads the code without running it.
//!
//! A tool that is not installed is named and passed over: it is never compiled here, since that
//! would cost more than the rest of the check. `nightly.yml` installs and runs all of them.

use crate::{command, tidy};

pub(crate) fn run() -> anyhow::Result<()> {
    // The house rules come first: they need a second, clippy needs minutes.
    tidy::run()?;
    lint()?;
    check_dependencies()
}

fn lint() -> anyhow::Result<()> {
    command::run("cargo", &["fmt", "--all", "--check"])?;
    command::run(
        "cargo",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    )?;
    // Left out of --all-targets because the ordinary test run leaves it out too.
    command::run(
        "cargo",
        &["clippy", "--test", "e2e", "--", "-D", "warnings"],
    )?;
    let mut doc = command::command(
        "cargo",
        &[
            "doc",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ],
    );
    command::finish(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn check_dependencies() -> anyhow::Result<()> {
    if command::is_installed("cargo", &["deny", "--version"]) {
        command::run("cargo", &["deny", "check", "bans", "licenses", "sources"])?;
        check_advisories();
    } else {
        eprintln!("xtask: skipped cargo-deny (not installed): licences, bans, advisories");
    }
    if command::is_installed("cargo", &["machete", "--version"]) {
        command::run("cargo", &["machete"])?;
    } else {
        eprintln!("xtask: skipped cargo-machete (not installed): unused dependencies");
    }
    Ok(())
}

/// Advisories count only where their database can be fetched.
fn check_advisories() {
    match command::run("cargo", &["deny", "check", "advisories"]) {
        Ok(()) => {}
        Err(error) => eprintln!("xtask: advisories not checked or not clean here: {error}"),
    }
}
