//! Publishing to an RTMP server: dialogue, then audio and video messages.
//!
//! Invariants
//! - Every wait on the server has an end: 5 s to connect, 10 s for the dialogue, 10 s for a write.
//! - What the server sends is read by [`super::chunk`] and [`super::amf`], within their bounds.
//! - A refusal carries the code and the sentence of the server.
//!
//! Not here: trying again, and the clock of the media; both are the caller's.

#![deny(clippy::indexing_slicing)]

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rml_rtmp::handshake::{Handshake, HandshakeProcessResult, PeerType};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::amf::{self, Value};
use super::chunk::{CHUNK_BYTES, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use crate::frame::Kind;

const CONNECT: Duration = Duration::from_secs(5);
const DIALOGUE: Duration = Duration::from_secs(10);
const WRITE: Duration = Duration::from_secs(10);

/// Bytes read at a time.
const READ_BYTES: usize = 4 << 10;
/// Messages a server may send before it answers a command.
const MESSAGES_MAX: usize = 64;
/// The port of `rtmp://` where none is given.
const PORT: u16 = 1_935;

/// Chunk streams of what we send.
const CONTROL_ID: u8 = 2;
const COMMAND_ID: u8 = 3;
const AUDIO_ID: u8 = 4;
const VIDEO_ID: u8 = 6;
const PUBLISH_ID: u8 = 8;

/// Transactions of the dialogue.
const CONNECT_CALL: u32 = 1;
const CREATE_STREAM_CALL: u32 = 4;

/// User control events.
const PING_REQUEST: u16 = 6;
const PING_RESPONSE: u16 = 7;

/// Where to publish.
#[derive(Clone, PartialEq, Eq)]
pub struct PublishTarget {
    /// Host and port.
    pub addr: String,
    /// The application: `live` in `rtmp://host/live/KEY`.
    pub app: String,
    /// The stream key, a secret.
    pub stream_key: String,
}

impl std::fmt::Debug for PublishTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PublishTarget")
            .field("addr", &self.addr)
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}

/// The text is not an address one can publish to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an RTMP address: write rtmp://HOST[:PORT]/APP/KEY")]
pub struct BadTarget;

impl std::str::FromStr for PublishTarget {
    type Err = BadTarget;

    /// Reads `rtmp://HOST[:PORT]/APP/KEY`; the last part of the path is the key.
    fn from_str(url: &str) -> Result<Self, BadTarget> {
        let rest = url.strip_prefix("rtmp://").ok_or(BadTarget)?;
        let (host, path) = rest.split_once('/').ok_or(BadTarget)?;
        let (app, key) = path.rsplit_once('/').ok_or(BadTarget)?;
        if host.is_empty() || app.is_empty() || key.is_empty() {
            return Err(BadTarget);
        }
        // The colons of a bare IPv6 address are inside its brackets.
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let addr = if has_port {
            host.to_owned()
        } else {
            format!("{host}:{PORT}")
        };
        Ok(Self {
            addr,
            app: app.to_owned(),
            stream_key: key.to_owned(),
        })
    }
}

/// Why publishing did not start or did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The network, or the server has closed the connection.
    #[error("the connection to the RTMP server failed")]
    Io(#[from] io::Error),
    /// The server took too long.
    #[error("the RTMP server did not answer in time: {0}")]
    TimedOut(&'static str),
    /// What the server sent is not RTMP.
    #[error("the RTMP server sent what cannot be read: {0}")]
    Unreadable(&'static str),
    /// The server said no.
    #[error("the RTMP server refused: {sentence} ({code})")]
    Refused {
        /// As in `onStatus`: `NetStream.Publish.BadName`.
        code: String,
        /// What the server says about it.
        sentence: String,
    },
}

/// A connection whose publishing was accepted.
#[derive(Debug)]
pub struct Client<S = TcpStream> {
    stream: S,
    link: Link,
    stream_id: u32,
    stream_key: String,
}

impl Client<TcpStream> {
    /// Connects and asks to publish.
    ///
    /// # Errors
    /// [`ClientError`]: the network's, the server's refusal, or what it did not do in time.
    pub async fn connect(target: &PublishTarget) -> Result<Self, ClientError> {
        let stream = timeout(CONNECT, TcpStream::connect(&target.addr))
            .await
            .map_err(|_elapsed| ClientError::TimedOut("connect"))??;
        // A frame is one write; waiting for more would only delay it.
        stream.set_nodelay(true)?;
        Self::publish_on(stream, target).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Asks to publish on an open connection.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn publish_on(stream: S, target: &PublishTarget) -> Result<Self, ClientError> {
        let mut client = Self {
            stream,
            link: Link::new(),
            stream_id: 0,
            stream_key: target.stream_key.clone(),
        };
        timeout(DIALOGUE, client.dialogue(target))
            .await
            .map_err(|_elapsed| ClientError::TimedOut("dialogue"))??;
        Ok(client)
    }

    /// Sends the body of an FLV tag. Not to be dropped halfway: the connection would be out of
    /// step, so give it up then.
    ///
    /// # Errors
    /// [`ClientError`] of the network.
    pub async fn write(
        &mut self,
        kind: Kind,
        timestamp: u32,
        payload: Bytes,
    ) -> Result<(), ClientError> {
        let (id, type_id) = match kind {
            Kind::Audio => (AUDIO_ID, kind::AUDIO),
            Kind::Video => (VIDEO_ID, kind::VIDEO),
        };
        let message = Message {
            type_id,
            stream_id: self.stream_id,
            timestamp,
            payload,
        };
        self.link.put(id, &message);
        self.flush().await
    }

    /// Tells the server what is published; `properties` are those of `onMetaData`.
    ///
    /// # Errors
    /// [`ClientError`] of the network.
    pub async fn write_metadata(
        &mut self,
        properties: Vec<(String, Value)>,
    ) -> Result<(), ClientError> {
        let values = [
            Value::text("@setDataFrame"),
            Value::text("onMetaData"),
            Value::Object(properties),
        ];
        let message = Message {
            type_id: kind::DATA,
            stream_id: self.stream_id,
            timestamp: 0,
            payload: amf::write(&values),
        };
        self.link.put(AUDIO_ID, &message);
        self.flush().await
    }

    /// Listens to the server until it ends the publishing. May be dropped and called again.
    pub async fn refused(&mut self) -> ClientError {
        loop {
            match self.listen().await {
                Ok(Said::Status { level, answer }) if level == "error" => return answer.refusal(),
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    /// Ends the publishing as encoders do.
    ///
    /// # Errors
    /// [`ClientError`] of the network.
    pub async fn finish(mut self) -> Result<(), ClientError> {
        let key = Value::text(&self.stream_key);
        let id = Value::Number(f64::from(self.stream_id));
        self.link.command(0, &call("FCUnpublish", 6, vec![key]));
        self.link.command(0, &call("deleteStream", 7, vec![id]));
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    async fn dialogue(&mut self, target: &PublishTarget) -> Result<(), ClientError> {
        self.handshake().await?;
        let size = Bytes::copy_from_slice(&CHUNK_BYTES.to_be_bytes());
        self.link.control(kind::SET_CHUNK_SIZE, size);
        let properties = [
            ("app", target.app.clone()),
            ("type", "nonprivate".into()),
            ("flashVer", "FMLE/3.0 (compatible; Lamplight)".into()),
            ("tcUrl", format!("rtmp://{}/{}", target.addr, target.app)),
        ];
        let properties = properties.map(|(name, text)| (name.into(), Value::Text(text)));
        let connect = [
            Value::text("connect"),
            Value::Number(f64::from(CONNECT_CALL)),
            Value::Object(properties.into()),
        ];
        self.link.command(0, &connect);
        self.flush().await?;
        self.result_of(CONNECT_CALL).await?;

        let key = Value::text(&target.stream_key);
        self.link
            .command(0, &call("releaseStream", 2, vec![key.clone()]));
        self.link
            .command(0, &call("FCPublish", 3, vec![key.clone()]));
        let create = call("createStream", CREATE_STREAM_CALL, Vec::new());
        self.link.command(0, &create);
        self.flush().await?;
        let id = self.result_of(CREATE_STREAM_CALL).await?;
        self.stream_id = id.ok_or(ClientError::Unreadable("createStream"))?;

        let publish = call("publish", 5, vec![key, Value::text("live")]);
        self.link.command(self.stream_id, &publish);
        self.flush().await?;
        self.started().await
    }

    async fn handshake(&mut self) -> Result<(), ClientError> {
        let unreadable = |_bad| ClientError::Unreadable("handshake");
        let mut handshake = Handshake::new(PeerType::Client);
        let first = handshake.generate_outbound_p0_and_p1();
        self.link.out.put_slice(&first.map_err(unreadable)?);
        self.flush().await?;
        loop {
            let mut bytes = BytesMut::with_capacity(READ_BYTES);
            if self.stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            match handshake.process_bytes(&bytes).map_err(unreadable)? {
                HandshakeProcessResult::InProgress { response_bytes } => {
                    self.link.out.put_slice(&response_bytes);
                }
                HandshakeProcessResult::Completed {
                    response_bytes,
                    remaining_bytes,
                } => {
                    self.link.out.put_slice(&response_bytes);
                    self.link.reader.push(&remaining_bytes);
                    return self.flush().await;
                }
            }
            self.flush().await?;
        }
    }

    /// Waits for the answer to a call; the number in it, if it brings one.
    async fn result_of(&mut self, wanted: u32) -> Result<Option<u32>, ClientError> {
        for _ in 0..MESSAGES_MAX {
            match self.listen().await? {
                Said::Result { call, number } if call == wanted => return Ok(number),
                Said::Error { call, answer } if call == wanted => return Err(answer.refusal()),
                Said::Status { level, answer } if level == "error" => return Err(answer.refusal()),
                _ => {}
            }
        }
        Err(ClientError::Unreadable("no answer among many messages"))
    }

    /// Waits until the server lets us publish.
    async fn started(&mut self) -> Result<(), ClientError> {
        for _ in 0..MESSAGES_MAX {
            match self.listen().await? {
                Said::Status { level, answer } if level == "error" => return Err(answer.refusal()),
                Said::Status { answer, .. } if answer.code == "NetStream.Publish.Start" => {
                    return Ok(());
                }
                Said::Error {
                    call: 0 | 5,
                    answer,
                } => return Err(answer.refusal()),
                _ => {}
            }
        }
        Err(ClientError::Unreadable("no answer among many messages"))
    }

    /// The next command of the server; its control messages are answered on the way.
    async fn listen(&mut self) -> Result<Said, ClientError> {
        loop {
            while let Some(message) = self.link.next_message()? {
                if let Some(said) = self.link.take(&message)? {
                    return Ok(said);
                }
            }
            // Also what a dropped call left unsent: the answer to a ping.
            if !self.link.out.is_empty() {
                self.flush().await?;
            }
            let mut bytes = BytesMut::with_capacity(READ_BYTES);
            if self.stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.link.receive(&bytes);
        }
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        // Each write takes off what was sent, so that a dropped call can be made again.
        while !self.link.out.is_empty() {
            let written = timeout(WRITE, self.stream.write_buf(&mut self.link.out));
            let written = written
                .await
                .map_err(|_elapsed| ClientError::TimedOut("write"))??;
            if written == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
        }
        Ok(timeout(WRITE, self.stream.flush())
            .await
            .map_err(|_elapsed| ClientError::TimedOut("write"))??)
    }
}

/// Code and sentence of an answer.
#[derive(Debug)]
struct Answer {
    code: String,
    sentence: String,
}

impl Answer {
    fn read(info: Option<&Value>) -> Self {
        let text = |name| {
            info.and_then(|info| info.property(name))
                .and_then(Value::as_text)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            code: text("code"),
            sentence: text("description"),
        }
    }

    fn refusal(self) -> ClientError {
        ClientError::Refused {
            code: self.code,
            sentence: self.sentence,
        }
    }
}

/// What the server says that matters to a publisher.
#[derive(Debug)]
enum Said {
    Result { call: u32, number: Option<u32> },
    Error { call: u32, answer: Answer },
    Status { level: String, answer: Answer },
}

/// Both directions of the chunk stream, without IO.
#[derive(Debug)]
struct Link {
    reader: ChunkReader,
    writer: ChunkWriter,
    out: BytesMut,
    received: u64,
    acknowledged: u64,
    window: Option<u64>,
}

impl Link {
    fn new() -> Self {
        Self {
            reader: ChunkReader::new(MessageLimits::DIALOGUE),
            writer: ChunkWriter::default(),
            out: BytesMut::new(),
            received: 0,
            acknowledged: 0,
            window: None,
        }
    }

    fn put(&mut self, id: u8, message: &Message) {
        self.writer.write(&mut self.out, id, message);
    }

    fn control(&mut self, type_id: u8, payload: Bytes) {
        let message = Message {
            type_id,
            stream_id: 0,
            timestamp: 0,
            payload,
        };
        self.put(CONTROL_ID, &message);
    }

    fn command(&mut self, stream_id: u32, values: &[Value]) {
        let id = if stream_id == 0 {
            COMMAND_ID
        } else {
            PUBLISH_ID
        };
        let message = Message {
            type_id: kind::COMMAND,
            stream_id,
            timestamp: 0,
            payload: amf::write(values),
        };
        self.put(id, &message);
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        self.received += u64::try_from(bytes.len()).unwrap_or(0);
        if let Some(window) = self.window
            && self.received - self.acknowledged >= window
        {
            self.acknowledged = self.received;
            // The running total, in 32 bits that wrap.
            let total = u32::try_from(self.received & u64::from(u32::MAX)).unwrap_or(0);
            let total = Bytes::copy_from_slice(&total.to_be_bytes());
            self.control(kind::ACKNOWLEDGEMENT, total);
        }
    }

    fn next_message(&mut self) -> Result<Option<Message>, ClientError> {
        self.reader
            .next_message()
            .map_err(|error| ClientError::Unreadable(error.reason()))
    }

    fn take(&mut self, message: &Message) -> Result<Option<Said>, ClientError> {
        let mut payload = message.payload.clone();
        match message.type_id {
            kind::WINDOW_ACK_SIZE => {
                self.window = payload.try_get_u32().ok().map(u64::from).filter(|w| *w > 0);
            }
            kind::USER_CONTROL if payload.try_get_u16() == Ok(PING_REQUEST) => {
                let mut pong = BytesMut::new();
                pong.put_u16(PING_RESPONSE);
                pong.put_u32(payload.try_get_u32().unwrap_or(0));
                self.control(kind::USER_CONTROL, pong.freeze());
            }
            kind::COMMAND => return said(payload),
            _ => {}
        }
        Ok(None)
    }
}

fn call(name: &str, transaction: u32, arguments: Vec<Value>) -> Vec<Value> {
    let mut values = vec![
        Value::text(name),
        Value::Number(f64::from(transaction)),
        Value::Null,
    ];
    values.extend(arguments);
    values
}

fn said(payload: Bytes) -> Result<Option<Said>, ClientError> {
    let values = amf::read(payload).map_err(|_bad| ClientError::Unreadable("amf"))?;
    let name = values.first().and_then(Value::as_text).unwrap_or_default();
    let call = values.get(1).and_then(whole).unwrap_or(0);
    let info = values.get(3);
    Ok(match name {
        "_result" => Some(Said::Result {
            call,
            number: info.and_then(whole),
        }),
        "_error" => Some(Said::Error {
            call,
            answer: Answer::read(info),
        }),
        "onStatus" => Some(Said::Status {
            level: info
                .and_then(|info| info.property("level"))
                .and_then(Value::as_text)
                .unwrap_or_default()
                .to_owned(),
            answer: Answer::read(info),
        }),
        _ => None,
    })
}

/// A whole number that fits; AMF has only floating point ones.
fn whole(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.to_string().parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
