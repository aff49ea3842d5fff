//! The show as a server reads it: tags to samples, samples to pictures, pictures to their numbers.

use std::sync::{Arc, OnceLock};

use time::macros::datetime;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::scene::{CODE_BITS, Scene, code_row};
use super::studio::{Studio, Tag};
use super::*;
use crate::flv::Demuxer;
use crate::frame::{Frame, Kind, Sample, TrackId, TrackInfo};
use crate::time::MediaTime;
use crate::transcode::decoder::VideoDecoder;

const FRAME_MS: i64 = 40;

fn settings() -> Settings {
    Settings {
        width: 640,
        height: 360,
        frame_rate: 25,
        gop_s: 1,
        ..Settings::default()
    }
}

/// The first `count` tags of a show that began at half past a second.
fn tags(count: usize) -> Vec<Tag> {
    let wall = datetime!(2026-11-25 12:00:07.5 UTC);
    let studio = Studio::open(&settings(), wall).unwrap();
    let (out, mut tags) = mpsc::channel(TAGS_MAX);
    let thread = std::thread::spawn(move || studio.run(&out));
    let taken = std::iter::from_fn(|| tags.blocking_recv()).take(count);
    let taken = taken.collect();
    drop(tags);
    thread.join().unwrap().unwrap();
    taken
}

struct Received {
    info: Arc<TrackInfo>,
    sample: Sample,
}

fn received(tags: Vec<Tag>, kind: Kind) -> Vec<Received> {
    let mut demuxer = Demuxer::new();
    let mut info = None;
    let mut out = Vec::new();
    for tag in tags.into_iter().filter(|tag| tag.kind == kind) {
        let units = demuxer.push(Instant::now(), kind, stamp(tag.due_us), tag.body);
        let units = units.unwrap();
        info = units.track.map(Arc::new).or(info);
        out.extend(units.sample.map(|sample| Received {
            info: Arc::clone(info.as_ref().unwrap()),
            sample,
        }));
    }
    out
}

/// The number in the boxes along the lower edge; checks the row of reverses.
fn number(width: usize, height: usize, luma: impl Fn(usize, usize) -> u8) -> u64 {
    let (cell, row) = (width / CODE_BITS, code_row(height));
    let bits = (0..CODE_BITS).map(|bit| {
        let x = bit * cell + cell / 2;
        let is_set = luma(x, height - row - row / 2) > 128;
        let is_reverse = luma(x, height - row / 2) > 128;
        assert_ne!(is_set, is_reverse, "bit {bit}");
        u64::from(is_set) << bit
    });
    bits.sum()
}

#[test]
fn every_picture_of_the_scene_carries_its_number() {
    let mut scene = Scene::new((640, 360), 25);
    for n in [0, 1, 2, 0x1234, 0xffff, 0x1_0001] {
        let canvas = scene.draw(n, datetime!(2026-11-25 12:00 UTC));
        let luma = |x, y| canvas.planes[0][y * 640 + x];
        assert_eq!(number(640, 360, luma), n & 0xffff);
    }
}

#[test]
fn clock_and_counter_change_the_picture_only_where_they_stand() {
    let mut scene = Scene::new((1_280, 720), 30);
    let mut draw = |n, wall| scene.draw(n, wall).clone();
    let noon = datetime!(2026-11-25 12:00 UTC);
    let a = draw(0, noon);
    assert_eq!(a, draw(0, noon));
    let b = draw(0, datetime!(2026-11-25 12:00:00.007 UTC));
    let rows: Vec<usize> = (0..720)
        .filter(|y| a.planes[0][y * 1_280..][..1_280] != b.planes[0][y * 1_280..][..1_280])
        .collect();
    let (first, last) = (rows[0], rows[rows.len() - 1]);
    assert!(first >= 180 && last < 290, "rows {first} to {last}");
}

#[test]
fn the_pictures_come_back_in_order_each_at_its_time_with_its_number() {
    let received = received(tags(200), Kind::Video);
    let count = received.len();
    assert!(count > 60, "{count} pictures");
    assert!(
        received
            .iter()
            .any(|it| it.sample.composition > Duration::ZERO)
    );
    let mut decoder = VideoDecoder::open(&received[0].info).unwrap();
    let mut pictures = Vec::new();
    for Received { info, sample } in &received {
        pictures.extend(decoder.decode(&Frame {
            track: TrackId::Video,
            info: Arc::clone(info),
            dts: MediaTime::from_micros(sample.dts.as_micros()),
            pts: MediaTime::from_micros(sample.dts.as_micros()) + sample.composition,
            duration: None,
            is_key: sample.is_key,
            is_discardable: false,
            discontinuities: 0,
            payload: sample.payload.clone(),
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        }));
    }
    assert!(pictures.len() + 6 > count);
    for (n, (t, picture)) in (0_i64..).zip(pictures) {
        assert_eq!(t, (n + 3) * FRAME_MS * 1_000);
        let stride = picture.stride(0);
        let luma = |x, y| picture.data(0)[y * stride + x];
        assert_eq!(number(640, 360, luma), u64::try_from(n).unwrap());
    }
}

#[test]
fn keyframes_come_every_second_and_stamps_never_go_back() {
    let tags = tags(300);
    assert!(tags.windows(2).all(|two| two[0].due_us <= two[1].due_us));
    let keys: Vec<i64> = received(tags, Kind::Video)
        .iter()
        .filter(|it| it.sample.is_key)
        .map(|it| it.sample.dts.as_micros() / 1_000 + 80)
        .collect();
    let expected: Vec<i64> = (0..).map(|n| 120 + n * 1_000).take(keys.len()).collect();
    assert!(keys.len() > 2);
    assert_eq!(keys, expected);
}

#[test]
fn sound_has_no_hole_and_is_heard_with_the_picture() {
    let received = received(tags(300), Kind::Audio);
    let first = received[0].sample.dts.as_micros();
    // All stamps are three pictures late; what the decoder throws away comes before that.
    assert!((first - (120_000 - 21_333)).abs() <= 1_000, "{first}");
    for two in received.windows(2) {
        let step = two[1].sample.dts.as_micros() - two[0].sample.dts.as_micros();
        assert!((step - 21_333).abs() <= 1_000, "{step}");
    }
}
