//! The dialogue of one RTMP connection, without IO (spec media.md 3.1–3.3, 7).
//!
//! `handshake → connect → createStream → publish → media → end`, or `… → play → media → end`, whose
//! media does not pass here. `rml_rtmp` shakes hands and is the state machine of the commands; both
//! directions cross this wrapper as whole messages: what goes in was read and bounded by
//! [`crate::rtmp::chunk`] and [`crate::rtmp::amf`], what comes out is read back and written by our
//! own writer with full headers.
//!
//! Invariants
//! - `rml_rtmp` never sees a byte of the network that was not checked: it mixes interleaved
//!   chunks, overflows the stack on nested values and panics on short commands.
//! - A refusal is an `onStatus` of level `error`, the last message before the close; nothing is
//!   said and nothing happens after that.
//! - Events are made one at a time, as the driver takes them: what a peer sends in one piece never
//!   becomes a queue. While the server decides, what came behind the question waits.
//!
//! Not here: sockets and clocks (`now` is an argument), what media payloads mean.

#![deny(clippy::indexing_slicing)]

mod names;
mod play;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use tokio::time::Instant;

use self::names::{key_fault, play_code, publish_code, stream_key};
use self::play::{PING_EVERY, PLAYER_SILENCE};
use crate::request::Refusal;
use crate::rtmp::aggregate::Aggregate;
use crate::rtmp::amf::{self, Value};
use crate::rtmp::chunk::{CHUNK_BYTES, ChunkReader, Message, MessageLimits, kind};
pub use crate::rtmp::close::CloseReason;
use crate::rtmp::inner::{Inner, Outcome, WINDOW_BYTES};
use crate::rtmp::outbox::{Outbox, status_info};

/// Message streams of one connection.
const STREAMS_MAX: u32 = 8;
/// Bytes of a stream key, and of an address sent in `connect`.
const KEY_BYTES_MAX: usize = 512;
/// Characters of an encoder's name.
const ENCODER_CHARS_MAX: usize = 256;
/// Bytes of the application's name, which may hold the key.
const APP_BYTES_MAX: usize = 1_024;
/// Media before publishing is accepted is ignored up to this.
const EARLY_BYTES_MAX: usize = 4 << 20;

const HANDSHAKE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(5);
const PUBLISH: Duration = Duration::from_secs(10);
const FIRST_MEDIA: Duration = Duration::from_secs(15);
const SILENCE: Duration = Duration::from_secs(15);

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
    /// Somebody asks to play: decide, then call `accept` or `refuse`.
    PlayRequested {
        /// The application, without its query.
        app: String,
        /// The name of what to play.
        name: String,
        /// What stood behind the name's or the application's `?`.
        query: String,
    },
    /// The player stops for a while, or goes on.
    Paused(bool),
    /// Audio or video of the accepted publisher.
    Media(Message),
    /// What the encoder calls itself, in its metadata.
    Encoder(String),
    /// The publisher or player stopped by itself.
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
        is_player: bool,
    },
    /// Accepted; nothing came yet.
    Accepted {
        stream_id: u32,
    },
    Live {
        stream_id: u32,
    },
    /// Media goes out; when the player was heard of last.
    Playing {
        stream_id: u32,
        heard: Instant,
    },
    Closed,
}

/// The server's side of one connection.
pub struct Session {
    stage: Stage,
    handshake: Handshake,
    inner: Option<Inner>,
    reader: ChunkReader,
    /// The aggregate whose tags come before the reader's next message.
    aggregate: Option<Aggregate>,
    outbox: Outbox,
    /// At most one of a message and one of its end.
    events: VecDeque<SessionEvent>,
    /// When the newest bytes came.
    now: Instant,
    deadline: Option<Instant>,
    app: String,
    tc_url: String,
    /// True when the client asked for enhanced RTMP in `connect`.
    is_enhanced: bool,
    /// When the session began: the zero of its pings.
    began: Instant,
    streams: u32,
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
            aggregate: None,
            outbox: Outbox::default(),
            events: VecDeque::new(),
            now,
            deadline: Some(now + HANDSHAKE),
            app: String::new(),
            tc_url: String::new(),
            is_enhanced: false,
            began: now,
            streams: 0,
            early_bytes: 0,
            ignored: 0,
        }
    }

    /// Takes bytes from the network. Call [`Session::poll`] until it gives `None`.
    pub fn receive(&mut self, now: Instant, bytes: &[u8]) {
        if self.stage == Stage::Closed {
            return;
        }
        self.now = now;
        self.moved(now);
        if self.stage == Stage::Handshake {
            if let Err(reason) = self.shake(bytes) {
                self.close(reason);
            }
        } else {
            self.take(bytes);
        }
        self.advance();
        if !matches!(
            self.stage,
            Stage::Handshake | Stage::Connect | Stage::Closed
        ) {
            self.outbox.acknowledge();
        }
    }

    /// The peer sends no more.
    pub fn hang_up(&mut self) {
        if self.stage == Stage::Handshake {
            self.close(CloseReason::Handshake);
        }
    }

    /// The next thing the driver must act on.
    pub fn poll(&mut self) -> Option<SessionEvent> {
        self.advance();
        self.events.pop_front()
    }

    /// Bytes for the network.
    pub fn take_output(&mut self) -> Bytes {
        self.outbox.take()
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
                self.error(stream_id, "NetStream.Publish.Rejected", sentence);
                CloseReason::TimeoutMedia
            }
            Stage::Live { .. } => CloseReason::Silence,
            Stage::Playing { heard, .. } => {
                if now.saturating_duration_since(heard) < PLAYER_SILENCE {
                    self.ping(now, heard);
                    return;
                }
                CloseReason::Silence
            }
            Stage::Deciding { .. } | Stage::Closed => return,
        };
        self.close(reason);
    }

    /// The server lets it publish, or what it wants to play is there.
    pub fn accept(&mut self, now: Instant) {
        let Stage::Deciding {
            stream_id,
            request_id,
            is_player,
        } = self.stage
        else {
            return;
        };
        if !is_player {
            self.outbox.stream_begin(stream_id);
        }
        let accepted = match &mut self.inner {
            Some(inner) => inner.accept(request_id),
            None => Err(CloseReason::Dialogue),
        };
        match accepted {
            Ok(messages) => {
                for message in messages {
                    self.reply(message);
                }
                if is_player {
                    let heard = now;
                    self.stage = Stage::Playing { stream_id, heard };
                    self.deadline = Some(now + PING_EVERY);
                    return;
                }
                self.reader.set_limits(MessageLimits::PUBLISHING);
                self.stage = Stage::Accepted { stream_id };
                self.deadline = Some(now + FIRST_MEDIA);
            }
            Err(reason) => self.close(reason),
        }
    }

    /// The server does not let it publish or play, or no longer. Says nothing when all is over
    /// already.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if self.stage == Stage::Closed {
            return;
        }
        let (stream_id, is_player) = match self.stage {
            Stage::Deciding {
                stream_id,
                is_player,
                ..
            } => (stream_id, is_player),
            Stage::Accepted { stream_id } | Stage::Live { stream_id } => (stream_id, false),
            Stage::Playing { stream_id, .. } => (stream_id, true),
            _ => (0, false),
        };
        let code = refusal.code;
        let word = if is_player {
            play_code(code)
        } else {
            publish_code(code)
        };
        self.error(stream_id, word, &refusal.sentence);
        self.close(CloseReason::Refused(code));
    }

    /// Commands nobody knows, so far.
    pub const fn ignored(&self) -> u32 {
        self.ignored
    }

    fn shake(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        let result = self.handshake.process_bytes(bytes);
        match result.map_err(|_bad| CloseReason::Handshake)? {
            HandshakeProcessResult::InProgress { response_bytes } => {
                self.outbox.raw(&response_bytes);
            }
            HandshakeProcessResult::Completed {
                response_bytes,
                remaining_bytes,
            } => {
                self.outbox.raw(&response_bytes);
                self.inner = Some(Inner::new()?);
                self.stage = Stage::Connect;
                self.deadline = Some(self.now + CONNECT);
                self.take(&remaining_bytes);
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.outbox.received(bytes.len());
        self.reader.push(bytes);
    }

    /// Works on what came until there is an event, or nothing more to work on now.
    fn advance(&mut self) {
        while self.events.is_empty() && self.is_reading() {
            match self.step() {
                Ok(true) => {}
                Ok(false) => return,
                Err(reason) => self.close(reason),
            }
        }
    }

    const fn is_reading(&self) -> bool {
        !matches!(
            self.stage,
            Stage::Handshake | Stage::Deciding { .. } | Stage::Closed
        )
    }

    /// Handles the next message; false when none is complete.
    fn step(&mut self) -> Result<bool, CloseReason> {
        if let Some(aggregate) = &mut self.aggregate {
            match aggregate.next_message()? {
                Some(message) => self.media(message)?,
                None => self.aggregate = None,
            }
            return Ok(true);
        }
        let Some(message) = self.reader.next_message()? else {
            return Ok(false);
        };
        self.message(message)?;
        Ok(true)
    }

    fn message(&mut self, message: Message) -> Result<(), CloseReason> {
        match message.type_id {
            kind::AUDIO | kind::VIDEO => self.media(message),
            kind::AGGREGATE => {
                self.aggregate = Some(Aggregate::new(message));
                Ok(())
            }
            kind::COMMAND => self.command(message.stream_id, message.payload),
            kind::COMMAND_AMF3 => {
                // The AMF0 values follow a zero byte.
                let skip = usize::from(message.payload.first() == Some(&0));
                self.command(message.stream_id, message.payload.slice(skip..))
            }
            kind::DATA => self.data(message.payload),
            _ => {
                self.outbox.hear(&message);
                Ok(())
            }
        }
    }

    /// Metadata is advice only: it is checked, so that its bounds hold, and of what it says only
    /// the encoder's name is taken.
    fn data(&mut self, payload: Bytes) -> Result<(), CloseReason> {
        let values = amf::read_lossy(payload)?;
        let is_publishing = matches!(self.stage, Stage::Accepted { .. } | Stage::Live { .. });
        let name = values
            .iter()
            .rev()
            .find_map(|value| value.property("encoder"));
        if let Some(name) = name.and_then(Value::as_text).filter(|_| is_publishing) {
            let name = name.chars().take(ENCODER_CHARS_MAX).collect();
            self.events.push_back(SessionEvent::Encoder(name));
        }
        Ok(())
    }

    fn media(&mut self, message: Message) -> Result<(), CloseReason> {
        match self.stage {
            Stage::Accepted { stream_id } | Stage::Live { stream_id } => {
                self.stage = Stage::Live { stream_id };
                self.deadline = Some(self.now + SILENCE);
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

    fn command(&mut self, stream_id: u32, payload: Bytes) -> Result<(), CloseReason> {
        let mut values = amf::read_lossy(payload)?.into_iter();
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
            stream_id,
            name,
            transaction,
            object,
        };
        self.act(command, values.collect())
    }

    fn act(&mut self, command: Command, args: Vec<Value>) -> Result<(), CloseReason> {
        match command.name.as_str() {
            "connect" => self.connect(command, args),
            "createStream" if self.stage == Stage::Publish => self.create_stream(command),
            "publish" => self.publish(command, args),
            "play" => self.play(command, args),
            "pause" => {
                self.pause(command.stream_id, &args);
                Ok(())
            }
            "FCPublish" => {
                self.outbox.result(command.transaction, Value::Null);
                let info = status_info("status", "NetStream.Publish.Start", "FCPublish");
                let values = [
                    Value::text("onFCPublish"),
                    Value::Number(0.0),
                    Value::Null,
                    info,
                ];
                self.outbox.command(0, &values);
                Ok(())
            }
            // A live stream has none; FFmpeg complains of an answer that is no number.
            "getStreamLength" => {
                self.outbox.result(command.transaction, Value::Number(0.0));
                Ok(())
            }
            "releaseStream" | "_checkbw" => {
                self.outbox.result(command.transaction, Value::Null);
                Ok(())
            }
            "FCUnpublish" | "deleteStream" | "closeStream" => {
                if command.name == "FCUnpublish" {
                    self.outbox.result(command.transaction, Value::Null);
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

    fn connect(&mut self, command: Command, args: Vec<Value>) -> Result<(), CloseReason> {
        if self.stage != Stage::Connect {
            return Err(CloseReason::Dialogue);
        }
        let text = |name: &str| command.object.property(name).and_then(Value::as_text);
        let app = text("app").filter(|app| app.len() <= APP_BYTES_MAX);
        self.app = app.ok_or(CloseReason::Dialogue)?.to_owned();
        self.tc_url = text("tcUrl")
            .unwrap_or_default()
            .chars()
            .take(KEY_BYTES_MAX)
            .collect();
        self.is_enhanced = command.object.property("fourCcList").is_some()
            || command.object.property("capsEx").is_some();
        let window = WINDOW_BYTES.to_be_bytes();
        self.outbox.control(kind::WINDOW_ACK_SIZE, &window);
        let dynamic = [&window[..], &[2]].concat();
        self.outbox.control(kind::SET_PEER_BANDWIDTH, &dynamic);
        let size = CHUNK_BYTES.to_be_bytes();
        self.outbox.control(kind::SET_CHUNK_SIZE, &size);
        for message in self.inner(&command, args)?.replies {
            self.reply(message);
        }
        self.stage = Stage::Publish;
        self.deadline = Some(self.now + PUBLISH);
        Ok(())
    }

    fn create_stream(&mut self, command: Command) -> Result<(), CloseReason> {
        if self.streams >= STREAMS_MAX {
            let why = status_info("error", "NetConnection.Call.Failed", "too many streams");
            let id = Value::Number(command.transaction);
            let values = [Value::text("_error"), id, Value::Null, why];
            self.outbox.command(0, &values);
            return Ok(());
        }
        self.streams += 1;
        for message in self.inner(&command, Vec::new())?.replies {
            self.reply(message);
        }
        Ok(())
    }

    fn publish(&mut self, command: Command, args: Vec<Value>) -> Result<(), CloseReason> {
        let stream_id = command.stream_id;
        if !self.may_begin(stream_id) {
            let sentence = "Publish once, after connect and createStream, on the stream it gave.";
            self.error(stream_id, "NetStream.Publish.Rejected", sentence);
            self.close(CloseReason::Dialogue);
            return Ok(());
        }
        let name = args.first().and_then(Value::as_text).unwrap_or_default();
        let (app, stream_name) = stream_key(&self.app, name);
        if let Some(sentence) = key_fault(&stream_name) {
            self.error(stream_id, "NetStream.Publish.BadName", sentence);
            self.close(CloseReason::Dialogue);
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
            is_player: false,
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

    fn may_begin(&self, stream_id: u32) -> bool {
        self.stage == Stage::Publish && stream_id != 0 && stream_id <= self.streams
    }

    fn finish(&mut self) {
        let is_at_work = matches!(
            self.stage,
            Stage::Accepted { .. } | Stage::Live { .. } | Stage::Playing { .. }
        );
        if is_at_work {
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
        match message.type_id {
            kind::COMMAND => {}
            // To a player: that its stream begins, and what stands before the media.
            kind::DATA => return self.say_before_media(message),
            kind::USER_CONTROL => return self.outbox.control(message.type_id, &message.payload),
            _ => return,
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
        message.timestamp = 0;
        self.outbox.message(&message);
    }

    fn error(&mut self, stream_id: u32, code: &str, description: &str) {
        self.outbox.status(stream_id, "error", code, description);
    }

    fn close(&mut self, reason: CloseReason) {
        if self.stage != Stage::Closed {
            self.stage = Stage::Closed;
            self.deadline = None;
            self.aggregate = None;
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
