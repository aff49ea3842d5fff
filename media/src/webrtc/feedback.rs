//! What a viewer reports (RFC 3550, RFC 4585, RFC 5104, RFC 3611).

use std::time::{Duration, Instant};

use rtc::rtcp::extended_report::{ExtendedReport, ReceiverReferenceTimeReportBlock};
use rtc::rtcp::packet::{Packet, unmarshal};
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate as remb;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};

/// One thing that a viewer reports.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Feedback {
    /// It cannot decode and wants a keyframe.
    KeyframeRequest,
    /// Packets of a stream did not arrive.
    Lost { ssrc: u32, pairs: Vec<NackPair> },
    /// How a stream arrives.
    Reception(ReceptionReport),
    /// What it believes it can receive, in bits per second.
    Estimate(f32),
    /// Which packets arrived, of all streams, and when: a report as it came, for
    /// [`super::arrivals`].
    Arrivals(Box<[u8]>),
    /// It wants to know how long its reports travel.
    ReferenceTime { ssrc: u32, ntp: u64 },
}

/// Reads a compound packet; what is not understood is left out.
pub(crate) fn read(packet: &[u8]) -> Vec<Feedback> {
    let mut out = Vec::new();
    for one in Compound(packet) {
        // By far the most reports are of this kind: they are read where they are used.
        if one.first().is_some_and(|head| head & 31 == ARRIVALS.0)
            && one.get(1) == Some(&ARRIVALS.1)
        {
            out.push(Feedback::Arrivals(one.into()));
            continue;
        }
        let Ok(packets) = unmarshal(&mut &one[..]) else {
            break;
        };
        for packet in packets {
            note(packet.as_ref(), &mut out);
        }
    }
    out
}

/// Format and type of a report on the arrival of every packet.
const ARRIVALS: (u8, u8) = (15, 205);

/// The packets of a compound; ends where one is cut short.
struct Compound<'a>(&'a [u8]);

impl<'a> Iterator for Compound<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let words = u16::from_be_bytes(*self.0.get(2..)?.first_chunk()?);
        let (one, rest) = self.0.split_at_checked((usize::from(words) + 1) * 4)?;
        self.0 = rest;
        Some(one)
    }
}

fn note(packet: &dyn Packet, out: &mut Vec<Feedback>) {
    let any = packet.as_any();
    if any.is::<PictureLossIndication>() || any.is::<FullIntraRequest>() {
        out.push(Feedback::KeyframeRequest);
    } else if let Some(nack) = any.downcast_ref::<TransportLayerNack>() {
        out.push(Feedback::Lost {
            ssrc: nack.media_ssrc,
            pairs: nack.nacks.clone(),
        });
    } else if let Some(report) = any.downcast_ref::<ReceiverReport>() {
        out.extend(report.reports.iter().cloned().map(Feedback::Reception));
    } else if let Some(estimate) = any.downcast_ref::<remb::ReceiverEstimatedMaximumBitrate>() {
        out.push(Feedback::Estimate(estimate.bitrate));
    } else if let Some(extended) = any.downcast_ref::<ExtendedReport>() {
        let ssrc = extended.sender_ssrc;
        let blocks = extended.reports.iter().map(|block| block.as_any());
        let times = blocks.filter_map(|b| b.downcast_ref::<ReceiverReferenceTimeReportBlock>());
        out.extend(times.map(|time| Feedback::ReferenceTime {
            ssrc,
            ntp: time.ntp_timestamp,
        }));
    }
}

/// Sequence numbers of a NACK's pair: the first, and those marked among the sixteen after it.
pub(crate) fn sequences(pair: NackPair) -> impl Iterator<Item = u16> {
    let marked = (0..16).filter(move |n| pair.lost_packets >> n & 1 == 1);
    let first = std::iter::once(pair.packet_id);
    first.chain(marked.map(move |n| pair.packet_id.wrapping_add(n + 1)))
}

/// The round trip, from the reports that answer ours.
#[derive(Debug, Default)]
pub(crate) struct RoundTrip {
    /// The newest reports of ours: what names them, and when they left.
    sent: [Option<(u32, Instant)>; 4],
    next: usize,
    pub(crate) measured: Option<Duration>,
}

impl RoundTrip {
    /// A report with this NTP time leaves.
    pub(crate) fn sent(&mut self, now: Instant, ntp_time: u64) {
        if let Some(place) = self.sent.get_mut(self.next) {
            *place = Some((middle(ntp_time), now));
        }
        self.next = (self.next + 1) % self.sent.len();
    }

    /// A report came that names one of ours.
    pub(crate) fn heard(&mut self, now: Instant, report: &ReceptionReport) {
        let mut sent = self.sent.iter().flatten();
        let named = sent.find(|(name, _)| *name == report.last_sender_report);
        let Some((_, at)) = named else { return };
        // Units of 1/65 536 s.
        let held = Duration::from_micros(u64::from(report.delay) * 1_000_000 / 65_536);
        let passed = now.saturating_duration_since(*at);
        self.measured = passed.checked_sub(held).or(self.measured);
    }
}

/// The middle 32 bits of an NTP time.
pub(crate) fn middle(ntp_time: u64) -> u32 {
    u32::try_from(ntp_time >> 16 & 0xffff_ffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::packet::marshal;

    use super::*;

    #[test]
    fn a_compound_packet_is_read_in_order() {
        let packets: Vec<Box<dyn Packet>> = vec![
            Box::new(ReceiverReport {
                ssrc: 1,
                reports: vec![ReceptionReport {
                    ssrc: 7,
                    fraction_lost: 9,
                    ..ReceptionReport::default()
                }],
                ..ReceiverReport::default()
            }),
            Box::new(TransportLayerNack {
                sender_ssrc: 1,
                media_ssrc: 7,
                nacks: vec![NackPair {
                    packet_id: 65_530,
                    lost_packets: 0b1000_0000_0010_0001,
                }],
            }),
            Box::new(PictureLossIndication {
                sender_ssrc: 1,
                media_ssrc: 7,
            }),
            Box::new(ExtendedReport {
                sender_ssrc: 5,
                reports: vec![Box::new(ReceiverReferenceTimeReportBlock {
                    ntp_timestamp: 1 << 33,
                })],
            }),
        ];
        let heard = read(&marshal(&packets).unwrap());
        assert!(matches!(&heard[0], Feedback::Reception(r) if r.fraction_lost == 9));
        let Feedback::Lost { ssrc: 7, pairs } = &heard[1] else {
            panic!("{heard:?}");
        };
        let lost: Vec<u16> = pairs.iter().copied().flat_map(sequences).collect();
        assert_eq!(lost, [65_530, 65_531, 0, 10]);
        assert_eq!(heard[2], Feedback::KeyframeRequest);
        let time = Feedback::ReferenceTime {
            ssrc: 5,
            ntp: 1 << 33,
        };
        assert_eq!(heard[3..], [time]);
    }

    #[test]
    fn a_round_trip_is_what_is_left_of_the_time_between_reports() {
        let now = tokio::time::Instant::now().into_std();
        let mut trip = RoundTrip::default();
        let report = |ntp, delay| ReceptionReport {
            last_sender_report: middle(ntp),
            delay,
            ..ReceptionReport::default()
        };
        for n in 0..6_u64 {
            trip.sent(now + Duration::from_secs(n), n << 32);
        }
        // The viewer held it for half a second.
        let heard = now + Duration::from_millis(4_580);
        trip.heard(heard, &report(4 << 32, 32_768));
        assert_eq!(trip.measured, Some(Duration::from_millis(80)));
        trip.heard(heard, &report(1 << 32, 0));
        trip.heard(heard, &report(77 << 32, 0));
        trip.heard(heard, &report(5 << 32, 1 << 30));
        assert_eq!(
            trip.measured,
            Some(Duration::from_millis(80)),
            "none of these is one"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            kind in 200_u8..208,
            count in 0_u8..32,
        ) {
            let _ = read(&bytes);
            let mut framed = vec![0x80 | count, kind, 0, 0];
            framed.extend(bytes);
            framed.resize(framed.len().next_multiple_of(4), 0);
            let words = u16::try_from(framed.len() / 4 - 1).unwrap();
            framed[2..4].copy_from_slice(&words.to_be_bytes());
            let _ = read(&framed);
        }
    }
}
