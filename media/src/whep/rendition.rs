//! When a viewer moves from one rendition to another: the table of spec media.md 4.4.
//!
//! A state machine over the time and what is seen of the path; it knows renditions by their place
//! in a list, the highest first.
//!
//! Invariants
//! - Up goes one place at a time, after a probe, and not within ten seconds of the last time.
//! - While a move is under way nothing is decided.
//!
//! Not here: tracks; how a move is done ([`super::picture`]); what the path carries.

use std::time::Duration;

use tokio::time::Instant;

/// Down: the estimate is below this many per cent of the rendition, for so long.
const DOWN_PERCENT: u64 = 110;
const DOWN_AFTER: Duration = Duration::from_secs(1);
/// Down: more than this was lost (of 256), for so long.
const LOST_MAX: u8 = 25;
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Down: what is due waits longer than this.
const BEHIND_MAX: Duration = Duration::from_millis(250);
/// What waited before a move may still wait after it.
const BEHIND_AGAIN: Duration = Duration::from_secs(1);
/// Down to what has at most this many per cent of the estimate.
const FITS_PERCENT: u64 = 85;
/// Up: the estimate is above this many per cent of the next rendition, for so long.
const UP_PERCENT: u64 = 130;
const UP_AFTER: Duration = Duration::from_secs(5);
/// A probe has this many per cent of the next rendition.
const PROBE_PERCENT: u64 = 150;
/// A probe that is not answered by then failed.
const PROBE_MAX: Duration = Duration::from_secs(2);
/// From one move up to the next; twice as long after each that failed.
const UP_EVERY: Duration = Duration::from_secs(10);
const UP_EVERY_MAX: Duration = Duration::from_secs(60);
/// Sound alone: the estimate is below the lowest rendition for so long.
const STARVED_AFTER: Duration = Duration::from_secs(5);
/// An estimate goes no higher: the path is not the limit.
const ENDLESS_BPS: u64 = 8_000_000;
/// An estimate that rose within this, and did not fall since, has not found the limit of the path.
const CLIMBS_FOR: Duration = Duration::from_millis(2_500);

/// What is seen of a viewer's path at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    pub(super) estimate_bps: u64,
    /// Of 256.
    pub(super) lost: u8,
    /// How long what is due has waited.
    pub(super) behind: Duration,
    /// Bits per second of each rendition there is, the highest first.
    pub(super) rates: &'a [u64],
    /// The place of the one that plays; `None` while there is only sound.
    pub(super) current: Option<usize>,
    /// A move is under way.
    pub(super) is_moving: bool,
    /// What came of the last probe, once that is known.
    pub(super) probe: Option<bool>,
    /// Whether the picture may be left out altogether.
    pub(super) has_sound: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    Stay,
    /// To this place of the list.
    To(usize),
    /// The picture stops.
    SoundOnly,
    /// Send a burst at this rate and tell what came of it.
    Probe(u64),
}

/// The state behind the table.
#[derive(Debug)]
pub(super) struct Policy {
    estimate: Estimate,
    low: Since,
    lossy: Since,
    starved: Since,
    high: Since,
    /// When the last move was decided.
    moved: Option<Instant>,
    /// When the last move up was decided, and how long the next one waits from then.
    up: Option<Instant>,
    up_every: Duration,
    /// When a probe was asked for that is not answered yet.
    probing: Option<Instant>,
}

impl Policy {
    pub(super) fn new() -> Self {
        Self {
            estimate: Estimate::default(),
            low: Since::default(),
            lossy: Since::default(),
            starved: Since::default(),
            high: Since::default(),
            moved: None,
            up: None,
            up_every: UP_EVERY,
            probing: None,
        }
    }

    /// Decides what is to be done now; to be called several times a second.
    pub(super) fn step(&mut self, now: Instant, sight: Sight<'_>) -> Move {
        self.estimate.note(now, sight.estimate_bps);
        let mut sight = sight;
        if sight.estimate_bps >= ENDLESS_BPS {
            sight.estimate_bps = u64::MAX;
        }
        if sight.is_moving {
            self.forget();
            return Move::Stay;
        }
        let Some(current) = sight.current else {
            return self.step_sound_only(now, sight);
        };
        if let Some(to) = self.step_down(now, sight, current) {
            return to;
        }
        self.step_up(now, sight, current)
    }

    fn step_sound_only(&mut self, now: Instant, sight: Sight<'_>) -> Move {
        let Some(lowest) = sight.rates.len().checked_sub(1) else {
            return Move::Stay;
        };
        let is_high = sight.estimate_bps > percent(sight.rates[lowest], UP_PERCENT);
        if !self.high.holds(now, is_high, UP_AFTER) {
            return Move::Stay;
        }
        self.moved(now);
        Move::To(lowest)
    }

    fn step_down(&mut self, now: Instant, sight: Sight<'_>, current: usize) -> Option<Move> {
        let rate = *sight.rates.get(current)?;
        let climbs = self.estimate.climbs(now);
        let is_low = sight.estimate_bps < percent(rate, DOWN_PERCENT) && !climbs;
        let is_low = self.low.holds(now, is_low, DOWN_AFTER);
        let is_lossy = self.lossy.holds(now, sight.lost > LOST_MAX, LOST_AFTER);
        let may_be_behind = self.moved.is_none_or(|at| now - at >= BEHIND_AGAIN);
        let is_behind = sight.behind > BEHIND_MAX && may_be_behind;
        let lowest = sight.rates.len() - 1;
        if current == lowest {
            let is_starved = sight.estimate_bps < rate && !climbs;
            let is_starved = self.starved.holds(now, is_starved, STARVED_AFTER);
            if is_starved && sight.has_sound {
                self.moved(now);
                return Some(Move::SoundOnly);
            }
            return None;
        }
        if !(is_low || is_lossy || is_behind) {
            return None;
        }
        let fits = |rate: &u64| *rate <= percent(sight.estimate_bps, FITS_PERCENT);
        let below = sight.rates.iter().skip(current + 1);
        let to = below.clone().position(fits).map(|n| current + 1 + n);
        if self.up.is_some_and(|at| now - at < self.up_every) {
            self.fail_up(now);
        }
        self.moved(now);
        Some(Move::To(to.unwrap_or(lowest)))
    }

    fn step_up(&mut self, now: Instant, sight: Sight<'_>, current: usize) -> Move {
        let Some(next) = current.checked_sub(1) else {
            self.probing = None;
            return Move::Stay;
        };
        let rate = sight.rates[next];
        let is_high = sight.estimate_bps > percent(rate, UP_PERCENT);
        if let Some(asked) = self.probing {
            let is_overdue = now - asked >= PROBE_MAX;
            let outcome = sight.probe.or_else(|| is_overdue.then_some(false));
            return match outcome {
                None => Move::Stay,
                Some(true) if is_high => {
                    self.moved(now);
                    self.up = Some(now);
                    Move::To(next)
                }
                Some(_) => {
                    self.fail_up(now);
                    self.forget();
                    Move::Stay
                }
            };
        }
        let is_high = self.high.holds(now, is_high, UP_AFTER);
        if !is_high || self.up.is_some_and(|at| now - at < self.up_every) {
            return Move::Stay;
        }
        if self.up.is_some_and(|at| now - at >= 2 * UP_EVERY_MAX) {
            // Long ago: what failed then says nothing of now.
            self.up_every = UP_EVERY;
        }
        self.probing = Some(now);
        Move::Probe(percent(rate, PROBE_PERCENT))
    }

    /// A move up failed, or had to be undone: the next one waits longer.
    fn fail_up(&mut self, now: Instant) {
        self.up_every = (self.up_every * 2).min(UP_EVERY_MAX);
        self.up = Some(now);
    }

    fn moved(&mut self, now: Instant) {
        self.moved = Some(now);
        self.forget();
    }

    fn forget(&mut self) {
        (self.low, self.lossy) = (Since::default(), Since::default());
        (self.starved, self.high) = (Since::default(), Since::default());
        self.probing = None;
    }
}

const fn percent(value: u64, percent: u64) -> u64 {
    value.saturating_mul(percent) / 100
}

/// Since when something holds without a break.
#[derive(Clone, Copy, Debug, Default)]
struct Since(Option<Instant>);

impl Since {
    /// Whether it has held for so long.
    fn holds(&mut self, now: Instant, is_so: bool, long: Duration) -> bool {
        if !is_so {
            self.0 = None;
            return false;
        }
        now - *self.0.get_or_insert(now) >= long
    }
}

/// The estimate, and when it rose last.
#[derive(Debug, Default)]
struct Estimate {
    bps: Option<u64>,
    /// True once it changed: until then it is a guess that nothing speaks for or against.
    is_measured: bool,
    rose: Option<Instant>,
}

impl Estimate {
    fn note(&mut self, now: Instant, bps: u64) {
        let before = self.bps.replace(bps).unwrap_or(bps);
        self.is_measured |= before != bps;
        if bps > before {
            self.rose = Some(now);
        } else if bps < before {
            self.rose = None;
        }
    }

    /// Whether it may still be below what the path carries.
    fn climbs(&self, now: Instant) -> bool {
        !self.is_measured || self.rose.is_some_and(|at| now - at < CLIMBS_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u64; 4] = [4_000_000, 2_500_000, 1_200_000, 700_000];
    const TICK: Duration = Duration::from_millis(100);

    /// A path and a viewer that does at once what is decided.
    struct Viewer {
        policy: Policy,
        start: Instant,
        now: Instant,
        current: Option<usize>,
        estimate_bps: u64,
        lost: u8,
        behind: Duration,
        has_sound: bool,
        probe_passes: bool,
        probed: Option<bool>,
    }

    impl Viewer {
        fn at(current: usize, estimate_bps: u64) -> Self {
            let now = Instant::now();
            let mut viewer = Self {
                policy: Policy::new(),
                start: now,
                now,
                current: Some(current),
                // Fallen to what it is: nothing that climbs.
                estimate_bps: 7_999_999,
                lost: 0,
                behind: Duration::ZERO,
                has_sound: true,
                probe_passes: true,
                probed: None,
            };
            viewer.tick();
            viewer.estimate_bps = estimate_bps;
            viewer
        }

        fn tick(&mut self) -> Move {
            let sight = Sight {
                estimate_bps: self.estimate_bps,
                lost: self.lost,
                behind: self.behind,
                rates: &RATES,
                current: self.current,
                is_moving: false,
                probe: self.probed.take(),
                has_sound: self.has_sound,
            };
            let decided = self.policy.step(self.now, sight);
            match decided {
                Move::Stay => {}
                Move::To(place) => self.current = Some(place),
                Move::SoundOnly => self.current = None,
                Move::Probe(_) => self.probed = Some(self.probe_passes),
            }
            self.now += TICK;
            decided
        }

        /// Everything that is decided in a while, with the tenth of a second.
        fn run(&mut self, time: Duration) -> Vec<(u128, Move)> {
            let until = self.now + time;
            let mut out = Vec::new();
            while self.now < until {
                let at = (self.now - self.start).as_millis() / 100;
                let decided = self.tick();
                if decided != Move::Stay {
                    out.push((at, decided));
                }
            }
            out
        }
    }

    const fn seconds(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    /// Where it plays and what the estimate falls to; where it goes, one second later.
    #[test]
    fn an_estimate_too_low_for_a_second_goes_down_to_what_fits() {
        let rows = [
            (0, 4_400_000, None),
            (0, 4_399_999, Some(1)),
            (0, 2_941_177, Some(1)),
            (0, 2_941_176, Some(2)),
            (0, 1_411_000, Some(3)),
            (0, 500_000, Some(3)),
            (1, 2_750_000, None),
            (1, 2_700_000, Some(2)),
            (2, 1_319_000, Some(3)),
        ];
        for (from, estimate_bps, to) in rows {
            let mut viewer = Viewer::at(from, estimate_bps);
            let moves = viewer.run(Duration::from_millis(1_500));
            let expected: Vec<_> = to.map(|to| (11, Move::To(to))).into_iter().collect();
            assert_eq!(moves, expected, "from {from} at {estimate_bps}");
        }
    }

    #[test]
    fn a_dip_of_less_than_a_second_is_waited_out() {
        let mut viewer = Viewer::at(0, 3_000_000);
        for _ in 0..10 {
            assert_eq!(viewer.run(Duration::from_millis(900)), []);
            viewer.estimate_bps = 4_500_000;
            viewer.tick();
            viewer.estimate_bps = 3_000_000;
        }
    }

    /// It begins with a guess and grows: nothing speaks against what is sent.
    #[test]
    fn an_estimate_that_still_climbs_is_no_reason_to_go_down() {
        let mut viewer = Viewer::at(0, 2_000_000);
        viewer.policy = Policy::new();
        assert_eq!(viewer.run(seconds(20)), [], "a guess says nothing");
        for _ in 0..10 {
            assert_eq!(viewer.run(seconds(1)), [], "at {}", viewer.estimate_bps);
            viewer.estimate_bps += 150_000;
        }
        viewer.tick();
        viewer.estimate_bps -= 1;
        assert_eq!(viewer.run(seconds(2)).len(), 1);
    }

    #[test]
    fn loss_of_more_than_a_tenth_for_two_seconds_goes_down() {
        for (lost, expected) in [(25, None), (26, Some(Move::To(1)))] {
            let mut viewer = Viewer::at(0, 8_000_000);
            viewer.lost = lost;
            let moves = viewer.run(Duration::from_millis(2_500));
            let moves: Vec<_> = moves.into_iter().map(|(_, decided)| decided).collect();
            assert_eq!(moves, expected.into_iter().collect::<Vec<_>>(), "{lost}");
        }
    }

    #[test]
    fn what_waits_longer_than_a_quarter_of_a_second_goes_down_at_once_but_not_twice() {
        let mut viewer = Viewer::at(0, 8_000_000);
        viewer.behind = Duration::from_millis(250);
        assert_eq!(viewer.run(seconds(1)), []);
        viewer.behind = Duration::from_millis(251);
        assert_eq!(viewer.tick(), Move::To(1));
        assert_eq!(viewer.run(Duration::from_millis(900)), []);
        assert_eq!(viewer.tick(), Move::To(2));
    }

    #[test]
    fn up_goes_one_place_after_five_seconds_and_a_probe_and_ten_seconds_apart() {
        let mut viewer = Viewer::at(3, 1_560_000);
        assert_eq!(viewer.run(seconds(20)), [], "not above 1.3 times the next");
        viewer.estimate_bps = 9_000_000;
        let began = (viewer.now - viewer.start).as_millis() / 100;
        let moves = viewer.run(seconds(30));
        let moves: Vec<_> = moves.into_iter().map(|(at, m)| (at - began, m)).collect();
        let expected = [
            (50, Move::Probe(1_800_000)),
            (51, Move::To(2)),
            (151, Move::Probe(3_750_000)),
            (152, Move::To(1)),
            (252, Move::Probe(6_000_000)),
            (253, Move::To(0)),
        ];
        assert_eq!(moves, expected);
    }

    #[test]
    fn each_failed_move_up_doubles_the_wait_up_to_a_minute() {
        let mut viewer = Viewer::at(3, 9_000_000);
        viewer.probe_passes = false;
        let moves = viewer.run(seconds(300));
        assert!(moves.iter().all(|(_, m)| matches!(m, Move::Probe(_))));
        let waits = moves.windows(2).map(|w| (w[1].0 - w[0].0) / 10);
        assert_eq!(waits.collect::<Vec<_>>(), [20, 40, 60, 60, 60]);
    }

    #[test]
    fn a_probe_that_nothing_is_heard_of_failed() {
        let mut viewer = Viewer::at(3, 9_000_000);
        viewer.run(seconds(5));
        assert!(viewer.probed.take().is_some());
        assert_eq!(viewer.run(seconds(20)), []);
        assert_eq!(viewer.current, Some(3));
    }

    #[test]
    fn a_move_up_that_has_to_be_undone_counts_as_failed() {
        let mut viewer = Viewer::at(3, 9_000_000);
        viewer.run(seconds(6));
        assert_eq!(viewer.current, Some(2));
        viewer.estimate_bps = 900_000;
        viewer.run(seconds(2));
        assert_eq!(viewer.current, Some(3));
        viewer.estimate_bps = 9_000_000;
        assert_eq!(
            viewer.run(seconds(19)),
            [],
            "twenty seconds from when it failed"
        );
        assert_eq!(viewer.run(seconds(2)).len(), 2);
    }

    #[test]
    fn below_the_lowest_there_is_only_sound_until_the_lowest_fits_again() {
        let mut viewer = Viewer::at(3, 699_999);
        assert_eq!(viewer.run(seconds(5)), []);
        assert_eq!(viewer.run(seconds(1)).len(), 1);
        assert_eq!(viewer.current, None);
        viewer.estimate_bps = 910_000;
        assert_eq!(viewer.run(seconds(20)), []);
        viewer.estimate_bps = 910_001;
        assert_eq!(viewer.run(seconds(5)), []);
        assert_eq!(viewer.tick(), Move::To(3));
    }

    #[test]
    fn without_sound_the_lowest_goes_on_however_little_there_is() {
        let mut viewer = Viewer::at(3, 100_000);
        viewer.has_sound = false;
        assert_eq!(viewer.run(seconds(60)), []);
    }

    #[test]
    fn nothing_is_decided_while_a_move_is_under_way() {
        let mut viewer = Viewer::at(0, 1_000_000);
        for _ in 0..100 {
            let sight = Sight {
                estimate_bps: 1_000_000,
                lost: 200,
                behind: seconds(1),
                rates: &RATES,
                current: Some(0),
                is_moving: true,
                probe: None,
                has_sound: true,
            };
            assert_eq!(viewer.policy.step(viewer.now, sight), Move::Stay);
            viewer.now += TICK;
        }
    }
}
