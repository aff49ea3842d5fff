//! The newest flight of our end of a DTLS handshake, sent again when the far end repeats its own:
//! then ours was lost (RFC 6347 4.2.4).
//!
//! The engine sends a flight again when its timer is over, but whatever comes meanwhile ends that
//! timer, so a client that repeats itself would never be answered again.
//!
//! Invariant: at most [`REPEATS_MAX`] repetitions a connection, each as large as the flight was.

use std::collections::VecDeque;

use bytes::BytesMut;
use rtc::dtls::endpoint::Endpoint;

/// A handshake has 15 s; clients repeat themselves after 50 ms, then ever later.
const REPEATS_MAX: u32 = 32;
/// Messages of a client's handshake and their fragments.
const SEEN_MAX: usize = 64;

const HANDSHAKE: u8 = 22;
const RECORD_HEADER_BYTES: usize = 13;

/// What is sent, and what was sent last.
#[derive(Debug, Default)]
pub(super) struct Flights {
    outbox: VecDeque<BytesMut>,
    newest: Vec<BytesMut>,
    repeats: u32,
    /// Number and offset of the messages that came, none of them encrypted.
    seen: Vec<[u8; 5]>,
}

impl Flights {
    /// Takes what the engine wants to send; true when there is something.
    pub(super) fn take(&mut self, endpoint: &mut Endpoint) -> bool {
        let sent = std::iter::from_fn(|| endpoint.poll_transmit());
        let sent: Vec<BytesMut> = sent.map(|transmit| transmit.message).collect();
        let has_any = !sent.is_empty();
        if has_any {
            self.outbox.extend(sent.iter().cloned());
            self.newest = sent;
        }
        has_any
    }

    /// Whether a datagram begins with a message of the handshake that came before.
    pub(super) fn is_repetition(&mut self, datagram: &[u8]) -> bool {
        let Some(name) = message(datagram) else {
            return false;
        };
        let is_known = self.seen.contains(&name);
        if !is_known && self.seen.len() < SEEN_MAX {
            self.seen.push(name);
        }
        is_known
    }

    /// Sends the newest flight again.
    pub(super) fn repeat(&mut self) {
        if self.repeats < REPEATS_MAX {
            self.repeats += 1;
            self.outbox.extend(self.newest.iter().cloned());
        }
    }

    /// Nothing is sent again once the handshake is over.
    pub(super) fn forget(&mut self) {
        self.newest = Vec::new();
        self.seen = Vec::new();
        self.repeats = REPEATS_MAX;
    }

    /// The next datagram to send.
    pub(super) fn next(&mut self) -> Option<BytesMut> {
        self.outbox.pop_front()
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
