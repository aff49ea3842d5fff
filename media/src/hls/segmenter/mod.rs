//! Frames to parts and segments (spec media.md 6.3, 6.6), without IO.
//!
//! The picture leads where there is one: [`VideoLine`] decides where segments begin, [`AudioLine`]
//! and the [`RungLine`] of each other picture follow it. Sound alone leads itself.
//!
//! Invariants
//! - No part is longer than the part target (I21); durations are known, not guessed.
//! - A segment never lasts so long that its `EXTINF` rounds over the target duration.
//! - Segments tile T: each begins where the one before ended. An interval without media is a
//!   segment too, a gap.
//! - Sound and rungs are cut where the picture is: same sequence number, same interval (I23).

mod audio;
mod gap;
mod rung;
mod video;

use std::sync::Arc;
use std::time::Duration;

pub use self::audio::AudioLine;
pub use self::rung::{Bound, RungLine};
pub use self::video::VideoLine;
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
    /// A silence this long is a gap; a shorter one is only late media.
    pub gap_after: Duration,
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

    fn gap_us(&self) -> i64 {
        micros(self.gap_after)
    }

    /// Whether a segment that has lasted this long is long enough to end.
    fn is_long(&self, segment_us: i64) -> bool {
        segment_us * 100 >= self.segment_us() * 95
    }
}

/// What a line of frames is cut into: `Begin (Part | Gap)* End`, again and again.
#[derive(Clone, Debug)]
pub enum Cut {
    /// A segment begins.
    Begin {
        /// Its first moment.
        start: MediaTime,
        /// When its first picture is shown.
        shown_from: MediaTime,
        /// True when T, the publisher, the feed or the parameters change here.
        is_discontinuity: bool,
        /// The parameters of its frames; `None` for a gap.
        info: Option<Arc<TrackInfo>>,
    },
    /// A part of the open segment.
    Part(PartCut),
    /// A part without media of the open segment, which is a gap.
    Gap {
        /// How long it lasts.
        duration: Duration,
    },
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

/// An open segment with media.
#[derive(Debug)]
struct Open {
    info: Arc<TrackInfo>,
    segment_start: MediaTime,
    part_start: MediaTime,
    /// Frames that are in no part yet.
    frames: Vec<Arc<Frame>>,
    has_parts: bool,
}

impl Open {
    const fn new(info: Arc<TrackInfo>, start: MediaTime) -> Self {
        Self {
            info,
            segment_start: start,
            part_start: start,
            frames: Vec::new(),
            has_parts: false,
        }
    }

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

    /// Goes on as the next segment, which begins at `at` and is shown from then on.
    fn split(&mut self, at: MediaTime, shown_from: MediaTime, cuts: &mut Vec<Cut>) {
        cuts.push(Cut::End { end: at });
        cuts.push(Cut::Begin {
            start: at,
            shown_from,
            is_discontinuity: false,
            info: Some(Arc::clone(&self.info)),
        });
        (self.segment_start, self.part_start, self.has_parts) = (at, at, false);
    }
}
