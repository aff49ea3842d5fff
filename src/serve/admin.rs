//! `lamplight admin`: tasks for the owner of the machine.

use std::process::ExitCode;

use clap::Subcommand;

use super::cli::{self, Failure, Settings};
use super::{log, open};
use crate::accounts::{self, Role};
use crate::app::App;
use crate::clock::Clock;
use crate::rooms;

const ROLES: &str = "operator|moderator|ads_reviewer|policy_author|policy_approver|auditor";

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
    /// Make an account and print its password and recovery codes, once
    CreateAccount {
        #[command(flatten)]
        settings: Settings,
        /// 3 to 30 letters, digits, _ - or .
        #[arg(long, value_name = "NAME")]
        handle: String,
    },
    /// Make a fresh key for offers; the former one verifies for 24 h more
    RotateOfferKey {
        #[command(flatten)]
        settings: Settings,
    },
    /// Give an account a role of the platform
    GrantRole {
        #[command(flatten)]
        settings: Settings,
        /// Whose account
        #[arg(long, value_name = "NAME")]
        handle: String,
        /// The role
        #[arg(long, value_parser = role, value_name = ROLES)]
        role: Role,
    },
}

pub(super) fn run(task: Task) -> Result<ExitCode, Failure> {
    let settings = match &task {
        Task::CreateOperator { settings, .. }
        | Task::CreateAccount { settings, .. }
        | Task::RotateOfferKey { settings }
        | Task::GrantRole { settings, .. } => settings.clone(),
    };
    let config = settings.load()?;
    drop(log::start(&config.log)?);
    cli::runtime()?.block_on(async {
        let app = open(config, Clock::system()).await?;
        let said = follow(&app, task).await;
        app.db.close().await;
        cli::say(&said?)?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Does the task; what to tell.
async fn follow(app: &App, task: Task) -> Result<String, Failure> {
    match task {
        Task::CreateOperator { handle, .. } => {
            let made = accounts::create_operator(app, &handle).await?;
            let (name, account, key) = (made.handle, made.account, made.api_key);
            Ok(format!(
                "operator  {name}  {account}\nAPI key   {key}\nKeep the key: it is not shown \
                 again.\n"
            ))
        }
        Task::CreateAccount { handle, .. } => {
            let (made, password) = accounts::create_account(app, &handle).await?;
            let (account, codes) = (made.id, made.recovery_codes.join("\n          "));
            Ok(format!(
                "account   {account}\npassword  {password}\nrecovery  {codes}\nKeep these: they \
                 are not shown again.\n"
            ))
        }
        Task::RotateOfferKey { .. } => {
            let key = rooms::rotate_offer_keys(app)?;
            Ok(format!(
                "key {key} is made; a server that runs signs with it after SIGHUP or a restart\n"
            ))
        }
        Task::GrantRole { handle, role, .. } => {
            let account = accounts::grant_role(app, &handle, role).await?;
            Ok(format!("{account} is {} now\n", role.as_str()))
        }
    }
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).ok_or_else(|| format!("one of {ROLES}"))
}
