//! A cursor, and the frame it gave that may not go yet.

use crate::broadcast::{Broadcast, Cursor, Delivery, Start};
use crate::frame::TrackId;

/// A cursor, and the frame it gave that may not go yet.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) cursor: Cursor,
    pub(super) next: Option<Delivery>,
}

impl Reader {
    pub(super) fn new(broadcast: &Broadcast, track: TrackId, start: Start) -> Self {
        Self {
            cursor: broadcast.cursor(track, start),
            next: None,
        }
    }

    /// The next frame, which stays.
    pub(super) fn peek(&mut self) -> Option<&Delivery> {
        if self.next.is_none() {
            self.next = self.cursor.try_next();
        }
        self.next.as_ref()
    }

    /// Waits until [`Self::peek`] may give another frame; for ever while one waits to go, and
    /// when the track has ended. Cancel-safe.
    pub(super) async fn ready(&mut self) {
        if self.next.is_none() && self.cursor.ready().await.is_ok() {
            return;
        }
        std::future::pending().await
    }
}
