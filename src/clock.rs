//! Wall-clock time. Passed in, so that tests own it.
//!
//! Invariant: microseconds since 1970 inside, RFC 3339 UTC with milliseconds outside.
//!
//! Not here: media time (`lamplight_media::time`) and deadlines (tokio's `Instant`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment of wall-clock time, in microseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// A moment so much before this one.
    pub fn before(self, earlier: Duration) -> Self {
        let us = i64::try_from(earlier.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(us))
    }

    /// This moment, `later` after it; never past the end of time.
    pub fn plus(self, later: Duration) -> Self {
        let us = i64::try_from(later.as_micros()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(us))
    }

    /// Time since `earlier`, zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// The last whole millisecond that is not after this moment: what is shown of it.
    pub const fn whole_millis(self) -> Self {
        Self(self.0.div_euclid(1_000) * 1_000)
    }

    /// The same moment as a date and time; the epoch when it lies outside the calendar.
    pub fn to_datetime(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// Reads RFC 3339 in any zone.
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(Self::from)
    }
}

impl From<OffsetDateTime> for Timestamp {
    fn from(at: OffsetDateTime) -> Self {
        Self(i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(0))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = self.to_datetime();
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the time of day comes from.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Test(Arc<AtomicI64>),
}

impl Clock {
    /// The clock of the machine.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it.
    pub fn standing_at(at: Timestamp) -> Self {
        Self(Source::Test(Arc::new(AtomicI64::new(at.as_micros()))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => OffsetDateTime::now_utc().into(),
            Source::Test(us) => Timestamp::from_micros(us.load(Ordering::Acquire)),
        }
    }

    /// Moves a standing clock, and with it every clone; the machine's clock is left alone.
    pub fn advance(&self, by: Duration) {
        if let Source::Test(us) = &self.0 {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            us.fetch_add(by, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_written_with_milliseconds_and_read_back() {
        let at = Timestamp::parse("2026-11-24T14:45:58.123456+02:00").unwrap();
        assert_eq!(at.to_string(), "2026-11-24T12:45:58.123Z");
        assert_eq!(at.as_micros() % 1_000_000, 123_456);
        assert_eq!(Timestamp::parse("yesterday"), None);
    }

    #[test]
    fn a_standing_clock_moves_for_all_its_clones() {
        let clock = Clock::standing_at(Timestamp::from_micros(5));
        let other = clock.clone();
        clock.advance(Duration::from_micros(7));
        assert_eq!(other.now(), Timestamp::from_micros(12));
    }
}
