//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use super::demo::SeedError;
use super::reload::Reload;
use super::{Server, StartError, admin, demo, descriptors, doctor, log, open, verify};
use crate::accounts::{CreateAccountError, CreateOperatorError, GrantRoleError};
use crate::clock::Clock;
use crate::config::{Config, ConfigError, Sources};
use crate::rooms::KeyFileError;
use crate::router;

/// Live media in and out, and what is needed to sell live.
#[derive(Debug, Parser)]
#[command(name = "lamplight", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(Settings),
    /// Run the server with a show of its own and print where to watch it
    Demo(demo::Options),
    /// Tasks for the owner of the machine
    #[command(subcommand)]
    Admin(admin::Task),
    /// Look at this machine and say what to change
    Doctor(doctor::Options),
    /// Look after the ledger
    #[command(subcommand)]
    Ledger(verify::Task),
    /// Bring the schema of the database up to date
    Migrate(Settings),
    /// Print the OpenAPI document
    #[command(hide = true)]
    Openapi,
}

/// Where settings come from.
#[derive(Args, Clone, Debug)]
pub(super) struct Settings {
    /// A TOML file; config/default.toml lists every key
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of records, media and key files
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// One key; wins over file and environment; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl Settings {
    pub(super) fn load(self) -> Result<Config, ConfigError> {
        Config::load(&self.sources(&[]))
    }

    /// `presets` stand in for the defaults.
    pub(super) fn sources(self, presets: &[&str]) -> Sources {
        let mut settings = self.set;
        if let Some(dir) = self.data_dir {
            settings.push(format!("data_dir={dir:?}"));
        }
        Sources {
            presets: presets.iter().map(|&preset| preset.into()).collect(),
            file: self.config,
            environment: true,
            settings,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Operator(#[from] CreateOperatorError),
    #[error(transparent)]
    Account(#[from] CreateAccountError),
    #[error(transparent)]
    Role(#[from] GrantRoleError),
    #[error(transparent)]
    OfferKeys(#[from] KeyFileError),
    #[error(transparent)]
    Seed(#[from] SeedError),
    #[error("reading the ledger")]
    Ledger(#[source] sqlx::Error),
    #[error("starting the runtime")]
    Runtime(#[source] std::io::Error),
    #[error("writing to standard output")]
    Output(#[source] std::io::Error),
    #[error("starting the log")]
    Log(#[from] tracing_subscriber::util::TryInitError),
}

/// Reads the arguments and runs the command.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            for line in describe(&failure).lines() {
                // Nobody is left to tell when standard error is closed.
                drop(writeln!(std::io::stderr(), "lamplight: {line}"));
            }
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(settings) => {
            let sources = settings.sources(&[]);
            let config = Config::load(&sources)?;
            let level = log::start(&config.log)?;
            descriptors::raise();
            runtime()?.block_on(async {
                let reload = Reload::on_hangup(sources, level).map_err(Failure::Runtime)?;
                let server = Server::start(config, Clock::system()).await?;
                tokio::select! {
                    () = stop_signal() => {}
                    () = reload.run(&server) => {}
                }
                Ok(stop(server).await)
            })
        }
        Command::Demo(options) => demo::run(options),
        Command::Doctor(options) => doctor::run(options),
        Command::Admin(task) => admin::run(task),
        Command::Ledger(task) => verify::run(task),
        Command::Migrate(settings) => {
            let config = settings.load()?;
            drop(log::start(&config.log)?);
            runtime()?.block_on(migrate(config))
        }
        Command::Openapi => {
            say(&router::document())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::Runtime)
}

async fn migrate(config: Config) -> Result<ExitCode, Failure> {
    let app = open(config, Clock::system()).await?;
    app.db.close().await;
    say("the schema is up to date\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Drains after a stop signal; a second one ends the process at once.
pub(super) async fn stop(server: Server) -> ExitCode {
    info!("stopping");
    let drain = server.app().config().shutdown.drain;
    tokio::select! {
        _left = server.stop(drain) => ExitCode::SUCCESS,
        () = stop_signal() => ExitCode::FAILURE,
    }
}

/// Waits for SIGTERM or SIGINT.
pub(super) async fn stop_signal() {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match signals {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(err), _) | (_, Err(err)) => {
            error!(
                error = &err as &dyn std::error::Error,
                "cannot hear stop signals"
            );
            std::future::pending().await
        }
    }
}

pub(super) fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(Failure::Output)
}

/// An error with its causes.
pub(super) fn describe(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut cause = err.source();
    while let Some(err) = cause {
        text = format!("{text}: {err}");
        cause = err.source();
    }
    text
}
