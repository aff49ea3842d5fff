//! What an order needs to know of variants: whose they are, and whether they are sold.

use std::collections::HashMap;

use sqlx::AnyConnection;
use sqlx::Row as _;
use sqlx::any::AnyRow;

use crate::db::{parsed, select_in};
use crate::ids::{MerchantId, ProductId, VariantId};
use crate::money::Currency;

/// A variant as it is sold.
#[derive(Clone, Debug)]
pub(crate) struct Good {
    pub(crate) product: ProductId,
    pub(crate) merchant: MerchantId,
    pub(crate) title: String,
    /// JSON
    pub(crate) options: String,
    pub(crate) requires_shipping: bool,
    /// Variant and product are active, and the merchant's currency stands.
    pub(crate) is_active: bool,
}

/// What a merchant's orders are made of.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) currency: Currency,
    pub(crate) shipping_fee: i64,
    pub(crate) fee_bps: i64,
    pub(crate) reserve_bps: i64,
    pub(crate) settle_after_days: i64,
    pub(crate) auto_confirm_days: i64,
}

/// Variants by id; those that do not exist are missing.
///
/// # Errors
/// The database's error.
pub(crate) async fn goods(
    db: &mut AnyConnection,
    variants: impl IntoIterator<Item = VariantId>,
) -> sqlx::Result<HashMap<VariantId, Good>> {
    let select = "SELECT v.id, v.merchant_id, p.title, v.options, p.requires_shipping, \
                   v.status, p.status, p.id FROM variants v \
                  JOIN products p ON p.id = v.product_id WHERE v.id IN";
    let mut goods = HashMap::new();
    for row in select_in(db, select, "", variants).await? {
        let is_active = |at| Ok::<_, sqlx::Error>(row.try_get::<String, _>(at)? == "active");
        let good = Good {
            product: parsed(&row, 7)?,
            merchant: parsed(&row, 1)?,
            title: row.try_get(2)?,
            options: row.try_get(3)?,
            requires_shipping: row.try_get::<i64, _>(4)? != 0,
            is_active: is_active(5)? && is_active(6)?,
        };
        goods.insert(parsed(&row, 0)?, good);
    }
    Ok(goods)
}

/// The terms of merchants.
///
/// # Errors
/// The database's error.
pub(crate) async fn terms(
    db: &mut AnyConnection,
    merchants: impl IntoIterator<Item = MerchantId>,
) -> sqlx::Result<HashMap<MerchantId, Terms>> {
    let select = "SELECT id, currency, shipping_fee, fee_bps, reserve_bps, settle_after_days, \
                  auto_confirm_days FROM merchants WHERE id IN";
    let mut terms = HashMap::new();
    for row in select_in(db, select, "", merchants).await? {
        let one = Terms {
            currency: currency(&row, 1)?,
            shipping_fee: row.try_get(2)?,
            fee_bps: row.try_get(3)?,
            reserve_bps: row.try_get(4)?,
            settle_after_days: row.try_get(5)?,
            auto_confirm_days: row.try_get(6)?,
        };
        terms.insert(parsed(&row, 0)?, one);
    }
    Ok(terms)
}

fn currency(row: &AnyRow, at: usize) -> sqlx::Result<Currency> {
    let text: String = row.try_get(at)?;
    Currency::try_from(text).map_err(|err| sqlx::Error::Decode(Box::new(err)))
}
