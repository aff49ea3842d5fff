//! Making rooms, and moving them: each move one transaction.

use serde_json::{Value, json};
use tracing::info;

use super::cards::{self, CardError, Desk, Written};
use super::model::{Change, Move, NewRoom, Order, Room, SCHEDULED_MAX, State};
use super::store;
use crate::app::App;
use crate::broadcasts::{self, AddKeyError, NewPublishKey, Sending};
use crate::clock::Timestamp;
use crate::creators;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::ids::{CreatorId, KeyId, RoomId};

/// Why no room was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("there is no creator {0}")]
    NoCreator(CreatorId),
    #[error("a creator has at most {SCHEDULED_MAX} announced rooms")]
    LimitReached,
    #[error("writing the room")]
    Db(#[from] sqlx::Error),
}

/// Why the keys of a room were not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("there is no such room or key")]
    NotFound,
    #[error("the room is over; make a new one")]
    RoomEnded,
    #[error(transparent)]
    Add(#[from] AddKeyError),
    #[error("writing the stream key")]
    Db(#[from] sqlx::Error),
}

/// Makes a room and opens it to its publishers.
pub(crate) async fn create(
    tx: &mut Tx,
    now: Timestamp,
    wish: NewRoom,
) -> Result<RoomId, CreateError> {
    if !creators::exists(tx, wish.creator).await? {
        return Err(CreateError::NoCreator(wish.creator));
    }
    if store::count_scheduled(tx, wish.creator).await? >= SCHEDULED_MAX {
        return Err(CreateError::LimitReached);
    }
    let room = Room {
        id: RoomId::new(now),
        creator: wish.creator,
        creator_name: String::new(),
        creator_handle: String::new(),
        title: wish.title,
        state: State::Scheduled,
        starts_at: wish.starts_at,
        auto_start: wish.auto_start,
        card_lead_ms: wish.card_lead_ms,
        price_honour_ms: wish.price_honour_ms,
        interrupt_grace_s: wish.interrupt_grace_s,
        live_at: None,
        interrupted_at: None,
        ended_at: None,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    store::insert(tx, &room).await?;
    broadcasts::open_access(tx, room.id, now).await?;
    let data = json!({ "title": room.title, "starts_at": room.starts_at });
    tell(tx, now, &room, (Kind::RoomScheduled, data)).await?;
    Ok(room.id)
}

/// Changes a room that this transaction has locked.
pub(super) async fn change(
    tx: &mut Tx,
    now: Timestamp,
    mut room: Room,
    change: Change,
) -> Result<Room, OrderError> {
    let is_announced = room.state == State::Scheduled;
    let moves = change.starts_at.is_some() || change.auto_start.is_some();
    if room.state.is_over() || (moves && !is_announced) {
        return Err(OrderError::InvalidState(room.state.as_str()));
    }
    room.title = change.title.unwrap_or(room.title);
    room.starts_at = change.starts_at.unwrap_or(room.starts_at);
    room.auto_start = change.auto_start.unwrap_or(room.auto_start);
    room.card_lead_ms = change.card_lead_ms.unwrap_or(room.card_lead_ms);
    room.price_honour_ms = change.price_honour_ms.unwrap_or(room.price_honour_ms);
    let grace_s = change.interrupt_grace_s;
    room.interrupt_grace_s = grace_s.unwrap_or(room.interrupt_grace_s);
    room.version += 1;
    room.updated_at = now;
    store::update(tx, &room).await?;
    Ok(room)
}

/// Adds a stream key to a room that is not over.
pub(super) async fn add_key(
    tx: &mut Tx,
    now: Timestamp,
    id: RoomId,
) -> Result<NewPublishKey, KeyError> {
    let room = store::lock(tx, id).await?.ok_or(KeyError::NotFound)?;
    if room.state.is_over() {
        return Err(KeyError::RoomEnded);
    }
    Ok(broadcasts::add_key(tx, id, now).await?)
}

/// Withdraws a stream key. The caller cuts its publisher after the commit.
pub(super) async fn revoke_key(
    tx: &mut Tx,
    now: Timestamp,
    id: RoomId,
    key: KeyId,
) -> Result<(), KeyError> {
    if broadcasts::revoke_key(tx, id, key, now).await? {
        Ok(())
    } else {
        Err(KeyError::NotFound)
    }
}

/// Why an order was not followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("there is no such room")]
    NotFound,
    #[error("the room is {0}")]
    InvalidState(&'static str),
    #[error("no media comes in; let the encoder publish first")]
    NoMedia,
    #[error("moving the room")]
    Db(#[from] sqlx::Error),
}

/// A move that is made in a transaction, and what is to be done once it is committed.
#[derive(Debug)]
#[must_use = "after the commit the carriers and the publisher are to be told"]
pub(super) struct Moved {
    room: RoomId,
    step: Move,
    written: Option<Written>,
}

impl Moved {
    /// Tells everybody. Call it once the transaction is committed.
    pub(super) async fn tell(self, app: &App) -> sqlx::Result<()> {
        info!(room.id = %self.room, room.move = ?self.step, "room moved");
        if let Some(written) = self.written {
            written.hand_over(app);
        }
        match self.step {
            Move::GoLive => {
                cards::Line::of(app, self.room).start();
                look_after(app, self.room).await
            }
            Move::Resume => look_after(app, self.room).await,
            Move::End(_) | Move::Cancel(_) => {
                broadcasts::end(app, self.room);
                Ok(())
            }
            Move::Rehearse | Move::Interrupt => Ok(()),
        }
    }
}

async fn look_after(app: &App, id: RoomId) -> sqlx::Result<()> {
    if let Some(room) = store::find(&app.db, id).await? {
        cards::tend(app, &room).await?;
    }
    Ok(())
}

/// Follows an operator's order. The caller tells of it after the commit.
pub(super) async fn follow(
    tx: &mut Tx,
    app: &App,
    id: RoomId,
    order: Order,
) -> Result<Option<Moved>, OrderError> {
    let room = store::lock(tx, id).await?.ok_or(OrderError::NotFound)?;
    let step = room.ordered(order);
    let step = step.ok_or(OrderError::InvalidState(room.state.as_str()))?;
    let sending = broadcasts::sending(app, id);
    if step == Move::GoLive && sending.is_none() {
        return Err(OrderError::NoMedia);
    }
    Ok(step_in(tx, app, &room, (step, sending.as_ref())).await?)
}

/// Moves a room, unless it is no longer where it was seen.
pub(super) async fn apply(
    app: &App,
    room: &Room,
    step: Move,
    sending: Option<&Sending>,
) -> sqlx::Result<()> {
    let mut tx = app.db.begin().await?;
    let Some(moved) = step_in(&mut tx, app, room, (step, sending)).await? else {
        return tx.rollback().await;
    };
    tx.commit().await?;
    moved.tell(app).await
}

/// One step with everything that belongs to it; `None` if the room is not in a state for it.
async fn step_in(
    tx: &mut Tx,
    app: &App,
    room: &Room,
    (step, sending): (Move, Option<&Sending>),
) -> sqlx::Result<Option<Moved>> {
    let (id, now) = (room.id, app.clock.now());
    let mut written = None;
    if matches!(step, Move::End(_)) {
        // Closed while it is still on air: afterwards its cards stay as they are.
        let Some(closed) = close_cards(tx, app, id).await? else {
            return Ok(None);
        };
        written = Some(closed);
    }
    let is_moved = match step {
        Move::Rehearse => store::set_rehearsal(tx, id, now).await?,
        Move::GoLive => store::set_live(tx, id, now).await?,
        Move::Interrupt => {
            end_timeline(tx, app, room).await?;
            store::set_interrupted(tx, id, now).await?
        }
        Move::Resume => store::set_resumed(tx, id, now).await?,
        Move::End(_) => store::set_ended(tx, id, now).await?,
        Move::Cancel(_) => store::set_cancelled(tx, id, now).await?,
    };
    if !is_moved {
        return Ok(None);
    }
    match step {
        Move::GoLive | Move::Resume => {
            if let Some(sending) = sending {
                begin_timeline(tx, app, id, sending).await?;
            }
        }
        Move::End(_) | Move::Cancel(_) => broadcasts::close_publishing(tx, id, now).await?,
        Move::Rehearse | Move::Interrupt => {}
    }
    if let Some(news) = news_of(step) {
        tell(tx, now, room, news).await?;
    }
    Ok(Some(Moved {
        room: id,
        step,
        written,
    }))
}

/// Closes the cards of a show that ends, and its timeline; `None` if it is not on air.
async fn close_cards(tx: &mut Tx, app: &App, id: RoomId) -> sqlx::Result<Option<Written>> {
    let desk = match Desk::open(tx, app, id).await {
        Ok(desk) => desk,
        Err(CardError::Db(err)) => return Err(err),
        Err(_over) => return Ok(None),
    };
    let end_us = desk.cards().clock.now_us;
    let written = desk.close(tx, app).await;
    let written = written.map_err(|err| match err {
        CardError::Db(err) => err,
        // Nothing bounds what the end of a show writes.
        err => sqlx::Error::Encode(Box::new(err)),
    })?;
    store::close_timeline_at(tx, id, end_us).await?;
    Ok(Some(written))
}

/// Ends the running instance's place at the room time that is now.
async fn end_timeline(tx: &mut Tx, app: &App, room: &Room) -> sqlx::Result<()> {
    let clock = cards::now_of(tx, app, room).await?;
    store::close_timeline_at(tx, room.id, clock.now_us).await
}

/// Gives an instance its place: the first begins at 0, each later one where room time is.
async fn begin_timeline(tx: &mut Tx, app: &App, id: RoomId, sending: &Sending) -> sqlx::Result<()> {
    store::close_timeline(tx, id, sending.first_at).await?;
    let running = broadcasts::running(app, id);
    let running = running.filter(|running| running.instance == sending.instance);
    let passed_us = running.map_or(0, |running| running.t_us);
    let not_before_us = cards::Line::of(app, id).floor_us() - passed_us;
    store::insert_timeline(tx, id, sending, not_before_us).await
}

/// Gives a new media instance its place while the room stays live: the publisher was back before
/// the room counted as interrupted.
pub(super) async fn continue_timeline(
    app: &App,
    room: &Room,
    sending: &Sending,
) -> sqlx::Result<()> {
    let mut tx = app.db.begin().await?;
    begin_timeline(&mut tx, app, room.id, sending).await?;
    tx.commit().await
}

fn news_of(step: Move) -> Option<(Kind, Value)> {
    let news = match step {
        // A rehearsal is nobody's business but the operators'.
        Move::Rehearse => return None,
        Move::GoLive => (Kind::RoomLive, json!({})),
        Move::Interrupt => (Kind::RoomInterrupted, json!({})),
        Move::Resume => (Kind::RoomResumed, json!({})),
        Move::End(ending) => (Kind::RoomEnded, json!({ "reason": ending.reason() })),
        Move::Cancel(ending) => (Kind::RoomCancelled, json!({ "reason": ending.reason() })),
    };
    Some(news)
}

async fn tell(
    tx: &mut Tx,
    now: Timestamp,
    room: &Room,
    (kind, mut data): (Kind, Value),
) -> sqlx::Result<()> {
    if let Some(fields) = data.as_object_mut() {
        fields.insert("creator_id".into(), json!(room.creator));
    }
    let event = NewEvent {
        kind,
        subject_kind: SubjectKind::Room,
        subject_id: room.id.to_string(),
        streams: vec![
            Stream::Creator(room.creator),
            Stream::Social,
            Stream::Platform,
        ],
        data,
    };
    events::append(tx, now, event).await?;
    Ok(())
}
