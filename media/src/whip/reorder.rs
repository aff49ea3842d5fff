//! Packets of one stream in the order of their numbers, and what is missing of them (spec media.md
//! 4.3).
//!
//! Invariants
//! - A packet waits for an earlier one at most [`WAIT_MAX`], and at most [`WAITING_MAX`] wait.
//! - A missing packet is asked for again after [`ASK_AFTER`], at most [`ASKS_MAX`] times.
//! - What was given up or given out is never given out again.
//!
//! Not here: what packets hold.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// A packet waits this long for an earlier one.
const WAIT_MAX: Duration = Duration::from_millis(200);
/// Packets that wait at once.
const WAITING_MAX: usize = 512;
/// A packet this far ahead of what is given out next is of another count: the sender began anew.
const AHEAD_MAX: u64 = 3_000;
/// Numbers that are asked for at once: in pairs they fit into a datagram.
const ASKS_AT_ONCE_MAX: usize = 200;
/// Packets on their way pass each other: what is missing is asked for after this.
const ASK_AFTER: Duration = Duration::from_millis(20);
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Spec: at most ten times in 500 ms.
const ASKS_MAX: u8 = 10;

/// What comes next of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next<P> {
    Packet(P),
    /// At least one packet was given up here.
    Lost,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    since: Instant,
    asked: Option<Instant>,
    asks: u8,
}

/// The packets of one stream.
#[derive(Debug)]
pub(crate) struct Reorder<P> {
    /// The number that is given out next, with its rounds.
    next: Option<u64>,
    newest: u64,
    waiting: BTreeMap<u64, (Instant, P)>,
    missing: BTreeMap<u64, Missing>,
    /// True when something was given up before what comes next.
    has_gap: bool,
    /// Packets given out and given up, until they are asked for.
    counts: (u64, u64),
}

impl<P> Default for Reorder<P> {
    fn default() -> Self {
        Self {
            next: None,
            newest: 0,
            waiting: BTreeMap::new(),
            missing: BTreeMap::new(),
            has_gap: false,
            counts: (0, 0),
        }
    }
}

impl<P> Reorder<P> {
    /// A packet came. False when it was given up, given out or is here already.
    pub(crate) fn push(&mut self, now: Instant, number: u16, packet: P) -> bool {
        let Some(next) = self.next else {
            // A round below, so that those just before it have numbers too.
            let first = u64::from(number) + (1 << 16);
            (self.next, self.newest) = (Some(first), first);
            self.waiting.insert(first, (now, packet));
            return true;
        };
        let full = nearest(self.newest, number);
        if full > next + AHEAD_MAX {
            self.begin_anew(full);
        } else if full < next || self.waiting.contains_key(&full) {
            return false;
        }
        for number in self.newest + 1..full {
            let missing = Missing {
                since: now,
                asked: None,
                asks: 0,
            };
            self.missing.insert(number, missing);
        }
        self.newest = self.newest.max(full);
        self.missing.remove(&full);
        self.waiting.insert(full, (now, packet));
        true
    }

    /// Nothing that came before is waited for.
    fn begin_anew(&mut self, first: u64) {
        self.waiting.clear();
        self.missing.clear();
        self.has_gap = true;
        (self.next, self.newest) = (Some(first), first);
    }

    /// What can be given out now.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Next<P>> {
        let next = self.next?;
        let (&first, &(came, _)) = self.waiting.first_key_value()?;
        if first > next {
            let is_over = now.saturating_duration_since(came) >= WAIT_MAX;
            if !is_over && self.waiting.len() <= WAITING_MAX {
                return None;
            }
            self.missing = self.missing.split_off(&first);
            self.counts.1 += first - next;
            self.next = Some(first);
            self.has_gap = true;
        }
        if std::mem::take(&mut self.has_gap) {
            return Some(Next::Lost);
        }
        let (_, packet) = self.waiting.remove(&first)?;
        self.next = Some(first + 1);
        self.counts.0 += 1;
        Some(Next::Packet(packet))
    }

    /// How many packets were given out and how many given up since this was asked last.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.counts)
    }

    /// The numbers to ask for now, in order.
    pub(crate) fn asks(&mut self, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        for (number, missing) in &mut self.missing {
            if out.len() >= ASKS_AT_ONCE_MAX {
                break;
            }
            if missing.due().is_some_and(|due| due <= now) {
                missing.asked = Some(now);
                missing.asks += 1;
                out.push(low(*number));
            }
        }
        out
    }

    /// How many packets are waited for.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// When [`Self::pop`] or [`Self::asks`] may give something without a new packet.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let asks = self.missing.values().filter_map(Missing::due).min();
        let first = self.waiting.first_key_value();
        let over = first.map(|(_, (came, _))| *came + WAIT_MAX);
        [asks, over].into_iter().flatten().min()
    }
}

impl Missing {
    fn due(&self) -> Option<Instant> {
        let due = self
            .asked
            .map_or(self.since + ASK_AFTER, |at| at + ASK_AGAIN);
        (self.asks < ASKS_MAX).then_some(due)
    }
}

/// A number with the rounds that bring it nearest to another.
fn nearest(to: u64, number: u16) -> u64 {
    let step = i64::from(number.wrapping_sub(low(to)).cast_signed());
    to.saturating_add_signed(step)
}

fn low(number: u64) -> u16 {
    u16::try_from(number & 0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now) + Duration::from_millis(ms)
    }

    fn all(reorder: &mut Reorder<u16>, now: Instant) -> Vec<Next<u16>> {
        std::iter::from_fn(|| reorder.pop(now)).collect()
    }

    fn packets(numbers: impl IntoIterator<Item = u16>) -> Vec<Next<u16>> {
        numbers.into_iter().map(Next::Packet).collect()
    }

    #[test]
    fn what_was_given_up_is_counted_once() {
        let mut reorder = Reorder::default();
        for number in [1, 2, 6, 7] {
            reorder.push(at(0), number, number);
        }
        let out = all(&mut reorder, at(300));
        assert_eq!(out.len(), 5, "four packets and one gap");
        assert_eq!(reorder.take_counts(), (4, 3));
        assert_eq!(reorder.take_counts(), (0, 0));
    }

    #[test]
    fn packets_that_passed_each_other_come_out_in_order_over_a_round() {
        let mut reorder = Reorder::default();
        for number in [65_534, 0, 65_535, 2, 1] {
            assert!(reorder.push(at(0), number, number));
        }
        assert_eq!(all(&mut reorder, at(0)), packets([65_534, 65_535, 0, 1, 2]));
        assert!(!reorder.push(at(0), 1, 1), "it was given out");
        assert_eq!(reorder.deadline(), None);
    }

    #[test]
    fn what_is_missing_is_asked_for_and_given_up_after_its_time() {
        let mut reorder = Reorder::default();
        reorder.push(at(0), 10, 10);
        assert_eq!(all(&mut reorder, at(0)), packets([10]));
        reorder.push(at(5), 13, 13);
        assert_eq!(all(&mut reorder, at(5)), []);
        assert!(reorder.asks(at(24)).is_empty());
        assert_eq!(reorder.deadline(), Some(at(25)));
        assert_eq!(reorder.asks(at(25)), [11, 12]);
        assert!(reorder.asks(at(74)).is_empty());
        reorder.push(at(74), 12, 12);
        assert_eq!(reorder.asks(at(75)), [11]);
        assert_eq!(
            all(&mut reorder, at(204)),
            [],
            "12 came later, but 13 waits since 5"
        );
        let given = all(&mut reorder, at(274));
        assert_eq!(given[0], Next::Lost);
        assert_eq!(given[1..], packets([12, 13]));
        assert!(
            reorder.asks(at(1_000)).is_empty(),
            "nobody waits for 11 now"
        );
        assert!(!reorder.push(at(1_000), 11, 11));
    }

    #[test]
    fn a_packet_that_never_comes_is_asked_for_ten_times_at_most() {
        let mut reorder = Reorder::default();
        reorder.push(at(0), 1, 1);
        reorder.push(at(0), 3, 3);
        let asked = (0..2_000)
            .map(|ms| reorder.asks(at(ms)).len())
            .sum::<usize>();
        assert_eq!(asked, usize::from(ASKS_MAX));
    }

    #[test]
    fn so_many_wait_at_once_and_no_more() {
        let mut reorder = Reorder::default();
        reorder.push(at(0), 0, 0);
        all(&mut reorder, at(0));
        for number in 2..=513 {
            reorder.push(at(1), number, number);
        }
        assert_eq!(all(&mut reorder, at(1)), []);
        reorder.push(at(1), 514, 514);
        assert_eq!(all(&mut reorder, at(1)).len(), 1 + 513);
    }

    #[test]
    fn a_sender_that_counts_anew_is_followed() {
        let mut reorder = Reorder::default();
        reorder.push(at(0), 10, 10);
        all(&mut reorder, at(0));
        assert!(reorder.push(at(1), 20_000, 20_000));
        let given = all(&mut reorder, at(1));
        assert_eq!(given[0], Next::Lost);
        assert_eq!(given[1..], packets([20_000]));
        assert_eq!(reorder.deadline(), None, "nothing between is missing");
    }

    proptest! {
        /// Whatever comes, numbers that come out rise, and every hole in them is told.
        #[test]
        fn order_holds_and_no_loss_is_silent(
            start in any::<u16>(),
            steps in proptest::collection::vec((-40_i32..60, 0_u64..30), 1..400),
        ) {
            let mut reorder = Reorder::default();
            let (mut now, mut head) = (0, i64::from(start) + 100_000);
            let mut last: Option<i64> = None;
            let mut is_told = false;
            for (step, ms) in steps {
                now += ms;
                let number = head + i64::from(step);
                head = head.max(number);
                let short = u16::try_from(number.rem_euclid(1 << 16)).unwrap();
                reorder.push(at(now), short, number);
                while let Some(next) = reorder.pop(at(now)) {
                    match next {
                        Next::Lost => is_told = true,
                        Next::Packet(number) => {
                            if let Some(last) = last {
                                prop_assert!(number > last);
                                prop_assert!(number == last + 1 || is_told);
                            }
                            (last, is_told) = (Some(number), false);
                        }
                    }
                }
                prop_assert!(reorder.waiting.len() <= WAITING_MAX);
                prop_assert!(reorder.missing.len() <= WAITING_MAX + 3_000);
            }
        }
    }
}
