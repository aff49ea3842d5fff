//! What a path carries, by how packets queue on it. No clock of its own, no IO.
//!
//! A queue shows as packets that take longer than the fastest of late. While one stands and packets
//! arrive at a slower pace than they left, the pace at which they arrive is what the path carries.
//! While none does, it is believed to carry a little more with every second: whoever wants to use
//! that probes first.
//!
//! Invariants
//! - The estimate stays within its bounds.
//! - A queue that does not grow (another's, which ours only waits in) lowers nothing.

use std::collections::VecDeque;

pub(crate) const START_BPS: f64 = 2_000_000.0;
pub(crate) const FLOOR_BPS: f64 = 100_000.0;
/// Above every rung: more says only that the path is not the limit.
pub(crate) const CEILING_BPS: f64 = 8_000_000.0;
/// A queue is there when every packet takes so much longer than the fastest.
const QUEUE_US: i64 = 40_000;
/// So long must it be there before it counts, and between two looks at it.
const BUSY_US: i64 = 200_000;
/// A path that overflows is looked at again after this.
const FULL_US: i64 = 2_000_000;
/// Packets that took this much of the time in which they left queue up.
const STRETCH: f64 = 1.1;
/// What is used of what the path was seen to carry.
const USED: f64 = 0.9;
/// Growth in a second while nothing speaks against it.
const GROWTH: f64 = 1.10;
/// More than this part lost speaks against it, and takes half of it away.
const LOST_MAX: f64 = 0.10;
/// The fastest packet counts for so long, in two halves.
const FASTEST_US: i64 = 15_000_000;
/// Packets looked at for losses.
const LOOKED_AT: usize = 100;

/// A packet whose fate is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    /// When it left, and when it arrived on the far end's clock, in microseconds.
    pub(crate) left_us: i64,
    pub(crate) arrived_us: Option<i64>,
    pub(crate) bytes: usize,
}

/// A stretch of time in which every packet queued.
#[derive(Clone, Copy, Debug)]
struct Busy {
    left_us: i64,
    arrived_us: i64,
    /// Of all packets but the first, whose time is not in the stretch.
    bytes: usize,
    lost: u32,
    arrived: u32,
}

/// The estimate.
#[derive(Debug)]
pub(crate) struct DelayControl {
    bps: f64,
    /// The smallest difference of the two clocks, in this half and the one before.
    fastest: [Option<i64>; 2],
    half_since_us: i64,
    busy: Option<Busy>,
    grown_us: Option<i64>,
    /// When it was lowered last.
    full_us: Option<i64>,
    fates: VecDeque<bool>,
    losses: u32,
}

impl DelayControl {
    pub(crate) fn new() -> Self {
        Self {
            bps: START_BPS,
            fastest: [None; 2],
            half_since_us: 0,
            busy: None,
            grown_us: None,
            full_us: None,
            fates: VecDeque::new(),
            losses: 0,
        }
    }

    pub(crate) const fn bps(&self) -> f64 {
        self.bps
    }

    /// Takes packets in the order in which they left.
    pub(crate) fn note(&mut self, fate: Fate) {
        self.note_loss(fate.arrived_us.is_none());
        let Some(arrived_us) = fate.arrived_us else {
            if let Some(busy) = &mut self.busy {
                busy.lost += 1;
            }
            return;
        };
        let queue_us = self.queue_us(fate.left_us, arrived_us);
        if queue_us <= QUEUE_US {
            self.busy = None;
            self.grow(arrived_us);
            return;
        }
        self.grown_us = Some(arrived_us);
        let busy = self.busy.get_or_insert(Busy {
            left_us: fate.left_us,
            arrived_us,
            bytes: 0,
            lost: 0,
            arrived: 0,
        });
        if busy.arrived > 0 {
            busy.bytes += fate.bytes;
        }
        busy.arrived += 1;
        let took_us = arrived_us - busy.arrived_us;
        if took_us >= BUSY_US {
            let busy = *busy;
            // The next look begins here.
            self.busy = Some(Busy {
                left_us: fate.left_us,
                arrived_us,
                bytes: 0,
                lost: 0,
                arrived: 1,
            });
            self.look(busy, fate.left_us, took_us);
        }
    }

    /// A queue stood for a while: does it grow, or overflow?
    fn look(&mut self, busy: Busy, left_us: i64, took_us: i64) {
        let [took, left] = [took_us, left_us - busy.left_us].map(seconds);
        let is_growing = took > left * STRETCH;
        let is_full = f64::from(busy.lost) > f64::from(busy.lost + busy.arrived) * LOST_MAX;
        let carried = bits(busy.bytes) / took;
        // What was sent again takes its part of a full path, and is not among what arrived: one
        // look at it says enough for a while.
        let is_news = self
            .full_us
            .is_none_or(|at| busy.arrived_us - at >= FULL_US);
        if is_growing || is_full && is_news {
            self.full_us = Some(busy.arrived_us);
            self.lower(carried * USED);
        }
    }

    fn note_loss(&mut self, is_lost: bool) {
        self.fates.push_back(is_lost);
        self.losses += u32::from(is_lost);
        if self.fates.len() > LOOKED_AT && self.fates.pop_front() == Some(true) {
            self.losses -= 1;
        }
    }

    /// How much longer a packet took than the fastest of late.
    fn queue_us(&mut self, left_us: i64, arrived_us: i64) -> i64 {
        let took_us = arrived_us - left_us;
        if arrived_us - self.half_since_us >= FASTEST_US / 2 || arrived_us < self.half_since_us {
            self.half_since_us = arrived_us;
            self.fastest = [None, self.fastest[0]];
        }
        let fastest = self.fastest[0].map_or(took_us, |fastest| fastest.min(took_us));
        self.fastest[0] = Some(fastest);
        took_us - self.fastest[1].map_or(fastest, |before| before.min(fastest))
    }

    fn grow(&mut self, now_us: i64) {
        let since_us = self.grown_us.map_or(0, |at| now_us - at);
        // Between reports that lie far apart nobody knows what went on.
        let since = seconds(since_us.clamp(0, 1_000_000));
        self.grown_us = Some(self.grown_us.map_or(now_us, |at| at.max(now_us)));
        if f64::from(self.losses)
            <= f64::from(u32::try_from(self.fates.len()).unwrap_or(0)) * LOST_MAX
        {
            self.bps = (self.bps * GROWTH.powf(since)).min(CEILING_BPS);
        }
    }

    fn lower(&mut self, to_bps: f64) {
        if to_bps.is_finite() {
            self.bps = self.bps.min(to_bps).max(FLOOR_BPS);
        }
    }

    /// A burst at a known pace arrived at this one: now it is known what the path carries.
    pub(crate) fn probed(&mut self, pace_bps: f64, arrived_bps: f64) {
        let is_carried = arrived_bps >= pace_bps * USED;
        if is_carried {
            self.bps = self
                .bps
                .max(pace_bps.min(arrived_bps))
                .clamp(FLOOR_BPS, CEILING_BPS);
        } else {
            self.lower(arrived_bps * USED);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "spans and sizes far below 2^52")]
fn seconds(us: i64) -> f64 {
    us as f64 / 1_000_000.0
}

#[expect(clippy::cast_precision_loss, reason = "spans and sizes far below 2^52")]
pub(crate) fn bits(bytes: usize) -> f64 {
    bytes as f64 * 8.0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PACKET: usize = 1_200;
    /// The clocks of the two ends have nothing to do with each other.
    const AHEAD_US: i64 = 7_000_000_000;

    /// A path with one queue, and a sender of bursts.
    struct Link {
        control: DelayControl,
        link_bps: f64,
        queue_bytes_max: f64,
        /// When the queue is empty again.
        free_us: f64,
        now_us: i64,
        delay_us: i64,
        lose_every: Option<u32>,
        sent: u32,
    }

    impl Link {
        fn of(link_bps: f64) -> Self {
            Self {
                control: DelayControl::new(),
                link_bps,
                queue_bytes_max: 60_000.0,
                free_us: 0.0,
                now_us: 1_000_000,
                delay_us: 50_000,
                lose_every: None,
                sent: 0,
            }
        }

        /// So many seconds of pictures at this rate, a keyframe of `times` the size every two.
        fn play(&mut self, seconds: u32, rate_bps: f64, times: f64) {
            for n in 0..seconds * 30 {
                let size = if n % 60 == 0 { times } else { 1.0 };
                let bytes = rate_bps / 8.0 / 30.0 * size;
                let mut left = bytes;
                while left > 0.0 {
                    self.packet();
                    left -= 1_200.0;
                }
                self.now_us += 33_333;
            }
        }

        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "a test"
        )]
        fn packet(&mut self) {
            self.sent += 1;
            let now = self.now_us as f64;
            let waits_us = (self.free_us - now).max(0.0);
            let queued_bytes = waits_us * self.link_bps / 8e6;
            let is_lost = self.lose_every.is_some_and(|n| self.sent.is_multiple_of(n));
            let arrived_us = (queued_bytes <= self.queue_bytes_max && !is_lost).then(|| {
                self.free_us = now + waits_us + bits(PACKET) * 1e6 / self.link_bps;
                self.free_us as i64 + self.delay_us + AHEAD_US
            });
            self.control.note(Fate {
                left_us: self.now_us,
                arrived_us,
                bytes: PACKET,
            });
        }
    }

    #[test]
    fn a_path_that_keeps_up_is_believed_to_carry_more_up_to_the_bound() {
        let mut link = Link::of(20e6);
        link.play(10, 1.2e6, 4.0);
        let after_10_s = link.control.bps();
        assert!((4.5e6..5.5e6).contains(&after_10_s), "{after_10_s}");
        link.play(60, 1.2e6, 4.0);
        assert!((link.control.bps() - CEILING_BPS).abs() < 1.0);
    }

    #[test]
    fn a_path_that_falls_to_an_eighth_is_known_within_a_second() {
        for link_bps in [0.3e6, 0.5e6, 1.0e6] {
            let mut link = Link::of(4e6);
            link.play(20, 2.5e6, 4.0);
            assert!(link.control.bps() > 2.75e6, "{}", link.control.bps());
            link.link_bps = link_bps;
            link.play(1, 2.5e6, 1.0);
            let known = link.control.bps();
            assert!(
                (0.7..1.05).contains(&(known / link_bps)),
                "{known} of {link_bps}"
            );
            // What fits drains the queue, and is not held against the path.
            link.play(3, link_bps * 0.7, 1.0);
            assert!(
                link.control.bps() > link_bps * 0.75,
                "{}",
                link.control.bps()
            );
        }
    }

    #[test]
    fn after_the_path_is_free_again_the_estimate_doubles_within_ten_seconds() {
        let mut link = Link::of(0.5e6);
        link.play(10, 0.6e6, 1.0);
        let low = link.control.bps();
        assert!(low < 0.55e6, "{low}");
        link.link_bps = 4e6;
        link.play(10, 0.35e6, 2.0);
        assert!(link.control.bps() > low * 2.0, "{}", link.control.bps());
    }

    #[test]
    fn keyframes_that_fill_the_path_for_a_moment_cost_nothing() {
        let mut link = Link::of(4e6);
        for _ in 0..30 {
            link.play(1, 2.5e6, 8.0);
            assert!(link.control.bps() > 1.99e6, "{}", link.control.bps());
        }
        assert!(link.control.bps() > 2.75e6, "{}", link.control.bps());
    }

    #[test]
    fn losses_without_a_queue_lower_nothing_and_many_of_them_end_growth() {
        let mut link = Link::of(20e6);
        link.lose_every = Some(20);
        link.play(5, 1.2e6, 2.0);
        assert!(link.control.bps() > START_BPS * 1.4);
        link.lose_every = Some(5);
        link.play(2, 1.2e6, 2.0);
        let stands = link.control.bps();
        link.play(10, 1.2e6, 2.0);
        assert!((link.control.bps() - stands).abs() < 1.0);
    }

    #[test]
    fn a_queue_of_others_that_stands_still_lowers_nothing() {
        let mut link = Link::of(20e6);
        link.play(3, 1.2e6, 1.0);
        let before = link.control.bps();
        link.delay_us += 150_000;
        link.play(5, 1.2e6, 1.0);
        assert!(
            link.control.bps() >= before * 0.999,
            "{}",
            link.control.bps()
        );
    }

    #[test]
    fn a_probe_says_what_the_path_carries() {
        let mut control = DelayControl::new();
        control.probed(3_750_000.0, 3_700_000.0);
        assert!((control.bps() - 3_700_000.0).abs() < 1.0);
        control.probed(6_000_000.0, 4_000_000.0);
        assert!(
            (control.bps() - 3_600_000.0).abs() < 101_000.0,
            "{}",
            control.bps()
        );
        control.probed(1_000_000.0, 990_000.0);
        assert!(
            control.bps() > 3_500_000.0,
            "a small one says nothing of more"
        );
    }

    proptest! {
        #[test]
        fn whatever_is_reported_the_estimate_stays_within_its_bounds(
            fates in proptest::collection::vec(
                (any::<i32>(), proptest::option::of(any::<i32>()), 0_usize..100_000), 0..400),
        ) {
            let mut control = DelayControl::new();
            for (left, arrived, bytes) in fates {
                control.note(Fate {
                    left_us: i64::from(left) * 1_000,
                    arrived_us: arrived.map(|us| i64::from(us) * 1_000),
                    bytes,
                });
                prop_assert!((FLOOR_BPS..=CEILING_BPS).contains(&control.bps()));
            }
        }
    }
}
