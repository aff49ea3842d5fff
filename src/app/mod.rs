//! App: the handles every part of the server may use.
//!
//! Invariant: everything here is a cheap handle; the state behind it has its own owner.
//!
//! Not here: any rule.

mod parts;
mod secrets;
#[cfg(test)]
mod testing;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use lamplight_media::broadcast::Broadcasts;
use tokio::sync::watch;

pub(crate) use self::parts::Parts;
pub use self::secrets::{Secrets, SecretsError};
pub(crate) use self::secrets::{hash, hex, new_secret};
#[cfg(test)]
pub(crate) use self::testing::{Fixture, begin};
use crate::clock::Clock;
use crate::config::{Config, Current};
use crate::db::Db;
use crate::events::Bus;
use crate::tasks::Tasks;

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Starting,
    Running,
    /// No new sessions; those that run are told to go elsewhere.
    Draining,
    /// Connections end.
    Stopping,
}

/// The addresses the listeners really have, for ports given as 0.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    pub http: SocketAddr,
    /// None without a certificate.
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub rtmp: SocketAddr,
    /// None unless it is set.
    pub rtmps: Option<SocketAddr>,
    pub webrtc: SocketAddr,
}

/// The handles of one server.
#[derive(Clone, Debug)]
pub struct App(Arc<Handles>);

/// What an [`App`] points to.
#[derive(Debug)]
pub struct Handles {
    pub current: Current,
    pub clock: Clock,
    pub db: Db,
    pub bus: Bus,
    pub tasks: Tasks,
    pub media: Arc<Broadcasts>,
    pub secrets: Secrets,
    pub phase: watch::Sender<Phase>,
    /// Set once every listener is open.
    pub bound: OnceLock<Bound>,
    pub(crate) parts: Parts,
}

impl App {
    pub(crate) fn new(handles: Handles) -> Self {
        Self(Arc::new(handles))
    }

    /// The configuration in force: read it where it is needed, since it may change.
    pub fn config(&self) -> Arc<Config> {
        self.current.get()
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// True while new sessions are taken.
    pub fn is_open(&self) -> bool {
        self.phase() == Phase::Running
    }

    /// Waits until the server is in this phase or a later one.
    pub async fn reached(&self, phase: Phase) {
        // The sender is in the app itself, so it outlives this wait.
        drop(self.phase.subscribe().wait_for(|now| *now >= phase).await);
    }
}

impl Deref for App {
    type Target = Handles;

    fn deref(&self) -> &Handles {
        &self.0
    }
}
