//! Timeline T (spec media.md 1.4): maps a publisher's clock to microseconds since the room epoch.
//!
//! Invariants
//! - Per track, T strictly increases, whatever the publisher stamps.
//! - Audio and video share one offset for as long as their stamps agree, and again as soon as they
//!   do: silence of one track while the other goes on is a gap, never a jump.
//! - A jump re-anchors and marks a discontinuity; it never ends a session.
//!
//! Not here: reading a clock. The caller passes the time elapsed since the epoch.

use crate::frame::Kind;
use crate::time::{MediaTime, SourceTime, samples_to_nanos};

/// The smallest step of T within a track: one tick of 90 kHz, rounded up.
const TICK_US: i64 = 12;
/// A step forward up to this is a gap, beyond it a jump.
const GAP_US_MAX: i64 = 3_000_000;
/// A step back of a track up to this is clamped, beyond it a jump.
const BACK_US_MAX: i64 = 500_000;
/// A track may lie this far behind the other one: an encoder that interleaves badly holds a track
/// back this long at most (ffmpeg does), and the rings hold a little more.
const LAG_US_MAX: i64 = 10_000_000;
/// Audio stamps within this of the predicted place only steer the line of samples.
const AUDIO_SLACK_NS: i64 = 30_000_000;
/// The steering takes this part of the error each frame, and at most 0.1 % of the frame.
const AUDIO_GAIN: i64 = 64;
const AUDIO_SLEW_MAX_PER_MILLE: i64 = 1;

/// What a session clock needs to know of a sample.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) kind: Kind,
    pub(crate) dts: SourceTime,
    /// Samples of sound in it and their rate, if it is sound of a known rate.
    pub(crate) audio: Option<(u32, u32)>,
}

/// What the broadcast knows at the moment a sample arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Server time since the epoch; 0 for the first frame ever.
    pub(crate) elapsed_us: i64,
    /// The newest T of any track so far.
    pub(crate) newest: Option<MediaTime>,
    /// How long a frame lasts, for a place after the newest.
    pub(crate) frame_us: i64,
}

impl Moment {
    /// Rule 2: where media goes that has no usable stamp of its own.
    fn anchor_us(&self) -> i64 {
        match self.newest {
            None => 0,
            Some(newest) => (newest.as_micros() + self.frame_us).max(self.elapsed_us),
        }
    }
}

/// A place on T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) t: MediaTime,
    /// True when T was re-anchored for this sample.
    pub(crate) is_discontinuity: bool,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    /// `T = stamp + offset`.
    offset_us: i64,
    last_us: i64,
    /// Where the next frame of sound begins if none is lost.
    next_ns: Option<i64>,
}

/// The clock of one publish session.
#[derive(Debug, Default)]
pub(crate) struct SessionClock {
    video: Option<Line>,
    audio: Option<Line>,
    /// The track whose stamp was anchored last: what the publisher's clock says now.
    anchored: Option<Kind>,
}

impl SessionClock {
    /// Places a sample on T; `None` drops it because it lies before the epoch.
    pub(crate) fn stamp(&mut self, reading: Reading, moment: Moment) -> Option<Stamp> {
        let raw_us = reading.dts.as_micros();
        let own = self.line(reading.kind);
        let known = self.known_offset(reading.kind, raw_us);
        let offset_us = known.unwrap_or_else(|| moment.anchor_us() - raw_us);
        if own.is_none() && raw_us + offset_us < 0 {
            return None;
        }
        if known.is_none() {
            self.anchored = Some(reading.kind);
        }
        let mut line = match own {
            Some(line) if line.offset_us == offset_us => line,
            _ => Line {
                offset_us,
                last_us: own.map_or(0, |line| line.last_us),
                next_ns: None,
            },
        };
        let mut t_us = raw_us + offset_us;
        if let Some((samples, rate)) = reading.audio {
            t_us = regularised(&mut line, t_us, samples_to_nanos(samples, rate));
        }
        if own.is_some() && t_us <= line.last_us {
            t_us = line.last_us + TICK_US;
        }
        line.last_us = t_us;
        match reading.kind {
            Kind::Video => self.video = Some(line),
            Kind::Audio => self.audio = Some(line),
        }
        Some(Stamp {
            t: MediaTime::from_micros(t_us),
            is_discontinuity: known.is_none() && moment.newest.is_some(),
        })
    }

    const fn line(&self, kind: Kind) -> Option<Line> {
        match kind {
            Kind::Video => self.video,
            Kind::Audio => self.audio,
        }
    }

    /// The offset in use under which a stamp is no jump. The one anchored last comes first: so
    /// the track that has not jumped yet follows the one that has, and both share one offset.
    fn known_offset(&self, kind: Kind, raw_us: i64) -> Option<i64> {
        let other = match kind {
            Kind::Video => self.audio,
            Kind::Audio => self.video,
        };
        let own = self.line(kind);
        let newest_us = own.into_iter().chain(other).map(|l| l.last_us).max()?;
        let lines = if self.anchored == Some(kind) {
            [own, other]
        } else {
            [other, own]
        };
        let mut offsets = lines.into_iter().flatten().map(|line| line.offset_us);
        offsets.find(|offset_us| {
            let t_us = raw_us + offset_us;
            (newest_us - LAG_US_MAX..=newest_us + GAP_US_MAX).contains(&t_us)
                && own.is_none_or(|own| t_us >= own.last_us - BACK_US_MAX)
        })
    }
}

/// Rule 5: sound is placed at previous + samples/rate; its stamps only steer that line.
fn regularised(line: &mut Line, t_us: i64, frame_ns: i64) -> i64 {
    let stamped_ns = t_us * 1_000;
    let placed_ns = match line.next_ns {
        Some(next_ns) if (stamped_ns - next_ns).abs() <= AUDIO_SLACK_NS => {
            let slew_max = frame_ns * AUDIO_SLEW_MAX_PER_MILLE / 1_000;
            next_ns + ((stamped_ns - next_ns) / AUDIO_GAIN).clamp(-slew_max, slew_max)
        }
        _ => stamped_ns,
    };
    line.next_ns = Some(placed_ns + frame_ns);
    placed_ns.div_euclid(1_000)
}

/// Rule 8: the wall clock of T. Follows the real clock with at most 200 ppm of slew.
#[derive(Debug)]
pub(crate) struct WallClock {
    epoch_unix_us: i64,
    /// `wall = epoch + T + slip`.
    slip_us: i64,
    last_elapsed_us: i64,
}

const SLEW_US_PER_S_MAX: i64 = 200;

impl WallClock {
    pub(crate) fn new(epoch_unix_us: i64) -> Self {
        Self {
            epoch_unix_us,
            slip_us: 0,
            last_elapsed_us: 0,
        }
    }

    /// A frame of time `t` arrived `elapsed_us` after the epoch.
    pub(crate) fn observe(&mut self, t: MediaTime, elapsed_us: i64) {
        let error = elapsed_us - t.as_micros() - self.slip_us;
        let passed = (elapsed_us - self.last_elapsed_us).max(0);
        let slew_max = passed * SLEW_US_PER_S_MAX / 1_000_000;
        // Passed time is only consumed once it buys a whole microsecond of slew.
        if slew_max > 0 {
            self.slip_us += error.clamp(-slew_max, slew_max);
            self.last_elapsed_us = elapsed_us;
        }
    }

    /// A discontinuity lets the mapping step to the real clock.
    pub(crate) fn step(&mut self, t: MediaTime, elapsed_us: i64) {
        self.slip_us = elapsed_us - t.as_micros();
        self.last_elapsed_us = elapsed_us;
    }

    pub(crate) fn unix_us(&self, t: MediaTime) -> i64 {
        self.epoch_unix_us + t.as_micros() + self.slip_us
    }

    /// The T that is now, if media ran exactly with the server's clock.
    pub(crate) fn t_at(&self, elapsed_us: i64) -> MediaTime {
        MediaTime::from_micros(elapsed_us - self.slip_us)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME_US: i64 = 33_333;

    /// Plays readings at the pace of their own stamps from the first on; returns T and marks.
    fn play(readings: &[(Kind, i64)]) -> Vec<Option<(i64, bool)>> {
        let mut clock = SessionClock::default();
        let mut newest: Option<MediaTime> = None;
        let mut out = Vec::new();
        for (n, &(kind, ms)) in readings.iter().enumerate() {
            let elapsed_us = i64::try_from(n).unwrap() * 20_000;
            let moment = Moment {
                elapsed_us,
                newest,
                frame_us: FRAME_US,
            };
            let reading = Reading {
                kind,
                dts: SourceTime::from_millis(ms),
                audio: None,
            };
            let stamp = clock.stamp(reading, moment);
            newest = newest.max(stamp.map(|s| s.t));
            out.push(stamp.map(|s| (s.t.as_micros(), s.is_discontinuity)));
        }
        out
    }

    use Kind::{Audio as A, Video as V};

    #[test]
    fn the_first_frame_is_the_epoch_whatever_its_stamp() {
        let got = play(&[(V, 5_000), (A, 5_010), (V, 5_033)]);
        assert_eq!(
            got,
            [
                Some((0, false)),
                Some((10_000, false)),
                Some((33_000, false))
            ]
        );
    }

    #[test]
    fn sound_from_just_before_the_first_picture_is_dropped() {
        let got = play(&[(V, 100), (A, 50), (A, 100)]);
        assert_eq!(got, [Some((0, false)), None, Some((0, false))]);
    }

    #[test]
    fn a_small_step_back_is_clamped_and_a_gap_of_three_seconds_is_kept() {
        let got = play(&[(V, 0), (V, 40), (V, 20), (V, 3_040)]);
        assert_eq!(got[2], Some((40_012, false)));
        assert_eq!(got[3], Some((3_040_000, false)));
    }

    /// After a stamp of 2 s: the next one, its T, and whether the timeline breaks there (rule 4).
    #[test]
    fn steps_within_the_bounds_stay_on_the_line_and_others_break_it() {
        // The third reading comes 40 ms after the session began, far behind the newest T.
        let anchored = 2_000_000 + FRAME_US;
        let cases = [
            (2_000 + 3_000, 5_000_000, false),
            (2_000 + 3_001, anchored, true),
            (2_000 + 3_600_000, anchored, true),
            (2_000 - 500, 2_000_000 + TICK_US, false),
            (2_000 - 501, anchored, true),
            (-3_600_000, anchored, true),
        ];
        for (ms, t_us, is_discontinuity) in cases {
            let got = play(&[(V, 0), (V, 2_000), (V, ms)]);
            assert_eq!(got[2], Some((t_us, is_discontinuity)), "{ms} ms");
        }
    }

    /// A later session begins one frame after the newest T, or as late as it is (rule 2).
    #[test]
    fn a_later_session_leaves_a_gap_on_t_as_long_as_the_real_one() {
        let newest = MediaTime::from_micros(10_000_000);
        let after_a_frame = 10_000_000 + FRAME_US;
        let cases = [
            (9_000_000, after_a_frame),
            (10_000_000, after_a_frame),
            (70_000_000, 70_000_000),
        ];
        for (elapsed_us, expected) in cases {
            for first_ms in [0, 5_000, 4_294_967_000] {
                let mut clock = SessionClock::default();
                let mut moment = Moment {
                    elapsed_us,
                    newest: Some(newest),
                    frame_us: FRAME_US,
                };
                let mut at = |kind, ms| {
                    let reading = Reading {
                        kind,
                        dts: SourceTime::from_millis(ms),
                        audio: None,
                    };
                    let stamp = clock.stamp(reading, moment).unwrap();
                    moment.newest = moment.newest.max(Some(stamp.t));
                    (stamp.t.as_micros() - expected, stamp.is_discontinuity)
                };
                assert_eq!(at(V, first_ms), (0, true), "one break, at the first frame");
                assert_eq!(at(A, first_ms + 10), (10_000, false));
                assert_eq!(at(V, first_ms + 33), (33_000, false));
            }
        }
    }

    #[test]
    fn a_restarted_encoder_clock_marks_one_discontinuity_and_both_tracks_share_the_new_offset() {
        let mut list = vec![(V, 900_000), (A, 900_005), (V, 900_033)];
        list.extend([(V, 0), (A, 5), (V, 33), (A, 28)]);
        let got: Vec<_> = play(&list).into_iter().map(Option::unwrap).collect();
        assert_eq!(got.iter().filter(|g| g.1).count(), 1);
        assert_eq!(got[4].0 - got[3].0, 5_000);
        assert_eq!(got[5].0 - got[3].0, 33_000);
        assert!(got[3].0 > got[2].0);
    }

    /// Plays readings that arrive at given times; all T, and how many discontinuities there were.
    fn play_at(readings: &[(Kind, i64, i64)]) -> (Vec<Option<i64>>, usize) {
        let mut clock = SessionClock::default();
        let mut newest: Option<MediaTime> = None;
        let mut breaks = 0;
        let place = |&(kind, ms, elapsed_ms): &(Kind, i64, i64)| {
            let reading = Reading {
                kind,
                dts: SourceTime::from_millis(ms),
                audio: None,
            };
            let moment = Moment {
                elapsed_us: elapsed_ms * 1_000,
                newest,
                frame_us: FRAME_US,
            };
            let stamp = clock.stamp(reading, moment);
            newest = newest.max(stamp.map(|s| s.t));
            breaks += usize::from(stamp.is_some_and(|s| s.is_discontinuity));
            stamp.map(|s| s.t.as_micros())
        };
        (readings.iter().map(place).collect(), breaks)
    }

    /// T lags the server's clock by 700 ms, so an anchor of its own would be seen.
    #[test]
    fn a_track_that_pauses_while_the_other_goes_on_keeps_the_common_offset() {
        for pause_ms in [3_500, 5_000, 60_000] {
            let mut list = vec![(V, 0, 0)];
            list.extend((0..=pause_ms / 20).map(|n| (A, n * 20, n * 20 + 700)));
            for n in 0..5 {
                let ms = pause_ms + n * 33;
                list.extend([(V, ms, ms + 700), (A, ms + 20, ms + 720)]);
            }
            let (got, breaks) = play_at(&list);
            assert_eq!(breaks, 0, "pause of {pause_ms} ms");
            for ((kind, ms, _), t) in list.iter().zip(got) {
                assert_eq!(
                    t,
                    Some(ms * 1_000),
                    "{kind:?} after a pause of {pause_ms} ms"
                );
            }
        }
    }

    #[test]
    fn one_frame_a_minute_beside_steady_sound_breaks_nothing() {
        let mut list = Vec::new();
        for n in 0..9_000_i64 {
            if n % 3_000 == 0 {
                list.push((V, n * 20, n * 20 + 300));
            }
            list.push((A, n * 20, n * 20 + 300));
        }
        let (got, breaks) = play_at(&list);
        assert_eq!(breaks, 0);
        assert_eq!(got.last(), Some(&Some(8_999 * 20_000)));
    }

    /// Both stop for ten seconds, whether time passes meanwhile or only the stamps jump.
    #[test]
    fn a_pause_of_both_tracks_breaks_the_timeline_once_whoever_comes_back_first() {
        for passed_ms in [0, 10_000, 12_000] {
            for (first, second) in [(V, A), (A, V)] {
                let mut list = vec![(V, 0, 0), (A, 3, 3), (V, 33, 33), (A, 23, 33)];
                let back = |kind, ms: i64| (kind, 10_000 + ms, passed_ms + ms);
                list.extend([40, 73, 107, 140].map(|ms| back(first, ms)));
                list.extend([back(second, 45), back(first, 173), back(second, 68)]);
                let (got, breaks) = play_at(&list);
                assert_eq!(breaks, 1, "{first:?} first, {passed_ms} ms passed");
                let offsets: Vec<i64> = list[4..]
                    .iter()
                    .zip(&got[4..])
                    .map(|((_, ms, _), t)| t.unwrap() - ms * 1_000)
                    .collect();
                assert!(offsets.iter().all(|o| *o == offsets[0]), "{offsets:?}");
            }
        }
    }

    /// The first picture is early or late against the sound: same offset, or dropped below zero.
    #[test]
    fn a_track_that_begins_away_from_the_other_still_shares_its_offset() {
        for early_ms in [150, 200, 900, 9_000] {
            let list = [(A, 20_000, 0), (V, 20_000 - early_ms, 10), (V, 20_040, 40)];
            let (got, breaks) = play_at(&list);
            assert_eq!((breaks, got), (0, vec![Some(0), None, Some(40_000)]));
        }
        for late_ms in [400, 600, 2_900, 9_000] {
            let list = [(A, 0, 0), (A, 2_500, 10), (A, 5_000, 20), (A, 7_500, 30)];
            let list = [&list[..], &[(A, 9_500, 40), (V, 9_500 - late_ms, 50)]].concat();
            let (got, breaks) = play_at(&list);
            assert_eq!((breaks, got[5]), (0, Some((9_500 - late_ms) * 1_000)));
        }
    }

    /// One stamp an hour off, then the clock as before: the tracks agree again.
    #[test]
    fn a_single_absurd_stamp_does_not_part_the_tracks() {
        let list = [
            (V, 0, 0),
            (A, 0, 0),
            (V, 3_600_000, 33),
            (A, 23, 34),
            (V, 66, 66),
            (A, 46, 66),
            (V, 100, 100),
        ];
        let (got, breaks) = play_at(&list);
        assert_eq!(breaks, 1);
        assert_eq!(got[4..], [Some(66_000), Some(46_000), Some(100_000)]);
    }

    #[test]
    fn sound_an_hour_ahead_of_the_picture_does_not_jump_for_ever() {
        let mut list = Vec::new();
        for n in 0..50 {
            list.push((A, 3_600_000 + n * 23));
            list.push((V, n * 33));
        }
        let got: Vec<_> = play(&list).into_iter().flatten().collect();
        assert_eq!(got.iter().filter(|g| g.1).count(), 1);
    }

    #[test]
    fn millisecond_rounding_leaves_sound_evenly_spaced() {
        let mut clock = SessionClock::default();
        let mut newest = None;
        let mut last = None;
        for n in 0_i64..20_000 {
            // 1 024 samples at 44.1 kHz, truncated to milliseconds as RTMP carries it.
            let ms = n * 1_024 * 1_000 / 44_100;
            let reading = Reading {
                kind: A,
                dts: SourceTime::from_millis(ms),
                audio: Some((1_024, 44_100)),
            };
            let moment = Moment {
                elapsed_us: ms * 1_000,
                newest,
                frame_us: FRAME_US,
            };
            let t = clock.stamp(reading, moment).unwrap().t;
            if let Some(last) = last {
                let step = t.micros_since(last);
                assert!((step - 23_220).abs() <= 24, "step {step} at {n}");
            }
            assert!((t.as_micros() - n * 1_024 * 1_000_000 / 44_100).abs() < 1_500);
            last = Some(t);
            newest = last;
        }
    }

    #[test]
    fn the_wall_clock_follows_a_fast_publisher_by_slewing_only() {
        let mut wall = WallClock::new(0);
        let mut last = 0;
        for n in 0..600_000_i64 {
            // The publisher's clock runs 100 ppm fast.
            let elapsed_us = n * 33_333;
            let t = MediaTime::from_micros(elapsed_us + elapsed_us / 10_000);
            wall.observe(t, elapsed_us);
            let now = wall.unix_us(t);
            assert!(now > last || n == 0);
            last = now;
            assert!((now - elapsed_us).abs() < 1_000);
        }
    }

    proptest! {
        #[test]
        fn t_strictly_increases_within_a_track_for_any_stamps(
            list in proptest::collection::vec(
                (any::<bool>(), -10_000_000_i64..10_000_000), 1..300),
        ) {
            let readings: Vec<_> =
                list.into_iter().map(|(v, ms)| (if v { V } else { A }, ms)).collect();
            let got = play(&readings);
            for kind in [V, A] {
                let line: Vec<i64> = readings.iter().zip(&got)
                    .filter(|(r, _)| r.0 == kind)
                    .filter_map(|(_, g)| g.map(|g| g.0))
                    .collect();
                prop_assert!(line.windows(2).all(|w| w[0] < w[1]));
                prop_assert!(line.iter().all(|&t| t >= 0));
            }
        }
    }
}
