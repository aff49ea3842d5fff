//! A connection that plays: the question, the wait for a publisher, frames out (spec media.md 7).
//!
//! Invariants
//! - Nothing is queued beyond what [`Viewer`] has in hand: the next frames are taken when the
//!   kernel has those before.
//! - A connection that takes nothing for [`STALLED_AFTER`] is closed.
//!
//! Not here: which frames a viewer is sent, and their bytes ([`crate::flv::viewer`]).

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Connection, DECISION_TIMEOUT, State, try_again};
use crate::broadcast::{Broadcast, Broadcasts, EndReason};
use crate::flv::viewer::{self, Refused, SLICES_MAX, STALLED_AFTER, Viewer};
use crate::request::{PlayDecision, PlayGrant, PlayRequest, Refusal, RefusalCode};

/// How long a player waits for a publisher.
const PUBLISHER_WAIT: Duration = Duration::from_secs(10);

/// A player that waits: for the decision, then for somebody to publish what it may watch.
pub(super) struct Asking {
    hub: Arc<Broadcasts>,
    decision: Option<oneshot::Receiver<PlayDecision>>,
    grant: Option<PlayGrant>,
    until: Instant,
}

/// A player that is sent frames.
pub(super) struct Playing {
    viewer: Viewer,
    batch: VecDeque<Bytes>,
    is_paused: bool,
}

/// What comes next for a player.
pub(super) enum News {
    /// It may not play, or what it wants is not there.
    Refused(Refusal),
    /// It may, once somebody publishes.
    Granted(PlayGrant),
    /// What it waited for is there.
    Opened(Arc<Broadcast>),
    /// Frames are in hand; false when there are no more.
    Batch(bool),
}

impl Asking {
    fn new(hub: &Arc<Broadcasts>, decision: oneshot::Receiver<PlayDecision>) -> Self {
        Self {
            hub: Arc::clone(hub),
            decision: Some(decision),
            grant: None,
            until: Instant::now() + DECISION_TIMEOUT,
        }
    }

    /// Cancel-safe.
    pub(super) async fn news(&mut self) -> News {
        if let Some(decision) = &mut self.decision {
            return match timeout_at(self.until, decision).await {
                Ok(Ok(PlayDecision::Accept(grant))) => News::Granted(grant),
                Ok(Ok(PlayDecision::Reject(refusal))) => News::Refused(refusal),
                _ => News::Refused(try_again()),
            };
        }
        let Some(grant) = &self.grant else {
            return News::Refused(try_again());
        };
        match timeout_at(self.until, self.hub.opened(&grant.broadcast)).await {
            Ok(broadcast) => News::Opened(broadcast),
            Err(_elapsed) => News::Refused(Refusal {
                code: RefusalCode::NotLive,
                sentence: "Nobody publishes into this room now. Come back when the show is on."
                    .into(),
            }),
        }
    }
}

impl Playing {
    /// Why the connection is over, when that is not said yet; one that was cut is `gone`.
    pub(super) fn end(&self, reason: EndReason) {
        if reason != EndReason::Lost {
            self.viewer.end(reason.reason());
        }
    }

    /// Cancel-safe.
    pub(super) async fn news(&mut self) -> News {
        if self.is_paused {
            self.viewer.over().await;
            return News::Batch(false);
        }
        News::Batch(self.viewer.next_batch(&mut self.batch).await)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn ask_to_play(&mut self, app: String, room: String, query: String) {
        let (reply, decision) = oneshot::channel();
        let request = PlayRequest {
            app,
            room,
            query,
            peer: self.peer,
            reply,
        };
        if self.requests.play.try_send(request).is_err() {
            self.refuse_player(&try_again());
            return;
        }
        self.state = State::Asking(Box::new(Asking::new(&self.hub, decision)));
    }

    pub(super) fn pause(&mut self, is_paused: bool) {
        if let State::Playing(playing) = &mut self.state {
            playing.is_paused = is_paused;
        }
    }

    /// False when the connection is to be closed without another word.
    pub(super) async fn play_news(&mut self, news: News, cancel: &CancellationToken) -> bool {
        match news {
            News::Refused(refusal) => self.refuse_player(&refusal),
            News::Granted(grant) => {
                if let State::Asking(asking) = &mut self.state {
                    asking.decision = None;
                    asking.grant = Some(grant);
                    asking.until = Instant::now() + PUBLISHER_WAIT;
                }
            }
            News::Opened(broadcast) => self.open(&broadcast, cancel),
            News::Batch(true) => return self.send_batch().await,
            News::Batch(false) => self.played(),
        }
        true
    }

    /// Counted, but not held against the peer: the name of a room is no secret to be guessed.
    fn refuse_player(&mut self, refusal: &Refusal) {
        let reason = refusal.code.reason();
        self.count_player(reason);
        info!(reason, "player turned away");
        self.session.refuse(refusal);
        self.state = State::Done;
    }

    fn count_player(&self, outcome: &'static str) {
        let stats = self.hub.stats();
        stats.add_two("viewer_sessions_total", ["rtmp", outcome], 1);
    }

    fn open(&mut self, broadcast: &Arc<Broadcast>, cancel: &CancellationToken) {
        let State::Asking(asking) = std::mem::replace(&mut self.state, State::Talking) else {
            return;
        };
        let Some(grant) = asking.grant else { return };
        let now = Instant::now();
        if let Err(refused) = viewer::check(broadcast, &grant.terms) {
            let code = match refused {
                Refused::NoRendition(_) => RefusalCode::Unsupported,
                Refused::Unavailable => RefusalCode::TryAgain,
            };
            let sentence = sentence(&refused.to_string());
            self.refuse_player(&Refusal { code, sentence });
            return;
        }
        self.session.accept(now);
        // The dialogue failed: it has said so.
        let Some(stream_id) = self.session.playing_on() else {
            return;
        };
        let place = (&self.hub, broadcast);
        let opened = viewer::open_rtmp(stream_id, place, grant.terms, cancel.child_token());
        let Ok((viewer, control)) = opened else {
            // It changed since it was checked.
            self.refuse_player(&try_again());
            return;
        };
        self.pass.accepted(now);
        self.count_player("accepted");
        // The server may have no use for it.
        drop(grant.opened.send(control));
        self.state = State::Playing(Box::new(Playing {
            viewer,
            batch: VecDeque::new(),
            is_paused: false,
        }));
    }

    /// Says why it is over.
    fn played(&mut self) {
        let State::Playing(playing) = std::mem::replace(&mut self.state, State::Done) else {
            return;
        };
        let (code, sentence) = match playing.viewer.reason() {
            "expired" => (
                RefusalCode::NotAllowed,
                "The playback token has expired. Ask for a new one and play again.",
            ),
            "kicked" => (RefusalCode::NotAllowed, "The server ended this session."),
            "shutdown" => (
                RefusalCode::TryAgain,
                "The server is stopping. Play again in a moment.",
            ),
            _ => return self.session.unpublished(),
        };
        self.session.refuse(&Refusal {
            code,
            sentence: sentence.into(),
        });
    }

    /// Writes what is in hand; false when the peer does not take it.
    async fn send_batch(&mut self) -> bool {
        let State::Playing(playing) = &mut self.state else {
            return true;
        };
        while !playing.batch.is_empty() {
            let written = tokio::select! {
                biased;
                written = timeout(STALLED_AFTER, write_some(&mut self.socket, &playing.batch)) => {
                    written
                }
                // In the middle of a message there is no room for another word.
                () = playing.viewer.left() => return false,
            };
            match written {
                Ok(Ok(bytes)) if bytes > 0 => advance(&mut playing.batch, bytes),
                Ok(_) => return false,
                Err(_elapsed) => {
                    playing.viewer.end("too_slow");
                    return false;
                }
            }
            self.session.moved(Instant::now());
        }
        let flushed = timeout(STALLED_AFTER, self.socket.flush()).await;
        matches!(flushed, Ok(Ok(())))
    }
}

/// A sentence for people, of one that belongs into another.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

/// Writes at most [`SLICES_MAX`] slices at once.
async fn write_some(
    socket: &mut (impl AsyncWrite + Unpin),
    batch: &VecDeque<Bytes>,
) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let mut count = 0;
    for (slice, bytes) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(bytes);
        count += 1;
    }
    let slices = slices.get(..count).unwrap_or_default();
    socket.write_vectored(slices).await
}

/// Forgets what was written.
fn advance(batch: &mut VecDeque<Bytes>, mut bytes: usize) {
    while let Some(first) = batch.front_mut() {
        if first.len() > bytes {
            first.advance(bytes);
            return;
        }
        bytes -= first.len();
        batch.pop_front();
    }
}

#[cfg(test)]
mod tests;
