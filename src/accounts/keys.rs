//! Keys in SQL: of the platform, of merchants, of accounts.
//!
//! Invariants
//! - A secret is stored as SHA-256 with its last four characters, and shown by nobody again.
//! - A key that is revoked or expired is found by nobody.

use std::net::IpAddr;

use sqlx::any::AnyRow;
use sqlx::{Executor, Row};

use super::extract::is_within;
use super::model::State;
use super::scopes::Role;
use super::store::decode;
use crate::app::new_secret;
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::{AccountId, CreatorId, KeyId, MerchantId};

/// What a secret begins with: the platform's and merchants', and accounts'.
pub(super) const PREFIXES: [&str; 2] = ["sk_", "ak_"];

/// For whom a key speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The platform, by the hand of one of its staff.
    Platform(AccountId),
    Merchant(MerchantId),
    Account(AccountId),
}

impl Owner {
    const fn kind(self) -> &'static str {
        match self {
            Self::Platform(_) => "platform",
            Self::Merchant(_) => "merchant",
            Self::Account(_) => "account",
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Platform(_) | Self::Merchant(_) => "sk_",
            Self::Account(_) => "ak_",
        }
    }

    fn id(self) -> String {
        match self {
            Self::Platform(id) | Self::Account(id) => id.to_string(),
            Self::Merchant(id) => id.to_string(),
        }
    }

    fn parse(kind: &str, id: &str) -> sqlx::Result<Self> {
        match kind {
            "platform" => Ok(Self::Platform(decode(id)?)),
            "merchant" => Ok(Self::Merchant(decode(id)?)),
            "account" => Ok(Self::Account(decode(id)?)),
            _ => Err(sqlx::Error::Decode("owner_kind".into())),
        }
    }
}

/// A key to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewKey {
    pub(crate) owner: Owner,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    /// Addresses and blocks it may be used from; empty: any.
    pub(crate) ip_allow: Vec<String>,
    /// The one creator that a key of an account is for.
    pub(crate) creator: Option<CreatorId>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// A key that was made, and the one sight of its secret.
#[derive(Clone)]
pub(crate) struct MadeKey {
    pub(crate) id: KeyId,
    pub(crate) secret: String,
}

/// A key as its owner sees it.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) last4: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) ip_allow: Vec<String>,
    pub(crate) creator: Option<CreatorId>,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
}

/// A key that was recognised.
#[derive(Debug)]
pub(super) struct FoundKey {
    pub(super) id: KeyId,
    pub(super) owner: Owner,
    /// `None` of a merchant's key.
    pub(super) owner_state: Option<State>,
    pub(super) roles: Vec<Role>,
    pub(super) scopes: Vec<String>,
    pub(super) creator: Option<CreatorId>,
    pub(super) last_used_us: Option<i64>,
    ip_allow: Vec<String>,
}

impl FoundKey {
    /// Whether it may be used from this address.
    pub(super) fn is_for(&self, ip: IpAddr) -> bool {
        self.ip_allow.is_empty() || self.ip_allow.iter().any(|block| is_within(ip, block))
    }
}

/// Makes a key. Who may, and how many, is the caller's to say.
pub(crate) async fn add_key(tx: &mut Tx, now: Timestamp, key: &NewKey) -> sqlx::Result<MadeKey> {
    let made = MadeKey {
        id: KeyId::new(now),
        secret: new_secret(key.owner.prefix()),
    };
    let last4 = made.secret.get(made.secret.len() - 4..).unwrap_or_default();
    let ip_allow = (!key.ip_allow.is_empty()).then(|| list(&key.ip_allow));
    let sql = "INSERT INTO api_keys (id, owner_kind, owner_id, name, secret_hash, prefix, last4, \
               scopes, ip_allow, creator_id, expires_us, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12, $12)";
    let query = sqlx::query(sql)
        .bind(made.id.to_string())
        .bind(key.owner.kind())
        .bind(key.owner.id())
        .bind(&key.name)
        .bind(crate::app::hash(&made.secret))
        .bind(key.owner.prefix())
        .bind(last4)
        .bind(list(&key.scopes))
        .bind(ip_allow)
        .bind(key.creator.map(|id| id.to_string()))
        .bind(key.expires_at.map(Timestamp::as_micros))
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(made)
}

/// The key of this secret, if it is valid and its owner is there.
pub(super) async fn find(db: &Db, secret: &str, now: Timestamp) -> sqlx::Result<Option<FoundKey>> {
    let sql = "SELECT k.id, k.owner_kind, k.owner_id, k.scopes, k.ip_allow, k.creator_id, \
               k.last_used_us, a.state, r.role FROM api_keys k \
               LEFT JOIN accounts a ON a.id = k.owner_id \
               LEFT JOIN platform_roles r ON r.account_id = a.id \
               WHERE k.secret_hash = $1 AND k.revoked_us IS NULL \
               AND (k.expires_us IS NULL OR k.expires_us > $2) \
               AND (a.state IN ('active', 'limited', 'suspended') \
               OR k.owner_kind = 'merchant')";
    let query = sqlx::query(sql)
        .bind(crate::app::hash(secret))
        .bind(now.as_micros());
    let rows = query.fetch_all(db.readers()).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (id, kind, owner): (String, String, String) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let creator: Option<String> = row.try_get(5)?;
    let state: Option<String> = row.try_get(7)?;
    let roles: Vec<_> = rows
        .iter()
        .map(|row| role(row, 8))
        .collect::<sqlx::Result<_>>()?;
    Ok(Some(FoundKey {
        id: decode(&id)?,
        owner: Owner::parse(&kind, &owner)?,
        owner_state: state.as_deref().map(State::decode).transpose()?,
        roles: roles.into_iter().flatten().collect(),
        scopes: texts(row, 3)?,
        creator: creator.as_deref().map(decode).transpose()?,
        last_used_us: row.try_get(6)?,
        ip_allow: texts(row, 4)?,
    }))
}

/// The keys of an owner that are valid, newest first.
pub(crate) async fn keys_of(db: &Db, owner: Owner, now: Timestamp) -> sqlx::Result<Vec<Key>> {
    let sql = "SELECT id, name, prefix, last4, scopes, ip_allow, creator_id, expires_us, \
               last_used_us, created_us FROM api_keys WHERE owner_id = $1 AND owner_kind = $2 \
               AND revoked_us IS NULL AND (expires_us IS NULL OR expires_us > $3) \
               ORDER BY id DESC";
    let query = sqlx::query(sql)
        .bind(owner.id())
        .bind(owner.kind())
        .bind(now.as_micros());
    let rows = query.fetch_all(db.readers()).await?;
    rows.iter().map(read).collect()
}

/// A valid key and whose it is.
pub(crate) async fn key_by_id(
    tx: &mut Tx,
    now: Timestamp,
    id: KeyId,
) -> sqlx::Result<Option<(Owner, Key)>> {
    let sql = "SELECT id, name, prefix, last4, scopes, ip_allow, creator_id, expires_us, \
               last_used_us, created_us, owner_kind, owner_id FROM api_keys WHERE id = $1 \
               AND revoked_us IS NULL AND (expires_us IS NULL OR expires_us > $2)";
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    let Some(row) = tx.fetch_optional(query).await? else {
        return Ok(None);
    };
    let (kind, owner): (String, String) = (row.try_get(10)?, row.try_get(11)?);
    Ok(Some((Owner::parse(&kind, &owner)?, read(&row)?)))
}

/// Lets a valid key without an end be valid until `at` only; `false` if it has an end already.
pub(crate) async fn end_key(
    tx: &mut Tx,
    now: Timestamp,
    (id, at): (KeyId, Timestamp),
) -> sqlx::Result<bool> {
    let sql = "UPDATE api_keys SET expires_us = $2, version = version + 1, updated_us = $3 \
               WHERE id = $1 AND revoked_us IS NULL AND expires_us IS NULL";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(at.as_micros())
        .bind(now.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

fn read(row: &AnyRow) -> sqlx::Result<Key> {
    let (id, creator): (String, Option<String>) = (row.try_get(0)?, row.try_get(6)?);
    let time = |column| -> sqlx::Result<Option<Timestamp>> {
        let us: Option<i64> = row.try_get(column)?;
        Ok(us.map(Timestamp::from_micros))
    };
    Ok(Key {
        id: decode(&id)?,
        name: row.try_get(1)?,
        prefix: row.try_get(2)?,
        last4: row.try_get(3)?,
        scopes: texts(row, 4)?,
        ip_allow: texts(row, 5)?,
        creator: creator.as_deref().map(decode).transpose()?,
        expires_at: time(7)?,
        last_used_at: time(8)?,
        created_at: Timestamp::from_micros(row.try_get(9)?),
    })
}

/// How many valid keys an owner has. Lock the owner first, so that two wishes cannot both count.
pub(crate) async fn count_keys(tx: &mut Tx, owner: Owner, now: Timestamp) -> sqlx::Result<i64> {
    let sql = "SELECT COUNT(*) FROM api_keys WHERE owner_id = $1 AND owner_kind = $2 \
               AND revoked_us IS NULL AND (expires_us IS NULL OR expires_us > $3)";
    let query = sqlx::query(sql)
        .bind(owner.id())
        .bind(owner.kind())
        .bind(now.as_micros());
    tx.fetch_one(query).await?.try_get(0)
}

/// Withdraws a key; `false` if the owner has no such valid one.
pub(crate) async fn revoke_key(
    tx: &mut Tx,
    now: Timestamp,
    owner: Owner,
    id: KeyId,
) -> sqlx::Result<bool> {
    let sql = "UPDATE api_keys SET revoked_us = $4, version = version + 1, updated_us = $4 \
               WHERE id = $1 AND owner_id = $2 AND owner_kind = $3 AND revoked_us IS NULL \
               AND (expires_us IS NULL OR expires_us > $4)";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(owner.id())
        .bind(owner.kind())
        .bind(now.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// Whether this secret is a valid key of the platform.
pub(crate) async fn key_is_valid(db: &Db, secret: &str, now: Timestamp) -> sqlx::Result<bool> {
    let found = find(db, secret, now).await?;
    Ok(found.is_some_and(|key| {
        matches!(key.owner, Owner::Platform(_)) && key.owner_state != Some(State::Suspended)
    }))
}

pub(super) async fn set_used(db: &Db, id: KeyId, now: Timestamp) -> sqlx::Result<()> {
    let sql = "UPDATE api_keys SET last_used_us = $2 WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    let mut tx = db.begin().await?;
    tx.execute(query).await?;
    tx.commit().await
}

/// The role in a column of a row, if there is one that is known here.
pub(super) fn role(row: &AnyRow, column: usize) -> sqlx::Result<Option<Role>> {
    let text: Option<String> = row.try_get(column)?;
    Ok(text.as_deref().and_then(Role::parse))
}

fn list(texts: &[String]) -> String {
    serde_json::json!(texts).to_string()
}

/// A list of texts in a column; none when it is empty.
fn texts(row: &AnyRow, column: usize) -> sqlx::Result<Vec<String>> {
    let text: Option<String> = row.try_get(column)?;
    let Some(text) = text else {
        return Ok(Vec::new());
    };
    serde_json::from_str(&text).map_err(|err| sqlx::Error::Decode(err.into()))
}
