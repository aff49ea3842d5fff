//! The time of day of T, as all playlists of an instance show it.
//!
//! The broadcast's clock moves all the time, by slewing; here it moves only where a segment begins,
//! so that all renditions show the same date, and a cue the date of the segment that holds it.
//!
//! Invariants
//! - What was said of a T is said again, to the microsecond.
//! - It steps at a discontinuity only; otherwise it follows the clock with [`SLEW_PER_S`], and not
//!   at all ahead of a cue that is listed already, for at most [`HELD_MAX`] off the clock.

use std::collections::VecDeque;

use time::{Duration, OffsetDateTime};

use crate::time::MediaTime;

/// Changes that are remembered: more than a window of segments has.
const LINES_MAX: usize = 256;
/// What the clock of T slews by at most, in a second.
const SLEW_PER_S: Duration = Duration::microseconds(200);
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
    /// Where the newest segment began.
    begun: MediaTime,
    /// The latest T whose date was told before its segment began.
    told_until: MediaTime,
}

impl WallLine {
    /// A segment of the rendition that leads begins at `start`, when the broadcast's clock says
    /// `wall` for it.
    pub(super) fn begin(&mut self, start: MediaTime, wall: OffsetDateTime, is_discontinuity: bool) {
        let mut epoch = epoch(start, wall);
        let since = start.micros_since(self.begun).max(0);
        self.begun = start;
        if let Some(last) = self.lines.back()
            && !is_discontinuity
        {
            let off = epoch - last.epoch;
            let is_held = start <= self.told_until && off.abs() <= HELD_MAX;
            let slew = SLEW_PER_S * Duration::microseconds(since).as_seconds_f64();
            epoch = last.epoch + off.clamp(-slew, slew);
            if is_held || epoch == last.epoch {
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

    /// A mapping with segments of 2 s whose clock says these many microseconds more than T.
    fn line(clock_us: &[i64]) -> WallLine {
        let mut line = WallLine::default();
        for (n, us) in (0..).zip(clock_us) {
            let clock = date(100 + 2 * n, 0) + Duration::microseconds(*us);
            line.begin(second(2 * n), clock, false);
        }
        line
    }

    fn off_us(line: &WallLine, s: i64) -> i128 {
        (said(line, s) - date(100 + s, 0)).whole_microseconds()
    }

    #[test]
    fn the_mapping_moves_where_a_segment_begins_and_the_past_stays() {
        let line = line(&[0, 300, 500]);
        let off = [0, 1, 2, 3, 4, 9].map(|s| off_us(&line, s));
        assert_eq!(off, [0, 0, 300, 300, 500, 500]);
    }

    /// The clock steps when T does; before the discontinuity the dates do not show it.
    #[test]
    fn a_step_of_the_clock_shows_at_a_discontinuity_only() {
        let mut line = line(&[0, -34_000, -34_000]);
        assert_eq!([2, 4].map(|s| off_us(&line, s)), [-400, -800]);
        line.begin(second(6), date(106, -34), true);
        assert_eq!([4, 6].map(|s| off_us(&line, s)), [-800, -34_000]);
    }

    #[test]
    fn a_date_told_ahead_comes_true() {
        let mut line = line(&[0]);
        let told = line.tell(second(5), || date(0, 0));
        line.begin(second(2), date(102, 4), false);
        line.begin(second(4), date(104, 8), false);
        assert_eq!((told, said(&line, 5)), (date(105, 0), date(105, 0)));
        line.begin(second(6), date(106, 12), false);
        assert_eq!(off_us(&line, 6), 400, "and then the clock counts again");
    }

    #[test]
    fn a_clock_that_is_far_off_is_not_held_back() {
        let mut line = line(&[0]);
        line.tell(second(60), || date(0, 0));
        line.begin(second(2), date(102, 51), false);
        assert_eq!(off_us(&line, 2), 400);
        line.begin(second(4), date(104, 51), true);
        assert_eq!(off_us(&line, 4), 51_000);
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
