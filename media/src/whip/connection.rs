//! A publisher's connection: the `webrtc` crate's, set up to receive and to answer offers.
//!
//! It does DTLS, SRTP, receiver reports and transport-wide feedback. What is missing and which
//! keyframes are wanted is decided by [`super::ingest`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{
    Attribute, Interceptor, Packet, ReceiverReportBuilder, Registry, Slot, StreamInfo, TaggedPacket,
};
use rtc::peer_connection::configuration::interceptor_registry::configure_twcc_receiver_only;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_AV1, MIME_TYPE_H264, MIME_TYPE_HEVC, MIME_TYPE_OPUS, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::{SettingEngine, SettingEngineBuilder};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use tokio::sync::{mpsc, watch};
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCPeerConnectionState,
};

use super::path::Path;
use super::runtime::Crew;
use crate::frame::Codec;
use crate::webrtc::Credentials;
use crate::webrtc::sdp::PublishOffer;

/// Picture and sound; more are not negotiated.
const TRACKS_MAX: usize = 4;
/// The session decides when a publisher is lost; the connection must not before.
const NEVER: Duration = Duration::from_secs(3_600);
/// What is told of a picture that is missing something.
const FEEDBACK: [(&str, &str); 4] = [
    ("nack", ""),
    ("nack", "pli"),
    ("ccm", "fir"),
    ("goog-remb", ""),
];

/// A connection, and what it tells.
pub(super) struct Connection {
    pub(super) engine: Arc<dyn PeerConnection>,
    pub(super) tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    pub(super) state: watch::Receiver<RTCPeerConnectionState>,
    pub(super) crew: Crew,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}

struct Told {
    tracks: mpsc::Sender<Arc<dyn TrackRemote>>,
    state: watch::Sender<RTCPeerConnectionState>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Told {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        // Beyond the bound it is one that was not negotiated.
        drop(self.tracks.try_send(track));
    }
}

impl Connection {
    /// Opens a connection for an offer; with it the answer that it gives.
    pub(super) async fn open(
        path: &Arc<Path>,
        within: Credentials,
        offer: &PublishOffer,
    ) -> Result<(Self, String), Error> {
        let (mut crew, runtime) = Crew::new(path);
        let (track, tracks) = mpsc::channel(TRACKS_MAX);
        let (told, state) = watch::channel(RTCPeerConnectionState::New);
        let (media, registry) = parts(offer)?;
        let building = PeerConnectionBuilder::new()
            .with_setting_engine(settings(within))
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_handler(Arc::new(Told {
                tracks: track,
                state: told,
            }))
            .with_runtime(runtime)
            // Only its number is used: the socket is the session's path.
            .with_udp_addrs(vec!["127.0.0.1:0"])
            .build();
        // Boxed: it is large, and so would be every future around it.
        let engine: Arc<dyn PeerConnection> = Arc::new(crew.beside(Box::pin(building)).await?);
        let answer = crew.beside(negotiate(&*engine, &offer.text)).await?;
        let connection = Self {
            engine,
            tracks,
            state,
            crew,
        };
        Ok((connection, answer))
    }
}

async fn negotiate(engine: &dyn PeerConnection, offer: &str) -> Result<String, Error> {
    let offer = RTCSessionDescription::offer(offer.to_owned())?;
    engine.set_remote_description(offer).await?;
    let answer = engine.create_answer(None).await?;
    let text = answer.sdp.clone();
    engine.set_local_description(answer).await?;
    Ok(text)
}

fn settings(within: Credentials) -> SettingEngine {
    SettingEngineBuilder::new()
        .with_lite(true)
        .with_ice_credentials(within.ufrag, within.password)
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_include_loopback_candidate(true)
        .with_ice_timeouts(Some(NEVER), Some(NEVER), None)
        .build()
}

/// The codecs that were chosen of the offer, under its numbers.
fn parts(offer: &PublishOffer) -> Result<(MediaEngine, Registry), Error> {
    let mut media = MediaEngine::default();
    if let Some(picture) = &offer.picture {
        let feedback = FEEDBACK.map(|(kind, parameter)| RTCPFeedback {
            typ: kind.to_owned(),
            parameter: parameter.to_owned(),
        });
        let codec = RTCRtpCodecParameters {
            rtp_codec: RTCRtpCodec {
                mime_type: mime_type(picture.codec).to_owned(),
                clock_rate: 90_000,
                channels: 0,
                sdp_fmtp_line: picture.parameters.clone(),
                rtcp_feedback: feedback.to_vec(),
            },
            payload_type: picture.payload_type,
        };
        media.register_codec(codec, RtpCodecKind::Video)?;
    }
    if let Some(payload_type) = offer.sound {
        let codec = RTCRtpCodecParameters {
            rtp_codec: RTCRtpCodec {
                mime_type: mime_type(Codec::Opus).to_owned(),
                clock_rate: 48_000,
                channels: 2,
                sdp_fmtp_line: "minptime=10;useinbandfec=1".to_owned(),
                rtcp_feedback: vec![RTCPFeedback {
                    typ: "nack".to_owned(),
                    parameter: String::new(),
                }],
            },
            payload_type,
        };
        media.register_codec(codec, RtpCodecKind::Audio)?;
    }
    let reports = ReceiverReportBuilder::new().build();
    let registry = Registry::new()
        .with(Slot::ReceiverReport, reports)
        .with(Slot::from(TAP), Tap::default());
    let registry = configure_twcc_receiver_only(registry, &mut media)?;
    Ok((media, registry))
}

const fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => MIME_TYPE_H264,
        Codec::Hevc => MIME_TYPE_HEVC,
        Codec::Av1 => MIME_TYPE_AV1,
        Codec::Opus | Codec::Aac => MIME_TYPE_OPUS,
    }
}

/// Before all that could end a report's way.
const TAP: usize = 3_500;

/// Lets sender reports through to the session.
#[derive(Default)]
struct Tap {
    read: VecDeque<TaggedPacket>,
    write: VecDeque<TaggedPacket>,
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Tap {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut packet: TaggedPacket) -> Result<(), Self::Error> {
        let has_report = match &packet.message.packet {
            Packet::Rtcp(all) => all.iter().any(|p| p.as_any().is::<SenderReport>()),
            _ => false,
        };
        if has_report {
            packet.message.add(Attribute::DeliverToApplication);
        }
        self.read.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<Self::Rout> {
        self.read.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Self::Error> {
        self.write.push_back(packet);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<Self::Wout> {
        self.write.pop_front()
    }
}

impl Interceptor for Tap {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
