//! `lamplight doctor`: looks at this machine and says what to change.
//!
//! Invariant: it changes nothing; what is missing and made at the first start stays missing.

mod data;
mod machine;
mod network;

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use super::cli::{self, Failure, Settings};
use crate::clock::Clock;
use crate::config::{Config, ConfigError};

/// The options of the doctor.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Print the findings as one JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// The server runs, but not as well as it could.
    Warn,
    /// The server does not start, or somebody sees nothing.
    Fail,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// What one check found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    verdict: Verdict,
    /// A key of the configuration, or a name.
    check: &'static str,
    text: String,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, check, text)
    }

    fn warn(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Warn, check, text)
    }

    fn fail(check: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Fail, check, text)
    }

    fn new(verdict: Verdict, check: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            verdict,
            check,
            text,
        }
    }
}

pub(super) fn run(options: Options) -> Result<ExitCode, Failure> {
    let findings = match options.settings.load() {
        Ok(config) => examine(&config, Clock::system())?,
        Err(ConfigError { lines }) => lines
            .into_iter()
            .map(|line| Finding::fail("config", line))
            .collect(),
    };
    let text = if options.json {
        let json = serde_json::to_string_pretty(&findings);
        format!("{}\n", json.expect("findings are plain text"))
    } else {
        rendered(&findings)
    };
    cli::say(&text)?;
    let is_ill = findings.iter().any(|f| f.verdict == Verdict::Fail);
    Ok(if is_ill {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn examine(config: &Config, clock: Clock) -> Result<Vec<Finding>, Failure> {
    let runtime = cli::runtime()?;
    let database = runtime.block_on(data::database(config));
    let mut findings = machine::encoders(&config.convert);
    findings.extend(network::ports(config));
    findings.extend(machine::udp_buffers());
    findings.push(network::public_address(&config.webrtc));
    findings.push(machine::descriptors());
    findings.push(data::folder(&config.data_dir));
    findings.push(data::free_space(&config.data_dir));
    findings.push(data::key_file(&config.data_dir));
    #[cfg(feature = "s3")]
    findings.extend(runtime.block_on(data::store(config)));
    findings.push(database);
    findings.push(machine::clock(clock.now()));
    findings.push(network::certificate(&config.http, clock.now()));
    Ok(findings)
}

/// One line each.
fn rendered(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut out, finding| {
        let Finding {
            verdict,
            check,
            text,
        } = finding;
        let word = verdict.word();
        writeln!(out, "{word:<4}  {check}: {text}").expect("a String takes every write");
        out
    })
}
