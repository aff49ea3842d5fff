//! Sessions in SQL: logins that are open.
//!
//! Invariants
//! - A token is 32 random bytes; its SHA-256 is stored, and it is shown once.
//! - A session that nobody used for 30 days, or that is 180 days old, is found by nobody.

use std::time::Duration;

use sqlx::{Executor, Row};

use super::keys::role;
use super::model::State;
use super::scopes::Role;
use super::store::decode;
use crate::clock::Timestamp;
use crate::db::Db;
use crate::ids::{AccountId, SessionId};

/// What a token begins with.
pub(super) const PREFIX: &str = "st_";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const IDLE_MAX: Duration = DAY.saturating_mul(30);

/// A session that was recognised.
#[derive(Debug)]
pub(super) struct FoundSession {
    pub(super) id: SessionId,
    pub(super) account: AccountId,
    pub(super) state: State,
    pub(super) roles: Vec<Role>,
    pub(super) last_seen_us: i64,
}

/// The session of this token, if it is open and its account is there.
pub(super) async fn find(
    db: &Db,
    token: &str,
    now: Timestamp,
) -> sqlx::Result<Option<FoundSession>> {
    let sql = "SELECT s.id, s.account_id, s.last_seen_us, a.state, r.role FROM sessions s \
               JOIN accounts a ON a.id = s.account_id \
               LEFT JOIN platform_roles r ON r.account_id = a.id \
               WHERE s.token_hash = $1 AND s.expires_us > $2 AND s.last_seen_us > $3 \
               AND a.state IN ('active', 'limited', 'suspended')";
    let query = sqlx::query(sql)
        .bind(crate::app::hash(token))
        .bind(now.as_micros())
        .bind(now.before(IDLE_MAX).as_micros());
    let rows = query.fetch_all(db.readers()).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (id, account, state): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
    let roles: Vec<_> = rows
        .iter()
        .map(|row| role(row, 4))
        .collect::<sqlx::Result<_>>()?;
    Ok(Some(FoundSession {
        id: decode(&id)?,
        account: decode(&account)?,
        state: State::decode(&state)?,
        roles: roles.into_iter().flatten().collect(),
        last_seen_us: row.try_get(2)?,
    }))
}

pub(super) async fn set_seen(db: &Db, id: SessionId, now: Timestamp) -> sqlx::Result<()> {
    let sql = "UPDATE sessions SET last_seen_us = $2 WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    let mut tx = db.begin().await?;
    tx.execute(query).await?;
    tx.commit().await
}
