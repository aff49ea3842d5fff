//! The hub as its users see it: publisher in, cursors out.

use std::time::Duration;

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::*;
use crate::cue::{CueKind, CueNews};
use crate::doctor::Code;
use crate::frame::{Codec, Frame, Sample, Shape};
use crate::time::{SourceTime, Unwrap32};

fn video() -> TrackInfo {
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: Bytes::from_static(b"avcc"),
        reorder_frames: None,
    }
}

fn audio() -> TrackInfo {
    TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: Bytes::from_static(&[0x11, 0x90]),
        reorder_frames: None,
    }
}

fn picture(ms: i64, is_key: bool) -> Sample {
    Sample {
        kind: Kind::Video,
        dts: SourceTime::from_millis(ms),
        composition: Duration::ZERO,
        samples: 0,
        is_key,
        is_discardable: false,
        payload: Bytes::from(vec![0; 1_000]),
    }
}

fn open() -> (Arc<Broadcasts>, Publisher) {
    let hub = Broadcasts::new(Limits::default());
    let key = BroadcastKey::new("room_1");
    let mut publisher = hub
        .open(key, Instant::now(), OffsetDateTime::UNIX_EPOCH)
        .unwrap();
    publisher.set_track(Instant::now(), video()).unwrap();
    (hub, publisher)
}

fn cue(id: &str) -> NewCue {
    NewCue {
        id: id.into(),
        class: "card".into(),
        duration: None,
        kind: CueKind::Listed,
        payload: Bytes::from_static(b"{}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_publisher_is_refused_until_the_first_has_gone() {
    let (hub, publisher) = open();
    let key = BroadcastKey::new("room_1");
    let again = hub.open(key.clone(), Instant::now(), OffsetDateTime::UNIX_EPOCH);
    assert_eq!(again.map(|_| ()), Err(OpenError::Busy));
    publisher.finish(EndReason::Finished);
    assert!(hub.find(&key).is_none());
    assert!(
        hub.open(key, Instant::now(), OffsetDateTime::UNIX_EPOCH)
            .is_ok()
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_starts_at_the_newest_keyframe_and_one_left_behind_jumps_to_it() {
    let (_hub, mut publisher) = open();
    let broadcast = Arc::clone(publisher.broadcast());
    for n in 0..90 {
        publisher.write(Instant::now(), picture(n * 33, n % 30 == 0));
    }
    let mut cursor = broadcast.cursor(TrackId::Video, Start::NewestKey);
    let first = cursor.try_next().unwrap();
    assert!(first.frame.is_key);
    assert_eq!(
        (first.frame.dts, first.skipped),
        (MediaTime::from_micros(60 * 33_000), 0)
    );
    // The reader sleeps for 20 s; the ring holds 12 s.
    for n in 90..700 {
        publisher.write(Instant::now(), picture(n * 33, n % 30 == 0));
    }
    let next = cursor.try_next().unwrap();
    assert!(next.frame.is_key);
    let passed = next.frame.dts.micros_since(first.frame.dts) / 33_000 - 1;
    assert_eq!(i64::from(next.skipped), passed);
}

#[tokio::test(start_paused = true)]
async fn the_ring_of_a_stream_without_keyframes_stays_bounded() {
    let (_hub, mut publisher) = open();
    for n in 0..5_000 {
        publisher.write(Instant::now(), picture(n * 10, n == 0));
    }
    let broadcast = Arc::clone(publisher.broadcast());
    let oldest = broadcast
        .cursor(TrackId::Video, Start::OldestKey)
        .try_next();
    assert!(oldest.is_none(), "the only keyframe has left the ring");
    let mut live = broadcast.cursor(TrackId::Video, Start::Live);
    publisher.write(Instant::now(), picture(50_010, true));
    assert!(live.try_next().unwrap().frame.is_key);
}

#[tokio::test(start_paused = true)]
async fn demand_for_a_made_track_changes_only_with_its_first_and_last_user() {
    let (_hub, publisher) = open();
    let broadcast = publisher.broadcast();
    let mut demand = broadcast.demand();
    let one = broadcast.cursor(TrackId::Clean, Start::NewestKey);
    assert!(demand.has_changed().unwrap());
    demand.mark_unchanged();
    let two = broadcast.cursor(TrackId::Clean, Start::NewestKey);
    drop(one);
    assert!(!demand.has_changed().unwrap());
    assert_eq!(broadcast.users(TrackId::Clean), 1);
    drop(two);
    assert!(demand.has_changed().unwrap());
    assert_eq!(broadcast.users(TrackId::Clean), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cue_for_now_has_the_time_of_the_next_picture_and_is_told_before_it() {
    let (_hub, mut publisher) = open();
    publisher.write(Instant::now(), picture(0, true));
    let broadcast = Arc::clone(publisher.broadcast());
    let mut news = broadcast.cues();
    let asked = broadcast.cue(Instant::now(), At::Now, cue("card-1"));
    let ((), stamped) = tokio::join!(
        async {
            tokio::task::yield_now().await;
            publisher.write(Instant::now(), picture(33, false));
        },
        asked
    );
    let t = MediaTime::from_micros(33_000);
    assert_eq!(stamped.unwrap().t, t);
    assert!(matches!(news.try_next(), Some(CueNews::Opened(c)) if c.t == t));
    assert_eq!(
        broadcast.now_t(Instant::now()),
        MediaTime::ZERO,
        "virtual time stood still"
    );
}

#[tokio::test(start_paused = true)]
async fn a_cue_for_now_without_frames_takes_the_running_time() {
    let (_hub, mut publisher) = open();
    publisher.write(Instant::now(), picture(0, true));
    tokio::time::advance(Duration::from_secs(3)).await;
    let broadcast = Arc::clone(publisher.broadcast());
    let stamped = broadcast
        .cue(Instant::now(), At::Now, cue("card-1"))
        .await
        .unwrap();
    assert_eq!(stamped.t, MediaTime::from_micros(3_500_000));
}

#[tokio::test(start_paused = true)]
async fn tracks_settle_with_both_headers_or_after_a_second_and_a_half() {
    let (_hub, mut publisher) = open();
    let broadcast = Arc::clone(publisher.broadcast());
    publisher.write(Instant::now(), picture(0, true));
    assert!(!*broadcast.settled.borrow());
    publisher.set_track(Instant::now(), audio()).unwrap();
    broadcast.settled().await.unwrap();

    let (_hub, mut alone) = open();
    alone.write(Instant::now(), picture(0, true));
    tokio::time::advance(publisher::SETTLE).await;
    alone.write(Instant::now(), picture(1_500, false));
    alone.broadcast().settled().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn readers_get_what_is_left_and_then_the_end() {
    let (_hub, mut publisher) = open();
    publisher.write(Instant::now(), picture(0, true));
    let broadcast = Arc::clone(publisher.broadcast());
    let mut cursor = broadcast.cursor(TrackId::Video, Start::NewestKey);
    publisher.finish(EndReason::Finished);
    assert!(cursor.next().await.is_ok());
    assert!(matches!(cursor.next().await, Err(Ended)));
    assert_eq!(broadcast.ended().await, EndReason::Finished);
    let late = broadcast.cue(Instant::now(), At::Now, cue("late")).await;
    assert_eq!(late, Err(CueError::Ended));
}

#[tokio::test(start_paused = true)]
async fn another_kind_of_codec_is_refused_and_an_equal_header_changes_nothing() {
    let (_hub, mut publisher) = open();
    let hevc = TrackInfo {
        codec: Codec::Hevc,
        ..video()
    };
    assert_eq!(publisher.set_track(Instant::now(), hevc), Err(CodecChanged));
    publisher.set_track(Instant::now(), video()).unwrap();
    assert_eq!(
        publisher
            .broadcast()
            .source(Kind::Video)
            .unwrap()
            .generation,
        0
    );
    let other = TrackInfo {
        config: Bytes::from_static(b"other"),
        ..video()
    };
    publisher.set_track(Instant::now(), other).unwrap();
    assert_eq!(
        publisher
            .broadcast()
            .source(Kind::Video)
            .unwrap()
            .generation,
        1
    );
}

/// What RTMP carries: 32 bits of milliseconds, which wrap after 49.7 days.
#[tokio::test(start_paused = true)]
async fn neither_a_wrap_nor_its_undoing_by_an_older_stamp_is_a_jump() {
    let (_hub, mut publisher) = open();
    let broadcast = Arc::clone(publisher.broadcast());
    let mut cursor = broadcast.cursor(TrackId::Video, Start::Live);
    let mut clock = Unwrap32::default();
    let start = u32::MAX - 65;
    for n in 0..4_u32 {
        let ms = clock.push(start.wrapping_add(n * 33));
        publisher.write(Instant::now(), picture(ms, n == 0));
        // Sound of the time before the wrap comes after the picture of the time after it.
        assert_eq!(clock.push(start), i64::from(start));
    }
    let frames: Vec<_> = std::iter::from_fn(|| cursor.try_next()).collect();
    let times: Vec<i64> = frames.iter().map(|d| d.frame.dts.as_micros()).collect();
    assert_eq!(times, [0, 33_000, 66_000, 99_000]);
    let breaks: Vec<u32> = frames.iter().map(|d| d.frame.discontinuities).collect();
    assert_eq!(breaks, [0; 4]);
}

/// The encoder starts its clock again; viewers see one break, and the wall clock goes on.
#[tokio::test(start_paused = true)]
async fn a_restarted_clock_breaks_the_timeline_once_and_for_all_tracks() {
    let (_hub, mut publisher) = open();
    publisher.set_track(Instant::now(), audio()).unwrap();
    let broadcast = Arc::clone(publisher.broadcast());
    let sound = |ms| Sample {
        kind: Kind::Audio,
        samples: 1_024,
        ..picture(ms, true)
    };
    let mut readers =
        [TrackId::Video, TrackId::Audio].map(|track| broadcast.cursor(track, Start::Live));
    for ms in [900_000, 900_033, 0, 33] {
        let is_key = ms % 1_000 == 0;
        publisher.write(Instant::now(), picture(ms, is_key));
        publisher.write(Instant::now(), sound(ms));
        tokio::time::advance(Duration::from_millis(33)).await;
    }
    for reader in &mut readers {
        let frames: Vec<_> = std::iter::from_fn(|| reader.try_next()).collect();
        let breaks: Vec<u32> = frames.iter().map(|d| d.frame.discontinuities).collect();
        assert_eq!(breaks, [0, 0, 1, 1]);
        let times: Vec<MediaTime> = frames.iter().map(|d| d.frame.dts).collect();
        assert!(times.windows(2).all(|w| w[0] < w[1]), "{times:?}");
        let walls = times.iter().map(|t| broadcast.wall(*t));
        let walls: Vec<OffsetDateTime> = walls.collect();
        let whole = walls[3] - walls[0];
        assert!((66..=133).contains(&whole.whole_milliseconds()), "{whole}");
    }
}

fn joined(hub: &Arc<Broadcasts>) -> Result<Publisher, OpenError> {
    let at = (Instant::now(), OffsetDateTime::UNIX_EPOCH);
    hub.join(BroadcastKey::new("room_1"), at, PublishPolicy::default())
}

/// A session that has sent a keyframe.
fn on_air(hub: &Arc<Broadcasts>) -> Publisher {
    let mut publisher = joined(hub).unwrap();
    publisher.set_track(Instant::now(), video()).unwrap();
    let written = publisher.write(Instant::now(), picture(0, true));
    written.expect("it is the first");
    publisher
}

/// What the hub tells now, as words.
fn told(hub: &Broadcasts) -> Vec<&'static str> {
    let mut words = Vec::new();
    while let Some(event) = at_once(hub.next_event()) {
        words.push(match event {
            Event::Started(_) => "started",
            Event::Lost(_) => "lost",
            Event::Returned(_) => "returned",
            Event::TracksChanged(_) => "tracks",
            Event::Ended(_, reason) => reason.reason(),
            Event::Verdict(..)
            | Event::Viewers(_)
            | Event::Overload(..)
            | Event::RecordingReady(_) => continue,
        });
    }
    words
}

/// What a future gives at once, if it does.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_in_time_goes_on_in_the_same_instance() {
    let hub = Broadcasts::new(Limits::default());
    let publisher = on_air(&hub);
    let broadcast = Arc::clone(publisher.broadcast());
    let mut cursor = broadcast.cursor(TrackId::Video, Start::OldestKey);
    let first = cursor.try_next().unwrap().frame;
    drop(publisher);
    tokio::select! {
        () = hub.watch() => unreachable!("it watches for ever"),
        () = tokio::time::sleep(Duration::from_secs(29)) => {}
    }
    assert!(!broadcast.has_publisher() && !broadcast.is_ended());
    let again = on_air(&hub);
    assert!(Arc::ptr_eq(again.broadcast(), &broadcast));
    let second = cursor.try_next().unwrap().frame;
    let place = |frame: &Frame| (frame.dts.as_micros(), frame.discontinuities);
    assert_eq!(place(&first), (0, 0));
    assert_eq!(
        place(&second),
        (29_000_000, 1),
        "a gap as long as the real one"
    );
    assert_eq!(told(&hub), ["started", "tracks", "lost", "returned"]);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_stays_away_is_awaited_for_as_long_as_it_went() {
    for (reason, seconds) in [(EndReason::Lost, 30), (EndReason::Finished, 5)] {
        let hub = Broadcasts::new(Limits::default());
        let publisher = on_air(&hub);
        let broadcast = Arc::clone(publisher.broadcast());
        let went = Instant::now();
        publisher.finish(reason);
        let ended = tokio::select! {
            () = hub.watch() => unreachable!("it watches for ever"),
            ended = broadcast.ended() => ended,
        };
        assert_eq!(ended, reason);
        assert_eq!(went.elapsed(), Duration::from_secs(seconds));
        assert!(hub.list().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_tells_the_older_session_and_lets_none_of_its_frames_in() {
    let hub = Broadcasts::new(Limits::default());
    let mut older = on_air(&hub);
    let broadcast = Arc::clone(older.broadcast());
    assert_eq!(at_once(older.ended()), None);
    let mut newer = joined(&hub).unwrap();
    assert_eq!(older.ended().await, EndReason::Replaced);
    assert_eq!(older.write(Instant::now(), picture(40, false)), None);
    newer.set_track(Instant::now(), video()).unwrap();
    tokio::time::advance(Duration::from_millis(500)).await;
    let t = newer.write(Instant::now(), picture(7_000, true)).unwrap();
    assert_eq!(t.as_micros(), 500_000);
    drop(older);
    assert!(broadcast.has_publisher() && !broadcast.is_ended());
    assert_eq!(told(&hub), ["started", "tracks"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_comes_back_with_another_codec_begins_a_new_instance() {
    let hub = Broadcasts::new(Limits::default());
    let publisher = on_air(&hub);
    let old = Arc::clone(publisher.broadcast());
    drop(publisher);
    let mut again = joined(&hub).unwrap();
    again.set_track(Instant::now(), audio()).unwrap();
    let hevc = TrackInfo {
        codec: Codec::Hevc,
        ..video()
    };
    again.set_track(Instant::now(), hevc).unwrap();
    assert_eq!(old.ended().await, EndReason::CodecChanged);
    let new = again.broadcast();
    assert_ne!(new.instance(), old.instance());
    assert_eq!(new.source(Kind::Video).unwrap().codec, Codec::Hevc);
    assert!(new.source(Kind::Audio).is_some(), "its sound comes along");
    assert!(Arc::ptr_eq(&hub.find(new.key()).unwrap(), new));
    again.write(Instant::now(), picture(0, true)).unwrap();
    assert_eq!(again.set_track(Instant::now(), video()), Err(CodecChanged));
}

#[tokio::test(start_paused = true)]
async fn a_new_encoder_is_measured_afresh() {
    let (_hub, mut publisher) = open();
    let broadcast = Arc::clone(publisher.broadcast());
    for n in 0..300 {
        let composition = Duration::from_millis(33);
        let reordered = Sample {
            composition,
            ..picture(n * 33, n == 0)
        };
        publisher.write(Instant::now(), reordered);
    }
    let facts = broadcast.facts(TrackId::Video);
    assert!(facts.has_reordering);
    assert_eq!(facts.gop, Duration::from_millis(299 * 33));
    // The encoder starts again, and its clock with it.
    for n in 0..300 {
        publisher.write(Instant::now(), picture(n * 33 - 60_000, n % 30 == 0));
    }
    let facts = broadcast.facts(TrackId::Video);
    assert!(!facts.has_reordering);
    assert_eq!(facts.gop, Duration::from_millis(30 * 33));
}

/// What counts is how its encoder places keyframes.
#[tokio::test(start_paused = true)]
async fn a_stall_of_the_publisher_makes_no_group_longer_and_a_slow_picture_does() {
    let (_hub, mut publisher) = open();
    let broadcast = Arc::clone(publisher.broadcast());
    for n in 0..90 {
        let stalled_ms = if n > 40 { 2_500 } else { 0 };
        publisher.write(Instant::now(), picture(n * 33 + stalled_ms, n % 60 == 0));
    }
    let gop = broadcast.facts(TrackId::Video).gop;
    assert!(gop <= Duration::from_millis(60 * 33), "{gop:?}");
    drop(publisher);
    let (_hub, mut publisher) = open();
    for n in 0..10 {
        publisher.write(Instant::now(), picture(n * 2_000, n % 4 == 0));
    }
    let broadcast = Arc::clone(publisher.broadcast());
    let gop = broadcast.facts(TrackId::Video).gop;
    assert_eq!(gop, Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn a_keyframe_wanted_from_a_time_on_is_not_given_before_it() {
    let (_hub, publisher) = open();
    let broadcast = Arc::clone(publisher.broadcast());
    let cursor = broadcast.cursor(TrackId::Clean, Start::Live);
    let made = broadcast.made(TrackId::Clean);
    let at = |ms: i64| MediaTime::from_micros(ms * 1_000);
    let mut now = Instant::now();
    cursor.request_keyframe_from(at(100));
    assert!(!made.take_keyframe_request_at(now, at(99)));
    cursor.request_keyframe();
    assert!(made.take_keyframe_request_at(now, at(99)), "for another");
    now += Duration::from_secs(1);
    assert!(made.take_keyframe_request_at(now, at(133)));
    now += Duration::from_secs(1);
    assert!(!made.take_keyframe_request_at(now, at(166)), "answered");
}

fn about() -> About {
    About {
        protocol: crate::request::Protocol::Rtmp,
        bitrate_bps_max: 4_000_000,
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_is_reported_from_its_introduction_until_it_goes() {
    let hub = Broadcasts::new(Limits::default());
    let mut publisher = on_air(&hub);
    let broadcast = Arc::clone(publisher.broadcast());
    publisher.introduce(Instant::now(), about());
    publisher.name_encoder(Instant::now(), "obs-output module");
    let report = broadcast.publish_report().unwrap();
    assert_eq!(report.protocol, Some(crate::request::Protocol::Rtmp));
    assert_eq!(report.encoder.as_deref(), Some("obs-output module"));
    publisher.finish(EndReason::Lost);
    assert_eq!(broadcast.publish_report(), None);
    let mut next = on_air(&hub);
    next.introduce(Instant::now(), about());
    let other = broadcast.publish_report().unwrap();
    assert_ne!(other.id, report.id);
}

/// Pictures whose order is not that of their decoding, for longer than a look takes.
#[tokio::test(start_paused = true)]
async fn what_the_doctor_finds_is_told_once_and_stands_in_the_report() {
    let hub = Broadcasts::new(Limits::default());
    let mut publisher = on_air(&hub);
    publisher.introduce(Instant::now(), about());
    for n in 1..=60 {
        tokio::time::advance(Duration::from_millis(33)).await;
        let reordered = Sample {
            composition: Duration::from_millis(66),
            ..picture(n * 33, n % 30 == 0)
        };
        publisher.write(Instant::now(), reordered).unwrap();
    }
    let mut told = Vec::new();
    while let Some(event) = at_once(hub.next_event()) {
        if let Event::Verdict(_, code, verdict) = event {
            told.push((code, verdict.is_some()));
        }
    }
    assert_eq!(told, [(Code::Bframes, true)]);
    let report = publisher.broadcast().publish_report().unwrap();
    assert_eq!(report.verdicts.len(), 1);
    assert!(report.bitrate_bps > 100_000, "{report:?}");
    assert!(
        report
            .frame_rate
            .is_some_and(|rate| (29.0..31.0).contains(&rate))
    );
}

#[tokio::test(start_paused = true)]
async fn a_track_that_begins_after_the_show_is_a_verdict_and_one_in_time_is_none() {
    for (late_ms, expected) in [(500, false), (3_000, true)] {
        let hub = Broadcasts::new(Limits::default());
        let mut publisher = on_air(&hub);
        publisher.introduce(Instant::now(), about());
        tokio::time::advance(Duration::from_millis(1_600)).await;
        if !expected {
            publisher.set_track(Instant::now(), audio()).unwrap();
        }
        publisher
            .write(Instant::now(), picture(1_600, true))
            .unwrap();
        tokio::time::advance(Duration::from_millis(late_ms)).await;
        publisher.set_track(Instant::now(), audio()).unwrap();
        let at = 1_600 + i64::try_from(late_ms).unwrap();
        publisher.write(Instant::now(), picture(at, true)).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        publisher
            .write(Instant::now(), picture(at + 1_000, true))
            .unwrap();
        let report = publisher.broadcast().publish_report().unwrap();
        let is_found = report.verdicts.iter().any(|v| v.code == Code::LateTrack);
        assert_eq!(is_found, expected, "{late_ms} ms");
    }
}

/// The server asks before it opens; asking must lead to the same end.
#[tokio::test(start_paused = true)]
async fn two_encoders_that_only_ask_are_parted_too_and_the_one_there_is_told() {
    let hub = Broadcasts::new(Limits::default());
    let key = BroadcastKey::new("room_1");
    let mut publisher = on_air(&hub);
    for n in 1..=3 {
        tokio::time::advance(Duration::from_secs(1)).await;
        publisher = on_air(&hub);
        assert!(publisher.broadcast().has_publisher(), "{n}");
    }
    publisher.introduce(Instant::now(), about());
    let may = hub.may_join(&key, Instant::now(), PublishPolicy::default());
    assert_eq!(may, Err(OpenError::TwoEncoders));
    tokio::time::advance(Duration::from_secs(2)).await;
    publisher
        .write(Instant::now(), picture(2_000, true))
        .unwrap();
    let report = publisher.broadcast().publish_report().unwrap();
    let codes: Vec<Code> = report.verdicts.iter().map(|v| v.code).collect();
    assert!(codes.contains(&Code::TwoEncoders), "{codes:?}");
}
