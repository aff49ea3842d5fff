//! HEVC (RFC 7798): single NAL units, aggregation packets, fragmentation units. There is no DONL:
//! one stream, whose units are decoded in the order in which they come, is all that is negotiated.

use super::Bad;
use super::assembly::Assembly;
use crate::bitstream::hevc::{NalKind, layer};

const AGGREGATION: u8 = 48;
const FRAGMENT: u8 = 49;
const DELIMITER: u8 = 35;
/// Of a NAL unit, and of a payload that holds several or a part of one.
const HEADER_BYTES: usize = 2;

pub(super) fn take(to: &mut Assembly, payload: &[u8]) -> Result<(), Bad> {
    let (head, rest) = payload.split_first_chunk::<HEADER_BYTES>().ok_or(Bad)?;
    match type_of(head) {
        0..AGGREGATION => whole(to, payload),
        AGGREGATION => to.aggregate(rest, whole),
        FRAGMENT => fragment(to, *head, rest),
        _ => Err(Bad),
    }
}

/// A delimiter, or the first of the parameter sets.
pub(super) fn begins_unit(payload: &[u8]) -> bool {
    let nal = if type_of(payload) == AGGREGATION {
        payload.get(HEADER_BYTES + 2..).unwrap_or_default()
    } else {
        payload
    };
    let kind = nal.first().copied().map(NalKind::of);
    kind == Some(NalKind::Vps) || !nal.is_empty() && type_of(nal) == DELIMITER
}

/// `nal_unit_type`.
fn type_of(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |first| first >> 1 & 63)
}

/// Between the fragments of a unit nothing else may come.
fn whole(to: &mut Assembly, nal: &[u8]) -> Result<(), Bad> {
    /// Pictures shown before the one at which decoding starts, which may refer to older ones.
    const SKIPPED_LEADING: std::ops::RangeInclusive<u8> = 8..=9;
    if !to.is_whole() {
        return Err(Bad);
    }
    let kind = NalKind::of(nal.first().copied().ok_or(Bad)?);
    if layer(nal).ok_or(Bad)? > 0 {
        // Enhances a picture that is whole without it.
        return Ok(());
    }
    match kind {
        NalKind::Vps => to.set(0, nal),
        NalKind::Sps => to.set(1, nal),
        NalKind::Pps => to.set(2, nal),
        NalKind::Filler => {}
        NalKind::Slice | NalKind::Irap | NalKind::Sei | NalKind::Other => {
            to.is_key |= kind == NalKind::Irap;
            to.has_picture |= matches!(kind, NalKind::Slice | NalKind::Irap);
            to.is_leading |= SKIPPED_LEADING.contains(&type_of(nal));
            to.nal(nal)?;
        }
    }
    Ok(())
}

fn fragment(to: &mut Assembly, head: [u8; HEADER_BYTES], payload: &[u8]) -> Result<(), Bad> {
    let (&place, body) = payload.split_first().ok_or(Bad)?;
    let (is_first, is_last, type_id) = (place & 0x80 != 0, place & 0x40 != 0, place & 63);
    if type_id >= AGGREGATION {
        return Err(Bad);
    }
    let [first, second] = head;
    let header = [first & 0x81 | type_id << 1, second];
    let nal = to.fragment(is_first.then_some(&header), body, is_last)?;
    nal.map_or(Ok(()), |nal| whole(to, &nal))
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]
mod tests {
    use super::super::{Depacketiser, Unit};
    use super::*;
    use crate::frame::Codec;

    const VPS: &[u8] = &[0x40, 1, 2];
    const SPS: &[u8] = &[0x42, 1, 3];
    const PPS: &[u8] = &[0x44, 1, 4];
    const IDR: &[u8] = &[0x26, 1, 5];
    const CRA: &[u8] = &[0x2a, 1, 6];
    const RASL: &[u8] = &[0x10, 1, 7];
    const INTER: &[u8] = &[0x02, 1, 8];

    fn together(nals: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![AGGREGATION << 1, 1];
        for nal in nals {
            out.extend(u16::try_from(nal.len()).unwrap().to_be_bytes());
            out.extend(*nal);
        }
        out
    }

    fn with_length(nal: &[u8]) -> Vec<u8> {
        [&u32::try_from(nal.len()).unwrap().to_be_bytes(), nal].concat()
    }

    /// The packets of one access unit.
    fn push(to: &mut Depacketiser, time: u32, packets: &[&[u8]]) -> Vec<Unit> {
        let mut out = Vec::new();
        for (n, packet) in packets.iter().enumerate() {
            let pushed = to.push(time, n + 1 == packets.len(), packet);
            out.extend(pushed.unwrap_or_default());
        }
        out
    }

    #[test]
    fn a_keyframe_of_all_forms_of_payload_is_one_unit_and_its_sets_stand_apart() {
        let mut depacketiser = Depacketiser::new(Codec::Hevc);
        let (delimiter, sets) = ([0x46, 1, 0x50], together(&[VPS, SPS, PPS]));
        // Fragments of a slice of type 19 in the second layer of frame rates.
        let fragments: [&[u8]; 3] = [
            &[0x62, 2, 0x80 | 19, 1, 2],
            &[0x62, 2, 19, 3],
            &[0x62, 2, 0x40 | 19, 4],
        ];
        let other_view = [0x03, 9, 1];
        let mut packets: Vec<&[u8]> = vec![&delimiter, &sets];
        packets.extend(fragments);
        packets.extend([IDR, &other_view]);
        let units = push(&mut depacketiser, 90, &packets);
        assert_eq!(units.len(), 1);
        assert!(units[0].is_key);
        assert_eq!(units[0].sets.concat(), [VPS, SPS, PPS]);
        let expected = [with_length(&[0x26, 2, 1, 2, 3, 4]), with_length(IDR)].concat();
        assert_eq!(units[0].payload, expected);
    }

    /// Where decoding starts at a clean random access picture, those shown before it refer to what
    /// was never seen.
    #[test]
    fn pictures_that_lead_the_first_one_do_not_leave_and_others_do() {
        let mut depacketiser = Depacketiser::new(Codec::Hevc);
        let units = [CRA, RASL, INTER, CRA, RASL, INTER];
        let mut came = Vec::new();
        for (time, nal) in (0..).zip(units) {
            came.extend(
                push(&mut depacketiser, time, &[nal])
                    .iter()
                    .map(|u| u.rtp_time),
            );
        }
        assert_eq!(came, [0, 2, 3, 4, 5]);
        assert!(!depacketiser.waits_for_key());
        depacketiser.lose();
        assert_eq!(
            push(&mut depacketiser, 6, &[CRA]),
            [],
            "it may lack its beginning"
        );
        depacketiser.lose();
        let sets = together(&[VPS, SPS, PPS]);
        assert_eq!(push(&mut depacketiser, 7, &[&sets, CRA]).len(), 1);
        assert_eq!(push(&mut depacketiser, 8, &[RASL]), []);
        assert_eq!(push(&mut depacketiser, 9, &[INTER]).len(), 1);
    }

    #[test]
    fn payloads_that_are_none_damage_their_unit_only() {
        let bad: [&[u8]; 10] = [
            &[],
            &[0x02],
            &[50 << 1, 1, 0],
            &[AGGREGATION << 1, 1, 0, 9, 1],
            &[AGGREGATION << 1, 1, 0],
            &[AGGREGATION << 1, 1, 0, 1, 0x02],
            &[FRAGMENT << 1, 1],
            &[FRAGMENT << 1, 1, 1, 5],
            &[FRAGMENT << 1, 1, 0x80 | 1, 5],
            &[FRAGMENT << 1, 1, 0xc0 | AGGREGATION, 5],
        ];
        for payload in bad {
            let mut depacketiser = Depacketiser::new(Codec::Hevc);
            assert_eq!(push(&mut depacketiser, 0, &[IDR]).len(), 1);
            drop(depacketiser.push(1, false, payload));
            assert_eq!(push(&mut depacketiser, 1, &[INTER]), [], "{payload:02x?}");
            assert_eq!(
                push(&mut depacketiser, 2, &[VPS, IDR]).len(),
                1,
                "{payload:02x?}"
            );
        }
    }
}
