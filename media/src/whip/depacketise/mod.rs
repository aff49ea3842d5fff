//! H.264 payloads to access units (RFC 6184, packetization mode 1): single NAL units, STAP-A, FU-A.
//!
//! Invariants
//! - A unit that leaves is whole: what lost a packet is thrown away, and what refers to it as well,
//!   up to the next keyframe (I31).
//! - An access unit has at most [`UNIT_BYTES_MAX`].
//!
//! Not here: the order of packets ([`super::reorder`]).

#![deny(clippy::indexing_slicing)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::bitstream::h264::NalKind;

/// As of a picture that comes over RTMP (spec media.md 3.3).
const UNIT_BYTES_MAX: usize = 8 << 20;
const LENGTH_BYTES: usize = 4;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;
const DELIMITER: u8 = 9;

/// A whole access unit: NAL units with four-byte lengths, parameter sets apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) rtp_time: u32,
    pub(crate) is_key: bool,
    pub(crate) payload: Bytes,
    pub(crate) sps: Vec<Bytes>,
    pub(crate) pps: Vec<Bytes>,
}

/// A payload that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad;

/// The access unit that is being put together.
#[derive(Debug, Default)]
struct Open {
    rtp_time: u32,
    payload: BytesMut,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
    is_key: bool,
    has_slice: bool,
    is_damaged: bool,
    /// Where the length of the NAL unit stands whose fragments are coming.
    fragment: Option<usize>,
}

/// Puts access units together.
#[derive(Debug)]
pub(crate) struct Depacketiser {
    open: Option<Open>,
    /// Pictures refer to one that was lost.
    waits_for_key: bool,
    /// What comes next may lack its beginning.
    is_after_loss: bool,
}

impl Default for Depacketiser {
    fn default() -> Self {
        Self {
            open: None,
            // Whoever comes in sees a beginning first.
            waits_for_key: true,
            is_after_loss: false,
        }
    }
}

impl Depacketiser {
    /// Packets were lost here.
    pub(crate) fn lose(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_damaged = true;
        }
        self.is_after_loss = true;
        self.waits_for_key = true;
    }

    /// Whether only a keyframe helps.
    pub(crate) const fn waits_for_key(&self) -> bool {
        self.waits_for_key
    }

    /// A payload came; `is_last` as its marker says. Gives the access units that are whole now.
    pub(crate) fn push(
        &mut self,
        rtp_time: u32,
        is_last: bool,
        payload: &[u8],
    ) -> Result<Vec<Unit>, Bad> {
        let mut out = Vec::new();
        if self.open.as_ref().is_some_and(|o| o.rtp_time != rtp_time) {
            out.extend(self.close());
        }
        let is_after_loss = std::mem::take(&mut self.is_after_loss);
        let open = self.open.get_or_insert_with(|| Open {
            rtp_time,
            // Before its first packet there was a loss: only what begins a unit proves it whole.
            is_damaged: is_after_loss && !begins_unit(payload),
            ..Open::default()
        });
        let taken = open.take(payload);
        if taken.is_err() {
            open.is_damaged = true;
        }
        if is_last {
            out.extend(self.close());
        }
        taken.map(|()| out)
    }

    fn close(&mut self) -> Option<Unit> {
        let open = self.open.take()?;
        if !open.has_slice && !open.is_damaged {
            // Parameter sets on their own belong to what follows; whoever sends them so sends
            // them again with the keyframe.
            return None;
        }
        if open.is_damaged || open.fragment.is_some() {
            self.waits_for_key = true;
            return None;
        }
        if self.waits_for_key && !open.is_key {
            return None;
        }
        self.waits_for_key = false;
        Some(Unit {
            rtp_time: open.rtp_time,
            is_key: open.is_key,
            payload: open.payload.freeze(),
            sps: open.sps,
            pps: open.pps,
        })
    }
}

/// Whether a payload can only be the first of an access unit: a delimiter, or parameter sets.
fn begins_unit(payload: &[u8]) -> bool {
    let header = match payload.first() {
        Some(first) if first & 31 == STAP_A => payload.get(3),
        first => first,
    };
    header.is_some_and(|h| h & 31 == DELIMITER || NalKind::of(*h) == NalKind::Sps)
}

impl Open {
    fn take(&mut self, payload: &[u8]) -> Result<(), Bad> {
        let &header = payload.first().ok_or(Bad)?;
        if self.payload.len() + payload.len() + LENGTH_BYTES > UNIT_BYTES_MAX {
            return Err(Bad);
        }
        match header & 31 {
            1..=23 => self.whole(payload),
            STAP_A => self.aggregate(payload.get(1..).unwrap_or_default()),
            FU_A => self.fragment(payload),
            _ => Err(Bad),
        }
    }

    /// Between the fragments of a unit nothing else may come.
    fn whole(&mut self, nal: &[u8]) -> Result<(), Bad> {
        if self.fragment.is_some() {
            return Err(Bad);
        }
        let &header = nal.first().ok_or(Bad)?;
        match NalKind::of(header) {
            NalKind::Sps => self.sps.push(Bytes::copy_from_slice(nal)),
            NalKind::Pps => self.pps.push(Bytes::copy_from_slice(nal)),
            NalKind::Filler => {}
            kind => {
                self.note(kind);
                self.payload
                    .put_u32(u32::try_from(nal.len()).map_err(|_huge| Bad)?);
                self.payload.put_slice(nal);
            }
        }
        Ok(())
    }

    fn note(&mut self, kind: NalKind) {
        self.is_key |= kind == NalKind::Idr;
        self.has_slice |= matches!(kind, NalKind::Idr | NalKind::Slice);
    }

    fn aggregate(&mut self, list: &[u8]) -> Result<(), Bad> {
        let mut rest = list;
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let (nal, after) = after.split_at_checked(length).ok_or(Bad)?;
            self.whole(nal)?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(Bad) }
    }

    fn fragment(&mut self, payload: &[u8]) -> Result<(), Bad> {
        let (&[indicator, head], body) = payload.split_first_chunk::<2>().ok_or(Bad)?;
        let (is_first, is_last) = (head & 0x80 != 0, head & 0x40 != 0);
        let header = indicator & 0xe0 | head & 31;
        match (is_first, self.fragment) {
            (true, None) => {
                self.note(NalKind::of(header));
                self.fragment = Some(self.payload.len());
                self.payload.put_u32(0);
                self.payload.put_u8(header);
            }
            (false, Some(_)) => {}
            _ => return Err(Bad),
        }
        self.payload.put_slice(body);
        if is_last && let Some(at) = self.fragment.take() {
            let length = self.payload.len() - at - LENGTH_BYTES;
            let length = u32::try_from(length).map_err(|_huge| Bad)?;
            let place = self.payload.get_mut(at..at + LENGTH_BYTES).ok_or(Bad)?;
            place.copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let mut depacketiser = Depacketiser::default();
        let mut packets = vec![vec![9, 0xf0], stap(&[SPS, PPS])];
        packets.extend(fragments(&idr(), 30));
        packets.push(vec![0x65, 8]);
        let units = push(&mut depacketiser, 90, &packets);
        assert_eq!(units.len(), 1);
        assert!(units[0].is_key);
        assert_eq!(
            (units[0].sps[0].as_ref(), units[0].pps[0].as_ref()),
            (SPS, PPS)
        );
        let expected = [with_length(&idr()), with_length(&[0x65, 8])].concat();
        assert_eq!(units[0].payload, expected);
    }

    #[test]
    fn what_comes_before_the_first_keyframe_is_dropped() {
        let mut depacketiser = Depacketiser::default();
        assert_eq!(push(&mut depacketiser, 0, &[vec![0x41, 1]]), []);
        assert!(depacketiser.waits_for_key());
        assert_eq!(push(&mut depacketiser, 1, &[idr()]).len(), 1);
        assert_eq!(push(&mut depacketiser, 2, &[vec![0x41, 1]]).len(), 1);
    }

    #[test]
    fn after_a_loss_nothing_leaves_until_a_keyframe_that_is_whole() {
        let mut depacketiser = Depacketiser::default();
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
        let mut depacketiser = Depacketiser::default();
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
            let mut depacketiser = Depacketiser::default();
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
        let mut depacketiser = Depacketiser::default();
        let piece = [vec![0x65], vec![1; 60_000]].concat();
        let pushed = (0..200).filter(|_| depacketiser.push(0, false, &piece).is_ok());
        assert!(pushed.count() < 150);
        let open = depacketiser.open.as_ref().unwrap();
        assert!(open.is_damaged && open.payload.len() <= UNIT_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn any_payloads_give_units_whose_lengths_add_up(
            packets in proptest::collection::vec(
                (0_u32..4, any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..60),
        ) {
            let mut depacketiser = Depacketiser::default();
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
            let mut depacketiser = Depacketiser::default();
            let units = push(&mut depacketiser, 0, &packets);
            prop_assert_eq!(&units[0].payload[..], &with_length(&nal)[..]);
        }
    }
}
