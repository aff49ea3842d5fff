//! The state machine of the commands: `rml_rtmp`'s session, whole messages in and out.
//!
//! What goes in was read and bounded by [`super::chunk`] and [`super::amf`]; what comes out is read
//! back from its chunks, so that [`super::session`] writes every byte of the network itself.
//!
//! Not here: deadlines, the order of the dialogue, what the publisher is told.

#![deny(clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};
use rml_rtmp::sessions::{
    ServerSession, ServerSessionConfig, ServerSessionEvent, ServerSessionResult,
};

use super::chunk::{CHUNK_BYTES, ChunkReader, ChunkWriter, Message, MessageLimits, kind};
use super::close::CloseReason;

pub(super) const WINDOW_BYTES: u32 = 2_500_000;
/// The chunk stream of commands.
pub(super) const COMMAND_ID: u8 = 3;

/// `rml_rtmp`'s session, whole messages in and out.
pub(super) struct Inner {
    session: ServerSession,
    to: ChunkWriter,
    from: ChunkReader,
}

/// What the state machine made of a message.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) replies: Vec<Message>,
    pub(super) publish: Option<u32>,
    pub(super) play: Option<u32>,
}

impl Inner {
    pub(super) fn new() -> Result<Self, CloseReason> {
        let mut config = ServerSessionConfig::new();
        config.chunk_size = CHUNK_BYTES;
        config.window_ack_size = WINDOW_BYTES;
        config.peer_bandwidth = WINDOW_BYTES;
        let made = ServerSession::new(config).map_err(|_unmade| CloseReason::Dialogue)?;
        let (session, greeting) = made;
        let limits = MessageLimits::DIALOGUE;
        let mut inner = Self {
            session,
            to: ChunkWriter::default(),
            from: ChunkReader::new(limits),
        };
        // Its greeting is ours to give, after `connect`; read here for the chunk size it sets.
        inner.read_back(greeting)?;
        let payload = Bytes::copy_from_slice(&CHUNK_BYTES.to_be_bytes());
        let type_id = kind::SET_CHUNK_SIZE;
        inner.handle(&Message {
            type_id,
            stream_id: 0,
            timestamp: 0,
            payload,
        })?;
        Ok(inner)
    }

    pub(super) fn handle(&mut self, message: &Message) -> Result<Outcome, CloseReason> {
        let mut bytes = BytesMut::new();
        self.to.write(&mut bytes, COMMAND_ID, message);
        let results = self
            .session
            .handle_input(&bytes)
            .map_err(|_refused| CloseReason::Dialogue)?;
        self.read_back(results)
    }

    pub(super) fn accept(&mut self, request_id: u32) -> Result<Vec<Message>, CloseReason> {
        let results = self.session.accept_request(request_id);
        Ok(self
            .read_back(results.map_err(|_unknown| CloseReason::Dialogue)?)?
            .replies)
    }

    fn read_back(&mut self, results: Vec<ServerSessionResult>) -> Result<Outcome, CloseReason> {
        let mut outcome = Outcome::default();
        for result in results {
            match result {
                ServerSessionResult::OutboundResponse(packet) => {
                    self.from.push(&packet.bytes);
                    while let Some(message) = self.from.next_message()? {
                        outcome.replies.push(message);
                    }
                }
                ServerSessionResult::RaisedEvent(ServerSessionEvent::ConnectionRequested {
                    request_id,
                    ..
                }) => outcome.replies.extend(self.accept(request_id)?),
                ServerSessionResult::RaisedEvent(ServerSessionEvent::PublishStreamRequested {
                    request_id,
                    ..
                }) => outcome.publish = Some(request_id),
                ServerSessionResult::RaisedEvent(ServerSessionEvent::PlayStreamRequested {
                    request_id,
                    ..
                }) => outcome.play = Some(request_id),
                ServerSessionResult::RaisedEvent(_)
                | ServerSessionResult::UnhandleableMessageReceived(_) => {}
            }
        }
        Ok(outcome)
    }
}
