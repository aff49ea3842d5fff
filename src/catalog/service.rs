//! Products and variants: making, changing, publishing, archiving. Each function is one write in
//! the caller's transaction, with its event and its audit row.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::access::{Act, may};
use super::model::{
    Product, ProductFields, ProductStatus, VARIANTS_KEPT_MAX, VARIANTS_MAX, Variant, VariantFields,
    VariantStatus,
};
use super::{prices, store};
use crate::accounts::Scope;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::{ApiError, Bounds, Code, IfMatch};
use crate::ids::{MerchantId, ProductId, VariantId};

/// Characters of a text that the audit log shows.
const AUDITED_CHARS_MAX: usize = 200;

/// A product as it shall be.
#[derive(Clone, Debug)]
pub(super) struct ProductWish {
    pub(super) merchant: MerchantId,
    pub(super) fields: ProductFields,
    /// `None`: those that are there stay.
    pub(super) variants: Option<Vec<VariantFields>>,
}

/// What a write by an external id came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Saved {
    Created,
    Updated,
    Unchanged,
}

impl ProductWish {
    fn check(&self) -> Result<(), ApiError> {
        let mut bounds = Bounds::default();
        self.fields.check(&mut bounds);
        let variants = self.variants.as_deref().unwrap_or_default();
        if variants.len() > VARIANTS_MAX {
            bounds.add("/variants", "length");
        }
        for (n, variant) in variants.iter().take(VARIANTS_MAX).enumerate() {
            variant.check(&mut bounds, &format!("/variants/{n}"));
        }
        bounds.check()
    }
}

/// Makes a draft with its variants; `None` if the merchant has another product of this external id.
pub(super) async fn create(
    tx: &mut Tx,
    act: &Act<'_>,
    wish: ProductWish,
) -> Result<Option<Product>, ApiError> {
    may(tx, act.who, wish.merchant, Scope::ProductsWrite).await?;
    wish.check()?;
    let product = Product {
        id: ProductId::new(act.now),
        merchant: wish.merchant,
        fields: wish.fields,
        status: ProductStatus::Draft,
        version: 1,
        created_at: act.now,
        updated_at: act.now,
    };
    if !store::insert_product(tx, &product).await? {
        return Ok(None);
    }
    for fields in wish.variants.unwrap_or_default() {
        insert_variant(tx, act, (&product, fields)).await?;
    }
    tell(tx, act, (Kind::ProductCreated, &product, "product")).await?;
    let diff = json!({ "title": product.fields.title, "external_id": product.fields.external_id });
    act.record(tx, product.id.to_string(), diff).await?;
    Ok(Some(product))
}

/// Changes what is said of a product.
pub(super) async fn change(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (ProductId, &IfMatch),
    edit: impl FnOnce(&mut ProductFields),
) -> Result<Product, ApiError> {
    let product = own(tx, act, (id, Scope::ProductsWrite)).await?;
    if_match.check(product.version)?;
    let mut fields = product.fields.clone();
    edit(&mut fields);
    let mut bounds = Bounds::default();
    fields.check(&mut bounds);
    bounds.check()?;
    Ok(set_fields(tx, act, product, fields).await?.0)
}

/// Makes a locked product and its variants what is wished.
pub(super) async fn replace(
    tx: &mut Tx,
    act: &Act<'_>,
    (product, wish): (Product, ProductWish),
) -> Result<(Product, Saved), ApiError> {
    wish.check()?;
    let (mut product, mut is_changed) = set_fields(tx, act, product, wish.fields).await?;
    if let Some(wanted) = wish.variants
        && set_variants(tx, act, (&product, wanted)).await?
    {
        if !is_changed {
            product = touch(tx, act, (product, "variants")).await?;
        }
        is_changed = true;
    }
    let saved = if is_changed {
        Saved::Updated
    } else {
        Saved::Unchanged
    };
    Ok((product, saved))
}

/// The locked product of an external id, of a shop that is the caller's.
pub(super) async fn own_external(
    tx: &mut Tx,
    act: &Act<'_>,
    (merchant, external_id): (MerchantId, &str),
) -> Result<Option<Product>, ApiError> {
    may(tx, act.who, merchant, Scope::ProductsWrite).await?;
    Ok(store::lock_external(tx, merchant, external_id).await?)
}

/// The locked product, if it is the caller's to change.
async fn own(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, scope): (ProductId, Scope),
) -> Result<Product, ApiError> {
    let product = store::lock_product(tx, id).await?;
    let product = product.ok_or_else(ApiError::not_found)?;
    may(tx, act.who, product.merchant, scope).await?;
    Ok(product)
}

/// Where a product goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Publish,
    Archive,
}

/// Brings a product before the public, or takes it away.
pub(super) async fn step(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (ProductId, &IfMatch),
    step: Step,
) -> Result<Product, ApiError> {
    let mut product = own(tx, act, (id, Scope::ProductsWrite)).await?;
    if_match.check(product.version)?;
    let (to, kind) = match step {
        Step::Publish => (ProductStatus::Active, Kind::ProductUpdated),
        Step::Archive => (ProductStatus::Archived, Kind::ProductArchived),
    };
    if product.status == to {
        let detail = format!("the product is {}", to.as_str());
        return Err(ApiError::new(Code::InvalidState, detail));
    }
    if step == Step::Publish && !is_priced(tx, act, id).await? {
        let detail = "a product for sale has at least one variant with a list price";
        return Err(ApiError::new(Code::NotSellable, detail));
    }
    let from = std::mem::replace(&mut product.status, to);
    product.version += 1;
    product.updated_at = act.now;
    store::update_product(tx, &product).await?;
    tell(tx, act, (kind, &product, "status")).await?;
    let diff = json!({ "status": [from.as_str(), to.as_str()] });
    act.record(tx, id.to_string(), diff).await?;
    Ok(product)
}

/// Whether some variant has a list price, now or later.
async fn is_priced(tx: &mut Tx, act: &Act<'_>, id: ProductId) -> sqlx::Result<bool> {
    let variants = store::variants_of(tx, &[id]).await?;
    let active = variants
        .iter()
        .filter(|it| it.status == VariantStatus::Active);
    let active: Vec<_> = active.map(|it| it.id).collect();
    let prices = prices::prices_of(tx, &active).await?;
    Ok(prices
        .iter()
        .any(|row| row.fields.is_list_price_from(act.now)))
}

/// Adds a variant to a product.
pub(super) async fn add_variant(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, fields): (ProductId, VariantFields),
) -> Result<Variant, ApiError> {
    let product = own(tx, act, (id, Scope::ProductsWrite)).await?;
    let mut bounds = Bounds::default();
    fields.check(&mut bounds, "");
    bounds.check()?;
    check_count(&store::variants_of(tx, &[id]).await?, 1)?;
    let variant = insert_variant(tx, act, (&product, fields)).await?;
    touch(tx, act, (product, "variants")).await?;
    Ok(variant)
}

/// Changes what is said of a variant.
pub(super) async fn change_variant(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (VariantId, &IfMatch),
    edit: impl FnOnce(&mut VariantFields),
) -> Result<Variant, ApiError> {
    let (product, variant) = own_variant(tx, act, (id, Scope::ProductsWrite)).await?;
    if_match.check(variant.version)?;
    let mut wanted = variant.clone();
    edit(&mut wanted.fields);
    let mut bounds = Bounds::default();
    wanted.fields.check(&mut bounds, "");
    bounds.check()?;
    let (variant, is_changed) = set_variant(tx, act, (variant, wanted)).await?;
    if is_changed {
        touch(tx, act, (product, "variants")).await?;
    }
    Ok(variant)
}

/// Takes a variant out of sale.
pub(super) async fn archive_variant(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (VariantId, &IfMatch),
) -> Result<Variant, ApiError> {
    let (product, variant) = own_variant(tx, act, (id, Scope::ProductsWrite)).await?;
    if_match.check(variant.version)?;
    if variant.status == VariantStatus::Archived {
        return Err(ApiError::new(Code::InvalidState, "the variant is archived"));
    }
    let wanted = Variant {
        status: VariantStatus::Archived,
        ..variant.clone()
    };
    let (variant, _) = set_variant(tx, act, (variant, wanted)).await?;
    touch(tx, act, (product, "variants")).await?;
    Ok(variant)
}

/// A variant and its locked product, if they are the caller's to change.
pub(super) async fn own_variant(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, scope): (VariantId, Scope),
) -> Result<(Product, Variant), ApiError> {
    let seen = store::find_variant(tx, id).await?;
    let seen = seen.ok_or_else(ApiError::not_found)?;
    let product = own(tx, act, (seen.product, scope)).await?;
    // Read again: it may have changed before the product was locked.
    let variant = store::find_variant(tx, id).await?;
    Ok((product, variant.ok_or_else(ApiError::not_found)?))
}

/// Writes what is said of a locked product, if it differs.
async fn set_fields(
    tx: &mut Tx,
    act: &Act<'_>,
    mut product: Product,
    fields: ProductFields,
) -> Result<(Product, bool), ApiError> {
    if product.fields == fields {
        return Ok((product, false));
    }
    let diff = differences(&product.fields, &fields);
    product.fields = fields;
    product.version += 1;
    product.updated_at = act.now;
    store::update_product(tx, &product).await.map_err(refused)?;
    tell(tx, act, (Kind::ProductUpdated, &product, "product")).await?;
    act.record(tx, product.id.to_string(), diff).await?;
    Ok((product, true))
}

/// Makes the variants of a locked product those that are wanted: known ones by their external id,
/// else by their options; what is not wanted is archived. Whether anything changed.
async fn set_variants(
    tx: &mut Tx,
    act: &Act<'_>,
    (product, wanted): (&Product, Vec<VariantFields>),
) -> Result<bool, ApiError> {
    let mut left = store::variants_of(tx, &[product.id]).await?;
    let all = left.len();
    let mut is_changed = false;
    let mut new = Vec::new();
    for fields in wanted {
        let is_it = |it: &Variant| match &fields.external_id {
            Some(_) => it.fields.external_id == fields.external_id,
            None => it.fields.external_id.is_none() && it.fields.options == fields.options,
        };
        match left.iter().position(is_it) {
            Some(at) => {
                let variant = left.swap_remove(at);
                let wish = Variant {
                    fields,
                    status: VariantStatus::Active,
                    ..variant.clone()
                };
                is_changed |= set_variant(tx, act, (variant, wish)).await?.1;
            }
            None => new.push(fields),
        }
    }
    left.retain(|it| it.status == VariantStatus::Active);
    for variant in left {
        let wish = Variant {
            status: VariantStatus::Archived,
            ..variant.clone()
        };
        is_changed |= set_variant(tx, act, (variant, wish)).await?.1;
    }
    if all + new.len() > VARIANTS_KEPT_MAX {
        return Err(too_many_kept());
    }
    for fields in new {
        insert_variant(tx, act, (product, fields)).await?;
        is_changed = true;
    }
    Ok(is_changed)
}

async fn insert_variant(
    tx: &mut Tx,
    act: &Act<'_>,
    (product, fields): (&Product, VariantFields),
) -> Result<Variant, ApiError> {
    let variant = Variant {
        id: VariantId::new(act.now),
        product: product.id,
        merchant: product.merchant,
        fields,
        status: VariantStatus::Active,
        version: 1,
        created_at: act.now,
        updated_at: act.now,
    };
    if !store::insert_variant(tx, &variant).await? {
        return Err(duplicate());
    }
    let diff = json!({ "product_id": product.id, "external_id": variant.fields.external_id });
    act.record(tx, variant.id.to_string(), diff).await?;
    Ok(variant)
}

/// Writes a variant of a locked product, if it differs.
async fn set_variant(
    tx: &mut Tx,
    act: &Act<'_>,
    (from, mut to): (Variant, Variant),
) -> Result<(Variant, bool), ApiError> {
    if from.fields == to.fields && from.status == to.status {
        return Ok((from, false));
    }
    let mut diff = differences(&from.fields, &to.fields);
    if from.status != to.status {
        diff["status"] = json!([from.status.as_str(), to.status.as_str()]);
    }
    to.version = from.version + 1;
    to.updated_at = act.now;
    store::update_variant(tx, &to).await.map_err(refused)?;
    act.record(tx, to.id.to_string(), diff).await?;
    Ok((to, true))
}

/// A new version of a locked product of which a part changed.
pub(super) async fn touch(
    tx: &mut Tx,
    act: &Act<'_>,
    (mut product, part): (Product, &'static str),
) -> sqlx::Result<Product> {
    product.version += 1;
    product.updated_at = act.now;
    store::update_product(tx, &product).await?;
    tell(tx, act, (Kind::ProductUpdated, &product, part)).await?;
    Ok(product)
}

async fn tell(
    tx: &mut Tx,
    act: &Act<'_>,
    (kind, product, part): (Kind, &Product, &'static str),
) -> sqlx::Result<()> {
    let event = NewEvent {
        kind,
        subject_kind: SubjectKind::Product,
        subject_id: product.id.to_string(),
        streams: vec![Stream::Merchant(product.merchant)],
        data: json!({
            "merchant_id": product.merchant,
            "external_id": product.fields.external_id,
            "title": product.fields.title,
            "status": product.status,
            "version": product.version,
            "part": part,
        }),
    };
    events::append(tx, act.now, event).await?;
    Ok(())
}

/// Refuses more variants than a product may have.
fn check_count(there: &[Variant], more: usize) -> Result<(), ApiError> {
    let active = there.iter().filter(|it| it.status == VariantStatus::Active);
    if active.count() + more > VARIANTS_MAX {
        return Err(ApiError::bounds(Vec::new()).at("/variants", "length"));
    }
    if there.len() + more > VARIANTS_KEPT_MAX {
        return Err(too_many_kept());
    }
    Ok(())
}

fn too_many_kept() -> ApiError {
    let detail = format!("a product keeps at most {VARIANTS_KEPT_MAX} variants, archived ones too");
    ApiError::new(Code::LimitReached, detail)
}

/// The fields that differ, each as `[from, to]`.
pub(super) fn differences<T: Serialize>(from: &T, to: &T) -> Value {
    let fields = |it: &T| match serde_json::to_value(it) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (from, to) = (fields(from), fields(to));
    let changed = to.into_iter().filter_map(|(name, value)| {
        let was = from.get(&name).cloned().unwrap_or_default();
        (was != value).then(|| (name, json!([shortened(was), shortened(value)])))
    });
    Value::Object(changed.collect())
}

fn shortened(value: Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > AUDITED_CHARS_MAX => {
            let head: String = text.chars().take(AUDITED_CHARS_MAX).collect();
            Value::String(format!("{head}…"))
        }
        value => value,
    }
}

pub(super) fn duplicate() -> ApiError {
    let detail = "the merchant has another one of this external id";
    ApiError::new(Code::DuplicateExternalId, detail).at("/external_id", "taken")
}

/// Only external ids are unique.
fn refused(err: sqlx::Error) -> ApiError {
    let is_taken = err
        .as_database_error()
        .is_some_and(|err| err.is_unique_violation());
    if is_taken { duplicate() } else { err.into() }
}
