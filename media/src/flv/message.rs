//! RTMP messages of a viewer byte by byte, in chunks (RTMP 1.0 section 5.3).
//!
//! Invariants
//! - Each message begins with a full header on the chunk stream of its kind, so that nothing of it
//!   depends on what another viewer was sent before.
//! - A message's time is T in milliseconds modulo 2^32. What frames are on message stream
//!   [`SHARED_STREAM`] is made once, and kept beside the frame.

use bytes::{Bytes, BytesMut};

use super::body;
use super::write::{COPIED_BYTES_MAX, FRAME_HEAD_BYTES_MAX, ON_METADATA, composition_ms, time_ms};
use crate::frame::{Frame, Kind, TrackInfo};
use crate::rtmp::amf::{self, Value};
use crate::rtmp::chunk::{CHUNK_BYTES, ChunkWriter, Message, MessageHead, kind};
use crate::time::MediaTime;

/// The message stream that nearly every player plays on: the first that it is given.
pub(super) const SHARED_STREAM: u32 = 1;
/// Chunk streams of what is sent; 2, 3 and 5 are those of the dialogue.
const SOUND_ID: u8 = 4;
const PICTURE_ID: u8 = 6;
const DATA_ID: u8 = 7;
const CHUNK: usize = CHUNK_BYTES as usize;

/// What a player may want to know before the first frame.
pub(super) fn metadata(stream_id: u32, facts: &[(String, Value)]) -> Bytes {
    let message = Message {
        type_id: kind::DATA,
        stream_id,
        timestamp: 0,
        payload: amf::write_facts(ON_METADATA, facts),
    };
    whole(DATA_ID, &message)
}

/// The header of a track.
pub(super) fn track_header(stream_id: u32, of: Kind, info: &TrackInfo, at: MediaTime) -> Bytes {
    let (type_id, id) = place_of(of);
    let message = Message {
        type_id,
        stream_id,
        timestamp: time_ms(at),
        payload: body::header_of(info.codec, &info.config),
    };
    whole(id, &message)
}

/// A frame, in slices that follow each other.
pub(super) fn frame(frame: &Frame, stream_id: u32) -> Box<[Bytes]> {
    let mut tag_head = BytesMut::with_capacity(FRAME_HEAD_BYTES_MAX);
    let composition_ms = composition_ms(frame);
    body::put_frame_head(
        &mut tag_head,
        frame.info.codec,
        frame.is_key,
        composition_ms,
    );
    let payload = &frame.payload;
    let (type_id, id) = place_of(frame.track.kind());
    let head = MessageHead {
        type_id,
        stream_id,
        timestamp: time_ms(frame.dts),
        length: tag_head.len() + payload.len(),
    };
    let is_copied = payload.len() <= COPIED_BYTES_MAX;
    let copied = if is_copied { payload.len() } else { 0 };
    let heads = MessageHead::BYTES_MAX + tag_head.len() + copied;
    // The header of a chunk that goes on is a part of that one.
    let mut out = BytesMut::with_capacity(heads + MessageHead::BYTES_MAX);
    head.put(&mut out, id);
    out.extend_from_slice(&tag_head);
    if is_copied {
        out.extend_from_slice(payload);
        return Box::new([out.freeze()]);
    }
    let first = out.split().freeze();
    head.put_next(&mut out, id);
    let next = out.freeze();
    let (begin, rest) = split(payload.clone(), CHUNK - tag_head.len());
    let mut slices = vec![first, begin];
    let mut rest = rest;
    while !rest.is_empty() {
        let (piece, left) = split(rest, CHUNK);
        slices.extend([next.clone(), piece]);
        rest = left;
    }
    slices.into_boxed_slice()
}

fn split(mut bytes: Bytes, at: usize) -> (Bytes, Bytes) {
    let rest = bytes.split_off(at.min(bytes.len()));
    (bytes, rest)
}

fn whole(id: u8, message: &Message) -> Bytes {
    let mut out = BytesMut::with_capacity(MessageHead::BYTES_MAX + message.payload.len());
    ChunkWriter::of(CHUNK).write(&mut out, id, message);
    out.freeze()
}

/// The message type and chunk stream of a kind of media.
const fn place_of(of: Kind) -> (u8, u8) {
    match of {
        Kind::Video => (kind::VIDEO, PICTURE_ID),
        Kind::Audio => (kind::AUDIO, SOUND_ID),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use super::*;
    use crate::frame::{Codec, Shape, TrackId};
    use crate::rtmp::chunk::{ChunkReader, MessageLimits};

    fn picture(ms: i64, bytes: usize) -> Frame {
        let info = TrackInfo {
            codec: Codec::H264,
            generation: 0,
            shape: Shape::Video {
                width: 640,
                height: 360,
            },
            config: Bytes::from_static(&[1, 2, 3]),
            reorder_frames: Some(0),
        };
        let payload: Vec<u8> = (0..bytes).map(|n| u8::try_from(n % 251).unwrap()).collect();
        Frame {
            track: TrackId::Video,
            info: Arc::new(info),
            dts: MediaTime::from_micros(ms * 1_000),
            pts: MediaTime::from_micros((ms + 40) * 1_000),
            duration: None,
            is_key: true,
            is_discardable: false,
            discontinuities: 0,
            payload: payload.into(),
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        }
    }

    /// Around the sizes at which a frame is copied or takes another chunk, and the times at which
    /// the header becomes longer or the clock begins again.
    #[test]
    fn a_frame_of_any_size_and_time_is_read_back_as_it_is() {
        let sizes = [1, 2_048, 2_049, 65_531, 65_532, 131_067, 131_068, 1_000_000];
        for ms in [0, 0x00ff_fffe, 0x00ff_ffff, 0x0100_0000, (1 << 32) + 5] {
            let mut reader = ChunkReader::new(MessageLimits::PUBLISHING);
            let size = Message {
                type_id: kind::SET_CHUNK_SIZE,
                stream_id: 0,
                timestamp: 0,
                payload: Bytes::copy_from_slice(&CHUNK_BYTES.to_be_bytes()),
            };
            let mut bytes = BytesMut::new();
            ChunkWriter::default().write(&mut bytes, 2, &size);
            reader.push(&bytes);
            for (bytes, stream_id) in sizes.into_iter().zip([1, 7].into_iter().cycle()) {
                let picture = picture(ms, bytes);
                for slice in frame(&picture, stream_id) {
                    reader.push(&slice);
                }
                let message = reader.next_message().unwrap().expect("it is whole");
                assert_eq!(message.timestamp, time_ms(picture.dts));
                assert_eq!(
                    (message.type_id, message.stream_id),
                    (kind::VIDEO, stream_id)
                );
                let (head, payload) = message.payload.split_at(5);
                assert_eq!(head, [0x17, 1, 0, 0, 40]);
                assert!(payload == picture.payload, "{bytes} bytes at {ms} ms");
            }
        }
    }
}
