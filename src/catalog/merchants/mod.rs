//! Merchants: shops, who works in them, what they agreed with creators, and their keys.
//!
//! Invariant: a shop has at least one owner, from the transaction on in which it is made.
//!
//! Not here: their money (`payments`), their products.

mod keys;
mod routes;
mod service;
mod store;
#[cfg(test)]
mod tests;

use sqlx::AnyConnection;

pub(in crate::catalog) use self::routes::routes;
pub(in crate::catalog) use self::store::hold;
pub(crate) use self::store::{merchant, staff_role};
use crate::ids::{CreatorId, MerchantId};

/// The most commission that a creator may ask of a shop: what was agreed with this creator, else
/// what the shop offers to all. `None` without such a shop.
///
/// # Errors
/// The database's error.
#[expect(dead_code, reason = "the shelf of a room will ask")]
pub(crate) async fn commission_cap(
    db: &mut AnyConnection,
    id: MerchantId,
    creator: CreatorId,
) -> sqlx::Result<Option<i64>> {
    if let Some(own) = store::cap_of(db, id, creator).await? {
        return Ok(Some(own));
    }
    Ok(merchant(db, id).await?.map(|shop| shop.commission_cap_bps))
}
