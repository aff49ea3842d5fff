//! `lamplight admin`: tasks for the owner of the machine.

use std::process::ExitCode;

use clap::Subcommand;

use super::cli::{self, Failure, Settings};
use super::{log, open};
use crate::accounts;
use crate::clock::Clock;

/// What an administrator does.
#[derive(Debug, Subcommand)]
pub(super) enum Task {
    /// Make an operator and print its API key, once
    CreateOperator {
        #[command(flatten)]
        settings: Settings,
        /// 3 to 30 letters, digits, _ - or .
        #[arg(long, value_name = "NAME")]
        handle: String,
    },
}

pub(super) fn run(task: Task) -> Result<ExitCode, Failure> {
    let Task::CreateOperator { settings, handle } = task;
    let config = settings.load()?;
    drop(log::start(&config.log)?);
    cli::runtime()?.block_on(async {
        let app = open(config, Clock::system()).await?;
        let made = accounts::create_operator(&app, &handle).await?;
        app.db.close().await;
        let (name, account, key) = (made.handle, made.account, made.api_key);
        cli::say(&format!(
            "operator  {name}  {account}\nAPI key   {key}\nKeep the key: it is not shown again.\n"
        ))?;
        Ok(ExitCode::SUCCESS)
    })
}
