//! The server end of DTLS (RFC 6347) for one viewer: the handshake, its keys, its data.
//!
//! Invariants
//! - Only the certificate whose fingerprint is in the offer is taken.
//! - The protection of media is `AEAD_AES_128_GCM` whenever the client's hello lists it. A client
//!   that lists more decides itself, so the list it meets is made after its hello.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rtc::crypto::providers::RingProvider;
use rtc::crypto::{HashAlgorithm, RTCCrypto, RTCCryptoProvider};
use rtc::dtls::config::{
    ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig,
    VerifyPeerCertificateFn,
};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;

use super::flight::Flights;
use super::srtp::{Profile, Srtp};

/// The engine tells connections apart by address; there is one, whatever path it takes.
const VIEWER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1);

/// Who we are towards all viewers: a certificate for the life of the process.
#[derive(Clone)]
pub(crate) struct Identity {
    crypto: Arc<dyn RTCCryptoProvider>,
    certificate: Certificate,
    /// As SDP writes it, without the name of the hash.
    pub(crate) fingerprint: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// A new one: ECDSA on P-256.
    pub(crate) fn new() -> Result<Self, Error> {
        let crypto: Arc<dyn RTCCryptoProvider> = Arc::new(RingProvider::new());
        let names = vec!["lamplight".to_owned()];
        let certificate = Certificate::generate_self_signed(names, crypto.crypto())?;
        let der = certificate
            .certificate
            .first()
            .ok_or(Error::ErrNonCertificate)?;
        let fingerprint = fingerprint(crypto.crypto(), der)?;
        Ok(Self {
            crypto,
            certificate,
            fingerprint,
        })
    }
}

/// SHA-256 as pairs of upper-case digits (RFC 8122 5).
fn fingerprint(crypto: &dyn RTCCrypto, der: &[u8]) -> Result<String, Error> {
    let hash = crypto.hash(HashAlgorithm::Sha256, der);
    let hash = hash.map_err(|err| Error::Crypto(err.to_string()))?;
    let mut out = String::with_capacity(96);
    for (n, byte) in hash.iter().enumerate() {
        let colon = if n == 0 { "" } else { ":" };
        write!(out, "{colon}{byte:02X}").map_err(|err| Error::Other(err.to_string()))?;
    }
    Ok(out)
}

/// What came of a datagram.
pub(crate) enum News {
    /// The handshake is done: media can be protected.
    Keys(Box<Srtp>),
    /// Data for the layer above.
    Data(BytesMut),
    /// The viewer closed the connection.
    Closed,
}

/// One viewer's connection.
pub(crate) struct Dtls {
    identity: Arc<Identity>,
    /// Of the certificates the viewer may show.
    fingerprints: Arc<[String]>,
    endpoint: Option<Endpoint>,
    outbox: VecDeque<Bytes>,
    flights: Flights,
    has_keys: bool,
    is_closed: bool,
}

impl fmt::Debug for Dtls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dtls")
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}

impl Dtls {
    /// A connection that waits for the hello of one who holds such a certificate.
    pub(crate) fn new(identity: Arc<Identity>, fingerprints: &[String]) -> Self {
        Self {
            identity,
            fingerprints: fingerprints.into(),
            endpoint: None,
            outbox: VecDeque::new(),
            flights: Flights::default(),
            has_keys: false,
            is_closed: false,
        }
    }

    /// Takes a datagram. A damaged or forged one is no fault of the connection.
    pub(crate) fn receive(&mut self, now: Instant, datagram: BytesMut) -> Result<Vec<News>, Error> {
        if self.is_closed {
            return Ok(Vec::new());
        }
        let mut endpoint = match self.endpoint.take() {
            Some(endpoint) => endpoint,
            None => match self.open(&datagram)? {
                Some(endpoint) => endpoint,
                None => return Ok(Vec::new()),
            },
        };
        let is_repetition = !self.has_keys && self.flights.is_repetition(&datagram);
        let read = endpoint.read(now, VIEWER, None, datagram);
        let endpoint = self.endpoint.insert(endpoint);
        let has_answer = take(endpoint, &mut self.flights, &mut self.outbox);
        if is_repetition && !has_answer {
            self.outbox.extend(self.flights.repeat());
        }
        let mut news = Vec::new();
        for event in read? {
            match event {
                EndpointEvent::HandshakeComplete => {
                    self.has_keys = true;
                    self.flights.forget();
                    let state = endpoint.get_connection_state(VIEWER);
                    let state = state.ok_or(Error::ErrDtlsTransportNotStarted)?;
                    news.push(News::Keys(Box::new(Srtp::new(state)?)));
                }
                EndpointEvent::ApplicationData(data) => news.push(News::Data(data)),
                EndpointEvent::PeerClosed => {
                    self.is_closed = true;
                    news.push(News::Closed);
                }
                _ => {}
            }
        }
        Ok(news)
    }

    /// Queues data of the layer above.
    pub(crate) fn send(&mut self, now: Instant, data: &[u8]) -> Result<(), Error> {
        match &mut self.endpoint {
            Some(endpoint) => {
                let written = endpoint.write(now, VIEWER, data);
                take(endpoint, &mut self.flights, &mut self.outbox);
                written
            }
            None => Err(Error::ErrDtlsTransportNotStarted),
        }
    }

    /// The next datagram to send.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        self.outbox.pop_front()
    }

    /// When [`Self::tick`] must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.endpoint.as_ref()?.poll_timeout(&VIEWER)
    }

    /// Sends again what may be lost.
    pub(crate) fn tick(&mut self, now: Instant) {
        if let Some(endpoint) = &mut self.endpoint {
            // It fails when the handshake was repeated too often; the session's own bound is
            // shorter.
            drop(endpoint.handle_timeout(VIEWER, now));
            self.flights.renew();
            take(endpoint, &mut self.flights, &mut self.outbox);
        }
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self, now: Instant) {
        if let Some(endpoint) = &mut self.endpoint {
            drop(endpoint.close(now));
            take(endpoint, &mut self.flights, &mut self.outbox);
        }
        self.is_closed = true;
    }

    /// The end of a connection that begins with this hello; `None` when it is none.
    fn open(&self, datagram: &[u8]) -> Result<Option<Endpoint>, Error> {
        let Some(profiles) = offered_profiles(datagram) else {
            return Ok(None);
        };
        let config = self.config(Profile::of(profiles))?;
        let protocol = TransportProtocol::UDP;
        Ok(Some(Endpoint::new(
            VIEWER,
            protocol,
            Some(Arc::new(config)),
        )))
    }

    fn config(&self, profile: Profile) -> Result<HandshakeConfig, Error> {
        let (crypto, wanted) = (
            Arc::clone(&self.identity.crypto),
            Arc::clone(&self.fingerprints),
        );
        let verify: VerifyPeerCertificateFn = Arc::new(move |shown: &[Vec<u8>], _: &[_]| {
            let shown = shown.first().ok_or(Error::ErrNonCertificate)?;
            let shown = fingerprint(crypto.crypto(), shown)?;
            if wanted.iter().any(|one| one.eq_ignore_ascii_case(&shown)) {
                return Ok(());
            }
            Err(Error::ErrNoMatchingCertificateFingerprint)
        });
        let profile = match profile {
            Profile::Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
            Profile::Sha1 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        };
        ConfigBuilder::default()
            .with_crypto_provider(Arc::clone(&self.identity.crypto))
            .with_certificates(vec![self.identity.certificate.clone()])
            .with_srtp_protection_profiles(vec![profile])
            .with_client_auth(ClientAuthType::RequireAnyClientCert)
            // No authority signs these certificates: the fingerprint is what counts.
            .with_insecure_skip_verify(true)
            .with_verify_peer_certificate(Some(verify))
            .with_extended_master_secret(ExtendedMasterSecretType::Require)
            .build(false, None)
    }
}

/// Takes what the engine wants to send; true when there is something.
fn take(endpoint: &mut Endpoint, flights: &mut Flights, outbox: &mut VecDeque<Bytes>) -> bool {
    let before = outbox.len();
    while let Some(transmit) = endpoint.poll_transmit() {
        flights.sent(&transmit.message);
        outbox.push_back(transmit.message.freeze());
    }
    outbox.len() > before
}

/// The list in the `use_srtp` extension of a `ClientHello` (RFC 5764 4.1.1), two bytes each;
/// empty when it is not found in this datagram, `None` when the datagram is no hello.
fn offered_profiles(datagram: &[u8]) -> Option<&[u8]> {
    const HANDSHAKE: u8 = 22;
    const CLIENT_HELLO: u8 = 1;
    const USE_SRTP: [u8; 2] = [0, 14];
    let is_hello = datagram.first() == Some(&HANDSHAKE) && datagram.get(13) == Some(&CLIENT_HELLO);
    if !is_hello {
        return None;
    }
    // use_srtp: type, length, list length, profiles of two bytes each, an MKI.
    let tail = datagram.get(25..).unwrap_or_default();
    let mut lists = (0..tail.len()).filter_map(|at| {
        let head: [u8; 6] = tail.get(at..at + 6)?.try_into().ok()?;
        let [kind @ .., a, b, c, d] = head;
        let (length, list) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let is_one = kind == USE_SRTP && length == list.checked_add(3)? && list.is_multiple_of(2);
        tail.get(at + 6..at + 6 + usize::from(list))
            .filter(|_| is_one)
    });
    Some(lists.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A player's end.
    struct Player {
        endpoint: Endpoint,
        identity: Identity,
        flights: Flights,
    }

    impl Player {
        fn connect(now: Instant) -> Self {
            let identity = Identity::new().unwrap();
            let config = ConfigBuilder::default()
                .with_crypto_provider(Arc::clone(&identity.crypto))
                .with_certificates(vec![identity.certificate.clone()])
                .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm])
                .with_insecure_skip_verify(true)
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                .build(true, Some(VIEWER));
            let mut endpoint = Endpoint::new(VIEWER, TransportProtocol::UDP, None);
            endpoint
                .connect(now, VIEWER, Arc::new(config.unwrap()), None)
                .unwrap();
            let flights = Flights::default();
            Self {
                endpoint,
                identity,
                flights,
            }
        }
    }

    /// Shakes hands over a path that loses datagrams as told; after how long both have keys.
    fn shakes_hands(mut is_lost: impl FnMut() -> bool) -> Option<Duration> {
        const TRIP: Duration = Duration::from_millis(50);
        const CHANGE_CIPHER_SPEC: u8 = 20;
        const RETRY: Duration = Duration::from_secs(1);
        let began = tokio::time::Instant::now().into_std();
        let mut player = Player::connect(began);
        let fingerprint = player.identity.fingerprint.clone();
        let mut server = Dtls::new(Arc::new(Identity::new().unwrap()), &[fingerprint]);
        let mut outbox = VecDeque::new();
        let (mut has_keys, mut is_done) = (false, false);
        let (mut now, mut asked) = (began, began);
        while now - began < Duration::from_secs(15) {
            now += TRIP;
            let Player {
                endpoint, flights, ..
            } = &mut player;
            if endpoint.poll_timeout(&VIEWER).is_some_and(|due| due <= now) {
                endpoint.handle_timeout(VIEWER, now).unwrap();
            }
            take(endpoint, flights, &mut outbox);
            // The engine's timer ends with whatever comes; a browser's does not.
            if endpoint.poll_timeout(&VIEWER).is_none() && now >= asked + RETRY {
                outbox.extend(flights.repeat());
            }
            while let Some(sent) = outbox.pop_front() {
                asked = now;
                if !is_lost() {
                    let news = server.receive(now, sent.into()).unwrap();
                    has_keys |= news.iter().any(|news| matches!(news, News::Keys(_)));
                }
            }
            if server.deadline().is_some_and(|due| due <= now) {
                server.tick(now);
            }
            while let Some(sent) = server.next() {
                // Our last flight is repeated by the engine for a client that numbers its records
                // anew, as browsers do; the engine as a client, which stands for them, does not.
                let is_last = sent.first() == Some(&CHANGE_CIPHER_SPEC);
                if is_last || !is_lost() {
                    let is_repetition = flights.is_repetition(&sent);
                    let events = endpoint.read(now, VIEWER, None, sent.into()).unwrap();
                    if !take(endpoint, flights, &mut outbox) && is_repetition {
                        outbox.extend(flights.repeat());
                    }
                    let done = |event: &_| matches!(event, EndpointEvent::HandshakeComplete);
                    is_done |= events.iter().any(done);
                }
            }
            if has_keys && is_done {
                return Some(now - began);
            }
        }
        None
    }

    /// Any seven of ten get through (spec media.md 9).
    #[tokio::test(start_paused = true)]
    async fn a_handshake_completes_when_three_of_ten_datagrams_are_lost() {
        assert!(shakes_hands(|| false).is_some_and(|took| took < Duration::from_secs(1)));
        for seed in 0..60_u64 {
            let mut state = seed * 2 + 1;
            let mut left = Vec::new();
            let is_lost = || {
                if left.is_empty() {
                    // Another three of the next ten.
                    left = vec![
                        true, true, true, false, false, false, false, false, false, false,
                    ];
                }
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = usize::try_from(state >> 33).unwrap() % left.len();
                left.swap_remove(at)
            };
            let took = shakes_hands(is_lost);
            assert!(took.is_some(), "seed {seed}");
        }
    }

    #[test]
    fn the_protection_is_gcm_for_a_hello_that_lists_it() {
        let hello = |profiles: &[u8]| {
            let mut bytes = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99, 1];
            bytes.extend([5; 40]);
            let list = u8::try_from(profiles.len()).unwrap();
            bytes.extend([0, 14, 0, list + 3, 0, list]);
            bytes.extend(profiles);
            bytes.push(0);
            bytes
        };
        let cases = [
            (&[0_u8, 1, 0, 7][..], Some(Profile::Gcm)),
            (&[0, 7], Some(Profile::Gcm)),
            (&[0, 1, 0, 2], Some(Profile::Sha1)),
        ];
        for (profiles, expected) in cases {
            let offered = hello(profiles);
            assert_eq!(offered_profiles(&offered).map(Profile::of), expected);
        }
        assert_eq!(offered_profiles(b"\x16 not a hello"), None);
        assert_eq!(offered_profiles(b""), None);
    }
}
