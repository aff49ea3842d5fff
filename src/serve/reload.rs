//! Reading the configuration again: on SIGHUP, from the same sources.
//!
//! Invariant: a configuration or certificate with any fault changes nothing.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use super::{Server, TlsError, log};
use crate::broadcasts;
use crate::config::{Config, Sources};
use crate::rooms;

/// Waits for the signal and knows where to read.
#[derive(Debug)]
pub(super) struct Reload {
    sources: Sources,
    level: log::Level,
    hangup: Signal,
}

impl Reload {
    /// From now on the signal no longer ends the process.
    pub(super) fn on_hangup(sources: Sources, level: log::Level) -> std::io::Result<Self> {
        let hangup = signal(SignalKind::hangup())?;
        Ok(Self {
            sources,
            level,
            hangup,
        })
    }

    /// Reads again at each signal, for as long as it is polled.
    pub(super) async fn run(mut self, server: &Server) {
        loop {
            match self.hangup.recv().await {
                Some(()) => self.reload(server),
                None => std::future::pending().await,
            }
        }
    }

    fn reload(&self, server: &Server) {
        let newer = match Config::load(&self.sources) {
            Ok(newer) => newer,
            Err(refused) => {
                for line in refused.lines {
                    error!(config.fault = line, "the configuration stays as it was");
                }
                return;
            }
        };
        match server.reload(&newer) {
            Ok(left) => {
                for key in left {
                    warn!(config.key = key, "needs a restart");
                }
                self.level.set(&server.app.config().log.level);
                if let Err(err) = rooms::open_offer_keys(&server.app) {
                    let err = &err as &dyn std::error::Error;
                    error!(error = err, "the keys of offers stay as they were");
                }
                info!("configuration read again");
            }
            Err(err) => error!(
                error = &err as &dyn std::error::Error,
                "the configuration stays as it was"
            ),
        }
    }
}

impl Server {
    /// Takes what may change while running; returns the other keys that differ. The certificate is
    /// read again even if its files have the same names.
    ///
    /// # Errors
    /// [`TlsError`] when the certificate will not do: then nothing has changed.
    pub fn reload(&self, newer: &Config) -> Result<Vec<String>, TlsError> {
        let app = &self.app;
        let (next, left) = app.config().reloaded(newer);
        if let Some((tls, files)) = self.tls.as_ref().zip(next.http.tls.as_ref()) {
            tls.replace(files)?;
        }
        app.media.set_limits(super::media_limits(&next));
        let webrtc = &next.webrtc;
        let port = Some(webrtc.public_port).filter(|port| *port != 0);
        broadcasts::set_public(app, webrtc.public_addrs.clone(), port);
        app.current.replace(next);
        Ok(left)
    }
}
