//! Accounts, handles, roles in SQL.

use std::str::FromStr;

use sqlx::Executor;

use super::model::Handle;
use super::scopes::Role;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::ids::AccountId;

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

/// Gives a role of the platform, unless the account has it.
pub(super) async fn insert_role(tx: &mut Tx, id: AccountId, role: Role) -> sqlx::Result<()> {
    let sql = "INSERT INTO platform_roles (account_id, role) VALUES ($1, $2) \
               ON CONFLICT DO NOTHING";
    let query = sqlx::query(sql).bind(id.to_string()).bind(role.as_str());
    tx.execute(query).await?;
    Ok(())
}

/// Whether there is an account of this id, in whatever state.
pub(crate) async fn exists(tx: &mut Tx, id: AccountId) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM accounts WHERE id = $1";
    let row = tx
        .fetch_optional(sqlx::query(sql).bind(id.to_string()))
        .await?;
    Ok(row.is_some())
}

/// An id out of the database.
pub(super) fn decode<T>(text: &str) -> sqlx::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|err| sqlx::Error::Decode(Box::new(err)))
}
