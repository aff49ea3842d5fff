//! Prices: windows of a variant's list and sale, and which of them is in force.
//!
//! Invariants
//! - Windows of one kind never overlap, so at most one price of a kind is in force.
//! - Of those in force the sale goes before the list (commerce.md 8, O1).
//!
//! Not here: deals, prices of a room, offers (`rooms`).

mod store;

use sqlx::AnyConnection;

pub(super) use self::store::{open_of, prices_of};
use super::model::PriceRow;
use crate::clock::Timestamp;
use crate::ids::VariantId;

/// The price in force of each of these variants, in no order; a variant without one is left out.
///
/// # Errors
/// The database's error.
pub(crate) async fn prices_in_force(
    db: &mut AnyConnection,
    now: Timestamp,
    variants: &[VariantId],
) -> sqlx::Result<Vec<PriceRow>> {
    let open = open_of(db, now, variants).await?;
    Ok(strongest(open))
}

/// Of each variant the price that goes before its others.
pub(super) fn strongest(mut open: Vec<PriceRow>) -> Vec<PriceRow> {
    open.sort_by_key(|row| (row.variant, row.fields.kind));
    open.dedup_by_key(|row| row.variant);
    open
}
