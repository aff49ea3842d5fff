//! Card events and their checkpoints in SQL.

use std::sync::Arc;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor, Row};

use super::super::envelope::Event;
use super::super::timeline::{Cards, Checkpoint};
use crate::db::Tx;
use crate::ids::RoomId;

/// Events that one statement reads.
pub(super) const PAGE: i64 = 500;

/// How far ahead a card may be placed.
const AHEAD_US: i64 = 60_000_000;

pub(super) async fn insert(
    tx: &mut Tx,
    room: RoomId,
    event: &Event,
    actor: &str,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO card_events (room_id, seq, action, entry_id, at_us, issued_us, ttl_us, \
               actor, envelope) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(event.seq)
        .bind(event.action.as_str())
        .bind(event.entry.map(|entry| entry.to_string()))
        .bind(event.at_us)
        .bind(event.issued_us)
        .bind(event.ttl_us)
        .bind(actor)
        .bind(event.envelope.to_string());
    tx.execute(query).await?;
    let sql = "UPDATE rooms SET card_seq = $2 WHERE id = $1";
    let query = sqlx::query(sql).bind(room.to_string()).bind(event.seq);
    tx.execute(query).await?;
    Ok(())
}

/// The number of the room's newest card.
pub(super) async fn seq(connection: &mut AnyConnection, room: RoomId) -> sqlx::Result<i64> {
    let query = sqlx::query("SELECT card_seq FROM rooms WHERE id = $1");
    let row = connection.fetch_one(query.bind(room.to_string())).await?;
    row.try_get(0)
}

/// The envelopes behind a number, in their order, at most so many.
pub(super) async fn envelopes_after(
    connection: &mut AnyConnection,
    room: RoomId,
    seq: i64,
    limit: i64,
) -> sqlx::Result<Vec<(i64, String)>> {
    let sql = "SELECT seq, envelope FROM card_events WHERE room_id = $1 AND seq > $2 \
               ORDER BY seq LIMIT $3";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(seq)
        .bind(limit);
    let rows = connection.fetch_all(query).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// All events behind a number.
pub(super) async fn events_after(
    connection: &mut AnyConnection,
    room: RoomId,
    mut seq: i64,
) -> sqlx::Result<Vec<Arc<Event>>> {
    let mut events = Vec::new();
    loop {
        let page = envelopes_after(connection, room, seq, PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(events);
        };
        seq = *last;
        for (_, envelope) in &page {
            events.push(parse(envelope)?);
        }
    }
}

/// The events behind a checkpoint in the order of the fold, up to a time.
pub(super) async fn fold_after(
    connection: &mut AnyConnection,
    room: RoomId,
    checkpoint: &Checkpoint,
    to_us: i64,
) -> sqlx::Result<Vec<Arc<Event>>> {
    let sql = "SELECT envelope FROM card_events WHERE room_id = $1 AND at_us <= $2 \
               AND (at_us > $3 OR (at_us = $3 AND seq > $4)) ORDER BY at_us, seq";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(to_us)
        .bind(checkpoint.at_us)
        .bind(checkpoint.seq);
    let rows = connection.fetch_all(query).await?;
    rows.iter()
        .map(|row| parse(&row.try_get::<String, _>(0)?))
        .collect()
}

/// The events of these numbers.
pub(super) async fn events_of(
    connection: &mut AnyConnection,
    room: RoomId,
    seqs: &[i64],
) -> sqlx::Result<Vec<Arc<Event>>> {
    let mut events = Vec::with_capacity(seqs.len());
    for seq in seqs {
        let found = envelopes_after(connection, room, seq - 1, 1).await?;
        let found = found.iter().filter(|(found, _)| found == seq);
        for (_, envelope) in found {
            events.push(parse(envelope)?);
        }
    }
    Ok(events)
}

/// The highest number up to which every event is in force at a time.
///
/// Cards are numbered in the order they are stamped, and stamped at most a minute ahead: those
/// before one that was in force a minute earlier are all in force.
pub(super) async fn whole_to(
    connection: &mut AnyConnection,
    room: RoomId,
    at_us: i64,
) -> sqlx::Result<i64> {
    let sql = "SELECT seq FROM card_events WHERE room_id = $1 AND at_us <= $2 \
               ORDER BY at_us DESC, seq DESC LIMIT 1";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(at_us.saturating_sub(AHEAD_US));
    let row = connection.fetch_optional(query).await?;
    let from: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
    let sql = "SELECT seq FROM card_events WHERE room_id = $1 AND seq > $2 AND at_us > $3 \
               ORDER BY seq LIMIT 1";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(from)
        .bind(at_us);
    match connection.fetch_optional(query).await? {
        Some(row) => Ok(row.try_get::<i64, _>(0)? - 1),
        None => seq(connection, room).await,
    }
}

/// Writes a checkpoint, unless it is there.
pub(super) async fn insert_checkpoint(
    tx: &mut Tx,
    room: RoomId,
    checkpoint: &Checkpoint,
) -> sqlx::Result<()> {
    let state = serde_json::to_string(&*checkpoint.cards);
    let state = state.map_err(|err| sqlx::Error::Encode(err.into()))?;
    let sql = "INSERT INTO card_checkpoints (room_id, seq, at_us, state) VALUES ($1, $2, $3, $4) \
               ON CONFLICT (room_id, seq) DO NOTHING";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(checkpoint.seq)
        .bind(checkpoint.at_us)
        .bind(state);
    tx.execute(query).await?;
    Ok(())
}

/// The last checkpoint that is whole at a time; the state before the first event if there is none.
pub(super) async fn checkpoint_at(
    connection: &mut AnyConnection,
    room: RoomId,
    at_us: i64,
) -> sqlx::Result<Checkpoint> {
    let sql = "SELECT seq, at_us, state FROM card_checkpoints WHERE room_id = $1 AND at_us <= $2 \
               ORDER BY at_us DESC, seq DESC LIMIT 1";
    let query = sqlx::query(sql).bind(room.to_string()).bind(at_us);
    let row = connection.fetch_optional(query).await?;
    row.as_ref()
        .map_or_else(|| Ok(Checkpoint::default()), read_checkpoint)
}

fn read_checkpoint(row: &AnyRow) -> sqlx::Result<Checkpoint> {
    let state: String = row.try_get(2)?;
    let cards: Cards =
        serde_json::from_str(&state).map_err(|err| sqlx::Error::Decode(err.into()))?;
    Ok(Checkpoint {
        seq: row.try_get(0)?,
        at_us: row.try_get(1)?,
        cards: Arc::new(cards),
    })
}

fn parse(envelope: &str) -> sqlx::Result<Arc<Event>> {
    let event = Event::read(envelope);
    let event = event.map_err(|err| sqlx::Error::Decode(Box::new(err)))?;
    Ok(Arc::new(event))
}
