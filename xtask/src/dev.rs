//! `cargo xtask dev`: the demo server and the pages with hot reload, until the server ends.

use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::{command, web};

pub(crate) fn run() -> anyhow::Result<()> {
    web::install("web")?;
    command::run("cargo", &["build", "--bin", "lamplight"])?;
    let mut vite = command::command("npm", &["run", "dev"]);
    vite.current_dir(command::root().join("web"));
    let _pages = Running::start(vite.stdin(Stdio::null()))?;
    if command::is_installed("xdg-open", &["--version"]) {
        // Vite answers at once and proxies to the server, which needs under a second.
        let mut browser = command::command("xdg-open", &["http://127.0.0.1:5173/"]);
        drop(Running::detached(&mut browser)?);
    }
    command::run("cargo", &["run", "--bin", "lamplight", "--", "demo"])
}

/// A child that ends with its owner.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn();
        Ok(Self(
            child.with_context(|| format!("starting {command:?}"))?,
        ))
    }

    fn detached(command: &mut Command) -> anyhow::Result<Child> {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.spawn()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
