//! What the path to a viewer carries (spec media.md 4.4): from reports on the arrival of every
//! packet where they were negotiated, else from the viewer's own estimate, else from losses.
//!
//! Invariants
//! - The estimate stays within its bounds, whatever is reported.
//! - What is remembered of packets under way is bounded; the oldest leave.
//!
//! Not here: pacing; which rung is sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtc::interceptor::LossController;
use rtc::rtcp::reception_report::ReceptionReport;

use super::arrivals::Arrivals;
use super::delay::{CEILING_BPS, DelayControl, FLOOR_BPS, Fate, START_BPS, bits};
use crate::time::micros;

/// Bursts whose fate is not known yet.
const BURSTS_MAX: usize = 1_024;
/// A path that was found to be the limit is taken for it for so long.
const NARROW: Duration = Duration::from_secs(3);
/// A probe lasts so long, and its packets leave in slices of this.
const PROBE: Duration = Duration::from_millis(200);
const PROBE_SLICE: Duration = Duration::from_millis(10);
/// A probe whose packets are not all told of by then failed.
const PROBE_TOLD_MAX: Duration = Duration::from_millis(1_500);
/// Of the packets of a probe, this part must have arrived.
const PROBE_ARRIVED_MIN: f64 = 0.9;

/// An estimate and what it comes from.
#[derive(Debug)]
pub(crate) struct Estimate {
    by: By,
    bps: f64,
    /// When it was lowered last.
    lowered: Option<Instant>,
}

#[derive(Debug)]
enum By {
    Transport(Box<Transport>),
    Viewer,
    Loss(LossController),
}

/// What a viewer can report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reporting {
    pub(crate) every_packet: bool,
    pub(crate) own_estimate: bool,
}

impl Estimate {
    pub(crate) fn new(now: Instant, reporting: Reporting) -> Self {
        let by = if reporting.every_packet {
            By::Transport(Box::new(Transport::new(now)))
        } else if reporting.own_estimate {
            By::Viewer
        } else {
            By::Loss(LossController::new(START_BPS, FLOOR_BPS, CEILING_BPS))
        };
        Self {
            by,
            bps: START_BPS,
            lowered: None,
        }
    }

    /// Bits per second.
    pub(crate) fn bps(&self) -> u64 {
        whole(self.bps)
    }

    /// Numbers the packets of a burst that leaves now; returns the first number, if they carry
    /// any.
    pub(crate) fn number(&mut self, now: Instant, packets: usize, bytes: usize) -> Option<u16> {
        match &mut self.by {
            By::Transport(transport) => Some(transport.number(now, packets, bytes)),
            By::Viewer | By::Loss(_) => None,
        }
    }

    /// The viewer reported which packets arrived, and when.
    pub(crate) fn arrived(&mut self, now: Instant, report: &Arrivals<'_>) {
        if let By::Transport(transport) = &mut self.by {
            let before = self.bps;
            self.bps = transport.arrived(report);
            if self.bps < before {
                self.lowered = Some(now);
            }
        }
    }

    /// Whether the path was found to be the limit a moment ago.
    pub(crate) fn is_narrow(&self, now: Instant) -> bool {
        self.lowered
            .is_some_and(|at| now.saturating_duration_since(at) < NARROW)
    }

    /// The viewer reported what it believes it can receive.
    pub(crate) fn told(&mut self, bps: f32) {
        if matches!(self.by, By::Viewer) {
            self.bps = bounded(f64::from(bps), self.bps);
        }
    }

    /// The viewer reported what part of a stream was lost.
    pub(crate) fn lost(&mut self, now: Instant, report: &ReceptionReport) {
        if let By::Loss(control) = &mut self.by {
            let target = control.update(now, usize::from(report.fraction_lost), 256);
            self.bps = bounded(target, self.bps);
        }
    }

    /// Begins a burst at this rate; false where nobody could tell what comes of it.
    pub(crate) fn probe(&mut self, now: Instant, rate_bps: u64) -> bool {
        let By::Transport(transport) = &mut self.by else {
            return false;
        };
        transport.probe = Some(Probe::new(now, rate_bps));
        true
    }

    /// Bytes of the probe to send now.
    pub(crate) fn probe_bytes(&mut self, now: Instant) -> usize {
        self.probing().map_or(0, |probe| probe.due_bytes(now))
    }

    /// When more of it is to be sent.
    pub(crate) fn probe_deadline(&self) -> Option<Instant> {
        match &self.by {
            By::Transport(transport) => transport.probe.as_ref().and_then(Probe::deadline),
            By::Viewer | By::Loss(_) => None,
        }
    }

    /// What came of the probe, once: whether the path carries its rate.
    pub(crate) fn probed(&mut self, now: Instant) -> Option<bool> {
        let By::Transport(transport) = &mut self.by else {
            return None;
        };
        let outcome = transport.outcome(now)?;
        transport.probe = None;
        self.bps = transport.control.bps();
        Some(outcome)
    }

    fn probing(&mut self) -> Option<&mut Probe> {
        match &mut self.by {
            By::Transport(transport) => transport.probe.as_mut(),
            By::Viewer | By::Loss(_) => None,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a positive number far below 2^53"
)]
const fn whole(bps: f64) -> u64 {
    bps as u64
}

fn bounded(bps: f64, otherwise: f64) -> f64 {
    if bps.is_finite() {
        bps.clamp(FLOOR_BPS, CEILING_BPS)
    } else {
        otherwise
    }
}

/// Packets that left with one call.
#[derive(Clone, Copy, Debug)]
struct Departed {
    first: u64,
    packets: u64,
    /// Of each packet, in the mean.
    bytes: usize,
    at_us: i64,
}

/// A burst that asks what the path carries.
#[derive(Debug)]
struct Probe {
    rate_bps: u64,
    began: Instant,
    /// When the next slice leaves.
    next: Instant,
    sent_bytes: usize,
    /// Its first packet and the one after its last, once they have left.
    numbers: Option<(u64, u64)>,
    arrived: u32,
    lost: u32,
    /// The first and the last arrival, and the bytes of all but the first.
    span: Option<(i64, i64)>,
    bytes: usize,
}

impl Probe {
    const fn new(now: Instant, rate_bps: u64) -> Self {
        Self {
            rate_bps,
            began: now,
            next: now,
            sent_bytes: 0,
            numbers: None,
            arrived: 0,
            lost: 0,
            span: None,
            bytes: 0,
        }
    }

    /// What is to leave by the end of this slice and has not.
    fn due_bytes(&mut self, now: Instant) -> usize {
        if self.has_left(now) {
            return 0;
        }
        self.next = now + PROBE_SLICE;
        let passed = now.saturating_duration_since(self.began) + PROBE_SLICE;
        let us = u64::try_from(passed.min(PROBE).as_micros()).unwrap_or(0);
        let due = usize::try_from(self.rate_bps * us / 8_000_000).unwrap_or(0);
        due.saturating_sub(self.sent_bytes)
    }

    fn has_left(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= PROBE
    }

    fn deadline(&self) -> Option<Instant> {
        (self.next < self.began + PROBE).then_some(self.next)
    }

    fn left(&mut self, first: u64, packets: u64, bytes: usize) {
        self.sent_bytes += bytes;
        let begin = self.numbers.map_or(first, |(begin, _)| begin);
        self.numbers = Some((begin, first + packets));
    }

    fn note(&mut self, number: u64, fate: Fate) {
        let is_its = self
            .numbers
            .is_some_and(|(first, end)| (first..end).contains(&number));
        if !is_its {
            return;
        }
        let Some(arrived_us) = fate.arrived_us else {
            self.lost += 1;
            return;
        };
        self.arrived += 1;
        match &mut self.span {
            Some((_, last)) => {
                *last = (*last).max(arrived_us);
                self.bytes += fate.bytes;
            }
            None => self.span = Some((arrived_us, arrived_us)),
        }
    }

    /// The pace at which it arrived; 0 when too much of it did not.
    fn arrived_bps(&self) -> f64 {
        let all = f64::from(self.arrived + self.lost);
        let Some((first, last)) = self.span else {
            return 0.0;
        };
        if f64::from(self.arrived) < all * PROBE_ARRIVED_MIN {
            return 0.0;
        }
        // What arrives faster than it left tells nothing of more than it was.
        let us = u32::try_from((last - first).max(1)).unwrap_or(u32::MAX);
        bits(self.bytes) * 1_000_000.0 / f64::from(us)
    }
}

/// The delay-based estimate.
#[derive(Debug)]
struct Transport {
    control: DelayControl,
    began: Instant,
    next: u64,
    departed: VecDeque<Departed>,
    /// Everything before this number was told to the control.
    told: u64,
    probe: Option<Probe>,
}

impl Transport {
    fn new(now: Instant) -> Self {
        Self {
            control: DelayControl::new(),
            began: now,
            next: 0,
            departed: VecDeque::new(),
            told: 0,
            probe: None,
        }
    }

    fn number(&mut self, now: Instant, packets: usize, bytes: usize) -> u16 {
        let first = self.next;
        let count = u64::try_from(packets).unwrap_or(0);
        self.next += count;
        if self.departed.len() >= BURSTS_MAX {
            self.departed.pop_front();
        }
        self.departed.push_back(Departed {
            first,
            packets: count,
            bytes: bytes.checked_div(packets).unwrap_or(0),
            at_us: micros(now.saturating_duration_since(self.began)),
        });
        // Whatever leaves while a probe does is part of what the path is asked to carry.
        if let Some(probe) = self.probe.as_mut().filter(|probe| !probe.has_left(now)) {
            probe.left(first, count, bytes);
        }
        u16::try_from(first & 0xffff).unwrap_or(0)
    }

    /// Everything up to the newest packet that arrived is told once: what lies before it and is
    /// not said to have arrived was lost.
    fn arrived(&mut self, report: &Arrivals<'_>) -> f64 {
        let has_arrived = |status: &super::arrivals::Status| status.arrived_us.is_some();
        let newest = report.statuses().filter(has_arrived).last();
        let Some(newest) = newest.and_then(|status| self.full(status.number)) else {
            return self.control.bps();
        };
        for status in report.statuses() {
            let number = self.full(status.number).filter(|n| *n >= self.told);
            let Some(number) = number else { continue };
            if number > newest {
                break;
            }
            self.told = number + 1;
            self.leave_behind(number);
            let Some(departed) = self.departed.front().filter(|d| d.first <= number) else {
                continue;
            };
            let fate = Fate {
                left_us: departed.at_us,
                arrived_us: status.arrived_us,
                bytes: departed.bytes,
            };
            self.control.note(fate);
            if let Some(probe) = &mut self.probe {
                probe.note(number, fate);
            }
        }
        self.control.bps()
    }

    /// Forgets the bursts before a packet.
    fn leave_behind(&mut self, number: u64) {
        while let Some(oldest) = self.departed.front() {
            if oldest.first + oldest.packets > number {
                break;
            }
            self.departed.pop_front();
        }
    }

    /// A number with its rounds: the newest of those that were given out.
    fn full(&self, low: u16) -> Option<u64> {
        let newest = self.next.checked_sub(1)?;
        let newest_low = u16::try_from(newest & 0xffff).ok()?;
        newest.checked_sub(u64::from(newest_low.wrapping_sub(low)))
    }

    fn outcome(&mut self, now: Instant) -> Option<bool> {
        let probe = self.probe.as_ref()?;
        let end = probe.numbers.map_or(0, |(_, end)| end);
        let is_told = probe.has_left(now) && self.told >= end;
        let is_late = now.saturating_duration_since(probe.began) >= PROBE_TOLD_MAX;
        if !is_told && !is_late {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate, far below 2^52")]
        let rate_bps = probe.rate_bps as f64;
        let arrived_bps = probe.arrived_bps();
        self.control.probed(rate_bps, arrived_bps);
        Some(is_told && arrived_bps >= rate_bps * PROBE_ARRIVED_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nine packets of 1 200 bytes, thirty times a second: 2.6 Mb/s.
    const PACKETS: u16 = 9;
    const PICTURE_US: u64 = 33_333;

    fn start() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(|| tokio::time::Instant::now().into_std())
    }

    fn by_packet() -> Estimate {
        let reporting = Reporting {
            every_packet: true,
            own_estimate: true,
        };
        Estimate::new(start(), reporting)
    }

    /// So many packets arrived, `spread_us` from one to the next; as bytes on the wire.
    fn report(first: u16, count: u16, at_us: u64, spread_us: u64) -> Vec<u8> {
        let (ticks, rest_us) = (at_us / 64_000, at_us % 64_000);
        let mut out = vec![0x8f, 205, 0, 0];
        out.extend([0; 8]);
        out.extend(first.to_be_bytes());
        out.extend(count.to_be_bytes());
        out.extend(u32::try_from(ticks << 8).unwrap().to_be_bytes());
        // A run of packets that say in two bytes when they arrived.
        out.extend((0x4000 | count).to_be_bytes());
        for n in 0..count {
            let us = if n == 0 { rest_us } else { spread_us };
            out.extend(i16::try_from(us / 250).unwrap().to_be_bytes());
        }
        out
    }

    fn hear(estimate: &mut Estimate, report: &[u8]) {
        estimate.arrived(start(), &Arrivals::read(report).unwrap());
    }

    /// Sends so many bursts over a path whose queue grows by `growth_us` with each.
    fn play(estimate: &mut Estimate, bursts: u64, growth_us: u64) -> u64 {
        for n in 0..bursts {
            let sent_us = n * PICTURE_US;
            let now = start() + Duration::from_micros(sent_us);
            let first = estimate.number(now, PACKETS.into(), 9 * 1_200).unwrap();
            let arrived_us = sent_us + 20_000 + n * growth_us;
            hear(estimate, &report(first, PACKETS, arrived_us, 250));
        }
        estimate.bps()
    }

    #[test]
    fn over_rounds_of_its_numbers_a_path_that_keeps_up_is_believed_to_carry_all() {
        let mut estimate = by_packet();
        assert_eq!(estimate.bps(), 2_000_000);
        assert_eq!(play(&mut estimate, 9_000, 0), 8_000_000);
    }

    #[test]
    fn a_path_whose_queue_grows_carries_what_arrives() {
        let mut estimate = by_packet();
        // Half of what is sent arrives in time: 1.3 Mb/s, of which nine tenths are used.
        let after_1_s = play(&mut estimate, 30, PICTURE_US);
        assert!((1_050_000..1_300_000).contains(&after_1_s), "{after_1_s}");
    }

    #[test]
    fn packets_under_way_are_remembered_within_a_bound() {
        let mut estimate = by_packet();
        for _ in 0..100_000 {
            estimate.number(start(), 9, 10_000);
        }
        let By::Transport(transport) = &estimate.by else {
            panic!("every packet is reported");
        };
        assert_eq!(transport.departed.len(), BURSTS_MAX);
    }

    #[test]
    fn reports_on_nothing_that_was_sent_change_nothing() {
        let mut estimate = by_packet();
        hear(&mut estimate, &report(7, 9, 0, 250));
        estimate.number(start(), 9, 10_000);
        hear(&mut estimate, &report(40_000, 9, 0, 250));
        assert_eq!(estimate.bps(), 2_000_000);
    }

    /// Sends what a probe wants, over a path that carries `link_bps`; what came of it.
    fn probe(link_bps: u64, rate_bps: u64) -> (Option<bool>, u64) {
        let mut estimate = by_packet();
        assert!(estimate.probe(start(), rate_bps));
        let (mut ms, mut arrived_us, mut sent) = (0, 20_000, 0);
        let mut waiting = Vec::new();
        while ms < 190 {
            let now = start() + Duration::from_millis(ms);
            let bytes = estimate.probe_bytes(now);
            let count = u16::try_from(bytes.div_ceil(240)).unwrap();
            if count > 0 {
                let first = estimate
                    .number(now, count.into(), usize::from(count) * 240)
                    .unwrap();
                sent += u64::from(count) * 240;
                let spread_us = 240 * 8_000_000 / link_bps;
                arrived_us = arrived_us.max(ms * 1_000 + 20_000);
                waiting.push(report(first, count, arrived_us, spread_us));
                arrived_us += u64::from(count) * spread_us;
            }
            ms += 10;
            assert_eq!(estimate.probed(now), None, "it is still under way");
        }
        assert!(
            (sent * 8_000 / 200).abs_diff(rate_bps) < rate_bps / 10,
            "{sent}"
        );
        for report in &waiting {
            hear(&mut estimate, report);
        }
        let outcome = estimate.probed(start() + Duration::from_millis(300));
        (outcome, estimate.bps())
    }

    #[test]
    fn a_probe_tells_whether_a_path_carries_its_rate() {
        let (is_carried, bps) = probe(20_000_000, 3_750_000);
        assert_eq!(is_carried, Some(true));
        assert!(bps > 3_400_000, "{bps}");
        let (is_carried, bps) = probe(1_000_000, 1_800_000);
        assert_eq!(is_carried, Some(false));
        assert!((700_000..1_100_000).contains(&bps), "{bps}");
    }

    #[test]
    fn a_probe_that_nobody_tells_of_has_failed() {
        let mut estimate = by_packet();
        assert!(estimate.probe(start(), 1_000_000));
        estimate.number(start(), 5, 1_200);
        assert_eq!(
            estimate.probed(start() + Duration::from_millis(1_400)),
            None
        );
        assert_eq!(estimate.probed(start() + PROBE_TOLD_MAX), Some(false));
        assert_eq!(estimate.probed(start() + PROBE_TOLD_MAX), None, "told once");
        let mut blind = Estimate::new(start(), Reporting::default());
        assert!(!blind.probe(start(), 1_000_000));
    }

    #[test]
    fn a_viewers_own_estimate_counts_only_where_there_is_no_better() {
        let mut estimate = Estimate::new(
            start(),
            Reporting {
                every_packet: false,
                own_estimate: true,
            },
        );
        let cases = [
            (1_500_000.0, 1_500_000),
            (0.0, 100_000),
            (f32::MAX, 8_000_000),
            (f32::NAN, 8_000_000),
            (f32::INFINITY, 8_000_000),
        ];
        for (told, expected) in cases {
            estimate.told(told);
            assert_eq!(estimate.bps(), expected, "{told}");
        }
        let mut better = by_packet();
        better.told(300_000.0);
        assert_eq!(better.bps(), 2_000_000);
    }

    #[test]
    fn losses_alone_lower_the_estimate_and_their_absence_raises_it() {
        let mut estimate = Estimate::new(start(), Reporting::default());
        let report = |fraction_lost| ReceptionReport {
            fraction_lost,
            ..ReceptionReport::default()
        };
        let start = start();
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(estimate.number(start, 9, 10_000), None);
        (0..5).for_each(|second| estimate.lost(at(second), &report(80)));
        let low = estimate.bps();
        assert!(low < 1_500_000, "{low}");
        (5..60).for_each(|second| estimate.lost(at(second), &report(0)));
        assert!(estimate.bps() > low);
    }
}
