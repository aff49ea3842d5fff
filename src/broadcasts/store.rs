//! Stream keys and access in SQL.

use sqlx::{Executor, Row};

use super::model::{AddKeyError, KEY_PREFIX, NewPublishKey, VALID_KEYS_MAX, Watch};
use crate::app::{hash, new_secret};
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::{KeyId, RoomId};

/// What is known of a stream key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FoundKey {
    pub(super) id: KeyId,
    pub(super) room: RoomId,
    pub(super) is_revoked: bool,
    pub(super) may_publish: bool,
}

/// Opens a new room to its publishers and to everyone who watches.
pub(crate) async fn open_access(tx: &mut Tx, room: RoomId, now: Timestamp) -> sqlx::Result<()> {
    let sql = "INSERT INTO room_access (room_id, publish, watch, version, created_us, updated_us) \
               VALUES ($1, 1, 'public', 1, $2, $2)";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Whether there is such a room.
pub(super) async fn has_access(db: &Db, room: RoomId) -> sqlx::Result<bool> {
    let query = sqlx::query("SELECT watch FROM room_access WHERE room_id = $1");
    let row = query.bind(room.to_string()).fetch_optional(db.readers());
    Ok(row.await?.is_some())
}

/// No publisher is let in from now on.
pub(crate) async fn close_publishing(
    tx: &mut Tx,
    room: RoomId,
    now: Timestamp,
) -> sqlx::Result<()> {
    let sql = "UPDATE room_access SET publish = 0, version = version + 1, updated_us = $2 \
               WHERE room_id = $1";
    let query = sqlx::query(sql)
        .bind(room.to_string())
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Adds a stream key to a room.
pub(crate) async fn add_key(
    tx: &mut Tx,
    room: RoomId,
    now: Timestamp,
) -> Result<NewPublishKey, AddKeyError> {
    // Locks the room's row, so that two wishes cannot both be the second key.
    let lock = "UPDATE room_access SET version = version + 1 WHERE room_id = $1";
    tx.execute(sqlx::query(lock).bind(room.to_string())).await?;
    let sql = "SELECT COUNT(*) FROM publish_keys WHERE room_id = $1 AND revoked_us IS NULL";
    let query = sqlx::query(sql).bind(room.to_string());
    let valid: i64 = tx.fetch_one(query).await?.try_get(0)?;
    if valid >= VALID_KEYS_MAX {
        return Err(AddKeyError::LimitReached);
    }
    let key = NewPublishKey {
        id: KeyId::new(now),
        secret: new_secret(KEY_PREFIX),
    };
    let sql = "INSERT INTO publish_keys (id, room_id, secret_hash, version, created_us, \
               updated_us) VALUES ($1, $2, $3, 1, $4, $4)";
    let query = sqlx::query(sql)
        .bind(key.id.to_string())
        .bind(room.to_string())
        .bind(hash(&key.secret))
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(key)
}

/// Withdraws a key; `false` if the room has no such valid key.
pub(crate) async fn revoke_key(
    tx: &mut Tx,
    room: RoomId,
    key: KeyId,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let sql = "UPDATE publish_keys SET revoked_us = $3, version = version + 1, updated_us = $3 \
               WHERE id = $1 AND room_id = $2 AND revoked_us IS NULL";
    let query = sqlx::query(sql)
        .bind(key.to_string())
        .bind(room.to_string())
        .bind(now.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

pub(super) async fn find_key(db: &Db, secret: &str) -> sqlx::Result<Option<FoundKey>> {
    let sql = "SELECT k.id, k.room_id, k.revoked_us, a.publish FROM publish_keys k \
               JOIN room_access a ON a.room_id = k.room_id WHERE k.secret_hash = $1";
    let query = sqlx::query(sql).bind(hash(secret));
    let Some(row) = query.fetch_optional(db.readers()).await? else {
        return Ok(None);
    };
    let (id, room): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let decode = |err| sqlx::Error::Decode(Box::new(err));
    Ok(Some(FoundKey {
        id: id.parse().map_err(decode)?,
        room: room.parse().map_err(decode)?,
        is_revoked: row.try_get::<Option<i64>, _>(2)?.is_some(),
        may_publish: row.try_get::<i64, _>(3)? == 1,
    }))
}

/// Who may watch a room; `None` when there is none of this name.
pub(super) async fn watch(db: &Db, room: &str) -> sqlx::Result<Option<Watch>> {
    let query = sqlx::query("SELECT watch FROM room_access WHERE room_id = $1");
    let row = query.bind(room.to_owned()).fetch_optional(db.readers());
    let Some(row) = row.await? else {
        return Ok(None);
    };
    let word: String = row.try_get(0)?;
    Ok(Some(match word.as_str() {
        "public" => Watch::Public,
        "token" => Watch::Token,
        _ => Watch::Closed,
    }))
}

/// Whether there is a room of this name, whatever its state.
pub(super) async fn is_room(db: &Db, room: &str) -> sqlx::Result<bool> {
    let sql = "SELECT room_id FROM room_access WHERE room_id = $1";
    let query = sqlx::query(sql).bind(room.to_owned());
    Ok(query.fetch_optional(db.readers()).await?.is_some())
}

/// Whether this secret publishes into this room now.
pub(crate) async fn has_key(db: &Db, room: RoomId, secret: &str) -> sqlx::Result<bool> {
    let found = find_key(db, secret).await?;
    Ok(found.is_some_and(|key| key.room == room && !key.is_revoked && key.may_publish))
}
