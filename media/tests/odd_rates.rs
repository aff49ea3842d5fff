//! Encoders that send far too many pictures, hardly any, or nothing but keyframes.

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher, Start};
use lamplight_media::frame::{Kind, Sample, TrackId};
use lamplight_media::time::SourceTime;
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::support::hls::Packaged;
use crate::support::{Form, picture_info};

/// The bounds of a picture's ring (spec media.md 8.5).
const FRAMES_MAX: usize = 1_024;
const BYTES_MAX: usize = 32 << 20;

fn publisher() -> Publisher {
    let hub = Broadcasts::new(Limits::default());
    let opened = hub.open(
        BroadcastKey::new("room_1"),
        Instant::now(),
        OffsetDateTime::UNIX_EPOCH,
    );
    let mut publisher = opened.expect("nobody else is there");
    let set = publisher.set_track(Instant::now(), picture_info());
    set.expect("it is the first");
    publisher
}

fn picture(us: i64, is_key: bool, bytes: usize) -> Sample {
    Sample {
        kind: Kind::Video,
        dts: SourceTime::from_micros(us),
        composition: Duration::ZERO,
        samples: 0,
        is_key,
        is_discardable: false,
        payload: Bytes::from(vec![0; bytes]),
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pictures_a_second_are_held_within_the_bounds_of_the_ring() {
    for (gop, bytes) in [(60, 100), (60, 1 << 20), (i64::MAX, 100_000)] {
        let mut publisher = publisher();
        for n in 0..3_000 {
            tokio::time::advance(Duration::from_micros(100)).await;
            publisher.write(Instant::now(), picture(n * 100, n % gop == 0, bytes));
        }
        let broadcast = publisher.broadcast();
        let track = broadcast.tracks().remove(0);
        assert!(track.bytes <= BYTES_MAX + bytes, "{} bytes", track.bytes);
        let mut cursor = broadcast.cursor(TrackId::Video, Start::NewestKey);
        let held = std::iter::from_fn(|| cursor.try_next()).count();
        assert!(held <= FRAMES_MAX, "{held} frames");
    }
}

#[tokio::test(start_paused = true)]
async fn one_picture_a_minute_is_there_for_whoever_joins() {
    let mut publisher = publisher();
    for minute in 0..10 {
        publisher.write(Instant::now(), picture(minute * 60_000_000, true, 1_000));
        tokio::time::advance(Duration::from_secs(30)).await;
        let broadcast = publisher.broadcast();
        let mut viewer = broadcast.cursor(TrackId::Video, Start::NewestKey);
        let shown = viewer.try_next().expect("the newest picture");
        assert!(shown.frame.is_key);
        tokio::time::advance(Duration::from_secs(30)).await;
    }
}

/// Segments are as long as ever: a keyframe may end one and need not.
#[tokio::test(start_paused = true)]
async fn nothing_but_keyframes_makes_no_segment_shorter() {
    let mut packaged = Packaged::of(Form { gop: 1, rate: 30 });
    packaged.run(Duration::from_secs(20)).await;
    let [src, _] = packaged.lists().await;
    let lengths: Vec<Duration> = src.complete().filter_map(|s| s.duration).collect();
    assert!(lengths.len() >= 8, "{}", src.text);
    let about = Duration::from_millis(1_900)..=Duration::from_millis(2_100);
    assert!(
        lengths.iter().all(|length| about.contains(length)),
        "{}",
        src.text
    );
}
