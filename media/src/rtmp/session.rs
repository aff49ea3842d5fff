//! The dialogue of one RTMP connection, without IO (spec media.md 3.1–3.3).
//!
//! `handshake → connect → createStream → publish → media → end`. `rml_rtmp` shakes hands and is
//! the state machine of the commands; both directions cross this wrapper as whole messages: what
//! goes in was read and bounded by [`super::chunk`] and [`super::amf`], what comes out is read back
//! and written by our own writer with full headers.
//!
//! Invariants
//! - `rml_rtmp` never sees a byte of the network that was not checked: it mixes interleaved
//!   chunks, overflows the stack on nested values and panics on short commands.
//! - A refusal is an `onStatus` of level `error`, the last message before the close.
//!
//! Not here: sockets and clocks (`now` is an argument), what media payloads mean.

#![deny(clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use tokio::time::Instant;

use super::amf::{self, Value};
use super::chunk::{ChunkError, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
pub use super::close::CloseReason;
use super::inner::{CHUNK_BYTES, COMMAND_ID, Inner, Outcome, WINDOW_BYTES};
use crate::request::{Refusal, RefusalCode};

/// Message streams of one connection.
const STREAMS_MAX: u32 = 8;
/// Bytes of a stream key.
const KEY_BYTES_MAX: usize = 512;
/// Media before publishing is accepted is ignored up to this.
const EARLY_BYTES_MAX: usize = 4 << 20;

const HANDSHAKE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const PUBLISH: Duration = Duration::from_secs(10);
const FIRST_MEDIA: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(15);

/// Chunk streams of what we send: protocol control, and the answers on a message stream.
const CONTROL_ID: u8 = 2;
const STATUS_ID: u8 = 5;

/// What the driver must act on.
#[derive(Debug)]
pub enum SessionEvent {
    /// Somebody asks to publish: decide, then call `accept` or `refuse`.
    PublishRequested {
        /// The application, without its query.
        app: String,
        /// `tcUrl` as sent.
        tc_url: String,
        /// The bare stream key, a secret.
        stream_name: String,
    },
    /// Audio or video of the accepted publisher.
    Media(Message),
    /// The publisher stopped by itself.
    Finished,
    /// Send what [`Session::take_output`] holds, then close; the reason is for the log.
    Closed(CloseReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    Connect,
    Publish,
    /// Waiting for the server's decision.
    Deciding {
        stream_id: u32,
        request_id: u32,
    },
    /// Accepted; nothing came yet.
    Accepted {
        stream_id: u32,
    },
    Live {
        stream_id: u32,
    },
    Closed,
}

/// The server's side of one connection.
pub struct Session {
    stage: Stage,
    handshake: Handshake,
    inner: Option<Inner>,
    reader: ChunkReader,
    writer: ChunkWriter,
    out: BytesMut,
    events: VecDeque<SessionEvent>,
    deadline: Option<Instant>,
    app: String,
    tc_url: String,
    /// True when the client asked for enhanced RTMP in `connect`.
    is_enhanced: bool,
    streams: u32,
    received: u64,
    acknowledged: u64,
    early_bytes: usize,
    ignored: u32,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session of a connection that was just accepted.
    pub fn new(now: Instant) -> Self {
        Self {
            stage: Stage::Handshake,
            handshake: Handshake::new(PeerType::Server),
            inner: None,
            reader: ChunkReader::new(MessageLimits::DIALOGUE),
            writer: ChunkWriter::default(),
            out: BytesMut::new(),
            events: VecDeque::new(),
            deadline: Some(now + HANDSHAKE),
            app: String::new(),
            tc_url: String::new(),
            is_enhanced: false,
            streams: 0,
            received: 0,
            acknowledged: 0,
            early_bytes: 0,
            ignored: 0,
        }
    }

    /// Takes bytes from the network.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) {
        if self.stage == Stage::Closed {
            return;
        }
        let done = if self.stage == Stage::Handshake {
            self.shake(now, bytes)
        } else {
            self.chunks(now, bytes)
        };
        if let Err(reason) = done {
            self.close(reason);
        }
        self.acknowledge();
    }

    /// The next thing the driver must act on.
    pub fn poll(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Bytes for the network.
    pub fn take_output(&mut self) -> Bytes {
        self.out.split().freeze()
    }

    /// When [`Session::tick`] must be called, if nothing comes before.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Closes a session whose time is over.
    pub fn tick(&mut self, now: Instant) {
        if self.deadline.is_none_or(|at| now < at) {
            return;
        }
        let reason = match self.stage {
            Stage::Handshake => CloseReason::TimeoutHandshake,
            Stage::Connect => CloseReason::TimeoutConnect,
            Stage::Publish => CloseReason::TimeoutPublish,
            Stage::Accepted { stream_id } => {
                let sentence = "No audio or video came within 15 seconds. Start the stream again.";
                self.status(stream_id, "error", "NetStream.Publish.Rejected", sentence);
                CloseReason::TimeoutMedia
            }
            Stage::Live { .. } => CloseReason::Silence,
            Stage::Deciding { .. } | Stage::Closed => return,
        };
        self.close(reason);
    }

    /// The server lets it publish.
    pub fn accept(&mut self, now: Instant) {
        let Stage::Deciding {
            stream_id,
            request_id,
        } = self.stage
        else {
            return;
        };
        self.user_control_stream_begin(stream_id);
        let accepted = match &mut self.inner {
            Some(inner) => inner.accept(request_id),
            None => Err(CloseReason::Dialogue),
        };
        match accepted {
            Ok(messages) => {
                for message in messages {
                    self.reply(message);
                }
                self.reader.set_limits(MessageLimits::PUBLISHING);
                self.stage = Stage::Accepted { stream_id };
                self.deadline = Some(now + FIRST_MEDIA);
            }
            Err(reason) => self.close(reason),
        }
    }

    /// The server does not let it publish.
    pub fn refuse(&mut self, refusal: &Refusal) {
        let stream_id = match self.stage {
            Stage::Deciding { stream_id, .. }
            | Stage::Accepted { stream_id }
            | Stage::Live { stream_id } => stream_id,
            _ => 0,
        };
        let code = match refusal.code {
            RefusalCode::UnknownKey => "NetStream.Publish.BadName",
            RefusalCode::NotAllowed | RefusalCode::Busy => "NetStream.Publish.Denied",
            RefusalCode::TryAgain | RefusalCode::Unsupported => "NetStream.Publish.Rejected",
        };
        self.status(stream_id, "error", code, &refusal.sentence);
        self.close(CloseReason::Refused(refusal.code));
    }

    /// Commands nobody knows, so far.
    pub const fn ignored(&self) -> u32 {
        self.ignored
    }

    fn shake(&mut self, now: Instant, bytes: &[u8]) -> Result<(), CloseReason> {
        let result = self.handshake.process_bytes(bytes);
        match result.map_err(|_bad| CloseReason::Handshake)? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                self.out.put_slice(&response_bytes);
                Ok(())
            }
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => {
                self.out.put_slice(&response_bytes);
                self.inner = Some(Inner::new()?);
                self.stage = Stage::Connect;
                self.deadline = Some(now + CONNECT);
                self.chunks(now, &remaining_bytes)
            }
        }
    }

    fn chunks(&mut self, now: Instant, bytes: &[u8]) -> Result<(), CloseReason> {
        self.received += u64::try_from(bytes.len()).unwrap_or(0);
        self.reader.push(bytes);
        while let Some(message) = self.reader.next_message()? {
            self.message(now, message)?;
            if self.stage == Stage::Closed {
                break;
            }
        }
        Ok(())
    }

    fn message(&mut self, now: Instant, message: Message) -> Result<(), CloseReason> {
        match message.type_id {
            kind::AUDIO | kind::VIDEO => self.media(now, message),
            kind::AGGREGATE => self.aggregate(now, &message),
            kind::COMMAND => self.command(now, &message, message.payload.clone()),
            kind::COMMAND_AMF3 => {
                // The AMF0 values follow a zero byte.
                let skip = usize::from(message.payload.first() == Some(&0));
                self.command(now, &message, message.payload.slice(skip..))
            }
            // Metadata is advice only; it is checked, so that its bounds hold, and dropped.
            kind::DATA => amf::read(message.payload)
                .map(drop)
                .map_err(CloseReason::from),
            _ => Ok(()),
        }
    }

    fn media(&mut self, now: Instant, message: Message) -> Result<(), CloseReason> {
        match self.stage {
            Stage::Accepted { stream_id } | Stage::Live { stream_id } => {
                self.stage = Stage::Live { stream_id };
                self.deadline = Some(now + SILENCE);
                self.events.push_back(SessionEvent::Media(message));
                Ok(())
            }
            _ => {
                self.early_bytes += message.payload.len();
                if self.early_bytes > EARLY_BYTES_MAX {
                    return Err(CloseReason::Dialogue);
                }
                Ok(())
            }
        }
    }

    /// An aggregate is FLV tags one after another; the times inside count from its own.
    fn aggregate(&mut self, now: Instant, message: &Message) -> Result<(), CloseReason> {
        let mut rest = message.payload.clone();
        let mut first = None;
        while rest.len() >= 11 {
            let head = rest.split_to(11);
            let byte = |at: usize| u32::from(head.get(at).copied().unwrap_or(0));
            let size =
                usize::try_from(byte(1) << 16 | byte(2) << 8 | byte(3)).unwrap_or(usize::MAX);
            let time = byte(7) << 24 | byte(4) << 16 | byte(5) << 8 | byte(6);
            if rest.len() < size {
                return Err(CloseReason::Chunk(ChunkError::MessageTooLarge));
            }
            let payload = rest.split_to(size);
            let from = *first.get_or_insert(time);
            let type_id = head.first().copied().unwrap_or(0);
            if matches!(type_id, kind::AUDIO | kind::VIDEO) {
                let timestamp = message.timestamp.wrapping_add(time.wrapping_sub(from));
                self.media(
                    now,
                    Message {
                        type_id,
                        timestamp,
                        payload,
                        ..message.clone()
                    },
                )?;
            }
            // The back pointer that follows each tag.
            rest = rest.slice(rest.len().min(4)..);
        }
        Ok(())
    }

    fn command(
        &mut self,
        now: Instant,
        message: &Message,
        payload: Bytes,
    ) -> Result<(), CloseReason> {
        let values = amf::read(payload)?;
        let mut values = values.into_iter();
        let Some(Value::Text(name)) = values.next() else {
            return Err(CloseReason::Amf);
        };
        let transaction = match values.next() {
            Some(Value::Number(id)) if id.is_finite() => id,
            None => 0.0,
            _ => return Err(CloseReason::Amf),
        };
        let object = values.next().unwrap_or(Value::Null);
        let command = Command {
            stream_id: message.stream_id,
            name,
            transaction,
            object,
        };
        self.act(now, command, values.collect())
    }

    fn act(&mut self, now: Instant, command: Command, args: Vec<Value>) -> Result<(), CloseReason> {
        match command.name.as_str() {
            "connect" => self.connect(now, command, args),
            "createStream" if self.stage == Stage::Publish => self.create_stream(now, command),
            "publish" => self.publish(command, args),
            "play" | "play2" => {
                let sentence = "Playing over RTMP is not offered here. Open the watch page.";
                self.status(
                    command.stream_id,
                    "error",
                    "NetStream.Play.Failed",
                    sentence,
                );
                self.close(CloseReason::Play);
                Ok(())
            }
            "FCPublish" => {
                self.result(command.transaction, Value::Null);
                let info = status_info("status", "NetStream.Publish.Start", "FCPublish");
                let values = [
                    Value::text("onFCPublish"),
                    Value::Number(0.0),
                    Value::Null,
                    info,
                ];
                self.send_command(0, &values);
                Ok(())
            }
            "releaseStream" | "_checkbw" | "getStreamLength" => {
                self.result(command.transaction, Value::Null);
                Ok(())
            }
            "FCUnpublish" | "deleteStream" | "closeStream" => {
                if command.name == "FCUnpublish" {
                    self.result(command.transaction, Value::Null);
                }
                self.finish();
                Ok(())
            }
            _ => {
                self.ignored = self.ignored.saturating_add(1);
                Ok(())
            }
        }
    }

    fn connect(
        &mut self,
        now: Instant,
        command: Command,
        args: Vec<Value>,
    ) -> Result<(), CloseReason> {
        if self.stage != Stage::Connect {
            return Err(CloseReason::Dialogue);
        }
        let text = |name: &str| command.object.property(name).and_then(Value::as_text);
        self.app = text("app").ok_or(CloseReason::Dialogue)?.to_owned();
        self.tc_url = text("tcUrl")
            .unwrap_or_default()
            .chars()
            .take(KEY_BYTES_MAX)
            .collect();
        self.is_enhanced = command.object.property("fourCcList").is_some()
            || command.object.property("capsEx").is_some();
        self.control(kind::WINDOW_ACK_SIZE, &WINDOW_BYTES.to_be_bytes());
        let dynamic = [&WINDOW_BYTES.to_be_bytes()[..], &[2]].concat();
        self.control(kind::SET_PEER_BANDWIDTH, &dynamic);
        self.control(kind::SET_CHUNK_SIZE, &CHUNK_BYTES.to_be_bytes());
        for message in self.inner(&command, args)?.replies {
            self.reply(message);
        }
        self.stage = Stage::Publish;
        self.deadline = Some(now + PUBLISH);
        Ok(())
    }

    fn create_stream(&mut self, now: Instant, command: Command) -> Result<(), CloseReason> {
        if self.streams >= STREAMS_MAX {
            let why = status_info("error", "NetConnection.Call.Failed", "too many streams");
            let id = Value::Number(command.transaction);
            self.send_command(0, &[Value::text("_error"), id, Value::Null, why]);
            return Ok(());
        }
        self.streams += 1;
        self.deadline = Some(now + PUBLISH);
        for message in self.inner(&command, Vec::new())?.replies {
            self.reply(message);
        }
        Ok(())
    }

    fn publish(&mut self, command: Command, args: Vec<Value>) -> Result<(), CloseReason> {
        let stream_id = command.stream_id;
        if self.stage != Stage::Publish || stream_id == 0 || stream_id > self.streams {
            let sentence = "Publish once, after connect and createStream, on the stream it gave.";
            self.status(stream_id, "error", "NetStream.Publish.Rejected", sentence);
            self.close(CloseReason::Dialogue);
            return Ok(());
        }
        let name = args.first().and_then(Value::as_text).unwrap_or_default();
        let (app, stream_name) = stream_key(&self.app, name);
        if stream_name.is_empty() || stream_name.len() > KEY_BYTES_MAX {
            self.stage = Stage::Deciding {
                stream_id,
                request_id: 0,
            };
            self.refuse(&Refusal {
                code: RefusalCode::UnknownKey,
                sentence: "There is no stream key. Put the room's stream key into OBS: \
                           Settings, Stream, Stream Key."
                    .into(),
            });
            return Ok(());
        }
        // The state machine wants a mode it knows; every mode means live here.
        let args = vec![Value::Text(stream_name.clone()), Value::text("live")];
        let request_id = self
            .inner(&command, args)?
            .publish
            .ok_or(CloseReason::Dialogue)?;
        self.stage = Stage::Deciding {
            stream_id,
            request_id,
        };
        self.deadline = None;
        let tc_url = self.tc_url.clone();
        self.events.push_back(SessionEvent::PublishRequested {
            app,
            tc_url,
            stream_name,
        });
        Ok(())
    }

    fn finish(&mut self) {
        if matches!(self.stage, Stage::Accepted { .. } | Stage::Live { .. }) {
            self.stage = Stage::Closed;
            self.deadline = None;
            self.events.push_back(SessionEvent::Finished);
        }
    }

    /// Runs a checked command through the state machine.
    fn inner(&mut self, command: &Command, args: Vec<Value>) -> Result<Outcome, CloseReason> {
        let mut values = vec![
            Value::Text(command.name.clone()),
            Value::Number(command.transaction),
            command.object.clone(),
        ];
        values.extend(args);
        let message = Message {
            type_id: kind::COMMAND,
            stream_id: command.stream_id,
            timestamp: 0,
            payload: amf::write(&values),
        };
        self.inner
            .as_mut()
            .ok_or(CloseReason::Dialogue)?
            .handle(&message)
    }

    /// Passes on a reply of the state machine, changed where it must be.
    fn reply(&mut self, mut message: Message) {
        if !matches!(message.type_id, kind::COMMAND) {
            return;
        }
        if self.is_enhanced
            && self.stage == Stage::Connect
            && let Ok(mut values) = amf::read(message.payload.clone())
            && let Some(Value::Object(properties)) = values.get_mut(2)
        {
            let list = ["av01", "hvc1", "avc1", "Opus", "mp4a"]
                .map(Value::text)
                .to_vec();
            properties.push(("fourCcList".into(), Value::List(list)));
            properties.push(("capsEx".into(), Value::Number(0.0)));
            message.payload = amf::write(&values);
        }
        let id = if message.stream_id == 0 {
            COMMAND_ID
        } else {
            STATUS_ID
        };
        message.timestamp = 0;
        self.writer.write(&mut self.out, id, &message);
    }

    fn control(&mut self, type_id: u8, payload: &[u8]) {
        let payload = Bytes::copy_from_slice(payload);
        let message = Message {
            type_id,
            stream_id: 0,
            timestamp: 0,
            payload,
        };
        self.writer.write(&mut self.out, CONTROL_ID, &message);
    }

    fn user_control_stream_begin(&mut self, stream_id: u32) {
        let begin = [&[0, 0][..], &stream_id.to_be_bytes()].concat();
        self.control(kind::USER_CONTROL, &begin);
    }

    fn result(&mut self, transaction: f64, value: Value) {
        let values = [
            Value::text("_result"),
            Value::Number(transaction),
            Value::Null,
            value,
        ];
        self.send_command(0, &values);
    }

    fn status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        let info = status_info(level, code, description);
        let values = [
            Value::text("onStatus"),
            Value::Number(0.0),
            Value::Null,
            info,
        ];
        self.send_command(stream_id, &values);
    }

    fn send_command(&mut self, stream_id: u32, values: &[Value]) {
        let payload = amf::write(values);
        let message = Message {
            type_id: kind::COMMAND,
            stream_id,
            timestamp: 0,
            payload,
        };
        let id = if stream_id == 0 {
            COMMAND_ID
        } else {
            STATUS_ID
        };
        self.writer.write(&mut self.out, id, &message);
    }

    /// The running total, each time half a window came.
    fn acknowledge(&mut self) {
        let is_due = self.received - self.acknowledged >= u64::from(WINDOW_BYTES / 2);
        if is_due
            && !matches!(
                self.stage,
                Stage::Handshake | Stage::Connect | Stage::Closed
            )
        {
            self.acknowledged = self.received;
            let total = u32::try_from(self.received & u64::from(u32::MAX)).unwrap_or(0);
            self.control(kind::ACKNOWLEDGEMENT, &total.to_be_bytes());
        }
    }

    fn close(&mut self, reason: CloseReason) {
        if self.stage != Stage::Closed {
            self.stage = Stage::Closed;
            self.deadline = None;
            self.events.push_back(SessionEvent::Closed(reason));
        }
    }
}

struct Command {
    stream_id: u32,
    name: String,
    transaction: f64,
    object: Value,
}

/// The application and the bare key: a query on either is dropped, and a key put into the URL
/// (`live/KEY` with an empty name) counts.
fn stream_key(app: &str, name: &str) -> (String, String) {
    let bare = |text: &str| text.split('?').next().unwrap_or_default().trim().to_owned();
    let (app, name) = (bare(app), bare(name));
    let app = app.trim_end_matches('/');
    if name.is_empty()
        && let Some((app, key)) = app.split_once('/')
    {
        return (app.to_owned(), key.to_owned());
    }
    (app.to_owned(), name)
}

fn status_info(level: &str, code: &str, description: &str) -> Value {
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
