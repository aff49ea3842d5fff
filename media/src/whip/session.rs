//! One publisher, from its answer to its end: packets in, samples into the hub, feedback out.
//!
//! Invariants
//! - The connection's futures run in this one and end with it.
//! - Keyframes are asked for at most twice a second, a packet at most ten times.

use std::sync::Arc;
use std::time::Duration;

use rtc::rtcp;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate as remb;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{
    TransportLayerNack, nack_pairs_from_sequence_numbers,
};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::RTCPeerConnectionState;

use super::Terms;
use super::connection::Connection;
use super::ingest::{Ingest, Output, Packet};
use super::path::Path;
use crate::broadcast::{About, Broadcasts, EndReason, Publisher};
use crate::doctor::Code;
use crate::flv::FlvError;
use crate::frame::{Codec, Kind};
use crate::meter::Meter;
use crate::request::Protocol;
use crate::webrtc::sdp::PublishOffer;

/// Removed when not connected by then.
const CONNECT: Duration = Duration::from_secs(15);
/// Lost when nothing authenticated came for this long, or no media.
const SILENCE: Duration = Duration::from_secs(15);
/// Nothing is looked after less often.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// For the connection to say that it closes.
const GOODBYE: Duration = Duration::from_secs(1);

/// One stream that comes in.
struct Incoming {
    track: Arc<dyn TrackRemote>,
    /// Known with its first packet.
    ssrc: Option<u32>,
}

/// What happened.
enum News {
    Over(EndReason, &'static str),
    Track(Arc<dyn TrackRemote>),
    Event(Kind, Option<TrackRemoteEvent>),
    Nothing,
}

/// One publisher, from its answer to its end.
pub struct Session {
    connection: Connection,
    path: Arc<Path>,
    video: Option<Incoming>,
    audio: Option<Incoming>,
    ingest: Ingest,
    meter: Meter,
    /// The publisher is told what it may send, where no better feedback was negotiated.
    tells_limit: bool,
    /// Several layers were offered.
    has_layers: bool,
    connect_until: Instant,
    is_connected: bool,
    /// When a packet of media came last.
    media_at: Instant,
    looked_at: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(
        connection: Connection,
        path: Arc<Path>,
        (offer, terms): (&PublishOffer, Terms),
        now: Instant,
    ) -> Self {
        let picture = offer.picture.as_ref();
        let codec = picture.map_or(Codec::H264, |form| form.codec);
        Self {
            connection,
            path,
            video: None,
            audio: None,
            ingest: Ingest::new(now, codec),
            meter: Meter::new(now, terms.bitrate_bps_max),
            tells_limit: !offer.has_transport_feedback,
            has_layers: offer.has_layers,
            connect_until: now + CONNECT,
            is_connected: false,
            media_at: now,
            looked_at: now,
        }
    }

    /// Takes in what the publisher sends until it goes, somebody takes its place, it `leaves` by
    /// its own wish, or `cancel`.
    pub async fn run(
        mut self,
        mut publisher: Publisher,
        leaves: CancellationToken,
        cancel: CancellationToken,
        hub: Arc<Broadcasts>,
    ) {
        let now = Instant::now();
        let about = About {
            protocol: Protocol::Whip,
            bitrate_bps_max: self.meter.limit_bps,
        };
        publisher.introduce(now, about);
        publisher.note(Code::SimulcastOff, self.has_layers);
        let (reason, word) = loop {
            let news = self.wait(&publisher, &leaves, &cancel).await;
            let now = Instant::now();
            let mut over = self.take(now, news).await;
            if over.is_none() {
                over = self.work(now, &mut publisher, &hub).await;
            }
            if let Some(over) = over {
                break over;
            }
        };
        info!(
            reason = word,
            is_deaf = self.ingest.is_deaf(Instant::now()),
            "publisher gone"
        );
        publisher.finish(reason);
        self.close().await;
    }

    async fn wait(
        &mut self,
        publisher: &Publisher,
        leaves: &CancellationToken,
        cancel: &CancellationToken,
    ) -> News {
        let wake = self.wake_at();
        let Connection {
            tracks,
            state,
            crew,
            ..
        } = &mut self.connection;
        tokio::select! {
            biased;
            () = cancel.cancelled() => News::Over(EndReason::Shutdown, "shutdown"),
            () = leaves.cancelled() => News::Over(EndReason::Finished, "finished"),
            reason = publisher.ended() => News::Over(reason, reason.reason()),
            Some(track) = tracks.recv() => News::Track(track),
            event = next(self.video.as_ref()) => News::Event(Kind::Video, event),
            event = next(self.audio.as_ref()) => News::Event(Kind::Audio, event),
            Ok(()) = state.changed() => News::Nothing,
            () = sleep_until(wake) => News::Nothing,
            () = crew.run() => News::Nothing,
        }
    }

    fn wake_at(&self) -> Instant {
        let mut wake = self.looked_at + CHECK_EVERY;
        if !self.is_connected {
            wake = wake.min(self.connect_until);
        }
        self.ingest.deadline().map_or(wake, |due| wake.min(due))
    }

    async fn take(&mut self, now: Instant, news: News) -> Option<(EndReason, &'static str)> {
        match news {
            News::Over(reason, word) => return Some((reason, word)),
            News::Event(kind, Some(event)) => return self.event(now, kind, event),
            News::Event(kind, None) => *self.incoming(kind) = None,
            News::Track(track) => {
                let kind = self.connection.crew.beside(track.kind()).await;
                let kind = match kind {
                    RtpCodecKind::Video => Kind::Video,
                    _ => Kind::Audio,
                };
                let ssrc = None;
                *self.incoming(kind) = Some(Incoming { track, ssrc });
            }
            News::Nothing => {}
        }
        None
    }

    fn event(
        &mut self,
        now: Instant,
        kind: Kind,
        event: TrackRemoteEvent,
    ) -> Option<(EndReason, &'static str)> {
        match event {
            TrackRemoteEvent::OnRtpPacket(packet) => {
                self.media_at = now;
                let header = &packet.header;
                if let Some(incoming) = self.incoming(kind) {
                    incoming.ssrc = Some(header.ssrc);
                }
                if self.meter.add(now, packet.payload.len()) {
                    warn!(reason = "bitrate", "publisher turned away");
                    return Some((EndReason::Lost, "bitrate"));
                }
                let taken = Packet {
                    rtp_time: header.timestamp,
                    is_last: header.marker,
                    payload: packet.payload,
                };
                self.ingest.push(now, kind, header.sequence_number, taken);
            }
            TrackRemoteEvent::OnRtcpPacket(packets) => {
                for packet in packets {
                    if let Some(report) = packet.as_any().downcast_ref::<SenderReport>() {
                        let ntp = report.ntp_time;
                        self.ingest.report(kind, ntp, report.rtp_time);
                    }
                }
            }
            _ => {}
        }
        None
    }

    fn incoming(&mut self, kind: Kind) -> &mut Option<Incoming> {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    async fn work(
        &mut self,
        now: Instant,
        publisher: &mut Publisher,
        hub: &Broadcasts,
    ) -> Option<(EndReason, &'static str)> {
        let outputs = match self.ingest.drain(now) {
            Ok(outputs) => outputs,
            Err(error) => return Some(turned_away(&error, hub)),
        };
        for _ in 0..std::mem::take(&mut self.ingest.bad) {
            hub.stats().reject("whip", "bitstream");
            let labels = ["whip", "bitstream"];
            hub.stats()
                .add_two("ingest_frames_dropped_total", labels, 1);
        }
        let lost = std::mem::take(&mut self.ingest.lost);
        hub.stats().add("ingest_gaps_total", "whip", lost);
        for output in outputs {
            match output {
                Output::Track(track) => {
                    if publisher.set_track(now, track).is_err() {
                        return Some((EndReason::CodecChanged, "codec_changed"));
                    }
                }
                Output::Sample(sample) => {
                    publisher.write(now, sample);
                }
            }
        }
        self.ask(now).await;
        if now.saturating_duration_since(self.looked_at) >= CHECK_EVERY {
            self.looked_at = now;
            self.path.tick(now);
            publisher.note(Code::KeyframeDeaf, self.ingest.is_deaf(now));
            publisher.measure_loss(self.ingest.loss_per_mille());
            self.tell_limit().await;
        }
        self.verdict(now)
    }

    fn verdict(&mut self, now: Instant) -> Option<(EndReason, &'static str)> {
        let state = *self.connection.state.borrow_and_update();
        if state == RTCPeerConnectionState::Connected && !self.is_connected {
            self.is_connected = true;
            self.media_at = now;
            self.path.secure();
            info!("publisher connected");
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let over = matches!(
            state,
            RTCPeerConnectionState::Closed | RTCPeerConnectionState::Failed
        );
        let word = if over {
            "gone"
        } else if !self.is_connected {
            return (now >= self.connect_until).then_some((EndReason::Lost, "not_connected"));
        } else if since(self.path.heard()) > SILENCE || since(self.media_at) > SILENCE {
            "silent"
        } else {
            return None;
        };
        Some((EndReason::Lost, word))
    }

    /// Asks for what is missing.
    async fn ask(&mut self, now: Instant) {
        for kind in [Kind::Video, Kind::Audio] {
            let asks = self.ingest.asks(now, kind);
            if asks.is_empty() {
                continue;
            }
            let nack = |media_ssrc| TransportLayerNack {
                sender_ssrc: 0,
                media_ssrc,
                nacks: nack_pairs_from_sequence_numbers(&asks),
            };
            self.tell(kind, |ssrc| Box::new(nack(ssrc))).await;
        }
        if self.ingest.asks_keyframe(now) {
            let wish = |media_ssrc| PictureLossIndication {
                sender_ssrc: 0,
                media_ssrc,
            };
            self.tell(Kind::Video, |ssrc| Box::new(wish(ssrc))).await;
        }
    }

    async fn tell_limit(&mut self) {
        if !self.tells_limit {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "REMB has 18 bits of it")]
        let bitrate = self.meter.limit_bps as f32;
        let limit = |ssrc| remb::ReceiverEstimatedMaximumBitrate {
            sender_ssrc: 0,
            bitrate,
            ssrcs: vec![ssrc],
        };
        self.tell(Kind::Video, |ssrc| Box::new(limit(ssrc))).await;
    }

    async fn tell(&mut self, kind: Kind, packet: impl Fn(u32) -> Box<dyn rtcp::Packet>) {
        let incoming = match kind {
            Kind::Video => &self.video,
            Kind::Audio => &self.audio,
        };
        let Some(incoming) = incoming else { return };
        let Some(ssrc) = incoming.ssrc else { return };
        let told = incoming.track.write_rtcp(vec![packet(ssrc)]);
        // A connection that takes no more has ended, which is seen elsewhere.
        drop(self.connection.crew.beside(told).await);
    }

    /// Says goodbye to the publisher and lets the connection's futures end.
    async fn close(mut self) {
        let engine = Arc::clone(&self.connection.engine);
        let closing = self
            .connection
            .crew
            .beside(async move { engine.close().await });
        if !matches!(timeout(GOODBYE, closing).await, Ok(Ok(()))) {
            tracing::debug!("the connection did not close in time");
        }
    }
}

fn turned_away(error: &FlvError, hub: &Broadcasts) -> (EndReason, &'static str) {
    let reason = error.reason();
    warn!(reason, "publisher turned away");
    hub.stats().reject("whip", reason);
    (EndReason::Lost, reason)
}

async fn next(incoming: Option<&Incoming>) -> Option<TrackRemoteEvent> {
    match incoming {
        Some(incoming) => incoming.track.poll().await,
        None => std::future::pending().await,
    }
}
