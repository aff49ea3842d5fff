//! Media time and every tick conversion; nowhere else are clock rates multiplied.
//!
//! Invariants
//! - One unit inside the crate: signed microseconds since the room epoch.
//! - A conversion to ticks rounds towards the past, so that no part claims a frame it lacks.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on a broadcast's timeline T, in microseconds since the room epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(i64);

impl MediaTime {
    /// The room epoch, T = 0.
    pub const ZERO: Self = Self(0);

    /// Later than any other.
    pub const MAX: Self = Self(i64::MAX);

    /// A point `us` microseconds after the epoch.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Ticks of a 90 kHz clock (video in RTP and in CMAF).
    pub const fn to_90khz(self) -> i64 {
        self.to_ticks(90_000)
    }

    /// Ticks of a clock of `rate` hertz, rounded towards the past.
    pub const fn to_ticks(self, rate: u32) -> i64 {
        scaled(self.0, rate as i64, 0, 1_000_000)
    }

    /// Ticks of a clock of `rate` hertz, rounded to the nearest: for a clock of samples, where
    /// the microsecond is the coarser unit.
    pub const fn to_nearest_ticks(self, rate: u32) -> i64 {
        scaled(self.0, rate as i64, 500_000, 1_000_000)
    }

    /// The point `ticks` of a clock of `rate` hertz after the epoch.
    pub const fn from_ticks(ticks: i64, rate: u32) -> Self {
        Self(scaled(ticks, 1_000_000, 0, rate as i64))
    }

    /// Signed microseconds from `earlier` to `self`.
    pub const fn micros_since(self, earlier: Self) -> i64 {
        self.0 - earlier.0
    }

    /// Time from `earlier` to `self`, zero when `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }

    /// This point moved by a signed number of microseconds.
    pub const fn shifted(self, us: i64) -> Self {
        Self(self.0 + us)
    }
}

impl Add<Duration> for MediaTime {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0 + micros(by))
    }
}

impl Sub<Duration> for MediaTime {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0 - micros(by))
    }
}

/// `floor((value * by + plus) / over)` without overflow on the way.
#[expect(
    clippy::cast_possible_truncation,
    reason = "From is not const; the quotient of a time by a clock rate is far below i64"
)]
const fn scaled(value: i64, by: i64, plus: i64, over: i64) -> i64 {
    (value as i128 * by as i128 + plus as i128).div_euclid(over as i128) as i64
}

/// Whole microseconds of a duration; durations here are far below the bound of `i64`.
pub(crate) fn micros(d: Duration) -> i64 {
    i64::try_from(d.as_micros()).unwrap_or(i64::MAX)
}

/// Length of `samples` at `rate` hertz, in nanoseconds, rounded to the nearest.
pub(crate) const fn samples_to_nanos(samples: u32, rate: u32) -> i64 {
    let ns = (samples as u64 * 1_000_000_000 + rate as u64 / 2) / rate as u64;
    ns.cast_signed()
}

/// A publisher's own clock, already unwrapped: microseconds since an origin only it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceTime(i64);

impl SourceTime {
    /// A stamp `us` microseconds after the publisher's origin.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    /// A stamp in milliseconds, as RTMP and FLV carry it after unwrapping.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms * 1_000)
    }

    /// Microseconds since the publisher's origin.
    pub const fn as_micros(self) -> i64 {
        self.0
    }
}

/// Unwraps a 32-bit counter: each stamp is taken as the one nearest to the last.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwrap32 {
    last: Option<i64>,
}

impl Unwrap32 {
    /// The unwrapped value of `raw`; the first one is taken as it stands.
    pub fn push(&mut self, raw: u32) -> i64 {
        let value = match self.last {
            None => i64::from(raw),
            Some(last) => {
                let low = u32::try_from(last.rem_euclid(1 << 32)).unwrap_or(0);
                last + i64::from(raw.wrapping_sub(low).cast_signed())
            }
        };
        self.last = Some(value);
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_round_towards_the_past_on_both_sides_of_the_epoch() {
        let cases = [
            (0, 0),
            (11, 0),
            (12, 1),
            (-1, -1),
            (33_333, 2_999),
            (33_334, 3_000),
        ];
        for (us, ticks) in cases {
            assert_eq!(MediaTime::from_micros(us).to_90khz(), ticks, "{us} us");
        }
    }

    proptest! {
        #[test]
        fn a_counter_that_wraps_is_unwrapped_as_if_it_had_more_bits(
            start in any::<u32>(),
            steps in proptest::collection::vec(-1_000_000_i64..1_000_000_000, 0..50),
        ) {
            let mut unwrap = Unwrap32::default();
            let mut truth = i64::from(start);
            prop_assert_eq!(unwrap.push(start), truth);
            for step in steps {
                truth += step;
                let raw = u32::try_from(truth.rem_euclid(1 << 32)).unwrap();
                prop_assert_eq!(unwrap.push(raw), truth);
            }
        }

        #[test]
        fn nearest_ticks_of_a_sample_clock_come_back_to_the_sample(n in 0_i64..10_000_000_000) {
            let t = MediaTime::from_ticks(n, 44_100);
            prop_assert_eq!(t.to_nearest_ticks(44_100), n);
        }
    }
}
