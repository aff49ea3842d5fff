//! What is measured of a viewer over FLV, and how the server reaches it. Atomics only: reading them
//! never touches its media.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::broadcast::Broadcast;
use crate::time::MediaTime;
use crate::whep::{Measured, Rendition};

/// A viewer that takes nothing for this long is given up.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A player shows what it was sent in the last two seconds of T.
const PLAYHEAD_US: i64 = 2_000_000;

/// The server's hold on a viewer.
#[derive(Clone, Debug)]
pub struct Control(pub(super) Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) broadcast: Arc<Broadcast>,
    pub(super) asked: Instant,
    /// Lines of the rung that is shown; zero: the source.
    lines: AtomicU16,
    /// Ends the session.
    pub(super) leave: CancellationToken,
    /// The session has ended.
    pub(super) gone: CancellationToken,
    pub(super) reason: OnceLock<&'static str>,
    pub(super) bytes: AtomicU64,
    pub(super) frames: AtomicU64,
    pub(super) skipped: AtomicU64,
    /// These are microseconds and one more; zero: not yet, or nothing.
    first_frame: AtomicU64,
    newest: AtomicU64,
    given: AtomicU64,
}

impl Shared {
    pub(super) fn new(
        broadcast: &Arc<Broadcast>,
        rendition: Rendition,
        leave: CancellationToken,
        asked: Instant,
    ) -> Self {
        let lines = match rendition {
            Rendition::Rung(lines) => lines,
            Rendition::Source => 0,
        };
        Self {
            broadcast: Arc::clone(broadcast),
            asked,
            lines: AtomicU16::new(lines),
            leave,
            gone: CancellationToken::new(),
            reason: OnceLock::new(),
            bytes: AtomicU64::new(0),
            frames: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            first_frame: AtomicU64::new(0),
            newest: AtomicU64::new(0),
            given: AtomicU64::new(0),
        }
    }

    fn since_asked(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.asked);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX - 1) + 1
    }

    /// The rung that was shown cannot be made any more.
    pub(super) fn falls_back(&self) {
        self.lines.store(0, Ordering::Relaxed);
    }

    fn rendition(&self) -> Rendition {
        match self.lines.load(Ordering::Relaxed) {
            0 => Rendition::Source,
            lines => Rendition::Rung(lines),
        }
    }

    /// The connection wants more: all it was given is on its way.
    pub(super) fn wants(&self) {
        self.given.store(0, Ordering::Relaxed);
    }

    /// The connection has something to write.
    pub(super) fn gives(&self, now: Instant, bytes: u64) {
        self.given.store(self.since_asked(now), Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A frame was sent; true when it is the first.
    pub(super) fn sent(&self, now: Instant, t: MediaTime) -> bool {
        self.frames.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(t.as_micros()).unwrap_or(0);
        self.newest.fetch_max(us + 1, Ordering::Relaxed);
        let is_first = self.first_frame.load(Ordering::Relaxed) == 0;
        if is_first {
            self.first_frame
                .store(self.since_asked(now), Ordering::Relaxed);
        }
        is_first
    }

    fn newest(&self) -> Option<MediaTime> {
        let us = self.newest.load(Ordering::Relaxed).checked_sub(1)?;
        i64::try_from(us).ok().map(MediaTime::from_micros)
    }

    /// How long the connection has not taken what it was given.
    fn stalled_for(&self, now: Instant) -> Duration {
        let given = self.given.load(Ordering::Relaxed);
        let waits = given.checked_sub(1).map(Duration::from_micros);
        waits.map_or(Duration::ZERO, |at| {
            now.saturating_duration_since(self.asked + at)
        })
    }
}

impl Control {
    /// Ends the session; the first reason counts.
    pub fn end(&self, reason: &'static str) {
        self.0.reason.get_or_init(|| reason);
        self.0.leave.cancel();
    }

    /// Waits for the end of the session, and brings it about when its connection takes nothing for
    /// 15 s. True in that case: the connection itself must be closed then, which nothing that is
    /// written to it can do.
    pub async fn watch(&self) -> bool {
        loop {
            tokio::select! {
                () = self.0.gone.cancelled() => return false,
                () = sleep(LOOK_EVERY) => {}
            }
            if self.0.stalled_for(Instant::now()) >= STALLED_AFTER {
                self.end("too_slow");
                return true;
            }
        }
    }

    /// Waits for the end of the session.
    pub async fn gone(&self) {
        self.0.gone.cancelled().await;
    }

    /// What is measured of the session; what only other protocols know is zero.
    pub fn measured(&self) -> Measured {
        let shared = &self.0;
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let first = read(&shared.first_frame).checked_sub(1);
        let now_t = shared.broadcast.now_t(Instant::now());
        let lag = shared.newest().map(|newest| now_t.saturating_since(newest));
        Measured {
            bytes: read(&shared.bytes),
            frames: read(&shared.frames),
            skipped: read(&shared.skipped),
            rendition: first.map(|_| shared.rendition()),
            first_frame: first.map(Duration::from_micros),
            lag: lag.unwrap_or_default(),
            ..Measured::default()
        }
    }

    /// The T that the viewer can be seeing now; `None` before the first frame.
    pub fn playhead(&self) -> Option<(MediaTime, MediaTime)> {
        let newest = self.0.newest()?;
        Some((newest.shifted(-PLAYHEAD_US).max(MediaTime::ZERO), newest))
    }
}
