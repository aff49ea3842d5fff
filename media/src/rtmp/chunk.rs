//! The RTMP chunk stream, read and written within bounds (RTMP 1.0 section 5.3).
//!
//! Invariants
//! - Any split of the bytes gives the same messages.
//! - Each chunk stream has its own buffer; a limit is checked before anything is allocated for
//!   what it limits.
//!
//! Not here: what a message means, but for Set Chunk Size and Abort, which change the reading.

#![deny(clippy::indexing_slicing)]

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Our chunk size: it sets the cost of ffmpeg's publish, which adopts it.
pub(crate) const CHUNK_BYTES: u32 = 65_536;
/// The chunk size before anybody changes it.
const CHUNK_BYTES_DEFAULT: usize = 128;
/// Smaller and larger ones are refused.
const CHUNK_BYTES_MIN: u32 = 128;
const CHUNK_BYTES_MAX: u32 = 16_777_215;
/// Chunk streams of one connection whose last header is remembered.
const STREAMS_MAX: usize = 1_024;
/// Unfinished messages of one connection: they are on as many chunk streams.
const UNFINISHED_MAX: usize = 64;
/// Bytes of all unfinished messages of one connection.
const UNFINISHED_BYTES_MAX: usize = 10 << 20;
/// Room made for a message before its bytes come.
const RESERVE_BYTES_MAX: usize = 64 << 10;
/// The longest time of a type 0 chunk that a type 3 chunk after it takes as its step; a longer one
/// would be a jump of the timeline (see [`ChunkStream::apply`]).
const STEP_MS_MAX: u32 = 3_000;
/// A 24-bit time of this value says that a 32-bit one follows.
const TIME_EXTENDED: u32 = 0x00ff_ffff;

/// Message types (RTMP 1.0 sections 5.4 and 7.1).
pub mod kind {
    /// Set Chunk Size.
    pub const SET_CHUNK_SIZE: u8 = 1;
    /// Abort Message.
    pub const ABORT: u8 = 2;
    /// Acknowledgement.
    pub const ACKNOWLEDGEMENT: u8 = 3;
    /// User Control.
    pub const USER_CONTROL: u8 = 4;
    /// Window Acknowledgement Size.
    pub const WINDOW_ACK_SIZE: u8 = 5;
    /// Set Peer Bandwidth.
    pub const SET_PEER_BANDWIDTH: u8 = 6;
    /// Audio.
    pub const AUDIO: u8 = 8;
    /// Video.
    pub const VIDEO: u8 = 9;
    /// AMF3 data.
    pub const DATA_AMF3: u8 = 15;
    /// AMF3 command.
    pub const COMMAND_AMF3: u8 = 17;
    /// AMF0 data.
    pub const DATA: u8 = 18;
    /// AMF0 command.
    pub const COMMAND: u8 = 20;
    /// Aggregate.
    pub const AGGREGATE: u8 = 22;
}

/// A complete message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// See [`kind`].
    pub type_id: u8,
    /// Message stream; 0 is the connection itself.
    pub stream_id: u32,
    /// Milliseconds, 32 bits, wraps.
    pub timestamp: u32,
    /// The body.
    pub payload: Bytes,
}

/// Why the chunks of a connection cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// A message over its limit, or too many or too large ones unfinished.
    #[error("a message is larger than allowed")]
    MessageTooLarge,
    /// A chunk that needs an earlier one which never came, or too many chunk streams.
    #[error("a chunk refers to one that never came")]
    ChunkOrder,
    /// A chunk size that is not allowed.
    #[error("the chunk size is out of bounds")]
    ChunkSize,
}

impl ChunkError {
    /// The stable word for logs and counters.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::MessageTooLarge => "message_too_large",
            Self::ChunkOrder => "chunk_order",
            Self::ChunkSize => "chunk_size",
        }
    }
}

/// How large messages may be.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Video messages.
    pub video: usize,
    /// Audio messages.
    pub audio: usize,
    /// All others.
    pub other: usize,
}

impl MessageLimits {
    /// Before publishing is accepted.
    pub const DIALOGUE: Self = Self {
        video: 64 << 10,
        audio: 64 << 10,
        other: 64 << 10,
    };
    /// Once publishing is accepted.
    pub const PUBLISHING: Self = Self {
        video: 8 << 20,
        audio: 256 << 10,
        other: 64 << 10,
    };

    const fn of(self, type_id: u8) -> usize {
        match type_id {
            kind::VIDEO | kind::AGGREGATE => self.video,
            kind::AUDIO => self.audio,
            _ => self.other,
        }
    }
}

#[derive(Debug, Default)]
struct ChunkStream {
    type_id: u8,
    stream_id: u32,
    timestamp: u32,
    delta: u32,
    length: usize,
    is_extended: bool,
    message: Option<BytesMut>,
}

/// Reads the chunks of one direction of a connection.
#[derive(Debug)]
pub struct ChunkReader {
    buffer: BytesMut,
    streams: HashMap<u32, ChunkStream>,
    chunk_bytes: usize,
    unfinished: usize,
    unfinished_bytes: usize,
    limits: MessageLimits,
    /// The chunk whose payload is being read: its chunk stream and the bytes left of it.
    open: Option<(u32, usize)>,
}

impl ChunkReader {
    /// A reader right after the handshake.
    pub fn new(limits: MessageLimits) -> Self {
        Self {
            buffer: BytesMut::new(),
            streams: HashMap::new(),
            chunk_bytes: CHUNK_BYTES_DEFAULT,
            unfinished: 0,
            unfinished_bytes: 0,
            limits,
            open: None,
        }
    }

    /// Changes the limits for messages that begin from now on.
    pub fn set_limits(&mut self, limits: MessageLimits) {
        self.limits = limits;
    }

    /// Takes bytes from the network. Call [`ChunkReader::next_message`] until it gives `None`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message.
    ///
    /// # Errors
    /// [`ChunkError`]; the connection cannot be read on.
    pub fn next_message(&mut self) -> Result<Option<Message>, ChunkError> {
        loop {
            let (id, left) = match self.open.take() {
                Some(open) => open,
                None => match self.header()? {
                    Some(open) => open,
                    None => return Ok(None),
                },
            };
            let take = left.min(self.buffer.len());
            let stream = self.streams.entry(id).or_default();
            let message = stream.message.get_or_insert_default();
            message.extend_from_slice(self.buffer.get(..take).unwrap_or_default());
            self.buffer.advance(take);
            if take < left {
                self.open = Some((id, left - take));
                return Ok(None);
            }
            if let Some(message) = self.finished(id)
                && !self.control(&message)?
            {
                return Ok(Some(message));
            }
        }
    }

    /// Takes the message of a chunk stream if it is whole.
    fn finished(&mut self, id: u32) -> Option<Message> {
        let stream = self.streams.get_mut(&id)?;
        if stream
            .message
            .as_ref()
            .is_some_and(|m| m.len() < stream.length)
        {
            return None;
        }
        let payload = stream.message.take()?.freeze();
        self.unfinished -= 1;
        self.unfinished_bytes -= stream.length;
        Some(Message {
            type_id: stream.type_id,
            stream_id: stream.stream_id,
            timestamp: stream.timestamp,
            payload,
        })
    }

    /// Reads a chunk header; `None` when it is not all there yet.
    fn header(&mut self) -> Result<Option<(u32, usize)>, ChunkError> {
        let mut rest: &[u8] = &self.buffer;
        let Some((format, id)) = basic_header(&mut rest) else {
            return Ok(None);
        };
        let known = self.streams.get(&id);
        let was_extended = known.is_some_and(|s| s.is_extended);
        let is_continuing = known.is_some_and(|s| s.message.is_some());
        let is_known = known.is_some();
        let Some(fields) = Header::read(format, was_extended, &mut rest) else {
            return Ok(None);
        };
        let used = self.buffer.len() - rest.len();
        if !is_known && (format != 0 || self.streams.len() >= STREAMS_MAX) {
            return Err(ChunkError::ChunkOrder);
        }
        let left = self.begin(
            id,
            &Header {
                is_continuing,
                ..fields
            },
        )?;
        self.buffer.advance(used);
        Ok(Some((id, left)))
    }

    /// Applies a header to its chunk stream; returns the payload bytes of this chunk.
    fn begin(&mut self, id: u32, header: &Header) -> Result<usize, ChunkError> {
        let limits = self.limits;
        let stream = self.streams.entry(id).or_default();
        if header.is_continuing && header.format != 3 {
            // A new message begins although the last is unfinished: the last is given up.
            stream.message = None;
            self.unfinished -= 1;
            self.unfinished_bytes -= stream.length;
        }
        let starts = !(header.is_continuing && header.format == 3);
        if starts {
            stream.apply(header);
            if stream.length > limits.of(stream.type_id) {
                return Err(ChunkError::MessageTooLarge);
            }
            let bytes = self.unfinished_bytes + stream.length;
            if self.unfinished >= UNFINISHED_MAX || bytes > UNFINISHED_BYTES_MAX {
                return Err(ChunkError::MessageTooLarge);
            }
            self.unfinished += 1;
            self.unfinished_bytes = bytes;
            stream.message = Some(BytesMut::with_capacity(
                stream.length.min(RESERVE_BYTES_MAX),
            ));
        }
        let have = stream.message.as_ref().map_or(0, BytesMut::len);
        Ok((stream.length - have).min(self.chunk_bytes))
    }

    /// Handles the two messages that change the reading itself.
    fn control(&mut self, message: &Message) -> Result<bool, ChunkError> {
        let mut payload = message.payload.clone();
        match message.type_id {
            kind::SET_CHUNK_SIZE => {
                let size = payload
                    .try_get_u32()
                    .map_err(|_short| ChunkError::ChunkSize)?;
                if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_MAX).contains(&size) {
                    return Err(ChunkError::ChunkSize);
                }
                self.chunk_bytes = usize::try_from(size).map_err(|_wide| ChunkError::ChunkSize)?;
                Ok(true)
            }
            kind::ABORT => {
                let id = payload
                    .try_get_u32()
                    .map_err(|_short| ChunkError::ChunkOrder)?;
                if let Some(stream) = self.streams.get_mut(&id)
                    && stream.message.take().is_some()
                {
                    self.unfinished -= 1;
                    self.unfinished_bytes -= stream.length;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

#[derive(Debug, Default)]
struct Header {
    format: u8,
    time: u32,
    is_extended: bool,
    length: usize,
    type_id: u8,
    stream_id: u32,
    is_continuing: bool,
}

impl Header {
    /// Reads the message header and extended time; `None` when they are not all there.
    fn read(format: u8, was_extended: bool, rest: &mut &[u8]) -> Option<Self> {
        let mut header = Self {
            format,
            is_extended: was_extended,
            ..Self::default()
        };
        if format <= 2 {
            header.time = u32::try_from(rest.try_get_uint(3).ok()?).ok()?;
            header.is_extended = header.time == TIME_EXTENDED;
        }
        if format <= 1 {
            header.length = usize::try_from(rest.try_get_uint(3).ok()?).ok()?;
            header.type_id = rest.try_get_u8().ok()?;
        }
        if format == 0 {
            header.stream_id = rest.try_get_u32_le().ok()?;
        }
        if header.is_extended {
            header.time = rest.try_get_u32().ok()?;
        }
        Some(header)
    }
}

impl ChunkStream {
    /// Takes over what a header says of the message it begins.
    ///
    /// What a type 3 chunk means that begins a message right after a type 0 one is the one place
    /// where the field disagrees. RTMP 1.0 5.3.1.2.4 says that its step is the time of the type 0
    /// chunk. The writers of ffmpeg (`rtmppkt.c`) and GStreamer (`rtmpchunkstream.c`) rely on it:
    /// a second sound message of the same size, as far from the first as that was from zero, is
    /// such a chunk. librtmp, and with it OBS, writes type 3 only for the same time again, after a
    /// type 0 chunk of time zero. SRS reads it as the specification says, nginx-rtmp as no step.
    /// So the step is the time of the type 0 chunk as long as it can be one: a client that repeats
    /// a later time means the same time, since nobody skips as long as the stream has run.
    fn apply(&mut self, header: &Header) {
        if header.format <= 1 {
            self.length = header.length;
            self.type_id = header.type_id;
        }
        if header.format == 0 {
            self.stream_id = header.stream_id;
        }
        if header.format <= 2 {
            self.is_extended = header.is_extended;
        }
        match header.format {
            0 => {
                self.timestamp = header.time;
                let is_step = header.time <= STEP_MS_MAX;
                self.delta = if is_step { header.time } else { 0 };
            }
            1 | 2 => {
                self.delta = header.time;
                self.timestamp = self.timestamp.wrapping_add(self.delta);
            }
            _ => self.timestamp = self.timestamp.wrapping_add(self.delta),
        }
    }
}

/// The format and chunk stream id; `None` when they are not all there.
fn basic_header(rest: &mut &[u8]) -> Option<(u8, u32)> {
    let first = rest.try_get_u8().ok()?;
    let id = match first & 63 {
        0 => u32::from(rest.try_get_u8().ok()?) + 64,
        1 => u32::from(rest.try_get_u16_le().ok()?) + 64,
        id => u32::from(id),
    };
    Some((first >> 6, id))
}

/// The full (type 0) header with which a message begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageHead {
    pub(crate) type_id: u8,
    pub(crate) stream_id: u32,
    pub(crate) timestamp: u32,
    /// Bytes of the payload.
    pub(crate) length: usize,
}

impl MessageHead {
    /// The most that [`Self::put`] writes.
    pub(crate) const BYTES_MAX: usize = 16;

    /// Begins the message on chunk stream `id` (2 … 63).
    pub(crate) fn put(self, out: &mut BytesMut, id: u8) {
        let time = self.timestamp.min(TIME_EXTENDED);
        let length = u64::try_from(self.length).unwrap_or(u64::MAX);
        out.put_u8(id & 63);
        out.put_uint(u64::from(time), 3);
        out.put_uint(length, 3);
        out.put_u8(self.type_id);
        out.put_u32_le(self.stream_id);
        self.put_extended(out);
    }

    /// Goes on with it in another chunk (type 3).
    pub(crate) fn put_next(self, out: &mut BytesMut, id: u8) {
        out.put_u8(0xc0 | id & 63);
        self.put_extended(out);
    }

    fn put_extended(self, out: &mut BytesMut) {
        if self.timestamp >= TIME_EXTENDED {
            out.put_u32(self.timestamp);
        }
    }
}

/// Writes messages with full (type 0) headers, so that nothing depends on what went before.
#[derive(Debug)]
pub struct ChunkWriter {
    chunk_bytes: usize,
}

impl Default for ChunkWriter {
    fn default() -> Self {
        Self {
            chunk_bytes: CHUNK_BYTES_DEFAULT,
        }
    }
}

impl ChunkWriter {
    /// A writer whose reader knows of this chunk size already.
    pub(crate) const fn of(chunk_bytes: usize) -> Self {
        Self { chunk_bytes }
    }

    /// Appends a message on chunk stream `id` (2 … 63). A Set Chunk Size message takes effect
    /// for what follows it.
    pub fn write(&mut self, out: &mut BytesMut, id: u8, message: &Message) {
        let head = MessageHead {
            type_id: message.type_id,
            stream_id: message.stream_id,
            timestamp: message.timestamp,
            length: message.payload.len(),
        };
        head.put(out, id);
        let mut chunks = message.payload.chunks(self.chunk_bytes);
        out.put_slice(chunks.next().unwrap_or_default());
        for chunk in chunks {
            head.put_next(out, id);
            out.put_slice(chunk);
        }
        if message.type_id == kind::SET_CHUNK_SIZE {
            let size = message
                .payload
                .clone()
                .try_get_u32()
                .unwrap_or(CHUNK_BYTES_MIN);
            self.chunk_bytes = usize::try_from(size).unwrap_or(CHUNK_BYTES_DEFAULT);
        }
    }
}
