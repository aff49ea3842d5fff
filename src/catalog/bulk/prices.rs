//! A price of a file.

use serde::Deserialize;

use crate::accounts::Scope;
use crate::catalog::access::{Act, may};
use crate::catalog::model::PriceKind;
use crate::catalog::prices::{Moment, PriceWish, put};
use crate::catalog::service::Saved;
use crate::catalog::store;
use crate::db::Tx;
use crate::http::ApiError;
use crate::ids::MerchantId;
use crate::money::Money;

/// A price of the variant of this external id: the window that begins at `starts_at`, else the one
/// in force, else one from now on.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BulkPriceBody {
    /// May be missing where the caller's key names the shop
    #[serde(default)]
    pub(super) merchant_id: Option<String>,
    /// Of the variant
    external_id: String,
    kind: PriceKind,
    price: Money,
    #[serde(default)]
    compare_at: Option<Money>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Moment>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Moment>,
}

pub(super) async fn save(
    tx: &mut Tx,
    act: &Act<'_>,
    (shop, body): (MerchantId, BulkPriceBody),
) -> Result<(String, Saved), ApiError> {
    may(tx, act.who, shop, Scope::PricesWrite).await?;
    let variant = store::find_external_variant(tx, shop, &body.external_id).await?;
    let variant = variant.ok_or_else(ApiError::not_found)?;
    let wish = PriceWish {
        kind: body.kind,
        price: body.price,
        compare_at: body.compare_at,
        starts_at: body.starts_at.map(|Moment(at)| at),
        ends_at: body.ends_at.map(|Moment(at)| at),
    };
    let (row, saved) = put(tx, act, (variant.id, wish)).await?;
    Ok((row.id.to_string(), saved))
}
