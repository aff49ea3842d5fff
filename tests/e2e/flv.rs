//! FLV tags by their layout alone, independent of the server.

use bytes::Bytes;

const HEADER_BYTES: usize = 9 + 4;
const TAG_HEADER_BYTES: usize = 11;
pub(crate) const AUDIO: u8 = 8;
pub(crate) const VIDEO: u8 = 9;

/// A tag of a file; its body is also that of an RTMP message.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    pub(crate) kind: u8,
    pub(crate) stamp_ms: i64,
    pub(crate) body: Bytes,
}

impl Tag {
    /// Frames, not codec headers or metadata.
    pub(crate) fn is_media(&self) -> bool {
        matches!(self.kind, AUDIO | VIDEO) && self.body.get(1) == Some(&1)
    }

    /// The header of a track.
    pub(crate) fn is_header(&self) -> bool {
        matches!(self.kind, AUDIO | VIDEO) && self.body.get(1) == Some(&0)
    }

    pub(crate) fn is_key(&self) -> bool {
        self.kind == VIDEO && self.body.first() == Some(&0x17)
    }

    pub(crate) fn composition_ms(&self) -> i64 {
        let &[a, b, c] = self.body.get(2..5).unwrap() else {
            panic!("three bytes were asked for")
        };
        // Signed, 24 bits.
        i64::from(i32::from_be_bytes([a, b, c, 0]) >> 8)
    }
}

/// The tags of a file; a last one that is cut short is left out.
pub(crate) fn tags(bytes: &Bytes) -> Vec<Tag> {
    let mut at = HEADER_BYTES;
    let next = || {
        let header = bytes.get(at..at + TAG_HEADER_BYTES)?;
        let &[kind, l1, l2, l3, t1, t2, t3, t0, ..] = header else {
            return None;
        };
        let length = usize::try_from(u32::from_be_bytes([0, l1, l2, l3])).unwrap();
        let start = at + TAG_HEADER_BYTES;
        bytes.get(start..start + length)?;
        at = start + length + 4;
        Some(Tag {
            kind,
            stamp_ms: i64::from(i32::from_be_bytes([t0, t1, t2, t3])),
            body: bytes.slice(start..start + length),
        })
    };
    std::iter::from_fn(next).collect()
}
