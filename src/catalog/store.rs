//! Products and variants in SQL, and what the stores of the catalogue have in common.

use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor, Row};

use super::model::{Product, ProductFields, ProductStatus, Variant, VariantFields, VariantStatus};
use crate::clock::Timestamp;
use crate::db::{Tx, parsed, select_in};
use crate::http::Seek;
use crate::ids::{MerchantId, ProductId, VariantId};

const PRODUCT: &str = "SELECT id, merchant_id, external_id, title, description, media, category, \
                       attributes, requires_shipping, status, version, created_us, updated_us \
                       FROM products WHERE ";
const VARIANT: &str = "SELECT id, product_id, merchant_id, external_id, options, barcode, \
                       weight_g, status, version, created_us, updated_us FROM variants WHERE ";

/// Which products a list shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) merchant: Option<MerchantId>,
    /// Empty: all.
    pub(super) statuses: Vec<ProductStatus>,
    pub(super) category: Option<String>,
    /// What the title begins with.
    pub(super) title: Option<String>,
    pub(super) created_from: Option<Timestamp>,
    pub(super) created_before: Option<Timestamp>,
}

/// `false` if the merchant has another product of this external id.
pub(super) async fn insert_product(tx: &mut Tx, product: &Product) -> sqlx::Result<bool> {
    let sql = "INSERT INTO products (id, merchant_id, external_id, title, description, media, \
               category, attributes, requires_shipping, status, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) \
               ON CONFLICT (merchant_id, external_id) DO NOTHING";
    let fields = &product.fields;
    let query = sqlx::query(sql)
        .bind(product.id.to_string())
        .bind(product.merchant.to_string())
        .bind(fields.external_id.as_deref())
        .bind(&fields.title)
        .bind(&fields.description)
        .bind(document(&fields.media))
        .bind(fields.category.as_deref())
        .bind(document(&fields.attributes))
        .bind(i64::from(fields.requires_shipping))
        .bind(product.status.as_str())
        .bind(product.version)
        .bind(product.created_at.as_micros())
        .bind(product.updated_at.as_micros());
    Ok(tx.execute(query).await?.rows_affected() == 1)
}

/// Writes everything of a locked product that may change.
pub(super) async fn update_product(tx: &mut Tx, product: &Product) -> sqlx::Result<()> {
    let sql = "UPDATE products SET external_id = $2, title = $3, description = $4, media = $5, \
               category = $6, attributes = $7, requires_shipping = $8, status = $9, \
               version = $10, updated_us = $11 WHERE id = $1";
    let fields = &product.fields;
    let query = sqlx::query(sql)
        .bind(product.id.to_string())
        .bind(fields.external_id.as_deref())
        .bind(&fields.title)
        .bind(&fields.description)
        .bind(document(&fields.media))
        .bind(fields.category.as_deref())
        .bind(document(&fields.attributes))
        .bind(i64::from(fields.requires_shipping))
        .bind(product.status.as_str())
        .bind(product.version)
        .bind(product.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn find_product(
    db: &mut AnyConnection,
    id: ProductId,
) -> sqlx::Result<Option<Product>> {
    let sql = format!("{PRODUCT}id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = db.fetch_optional(query).await?;
    row.as_ref().map(read_product).transpose()
}

/// The product, locked: its variants and their prices change only behind this lock.
pub(super) async fn lock_product(tx: &mut Tx, id: ProductId) -> sqlx::Result<Option<Product>> {
    let sql = format!("{PRODUCT}id = $1{}", tx.for_update());
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read_product).transpose()
}

/// The same by the merchant's own name for it.
pub(super) async fn lock_external(
    tx: &mut Tx,
    merchant: MerchantId,
    external_id: &str,
) -> sqlx::Result<Option<Product>> {
    let end = tx.for_update();
    let sql = format!("{PRODUCT}merchant_id = $1 AND external_id = $2{end}");
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(merchant.to_string())
        .bind(external_id);
    let row = tx.fetch_optional(query).await?;
    row.as_ref().map(read_product).transpose()
}

/// One more than `limit` products, in the order of the walk: newest first, or oldest first
/// backward.
pub(super) async fn list_products(
    db: &mut AnyConnection,
    filter: &Filter,
    (seek, limit): (&Seek<ProductId>, u32),
) -> sqlx::Result<Vec<Product>> {
    let (sql, texts) = list_query(filter, seek);
    let texts = texts.iter();
    let query = texts.fold(sqlx::query(AssertSqlSafe(sql)), |query, text| {
        query.bind(text)
    });
    let title = filter.title.as_deref().unwrap_or_default();
    let query = query
        .bind(i64::try_from(title.chars().count()).unwrap_or(i64::MAX))
        .bind(filter.created_from.map_or(i64::MIN, Timestamp::as_micros))
        .bind(filter.created_before.map_or(i64::MAX, Timestamp::as_micros))
        .bind(i64::from(limit) + 1);
    db.fetch_all(query)
        .await?
        .iter()
        .map(read_product)
        .collect()
}

/// Only the conditions that are asked for, so that an index can serve them; the texts to bind
/// before the four numbers.
fn list_query(filter: &Filter, seek: &Seek<ProductId>) -> (String, Vec<String>) {
    let mut texts: Vec<String> = Vec::new();
    let mut place = |text: String| {
        texts.push(text);
        format!("${}", texts.len())
    };
    let mut conditions = Vec::new();
    if let Some(merchant) = filter.merchant {
        conditions.push(format!("merchant_id = {}", place(merchant.to_string())));
    }
    if !filter.statuses.is_empty() {
        let statuses = filter.statuses.iter().map(|it| place(it.as_str().into()));
        let statuses: Vec<_> = statuses.collect();
        conditions.push(format!("status IN ({})", statuses.join(", ")));
    }
    if let Some(category) = &filter.category {
        conditions.push(format!("category = {}", place(category.clone())));
    }
    let title = filter.title.clone().map(&mut place);
    let (order, from) = match seek {
        Seek::First => ("DESC", None),
        Seek::After(id) => ("DESC", Some(format!("id < {}", place(id.to_string())))),
        Seek::Before(id) => ("ASC", Some(format!("id > {}", place(id.to_string())))),
    };
    conditions.extend(from);
    let n = texts.len();
    // Without a prefix both sides are empty texts.
    let prefix = title.unwrap_or_else(|| "''".into());
    conditions.push(format!(
        "substr(title, 1, CAST(${} AS INTEGER)) = {prefix} AND created_us >= ${} \
         AND created_us < ${}",
        n + 1,
        n + 2,
        n + 3
    ));
    let conditions = conditions.join(" AND ");
    let sql = format!("{PRODUCT}{conditions} ORDER BY id {order} LIMIT ${}", n + 4);
    (sql, texts)
}

/// Puts a variant into the catalogue, with its stock: none. `false` if the merchant has another
/// variant of this external id.
pub(super) async fn insert_variant(tx: &mut Tx, variant: &Variant) -> sqlx::Result<bool> {
    let sql = "INSERT INTO variants (id, product_id, merchant_id, external_id, options, barcode, \
               weight_g, status, version, created_us, updated_us) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
               ON CONFLICT (merchant_id, external_id) DO NOTHING";
    let fields = &variant.fields;
    let query = sqlx::query(sql)
        .bind(variant.id.to_string())
        .bind(variant.product.to_string())
        .bind(variant.merchant.to_string())
        .bind(fields.external_id.as_deref())
        .bind(document(&fields.options))
        .bind(fields.barcode.as_deref())
        .bind(fields.weight_g)
        .bind(variant.status.as_str())
        .bind(variant.version)
        .bind(variant.created_at.as_micros())
        .bind(variant.updated_at.as_micros());
    if tx.execute(query).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let sql = "INSERT INTO stock (variant_id, location_id, on_hand, reserved, committed, \
               ring_fenced, safety, incoming, movement_seq, epoch, version, created_us, \
               updated_us) VALUES ($1, 'default', 0, 0, 0, 0, 0, 0, 0, 0, 1, $2, $2)";
    let query = sqlx::query(sql)
        .bind(variant.id.to_string())
        .bind(variant.created_at.as_micros());
    tx.execute(query).await?;
    Ok(true)
}

/// Writes everything of a variant that may change.
pub(super) async fn update_variant(tx: &mut Tx, variant: &Variant) -> sqlx::Result<()> {
    let sql = "UPDATE variants SET external_id = $2, options = $3, barcode = $4, weight_g = $5, \
               status = $6, version = $7, updated_us = $8 WHERE id = $1";
    let fields = &variant.fields;
    let query = sqlx::query(sql)
        .bind(variant.id.to_string())
        .bind(fields.external_id.as_deref())
        .bind(document(&fields.options))
        .bind(fields.barcode.as_deref())
        .bind(fields.weight_g)
        .bind(variant.status.as_str())
        .bind(variant.version)
        .bind(variant.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn find_variant(
    db: &mut AnyConnection,
    id: VariantId,
) -> sqlx::Result<Option<Variant>> {
    let sql = format!("{VARIANT}id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = db.fetch_optional(query).await?;
    row.as_ref().map(read_variant).transpose()
}

/// A merchant's variant by the merchant's own name for it.
pub(super) async fn find_external_variant(
    db: &mut AnyConnection,
    merchant: MerchantId,
    external_id: &str,
) -> sqlx::Result<Option<Variant>> {
    let sql = format!("{VARIANT}merchant_id = $1 AND external_id = $2");
    let query = sqlx::query(AssertSqlSafe(sql))
        .bind(merchant.to_string())
        .bind(external_id);
    let row = db.fetch_optional(query).await?;
    row.as_ref().map(read_variant).transpose()
}

/// The variants of these products, oldest first.
pub(super) async fn variants_of(
    db: &mut AnyConnection,
    products: &[ProductId],
) -> sqlx::Result<Vec<Variant>> {
    let select = format!("{VARIANT}product_id IN");
    let rows = select_in(db, &select, " ORDER BY id", products).await?;
    rows.iter().map(read_variant).collect()
}

fn read_product(row: &AnyRow) -> sqlx::Result<Product> {
    Ok(Product {
        id: parsed(row, 0)?,
        merchant: parsed(row, 1)?,
        fields: ProductFields {
            external_id: row.try_get(2)?,
            title: row.try_get(3)?,
            description: row.try_get(4)?,
            media: decoded(row, 5)?,
            category: row.try_get(6)?,
            attributes: decoded(row, 7)?,
            requires_shipping: row.try_get::<i64, _>(8)? == 1,
        },
        status: word(row, 9, ProductStatus::parse)?,
        version: row.try_get(10)?,
        created_at: time(row, 11)?,
        updated_at: time(row, 12)?,
    })
}

fn read_variant(row: &AnyRow) -> sqlx::Result<Variant> {
    Ok(Variant {
        id: parsed(row, 0)?,
        product: parsed(row, 1)?,
        merchant: parsed(row, 2)?,
        fields: VariantFields {
            external_id: row.try_get(3)?,
            options: decoded(row, 4)?,
            barcode: row.try_get(5)?,
            weight_g: row.try_get(6)?,
        },
        status: word(row, 7, VariantStatus::parse)?,
        version: row.try_get(8)?,
        created_at: time(row, 9)?,
        updated_at: time(row, 10)?,
    })
}

/// A state or kind in a column.
pub(super) fn word<T>(
    row: &AnyRow,
    at: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> sqlx::Result<T> {
    let text: String = row.try_get(at)?;
    parse(&text).ok_or_else(|| sqlx::Error::Decode(text.into()))
}

pub(super) fn time(row: &AnyRow, at: usize) -> sqlx::Result<Timestamp> {
    Ok(Timestamp::from_micros(row.try_get(at)?))
}

/// A document in a column.
fn decoded<T: DeserializeOwned>(row: &AnyRow, at: usize) -> sqlx::Result<T> {
    let text: String = row.try_get(at)?;
    serde_json::from_str(&text).map_err(|err| sqlx::Error::Decode(err.into()))
}

fn document(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers are JSON")
}
