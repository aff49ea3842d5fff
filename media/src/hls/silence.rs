//! When a track is silent, and how far its gap has come (spec media.md 6.6).
//!
//! Invariants
//! - A silence shorter than `gap_after` is only late media.
//! - Parts of a gap come one part target apart, as fast as time passes.

use std::time::Duration;

use tokio::time::Instant;

use super::segmenter::Targets;
use crate::time::MediaTime;

/// The silence after the newest frame of a track.
#[derive(Debug)]
pub(super) struct Silence {
    gap_after: Duration,
    part: Duration,
    newest: Option<Newest>,
    /// When the first frame was read.
    pub(super) first_heard: Option<Instant>,
}

/// The end of the newest frame: on T, and on the clock if it is played as it comes.
#[derive(Clone, Copy, Debug)]
struct Newest {
    end: MediaTime,
    at: Instant,
}

impl Silence {
    pub(super) const fn new(targets: &Targets) -> Self {
        Self {
            gap_after: targets.gap_after,
            part: targets.part,
            newest: None,
            first_heard: None,
        }
    }

    /// A frame came that is shown until `end`.
    pub(super) fn hear(&mut self, now: Instant, dts: MediaTime, end: MediaTime) {
        let at = now + end.saturating_since(dts);
        self.newest = Some(Newest { end, at });
        self.first_heard.get_or_insert(now);
    }

    /// Where the newest frame ends, if none has come since for this long.
    pub(super) fn end_if_quiet(&self, now: Instant, long: Duration) -> Option<MediaTime> {
        let quiet = self.newest.filter(|newest| now >= newest.at + long);
        quiet.map(|newest| newest.end)
    }

    /// How far the gap reaches now; `None` while media is only late.
    pub(super) fn until(&self, now: Instant) -> Option<MediaTime> {
        let newest = self.newest?;
        let since = now.checked_duration_since(newest.at + self.gap_after)?;
        Some(newest.end + since + self.part)
    }

    /// When a gap that has come to `edge` goes on.
    pub(super) fn due(&self, edge: MediaTime) -> Option<Instant> {
        let newest = self.newest?;
        Some(newest.at + self.gap_after + edge.saturating_since(newest.end))
    }

    /// Half of what makes a gap: both tracks have stopped, if one of them has for so long.
    pub(super) fn common(&self) -> Duration {
        self.gap_after / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets {
        part: Duration::from_millis(500),
        segment: Duration::from_secs(2),
        target: Duration::from_secs(4),
        gap_after: Duration::from_secs(2),
    };

    #[tokio::test(start_paused = true)]
    async fn a_gap_begins_late_and_keeps_pace() {
        let start = Instant::now();
        let t = |ms: i64| MediaTime::from_micros(ms * 1_000);
        let mut silence = Silence::new(&TARGETS);
        assert_eq!(silence.until(start), None);
        silence.hear(start, t(7_960), t(8_000));
        let at = |ms: u64| start + Duration::from_millis(40 + ms);
        assert_eq!(silence.until(at(1_999)), None);
        for (ms, edge) in [(2_000, 8_000), (2_500, 8_500), (12_000, 18_000)] {
            assert_eq!(silence.due(t(edge)), Some(at(ms)));
            assert_eq!(silence.until(at(ms)), Some(t(edge + 500)));
        }
        assert_eq!(silence.common(), Duration::from_secs(1));
        assert_eq!(silence.end_if_quiet(at(999), silence.common()), None);
        assert_eq!(
            silence.end_if_quiet(at(1_000), silence.common()),
            Some(t(8_000))
        );
    }
}
