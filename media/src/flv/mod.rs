//! RTMP audio and video payloads (the bodies of FLV tags) to samples.
//!
//! Reads classic FLV (H.264, AAC) and enhanced RTMP (H.264, HEVC, AV1, AAC, Opus).
//!
//! Invariants
//! - A sample's payload has four-byte NAL lengths and no parameter sets, delimiters or filler; one
//!   of AV1 has no temporal delimiters or padding.
//! - No sample leaves before its track's parameters, no picture before the first keyframe, and
//!   after a damaged one none before the next keyframe.
//! - Bad bytes are dropped and counted; [`BAD_MAX`] within [`BAD_WINDOW`] end the session.
//!
//! The reverse, for viewers over HTTP-FLV and RTMP, is [`viewer`].
//!
//! Not here: T. Samples carry the publisher's own clock, unwrapped.

#![deny(clippy::indexing_slicing)]

pub(crate) mod body;
mod format;
mod lane;
mod message;
mod muxer;
mod tag;
mod track;
mod unit;
pub mod viewer;
mod watched;
mod write;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::bitstream::{aac, opus};
use crate::frame::{Codec, Kind, Sample, TrackInfo};
use crate::time::{SourceTime, Unwrap32};

use self::format::Framing;
use self::tag::{Choice, Packet, Tag};
use self::track::Track;
use self::unit::Unit;

/// Bad payloads within [`BAD_WINDOW`] that end the session.
pub const BAD_MAX: usize = 50;
/// See [`BAD_MAX`].
pub const BAD_WINDOW: Duration = Duration::from_secs(10);
/// What one payload held; nothing for a viewer when both are `None`.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// The parameters of the frames to come, the one beside it included.
    pub track: Option<TrackInfo>,
    /// A frame.
    pub sample: Option<Sample>,
    /// True when it held other tracks of the same kind, which are not taken.
    pub has_others: bool,
}

impl Units {
    const NONE: Self = Self {
        track: None,
        sample: None,
        has_others: false,
    };

    const fn track(track: Option<TrackInfo>) -> Self {
        Self {
            track,
            ..Self::NONE
        }
    }
}

/// Why a payload gave nothing. Only [`FlvError::is_fatal`] ones end the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// The bytes are not what they claim to be.
    #[error("the stream is damaged")]
    Bitstream,
    /// A codec that is not taken.
    #[error("{0} is not taken; use H.264, HEVC or AV1 and AAC or Opus")]
    Codec(&'static str),
    /// A picture larger than 7680x4320.
    #[error("the picture is {0}x{1}; at most 7680x4320 is taken")]
    PictureTooLarge(u32, u32),
    /// More than 120 pictures a second.
    #[error("the picture has {0} frames a second; at most 120 are taken")]
    FrameRate(u32),
    /// Parameters changed again within a second.
    #[error("the parameters change too often")]
    ParamChurn,
    /// A frame before its parameters or before the first keyframe.
    #[error("a frame came before its parameters or keyframe")]
    Early,
    /// A second track of a kind.
    #[error("of several tracks of a kind one is taken")]
    Multitrack,
    /// Fifty damaged payloads within ten seconds.
    #[error("the stream is damaged again and again")]
    Broken,
}

impl FlvError {
    /// Whether the session must end.
    pub const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::Codec(_) | Self::PictureTooLarge(..) | Self::FrameRate(_) | Self::Broken
        )
    }

    /// The stable word for logs and counters.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Bitstream | Self::Broken => "bitstream",
            Self::Codec(_) => "codec",
            Self::PictureTooLarge(..) => "picture_too_large",
            Self::FrameRate(_) => "frame_rate",
            Self::ParamChurn => "param_churn",
            Self::Early => "early",
            Self::Multitrack => "multitrack",
        }
    }
}

/// Turns the payloads of one publish session into samples.
#[derive(Debug, Default)]
pub struct Demuxer {
    clock: Unwrap32,
    video: Side,
    audio: Side,
    bad: Vec<Instant>,
}

/// One kind of media of the session.
#[derive(Debug, Default)]
struct Side {
    choice: Choice,
    track: Option<Track>,
}

impl Demuxer {
    /// A demuxer at the start of a session.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the payload of a message.
    ///
    /// # Errors
    /// [`FlvError`]; the session goes on unless it is fatal.
    pub fn push(
        &mut self,
        now: Instant,
        kind: Kind,
        timestamp: u32,
        payload: Bytes,
    ) -> Result<Units, FlvError> {
        let dts = SourceTime::from_millis(self.clock.push(timestamp));
        let unit = match kind {
            Kind::Video => self.video.picture_tag(now, dts, payload),
            Kind::Audio => self.audio.sound_tag(now, dts, payload),
        };
        if matches!(unit, Err(FlvError::Bitstream)) {
            self.bad
                .retain(|at| now.saturating_duration_since(*at) < BAD_WINDOW);
            self.bad.push(now);
            if self.bad.len() >= BAD_MAX {
                return Err(FlvError::Broken);
            }
        }
        unit
    }
}

impl Side {
    fn picture_tag(
        &mut self,
        now: Instant,
        dts: SourceTime,
        payload: Bytes,
    ) -> Result<Units, FlvError> {
        let tag = tag::video(payload, &mut self.choice).inspect_err(|error| self.lose(error))?;
        let Some(tag) = tag else {
            return Ok(Units::NONE);
        };
        let has_others = tag.has_others;
        let units = match tag.packet {
            Packet::Header => self.header(now, &tag),
            Packet::Frame => {
                let units = self.picture(now, dts, tag);
                units.inspect_err(|error| self.lose(error))
            }
        };
        units.map(|units| Units {
            has_others,
            ..units
        })
    }

    fn sound_tag(
        &mut self,
        now: Instant,
        dts: SourceTime,
        payload: Bytes,
    ) -> Result<Units, FlvError> {
        let Some(tag) = tag::audio(payload, &mut self.choice)? else {
            return Ok(Units::NONE);
        };
        let has_others = tag.has_others;
        let units = match tag.packet {
            Packet::Header => self.header(now, &tag),
            Packet::Frame => self.sound(now, dts, tag),
        };
        units.map(|units| Units {
            has_others,
            ..units
        })
    }

    /// A damaged picture is lost to those that refer to it.
    fn lose(&mut self, error: &FlvError) {
        if let (FlvError::Bitstream, Some(track)) = (error, &mut self.track) {
            track.lose();
        }
    }

    fn header(&mut self, now: Instant, tag: &Tag) -> Result<Units, FlvError> {
        match format::header(tag.codec, &tag.body).transpose() {
            Some(format) => Track::offer(&mut self.track, now, format).map(Units::track),
            None => Ok(Units::NONE),
        }
    }

    fn picture(&mut self, now: Instant, dts: SourceTime, tag: Tag) -> Result<Units, FlvError> {
        let framing = match &self.track {
            Some(track) => track.framing(),
            // Keyframes say what a header may leave out.
            None if tag.codec == Codec::Av1 => Framing::Av1 { is_reduced: false },
            None => return Err(FlvError::Early),
        };
        if framing.codec() != tag.codec {
            return Err(FlvError::Early);
        }
        let unit = Unit::read(&tag.body, framing)?;
        if !unit.has_picture {
            return Ok(Units::NONE);
        }
        let in_band = match unit.parameters() {
            Some(format) => Track::offer(&mut self.track, now, format)?,
            None => None,
        };
        let track = self.track.as_mut().ok_or(FlvError::Early)?;
        let waited = track.pass(now, unit.is_key)?;
        // A picture cannot be shown before it is decoded: a negative time is none.
        let composition_ms = u64::try_from(tag.composition_ms).unwrap_or(0);
        let sample = Sample {
            kind: Kind::Video,
            dts,
            composition: Duration::from_millis(composition_ms),
            samples: 0,
            is_key: unit.is_key,
            is_discardable: unit.is_discardable,
            payload: unit.canonical(tag.body),
        };
        Ok(Units {
            track: in_band.or(waited),
            sample: Some(sample),
            has_others: false,
        })
    }

    fn sound(&mut self, now: Instant, dts: SourceTime, tag: Tag) -> Result<Units, FlvError> {
        let track = self.track.as_mut().ok_or(FlvError::Early)?;
        if track.framing().codec() != tag.codec {
            return Err(FlvError::Early);
        }
        let samples = match tag.codec {
            Codec::Opus => opus::samples(&tag.body).map_err(|_bad| FlvError::Bitstream)?,
            _ if tag.body.is_empty() => return Err(FlvError::Bitstream),
            _ => aac::FRAME_SAMPLES,
        };
        let track = track.pass(now, true)?;
        let sample = Sample {
            kind: Kind::Audio,
            dts,
            composition: Duration::ZERO,
            samples,
            is_key: true,
            is_discardable: false,
            payload: tag.body,
        };
        Ok(Units {
            track,
            sample: Some(sample),
            has_others: false,
        })
    }
}

#[cfg(test)]
mod tests;
