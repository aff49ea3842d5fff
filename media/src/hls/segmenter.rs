//! Frames to parts and segments (spec media.md 6.3), without IO.
//!
//! Invariants
//! - No part is longer than the part target (I21); durations are known, not guessed.
//! - A segment never lasts so long that its `EXTINF` rounds over the target duration.
//! - Sound is cut where the picture is: same sequence number, same interval (I23).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::frame::{Frame, Kind, TrackInfo};
use crate::time::{MediaTime, micros};

/// Lengths that rule the cutting.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    /// No part is longer.
    pub part: Duration,
    /// A keyframe opens a segment from 95 % of this on.
    pub segment: Duration,
    /// What `EXT-X-TARGETDURATION` says.
    pub target: Duration,
}

impl Targets {
    fn part_us(&self) -> i64 {
        micros(self.part)
    }

    fn segment_us(&self) -> i64 {
        micros(self.segment)
    }

    /// 4.4 s at a target duration of 4 s: still rounds down.
    fn segment_us_max(&self) -> i64 {
        micros(self.target) + 400_000
    }
}

/// What a line of frames is cut into, in this order: `Begin (Part)* End`, again and again.
#[derive(Clone, Debug)]
pub enum Cut {
    /// A segment begins.
    Begin {
        /// Its first moment.
        start: MediaTime,
        /// True when T or the parameters jump here.
        is_discontinuity: bool,
        /// The parameters of its frames.
        info: Arc<TrackInfo>,
    },
    /// A part of the open segment.
    Part(PartCut),
    /// The open segment is complete.
    End {
        /// Where it ends; its length is from its start to here.
        end: MediaTime,
    },
}

/// The frames of a part.
#[derive(Clone, Debug)]
pub struct PartCut {
    /// Its frames, at least one.
    pub frames: Vec<Arc<Frame>>,
    /// Where its last frame ends.
    pub end: MediaTime,
    /// The declared length: to `end`, or the part target if that is shorter.
    pub duration: Duration,
    /// True when its first frame is a keyframe, or it is sound.
    pub is_independent: bool,
}

#[derive(Debug)]
struct Open {
    info: Arc<TrackInfo>,
    discontinuities: u32,
    segment_start: MediaTime,
    part_start: MediaTime,
    frames: Vec<Arc<Frame>>,
    has_parts: bool,
}

/// Cuts the picture; it leads where there is one.
#[derive(Debug)]
pub struct VideoLine {
    targets: Targets,
    open: Option<Open>,
    /// How long a frame lasted last, for one whose successor is no measure.
    frame_us: i64,
    /// The next segment begins with a discontinuity although its frames do not say so.
    is_marked: bool,
}

impl VideoLine {
    /// A line before its first frame.
    pub const fn new(targets: Targets) -> Self {
        Self {
            targets,
            open: None,
            frame_us: 33_333,
            is_marked: false,
        }
    }

    /// Takes the next frame in decode order.
    pub fn push(&mut self, frame: Arc<Frame>) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let Some(open) = &self.open else {
            if frame.is_key {
                self.begin(frame, &mut cuts);
            }
            return cuts;
        };
        let is_jump = open.discontinuities != frame.discontinuities;
        let is_new =
            open.info.generation != frame.info.generation || open.info.config != frame.info.config;
        if is_jump || is_new || self.is_marked {
            if frame.is_key {
                self.is_marked = true;
                let fits =
                    frame.dts.micros_since(open.segment_start) <= self.targets.segment_us_max();
                self.end(Some(frame.dts).filter(|_| fits && !is_jump), &mut cuts);
                self.begin(frame, &mut cuts);
            }
            return cuts;
        }
        let now = frame.dts;
        self.cut_overlong(now, &mut cuts);
        if frame.is_key && self.is_keyframe_cut(now, &mut cuts) {
            self.end(Some(now), &mut cuts);
            self.begin(frame, &mut cuts);
            return cuts;
        }
        self.cut_full(now, &mut cuts);
        self.add(frame, &mut cuts);
        cuts
    }

    /// The frames to come are of another feed: they begin with a discontinuity, at a keyframe.
    pub const fn turn(&mut self) {
        self.is_marked = true;
    }

    /// Ends the line for good.
    pub fn finish(&mut self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        self.end(None, &mut cuts);
        cuts
    }

    fn begin(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        cuts.push(Cut::Begin {
            start: frame.dts,
            is_discontinuity: std::mem::take(&mut self.is_marked),
            info: Arc::clone(&frame.info),
        });
        self.open = Some(Open {
            info: Arc::clone(&frame.info),
            discontinuities: frame.discontinuities,
            segment_start: frame.dts,
            part_start: frame.dts,
            frames: vec![frame],
            has_parts: false,
        });
    }

    /// Closes part and segment; `None` gives the last frame the length of the one before.
    fn end(&mut self, at: Option<MediaTime>, cuts: &mut Vec<Cut>) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        let last = open
            .frames
            .last()
            .map_or(open.part_start, |f| f.dts.shifted(self.frame_us));
        let end = at.unwrap_or(last);
        open.cut(open.frames.len(), end, &self.targets, cuts);
        cuts.push(Cut::End { end });
    }

    /// Rule 1: the frame that makes the part too long goes into the next one.
    fn cut_overlong(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) {
        let Some(open) = &mut self.open else { return };
        let Some(last) = open.frames.last() else {
            return;
        };
        let last_dts = last.dts;
        self.frame_us = now.micros_since(last_dts);
        if now.micros_since(open.part_start) <= self.targets.part_us() {
            return;
        }
        let before = open.frames.len() - 1;
        if before > 0 {
            open.cut(before, last_dts, &self.targets, cuts);
            self.cut_overlong_segment(last_dts, cuts);
        }
        let Some(open) = &mut self.open else { return };
        if now.micros_since(open.part_start) > self.targets.part_us() {
            // One frame that alone is longer than a part.
            open.cut(open.frames.len(), now, &self.targets, cuts);
        }
    }

    /// Rule 2; true when the keyframe opens a new segment.
    fn is_keyframe_cut(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let segment_us = now.micros_since(open.segment_start);
        if segment_us * 100 >= self.targets.segment_us() * 95 {
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
        let Some(open) = &mut self.open else { return };
        if now.micros_since(open.part_start) >= self.targets.part_us() {
            open.cut(open.frames.len(), now, &self.targets, cuts);
        }
    }

    /// Rule 3: with no keyframe in sight the segment ends before it gets too long.
    fn cut_overlong_segment(&mut self, now: MediaTime, cuts: &mut Vec<Cut>) {
        let Some(open) = &mut self.open else { return };
        let with_another = now.micros_since(open.segment_start) + self.targets.part_us();
        if with_another <= self.targets.segment_us_max() || !open.has_parts {
            return;
        }
        cuts.push(Cut::End { end: now });
        cuts.push(Cut::Begin {
            start: now,
            is_discontinuity: false,
            info: Arc::clone(&open.info),
        });
        (open.segment_start, open.part_start, open.has_parts) = (now, now, false);
    }

    fn add(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.frames.is_empty())
        {
            self.cut_overlong_segment(frame.dts, cuts);
        }
        if let Some(open) = &mut self.open {
            if open.frames.is_empty() {
                open.part_start = frame.dts;
            }
            open.frames.push(frame);
        }
    }
}

impl Open {
    /// Cuts the first `count` frames off as a part that ends at `end`.
    fn cut(&mut self, count: usize, end: MediaTime, targets: &Targets, cuts: &mut Vec<Cut>) {
        let rest = self.frames.split_off(count);
        let frames = std::mem::replace(&mut self.frames, rest);
        if let Some(first) = frames.first() {
            let is_independent = first.track.kind() == Kind::Audio || first.is_key;
            let duration = end.saturating_since(self.part_start).min(targets.part);
            cuts.push(Cut::Part(PartCut {
                frames,
                end,
                duration,
                is_independent,
            }));
            self.has_parts = true;
        }
        self.part_start = end;
    }
}

/// Cuts the sound, where the picture is cut if there is one.
#[derive(Debug)]
pub struct AudioLine {
    targets: Targets,
    open: Option<Open>,
    /// Where the segments of the picture begin: start, discontinuity.
    bounds: VecDeque<(MediaTime, bool)>,
    /// Sound whose segment is not known yet.
    waiting: VecDeque<Arc<Frame>>,
    /// All bounds before this are known; `None` when sound leads.
    known_until: Option<MediaTime>,
    end: MediaTime,
}

/// Sound that may wait for the picture, in frames: 10 s at 48 kHz.
const WAITING_MAX: usize = 512;

impl AudioLine {
    /// A line before its first frame. It follows the picture if `is_following`.
    pub const fn new(targets: Targets, is_following: bool) -> Self {
        Self {
            targets,
            open: None,
            bounds: VecDeque::new(),
            waiting: VecDeque::new(),
            known_until: if is_following {
                Some(MediaTime::from_micros(i64::MIN))
            } else {
                None
            },
            end: MediaTime::ZERO,
        }
    }

    /// A segment of the picture begins.
    pub fn bound(&mut self, start: MediaTime, is_discontinuity: bool) {
        self.bounds.push_back((start, is_discontinuity));
    }

    /// The picture has come to `t`: all bounds before it are known.
    pub fn advance(&mut self, t: MediaTime) -> Vec<Cut> {
        self.known_until = Some(t);
        self.release()
    }

    /// Takes the next frame.
    pub fn push(&mut self, frame: Arc<Frame>) -> Vec<Cut> {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(frame);
        self.release()
    }

    /// The sound is silent although the picture goes on: segments that began before `until` close.
    pub fn give_up(&mut self, until: MediaTime) -> Vec<Cut> {
        let mut cuts = Vec::new();
        while self.bounds.front().is_some_and(|b| b.0 <= until) && self.open.is_some() {
            self.next_segment(None, &mut cuts);
        }
        cuts
    }

    /// Ends the line for good.
    pub fn finish(&mut self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        if self.known_until.is_some() {
            self.known_until = Some(MediaTime::from_micros(i64::MAX));
            cuts = self.release();
        }
        self.close(None, &mut cuts);
        cuts
    }

    fn release(&mut self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        while let Some(frame) = self.waiting.front() {
            if self.known_until.is_some_and(|until| frame.dts >= until) {
                break;
            }
            if let Some(frame) = self.waiting.pop_front() {
                self.place(frame, &mut cuts);
            }
        }
        cuts
    }

    fn place(&mut self, frame: Arc<Frame>, cuts: &mut Vec<Cut>) {
        while self.bounds.front().is_some_and(|b| b.0 <= frame.dts) {
            self.next_segment(Some(&frame), cuts);
        }
        if self.known_until.is_none() && self.is_lead_cut(&frame) {
            self.bounds.push_back((frame.dts, self.is_jump(&frame)));
            self.next_segment(Some(&frame), cuts);
        }
        let Some(open) = &mut self.open else { return };
        if open.info.config != frame.info.config {
            // Its init section comes with the next segment; until then it cannot be played.
            return;
        }
        let length_us = micros(frame.duration.unwrap_or_default());
        let end = frame.dts.shifted(length_us);
        if end.micros_since(open.part_start) > self.targets.part_us() {
            open.cut(
                open.frames.len(),
                self.end.min(frame.dts),
                &self.targets,
                cuts,
            );
            open.part_start = frame.dts;
        }
        if open.frames.is_empty() {
            open.part_start = frame.dts;
        }
        open.frames.push(frame);
        self.end = end;
        if end.micros_since(open.part_start) + length_us > self.targets.part_us() {
            // One more would not fit: nothing is gained by waiting for it.
            open.cut(open.frames.len(), end, &self.targets, cuts);
        }
    }

    fn is_jump(&self, frame: &Frame) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.discontinuities != frame.discontinuities || open.info.config != frame.info.config
        })
    }

    /// Sound alone: a segment is cut at a part's end, when it is long enough.
    fn is_lead_cut(&self, frame: &Frame) -> bool {
        let Some(open) = &self.open else { return true };
        let segment_us = frame.dts.micros_since(open.segment_start);
        let is_long = segment_us * 100 >= self.targets.segment_us() * 95;
        self.is_jump(frame) || (open.frames.is_empty() && is_long)
    }

    fn next_segment(&mut self, first: Option<&Arc<Frame>>, cuts: &mut Vec<Cut>) {
        let Some((start, is_discontinuity)) = self.bounds.pop_front() else {
            return;
        };
        let old = self
            .open
            .as_ref()
            .map(|o| (Arc::clone(&o.info), o.discontinuities));
        self.close(Some(start), cuts);
        let fresh = first.map(|f| (Arc::clone(&f.info), f.discontinuities));
        let Some((info, discontinuities)) = fresh.or(old) else {
            return;
        };
        cuts.push(Cut::Begin {
            start,
            is_discontinuity,
            info: Arc::clone(&info),
        });
        self.open = Some(Open {
            info,
            discontinuities,
            segment_start: start,
            part_start: start,
            frames: Vec::new(),
            has_parts: false,
        });
        self.end = start;
    }

    /// Closes the open segment; an empty one lasts until `next`, as the picture's does.
    fn close(&mut self, next: Option<MediaTime>, cuts: &mut Vec<Cut>) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        let end = self.end.max(open.segment_start);
        open.cut(open.frames.len(), end, &self.targets, cuts);
        let is_empty = !open.has_parts;
        cuts.push(Cut::End {
            end: next.filter(|_| is_empty).unwrap_or(end),
        });
    }
}
