//! The time of day of T, as all playlists of an instance show it.
//!
//! The broadcast's clock moves all the time, by slewing; here it moves only where a segment begins,
//! so that all renditions show the same date, and a cue the date of the segment that holds it.
//!
//! Invariants
//! - What was said of a T is said again, to the microsecond.
//! - Ahead of a cue that is listed already the mapping stays as it is, for at most [`HELD_MAX`]
//!   off the clock.

use std::collections::VecDeque;

use time::{Duration, OffsetDateTime};

use crate::time::MediaTime;

/// Changes that are remembered: more than a window of segments has.
const LINES_MAX: usize = 256;
/// How far off the clock cues to come may hold the mapping.
const HELD_MAX: Duration = Duration::milliseconds(50);

/// From `from` on, the time of day is `epoch + T`.
#[derive(Clone, Copy, Debug)]
struct Line {
    from: MediaTime,
    epoch: OffsetDateTime,
}

impl Line {
    fn at(&self, t: MediaTime) -> OffsetDateTime {
        let since = Duration::microseconds(t.as_micros());
        self.epoch.checked_add(since).unwrap_or(self.epoch)
    }
}

/// The mapping, piece by piece.
#[derive(Debug, Default)]
pub(super) struct WallLine {
    lines: VecDeque<Line>,
    /// The latest T whose date was told before its segment began.
    told_until: MediaTime,
}

impl WallLine {
    /// A segment of the rendition that leads begins at `start`, when the broadcast's clock says
    /// `wall` for it.
    pub(super) fn begin(&mut self, start: MediaTime, wall: OffsetDateTime, is_discontinuity: bool) {
        let epoch = epoch(start, wall);
        if let Some(last) = self.lines.back() {
            let is_held = start <= self.told_until && (epoch - last.epoch).abs() <= HELD_MAX;
            if epoch == last.epoch || (is_held && !is_discontinuity) {
                return;
            }
        }
        if self.lines.len() >= LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(Line { from: start, epoch });
    }

    /// The date of `t`; for the first one ever, what the broadcast's clock says.
    pub(super) fn at(
        &self,
        t: MediaTime,
        clock: impl FnOnce() -> OffsetDateTime,
    ) -> OffsetDateTime {
        let line = self.lines.iter().rev().find(|line| line.from <= t);
        let line = line.or_else(|| self.lines.front());
        line.map_or_else(clock, |line| line.at(t))
    }

    /// The same, for a date that must stay true whatever segment will hold `t`.
    pub(super) fn tell(
        &mut self,
        t: MediaTime,
        clock: impl FnOnce() -> OffsetDateTime,
    ) -> OffsetDateTime {
        if self.lines.is_empty() {
            let from = MediaTime::ZERO;
            let epoch = epoch(t, clock());
            self.lines.push_back(Line { from, epoch });
        }
        self.told_until = self.told_until.max(t);
        self.at(t, || OffsetDateTime::UNIX_EPOCH)
    }
}

fn epoch(t: MediaTime, wall: OffsetDateTime) -> OffsetDateTime {
    let since = Duration::microseconds(t.as_micros());
    wall.checked_sub(since).unwrap_or(wall)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(s: i64) -> MediaTime {
        MediaTime::from_micros(s * 1_000_000)
    }

    /// The date `s` seconds and `ms` milliseconds into 1970.
    fn date(s: i64, ms: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(s) + Duration::milliseconds(ms)
    }

    fn said(line: &WallLine, s: i64) -> OffsetDateTime {
        line.at(second(s), || OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_mapping_moves_where_a_segment_begins_and_the_past_stays() {
        let mut line = WallLine::default();
        line.begin(second(0), date(100, 0), false);
        line.begin(second(2), date(102, 3), false);
        line.begin(second(4), date(104, 5), false);
        let dates = [0, 1, 2, 3, 4, 9].map(|s| said(&line, s));
        let ms = [0, 0, 3, 3, 5, 5];
        let expected = [0, 1, 2, 3, 4, 9].iter().zip(ms);
        let expected: Vec<_> = expected.map(|(s, ms)| date(100 + s, ms)).collect();
        assert_eq!(dates.to_vec(), expected);
    }

    #[test]
    fn a_date_told_ahead_comes_true() {
        let mut line = WallLine::default();
        line.begin(second(0), date(100, 0), false);
        let told = line.tell(second(5), || date(0, 0));
        line.begin(second(2), date(102, 4), false);
        line.begin(second(4), date(104, 8), false);
        assert_eq!((told, said(&line, 5)), (date(105, 0), date(105, 0)));
        line.begin(second(6), date(106, 12), false);
        assert_eq!(
            said(&line, 6),
            date(106, 12),
            "and then the clock counts again"
        );
    }

    #[test]
    fn neither_a_discontinuity_nor_a_far_clock_is_held_back() {
        for (ms, is_discontinuity) in [(8, true), (51, false)] {
            let mut line = WallLine::default();
            line.begin(second(0), date(100, 0), false);
            line.tell(second(60), || date(0, 0));
            line.begin(second(2), date(102, ms), is_discontinuity);
            assert_eq!(said(&line, 2), date(102, ms));
        }
    }

    #[test]
    fn before_the_first_segment_the_clock_counts() {
        let mut line = WallLine::default();
        assert_eq!(line.at(second(1), || date(7, 0)), date(7, 0));
        assert_eq!(line.tell(second(1), || date(101, 0)), date(101, 0));
        line.begin(second(0), date(100, 2), false);
        assert_eq!(said(&line, 1), date(101, 0));
    }
}
