//! One open stream: first the state, then every card behind it.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::hub::Seat;
use super::model::{self, Message};
use crate::app::{App, Phase};
use crate::http::ApiError;
use crate::ids::RoomId;
use crate::rooms;

const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// What a stream sends next.
#[derive(Debug)]
pub(super) struct Stream {
    app: App,
    room: RoomId,
    is_inside: bool,
    messages: broadcast::Receiver<Message>,
    phase: watch::Receiver<Phase>,
    /// The number of the last card that was sent, or is in the snapshot.
    sent: i64,
    /// Cards behind it are to be read before anything is heard.
    is_behind: bool,
    ready: VecDeque<Bytes>,
    alive_at: Instant,
    _seat: Seat,
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// With the state that is now.
    Now,
    /// Behind the card of this number.
    Card(i64),
}

impl Stream {
    pub(super) async fn open(
        app: &App,
        (room, is_inside): (RoomId, bool),
        (seat, messages): (Seat, broadcast::Receiver<Message>),
        from: From,
    ) -> Result<Self, ApiError> {
        let mut stream = Self {
            app: app.clone(),
            room,
            is_inside,
            messages,
            phase: app.phase.subscribe(),
            sent: 0,
            is_behind: true,
            ready: VecDeque::new(),
            alive_at: Instant::now() + ALIVE_EVERY,
            _seat: seat,
        };
        match from {
            From::Card(seq) => stream.sent = seq,
            From::Now => stream.begin().await?,
        }
        Ok(stream)
    }

    /// The next event; none ends the stream.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.alive_at = Instant::now() + ALIVE_EVERY;
                return Some(event);
            }
            let made = if self.is_behind {
                self.read_on().await
            } else {
                self.hear().await
            };
            match made {
                Ok(true) => {}
                Ok(false) => return None,
                Err(err) => {
                    debug!(room.id = %self.room, error = err.word(), "stream ends");
                    return None;
                }
            }
        }
    }

    /// The state that is now, then everything behind it.
    async fn begin(&mut self) -> Result<(), ApiError> {
        let (seq, view) = rooms::now_text(&self.app, self.room, self.is_inside).await?;
        self.ready.push_back(model::snapshot(seq, &view));
        self.sent = seq;
        self.is_behind = true;
        Ok(())
    }

    /// A page of what was missed.
    async fn read_on(&mut self) -> Result<bool, ApiError> {
        let page = rooms::envelopes_after(&self.app, self.room, self.sent).await?;
        self.is_behind = !page.is_empty();
        for (seq, envelope) in page {
            self.ready.push_back(model::card(seq, &envelope));
            self.sent = seq;
        }
        Ok(true)
    }

    /// Waits for one message; `false` ends the stream.
    async fn hear(&mut self) -> Result<bool, ApiError> {
        let alive_at = self.alive_at;
        let message = tokio::select! {
            biased;
            _ = self.phase.wait_for(|phase| *phase >= Phase::Stopping) => return Ok(false),
            message = self.messages.recv() => message,
            () = sleep_until(alive_at) => {
                self.ready.push_back(model::alive());
                return Ok(true);
            }
        };
        match message {
            Ok(Message::Card { seq, event }) if seq == self.sent + 1 => {
                self.sent = seq;
                self.ready.push_back(event);
            }
            Ok(Message::Card { seq, .. }) => self.is_behind = seq > self.sent,
            Ok(Message::Rehearsed { seq, event }) if self.is_inside && seq > self.sent => {
                self.sent = seq;
                self.ready.push_back(event);
            }
            Ok(Message::Rehearsed { .. }) => {}
            Ok(Message::Started) => self.begin().await?,
            Ok(Message::Missed) => self.is_behind = true,
            Ok(Message::Hint(event)) => self.ready.push_back(event),
            // Too far behind: the client resumes by the number of its last card.
            Err(_lagged) => return Ok(false),
        }
        Ok(true)
    }
}
