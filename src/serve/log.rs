//! Logs: to standard error, so that standard output belongs to what a command prints.

use tracing::{Subscriber, error};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Log, LogFormat};

/// The WebRTC stack warns about every connection; what matters of it is logged by the core.
const QUIET: &str = "rtc=error,sqlx=warn,hyper=warn,h2=warn";

/// What is logged from now on can be changed with it.
#[derive(Clone, Debug)]
pub(super) struct Level(reload::Handle<EnvFilter, Registry>);

impl Level {
    pub(super) fn set(&self, level: &str) {
        if let Err(err) = self.0.reload(filter(level)) {
            let err = &err as &dyn std::error::Error;
            error!(error = err, "the log level stays as it was");
        }
    }
}

/// Starts logging for the whole process.
pub(super) fn start(config: &Log) -> Result<Level, TryInitError> {
    let (subscriber, level) = subscriber(config, std::io::stderr);
    subscriber.try_init()?;
    Ok(level)
}

fn subscriber<W>(config: &Log, writer: W) -> (impl Subscriber + Send + Sync, Level)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&config.level));
    let lines = fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let subscriber = Registry::default().with(filter).with(lines);
    (subscriber, Level(handle))
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::builder().parse_lossy(format!("{QUIET},{level}"))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where the lines of a test go.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_level_changes_while_running() {
        let lines = Lines::default();
        let config = Log {
            level: "info".into(),
            format: LogFormat::Text,
        };
        let writer = lines.clone();
        let (subscriber, level) = subscriber(&config, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("one");
            level.set("debug");
            tracing::debug!("two");
            level.set("warn");
            tracing::info!("three");
            tracing::warn!("four");
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let words = ["one", "two", "three", "four"];
        let heard = words.map(|word| said.contains(word));
        assert_eq!(heard, [false, true, false, true], "{said}");
    }
}
