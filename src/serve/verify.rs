//! `lamplight ledger verify`: whether the books are what their transfers say.

use std::process::ExitCode;

use clap::Subcommand;

use super::cli::{self, Failure, Settings};
use super::{log, open};
use crate::clock::Clock;
use crate::ledger;

/// What is done with the ledger.
#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Compute everything anew from the transfers and compare; exit code 1 when something differs
    Verify {
        #[command(flatten)]
        settings: Settings,
        /// Check the chain of hashes from this transfer on, and no balances
        #[arg(long, value_name = "SEQ")]
        from: Option<i64>,
    },
}

pub(super) fn run(task: Task) -> Result<ExitCode, Failure> {
    let Task::Verify { settings, from } = task;
    let config = settings.load()?;
    drop(log::start(&config.log)?);
    cli::runtime()?.block_on(async {
        let app = open(config, Clock::system()).await?;
        let report = ledger::verify(&app.db, from).await;
        app.db.close().await;
        let report = report.map_err(Failure::Ledger)?;
        cli::say(&format!("{report}\n"))?;
        Ok(if report.is_clean() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    })
}
