//! Logs: to standard error, so that standard output belongs to what a command prints.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::TryInitError;

use crate::config::{Log, LogFormat};

/// The WebRTC stack warns about every connection; what matters of it is logged by the core.
const QUIET: &str = "rtc=error,sqlx=warn,hyper=warn,h2=warn";

/// Starts logging for the whole process.
pub(super) fn start(config: &Log) -> Result<(), TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let filter = EnvFilter::builder().parse_lossy(format!("{QUIET},{}", config.level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder.with_ansi(false).finish().try_init(),
        LogFormat::Json => builder.json().finish().try_init(),
    }
}
