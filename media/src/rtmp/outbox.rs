//! What we say on a connection: whole messages with full headers, and acknowledgements.
//!
//! Not here: when something is said; [`super::session`] decides that.

#![deny(clippy::indexing_slicing)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::amf::{self, Value};
use super::chunk::{ChunkWriter, Message, kind};
use super::inner::{COMMAND_ID, WINDOW_BYTES};

/// Chunk streams of what we send: protocol control, and the answers on a message stream.
const CONTROL_ID: u8 = 2;
const STATUS_ID: u8 = 5;

/// User control events (RTMP 1.0 section 7.1.7).
const STREAM_BEGIN: u16 = 0;
const STREAM_EOF: u16 = 1;
const PING_REQUEST: u16 = 6;
const PING_RESPONSE: u16 = 7;

/// One connection's way out.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    writer: ChunkWriter,
    out: BytesMut,
    received: u64,
    acknowledged: u64,
    /// How much the peer sends before it wants to hear of it, if it said so.
    peer_window: Option<u32>,
}

impl Outbox {
    pub(super) fn take(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// Bytes that are no chunks: the handshake.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.out.put_slice(bytes);
    }

    pub(super) fn control(&mut self, type_id: u8, payload: &[u8]) {
        let message = Message {
            type_id,
            stream_id: 0,
            timestamp: 0,
            payload: Bytes::copy_from_slice(payload),
        };
        self.writer.write(&mut self.out, CONTROL_ID, &message);
    }

    pub(super) fn stream_begin(&mut self, stream_id: u32) {
        self.user_control(STREAM_BEGIN, stream_id);
    }

    pub(super) fn stream_end(&mut self, stream_id: u32) {
        self.user_control(STREAM_EOF, stream_id);
    }

    /// Asks whether the peer is there; the stamp is milliseconds.
    pub(super) fn ping(&mut self, stamp: u32) {
        self.user_control(PING_REQUEST, stamp);
    }

    fn user_control(&mut self, event: u16, value: u32) {
        let payload = [&event.to_be_bytes()[..], &value.to_be_bytes()].concat();
        self.control(kind::USER_CONTROL, &payload);
    }

    /// A command on the chunk stream that its message stream has.
    pub(super) fn message(&mut self, message: &Message) {
        let id = if message.stream_id == 0 {
            COMMAND_ID
        } else {
            STATUS_ID
        };
        self.writer.write(&mut self.out, id, message);
    }

    pub(super) fn command(&mut self, stream_id: u32, values: &[Value]) {
        self.message(&Message {
            type_id: kind::COMMAND,
            stream_id,
            timestamp: 0,
            payload: amf::write(values),
        });
    }

    pub(super) fn result(&mut self, transaction: f64, value: Value) {
        let values = [
            Value::text("_result"),
            Value::Number(transaction),
            Value::Null,
            value,
        ];
        self.command(0, &values);
    }

    pub(super) fn status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        let values = [
            Value::text("onStatus"),
            Value::Number(0.0),
            Value::Null,
            status_info(level, code, description),
        ];
        self.command(stream_id, &values);
    }

    /// Answers and remembers the peer's own control messages. Its acknowledgements and its limit
    /// on our sending need nothing of us: all we send is a few answers.
    pub(super) fn hear(&mut self, message: &Message) {
        let mut payload = message.payload.clone();
        match message.type_id {
            kind::WINDOW_ACK_SIZE => {
                let window = payload.try_get_u32().ok().filter(|window| *window > 0);
                self.peer_window = window.or(self.peer_window);
            }
            kind::USER_CONTROL if payload.try_get_u16() == Ok(PING_REQUEST) => {
                if let Ok(stamp) = payload.try_get_u32() {
                    self.user_control(PING_RESPONSE, stamp);
                }
            }
            _ => {}
        }
    }

    pub(super) fn received(&mut self, bytes: usize) {
        self.received += u64::try_from(bytes).unwrap_or(0);
    }

    /// The running total, each time half of the smaller window came.
    pub(super) fn acknowledge(&mut self) {
        let window = self.peer_window.unwrap_or(WINDOW_BYTES).min(WINDOW_BYTES);
        if self.received - self.acknowledged < u64::from(window / 2).max(1) {
            return;
        }
        self.acknowledged = self.received;
        let total = u32::try_from(self.received & u64::from(u32::MAX)).unwrap_or(0);
        self.control(kind::ACKNOWLEDGEMENT, &total.to_be_bytes());
    }
}

/// The object that says how something went.
pub(super) fn status_info(level: &str, code: &str, description: &str) -> Value {
    let pairs = [
        ("level", level),
        ("code", code),
        ("description", description),
    ];
    Value::Object(
        pairs
            .map(|(name, text)| (name.to_owned(), Value::text(text)))
            .to_vec(),
    )
}
