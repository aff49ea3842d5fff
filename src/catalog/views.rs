//! Products as the wire shows them: to the public those for sale at their price, to the shop and
//! the platform with every window of every price.

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::AnyConnection;

use super::model::{
    PriceKind, PriceRow, Product, ProductFields, ProductStatus, Variant, VariantFields,
    VariantStatus,
};
use super::prices::{self, PriceView};
use super::routes::Versioned;
use super::store;
use crate::app::hex;
use crate::clock::Timestamp;
use crate::http as wire;
use crate::ids::{MerchantId, ProductId, VariantId};
use crate::money::Money;

/// Who looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Eye {
    /// The shop and the platform.
    Inside,
    /// All others, at this moment.
    Public(Timestamp),
}

/// A product.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ProductView {
    #[schema(value_type = String)]
    pub(super) id: ProductId,
    #[schema(value_type = String)]
    merchant_id: MerchantId,
    #[serde(flatten)]
    fields: ProductFields,
    status: ProductStatus,
    variants: Vec<VariantView>,
    /// Rises with each change of the product, its variants and their prices
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// A variant of a product.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct VariantView {
    #[schema(value_type = String)]
    id: VariantId,
    #[schema(value_type = String)]
    product_id: ProductId,
    #[serde(flatten)]
    fields: VariantFields,
    status: VariantStatus,
    /// The price in force; for the public
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<PriceNowView>,
    /// All windows; for the shop
    #[serde(skip_serializing_if = "Option::is_none")]
    prices: Option<Vec<PriceView>>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// What a variant costs.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PriceNowView {
    kind: PriceKind,
    price: Money,
    /// What it is compared with
    compare_at: Option<Money>,
    /// Which row of the list it is; part of the tag only.
    #[serde(skip)]
    row: String,
}

impl From<PriceRow> for PriceNowView {
    fn from(row: PriceRow) -> Self {
        Self {
            kind: row.fields.kind,
            price: row.fields.price,
            compare_at: row.fields.compare_at,
            row: row.id.to_string(),
        }
    }
}

impl ProductView {
    /// The tag of this very view. What the public sees changes with time, too: a window opens
    /// without a change of the product.
    pub(super) fn tag(&self) -> String {
        let shown = self.variants.iter().filter_map(|it| it.price.as_ref());
        let rows: Vec<&str> = shown.map(|price| price.row.as_str()).collect();
        if rows.is_empty() {
            return wire::etag(self.version);
        }
        let digest = hex(&Sha256::digest(rows.join(" ").as_bytes()));
        format!("\"{}-{}\"", self.version, digest.split_at(16).0)
    }
}

impl Versioned for ProductView {
    fn version(&self) -> i64 {
        self.version
    }
}

impl Versioned for VariantView {
    fn version(&self) -> i64 {
        self.version
    }
}

/// The views of products with their variants, in their order, with as many statements as one
/// takes.
pub(super) async fn product_views(
    db: &mut AnyConnection,
    products: Vec<Product>,
    eye: Eye,
) -> sqlx::Result<Vec<ProductView>> {
    let ids: Vec<ProductId> = products.iter().map(|it| it.id).collect();
    let mut variants = store::variants_of(db, &ids).await?;
    if matches!(eye, Eye::Public(_)) {
        variants.retain(|it| it.status == VariantStatus::Active);
    }
    let mut by_product: HashMap<ProductId, Vec<VariantView>> = HashMap::new();
    for view in variant_views(db, variants, eye).await? {
        by_product.entry(view.product_id).or_default().push(view);
    }
    let view = |it: Product| ProductView {
        id: it.id,
        merchant_id: it.merchant,
        fields: it.fields,
        status: it.status,
        variants: by_product.remove(&it.id).unwrap_or_default(),
        version: it.version,
        created_at: it.created_at,
        updated_at: it.updated_at,
    };
    Ok(products.into_iter().map(view).collect())
}

pub(super) async fn product_view(
    db: &mut AnyConnection,
    product: Product,
    eye: Eye,
) -> sqlx::Result<ProductView> {
    let views = product_views(db, vec![product], eye).await?;
    views.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

/// A variant as its shop sees it.
pub(super) async fn variant_view(
    db: &mut AnyConnection,
    variant: Variant,
) -> sqlx::Result<VariantView> {
    let views = variant_views(db, vec![variant], Eye::Inside).await?;
    views.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

async fn variant_views(
    db: &mut AnyConnection,
    variants: Vec<Variant>,
    eye: Eye,
) -> sqlx::Result<Vec<VariantView>> {
    let ids: Vec<VariantId> = variants.iter().map(|it| it.id).collect();
    let rows = match eye {
        Eye::Inside => prices::prices_of(db, &ids).await?,
        Eye::Public(now) => prices::prices_in_force(db, now, &ids).await?,
    };
    let mut by_variant: HashMap<VariantId, Vec<PriceRow>> = HashMap::new();
    for row in rows {
        by_variant.entry(row.variant).or_default().push(row);
    }
    let view = |it: Variant| {
        let rows = by_variant.remove(&it.id).unwrap_or_default();
        let (price, prices) = match eye {
            Eye::Inside => (None, Some(rows.into_iter().map(PriceView::from).collect())),
            Eye::Public(_) => (rows.into_iter().next().map(PriceNowView::from), None),
        };
        VariantView {
            id: it.id,
            product_id: it.product,
            fields: it.fields,
            status: it.status,
            price,
            prices,
            version: it.version,
            created_at: it.created_at,
            updated_at: it.updated_at,
        }
    };
    Ok(variants.into_iter().map(view).collect())
}
