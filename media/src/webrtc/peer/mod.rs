//! One viewer's connection, without IO: ICE, DTLS, SRTP, the data channel and the reports.
//!
//! Invariants
//! - Nothing reaches the parts within that did not come from an address of the viewer.
//! - One thing that leaves is one datagram: [`Peer::flush`] and [`Peer::write`] put them into runs.
//!
//! Not here: which frames, and when ([`crate::whep`]).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::rtcp::extended_report::{DLRRReport, DLRRReportBlock, ExtendedReport};
use rtc::rtcp::packet::{Packet, marshal};
use rtc::rtcp::reception_report::ReceptionReport;
use time::OffsetDateTime;

use crate::frame::{Codec, Frame, Kind};
use crate::time::MediaTime;
use crate::webrtc::Port;
use crate::webrtc::arrivals::Arrivals;
use crate::webrtc::burst::{Burst, Run};
use crate::webrtc::channel::Channel;
use crate::webrtc::dtls::{Dtls, Identity, News};
use crate::webrtc::estimate::{Estimate, Reporting};
use crate::webrtc::feedback::{self, Feedback, RoundTrip};
use crate::webrtc::history::Allowance;
use crate::webrtc::ice::{Dropped, Lite, Names};
use crate::webrtc::message::RtpLines;
use crate::webrtc::port::Datagram;
use crate::webrtc::sdp::{OWN_ESTIMATE, Offer, SectionKind, TRANSPORT_FEEDBACK};
use crate::webrtc::srtp::Srtp;
use crate::webrtc::stream::{Lost, Outgoing, Stream, StreamSpec};

/// Seconds from the era of NTP to that of Unix.
const NTP_TO_UNIX_S: u64 = 2_208_988_800;
/// Reports leave this often, for both streams at the same moment.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Pieces of feedback taken between two turns; what is more is lost, as any datagram may be.
const FEEDBACK_MAX: usize = 256;

/// Everything a connection is built from.
#[derive(Clone, Debug)]
pub(crate) struct PeerSpec {
    pub(crate) offer: Offer,
    pub(crate) names: Names,
    pub(crate) video_ssrc: u32,
    pub(crate) audio_ssrc: u32,
    pub(crate) lines: RtpLines,
}

/// What was counted of a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Packets the viewer asked for again.
    pub(crate) nacks: u64,
    /// Packets sent again.
    pub(crate) repeated: u64,
    pub(crate) keyframe_requests: u64,
}

/// What is known of the path to a viewer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) estimate_bps: u64,
    /// Whether the path was found to carry no more than that a moment ago.
    pub(crate) is_narrow: bool,
    pub(crate) round_trip: Option<Duration>,
    /// Of 256.
    pub(crate) fraction_lost: u8,
}

/// A viewer's connection.
pub(crate) struct Peer {
    pub(crate) ice: Lite,
    dtls: Dtls,
    srtp: Option<Box<Srtp>>,
    channel: Option<Channel>,
    video: Option<Stream>,
    audio: Option<Stream>,
    /// Whole datagrams that wait to be sent.
    outgoing: Vec<(SocketAddr, BytesMut)>,
    feedback: Vec<Feedback>,
    allowance: Allowance,
    estimate: Estimate,
    /// The part of the picture that was lost last, of 256.
    fraction_lost: u8,
    round_trip: RoundTrip,
    reported: Option<Instant>,
    counts: Counts,
    pub(crate) is_over: bool,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("is_connected", &self.is_connected())
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It came from an address that has the session's password.
    Check,
    /// STUN that proves nothing.
    Forged,
    Other,
}

impl Peer {
    /// A connection that waits for its viewer.
    pub(crate) fn new(spec: &PeerSpec, identity: &Arc<Identity>, now: Instant) -> Self {
        let offer = &spec.offer;
        let channel = offer
            .channel
            .map(|(port, bytes)| Channel::new(now, port, bytes));
        Self {
            ice: Lite::new(spec.names.clone(), now),
            dtls: Dtls::new(Arc::clone(identity), &offer.fingerprints),
            srtp: None,
            channel,
            video: stream(spec, SectionKind::Video),
            audio: stream(spec, SectionKind::Audio),
            outgoing: Vec::new(),
            feedback: Vec::new(),
            allowance: Allowance::new(),
            estimate: Estimate::new(now, reporting(offer)),
            fraction_lost: 0,
            round_trip: RoundTrip::default(),
            reported: None,
            counts: Counts::default(),
            is_over: false,
        }
    }

    /// Whether media can be sent.
    pub(crate) const fn is_connected(&self) -> bool {
        self.srtp.is_some()
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the player opened the channel of cues.
    pub(crate) fn has_channel(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_open)
    }

    /// Takes a datagram. A bad one is dropped.
    pub(crate) fn receive(&mut self, now: Instant, datagram: Datagram) -> Taken {
        /// First bytes of RFC 7983.
        const STUN: std::ops::RangeInclusive<u8> = 0..=3;
        const DTLS: std::ops::RangeInclusive<u8> = 20..=63;
        let Datagram { from, bytes } = datagram;
        let first = bytes.first().copied().unwrap_or(u8::MAX);
        if STUN.contains(&first) {
            return match self.ice.receive(now, from, &bytes) {
                Ok(answers) => {
                    let answers = answers.into_iter().map(|a| (from, BytesMut::from(&a[..])));
                    self.outgoing.extend(answers);
                    Taken::Check
                }
                Err(Dropped::Forged) => Taken::Forged,
                Err(Dropped::Useless | Dropped::TooMany) => Taken::Other,
            };
        }
        if self.ice.knows(from) {
            if DTLS.contains(&first) {
                self.receive_dtls(now, bytes);
            } else if is_rtcp(&bytes) {
                self.receive_report(&bytes);
            }
        }
        Taken::Other
    }

    fn receive_dtls(&mut self, now: Instant, datagram: BytesMut) {
        let news = match self.dtls.receive(now, datagram) {
            Ok(news) => news,
            // A damaged datagram is an error of the far end, not of the session.
            Err(err) => {
                tracing::debug!(error = %err, "a datagram was not understood");
                Vec::new()
            }
        };
        for news in news {
            match news {
                News::Keys(srtp) => {
                    self.srtp = Some(srtp);
                    self.ice.secure();
                }
                News::Data(data) => {
                    if let Some(channel) = &mut self.channel {
                        channel.receive(now, data.freeze());
                        self.is_over |= channel.is_over;
                    }
                }
                News::Closed => self.is_over = true,
            }
        }
        self.collect(now);
    }

    fn receive_report(&mut self, datagram: &[u8]) {
        let Some(srtp) = &mut self.srtp else { return };
        let Ok(packet) = srtp.open_report(datagram) else {
            return;
        };
        let room = FEEDBACK_MAX - self.feedback.len().min(FEEDBACK_MAX);
        self.feedback
            .extend(feedback::read(&packet).into_iter().take(room));
    }

    /// Acts upon what the viewer reported; true when it wants a keyframe.
    pub(crate) fn answer_reports(&mut self, now: Instant, port: &Port, burst: &mut Burst) -> bool {
        let mut wants_keyframe = false;
        for feedback in std::mem::take(&mut self.feedback) {
            match feedback {
                Feedback::KeyframeRequest => {
                    self.counts.keyframe_requests += 1;
                    wants_keyframe = true;
                }
                Feedback::Lost { ssrc, pairs } => {
                    let lost = pairs.into_iter().flat_map(feedback::sequences);
                    self.repeat(now, (ssrc, lost), port, burst);
                }
                Feedback::Reception(report) => self.note_reception(now, &report),
                Feedback::Estimate(bps) => self.estimate.told(bps),
                Feedback::Arrivals(report) => {
                    if let Some(arrivals) = Arrivals::read(&report) {
                        self.estimate.arrived(now, &arrivals);
                    }
                }
                Feedback::ReferenceTime { ssrc, ntp } => self.answer_time(ssrc, ntp),
            }
        }
        wants_keyframe
    }

    fn note_reception(&mut self, now: Instant, report: &ReceptionReport) {
        self.round_trip.heard(now, report);
        let video = self.video.as_ref().map(Stream::ssrc);
        if video.is_none_or(|ssrc| ssrc == report.ssrc) {
            self.fraction_lost = report.fraction_lost;
            self.estimate.lost(now, report);
        }
    }

    /// What is known of the path.
    pub(crate) fn path(&self, now: Instant) -> Path {
        Path {
            estimate_bps: self.estimate.bps(),
            is_narrow: self.estimate.is_narrow(now),
            round_trip: self.round_trip.measured,
            fraction_lost: self.fraction_lost,
        }
    }

    fn repeat(
        &mut self,
        now: Instant,
        (ssrc, lost): (u32, impl Iterator<Item = u16>),
        port: &Port,
        burst: &mut Burst,
    ) {
        let streams = [self.video.as_mut(), self.audio.as_mut()];
        let mut streams = streams.into_iter().flatten();
        let Some(stream) = streams.find(|stream| stream.ssrc() == ssrc) else {
            return;
        };
        let (Some(srtp), Some(to)) = (&mut self.srtp, self.ice.route()) else {
            return;
        };
        let (allowance, counts) = (&mut self.allowance, &mut self.counts);
        let round_trip = self.round_trip.measured;
        burst.gather(port, to, |run| {
            for sequence in lost {
                counts.nacks += 1;
                let lost = Lost {
                    sequence,
                    round_trip,
                };
                match stream.repeat(now, lost, (&mut *allowance, &mut **srtp), run) {
                    Some(0) => {}
                    Some(_) => counts.repeated += 1,
                    None => return,
                }
            }
        });
    }

    /// Tells a viewer how long ago its reference time came: now (RFC 3611 4.5).
    fn answer_time(&mut self, ssrc: u32, ntp: u64) {
        let streams = [self.video.as_ref(), self.audio.as_ref()];
        let Some(ours) = streams.into_iter().flatten().next().map(Stream::ssrc) else {
            return;
        };
        let report = DLRRReport {
            ssrc,
            last_rr: feedback::middle(ntp),
            dlrr: 0,
        };
        let block = DLRRReportBlock {
            reports: vec![report],
        };
        self.send_report(Box::new(ExtendedReport {
            sender_ssrc: ours,
            reports: vec![Box::new(block)],
        }));
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.dtls.tick(now);
        if let Some(channel) = &mut self.channel {
            channel.tick(now);
            self.is_over |= channel.is_over;
        }
        self.collect(now);
    }

    /// When [`Peer::tick`] must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let channel = self.channel.as_ref().and_then(Channel::deadline);
        let probe = self.estimate.probe_deadline();
        let all = [self.dtls.deadline(), channel, probe];
        all.into_iter().flatten().min()
    }

    /// Sends a frame. Nothing is sent before the connection stands.
    pub(crate) fn write(
        &mut self,
        now: Instant,
        (port, burst): (&Port, &mut Burst),
        frame: &Frame,
        wall: impl Fn(MediaTime) -> OffsetDateTime,
    ) {
        let stream = match frame.track.kind() {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        };
        let (Some(stream), Some(srtp)) = (stream, &mut self.srtp) else {
            return;
        };
        let Some(to) = self.ice.route() else { return };
        let Some(payload_type) = stream.payload_type(frame) else {
            tracing::debug!(codec = ?frame.info.codec, "a frame has no payload type");
            return;
        };
        let allowance = &mut self.allowance;
        let payload_bytes_max = port.payload_bytes_max();
        let numbered = stream.numbered(frame, payload_bytes_max);
        let transport =
            numbered.and_then(|(packets, bytes)| self.estimate.number(now, packets, bytes));
        let outgoing = Outgoing {
            frame,
            payload_type,
            payload_bytes_max,
            captured: &|t| ntp_time(wall(t)),
            transport,
        };
        burst.gather(port, to, |run: &mut Run<'_>| {
            match stream.write(now, outgoing, srtp, run) {
                Ok(bytes) => allowance.earn(bytes),
                Err(err) => tracing::debug!(error = %err, "a frame was not written"),
            }
        });
    }

    /// Begins a burst of padding at this rate, to learn whether the path carries it; false where
    /// the viewer does not report enough to tell.
    pub(crate) fn probe(&mut self, now: Instant, rate_bps: u64) -> bool {
        self.video.is_some() && self.estimate.probe(now, rate_bps)
    }

    /// What came of it, once.
    pub(crate) fn probed(&mut self, now: Instant) -> Option<bool> {
        self.estimate.probed(now)
    }

    /// Sends what of a probe is due. To be called after the frames: what is due is what they lack.
    pub(crate) fn write_probe(&mut self, now: Instant, (port, burst): (&Port, &mut Burst)) {
        let due = self.estimate.probe_bytes(now);
        let (Some(stream), Some(srtp)) = (&mut self.video, &mut self.srtp) else {
            return;
        };
        let (packets, bytes) = stream.padding(due);
        let Some(to) = self.ice.route().filter(|_| packets > 0) else {
            return;
        };
        let Some(transport) = self.estimate.number(now, packets, bytes) else {
            return;
        };
        burst.gather(port, to, |run: &mut Run<'_>| {
            if let Err(err) = stream.pad(packets, transport, srtp, run) {
                tracing::debug!(error = %err, "padding was not written");
            }
        });
    }

    /// Reports on both streams, when it is time: where they are on one line at one moment, so
    /// that the far end shows sound with its picture. `at` gives T and the time of day of `now`.
    pub(crate) fn report(&mut self, now: Instant, at: impl Fn() -> (MediaTime, OffsetDateTime)) {
        let since = self.reported.map(|at| now.saturating_duration_since(at));
        if !self.is_connected() || since.is_some_and(|since| since < REPORT_EVERY) {
            return;
        }
        let (t, wall) = at();
        let ntp_time = ntp_time(wall);
        let streams = [self.video.as_ref(), self.audio.as_ref()];
        let reports = streams.into_iter().flatten();
        let reports: Vec<_> = reports.filter_map(|s| s.report(t, ntp_time)).collect();
        if reports.is_empty() {
            return;
        }
        self.reported = Some(now);
        self.round_trip.sent(now, ntp_time);
        for report in reports {
            self.send_report(Box::new(report));
        }
    }

    fn send_report(&mut self, report: Box<dyn Packet>) {
        let (Some(srtp), Some(to)) = (&mut self.srtp, self.ice.route()) else {
            return;
        };
        let protected = marshal(&[report]).and_then(|packet| srtp.protect_report(&packet));
        match protected {
            Ok(packet) => self.outgoing.push((to, packet)),
            Err(err) => tracing::debug!(error = %err, "a report was not written"),
        }
    }

    /// Sends text on the cue channel; false when there is none.
    pub(crate) fn send_text(&mut self, now: Instant, text: String) -> bool {
        let channel = self.channel.as_mut();
        let is_sent = channel.is_some_and(|channel| channel.send(now, text));
        self.collect(now);
        is_sent
    }

    /// Bytes of cues that wait to be acknowledged.
    pub(crate) fn unsent_text(&mut self) -> usize {
        self.channel.as_mut().map_or(0, Channel::unsent)
    }

    /// Closes the cue channel because a bound was reached.
    pub(crate) fn close_channel(&mut self, now: Instant) {
        if let Some(channel) = &mut self.channel {
            channel.close(now);
        }
        self.collect(now);
    }

    /// Ends the association and the DTLS connection.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(channel) = &mut self.channel {
            channel.abort();
        }
        self.collect(now);
        self.dtls.close(now);
        self.collect(now);
    }

    /// Sends the datagrams that wait.
    pub(crate) fn flush(&mut self, port: &Port, burst: &mut Burst) {
        for (to, datagram) in self.outgoing.drain(..) {
            burst.gather(port, to, |run| {
                run.datagram(datagram.len()).extend_from_slice(&datagram);
            });
        }
    }

    /// Takes what channel and handshake want to send.
    fn collect(&mut self, now: Instant) {
        if let Some(channel) = &mut self.channel {
            for packet in channel.next(now) {
                if let Err(err) = self.dtls.send(now, &packet) {
                    tracing::debug!(error = %err, "a packet of the channel was not sent");
                }
            }
        }
        let Some(to) = self.ice.route() else { return };
        while let Some(datagram) = self.dtls.next() {
            self.outgoing.push((to, datagram.into()));
        }
    }
}

fn reporting(offer: &Offer) -> Reporting {
    let has = |name: &str| offer.sections.iter().any(|s| s.has_feedback(name));
    Reporting {
        every_packet: has(TRANSPORT_FEEDBACK),
        own_estimate: has(OWN_ESTIMATE),
    }
}

fn stream(spec: &PeerSpec, kind: SectionKind) -> Option<Stream> {
    let section = spec.offer.sections.iter().find(|s| s.kind == kind)?;
    let offer = &spec.offer;
    let (payload_types, ssrc, line, kind) = match kind {
        SectionKind::Video => {
            let forms = offer.video.as_ref()?.forms.iter();
            let types = forms.map(|form| (form.codec, form.payload_type));
            let (ssrc, line) = (spec.video_ssrc, spec.lines.video);
            (types.collect(), ssrc, line, Kind::Video)
        }
        SectionKind::Audio => {
            let types = vec![(Codec::Opus, offer.audio.as_ref()?.payload_type)];
            let (ssrc, line) = (spec.audio_ssrc, spec.lines.audio);
            (types, ssrc, line, Kind::Audio)
        }
        SectionKind::Data => return None,
    };
    let spec = StreamSpec {
        ssrc,
        payload_types,
        line: line?,
        extensions: section.extensions,
        mid: section.mid.clone(),
    };
    Some(Stream::new(spec, kind))
}

/// RTCP beside RTP on one port (RFC 5761 4).
fn is_rtcp(datagram: &[u8]) -> bool {
    let is_rtp = datagram.first().is_some_and(|b| b >> 6 == 2);
    is_rtp
        && datagram
            .get(1)
            .is_some_and(|kind| (192..=223).contains(kind))
}

/// Seconds since 1900 in the upper half, parts of one in the lower.
fn ntp_time(wall: OffsetDateTime) -> u64 {
    let nanos = u64::try_from(wall.unix_timestamp_nanos()).unwrap_or(0);
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let era = (seconds + NTP_TO_UNIX_S) & 0xffff_ffff;
    (era << 32) | ((rest << 32) / 1_000_000_000)
}

#[cfg(test)]
mod netem;
#[cfg(test)]
mod tests;
