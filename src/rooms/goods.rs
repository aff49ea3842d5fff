//! What rooms ask of the catalogue: products, their variants, prices, what is left.
//!
//! Not here: who may change any of it ([`crate::catalog`]).

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor, Row};

use super::offers::{QuoteKind, Window};
use crate::clock::Timestamp;
use crate::db::{parsed, select_in};
use crate::ids::{CreatorId, MerchantId, ProductId, RoomId, VariantId};
use crate::money::{Currency, Money};

/// A product on a shelf.
#[derive(Clone, Debug)]
pub(super) struct Product {
    pub(super) merchant: MerchantId,
    pub(super) title: String,
    pub(super) media: Value,
    /// It can be bought: neither a draft nor archived, of a shop that is not frozen.
    pub(super) is_sold: bool,
    pub(super) currency: Currency,
}

/// A variant of it.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) id: VariantId,
    pub(super) options: Value,
}

/// What a merchant lets a creator have, at most, and what the platform takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Commission {
    pub(super) cap_bps: i64,
    pub(super) fee_bps: i64,
}

pub(super) async fn products(
    connection: &mut AnyConnection,
    ids: impl IntoIterator<Item = ProductId>,
) -> sqlx::Result<HashMap<ProductId, Product>> {
    let select = "SELECT p.id, p.merchant_id, p.title, p.media, p.status, m.status, m.currency \
                  FROM products p JOIN merchants m ON m.id = p.merchant_id WHERE p.id IN";
    let rows = select_in(connection, select, "", ids).await?;
    rows.iter()
        .map(|row| {
            let (status, shop): (String, String) = (row.try_get(4)?, row.try_get(5)?);
            let product = Product {
                merchant: parsed(row, 1)?,
                title: row.try_get(2)?,
                media: json(row, 3)?,
                is_sold: status == "active" && shop == "active",
                currency: currency(row, 6)?,
            };
            Ok((parsed(row, 0)?, product))
        })
        .collect()
}

/// The variants of products that can be bought, in the order they were made.
pub(super) async fn variants(
    connection: &mut AnyConnection,
    products: impl IntoIterator<Item = ProductId>,
) -> sqlx::Result<HashMap<ProductId, Vec<Variant>>> {
    let select = "SELECT product_id, id, options FROM variants WHERE status = 'active' \
                  AND product_id IN";
    let rows = select_in(connection, select, " ORDER BY id", products).await?;
    let mut found: HashMap<ProductId, Vec<Variant>> = HashMap::new();
    for row in &rows {
        let variant = Variant {
            id: parsed(row, 1)?,
            options: json(row, 2)?,
        };
        found.entry(parsed(row, 0)?).or_default().push(variant);
    }
    Ok(found)
}

/// The product of a variant.
pub(super) async fn product_of(
    connection: &mut AnyConnection,
    variant: VariantId,
) -> sqlx::Result<Option<ProductId>> {
    let sql = "SELECT product_id FROM variants WHERE id = $1";
    let query = sqlx::query(sql).bind(variant.to_string());
    let row = connection.fetch_optional(query).await?;
    row.map(|row| parsed(&row, 0)).transpose()
}

/// The rooms on air whose shelf has the product of a variant.
pub(super) async fn rooms_selling(
    connection: &mut AnyConnection,
    variant: VariantId,
) -> sqlx::Result<Vec<RoomId>> {
    let sql = "SELECT DISTINCT e.room_id FROM shelf_entries e \
               JOIN variants v ON v.product_id = e.product_id \
               JOIN rooms r ON r.id = e.room_id \
               WHERE v.id = $1 AND r.state IN ('live', 'interrupted')";
    let query = sqlx::query(sql).bind(variant.to_string());
    let rows = connection.fetch_all(query).await?;
    rows.iter().map(|row| parsed(row, 0)).collect()
}

/// The price lists of variants, as far as they hold now or held since.
pub(super) async fn windows(
    connection: &mut AnyConnection,
    since: Timestamp,
    variants: impl IntoIterator<Item = VariantId>,
) -> sqlx::Result<HashMap<VariantId, Vec<Window>>> {
    let select = "SELECT variant_id, kind, amount, currency, compare_at, starts_us, ends_us, \
                  version, id FROM prices WHERE variant_id IN";
    let rows = select_in(connection, select, " ORDER BY starts_us", variants).await?;
    let mut found: HashMap<VariantId, Vec<Window>> = HashMap::new();
    for row in &rows {
        let kind: String = row.try_get(1)?;
        let window = Window {
            id: parsed(row, 8)?,
            kind: match kind.as_str() {
                "sale" => QuoteKind::Sale,
                _ => QuoteKind::List,
            },
            price: Money::new(row.try_get(2)?, currency(row, 3)?),
            compare_at: row.try_get(4)?,
            version: row.try_get(7)?,
            starts_us: row.try_get(5)?,
            ends_us: row.try_get(6)?,
        };
        let is_past = window.ends_us.is_some_and(|ends| ends <= since.as_micros());
        if !is_past {
            found.entry(parsed(row, 0)?).or_default().push(window);
        }
    }
    Ok(found)
}

/// How many units of each variant can be bought.
pub(super) async fn left(
    connection: &mut AnyConnection,
    variants: impl IntoIterator<Item = VariantId>,
) -> sqlx::Result<BTreeMap<VariantId, i64>> {
    let select = "SELECT variant_id, on_hand - reserved - committed - ring_fenced - safety \
                  FROM stock WHERE variant_id IN";
    let rows = select_in(connection, select, "", variants).await?;
    rows.iter()
        .map(|row| Ok((parsed(row, 0)?, row.try_get::<i64, _>(1)?.max(0))))
        .collect()
}

/// What a merchant lets a creator have: its own cap, else the one for all.
pub(super) async fn commission(
    connection: &mut AnyConnection,
    merchant: MerchantId,
    creator: CreatorId,
) -> sqlx::Result<Commission> {
    let sql = "SELECT COALESCE(c.cap_bps, m.commission_cap_bps), m.fee_bps FROM merchants m \
               LEFT JOIN commission_caps c ON c.merchant_id = m.id AND c.creator_id = $2 \
               WHERE m.id = $1";
    let query = sqlx::query(sql)
        .bind(merchant.to_string())
        .bind(creator.to_string());
    let row = connection.fetch_one(query).await?;
    Ok(Commission {
        cap_bps: row.try_get(0)?,
        fee_bps: row.try_get(1)?,
    })
}

fn json(row: &AnyRow, column: usize) -> sqlx::Result<Value> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|err| sqlx::Error::Decode(err.into()))
}

fn currency(row: &AnyRow, column: usize) -> sqlx::Result<Currency> {
    let text: String = row.try_get(column)?;
    Currency::try_from(text).map_err(|err| sqlx::Error::Decode(Box::new(err)))
}
