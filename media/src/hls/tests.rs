//! Cutting as properties, playlists and waiting in virtual time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use time::OffsetDateTime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher};
use crate::cue::{At, CueKind, NewCue};
use crate::frame::{Codec, Frame, Kind, Sample, Shape, TrackId, TrackInfo};
use crate::time::{MediaTime, SourceTime};

const TARGETS: Targets = Targets {
    part: Duration::from_millis(500),
    segment: Duration::from_secs(2),
    target: Duration::from_secs(4),
};

const CONFIG: HlsConfig = HlsConfig {
    target_duration: Duration::from_secs(4),
    segment_target: Duration::from_secs(2),
    part_target: Duration::from_millis(500),
    window: Duration::from_secs(40),
};

const SPS: &[u8] = &[
    0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00,
    0x01, 0x00, 0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16, 0x2d, 0x96,
];

fn video_info() -> TrackInfo {
    let pps = Bytes::from_static(&[0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0]);
    let config =
        crate::bitstream::h264::Config::new(vec![Bytes::from_static(SPS)], vec![pps]).unwrap();
    TrackInfo {
        codec: Codec::H264,
        generation: 0,
        shape: Shape::Video {
            width: 640,
            height: 360,
        },
        config: config.build(),
        reorder_frames: Some(2),
    }
}

fn audio_info() -> TrackInfo {
    TrackInfo {
        codec: Codec::Aac,
        generation: 0,
        shape: Shape::Audio {
            rate: 44_100,
            channels: 2,
        },
        config: Bytes::from_static(&[0x12, 0x10]),
        reorder_frames: None,
    }
}

fn frame(track: TrackId, info: &Arc<TrackInfo>, us: i64, is_key: bool) -> Arc<Frame> {
    Arc::new(Frame {
        track,
        info: Arc::clone(info),
        dts: MediaTime::from_micros(us),
        pts: MediaTime::from_micros(us),
        duration: (track.kind() == Kind::Audio).then(|| Duration::from_nanos(23_219_955)),
        is_key,
        is_discardable: false,
        discontinuities: 0,
        payload: Bytes::from_static(&[0, 0, 0, 1, 0x65]),
        rtp: OnceLock::new(),
    })
}

/// Checks the order of cuts and rule 1; returns segment lengths and frames.
fn check(cuts: &[Cut]) -> (Vec<i64>, usize) {
    let (mut segments, mut frames) = (Vec::new(), 0);
    let mut open: Option<(MediaTime, MediaTime)> = None;
    for cut in cuts {
        match cut {
            Cut::Begin { start, .. } => {
                assert!(open.is_none());
                open = Some((*start, *start));
            }
            Cut::Part(part) => {
                let (_, at) = open.as_mut().unwrap();
                assert_eq!(part.frames[0].dts, *at, "parts follow each other");
                assert!(part.duration <= TARGETS.part);
                assert_eq!(part.is_independent, part.frames[0].is_key);
                *at = part.end;
                frames += part.frames.len();
            }
            Cut::End { end } => {
                let (start, at) = open.take().unwrap();
                assert_eq!(at, *end, "the segment is its parts");
                segments.push(end.micros_since(start));
            }
        }
    }
    (segments, frames)
}

fn cut_video(times: &[i64], keys: impl Fn(usize) -> bool) -> Vec<Cut> {
    let info = Arc::new(video_info());
    let mut line = VideoLine::new(TARGETS);
    let mut cuts = Vec::new();
    for (n, us) in times.iter().enumerate() {
        cuts.extend(line.push(frame(TrackId::Video, &info, *us, keys(n))));
    }
    cuts.extend(line.finish());
    cuts
}

fn part_lengths(cuts: &[Cut]) -> Vec<u128> {
    let parts = cuts.iter().filter_map(|c| match c {
        Cut::Part(part) => Some(part.duration.as_micros()),
        _ => None,
    });
    parts.collect()
}

#[test]
fn thirty_frames_a_second_give_full_parts_and_segments_at_keyframes() {
    let times: Vec<i64> = (0..300).map(|n| n * 1_000 / 30 * 1_000).collect();
    let cuts = cut_video(&times, |n| n % 60 == 0);
    let (segments, frames) = check(&cuts);
    assert_eq!(frames, 300);
    assert_eq!(segments[..4], [2_000_000; 4]);
    let lengths = part_lengths(&cuts);
    assert!(lengths[..16].iter().all(|us| *us == 500_000), "{lengths:?}");
}

#[test]
fn odd_rates_keep_parts_between_85_percent_and_the_target() {
    for rate in [23.976_f64, 25.0, 29.97, 50.0, 59.94] {
        let times: Vec<i64> = (0..1_000_i32)
            .map(|n| Duration::from_secs_f64(f64::from(n) / rate).as_millis())
            .map(|ms| i64::try_from(ms).unwrap() * 1_000)
            .collect();
        let gop = 48;
        let cuts = cut_video(&times, |n| n % gop == 0);
        check(&cuts);
        for (n, cut) in cuts.iter().enumerate() {
            let Cut::Part(part) = cut else { continue };
            let is_last = !matches!(cuts.get(n + 1), Some(Cut::Part(_)));
            let next_is_key = matches!(cuts.get(n + 1), Some(Cut::Part(p)) if p.is_independent);
            let is_short = part.duration < Duration::from_millis(425);
            let may = is_last || next_is_key || part.is_independent;
            assert!(!is_short || may, "{:?} at {rate}", part.duration);
        }
    }
}

#[test]
fn without_keyframes_a_segment_still_rounds_to_the_target_duration() {
    let times: Vec<i64> = (0..900).map(|n| n * 33_333).collect();
    let (segments, frames) = check(&cut_video(&times, |n| n == 0));
    assert_eq!(frames, 900);
    assert!(segments.iter().all(|us| *us <= 4_400_000), "{segments:?}");
}

proptest! {
    #[test]
    fn any_frame_times_give_parts_that_add_up(
        steps in proptest::collection::vec(1_000_i64..900_000, 2..200),
        key_every in 1_usize..80,
    ) {
        let mut times = vec![0];
        for step in &steps {
            times.push(times.last().unwrap() + step);
        }
        let cuts = cut_video(&times, |n| n % key_every == 0);
        let (_, frames) = check(&cuts);
        prop_assert_eq!(frames, times.len());
    }

    #[test]
    fn sound_is_cut_where_the_picture_is(gops in proptest::collection::vec(40_i64..130, 3..12)) {
        let (video, audio) = (Arc::new(video_info()), Arc::new(audio_info()));
        let mut picture = VideoLine::new(TARGETS);
        let mut sound = AudioLine::new(TARGETS, true);
        let keys: Vec<i64> = gops.iter().scan(0, |at, g| { *at += g; Some(*at - g) }).collect();
        let total: i64 = gops.iter().sum();
        let (mut bounds, mut cuts, mut sounds) = (Vec::new(), Vec::new(), 0_i64);
        for n in 0..total {
            let us = n * 33_333;
            for cut in picture.push(frame(TrackId::Video, &video, us, keys.contains(&n))) {
                if let Cut::Begin { start, is_discontinuity, .. } = cut {
                    bounds.push(start);
                    sound.bound(start, is_discontinuity);
                }
            }
            cuts.extend(sound.advance(MediaTime::from_micros(us)));
            while MediaTime::from_ticks(sounds * 1_024, 44_100).as_micros() <= us {
                let at = MediaTime::from_ticks(sounds * 1_024, 44_100).as_micros();
                cuts.extend(sound.push(frame(TrackId::Audio, &audio, at, true)));
                sounds += 1;
            }
        }
        let begins: Vec<MediaTime> = cuts.iter().filter_map(|c| match c {
            Cut::Begin { start, .. } => Some(*start),
            _ => None,
        }).collect();
        prop_assert!(begins.len() + 1 >= bounds.len());
        prop_assert_eq!(&begins[..], &bounds[..begins.len()]);
        let longest = part_lengths(&cuts).into_iter().max().unwrap();
        prop_assert!(longest <= 500_000);
    }
}

/// A live show: publisher, packager, stream.
struct Show {
    _hub: Arc<Broadcasts>,
    publisher: Option<Publisher>,
    stream: Arc<Stream>,
    packager: tokio::task::JoinHandle<()>,
    pictures: i64,
    sounds: i64,
}

impl Show {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the packager beside the publisher"
    )]
    fn start() -> Self {
        let hub = Broadcasts::new(Limits::default());
        let wall = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let mut publisher = hub
            .open(BroadcastKey::new("room_1"), Instant::now(), wall)
            .unwrap();
        publisher.set_track(Instant::now(), video_info()).unwrap();
        publisher.set_track(Instant::now(), audio_info()).unwrap();
        let broadcast = Arc::clone(publisher.broadcast());
        let stream = Stream::new("abcdefghijkl", CONFIG, Held::default());
        let packager = Packager::new(broadcast, Arc::clone(&stream));
        let packager = tokio::spawn(packager.run(CancellationToken::new()));
        Self {
            _hub: hub,
            publisher: Some(publisher),
            stream,
            packager,
            pictures: 0,
            sounds: 0,
        }
    }

    async fn run(&mut self, pictures: i64) {
        for _ in 0..pictures {
            let n = self.pictures;
            self.pictures += 1;
            let us = n * 1_000_000 / 30;
            while MediaTime::from_ticks(self.sounds * 1_024, 44_100).as_micros() <= us {
                let ms = self.sounds * 1_024 * 1_000 / 44_100;
                self.write(Kind::Audio, ms, true);
                self.sounds += 1;
            }
            self.write(Kind::Video, n * 1_000 / 30, n % 60 == 0);
            tokio::time::advance(Duration::from_micros(33_333)).await;
            tokio::task::yield_now().await;
        }
    }

    fn write(&mut self, kind: Kind, ms: i64, is_key: bool) {
        let sample = Sample {
            kind,
            dts: SourceTime::from_millis(ms),
            composition: Duration::ZERO,
            samples: if kind == Kind::Audio { 1_024 } else { 0 },
            is_key,
            is_discardable: false,
            payload: Bytes::from_static(&[0, 0, 0, 1, 0x65]),
        };
        self.publisher
            .as_mut()
            .unwrap()
            .write(Instant::now(), sample);
    }

    async fn playlist(&self, rendition: RenditionId, query: &str) -> String {
        let directives = Directives::parse(query).unwrap();
        text(&self.stream.playlist(rendition, directives).await)
    }
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Playlist { body, .. } => String::from_utf8(body.plain.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_show_of_seven_seconds_looks_like_this() {
    let mut show = Show::start();
    show.run(200).await;
    insta::assert_snapshot!(
        "multivariant",
        text(&show.stream.multivariant(Some("s1")).await)
    );
    insta::assert_snapshot!("src", show.playlist(RenditionId::Src, "").await);
    insta::assert_snapshot!("aac", show.playlist(RenditionId::Aac, "").await);
}

#[tokio::test(start_paused = true)]
async fn a_v2_delta_leaves_out_old_date_ranges_and_names_those_that_left() {
    let mut show = Show::start();
    show.run(30).await;
    for (id, duration) in [("short", Some(Duration::from_secs(1))), ("open", None)] {
        let cue = NewCue {
            id: id.into(),
            class: "card".into(),
            duration,
            kind: CueKind::Listed,
            payload: Bytes::new(),
        };
        let at = At::Time(MediaTime::from_micros(500_000));
        let broadcast = show.publisher.as_ref().unwrap().broadcast();
        broadcast.cue(Instant::now(), at, cue).await.unwrap();
    }
    let ids = |text: &str| {
        ["short", "open"].map(|id| text.contains(&format!("EXT-X-DATERANGE:ID=\"{id}\"")))
    };
    // Both are young, however little there is to skip.
    show.run(30 * 20).await;
    let young = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    assert_eq!(ids(&young), [true, true], "{young}");
    show.run(30 * 15).await;
    let old = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    assert_eq!(ids(&old), [false, false], "{old}");
    assert!(!old.contains("RECENTLY-REMOVED"), "{old}");
    let plain = show.playlist(RenditionId::Src, "_HLS_skip=YES").await;
    assert_eq!(ids(&plain), [true, true], "{plain}");
    // The first segment has left the list, and the short one with it.
    show.run(30 * 12).await;
    let left = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    let names = "RECENTLY-REMOVED-DATERANGES=\"short\"\n";
    assert!(left.contains(names), "{left}");
    let plain = show.playlist(RenditionId::Src, "_HLS_skip=YES").await;
    assert_eq!(ids(&plain), [false, true], "{plain}");
    show.run(30 * 25).await;
    let gone = show.playlist(RenditionId::Src, "_HLS_skip=v2").await;
    assert!(!gone.contains("RECENTLY-REMOVED"), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn old_segments_are_skipped_on_request_and_leave_in_order() {
    let mut show = Show::start();
    show.run(30 * 70).await;
    let whole = show.playlist(RenditionId::Src, "").await;
    let delta = show.playlist(RenditionId::Src, "_HLS_skip=YES").await;
    let skipped: usize = delta
        .lines()
        .find_map(|l| l.strip_prefix("#EXT-X-SKIP:SKIPPED-SEGMENTS="))
        .and_then(|n| n.parse().ok())
        .unwrap();
    let count = |text: &str| text.matches("#EXTINF").count();
    assert_eq!(count(&delta) + skipped, count(&whole));
    assert!(
        (20..=22).contains(&count(&whole)),
        "the window is 40 s: {}",
        count(&whole)
    );
    assert!(whole.contains("#EXT-X-MEDIA-SEQUENCE:1"), "{whole}");
    assert!(delta.len() < whole.len());
}

#[tokio::test(start_paused = true)]
async fn what_is_listed_can_be_fetched_and_parts_make_the_segment() {
    let mut show = Show::start();
    show.run(220).await;
    let list = show.playlist(RenditionId::Src, "").await;
    let uri = |line: &str| {
        line.split("URI=\"")
            .nth(1)?
            .split('"')
            .next()
            .map(str::to_owned)
    };
    let mut parts = Vec::new();
    for line in list.lines() {
        if line.starts_with("#EXT-X-PART:") || line.starts_with("#EXT-X-MAP") {
            let name = uri(line).unwrap();
            let Media::Found(bytes) = show.stream.media(RenditionId::Src, &name).await else {
                panic!("{name} is listed")
            };
            if line.starts_with("#EXT-X-PART:") {
                parts.extend(bytes);
            }
        } else if !line.starts_with('#') {
            let Media::Found(bytes) = show.stream.media(RenditionId::Src, line).await else {
                panic!("{line} is listed")
            };
            assert_eq!(bytes, std::mem::take(&mut parts), "{line}");
        }
    }
    for strange in [
        "abcdefghijkl-p9999.m4s",
        "other-p1.m4s",
        "../x",
        "abcdefghijkl-p01.m4s",
        "",
    ] {
        let got = show.stream.media(RenditionId::Src, strange).await;
        assert!(matches!(got, Media::NotFound), "{strange}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_for_the_next_part_is_held_until_it_is_there() {
    let mut show = Show::start();
    show.run(100).await;
    let list = show.playlist(RenditionId::Src, "").await;
    let parts = list.matches("#EXT-X-PART:").count();
    let stream = Arc::clone(&show.stream);
    // 100 pictures: segment 1 is open with two parts.
    let asked = Directives::parse("_HLS_msn=1&_HLS_part=2").unwrap();
    let mut held = std::pin::pin!(stream.playlist(RenditionId::Src, asked));
    let early = tokio::time::timeout(Duration::from_millis(1), &mut held).await;
    assert!(early.is_err(), "nothing is sent early");
    show.run(20).await;
    let answer = text(&held.await);
    assert_eq!(answer.matches("#EXT-X-PART:").count(), parts + 1);
}

#[tokio::test(start_paused = true)]
async fn a_hinted_part_is_held_and_others_are_not() {
    let mut show = Show::start();
    show.run(100).await;
    let list = show.playlist(RenditionId::Src, "").await;
    let hint = list
        .split("TYPE=PART,URI=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let stream = Arc::clone(&show.stream);
    let mut held = std::pin::pin!(stream.media(RenditionId::Src, hint));
    assert!(
        tokio::time::timeout(Duration::from_millis(1), &mut held)
            .await
            .is_err()
    );
    show.run(20).await;
    assert!(matches!(held.await, Media::Found(_)));
}

#[tokio::test(start_paused = true)]
async fn requests_that_cannot_be_met_are_answered_at_once() {
    let mut show = Show::start();
    show.run(100).await;
    for (query, expected) in [
        ("_HLS_msn=9", "Bad"),
        ("_HLS_msn=1&_HLS_part=40", "Bad"),
        ("_HLS_msn=0", "#EXTM3U"),
        ("_HLS_msn=0&_HLS_part=99", "#EXTM3U"),
    ] {
        let got = show.playlist(RenditionId::Src, query).await;
        assert!(got.starts_with(expected), "{query}: {got}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_held_for_three_target_durations_is_given_up() {
    let mut show = Show::start();
    show.run(100).await;
    let asked = Directives::parse("_HLS_msn=2").unwrap();
    let begun = Instant::now();
    let answer = show.stream.playlist(RenditionId::Src, asked).await;
    assert!(matches!(answer, Answer::Busy));
    assert_eq!(begun.elapsed().as_secs(), 12);
}

#[tokio::test(start_paused = true)]
async fn the_end_completes_the_last_segment_and_hints_at_nothing() {
    let mut show = Show::start();
    show.run(100).await;
    drop(show.publisher.take());
    show.packager.await.unwrap();
    let asked = Directives::parse("_HLS_msn=99").unwrap();
    let last = text(&show.stream.playlist(RenditionId::Src, asked).await);
    assert!(last.ends_with("#EXT-X-ENDLIST\n"), "{last}");
    assert!(!last.contains("PRELOAD-HINT"));
    assert_eq!(last.matches("#EXTINF").count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cue_is_a_date_range_at_once_and_rides_in_the_part_that_shows_it() {
    let mut show = Show::start();
    show.run(100).await;
    let broadcast = Arc::clone(show.publisher.as_ref().unwrap().broadcast());
    let t = MediaTime::from_micros(3_600_000);
    let cue = NewCue {
        id: "card-1".into(),
        class: "card".into(),
        duration: None,
        kind: CueKind::Listed,
        payload: Bytes::from_static(b"{\"a\":1}"),
    };
    broadcast
        .cue(Instant::now(), At::Time(t), cue)
        .await
        .unwrap();
    show.run(1).await;
    for rendition in [RenditionId::Src, RenditionId::Aac] {
        let list = show.playlist(rendition, "").await;
        assert!(
            list.contains("ID=\"card-1\",CLASS=\"lamplight.card\""),
            "{list}"
        );
        assert!(list.contains("X-LAMPLIGHT-T=\"3600000\",X-LAMPLIGHT-DATA=\"eyJhIjoxfQ\""));
    }
    show.run(60).await;
    let mut carriers = Vec::new();
    for n in 0..10 {
        let name = format!("abcdefghijkl-p{n}.m4s");
        if let Media::Found(bytes) = show.stream.media(RenditionId::Src, &name).await
            && bytes.windows(4).any(|w| w == b"emsg")
        {
            carriers.push(n);
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("lamplight/cue/1"));
            assert!(text.contains("\"t_us\":3600000"));
        }
    }
    assert_eq!(carriers, [7], "3.6 s is in the eighth half second");
}
