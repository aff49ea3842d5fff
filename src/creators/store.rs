//! Creators and operators in SQL.

use std::collections::HashSet;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor, Row};

use super::model::{Creator, Kind, Operator, Standing};
use super::rights::{Bits, Preset};
use crate::accounts::{self, folded};
use crate::clock::Timestamp;
use crate::db::{Db, Tx, parsed, select_in};
use crate::ids::{AccountId, CreatorId, InviteId};

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
        .bind(Bits::ALL.as_number())
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// How many creators an account owns. Locks the account, so that two wishes cannot both count.
pub(super) async fn count_owned(tx: &mut Tx, account: AccountId) -> sqlx::Result<i64> {
    accounts::lock(tx, account).await?;
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

/// The active creator of this id, read inside a transaction and locked in it.
pub(super) async fn lock(tx: &mut Tx, id: CreatorId) -> sqlx::Result<Option<Creator>> {
    let lock = "UPDATE creators SET version = version WHERE id = $1";
    tx.execute(sqlx::query(lock).bind(id.to_string())).await?;
    let sql = format!("{COLUMNS} state = 'active' AND id = $1");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// Writes what can be changed of a page.
pub(super) async fn update(tx: &mut Tx, creator: &Creator) -> sqlx::Result<()> {
    let sql = "UPDATE creators SET name = $2, bio = $3, category = $4, version = $5, \
               updated_us = $6 WHERE id = $1";
    let query = sqlx::query(sql)
        .bind(creator.id.to_string())
        .bind(&creator.name)
        .bind(&creator.bio)
        .bind(&creator.category)
        .bind(creator.version)
        .bind(creator.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
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
        id: accounts::decode(&id)?,
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

const OPERATORS: &str = "SELECT o.creator_id, o.account_id, a.handle, a.display_name, o.preset, \
                         o.bits, o.state, o.expires_us, o.invited_by, o.invite_id, \
                         o.invite_until_us, o.version, o.created_us, o.updated_us \
                         FROM operators o JOIN accounts a ON a.id = o.account_id WHERE ";

/// Those who operate a creator or are asked to, in the order of their ids.
pub(super) async fn operators(
    db: &Db,
    creator: CreatorId,
    now: Timestamp,
) -> sqlx::Result<Vec<Operator>> {
    let sql = format!(
        "{OPERATORS} o.creator_id = $1 AND o.state IN ('pending', 'active') ORDER BY o.account_id"
    );
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(creator.to_string());
    let rows = query.fetch_all(db.readers()).await?;
    let all: Vec<_> = rows
        .iter()
        .map(read_operator)
        .collect::<sqlx::Result<_>>()?;
    let is_there = |it: &Operator| it.standing(now) != Standing::Expired;
    Ok(all.into_iter().filter(is_there).collect())
}

/// An operator of a creator, in whatever state. Lock the creator first.
pub(super) async fn operator(
    tx: &mut Tx,
    creator: CreatorId,
    account: AccountId,
) -> sqlx::Result<Option<Operator>> {
    let sql = format!("{OPERATORS} o.creator_id = $1 AND o.account_id = $2");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(creator.to_string())
        .bind(account.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read_operator).transpose()
}

/// The operator who was asked by this invitation.
pub(super) async fn invited(tx: &mut Tx, invite: InviteId) -> sqlx::Result<Option<Operator>> {
    let sql = format!("{OPERATORS} o.invite_id = $1");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(invite.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read_operator).transpose()
}

/// Writes an operator, in the place of an earlier row of the same account.
pub(super) async fn put_operator(tx: &mut Tx, operator: &Operator) -> sqlx::Result<()> {
    let sql = "INSERT INTO operators (creator_id, account_id, preset, bits, state, expires_us, \
               invited_by, invite_id, invite_until_us, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
               ON CONFLICT (creator_id, account_id) DO UPDATE SET preset = $3, bits = $4, \
               state = $5, expires_us = $6, invited_by = $7, invite_id = $8, \
               invite_until_us = $9, version = $10, updated_us = $12";
    let query = sqlx::query(sql)
        .bind(operator.creator.to_string())
        .bind(operator.account.to_string())
        .bind(operator.preset.as_str())
        .bind(operator.bits.as_number())
        .bind(operator.state.as_str())
        .bind(operator.expires_at.map(Timestamp::as_micros))
        .bind(operator.invited_by.to_string())
        .bind(operator.invite.map(|id| id.to_string()))
        .bind(operator.invite_until.map(Timestamp::as_micros))
        .bind(operator.version)
        .bind(operator.created_at.as_micros())
        .bind(operator.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// How many operate a creator or are asked to. Lock the creator first.
pub(super) async fn count_operators(
    tx: &mut Tx,
    creator: CreatorId,
    now: Timestamp,
) -> sqlx::Result<i64> {
    let sql = "SELECT COUNT(*) FROM operators WHERE creator_id = $1 \
               AND (expires_us IS NULL OR expires_us > $2) \
               AND (state = 'active' OR (state = 'pending' AND invite_until_us > $2))";
    let query = sqlx::query(sql)
        .bind(creator.to_string())
        .bind(now.as_micros());
    tx.fetch_one(query).await?.try_get(0)
}

/// How many creators an account operates. Locks the account, so that two wishes cannot both count.
pub(super) async fn count_operated(
    tx: &mut Tx,
    account: AccountId,
    now: Timestamp,
) -> sqlx::Result<i64> {
    accounts::lock(tx, account).await?;
    let sql = "SELECT COUNT(*) FROM operators WHERE account_id = $1 AND state = 'active' \
               AND (expires_us IS NULL OR expires_us > $2)";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(now.as_micros());
    tx.fetch_one(query).await?.try_get(0)
}

/// Owners for good beside this account. Lock the creator first.
pub(super) async fn count_other_owners(
    tx: &mut Tx,
    creator: CreatorId,
    account: AccountId,
) -> sqlx::Result<i64> {
    let sql = "SELECT COUNT(*) FROM operators WHERE creator_id = $1 AND account_id <> $2 \
               AND state = 'active' AND preset = 'owner' AND expires_us IS NULL";
    let query = sqlx::query(sql)
        .bind(creator.to_string())
        .bind(account.to_string());
    tx.fetch_one(query).await?.try_get(0)
}

fn read_operator(row: &AnyRow) -> sqlx::Result<Operator> {
    let text = |column| -> sqlx::Result<String> { row.try_get(column) };
    let time = |column| -> sqlx::Result<Option<Timestamp>> {
        let us: Option<i64> = row.try_get(column)?;
        Ok(us.map(Timestamp::from_micros))
    };
    let invite: Option<String> = row.try_get(9)?;
    let preset = Preset::parse(&text(4)?);
    let state = Standing::parse(&text(6)?);
    Ok(Operator {
        creator: accounts::decode(&text(0)?)?,
        account: accounts::decode(&text(1)?)?,
        handle: text(2)?,
        display_name: text(3)?,
        preset: preset.ok_or_else(|| sqlx::Error::Decode("preset".into()))?,
        bits: Bits::of_stored(row.try_get(5)?),
        state: state.ok_or_else(|| sqlx::Error::Decode("state".into()))?,
        expires_at: time(7)?,
        invited_by: accounts::decode(&text(8)?)?,
        invite: invite.as_deref().map(accounts::decode).transpose()?,
        invite_until: time(10)?,
        version: row.try_get(11)?,
        created_at: Timestamp::from_micros(row.try_get(12)?),
        updated_at: Timestamp::from_micros(row.try_get(13)?),
    })
}

/// Which creators each of these accounts operates.
///
/// # Errors
/// The database's error.
pub(crate) async fn operated_by(
    connection: &mut AnyConnection,
    accounts: impl IntoIterator<Item = AccountId>,
) -> sqlx::Result<HashSet<(AccountId, CreatorId)>> {
    let select = "SELECT account_id, creator_id FROM operators \
                  WHERE state = 'active' AND account_id IN";
    let mut found = HashSet::new();
    for row in select_in(connection, select, "", accounts).await? {
        found.insert((parsed(&row, 0)?, parsed(&row, 1)?));
    }
    Ok(found)
}
