//! AV1 (RTP payload format for AV1, version 1.0): an OBU per packet or in fragments, without its
//! size, as the format recommends.

use bytes::Bytes;

use super::{even, fragments};
use crate::bitstream::av1::{Config, ObuKind, obus};
use crate::frame::{Frame, RtpHead, RtpPayload};

/// The element continues one of the packet before.
const CONTINUES: u8 = 0x80;
/// The element goes on in the next packet.
const GOES_ON: u8 = 0x40;
/// One element, which needs no length.
const ONE_ELEMENT: u8 = 0x10;
/// A coded video sequence begins.
const NEW_SEQUENCE: u8 = 0x08;
/// The header of a sequence header without a size.
const SEQUENCE_HEADER: u8 = 1 << 3;
/// In an OBU's header.
const HAS_EXTENSION: u8 = 0x04;
const HAS_SIZE: u8 = 0x02;

pub(super) fn payloads(frame: &Frame, max: usize) -> Vec<RtpPayload> {
    let mut out = Vec::new();
    let first = if frame.is_key { NEW_SEQUENCE } else { 0 };
    if let Some(sequence) = missing_sequence(frame) {
        let header = RtpHead::from([SEQUENCE_HEADER]);
        element(header, &sequence, (first, max), &mut out);
    }
    for obu in obus(&frame.payload).flatten() {
        // Delimiters and padding must not be sent, and tell a viewer nothing.
        if obu.kind == ObuKind::Filler {
            continue;
        }
        let flags = if out.is_empty() { first } else { 0 };
        let payload = frame.payload.slice_ref(obu.payload);
        element(header(obu.whole), &payload, (flags, max), &mut out);
    }
    out
}

/// The sequence header of a keyframe that was published without one.
fn missing_sequence(frame: &Frame) -> Option<Bytes> {
    let has_sequence = || {
        let mut obus = obus(&frame.payload).flatten();
        obus.any(|obu| obu.kind == ObuKind::SequenceHeader)
    };
    if !frame.is_key || has_sequence() {
        return None;
    }
    let config = Config::parse(&frame.info.config).ok()??;
    Some(config.sequence)
}

/// An OBU's header as if it had no size.
fn header(obu: &[u8]) -> RtpHead {
    let first = obu.first().copied().unwrap_or(0);
    let head = RtpHead::from([first & !HAS_SIZE]);
    match obu.get(1) {
        Some(&extension) if first & HAS_EXTENSION != 0 => head.push(extension),
        _ => head,
    }
}

/// One OBU. Its header stands in the first packet, which makes the first body as much shorter.
fn element(header: RtpHead, payload: &Bytes, (flags, max): (u8, usize), out: &mut Vec<RtpPayload>) {
    let size = even(header.len() + payload.len(), max - 1);
    let (start, rest) = payload.split_at(size.saturating_sub(header.len()).min(payload.len()));
    let goes_on = if rest.is_empty() { 0 } else { GOES_ON };
    let aggregation = RtpHead::from([flags | ONE_ELEMENT | goes_on]);
    out.push(RtpPayload {
        head: header
            .as_bytes()
            .iter()
            .fold(aggregation, |head, b| head.push(*b)),
        body: payload.slice_ref(start),
    });
    if rest.is_empty() {
        return;
    }
    let head = |_, is_last: bool| {
        let goes_on = if is_last { 0 } else { GOES_ON };
        [CONTINUES | ONE_ELEMENT | goes_on].into()
    };
    fragments(&payload.slice_ref(rest), size, head, out);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use proptest::prelude::*;

    use super::super::testing::{are_equal_but_the_last, whole};
    use super::*;
    use crate::frame::{Codec, Shape, TrackId, TrackInfo};
    use crate::time::MediaTime;

    fn obu(kind: u8, extension: Option<u8>, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![kind << 3 | HAS_SIZE | u8::from(extension.is_some()) << 2];
        out.extend(extension);
        let mut left = payload.len();
        while left >= 128 {
            out.push(u8::try_from(left & 127).unwrap() | 128);
            left >>= 7;
        }
        out.push(u8::try_from(left).unwrap());
        out.extend(payload);
        out
    }

    fn frame(payload: Vec<u8>, is_key: bool) -> Frame {
        Frame {
            track: TrackId::Video,
            info: Arc::new(TrackInfo {
                codec: Codec::Av1,
                generation: 0,
                shape: Shape::Video {
                    width: 640,
                    height: 360,
                },
                config: Bytes::new(),
                reorder_frames: Some(0),
            }),
            dts: MediaTime::ZERO,
            pts: MediaTime::ZERO,
            duration: None,
            is_key,
            is_discardable: false,
            discontinuities: 0,
            payload: payload.into(),
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        }
    }

    /// The OBUs that the packets hold, put together as the format says.
    fn put_together(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut units: Vec<Vec<u8>> = Vec::new();
        let mut goes_on = false;
        for packet in packets {
            let (head, body) = packet.split_first().unwrap();
            assert_eq!(head & 0x30, ONE_ELEMENT);
            assert_eq!(head & CONTINUES != 0, goes_on);
            match units.last_mut() {
                Some(unit) if goes_on => unit.extend(body),
                _ => units.push(body.to_vec()),
            }
            goes_on = head & GOES_ON != 0;
        }
        assert!(!goes_on);
        units
    }

    #[test]
    fn a_keyframe_begins_with_its_sequence_header_and_delimiters_stay_behind() {
        let unit = [
            obu(2, None, &[]),
            obu(1, None, &[7; 11]),
            obu(6, Some(0x20), &[9; 300]),
        ];
        let packets = whole(&payloads(&frame(unit.concat(), true), 1_200));
        assert_eq!(packets.len(), 2);
        assert_eq!(packets[0][0], ONE_ELEMENT | NEW_SEQUENCE);
        assert_eq!(packets[0][1..], [&[1 << 3][..], &[7; 11]].concat());
        assert_eq!(packets[1][0], ONE_ELEMENT);
        assert_eq!(packets[1][1..3], [6 << 3 | HAS_EXTENSION, 0x20]);
    }

    #[test]
    fn a_keyframe_without_a_sequence_header_gets_that_of_its_track() {
        let sequence = [0, 0, 0, 3, 0xb6, 0x2e, 0xb3, 0x6b, 0xe4, 1];
        let mut info = (*frame(Vec::new(), true).info).clone();
        info.config = [&[0x81, 0, 0x0c, 0, 0x0a, 0x0a][..], &sequence]
            .concat()
            .into();
        let info = Arc::new(info);
        for is_key in [true, false] {
            let mut frame = frame(obu(6, None, &[0x10, 9]), is_key);
            frame.info = Arc::clone(&info);
            let packets = whole(&payloads(&frame, 1_200));
            let flags = ONE_ELEMENT | if is_key { NEW_SEQUENCE } else { 0 };
            assert_eq!(packets[0][0], flags);
            let expected = [&[SEQUENCE_HEADER][..], &sequence].concat();
            assert_eq!(packets[0][1..] == expected, is_key);
            assert_eq!(packets.len(), 1 + usize::from(is_key));
        }
    }

    proptest! {
        #[test]
        fn packets_put_together_are_the_units_and_all_but_the_last_are_equal(
            body in proptest::collection::vec(any::<u8>(), 0..9_000),
            extension in proptest::option::of(any::<u8>()),
            is_key: bool,
            max in 100_usize..1_300,
        ) {
            let out = payloads(&frame(obu(6, extension, &body), is_key), max);
            prop_assert!(out.iter().all(|p| p.len() <= max));
            let out = whole(&out);
            prop_assert!(are_equal_but_the_last(&out));
            let mut expected = vec![6 << 3 | u8::from(extension.is_some()) << 2];
            expected.extend(extension);
            expected.extend(&body);
            prop_assert_eq!(put_together(&out), vec![expected]);
            prop_assert_eq!(out[0][0] & NEW_SEQUENCE != 0, is_key);
        }
    }
}
