//! Making, changing and taking away price windows. Each function is one write in the caller's
//! transaction; the windows of a variant change behind the lock of its product.

use serde_json::json;

use super::store;
use crate::accounts::Scope;
use crate::catalog::access::Act;
use crate::catalog::merchants::merchant;
use crate::catalog::model::{PRICES_MAX, PriceFields, PriceKind, PriceRow, Product, Variant};
use crate::catalog::service::{Saved, differences, own_variant, touch};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{ApiError, Code, IfMatch};
use crate::ids::{PriceId, VariantId};
use crate::money::Money;

/// A price as it shall be, by which it is recognised when it comes again.
#[derive(Clone, Copy, Debug)]
pub(in crate::catalog) struct PriceWish {
    pub(in crate::catalog) kind: PriceKind,
    pub(in crate::catalog) price: Money,
    pub(in crate::catalog) compare_at: Option<Money>,
    /// `None`: the one in force, or from now on.
    pub(in crate::catalog) starts_at: Option<Timestamp>,
    pub(in crate::catalog) ends_at: Option<Timestamp>,
}

/// Adds a window.
pub(super) async fn create(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, fields): (VariantId, PriceFields),
) -> Result<PriceRow, ApiError> {
    let (product, variant) = own_variant(tx, act, (id, Scope::PricesWrite)).await?;
    add(tx, act, (product, &variant, fields)).await
}

/// Changes a window.
pub(super) async fn change(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (PriceId, &IfMatch),
    edit: impl FnOnce(&mut PriceFields),
) -> Result<PriceRow, ApiError> {
    let (product, row) = own(tx, act, id).await?;
    if_match.check(row.version)?;
    let mut fields = row.fields;
    edit(&mut fields);
    Ok(set(tx, act, (product, row, fields)).await?.0)
}

/// Takes a window away.
pub(super) async fn delete(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (PriceId, &IfMatch),
) -> Result<(), ApiError> {
    let (product, row) = own(tx, act, id).await?;
    if_match.check(row.version)?;
    store::delete(tx, id).await?;
    touch(tx, act, (product, "prices")).await?;
    act.record(tx, id.to_string(), json!({ "deleted": row.fields }))
        .await?;
    Ok(())
}

/// Makes a price of a variant what is wished: the window that begins then, or that is in force.
pub(in crate::catalog) async fn put(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, wish): (VariantId, PriceWish),
) -> Result<(PriceRow, Saved), ApiError> {
    let (product, variant) = own_variant(tx, act, (id, Scope::PricesWrite)).await?;
    let rows = store::prices_of(tx, &[id]).await?;
    let is_it = |row: &&PriceRow| match wish.starts_at {
        Some(starts_at) => row.fields.starts_at == starts_at,
        None => row.fields.is_in_force(act.now),
    };
    let there = rows.iter().filter(|row| row.fields.kind == wish.kind);
    let there = there.filter(is_it).copied().next();
    let starts_at = wish
        .starts_at
        .or_else(|| there.map(|row| row.fields.starts_at));
    let fields = PriceFields {
        kind: wish.kind,
        price: wish.price,
        compare_at: wish.compare_at,
        starts_at: starts_at.unwrap_or_else(|| act.now.whole_millis()),
        ends_at: wish.ends_at,
    };
    match there {
        Some(row) => set(tx, act, (product, row, fields)).await,
        None => {
            let row = add(tx, act, (product, &variant, fields)).await?;
            Ok((row, Saved::Created))
        }
    }
}

/// A price with its locked product, if they are the caller's to change.
async fn own(tx: &mut Tx, act: &Act<'_>, id: PriceId) -> Result<(Product, PriceRow), ApiError> {
    let seen = store::find(tx, id).await?;
    let seen = seen.ok_or_else(ApiError::not_found)?;
    let (product, _) = own_variant(tx, act, (seen.variant, Scope::PricesWrite)).await?;
    // Read again: it may have changed before the product was locked.
    let row = store::find(tx, id).await?;
    Ok((product, row.ok_or_else(ApiError::not_found)?))
}

async fn add(
    tx: &mut Tx,
    act: &Act<'_>,
    (product, variant, fields): (Product, &Variant, PriceFields),
) -> Result<PriceRow, ApiError> {
    check(tx, &product, fields).await?;
    let rows = store::prices_of(tx, &[variant.id]).await?;
    refuse_overlap(&rows, &fields)?;
    if rows.len() >= PRICES_MAX {
        let detail =
            format!("a variant has at most {PRICES_MAX} prices; delete some that are past");
        return Err(ApiError::new(Code::LimitReached, detail));
    }
    let row = PriceRow {
        id: PriceId::new(act.now),
        variant: variant.id,
        fields,
        version: 1,
        created_at: act.now,
        updated_at: act.now,
    };
    store::insert(tx, &row).await?;
    touch(tx, act, (product, "prices")).await?;
    let diff = json!({ "variant_id": variant.id, "created": fields });
    act.record(tx, row.id.to_string(), diff).await?;
    Ok(row)
}

async fn set(
    tx: &mut Tx,
    act: &Act<'_>,
    (product, mut row, fields): (Product, PriceRow, PriceFields),
) -> Result<(PriceRow, Saved), ApiError> {
    if row.fields == fields {
        return Ok((row, Saved::Unchanged));
    }
    check(tx, &product, fields).await?;
    let mut others = store::prices_of(tx, &[row.variant]).await?;
    others.retain(|other| other.id != row.id);
    refuse_overlap(&others, &fields)?;
    let diff = differences(&row.fields, &fields);
    row.fields = fields;
    row.version += 1;
    row.updated_at = act.now;
    store::update(tx, &row).await?;
    touch(tx, act, (product, "prices")).await?;
    act.record(tx, row.id.to_string(), diff).await?;
    Ok((row, Saved::Updated))
}

async fn check(tx: &mut Tx, product: &Product, fields: PriceFields) -> Result<(), ApiError> {
    let shop = merchant(tx, product.merchant).await?;
    fields.check(shop.ok_or_else(ApiError::not_found)?.currency)
}

fn refuse_overlap(others: &[PriceRow], fields: &PriceFields) -> Result<(), ApiError> {
    let Some(other) = others.iter().find(|it| it.fields.overlaps(fields)) else {
        return Ok(());
    };
    let detail = format!("its window overlaps that of {}", other.id);
    Err(ApiError::new(Code::PriceWindowOverlaps, detail))
}
