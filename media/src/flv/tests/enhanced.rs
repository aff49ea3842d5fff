//! Enhanced RTMP: the codecs it brings, and tracks beside each other.

use super::*;
use crate::bitstream::{av1, hevc, opus};

/// x265 of 198x108.
const VPS: &str = "40010c01ffff01600000030090000003000003003c959009";
const SPS: &str = "42010101600000030090000003000003003ca0192071d5e595924932bc05a02000000300200000\
                   0303c1";
const HEVC_PPS: &str = "4401c172b46240";
const HEVC_IDR: &[u8] = &[0x28, 1, 0xaf];
const HEVC_CRA: &[u8] = &[0x2a, 1, 0xac];
const HEVC_INTER: &[u8] = &[0x02, 1, 0xd0];

/// libaom of 198x108: the sequence header OBU.
const SEQUENCE: &[u8] = &[0x0a, 0x0a, 0, 0, 0, 3, 0xb6, 0x2e, 0xb3, 0x6b, 0xe4, 1];
const DELIMITER: &[u8] = &[0x12, 0];
const AV1_KEY: &[u8] = &[0x32, 3, 0x10, 1, 2];
const AV1_INTER: &[u8] = &[0x32, 2, 0x30, 1];

fn hex(digits: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn hvcc() -> Bytes {
    let set = |digits| vec![Bytes::from(hex(digits))];
    let config = hevc::Config::new(set(VPS), set(SPS), set(HEVC_PPS)).unwrap();
    config.build().unwrap()
}

fn av1c(sequence: &[u8]) -> Vec<u8> {
    [&[0x81, 0, 0x0c, 0][..], sequence].concat()
}

fn tag(head: &[u8], parts: &[&[u8]]) -> Bytes {
    [head, &parts.concat()].concat().into()
}

/// A feed whose one header was read.
fn after(kind: Kind, header: &Bytes) -> Feed {
    let mut feed = Feed::new();
    let units = feed.demuxer.push(feed.now, kind, 0, header.clone());
    assert!(units.unwrap().track.is_some());
    feed
}

#[test]
fn hevc_headers_become_tracks_and_their_pictures_samples() {
    let header = tag(b"\x90hvc1", &[&hvcc()]);
    let track = Feed::new().video(0, header.clone()).unwrap().track.unwrap();
    let size = Shape::Video {
        width: 198,
        height: 108,
    };
    assert_eq!((track.codec, track.shape), (Codec::Hevc, size));
    assert_eq!((track.config, track.reorder_frames), (hvcc(), Some(2)));

    let (sei, aud, filler): (&[u8], &[u8], &[u8]) =
        (&[0x4e, 1, 5], &[0x46, 1, 0x50], &[0x4c, 1, 0xff]);
    // A slice of the second view of a stereo stream.
    let other_view: &[u8] = &[0x03, 9, 1];
    let sets = [VPS, SPS, HEVC_PPS].map(hex);
    let all = [
        aud, &sets[0], &sets[1], &sets[2], sei, HEVC_IDR, other_view, filler,
    ];
    type Row<'a> = (&'a [u8], &'a [&'a [u8]], u64, bool, &'a [&'a [u8]]);
    let cases: [Row<'_>; 4] = [
        (b"\x91hvc1\0\0\x28", &all, 40, true, &[sei, HEVC_IDR]),
        (b"\xa3hvc1", &[HEVC_INTER], 0, false, &[HEVC_INTER]),
        (b"\x93hvc1", &[HEVC_CRA], 0, true, &[HEVC_CRA]),
        (
            b"\xa1hvc1\xff\xff\xd8",
            &[HEVC_INTER],
            0,
            false,
            &[HEVC_INTER],
        ),
    ];
    let mut feed = after(Kind::Video, &header);
    for (head, units, composition, is_key, stay) in cases {
        let got = feed.video(40, tag(head, &[&nals(units)])).unwrap();
        assert!(got.track.is_none(), "the same sets came again");
        let sample = got.sample.unwrap();
        assert_eq!(sample.composition, Duration::from_millis(composition));
        assert_eq!((sample.is_key, sample.is_discardable), (is_key, false));
        assert_eq!(sample.payload, nals(stay));
    }
    let cut = feed.video(80, tag(b"\xa3hvc1", &[&nals(&[&[0x02]])]));
    assert_eq!(cut.unwrap_err(), FlvError::Bitstream, "half a header");
}

#[test]
fn hevc_parameters_that_change_with_a_keyframe_wait_for_their_second() {
    let mut feed = after(Kind::Video, &tag(b"\x90hvc1", &[&hvcc()]));
    let mut pps = hex(HEVC_PPS);
    pps[6] = 0x44;
    let key = nals(&[&hex(VPS), &hex(SPS), &pps, HEVC_IDR]);
    let key = tag(b"\x93hvc1", &[&key]);
    assert_eq!(
        feed.video(0, key.clone()).unwrap_err(),
        FlvError::ParamChurn
    );
    let inter = tag(b"\xa3hvc1", &[&nals(&[HEVC_INTER])]);
    assert_eq!(
        feed.video(0, inter.clone()).unwrap_err(),
        FlvError::ParamChurn
    );
    feed.now += CHANGE_INTERVAL_MIN;
    assert_eq!(feed.video(0, inter).unwrap_err(), FlvError::Early);
    let track = feed.video(0, key).unwrap().track.unwrap();
    assert!(track.config.ends_with(&pps));
}

#[test]
fn av1_headers_become_tracks_and_their_pictures_samples() {
    let header = tag(b"\x90av01", &[&av1c(SEQUENCE)]);
    let track = Feed::new().video(0, header.clone()).unwrap().track.unwrap();
    let size = Shape::Video {
        width: 198,
        height: 108,
    };
    assert_eq!((track.codec, track.shape), (Codec::Av1, size));
    assert_eq!(
        (track.config, track.reorder_frames),
        (av1c(SEQUENCE).into(), Some(0))
    );

    let mut feed = after(Kind::Video, &header);
    let padding: &[u8] = &[0x7a, 1, 0];
    type Row<'a> = (&'a [&'a [u8]], bool, &'a [&'a [u8]]);
    let rows: [Row<'_>; 3] = [
        (&[DELIMITER, SEQUENCE, AV1_KEY], true, &[SEQUENCE, AV1_KEY]),
        (&[AV1_INTER], false, &[AV1_INTER]),
        (
            &[DELIMITER, AV1_INTER, AV1_KEY, padding],
            false,
            &[AV1_INTER, AV1_KEY],
        ),
    ];
    for (parts, is_key, stay) in rows {
        let got = feed.video(40, tag(b"\x91av01", parts)).unwrap();
        assert!(got.track.is_none(), "the same sequence header came again");
        let sample = got.sample.unwrap();
        assert_eq!(sample.is_key, is_key);
        assert_eq!(sample.payload, stay.concat());
    }
    for parts in [&[DELIMITER][..], &[SEQUENCE], &[]] {
        let got = feed.video(40, tag(b"\x91av01", parts)).unwrap();
        assert!(got.sample.is_none(), "no picture in it");
    }
    let cut = feed.video(80, tag(b"\x91av01", &[&AV1_KEY[..4]]));
    assert_eq!(cut.unwrap_err(), FlvError::Bitstream);
}

/// A record may leave the sequence header to the keyframes, and keyframes may change it.
#[test]
fn av1_keyframes_bring_their_own_parameters() {
    let mut feed = Feed::new();
    let units = feed.video(0, tag(b"\x90av01", &[&av1c(&[])])).unwrap();
    assert!(units.track.is_none());
    let inter = feed.video(0, tag(b"\x91av01", &[AV1_INTER]));
    assert_eq!(inter.unwrap_err(), FlvError::Early);
    let units = feed
        .video(0, tag(b"\x91av01", &[SEQUENCE, AV1_KEY]))
        .unwrap();
    assert_eq!(units.track.unwrap().config, av1c(SEQUENCE));
    assert!(units.sample.is_some());

    feed.now += CHANGE_INTERVAL_MIN;
    // SVT-AV1 of 200x120 in 10 bits.
    let other: &[u8] = &[0x0a, 0x0a, 0, 0, 0, 3, 0xb6, 0x3f, 0x73, 0xef, 0xe5, 1];
    let units = feed.video(0, tag(b"\x91av01", &[other, AV1_KEY])).unwrap();
    let size = units.track.unwrap().picture_size();
    assert_eq!(size, Some((200, 120)));
}

/// A still-picture sequence header of any size.
fn sequence(width: u32, height: u32) -> Vec<u8> {
    let (width, height) = (width - 1, height - 1);
    let bits = format!("000 1 1 00000 1111 1111 {width:016b} {height:016b} 000 000 0 0 0 0 01 0 0");
    let bits: Vec<u8> = bits.bytes().filter(|b| *b != b' ').collect();
    let byte = |bits: &[u8]| {
        let one = |(at, bit): (usize, &u8)| (bit - b'0') << (7 - at);
        bits.iter().enumerate().map(one).sum::<u8>()
    };
    bits.chunks(8).map(byte).collect()
}

#[test]
fn pictures_beyond_the_largest_are_refused_at_the_header_in_every_codec() {
    for (size, is_taken) in [
        ((7_680, 4_320), true),
        ((7_682, 16), false),
        ((16, 4_322), false),
    ] {
        let config = av1::Config::new(sequence(size.0, size.1).into()).unwrap();
        let got = Feed::new().video(0, tag(b"\x90av01", &[&config.build()]));
        match got {
            Ok(units) => assert!(is_taken && units.track.is_some()),
            Err(error) => {
                assert_eq!(error, FlvError::PictureTooLarge(size.0, size.1));
                assert!(!is_taken && error.is_fatal());
            }
        }
    }
}

#[test]
fn opus_says_its_channels_in_the_header_and_its_length_in_each_packet() {
    let head = opus::head(1);
    let mut longer = head.to_vec();
    longer.extend([1, 2, 3]);
    for (record, channels) in [(&head[..], 1), (&longer, 1), (&[], 2)] {
        let track = Feed::new().audio(0, tag(b"\x90Opus", &[record]));
        let track = track.unwrap().track.unwrap();
        let shape = Shape::Audio {
            rate: 48_000,
            channels,
        };
        assert_eq!((track.codec, track.shape), (Codec::Opus, shape));
        assert_eq!(track.config, opus::head(channels));
    }
    let mut feed = after(Kind::Audio, &tag(b"\x90Opus", &[&head]));
    for (packet, samples) in [(&[0xfc, 1][..], 960), (&[0xfb, 3, 1], 2_880)] {
        let sample = feed.audio(20, tag(b"\x91Opus", &[packet])).unwrap().sample;
        let sample = sample.unwrap();
        assert_eq!((sample.samples, sample.is_key), (samples, true));
        assert_eq!(sample.payload, packet);
    }
    for bad in [&[][..], &[0xfb, 0]] {
        let error = feed.audio(40, tag(b"\x91Opus", &[bad])).unwrap_err();
        assert_eq!(error, FlvError::Bitstream);
    }
    let surround = [&head[..9], &[6], &head[10..18], &[1]].concat();
    let error = Feed::new().audio(0, tag(b"\x90Opus", &[&surround]));
    assert!(error.unwrap_err().is_fatal());
}

/// A frame of a codec whose header never came belongs to no track.
#[test]
fn a_frame_of_another_codec_than_its_track_is_dropped_and_a_header_ends_the_session() {
    let mut feed = Feed::ready();
    feed.video(0, frame(&[IDR])).unwrap();
    let hevc = tag(b"\x93hvc1", &[&nals(&[HEVC_IDR])]);
    assert_eq!(feed.video(0, hevc).unwrap_err(), FlvError::Early);
    let opus = tag(b"\x91Opus", &[&[0xfc, 1]]);
    assert_eq!(feed.audio(0, opus).unwrap_err(), FlvError::Early);
    // The hub says that the kind of codec changed; that does not wait for a second.
    let units = feed.video(0, tag(b"\x90hvc1", &[&hvcc()])).unwrap();
    assert_eq!(units.track.unwrap().codec, Codec::Hevc);
}

fn part(id: u8, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[id], &size[1..], body].concat()
}

#[test]
fn one_track_forms_are_read_as_plain_ones_and_other_tracks_are_dropped() {
    let mut feed = Feed::new();
    let header = |id: u8| tag(&[b"\x96\x00avc1", &[id][..]].concat(), &[AVCC]);
    let picture = |id: u8| tag(&[b"\x96\x03avc1", &[id][..]].concat(), &[&nals(&[IDR])]);
    assert!(feed.video(0, header(0)).unwrap().track.is_some());
    assert!(feed.video(0, picture(0)).unwrap().sample.is_some());
    assert!(feed.video(0, frame(&[INTER])).unwrap().sample.is_some());
    for body in [header(1), picture(1)] {
        let error = feed.video(0, body).unwrap_err();
        assert_eq!((error.reason(), error.is_fatal()), ("multitrack", false));
    }
    // A publisher without a track 0 is taken by the first it names.
    let mut feed = Feed::new();
    assert!(feed.video(0, header(3)).unwrap().track.is_some());
    assert!(feed.video(0, picture(3)).unwrap().sample.is_some());
    assert_eq!(feed.video(0, header(4)).unwrap_err(), FlvError::Multitrack);
}

#[test]
fn of_many_tracks_in_a_message_track_0_is_taken() {
    let many = |packet: u8, parts: &[Vec<u8>]| {
        let head = [0x96, 0x10 | packet];
        tag(&[&head[..], b"avc1"].concat(), &[&parts.concat()])
    };
    let mut feed = Feed::new();
    let other = part(1, &other_record());
    let units = feed
        .video(0, many(0, &[other.clone(), part(0, AVCC)]))
        .unwrap();
    assert_eq!(units.track.unwrap().config, AVCC);
    assert!(units.has_others);
    let parts = [part(0, &nals(&[IDR])), part(1, &nals(&[INTER]))];
    let units = feed.video(0, many(3, &parts)).unwrap();
    assert!(units.sample.unwrap().is_key && units.has_others);
    let units = feed.video(0, many(3, &parts[..1])).unwrap();
    assert!(units.sample.is_some() && !units.has_others);
    let error = feed.video(0, many(3, &parts[1..])).unwrap_err();
    assert_eq!(error, FlvError::Multitrack);

    // Each track with a codec of its own; of sound too.
    let head = opus::head(2);
    let parts = [
        b"mp4a".to_vec(),
        part(1, ASC),
        b"Opus".to_vec(),
        part(0, &head),
    ];
    let mut feed = Feed::new();
    let units = feed
        .audio(0, tag(&[0x95, 0x20], &[&parts.concat()]))
        .unwrap();
    assert_eq!(units.track.unwrap().codec, Codec::Opus);
    let whole = many(3, &[part(0, &nals(&[IDR])), part(1, &[1, 2])]);
    for length in 0..whole.len() {
        let got = Feed::ready().video(0, whole.slice(..length));
        // Cut between two tracks, it is a message of one.
        let is_whole = length == whole.len() - part(1, &[1, 2]).len();
        assert_eq!(got.is_ok(), is_whole, "{length}: {got:?}");
    }
}

#[test]
fn modifiers_are_passed_over_and_the_end_and_metadata_give_nothing() {
    let mut feed = Feed::ready();
    let small: &[u8] = &[2, 1, 2, 3, 0x01];
    let long = [&[0xff, 1, 0][..], &[7; 257], &[0x03]].concat();
    let body = [&[0x97][..], small, b"avc1\0\0\x28", &nals(&[IDR])].concat();
    let sample = feed.video(0, body.into()).unwrap().sample.unwrap();
    assert_eq!(sample.composition, Duration::from_millis(40));
    let body = [&[0x97][..], &long, b"avc1", &nals(&[IDR])].concat();
    assert!(feed.video(0, body.into()).unwrap().sample.is_some());
    let body = [&[0x97][..], &[2, 1, 2]].concat();
    assert_eq!(feed.video(0, body.into()).unwrap_err(), FlvError::Bitstream);

    let nothing: [&[u8]; 5] = [
        b"\x92avc1",
        b"\x94hvc1\x02\x00\x09colorInfo",
        b"\x95av01\x00",
        b"\xd0avc1",
        b"\xd1\x00",
    ];
    for body in nothing {
        let units = feed.video(0, Bytes::from_static(body)).unwrap();
        assert!(units.track.is_none() && units.sample.is_none(), "{body:?}");
    }
    for body in [&b"\x92mp4a"[..], b"\x94Opus\x01\x06"] {
        let units = feed.audio(0, Bytes::from_static(body)).unwrap();
        assert!(units.track.is_none() && units.sample.is_none(), "{body:?}");
    }
}
