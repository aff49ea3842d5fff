//! Frames to RTP payloads, by the payload format of their codec.
//!
//! Invariant: the fragments of a unit have one size but the last, so that one send with
//! segmentation offload carries them.

mod av1;
mod h264;
mod hevc;
#[cfg(test)]
mod testing;

use std::sync::Arc;

use bytes::Bytes;

use crate::frame::{Codec, Frame, RtpHead, RtpPayload};

/// The RTP payloads of a frame, at most `max` bytes each; made once and kept beside the frame.
pub(crate) fn payloads(frame: &Frame, max: usize) -> &Arc<[RtpPayload]> {
    frame.rtp.get_or_init(|| match frame.info.codec {
        Codec::H264 => h264::payloads(frame, max).into(),
        Codec::Hevc => hevc::payloads(frame, max).into(),
        Codec::Av1 => av1::payloads(frame, max).into(),
        Codec::Opus | Codec::Aac => Arc::from([frame.payload.clone().into()]),
    })
}

/// The size of a piece when so many bytes are cut into as few as fit `room`, all but the last
/// equal.
const fn even(bytes: usize, room: usize) -> usize {
    let count = bytes.div_ceil(room);
    if count == 0 { 1 } else { bytes.div_ceil(count) }
}

/// Cuts a body into pieces of this size; `head` is told of each whether it is the first and the
/// last.
fn fragments(
    body: &Bytes,
    size: usize,
    head: impl Fn(bool, bool) -> RtpHead,
    out: &mut Vec<RtpPayload>,
) {
    let count = body.len().div_ceil(size);
    for (n, piece) in body.chunks(size).enumerate() {
        out.push(RtpPayload {
            head: head(n == 0, n + 1 == count),
            body: body.slice_ref(piece),
        });
    }
}
