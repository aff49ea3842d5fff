//! Somebody watches over HTTP-FLV: what they are sent reads back as what was published.

use std::sync::Arc;
use std::time::Duration;

use lamplight_media::broadcast::EndReason;
use lamplight_media::flv::Demuxer;
use lamplight_media::flv::viewer::{self, Refused, Terms};
use lamplight_media::frame::{Codec, Kind, Shape, TrackId, TrackInfo};
use lamplight_media::whep::Rendition;
use tokio::time::{Instant, timeout};

use crate::support::flv::{Seat, Tag, assert_forward, headers};
use crate::support::{Form, Show, picture_info};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_late_joiner_is_sent_headers_and_all_from_the_newest_keyframe_on() {
    let mut show = Show::start(60);
    show.run(Duration::from_millis(5_300)).await;
    let key = show
        .broadcast()
        .cursor(TrackId::Video, lamplight_media::broadcast::Start::NewestKey)
        .newest_key_dts()
        .unwrap();
    let mut seat = Seat::take(&show);
    let (tags, goes_on) = seat.read().await;
    assert!(goes_on);
    assert_eq!((tags[0].kind, tags[0].ms), (18, 0), "metadata first");
    assert_eq!(headers(&tags), [8, 9]);
    let pictures: Vec<&Tag> = tags.iter().filter(|tag| tag.is_picture()).collect();
    assert!(pictures[0].is_key());
    assert_eq!(i64::from(pictures[0].ms), key.as_micros() / 1_000);
    let sound = tags.iter().find(|tag| tag.kind == 8 && !tag.is_header());
    assert!((0..24).contains(&(sound.unwrap().ms - pictures[0].ms)));
    assert_forward(&tags);

    let mut demuxer = Demuxer::new();
    let mut read = [0, 0];
    for tag in tags.iter().filter(|tag| tag.kind != 18) {
        let kind = if tag.kind == 9 {
            Kind::Video
        } else {
            Kind::Audio
        };
        let units = demuxer.push(Instant::now(), kind, tag.ms, tag.body.clone());
        if let Some(sample) = units.unwrap().sample {
            read[usize::from(kind == Kind::Video)] += 1;
            let payload: &[u8] = match (kind, sample.is_key) {
                (Kind::Audio, _) => &[0x21, 0x10, 0x04],
                (Kind::Video, true) => &[0, 0, 0, 3, 0x65, 1, 2],
                (Kind::Video, false) => &[0, 0, 0, 3, 0x41, 1, 2],
            };
            assert_eq!(sample.payload, payload);
        }
    }
    assert_eq!(read[1], pictures.len());
    assert!(read[0] > 0);
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_fell_behind_goes_to_the_newest_keyframe_and_what_it_missed_counts() {
    let mut show = Show::start(60);
    show.run(SECOND * 3).await;
    let mut seat = Seat::take(&show);
    let (mut tags, _) = seat.read().await;
    let before = tags.iter().filter(|tag| tag.is_picture()).count();
    show.run(SECOND * 9).await;
    let (more, goes_on) = seat.read().await;
    assert!(goes_on);
    let first = more.iter().find(|tag| tag.is_picture()).unwrap();
    assert!(first.is_key() && first.ms >= 10_000, "at {} ms", first.ms);
    assert!(before > 0 && seat.control.measured().skipped > 180);
    tags.extend(more);
    assert_forward(&tags);
}

#[tokio::test(start_paused = true)]
async fn a_publisher_that_comes_back_has_its_headers_repeated_once_and_time_goes_on() {
    let mut show = Show::start(60);
    show.run(SECOND * 3).await;
    let mut seat = Seat::take(&show);
    let (mut tags, _) = seat.read().await;
    assert_eq!(headers(&tags), [8, 9]);
    show.leave();
    show.run(SECOND * 10).await;
    let (silence, goes_on) = seat.read().await;
    assert!(silence.is_empty() && goes_on);
    show.come_back();
    for _ in 0..20 {
        show.run(SECOND / 10).await;
        let (more, goes_on) = seat.read().await;
        assert!(goes_on);
        tags.extend(more);
    }
    assert_eq!(headers(&tags), [8, 8, 9, 9]);
    assert_forward(&tags);
    show.finish(EndReason::Finished);
    let (_, goes_on) = seat.read().await;
    assert!(!goes_on, "the stream ends with the show");
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_for_fifteen_seconds_is_given_up_and_who_waits_for_frames_is_not() {
    let mut show = Show::start(60);
    show.run(SECOND * 3).await;
    let mut stuck = Seat::take(&show);
    assert!(stuck.viewer.next().await.is_some());
    let mut idle = Seat::take(&show);
    idle.read().await;
    show.leave();
    let begun = Instant::now();
    assert!(stuck.control.watch().await);
    assert!((14..=16).contains(&begun.elapsed().as_secs()));
    assert!(stuck.viewer.next().await.is_none());
    let watched = timeout(SECOND * 5, idle.control.watch()).await;
    assert!(watched.is_err(), "it waits still");
    let counts = |show: &Show| {
        show.broadcast()
            .audience()
            .counts(Instant::now())
            .flv
            .viewers
    };
    assert_eq!(counts(&show), 2);
    let control = stuck.control.clone();
    drop(stuck);
    assert!(!control.watch().await);
    assert_eq!(counts(&show), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kicked_or_expired_viewer_is_sent_nothing_more() {
    let mut show = Show::start(60);
    show.run(SECOND * 3).await;
    let mut kicked = Seat::take(&show);
    kicked.control.end("kicked");
    assert!(kicked.viewer.next().await.is_none());
    let terms = Terms {
        expires_at: Some(Instant::now() + SECOND),
        ..Terms::default()
    };
    let mut expiring = Seat::take_with(&show, terms);
    assert!(expiring.read().await.1);
    tokio::time::advance(SECOND).await;
    assert!(!expiring.read().await.1);
}

#[tokio::test(start_paused = true)]
async fn opus_is_converted_unless_the_player_hears_it() {
    let mut head = b"OpusHead\x01\x02".to_vec();
    head.extend([0x38, 1, 0x80, 0xbb, 0, 0, 0, 0, 0]);
    let sound = TrackInfo {
        codec: Codec::Opus,
        generation: 0,
        shape: Shape::Audio {
            rate: 48_000,
            channels: 2,
        },
        config: head.into(),
        reorder_frames: None,
    };
    let form = Form { gop: 60, rate: 30 };
    let mut show = Show::with(form, vec![picture_info(), sound]);
    show.sends_sound = false;
    show.run(SECOND * 2).await;
    let broadcast: Arc<_> = show.broadcast();
    let mut plain = Seat::take(&show);
    plain.read().await;
    assert_eq!(broadcast.users(TrackId::Aac), 1);
    let terms = Terms {
        takes_opus: true,
        ..Terms::default()
    };
    let mut enhanced = Seat::take_with(&show, terms);
    enhanced.read().await;
    let users = [TrackId::Aac, TrackId::Audio].map(|track| broadcast.users(track));
    assert_eq!(users, [1, 1]);
    drop((plain, enhanced));
    assert_eq!(broadcast.users(TrackId::Aac), 0);
}

#[tokio::test(start_paused = true)]
async fn a_rendition_that_the_show_does_not_have_is_refused() {
    let show = Show::start(60);
    let terms = Terms {
        rendition: Some(Rendition::Rung(1_080)),
        ..Terms::default()
    };
    let refused = viewer::check(&show.broadcast(), &terms).unwrap_err();
    assert_eq!(refused, Refused::NoRendition(Rendition::Rung(1_080)));
}
