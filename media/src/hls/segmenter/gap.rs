//! An interval without media, where the line leads: gap segments of the segment target.

use std::time::Duration;

use super::{Cut, Targets};
use crate::time::MediaTime;

/// A longer interval is not filled all at once: no list is that long.
const FILL_US_MAX: i64 = 600_000_000;

/// A gap that may still grow.
#[derive(Debug)]
pub(super) struct Gap {
    /// Where its open segment began; none has before its first part.
    segment_start: Option<MediaTime>,
    /// Where it has come to.
    pub(super) edge: MediaTime,
    /// The segment that begins at or after this, if any, is marked as a discontinuity.
    pub(super) mark_from: Option<MediaTime>,
}

impl Gap {
    pub(super) const fn new(edge: MediaTime) -> Self {
        Self {
            segment_start: None,
            edge,
            mark_from: None,
        }
    }

    /// Grows by whole parts, as far as `until` allows.
    pub(super) fn grow(&mut self, until: MediaTime, targets: &Targets, cuts: &mut Vec<Cut>) {
        let far = until.shifted(-FILL_US_MAX);
        if far > self.edge {
            self.end(cuts);
            self.edge = far;
        }
        while until.micros_since(self.edge) >= targets.part_us() {
            self.part(targets.part_us(), targets, cuts);
        }
    }

    /// Grows to `until` and ends there. Returns the mark that no segment of it took.
    pub(super) fn finish(
        mut self,
        until: MediaTime,
        targets: &Targets,
        cuts: &mut Vec<Cut>,
    ) -> Option<MediaTime> {
        self.grow(until, targets, cuts);
        let rest = until.micros_since(self.edge);
        if rest > 0 {
            self.part(rest, targets, cuts);
        }
        self.end(cuts);
        self.mark_from
    }

    fn part(&mut self, us: i64, targets: &Targets, cuts: &mut Vec<Cut>) {
        let is_full = self.segment_start.is_none_or(|start| {
            let lasts = self.edge.micros_since(start);
            // What is left over at the end is no segment of its own.
            let is_rest = us < targets.part_us();
            lasts + us > targets.segment_us_max() || (!is_rest && lasts >= targets.segment_us())
        });
        if is_full {
            self.end(cuts);
            let is_marked = self.mark_from.take_if(|from| *from <= self.edge);
            cuts.push(Cut::Begin {
                start: self.edge,
                shown_from: self.edge,
                is_discontinuity: is_marked.is_some(),
                info: None,
            });
            self.segment_start = Some(self.edge);
        }
        let duration = Duration::from_micros(us.unsigned_abs());
        cuts.push(Cut::Gap { duration });
        self.edge = self.edge.shifted(us);
    }

    fn end(&mut self, cuts: &mut Vec<Cut>) {
        if self.segment_start.take().is_some() {
            cuts.push(Cut::End { end: self.edge });
        }
    }
}
