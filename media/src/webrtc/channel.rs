//! The data channel that carries cues: SCTP over DTLS (RFC 8261), opened by the player (RFC 8832).
//!
//! Invariants
//! - One channel is taken, by label and protocol; others are closed.
//! - Players have nothing to say: what they send is thrown away, and one that sends much loses the
//!   channel.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use rtc::sctp::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ServerConfig, StreamId, TransportConfig,
};
use rtc::shared::TransportProtocol;

use super::message::{LABEL, PROTOCOL};

/// The engine tells associations apart by address; there is one.
const VIEWER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);
/// The largest message either way.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 65_536;
/// What may arrive before it is read.
const RECEIVE_BYTES_MAX: u32 = 64 << 10;
const STREAMS_MAX: u16 = 64;
/// Inbound bytes a second beyond which the channel is closed.
const INBOUND_BYTES_MAX: usize = 1_024;

const DATA_CHANNEL_OPEN: u8 = 3;
const DATA_CHANNEL_ACK: u8 = 2;

/// The association of one viewer, and its channel once it is open.
pub(crate) struct Channel {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    stream: Option<StreamId>,
    /// Bytes of the player since a moment.
    inbound: (Instant, usize),
    /// True when the player opened the channel.
    pub(crate) is_open: bool,
    /// True when the player closed it again, or the whole association.
    pub(crate) is_over: bool,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("is_open", &self.is_open)
            .field("is_over", &self.is_over)
            .finish_non_exhaustive()
    }
}

impl Channel {
    /// Waits for the player's association on `port`.
    pub(crate) fn new(now: Instant, port: u16, message_bytes_max: u32) -> Self {
        let transport = TransportConfig::default()
            .with_sctp_port(port)
            .with_max_message_size(message_bytes_max.clamp(1, MESSAGE_BYTES_MAX))
            .with_max_receive_buffer_size(RECEIVE_BYTES_MAX)
            .with_max_num_inbound_streams(STREAMS_MAX)
            .with_max_num_outbound_streams(STREAMS_MAX);
        let endpoint = Endpoint::new(
            VIEWER,
            TransportProtocol::UDP,
            Arc::new(EndpointConfig::default()),
            Some(Arc::new(ServerConfig::new(transport))),
        );
        Self {
            endpoint,
            association: None,
            stream: None,
            inbound: (now, 0),
            is_open: false,
            is_over: false,
        }
    }

    /// Takes a packet.
    pub(crate) fn receive(&mut self, now: Instant, packet: Bytes) {
        let Some((handle, event)) = self.endpoint.handle(now, VIEWER, None, packet) else {
            return;
        };
        match event {
            // A player that begins again has given up the association before.
            DatagramEvent::NewAssociation(association) => {
                self.association = Some((handle, association));
                (self.stream, self.is_open) = (None, false);
            }
            DatagramEvent::AssociationEvent(event) => {
                if let Some((ours, association)) = &mut self.association
                    && *ours == handle
                {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
        self.note();
        self.read(now);
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Some((_, association)) = &mut self.association {
            association.handle_timeout(now);
        }
        self.note();
    }

    /// When [`Self::tick`] must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.association.as_ref()?.1.poll_timeout()
    }

    /// Sends text; false when the channel is not open.
    pub(crate) fn send(&mut self, now: Instant, text: String) -> bool {
        let Some(id) = self.stream else { return false };
        self.write(now, id, text.into(), PayloadProtocolIdentifier::String)
    }

    /// Bytes that the player has not yet acknowledged.
    pub(crate) fn unsent(&mut self) -> usize {
        let stream = self.stream.zip(self.association.as_mut());
        let stream = stream.and_then(|(id, (_, association))| association.stream(id).ok());
        stream.map_or(0, |stream| stream.buffered_amount().unwrap_or(0))
    }

    /// Closes the channel because a bound was reached.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(id) = self.stream.take() {
            self.refuse(now, id);
        }
        self.is_open = false;
    }

    /// Ends the association at once.
    pub(crate) fn abort(&mut self) {
        if let Some((_, association)) = &mut self.association {
            // It is closed already, or is now.
            drop(association.abort());
        }
    }

    /// The packets to send now.
    pub(crate) fn next(&mut self, now: Instant) -> Vec<Bytes> {
        let mut out = Vec::new();
        if let Some((_, association)) = &mut self.association {
            while let Some(transmit) = association.poll_transmit(now) {
                if let Payload::RawEncode(packets) = transmit.message {
                    out.extend(packets);
                }
            }
        }
        out
    }

    fn note(&mut self) {
        let Some((handle, association)) = &mut self.association else {
            return;
        };
        while let Some(event) = association.poll() {
            let is_lost = match event {
                Event::AssociationLost { id, .. } => self.stream == Some(id),
                Event::HandshakeFailed { .. } => true,
                _ => false,
            };
            self.is_over |= is_lost;
        }
        let handle = *handle;
        let mut is_drained = false;
        while let Some(event) = association.poll_endpoint_event() {
            self.endpoint.handle_event(handle, event);
            is_drained = true;
        }
        if is_drained {
            self.is_over |= self.is_open;
            (self.association, self.stream, self.is_open) = (None, None, false);
        }
    }

    /// Reads all that has come, whichever stream it came on.
    fn read(&mut self, now: Instant) {
        let Some((_, association)) = &mut self.association else {
            return;
        };
        // A message may overtake the end of the handshake, and waits for it.
        if association.is_handshaking() {
            return;
        }
        let mut got = Vec::new();
        for id in association.stream_ids() {
            let Ok(mut stream) = association.stream(id) else {
                continue;
            };
            while let Ok(Some(message)) = stream.read_sctp() {
                let largest = usize::try_from(RECEIVE_BYTES_MAX).unwrap_or(usize::MAX);
                let payload = message.to_payload(largest).unwrap_or_default();
                got.push((id, message.ppi, payload));
            }
        }
        for (id, kind, payload) in got {
            if kind == PayloadProtocolIdentifier::Dcep {
                self.control(now, id, payload);
            } else {
                self.count(now, payload.len());
            }
        }
    }

    fn control(&mut self, now: Instant, id: StreamId, message: BytesMut) {
        if message.first() != Some(&DATA_CHANNEL_OPEN) {
            return;
        }
        let is_ours = asked(&message) == Some((LABEL.as_bytes(), PROTOCOL.as_bytes()));
        if !is_ours || self.is_open {
            return self.refuse(now, id);
        }
        let acknowledged = Bytes::from_static(&[DATA_CHANNEL_ACK]);
        if self.write(now, id, acknowledged, PayloadProtocolIdentifier::Dcep) {
            self.stream = Some(id);
            self.is_open = true;
        }
    }

    fn count(&mut self, now: Instant, bytes: usize) {
        if now.saturating_duration_since(self.inbound.0) >= Duration::from_secs(1) {
            self.inbound = (now, 0);
        }
        self.inbound.1 += bytes;
        if self.inbound.1 > INBOUND_BYTES_MAX {
            self.close(now);
        }
    }

    fn refuse(&mut self, now: Instant, id: StreamId) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
        {
            drop(stream.close(now));
        }
    }

    fn write(
        &mut self,
        now: Instant,
        id: StreamId,
        message: Bytes,
        kind: PayloadProtocolIdentifier,
    ) -> bool {
        let Some((_, association)) = &mut self.association else {
            return false;
        };
        let stream = association.stream(id);
        stream.is_ok_and(|mut s| s.write_chunk_with_ppi(now, &message, kind).is_ok())
    }
}

/// Label and protocol of a `DATA_CHANNEL_OPEN` (RFC 8832 5.1).
fn asked(message: &[u8]) -> Option<(&[u8], &[u8])> {
    const LENGTHS_AT: usize = 8;
    let mut rest = message.get(LENGTHS_AT..)?;
    let label = usize::from(rest.try_get_u16().ok()?);
    let protocol = usize::from(rest.try_get_u16().ok()?);
    let (label, rest) = rest.split_at_checked(label)?;
    Some((label, rest.get(..protocol)?))
}

#[cfg(test)]
mod tests {
    use rtc::sctp::ClientConfig;

    use super::*;

    /// A player's end of the association.
    struct Player {
        endpoint: Endpoint,
        association: Association,
    }

    impl Player {
        fn new(now: Instant) -> Self {
            let mut endpoint = Endpoint::new(
                VIEWER,
                TransportProtocol::UDP,
                Arc::new(EndpointConfig::default()),
                None,
            );
            let connected = endpoint.connect(now, ClientConfig::default(), VIEWER);
            let (_, association) = connected.unwrap();
            Self {
                endpoint,
                association,
            }
        }

        /// Carries packets both ways until nobody has anything to say.
        fn talk(&mut self, now: Instant, server: &mut Channel) {
            loop {
                let mut packets = Vec::new();
                while let Some(transmit) = self.association.poll_transmit(now) {
                    if let Payload::RawEncode(sent) = transmit.message {
                        packets.extend(sent);
                    }
                }
                let is_silent = packets.is_empty();
                packets
                    .into_iter()
                    .for_each(|packet| server.receive(now, packet));
                let answers = server.next(now);
                if is_silent && answers.is_empty() {
                    return;
                }
                for answer in answers {
                    let event = self.endpoint.handle(now, VIEWER, None, answer);
                    if let Some((_, DatagramEvent::AssociationEvent(event))) = event {
                        self.association.handle_event(event);
                    }
                }
            }
        }

        fn open(&mut self, now: Instant, id: StreamId, label: &str, protocol: &str) {
            let mut message = vec![DATA_CHANNEL_OPEN, 0, 0, 0, 0, 0, 0, 0];
            for text in [label, protocol] {
                message.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
            }
            message.extend(label.bytes().chain(protocol.bytes()));
            let kind = PayloadProtocolIdentifier::Dcep;
            let mut stream = self.association.open_stream(id, kind).unwrap();
            stream.write_with_ppi(now, &message, kind).unwrap();
        }

        fn heard(&mut self, id: StreamId) -> Vec<(PayloadProtocolIdentifier, Vec<u8>)> {
            let mut out = Vec::new();
            let Ok(mut stream) = self.association.stream(id) else {
                return out;
            };
            while let Ok(Some(message)) = stream.read_sctp() {
                let payload = message.to_payload(65_536).unwrap();
                out.push((message.ppi, payload.to_vec()));
            }
            out
        }
    }

    fn now() -> Instant {
        tokio::time::Instant::now().into_std()
    }

    #[test]
    fn the_players_channel_is_opened_and_text_arrives_in_order() {
        let now = now();
        let mut server = Channel::new(now, 5_000, 262_144);
        let mut player = Player::new(now);
        player.talk(now, &mut server);
        assert!(!server.is_open && !server.send(now, "too early".into()));
        player.open(now, 0, "cues", "lamplight.cues.1");
        player.talk(now, &mut server);
        assert!(server.is_open);
        assert!(server.send(now, "one".into()) && server.send(now, "x".repeat(3_000)));
        assert!(server.unsent() >= 3_003);
        player.talk(now, &mut server);
        // The last packet is acknowledged a little later.
        let later = now + Duration::from_secs(1);
        player.association.handle_timeout(later);
        player.talk(later, &mut server);
        let heard = player.heard(0);
        let texts: Vec<usize> = heard.iter().map(|(_, text)| text.len()).collect();
        assert_eq!(texts, [1, 3, 3_000]);
        assert_eq!(heard[0].0, PayloadProtocolIdentifier::Dcep);
        assert_eq!(server.unsent(), 0);
    }

    #[test]
    fn a_channel_of_another_name_or_protocol_is_not_taken() {
        let now = now();
        let mut server = Channel::new(now, 5_000, 65_536);
        let mut player = Player::new(now);
        player.talk(now, &mut server);
        let others = [
            ("chat", "lamplight.cues.1"),
            ("cues", ""),
            ("cues", "lamplight.cues.2"),
        ];
        for (id, (label, protocol)) in (0..).step_by(2).zip(others) {
            player.open(now, id, label, protocol);
            player.talk(now, &mut server);
            assert!(!server.is_open, "{label} {protocol}");
        }
        player.open(now, 20, "cues", "lamplight.cues.1");
        player.talk(now, &mut server);
        assert!(server.is_open && !server.is_over);
    }

    #[test]
    fn a_player_that_talks_loses_the_channel_and_one_that_whispers_does_not() {
        for (bytes, stays) in [(1_024, true), (1_025, false)] {
            let now = now();
            let mut server = Channel::new(now, 5_000, 65_536);
            let mut player = Player::new(now);
            player.talk(now, &mut server);
            player.open(now, 0, "cues", "lamplight.cues.1");
            player.talk(now, &mut server);
            let mut stream = player.association.stream(0).unwrap();
            let kind = PayloadProtocolIdentifier::Binary;
            stream.write_with_ppi(now, &vec![1; bytes], kind).unwrap();
            player.talk(now, &mut server);
            assert_eq!(server.is_open, stays, "{bytes} bytes");
            assert_eq!(server.send(now, "a cue".into()), stays);
        }
    }

    #[test]
    fn a_player_that_goes_is_noticed() {
        let now = now();
        let mut server = Channel::new(now, 5_000, 65_536);
        let mut player = Player::new(now);
        player.talk(now, &mut server);
        player.open(now, 0, "cues", "lamplight.cues.1");
        player.talk(now, &mut server);
        player.association.abort().unwrap();
        player.talk(now, &mut server);
        assert!(server.is_over);
    }
}
