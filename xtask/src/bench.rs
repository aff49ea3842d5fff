//! `cargo xtask bench`: measures what the design promises, in release, one bench or all.

use clap::Args;

use crate::command;

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// One bench target, for example `whep_fan_out`; without it all of them
    bench: Option<String>,
    /// Keep the result under this name, to compare with later
    #[arg(long, conflicts_with = "against")]
    save: Option<String>,
    /// Compare with the result kept under this name
    #[arg(long)]
    against: Option<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut words = vec!["bench", "--workspace"];
    match &options.bench {
        Some(bench) => words.extend(["--bench", bench]),
        None => words.push("--benches"),
    }
    if let Some(name) = &options.save {
        words.extend(["--", "--save-baseline", name]);
    }
    if let Some(name) = &options.against {
        words.extend(["--", "--baseline", name]);
    }
    command::run("cargo", &words)
}
