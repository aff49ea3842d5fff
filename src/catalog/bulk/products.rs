//! A product of a file.

use crate::catalog::access::Act;
use crate::catalog::routes::ProductBody;
use crate::catalog::service::{self, Saved};
use crate::db::Tx;
use crate::http::ApiError;
use crate::ids::MerchantId;

/// Makes the product of this external id what the line says.
pub(super) async fn save(
    tx: &mut Tx,
    act: &Act<'_>,
    (shop, body): (MerchantId, ProductBody),
) -> Result<(String, Saved), ApiError> {
    let external_id = body.external_id().map(ToOwned::to_owned);
    let missing = || ApiError::bounds(Vec::new()).at("/external_id", "missing");
    let external_id = external_id.ok_or_else(missing)?;
    let wish = body.wish(shop);
    let there = service::own_external(tx, act, (shop, &external_id)).await?;
    let (product, saved) = match there {
        Some(product) => service::replace(tx, act, (product, wish)).await?,
        None => {
            let made = service::create(tx, act, wish).await?;
            (made.ok_or_else(service::duplicate)?, Saved::Created)
        }
    };
    Ok((product.id.to_string(), saved))
}
