//! H.264 (RFC 6184, packetization mode 1): single NAL units, STAP-A, FU-A.

use super::Bad;
use super::assembly::Assembly;
use crate::bitstream::h264::NalKind;

const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const DELIMITER: u8 = 9;

pub(super) fn take(to: &mut Assembly, payload: &[u8]) -> Result<(), Bad> {
    let &header = payload.first().ok_or(Bad)?;
    match header & 31 {
        1..=23 => whole(to, payload),
        STAP_A => to.aggregate(payload.get(1..).unwrap_or_default(), whole),
        FU_A => fragment(to, payload),
        _ => Err(Bad),
    }
}

/// A delimiter, or parameter sets.
pub(super) fn begins_unit(payload: &[u8]) -> bool {
    let header = match payload.first() {
        Some(first) if first & 31 == STAP_A => payload.get(3),
        first => first,
    };
    header.is_some_and(|h| h & 31 == DELIMITER || NalKind::of(*h) == NalKind::Sps)
}

/// Between the fragments of a unit nothing else may come.
fn whole(to: &mut Assembly, nal: &[u8]) -> Result<(), Bad> {
    if !to.is_whole() {
        return Err(Bad);
    }
    let &header = nal.first().ok_or(Bad)?;
    match NalKind::of(header) {
        NalKind::Sps => to.set(0, nal),
        NalKind::Pps => to.set(1, nal),
        NalKind::Filler => {}
        kind => {
            note(to, kind);
            to.nal(nal)?;
        }
    }
    Ok(())
}

fn note(to: &mut Assembly, kind: NalKind) {
    to.is_key |= kind == NalKind::Idr;
    to.has_picture |= matches!(kind, NalKind::Idr | NalKind::Slice);
}

fn fragment(to: &mut Assembly, payload: &[u8]) -> Result<(), Bad> {
    let (&[indicator, place], body) = payload.split_first_chunk::<2>().ok_or(Bad)?;
    let (is_first, is_last) = (place & 0x80 != 0, place & 0x40 != 0);
    let header = [indicator & 0xe0 | place & 31];
    let nal = to.fragment(is_first.then_some(&header), body, is_last)?;
    nal.map_or(Ok(()), |nal| whole(to, &nal))
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::{Depacketiser, UNIT_BYTES_MAX, Unit};
    use super::*;
    use crate::frame::Codec;

    const SPS: &[u8] = &[0x67, 1, 2, 3];
    const PPS: &[u8] = &[0x68, 4];

    fn stap(nals: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0x60 | STAP_A];
        for nal in nals {
            out.extend(u16::try_from(nal.len()).unwrap().to_be_bytes());
            out.extend(*nal);
        }
        out
    }

    fn fragments(nal: &[u8], size: usize) -> Vec<Vec<u8>> {
        let pieces: Vec<&[u8]> = nal[1..].chunks(size).collect();
        let place =
            |n: usize| u8::from(n == 0) << 7 | u8::from(n + 1 == pieces.len()) << 6 | nal[0] & 31;
        let head = |n| [nal[0] & 0xe0 | FU_A, place(n)];
        let whole = |(n, piece): (usize, &&[u8])| [&head(n)[..], piece].concat();
        pieces.iter().enumerate().map(whole).collect()
    }

    fn with_length(nal: &[u8]) -> Vec<u8> {
        let length = u32::try_from(nal.len()).unwrap().to_be_bytes();
        [&length[..], nal].concat()
    }

    fn idr() -> Vec<u8> {
        [&[0x65][..], &[7; 100]].concat()
    }

    /// Pushes the packets of one access unit, the last with its marker.
    fn push(to: &mut Depacketiser, time: u32, packets: &[Vec<u8>]) -> Vec<Unit> {
        let mut out = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let pushed = to.push(time, n + 1 == packets.len(), packet);
            out.extend(pushed.unwrap_or_default());
        }
        out
    }

    #[test]
    fn a_keyframe_of_all_forms_of_payload_is_one_unit_and_its_sets_stand_apart() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        let mut packets = vec![vec![9, 0xf0], stap(&[SPS, PPS])];
        packets.extend(fragments(&idr(), 30));
        packets.push(vec![0x65, 8]);
        let units = push(&mut depacketiser, 90, &packets);
        assert_eq!(units.len(), 1);
        assert!(units[0].is_key);
        assert_eq!(
            units[0].sets,
            [
                vec![Bytes::from_static(SPS)],
                vec![Bytes::from_static(PPS)],
                Vec::new()
            ]
        );
        let expected = [with_length(&idr()), with_length(&[0x65, 8])].concat();
        assert_eq!(units[0].payload, expected);
    }

    #[test]
    fn what_comes_before_the_first_keyframe_is_dropped() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        assert_eq!(push(&mut depacketiser, 0, &[vec![0x41, 1]]), []);
        assert!(depacketiser.waits_for_key());
        assert_eq!(push(&mut depacketiser, 1, &[idr()]).len(), 1);
        assert_eq!(push(&mut depacketiser, 2, &[vec![0x41, 1]]).len(), 1);
    }

    #[test]
    fn after_a_loss_nothing_leaves_until_a_keyframe_that_is_whole() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        push(&mut depacketiser, 0, &[idr()]);
        let pieces = fragments(&idr(), 30);
        depacketiser.push(1, false, &pieces[0]).unwrap();
        depacketiser.lose();
        assert_eq!(depacketiser.push(1, true, &pieces[3]), Ok(Vec::new()));
        assert_eq!(push(&mut depacketiser, 2, &[vec![0x41, 1]]), []);
        // The loss may have taken the first of two slices.
        depacketiser.lose();
        assert_eq!(push(&mut depacketiser, 3, &[idr()]), []);
        depacketiser.lose();
        let sets = stap(&[SPS, PPS]);
        assert_eq!(push(&mut depacketiser, 4, &[sets, idr()]).len(), 1);
        assert!(!depacketiser.waits_for_key());
    }

    #[test]
    fn a_unit_without_a_marker_ends_where_the_next_begins() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        assert_eq!(depacketiser.push(0, false, &idr()), Ok(Vec::new()));
        let units = depacketiser.push(1, false, &[0x41, 1]).unwrap();
        assert_eq!(units.len(), 1);
        assert_eq!(units[0].rtp_time, 0);
    }

    #[test]
    fn payloads_that_are_none_damage_their_unit_only() {
        let sets = || stap(&[SPS, PPS]);
        let bad = [
            vec![],
            vec![0],
            vec![30, 1],
            vec![STAP_A, 0, 9, 1],
            vec![STAP_A, 0],
            vec![FU_A],
            vec![FU_A, 0x05, 1],
            [vec![FU_A, 0x85], vec![1; 9]].concat(),
        ];
        for payload in bad {
            let mut depacketiser = Depacketiser::new(Codec::H264);
            push(&mut depacketiser, 0, &[idr()]);
            drop(depacketiser.push(1, false, &payload));
            assert_eq!(
                push(&mut depacketiser, 1, &[vec![0x41, 1]]),
                [],
                "{payload:?}"
            );
            assert_eq!(
                push(&mut depacketiser, 2, &[sets(), idr()]).len(),
                1,
                "{payload:?}"
            );
        }
    }

    #[test]
    fn a_unit_without_end_is_thrown_away_at_its_bound() {
        let mut depacketiser = Depacketiser::new(Codec::H264);
        let piece = [vec![0x65], vec![1; 60_000]].concat();
        let pushed = (0..200).filter(|_| depacketiser.push(0, false, &piece).is_ok());
        assert!(pushed.count() < 150);
        let open = depacketiser.open.as_ref().unwrap();
        assert!(open.is_damaged && open.assembly.bytes() <= UNIT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_payloads_give_units_whose_lengths_add_up(
            packets in proptest::collection::vec(
                (0_u32..4, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..60),
        ) {
            let mut depacketiser = Depacketiser::new(Codec::H264);
            for (time, is_last, payload) in packets {
                for unit in depacketiser.push(time, is_last, &payload).unwrap_or_default() {
                    let nals = crate::bitstream::h264::nals(&unit.payload);
                    prop_assert!(nals.clone().all(|nal| nal.is_ok()));
                    prop_assert!(nals.count() > 0);
                }
            }
        }

        #[test]
        fn fragments_of_any_size_give_the_unit_back(
            body in proptest::collection::vec(any::<u8>(), 1..5_000),
            size in 1_usize..1_300,
        ) {
            let nal = [&[0x65][..], &body].concat();
            let packets = if body.len() > size { fragments(&nal, size) } else { vec![nal.clone()] };
            let mut depacketiser = Depacketiser::new(Codec::H264);
            let units = push(&mut depacketiser, 0, &packets);
            prop_assert_eq!(&units[0].payload[..], &with_length(&nal)[..]);
        }
    }
}
