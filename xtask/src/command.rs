//! Running other programs from the root of the repository, each echoed before it starts.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// The root of the repository, wherever `cargo xtask` was called.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the repository")
}

/// A command that runs in the root; the project's own Node, where there is one, comes first.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    let own_node = root().join(".tools/node_modules/.bin");
    if own_node.is_dir() {
        command.env("PATH", path_with(own_node));
    }
    command
}

fn path_with(first: PathBuf) -> std::ffi::OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first).chain(std::env::split_paths(&rest));
    std::env::join_paths(all).expect("an entry of PATH has no separator in it")
}

/// Runs to the end; an exit code other than 0 is an error that names the command.
pub(crate) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    finish(&mut command(program, arguments))
}

/// As [`run`], for a command with an environment or a folder of its own.
pub(crate) fn finish(command: &mut Command) -> anyhow::Result<()> {
    let line = shown(command);
    eprintln!("xtask: {line}");
    let status = command
        .status()
        .with_context(|| format!("starting `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// What a command prints, trimmed.
pub(crate) fn read(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = command(program, arguments);
    let line = shown(&command);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("starting `{line}`"))?;
    ensure!(
        output.status.success(),
        "`{line}` failed ({})",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Whether a program is there and answers `--version`.
pub(crate) fn is_installed(program: &str, arguments: &[&str]) -> bool {
    command(program, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}
