//! The ladder (spec media.md 5.1): which rungs a source has, and what each is made with.

use crate::broadcast::{Broadcast, Facts};
use crate::frame::{Kind, TrackId};

/// Above this many frames a second a picture has half as much again.
const FAST: f64 = 40.0;

/// One rung: a picture of so many lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The short side of the picture.
    pub lines: u16,
    /// At up to 30 frames a second.
    bitrate_bps: u64,
    /// Frames a second at most; `None`: those of the source.
    pub(super) fps_max: Option<u32>,
}

impl Rung {
    const fn new(lines: u16, bitrate_bps: u64, fps_max: Option<u32>) -> Self {
        Self {
            lines,
            bitrate_bps,
            fps_max,
        }
    }

    /// The track it is.
    pub const fn track(self) -> TrackId {
        TrackId::Rung(self.lines)
    }

    /// Bits per second of it, for a source of so many frames a second.
    pub fn bitrate_bps(self, frame_rate: Option<f64>) -> u64 {
        let is_fast = self.fps_max.is_none() && frame_rate.is_some_and(|rate| rate > FAST);
        if is_fast {
            self.bitrate_bps * 3 / 2
        } else {
            self.bitrate_bps
        }
    }
}

/// All rungs there are, the highest first.
pub(crate) const RUNGS: [Rung; 5] = [
    Rung::new(1_080, 4_500_000, None),
    Rung::new(720, 2_500_000, None),
    Rung::new(480, 1_200_000, Some(30)),
    Rung::new(360, 700_000, Some(30)),
    Rung::new(240, 350_000, Some(30)),
];

/// The rungs that may be made of a picture of this size, the highest first; never a larger
/// picture. The short side counts.
pub fn of_size((width, height): (u32, u32)) -> &'static [Rung] {
    match width.min(height) {
        1_440.. => &RUNGS[..4],
        1_080.. => &RUNGS[1..4],
        720.. => &RUNGS[2..4],
        480.. => &RUNGS[3..4],
        301.. => &RUNGS[4..],
        _ => &[],
    }
}

/// The rungs of a broadcast as its source is now; none before that is known.
pub fn of(broadcast: &Broadcast) -> &'static [Rung] {
    let source = broadcast.source(Kind::Video);
    let size = source.and_then(|info| info.picture_size());
    size.map_or(&[], of_size)
}

/// The rung of this track.
pub(super) fn of_track(track: TrackId) -> Option<Rung> {
    RUNGS.into_iter().find(|rung| rung.track() == track)
}

/// The most that a picture of this size may have, which is what the rung of its lines has.
pub(super) fn cap_bps((width, height): (u32, u32), facts: &Facts) -> u64 {
    let lines = width.min(height);
    let fits = |rung: &&Rung| lines <= u32::from(rung.lines);
    let rung = RUNGS.iter().rev().find(fits).unwrap_or(&RUNGS[0]);
    let is_fast = facts.frame_rate.is_some_and(|rate| rate > FAST);
    if is_fast {
        rung.bitrate_bps * 3 / 2
    } else {
        rung.bitrate_bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the specification.
    #[test]
    fn a_source_has_the_rungs_of_its_short_side() {
        let rows: [((u32, u32), &[u16]); 12] = [
            ((3_840, 2_160), &[1_080, 720, 480, 360]),
            ((2_560, 1_440), &[1_080, 720, 480, 360]),
            ((1_920, 1_080), &[720, 480, 360]),
            ((1_080, 1_920), &[720, 480, 360]),
            ((1_280, 720), &[480, 360]),
            ((1_600, 900), &[480, 360]),
            ((720, 1_280), &[480, 360]),
            ((854, 480), &[360]),
            ((1_278, 718), &[360]),
            ((640, 360), &[240]),
            ((534, 301), &[240]),
            ((534, 300), &[]),
        ];
        for (size, expected) in rows {
            let lines: Vec<u16> = of_size(size).iter().map(|rung| rung.lines).collect();
            assert_eq!(lines, expected, "{size:?}");
        }
    }

    #[test]
    fn a_fast_source_has_more_bits_where_its_frames_are_kept() {
        let rows = [
            (1_080, 60.0, 6_750_000),
            (720, 60.0, 3_750_000),
            (720, 30.0, 2_500_000),
            (480, 60.0, 1_200_000),
            (240, 60.0, 350_000),
        ];
        for (lines, rate, expected) in rows {
            let rung = of_track(TrackId::Rung(lines)).unwrap();
            assert_eq!(rung.bitrate_bps(Some(rate)), expected, "{lines} at {rate}");
        }
        assert_eq!(of_track(TrackId::Rung(144)), None);
        assert_eq!(of_track(TrackId::Clean), None);
    }
}
