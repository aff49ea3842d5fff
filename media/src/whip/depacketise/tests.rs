//! What holds for every codec: frames cut into packets here come back as they were, and no loss
//! lets a damaged picture out.

#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]

use proptest::prelude::*;
use rtc::rtp::codec::av1::{Av1Depacketizer, Av1Payloader};
use rtc::rtp::codec::h265::HevcPayloader;
use rtc::rtp::packetizer::{Depacketizer, Payloader};

use super::testing::{packets as cut, payload, sets};
use super::*;
use crate::bitstream::{av1, h264};

/// Pictures of a show, one after another: whether it is a keyframe, and the bodies of its slices
/// or frames.
type Pictures = Vec<(bool, Vec<Vec<u8>>)>;

/// Sends a show without the packets that are lost; gives the number of each picture that comes,
/// after it was compared with what was sent.
fn play(codec: Codec, show: &Pictures, max: usize, lost: impl Fn(usize) -> bool) -> Vec<usize> {
    let mut depacketiser = Depacketiser::new(codec);
    let (mut came, mut number) = (Vec::new(), 0);
    for (time, (is_key, bodies)) in (0_u32..).zip(show) {
        let sent = payload(codec, *is_key, bodies);
        let packets = cut(codec, *is_key, &sent, max);
        for (place, packet) in packets.iter().enumerate() {
            number += 1;
            if lost(number - 1) {
                depacketiser.lose();
                continue;
            }
            let is_last = place + 1 == packets.len();
            for unit in depacketiser.push(time, is_last, packet).unwrap_or_default() {
                assert_eq!((unit.rtp_time, unit.is_key), (time, *is_key));
                assert_eq!(unit.payload, sent);
                if *is_key {
                    assert_eq!(unit.sets, sets(codec));
                }
                came.push(usize::try_from(time).unwrap());
            }
        }
    }
    came
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::H264), Just(Codec::Hevc), Just(Codec::Av1)]
}

/// Two groups of pictures.
fn shows() -> impl Strategy<Value = Pictures> {
    // Without zeros, which make start codes.
    let body = prop::collection::vec(1_u8.., 1..2_000);
    let bodies = prop::collection::vec(body, 1..4);
    prop::collection::vec(bodies, 6).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered.map(|(n, bodies)| (n % 3 == 0, bodies)).collect()
    })
}

proptest! {
    #[test]
    fn every_picture_comes_back_as_it_was(
        codec in codecs(),
        show in shows(),
        max in 100_usize..1_300,
    ) {
        let came = play(codec, &show, max, |_| false);
        prop_assert_eq!(came, [0, 1, 2, 3, 4, 5]);
    }

    /// The format is not only what we make of it: the parts of `rtc` cut and join as we do.
    #[test]
    fn what_another_cuts_comes_back_and_another_joins_what_we_cut(
        is_hevc: bool,
        show in shows(),
        max in 100_usize..1_300,
    ) {
        let codec = if is_hevc { Codec::Hevc } else { Codec::Av1 };
        let mut depacketiser = Depacketiser::new(codec);
        for (time, (is_key, bodies)) in (0_u32..).zip(&show) {
            let sent = payload(codec, *is_key, bodies);
            let packets = if is_hevc {
                let sets = sets(codec).concat().into_iter().take(if *is_key { 3 } else { 0 });
                let nals = h264::nals(&sent).flatten().map(Bytes::copy_from_slice);
                let coded = sets.chain(nals).map(|nal| [&[0, 0, 0, 1], &nal[..]].concat());
                let coded = coded.collect::<Vec<_>>().concat();
                HevcPayloader.payload(max, &coded.into()).unwrap()
            } else {
                Av1Payloader::default().payload(max, &sent).unwrap()
            };
            let mut units = Vec::new();
            for (place, packet) in packets.iter().enumerate() {
                let is_last = place + 1 == packets.len();
                units.extend(depacketiser.push(time, is_last, packet).unwrap());
            }
            prop_assert_eq!(units.len(), 1);
            prop_assert_eq!(&units[0].payload, &sent);
            if !is_hevc {
                let mut theirs = Av1Depacketizer::new();
                let ours = cut(codec, *is_key, &sent, max);
                let joined = ours.iter().map(|p| theirs.depacketize(p).unwrap().to_vec());
                prop_assert_eq!(joined.collect::<Vec<_>>().concat(), sent);
            }
        }
    }

    /// Whatever is lost, no picture comes that is not whole, or refers to one that is not there.
    #[test]
    fn no_loss_lets_a_damaged_picture_out(
        codec in codecs(),
        show in shows(),
        max in 100_usize..1_300,
        at in any::<prop::sample::Index>(),
        count in 1_usize..4,
    ) {
        let total = std::cell::Cell::new(0);
        play(codec, &show, max, |number| {
            total.set(number + 1);
            false
        });
        let first = at.index(total.get());
        let came = play(codec, &show, max, |n| (first..first + count).contains(&n));
        for pair in came.windows(2) {
            prop_assert!(pair[1] == pair[0] + 1 || pair[1] % 3 == 0, "{:?}", came);
        }
        prop_assert!(came.first().is_none_or(|first| first % 3 == 0));
        prop_assert!(came.len() < 6);
    }

    #[test]
    fn any_payloads_give_units_that_can_be_read(
        codec in codecs(),
        packets in prop::collection::vec(
            (0_u32..4, any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..60),
    ) {
        let mut depacketiser = Depacketiser::new(codec);
        for (time, is_last, payload) in packets {
            for unit in depacketiser.push(time, is_last, &payload).unwrap_or_default() {
                prop_assert!(!unit.payload.is_empty());
                match codec {
                    Codec::Av1 => prop_assert!(av1::obus(&unit.payload).all(|o| o.is_ok())),
                    _ => prop_assert!(h264::nals(&unit.payload).all(|nal| nal.is_ok())),
                }
            }
        }
    }
}

#[test]
fn a_unit_of_parameters_without_end_is_thrown_away_at_its_bound() {
    let rows = [
        (Codec::H264, vec![0x67; 60_000]),
        (Codec::Hevc, [vec![0x42, 1], vec![1; 60_000]].concat()),
        (Codec::Av1, [vec![0x10], vec![0x08; 60_000]].concat()),
    ];
    for (codec, payload) in rows {
        let mut depacketiser = Depacketiser::new(codec);
        for _ in 0..300 {
            drop(depacketiser.push(0, false, &payload));
        }
        let open = depacketiser.open.as_ref().unwrap();
        assert!(open.is_damaged, "{codec:?}");
        assert!(open.assembly.bytes() <= UNIT_BYTES_MAX, "{codec:?}");
    }
}
