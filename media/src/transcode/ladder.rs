//! The ladder (spec media.md 5.1): which rungs a source has, and what each is made with.
//!
//! Invariant: no rung has more lines than its source.

use std::sync::{Arc, LazyLock};

use crate::broadcast::{Broadcast, Facts};
use crate::frame::{Kind, TrackId};

/// Above this many frames a second a picture has half as much again.
const FAST: f64 = 40.0;

/// One rung: a picture of so many lines. The short side counts, of the source as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The short side of the picture.
    pub lines: u16,
    /// A source has the rung from so many lines on.
    pub source_lines_min: u32,
    /// A source has the rung up to so many lines.
    pub source_lines_max: u32,
    /// Bits per second at up to 40 frames a second.
    pub rate_bps: u64,
    /// Bits per second of Opus beside a picture of so many lines.
    pub audio_bps: u32,
    /// Frames a second at most; `None`: those of the source.
    pub fps_max: Option<u32>,
}

impl Rung {
    /// The track it is.
    pub const fn track(self) -> TrackId {
        TrackId::Rung(self.lines)
    }

    /// Bits per second of it, for a source of so many frames a second.
    pub fn bitrate_bps(self, frame_rate: Option<f64>) -> u64 {
        let fps_max = self.fps_max.map_or(f64::INFINITY, f64::from);
        faster(self.rate_bps, frame_rate.map(|rate| rate.min(fps_max)))
    }

    fn is_of(&self, lines: u32) -> bool {
        let (from, to) = (self.source_lines_min, self.source_lines_max);
        (from..=to).contains(&lines) && u32::from(self.lines) <= lines
    }
}

fn faster(rate_bps: u64, frame_rate: Option<f64>) -> u64 {
    let is_fast = frame_rate.is_some_and(|rate| rate > FAST);
    if is_fast { rate_bps / 2 * 3 } else { rate_bps }
}

/// The rungs that sources may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// The highest first, each of its own number of lines.
    rungs: Vec<Rung>,
}

/// That of the specification's table.
static STANDARD: LazyLock<Arc<Ladder>> = LazyLock::new(|| Arc::new(Ladder::default()));

impl Default for Ladder {
    fn default() -> Self {
        let rung = |lines, sources: [u32; 2], kbps: u64, audio_kbps: u32, fps_max| Rung {
            lines,
            source_lines_min: sources[0],
            source_lines_max: sources[1],
            rate_bps: kbps * 1_000,
            audio_bps: audio_kbps * 1_000,
            fps_max,
        };
        Self::new(vec![
            rung(1_080, [1_440, u32::MAX], 4_500, 128, None),
            rung(720, [1_080, u32::MAX], 2_500, 128, None),
            rung(480, [720, u32::MAX], 1_200, 96, Some(30)),
            rung(360, [480, u32::MAX], 700, 64, Some(30)),
            rung(240, [301, 479], 350, 64, Some(30)),
        ])
    }
}

impl Ladder {
    /// A ladder of these rungs; of two with equal lines the first counts.
    pub fn new(mut rungs: Vec<Rung>) -> Self {
        rungs.sort_by_key(|rung| std::cmp::Reverse(rung.lines));
        rungs.dedup_by_key(|rung| rung.lines);
        Self { rungs }
    }

    /// The one that broadcasts have by themselves.
    pub fn standard() -> Arc<Self> {
        Arc::clone(&STANDARD)
    }

    /// All rungs there are, the highest first.
    pub fn rungs(&self) -> &[Rung] {
        &self.rungs
    }

    /// The rungs that may be made of a picture of this size, the highest first.
    pub fn of_size(&self, (width, height): (u32, u32)) -> Vec<Rung> {
        let lines = width.min(height);
        let rungs = self.rungs.iter().copied();
        rungs.filter(|rung| rung.is_of(lines)).collect()
    }

    /// The rung of this track.
    pub(super) fn of_track(&self, track: TrackId) -> Option<Rung> {
        let mut rungs = self.rungs.iter().copied();
        rungs.find(|rung| rung.track() == track)
    }

    /// The rung in which a picture of so many lines fits; the highest if it fits in none.
    pub(super) fn around(&self, lines: u32) -> Rung {
        let fits = |rung: &&Rung| lines <= u32::from(rung.lines);
        let found = self.rungs.iter().rev().find(fits);
        let found = found.or_else(|| self.rungs.first()).copied();
        found.unwrap_or_else(|| STANDARD.around(lines))
    }

    /// The most that a picture of this size may have, which is what the rung of its lines has.
    pub(super) fn cap_bps(&self, (width, height): (u32, u32), facts: &Facts) -> u64 {
        let rung = self.around(width.min(height));
        faster(rung.rate_bps, facts.frame_rate)
    }
}

/// The rungs of a broadcast as its source is now; none before that is known.
pub fn of(broadcast: &Broadcast) -> Vec<Rung> {
    let source = broadcast.source(Kind::Video);
    let size = source.and_then(|info| info.picture_size());
    size.map_or_else(Vec::new, |size| broadcast.ladder().of_size(size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::video::fitted;
    use super::*;

    fn lines_of(size: (u32, u32)) -> Vec<u16> {
        let rungs = Ladder::default().of_size(size);
        rungs.iter().map(|rung| rung.lines).collect()
    }

    /// The table of the specification.
    #[test]
    fn a_source_has_the_rungs_of_its_short_side() {
        let rows: [((u32, u32), &[u16]); 14] = [
            ((3_840, 2_160), &[1_080, 720, 480, 360]),
            ((2_560, 1_440), &[1_080, 720, 480, 360]),
            ((2_556, 1_438), &[720, 480, 360]),
            ((1_920, 1_080), &[720, 480, 360]),
            ((1_080, 1_920), &[720, 480, 360]),
            ((1_280, 720), &[480, 360]),
            ((1_600, 900), &[480, 360]),
            ((720, 1_280), &[480, 360]),
            ((854, 480), &[360]),
            ((1_278, 718), &[360]),
            ((852, 478), &[240]),
            ((640, 360), &[240]),
            ((534, 301), &[240]),
            ((534, 300), &[]),
        ];
        for (size, expected) in rows {
            assert_eq!(lines_of(size), expected, "{size:?}");
        }
    }

    #[test]
    fn a_fast_source_has_more_bits_where_its_frames_are_kept() {
        let rows = [
            (1_080, 60.0, 6_750_000),
            (720, 60.0, 3_750_000),
            (720, 40.0, 2_500_000),
            (720, 30.0, 2_500_000),
            (480, 60.0, 1_200_000),
            (240, 60.0, 350_000),
        ];
        let ladder = Ladder::default();
        for (lines, rate, expected) in rows {
            let rung = ladder.of_track(TrackId::Rung(lines)).unwrap();
            assert_eq!(rung.bitrate_bps(Some(rate)), expected, "{lines} at {rate}");
        }
        assert_eq!(ladder.of_track(TrackId::Rung(144)), None);
        assert_eq!(ladder.of_track(TrackId::Clean), None);
        let around = |lines| ladder.around(lines).lines;
        assert_eq!(
            [2_160, 1_080, 721, 720, 361, 100].map(around),
            [1_080, 1_080, 1_080, 720, 480, 240]
        );
    }

    proptest! {
        #[test]
        fn no_rung_is_larger_than_its_source_and_each_keeps_its_shape(
            width in 2_u32..8_192,
            height in 2_u32..8_192,
        ) {
            let rungs = Ladder::default().of_size((width, height));
            prop_assert_eq!(lines_of((width, height)), lines_of((height, width)));
            for rung in rungs {
                let lines = u32::from(rung.lines);
                let (w, h) = fitted(width, height, lines);
                prop_assert!(w <= width && h <= height && w % 2 == 0 && h % 2 == 0);
                prop_assert_eq!(w.min(h), lines);
                prop_assert_eq!(fitted(height, width, lines), (h, w));
                // Within a sample of the shape, on the long side.
                let shape = f64::from(width.max(height)) / f64::from(width.min(height));
                let long = shape * f64::from(lines);
                prop_assert!((f64::from(w.max(h)) - long).abs() <= 1.0, "{} {} {}", w, h, long);
            }
        }
    }
}
