//! `lamplight demo`: the server on defaults of its own, with a show that runs by itself.
//!
//! Invariants
//! - The printed line comes when every listener accepts; standard output holds nothing before it.
//! - Room, key and token stay the same over restarts: `demo.json` keeps them, readable by its
//!   owner only.

mod cards;
mod publisher;
mod seed;
mod summary;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::ValueEnum;

use self::seed::Seed;
pub(super) use self::seed::SeedError;
use self::summary::{Summary, reachable};
use super::cli::{self, Failure, Settings};
use super::{Server, descriptors, log};
use crate::clock::Clock;
use crate::config::Config;

/// What the demo changes of the defaults: a directory of its own, and no drain, since its show
/// would go on for ever.
const PRESETS: [&str; 2] = ["data_dir=./data/demo", "shutdown.drain_s=0"];

/// How the summary is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Print {
    /// For people
    Text,
    /// One JSON object on the first line
    Json,
}

/// The options of the demo.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Leave the room waiting for OBS
    #[arg(long)]
    no_publisher: bool,
    /// How to print the addresses
    #[arg(long, value_enum, default_value = "text")]
    print: Print,
}

/// Runs the demo until it is stopped.
pub(super) fn run(options: Options) -> Result<ExitCode, Failure> {
    let config = Config::load(&options.settings.sources(&PRESETS))?;
    drop(log::start(&config.log)?);
    descriptors::raise();
    cli::runtime()?.block_on(async {
        let server = Server::start(config, Clock::system()).await?;
        let seed = Seed::load_or_plant(server.app()).await?;
        let has_publisher = !options.no_publisher;
        let summary = Summary::new(server.bound(), &seed, has_publisher);
        if has_publisher {
            publisher::start(&server, reachable(server.bound().rtmp), &seed);
        }
        cli::say(&summary.render(options.print))?;
        cards::start(&server, seed.room);
        cli::stop_signal().await;
        Ok(cli::stop(server).await)
    })
}
