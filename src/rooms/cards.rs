//! Cards on the room's timeline (commerce.md 9): numbered and committed first, then a cue.
//!
//! Invariants
//! - `seq` is 1, 2, 3 … per room.
//! - The envelope's bytes are written once, in the key order of the contract, and go unchanged to
//!   every carrier.
//!
//! Not here: pins, prices, deals and their fold; the stored timeline.

use serde::Serialize;

use super::model::{Room, State};
use super::store;
use crate::app::App;
use crate::broadcasts::{self, NewCue, PlaceCueError};
use crate::ids::RoomId;

/// Bytes of an envelope.
const ENVELOPE_BYTES_MAX: usize = 1_024;
const VERSION: u8 = 1;

/// Why a card was not placed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CardError {
    #[error("the room is not live")]
    NotLive,
    #[error("a card has at most {ENVELOPE_BYTES_MAX} bytes")]
    TooLarge,
    #[error(transparent)]
    Cue(#[from] PlaceCueError),
    #[error("numbering the card")]
    Db(#[from] sqlx::Error),
}

/// The keys stand in the order of the contract.
#[derive(Debug, Serialize)]
struct Envelope<'a, T> {
    v: u8,
    room: RoomId,
    seq: i64,
    action: &'a str,
    at_us: i64,
    issued_us: i64,
    ttl_us: i64,
    entry: Option<&'a str>,
    data: &'a T,
}

/// Places a card of action `custom`, `card_lead_ms` ahead so that it reaches every player before
/// its frame. Returns its number.
pub(crate) async fn place_card<T>(app: &App, id: RoomId, data: &T) -> Result<i64, CardError>
where
    T: Serialize + Sync,
{
    let room = store::find(&app.db, id).await?;
    let room = room.filter(|room| room.state == State::Live);
    let room = room.ok_or(CardError::NotLive)?;
    let offset_us = offset_us(app, &room).await?;
    let seq = number(app, id).await?;
    let lead_us = room.card_lead_ms.saturating_mul(1_000);
    let t_us = broadcasts::now_us(app, id).ok_or(CardError::NotLive)? + lead_us;
    let envelope = Envelope {
        v: VERSION,
        room: id,
        seq,
        action: "custom",
        at_us: t_us + offset_us,
        issued_us: app.clock.now().as_micros(),
        ttl_us: 0,
        entry: None,
        data,
    };
    let payload = serde_json::to_vec(&envelope).map_err(|_shape| CardError::TooLarge)?;
    if payload.len() > ENVELOPE_BYTES_MAX {
        return Err(CardError::TooLarge);
    }
    let cue = NewCue {
        id: format!("card-{seq}"),
        class: "card".into(),
        is_listed: false,
        t_us: Some(t_us),
        duration_us: None,
        payload: payload.into(),
    };
    broadcasts::place_cue(app, id, cue).await?;
    Ok(seq)
}

/// What must be added to the T of the running instance to get room time.
async fn offset_us(app: &App, room: &Room) -> Result<i64, CardError> {
    let sending = broadcasts::sending(app, room.id).ok_or(CardError::NotLive)?;
    let offset = store::timeline_offset(&app.db, room.id, &sending.instance).await?;
    offset.ok_or(CardError::NotLive)
}

async fn number(app: &App, id: RoomId) -> sqlx::Result<i64> {
    let mut tx = app.db.begin().await?;
    let seq = store::next_card_seq(&mut tx, id).await?;
    tx.commit().await?;
    Ok(seq)
}
