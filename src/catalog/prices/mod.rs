//! Prices: windows of a variant's list and sale, and which of them is in force.
//!
//! Invariants
//! - Windows of one kind never overlap, so at most one price of a kind is in force.
//! - Of those in force the sale goes before the list (commerce.md 8, O1).
//!
//! Not here: deals, prices of a room, offers (`rooms`).

mod routes;
mod service;
mod store;
#[cfg(test)]
mod tests;

use sqlx::AnyConnection;

pub(super) use self::routes::{Moment, PriceView, routes};
pub(super) use self::service::{PriceWish, put};
pub(super) use self::store::prices_of;
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
    let mut open = store::open_of(db, now, variants).await?;
    rank(&mut open);
    open.dedup_by_key(|row| row.variant);
    Ok(open)
}

/// Puts the prices of each variant in the order in which they go before each other.
fn rank(open: &mut [PriceRow]) {
    open.sort_by_key(|row| (row.variant, row.fields.kind));
}
