//! What is left out when this node has too much to encode (spec media.md 5.3).
//!
//! [`Guard`] decides, from numbers alone; [`watch`] looks and does it. The source is never touched.
//!
//! Invariants
//! - At most one step every three seconds, in either direction.
//! - What was left out last is taken up first.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::broadcast::{Broadcasts, Job, LoadStep};
use crate::frame::{Kind, TrackId};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The same while nothing is made.
const IDLE_EVERY: Duration = Duration::from_secs(1);
/// An encoder this far behind the source, for so long, is too slow.
const LATE: Duration = Duration::from_millis(400);
const LATE_FOR: Duration = Duration::from_secs(2);
/// So is one that lost more of its pictures than this, within this.
const DROPPED_PERCENT: u64 = 5;
const DROPPED_WITHIN: Duration = Duration::from_secs(2);
/// One that starts behind the source has so long to catch up.
const STARTING: Duration = Duration::from_secs(10);
/// From one step to the next.
const STEP_EVERY: Duration = Duration::from_secs(3);
/// So much calm allows a step back; twice as much after each that was too early.
const CALM: Duration = Duration::from_secs(30);
const CALM_MAX: Duration = Duration::from_secs(600);
/// Lines that `clean` steps down to.
const CLEAN_LINES: [u32; 2] = [720, 480];

/// What is seen of an encoder of pictures.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Tells it from every other, also of the same track.
    job: u64,
    /// The broadcast.
    instance: String,
    track: TrackId,
    /// Lines of what it makes.
    lines: u32,
    /// How far it is behind the source; `None` before its first picture.
    lag: Option<Duration>,
    made: u64,
    dropped: u64,
}

/// A step, and why it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) instance: String,
    pub(crate) step: LoadStep,
    pub(crate) cause: &'static str,
}

/// What is remembered of an encoder.
#[derive(Debug)]
struct Watched {
    since: Instant,
    has_caught_up: bool,
    late_since: Option<Instant>,
    /// Pictures made and dropped, over the last while.
    counts: VecDeque<(Instant, u64, u64)>,
}

impl Watched {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            has_caught_up: false,
            late_since: None,
            counts: VecDeque::new(),
        }
    }

    /// Why this encoder shows that there is too much to do, if it does.
    fn look(&mut self, now: Instant, seen: &Seen) -> Option<&'static str> {
        let is_late = seen.lag.is_none_or(|lag| lag > LATE);
        self.has_caught_up |= !is_late || now - self.since >= STARTING;
        if !self.has_caught_up {
            return None;
        }
        let has_dropped = self.has_dropped(now, seen);
        let late_since = is_late.then(|| self.late_since.unwrap_or(now));
        self.late_since = late_since;
        if late_since.is_some_and(|since| now - since >= LATE_FOR) {
            return Some("late");
        }
        has_dropped.then_some("dropped")
    }

    fn has_dropped(&mut self, now: Instant, seen: &Seen) -> bool {
        self.counts.push_back((now, seen.made, seen.dropped));
        let is_old = |entry: &(Instant, u64, u64)| now - entry.0 >= DROPPED_WITHIN;
        // The newest of the old ones is where the window begins.
        while self.counts.get(1).is_some_and(is_old) {
            self.counts.pop_front();
        }
        let Some((_, made, dropped)) = self.counts.front().copied().filter(is_old) else {
            return false;
        };
        let (made, dropped) = (seen.made - made, seen.dropped - dropped);
        dropped * 100 > (made + dropped) * DROPPED_PERCENT
    }
}

/// Something that was left out, and how it is taken up again.
#[derive(Debug)]
struct Left {
    instance: String,
    undo: LoadStep,
}

/// Decides what is left out, and when it is taken up again.
#[derive(Debug)]
pub(crate) struct Guard {
    watched: BTreeMap<u64, Watched>,
    /// The newest last.
    left: Vec<Left>,
    /// When the last step was taken.
    stepped: Option<Instant>,
    calm_since: Option<Instant>,
    /// When something was last taken up again.
    restored: Option<Instant>,
    /// Calm that allows a step back.
    wait: Duration,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            watched: BTreeMap::new(),
            left: Vec::new(),
            stepped: None,
            calm_since: None,
            restored: None,
            wait: CALM,
        }
    }
}

impl Guard {
    /// Whether there is nothing to take up again.
    fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// Decides what is to be done now; to be called several times a second.
    pub(crate) fn step(&mut self, now: Instant, seen: &[Seen]) -> Option<Decision> {
        self.watched
            .retain(|job, _| seen.iter().any(|seen| seen.job == *job));
        let mut cause = None;
        for seen in seen {
            let watched = self.watched.entry(seen.job);
            let found = watched.or_insert_with(|| Watched::new(now)).look(now, seen);
            cause = cause.or(found);
        }
        match cause {
            Some(cause) => self.shed(now, seen, cause),
            None => self.restore(now),
        }
    }

    fn may_step(&self, now: Instant) -> bool {
        self.stepped.is_none_or(|at| now - at >= STEP_EVERY)
    }

    fn shed(&mut self, now: Instant, seen: &[Seen], cause: &'static str) -> Option<Decision> {
        self.calm_since = None;
        if !self.may_step(now) {
            return None;
        }
        if let Some(restored) = self.restored.take() {
            let was_early = now - restored < self.wait;
            self.wait = if was_early {
                CALM_MAX.min(self.wait * 2)
            } else {
                CALM
            };
        }
        let (instance, step, undo) = next_to_leave(seen)?;
        self.stepped = Some(now);
        self.left.push(Left {
            instance: instance.clone(),
            undo,
        });
        Some(Decision {
            instance,
            step,
            cause,
        })
    }

    fn restore(&mut self, now: Instant) -> Option<Decision> {
        let calm_since = *self.calm_since.get_or_insert(now);
        let calm_since = self.stepped.map_or(calm_since, |at| calm_since.max(at));
        if now - calm_since < self.wait {
            return None;
        }
        let Left { instance, undo } = self.left.pop()?;
        (self.stepped, self.restored) = (Some(now), Some(now));
        Some(Decision {
            instance,
            step: undo,
            cause: "calm",
        })
    }

    /// A broadcast is over, and with it what it went without.
    fn forget(&mut self, is_over: impl Fn(&str) -> bool) {
        self.left.retain(|left| !is_over(&left.instance));
    }
}

/// The highest rung of the busiest broadcast that has one; then fewer lines for `clean` of the
/// busiest. With it, how to undo that.
fn next_to_leave(seen: &[Seen]) -> Option<(String, LoadStep, LoadStep)> {
    let work = |instance: &str| -> u64 {
        let its = seen.iter().filter(|seen| seen.instance == instance);
        its.map(|seen| u64::from(seen.lines).pow(2)).sum()
    };
    let rungs = seen.iter().filter(|s| matches!(s.track, TrackId::Rung(_)));
    let rung = rungs.max_by_key(|s| (work(&s.instance), s.instance.clone(), s.track));
    if let Some(Seen {
        instance, track, ..
    }) = rung
    {
        let steps = (LoadStep::Shed(*track), LoadStep::Restored(*track));
        return Some((instance.clone(), steps.0, steps.1));
    }
    let fewer = |lines: u32| CLEAN_LINES.into_iter().find(|fewer| *fewer < lines);
    let cleans = seen.iter().filter(|s| s.track == TrackId::Clean);
    let large = cleans.filter_map(|s| fewer(s.lines).map(|lines| (lines, s)));
    let (
        lines,
        Seen {
            instance,
            lines: now,
            ..
        },
    ) = large.max_by_key(|(_, s)| (work(&s.instance), s.instance.clone()))?;
    // The first step down leads back to as many lines as there are.
    let before = CLEAN_LINES.into_iter().find(|before| before == now);
    let undo = LoadStep::CleanLines(before.unwrap_or(u32::MAX));
    Some((instance.clone(), LoadStep::CleanLines(lines), undo))
}

/// Leaves things out while there is too much to encode. Runs for ever; the server runs it once.
pub async fn watch(hub: &Broadcasts) {
    let mut guard = Guard::default();
    loop {
        let jobs = hub.converters().jobs();
        let seen: Vec<Seen> = jobs.iter().filter_map(|job| look_at(job)).collect();
        let all = hub.list();
        guard.forget(|instance| all.iter().all(|b| b.instance() != instance));
        if let Some(decision) = guard.step(Instant::now(), &seen)
            && let Some(broadcast) = all.iter().find(|b| b.instance() == decision.instance)
        {
            let (step, cause) = (decision.step, decision.cause);
            tracing::warn!(broadcast.id = %broadcast.key(), ?step, cause, "too much to encode");
            hub.stats().add("overload_steps_total", cause, 1);
            broadcast.take_load_step(step);
        }
        let is_idle = seen.is_empty() && guard.is_empty();
        sleep(if is_idle { IDLE_EVERY } else { LOOK_EVERY }).await;
    }
}

fn look_at(job: &Job) -> Option<Seen> {
    let (track, broadcast) = (job.track(), job.broadcast()?);
    if track.kind() != Kind::Video || broadcast.is_shed(track) {
        return None;
    }
    let source = broadcast.newest_dts(TrackId::Video);
    let made = broadcast.newest_dts(track).filter(|_| job.made() > 0);
    let lines = match track {
        TrackId::Rung(lines) => u32::from(lines),
        _ => broadcast.lines(track),
    };
    Some(Seen {
        job: job.number(),
        instance: broadcast.instance().to_owned(),
        track,
        lines,
        lag: source
            .zip(made)
            .map(|(source, made)| source.saturating_since(made)),
        made: job.made(),
        dropped: job.dropped(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node in numbers.
    struct Node {
        guard: Guard,
        start: Instant,
        seen: Vec<Seen>,
    }

    impl Node {
        fn new(encoders: &[(&str, TrackId, u32)]) -> Self {
            let seen = |(n, (instance, track, lines)): (usize, &(&str, TrackId, u32))| Seen {
                job: u64::try_from(n).unwrap(),
                instance: (*instance).to_owned(),
                track: *track,
                lines: *lines,
                lag: Some(Duration::from_millis(80)),
                made: 0,
                dropped: 0,
            };
            Self {
                guard: Guard::default(),
                start: Instant::now(),
                seen: encoders.iter().enumerate().map(seen).collect(),
            }
        }

        fn set_lag(&mut self, ms: u64) {
            for seen in &mut self.seen {
                seen.lag = Some(Duration::from_millis(ms));
            }
        }

        /// What is decided in these quarters of a second, and when; what is shed is not seen again.
        fn run(&mut self, quarters: std::ops::Range<u32>) -> Vec<(f64, String, LoadStep)> {
            let mut all = Vec::new();
            for quarter in quarters {
                let now = self.start + LOOK_EVERY * quarter;
                let Some(decision) = self.guard.step(now, &self.seen) else {
                    continue;
                };
                let its = decision.instance.clone();
                match decision.step {
                    LoadStep::Shed(track) => {
                        let is_it = |s: &Seen| s.track == track && s.instance == its;
                        self.seen.retain(|seen| !is_it(seen));
                    }
                    LoadStep::CleanLines(lines) => {
                        let clean = |s: &&mut Seen| s.track == TrackId::Clean && s.instance == its;
                        let clean = self.seen.iter_mut().find(clean).unwrap();
                        clean.lines = lines.min(1_080);
                    }
                    LoadStep::Restored(_) => {}
                }
                all.push((f64::from(quarter) / 4.0, decision.instance, decision.step));
            }
            all
        }
    }

    const RUNGS: [(&str, TrackId, u32); 5] = [
        ("small", TrackId::Rung(480), 480),
        ("busy", TrackId::Rung(360), 360),
        ("busy", TrackId::Rung(720), 720),
        ("busy", TrackId::Clean, 1_080),
        ("busy", TrackId::Rung(480), 480),
    ];

    #[tokio::test(start_paused = true)]
    async fn the_highest_rung_of_the_busiest_broadcast_goes_first_and_clean_becomes_small_last() {
        let mut node = Node::new(&RUNGS);
        assert_eq!(node.run(0..40), []);
        node.set_lag(401);
        let step = |at: f64, instance: &str, step| (at, instance.to_owned(), step);
        assert_eq!(
            node.run(40..200),
            [
                step(12.0, "busy", LoadStep::Shed(TrackId::Rung(720))),
                step(15.0, "busy", LoadStep::Shed(TrackId::Rung(480))),
                step(18.0, "busy", LoadStep::Shed(TrackId::Rung(360))),
                step(21.0, "small", LoadStep::Shed(TrackId::Rung(480))),
                step(24.0, "busy", LoadStep::CleanLines(720)),
                step(27.0, "busy", LoadStep::CleanLines(480)),
            ]
        );
        node.set_lag(80);
        assert_eq!(
            node.run(200..500),
            [
                step(80.0, "busy", LoadStep::CleanLines(720)),
                step(110.0, "busy", LoadStep::CleanLines(u32::MAX)),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn only_two_seconds_of_lag_or_one_in_twenty_dropped_are_a_sign() {
        let none: &[(u32, u64)] = &[];
        let cases = [
            // Milliseconds behind, pictures dropped from a quarter on, whether something is shed.
            (400, none, false),
            (401, none, true),
            (80, &[(4, 1), (8, 1), (12, 1)][..], false),
            (80, &[(4, 1), (5, 1), (6, 2)][..], true),
            (10_000, none, true),
        ];
        for (lag, drops, is_sign) in cases {
            let mut node = Node::new(&RUNGS[2..3]);
            let mut decided = node.run(0..1);
            node.set_lag(lag);
            for quarter in 1..20 {
                node.seen.iter_mut().for_each(|seen| seen.made += 7);
                let dropped = drops.iter().filter(|(at, _)| *at == quarter);
                let dropped: u64 = dropped.map(|(_, count)| count).sum();
                node.seen
                    .iter_mut()
                    .for_each(|seen| seen.dropped += dropped);
                decided.extend(node.run(quarter..quarter + 1));
            }
            assert_eq!(!decided.is_empty(), is_sign, "{lag} ms, {drops:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_encoder_that_starts_behind_may_catch_up_but_not_for_ever() {
        let mut node = Node::new(&RUNGS[2..3]);
        node.set_lag(4_000);
        assert_eq!(node.run(0..40), []);
        assert_eq!(node.run(40..49).len(), 1, "two seconds after the tenth");
    }

    #[tokio::test(start_paused = true)]
    async fn each_relapse_doubles_the_calm_that_is_waited_for_up_to_ten_minutes() {
        let mut node = Node::new(&RUNGS[2..3]);
        let rung = node.seen.clone();
        let mut waits = Vec::new();
        let mut quarter = 0;
        for round in 0..7 {
            // It starts well, then falls behind.
            node.seen = rung.clone();
            node.seen[0].job += round;
            node.run(quarter..quarter + 1);
            node.set_lag(900);
            let shed = loop {
                quarter += 1;
                if let Some((at, ..)) = node.run(quarter..quarter + 1).pop() {
                    break at;
                }
            };
            let back = loop {
                quarter += 1;
                if let Some((at, ..)) = node.run(quarter..quarter + 1).pop() {
                    break at;
                }
            };
            // Calm begins at the first look after the step.
            waits.push((back - shed).floor());
            quarter += 12;
        }
        assert_eq!(waits, [30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0]);
        // Calm for as long as that: the next time is the first again.
        quarter += 4 * 700;
        node.seen = rung.clone();
        node.run(quarter..quarter + 1);
        node.set_lag(900);
        node.run(quarter + 1..quarter + 20);
        assert_eq!(node.guard.wait, CALM);
    }
}
