//! Frames and tracks: the one type that carries encoded media.
//!
//! Invariants
//! - H.264 and HEVC payloads are NAL units with four-byte lengths; parameter sets are in
//!   [`TrackInfo::config`], never in the payload. AV1 payloads are OBUs with sizes, keyframes with
//!   their sequence header, nothing with a temporal delimiter.
//! - `pts >= dts`.
//! - What is derived from a frame for many viewers is made once and kept beside it.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::time::{MediaTime, SourceTime};

/// Picture or sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Picture.
    Video,
    /// Sound.
    Audio,
}

/// One elementary stream of a broadcast. `Video` and `Audio` come from the publisher, the others
/// are made by converters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TrackId {
    /// The publisher's picture.
    Video,
    /// The publisher's sound.
    Audio,
    /// The source picture re-encoded at source height: no reordered frames, fixed keyframe grid.
    Clean,
    /// A rung of the ladder, named by its height in lines.
    Rung(u16),
    /// The source sound as Opus.
    Opus,
    /// The source sound as AAC-LC.
    Aac,
}

impl TrackId {
    /// Whether the track carries picture or sound.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Video | Self::Clean | Self::Rung(_) => Kind::Video,
            Self::Audio | Self::Opus | Self::Aac => Kind::Audio,
        }
    }

    /// True for a track that a converter makes.
    pub const fn is_made(self) -> bool {
        !matches!(self, Self::Video | Self::Audio)
    }
}

impl fmt::Display for TrackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Video => f.write_str("video"),
            Self::Audio => f.write_str("audio"),
            Self::Clean => f.write_str("clean"),
            Self::Rung(height) => write!(f, "v{height}"),
            Self::Opus => f.write_str("opus"),
            Self::Aac => f.write_str("aac"),
        }
    }
}

/// How a track is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264.
    H264,
    /// ITU-T H.265.
    Hevc,
    /// `AOMedia` AV1.
    Av1,
    /// MPEG-4 AAC (LC or HE).
    Aac,
    /// RFC 6716 Opus.
    Opus,
}

/// Size of a picture or form of a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Picture size in luma samples, after cropping.
    Video {
        /// Width.
        width: u32,
        /// Height.
        height: u32,
    },
    /// Form of a sound.
    Audio {
        /// Samples per second.
        rate: u32,
        /// Number of channels.
        channels: u8,
    },
}

/// What a decoder must know of a track before its first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// How the track is coded.
    pub codec: Codec,
    /// Rises each time the parameters change; 0 at first.
    pub generation: u32,
    /// Picture size or sound form.
    pub shape: Shape,
    /// `AVCDecoderConfigurationRecord` for H.264, `HEVCDecoderConfigurationRecord` for HEVC,
    /// `AV1CodecConfigurationRecord` for AV1, `AudioSpecificConfig` for AAC, `OpusHead`
    /// (RFC 7845 5.1) for Opus.
    pub config: Bytes,
    /// The most frames that may be shown after a frame decoded later, if the bitstream says so.
    pub reorder_frames: Option<u8>,
}

impl TrackInfo {
    /// Samples per second of a sound; `None` for a picture.
    pub const fn audio_rate(&self) -> Option<u32> {
        match self.shape {
            Shape::Audio { rate, .. } => Some(rate),
            Shape::Video { .. } => None,
        }
    }

    /// Width and height of a picture; `None` for a sound.
    pub const fn picture_size(&self) -> Option<(u32, u32)> {
        match self.shape {
            Shape::Video { width, height } => Some((width, height)),
            Shape::Audio { .. } => None,
        }
    }

    /// Whether `other` describes the same parameters, whatever its generation.
    pub fn is_same_format(&self, other: &Self) -> bool {
        self.codec == other.codec && self.shape == other.shape && self.config == other.config
    }
}

/// One access unit as a publisher stamped it, before it is placed on T.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Picture or sound.
    pub kind: Kind,
    /// Decode time on the publisher's clock.
    pub dts: SourceTime,
    /// Presentation minus decode time, never negative.
    pub composition: Duration,
    /// Samples of sound in it (1 024 for AAC-LC); 0 for a picture.
    pub samples: u32,
    /// True when decoding can start here.
    pub is_key: bool,
    /// True when no other frame refers to it.
    pub is_discardable: bool,
    /// The coded bytes, in the form [`Frame::payload`] has.
    pub payload: Bytes,
}

/// One encoded access unit on T.
pub struct Frame {
    /// The track it belongs to.
    pub track: TrackId,
    /// What a decoder needs to know to use it.
    pub info: Arc<TrackInfo>,
    /// Decode time; strictly increasing within a track.
    pub dts: MediaTime,
    /// Presentation time; `pts >= dts`.
    pub pts: MediaTime,
    /// How long it lasts, if known (sound always knows).
    pub duration: Option<Duration>,
    /// True when decoding can start here.
    pub is_key: bool,
    /// True when no other frame refers to it.
    pub is_discardable: bool,
    /// How many discontinuities of T this broadcast has had before it.
    pub discontinuities: u32,
    /// Length-prefixed NAL units, the OBUs of a temporal unit, a raw AAC frame, or an Opus packet.
    pub payload: Bytes,
    /// Derived RTP payloads; made by the first viewer that needs them.
    pub rtp: OnceLock<Arc<[RtpPayload]>>,
    /// The tag around it, as FLV viewers are sent it; made by the first of them.
    pub flv: OnceLock<FlvTag>,
    /// The chunks of the message around it, as RTMP viewers are sent it; made by the first of them.
    pub chunks: OnceLock<Box<[Bytes]>>,
    /// When it came into its ring.
    pub arrived: OnceLock<Instant>,
}

/// What one RTP packet carries of a frame: slices of it, so that they cost no memory of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtpPayload {
    /// Stands before the body.
    pub(crate) head: RtpHead,
    pub(crate) body: Bytes,
}

/// The bytes of a payload that are not the frame's: at most four.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RtpHead {
    bytes: [u8; 4],
    length: u8,
}

impl RtpHead {
    pub(crate) fn push(mut self, byte: u8) -> Self {
        if let Some(place) = self.bytes.get_mut(usize::from(self.length)) {
            *place = byte;
            self.length += 1;
        }
        self
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    pub(crate) fn len(self) -> usize {
        self.length.into()
    }
}

impl<const N: usize> From<[u8; N]> for RtpHead {
    fn from(bytes: [u8; N]) -> Self {
        const { assert!(N <= 4, "a head has room for four bytes") };
        bytes.into_iter().fold(Self::default(), Self::push)
    }
}

/// A frame as a tag of an FLV stream, in slices that follow each other. Head and tail are one piece
/// of memory; of a small frame the head is all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlvTag {
    pub(crate) head: Bytes,
    /// A slice of the frame.
    pub(crate) body: Bytes,
    pub(crate) tail: Bytes,
}

impl RtpPayload {
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl From<Bytes> for RtpPayload {
    fn from(body: Bytes) -> Self {
        Self {
            head: RtpHead::default(),
            body,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("track", &self.track)
            .field("dts", &self.dts)
            .field("pts", &self.pts)
            .field("is_key", &self.is_key)
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
