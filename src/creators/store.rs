//! Creators and operators in SQL.

use sqlx::any::AnyRow;
use sqlx::{Executor, Row};

use super::model::{ALL_BITS, Creator, Kind};
use crate::accounts::folded;
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::{AccountId, CreatorId};

pub(super) async fn insert(tx: &mut Tx, creator: &Creator) -> sqlx::Result<()> {
    let sql = "INSERT INTO creators (id, handle, kind, name, bio, category, verification, state, \
               followers, posts, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, 'none', 'active', 0, 0, $7, $8, $9)";
    let query = sqlx::query(sql)
        .bind(creator.id.to_string())
        .bind(&creator.handle)
        .bind(creator.kind.as_str())
        .bind(&creator.name)
        .bind(&creator.bio)
        .bind(&creator.category)
        .bind(creator.version)
        .bind(creator.created_at.as_micros())
        .bind(creator.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Makes an account the owner of a creator.
pub(super) async fn insert_owner(
    tx: &mut Tx,
    creator: CreatorId,
    account: AccountId,
    now: Timestamp,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO operators (creator_id, account_id, preset, bits, state, invited_by, \
               version, created_us, updated_us) \
               VALUES ($1, $2, 'owner', $3, 'active', $2, 1, $4, $4)";
    let query = sqlx::query(sql)
        .bind(creator.to_string())
        .bind(account.to_string())
        .bind(ALL_BITS)
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// How many creators an account owns. Locks the account, so that two wishes cannot both count.
pub(super) async fn count_owned(tx: &mut Tx, account: AccountId) -> sqlx::Result<i64> {
    let lock = "UPDATE accounts SET version = version WHERE id = $1";
    tx.execute(sqlx::query(lock).bind(account.to_string()))
        .await?;
    let sql = "SELECT COUNT(*) FROM operators WHERE account_id = $1 AND state = 'active' \
               AND preset = 'owner'";
    let query = sqlx::query(sql).bind(account.to_string());
    tx.fetch_one(query).await?.try_get(0)
}

const COLUMNS: &str = "SELECT id, handle, kind, name, bio, category, version, created_us, \
                       updated_us FROM creators WHERE ";

/// The creator of this id or handle.
pub(super) async fn find(db: &Db, id_or_handle: &str) -> sqlx::Result<Option<Creator>> {
    let sql = format!("{COLUMNS} state = 'active' AND (id = $1 OR handle = $2)");
    let row = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id_or_handle)
        .bind(folded(id_or_handle))
        .fetch_optional(db.readers())
        .await?;
    row.as_ref().map(read).transpose()
}

/// Whether an active creator has this id.
pub(crate) async fn exists(tx: &mut Tx, id: CreatorId) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM creators WHERE id = $1 AND state = 'active'";
    let row = tx
        .fetch_optional(sqlx::query(sql).bind(id.to_string()))
        .await?;
    Ok(row.is_some())
}

fn read(row: &AnyRow) -> sqlx::Result<Creator> {
    let (id, kind): (String, String) = (row.try_get(0)?, row.try_get(2)?);
    let kind = Kind::parse(&kind).ok_or_else(|| sqlx::Error::Decode("kind".into()))?;
    Ok(Creator {
        id: id
            .parse()
            .map_err(|err| sqlx::Error::Decode(Box::new(err)))?,
        handle: row.try_get(1)?,
        kind,
        name: row.try_get(3)?,
        bio: row.try_get(4)?,
        category: row.try_get(5)?,
        version: row.try_get(6)?,
        created_at: Timestamp::from_micros(row.try_get(7)?),
        updated_at: Timestamp::from_micros(row.try_get(8)?),
    })
}
