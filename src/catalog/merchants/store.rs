//! Shops, their staff and what they agreed with creators, in SQL.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor, Row};

use crate::catalog::access::StaffRole;
use crate::catalog::model::{Merchant, MerchantStatus};
use crate::catalog::store::{time, word};
use crate::db::{Tx, parsed};
use crate::ids::{AccountId, CreatorId, MerchantId};
use crate::money::{Currency, Money};

const MERCHANT: &str = "SELECT id, name, currency, status, shipping_fee, settle_after_days, \
                        reserve_bps, fee_bps, commission_cap_bps, auto_confirm_days, external_id, \
                        version, created_us, updated_us FROM merchants WHERE id = $1";

/// `false` if there is another shop of this external id.
pub(super) async fn insert(tx: &mut Tx, merchant: &Merchant) -> sqlx::Result<bool> {
    let sql = "INSERT INTO merchants (id, name, currency, status, shipping_fee, \
               settle_after_days, reserve_bps, fee_bps, commission_cap_bps, auto_confirm_days, \
               external_id, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
               ON CONFLICT (external_id) DO NOTHING";
    let query = sqlx::query(sql)
        .bind(merchant.id.to_string())
        .bind(&merchant.name)
        .bind(merchant.currency.as_str())
        .bind(merchant.status.as_str())
        .bind(merchant.shipping_fee.amount_minor())
        .bind(merchant.settle_after_days)
        .bind(merchant.reserve_bps)
        .bind(merchant.fee_bps)
        .bind(merchant.commission_cap_bps)
        .bind(merchant.auto_confirm_days)
        .bind(merchant.external_id.as_deref())
        .bind(merchant.version)
        .bind(merchant.created_at.as_micros())
        .bind(merchant.updated_at.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// A shop.
///
/// # Errors
/// The database's error.
pub(crate) async fn merchant(
    db: &mut AnyConnection,
    id: MerchantId,
) -> sqlx::Result<Option<Merchant>> {
    let row = db
        .fetch_optional(sqlx::query(MERCHANT).bind(id.to_string()))
        .await?;
    row.as_ref().map(read).transpose()
}

/// The shop, locked: its staff changes only behind this lock.
pub(super) async fn lock(tx: &mut Tx, id: MerchantId) -> sqlx::Result<Option<Merchant>> {
    let sql = format!("{MERCHANT}{}", tx.for_update());
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// Makes other files of this shop wait; orders and single changes need not.
pub(in crate::catalog) async fn hold(tx: &mut Tx, id: MerchantId) -> sqlx::Result<()> {
    let sql = "UPDATE merchants SET version = version WHERE id = $1";
    tx.execute(sqlx::query(sql).bind(id.to_string())).await?;
    Ok(())
}

/// Writes everything of a locked shop that may change.
pub(super) async fn update(tx: &mut Tx, merchant: &Merchant) -> sqlx::Result<()> {
    let sql = "UPDATE merchants SET name = $2, shipping_fee = $3, settle_after_days = $4, \
               reserve_bps = $5, fee_bps = $6, commission_cap_bps = $7, auto_confirm_days = $8, \
               version = $9, updated_us = $10 WHERE id = $1";
    let query = sqlx::query(sql)
        .bind(merchant.id.to_string())
        .bind(&merchant.name)
        .bind(merchant.shipping_fee.amount_minor())
        .bind(merchant.settle_after_days)
        .bind(merchant.reserve_bps)
        .bind(merchant.fee_bps)
        .bind(merchant.commission_cap_bps)
        .bind(merchant.auto_confirm_days)
        .bind(merchant.version)
        .bind(merchant.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

fn read(row: &AnyRow) -> sqlx::Result<Merchant> {
    let currency: String = row.try_get(2)?;
    let currency =
        Currency::try_from(currency).map_err(|err| sqlx::Error::Decode(Box::new(err)))?;
    Ok(Merchant {
        id: parsed(row, 0)?,
        name: row.try_get(1)?,
        currency,
        status: word(row, 3, MerchantStatus::parse)?,
        shipping_fee: Money::new(row.try_get(4)?, currency),
        settle_after_days: row.try_get(5)?,
        reserve_bps: row.try_get(6)?,
        fee_bps: row.try_get(7)?,
        commission_cap_bps: row.try_get(8)?,
        auto_confirm_days: row.try_get(9)?,
        external_id: row.try_get(10)?,
        version: row.try_get(11)?,
        created_at: time(row, 12)?,
        updated_at: time(row, 13)?,
    })
}

/// What an account does in a shop.
pub(crate) async fn staff_role(
    db: &mut AnyConnection,
    merchant: MerchantId,
    account: AccountId,
) -> sqlx::Result<Option<StaffRole>> {
    let sql = "SELECT role FROM merchant_staff WHERE merchant_id = $1 AND account_id = $2";
    let query = sqlx::query(sql)
        .bind(merchant.to_string())
        .bind(account.to_string());
    let row = db.fetch_optional(query).await?;
    row.as_ref()
        .map(|row| word(row, 0, StaffRole::parse))
        .transpose()
}

/// How many work in a shop, and how many of them own it.
pub(super) async fn count_staff(tx: &mut Tx, merchant: MerchantId) -> sqlx::Result<(i64, i64)> {
    let sql = "SELECT COUNT(*), COUNT(CASE WHEN role = 'owner' THEN 1 END) \
               FROM merchant_staff WHERE merchant_id = $1";
    let row = tx
        .fetch_one(sqlx::query(sql).bind(merchant.to_string()))
        .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

pub(super) async fn put_staff(
    tx: &mut Tx,
    merchant: MerchantId,
    (account, role): (AccountId, StaffRole),
) -> sqlx::Result<()> {
    let sql = "INSERT INTO merchant_staff (merchant_id, account_id, role) VALUES ($1, $2, $3) \
               ON CONFLICT (merchant_id, account_id) DO UPDATE SET role = excluded.role";
    let query = sqlx::query(sql)
        .bind(merchant.to_string())
        .bind(account.to_string())
        .bind(role.as_str());
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn delete_staff(
    tx: &mut Tx,
    merchant: MerchantId,
    account: AccountId,
) -> sqlx::Result<()> {
    let sql = "DELETE FROM merchant_staff WHERE merchant_id = $1 AND account_id = $2";
    let query = sqlx::query(sql)
        .bind(merchant.to_string())
        .bind(account.to_string());
    tx.execute(query).await?;
    Ok(())
}

/// What a shop agreed with one creator.
pub(super) async fn cap_of(
    db: &mut AnyConnection,
    merchant: MerchantId,
    creator: CreatorId,
) -> sqlx::Result<Option<i64>> {
    let sql = "SELECT cap_bps FROM commission_caps WHERE merchant_id = $1 AND creator_id = $2";
    let query = sqlx::query(sql)
        .bind(merchant.to_string())
        .bind(creator.to_string());
    let row = db.fetch_optional(query).await?;
    row.map(|row| row.try_get(0)).transpose()
}

pub(super) async fn put_cap(
    tx: &mut Tx,
    merchant: MerchantId,
    (creator, cap_bps): (CreatorId, i64),
) -> sqlx::Result<()> {
    let sql = "INSERT INTO commission_caps (merchant_id, creator_id, cap_bps) \
               VALUES ($1, $2, $3) \
               ON CONFLICT (merchant_id, creator_id) DO UPDATE SET cap_bps = excluded.cap_bps";
    let query = sqlx::query(sql)
        .bind(merchant.to_string())
        .bind(creator.to_string())
        .bind(cap_bps);
    tx.execute(query).await?;
    Ok(())
}
