//! The sound's line.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::gap::Gap;
use super::{Cut, Open, Targets};
use crate::frame::{Frame, TrackInfo};
use crate::time::{MediaTime, micros};

/// Sound that may wait for the picture, in frames: 10 s at 48 kHz. At the bound the oldest leaves.
const WAITING_MAX: usize = 512;
/// Segments of the picture that may wait for sound. At the bound the oldest is a gap.
const BOUNDS_MAX: usize = 64;

/// Cuts the sound, where the picture is cut if there is one.
#[derive(Debug)]
pub struct AudioLine {
    targets: Targets,
    place: Place,
    /// Segments that have not begun here.
    bounds: VecDeque<Bound>,
    /// Sound whose segment is not known yet.
    waiting: VecDeque<Arc<Frame>>,
    /// All bounds before this are known; `None` when sound leads.
    known_until: Option<MediaTime>,
    /// No sound comes for T before this.
    silent_until: MediaTime,
    /// Where what was cut, or gathered, ends.
    end: Option<MediaTime>,
    /// How long the newest frame lasts.
    frame_us: i64,
    /// Parameters and number of discontinuities of the newest frame taken.
    taken: Option<(Arc<TrackInfo>, u32)>,
    break_from: Option<(MediaTime, u32)>,
    /// A discontinuity was asked for and has not come.
    has_asked: bool,
}

/// Where a segment begins.
#[derive(Clone, Copy, Debug)]
struct Bound {
    start: MediaTime,
    is_discontinuity: bool,
}

#[derive(Debug)]
enum Place {
    Before,
    /// A segment for which nothing came yet.
    Empty(Bound),
    Media(Open, Bound),
    /// A segment of the picture for which no sound came in time.
    Silent(Bound),
    /// Sound leads, and there is none.
    Gap(Gap),
}

impl AudioLine {
    /// A line before its first frame. It follows the picture if `is_following`.
    pub const fn new(targets: Targets, is_following: bool) -> Self {
        let known_until = if is_following {
            Some(MediaTime::ZERO)
        } else {
            None
        };
        Self {
            targets,
            place: Place::Before,
            bounds: VecDeque::new(),
            waiting: VecDeque::new(),
            known_until,
            silent_until: MediaTime::ZERO,
            end: None,
            frame_us: 0,
            taken: None,
            break_from: None,
            has_asked: false,
        }
    }

    /// A segment of the picture begins.
    pub fn bound(&mut self, start: MediaTime, is_discontinuity: bool) -> Vec<Cut> {
        let mut cuts = Vec::new();
        if self.bounds.len() >= BOUNDS_MAX {
            self.next_segment(&mut cuts);
        }
        self.has_asked &= !is_discontinuity;
        self.bounds.push_back(Bound {
            start,
            is_discontinuity,
        });
        cuts
    }

    /// The picture has come to `t`: all bounds before it are known.
    pub fn advance(&mut self, t: MediaTime) -> Vec<Cut> {
        self.known_until = Some(t);
        self.settle()
    }

    /// There is no picture after all: sound leads.
    pub fn lead(&mut self) -> Vec<Cut> {
        self.known_until = None;
        self.bounds.clear();
        self.settle()
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: Arc<Frame>) -> Vec<Cut> {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(frame);
        self.settle()
    }

    /// No sound comes for T before `until`: what is not there by then is a gap.
    pub fn silence(&mut self, until: MediaTime) -> Vec<Cut> {
        self.silent_until = self.silent_until.max(until);
        self.settle()
    }

    /// Ends the line for good; at `end`, where the picture does.
    pub fn finish(&mut self, end: Option<MediaTime>) -> Vec<Cut> {
        if self.known_until.is_some() {
            self.known_until = Some(MediaTime::from_micros(i64::MAX));
        }
        let mut cuts = self.settle();
        while end.is_some() && !self.bounds.is_empty() {
            self.next_segment(&mut cuts);
        }
        self.close(end, &mut cuts);
        cuts
    }

    /// Where the sound that was taken ends, or the gap; `None` before the first.
    pub const fn edge(&self) -> Option<MediaTime> {
        self.end
    }

    /// Set when the sound cannot go on without a discontinuity: from where it is needed, and how
    /// many T has had there.
    pub const fn take_break(&mut self) -> Option<(MediaTime, u32)> {
        self.break_from.take()
    }

    fn settle(&mut self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        while let Some(frame) = self.waiting.front() {
            if self.known_until.is_some_and(|until| frame.dts >= until) {
                break;
            }
            if let Some(frame) = self.waiting.pop_front() {
                if self.known_until.is_none() {
                    self.lead_to(&frame, &mut cuts);
                }
                self.put(frame, &mut cuts);
            }
        }
        match self.known_until {
            Some(known) => self.follow_silence(known.min(self.silent_until), &mut cuts),
            None => self.lead_silence(&mut cuts),
        }
        cuts
    }

    fn put(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        while self.bounds.front().is_some_and(|b| b.start <= frame.dts) {
            self.next_segment(cuts);
        }
        let length_us = micros(frame.duration.unwrap_or_default());
        let taken = self.taken.as_ref();
        let is_other = taken.is_some_and(|(info, _)| info.config != frame.info.config);
        let (bound, is_open) = match &self.place {
            Place::Empty(bound) => (*bound, false),
            Place::Media(_, bound) => (*bound, true),
            Place::Before | Place::Silent(_) | Place::Gap(_) => return,
        };
        if frame.dts.shifted(length_us) <= bound.start {
            // Too late: its segment was closed without it.
            return;
        }
        if is_other && (is_open || !bound.is_discontinuity) {
            // Its init section comes with a discontinuity; until then nobody can play it.
            return self.ask_for_break(&frame);
        }
        if !is_open && frame.dts.micros_since(bound.start) >= self.targets.part_us() {
            // A segment of which so much is missing is a gap: lists cannot say that it begins late.
            begin(bound, None, cuts);
            self.place = Place::Silent(bound);
            self.end = Some(self.end.unwrap_or(bound.start).max(bound.start));
            return;
        }
        if !is_open {
            let info = Arc::clone(&frame.info);
            begin(bound, Some(Arc::clone(&info)), cuts);
            self.place = Place::Media(Open::new(info, bound.start), bound);
        }
        self.taken = Some((Arc::clone(&frame.info), frame.discontinuities));
        self.frame_us = length_us;
        self.add(frame, cuts);
    }

    fn ask_for_break(&mut self, frame: &Frame) {
        let is_coming = self.bounds.iter().any(|b| b.is_discontinuity);
        if !is_coming && !self.has_asked {
            self.has_asked = true;
            self.break_from = Some((frame.dts, frame.discontinuities));
        }
    }

    fn add(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        let Place::Media(open, _) = &mut self.place else {
            return;
        };
        let end = frame.dts.shifted(self.frame_us);
        if end.micros_since(open.part_start) > self.targets.part_us() {
            let at = self.end.unwrap_or(frame.dts).min(frame.dts);
            open.cut(open.frames.len(), at, &self.targets, cuts);
            open.part_start = frame.dts;
        }
        if open.frames.is_empty() {
            open.part_start = frame.dts;
        }
        open.frames.push(frame);
        self.end = Some(end);
        if end.micros_since(open.part_start) + self.frame_us > self.targets.part_us() {
            // One more would not fit: nothing is gained by waiting for it.
            open.cut(open.frames.len(), end, &self.targets, cuts);
        }
    }

    fn next_segment(&mut self, cuts: &mut Vec<Cut>) {
        if let Some(bound) = self.bounds.pop_front() {
            self.close(Some(bound.start), cuts);
            self.place = Place::Empty(bound);
        }
    }

    /// Closes the open segment. With a next one it lasts until that begins, whatever it holds, but
    /// for a frame that lies across the bound.
    fn close(&mut self, next: Option<MediaTime>, cuts: &mut Vec<Cut>) {
        let next = next.map(|next| self.bounded(next));
        if let (Place::Empty(bound), Some(next)) = (&self.place, next) {
            let bound = *bound;
            begin(bound, None, cuts);
            self.place = Place::Silent(bound);
            self.end = Some(self.end.unwrap_or(bound.start).max(bound.start));
            self.fill(next, 1, cuts);
        } else if let (Place::Silent(_), Some(next)) = (&self.place, next) {
            self.fill(next, 1, cuts);
        }
        let end = self.end.unwrap_or(MediaTime::ZERO);
        match std::mem::replace(&mut self.place, Place::Before) {
            Place::Before | Place::Empty(_) => {}
            Place::Silent(_) => cuts.push(Cut::End { end }),
            Place::Media(mut open, _) => {
                open.cut(open.frames.len(), end, &self.targets, cuts);
                let end = next.map_or(end, |next| end.max(next));
                cuts.push(Cut::End { end });
                self.end = Some(end);
            }
            Place::Gap(gap) => {
                gap.finish(end, &self.targets, cuts);
            }
        }
    }

    /// The end a segment may have: the picture's next one, unless T lies far ahead there.
    fn bounded(&self, next: MediaTime) -> MediaTime {
        let us_max = self.targets.segment_us_max();
        match &self.place {
            Place::Empty(bound) | Place::Silent(bound) | Place::Media(_, bound) => {
                next.min(bound.start.shifted(us_max))
            }
            Place::Before | Place::Gap(_) => next,
        }
    }

    /// Following: nothing comes for T before `until`.
    fn follow_silence(&mut self, until: MediaTime, cuts: &mut Vec<Cut>) {
        while self.bounds.front().is_some_and(|b| b.start <= until) {
            self.next_segment(cuts);
        }
        let until = self.bounded(until);
        self.fill(until, self.targets.part_us(), cuts);
    }

    /// Cuts parts without media up to `until`, none shorter than `us_min`.
    fn fill(&mut self, until: MediaTime, us_min: i64, cuts: &mut Vec<Cut>) {
        let (Place::Empty(bound) | Place::Silent(bound)) = self.place else {
            return;
        };
        let mut edge = self.end.unwrap_or(bound.start).max(bound.start);
        loop {
            let us = until.micros_since(edge).min(self.targets.part_us());
            if us < us_min {
                return;
            }
            if let Place::Empty(_) = self.place {
                begin(bound, None, cuts);
                self.place = Place::Silent(bound);
            }
            let duration = Duration::from_micros(us.unsigned_abs());
            cuts.push(Cut::Gap { duration });
            edge = edge.shifted(us);
            self.end = Some(edge);
        }
    }

    /// Leading: decides whether a segment begins with this frame.
    fn lead_to(&mut self, frame: &Frame, cuts: &mut Vec<Cut>) {
        let start = frame.dts;
        let end = self.end.unwrap_or(start);
        let is_break = self.taken.as_ref().is_some_and(|(info, discontinuities)| {
            *discontinuities != frame.discontinuities || info.config != frame.info.config
        });
        match &self.place {
            Place::Gap(gap) if start < gap.edge => return,
            Place::Media(open, bound) => {
                let us_max = self.targets.segment_us_max();
                let lasts_us = start.micros_since(bound.start);
                let is_gap = start.micros_since(end) >= self.targets.gap_us() || lasts_us > us_max;
                let is_full = lasts_us + self.frame_us > us_max
                    || (open.frames.is_empty() && self.targets.is_long(lasts_us));
                if !is_gap && !is_full && !is_break {
                    return;
                }
                if is_gap {
                    self.begin_gap(cuts);
                }
            }
            _ => {}
        }
        if let Place::Gap(gap) = &mut self.place {
            let gap = std::mem::replace(gap, Gap::new(start));
            gap.finish(start, &self.targets, cuts);
            (self.place, self.end) = (Place::Before, Some(start));
        }
        self.bounds.push_back(Bound {
            start,
            is_discontinuity: is_break,
        });
    }

    fn lead_silence(&mut self, cuts: &mut Vec<Cut>) {
        let Some(end) = self.end else { return };
        if self.silent_until.micros_since(end) < self.targets.part_us() {
            return;
        }
        if let Place::Media(..) = self.place {
            self.begin_gap(cuts);
        }
        if let Place::Gap(gap) = &mut self.place {
            gap.grow(self.silent_until, &self.targets, cuts);
            self.end = Some(gap.edge);
        }
    }

    fn begin_gap(&mut self, cuts: &mut Vec<Cut>) {
        self.close(None, cuts);
        self.place = Place::Gap(Gap::new(self.end.unwrap_or(MediaTime::ZERO)));
    }
}

fn begin(bound: Bound, info: Option<Arc<TrackInfo>>, cuts: &mut Vec<Cut>) {
    cuts.push(Cut::Begin {
        start: bound.start,
        shown_from: bound.start,
        is_discontinuity: bound.is_discontinuity,
        info,
    });
}
