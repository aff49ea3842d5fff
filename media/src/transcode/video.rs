//! The two stages of a made picture: where keyframes go, and from a picture to an access unit.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ffmpeg_next::software::scaling;
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame;

use super::encoder::{Encoded, NoEncoder, VideoEncoder, VideoSettings};
use super::ladder::{Ladder, Rung};
use crate::broadcast::Facts;
use crate::frame::TrackInfo;
use crate::time::micros;

/// Source keyframes at most this far apart are kept as they are.
const SOURCE_GOP_MAX: Duration = Duration::from_secs(3);
/// The least that a picture needs, where its lines allow so much.
const BITRATE_MIN: u64 = 400_000;
/// The source's rate is known once the ring holds this much.
const MEASURED: Duration = Duration::from_secs(2);
/// Pictures closer than this part of a frame's length are too many for a rung that has a most.
const THINNED_PERCENT: i64 = 90;

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

/// Leaves out pictures of a source that has more of them a second than a rung may have, by T
/// alone.
#[derive(Debug)]
pub(super) struct Thinner {
    step_us: i64,
    last_t: Option<i64>,
}

impl Thinner {
    pub(super) fn new(fps_max: Option<u32>) -> Self {
        let step_us = fps_max.map_or(0, |fps| 1_000_000 / i64::from(fps.max(1)));
        Self {
            step_us: step_us * THINNED_PERCENT / 100,
            last_t: None,
        }
    }

    /// Whether the picture at `t` stays; a keyframe always does.
    pub(super) fn keeps(&mut self, t: i64, is_key: bool) -> bool {
        let is_due = self.last_t.is_none_or(|last| t - last >= self.step_us);
        if is_due || is_key {
            self.last_t = Some(t);
        }
        is_due || is_key
    }
}

/// What a picture is made with: that of the source, or a rung of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    /// At most so many lines, and what the source has of bits.
    Clean {
        lines_max: u32,
    },
    Rung(Rung),
}

impl Target {
    /// Bits per second. `clean` has a little more than the source, within the rung of its lines.
    fn bitrate_bps(self, size: (u32, u32), facts: &Facts, ladder: &Ladder) -> u32 {
        let rate = match self {
            Self::Rung(rung) => rung.bitrate_bps(facts.frame_rate),
            Self::Clean { .. } => {
                let cap = ladder.cap_bps(size, facts);
                let wanted = if facts.span < MEASURED {
                    cap
                } else {
                    facts.bitrate_bps.saturating_mul(11) / 10
                };
                wanted.clamp(BITRATE_MIN.min(cap), cap)
            }
        };
        u32::try_from(rate).unwrap_or(u32::MAX)
    }

    const fn fps_max(self) -> Option<u32> {
        match self {
            Self::Clean { .. } => None,
            Self::Rung(rung) => rung.fps_max,
        }
    }

    pub(super) fn thinner(self) -> Thinner {
        Thinner::new(self.fps_max())
    }
}

/// Even size that keeps the shape, its short side within `lines_max`.
pub(super) fn fitted(width: u32, height: u32, lines_max: u32) -> (u32, u32) {
    let even = |n: u32| (n & !1).max(2);
    let lines = width.min(height);
    if lines <= lines_max {
        return (even(width), even(height));
    }
    // To the nearest even number, so that the shape is kept within one sample.
    let scaled = |side: u32| {
        let (wanted, lines) = (u64::from(side) * u64::from(lines_max), u64::from(lines));
        let scaled = (wanted + lines) / (2 * lines) * 2;
        even(u32::try_from(scaled).unwrap_or(side)).min(even(side))
    };
    (scaled(width), scaled(height))
}

/// Scales where needed and encodes; follows the source when its size changes.
pub(super) struct PictureEncoder<'a> {
    names: Vec<&'a str>,
    target: Target,
    ladder: Arc<Ladder>,
    /// Lines of `clean` at most, while the node is overloaded.
    clean_lines_max: u32,
    opened: u32,
    encoder: Option<VideoEncoder>,
    scaler: Option<scaling::Context>,
    #[cfg(test)]
    fault: Option<super::tests::Fault>,
}

impl fmt::Debug for PictureEncoder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PictureEncoder").finish_non_exhaustive()
    }
}

/// Why a picture could not be encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum PictureError {
    #[error(transparent)]
    NoEncoder(#[from] NoEncoder),
    #[error("the picture could not be encoded: {0}")]
    Codec(#[from] ffmpeg_next::Error),
}

impl<'a> PictureEncoder<'a> {
    pub(super) const fn new(names: Vec<&'a str>, target: Target, ladder: Arc<Ladder>) -> Self {
        Self {
            names,
            target,
            ladder,
            clean_lines_max: u32::MAX,
            opened: 0,
            encoder: None,
            scaler: None,
            #[cfg(test)]
            fault: None,
        }
    }

    #[cfg(test)]
    pub(super) fn strike_with(&mut self, fault: Option<super::tests::Fault>) {
        self.fault = fault;
    }

    /// Bounds the lines of `clean`, beyond what it was made with.
    pub(super) const fn limit_clean(&mut self, lines_max: u32) {
        self.clean_lines_max = lines_max;
    }

    /// How many encoders it has opened so far.
    pub(super) const fn opened(&self) -> u32 {
        self.opened
    }

    /// FFmpeg's name of the encoder that is open; empty before.
    pub(super) fn name(&self) -> &'static str {
        self.encoder.as_ref().map_or("", VideoEncoder::name)
    }

    fn lines_max(&self) -> u32 {
        match self.target {
            Target::Clean { lines_max } => lines_max.min(self.clean_lines_max),
            Target::Rung(rung) => u32::from(rung.lines),
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
    ) -> Result<Vec<Encoded>, PictureError> {
        let size = fitted(picture.width(), picture.height(), self.lines_max());
        let mut is_key = is_key;
        #[cfg(test)]
        if let Some(fault) = &mut self.fault
            && fault.strike()?
        {
            return Ok(Vec::new());
        }
        if self.encoder.as_ref().is_none_or(|e| e.size() != size) {
            self.encoder = None;
            let settings = settings(self.target, size, (&facts(), &self.ladder));
            self.encoder = Some(VideoEncoder::open(self.names.iter().copied(), &settings)?);
            self.opened = self.opened.wrapping_add(1);
            is_key = true;
        }
        let format = self.encoder.as_ref().map(VideoEncoder::format);
        let mut picture = self.fit(picture, (format.unwrap_or(Pixel::YUV420P), size))?;
        let Some(encoder) = &mut self.encoder else {
            return Ok(Vec::new());
        };
        Ok(encoder.encode(&mut picture, t, is_key)?)
    }

    fn fit(
        &mut self,
        picture: frame::Video,
        (to, (width, height)): (Pixel, (u32, u32)),
    ) -> Result<frame::Video, ffmpeg_next::Error> {
        let from = (picture.format(), picture.width(), picture.height());
        if from == (to, width, height) {
            return Ok(picture);
        }
        let old = self.scaler.as_ref().map(|s| (*s.input(), *s.output()));
        let is_same = old.is_some_and(|(i, o)| {
            (i.format, i.width, i.height) == from
                && (o.format, o.width, o.height) == (to, width, height)
        });
        if !is_same {
            self.scaler = None;
        }
        let scaler = match &mut self.scaler {
            Some(scaler) => scaler,
            none => {
                let flags = scaling::Flags::BILINEAR;
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

/// Whole pictures a second that an encoder is told. Nominal only: pictures carry their own times.
pub(super) fn nominal_rate(frame_rate: Option<f64>, fps_max: Option<u32>) -> u32 {
    let fps_max = fps_max.map_or(240.0, f64::from);
    let frame_rate = frame_rate.unwrap_or(30.0).round().clamp(1.0, fps_max);
    (1..=240_u32)
        .find(|n| f64::from(*n) >= frame_rate)
        .unwrap_or(30)
}

fn settings(
    target: Target,
    (width, height): (u32, u32),
    (facts, ladder): (&Facts, &Ladder),
) -> VideoSettings {
    let frame_rate = nominal_rate(facts.frame_rate, target.fps_max());
    VideoSettings {
        width,
        height,
        bitrate_bps: target.bitrate_bps((width, height), facts, ladder),
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
            let clean = Target::Clean { lines_max: 1_080 };
            assert_eq!(
                clean.bitrate_bps(size, &facts, &Ladder::default()),
                expected,
                "{size:?} {facts:?}"
            );
        }
    }

    #[test]
    fn a_rung_of_30_frames_keeps_every_other_of_60_and_all_of_30() {
        let kept = |fps: i64, fps_max| {
            let mut thinner = Thinner::new(fps_max);
            let times = (0..fps).map(|n| n * 1_000_000 / fps);
            times.filter(|t| thinner.keeps(*t, false)).count()
        };
        let rows = [(60, Some(30), 30), (50, Some(30), 25), (30, Some(30), 30)];
        for (fps, fps_max, expected) in rows.into_iter().chain([(60, None, 60)]) {
            assert_eq!(kept(fps, fps_max), expected, "{fps} for {fps_max:?}");
        }
        let mut thinner = Thinner::new(Some(30));
        assert!(thinner.keeps(0, false) && thinner.keeps(16_667, true));
    }

    #[test]
    fn a_picture_is_fitted_by_its_short_side_and_never_made_larger() {
        let cases = [
            ((1_920, 1_080), 1_080, (1_920, 1_080)),
            ((3_840, 2_160), 1_080, (1_920, 1_080)),
            ((2_160, 3_840), 1_080, (1_080, 1_920)),
            ((1_081, 1_921), 1_080, (1_080, 1_920)),
            ((1_920, 1_080), 480, (854, 480)),
            ((1_280, 720), 480, (854, 480)),
            ((641, 361), 1_080, (640, 360)),
            ((1, 1), 1_080, (2, 2)),
        ];
        for ((width, height), lines, expected) in cases {
            assert_eq!(fitted(width, height, lines), expected, "{width} x {height}");
        }
    }
}
