//! The line of a rung: another picture of the same source, cut where that of `src` is cut.
//!
//! Frames of a rung carry the time at which they are shown, while segments lie on the decode times
//! of the source. [`Bound`] has both, so that a rung's segment begins with the picture that the
//! segment of `src` begins with.
//!
//! Invariant: with `is_independent` each segment begins with a keyframe, or is a gap.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::{Cut, Open, Targets};
use crate::frame::{Frame, TrackInfo};
use crate::time::MediaTime;

/// Frames that wait to be placed: as many as a ring holds. At the bound the oldest leaves.
const WAITING_MAX: usize = 1_024;
/// Segments that wait for frames. At the bound the oldest is a gap.
const BOUNDS_MAX: usize = 64;
/// How long a frame lasts while no step from one to the next is known.
const FRAME_US: i64 = 33_333;
/// A keyframe this close to where its segment begins is its first picture.
const FIRST_US_MAX: i64 = 20_000;

/// Where a segment of `src` begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its first moment.
    pub start: MediaTime,
    /// When its first picture is shown.
    pub shown_from: MediaTime,
    /// True when T, the publisher, the feed or the parameters change here.
    pub is_discontinuity: bool,
    /// No media will come in it.
    pub is_gap: bool,
}

impl Bound {
    /// How much later pictures are shown than decoded.
    fn delay_us(&self) -> i64 {
        self.shown_from.micros_since(self.start)
    }
}

/// Cuts a rung where the picture of `src` is cut.
#[derive(Debug)]
pub struct RungLine {
    targets: Targets,
    is_independent: bool,
    place: Place,
    /// Segments that have not begun here.
    bounds: VecDeque<Bound>,
    /// Frames whose segment is not known yet.
    waiting: VecDeque<Arc<Frame>>,
    /// All bounds before this are known.
    known_until: MediaTime,
    /// No frame comes for T before this.
    silent_until: MediaTime,
    /// Where what was cut ends, on the line of the segments.
    end: Option<MediaTime>,
    /// Frames are missing: only a keyframe can go on.
    needs_key: bool,
    newest: Option<MediaTime>,
    step_us: i64,
    taken: Option<Arc<TrackInfo>>,
    break_from: Option<(MediaTime, u32)>,
    /// A discontinuity was asked for and has not come.
    has_asked: bool,
}

#[derive(Debug)]
enum Place {
    Before,
    /// A segment for which nothing came yet.
    Empty(Bound),
    Media(Open, Bound),
    /// A segment without media.
    Silent(Bound),
}

impl RungLine {
    /// A line before its first frame. With `is_independent` a segment that lacks its keyframe is a
    /// gap.
    pub const fn new(targets: Targets, is_independent: bool) -> Self {
        Self {
            targets,
            is_independent,
            place: Place::Before,
            bounds: VecDeque::new(),
            waiting: VecDeque::new(),
            known_until: MediaTime::ZERO,
            silent_until: MediaTime::ZERO,
            end: None,
            needs_key: true,
            newest: None,
            step_us: FRAME_US,
            taken: None,
            break_from: None,
            has_asked: false,
        }
    }

    /// A segment of `src` begins.
    pub fn bound(&mut self, bound: Bound) -> Vec<Cut> {
        let mut cuts = Vec::new();
        if self.bounds.len() >= BOUNDS_MAX {
            self.next_segment(&mut cuts);
        }
        self.has_asked &= !bound.is_discontinuity;
        self.bounds.push_back(bound);
        cuts
    }

    /// `src` has come to `t`: all bounds before it are known.
    pub fn advance(&mut self, t: MediaTime) -> Vec<Cut> {
        self.known_until = self.known_until.max(t);
        self.settle()
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: Arc<Frame>) -> Vec<Cut> {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
            self.needs_key = true;
        }
        self.waiting.push_back(frame);
        self.settle()
    }

    /// Frames before the next one are lost.
    pub const fn lose(&mut self) {
        self.needs_key = true;
    }

    /// No frame comes for T before `until`: a segment that is empty by then is a gap.
    pub fn silence(&mut self, until: MediaTime) -> Vec<Cut> {
        self.silent_until = self.silent_until.max(until);
        self.settle()
    }

    /// Ends the line for good, where `src` ends.
    pub fn finish(&mut self, end: Option<MediaTime>) -> Vec<Cut> {
        self.known_until = MediaTime::from_micros(i64::MAX);
        let mut cuts = self.place_frames();
        while !self.bounds.is_empty() {
            self.next_segment(&mut cuts);
        }
        let (start, delay_us) = match &self.place {
            Place::Empty(bound) | Place::Silent(bound) | Place::Media(_, bound) => {
                (bound.start, bound.delay_us())
            }
            Place::Before => return cuts,
        };
        let end = end.unwrap_or(start).max(start);
        self.close((end, end.shifted(delay_us)), &mut cuts);
        cuts
    }

    /// T of the newest frame taken.
    pub const fn newest(&self) -> Option<MediaTime> {
        self.newest
    }

    /// How far the list reaches; `None` before the first segment.
    pub const fn edge(&self) -> Option<MediaTime> {
        self.end
    }

    /// Set when the rung cannot go on without a discontinuity: from where it is needed, and how
    /// many T has had there.
    pub const fn take_break(&mut self) -> Option<(MediaTime, u32)> {
        self.break_from.take()
    }

    fn settle(&mut self) -> Vec<Cut> {
        let mut cuts = self.place_frames();
        while self
            .bounds
            .front()
            .is_some_and(|b| b.shown_from <= self.gap_until())
        {
            self.next_segment(&mut cuts);
        }
        self.fill(self.gap_until(), self.targets.part_us(), &mut cuts);
        cuts
    }

    /// How far it is known that there is nothing: of a segment that is a gap, as far as it goes.
    fn gap_until(&self) -> MediaTime {
        match self.place {
            Place::Silent(_) => self.known_until,
            _ => self.known_until.min(self.silent_until),
        }
    }

    fn place_frames(&mut self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        while let Some(frame) = self.waiting.pop_front_if(|f| f.dts < self.known_until) {
            if self.newest.is_none_or(|newest| frame.dts > newest) {
                self.put(frame, &mut cuts);
            }
        }
        cuts
    }

    fn put(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        while self
            .bounds
            .front()
            .is_some_and(|b| b.shown_from <= frame.dts)
        {
            self.next_segment(cuts);
        }
        self.newest = Some(frame.dts);
        let is_other = self
            .taken
            .as_ref()
            .is_some_and(|i| i.config != frame.info.config);
        match &self.place {
            Place::Before | Place::Silent(_) => self.needs_key = true,
            // Of a segment that was a gap already.
            Place::Empty(bound) if frame.dts < bound.shown_from => self.needs_key = true,
            Place::Empty(bound) => {
                let bound = *bound;
                if is_other && !bound.is_discontinuity {
                    // Its init section comes with a discontinuity; until then nobody can play it.
                    self.ask_for_break(&frame);
                    self.be_silent(bound, cuts);
                } else if self.may_begin(&frame, &bound) {
                    self.begin(frame, bound, cuts);
                } else if self.is_independent {
                    self.be_silent(bound, cuts);
                }
            }
            Place::Media(..) if is_other => {
                self.ask_for_break(&frame);
                self.needs_key = true;
            }
            Place::Media(..) => {
                self.needs_key &= !frame.is_key;
                if !self.needs_key {
                    self.add(frame, cuts);
                }
            }
        }
    }

    fn may_begin(&self, frame: &Frame, bound: &Bound) -> bool {
        let is_first = frame.dts.micros_since(bound.shown_from) <= FIRST_US_MAX;
        if self.is_independent {
            frame.is_key && is_first
        } else {
            frame.is_key || !self.needs_key
        }
    }

    fn begin(&mut self, frame: Arc<Frame>, bound: Bound, cuts: &mut Vec<Cut>) {
        cuts.push(Cut::Begin {
            start: bound.start,
            shown_from: bound.shown_from,
            is_discontinuity: bound.is_discontinuity,
            info: Some(Arc::clone(&frame.info)),
        });
        let mut open = Open::new(Arc::clone(&frame.info), frame.dts);
        self.needs_key = false;
        self.taken = Some(Arc::clone(&frame.info));
        open.frames.push(frame);
        self.place = Place::Media(open, bound);
    }

    fn be_silent(&mut self, bound: Bound, cuts: &mut Vec<Cut>) {
        cuts.push(Cut::Begin {
            start: bound.start,
            shown_from: bound.shown_from,
            is_discontinuity: bound.is_discontinuity,
            info: None,
        });
        self.needs_key = true;
        self.end = Some(self.end.unwrap_or(bound.start).max(bound.start));
        self.place = Place::Silent(bound);
    }

    fn ask_for_break(&mut self, frame: &Frame) {
        let is_coming = self.bounds.iter().any(|b| b.is_discontinuity);
        if !is_coming && !self.has_asked {
            self.has_asked = true;
            self.break_from = Some((frame.dts, frame.discontinuities));
        }
    }

    fn add(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        let Place::Media(open, bound) = &mut self.place else {
            return;
        };
        let now = frame.dts;
        if let Some(last) = open.frames.last() {
            self.step_us = now.micros_since(last.dts).min(self.targets.part_us());
        }
        cut_overlong(open, now, &self.targets, cuts);
        let part_us = now.micros_since(open.part_start);
        let began_with_key = open.frames.first().is_some_and(|f| f.is_key);
        let is_long = part_us * 100 >= self.targets.part_us() * 85;
        let is_key_cut = frame.is_key && (is_long || began_with_key);
        if is_key_cut || part_us >= self.targets.part_us() {
            open.cut(open.frames.len(), now, &self.targets, cuts);
        }
        if open.frames.is_empty() {
            open.part_start = now;
        }
        let end = open.part_start.shifted(-bound.delay_us());
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
        open.frames.push(frame);
    }

    fn next_segment(&mut self, cuts: &mut Vec<Cut>) {
        let Some(bound) = self.bounds.pop_front() else {
            return;
        };
        self.close((bound.start, bound.shown_from), cuts);
        if bound.is_gap {
            self.be_silent(bound, cuts);
        } else {
            self.place = Place::Empty(bound);
        }
    }

    /// Closes the open segment where the next one begins, and where that is shown.
    fn close(&mut self, (end, shown_until): (MediaTime, MediaTime), cuts: &mut Vec<Cut>) {
        if let Place::Empty(bound) = self.place {
            self.be_silent(bound, cuts);
        }
        match std::mem::replace(&mut self.place, Place::Before) {
            Place::Before | Place::Empty(_) => {}
            Place::Silent(bound) => {
                self.place = Place::Silent(bound);
                self.fill(end, 1, cuts);
                self.place = Place::Before;
                cuts.push(Cut::End { end });
            }
            Place::Media(mut open, bound) => {
                let last = open.frames.last().map_or(open.part_start, |f| f.dts);
                let stands_us_max = self.targets.gap_us();
                let is_cut_off = self.needs_key || shown_until.micros_since(last) > stands_us_max;
                let until = if is_cut_off {
                    last.shifted(self.step_us)
                        .min(shown_until.max(last.shifted(1)))
                } else {
                    shown_until
                };
                cut_overlong(&mut open, until, &self.targets, cuts);
                open.cut(open.frames.len(), until, &self.targets, cuts);
                cuts.push(Cut::End {
                    end: end.max(bound.start),
                });
            }
        }
        self.end = Some(self.end.map_or(end, |before| before.max(end)));
    }

    /// Cuts parts without media up to `until`, none shorter than `us_min`.
    fn fill(&mut self, until: MediaTime, us_min: i64, cuts: &mut Vec<Cut>) {
        let (Place::Empty(bound) | Place::Silent(bound)) = self.place else {
            return;
        };
        // T may lie far ahead of a segment that goes on for ever.
        let until = until.min(bound.start.shifted(self.targets.segment_us_max()));
        let mut edge = self.end.unwrap_or(bound.start).max(bound.start);
        loop {
            let us = until.micros_since(edge).min(self.targets.part_us());
            if us < us_min {
                return;
            }
            if let Place::Empty(_) = self.place {
                self.be_silent(bound, cuts);
            }
            let duration = Duration::from_micros(us.unsigned_abs());
            cuts.push(Cut::Gap { duration });
            edge = edge.shifted(us);
            self.end = Some(edge);
        }
    }
}

/// Rule 1: the frame that makes the part too long goes into the next one.
fn cut_overlong(open: &mut Open, now: MediaTime, targets: &Targets, cuts: &mut Vec<Cut>) {
    let is_over = |open: &Open| now.micros_since(open.part_start) > targets.part_us();
    if let Some(last) = open.frames.last().map(|f| f.dts)
        && is_over(open)
        && open.frames.len() > 1
    {
        open.cut(open.frames.len() - 1, last, targets, cuts);
    }
    if is_over(open) {
        // One frame that alone is longer than a part.
        open.cut(open.frames.len(), now, targets, cuts);
    }
}
