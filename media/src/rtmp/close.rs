//! Why an RTMP connection is closed, as one closed list (spec media.md 9).
//!
//! Not here: what the publisher is told; [`super::session`] says it before it closes.

use super::amf::BadAmf;
use super::chunk::ChunkError;
use crate::request::RefusalCode;

/// Why a connection is closed: the closed list of spec media.md 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Not RTMP.
    Handshake,
    /// Too slow in the handshake.
    TimeoutHandshake,
    /// No `connect` in time.
    TimeoutConnect,
    /// No `publish` or `play` in time.
    TimeoutPublish,
    /// No media in time after the start.
    TimeoutMedia,
    /// Silent for too long.
    Silence,
    /// Chunks that cannot be read.
    Chunk(ChunkError),
    /// Values that cannot be read.
    Amf,
    /// Commands out of order.
    Dialogue,
    /// The server said no.
    Refused(RefusalCode),
}

impl CloseReason {
    /// The stable word for logs and counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::TimeoutHandshake => "timeout_handshake",
            Self::TimeoutConnect => "timeout_connect",
            Self::TimeoutPublish => "timeout_publish",
            Self::TimeoutMedia => "timeout_media",
            Self::Silence => "silence",
            Self::Chunk(err) => err.reason(),
            Self::Amf => "amf",
            Self::Dialogue => "dialogue",
            Self::Refused(code) => code.reason(),
        }
    }
}

impl From<BadAmf> for CloseReason {
    fn from(_: BadAmf) -> Self {
        Self::Amf
    }
}

impl From<ChunkError> for CloseReason {
    fn from(err: ChunkError) -> Self {
        Self::Chunk(err)
    }
}
