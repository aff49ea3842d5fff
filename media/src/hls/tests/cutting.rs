//! Frames to parts and segments, as tables and properties.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::{audio_info, video_info};
use crate::frame::{Frame, Kind, TrackId, TrackInfo};
use crate::hls::{AudioLine, Cut, Targets, VideoLine};
use crate::time::MediaTime;

const TARGETS: Targets = Targets {
    part: Duration::from_millis(500),
    segment: Duration::from_secs(2),
    target: Duration::from_secs(4),
};

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
