//! Bodies of FLV tags, as RTMP carries them: the reverse of what the rest of this module reads.

use bytes::{BufMut, Bytes, BytesMut};

/// H.264, keyframe and other.
const KEY: u8 = 0x17;
const INTER: u8 = 0x27;
/// AAC; the form bits are fixed for it.
const AAC: u8 = 0xaf;
/// Enhanced RTMP: a named sound codec, with its packet type.
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
    opus_tag(0, config)
}

/// An Opus packet.
pub(crate) fn opus(payload: &[u8]) -> Bytes {
    opus_tag(1, payload)
}

fn opus_tag(packet_type: u8, body: &[u8]) -> Bytes {
    let [o, p, u, s] = OPUS;
    tag(&[NAMED_SOUND | packet_type, o, p, u, s], body)
}

fn tag(head: &[u8], body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + body.len());
    out.put_slice(head);
    out.put_slice(body);
    out.freeze()
}
