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

    /// Whether a frame that goes only now is too late.
    pub(super) fn is_late(&self, now: Instant, dts: MediaTime) -> bool {
        now.saturating_duration_since(self.due(dts)) > LATE_MAX
    }
}
