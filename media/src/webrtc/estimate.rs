//! What the path to a viewer carries (spec media.md 4.4): from reports on the arrival of every
//! packet where they were negotiated, else from the viewer's own estimate, else from losses.
//!
//! Invariants
//! - The estimate stays within its bounds, whatever is reported.
//! - What is remembered of packets under way is bounded; the oldest leave.
//!
//! Not here: pacing; which rung is sent.

use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

use rtc::interceptor::{BandwidthEstimator, Gcc, LossController, PacketReport, convert_twcc};
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::transport_feedbacks::transport_layer_cc::TransportLayerCc;

const START_BPS: f64 = 2_000_000.0;
const FLOOR_BPS: f64 = 100_000.0;
/// Above every rung: more says only that the path is not the limit.
const CEILING_BPS: f64 = 8_000_000.0;
/// Bursts whose fate is not known yet.
const BURSTS_MAX: usize = 1_024;
/// A report on more packets than this is none.
const REPORTED_MAX: u16 = 2_048;

/// An estimate and what it comes from.
#[derive(Debug)]
pub(crate) struct Estimate {
    by: By,
    bps: f64,
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
    pub(crate) fn new(reporting: Reporting) -> Self {
        let by = if reporting.every_packet {
            By::Transport(Box::default())
        } else if reporting.own_estimate {
            By::Viewer
        } else {
            By::Loss(LossController::new(START_BPS, FLOOR_BPS, CEILING_BPS))
        };
        Self { by, bps: START_BPS }
    }

    /// Bits per second.
    pub(crate) fn bps(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within its bounds it is a positive number far below 2^53"
        )]
        let whole = self.bps as u64;
        whole
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
    pub(crate) fn arrived(&mut self, now: Instant, report: &TransportLayerCc) {
        if let By::Transport(transport) = &mut self.by {
            self.bps = bounded(transport.arrived(now, report), self.bps);
        }
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
    at: Instant,
}

/// The delay-based estimate.
struct Transport {
    control: Gcc,
    next: u64,
    departed: VecDeque<Departed>,
    /// Everything before this number was told to the control.
    told: u64,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            control: Gcc::new(START_BPS, FLOOR_BPS, CEILING_BPS),
            next: 0,
            departed: VecDeque::new(),
            told: 0,
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl Transport {
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
            at: now,
        });
        u16::try_from(first & 0xffff).unwrap_or(0)
    }

    /// Everything up to the newest packet that arrived is told once: what lies before it and is
    /// not said to have arrived was lost.
    fn arrived(&mut self, now: Instant, report: &TransportLayerCc) -> f64 {
        let is_sane = report.packet_status_count <= REPORTED_MAX;
        let acknowledged = if is_sane {
            convert_twcc(report)
        } else {
            Vec::new()
        };
        let newest = acknowledged.iter().rposition(|a| a.arrived);
        let mut reports = Vec::new();
        for (n, acknowledged) in acknowledged.iter().enumerate() {
            let number = self.full(acknowledged.sequence_number);
            let Some(number) = number.filter(|n| *n >= self.told) else {
                continue;
            };
            if newest.is_none_or(|newest| n > newest) {
                break;
            }
            self.told = number + 1;
            let Some(departed) = self.departed(number) else {
                continue;
            };
            reports.push(PacketReport {
                ssrc: 0,
                id: number,
                rtp_sequence_number: 0,
                is_twcc: true,
                twcc_sequence_number: acknowledged.sequence_number,
                size: departed.bytes,
                arrived: acknowledged.arrived,
                departure: departed.at,
                arrival: acknowledged.arrival,
                ecn: acknowledged.ecn,
            });
        }
        while let Some(oldest) = self.departed.front() {
            if oldest.first + oldest.packets > self.told {
                break;
            }
            self.departed.pop_front();
        }
        self.control.on_reports(now, &reports);
        self.control.target_bitrate()
    }

    /// A number with its rounds: the newest of those that were given out.
    fn full(&self, low: u16) -> Option<u64> {
        let newest = self.next.checked_sub(1)?;
        let newest_low = u16::try_from(newest & 0xffff).ok()?;
        newest.checked_sub(u64::from(newest_low.wrapping_sub(low)))
    }

    fn departed(&self, number: u64) -> Option<Departed> {
        let at = self.departed.partition_point(|d| d.first <= number);
        let departed = *self.departed.get(at.checked_sub(1)?)?;
        (number < departed.first + departed.packets).then_some(departed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk,
        SymbolTypeTcc,
    };

    use super::*;

    /// Nine packets of 1 200 bytes, thirty times a second: 2.6 Mb/s.
    const PACKETS: u16 = 9;

    fn start() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn by_packet() -> Estimate {
        Estimate::new(Reporting {
            every_packet: true,
            own_estimate: true,
        })
    }

    /// All of a burst arrived, `spread` from one to the next, after `delay_us` of travel.
    fn arrival(first: u16, at_us: u64, spread_us: i64) -> TransportLayerCc {
        let (ticks, rest_us) = (at_us / 64_000, at_us % 64_000);
        let received = SymbolTypeTcc::PacketReceivedLargeDelta;
        let delta = |n: u16| RecvDelta {
            type_tcc_packet: received,
            delta: if n == 0 {
                i64::try_from(rest_us).unwrap()
            } else {
                spread_us
            },
        };
        TransportLayerCc {
            base_sequence_number: first,
            packet_status_count: PACKETS,
            reference_time: u32::try_from(ticks).unwrap(),
            packet_chunks: vec![PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                packet_status_symbol: received,
                run_length: PACKETS,
            })],
            recv_deltas: (0..PACKETS).map(delta).collect(),
            ..TransportLayerCc::default()
        }
    }

    /// Sends so many bursts over a path whose queue grows by `growth_us` with each.
    fn play(estimate: &mut Estimate, bursts: u64, growth_us: u64) -> u64 {
        let start = start();
        for n in 0..bursts {
            let sent_us = n * 33_333;
            let now = start + Duration::from_micros(sent_us);
            let first = estimate.number(now, PACKETS.into(), 9 * 1_200).unwrap();
            let arrived_us = sent_us + 20_000 + n * growth_us;
            let heard = start + Duration::from_micros(arrived_us + 20_000);
            estimate.arrived(heard, &arrival(first, arrived_us, 300));
        }
        estimate.bps()
    }

    #[test]
    fn a_path_that_keeps_up_is_believed_to_carry_more_up_to_the_bound() {
        let mut estimate = by_packet();
        assert_eq!(estimate.bps(), 2_000_000);
        let after_10_s = play(&mut estimate, 300, 0);
        assert!(after_10_s > 2_500_000, "{after_10_s}");
        let mut estimate = by_packet();
        // Over rounds of the number as well.
        assert_eq!(play(&mut estimate, 9_000, 0), 8_000_000);
    }

    #[test]
    fn a_path_whose_queue_grows_is_believed_to_carry_less() {
        let mut estimate = by_packet();
        let after_10_s = play(&mut estimate, 300, 20_000);
        assert!(after_10_s < 2_300_000, "{after_10_s}");
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
        estimate.arrived(start(), &arrival(7, 0, 300));
        estimate.number(start(), 9, 10_000);
        estimate.arrived(start(), &arrival(40_000, 0, 300));
        let mut absurd = arrival(0, 0, 300);
        absurd.packet_status_count = u16::MAX;
        estimate.arrived(start(), &absurd);
        let lost = SymbolTypeTcc::PacketNotReceived;
        let nothing = TransportLayerCc {
            packet_status_count: 7,
            packet_chunks: vec![PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                symbol_list: vec![lost; 7],
                ..StatusVectorChunk::default()
            })],
            ..TransportLayerCc::default()
        };
        estimate.arrived(start(), &nothing);
        assert_eq!(estimate.bps(), 2_000_000);
    }

    #[test]
    fn a_viewers_own_estimate_counts_only_where_there_is_no_better() {
        let mut estimate = Estimate::new(Reporting {
            every_packet: false,
            own_estimate: true,
        });
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
        let mut estimate = Estimate::new(Reporting::default());
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
