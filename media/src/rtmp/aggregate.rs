//! Aggregate messages: FLV tags one after another in one message (RTMP 1.0 section 7.1.6).
//!
//! Invariant: tags are taken one at a time and their number is bounded, so that a message never
//! becomes more than it was.

#![deny(clippy::indexing_slicing)]

use bytes::Bytes;

use super::chunk::{ChunkError, Message, kind};

/// Tags of one aggregate; real ones hold a second of media at most.
pub(super) const TAGS_MAX: usize = 1_024;
const TAG_HEADER_BYTES: usize = 11;
/// The back pointer that follows each tag.
const BACK_POINTER_BYTES: usize = 4;

/// An aggregate whose tags are being taken.
#[derive(Debug)]
pub(super) struct Aggregate {
    rest: Bytes,
    stream_id: u32,
    timestamp: u32,
    /// The time of the first tag: the others count from it, it from the message's own.
    first: Option<u32>,
    tags: usize,
}

impl Aggregate {
    pub(super) fn new(message: Message) -> Self {
        Self {
            rest: message.payload,
            stream_id: message.stream_id,
            timestamp: message.timestamp,
            first: None,
            tags: 0,
        }
    }

    /// The next audio or video message in it.
    ///
    /// # Errors
    /// [`ChunkError::MessageTooLarge`] for a tag that reaches past the end, or too many tags.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, ChunkError> {
        while self.rest.len() >= TAG_HEADER_BYTES {
            self.tags += 1;
            if self.tags > TAGS_MAX {
                return Err(ChunkError::MessageTooLarge);
            }
            let head = self.rest.split_to(TAG_HEADER_BYTES);
            let byte = |at: usize| u32::from(head.get(at).copied().unwrap_or(0));
            let size = byte(1) << 16 | byte(2) << 8 | byte(3);
            let time = byte(7) << 24 | byte(4) << 16 | byte(5) << 8 | byte(6);
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if self.rest.len() < size {
                return Err(ChunkError::MessageTooLarge);
            }
            let payload = self.rest.split_to(size);
            let back = self.rest.len().min(BACK_POINTER_BYTES);
            self.rest = self.rest.slice(back..);
            let first = *self.first.get_or_insert(time);
            let type_id = head.first().copied().unwrap_or(0);
            if matches!(type_id, kind::AUDIO | kind::VIDEO) {
                return Ok(Some(Message {
                    type_id,
                    stream_id: self.stream_id,
                    timestamp: self.timestamp.wrapping_add(time.wrapping_sub(first)),
                    payload,
                }));
            }
        }
        Ok(None)
    }
}
