//! The picture's line.

use std::sync::Arc;

use super::gap::Gap;
use super::{Cut, Open, Targets};
use crate::frame::{Frame, TrackInfo};
use crate::time::MediaTime;

/// How long a frame lasts while no step from one to the next is known.
const FRAME_US: i64 = 33_333;

/// Cuts the picture; it leads where there is one.
#[derive(Debug)]
pub struct VideoLine {
    targets: Targets,
    state: State,
    /// The newest two steps from frame to frame.
    steps_us: Option<[i64; 2]>,
    /// Parameters and number of discontinuities of the newest frame taken.
    taken: Option<(Arc<TrackInfo>, u32)>,
    /// Frames are missing or of another kind: only a keyframe can go on, in a new segment.
    needs_key: bool,
    /// That segment begins with a discontinuity.
    is_marked: bool,
    /// The first keyframe from here on begins a segment with a discontinuity, for another's sake.
    break_from: Option<MediaTime>,
}

#[derive(Debug)]
enum State {
    Before,
    /// The open segment; its newest frame is in no part yet.
    Media(Open),
    Gap(Gap),
}

impl VideoLine {
    /// A line before its first frame.
    pub const fn new(targets: Targets) -> Self {
        Self {
            targets,
            state: State::Before,
            steps_us: None,
            taken: None,
            needs_key: true,
            is_marked: false,
            break_from: None,
        }
    }

    /// Takes the next frame in decode order, or leaves it out: before a keyframe that is needed,
    /// and when its T is a gap already.
    pub fn push(&mut self, frame: Arc<Frame>) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let is_other = self.taken.as_ref().is_some_and(|(info, discontinuities)| {
            *discontinuities != frame.discontinuities || !info.is_same_format(&frame.info)
        });
        let is_due = frame.is_key && self.break_from.is_some_and(|from| frame.dts >= from);
        if is_other || is_due {
            (self.needs_key, self.is_marked) = (true, true);
        }
        match &self.state {
            State::Gap(gap) if frame.dts < gap.edge => {}
            State::Media(_) if !self.needs_key => self.go_on(frame, &mut cuts),
            _ if frame.is_key => self.restart(frame, &mut cuts),
            _ => {}
        }
        cuts
    }

    /// Frames before the next one are lost.
    pub const fn lose(&mut self) {
        self.needs_key = true;
    }

    /// The frames to come are of another feed: they begin with a discontinuity, at a keyframe.
    pub const fn turn(&mut self) {
        (self.needs_key, self.is_marked) = (true, true);
    }

    /// Another rendition cannot go on without a discontinuity at or after `from`: the next segment
    /// begins with one. `discontinuities` is the number of those of T, of that rendition's frames.
    pub fn break_from(&mut self, from: MediaTime, discontinuities: u32) {
        let State::Gap(gap) = &mut self.state else {
            self.break_from.get_or_insert(from);
            return;
        };
        gap.mark_from.get_or_insert(from);
        if let Some((_, taken)) = &mut self.taken {
            *taken = discontinuities.max(*taken);
        }
    }

    /// Another rendition has media at `t`, after so many discontinuities of T; in a gap the next
    /// segment shows that, however long the picture stays away.
    pub fn hear_of(&mut self, t: MediaTime, discontinuities: u32) {
        let taken = self.taken.as_ref().map(|taken| taken.1);
        if taken.is_some_and(|taken| discontinuities > taken) {
            self.break_from(t, discontinuities);
        }
    }

    /// No picture comes for T before `until`. The gap begins where the last picture ends, or where
    /// the sound does, if that has stopped too and ends a little later.
    pub fn silence(&mut self, sound: Option<MediaTime>, until: MediaTime) -> Vec<Cut> {
        let mut cuts = Vec::new();
        if let State::Media(open) = &self.state {
            let end = self.end_of(open);
            let a_little = end + self.targets.part;
            let both = sound.map_or(end, |sound| sound.clamp(end, a_little));
            let end = both.min(self.latest_end(open));
            self.end_media(end, &mut cuts);
            self.state = State::Gap(Gap::new(end));
        }
        if let State::Gap(gap) = &mut self.state {
            gap.grow(until, &self.targets, &mut cuts);
        }
        cuts
    }

    /// Ends the line for good.
    pub fn finish(&mut self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        match std::mem::replace(&mut self.state, State::Before) {
            State::Before => {}
            State::Gap(gap) => {
                let edge = gap.edge;
                gap.finish(edge, &self.targets, &mut cuts);
            }
            State::Media(open) => {
                let end = self.end_of(&open);
                self.state = State::Media(open);
                self.end_media(end, &mut cuts);
            }
        }
        cuts
    }

    /// Where the newest frame or the gap ends; `None` before the first.
    pub fn edge(&self) -> Option<MediaTime> {
        match &self.state {
            State::Before => None,
            State::Media(open) => Some(self.end_of(open)),
            State::Gap(gap) => Some(gap.edge),
        }
    }

    /// No segment will begin before this.
    pub fn known_until(&self) -> Option<MediaTime> {
        match &self.state {
            State::Before => None,
            State::Media(open) => open.frames.last().map(|f| f.dts),
            State::Gap(gap) => Some(gap.edge),
        }
    }

    /// Whether an interval without media is open.
    pub const fn is_gap(&self) -> bool {
        matches!(self.state, State::Gap(_))
    }

    /// Begins afresh with a keyframe.
    fn restart(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        let now = frame.dts;
        let is_marked = std::mem::take(&mut self.is_marked);
        self.needs_key = false;
        let due = self.end_before(now, cuts);
        let due = due.or_else(|| self.break_from.take());
        self.break_from = due.filter(|from| now < *from);
        let is_due = due.is_some_and(|from| from <= now);
        self.begin(frame, is_marked || is_due, cuts);
    }

    fn go_on(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        let now = frame.dts;
        self.fit(now, cuts);
        if let State::Media(open) = &self.state
            && now > self.latest_end(open)
        {
            // One frame that alone is longer than a segment may be.
            self.end_before(now, cuts);
            return self.begin(frame, false, cuts);
        }
        self.measure(now);
        self.cut_overlong(now, cuts);
        if frame.is_key && self.is_keyframe_cut(now, cuts) {
            self.end_media(now, cuts);
            return self.begin(frame, false, cuts);
        }
        self.cut_full(now, cuts);
        self.add(frame, cuts);
    }

    fn begin(&mut self, frame: Arc<Frame>, is_discontinuity: bool, cuts: &mut Vec<Cut>) {
        cuts.push(Cut::Begin {
            start: frame.dts,
            shown_from: frame.pts,
            is_discontinuity,
            info: Some(Arc::clone(&frame.info)),
        });
        self.taken = Some((Arc::clone(&frame.info), frame.discontinuities));
        let mut open = Open::new(Arc::clone(&frame.info), frame.dts);
        open.frames.push(frame);
        self.state = State::Media(open);
    }

    /// Ends what is open, for a segment that begins at `now`. The last picture stands until then;
    /// if that is too long, a gap follows it. Returns the mark that no gap segment took.
    fn end_before(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) -> Option<MediaTime> {
        let stands_us = self.known_until().map_or(0, |last| now.micros_since(last));
        let stands_us_max = self.targets.gap_us().min(self.targets.segment_us_max());
        match std::mem::replace(&mut self.state, State::Before) {
            State::Before => None,
            State::Gap(gap) => gap.finish(now, &self.targets, cuts),
            State::Media(open) => {
                let end = self.end_of(&open);
                self.state = State::Media(open);
                if stands_us < stands_us_max {
                    self.fit(now, cuts);
                    self.end_media(now, cuts);
                } else {
                    self.end_media(end, cuts);
                    Gap::new(end).finish(now, &self.targets, cuts);
                }
                None
            }
        }
    }

    /// Closes part and segment at `end`.
    fn end_media(&mut self, end: MediaTime, cuts: &mut Vec<Cut>) {
        self.cut_overlong(end, cuts);
        if let State::Media(mut open) = std::mem::replace(&mut self.state, State::Before) {
            open.cut(open.frames.len(), end, &self.targets, cuts);
            cuts.push(Cut::End { end });
        }
    }

    /// Where the newest frame ends if its successor is no measure.
    fn end_of(&self, open: &Open) -> MediaTime {
        let [one, other] = self.steps_us.unwrap_or([FRAME_US; 2]);
        let last = open.frames.last().map_or(open.part_start, |f| f.dts);
        last.shifted(one.min(other)).min(self.latest_end(open))
    }

    /// The latest end a segment may have.
    fn latest_end(&self, open: &Open) -> MediaTime {
        open.segment_start.shifted(self.targets.segment_us_max())
    }

    fn measure(&mut self, now: MediaTime) {
        if let Some(last) = self.known_until() {
            let step = now.micros_since(last);
            let before = self.steps_us.map_or(step, |[_, newest]| newest);
            self.steps_us = Some([before, step]);
        }
    }

    /// A frame that lasts too long for the open segment goes into the next one.
    fn fit(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) {
        let us_max = self.targets.segment_us_max();
        let State::Media(open) = &mut self.state else {
            return;
        };
        let is_long = now.micros_since(open.segment_start) > us_max;
        let last = open.frames.last().map(|f| (f.dts, f.pts));
        if let Some((at, shown)) = last.filter(|(at, _)| is_long && *at > open.segment_start) {
            open.cut(open.frames.len() - 1, at, &self.targets, cuts);
            open.split(at, shown, cuts);
        }
    }

    /// Rule 1: the frame that makes the part too long goes into the next one.
    fn cut_overlong(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) {
        let part_us = self.targets.part_us();
        let State::Media(open) = &mut self.state else {
            return;
        };
        let Some((last, shown)) = open.frames.last().map(|f| (f.dts, f.pts)) else {
            return;
        };
        if now.micros_since(open.part_start) <= part_us {
            return;
        }
        let before = open.frames.len() - 1;
        if before > 0 {
            open.cut(before, last, &self.targets, cuts);
            self.cut_overlong_segment((last, shown), cuts);
        }
        let State::Media(open) = &mut self.state else {
            return;
        };
        if now.micros_since(open.part_start) > part_us {
            // One frame that alone is longer than a part.
            open.cut(open.frames.len(), now, &self.targets, cuts);
        }
    }

    /// Rule 2; true when the keyframe opens a new segment.
    fn is_keyframe_cut(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) -> bool {
        let State::Media(open) = &mut self.state else {
            return false;
        };
        if self.targets.is_long(now.micros_since(open.segment_start)) {
            return true;
        }
        let part_us = now.micros_since(open.part_start);
        let began_with_key = open.frames.first().is_some_and(|f| f.is_key);
        if part_us * 100 >= self.targets.part_us() * 85 || began_with_key {
            open.cut(open.frames.len(), now, &self.targets, cuts);
        }
        false
    }

    /// A part that is exactly full needs no further frame to be known as such.
    fn cut_full(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) {
        let State::Media(open) = &mut self.state else {
            return;
        };
        if now.micros_since(open.part_start) >= self.targets.part_us() {
            open.cut(open.frames.len(), now, &self.targets, cuts);
        }
    }

    /// Rule 3: with no keyframe in sight the segment ends before it gets too long.
    fn cut_overlong_segment(&mut self, at: (MediaTime, MediaTime), cuts: &mut Vec<Cut>) {
        let (now, shown) = at;
        let State::Media(open) = &mut self.state else {
            return;
        };
        let with_another = now.micros_since(open.segment_start) + self.targets.part_us();
        if with_another > self.targets.segment_us_max() && open.has_parts {
            open.split(now, shown, cuts);
        }
    }

    fn add(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        if let State::Media(open) = &self.state
            && open.frames.is_empty()
        {
            self.cut_overlong_segment((frame.dts, frame.pts), cuts);
        }
        self.taken = Some((Arc::clone(&frame.info), frame.discontinuities));
        if let State::Media(open) = &mut self.state {
            if open.frames.is_empty() {
                open.part_start = frame.dts;
            }
            open.frames.push(frame);
        }
    }
}
