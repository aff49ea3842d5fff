//! RTMP audio and video payloads (the bodies of FLV tags) to samples.
//!
//! Reads classic FLV and the enhanced form of the codecs taken here (`avc1`, `mp4a`).
//!
//! Invariants
//! - A sample's payload has four-byte NAL lengths and no parameter sets, delimiters or filler.
//! - No sample leaves before its track's parameters, no picture before the first keyframe.
//! - Bad bytes are dropped and counted; [`BAD_MAX`] within [`BAD_WINDOW`] end the session.
//!
//! Not here: T. Samples carry the publisher's own clock, unwrapped.

#![deny(clippy::indexing_slicing)]

mod track;

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use crate::bitstream::aac;
use crate::bitstream::h264::{self, NalKind};
use crate::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use crate::time::{SourceTime, Unwrap32};

use self::track::{Format, Track};

/// Bad payloads within [`BAD_WINDOW`] that end the session.
pub const BAD_MAX: usize = 50;
/// See [`BAD_MAX`].
pub const BAD_WINDOW: Duration = Duration::from_secs(10);
/// The largest picture taken.
const WIDTH_MAX: u32 = 7_680;
const HEIGHT_MAX: u32 = 4_320;
/// The most pictures a second taken.
const FRAME_RATE_MAX: u32 = 120;
/// Bytes of an `AudioSpecificConfig`; real ones have 2 to 10.
const SOUND_RECORD_BYTES_MAX: usize = 64;

/// What one payload held; nothing for a viewer when both are `None`.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// The parameters of the frames to come, the one beside it included.
    pub track: Option<TrackInfo>,
    /// A frame.
    pub sample: Option<Sample>,
}

impl Units {
    const NONE: Self = Self {
        track: None,
        sample: None,
    };

    const fn track(track: Option<TrackInfo>) -> Self {
        Self {
            track,
            sample: None,
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
    #[error("{0} is not taken; use H.264 and AAC")]
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
        }
    }
}

/// Turns the payloads of one publish session into samples.
#[derive(Debug, Default)]
pub struct Demuxer {
    clock: Unwrap32,
    video: Option<Track>,
    audio: Option<Track>,
    bad: Vec<Instant>,
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
            Kind::Video => self.video(now, dts, payload),
            Kind::Audio => self.audio(now, dts, payload),
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

    fn video(
        &mut self,
        now: Instant,
        dts: SourceTime,
        mut payload: Bytes,
    ) -> Result<Units, FlvError> {
        let head = take_u8(&mut payload)?;
        let (packet, composition_ms) = if head & 0x80 == 0 {
            classic_video(head, &mut payload)?
        } else {
            enhanced_video(head, &mut payload)?
        };
        match packet {
            Packet::Header => self.video_header(now, payload),
            Packet::Frame => self.picture(now, dts, composition_ms, payload),
            Packet::Nothing => Ok(Units::NONE),
        }
    }

    fn video_header(&mut self, now: Instant, record: Bytes) -> Result<Units, FlvError> {
        let config = h264::Config::parse(&record).map_err(|_bad| FlvError::Bitstream);
        let format = config.and_then(picture_format);
        Track::offer(&mut self.video, now, format).map(Units::track)
    }

    fn picture(
        &mut self,
        now: Instant,
        dts: SourceTime,
        composition_ms: i32,
        payload: Bytes,
    ) -> Result<Units, FlvError> {
        let track = self.video.as_ref().ok_or(FlvError::Early)?;
        let unit = AccessUnit::read(&payload, track.length_bytes())?;
        if !unit.has_picture {
            return Ok(Units::NONE);
        }
        let in_band = match unit.sets_in_band() {
            Some(format) => Track::offer(&mut self.video, now, format)?,
            None => None,
        };
        let track = self.video.as_mut().ok_or(FlvError::Early)?;
        let waited = track.pass(now, unit.is_key)?;
        let composition_ms = u64::try_from(composition_ms).unwrap_or(0);
        let sample = Sample {
            kind: Kind::Video,
            dts,
            composition: Duration::from_millis(composition_ms),
            samples: 0,
            is_key: unit.is_key,
            is_discardable: unit.is_discardable,
            payload: unit.canonical(payload),
        };
        Ok(Units {
            track: in_band.or(waited),
            sample: Some(sample),
        })
    }

    fn audio(
        &mut self,
        now: Instant,
        dts: SourceTime,
        mut payload: Bytes,
    ) -> Result<Units, FlvError> {
        let head = take_u8(&mut payload)?;
        let is_header = match head >> 4 {
            10 => match take_u8(&mut payload)? {
                0 => true,
                1 => false,
                _ => return Err(FlvError::Bitstream),
            },
            9 => match enhanced_audio(head, &mut payload)? {
                Packet::Header => true,
                Packet::Frame => false,
                Packet::Nothing => return Ok(Units::NONE),
            },
            other => return Err(FlvError::Codec(classic_sound(other))),
        };
        if is_header {
            let format = sound_format(payload);
            return Track::offer(&mut self.audio, now, format).map(Units::track);
        }
        let track = self.audio.as_mut().ok_or(FlvError::Early)?;
        if payload.is_empty() {
            return Err(FlvError::Bitstream);
        }
        let track = track.pass(now, true)?;
        let sample = Sample {
            kind: Kind::Audio,
            dts,
            composition: Duration::ZERO,
            samples: aac::FRAME_SAMPLES,
            is_key: true,
            is_discardable: false,
            payload,
        };
        Ok(Units {
            track,
            sample: Some(sample),
        })
    }
}

fn picture_format(config: h264::Config) -> Result<Format, FlvError> {
    let facts = config.facts().map_err(|_bad| FlvError::Bitstream)?;
    if facts.width > WIDTH_MAX || facts.height > HEIGHT_MAX {
        return Err(FlvError::PictureTooLarge(facts.width, facts.height));
    }
    if let Some(rate) = facts.frame_rate.filter(|rate| *rate > FRAME_RATE_MAX) {
        return Err(FlvError::FrameRate(rate));
    }
    let info = TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: facts.width,
            height: facts.height,
        },
        config: config.build(),
        reorder_frames: facts.reorder_frames,
    };
    let length_bytes = config.length_bytes;
    Ok(Format { info, length_bytes })
}

fn sound_format(record: Bytes) -> Result<Format, FlvError> {
    if record.len() > SOUND_RECORD_BYTES_MAX {
        return Err(FlvError::Bitstream);
    }
    let config = aac::Config::parse(&record).map_err(|bad| match bad {
        aac::BadAac::Config => FlvError::Bitstream,
        aac::BadAac::ObjectType(_) => FlvError::Codec("this form of AAC"),
    })?;
    if !(8_000..=96_000).contains(&config.rate) {
        return Err(FlvError::Codec("sound below 8 kHz or above 96 kHz"));
    }
    let info = TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: config.rate,
            channels: config.channels,
        },
        config: record,
        reorder_frames: None,
    };
    Ok(Format {
        info,
        length_bytes: 0,
    })
}

enum Packet {
    Header,
    Frame,
    Nothing,
}

fn classic_video(head: u8, payload: &mut Bytes) -> Result<(Packet, i32), FlvError> {
    match head & 15 {
        7 => {}
        2 => return Err(FlvError::Codec("Sorenson H.263")),
        4 | 5 => return Err(FlvError::Codec("VP6")),
        12 => return Err(FlvError::Codec("HEVC")),
        _ => return Err(FlvError::Bitstream),
    }
    if head >> 4 == 5 {
        // A command frame of a seek: nothing to show.
        return Ok((Packet::Nothing, 0));
    }
    let packet = match take_u8(payload)? {
        0 => Packet::Header,
        1 => Packet::Frame,
        2 => Packet::Nothing,
        _ => return Err(FlvError::Bitstream),
    };
    Ok((packet, take_i24(payload)?))
}

/// Enhanced RTMP: the low four bits are the packet type, a `FourCC` follows.
fn enhanced_video(head: u8, payload: &mut Bytes) -> Result<(Packet, i32), FlvError> {
    let packet_type = head & 15;
    if packet_type == 6 {
        return Err(FlvError::Codec("multitrack video"));
    }
    match &take_four(payload)? {
        b"avc1" => {}
        b"hvc1" => return Err(FlvError::Codec("HEVC")),
        b"av01" => return Err(FlvError::Codec("AV1")),
        b"vp08" | b"vp09" => return Err(FlvError::Codec("VP8 and VP9")),
        _ => return Err(FlvError::Codec("this video codec")),
    }
    match packet_type {
        0 => Ok((Packet::Header, 0)),
        1 => Ok((Packet::Frame, take_i24(payload)?)),
        3 => Ok((Packet::Frame, 0)),
        2 | 4 => Ok((Packet::Nothing, 0)),
        _ => Err(FlvError::Bitstream),
    }
}

fn enhanced_audio(head: u8, payload: &mut Bytes) -> Result<Packet, FlvError> {
    let packet_type = head & 15;
    if packet_type == 5 {
        return Err(FlvError::Codec("multitrack sound"));
    }
    match &take_four(payload)? {
        b"mp4a" => {}
        b"Opus" => return Err(FlvError::Codec("Opus")),
        b"ac-3" | b"ec-3" => return Err(FlvError::Codec("AC-3")),
        b"fLaC" => return Err(FlvError::Codec("FLAC")),
        b".mp3" => return Err(FlvError::Codec("MP3")),
        _ => return Err(FlvError::Codec("this sound codec")),
    }
    match packet_type {
        0 => Ok(Packet::Header),
        1 => Ok(Packet::Frame),
        2 | 4 => Ok(Packet::Nothing),
        _ => Err(FlvError::Bitstream),
    }
}

const fn classic_sound(format: u8) -> &'static str {
    match format {
        2 | 14 => "MP3",
        4..=6 => "Nellymoser",
        7 | 8 => "G.711",
        11 => "Speex",
        _ => "uncompressed sound",
    }
}

fn take_u8(from: &mut Bytes) -> Result<u8, FlvError> {
    from.try_get_u8().map_err(|_short| FlvError::Bitstream)
}

/// A signed 24-bit number.
fn take_i24(from: &mut Bytes) -> Result<i32, FlvError> {
    let value = from.try_get_int(3).map_err(|_short| FlvError::Bitstream)?;
    i32::try_from(value).map_err(|_wide| FlvError::Bitstream)
}

fn take_four(from: &mut Bytes) -> Result<[u8; 4], FlvError> {
    from.try_get_u32()
        .map(u32::to_be_bytes)
        .map_err(|_short| FlvError::Bitstream)
}

/// What the NAL units of one payload are.
struct AccessUnit {
    length_bytes: usize,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
    has_picture: bool,
    is_key: bool,
    is_discardable: bool,
    /// True when every NAL unit stays and lengths have four bytes already.
    is_canonical: bool,
}

impl AccessUnit {
    fn read(payload: &Bytes, length_bytes: usize) -> Result<Self, FlvError> {
        let mut unit = Self {
            length_bytes,
            sps: Vec::new(),
            pps: Vec::new(),
            has_picture: false,
            is_key: false,
            is_discardable: true,
            is_canonical: length_bytes == 4,
        };
        for nal in h264::nals_of(payload, length_bytes) {
            let nal = nal.map_err(|_bad| FlvError::Bitstream)?;
            let header = nal.first().copied().unwrap_or(0);
            match NalKind::of(header) {
                NalKind::Sps => unit.sps.push(payload.slice_ref(nal)),
                NalKind::Pps => unit.pps.push(payload.slice_ref(nal)),
                kind @ (NalKind::Slice | NalKind::Idr) => {
                    unit.has_picture = true;
                    unit.is_key |= kind == NalKind::Idr;
                    unit.is_discardable &= header & 0x60 == 0;
                }
                NalKind::Sei | NalKind::Other | NalKind::Filler => {}
            }
            unit.is_canonical &= stays(header);
        }
        Ok(unit)
    }

    /// Parameter sets that came with a keyframe instead of a sequence header.
    fn sets_in_band(&self) -> Option<Result<Format, FlvError>> {
        if !self.is_key || self.sps.is_empty() || self.pps.is_empty() {
            return None;
        }
        let config = h264::Config::new(self.sps.clone(), self.pps.clone());
        let config = config.map_err(|_bad| FlvError::Bitstream);
        let length_bytes = self.length_bytes;
        Some(config.and_then(|config| {
            picture_format(h264::Config {
                length_bytes,
                ..config
            })
        }))
    }

    fn canonical(&self, payload: Bytes) -> Bytes {
        if self.is_canonical {
            return payload;
        }
        let mut out = BytesMut::with_capacity(payload.len() + 16);
        for nal in h264::nals_of(&payload, self.length_bytes).flatten() {
            if stays(nal.first().copied().unwrap_or(0)) {
                h264::put_nal(&mut out, nal);
            }
        }
        out.freeze()
    }
}

/// Parameter sets live in the track's parameters; delimiters and filler serve nobody.
const fn stays(header: u8) -> bool {
    !matches!(
        NalKind::of(header),
        NalKind::Sps | NalKind::Pps | NalKind::Filler
    )
}

#[cfg(test)]
mod tests;
