//! The two stages of `clean`: where keyframes go, and from a picture to an access unit.

use std::fmt;
use std::time::Duration;

use ffmpeg_next::software::scaling;
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame;

use super::encoder::{Encoded, NoEncoder, VideoEncoder, VideoSettings};
use crate::broadcast::Facts;
use crate::frame::TrackInfo;
use crate::time::micros;

/// Source keyframes at most this far apart are kept as they are.
const SOURCE_GOP_MAX: Duration = Duration::from_secs(3);
/// The least that a picture needs, where its lines allow so much.
const BITRATE_MIN: u64 = 400_000;
/// The source's rate is known once the ring holds this much.
const MEASURED: Duration = Duration::from_secs(2);
/// The table of rungs (spec media.md 5.1): lines, and bits per second at up to 30 frames a second.
const RUNGS: [(u32, u64); 5] = [
    (240, 350_000),
    (360, 700_000),
    (480, 1_200_000),
    (720, 2_500_000),
    (1_080, 4_500_000),
];
/// Above this many frames a second a rung has half as much again.
const FAST: f64 = 40.0;

/// Decides which pictures become keyframes, by T alone, so that all encoders of a source agree.
#[derive(Debug)]
pub(super) struct KeyGrid {
    step_us: i64,
    last_t: Option<i64>,
}

impl KeyGrid {
    pub(super) fn new(step: Duration) -> Self {
        Self {
            step_us: micros(step).max(1),
            last_t: None,
        }
    }

    /// Whether the picture at `t` must be a keyframe.
    pub(super) fn is_key(&mut self, t: i64, is_source_key: bool, source_gop: Duration) -> bool {
        let Some(last) = self.last_t.replace(t) else {
            return true;
        };
        if source_gop <= SOURCE_GOP_MAX {
            return is_source_key;
        }
        t.div_euclid(self.step_us) > last.div_euclid(self.step_us)
    }
}

/// The rate of `clean` for what is known of the source: a little more than that has, within the
/// rung of its lines. In a portrait picture the short side counts.
fn bitrate((width, height): (u32, u32), facts: &Facts) -> u32 {
    let lines = width.min(height);
    let rung = RUNGS.iter().find(|(rung, _)| lines <= *rung);
    let (_, rate) = rung.unwrap_or(&RUNGS[RUNGS.len() - 1]);
    let is_fast = facts.frame_rate.is_some_and(|rate| rate > FAST);
    let cap = if is_fast { rate * 3 / 2 } else { *rate };
    let wanted = if facts.span < MEASURED {
        cap
    } else {
        facts.bitrate_bps.saturating_mul(11) / 10
    };
    let rate = wanted.clamp(BITRATE_MIN.min(cap), cap);
    u32::try_from(rate).unwrap_or(u32::MAX)
}

/// Even size that keeps the shape, its short side within `lines_max`.
fn fitted(width: u32, height: u32, lines_max: u32) -> (u32, u32) {
    let even = |n: u32| (n & !1).max(2);
    let lines = width.min(height);
    if lines <= lines_max {
        return (even(width), even(height));
    }
    let scaled = |side: u32| {
        let scaled = u64::from(side) * u64::from(lines_max) / u64::from(lines);
        even(u32::try_from(scaled).unwrap_or(side))
    };
    (scaled(width), scaled(height))
}

/// Scales where needed and encodes; follows the source when its size changes.
pub(super) struct CleanEncoder<'a> {
    names: Vec<&'a str>,
    height_max: u32,
    encoder: Option<VideoEncoder>,
    scaler: Option<scaling::Context>,
}

impl fmt::Debug for CleanEncoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanEncoder").finish_non_exhaustive()
    }
}

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum CleanError {
    #[error(transparent)]
    NoEncoder(#[from] NoEncoder),
    #[error("the picture could not be encoded: {0}")]
    Codec(#[from] ffmpeg_next::Error),
}

impl<'a> CleanEncoder<'a> {
    pub(super) const fn new(names: Vec<&'a str>, height_max: u32) -> Self {
        Self {
            names,
            height_max,
            encoder: None,
            scaler: None,
        }
    }

    /// The parameters of what it makes, once known.
    pub(super) fn info(&self) -> Option<&TrackInfo> {
        self.encoder.as_ref().and_then(VideoEncoder::info)
    }

    /// Encodes a picture shown at `t`; `facts` of the source matter when an encoder is opened.
    pub(super) fn encode(
        &mut self,
        (t, picture): (i64, frame::Video),
        is_key: bool,
        facts: impl FnOnce() -> Facts,
    ) -> Result<Vec<Encoded>, CleanError> {
        let size = fitted(picture.width(), picture.height(), self.height_max);
        let mut is_key = is_key;
        if self.encoder.as_ref().is_none_or(|e| e.size() != size) {
            self.encoder = None;
            let settings = settings(size, &facts());
            self.encoder = Some(VideoEncoder::open(self.names.iter().copied(), &settings)?);
            is_key = true;
        }
        let mut picture = self.fit(picture, size)?;
        let Some(encoder) = &mut self.encoder else {
            return Ok(Vec::new());
        };
        Ok(encoder.encode(&mut picture, t, is_key)?)
    }

    fn fit(
        &mut self,
        picture: frame::Video,
        (width, height): (u32, u32),
    ) -> Result<frame::Video, ffmpeg_next::Error> {
        let from = (picture.format(), picture.width(), picture.height());
        if from == (Pixel::YUV420P, width, height) {
            return Ok(picture);
        }
        let old = self.scaler.as_ref().map(|s| (*s.input(), *s.output()));
        let is_same = old.is_some_and(|(i, o)| {
            (i.format, i.width, i.height) == from && (o.width, o.height) == (width, height)
        });
        if !is_same {
            self.scaler = None;
        }
        let scaler = match &mut self.scaler {
            Some(scaler) => scaler,
            none => {
                let flags = scaling::Flags::BILINEAR;
                let to = Pixel::YUV420P;
                none.insert(scaling::Context::get(
                    from.0, from.1, from.2, to, width, height, flags,
                )?)
            }
        };
        let mut out = frame::Video::empty();
        scaler.run(&picture, &mut out)?;
        Ok(out)
    }
}

fn settings((width, height): (u32, u32), facts: &Facts) -> VideoSettings {
    // Nominal only: pictures carry their own times.
    let frame_rate = facts.frame_rate.unwrap_or(30.0).round().clamp(1.0, 240.0);
    let frame_rate = (1..=240_u32)
        .find(|n| f64::from(*n) >= frame_rate)
        .unwrap_or(30);
    VideoSettings {
        width,
        height,
        bitrate_bps: bitrate((width, height), facts),
        frame_rate,
        b_frames: 0,
        // Keyframes are forced by T; this only bounds a run in which none is due.
        gop: frame_rate * 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_clean_follows_the_source_within_the_rung_of_its_lines() {
        let measured = |bitrate_bps, frame_rate| Facts {
            bitrate_bps,
            frame_rate: Some(frame_rate),
            span: Duration::from_secs(5),
            ..Facts::default()
        };
        let unknown = Facts {
            bitrate_bps: 90_000_000,
            span: Duration::from_millis(300),
            ..Facts::default()
        };
        let cases = [
            ((1_280, 720), measured(2_000_000, 30.0), 2_200_000),
            ((1_280, 720), measured(6_000_000, 30.0), 2_500_000),
            ((1_280, 720), measured(6_000_000, 60.0), 3_750_000),
            ((720, 1_280), measured(6_000_000, 30.0), 2_500_000),
            ((1_920, 1_080), measured(20_000_000, 25.0), 4_500_000),
            ((1_600, 900), measured(20_000_000, 25.0), 4_500_000),
            ((426, 240), measured(100_000, 30.0), 350_000),
            ((640, 360), measured(100_000, 30.0), 400_000),
            ((1_920, 1_080), unknown, 4_500_000),
            ((640, 360), Facts::default(), 700_000),
        ];
        for (size, facts, expected) in cases {
            assert_eq!(bitrate(size, &facts), expected, "{size:?} {facts:?}");
        }
    }

    #[test]
    fn a_picture_is_fitted_by_its_short_side_and_never_made_larger() {
        let cases = [
            ((1_920, 1_080), 1_080, (1_920, 1_080)),
            ((3_840, 2_160), 1_080, (1_920, 1_080)),
            ((2_160, 3_840), 1_080, (1_080, 1_920)),
            ((1_081, 1_921), 1_080, (1_080, 1_918)),
            ((641, 361), 1_080, (640, 360)),
            ((1, 1), 1_080, (2, 2)),
        ];
        for ((width, height), lines, expected) in cases {
            assert_eq!(fitted(width, height, lines), expected, "{width} x {height}");
        }
    }
}
