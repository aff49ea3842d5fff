//! Cards on a room's timeline (commerce.md 9): written in the transaction of what they announce
//! ([`desk`]), then handed to every carrier ([`line`]).
//!
//! Invariants
//! - `seq` is 1, 2, 3 … per room.
//! - The envelope's bytes are written once and go unchanged to every carrier.
//! - What is not committed is told to nobody; what is committed is told once.
//!
//! Not here: what cards fold to ([`super::timeline`]); what viewers are sent (`live`).

mod desk;
mod line;
mod store;

use serde::Serialize;
use serde_json::value::to_raw_value;

pub(crate) use self::desk::{
    AHEAD_US_MAX, By, CardError, Desk, NewCard, PlacedCard, Says, Written,
};
pub(super) use self::desk::{RoomCards, now_of};
pub(crate) use self::line::CardNews;
pub(super) use self::line::Line;
use super::model::{Room, State};
use super::timeline::{Action, Data};
use crate::app::App;
use crate::ids::RoomId;

/// Places a card of action `custom`, `card_lead_ms` ahead so that it reaches every player before
/// its frame. Returns its number.
pub(crate) async fn place_card<T>(app: &App, id: RoomId, data: &T) -> Result<i64, CardError>
where
    T: Serialize + Sync,
{
    let data = to_raw_value(data).map_err(|err| sqlx::Error::Encode(err.into()))?;
    let card = NewCard::of(Action::Custom, None, Data::Custom(data));
    let mut tx = app.db.begin().await?;
    let mut desk = Desk::open(&mut tx, app, id).await?;
    let placed = desk.put(&mut tx, app, By::System, card).await?;
    let written = desk.finish(&mut tx).await?;
    tx.commit().await?;
    written.hand_over(app);
    Ok(placed.seq)
}

/// Looks after the cards of a room that is on air: gives a new instance what is open, hands over
/// what was left behind, writes checkpoints that are due. `true` while a cue waits for its turn.
pub(super) async fn tend(app: &App, room: &Room) -> sqlx::Result<bool> {
    if !matches!(room.state, State::Live | State::Interrupted) {
        return Ok(false);
    }
    let mut reader = app.db.readers().acquire().await?;
    let clock = now_of(&mut reader, app, room).await?;
    drop(reader);
    let line = Line::of(app, room.id);
    if let Some(place) = clock.instance {
        line.adopt(app, place, clock.now_us).await?;
    }
    let mut timeline = line.catch_up(app, clock.now_us).await?;
    while let Some(due) = timeline.due(clock.now_us) {
        let mut tx = app.db.begin().await?;
        store::insert_checkpoint(&mut tx, room.id, &due).await?;
        tx.commit().await?;
        timeline.settle(due.clone());
        line.settle(due);
    }
    Ok(line.tend(app))
}
