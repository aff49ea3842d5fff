//! The newest flight of our end of a DTLS handshake, sent again when the far end repeats its own:
//! then ours was lost (RFC 6347 4.2.4).
//!
//! The engine sends a flight again when its timer is over, but whatever comes meanwhile ends that
//! timer, so a client that repeats itself would never be answered again.
//!
//! Invariant: at most [`REPEATS_MAX`] repetitions a connection, each as large as the flight was.

use bytes::Bytes;

/// A handshake has 15 s; clients repeat themselves after 50 ms, then ever later.
const REPEATS_MAX: u32 = 32;
/// Datagrams of one flight.
const DATAGRAMS_MAX: usize = 16;
/// Messages of a client's handshake and their fragments.
const SEEN_MAX: usize = 64;

const HANDSHAKE: u8 = 22;
const RECORD_HEADER_BYTES: usize = 13;

/// What was sent last of a handshake, and what came.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    newest: Vec<Bytes>,
    /// What is sent now belongs to it; else it begins another.
    is_open: bool,
    repeats: u32,
    /// Number and offset of the messages that came, none of them encrypted.
    seen: Vec<[u8; 5]>,
}

impl Flights {
    /// A datagram of the far end came. True when it begins with a message that came before: then
    /// our answer was lost.
    pub(crate) fn is_repetition(&mut self, datagram: &[u8]) -> bool {
        let Some(name) = message(datagram) else {
            return false;
        };
        if self.seen.contains(&name) {
            return true;
        }
        self.is_open = false;
        if self.seen.len() < SEEN_MAX {
            self.seen.push(name);
        }
        false
    }

    /// A datagram of ours is sent.
    pub(crate) fn sent(&mut self, datagram: &[u8]) {
        if !std::mem::replace(&mut self.is_open, true) {
            self.newest.clear();
        }
        if self.repeats < REPEATS_MAX && self.newest.len() < DATAGRAMS_MAX {
            self.newest.push(Bytes::copy_from_slice(datagram));
        }
    }

    /// What is sent next by the engine's timer is the newest flight too, in place of this one.
    pub(crate) const fn renew(&mut self) {
        self.is_open = false;
    }

    /// The newest flight, to be sent again.
    pub(crate) fn repeat(&mut self) -> Vec<Bytes> {
        if self.repeats >= REPEATS_MAX {
            return Vec::new();
        }
        self.repeats += 1;
        self.newest.clone()
    }

    /// The handshake is over: nothing is sent again.
    pub(crate) fn forget(&mut self) {
        *self = Self {
            repeats: REPEATS_MAX,
            ..Self::default()
        };
    }
}

/// `message_seq` and the low bytes of `fragment_offset` of the first message of a datagram, if it
/// is one of a handshake and not encrypted (RFC 6347 4.1, 4.2.2).
fn message(datagram: &[u8]) -> Option<[u8; 5]> {
    let epoch: [u8; 2] = datagram.get(3..5)?.first_chunk().copied()?;
    let header = datagram.get(RECORD_HEADER_BYTES..)?;
    let name = header.get(4..9)?.first_chunk().copied()?;
    (datagram.first() == Some(&HANDSHAKE) && epoch == [0, 0]).then_some(name)
}
