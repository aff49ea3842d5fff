//! Products and variants over HTTP (commerce.md 5.2).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, ETAG, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use sqlx::AnyConnection;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::{Act, is_of_platform, sees};
use super::model::{Medium, Product, ProductFields, ProductStatus, Variant, VariantFields};
use super::service::{self, ProductWish, Step};
use super::store::{self, Filter};
use super::views::{Eye, ProductView, VariantView, product_view, product_views, variant_view};
use super::{bulk, merchants, prices};
use crate::accounts::Principal;
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{
    self as wire, ApiError, Begin, Call, Code, Cursor, Expected, IfMatch, NoBody, Page, Path,
    Problem, Query, Write, given,
};
use crate::ids::{MerchantId, ProductId, VariantId};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change))
        .routes(routes!(publish))
        .routes(routes!(archive))
        .routes(routes!(put))
        .routes(routes!(add_variant))
        .routes(routes!(change_variant))
        .routes(routes!(archive_variant))
        .merge(prices::routes())
        .merge(merchants::routes())
        .merge(bulk::routes())
}

/// A product to be made, or as it shall be.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ProductBody {
    /// May be missing where the path or the caller's key names the shop
    #[serde(default)]
    merchant_id: Option<String>,
    /// 1 to 64 of `[A-Za-z0-9_.:-]`, one of the merchant's products
    #[serde(default)]
    external_id: Option<String>,
    /// 1 to 120 characters
    title: String,
    /// At most 20 000 characters
    #[serde(default)]
    description: String,
    /// At most 20
    #[serde(default)]
    media: Vec<Medium>,
    /// 1 to 80 characters
    #[serde(default)]
    category: Option<String>,
    /// At most 50
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// Missing: it does
    #[serde(default)]
    requires_shipping: Option<bool>,
    /// At most 100. Where a product is replaced: all it shall have; missing leaves them alone
    #[serde(default)]
    variants: Option<Vec<VariantFields>>,
}

impl ProductBody {
    pub(super) fn external_id(&self) -> Option<&str> {
        self.external_id.as_deref()
    }

    /// The shop it is for: named here, or the one whose key asks.
    pub(super) fn merchant(&self, who: &Principal) -> Result<MerchantId, ApiError> {
        named_merchant(self.merchant_id.as_deref(), who)
    }

    pub(super) fn wish(self, merchant: MerchantId) -> ProductWish {
        let fields = ProductFields {
            external_id: self.external_id,
            title: self.title,
            description: self.description,
            media: self.media,
            category: self.category,
            attributes: self.attributes,
            requires_shipping: self.requires_shipping.unwrap_or(true),
        };
        ProductWish {
            merchant,
            fields: fields.tidied(),
            variants: self.variants,
        }
    }
}

/// The shop of this id, or the one whose key asks.
pub(super) fn named_merchant(name: Option<&str>, who: &Principal) -> Result<MerchantId, ApiError> {
    match (name, who.merchant_key()) {
        // An id of another form is a shop that does not exist.
        (Some(id), _) => id.parse().map_err(|_form| ApiError::not_found()),
        (None, Some((own, _))) => Ok(own),
        (None, None) => {
            let detail = "merchant_id must say whose it is";
            Err(ApiError::new(Code::Malformed, detail).at("/merchant_id", "missing"))
        }
    }
}

/// What shall change of a product; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ProductPatch {
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    external_id: Option<Option<String>>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    media: Option<Vec<Medium>>,
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    category: Option<Option<String>>,
    /// All of them
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    requires_shipping: Option<bool>,
}

impl ProductPatch {
    fn apply(self, fields: &mut ProductFields) {
        let now = fields.clone();
        *fields = ProductFields {
            external_id: self.external_id.unwrap_or(now.external_id),
            title: self.title.unwrap_or(now.title),
            description: self.description.unwrap_or(now.description),
            media: self.media.unwrap_or(now.media),
            category: self.category.unwrap_or(now.category),
            attributes: self.attributes.unwrap_or(now.attributes),
            requires_shipping: self.requires_shipping.unwrap_or(now.requires_shipping),
        }
        .tidied();
    }
}

/// What shall change of a variant; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct VariantPatch {
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    external_id: Option<Option<String>>,
    /// All of them
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    barcode: Option<Option<String>>,
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    weight_g: Option<Option<i64>>,
}

impl VariantPatch {
    fn apply(self, fields: &mut VariantFields) {
        let now = fields.clone();
        *fields = VariantFields {
            external_id: self.external_id.unwrap_or(now.external_id),
            options: self.options.unwrap_or(now.options),
            barcode: self.barcode.unwrap_or(now.barcode),
            weight_g: self.weight_g.unwrap_or(now.weight_g),
        };
    }
}

/// Makes a product, a draft.
#[utoipa::path(post, path = "/products", operation_id = "create_product",
    tag = "products", request_body = ProductBody,
    security(("bearer" = [])),
    responses((status = 201, body = ProductView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "products.create", skip_all)]
async fn create(
    State(app): State<App>,
    who: Principal,
    Write { body, call }: Write<ProductBody>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let created = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let wish = body.merchant(&who).map(|shop| body.wish(shop))?;
        let product = service::create(&mut run.tx, &act, wish).await?;
        let product = product.ok_or_else(service::duplicate)?;
        shown(&mut run.tx, StatusCode::CREATED, product).await
    };
    let created = created.await;
    let version = version_of(&created);
    Ok(tag(run.finish(created).await?, version))
}

/// Makes or replaces a product by the merchant's own id for it.
#[utoipa::path(put, path = "/merchants/{id}/products/external/{external_id}", operation_id = "put_product",
    tag = "products",
    params(("id" = String, Path), ("external_id" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "`*` makes it"),
        ("If-Match" = Option<String>, Header, description = "its `ETag` replaces it")),
    request_body = ProductBody, security(("bearer" = [])),
    responses((status = 200, body = ProductView), (status = 201, body = ProductView),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "products.put", skip_all)]
async fn put(
    State(app): State<App>,
    who: Principal,
    Path((shop, external_id)): Path<(MerchantId, String)>,
    expected: Expected,
    Write { mut body, call }: Write<ProductBody>,
) -> Result<Response, ApiError> {
    for (named, in_path, pointer) in [
        (&body.merchant_id, shop.to_string(), "/merchant_id"),
        (&body.external_id, external_id.clone(), "/external_id"),
    ] {
        if named.as_ref().is_some_and(|it| *it != in_path) {
            return Err(ApiError::bounds(Vec::new()).at(pointer, "not_the_path"));
        }
    }
    body.external_id = Some(external_id.clone());
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let saved = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let wish = (body.wish(shop), external_id.as_str(), expected);
        let (status, product) = put_in(&mut run.tx, &act, wish).await?;
        shown(&mut run.tx, status, product).await
    };
    let saved = saved.await;
    let version = version_of(&saved);
    Ok(tag(run.finish(saved).await?, version))
}

async fn put_in(
    tx: &mut Tx,
    act: &Act<'_>,
    (wish, external_id, expected): (ProductWish, &str, Expected),
) -> Result<(StatusCode, Product), ApiError> {
    let there = service::own_external(tx, act, (wish.merchant, external_id)).await?;
    let shop = wish.merchant;
    match (expected, there) {
        (Expected::Nothing, Some(product)) => Err(wire::exists(product.version)),
        (Expected::Nothing, None) => match service::create(tx, act, wish).await? {
            Some(product) => Ok((StatusCode::CREATED, product)),
            // Another one was faster; its row is visible now that it is committed.
            None => {
                let there = store::lock_external(tx, shop, external_id).await?;
                Err(there.map_or_else(service::duplicate, |it| wire::exists(it.version)))
            }
        },
        (Expected::Version(_), None) => Err(ApiError::not_found()),
        (Expected::Version(version), Some(product)) => {
            version.check(product.version)?;
            let (product, _) = service::replace(tx, act, (product, wish)).await?;
            Ok((StatusCode::OK, product))
        }
    }
}

/// Filters of the list of products.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
    merchant_id: Option<String>,
    /// One state; the public sees `active` only
    status: Option<String>,
    /// States, separated by commas
    #[serde(rename = "status[in]")]
    status_in: Option<String>,
    category: Option<String>,
    /// What the title begins with
    q: Option<String>,
    /// RFC 3339
    #[serde(rename = "created_at[gte]")]
    created_from: Option<String>,
    /// RFC 3339
    #[serde(rename = "created_at[lt]")]
    created_before: Option<String>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, ApiError> {
        let malformed =
            |name: &str| ApiError::new(Code::Malformed, format!("{name} cannot be read"));
        let words = self.status.iter().chain(&self.status_in);
        let words = words.flat_map(|list| list.split(','));
        let statuses: Option<Vec<_>> = words
            .map(|word| ProductStatus::parse(word.trim()))
            .collect();
        let statuses = statuses.filter(|list| list.len() <= 2 * ProductStatus::ALL.len());
        let time = |name: &str, text: &Option<String>| match text.as_deref().map(Timestamp::parse) {
            Some(None) => Err(malformed(name)),
            Some(at) => Ok(at),
            None => Ok(None),
        };
        let merchant = self.merchant_id.as_deref().map(str::parse).transpose();
        Ok(Filter {
            merchant: merchant.map_err(|_form| malformed("merchant_id"))?,
            statuses: statuses.ok_or_else(|| malformed("status"))?,
            category: self.category.clone(),
            title: self.q.clone().filter(|q| !q.is_empty()),
            created_from: time("created_at[gte]", &self.created_from)?,
            created_before: time("created_at[lt]", &self.created_before)?,
        })
    }
}

/// Lists products, newest first.
#[utoipa::path(get, path = "/products", operation_id = "list_products",
    tag = "products", params(ListQuery),
    security((), ("bearer" = [])),
    responses((status = 200, body = Page<ProductView>), (status = 400, body = Problem,
        content_type = "application/problem+json")))]
async fn list(
    State(app): State<App>,
    who: Option<Principal>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ProductView>>, ApiError> {
    let mut filter = query.filter()?;
    let limit = wire::limit(query.limit)?;
    let mut db = app.db.readers().acquire().await?;
    let is_inside = match filter.merchant {
        Some(shop) => sees(&mut db, who.as_ref(), shop).await?,
        None => who.as_ref().is_some_and(is_of_platform),
    };
    let cursor = Cursor::of(&app.secrets, &format!("products {is_inside} {filter:?}"));
    let seek = cursor.seek::<ProductId>(query.after.as_deref(), query.before.as_deref())?;
    let mut eye = Eye::Inside;
    if !is_inside {
        eye = Eye::Public(app.clock.now());
        let asks_for_active = filter.statuses.contains(&ProductStatus::Active);
        if !filter.statuses.is_empty() && !asks_for_active {
            return Ok(Json(
                cursor.page(Vec::new(), limit, &seek, |_| String::new()),
            ));
        }
        filter.statuses = vec![ProductStatus::Active];
    }
    let products = store::list_products(&mut db, &filter, (&seek, limit)).await?;
    let views = product_views(&mut db, products, eye).await?;
    let page = cursor.page(views, limit, &seek, |view| view.id.to_string());
    Ok(Json(page))
}

/// Shows a product.
#[utoipa::path(get, path = "/products/{id}", operation_id = "show_product",
    tag = "products", params(("id" = String, Path)),
    security((), ("bearer" = [])),
    responses((status = 200, body = ProductView), (status = 304), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    State(app): State<App>,
    who: Option<Principal>,
    Path(id): Path<ProductId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let mut db = app.db.readers().acquire().await?;
    let product = store::find_product(&mut db, id).await?;
    let product = product.ok_or_else(ApiError::not_found)?;
    let is_inside = sees(&mut db, who.as_ref(), product.merchant).await?;
    if !is_inside && product.status != ProductStatus::Active {
        return Err(ApiError::not_found());
    }
    let eye = if is_inside {
        Eye::Inside
    } else {
        Eye::Public(app.clock.now())
    };
    let view = product_view(&mut db, product, eye).await?;
    let tag = view.tag();
    let mut response = if wire::is_known(&headers, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(view).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(VARY, HeaderValue::from_static("authorization, cookie"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    Ok(response)
}

/// Changes a product.
#[utoipa::path(patch, path = "/products/{id}", operation_id = "change_product",
    tag = "products",
    params(("id" = String, Path), ("If-Match" = String, Header)), request_body = ProductPatch,
    security(("bearer" = [])),
    responses((status = 200, body = ProductView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "products.change", skip_all, fields(product.id = %id))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<ProductId>,
    if_match: IfMatch,
    Write { body, call }: Write<ProductPatch>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let changed = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let edit = |fields: &mut ProductFields| body.apply(fields);
        let product = service::change(&mut run.tx, &act, (id, &if_match), edit).await?;
        shown(&mut run.tx, StatusCode::OK, product).await
    };
    let changed = changed.await;
    let version = version_of(&changed);
    Ok(tag(run.finish(changed).await?, version))
}

/// Puts a product up for sale.
#[utoipa::path(post, path = "/products/{id}/publish", operation_id = "publish_product",
    tag = "products",
    params(("id" = String, Path), ("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 200, body = ProductView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn publish(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<ProductId>,
    if_match: IfMatch,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    step(&app, (&who, &call), (id, &if_match), Step::Publish).await
}

/// Takes a product out of sale.
#[utoipa::path(post, path = "/products/{id}/archive", operation_id = "archive_product",
    tag = "products",
    params(("id" = String, Path), ("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 200, body = ProductView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn archive(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<ProductId>,
    if_match: IfMatch,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    step(&app, (&who, &call), (id, &if_match), Step::Archive).await
}

#[tracing::instrument(name = "products.step", skip_all,
    fields(product.id = %id, product.step = ?step))]
async fn step(
    app: &App,
    (who, call): (&Principal, &Call),
    (id, if_match): (ProductId, &IfMatch),
    step: Step,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let done = async {
        let act = Act { who, call, now };
        let product = service::step(&mut run.tx, &act, (id, if_match), step).await?;
        shown(&mut run.tx, StatusCode::OK, product).await
    };
    let done = done.await;
    let version = version_of(&done);
    Ok(tag(run.finish(done).await?, version))
}

/// Adds a variant to a product.
#[utoipa::path(post, path = "/products/{id}/variants", tag = "products",
    params(("id" = String, Path)), request_body = VariantFields, security(("bearer" = [])),
    responses((status = 201, body = VariantView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "variants.create", skip_all, fields(product.id = %id))]
async fn add_variant(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<ProductId>,
    Write { body, call }: Write<VariantFields>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let added = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let variant = service::add_variant(&mut run.tx, &act, (id, body)).await?;
        shown_variant(&mut run.tx, StatusCode::CREATED, variant).await
    };
    let added = added.await;
    let version = version_of(&added);
    Ok(tag(run.finish(added).await?, version))
}

/// Changes a variant.
#[utoipa::path(patch, path = "/variants/{id}", tag = "products",
    params(("id" = String, Path), ("If-Match" = String, Header)), request_body = VariantPatch,
    security(("bearer" = [])),
    responses((status = 200, body = VariantView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "variants.change", skip_all, fields(variant.id = %id))]
async fn change_variant(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    if_match: IfMatch,
    Write { body, call }: Write<VariantPatch>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let changed = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let edit = |fields: &mut VariantFields| body.apply(fields);
        let variant = service::change_variant(&mut run.tx, &act, (id, &if_match), edit).await?;
        shown_variant(&mut run.tx, StatusCode::OK, variant).await
    };
    let changed = changed.await;
    let version = version_of(&changed);
    Ok(tag(run.finish(changed).await?, version))
}

/// Takes a variant out of sale.
#[utoipa::path(post, path = "/variants/{id}/archive", tag = "products",
    params(("id" = String, Path), ("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 200, body = VariantView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "variants.archive", skip_all, fields(variant.id = %id))]
async fn archive_variant(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    if_match: IfMatch,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let archived = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        let variant = service::archive_variant(&mut run.tx, &act, (id, &if_match)).await?;
        shown_variant(&mut run.tx, StatusCode::OK, variant).await
    };
    let archived = archived.await;
    let version = version_of(&archived);
    Ok(tag(run.finish(archived).await?, version))
}

async fn shown(
    tx: &mut Tx,
    status: StatusCode,
    product: Product,
) -> Result<(StatusCode, ProductView), ApiError> {
    Ok((status, product_view(tx, product, Eye::Inside).await?))
}

async fn shown_variant(
    db: &mut AnyConnection,
    status: StatusCode,
    variant: Variant,
) -> Result<(StatusCode, VariantView), ApiError> {
    Ok((status, variant_view(db, variant).await?))
}

/// A view of a thing that has versions.
pub(super) trait Versioned {
    fn version(&self) -> i64;
}

/// What the tag of an answer will be.
pub(super) fn version_of<V: Versioned, E>(done: &Result<(StatusCode, V), E>) -> Option<i64> {
    done.as_ref().ok().map(|(_, view)| view.version())
}

pub(super) fn tag(response: Response, version: Option<i64>) -> Response {
    match version {
        Some(version) => wire::tagged(response, version),
        None => response,
    }
}
