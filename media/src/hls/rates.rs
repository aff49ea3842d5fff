//! The rate of one rendition, for the multivariant playlist (RFC 8216bis 4.4.6.2).

use std::time::Duration;

use super::multivariant::RateFacts;

/// A shorter stretch says little: it may be one keyframe.
const STRETCH_MIN: Duration = Duration::from_secs(1);

/// What the largest segment may have of the largest seen in the first second.
const HEADROOM_PERCENT: u64 = 150;

/// Bytes and their time.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    bytes: u64,
    lasts: Duration,
}

impl Stretch {
    fn add(&mut self, bytes: usize, lasts: Duration) {
        self.bytes += u64::try_from(bytes).unwrap_or(0);
        self.lasts += lasts;
    }

    /// Bits per second; 0 while nothing is known.
    fn bps(&self) -> u64 {
        let us = u64::try_from(self.lasts.as_micros()).unwrap_or(u64::MAX);
        let bits = self.bytes.saturating_mul(8);
        bits.saturating_mul(1_000_000).checked_div(us).unwrap_or(0)
    }
}

/// What is known of a rendition's rate.
#[derive(Debug, Default)]
pub(super) struct Rates {
    all: Stretch,
    segment: Stretch,
    peak_bps: u64,
}

impl Rates {
    /// A part was cut.
    pub(super) fn part(&mut self, bytes: usize, lasts: Duration) {
        self.all.add(bytes, lasts);
        self.segment.add(bytes, lasts);
    }

    /// A segment is complete. One that is too short counts with the next.
    pub(super) fn end(&mut self) {
        if self.segment.lasts >= STRETCH_MIN {
            self.peak_bps = self.peak_bps.max(self.segment.bps());
            self.segment = Stretch::default();
        }
    }

    /// What the multivariant playlist says of it: it cannot be changed later, and what was seen by
    /// then is seldom the most there will be.
    pub(super) fn facts(&self) -> RateFacts {
        RateFacts {
            peak_bps: self.peak_bps() * HEADROOM_PERCENT / 100,
            mean_bps: self.mean_bps(),
        }
    }

    /// The largest rate of a segment so far.
    fn peak_bps(&self) -> u64 {
        let is_known = self.segment.lasts >= STRETCH_MIN;
        let open = if is_known { self.segment.bps() } else { 0 };
        self.peak_bps.max(open).max(self.mean_bps())
    }

    /// The rate of all of it.
    fn mean_bps(&self) -> u64 {
        self.all.bps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Duration = Duration::from_millis(500);

    #[test]
    fn one_large_part_is_no_peak_and_a_large_segment_is() {
        let mut rates = Rates::default();
        for bytes in [100_000, 10_000, 10_000, 10_000] {
            rates.part(bytes, HALF);
        }
        rates.end();
        assert_eq!(rates.peak_bps(), 130_000 * 8 / 2);
        for _ in 0..4 {
            rates.part(10_000, HALF);
        }
        rates.end();
        assert_eq!(rates.peak_bps(), 130_000 * 8 / 2);
        assert_eq!(rates.mean_bps(), 170_000 * 8 / 4);
        for _ in 0..2 {
            rates.part(90_000, HALF);
        }
        assert_eq!(
            rates.peak_bps(),
            180_000 * 8,
            "an open segment of a second counts"
        );
    }

    #[test]
    fn nothing_seen_is_no_rate_and_the_mean_is_never_above_the_peak() {
        let mut rates = Rates::default();
        assert_eq!((rates.peak_bps(), rates.mean_bps()), (0, 0));
        rates.part(1_000, HALF);
        rates.end();
        assert_eq!((rates.peak_bps(), rates.mean_bps()), (16_000, 16_000));
    }
}
