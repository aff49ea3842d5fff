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
    gap_after: Duration::from_secs(2),
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
        flv: OnceLock::new(),
        chunks: OnceLock::new(),
        arrived: OnceLock::new(),
    })
}

/// Checks the order of cuts, that segments tile T, and their lengths; returns the lengths and the
/// number of frames.
fn check(cuts: &[Cut]) -> (Vec<i64>, usize) {
    let (mut segments, mut frames) = (Vec::new(), 0);
    let mut open: Option<(MediaTime, MediaTime)> = None;
    let mut ended: Option<MediaTime> = None;
    for cut in cuts {
        match cut {
            Cut::Begin { start, .. } => {
                assert!(open.is_none());
                assert!(ended.is_none_or(|at| at == *start), "{ended:?} {start:?}");
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
            Cut::Gap { duration } => {
                assert!(*duration <= TARGETS.part);
                open.as_mut().unwrap().1 = open.unwrap().1 + *duration;
            }
            Cut::End { end } => {
                let (start, at) = open.take().unwrap();
                assert_eq!(at, *end, "the segment is its parts");
                assert!(
                    (1..=4_400_000).contains(&end.micros_since(start)),
                    "{start:?} {end:?}"
                );
                segments.push(end.micros_since(start));
                ended = Some(*end);
            }
        }
    }
    assert!(open.is_none());
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

/// Frames of 1.5 s: three of them are too long for one segment.
#[test]
fn the_frame_that_makes_a_segment_too_long_goes_into_the_next_one() {
    let times: Vec<i64> = (0..20).map(|n| n * 1_500_000).collect();
    for gop in [3, 4, 20] {
        let cuts = cut_video(&times, |n| n % gop == 0);
        let (segments, frames) = check(&cuts);
        assert_eq!(frames, 20);
        assert!(
            segments
                .iter()
                .all(|us| [1_500_000, 3_000_000].contains(us)),
            "{segments:?}"
        );
        assert!(!cuts.iter().any(|c| matches!(c, Cut::Gap { .. })));
    }
}

/// The ring has overtaken the packager: what is lost is a gap, unless it is short.
#[test]
fn lost_frames_leave_a_gap_and_no_discontinuity() {
    let info = Arc::new(video_info());
    for (hole_us, gaps) in [(1_500_000, 0), (2_500_000, 1), (9_000_000, 5)] {
        let mut line = VideoLine::new(TARGETS);
        let mut cuts = Vec::new();
        let mut us = 0;
        for n in 0..200 {
            us += if n == 100 { hole_us } else { 33_333 };
            if n == 100 {
                line.lose();
            }
            cuts.extend(line.push(frame(TrackId::Video, &info, us, n % 50 == 0)));
        }
        cuts.extend(line.finish());
        assert_eq!(check(&cuts).1, 200);
        let begins = cuts.iter().filter_map(|cut| match cut {
            Cut::Begin {
                info,
                is_discontinuity,
                ..
            } => Some((info.is_none(), *is_discontinuity)),
            _ => None,
        });
        let begins: Vec<(bool, bool)> = begins.collect();
        assert!(begins.iter().all(|b| !b.1));
        assert_eq!(begins.iter().filter(|b| b.0).count(), gaps, "{hole_us}");
    }
}

/// Who would need segments of sound that never comes waits for a bounded number of them.
#[test]
fn segments_that_wait_for_sound_are_bounded() {
    let mut sound = AudioLine::new(TARGETS, true);
    let mut begun = 0;
    for n in 0..1_000 {
        let cuts = sound.bound(MediaTime::from_micros(n * 2_000_000), false);
        begun += cuts
            .iter()
            .filter(|c| matches!(c, Cut::Begin { info: None, .. }))
            .count();
    }
    assert!(begun >= 900, "{begun}");
}

/// The picture's next segment begins a day later on T: the sound's open one does not last so long.
#[test]
fn a_segment_of_sound_is_not_longer_than_may_be_whatever_comes_next() {
    let day = MediaTime::from_micros(86_400_000_000);
    let info = Arc::new(audio_info());
    for sounds in [0, 20] {
        let mut line = AudioLine::new(TARGETS, true);
        let mut cuts = line.bound(MediaTime::ZERO, false);
        cuts.extend(line.advance(MediaTime::from_micros(1_000_000)));
        for n in 0..sounds {
            let at = MediaTime::from_ticks(n * 1_024, 44_100).as_micros();
            cuts.extend(line.push(frame(TrackId::Audio, &info, at, true)));
        }
        cuts.extend(line.bound(day, true));
        cuts.extend(line.advance(day.shifted(1)));
        cuts.extend(line.silence(day));
        cuts.extend(line.finish(Some(day.shifted(1_000_000))));
        let ends = cuts.iter().filter_map(|cut| match cut {
            Cut::End { end } => Some(end.as_micros()),
            _ => None,
        });
        assert_eq!(ends.collect::<Vec<_>>(), [4_400_000, 86_401_000_000]);
        assert!(cuts.len() < 40, "{}", cuts.len());
    }
}

/// Sound alone, with holes of any length: its segments tile T and none is too long.
fn lead(steps: &[i64]) -> (Vec<Cut>, i64) {
    let info = Arc::new(audio_info());
    let mut line = AudioLine::new(TARGETS, false);
    let (mut cuts, mut us) = (Vec::new(), 0);
    for step in steps {
        cuts.extend(line.push(frame(TrackId::Audio, &info, us, true)));
        us += step;
    }
    cuts.extend(line.finish(None));
    (cuts, us)
}

fn check_lead(cuts: &[Cut]) {
    let mut ended: Option<MediaTime> = None;
    let mut began = None;
    for cut in cuts {
        match cut {
            Cut::Begin { start, .. } => {
                assert!(ended.is_none_or(|at| at.micros_since(*start).abs() < 24_000));
                began = Some(*start);
            }
            Cut::End { end } => {
                let lasts = end.micros_since(began.take().unwrap());
                assert!((1..4_490_000).contains(&lasts), "{lasts}");
                ended = Some(*end);
            }
            Cut::Part(part) => assert!(part.duration <= TARGETS.part),
            Cut::Gap { duration } => assert!(*duration <= TARGETS.part),
        }
    }
}

/// For each segment: where it begins, whether it is a gap.
fn begins(cuts: &[Cut]) -> Vec<(MediaTime, bool)> {
    let begins = cuts.iter().filter_map(|cut| match cut {
        Cut::Begin { start, info, .. } => Some((*start, info.is_none())),
        _ => None,
    });
    begins.collect()
}

/// A segment that was closed as silent; then its sound comes after all, with what follows.
#[test]
fn sound_that_comes_after_its_segment_was_closed_is_left_out() {
    let info = Arc::new(audio_info());
    let mut line = AudioLine::new(TARGETS, true);
    let mut cuts = Vec::new();
    let at = |n: i64| MediaTime::from_ticks(n * 1_024, 44_100);
    for start in 0..4 {
        cuts.extend(line.bound(MediaTime::from_micros(start * 2_000_000), false));
    }
    cuts.extend(line.advance(MediaTime::from_micros(7_000_000)));
    let sounds: Vec<_> = (0..400)
        .map(|n| frame(TrackId::Audio, &info, at(n).as_micros(), true))
        .collect();
    cuts.extend(sounds[..50].iter().flat_map(|f| line.push(Arc::clone(f))));
    cuts.extend(line.silence(MediaTime::from_micros(5_000_000)));
    cuts.extend(sounds[50..].iter().flat_map(|f| line.push(Arc::clone(f))));
    cuts.extend(line.advance(MediaTime::from_micros(8_000_000)));
    cuts.extend(line.finish(Some(MediaTime::from_micros(8_000_000))));
    let starts = [
        (0, false),
        (2_000_000, true),
        (4_000_000, true),
        (6_000_000, false),
    ];
    assert_eq!(
        begins(&cuts),
        starts.map(|(us, gap)| (MediaTime::from_micros(us), gap))
    );
    let mut start = MediaTime::ZERO;
    for cut in &cuts {
        match cut {
            Cut::Begin { start: begin, .. } => start = *begin,
            Cut::Part(part) => {
                let early = start.micros_since(part.frames[0].dts);
                assert!(early < 23_220, "{early} us before the segment");
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn sound_alone_tiles_t_whatever_is_missing(
        steps in proptest::collection::vec(
            prop_oneof![9 => Just(23_220_i64), 1 => 23_220_i64..15_000_000], 2..800),
    ) {
        let (cuts, _) = lead(&steps);
        check_lead(&cuts);
    }

    #[test]
    fn any_step_up_to_three_seconds_keeps_segments_short_and_all_frames(
        steps in proptest::collection::vec(
            prop_oneof![4 => 10_000_i64..100_000, 1 => 100_000_i64..3_000_000], 2..300),
        key_every in 1_usize..100,
    ) {
        let mut times = vec![0];
        for step in &steps {
            times.push(times.last().unwrap() + step);
        }
        let cuts = cut_video(&times, |n| n % key_every == 0);
        let (_, frames) = check(&cuts);
        prop_assert_eq!(frames, times.len());
        prop_assert!(begins(&cuts).iter().all(|begin| !begin.1), "no gap");
    }

    #[test]
    fn any_step_at_all_keeps_segments_short(
        steps in proptest::collection::vec(
            prop_oneof![4 => 10_000_i64..100_000, 1 => 100_000_i64..20_000_000], 2..200),
        key_every in 1_usize..100,
    ) {
        let mut times = vec![0];
        for step in &steps {
            times.push(times.last().unwrap() + step);
        }
        check(&cut_video(&times, |n| n % key_every == 0));
    }

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
                    cuts.extend(sound.bound(start, is_discontinuity));
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
