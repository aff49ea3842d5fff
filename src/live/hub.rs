//! One audience per room: what is handed over in the room is rendered once for all streams.
//!
//! Invariants
//! - An audience is there as long as somebody is in it.
//! - Hints of one entry leave at most twice a second; the newest wins.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep_until};

use super::model::{self, Message, StockHint};
use crate::app::App;
use crate::ids::{AccountId, EntryId, RoomId};
use crate::rooms::{CardNews, Listener};

/// Messages a stream may be behind.
const BEHIND_MAX: usize = 1_024;
/// Streams of one room.
const STREAMS_MAX: usize = 20_000;
/// Streams of one account.
const BY_ACCOUNT_MAX: usize = 10;
const HINT_EVERY: Duration = Duration::from_millis(500);
/// Entries whose hints are remembered: those of a full shelf.
const HINTED_MAX: usize = 500;
const NEVER: Duration = Duration::from_secs(3_600);

/// Everybody who hears something.
#[derive(Debug, Default)]
pub(super) struct Hub {
    rooms: DashMap<RoomId, Arc<Audience>>,
    accounts: DashMap<AccountId, usize>,
}

/// Those who hear a room.
#[derive(Debug)]
pub(super) struct Audience {
    messages: broadcast::Sender<Message>,
    open: AtomicUsize,
    hints: Mutex<HashMap<EntryId, Hinted>>,
    hinted: Notify,
}

/// The hints of an entry.
#[derive(Debug)]
struct Hinted {
    sent_at: Instant,
    waiting: Option<Bytes>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FullError {
    #[error("the room has as many open streams as this server carries")]
    Room,
    #[error("an account has at most {BY_ACCOUNT_MAX} open streams")]
    Account,
}

/// A place in an audience, given back when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    hub: Arc<Hub>,
    audience: Arc<Audience>,
    account: Option<AccountId>,
}

impl Hub {
    pub(super) fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }

    /// Nobody hears anything.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Takes a place; the first one brings the audience to life.
    pub(super) fn enter(
        self: &Arc<Self>,
        app: &App,
        (room, account): (RoomId, Option<AccountId>),
        listener: Listener,
    ) -> Result<(Seat, broadcast::Receiver<Message>), FullError> {
        if let Some(account) = account {
            let mut open = self.accounts.entry(account).or_default();
            if *open >= BY_ACCOUNT_MAX {
                return Err(FullError::Account);
            }
            *open += 1;
        }
        let entry = self.rooms.entry(room);
        let is_new = matches!(entry, dashmap::Entry::Vacant(_));
        let audience = entry.or_insert_with(|| Arc::new(Audience::new()));
        let seat = Seat {
            hub: Arc::clone(self),
            audience: Arc::clone(&audience),
            account,
        };
        // Counted while the room's place in the map is held, so that it is not removed meanwhile.
        let others = audience.open.fetch_add(1, Ordering::AcqRel);
        let messages = audience.messages.subscribe();
        drop(audience);
        if others >= STREAMS_MAX {
            return Err(FullError::Room);
        }
        if is_new {
            let run = run(Arc::clone(self), room, Arc::clone(&seat.audience), listener);
            app.tasks.spawn_until_stop("live.room", run);
        }
        Ok((seat, messages))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.audience.open.fetch_sub(1, Ordering::AcqRel);
        self.audience.hinted.notify_one();
        let Some(account) = self.account else {
            return;
        };
        self.hub.accounts.remove_if_mut(&account, |_, open| {
            *open = open.saturating_sub(1);
            *open == 0
        });
    }
}

impl Audience {
    fn new() -> Self {
        Self {
            messages: broadcast::Sender::new(BEHIND_MAX),
            open: AtomicUsize::new(0),
            hints: Mutex::default(),
            hinted: Notify::new(),
        }
    }

    fn hints(&self) -> MutexGuard<'_, HashMap<EntryId, Hinted>> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, message: Message) {
        // Nobody there is no error.
        drop(self.messages.send(message));
    }

    fn hint(&self, now: Instant, hint: &StockHint) {
        let event = hint.event();
        let mut hints = self.hints();
        if hints.len() >= HINTED_MAX {
            hints.retain(|_, it| it.waiting.is_some() || now < it.sent_at + HINT_EVERY);
        }
        let is_full = hints.len() >= HINTED_MAX;
        match hints.get_mut(&hint.entry) {
            Some(hinted) if now < hinted.sent_at + HINT_EVERY => {
                hinted.waiting = Some(event);
                self.hinted.notify_one();
            }
            None if is_full => {}
            _ => {
                let hinted = Hinted {
                    sent_at: now,
                    waiting: None,
                };
                hints.insert(hint.entry, hinted);
                self.say(Message::Hint(event));
            }
        }
    }

    /// Sends the hints whose time has come; when the next one's comes.
    fn send_hints(&self, now: Instant) -> Instant {
        let mut next = now + NEVER;
        for hinted in self.hints().values_mut().filter(|it| it.waiting.is_some()) {
            let due = hinted.sent_at + HINT_EVERY;
            if due > now {
                next = next.min(due);
                continue;
            }
            hinted.sent_at = now;
            if let Some(event) = hinted.waiting.take() {
                self.say(Message::Hint(event));
            }
        }
        next
    }
}

/// Renders what is handed over, until nobody is left.
async fn run(hub: Arc<Hub>, room: RoomId, audience: Arc<Audience>, listener: Listener) {
    let mut news = listener.news;
    loop {
        let next_hint = audience.send_hints(Instant::now());
        let heard = tokio::select! {
            biased;
            heard = news.recv() => Some(heard),
            () = audience.hinted.notified() => None,
            () = sleep_until(next_hint) => None,
        };
        match heard {
            Some(Ok(news)) => audience.say(rendered(&news)),
            Some(Err(RecvError::Lagged(_))) => audience.say(Message::Missed),
            Some(Err(RecvError::Closed)) => return,
            None => {
                let is_empty =
                    |_: &RoomId, it: &Arc<Audience>| it.open.load(Ordering::Acquire) == 0;
                if hub.rooms.remove_if(&room, is_empty).is_some() {
                    return;
                }
            }
        }
    }
}

fn rendered(news: &CardNews) -> Message {
    match news {
        CardNews::Card { seq, envelope } => Message::Card {
            seq: *seq,
            event: model::card(*seq, envelope),
        },
        CardNews::Rehearsed { seq, envelope } => Message::Rehearsed {
            seq: *seq,
            event: model::card(*seq, envelope),
        },
        CardNews::Started => Message::Started,
    }
}

/// Tells the open pages of a room what is left of an entry. It is a hint: whoever sells asks stock
/// itself.
pub(super) fn stock_hint(app: &App, room: RoomId, hint: &StockHint) {
    if let Some(audience) = Hub::of(app).rooms.get(&room) {
        audience.hint(Instant::now(), hint);
    }
}
