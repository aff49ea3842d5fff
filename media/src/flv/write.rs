//! FLV streams byte by byte: the file header, `onMetaData`, headers of tracks, and frames.
//!
//! Invariants
//! - A tag's time is T in milliseconds modulo 2^32: the same bytes for every viewer.
//! - What a frame's tag adds is made once and kept beside the frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::body;
use crate::frame::{Codec, FlvTag, Frame, Kind, TrackInfo};
use crate::rtmp::amf::{self, Value};
use crate::time::MediaTime;

const SOUND: u8 = 8;
const PICTURE: u8 = 9;
const SCRIPT: u8 = 18;
pub(super) const ON_METADATA: &str = "onMetaData";
const TAG_HEADER_BYTES: usize = 11;
/// The most that stands between a tag's header and its payload: a named picture with its offset.
pub(super) const FRAME_HEAD_BYTES_MAX: usize = 8;
const TAIL_BYTES: usize = 4;
/// Smaller frames are copied beside their head: one slice is cheaper to send than three.
pub(super) const COPIED_BYTES_MAX: usize = 2_048;

/// The header of a stream, with the size of the tag before the first.
pub(super) fn file_header(has_picture: bool, has_sound: bool) -> Bytes {
    let flags = u8::from(has_picture) | u8::from(has_sound) << 2;
    Bytes::copy_from_slice(&[b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0])
}

/// The header of a track as a tag.
pub(super) fn track_header(kind: Kind, info: &TrackInfo, at: MediaTime) -> Bytes {
    tag(of(kind), at, &body::header_of(info.codec, &info.config))
}

/// [`facts`] as a tag. Of time zero, wherever the stream begins: FFmpeg takes a later one for a
/// track of text.
pub(super) fn metadata(facts: &[(String, Value)]) -> Bytes {
    tag(
        SCRIPT,
        MediaTime::ZERO,
        &amf::write_facts(ON_METADATA, facts),
    )
}

/// What a player may want to know before the first frame.
pub(super) fn facts(
    picture: Option<&TrackInfo>,
    sound: Option<&TrackInfo>,
) -> Vec<(String, Value)> {
    let number = |name: &str, value: f64| (name.to_owned(), Value::Number(value));
    let mut facts = Vec::new();
    if let Some(info) = picture {
        if let Some((width, height)) = info.picture_size() {
            facts.push(number("width", width.into()));
            facts.push(number("height", height.into()));
        }
        facts.push(number("videocodecid", codec_id(info.codec)));
    }
    if let Some(info) = sound {
        facts.push(number("audiocodecid", codec_id(info.codec)));
        facts.extend(
            info.audio_rate()
                .map(|rate| number("audiosamplerate", rate.into())),
        );
    }
    facts
}

/// Of classic FLV, or the four characters of enhanced RTMP as a number.
fn codec_id(codec: Codec) -> f64 {
    let four = |name: [u8; 4]| f64::from(u32::from_be_bytes(name));
    match codec {
        Codec::H264 => 7.0,
        Codec::Aac => 10.0,
        Codec::Hevc => four(*b"hvc1"),
        Codec::Av1 => four(*b"av01"),
        Codec::Opus => four(*b"Opus"),
    }
}

/// A frame as a tag.
pub(super) fn frame(frame: &Frame) -> FlvTag {
    let codec = frame.info.codec;
    let payload = &frame.payload;
    let is_copied = payload.len() <= COPIED_BYTES_MAX;
    let copied = if is_copied { payload.len() } else { 0 };
    let room = TAG_HEADER_BYTES + FRAME_HEAD_BYTES_MAX + copied + TAIL_BYTES;
    let mut out = BytesMut::with_capacity(room);
    // The size is known once the head stands.
    out.put_bytes(0, TAG_HEADER_BYTES);
    body::put_frame_head(&mut out, codec, frame.is_key, composition_ms(frame));
    let size = out.len() - TAG_HEADER_BYTES + payload.len();
    let header = tag_header(of(frame.track.kind()), frame.dts, size);
    if let Some(place) = out.first_chunk_mut() {
        *place = header;
    }
    if is_copied {
        out.put_slice(payload);
    }
    let head_bytes = out.len();
    out.put_u32(size_of_tag(size));
    let mut head = out.freeze();
    if is_copied {
        let (body, tail) = (Bytes::new(), Bytes::new());
        return FlvTag { head, body, tail };
    }
    let tail = head.split_off(head_bytes);
    let body = payload.clone();
    FlvTag { head, body, tail }
}

/// From decoding to showing, in the milliseconds of the times that are told.
pub(super) fn composition_ms(frame: &Frame) -> u32 {
    let ms = frame.pts.to_ticks(1_000) - frame.dts.to_ticks(1_000);
    u32::try_from(ms).unwrap_or(0).min(0x007f_ffff)
}

/// T in milliseconds modulo 2^32.
pub(super) fn time_ms(at: MediaTime) -> u32 {
    u32::try_from(at.to_ticks(1_000).rem_euclid(1 << 32)).unwrap_or(0)
}

const fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Video => PICTURE,
        Kind::Audio => SOUND,
    }
}

fn tag(kind: u8, at: MediaTime, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(TAG_HEADER_BYTES + body.len() + TAIL_BYTES);
    out.put_slice(&tag_header(kind, at, body.len()));
    out.put_slice(body);
    out.put_u32(size_of_tag(body.len()));
    out.freeze()
}

fn size_of_tag(body_bytes: usize) -> u32 {
    u32::try_from(TAG_HEADER_BYTES + body_bytes).unwrap_or(u32::MAX)
}

/// Publishers' messages are at most 8 MiB, and what encoders make is smaller: 24 bits hold it.
fn tag_header(kind: u8, at: MediaTime, body_bytes: usize) -> [u8; TAG_HEADER_BYTES] {
    let [_, s1, s2, s3] = u32::try_from(body_bytes).unwrap_or(u32::MAX).to_be_bytes();
    let [t0, t1, t2, t3] = time_ms(at).to_be_bytes();
    [kind, s1, s2, s3, t1, t2, t3, t0, 0, 0, 0]
}
