//! Tag bodies to samples: tables, and what holds for any bytes.

#![expect(
    clippy::indexing_slicing,
    reason = "the tests cut constants of known length"
)]

mod enhanced;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use tokio::time::Instant;

use super::track::CHANGE_INTERVAL_MIN;
use super::*;
use crate::bitstream::h264;
use crate::frame::Shape;

/// A 640x360 baseline stream.
const AVCC: &[u8] = &[
    1, 0x42, 0xc0, 0x1e, 0xff, 0xe1, 0, 0x0a, 0x67, 0x42, 0xc0, 0x1e, 0xda, 2, 0x80, 0xbf, 0xe5,
    0x40, 1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
];
const ASC: &[u8] = &[0x12, 0x10];
const IDR: &[u8] = &[0x65, 1, 2];
const INTER: &[u8] = &[0x41, 3];
/// `nal_ref_idc` is zero: nothing refers to it.
const DISPOSABLE: &[u8] = &[0x01, 4];

fn nals(units: &[&[u8]]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for unit in units {
        h264::put_nal(&mut out, unit);
    }
    out.to_vec()
}

/// The body of an AVC tag: packet type 0 is the header, 1 a frame.
fn avc(packet: u8, composition: [u8; 3], data: &[u8]) -> Bytes {
    [&[0x17, packet][..], &composition, data].concat().into()
}

fn frame(units: &[&[u8]]) -> Bytes {
    avc(1, [0; 3], &nals(units))
}

fn sound(data: &[u8]) -> Bytes {
    [&[0xaf, 1][..], data].concat().into()
}

struct Feed {
    demuxer: Demuxer,
    now: Instant,
}

impl Feed {
    fn new() -> Self {
        Self {
            demuxer: Demuxer::new(),
            now: Instant::now(),
        }
    }

    /// Both headers were read.
    fn ready() -> Self {
        let mut feed = Self::new();
        feed.video(0, avc(0, [0; 3], AVCC)).unwrap();
        feed.audio(0, Bytes::from([&[0xaf, 0][..], ASC].concat()))
            .unwrap();
        feed
    }

    fn video(&mut self, time: u32, body: Bytes) -> Result<Units, FlvError> {
        self.demuxer.push(self.now, Kind::Video, time, body)
    }

    fn audio(&mut self, time: u32, body: Bytes) -> Result<Units, FlvError> {
        self.demuxer.push(self.now, Kind::Audio, time, body)
    }
}

#[test]
fn headers_become_tracks_in_both_forms() {
    let classic = (
        avc(0, [0; 3], AVCC),
        Bytes::from([&[0xaf, 0][..], ASC].concat()),
    );
    let enhanced = (
        Bytes::from([&b"\x90avc1"[..], AVCC].concat()),
        Bytes::from([&b"\x90mp4a"[..], ASC].concat()),
    );
    for (video, audio) in [classic, enhanced] {
        let mut feed = Feed::new();
        let track = feed.video(0, video).unwrap().track.unwrap();
        assert_eq!(track.codec, Codec::H264);
        let size = Shape::Video {
            width: 640,
            height: 360,
        };
        assert_eq!((track.shape, track.reorder_frames), (size, Some(0)));
        assert_eq!(track.config, AVCC);

        let track = feed.audio(0, audio).unwrap().track.unwrap();
        assert_eq!(track.codec, Codec::Aac);
        let sound = Shape::Audio {
            rate: 44_100,
            channels: 2,
        };
        assert_eq!((track.shape, track.config), (sound, Bytes::from(ASC)));
    }
}

/// Body, then: composition in milliseconds, key, discardable, and the NAL units that stay.
#[test]
fn picture_bodies_become_samples() {
    let sei: &[u8] = &[6, 5, 1];
    let (delimiter, filler): (&[u8], &[u8]) = (&[9, 0xf0], &[12, 0xff]);
    let (sps, pps) = (&AVCC[8..18], &AVCC[21..]);
    let enhanced = |head: &[u8], units: &[&[u8]]| Bytes::from([head, &nals(units)].concat());
    type Row<'a> = (Bytes, u64, bool, bool, Vec<&'a [u8]>);
    let cases: [Row<'_>; 9] = [
        (frame(&[IDR]), 0, true, false, vec![IDR]),
        (frame(&[INTER]), 0, false, false, vec![INTER]),
        (frame(&[DISPOSABLE]), 0, false, true, vec![DISPOSABLE]),
        (
            frame(&[DISPOSABLE, INTER]),
            0,
            false,
            false,
            vec![DISPOSABLE, INTER],
        ),
        (
            avc(1, [0, 0, 80], &nals(&[INTER])),
            80,
            false,
            false,
            vec![INTER],
        ),
        // A picture cannot be shown before it is decoded: a negative composition time is none.
        (
            avc(1, [0xff, 0xff, 0xd8], &nals(&[INTER])),
            0,
            false,
            false,
            vec![INTER],
        ),
        (
            frame(&[delimiter, sps, pps, sei, IDR, filler]),
            0,
            true,
            false,
            vec![sei, IDR],
        ),
        (
            enhanced(b"\x91avc1\0\0\x28", &[IDR]),
            40,
            true,
            false,
            vec![IDR],
        ),
        (
            enhanced(b"\xa3avc1", &[INTER]),
            0,
            false,
            false,
            vec![INTER],
        ),
    ];
    for (body, composition, is_key, is_discardable, units) in cases {
        let mut feed = Feed::ready();
        feed.video(0, frame(&[IDR])).unwrap();
        let sample = feed.video(40, body.clone()).unwrap().sample.unwrap();
        assert_eq!(sample.dts, SourceTime::from_millis(40));
        assert_eq!(sample.composition, Duration::from_millis(composition));
        assert_eq!(
            (sample.is_key, sample.is_discardable),
            (is_key, is_discardable),
            "{body:?}"
        );
        assert_eq!(sample.payload, nals(&units));
    }
}

#[test]
fn lengths_of_one_and_two_bytes_become_four() {
    for (record_byte, unit) in [(0xfc, &[3, 0x65, 1, 2][..]), (0xfd, &[0, 3, 0x65, 1, 2])] {
        let mut feed = Feed::new();
        let mut record = AVCC.to_vec();
        record[4] = record_byte;
        feed.video(0, avc(0, [0; 3], &record)).unwrap();
        let got = feed.video(0, avc(1, [0; 3], unit)).unwrap();
        assert_eq!(got.sample.unwrap().payload, nals(&[IDR]));
    }
}

#[test]
fn sound_bodies_become_samples_of_1024() {
    let mut feed = Feed::ready();
    let sample = feed.audio(23, sound(&[0x21, 0x10, 4])).unwrap().sample;
    let sample = sample.unwrap();
    assert_eq!((sample.samples, sample.is_key), (1_024, true));
    assert_eq!(sample.dts, SourceTime::from_millis(23));
    assert_eq!(sample.payload[..], [0x21, 0x10, 4]);
}

#[test]
fn nothing_leaves_before_its_parameters_and_no_picture_before_a_keyframe() {
    let mut feed = Feed::new();
    assert_eq!(feed.video(0, frame(&[IDR])).unwrap_err(), FlvError::Early);
    assert_eq!(feed.audio(0, sound(&[1])).unwrap_err(), FlvError::Early);
    let mut feed = Feed::ready();
    assert_eq!(feed.video(0, frame(&[INTER])).unwrap_err(), FlvError::Early);
    assert!(feed.video(0, frame(&[IDR])).unwrap().sample.is_some());
    assert!(feed.video(0, frame(&[INTER])).unwrap().sample.is_some());
}

/// The record of [`AVCC`] with another picture parameter set, which begins `68 84`.
fn other_record() -> Vec<u8> {
    let mut other = AVCC.to_vec();
    other[24] = 0x84;
    other
}

/// A new set of parameters begins a new sequence, which again begins at a keyframe.
#[test]
fn changed_parameters_are_taken_once_a_second_and_the_same_ones_change_nothing() {
    let mut feed = Feed::ready();
    feed.video(0, frame(&[IDR])).unwrap();
    assert!(feed.video(0, avc(0, [0; 3], AVCC)).unwrap().track.is_none());
    assert!(feed.video(0, frame(&[INTER])).unwrap().sample.is_some());

    feed.now += CHANGE_INTERVAL_MIN;
    let header = avc(0, [0; 3], &other_record());
    assert!(feed.video(0, header).unwrap().track.is_some());
    assert_eq!(feed.video(0, frame(&[INTER])).unwrap_err(), FlvError::Early);

    feed.now += CHANGE_INTERVAL_MIN;
    let (sps, pps) = (&AVCC[8..18], &AVCC[21..]);
    let units = feed.video(0, frame(&[sps, pps, IDR])).unwrap();
    assert_eq!(
        units.track.unwrap().config,
        AVCC,
        "sets came with the keyframe"
    );
    assert_eq!(units.sample.unwrap().payload, nals(&[IDR]));
}

/// What was coded with parameters that are not in force yet is never published under the old ones.
#[test]
fn parameters_that_come_too_soon_hold_back_their_pictures_and_follow_after_a_second() {
    let (sps, pps) = (&AVCC[8..18], &other_record()[21..]);
    let in_band = frame(&[sps, pps, IDR]);
    for change in [avc(0, [0; 3], &other_record()), in_band] {
        let mut feed = Feed::ready();
        feed.video(0, frame(&[IDR])).unwrap();
        let churn = feed.video(0, change).unwrap_err();
        assert_eq!((churn.reason(), churn.is_fatal()), ("param_churn", false));
        for body in [frame(&[INTER]), frame(&[IDR]), frame(&[INTER])] {
            assert_eq!(feed.video(0, body).unwrap_err(), FlvError::ParamChurn);
        }
        feed.now += CHANGE_INTERVAL_MIN;
        assert_eq!(feed.video(0, frame(&[INTER])).unwrap_err(), FlvError::Early);
        let units = feed.video(0, frame(&[IDR])).unwrap();
        assert_eq!(units.track.unwrap().config, other_record());
        assert!(units.sample.unwrap().is_key);
        let units = feed.video(0, frame(&[INTER])).unwrap();
        assert!(units.track.is_none() && units.sample.is_some());
    }
}

#[test]
fn the_newest_of_many_parameters_is_taken_and_a_return_to_the_old_ones_is_no_change() {
    let record = |byte: u8| {
        let mut record = AVCC.to_vec();
        record[24] = byte;
        avc(0, [0; 3], &record)
    };
    let mut feed = Feed::ready();
    for byte in [0x84, 0x88, 0x8c] {
        feed.video(0, record(byte)).unwrap_err();
    }
    feed.now += CHANGE_INTERVAL_MIN;
    let track = feed.video(0, frame(&[IDR])).unwrap().track.unwrap();
    assert_eq!(track.config[24], 0x8c);

    feed.video(0, record(0x84)).unwrap_err();
    let back = feed.video(0, record(0x8c)).unwrap();
    assert!(back.track.is_none());
    assert_eq!(feed.video(0, frame(&[INTER])).unwrap_err(), FlvError::Early);
    let units = feed.video(0, frame(&[IDR])).unwrap();
    assert!(units.track.is_none() && units.sample.is_some());
}

#[test]
fn pictures_after_parameters_that_cannot_be_read_wait_for_some_that_can() {
    let mut feed = Feed::ready();
    feed.video(0, frame(&[IDR])).unwrap();
    let error = feed.video(0, avc(0, [0; 3], &AVCC[..9])).unwrap_err();
    assert_eq!(error, FlvError::Bitstream);
    for body in [frame(&[INTER]), frame(&[IDR])] {
        assert_eq!(feed.video(0, body).unwrap_err(), FlvError::Early);
    }
    feed.video(0, avc(0, [0; 3], AVCC)).unwrap();
    assert!(feed.video(0, frame(&[IDR])).unwrap().sample.is_some());
}

#[test]
fn sound_parameters_change_once_a_second_and_their_records_are_bounded() {
    let header = |record: &[u8]| Bytes::from([&[0xaf, 0][..], record].concat());
    let mono: &[u8] = &[0x12, 0x08];
    let mut feed = Feed::ready();
    assert!(feed.audio(0, header(ASC)).unwrap().track.is_none());
    for record in [mono, &[0x11, 0x90], mono] {
        let error = feed.audio(0, header(record)).unwrap_err();
        assert_eq!(error, FlvError::ParamChurn);
    }
    assert_eq!(
        feed.audio(0, sound(&[1])).unwrap_err(),
        FlvError::ParamChurn
    );
    feed.now += CHANGE_INTERVAL_MIN;
    let units = feed.audio(0, sound(&[1])).unwrap();
    assert_eq!(units.track.unwrap().config, mono);
    assert!(units.sample.is_some());

    let long = |bytes: usize| [ASC, &vec![0; bytes - ASC.len()]].concat();
    let mut feed = Feed::new();
    assert!(feed.audio(0, header(&long(64))).is_ok());
    let mut feed = Feed::new();
    let error = feed.audio(0, header(&long(65))).unwrap_err();
    assert_eq!(error, FlvError::Bitstream);
}

/// x264 of 64x64 at 120 and at 240 frames a second.
#[test]
fn more_than_120_pictures_a_second_are_refused_at_the_header() {
    let set = |level: u8, rate: &[u8]| {
        let head = [
            0x67, 0x64, 0, level, 0xac, 0xd9, 0x44, 0x26, 0xc0, 0x44, 0, 0, 3, 0,
        ];
        [&head[..], rate].concat()
    };
    let at_120 = set(11, &[4, 0, 0, 3, 3, 0xc0, 0x3c, 0x50, 0xa6, 0x58]);
    let at_240 = set(12, &[4, 0, 0, 7, 0x80, 0x3c, 0x50, 0xa6, 0x58]);
    let header = |sps: Vec<u8>| {
        let pps = Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]);
        let config = h264::Config::new(vec![sps.into()], vec![pps]).unwrap();
        avc(0, [0; 3], &config.build())
    };
    assert!(Feed::new().video(0, header(at_120)).is_ok());
    let error = Feed::new().video(0, header(at_240)).unwrap_err();
    assert_eq!(error, FlvError::FrameRate(240));
    assert!(error.is_fatal());
}

#[test]
fn bodies_without_a_picture_give_nothing_and_are_no_error() {
    let bodies = [
        frame(&[&[9, 0xf0]]),
        frame(&[&[6, 5, 1]]),
        avc(1, [0; 3], &[]),
        avc(2, [0; 3], &[]),
        Bytes::from_static(&[0x57, 0]),
        Bytes::from_static(b"\x92avc1"),
        Bytes::from_static(b"\x94avc1"),
    ];
    for body in bodies {
        let units = Feed::ready().video(0, body.clone()).unwrap();
        assert!(units.track.is_none() && units.sample.is_none(), "{body:?}");
    }
}

#[test]
fn codecs_that_are_not_taken_end_the_session_by_name() {
    let video: [(&[u8], &str); 7] = [
        (&[0x12, 0], "Sorenson H.263"),
        (&[0x14, 0], "VP6"),
        (&[0x1c, 0], "HEVC outside of enhanced RTMP"),
        (b"\x90vp08", "VP8"),
        (b"\x90vp09", "VP9"),
        (b"\x90vvc1", "VVC"),
        (b"\x90xyz1", "this video codec"),
    ];
    let audio: [(&[u8], &str); 7] = [
        (&[0x2f, 0], "MP3"),
        (&[0x7f, 0], "G.711"),
        (&[0xbf, 0], "Speex"),
        (b"\x90ac-3", "AC-3"),
        (b"\x90ec-3", "AC-3"),
        (b"\x90fLaC", "FLAC"),
        (b"\x90.mp3", "MP3"),
    ];
    let of = |kind: Kind, rows: &[(&'static [u8], &'static str)]| {
        for (body, name) in rows {
            let got = Demuxer::new().push(Instant::now(), kind, 0, Bytes::from_static(body));
            let error = got.unwrap_err();
            assert!(error.is_fatal());
            assert_eq!(error, FlvError::Codec(name));
        }
    };
    of(Kind::Video, &video);
    of(Kind::Audio, &audio);
}

/// Cut anywhere, a body is damaged, or holds nothing, or holds whole NAL units only.
#[test]
fn a_body_cut_short_gives_no_part_of_a_picture() {
    let whole = frame(&[IDR, DISPOSABLE]);
    // Two flags, three bytes of composition time, a length of four and the first unit.
    let first_ends = 5 + 4 + IDR.len();
    for length in 0..whole.len() {
        let got = Feed::ready().video(0, whole.slice(..length));
        match length {
            5 => assert!(got.unwrap().sample.is_none()),
            n if n == first_ends => {
                assert_eq!(got.unwrap().sample.unwrap().payload, nals(&[IDR]));
            }
            _ => assert_eq!(got.unwrap_err(), FlvError::Bitstream, "{length}"),
        }
    }
    let header = avc(0, [0; 3], AVCC);
    for length in 0..header.len() {
        let got = Feed::new().video(0, header.slice(..length));
        assert_eq!(got.unwrap_err(), FlvError::Bitstream, "{length}");
    }
    for body in [
        &[][..],
        &[0xaf],
        &[0xaf, 0],
        &[0xaf, 0, 0x12],
        &[0xaf, 1],
        &[0xaf, 2],
    ] {
        let got = Feed::ready().audio(0, Bytes::from_static(body));
        assert_eq!(got.unwrap_err(), FlvError::Bitstream, "{body:?}");
    }
}

/// What comes behind a damaged picture refers to it (I31).
#[test]
fn after_a_damaged_picture_nothing_leaves_before_the_next_keyframe() {
    let whole = frame(&[INTER]);
    for damaged in [whole.slice(..whole.len() - 1), whole.slice(..3)] {
        let mut feed = Feed::ready();
        feed.video(0, frame(&[IDR])).unwrap();
        assert_eq!(feed.video(0, damaged).unwrap_err(), FlvError::Bitstream);
        for _ in 0..3 {
            let next = feed.video(0, whole.clone());
            assert_eq!(next.unwrap_err(), FlvError::Early);
        }
        assert!(feed.audio(0, sound(&[1])).unwrap().sample.is_some());
        assert!(feed.video(0, frame(&[IDR])).unwrap().sample.is_some());
        assert!(feed.video(0, whole.clone()).unwrap().sample.is_some());
    }
}

#[test]
fn fifty_damaged_bodies_within_ten_seconds_end_the_session_and_fewer_do_not() {
    let damaged = Bytes::from_static(&[0x17]);
    let mut feed = Feed::ready();
    for n in 0..BAD_MAX * 2 {
        // One more than ten seconds hold.
        feed.now += BAD_WINDOW / 40;
        let error = feed.video(0, damaged.clone()).unwrap_err();
        assert_eq!(error, FlvError::Bitstream, "{n}");
    }
    let last = (0..BAD_MAX).map(|_| feed.video(0, damaged.clone()).unwrap_err());
    assert!(last.last().unwrap().is_fatal());
}

#[test]
fn times_go_on_where_32_bits_wrap_and_audio_shares_the_clock() {
    let mut feed = Feed::new();
    let start = u32::MAX - 16;
    feed.video(start, avc(0, [0; 3], AVCC)).unwrap();
    feed.audio(start, Bytes::from([&[0xaf, 0][..], ASC].concat()))
        .unwrap();
    let mut at = |kind, time, body| {
        let units = feed.demuxer.push(feed.now, kind, time, body).unwrap();
        units.sample.unwrap().dts
    };
    let first = i64::from(start);
    let steps = [(start, 0), (23, 40), (u32::MAX, 16), (1_023, 1_040)];
    for (time, after) in steps {
        let expected = SourceTime::from_millis(first + after);
        assert_eq!(at(Kind::Video, time, frame(&[IDR])), expected);
        assert_eq!(at(Kind::Audio, time, sound(&[1])), expected);
    }
}

/// Bodies that are often nearly right.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..60);
    let heads = prop_oneof![
        Just(&b"\x17\0\0\0\0"[..]),
        Just(&b"\x17\x01\0\0\0"[..]),
        Just(&b"\x90avc1"[..]),
        Just(&b"\x91avc1\0\0\0"[..]),
        Just(&b"\xaf\x01"[..]),
        Just(&b""[..]),
    ];
    let units = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..9), 0..4);
    let tail = prop_oneof![
        bytes,
        Just(AVCC.to_vec()),
        units.prop_map(|units| nals(&units.iter().map(Vec::as_slice).collect::<Vec<_>>())),
    ];
    (heads, tail).prop_map(|(head, tail)| [head, &tail].concat())
}

proptest! {
    /// The invariants are those of the fuzz target: canonical, after parameters, from a keyframe.
    #[test]
    fn no_bodies_make_the_demuxer_break_what_it_promises(
        list in proptest::collection::vec((any::<u8>(), any::<u32>(), body()), 0..12),
    ) {
        let tag = |(kind, time, body): &(u8, u32, Vec<u8>)| {
            let length = u16::try_from(body.len()).unwrap();
            let head = [&[*kind][..], &time.to_be_bytes(), &length.to_be_bytes()].concat();
            [&head[..], body].concat()
        };
        crate::fuzzing::flv_tag(&list.iter().flat_map(tag).collect::<Vec<u8>>());
    }
}
