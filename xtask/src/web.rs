//! `cargo xtask web`: builds the pages into `web/dist`, which the server embeds.

use clap::Args;

use crate::command;

#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Check the types and run the unit tests first
    #[arg(long)]
    test: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    install("web")?;
    if options.test {
        npm("web", &["run", "check"])?;
        npm("web", &["test"])?;
    }
    npm("web", &["run", "build"])
}

/// Installs exactly what the lock file names, unless it already stands there.
pub(crate) fn install(folder: &str) -> anyhow::Result<()> {
    let at = command::root().join(folder);
    let wanted = std::fs::read(at.join("package-lock.json"))?;
    let stamp = at.join("node_modules/.lamplight-lock.json");
    if std::fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    npm(folder, &["ci", "--no-audit", "--no-fund"])?;
    std::fs::write(stamp, wanted)?;
    Ok(())
}

fn npm(folder: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut npm = command::command("npm", arguments);
    command::finish(npm.current_dir(command::root().join(folder)))
}
