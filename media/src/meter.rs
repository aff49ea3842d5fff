//! How much a publisher sends.

use std::time::Duration;

use tokio::time::Instant;

/// The bitrate is the mean over this; twice in a row over 150 % of the limit is too much.
const WINDOW: Duration = Duration::from_secs(5);

/// The bitrate of one publisher.
#[derive(Debug)]
pub(crate) struct Meter {
    pub(crate) limit_bps: u64,
    since: Instant,
    bytes: u64,
    strikes: u32,
}

impl Meter {
    pub(crate) const fn new(now: Instant, limit_bps: u64) -> Self {
        Self {
            limit_bps,
            since: now,
            bytes: 0,
            strikes: 0,
        }
    }

    /// Counts bytes; true when two windows in a row were over 150 % of the limit.
    pub(crate) fn add(&mut self, now: Instant, bytes: usize) -> bool {
        self.bytes += u64::try_from(bytes).unwrap_or(0);
        let passed = now.saturating_duration_since(self.since);
        if passed < WINDOW {
            return false;
        }
        let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        let bps = self.bytes.saturating_mul(8_000) / ms;
        let is_over = bps > self.limit_bps / 2 * 3;
        self.strikes = if is_over { self.strikes + 1 } else { 0 };
        (self.since, self.bytes) = (now, 0);
        self.strikes >= 2
    }
}
