//! Bodies of FLV tags, as RTMP carries them: the reverse of what the rest of this module reads.

use bytes::{BufMut, Bytes, BytesMut};

use crate::frame::Codec;

/// H.264, keyframe and other.
const KEY: u8 = 0x17;
const INTER: u8 = 0x27;
/// AAC; the form bits are fixed for it.
const AAC: u8 = 0xaf;
/// Enhanced RTMP: a named picture codec, keyframe and other, with its packet type.
const NAMED_KEY: u8 = 0x90;
const NAMED_INTER: u8 = 0xa0;
const HEVC: [u8; 4] = *b"hvc1";
const AV1: [u8; 4] = *b"av01";
/// Packet types: parameters, a picture, and one that is shown when it is decoded.
const HEADER: u8 = 0;
const CODED: u8 = 1;
const CODED_X: u8 = 3;
/// A named sound codec, with its packet type.
const NAMED_SOUND: u8 = 0x90;
const OPUS: [u8; 4] = *b"Opus";

/// The header of a picture track: an `AVCDecoderConfigurationRecord`.
pub(crate) fn picture_header(config: &[u8]) -> Bytes {
    tag(&[KEY, 0, 0, 0, 0], config)
}

/// A picture shown `composition_ms` after its decode time.
pub(crate) fn picture(is_key: bool, composition_ms: u32, payload: &[u8]) -> Bytes {
    let [_, high, middle, low] = composition_ms.to_be_bytes();
    let head = if is_key { KEY } else { INTER };
    tag(&[head, 1, high, middle, low], payload)
}

/// The header of an HEVC track: an `HEVCDecoderConfigurationRecord`.
pub(crate) fn hevc_header(config: &[u8]) -> Bytes {
    named_tag(NAMED_KEY | HEADER, HEVC, config)
}

/// A picture of HEVC, shown when it is decoded.
pub(crate) fn hevc(is_key: bool, payload: &[u8]) -> Bytes {
    let head = if is_key { NAMED_KEY } else { NAMED_INTER };
    named_tag(head | CODED_X, HEVC, payload)
}

/// A temporal unit of AV1, whose parameters stand in it.
pub(crate) fn av1(is_key: bool, payload: &[u8]) -> Bytes {
    let head = if is_key { NAMED_KEY } else { NAMED_INTER };
    named_tag(head | CODED, AV1, payload)
}

/// The header of a sound track: an `AudioSpecificConfig`.
pub(crate) fn sound_header(config: &[u8]) -> Bytes {
    tag(&[AAC, 0], config)
}

/// A frame of sound.
pub(crate) fn sound(payload: &[u8]) -> Bytes {
    tag(&[AAC, 1], payload)
}

/// The header of an Opus track: an `OpusHead`.
pub(crate) fn opus_header(config: &[u8]) -> Bytes {
    named_tag(NAMED_SOUND | HEADER, OPUS, config)
}

/// An Opus packet.
pub(crate) fn opus(payload: &[u8]) -> Bytes {
    named_tag(NAMED_SOUND | CODED, OPUS, payload)
}

/// What stands before the payload of a frame, whatever its codec.
pub(crate) fn put_frame_head(out: &mut BytesMut, codec: Codec, is_key: bool, composition_ms: u32) {
    let [_, high, middle, low] = composition_ms.to_be_bytes();
    let named = if is_key { NAMED_KEY } else { NAMED_INTER };
    match codec {
        Codec::H264 => {
            let head = if is_key { KEY } else { INTER };
            out.put_slice(&[head, 1, high, middle, low]);
        }
        Codec::Hevc if composition_ms == 0 => put_named(out, named | CODED_X, HEVC),
        Codec::Hevc => {
            put_named(out, named | CODED, HEVC);
            out.put_slice(&[high, middle, low]);
        }
        Codec::Av1 => put_named(out, named | CODED, AV1),
        Codec::Aac => out.put_slice(&[AAC, 1]),
        Codec::Opus => put_named(out, NAMED_SOUND | CODED, OPUS),
    }
}

/// The header of a track, whatever its codec.
pub(crate) fn header_of(codec: Codec, config: &[u8]) -> Bytes {
    match codec {
        Codec::H264 => picture_header(config),
        Codec::Hevc => hevc_header(config),
        Codec::Av1 => named_tag(NAMED_KEY | HEADER, AV1, config),
        Codec::Aac => sound_header(config),
        Codec::Opus => opus_header(config),
    }
}

fn put_named(out: &mut BytesMut, head: u8, four: [u8; 4]) {
    out.put_u8(head);
    out.put_slice(&four);
}

fn named_tag(head: u8, [a, b, c, d]: [u8; 4], body: &[u8]) -> Bytes {
    tag(&[head, a, b, c, d], body)
}

fn tag(head: &[u8], body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + body.len());
    out.put_slice(head);
    out.put_slice(body);
    out.freeze()
}
