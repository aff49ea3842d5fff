//! Bodies of FLV tags, as RTMP carries them: the reverse of [`crate::flv`].

use bytes::{BufMut, Bytes, BytesMut};

/// H.264, keyframe and other.
const KEY: u8 = 0x17;
const INTER: u8 = 0x27;
/// AAC; the form bits are fixed for it.
const AAC: u8 = 0xaf;

/// The header of a picture track: an `AVCDecoderConfigurationRecord`.
pub(super) fn picture_header(config: &[u8]) -> Bytes {
    tag(&[KEY, 0, 0, 0, 0], config)
}

/// A picture shown `composition_ms` after its decode time.
pub(super) fn picture(is_key: bool, composition_ms: u32, payload: &[u8]) -> Bytes {
    let [_, high, middle, low] = composition_ms.to_be_bytes();
    let head = if is_key { KEY } else { INTER };
    tag(&[head, 1, high, middle, low], payload)
}

/// The header of a sound track: an `AudioSpecificConfig`.
pub(super) fn sound_header(config: &[u8]) -> Bytes {
    tag(&[AAC, 0], config)
}

/// A frame of sound.
pub(super) fn sound(payload: &[u8]) -> Bytes {
    tag(&[AAC, 1], payload)
}

fn tag(head: &[u8], body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(head.len() + body.len());
    out.put_slice(head);
    out.put_slice(body);
    out.freeze()
}
