//! Making rooms, and moving them: each move one transaction.

use serde_json::{Value, json};
use tracing::info;

use super::model::{Move, NewRoom, Room, SCHEDULED_MAX, State};
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

/// Moves a room, unless it is no longer where it was seen.
pub(super) async fn apply(
    app: &App,
    room: &Room,
    step: Move,
    sending: Option<&Sending>,
) -> sqlx::Result<()> {
    let (id, now) = (room.id, app.clock.now());
    let mut tx = app.db.begin().await?;
    let is_moved = match step {
        Move::Rehearse => store::set_rehearsal(&mut tx, id, now).await?,
        Move::GoLive => store::set_live(&mut tx, id, now).await?,
        Move::Interrupt => store::set_interrupted(&mut tx, id, now).await?,
        Move::Resume => store::set_resumed(&mut tx, id, now).await?,
        Move::End => store::set_ended(&mut tx, id, now).await?,
        Move::Miss => store::set_cancelled(&mut tx, id, now).await?,
    };
    if !is_moved {
        return tx.rollback().await;
    }
    match step {
        Move::GoLive | Move::Resume => {
            if let Some(sending) = sending {
                store::close_timeline(&mut tx, id, sending.first_at).await?;
                store::insert_timeline(&mut tx, id, sending).await?;
            }
        }
        Move::Interrupt => store::close_timeline(&mut tx, id, now).await?,
        Move::End | Move::Miss => broadcasts::close_publishing(&mut tx, id, now).await?,
        Move::Rehearse => {}
    }
    if let Some(news) = news_of(step) {
        tell(&mut tx, now, room, news).await?;
    }
    tx.commit().await?;
    info!(room.id = %id, room.move = ?step, "room moved");
    Ok(())
}

/// Gives a new media instance its place while the room stays live: the publisher was back before
/// the room counted as interrupted.
pub(super) async fn continue_timeline(
    app: &App,
    room: &Room,
    sending: &Sending,
) -> sqlx::Result<()> {
    let mut tx = app.db.begin().await?;
    store::close_timeline(&mut tx, room.id, sending.first_at).await?;
    store::insert_timeline(&mut tx, room.id, sending).await?;
    tx.commit().await
}

fn news_of(step: Move) -> Option<(Kind, Value)> {
    let news = match step {
        // A rehearsal is nobody's business but the operators'.
        Move::Rehearse => return None,
        Move::GoLive => (Kind::RoomLive, json!({})),
        Move::Interrupt => (Kind::RoomInterrupted, json!({})),
        Move::Resume => (Kind::RoomResumed, json!({})),
        Move::End => (Kind::RoomEnded, json!({ "reason": "interrupt_grace_over" })),
        Move::Miss => (Kind::RoomCancelled, json!({ "reason": "missed" })),
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
