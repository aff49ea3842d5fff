//! Sessions in SQL: logins that are open.
//!
//! Invariants
//! - A token is 32 random bytes; its SHA-256 is stored, and it is shown once.
//! - A session that nobody used for 30 days, or that is 180 days old, is found by nobody.
//! - An account has at most 20: the oldest goes.

use std::net::IpAddr;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{Executor, Row};

use super::keys::role;
use super::model::State;
use super::scopes::Role;
use super::store::{self, decode};
use crate::app::new_secret;
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::{AccountId, SessionId};

/// What a token begins with.
pub(super) const PREFIX: &str = "st_";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const IDLE_MAX: Duration = DAY.saturating_mul(30);
pub(super) const AGE_MAX: Duration = DAY.saturating_mul(180);
const SESSIONS_MAX: usize = 20;
/// Characters kept of what a browser says it is.
const AGENT_CHARS_MAX: usize = 200;

/// From where somebody logs in, as far as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    ip_prefix: String,
    agent: String,
}

/// A session that was opened, and the one sight of its token.
#[derive(Clone)]
pub(super) struct NewSession {
    pub(super) id: SessionId,
    pub(super) token: String,
    pub(super) expires_at: Timestamp,
}

/// A session as its owner sees it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) ip_prefix: String,
    pub(super) agent: String,
    pub(super) last_seen_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) created_at: Timestamp,
}

/// A session that was recognised.
#[derive(Debug)]
pub(super) struct FoundSession {
    pub(super) id: SessionId,
    pub(super) account: AccountId,
    pub(super) state: State,
    pub(super) roles: Vec<Role>,
    pub(super) last_seen_us: i64,
}

impl Origin {
    /// Of an address only the network is kept.
    pub(super) fn new(ip: IpAddr, agent: &str) -> Self {
        let ip_prefix = match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                format!("{a}.{b}.{c}.0/24")
            }
            IpAddr::V6(ip) => {
                let [a, b, c, ..] = ip.segments();
                format!("{a:x}:{b:x}:{c:x}::/48")
            }
        };
        let printable = agent.chars().filter(|c| !c.is_control());
        Self {
            ip_prefix,
            agent: printable.take(AGENT_CHARS_MAX).collect(),
        }
    }
}

/// Opens a session. Those that are over go, and the oldest when there are too many.
pub(super) async fn open(
    tx: &mut Tx,
    now: Timestamp,
    account: AccountId,
    origin: &Origin,
) -> sqlx::Result<NewSession> {
    store::lock(tx, account).await?;
    let sql = "DELETE FROM sessions WHERE account_id = $1 \
               AND (expires_us <= $2 OR last_seen_us <= $3)";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(now.as_micros())
        .bind(now.before(IDLE_MAX).as_micros());
    tx.execute(query).await?;
    let sql = "SELECT id FROM sessions WHERE account_id = $1 ORDER BY id DESC";
    let query = sqlx::query(sql).bind(account.to_string());
    for row in tx.fetch_all(query).await?.iter().skip(SESSIONS_MAX - 1) {
        let id: String = row.try_get(0)?;
        close(tx, account, decode(&id)?).await?;
    }
    let session = NewSession {
        id: SessionId::new(now),
        token: new_secret(PREFIX),
        expires_at: now.plus(AGE_MAX),
    };
    let sql = "INSERT INTO sessions (id, token_hash, account_id, ip_prefix, agent, last_seen_us, \
               expires_us, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $6)";
    let query = sqlx::query(sql)
        .bind(session.id.to_string())
        .bind(crate::app::hash(&session.token))
        .bind(account.to_string())
        .bind(&origin.ip_prefix)
        .bind(&origin.agent)
        .bind(now.as_micros())
        .bind(session.expires_at.as_micros());
    tx.execute(query).await?;
    Ok(session)
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

/// The open sessions of an account, newest first.
pub(super) async fn list(
    db: &Db,
    account: AccountId,
    now: Timestamp,
) -> sqlx::Result<Vec<Session>> {
    let sql = "SELECT id, ip_prefix, agent, last_seen_us, expires_us, created_us FROM sessions \
               WHERE account_id = $1 AND expires_us > $2 AND last_seen_us > $3 ORDER BY id DESC";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(now.as_micros())
        .bind(now.before(IDLE_MAX).as_micros());
    let rows = query.fetch_all(db.readers()).await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> sqlx::Result<Session> {
    let id: String = row.try_get(0)?;
    Ok(Session {
        id: decode(&id)?,
        ip_prefix: row.try_get(1)?,
        agent: row.try_get(2)?,
        last_seen_at: Timestamp::from_micros(row.try_get(3)?),
        expires_at: Timestamp::from_micros(row.try_get(4)?),
        created_at: Timestamp::from_micros(row.try_get(5)?),
    })
}

pub(super) async fn set_seen(db: &Db, id: SessionId, now: Timestamp) -> sqlx::Result<()> {
    let sql = "UPDATE sessions SET last_seen_us = $2 WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    let mut tx = db.begin().await?;
    tx.execute(query).await?;
    tx.commit().await
}

/// Closes a session; `false` if the account has no such one.
pub(super) async fn close(tx: &mut Tx, account: AccountId, id: SessionId) -> sqlx::Result<bool> {
    let sql = "DELETE FROM sessions WHERE account_id = $1 AND id = $2";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(id.to_string());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// Closes all sessions of an account but one, if one is named.
pub(super) async fn close_others(
    tx: &mut Tx,
    account: AccountId,
    kept: Option<SessionId>,
) -> sqlx::Result<()> {
    let sql = "DELETE FROM sessions WHERE account_id = $1 AND ($2 IS NULL OR id <> $2)";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(kept.map(|id| id.to_string()));
    tx.execute(query).await?;
    Ok(())
}
