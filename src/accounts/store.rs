//! Accounts, handles, keys, roles in SQL.

use sqlx::{Executor, Row};

use super::model::{Handle, Scope};
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::{AccountId, KeyId};

/// A key before it is stored.
#[derive(Debug)]
pub(super) struct NewKey<'a> {
    pub(super) id: KeyId,
    pub(super) owner: AccountId,
    pub(super) name: &'a str,
    pub(super) secret: &'a str,
    pub(super) scopes: &'a [&'a str],
}

/// A key that was recognised.
#[derive(Debug)]
pub(super) struct FoundKey {
    pub(super) id: KeyId,
    pub(super) owner: AccountId,
    pub(super) scopes: Vec<Scope>,
    pub(super) last_used_us: Option<i64>,
}

pub(super) async fn insert_account(
    tx: &mut Tx,
    id: AccountId,
    handle: &Handle,
    now: Timestamp,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO accounts (id, handle, display_name, bio, locale, tz, state, \
               items_published, removals_30d, unread, version, created_us, updated_us) \
               VALUES ($1, $2, $2, '', 'en', 'UTC', 'active', 0, 0, 0, 1, $3, $3)";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(handle.as_str())
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Takes a handle for an account or creator; `false` if one that looks alike is taken.
pub(super) async fn insert_handle(
    tx: &mut Tx,
    handle: &Handle,
    owner_id: &str,
) -> sqlx::Result<bool> {
    let sql = "INSERT INTO handles (skeleton, handle, owner_id) VALUES ($1, $2, $3) \
               ON CONFLICT (skeleton) DO NOTHING";
    let query = sqlx::query(sql)
        .bind(handle.skeleton())
        .bind(handle.as_str())
        .bind(owner_id);
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

pub(super) async fn insert_operator_role(tx: &mut Tx, id: AccountId) -> sqlx::Result<()> {
    let sql = "INSERT INTO platform_roles (account_id, role) VALUES ($1, 'operator')";
    tx.execute(sqlx::query(sql).bind(id.to_string())).await?;
    Ok(())
}

/// Whether an account is one of the platform's own staff.
pub(crate) async fn is_operator(db: &Db, id: AccountId) -> sqlx::Result<bool> {
    let sql = "SELECT account_id FROM platform_roles WHERE account_id = $1 AND role = 'operator'";
    let query = sqlx::query(sql).bind(id.to_string());
    Ok(query.fetch_optional(db.readers()).await?.is_some())
}

/// Whether there is an account of this id, in whatever state.
pub(crate) async fn exists(tx: &mut Tx, id: AccountId) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM accounts WHERE id = $1";
    let row = tx
        .fetch_optional(sqlx::query(sql).bind(id.to_string()))
        .await?;
    Ok(row.is_some())
}

/// Stores a key of the platform by its hash.
pub(super) async fn insert_key(tx: &mut Tx, key: &NewKey<'_>, now: Timestamp) -> sqlx::Result<()> {
    let last4 = key.secret.get(key.secret.len() - 4..).unwrap_or_default();
    let sql = "INSERT INTO api_keys (id, owner_kind, owner_id, name, secret_hash, prefix, last4, \
               scopes, version, created_us, updated_us) \
               VALUES ($1, 'platform', $2, $3, $4, 'sk_', $5, $6, 1, $7, $7)";
    let query = sqlx::query(sql)
        .bind(key.id.to_string())
        .bind(key.owner.to_string())
        .bind(key.name)
        .bind(crate::app::hash(key.secret))
        .bind(last4)
        .bind(serde_json::json!(key.scopes).to_string())
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// The key of this secret, if it is valid and its owner is active.
pub(super) async fn find_key(
    db: &Db,
    secret: &str,
    now: Timestamp,
) -> sqlx::Result<Option<FoundKey>> {
    let sql = "SELECT k.id, k.owner_id, k.scopes, k.last_used_us FROM api_keys k \
               JOIN accounts a ON a.id = k.owner_id WHERE k.secret_hash = $1 \
               AND k.owner_kind = 'platform' AND a.state = 'active' AND k.revoked_us IS NULL \
               AND (k.expires_us IS NULL OR k.expires_us > $2)";
    let query = sqlx::query(sql)
        .bind(crate::app::hash(secret))
        .bind(now.as_micros());
    let Some(row) = query.fetch_optional(db.readers()).await? else {
        return Ok(None);
    };
    let (id, owner, scopes): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let decode = |err| sqlx::Error::Decode(Box::new(err));
    let names: Vec<String> =
        serde_json::from_str(&scopes).map_err(|err| sqlx::Error::Decode(err.into()))?;
    Ok(Some(FoundKey {
        id: id.parse().map_err(decode)?,
        owner: owner.parse().map_err(decode)?,
        scopes: names.iter().filter_map(|name| Scope::parse(name)).collect(),
        last_used_us: row.try_get(3)?,
    }))
}

/// Whether this secret is a valid key of the platform.
pub(crate) async fn key_is_valid(db: &Db, secret: &str, now: Timestamp) -> sqlx::Result<bool> {
    Ok(find_key(db, secret, now).await?.is_some())
}

pub(super) async fn set_key_used(db: &Db, id: KeyId, now: Timestamp) -> sqlx::Result<()> {
    let sql = "UPDATE api_keys SET last_used_us = $2 WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    let mut tx = db.begin().await?;
    tx.execute(query).await?;
    tx.commit().await
}
