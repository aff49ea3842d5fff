//! What the server settled for one viewer, and how it changes its mind.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::broadcast::Broadcast;
use crate::frame::{Kind, TrackId};
use crate::transcode::ladder;

/// What the server settled for one viewer.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The one rendition it is shown; `None`: what its path carries.
    pub rendition: Option<Rendition>,
    /// When its session ends, unless [`super::Control::renew`] says otherwise.
    pub expires_at: Option<Instant>,
    /// The server's name of the person, so that it counts once over all outputs.
    pub viewer: Option<Arc<str>>,
}

/// A picture that a player can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendition {
    /// The publisher's picture, re-encoded where a viewer cannot take it as it is.
    Source,
    /// The rung of so many lines.
    Rung(u16),
}

impl Rendition {
    /// The rendition of this name: `src`, `v720`.
    pub fn parse(name: &str) -> Option<Self> {
        if name == "src" {
            return Some(Self::Source);
        }
        let digits = name.strip_prefix('v')?;
        // One name for one thing: no sign and no leading zero.
        let is_plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let lines = digits.parse().ok().filter(|_| is_plain)?;
        Some(Self::Rung(lines))
    }

    pub(super) const fn of(track: TrackId) -> Self {
        match track {
            TrackId::Rung(lines) => Self::Rung(lines),
            _ => Self::Source,
        }
    }

    /// Whether a broadcast has it; of a source not yet known all that its ladder could have.
    pub(crate) fn is_of(self, broadcast: &Broadcast) -> bool {
        let Self::Rung(lines) = self else { return true };
        let rungs = match broadcast.source(Kind::Video) {
            Some(_) => ladder::of(broadcast),
            None => broadcast.ladder().rungs().to_vec(),
        };
        rungs.iter().any(|rung| rung.lines == lines)
    }
}

impl fmt::Display for Rendition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("src"),
            Self::Rung(lines) => write!(f, "v{lines}"),
        }
    }
}

/// How long a session may last: for ever at first. Shared by the session and who may change it.
#[derive(Debug, Default)]
pub(super) struct Lease(Mutex<Until>);

/// When a session ends, and why then.
#[derive(Clone, Copy, Debug)]
struct Until {
    at: Option<Instant>,
    reason: &'static str,
}

impl Default for Until {
    fn default() -> Self {
        Self {
            at: None,
            reason: "expired",
        }
    }
}

impl Lease {
    pub(super) fn renew(&self, at: Option<Instant>) {
        self.lock().at = at;
    }

    pub(super) fn end(&self, now: Instant, reason: &'static str) {
        let at = Some(now);
        *self.lock() = Until { at, reason };
    }

    pub(super) fn until(&self) -> Option<Instant> {
        self.lock().at
    }

    /// Why the session is over, once it is.
    pub(super) fn over(&self, now: Instant) -> Option<&'static str> {
        let until = *self.lock();
        until.at.filter(|at| now >= *at).map(|_| until.reason)
    }

    fn lock(&self) -> MutexGuard<'_, Until> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rendition_has_one_name() {
        let rows = [
            ("src", Some(Rendition::Source)),
            ("v720", Some(Rendition::Rung(720))),
            ("v0720", None),
            ("v+720", None),
            ("v", None),
            ("v99999", None),
            ("720", None),
            ("SRC", None),
            ("", None),
        ];
        for (name, expected) in rows {
            let read = Rendition::parse(name);
            assert_eq!(read, expected, "{name}");
            if let Some(rendition) = read {
                assert_eq!(rendition.to_string(), name);
            }
        }
    }
}
