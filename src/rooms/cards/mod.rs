//! Cards on a room's timeline (commerce.md 9): written in the transaction of what they announce
//! ([`desk`]), then handed to every carrier ([`mod@line`]).
//!
//! Invariants
//! - `seq` is 1, 2, 3 … per room.
//! - The envelope's bytes are written once and go unchanged to every carrier.
//! - What is not committed is told to nobody; what is committed is told once.
//!
//! Not here: what cards fold to ([`super::timeline`]); what viewers are sent (`live`).

mod command;
mod desk;
mod line;
mod routes;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::to_raw_value;
use tokio::sync::broadcast;

use self::command::{CommandError, selling};
pub(crate) use self::desk::{By, CardError, Desk, NewCard, Written};
#[cfg(test)]
pub(super) use self::desk::{PlacedCard, Says};
pub(super) use self::desk::{RoomCards, now_of};
pub(crate) use self::line::CardNews;
pub(super) use self::line::Line;
pub(super) use self::routes::{routes, runs_cards};
pub(super) use self::snapshot::{SnapshotView, When, snapshot};
use super::envelope::{Action, Data, Event, StockData};
use super::goods;
use super::model::{Room, State};
use super::store as rooms;
use super::timeline::Checkpoint;
use crate::accounts::Principal;
use crate::app::App;
use crate::http::ApiError;
use crate::ids::{RoomId, VariantId};

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

/// The events of a room that take effect after a room time, in the order of the fold.
pub(super) async fn events_behind(
    app: &App,
    id: RoomId,
    at_us: i64,
) -> sqlx::Result<Vec<Arc<Event>>> {
    let before = Checkpoint {
        at_us,
        seq: i64::MAX,
        ..Checkpoint::default()
    };
    let mut reader = app.db.readers().acquire().await?;
    store::fold_after(&mut reader, id, &before, i64::MAX).await
}

/// Says in every room on air that a variant is sold out, or is there again. A room that says so
/// already says nothing more.
pub(super) async fn tell_stock(
    app: &App,
    variant: VariantId,
    action: Action,
) -> Result<(), CardError> {
    let mut reader = app.db.readers().acquire().await?;
    let rooms = goods::rooms_selling(&mut reader, variant).await?;
    drop(reader);
    for id in rooms {
        let mut tx = app.db.begin().await?;
        let mut desk = match Desk::open(&mut tx, app, id).await {
            Ok(desk) => desk,
            // It ended this moment.
            Err(CardError::Ended | CardError::NotLive(_)) => continue,
            Err(err) => return Err(err),
        };
        let any = None;
        let entry = match selling(&mut tx, &desk.cards().room, (variant, any)).await {
            Ok((entry, _)) => entry.id,
            // The shelf sells other variants of the product.
            Err(CommandError::Db(err)) => return Err(err.into()),
            Err(_not_sold) => continue,
        };
        let deal = None;
        let data = Data::Stock(StockData { variant, deal });
        let card = NewCard::of(action, Some(entry), data);
        desk.put(&mut tx, app, By::System, card).await?;
        let written = desk.finish(&mut tx).await?;
        tx.commit().await?;
        written.hand_over(app);
    }
    Ok(())
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

/// Somebody who hears a room's cards.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) news: broadcast::Receiver<CardNews>,
    /// The number of the newest card.
    pub(crate) newest: i64,
    /// Runs the cards of the room, and so hears what is rehearsed.
    pub(crate) is_inside: bool,
}

/// Everything that is handed over in a room from now on.
///
/// # Errors
/// 404 when there is no such room.
pub(crate) async fn listen(
    app: &App,
    id: RoomId,
    who: Option<&Principal>,
) -> Result<Listener, ApiError> {
    let room = rooms::find(&app.db, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    let news = Line::of(app, id).listen();
    // Read now, so that from here on nothing is handed over unheard.
    RoomCards::prepare(app, id).await?;
    let mut reader = app.db.readers().acquire().await?;
    let newest = store::seq(&mut reader, id).await?;
    drop(reader);
    let is_inside = runs_cards(app, who, &room).await;
    Ok(Listener {
        news,
        newest,
        is_inside,
    })
}

/// The cards of a room now: the number up to which they are in force, and the snapshot as text.
///
/// # Errors
/// 404 when there is no such room.
pub(crate) async fn now_text(
    app: &App,
    id: RoomId,
    is_inside: bool,
) -> Result<(i64, String), ApiError> {
    let room = rooms::find(&app.db, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    let view = snapshot(app, room, When::Now, is_inside).await?;
    let text = serde_json::to_string(&view).map_err(|err| ApiError::internal(&err))?;
    Ok((view.seq, text))
}

/// The envelopes of a room's cards behind a number, in their order, a page at most.
///
/// # Errors
/// The database's error.
pub(crate) async fn envelopes_after(
    app: &App,
    id: RoomId,
    seq: i64,
) -> sqlx::Result<Vec<(i64, String)>> {
    let mut reader = app.db.readers().acquire().await?;
    store::envelopes_after(&mut reader, id, seq, store::PAGE).await
}
