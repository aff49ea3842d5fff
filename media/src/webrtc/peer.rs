//! One viewer's connection: drives the sans-IO engine of `rtc`.
//!
//! Invariants
//! - After each input the engine is drained: writes to the burst, events, reads.
//! - RTP sequence numbers have no hole we made; RTP time is `T × rate + constant` (I29).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::BytesMut;
use rtc::crypto::SignatureScheme;
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::interceptor::{NackResponderBuilder, Registry, SenderReportBuilder, Slot};
use rtc::media_stream::{MediaStreamTrack, MediaStreamTrackId};
use rtc::peer_connection::certificate::{CertificateParams, RTCCertificate};
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{
    MIME_TYPE_H264, MIME_TYPE_OPUS, MediaEngine,
};
use rtc::peer_connection::configuration::setting_engine::SettingEngineBuilder;
use rtc::peer_connection::event::{RTCDataChannelEvent, RTCPeerConnectionEvent};
use rtc::peer_connection::message::{RTCMessage, TaggedRTCMessage};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::state::RTCPeerConnectionState;
use rtc::peer_connection::transport::{RTCDtlsRole, RTCIceCandidateInit};
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp;
use rtc::rtp_transceiver::RTCRtpSenderId;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters,
    RTCRtpEncodingParameters, RtpCodecKind,
};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;
use rtc::shared::{TaggedBytesMut, TransportContext, TransportProtocol};

use super::message::{LABEL, RtpLine, RtpLines};
use super::packetise::payloads;
use super::port::Datagram;
use super::sdp::{OPUS_PARAMETERS, Offer};
use super::tap::{Heard, Tap};
use super::{Burst, Port};
use crate::frame::{Frame, Kind};

const VIDEO_RATE: u32 = 90_000;
const AUDIO_RATE: u32 = 48_000;
/// Packets kept for retransmission.
const HISTORY: u16 = 512;
/// Inbound bytes a second on the data channel beyond which it is closed.
const INBOUND_BYTES_MAX: usize = 1_024;

/// Everything a connection is built from; building twice gives the same answer.
#[derive(Clone, Debug)]
pub(crate) struct PeerSpec {
    pub(crate) offer: Offer,
    pub(crate) ufrag: String,
    pub(crate) password: String,
    pub(crate) video_ssrc: u32,
    pub(crate) audio_ssrc: u32,
    pub(crate) lines: RtpLines,
}

/// How media is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// `AEAD_AES_128_GCM`: a third of the cost.
    Gcm,
    /// `AES128_CM_HMAC_SHA1_80`, for clients without the other.
    Sha1,
}

#[derive(Debug)]
struct Track {
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    line: RtpLine,
}

/// A viewer's connection.
pub(crate) struct Peer {
    engine: RTCPeerConnection,
    inner_addr: SocketAddr,
    payload_bytes_max: usize,
    video: Option<Track>,
    audio: Option<Track>,
    heard: Arc<Heard>,
    requests_seen: u64,
    channel: Option<usize>,
    inbound: (Instant, usize),
    /// True when the engine was given something since it was last drained.
    is_dirty: bool,
    deadline: Option<Instant>,
    pub(crate) is_connected: bool,
    pub(crate) is_over: bool,
    pub(crate) channel_opened: bool,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("is_connected", &self.is_connected)
            .finish_non_exhaustive()
    }
}

/// A certificate for the life of the process: ECDSA on P-256.
pub(crate) fn new_certificate() -> Result<RTCCertificate, Error> {
    let provider = rtc::crypto::default_provider().map_err(|e| Error::Other(e.to_string()))?;
    let params = CertificateParams::new(vec!["lamplight".to_owned()])
        .map_err(|e| Error::Other(e.to_string()))?;
    RTCCertificate::generate(provider.crypto(), SignatureScheme::EcdsaP256Sha256, params)
}

impl Peer {
    /// Builds the connection and its answer. This is the dear part: milliseconds of CPU.
    pub(crate) fn build(
        port: &Port,
        spec: &PeerSpec,
        protection: Protection,
        now: Instant,
    ) -> Result<(Self, String), Error> {
        let heard = Arc::new(Heard::default());
        let mut engine = engine(port, spec, protection, &heard, now)?;
        let video = spec
            .offer
            .video
            .is_some()
            .then_some((spec.video_ssrc, RtpCodecKind::Video));
        let audio = spec
            .offer
            .audio
            .is_some()
            .then_some((spec.audio_ssrc, RtpCodecKind::Audio));
        let mut senders = Vec::new();
        for (ssrc, kind) in video.into_iter().chain(audio) {
            senders.push((kind, ssrc, engine.add_track(track(spec, kind, ssrc))?));
        }
        let offer = RTCSessionDescription::offer(spec.offer.sdp.clone())?;
        engine.set_remote_description(now, offer)?;
        for (n, addr) in port.candidates().into_iter().enumerate() {
            let (ip, udp_port, foundation) = (addr.ip(), addr.port(), n + 1);
            let candidate =
                format!("candidate:{foundation} 1 udp 2130706431 {ip} {udp_port} typ host");
            let init = RTCIceCandidateInit {
                candidate,
                ..RTCIceCandidateInit::default()
            };
            engine.add_local_candidate(init)?;
        }
        let answer = engine.create_answer(None)?;
        engine.set_local_description(now, answer)?;
        let answer = engine
            .local_description()
            .ok_or(Error::ErrPeerConnLocalDescriptionNil)?
            .sdp;
        let mut peer = Self {
            engine,
            inner_addr: port.inner_addr(),
            payload_bytes_max: port.payload_bytes_max(),
            video: None,
            audio: None,
            heard,
            requests_seen: 0,
            channel: None,
            inbound: (now, 0),
            is_dirty: true,
            deadline: None,
            is_connected: false,
            is_over: false,
            channel_opened: false,
        };
        for (kind, ssrc, sender) in senders {
            peer.add(spec, kind, ssrc, sender);
        }
        Ok((peer, tidied(&answer)))
    }

    fn add(&mut self, spec: &PeerSpec, kind: RtpCodecKind, ssrc: u32, sender: RTCRtpSenderId) {
        let negotiated = self.engine.rtp_sender(sender).and_then(|mut s| {
            s.get_parameters()
                .rtp_parameters
                .codecs
                .first()
                .map(|c| c.payload_type)
        });
        let sequence = u16::try_from(ssrc & 0x7fff).unwrap_or(0);
        let make = |payload_type: u8, line: Option<RtpLine>| {
            line.map(|line| Track {
                ssrc,
                payload_type,
                sequence,
                line,
            })
        };
        match kind {
            RtpCodecKind::Video => {
                let offered = spec.offer.video.as_ref().map(|v| v.payload_type);
                let payload_type = negotiated.or(offered).unwrap_or(0);
                self.video = make(payload_type, spec.lines.video);
            }
            _ => {
                let offered = spec.offer.audio.as_ref().map(|a| a.payload_type);
                let payload_type = negotiated.or(offered).unwrap_or(0);
                self.audio = make(payload_type, spec.lines.audio);
            }
        }
    }

    /// Takes a datagram. Bad ones are the engine's to drop.
    pub(crate) fn receive(&mut self, now: Instant, datagram: Datagram) {
        let message = TaggedBytesMut {
            now,
            transport: TransportContext {
                local_addr: self.inner_addr,
                peer_addr: datagram.from,
                ecn: None,
                transport_protocol: TransportProtocol::UDP,
            },
            message: datagram.bytes,
        };
        self.is_dirty = true;
        // A damaged datagram is an error of the peer, not of the session.
        if let Err(err) = self.engine.handle_read(message) {
            tracing::debug!(error = %err, "a datagram was not understood");
        }
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.is_dirty = true;
        drop(self.engine.handle_timeout(now));
    }

    /// When [`Peer::tick`] must be called; known since the last [`Peer::drain`].
    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Writes a frame as RTP. Nothing is written before the connection stands.
    pub(crate) fn write(&mut self, now: Instant, frame: &Frame) {
        let is_video = frame.track.kind() == Kind::Video;
        let track = if is_video {
            &mut self.video
        } else {
            &mut self.audio
        };
        let Some(track) = track else { return };
        self.is_dirty = true;
        let payloads = payloads(frame, self.payload_bytes_max);
        let timestamp = track.line.at(frame.pts);
        for (n, payload) in payloads.iter().enumerate() {
            let header = rtp::header::Header {
                version: 2,
                marker: n + 1 == payloads.len() && is_video,
                payload_type: track.payload_type,
                sequence_number: track.sequence,
                timestamp,
                ssrc: track.ssrc,
                ..rtp::header::Header::default()
            };
            track.sequence = track.sequence.wrapping_add(1);
            let packet = rtp::Packet {
                header,
                payload: payload.clone(),
            };
            // The sender's own way in checks each packet against the negotiation, which `add` did
            // once; the engine does not look at the track's name.
            let message = RTCMessage::RtpPacket(MediaStreamTrackId::new(), packet);
            if let Err(err) = self.engine.handle_write(TaggedRTCMessage { now, message }) {
                tracing::debug!(error = %err, "a packet was not written");
                return;
            }
        }
    }

    /// Sends text on the cue channel; false when there is none.
    pub(crate) fn send_text(&mut self, now: Instant, text: String) -> bool {
        let Some(id) = self.channel else { return false };
        self.is_dirty = true;
        let channel = self.engine.data_channel(id);
        channel.is_some_and(|mut c| c.send_text(now, text).is_ok())
    }

    /// Bytes of cues that wait to be acknowledged.
    pub(crate) fn unsent_text(&mut self) -> usize {
        let Some(id) = self.channel else { return 0 };
        self.engine
            .data_channel(id)
            .map_or(0, |c| c.outstanding_bytes())
    }

    /// Closes the cue channel because a bound was reached.
    pub(crate) fn close_channel(&mut self) {
        self.is_dirty = true;
        if let Some(id) = self.channel.take()
            && let Some(mut channel) = self.engine.data_channel(id)
        {
            drop(channel.close());
        }
    }

    /// True when the viewer asked for a keyframe since the last call.
    pub(crate) fn wants_keyframe(&mut self) -> bool {
        let seen = self.heard.keyframe_requests.load(Ordering::Relaxed);
        std::mem::replace(&mut self.requests_seen, seen) != seen
    }

    /// Lost packets the viewer asked for again, so far.
    pub(crate) fn nacks(&self) -> u64 {
        self.heard.nacks.load(Ordering::Relaxed)
    }

    /// Begins the DTLS close.
    pub(crate) fn close(&mut self) {
        self.is_dirty = true;
        drop(self.engine.close());
    }

    /// Sends all that waits and notes what happened.
    pub(crate) async fn drain(&mut self, now: Instant, port: &Port, burst: &mut Burst) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        while let Some(out) = self.engine.poll_write() {
            burst
                .push(port, out.transport.peer_addr, &out.message)
                .await;
        }
        burst.flush(port).await;
        while let Some(event) = self.engine.poll_event() {
            self.note(event);
        }
        while let Some(message) = self.engine.poll_read() {
            if let RTCMessage::DataChannelMessage(_, message) = message.message {
                self.count_inbound(now, message.data.len());
            }
        }
        self.deadline = self.engine.poll_timeout();
    }

    fn note(&mut self, event: RTCPeerConnectionEvent) {
        match event {
            RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) => match state {
                RTCPeerConnectionState::Connected => self.is_connected = true,
                RTCPeerConnectionState::Disconnected
                | RTCPeerConnectionState::Failed
                | RTCPeerConnectionState::Closed => self.is_over = true,
                _ => {}
            },
            RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnOpen(id)) => {
                let is_ours = self
                    .engine
                    .data_channel(id)
                    .is_some_and(|channel| channel.label() == LABEL);
                if is_ours && self.channel.is_none() {
                    self.channel = Some(id);
                    self.channel_opened = true;
                }
            }
            RTCPeerConnectionEvent::OnDataChannel(RTCDataChannelEvent::OnClose(id))
                if self.channel == Some(id) =>
            {
                self.channel = None;
                self.is_over = true;
            }
            _ => {}
        }
    }

    /// Players have nothing to say; one that says much loses the channel.
    fn count_inbound(&mut self, now: Instant, bytes: usize) {
        if now.saturating_duration_since(self.inbound.0).as_secs() >= 1 {
            self.inbound = (now, 0);
        }
        self.inbound.1 += bytes;
        if self.inbound.1 > INBOUND_BYTES_MAX {
            self.close_channel();
        }
    }
}

/// The engine lists each candidate for two components; there is one, and no more will come.
fn tidied(answer: &str) -> String {
    let mut out = String::with_capacity(answer.len() + 32);
    let mut lines = answer.lines().peekable();
    while let Some(line) = lines.next() {
        let is_candidate = line.starts_with("a=candidate:");
        if !is_candidate || line.split(' ').nth(1) == Some("1") {
            out.push_str(line);
            out.push_str("\r\n");
        }
        let is_last = !lines
            .peek()
            .is_some_and(|next| next.starts_with("a=candidate:"));
        if is_candidate && is_last {
            out.push_str("a=end-of-candidates\r\n");
        }
    }
    out
}

fn engine(
    port: &Port,
    spec: &PeerSpec,
    protection: Protection,
    heard: &Arc<Heard>,
    now: Instant,
) -> Result<RTCPeerConnection, Error> {
    let mut media = MediaEngine::default();
    if spec.offer.video.is_some() {
        media.register_codec(video_codec(spec), RtpCodecKind::Video)?;
    }
    if spec.offer.audio.is_some() {
        media.register_codec(audio_codec(spec), RtpCodecKind::Audio)?;
    }
    let registry = Registry::new()
        .with(
            Slot::NackResponder,
            NackResponderBuilder::new().with_size(HISTORY).build(),
        )
        .with(Slot::SenderReport, SenderReportBuilder::new().build())
        .with(Slot::from(3_500), Tap::new(Arc::clone(heard)));
    let profile = match protection {
        Protection::Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        Protection::Sha1 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    };
    let settings = SettingEngineBuilder::new()
        .with_lite(true)
        .with_answering_dtls_role(RTCDtlsRole::Server)
        .with_ice_credentials(spec.ufrag.clone(), spec.password.clone())
        .with_srtp_protection_profiles(vec![profile])
        .with_include_loopback_candidate(true)
        .build();
    let configuration = RTCConfigurationBuilder::new()
        .with_certificates(vec![port.certificate().clone()])
        .build();
    RTCPeerConnectionBuilder::new()
        .with_configuration(configuration)
        .with_setting_engine(settings)
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .build(now)
}

fn video_codec(spec: &PeerSpec) -> RTCRtpCodecParameters {
    let choice = spec.offer.video.as_ref();
    let feedback = [
        ("nack", ""),
        ("nack", "pli"),
        ("ccm", "fir"),
        ("goog-remb", ""),
    ];
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: MIME_TYPE_H264.to_owned(),
            clock_rate: VIDEO_RATE,
            channels: 0,
            sdp_fmtp_line: choice.map(|c| c.parameters.clone()).unwrap_or_default(),
            rtcp_feedback: feedback
                .map(|(typ, parameter)| RTCPFeedback {
                    typ: typ.to_owned(),
                    parameter: parameter.to_owned(),
                })
                .to_vec(),
        },
        payload_type: choice.map_or(0, |c| c.payload_type),
    }
}

fn audio_codec(spec: &PeerSpec) -> RTCRtpCodecParameters {
    let choice = spec.offer.audio.as_ref();
    RTCRtpCodecParameters {
        rtp_codec: RTCRtpCodec {
            mime_type: MIME_TYPE_OPUS.to_owned(),
            clock_rate: AUDIO_RATE,
            channels: 2,
            sdp_fmtp_line: OPUS_PARAMETERS.to_owned(),
            rtcp_feedback: Vec::new(),
        },
        payload_type: choice.map_or(0, |c| c.payload_type),
    }
}

fn track(spec: &PeerSpec, kind: RtpCodecKind, ssrc: u32) -> MediaStreamTrack {
    let (name, codec) = match kind {
        RtpCodecKind::Video => ("video", video_codec(spec)),
        _ => ("audio", audio_codec(spec)),
    };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(ssrc),
            ..RTCRtpCodingParameters::default()
        },
        codec: codec.rtp_codec,
        ..RTCRtpEncodingParameters::default()
    };
    MediaStreamTrack::new(
        "lamplight".into(),
        name.into(),
        name.into(),
        kind,
        vec![encoding],
    )
}

/// Whether a DTLS `ClientHello` offers `AEAD_AES_128_GCM` (RFC 7714); `None` when it is none.
pub(crate) fn offers_gcm(datagram: &BytesMut) -> Option<bool> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const USE_SRTP: [u8; 2] = [0, 14];
    let is_hello = datagram.first() == Some(&HANDSHAKE) && datagram.get(13) == Some(&CLIENT_HELLO);
    if !is_hello {
        return None;
    }
    // use_srtp: type, length, list length, profiles of two bytes each, an MKI.
    let tail = datagram.get(25..)?;
    let lists = (0..tail.len()).filter_map(|at| {
        let head: [u8; 6] = tail.get(at..at + 6)?.try_into().ok()?;
        let [kind @ .., a, b, c, d] = head;
        let (length, list) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let is_one = kind == USE_SRTP && length == list.checked_add(3)? && list.is_multiple_of(2);
        tail.get(at + 6..at + 6 + usize::from(list))
            .filter(|_| is_one)
    });
    lists
        .map(|list| list.chunks(2).any(|profile| profile == [0, 7]))
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_hello_says_whether_it_takes_gcm() {
        let hello = |profiles: &[u8]| {
            let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99, 1];
            bytes.extend([5; 40]);
            let list = u8::try_from(profiles.len()).unwrap();
            bytes.extend([0, 14, 0, list + 3, 0, list]);
            bytes.extend(profiles);
            bytes.push(0);
            BytesMut::from(&bytes[..])
        };
        assert_eq!(offers_gcm(&hello(&[0, 1, 0, 7])), Some(true));
        assert_eq!(offers_gcm(&hello(&[0, 1, 0, 2])), Some(false));
        assert_eq!(offers_gcm(&BytesMut::from(&b"\x16 not a hello"[..])), None);
    }
}
