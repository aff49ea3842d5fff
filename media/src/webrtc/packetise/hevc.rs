//! HEVC (RFC 7798): single NAL units, aggregation packets, fragmentation units; no DONL, since
//! units leave in the order in which they are decoded.

use bytes::{BufMut, Bytes, BytesMut};

use super::{even, fragments};
use crate::bitstream::h264::nals;
use crate::bitstream::hevc::{self, NalKind};
use crate::frame::{Frame, RtpPayload};

const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;
/// Of a NAL unit.
const HEADER_BYTES: usize = 2;
/// The payload header and that of the fragment.
const FU_BYTES: usize = 3;
/// Layer 0 and the lowest temporal layer: the lowest of what is put together.
const LOWEST: u8 = 1;

pub(super) fn payloads(frame: &Frame, max: usize) -> Vec<RtpPayload> {
    let mut out = Vec::new();
    if frame.is_key
        && let Ok(config) = hevc::Config::parse(&frame.info.config)
    {
        parameter_sets(&config, max, &mut out);
    }
    for nal in nals(&frame.payload).flatten() {
        match NalKind::of(nal.first().copied().unwrap_or(0)) {
            NalKind::Slice | NalKind::Irap | NalKind::Other => {
                fragment(&frame.payload.slice_ref(nal), max, &mut out);
            }
            // Parameter sets go in front; the rest tells a viewer nothing.
            NalKind::Vps | NalKind::Sps | NalKind::Pps | NalKind::Sei | NalKind::Filler => {}
        }
    }
    out
}

/// The parameter sets in one packet where they fit, or one by one.
fn parameter_sets(config: &hevc::Config, max: usize, out: &mut Vec<RtpPayload>) {
    let sets = config.vps.iter().chain(&config.sps).chain(&config.pps);
    let bytes = sets.clone().map(|set| 2 + set.len()).sum::<usize>();
    if HEADER_BYTES + bytes > max {
        for set in sets {
            fragment(set, max, out);
        }
        return;
    }
    let mut together = BytesMut::with_capacity(HEADER_BYTES + bytes);
    together.put_slice(&[AGGREGATION << 1, LOWEST]);
    for set in sets {
        together.put_u16(u16::try_from(set.len()).unwrap_or(u16::MAX));
        together.put_slice(set);
    }
    out.push(together.freeze().into());
}

fn fragment(nal: &Bytes, max: usize, out: &mut Vec<RtpPayload>) {
    let (Some(&first), Some(&second)) = (nal.first(), nal.get(1)) else {
        return;
    };
    if nal.len() <= max {
        return out.push(nal.clone().into());
    }
    // The type gives way to that of a fragment; the bits of the layer stay.
    let payload_header = first & 0x81 | FRAGMENT << 1;
    let kind = first >> 1 & 63;
    let head = |is_first: bool, is_last: bool| {
        let place = u8::from(is_first) << 7 | u8::from(is_last) << 6;
        [payload_header, second, place | kind].into()
    };
    let body = nal.slice(HEADER_BYTES..);
    fragments(&body, even(body.len(), max - FU_BYTES), head, out);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{are_equal_but_the_last, whole};
    use super::*;

    proptest! {
        #[test]
        fn fragments_put_together_are_the_unit_and_all_but_the_last_are_equal(
            body in proptest::collection::vec(any::<u8>(), 1..9_000),
            kind in 0_u8..41,
            second in 1_u8..8,
            max in 100_usize..1_300,
        ) {
            let nal = Bytes::from([&[kind << 1, second][..], &body].concat());
            let mut out = Vec::new();
            fragment(&nal, max, &mut out);
            prop_assert!(out.iter().all(|p| p.len() <= max));
            let out = whole(&out);
            prop_assert!(are_equal_but_the_last(&out));
            if out.len() == 1 {
                prop_assert_eq!(&out[0][..], &nal[..]);
                return Ok(());
            }
            let joined: Vec<u8> = out.iter().flat_map(|p| p[3..].to_vec()).collect();
            prop_assert_eq!(joined, body);
            for (n, packet) in out.iter().enumerate() {
                prop_assert_eq!(packet[0] >> 1, FRAGMENT);
                prop_assert_eq!(packet[1], second);
                prop_assert_eq!(packet[2] & 63, kind);
                prop_assert_eq!(packet[2] & 0x80 != 0, n == 0);
                prop_assert_eq!(packet[2] & 0x40 != 0, n + 1 == out.len());
            }
        }

        #[test]
        fn parameter_sets_of_any_size_fit_their_packets(
            sizes in proptest::collection::vec(3_usize..900, 3..8),
            max in 100_usize..1_300,
        ) {
            let sets: Vec<Bytes> = sizes.iter().map(|n| Bytes::from(vec![2; *n])).collect();
            let (vps, rest) = sets.split_at(1);
            let (sps, pps) = rest.split_at(1);
            let config = hevc::Config::new(vps.to_vec(), sps.to_vec(), pps.to_vec()).unwrap();
            let mut out = Vec::new();
            parameter_sets(&config, max, &mut out);
            prop_assert!(out.iter().all(|p| p.len() <= max));
            let bytes = 2 + sizes.iter().map(|n| n + 2).sum::<usize>();
            prop_assert_eq!(out.len() == 1, bytes <= max);
        }
    }
}
