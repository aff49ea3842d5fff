//! Rooms and their timelines in SQL.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor, Row};

use super::model::{Room, State};
use crate::broadcasts::Sending;
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::http::Seek;
use crate::ids::{CreatorId, RoomId};

/// Rooms that one pass of the job looks at.
const ACTIVE_MAX: i64 = 2_000;

const COLUMNS: &str = "SELECT r.id, r.creator_id, c.name, c.handle, r.title, r.state, \
                       r.starts_us, r.auto_start, r.card_lead_ms, r.price_honour_ms, \
                       r.interrupt_grace_s, r.live_us, r.interrupted_us, r.ended_us, r.version, \
                       r.created_us, r.updated_us FROM rooms r \
                       JOIN creators c ON c.id = r.creator_id WHERE ";

/// Which rooms a list shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) creator: Option<CreatorId>,
    /// Empty: all.
    pub(super) states: Vec<State>,
    pub(super) created_from: Option<Timestamp>,
    pub(super) created_before: Option<Timestamp>,
}

pub(super) async fn insert(tx: &mut Tx, room: &Room) -> sqlx::Result<()> {
    let sql = "INSERT INTO rooms (id, creator_id, title, state, starts_us, auto_start, \
               interrupt_grace_s, card_seq, card_lead_ms, price_honour_ms, version, created_us, \
               updated_us) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10, $11, $12)";
    let query = sqlx::query(sql)
        .bind(room.id.to_string())
        .bind(room.creator.to_string())
        .bind(&room.title)
        .bind(room.state.as_str())
        .bind(room.starts_at.map(Timestamp::as_micros))
        .bind(i64::from(room.auto_start))
        .bind(room.interrupt_grace_s)
        .bind(room.card_lead_ms)
        .bind(room.price_honour_ms)
        .bind(room.version)
        .bind(room.created_at.as_micros())
        .bind(room.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Writes what may change of a room.
pub(super) async fn update(tx: &mut Tx, room: &Room) -> sqlx::Result<()> {
    let sql = "UPDATE rooms SET title = $2, starts_us = $3, auto_start = $4, card_lead_ms = $5, \
               price_honour_ms = $6, interrupt_grace_s = $7, version = $8, updated_us = $9 \
               WHERE id = $1";
    let query = sqlx::query(sql)
        .bind(room.id.to_string())
        .bind(&room.title)
        .bind(room.starts_at.map(Timestamp::as_micros))
        .bind(i64::from(room.auto_start))
        .bind(room.card_lead_ms)
        .bind(room.price_honour_ms)
        .bind(room.interrupt_grace_s)
        .bind(room.version)
        .bind(room.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Announced rooms of a creator. Locks the creator, so that two wishes cannot both count.
pub(super) async fn count_scheduled(tx: &mut Tx, creator: CreatorId) -> sqlx::Result<i64> {
    let lock = "UPDATE creators SET version = version WHERE id = $1";
    tx.execute(sqlx::query(lock).bind(creator.to_string()))
        .await?;
    let sql = "SELECT COUNT(*) FROM rooms WHERE creator_id = $1 AND state = 'scheduled'";
    let query = sqlx::query(sql).bind(creator.to_string());
    tx.fetch_one(query).await?.try_get(0)
}

pub(super) async fn find(db: &Db, id: RoomId) -> sqlx::Result<Option<Room>> {
    let sql = format!("{COLUMNS} r.id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = query.fetch_optional(db.readers()).await?;
    row.as_ref().map(read).transpose()
}

/// The room, as this connection sees it.
pub(super) async fn find_in(
    connection: &mut AnyConnection,
    id: RoomId,
) -> sqlx::Result<Option<Room>> {
    let sql = format!("{COLUMNS} r.id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = connection.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// The room, read inside a transaction and locked in it.
pub(super) async fn lock(tx: &mut Tx, id: RoomId) -> sqlx::Result<Option<Room>> {
    let lock = "UPDATE rooms SET version = version WHERE id = $1";
    tx.execute(sqlx::query(lock).bind(id.to_string())).await?;
    let sql = format!("{COLUMNS} r.id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// Rooms that are not over, the longest untouched last.
pub(super) async fn active(db: &Db) -> sqlx::Result<Vec<Room>> {
    let sql = format!(
        "{COLUMNS} r.state IN ('scheduled', 'rehearsal', 'live', 'interrupted') \
         ORDER BY r.updated_us DESC LIMIT $1"
    );
    let query = sqlx::query(AssertSqlSafe(sql)).bind(ACTIVE_MAX);
    let rows = query.fetch_all(db.readers()).await?;
    rows.iter().map(read).collect()
}

/// One more than `limit` rooms, in the order of the walk: newest first, or oldest first backward.
pub(super) async fn list(
    db: &Db,
    filter: &Filter,
    seek: &Seek<RoomId>,
    limit: u32,
) -> sqlx::Result<Vec<Room>> {
    let (from, order) = match seek {
        Seek::First => (None, "r.id < $11 OR $11 IS NULL) ORDER BY r.id DESC"),
        Seek::After(id) => (Some(id), "r.id < $11) ORDER BY r.id DESC"),
        Seek::Before(id) => (Some(id), "r.id > $11) ORDER BY r.id"),
    };
    let sql = format!(
        "{COLUMNS} ($1 IS NULL OR r.creator_id = $1) AND ($2 = 0 OR r.state IN ($3, $4, $5, $6, \
         $7, $8)) AND ($9 IS NULL OR r.created_us >= $9) AND ($10 IS NULL OR r.created_us < $10) \
         AND ({order} LIMIT $12"
    );
    let mut query = sqlx::query(AssertSqlSafe(sql))
        .bind(filter.creator.map(|id| id.to_string()))
        .bind(i64::from(!filter.states.is_empty()));
    for place in 0..State::ALL.len() {
        query = query.bind(filter.states.get(place).map(|state| state.as_str()));
    }
    let rows = query
        .bind(filter.created_from.map(Timestamp::as_micros))
        .bind(filter.created_before.map(Timestamp::as_micros))
        .bind(from.map(ToString::to_string))
        .bind(i64::from(limit) + 1)
        .fetch_all(db.readers())
        .await?;
    rows.iter().map(read).collect()
}

/// `scheduled -> rehearsal`
pub(super) async fn set_rehearsal(tx: &mut Tx, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let sql = "UPDATE rooms SET state = 'rehearsal', version = version + 1, updated_us = $2 \
               WHERE id = $1 AND state = 'scheduled'";
    moved(tx, sql, id, now).await
}

/// `scheduled, rehearsal -> live`
pub(super) async fn set_live(tx: &mut Tx, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let sql = "UPDATE rooms SET state = 'live', live_us = $2, version = version + 1, \
               updated_us = $2 WHERE id = $1 AND state IN ('scheduled', 'rehearsal')";
    moved(tx, sql, id, now).await
}

/// `live -> interrupted`
pub(super) async fn set_interrupted(tx: &mut Tx, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let sql = "UPDATE rooms SET state = 'interrupted', interrupted_us = $2, \
               version = version + 1, updated_us = $2 WHERE id = $1 AND state = 'live'";
    moved(tx, sql, id, now).await
}

/// `interrupted -> live`
pub(super) async fn set_resumed(tx: &mut Tx, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let sql = "UPDATE rooms SET state = 'live', interrupted_us = NULL, version = version + 1, \
               updated_us = $2 WHERE id = $1 AND state = 'interrupted'";
    moved(tx, sql, id, now).await
}

/// `live, interrupted -> ended`
pub(super) async fn set_ended(tx: &mut Tx, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let sql = "UPDATE rooms SET state = 'ended', ended_us = $2, version = version + 1, \
               updated_us = $2 WHERE id = $1 AND state IN ('live', 'interrupted')";
    moved(tx, sql, id, now).await
}

/// `scheduled, rehearsal -> cancelled`
pub(super) async fn set_cancelled(tx: &mut Tx, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let sql = "UPDATE rooms SET state = 'cancelled', ended_us = $2, version = version + 1, \
               updated_us = $2 WHERE id = $1 AND state IN ('scheduled', 'rehearsal')";
    moved(tx, sql, id, now).await
}

async fn moved(tx: &mut Tx, sql: &'static str, id: RoomId, now: Timestamp) -> sqlx::Result<bool> {
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// What to add to the T of an instance to get room time.
pub(super) async fn timeline_offset(
    db: &Db,
    id: RoomId,
    instance: &str,
) -> sqlx::Result<Option<i64>> {
    let sql = "SELECT offset_us FROM room_timelines WHERE room_id = $1 AND instance = $2";
    let query = sqlx::query(sql).bind(id.to_string()).bind(instance);
    let row = query.fetch_optional(db.readers()).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Whether an instance has its place on the room's timeline.
pub(super) async fn has_timeline(db: &Db, id: RoomId, instance: &str) -> sqlx::Result<bool> {
    Ok(timeline_offset(db, id, instance).await?.is_some())
}

/// Gives an instance its place: the first begins at 0, each later one where wall time is, and
/// never before the end of the former, or before room time was seen there.
pub(super) async fn insert_timeline(
    tx: &mut Tx,
    id: RoomId,
    sending: &Sending,
    not_before_us: i64,
) -> sqlx::Result<()> {
    let sql = "SELECT MIN(first_us - offset_us), MAX(COALESCE(last_us, first_us) - first_us \
               + offset_us) FROM room_timelines WHERE room_id = $1";
    let query = sqlx::query(sql).bind(id.to_string());
    let row = tx.fetch_one(query).await?;
    let (epoch_us, end_us): (Option<i64>, Option<i64>) = (row.try_get(0)?, row.try_get(1)?);
    let first_us = sending.first_at.as_micros();
    let offset_us = match (epoch_us, end_us) {
        (Some(epoch), Some(end)) => {
            let passed_us = first_us.saturating_sub(epoch);
            passed_us.max(end).max(not_before_us)
        }
        _ => 0,
    };
    let sql = "INSERT INTO room_timelines (room_id, instance, offset_us, first_us) \
               VALUES ($1, $2, $3, $4) \
               ON CONFLICT (room_id, instance) DO UPDATE SET last_us = NULL";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(&sending.instance)
        .bind(offset_us)
        .bind(first_us);
    tx.execute(query).await?;
    Ok(())
}

/// Ends the running instance's place at a room time.
pub(super) async fn close_timeline_at(tx: &mut Tx, id: RoomId, at_us: i64) -> sqlx::Result<()> {
    let sql = "UPDATE room_timelines SET last_us = first_us - offset_us + $2 \
               WHERE room_id = $1 AND last_us IS NULL";
    let query = sqlx::query(sql).bind(id.to_string()).bind(at_us);
    tx.execute(query).await?;
    Ok(())
}

/// Ends the place of an instance that is no more.
pub(super) async fn close_timeline(tx: &mut Tx, id: RoomId, at: Timestamp) -> sqlx::Result<()> {
    let sql = "UPDATE room_timelines SET last_us = $2 WHERE room_id = $1 AND last_us IS NULL";
    let query = sqlx::query(sql).bind(id.to_string()).bind(at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

fn read(row: &AnyRow) -> sqlx::Result<Room> {
    let (id, creator, state): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(5)?);
    let decode = |err| sqlx::Error::Decode(Box::new(err));
    let time = |column| -> sqlx::Result<Option<Timestamp>> {
        let us: Option<i64> = row.try_get(column)?;
        Ok(us.map(Timestamp::from_micros))
    };
    Ok(Room {
        id: id.parse().map_err(decode)?,
        creator: creator.parse().map_err(decode)?,
        creator_name: row.try_get(2)?,
        creator_handle: row.try_get(3)?,
        title: row.try_get(4)?,
        state: State::parse(&state).ok_or_else(|| sqlx::Error::Decode("state".into()))?,
        starts_at: time(6)?,
        auto_start: row.try_get::<i64, _>(7)? == 1,
        card_lead_ms: row.try_get(8)?,
        price_honour_ms: row.try_get(9)?,
        interrupt_grace_s: row.try_get(10)?,
        live_at: time(11)?,
        interrupted_at: time(12)?,
        ended_at: time(13)?,
        version: row.try_get(14)?,
        created_at: Timestamp::from_micros(row.try_get(15)?),
        updated_at: Timestamp::from_micros(row.try_get(16)?),
    })
}
