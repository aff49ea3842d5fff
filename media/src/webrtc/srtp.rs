//! Protecting media (RFC 3711, RFC 7714) with the keys of one DTLS handshake.
//!
//! AES-GCM is done here, in the buffer that is sent: the engine's own way makes two copies and an
//! allocation of each packet. Everything else is the engine's.
//!
//! Invariant: a packet index protects one content only. A packet that is sent again is the same to
//! the bit, or AES-GCM would give its key away.

use std::fmt;

use rtc::crypto::providers::RingProvider;
use rtc::crypto::{
    AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CryptoError, RTCCryptoProvider,
};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::dtls::state::State;
use rtc::shared::error::Error;
use rtc::srtp::config::{Config, LABEL_EXTRACTOR_DTLS_SRTP};
use rtc::srtp::context::Context;
use rtc::srtp::option::{srtcp_replay_protection, srtp_replay_protection};
use rtc::srtp::protection_profile::ProtectionProfile;

const REPLAY_WINDOW: usize = 64;
const SALT_BYTES: usize = 12;
/// A player has one or two sources of reports.
const REPORTERS_MAX: usize = 32;
/// Bytes a tag adds to a packet.
const GCM_TAG_BYTES: usize = 16;
const SHA1_TAG_BYTES: usize = 10;

static CRYPTO: RingProvider = RingProvider::new();

/// How media is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// `AEAD_AES_128_GCM`: a third of the cost.
    Gcm,
    /// `AES128_CM_HMAC_SHA1_80`, for clients without the other.
    Sha1,
}

impl Profile {
    /// The one to take of a list of two-byte names; without one the client decides nothing.
    pub(crate) fn of(list: &[u8]) -> Self {
        const AEAD_AES_128_GCM: [u8; 2] = [0, 7];
        let has_gcm = list.chunks(2).any(|name| name == AEAD_AES_128_GCM);
        if has_gcm || list.is_empty() {
            Self::Gcm
        } else {
            Self::Sha1
        }
    }
}

/// The keys of both ways.
pub(crate) struct Srtp {
    media: Outbound,
    outbound: Context,
    inbound: Context,
    /// Who has sent reports: the context keeps something of each, before it knows them.
    reporters: Vec<u32>,
}

enum Outbound {
    Gcm(Gcm),
    /// Through the context.
    Sha1,
}

struct Gcm {
    cipher: Box<dyn AeadCipher>,
    salt: [u8; SALT_BYTES],
}

impl fmt::Debug for Srtp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Srtp").finish_non_exhaustive()
    }
}

impl Srtp {
    /// The keys that a finished handshake agreed upon.
    pub(crate) fn new(state: &State) -> Result<Self, Error> {
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => ProtectionProfile::AeadAes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => {
                ProtectionProfile::Aes128CmHmacSha1_80
            }
            _ => return Err(Error::ErrNoSuchSrtpProfile),
        };
        let mut config = Config {
            profile,
            ..Config::default()
        };
        let length = config.keying_material_len();
        let secret = state.export_keying_material(LABEL_EXTRACTOR_DTLS_SRTP, &[], length)?;
        config.set_session_keys_from_keying_material(secret.as_ref(), state.is_client())?;
        Self::from_config(&config)
    }

    /// A session whose keys nobody else has.
    pub(crate) fn for_fuzzing(profile: ProtectionProfile) -> Self {
        let mut config = Config {
            profile,
            ..Config::default()
        };
        let secret = vec![7; config.keying_material_len()];
        config
            .set_session_keys_from_keying_material(&secret, false)
            .expect("the secret has the length that the profile wants");
        Self::from_config(&config).expect("keys of the right length")
    }

    fn from_config(config: &Config) -> Result<Self, Error> {
        let (crypto, keys) = (CRYPTO.crypto(), &config.keys);
        let (key, salt) = (&keys.local_master_key, &keys.local_master_salt);
        let outbound = Context::new(key, salt, config.profile, None, None, crypto)?;
        let inbound = Context::new(
            &keys.remote_master_key,
            &keys.remote_master_salt,
            config.profile,
            Some(srtp_replay_protection(REPLAY_WINDOW)),
            Some(srtcp_replay_protection(REPLAY_WINDOW)),
            crypto,
        )?;
        let media = match config.profile {
            ProtectionProfile::AeadAes128Gcm => {
                let gcm = Gcm::new(key, salt);
                Outbound::Gcm(gcm.map_err(|err| Error::Crypto(err.to_string()))?)
            }
            _ => Outbound::Sha1,
        };
        Ok(Self {
            media,
            outbound,
            inbound,
            reporters: Vec::new(),
        })
    }

    /// Bytes that protection adds to a media packet.
    pub(crate) const fn overhead(&self) -> usize {
        match self.media {
            Outbound::Gcm(_) => GCM_TAG_BYTES,
            Outbound::Sha1 => SHA1_TAG_BYTES,
        }
    }

    /// Protects the RTP packet that `buffer` has from `start` on; `index` is its sequence number
    /// with the rounds before it.
    pub(crate) fn protect(
        &mut self,
        buffer: &mut Vec<u8>,
        start: usize,
        header_bytes: usize,
        index: u64,
    ) -> Result<(), Error> {
        match &mut self.media {
            Outbound::Gcm(gcm) => {
                let tag = gcm.seal(buffer, start, header_bytes, index);
                let tag = tag.map_err(|err| Error::Crypto(err.to_string()))?;
                buffer.extend_from_slice(&tag);
            }
            Outbound::Sha1 => {
                let packet = buffer.get(start..).unwrap_or_default();
                let protected = self.outbound.encrypt_rtp(packet)?;
                buffer.truncate(start);
                buffer.extend_from_slice(&protected);
            }
        }
        Ok(())
    }

    /// Protects an RTCP packet.
    pub(crate) fn protect_report(&mut self, packet: &[u8]) -> Result<bytes::BytesMut, Error> {
        self.outbound.encrypt_rtcp(packet)
    }

    /// The RTCP packet in a datagram, if it is authentic and no repetition.
    pub(crate) fn open_report(&mut self, datagram: &[u8]) -> Result<bytes::BytesMut, Error> {
        // The engine takes a report that says it is not encrypted without a look at its tag.
        if matches!(self.media, Outbound::Sha1) && is_clear(datagram) {
            return Err(Error::RtcpFailedToVerifyAuthTag);
        }
        let reporter = datagram
            .get(4..8)
            .and_then(|ssrc| ssrc.first_chunk().copied());
        let reporter = u32::from_be_bytes(reporter.ok_or(Error::ErrTooShortRtcp)?);
        if !self.reporters.contains(&reporter) {
            if self.reporters.len() >= REPORTERS_MAX {
                return Err(Error::RtcpFailedToVerifyAuthTag);
            }
            self.reporters.push(reporter);
        }
        self.inbound.decrypt_rtcp(datagram)
    }
}

/// Whether an SRTCP packet with a tag of SHA-1 says that it is not encrypted (RFC 3711 3.4).
fn is_clear(datagram: &[u8]) -> bool {
    let at = datagram.len().checked_sub(SHA1_TAG_BYTES + 4);
    let flags = at.and_then(|at| datagram.get(at));
    flags.is_none_or(|flags| flags & 0x80 == 0)
}

impl Gcm {
    fn new(master_key: &[u8], master_salt: &[u8]) -> Result<Self, CryptoError> {
        const KEY_LABEL: u8 = 0;
        const SALT_LABEL: u8 = 2;
        let key = derived(master_key, master_salt, KEY_LABEL)?;
        let cipher = CRYPTO.crypto().new_aead(AeadAlgorithm::Aes128Gcm, &key)?;
        let salt = derived(master_key, master_salt, SALT_LABEL)?;
        let salt = salt.first_chunk().copied().unwrap_or_default();
        Ok(Self { cipher, salt })
    }

    /// Encrypts what follows the header, in place; returns the tag.
    fn seal(
        &mut self,
        buffer: &mut [u8],
        start: usize,
        header_bytes: usize,
        index: u64,
    ) -> Result<[u8; GCM_TAG_BYTES], CryptoError> {
        let packet = buffer.get_mut(start..).unwrap_or_default();
        let Some((header, payload)) = packet.split_at_mut_checked(header_bytes) else {
            return Err(CryptoError::AuthenticationFailed);
        };
        // RFC 7714 8.1: zeros, SSRC, rounds, sequence number; then the salt over it.
        let mut nonce = [0; SALT_BYTES];
        let (_, rest) = nonce.split_at_mut(2);
        let (ssrc, rest) = rest.split_at_mut(4);
        ssrc.copy_from_slice(header.get(8..12).unwrap_or(&[0; 4]));
        rest.copy_from_slice(index.to_be_bytes().get(2..).unwrap_or(&[0; 6]));
        for (byte, salt) in nonce.iter_mut().zip(self.salt) {
            *byte ^= salt;
        }
        let mut tag = [0; GCM_TAG_BYTES];
        self.cipher
            .seal_in_place(&nonce, header, payload, &mut tag)?;
        Ok(tag)
    }
}

/// A session key (RFC 3711 4.3): one block is enough for each of those used here.
fn derived(master_key: &[u8], master_salt: &[u8], label: u8) -> Result<[u8; 16], CryptoError> {
    let mut block = [0; 16];
    for (byte, salt) in block.iter_mut().zip(master_salt) {
        *byte = *salt;
    }
    // The label stands above 48 bits of index, the whole above 16 bits of counter.
    let [.., at, _, _, _, _, _, _, _, _] = &mut block;
    *at ^= label;
    let aes = BlockCipherAlgorithm::Aes128;
    CRYPTO.crypto().block_encrypt(aes, master_key, &mut block)?;
    Ok(block)
}

#[cfg(test)]
pub(crate) mod tests {
    use rtc::rtp;
    use rtc::shared::marshal::Marshal;

    use super::*;

    /// Keys of a server, and what a viewer opens its packets with.
    pub(crate) fn keys() -> (Srtp, Context) {
        let config = config(ProtectionProfile::AeadAes128Gcm);
        let (key, salt) = (
            &config.keys.local_master_key,
            &config.keys.local_master_salt,
        );
        // As wide as that of browsers.
        let window = Some(srtp_replay_protection(1_024));
        let crypto = CRYPTO.crypto();
        let viewer = Context::new(key, salt, config.profile, window, None, crypto);
        (Srtp::from_config(&config).unwrap(), viewer.unwrap())
    }

    fn config(profile: ProtectionProfile) -> Config {
        let mut config = Config {
            profile,
            ..Config::default()
        };
        let length = config.keying_material_len();
        let secret: Vec<u8> = (0..length)
            .map(|n| u8::try_from(n * 7 % 251).unwrap())
            .collect();
        config
            .set_session_keys_from_keying_material(&secret, false)
            .unwrap();
        config
    }

    /// A report that says it is in the clear needs no key, so it proves nothing.
    #[test]
    fn a_report_is_taken_only_if_it_is_encrypted_and_from_one_of_few() {
        for profile in [
            ProtectionProfile::AeadAes128Gcm,
            ProtectionProfile::Aes128CmHmacSha1_80,
        ] {
            let config = config(profile);
            let mut srtp = Srtp::from_config(&config).unwrap();
            let keys = &config.keys;
            let (key, salt) = (&keys.remote_master_key, &keys.remote_master_salt);
            let crypto = CRYPTO.crypto();
            let mut viewer = Context::new(key, salt, profile, None, None, crypto).unwrap();
            let report = |ssrc: u32| [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat();
            let sealed = viewer.encrypt_rtcp(&report(1)).unwrap();
            assert_eq!(srtp.open_report(&sealed).unwrap()[..], report(1)[..]);
            assert!(srtp.open_report(&sealed).is_err(), "a repetition");
            let clear = [report(1), vec![0; 40]].concat();
            assert!(srtp.open_report(&clear).is_err(), "{profile:?}");
            for ssrc in 2..100 {
                assert!(
                    srtp.open_report(&[report(ssrc), vec![0x80; 40]].concat())
                        .is_err()
                );
            }
            assert_eq!(srtp.reporters.len(), REPORTERS_MAX);
            let sealed = viewer.encrypt_rtcp(&report(1)).unwrap();
            assert!(
                srtp.open_report(&sealed).is_ok(),
                "who was there before is heard"
            );
        }
    }

    /// What is made here is what the engine makes, over rounds of the sequence number as well.
    #[test]
    fn packets_are_protected_as_the_engine_protects_them() {
        for profile in [
            ProtectionProfile::AeadAes128Gcm,
            ProtectionProfile::Aes128CmHmacSha1_80,
        ] {
            let config = config(profile);
            let mut srtp = Srtp::from_config(&config).unwrap();
            let keys = &config.keys;
            let (key, salt) = (&keys.local_master_key, &keys.local_master_salt);
            let crypto = CRYPTO.crypto();
            let mut engine = Context::new(key, salt, profile, None, None, crypto).unwrap();
            for index in 65_500_u64..65_700 {
                let sequence_number = u16::try_from(index % 65_536).unwrap();
                let header = rtp::header::Header {
                    version: 2,
                    payload_type: 102,
                    sequence_number,
                    ssrc: 0x1234_5678,
                    ..rtp::header::Header::default()
                };
                let payload = vec![9; 100 + usize::from(sequence_number % 50)].into();
                let packet = rtp::Packet { header, payload }.marshal().unwrap();
                let mut buffer = b"before".to_vec();
                buffer.extend_from_slice(&packet);
                let wanted = engine.encrypt_rtp(&packet).unwrap();
                srtp.protect(&mut buffer, 6, 12, index).unwrap();
                assert_eq!(buffer.len(), 6 + packet.len() + srtp.overhead());
                assert_eq!(buffer[6..], wanted[..], "{profile:?}, index {index}");
            }
        }
    }
}
