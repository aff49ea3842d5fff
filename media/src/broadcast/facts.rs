//! What can be measured of a track: how its encoder places keyframes, and how fast frames come.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::frame::Frame;
use crate::time::MediaTime;

/// Frames this far apart, and so many times farther than those before, have a gap between them.
const STALL_MIN: Duration = Duration::from_secs(1);
const STALL_STEPS: u32 = 8;

/// What can be measured of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Facts {
    /// True once a frame was seen whose presentation is not its decode time.
    pub has_reordering: bool,
    /// The largest distance between keyframes so far, counting the one still open.
    pub gop: Duration,
    /// Median frames per second over the newest 2 s; `None` before three frames.
    pub frame_rate: Option<f64>,
    /// Mean over what the ring holds.
    pub bitrate_bps: u64,
    /// How much that is.
    pub span: Duration,
}

/// How far keyframes are apart.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// The largest distance so far.
    longest: Duration,
    last_key: Option<MediaTime>,
    pub(super) last: Option<MediaTime>,
    /// Between the newest two frames, gaps left out.
    step: Duration,
    /// Time without frames in the open group.
    gaps: Duration,
    discontinuities: u32,
}

impl Groups {
    /// Takes the next frame of the track. True when it is the first behind a discontinuity:
    /// nothing measured before is of this encoder.
    pub(super) fn note(&mut self, frame: &Frame) -> bool {
        let is_new = self.last.is_some() && self.discontinuities != frame.discontinuities;
        if is_new {
            *self = Self::default();
        }
        self.discontinuities = frame.discontinuities;
        let step = self
            .last
            .map_or(Duration::ZERO, |t| frame.dts.saturating_since(t));
        // One stall of the publisher's network says nothing about its encoder.
        let usual = self.step * STALL_STEPS;
        if step > STALL_MIN && step > usual && !usual.is_zero() {
            self.gaps += step;
        } else {
            self.step = step;
        }
        self.last = Some(frame.dts);
        if frame.is_key {
            self.longest = self.span();
            self.last_key = Some(frame.dts);
            self.gaps = Duration::ZERO;
        }
        is_new
    }

    /// The largest distance, counting the group that is still open.
    pub(super) fn span(&self) -> Duration {
        let open = self.last.zip(self.last_key);
        open.map_or(self.longest, |(last, key)| {
            let distance = last.saturating_since(key);
            self.longest.max(distance.saturating_sub(self.gaps))
        })
    }
}

/// The median over the newest 2 s, never one delta: RTMP rounds to milliseconds and OBS bursts.
pub(super) fn frame_rate(frames: &VecDeque<Arc<Frame>>) -> Option<f64> {
    let newest = frames.back()?.dts;
    let mut steps: Vec<i64> = frames
        .iter()
        .zip(frames.iter().skip(1))
        .rev()
        .take_while(|(a, _)| newest.micros_since(a.dts) <= 2_000_000)
        .map(|(a, b)| b.dts.micros_since(a.dts))
        .collect();
    if steps.len() < 2 {
        return None;
    }
    steps.sort_unstable();
    let median = *steps.get(steps.len() / 2)?;
    // Gaps are no frames; what is left is averaged, since millisecond stamps quantise a median.
    let near: Vec<i64> = steps
        .into_iter()
        .filter(|step| step * 2 <= median * 3)
        .collect();
    let sum = u32::try_from(near.iter().sum::<i64>())
        .ok()
        .map(f64::from)?;
    let count = u32::try_from(near.len()).ok().map(f64::from)?;
    (sum > 0.0).then(|| 1_000_000.0 * count / sum)
}
