//! H.264 frames to RTP payloads (RFC 6184): single NAL units, STAP-A, FU-A.
//!
//! Invariant: the fragments of a NAL unit have one size but the last, so that one send with
//! segmentation offload carries them.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::bitstream::h264::{self, NalKind};
use crate::frame::{Codec, Frame, RtpPayload};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// The RTP payloads of a frame, at most `max` bytes each; made once and kept beside the frame.
pub(crate) fn payloads(frame: &Frame, max: usize) -> &Arc<[RtpPayload]> {
    frame.rtp.get_or_init(|| match frame.info.codec {
        Codec::H264 => h264_payloads(frame, max).into(),
        _ => Arc::from([frame.payload.clone().into()]),
    })
}

fn h264_payloads(frame: &Frame, max: usize) -> Vec<RtpPayload> {
    let mut out = Vec::new();
    if frame.is_key
        && let Ok(config) = h264::Config::parse(&frame.info.config)
    {
        parameter_sets(&config, max, &mut out);
    }
    for nal in h264::nals(&frame.payload).flatten() {
        match NalKind::of(nal.first().copied().unwrap_or(0)) {
            NalKind::Slice | NalKind::Idr | NalKind::Other => {
                fragment(&frame.payload.slice_ref(nal), max, &mut out);
            }
            // Parameter sets go in front; the rest tells a viewer nothing.
            NalKind::Sps | NalKind::Pps | NalKind::Sei | NalKind::Filler => {}
        }
    }
    out
}

/// The parameter sets in one packet, as of every real encoder, or one by one.
fn parameter_sets(config: &h264::Config, max: usize, out: &mut Vec<RtpPayload>) {
    let together = stap(config);
    if together.len() <= max {
        out.push(together.into());
        return;
    }
    for set in config.sps.iter().chain(&config.pps) {
        fragment(set, max, out);
    }
}

/// The parameter sets as one aggregation packet.
fn stap(config: &h264::Config) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(0x60 | STAP_A);
    for set in config.sps.iter().chain(&config.pps) {
        out.put_u16(u16::try_from(set.len()).unwrap_or(u16::MAX));
        out.put_slice(set);
    }
    out.freeze()
}

fn fragment(nal: &Bytes, max: usize, out: &mut Vec<RtpPayload>) {
    if nal.len() <= max {
        return out.push(nal.clone().into());
    }
    let header = nal.first().copied().unwrap_or(0);
    let body = nal.slice(1..);
    let count = body.len().div_ceil(max - 2);
    let size = body.len().div_ceil(count);
    for (n, piece) in body.chunks(size).enumerate() {
        let start = if n == 0 { 0x80 } else { 0 };
        let end = if n + 1 == count { 0x40 } else { 0 };
        out.push(RtpPayload {
            head: Some([header & 0xe0 | FU_A, start | end | header & 31]),
            body: body.slice_ref(piece),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parameter_sets_of_any_size_fit_their_packets(
            sps in proptest::collection::vec(any::<u8>(), 4..4_000),
            pps in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 2..200), 1..31),
            max in 100_usize..1_300,
        ) {
            let bytes = pps.iter().map(|set| 2 + set.len()).sum::<usize>() + 3 + sps.len();
            let pps = pps.into_iter().map(Bytes::from).collect();
            let config = h264::Config::new(vec![sps.into()], pps).unwrap();
            let mut out = Vec::new();
            parameter_sets(&config, max, &mut out);
            prop_assert!(out.iter().all(|p| p.len() <= max));
            prop_assert_eq!(out.len() == 1, bytes <= max);
        }

        #[test]
        fn fragments_put_together_are_the_unit_and_all_but_the_last_are_equal(
            body in proptest::collection::vec(any::<u8>(), 1..9_000),
            max in 100_usize..1_300,
        ) {
            let nal = Bytes::from([&[0x65][..], &body].concat());
            let mut out = Vec::new();
            fragment(&nal, max, &mut out);
            prop_assert!(out.iter().all(|p| p.len() <= max));
            let out: Vec<Vec<u8>> = out.iter().map(|p| {
                let head = p.head.as_ref().map_or(&[][..], |head| head);
                assert_eq!(head.len() + p.body.len(), p.len());
                [head, &p.body].concat()
            }).collect();
            if out.len() == 1 {
                prop_assert_eq!(&out[0][..], &nal[..]);
            } else {
                let sizes: Vec<usize> = out.iter().map(Vec::len).collect();
                prop_assert!(sizes[..sizes.len() - 1].iter().all(|s| *s == sizes[0]));
                prop_assert!(sizes[sizes.len() - 1] <= sizes[0]);
                let joined: Vec<u8> = out.iter().flat_map(|p| p[2..].to_vec()).collect();
                prop_assert_eq!(joined, body);
                prop_assert!(out[0][1] & 0x80 != 0 && out[out.len() - 1][1] & 0x40 != 0);
                prop_assert_eq!(out[0][0] & 0xe0 | out[0][1] & 31, 0x65);
            }
        }
    }
}
