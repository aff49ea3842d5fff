//! A publisher whose stamps are not what they should be, from its RTMP messages on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{
    Broadcast, BroadcastKey, Broadcasts, Cursor, Limits, Publisher, Start,
};
use lamplight_media::doctor::Code;
use lamplight_media::flv::Demuxer;
use lamplight_media::frame::{Kind, TrackId};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::support::{picture_info, sound_info};

const STEP_MS: u32 = 40;

/// An encoder that sends a picture and a sound each 40 ms, stamped as it is told.
struct Encoder {
    /// Without it nobody is told of anything.
    _hub: Arc<Broadcasts>,
    demuxer: Demuxer,
    publisher: Publisher,
    cursors: [Cursor; 2],
}

impl Encoder {
    fn start() -> Self {
        let hub = Broadcasts::new(Limits::default());
        let opened = hub.open(
            BroadcastKey::new("room_1"),
            Instant::now(),
            OffsetDateTime::UNIX_EPOCH,
        );
        let publisher = opened.expect("nobody else is there");
        let broadcast: &Arc<Broadcast> = publisher.broadcast();
        let cursor = |track| broadcast.cursor(track, Start::Live);
        let cursors = [cursor(TrackId::Video), cursor(TrackId::Audio)];
        let mut encoder = Self {
            _hub: hub,
            demuxer: Demuxer::new(),
            publisher,
            cursors,
        };
        let picture = [&[0x17, 0, 0, 0, 0][..], &picture_info().config].concat();
        let sound = [&[0xaf, 0][..], &sound_info(48_000).config].concat();
        encoder.message(Kind::Video, 0, picture);
        encoder.message(Kind::Audio, 0, sound);
        encoder
    }

    fn message(&mut self, kind: Kind, stamp: u32, body: Vec<u8>) {
        let now = Instant::now();
        let units = self.demuxer.push(now, kind, stamp, Bytes::from(body));
        let units = units.expect("the messages are well formed");
        if let Some(track) = units.track {
            let set = self.publisher.set_track(now, track);
            set.expect("the codecs stay the same");
        }
        if let Some(sample) = units.sample {
            self.publisher.write(now, sample);
        }
    }

    /// Sends with these stamps, at the pace of a show.
    async fn send(&mut self, stamps: impl IntoIterator<Item = (u32, u32)>) {
        for (n, (picture, sound)) in stamps.into_iter().enumerate() {
            tokio::time::advance(Duration::from_millis(STEP_MS.into())).await;
            let is_key = n % 25 == 0;
            let head = if is_key { 0x17 } else { 0x27 };
            let nal = if is_key { 0x65 } else { 0x41 };
            let body = vec![head, 1, 0, 0, 0, 0, 0, 0, 3, nal, 1, 2];
            self.message(Kind::Video, picture, body);
            self.message(Kind::Audio, sound, vec![0xaf, 1, 0x21, 0x10, 4]);
        }
    }

    /// What the viewers saw: places on T of both tracks in milliseconds, and the breaks between.
    fn seen(&mut self) -> ([Vec<i64>; 2], u32) {
        let mut breaks = 0;
        let all = self.cursors.each_mut().map(|cursor| {
            let frames = std::iter::from_fn(|| cursor.try_next());
            let frames = frames.inspect(|d| breaks = breaks.max(d.frame.discontinuities));
            frames
                .map(|d| d.frame.dts.as_micros())
                .collect::<Vec<i64>>()
        });
        for track in &all {
            assert!(
                track.windows(2).all(|w| w[0] < w[1]),
                "T goes back: {track:?}"
            );
        }
        (
            all.map(|track| track.iter().map(|us| us / 1_000).collect()),
            breaks,
        )
    }

    fn codes(&self) -> Vec<Code> {
        let report = self.publisher.broadcast().publish_report();
        let report = report.expect("a session that sends has one");
        report.verdicts.iter().map(|verdict| verdict.code).collect()
    }
}

/// Stamps in step, both tracks alike, from one on.
fn steps(from: u32, count: u32) -> impl Iterator<Item = (u32, u32)> {
    (0..count).map(move |n| {
        let stamp = from.wrapping_add(n * STEP_MS);
        (stamp, stamp)
    })
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_32_bits_that_begins_anew_is_no_jump() {
    let mut encoder = Encoder::start();
    encoder.send(steps(u32::MAX - 2_000, 150)).await;
    let ([picture, _], breaks) = encoder.seen();
    assert_eq!(breaks, 0);
    assert!(picture.windows(2).all(|w| w[1] - w[0] == 40), "{picture:?}");
    assert!(!encoder.codes().contains(&Code::Timestamps));
}

/// Forward by two hours, back by ten seconds, back to zero: T goes on at the pace of the server.
#[tokio::test(start_paused = true)]
async fn a_jump_is_one_discontinuity_of_a_session_that_lives() {
    for to in [7_200_000 + 104_000, 94_000, 0] {
        let mut encoder = Encoder::start();
        encoder.send(steps(100_000, 100)).await;
        encoder.send(steps(to, 100)).await;
        let ([picture, sound], breaks) = encoder.seen();
        assert_eq!(breaks, 1, "to {to}");
        let (first, last) = (picture[0], picture[picture.len() - 1]);
        assert!(
            (7_900..=8_100).contains(&(last - first)),
            "{first} to {last}"
        );
        assert!(
            (last - sound[sound.len() - 1]).abs() <= 80,
            "one offset for both"
        );
        assert!(encoder.codes().contains(&Code::Timestamps), "to {to}");
    }
}

#[tokio::test(start_paused = true)]
async fn steps_back_of_less_than_half_a_second_and_a_gap_of_three_are_no_jumps() {
    let mut encoder = Encoder::start();
    encoder.send(steps(0, 50)).await;
    encoder.send(steps(50 * STEP_MS - 400, 50)).await;
    let resumed = 100 * STEP_MS + 2_000;
    encoder.send(steps(resumed, 10)).await;
    let (_, breaks) = encoder.seen();
    assert_eq!(breaks, 0);
}

#[tokio::test(start_paused = true)]
async fn stamps_that_stand_still_break_nothing() {
    let mut encoder = Encoder::start();
    encoder.send((0..200).map(|_| (0, 0))).await;
    let ([picture, sound], breaks) = encoder.seen();
    assert_eq!((picture.len(), breaks), (200, 0));
    assert_eq!(sound.len(), 200);
}

/// Each track has its own clock then; they lie side by side on T all the same.
#[tokio::test(start_paused = true)]
async fn sound_an_hour_ahead_of_its_picture_is_played_beside_it() {
    let mut encoder = Encoder::start();
    let hour = 3_600_000;
    let stamps = (0..200).map(|n| (n * STEP_MS, hour + n * STEP_MS));
    encoder.send(stamps).await;
    let ([picture, sound], breaks) = encoder.seen();
    assert!(breaks <= 2, "{breaks} breaks");
    assert_eq!(picture.len(), 200);
    let apart = picture[picture.len() - 1] - sound[sound.len() - 1];
    assert!(apart.abs() < 1_000, "{apart} ms apart");
}
