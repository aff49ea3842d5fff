//! `cargo xtask fuzz`: feeds the parsers of network bytes with what nobody would send.
//!
//! An input that fails is kept under `media/fuzz/artifacts`; moved into `media/fuzz/corpus` it is
//! replayed by the ordinary tests for ever.

use std::path::Path;

use anyhow::{bail, ensure};
use clap::Args;

use crate::command;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One target; without it all of them in turn
    target: Option<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    if !command::is_installed("cargo", &["fuzz", "--version"]) {
        bail!("cargo-fuzz is not installed: run `cargo install cargo-fuzz` once");
    }
    let folder = command::root().join("media/fuzz");
    let known = targets(&folder)?;
    let chosen = match &options.target {
        Some(target) => {
            ensure!(
                known.contains(target),
                "there is no fuzz target `{target}`; there are: {}",
                known.join(", ")
            );
            vec![target.clone()]
        }
        None => known,
    };
    chosen
        .iter()
        .try_for_each(|target| fuzz(&folder, target, options.seconds))
}

fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let manifest: toml::Table = std::fs::read_to_string(folder.join("Cargo.toml"))?.parse()?;
    let bins = manifest.get("bin").and_then(toml::Value::as_array);
    let names = bins.into_iter().flatten().filter_map(|bin| bin.get("name"));
    Ok(names
        .filter_map(toml::Value::as_str)
        .map(str::to_owned)
        .collect())
}

fn fuzz(folder: &Path, target: &str, seconds: u32) -> anyhow::Result<()> {
    // What is found goes into the first; the seeds of the repository are read only.
    let corpora = [
        format!("target/corpus/{target}"),
        format!("corpus/{target}"),
    ];
    for corpus in &corpora {
        std::fs::create_dir_all(folder.join(corpus))?;
    }
    let time = format!("-max_total_time={seconds}");
    // The bounds of media.md 11.1: 100 ms an input, 64 MiB above what the runtime itself takes.
    let limits = ["-timeout=1", "-rss_limit_mb=512", "-malloc_limit_mb=64"];
    let mut cargo = command::command("cargo", &["fuzz", "run", "--fuzz-dir", ".", target]);
    cargo.current_dir(folder).args(&corpora).args(["--", &time]);
    // The sanitizer flags need a nightly compiler, or a stable one that is told so.
    cargo.args(limits).env("RUSTC_BOOTSTRAP", "1");
    command::finish(&mut cargo)
}
