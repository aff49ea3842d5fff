//! Shelf entries in SQL.

use std::collections::HashMap;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Executor, Row};

use super::Entry;
use crate::clock::Timestamp;
use crate::db::{Tx, parsed, select_in};
use crate::ids::{CreatorId, EntryId, ProductId, RoomId, VariantId};

const COLUMNS: &str = "SELECT id, room_id, product_id, merchant_id, variant_ids, number, position, \
                       hidden, note, creator_bps, affiliate_bps, version, created_us, updated_us \
                       FROM shelf_entries WHERE ";

pub(super) async fn insert(tx: &mut Tx, entry: &Entry) -> sqlx::Result<()> {
    let sql = "INSERT INTO shelf_entries (id, room_id, product_id, merchant_id, variant_ids, \
               number, position, hidden, note, creator_bps, affiliate_bps, version, created_us, \
               updated_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)";
    let query = sqlx::query(sql)
        .bind(entry.id.to_string())
        .bind(entry.room.to_string())
        .bind(entry.product.to_string())
        .bind(entry.merchant.to_string())
        .bind(serde_json::json!(entry.variants).to_string())
        .bind(entry.number)
        .bind(&entry.position)
        .bind(i64::from(entry.is_hidden))
        .bind(entry.note.as_deref())
        .bind(entry.creator_bps)
        .bind(entry.affiliate_bps)
        .bind(entry.version)
        .bind(entry.created_at.as_micros())
        .bind(entry.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// Writes what may change of an entry.
pub(super) async fn update(tx: &mut Tx, entry: &Entry) -> sqlx::Result<()> {
    let sql = "UPDATE shelf_entries SET number = $2, position = $3, hidden = $4, note = $5, \
               version = $6, updated_us = $7 WHERE id = $1";
    let query = sqlx::query(sql)
        .bind(entry.id.to_string())
        .bind(entry.number)
        .bind(&entry.position)
        .bind(i64::from(entry.is_hidden))
        .bind(entry.note.as_deref())
        .bind(entry.version)
        .bind(entry.updated_at.as_micros());
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn set_position(tx: &mut Tx, id: EntryId, position: &str) -> sqlx::Result<()> {
    let sql = "UPDATE shelf_entries SET position = $2 WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string()).bind(position);
    tx.execute(query).await?;
    Ok(())
}

pub(super) async fn delete(tx: &mut Tx, id: EntryId) -> sqlx::Result<()> {
    let query = sqlx::query("DELETE FROM shelf_entries WHERE id = $1");
    tx.execute(query.bind(id.to_string())).await?;
    Ok(())
}

pub(super) async fn find(
    connection: &mut AnyConnection,
    id: EntryId,
) -> sqlx::Result<Option<Entry>> {
    let sql = format!("{COLUMNS} id = $1");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(id.to_string());
    let row = connection.fetch_optional(query).await?;
    row.as_ref().map(read).transpose()
}

/// A room's entries, in their order.
pub(super) async fn list(connection: &mut AnyConnection, room: RoomId) -> sqlx::Result<Vec<Entry>> {
    let sql = format!("{COLUMNS} room_id = $1 ORDER BY position, id");
    let query = sqlx::query(AssertSqlSafe(sql)).bind(room.to_string());
    let rows = connection.fetch_all(query).await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> sqlx::Result<Entry> {
    let variants: String = row.try_get(4)?;
    let variants: Vec<VariantId> =
        serde_json::from_str(&variants).map_err(|err| sqlx::Error::Decode(err.into()))?;
    Ok(Entry {
        id: parsed(row, 0)?,
        room: parsed(row, 1)?,
        product: parsed(row, 2)?,
        merchant: parsed(row, 3)?,
        variants,
        number: row.try_get(5)?,
        position: row.try_get(6)?,
        is_hidden: row.try_get::<i64, _>(7)? == 1,
        note: row.try_get(8)?,
        creator_bps: row.try_get(9)?,
        affiliate_bps: row.try_get(10)?,
        version: row.try_get(11)?,
        created_at: Timestamp::from_micros(row.try_get(12)?),
        updated_at: Timestamp::from_micros(row.try_get(13)?),
    })
}

/// Who brought a buyer to what is on a shelf.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attribution {
    pub(crate) room: RoomId,
    pub(crate) creator: CreatorId,
    pub(crate) product: ProductId,
    pub(crate) creator_bps: i64,
}

/// What these shelf entries bring to whom; those that do not exist are missing.
///
/// # Errors
/// The database's error.
pub(crate) async fn attributions(
    connection: &mut AnyConnection,
    entries: impl IntoIterator<Item = EntryId>,
) -> sqlx::Result<HashMap<EntryId, Attribution>> {
    let select = "SELECT e.id, e.room_id, r.creator_id, e.product_id, e.creator_bps \
                  FROM shelf_entries e JOIN rooms r ON r.id = e.room_id WHERE e.id IN";
    let mut found = HashMap::new();
    for row in select_in(connection, select, "", entries).await? {
        let attribution = Attribution {
            room: parsed(&row, 1)?,
            creator: parsed(&row, 2)?,
            product: parsed(&row, 3)?,
            creator_bps: row.try_get(4)?,
        };
        found.insert(parsed(&row, 0)?, attribution);
    }
    Ok(found)
}
