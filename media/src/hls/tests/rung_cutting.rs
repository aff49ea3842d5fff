//! A rung beside `src`, whatever the source: same intervals, parts within the rules.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::video_info;
use crate::frame::{Frame, TrackId, TrackInfo};
use crate::hls::{Bound, Cut, RungLine, Targets, VideoLine};
use crate::time::MediaTime;

const TARGETS: Targets = Targets {
    part: Duration::from_millis(500),
    segment: Duration::from_secs(2),
    target: Duration::from_secs(4),
    gap_after: Duration::from_secs(2),
};

/// A source of so many pictures a second, with keyframes so far apart, each picture shown so much
/// later than decoded; and what a converter makes of it.
#[derive(Clone, Debug)]
struct Source {
    fps: f64,
    gop: usize,
    delay_us: i64,
    /// The rung lacks these of its pictures.
    lost: std::ops::Range<usize>,
    /// How many pictures the rung is behind.
    lag: usize,
}

fn sources() -> impl Strategy<Value = Source> {
    let fps = prop::sample::select(vec![15.0, 23.976, 25.0, 29.97, 30.0, 50.0, 59.94, 60.0]);
    let gop = prop::sample::select(vec![25_usize, 30, 50, 60, 90]);
    let delay_us = prop::sample::select(vec![0_i64, 33_000, 66_000, 83_000]);
    let lost = (0..400_usize, 0..90_usize).prop_map(|(from, count)| from..from + count);
    (fps, gop, delay_us, lost, 1..40_usize).prop_map(|(fps, gop, delay_us, lost, lag)| Source {
        fps,
        gop,
        delay_us,
        lost,
        lag,
    })
}

fn frame(
    track: TrackId,
    info: &Arc<TrackInfo>,
    (dts, pts): (i64, i64),
    is_key: bool,
) -> Arc<Frame> {
    Arc::new(Frame {
        track,
        info: Arc::clone(info),
        dts: MediaTime::from_micros(dts),
        pts: MediaTime::from_micros(pts),
        duration: None,
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

/// Both cut as they come: those of `src`, those of the rung.
fn cut(source: &Source) -> (Vec<Cut>, Vec<Cut>) {
    let info = Arc::new(video_info());
    let dts = |n: usize| {
        let at = Duration::from_secs_f64(f64::from(u32::try_from(n).unwrap()) / source.fps);
        i64::try_from(at.as_millis()).unwrap() * 1_000
    };
    let (mut src, mut rung) = (VideoLine::new(TARGETS), RungLine::new(TARGETS, true));
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for n in 0..500 + source.lag {
        if n < 500 {
            let at = (dts(n), dts(n) + source.delay_us);
            let cuts = src.push(frame(TrackId::Video, &info, at, n % source.gop == 0));
            for bound in cuts.iter().filter_map(bound_of) {
                other.extend(rung.bound(bound));
            }
            one.extend(cuts);
            other.extend(rung.advance(src.known_until().unwrap()));
        }
        let Some(m) = n.checked_sub(source.lag) else {
            continue;
        };
        let is_key = m % source.gop == 0;
        let is_kept = source.fps < 40.0 || m % 2 == 0 || is_key;
        if source.lost.contains(&m) {
            rung.lose();
        } else if is_kept {
            let t = dts(m) + source.delay_us;
            other.extend(rung.push(frame(TrackId::Rung(360), &info, (t, t), is_key)));
        }
    }
    let end = src.edge();
    one.extend(src.finish());
    other.extend(rung.finish(end));
    (one, other)
}

fn bound_of(cut: &Cut) -> Option<Bound> {
    let Cut::Begin {
        start,
        shown_from,
        is_discontinuity,
        info,
    } = cut
    else {
        return None;
    };
    Some(Bound {
        start: *start,
        shown_from: *shown_from,
        is_discontinuity: *is_discontinuity,
        is_gap: info.is_none(),
    })
}

/// Each segment: where it begins and ends, and its parts.
fn segments(cuts: &[Cut]) -> Vec<(i64, i64, Vec<Cut>)> {
    let (mut out, mut open) = (Vec::new(), None);
    for cut in cuts {
        match cut {
            Cut::Begin { start, .. } => {
                assert!(open.is_none(), "one at a time");
                open = Some((start.as_micros(), vec![cut.clone()]));
            }
            Cut::Part(_) | Cut::Gap { .. } => open.as_mut().unwrap().1.push(cut.clone()),
            Cut::End { end } => {
                let (start, cuts) = open.take().unwrap();
                out.push((start, end.as_micros(), cuts));
            }
        }
    }
    assert!(open.is_none());
    out
}

proptest! {
    #[test]
    fn a_rung_has_the_segments_of_the_source_and_parts_within_the_rules(source in sources()) {
        let (src, rung) = cut(&source);
        let (src, rung) = (segments(&src), segments(&rung));
        prop_assert_eq!(src.len(), rung.len());
        let mut shown = 0;
        for (number, (one, other)) in src.iter().zip(&rung).enumerate() {
            prop_assert_eq!((one.0, one.1), (other.0, other.1));
            let is_end = number + 1 == src.len();
            let mut at = None;
            for (n, cut) in other.2.iter().enumerate().skip(1) {
                let Cut::Part(part) = cut else { continue };
                prop_assert!(part.duration <= TARGETS.part);
                prop_assert_eq!(part.is_independent, part.frames[0].is_key);
                prop_assert!(n > 1 || part.is_independent, "a segment begins with a keyframe");
                prop_assert!(at.is_none_or(|at| at == part.frames[0].dts) || source.lost.end > 0);
                let is_last = n + 1 == other.2.len();
                let next_is_key = matches!(
                    other.2.get(n + 1), Some(Cut::Part(next)) if next.is_independent
                );
                let is_whole = part.duration * 100 >= TARGETS.part * 85;
                let is_excused = is_last || is_end || part.is_independent || next_is_key
                    || !source.lost.is_empty();
                prop_assert!(is_whole || is_excused, "{:?}", part.duration);
                at = Some(part.end);
                shown += part.frames.len();
            }
        }
        prop_assert!(shown > 100, "{} frames are shown", shown);
    }
}
