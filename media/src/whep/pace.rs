//! How fast frames that are already there leave, and when a viewer is too slow.
//!
//! A run begins with the first frame after everything was sent, and ends when everything is. A
//! run of much that waits (a join, a publisher's burst) is sent faster than real time but not at
//! once; what comes while the viewer is live goes as it comes.

use std::time::Duration;

use tokio::time::Instant;

use crate::broadcast::Delivery;
use crate::time::MediaTime;

/// More than this that waits is not sent at once.
const AT_ONCE_MAX: Duration = Duration::from_millis(500);
/// Waiting media is sent this much faster than real time.
const CATCH_UP_PERCENT: i64 = 250;
/// A frame that could not be sent for this long after it was due is too late.
const LATE_MAX: Duration = Duration::from_millis(500);

/// Frames that are sent one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    began: Instant,
    first: MediaTime,
    is_paced: bool,
    /// True once a keyframe was asked for because it is late.
    pub(super) has_asked: bool,
}

impl Run {
    /// A run that begins with this frame.
    pub(super) fn new(now: Instant, delivery: &Delivery) -> Self {
        let first = delivery.frame.dts;
        Self {
            began: now,
            first,
            is_paced: delivery.newest.saturating_since(first) > AT_ONCE_MAX,
            has_asked: false,
        }
    }

    /// When a frame may go.
    pub(super) fn due(&self, dts: MediaTime) -> Instant {
        if !self.is_paced {
            return self.began;
        }
        let ahead_us = dts.micros_since(self.first).max(0) * 100 / CATCH_UP_PERCENT;
        self.began + Duration::from_micros(u64::try_from(ahead_us).unwrap_or(0))
    }

    /// How long a frame that goes only now has waited since it could have gone.
    pub(super) fn waited(&self, now: Instant, dts: MediaTime) -> Duration {
        let could_go = if self.is_paced {
            self.due(dts)
        } else {
            // One that was made later could not have gone with the first.
            self.began + dts.saturating_since(self.first)
        };
        now.saturating_duration_since(could_go)
    }

    /// Whether a frame that goes only now is too late.
    pub(super) fn is_late(&self, now: Instant, dts: MediaTime) -> bool {
        self.waited(now, dts) > LATE_MAX
    }
}

/// A path that was found to be narrow is filled no faster than it carries: what does not fit waits
/// here, where it can still be left out, and not on the path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    rate_bps: u64,
    /// When what was sent has passed.
    pub(super) free_at: Instant,
}

impl Narrow {
    pub(super) const fn new(now: Instant, rate_bps: u64) -> Self {
        Self {
            rate_bps,
            free_at: now,
        }
    }

    pub(super) const fn set_rate(&mut self, rate_bps: u64) {
        self.rate_bps = rate_bps;
    }

    /// So much was sent.
    pub(super) fn spend(&mut self, now: Instant, bytes: usize) {
        let bits = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_mul(8);
        let us = bits.saturating_mul(1_000_000) / self.rate_bps.max(1);
        self.free_at = self.free_at.max(now) + Duration::from_micros(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_narrow_path_is_free_when_what_was_sent_has_passed() {
        let now = Instant::now();
        let ms = Duration::from_millis;
        let mut narrow = Narrow::new(now, 400_000);
        narrow.spend(now, 5_000);
        assert_eq!(narrow.free_at, now + ms(100));
        narrow.spend(now + ms(20), 5_000);
        assert_eq!(narrow.free_at, now + ms(200));
        narrow.set_rate(4_000_000);
        narrow.spend(now + ms(500), 5_000);
        assert_eq!(narrow.free_at, now + ms(510), "rest is not saved up");
    }
}
