//! Price windows in SQL.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor, Row};

use crate::catalog::model::{PriceFields, PriceKind, PriceRow};
use crate::catalog::store::{time, word};
use crate::clock::Timestamp;
use crate::db::{Tx, parsed, select_in};
use crate::ids::{PriceId, VariantId};
use crate::money::{Currency, Money};

const PRICE: &str = "SELECT id, variant_id, kind, amount, currency, compare_at, starts_us, \
                     ends_us, version, created_us, updated_us FROM prices WHERE ";
/// Variants of one statement.
const VARIANTS_MAX: usize = 10_000;

pub(super) async fn insert(tx: &mut Tx, row: &PriceRow) -> sqlx::Result<()> {
    let sql = "INSERT INTO prices (id, variant_id, kind, amount, currency, compare_at, \
               starts_us, ends_us, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let fields = &row.fields;
    let query = sqlx::query(sql)
        .bind(row.id.to_string())
        .bind(row.variant.to_string())
        .bind(fields.kind.as_str())
        .bind(fields.price.amount_minor())
        .bind(String::from(fields.price.currency()))
        .bind(fields.compare_at.map(Money::amount_minor))
        .bind(fields.starts_at.as_micros())
        .bind(fields.ends_at.map(Timestamp::as_micros))
        .bind(row.version)
        .bind(row.created_at.as_micros())
        .bind(row.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Writes everything of a price that may change.
pub(super) async fn update(tx: &mut Tx, row: &PriceRow) -> sqlx::Result<()> {
    let sql = "UPDATE prices SET kind = $2, amount = $3, compare_at = $4, starts_us = $5, \
               ends_us = $6, version = $7, updated_us = $8 WHERE id = $1";
    let fields = &row.fields;
    let query = sqlx::query(sql)
        .bind(row.id.to_string())
        .bind(fields.kind.as_str())
        .bind(fields.price.amount_minor())
        .bind(fields.compare_at.map(Money::amount_minor))
        .bind(fields.starts_at.as_micros())
        .bind(fields.ends_at.map(Timestamp::as_micros))
        .bind(row.version)
        .bind(row.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut Tx, id: PriceId) -> sqlx::Result<()> {
    tx.execute(sqlx::query("DELETE FROM prices WHERE id = $1").bind(id.to_string()))
        .await?;
    Ok(())
}

pub(super) async fn find(db: &mut AnyConnection, id: PriceId) -> sqlx::Result<Option<PriceRow>> {
    let sql = format!("{PRICE}id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = db.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// Every price of these variants, past and future, by beginning.
pub(in crate::catalog) async fn prices_of(
    db: &mut AnyConnection,
    variants: &[VariantId],
) -> sqlx::Result<Vec<PriceRow>> {
    let select = format!("{PRICE}variant_id IN");
    let rows = select_in(db, &select, " ORDER BY starts_us, id", variants).await?;
    rows.iter().map(read).collect()
}

/// The prices of these variants whose windows are open, of each kind: sale and list.
pub(in crate::catalog) async fn open_of(
    db: &mut AnyConnection,
    now: Timestamp,
    variants: &[VariantId],
) -> sqlx::Result<Vec<PriceRow>> {
    let mut found = Vec::new();
    for some in variants.chunks(VARIANTS_MAX) {
        let places: Vec<String> = (2..some.len() + 2).map(|n| format!("${n}")).collect();
        let sql = format!(
            "{PRICE}variant_id IN ({}) AND starts_us <= $1 AND (ends_us IS NULL OR ends_us > $1)",
            places.join(", ")
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(now.as_micros());
        let query = some
            .iter()
            .fold(query, |query, id| query.bind(id.to_string()));
        let rows = db.fetch_all(query).await?;
        found.extend(rows.iter().map(read).collect::<sqlx::Result<Vec<_>>>()?);
    }
    Ok(found)
}

fn read(row: &AnyRow) -> sqlx::Result<PriceRow> {
    let currency: String = row.try_get(4)?;
    let currency =
        Currency::try_from(currency).map_err(|err| sqlx::Error::Decode(Box::new(err)))?;
    let (compare_at, ends_us): (Option<i64>, Option<i64>) = (row.try_get(5)?, row.try_get(7)?);
    Ok(PriceRow {
        id: parsed(row, 0)?,
        variant: parsed(row, 1)?,
        fields: PriceFields {
            kind: word(row, 2, PriceKind::parse)?,
            price: Money::new(row.try_get(3)?, currency),
            compare_at: compare_at.map(|amount| Money::new(amount, currency)),
            starts_at: time(row, 6)?,
            ends_at: ends_us.map(Timestamp::from_micros),
        },
        version: row.try_get(8)?,
        created_at: time(row, 9)?,
        updated_at: time(row, 10)?,
    })
}
