//! STUN as ICE uses it (RFC 8489, RFC 8445): what a check says, and what is said to it.

#![deny(clippy::indexing_slicing)]

use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut};
use rtc::crypto::providers::RingProvider;
use rtc::crypto::{HmacAlgorithm, Mac, RTCCryptoProvider};
use rtc::stun::fingerprint::fingerprint_value;

const HEADER_BYTES: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const MAC_BYTES: usize = 20;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const ICE_CONTROLLING: u16 = 0x802a;

/// Of a peer-reflexive candidate; nobody compares it with another.
const ANY_PRIORITY: u32 = 0x6e00_01ff;

static CRYPTO: RingProvider = RingProvider::new();

/// Names a request, and the response to it.
pub(crate) type Transaction = [u8; 12];

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Success,
    /// Indications, errors, other methods: nothing here waits for them.
    Other,
}

/// A message that was read, its MAC not yet checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: Kind,
    pub(crate) transaction: Transaction,
    pub(crate) username: Option<&'a str>,
    /// The controlling side wants to use the path that the request took.
    pub(crate) is_nomination: bool,
    signed: Option<Signed<'a>>,
}

/// What MESSAGE-INTEGRITY covers: type, length as far as itself, and the rest.
#[derive(Clone, Copy, Debug)]
struct Signed<'a> {
    kind: [u8; 2],
    length: [u8; 2],
    rest: &'a [u8],
    mac: &'a [u8],
}

/// Reads a datagram; `None` when it is no STUN message.
pub(crate) fn read(datagram: &[u8]) -> Option<Message<'_>> {
    let (header, attributes) = datagram.split_first_chunk::<HEADER_BYTES>()?;
    let mut head = &header[..];
    let kind = head.try_get_u16().ok()?;
    let length = usize::from(head.try_get_u16().ok()?);
    let mut cookie = [0; 4];
    head.try_copy_to_slice(&mut cookie).ok()?;
    let transaction = head.try_into().ok()?;
    if cookie != COOKIE || length != attributes.len() || !length.is_multiple_of(4) {
        return None;
    }
    let mut message = Message {
        kind: match kind {
            BINDING_REQUEST => Kind::Request,
            BINDING_SUCCESS => Kind::Success,
            _ => Kind::Other,
        },
        transaction,
        username: None,
        is_nomination: false,
        signed: None,
    };
    let mut rest = attributes;
    while message.signed.is_none() && !rest.is_empty() {
        let at = datagram.len() - rest.len();
        let kind_of = rest.try_get_u16().ok()?;
        let length = usize::from(rest.try_get_u16().ok()?);
        let value = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(4)..)?;
        match kind_of {
            USERNAME => message.username = std::str::from_utf8(value).ok(),
            USE_CANDIDATE => message.is_nomination = true,
            MESSAGE_INTEGRITY if length == MAC_BYTES => {
                let covered = u16::try_from(at + 4 + MAC_BYTES - HEADER_BYTES).ok()?;
                message.signed = Some(Signed {
                    kind: kind.to_be_bytes(),
                    length: covered.to_be_bytes(),
                    rest: datagram.get(4..at)?,
                    mac: value,
                });
            }
            _ => {}
        }
    }
    Some(message)
}

impl Message<'_> {
    /// Whether it was made by one who knows the password.
    pub(crate) fn is_authentic(&self, password: &str) -> bool {
        let Some(signed) = self.signed else {
            return false;
        };
        let covered = [&signed.kind[..], &signed.length, signed.rest];
        mac(password).is_some_and(|mut mac| mac.verify(&covered, signed.mac).is_ok())
    }
}

fn mac(password: &str) -> Option<Box<dyn Mac>> {
    let crypto = CRYPTO.crypto();
    crypto
        .new_hmac(HmacAlgorithm::Sha1, password.as_bytes())
        .ok()
}

/// The answer to a request that came from `from`.
pub(crate) fn success(transaction: Transaction, from: SocketAddr, password: &str) -> Vec<u8> {
    let mut out = begun(BINDING_SUCCESS, transaction);
    let mut value = vec![0];
    let mask = [&COOKIE[..], &transaction].concat();
    let masked = |octets: &[u8]| -> Vec<u8> {
        let pairs = octets.iter().zip(&mask);
        pairs.map(|(octet, mask)| octet ^ mask).collect()
    };
    let (family, ip) = match from.ip().to_canonical() {
        IpAddr::V4(ip) => (1, masked(&ip.octets())),
        IpAddr::V6(ip) => (2, masked(&ip.octets())),
    };
    value.put_u8(family);
    value.extend(masked(&from.port().to_be_bytes()));
    value.extend(ip);
    put(&mut out, XOR_MAPPED_ADDRESS, &value);
    finished(out, password)
}

/// A request of the controlled side; `username` names the other side first.
pub(crate) fn request(transaction: Transaction, username: &str, password: &str) -> Vec<u8> {
    let mut out = begun(BINDING_REQUEST, transaction);
    put(&mut out, USERNAME, username.as_bytes());
    put(&mut out, PRIORITY, &ANY_PRIORITY.to_be_bytes());
    put(&mut out, ICE_CONTROLLED, &[0; 8]);
    finished(out, password)
}

/// A request of the controlling side that uses the path it takes.
pub(crate) fn nomination(transaction: Transaction, username: &str, password: &str) -> Vec<u8> {
    let mut out = begun(BINDING_REQUEST, transaction);
    put(&mut out, USERNAME, username.as_bytes());
    put(&mut out, PRIORITY, &ANY_PRIORITY.to_be_bytes());
    put(&mut out, ICE_CONTROLLING, &[0xff; 8]);
    put(&mut out, USE_CANDIDATE, &[]);
    finished(out, password)
}

fn begun(kind: u16, transaction: Transaction) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.put_u16(kind);
    out.put_u16(0);
    out.put_slice(&COOKIE);
    out.put_slice(&transaction);
    out
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.put_u16(kind);
    out.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
    out.put_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// Signs a message and ends it with its checksum.
fn finished(mut out: Vec<u8>, password: &str) -> Vec<u8> {
    set_length(&mut out, 4 + MAC_BYTES);
    let mut value = [0; MAC_BYTES];
    if let Some(mut mac) = mac(password) {
        mac.sign(&[&out], &mut value)
            .expect("a tag of SHA-1 has twenty bytes");
    }
    put(&mut out, MESSAGE_INTEGRITY, &value);
    set_length(&mut out, 8);
    let checksum = fingerprint_value(&out);
    put(&mut out, FINGERPRINT, &checksum.to_be_bytes());
    out
}

/// The length field, as if `more` bytes followed.
fn set_length(out: &mut [u8], more: usize) {
    let length = u16::try_from(out.len() + more - HEADER_BYTES).unwrap_or(u16::MAX);
    if let Some(field) = out.get_mut(2..4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

#[cfg(test)]
#[expect(
    clippy::indexing_slicing,
    reason = "a test that reads past the end has failed"
)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 5769 2.1: a request with its MAC over an odd software name.
    const REQUEST: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\
        \xfa\x87\xdf\xae\x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\x80\x29\
        \x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\x00\x08\
        \x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\
        \xa2\x80\x28\x00\x04\xe5\x7a\x3b\xcf";
    const PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    /// A check as a browser sends it.
    pub(crate) fn check(username: &str, password: &str, is_nomination: bool) -> Vec<u8> {
        let mut out = begun(BINDING_REQUEST, [7; 12]);
        put(&mut out, USERNAME, username.as_bytes());
        if is_nomination {
            put(&mut out, USE_CANDIDATE, &[]);
        }
        finished(out, password)
    }

    #[test]
    fn the_request_of_rfc_5769_is_read_and_authentic() {
        let message = read(REQUEST).unwrap();
        assert_eq!(message.kind, Kind::Request);
        assert_eq!(message.username, Some("evtj:h6vY"));
        assert!(!message.is_nomination);
        assert!(message.is_authentic(PASSWORD));
        assert!(!message.is_authentic("VOkJxbRl1RmTxUk/WvJxBT"));
        for at in 0..REQUEST.len() - 8 {
            let mut forged = REQUEST.to_vec();
            forged[at] ^= 1;
            let passes = read(&forged).is_some_and(|m| m.is_authentic(PASSWORD));
            assert!(!passes, "byte {at}");
        }
    }

    /// RFC 5769 2.2 and 2.3, but for their software name.
    #[test]
    fn an_answer_says_where_the_request_came_from() {
        let transaction = *b"\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
        let cases: [(&str, &[u8]); 3] = [
            ("192.0.2.1:32853", b"\x00\x01\xa1\x47\xe1\x12\xa6\x43"),
            (
                "[::ffff:192.0.2.1]:32853",
                b"\x00\x01\xa1\x47\xe1\x12\xa6\x43",
            ),
            (
                "[2001:db8:1234:5678:11:2233:4455:6677]:32853",
                b"\x00\x02\xa1\x47\x01\x13\xa9\xfa\xa5\xd3\xf1\x79\xbc\x25\xf4\xb5\xbe\xd2\xb9\xd9",
            ),
        ];
        for (from, mapped) in cases {
            let out = success(transaction, from.parse().unwrap(), PASSWORD);
            assert_eq!(&out[24..24 + mapped.len()], mapped, "{from}");
            let message = read(&out).unwrap();
            assert_eq!(
                (message.kind, message.transaction),
                (Kind::Success, transaction)
            );
            assert!(message.is_authentic(PASSWORD));
            let checksum = fingerprint_value(&out[..out.len() - 8]);
            assert_eq!(out[out.len() - 4..], checksum.to_be_bytes());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in 0_usize..200,
        ) {
            let _ = read(&bytes);
            let mut real = REQUEST.to_vec();
            real.truncate(cut);
            real.extend(&bytes);
            let passes = read(&real).is_some_and(|m| m.is_authentic(PASSWORD));
            prop_assert!(!passes || real[..96] == REQUEST[..96]);
        }
    }
}
