//! In what a viewer's frames are wrapped: tags of an FLV stream, or messages of RTMP.

use bytes::Bytes;

use super::{message, write};
use crate::broadcast::Output;
use crate::frame::{Frame, Kind, TrackInfo};
use crate::rtmp::amf::Value;
use crate::time::MediaTime;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Muxer {
    /// HTTP-FLV.
    Flv,
    /// RTMP, on this message stream.
    Rtmp(u32),
}

impl Muxer {
    pub(super) const fn output(self) -> Output {
        match self {
            Self::Flv => Output::Flv,
            Self::Rtmp(_) => Output::Rtmp,
        }
    }

    /// The word for logs and counters.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Flv => "flv",
            Self::Rtmp(_) => "rtmp",
        }
    }

    /// What stands before all else; empty where that is a dialogue.
    pub(super) fn opening(self, has_picture: bool, has_sound: bool) -> Bytes {
        match self {
            Self::Flv => write::file_header(has_picture, has_sound),
            Self::Rtmp(_) => Bytes::new(),
        }
    }

    pub(super) fn metadata(self, facts: &[(String, Value)]) -> Bytes {
        match self {
            Self::Flv => write::metadata(facts),
            Self::Rtmp(stream_id) => message::metadata(stream_id, facts),
        }
    }

    pub(super) fn track_header(self, kind: Kind, info: &TrackInfo, at: MediaTime) -> Bytes {
        match self {
            Self::Flv => write::track_header(kind, info, at),
            Self::Rtmp(stream_id) => message::track_header(stream_id, kind, info, at),
        }
    }

    /// Hands on the slices of a frame, which are made once for all viewers.
    pub(super) fn frame(self, frame: &Frame, mut push: impl FnMut(Bytes)) {
        match self {
            Self::Flv => {
                let tag = frame.flv.get_or_init(|| write::frame(frame)).clone();
                for slice in [tag.head, tag.body, tag.tail] {
                    push(slice);
                }
            }
            Self::Rtmp(message::SHARED_STREAM) => {
                let made = frame
                    .chunks
                    .get_or_init(|| message::frame(frame, message::SHARED_STREAM));
                made.iter().cloned().for_each(push);
            }
            Self::Rtmp(stream_id) => {
                for slice in message::frame(frame, stream_id) {
                    push(slice);
                }
            }
        }
    }
}
