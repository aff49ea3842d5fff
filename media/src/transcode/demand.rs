//! When a converter runs: a state machine over users, time and failures. No clock, no threads.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Input without output for this long is a failure.
const STALL: Duration = Duration::from_secs(3);
/// Frames that must have gone in before silence is held against a converter.
const STALL_FRAMES: u64 = 30;
/// This many failures within [`FAILURES_WITHIN`] switch the converter off for [`REST`].
const FAILURES_MAX: usize = 3;
const FAILURES_WITHIN: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(300);
/// One that found no place tries again after this.
const NO_PLACE: Duration = Duration::from_secs(5);

/// What the driver has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Start,
    Stop,
    Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Lingering { until: Instant },
    Resting { until: Instant },
}

/// Demand for one made track.
#[derive(Debug)]
pub(super) struct Demand {
    linger: Duration,
    phase: Phase,
    failures: VecDeque<Instant>,
}

impl Demand {
    pub(super) const fn new(linger: Duration) -> Self {
        Self {
            linger,
            phase: Phase::Idle,
            failures: VecDeque::new(),
        }
    }

    /// Looks at the number of users; also to be called at [`Self::deadline`].
    pub(super) fn step(&mut self, now: Instant, users: usize) -> Step {
        let (phase, step) = match self.phase {
            Phase::Idle if users > 0 => (Phase::Running, Step::Start),
            Phase::Resting { until } if now >= until && users > 0 => (Phase::Running, Step::Start),
            Phase::Resting { until } if now >= until => (Phase::Idle, Step::Keep),
            Phase::Running if users == 0 => {
                let until = now + self.linger;
                (Phase::Lingering { until }, Step::Keep)
            }
            Phase::Lingering { .. } if users > 0 => (Phase::Running, Step::Keep),
            Phase::Lingering { until } if now >= until => (Phase::Idle, Step::Stop),
            same => (same, Step::Keep),
        };
        self.phase = phase;
        step
    }

    /// When to call [`Self::step`] even if nothing else happens.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Lingering { until } | Phase::Resting { until } => Some(until),
            Phase::Idle | Phase::Running => None,
        }
    }

    /// Whether the converter does not run.
    pub(super) const fn is_off(&self) -> bool {
        matches!(self.phase, Phase::Idle | Phase::Resting { .. })
    }

    /// Whether failures keep the converter off.
    pub(super) const fn is_resting(&self) -> bool {
        matches!(self.phase, Phase::Resting { .. })
    }

    /// The converter failed. True when it may start again at the next step, false when it rests.
    pub(super) fn fail(&mut self, now: Instant) -> bool {
        while self
            .failures
            .front()
            .is_some_and(|t| now - *t >= FAILURES_WITHIN)
        {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() < FAILURES_MAX {
            self.phase = Phase::Idle;
            return true;
        }
        self.failures.clear();
        self.rest(now);
        false
    }

    /// The converter cannot work here: it rests at once.
    pub(super) fn rest(&mut self, now: Instant) {
        self.rest_for(now, REST);
    }

    /// There is no place for the converter now: it may try again in a moment.
    pub(super) fn wait(&mut self, now: Instant) {
        self.rest_for(now, NO_PLACE);
    }

    fn rest_for(&mut self, now: Instant, time: Duration) {
        self.phase = Phase::Resting { until: now + time };
    }

    /// The converter may not run, whoever wants it. True when it has to stop.
    pub(super) fn halt(&mut self) -> bool {
        let runs = matches!(self.phase, Phase::Running | Phase::Lingering { .. });
        if runs {
            self.phase = Phase::Idle;
        }
        runs
    }
}

/// Notices input without output.
#[derive(Debug)]
pub(super) struct StallWatch {
    since: Instant,
    made: u64,
    taken: u64,
}

impl StallWatch {
    pub(super) const fn new(now: Instant) -> Self {
        let (made, taken) = (0, 0);
        Self {
            since: now,
            made,
            taken,
        }
    }

    /// A frame went in (or was waiting at the full queue) while `made` had come out in all.
    pub(super) fn is_stalled(&mut self, now: Instant, made: u64) -> bool {
        if made != self.made {
            (self.made, self.taken) = (made, 0);
        }
        if self.taken == 0 {
            self.since = now;
        }
        self.taken += 1;
        self.taken >= STALL_FRAMES && now - self.since >= STALL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_converter_starts_with_the_first_user_and_stops_a_linger_after_the_last() {
        let start = Instant::now();
        let mut demand = Demand::new(Duration::from_secs(10));
        let table = [
            (0, 0, Step::Keep),
            (1, 1, Step::Start),
            (2, 3, Step::Keep),
            (3, 0, Step::Keep),
            (12, 0, Step::Keep),
            (12, 1, Step::Keep),
            (14, 0, Step::Keep),
            (23, 0, Step::Keep),
            (24, 0, Step::Stop),
            (25, 1, Step::Start),
        ];
        for (second, users, expected) in table {
            let now = start + Duration::from_secs(second);
            assert_eq!(demand.step(now, users), expected, "at {second} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_third_failure_in_a_minute_makes_it_rest_for_five() {
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut demand = Demand::new(Duration::from_secs(10));
        assert_eq!(demand.step(at(0), 1), Step::Start);
        for second in [0, 59, 61] {
            assert!(demand.fail(at(second)), "at {second} s");
            assert_eq!(demand.step(at(second), 1), Step::Start);
        }
        assert!(!demand.fail(at(62)));
        assert_eq!(demand.step(at(361), 1), Step::Keep);
        assert_eq!(demand.deadline(), Some(at(362)));
        assert_eq!(demand.step(at(362), 1), Step::Start);
    }

    #[tokio::test(start_paused = true)]
    async fn only_steady_input_without_output_for_three_seconds_is_a_stall() {
        let start = Instant::now();
        let at = |tick: u32| start + Duration::from_millis(40) * tick;
        let mut slow = StallWatch::new(start);
        assert!((0..10).all(|n| !slow.is_stalled(at(n * 25), 0)), "1 fps");
        let mut good = StallWatch::new(start);
        assert!((0..500).all(|n| !good.is_stalled(at(n), u64::from(n / 50))));
        let mut bad = StallWatch::new(start);
        assert_eq!((0..500).position(|n| bad.is_stalled(at(n), 0)), Some(75));
    }
}
