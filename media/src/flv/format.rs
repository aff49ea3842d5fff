//! Headers to the parameters of a track, within the limits of what is taken.

use bytes::Bytes;

use super::FlvError;
use crate::bitstream::{aac, av1, h264, hevc, opus};
use crate::frame::{Codec, Shape, TrackInfo};

/// The largest picture taken.
const WIDTH_MAX: u32 = 7_680;
const HEIGHT_MAX: u32 = 4_320;
/// The most pictures a second taken.
const FRAME_RATE_MAX: u32 = 120;
/// Bytes of an `AudioSpecificConfig`; real ones have 2 to 10.
const SOUND_RECORD_BYTES_MAX: usize = 64;
/// Channels of Opus that comes without a header.
const OPUS_CHANNELS_DEFAULT: u8 = 2;

/// What a header says.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) info: TrackInfo,
    pub(super) framing: Framing,
}

/// How the payloads of a track are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// H.264 NAL units with lengths of so many bytes.
    Avc(usize),
    /// HEVC NAL units with lengths of so many bytes.
    Hevc(usize),
    /// OBUs; whether every frame is a keyframe with a shortened header.
    Av1 { is_reduced: bool },
    /// One frame of sound.
    Sound(Codec),
}

impl Framing {
    pub(super) const fn codec(self) -> Codec {
        match self {
            Self::Avc(_) => Codec::H264,
            Self::Hevc(_) => Codec::Hevc,
            Self::Av1 { .. } => Codec::Av1,
            Self::Sound(codec) => codec,
        }
    }
}

/// A sequence header; `None` when it leaves all it should say to the keyframes.
pub(super) fn header(codec: Codec, record: &Bytes) -> Result<Option<Format>, FlvError> {
    match codec {
        Codec::H264 => {
            let config = h264::Config::parse(record).map_err(|_bad| FlvError::Bitstream)?;
            of_avc(&config).map(Some)
        }
        Codec::Hevc => {
            let config = hevc::Config::parse(record).map_err(|_bad| FlvError::Bitstream)?;
            of_hevc(&config).map(Some)
        }
        Codec::Av1 => match av1::Config::parse(record).map_err(|_bad| FlvError::Bitstream)? {
            Some(config) => of_av1(&config).map(Some),
            None => Ok(None),
        },
        Codec::Aac => of_aac(record).map(Some),
        Codec::Opus => of_opus(record).map(Some),
    }
}

pub(super) fn of_avc(config: &h264::Config) -> Result<Format, FlvError> {
    let facts = config.facts().map_err(|_bad| FlvError::Bitstream)?;
    let picture = Picture {
        size: (facts.width, facts.height),
        frame_rate: facts.frame_rate,
        reorder_frames: facts.reorder_frames,
    };
    let info = picture.info(Codec::H264, config.build())?;
    let framing = Framing::Avc(config.length_bytes);
    Ok(Format { info, framing })
}

pub(super) fn of_hevc(config: &hevc::Config) -> Result<Format, FlvError> {
    let facts = config.facts().map_err(|_bad| FlvError::Bitstream)?;
    let record = config.build().map_err(|_bad| FlvError::Bitstream)?;
    let picture = Picture {
        size: (facts.width, facts.height),
        // It lies behind the coding tools, which nothing else needs to read.
        frame_rate: None,
        reorder_frames: Some(facts.reorder_frames),
    };
    let info = picture.info(Codec::Hevc, record)?;
    let framing = Framing::Hevc(config.length_bytes);
    Ok(Format { info, framing })
}

pub(super) fn of_av1(config: &av1::Config) -> Result<Format, FlvError> {
    let facts = &config.facts;
    let picture = Picture {
        size: (facts.width, facts.height),
        frame_rate: facts.frame_rate,
        // A temporal unit is what is shown at one time.
        reorder_frames: Some(0),
    };
    let info = picture.info(Codec::Av1, config.build())?;
    let is_reduced = facts.is_reduced;
    let framing = Framing::Av1 { is_reduced };
    Ok(Format { info, framing })
}

struct Picture {
    size: (u32, u32),
    frame_rate: Option<u32>,
    reorder_frames: Option<u8>,
}

impl Picture {
    /// The parameters, unless the picture is beyond what is taken.
    fn info(self, codec: Codec, config: Bytes) -> Result<TrackInfo, FlvError> {
        let (width, height) = self.size;
        if width > WIDTH_MAX || height > HEIGHT_MAX {
            return Err(FlvError::PictureTooLarge(width, height));
        }
        if let Some(rate) = self.frame_rate.filter(|rate| *rate > FRAME_RATE_MAX) {
            return Err(FlvError::FrameRate(rate));
        }
        Ok(TrackInfo {
            codec,
            generation: 0,
            shape: Shape::Video { width, height },
            config,
            reorder_frames: self.reorder_frames,
        })
    }
}

fn of_aac(record: &Bytes) -> Result<Format, FlvError> {
    if record.len() > SOUND_RECORD_BYTES_MAX {
        return Err(FlvError::Bitstream);
    }
    let config = aac::Config::parse(record).map_err(|bad| match bad {
        aac::BadAac::Config => FlvError::Bitstream,
        aac::BadAac::ObjectType(_) => FlvError::Codec("this form of AAC"),
    })?;
    if !(8_000..=96_000).contains(&config.rate) {
        return Err(FlvError::Codec("sound below 8 kHz or above 96 kHz"));
    }
    Ok(sound(
        Codec::Aac,
        config.rate,
        config.channels,
        record.clone(),
    ))
}

fn of_opus(record: &Bytes) -> Result<Format, FlvError> {
    let head = if record.is_empty() {
        opus::head(OPUS_CHANNELS_DEFAULT)
    } else {
        record.clone()
    };
    let channels = opus::channels(&head).map_err(|bad| match bad {
        opus::BadOpus::Channels => FlvError::Codec("Opus with more than two channels"),
        opus::BadOpus::Head | opus::BadOpus::Packet => FlvError::Bitstream,
    })?;
    // What follows the fixed fields belongs to mappings that are not taken.
    let head = head.slice(..opus::HEAD_BYTES);
    Ok(sound(Codec::Opus, opus::RATE, channels, head))
}

fn sound(codec: Codec, rate: u32, channels: u8, config: Bytes) -> Format {
    let info = TrackInfo {
        codec,
        generation: 0,
        shape: Shape::Audio { rate, channels },
        config,
        reorder_frames: None,
    };
    let framing = Framing::Sound(codec);
    Format { info, framing }
}
