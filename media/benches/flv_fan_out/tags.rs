//! FLV tags of H.264 and AAC, made without the server's own code.

use bytes::{BufMut, Bytes, BytesMut};
use lamplight_media::frame::{Frame, Kind};

const HEADER_BYTES: usize = 11;

/// What stands before a frame's payload: header of the tag, and of the body.
fn head(frame: &Frame, out: &mut impl BufMut) -> usize {
    let is_video = frame.track.kind() == Kind::Video;
    let body: &[u8] = match (is_video, frame.is_key) {
        (true, true) => &[0x17, 1, 0, 0, 0],
        (true, false) => &[0x27, 1, 0, 0, 0],
        (false, _) => &[0xaf, 1],
    };
    let size = body.len() + frame.payload.len();
    let ms = frame.dts.as_micros() / 1_000;
    let [_, s1, s2, s3] = u32::try_from(size).unwrap().to_be_bytes();
    let [t0, t1, t2, t3] = u32::try_from(ms).unwrap().to_be_bytes();
    out.put_u8(if is_video { 9 } else { 8 });
    out.put_slice(&[s1, s2, s3, t1, t2, t3, t0, 0, 0, 0]);
    out.put_slice(body);
    size
}

fn tail(size: usize) -> u32 {
    u32::try_from(HEADER_BYTES + size).unwrap()
}

/// In slices, of which the payload is the frame's own.
pub(crate) fn slices(frame: &Frame) -> [Bytes; 3] {
    let mut out = BytesMut::new();
    let size = head(frame, &mut out);
    let tail = Bytes::copy_from_slice(&tail(size).to_be_bytes());
    [out.freeze(), frame.payload.clone(), tail]
}

/// In one piece, with a copy of the payload.
pub(crate) fn whole(frame: &Frame, out: &mut Vec<u8>) {
    let size = head(frame, out);
    out.put_slice(&frame.payload);
    out.put_u32(tail(size));
}
