//! H.264 (RFC 6184): single NAL units, STAP-A, FU-A.

use bytes::{BufMut, Bytes, BytesMut};

use super::{even, fragments};
use crate::bitstream::h264::{self, NalKind};
use crate::frame::{Frame, RtpPayload};

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
/// The fragment's own header, and that of its unit.
const FU_BYTES: usize = 2;

pub(super) fn payloads(frame: &Frame, max: usize) -> Vec<RtpPayload> {
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
    let head = |is_first: bool, is_last: bool| {
        let place = u8::from(is_first) << 7 | u8::from(is_last) << 6;
        [header & 0xe0 | FU_A, place | header & 31].into()
    };
    let body = nal.slice(1..);
    fragments(&body, even(body.len(), max - FU_BYTES), head, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{are_equal_but_the_last, whole};
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
            let out = whole(&out);
            if out.len() == 1 {
                prop_assert_eq!(&out[0][..], &nal[..]);
            } else {
                prop_assert!(are_equal_but_the_last(&out));
                let joined: Vec<u8> = out.iter().flat_map(|p| p[2..].to_vec()).collect();
                prop_assert_eq!(joined, body);
                prop_assert!(out[0][1] & 0x80 != 0 && out[out.len() - 1][1] & 0x40 != 0);
                prop_assert_eq!(out[0][0] & 0xe0 | out[0][1] & 31, 0x65);
            }
        }
    }
}
