//! The server's hold on a running session: what a `PATCH` asks of it (RFC 9725 4.3).
//!
//! Invariants
//! - The tag names the ICE session: it changes with each restart and with nothing else.
//! - A restart changes no media and no other part of the connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gauges::{Gauges, Measured};
use super::terms::Lease;
use super::{PASSWORD_DIGITS, Random, UFRAG_DIGITS};
use crate::time::MediaTime;
use crate::webrtc::sdp::Fragment;
use crate::webrtc::{Address, Credentials, Names, Port, Untold, fragment};

/// A restart so soon after the last is no change of network.
const RESTART_EVERY: Duration = Duration::from_millis(100);
/// Names of the viewer that are remembered, so that a late fragment is known for what it is.
const PAST_MAX: usize = 8;
/// No browser holds more back than this.
const PLAYHEAD_US: i64 = 2_000_000;

/// What came of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Patched {
    /// Candidates of the ICE session in force. They are not needed: a viewer's addresses are
    /// learnt from its checks.
    Candidates,
    /// ICE begins again: the fragment that answers. The old path lives until the new one works.
    Restarted(String),
}

/// Why a fragment was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// 400: it names a new ICE session without its password.
    #[error("the fragment has no a=ice-pwd")]
    NoPassword,
    /// 412: it is of an ICE session that is over.
    #[error("this ICE session was restarted since")]
    Past,
    /// 429: too many, too fast.
    #[error("ICE was restarted a moment ago")]
    TooFast,
    /// 404: the session has just ended.
    #[error("the session has ended")]
    Gone,
}

#[derive(Debug)]
struct State {
    tag: String,
    /// What the viewer is called, newest last.
    ufrags: Vec<String>,
    restarted: Option<Instant>,
}

/// The server's hold on a running session.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    address: Address,
    port: Arc<Port>,
    /// The section that carries the path of all.
    mid: String,
    gauges: Arc<Gauges>,
    lease: Arc<Lease>,
}

impl Control {
    pub(crate) fn new(port: Arc<Port>, address: Address, remote: &Credentials, mid: &str) -> Self {
        let state = State {
            tag: Random::new().id(),
            ufrags: vec![remote.ufrag.clone()],
            restarted: None,
        };
        Self {
            state: Mutex::new(state),
            address,
            port,
            mid: mid.to_owned(),
            gauges: Arc::default(),
            lease: Arc::default(),
        }
    }

    pub(super) fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.lease)
    }

    /// Lets the session last until another time; `None`: for ever. A session that has ended stays
    /// so.
    pub fn renew(&self, expires_at: Option<Instant>) {
        self.lease.renew(expires_at);
    }

    /// Ends the session; its player hears the reason.
    pub fn end(&self, now: Instant, reason: &'static str) {
        self.lease.end(now, reason);
    }

    pub(super) fn gauges(&self) -> Arc<Gauges> {
        Arc::clone(&self.gauges)
    }

    /// What is measured of the session.
    pub fn measured(&self) -> Measured {
        self.gauges.read()
    }

    /// The T that the viewer can be seeing now: what was sent in the last two seconds of it (spec
    /// media.md 1.5 rule 6); `None` before the first frame.
    pub fn playhead(&self) -> Option<(MediaTime, MediaTime)> {
        let newest = self.gauges.newest()?;
        Some((newest.shifted(-PLAYHEAD_US).max(MediaTime::ZERO), newest))
    }

    /// Names the ICE session in force.
    pub fn tag(&self) -> String {
        self.lock().tag.clone()
    }

    /// Applies a fragment.
    ///
    /// # Errors
    /// [`PatchError`] says which status it is; media goes on.
    pub fn patch(&self, now: Instant, asked: &Fragment) -> Result<Patched, PatchError> {
        let mut state = self.lock();
        if state.ufrags.last() == Some(&asked.ufrag) {
            return Ok(Patched::Candidates);
        }
        if state.ufrags.contains(&asked.ufrag) {
            return Err(PatchError::Past);
        }
        let password = asked.password.clone().ok_or(PatchError::NoPassword)?;
        let since = state.restarted.map(|at| now.saturating_duration_since(at));
        if since.is_some_and(|since| since < RESTART_EVERY) {
            return Err(PatchError::TooFast);
        }
        let mut random = Random::new();
        let local = Credentials {
            ufrag: random.text(UFRAG_DIGITS),
            password: random.text(PASSWORD_DIGITS),
        };
        let remote = Credentials {
            ufrag: asked.ufrag.clone(),
            password,
        };
        let answer = fragment(&self.mid, &local, &self.port.candidates());
        let told = self.address.restart(Names::new(local, remote));
        told.map_err(|untold| match untold {
            Untold::Gone => PatchError::Gone,
            Untold::Busy => PatchError::TooFast,
        })?;
        state.restarted = Some(now);
        state.tag = random.id();
        state.ufrags.push(asked.ufrag.clone());
        if state.ufrags.len() > PAST_MAX {
            state.ufrags.remove(0);
        }
        Ok(Patched::Restarted(answer))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
