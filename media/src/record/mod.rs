//! Recording (spec media.md 1.6, 6.7): what the packager hands on to be kept, the index that says
//! what is there, and the replay that is computed from it.
//!
//! The packager pushes the same bytes that live viewers get into a bounded queue ([`Recorder`]);
//! the server takes them out ([`Backlog`]) and keeps them under their keys. The rows that go with
//! them are the index; [`Index`] reads them back and writes the playlists of a replay, and lays out
//! a clip as one file ([`Clip`]).
//!
//! Invariants
//! - Live never waits for the store: a full queue drops its oldest segment, and says so with a row
//!   (I33).
//! - A replay has the live duration, give or take a segment, and every cue at its T (I34).
//!
//! Not here: where objects are kept; HTTP.

pub(crate) mod boxes;
mod clip;
mod index;
mod queue;
mod row;
mod vod;

pub use self::boxes::DamagedBoxes;
pub use self::clip::{CLIP_MAX, Clip, ClipError, ClipPiece, ClipPlan, Need};
pub use self::index::{Index, read_rows};
pub use self::queue::{BYTES_MAX, Backlog, Entry, Recorder, SEGMENTS_MAX, Status, Stored, queue};
pub use self::row::{
    CueEndRow, CueRow, DiscontinuityRow, EndRow, GapCause, GapRow, InitRow, Keyframe, Row,
    SegmentRow,
};
pub use self::vod::Span;

use crate::hls::RenditionId;

/// The name of a recording: of a room and an instance of it.
pub fn recording_name(room: &str, instance: &str) -> String {
    format!("{room}.{instance}")
}

/// Under what an object of a recording is kept; `file` is the last piece of its URL.
pub fn key(recording: &str, rendition: RenditionId, file: &str) -> String {
    format!("{recording}/{rendition}/{file}")
}

/// The file name of an init section.
pub(crate) fn init_file(instance: &str, number: u32) -> String {
    format!("{instance}-init{number}.mp4")
}

/// The file name of a segment.
pub(crate) fn segment_file(instance: &str, msn: u64) -> String {
    format!("{instance}-s{msn}.m4s")
}
