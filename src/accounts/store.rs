//! Accounts, handles, roles, passwords and recovery codes in SQL.

use std::str::FromStr;

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::model::{Account, Handle, Profile, State, folded};
use super::scopes::Role;
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::AccountId;

/// What is known of somebody who logs in.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) account: AccountId,
    pub(super) state: State,
    /// None: this account has no password.
    pub(super) phc: Option<String>,
}

pub(super) async fn insert_account(
    tx: &mut Tx,
    id: AccountId,
    profile: &Profile,
    now: Timestamp,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO accounts (id, handle, display_name, bio, locale, tz, birth_year, \
               state, items_published, removals_30d, unread, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', 0, 0, 0, 1, $8, $8)";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(profile.handle.as_str())
        .bind(&profile.display_name)
        .bind(&profile.bio)
        .bind(&profile.locale)
        .bind(&profile.tz)
        .bind(profile.birth_year)
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

/// Whether this is an account that may be asked for something.
pub(crate) async fn is_there(tx: &mut Tx, id: AccountId) -> sqlx::Result<bool> {
    let sql = "SELECT id FROM accounts WHERE id = $1 AND state IN ('active', 'limited')";
    let row = tx
        .fetch_optional(sqlx::query(sql).bind(id.to_string()))
        .await?;
    Ok(row.is_some())
}

/// Holds an account until the end of the transaction, so that two wishes cannot both count.
pub(crate) async fn lock(tx: &mut Tx, id: AccountId) -> sqlx::Result<()> {
    let sql = "UPDATE accounts SET version = version WHERE id = $1";
    tx.execute(sqlx::query(sql).bind(id.to_string())).await?;
    Ok(())
}

const COLUMNS: &str = "SELECT a.id, a.handle, a.display_name, a.bio, a.avatar_id, a.locale, a.tz, \
                       a.birth_year, a.state, a.version, a.created_us, a.updated_us \
                       FROM accounts a ";

pub(super) async fn find(db: &Db, id: AccountId) -> sqlx::Result<Option<Account>> {
    let sql = format!("{COLUMNS} WHERE a.id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = query.fetch_optional(db.readers()).await?;
    row.as_ref().map(read).transpose()
}

/// The account, read inside a transaction and locked in it.
pub(super) async fn find_locked(tx: &mut Tx, id: AccountId) -> sqlx::Result<Option<Account>> {
    lock(tx, id).await?;
    let sql = format!("{COLUMNS} WHERE a.id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// The account of this id or handle.
pub(super) async fn find_named(db: &Db, name: &str) -> sqlx::Result<Option<Account>> {
    if let Ok(id) = name.parse() {
        return find(db, id).await;
    }
    let sql = format!(
        "{COLUMNS} JOIN handles h ON h.owner_id = a.id \
         WHERE h.skeleton = $1 AND h.handle = $2"
    );
    let handle = folded(name);
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(Handle::skeleton_of(&handle))
        .bind(&handle);
    let row = query.fetch_optional(db.readers()).await?;
    row.as_ref().map(read).transpose()
}

/// Writes what people may change of themselves.
pub(super) async fn update(tx: &mut Tx, account: &Account) -> sqlx::Result<()> {
    let sql = "UPDATE accounts SET display_name = $2, bio = $3, locale = $4, tz = $5, \
               birth_year = $6, version = $7, updated_us = $8 WHERE id = $1";
    let query = sqlx::query(sql)
        .bind(account.id.to_string())
        .bind(&account.display_name)
        .bind(&account.bio)
        .bind(&account.locale)
        .bind(&account.tz)
        .bind(account.birth_year)
        .bind(account.version)
        .bind(account.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

fn read(row: &AnyRow) -> sqlx::Result<Account> {
    let (id, state): (String, String) = (row.try_get(0)?, row.try_get(8)?);
    Ok(Account {
        id: decode(&id)?,
        handle: row.try_get(1)?,
        display_name: row.try_get(2)?,
        bio: row.try_get(3)?,
        avatar_id: row.try_get(4)?,
        locale: row.try_get(5)?,
        tz: row.try_get(6)?,
        birth_year: row.try_get(7)?,
        state: State::decode(&state)?,
        version: row.try_get(9)?,
        created_at: Timestamp::from_micros(row.try_get(10)?),
        updated_at: Timestamp::from_micros(row.try_get(11)?),
    })
}

/// The roles of an account.
pub(super) async fn roles(db: &Db, id: AccountId) -> sqlx::Result<Vec<Role>> {
    let sql = "SELECT role FROM platform_roles WHERE account_id = $1 ORDER BY role";
    let query = sqlx::query(sql).bind(id.to_string());
    let rows = query.fetch_all(db.readers()).await?;
    let names: Vec<String> = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<sqlx::Result<_>>()?;
    Ok(names.iter().filter_map(|name| Role::parse(name)).collect())
}

/// The account that has this handle, with its password.
pub(super) async fn find_login(db: &Db, handle: &Handle) -> sqlx::Result<Option<Login>> {
    let sql = "SELECT a.id, a.state, c.phc FROM handles h JOIN accounts a ON a.id = h.owner_id \
               LEFT JOIN credentials c ON c.account_id = a.id \
               WHERE h.skeleton = $1 AND h.handle = $2";
    let query = sqlx::query(sql)
        .bind(handle.skeleton())
        .bind(handle.as_str());
    let Some(row) = query.fetch_optional(db.readers()).await? else {
        return Ok(None);
    };
    let (id, state): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Some(Login {
        account: decode(&id)?,
        state: State::decode(&state)?,
        phc: row.try_get(2)?,
    }))
}

/// Sets the password of an account; it may have had none.
pub(super) async fn set_password(
    tx: &mut Tx,
    account: AccountId,
    phc: &str,
    now: Timestamp,
) -> sqlx::Result<()> {
    let sql = "INSERT INTO credentials (account_id, phc, version, created_us, updated_us) \
               VALUES ($1, $2, 1, $3, $3) ON CONFLICT (account_id) DO UPDATE SET phc = $2, \
               version = credentials.version + 1, updated_us = $3";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(phc)
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Puts a hash of today in the place of an older one of the same password.
pub(super) async fn set_rehashed(
    tx: &mut Tx,
    account: AccountId,
    (old, new): (&str, &str),
    now: Timestamp,
) -> sqlx::Result<()> {
    // The test is inside the UPDATE: the password may have been changed meanwhile.
    let sql = "UPDATE credentials SET phc = $3, version = version + 1, updated_us = $4 \
               WHERE account_id = $1 AND phc = $2";
    let query = sqlx::query(sql)
        .bind(account.to_string())
        .bind(old)
        .bind(new)
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn insert_code(tx: &mut Tx, id: AccountId, code_hash: &str) -> sqlx::Result<()> {
    let sql = "INSERT INTO recovery_codes (account_id, code_hash) VALUES ($1, $2)";
    let query = sqlx::query(sql).bind(id.to_string()).bind(code_hash);
    tx.execute(query).await?;
    Ok(())
}

/// Uses a recovery code up; `false` if the account has no such one left.
pub(super) async fn use_code(
    tx: &mut Tx,
    id: AccountId,
    code_hash: &str,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let sql = "UPDATE recovery_codes SET used_us = $3 \
               WHERE account_id = $1 AND code_hash = $2 AND used_us IS NULL";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(code_hash)
        .bind(now.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// An id out of the database.
pub(crate) fn decode<T>(text: &str) -> sqlx::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    text.parse()
        .map_err(|err| sqlx::Error::Decode(Box::new(err)))
}
