//! Prices over HTTP (commerce.md 5.2), and which is in force.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::service;
use crate::accounts::Principal;
use crate::app::App;
use crate::catalog::access::Act;
use crate::catalog::model::{PriceFields, PriceKind, PriceRow};
use crate::catalog::routes::{Versioned, tag, version_of};
use crate::clock::Timestamp;
use crate::http::{self as wire, ApiError, Begin, IfMatch, NoBody, Path, Problem, Write, given};
use crate::ids::{PriceId, VariantId};
use crate::money::Money;

pub(in crate::catalog) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change, delete))
}

/// A moment in a body: RFC 3339 in any zone, taken to the millisecond.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::catalog) struct Moment(pub(in crate::catalog) Timestamp);

impl TryFrom<String> for Moment {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let at = Timestamp::parse(&text).ok_or("a time must be written as in RFC 3339")?;
        // What is shown has milliseconds: a window that begins where another was shown to end
        // must not overlap it.
        Ok(Self(at.whole_millis()))
    }
}

/// A price to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PriceBody {
    kind: PriceKind,
    /// 1 to 10 000 000 000 minor units of the shop's currency
    price: Money,
    /// What it is compared with, at least the price
    #[serde(default)]
    compare_at: Option<Money>,
    /// Missing: now
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Moment>,
    /// Missing: never
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Moment>,
}

impl PriceBody {
    fn fields(self, now: Timestamp) -> PriceFields {
        let starts_at = self.starts_at.map(|Moment(at)| at);
        PriceFields {
            kind: self.kind,
            price: self.price,
            compare_at: self.compare_at,
            starts_at: starts_at.unwrap_or_else(|| now.whole_millis()),
            ends_at: self.ends_at.map(|Moment(at)| at),
        }
    }
}

/// What shall change of a price; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PricePatch {
    #[serde(default)]
    kind: Option<PriceKind>,
    #[serde(default)]
    price: Option<Money>,
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Money>)]
    compare_at: Option<Option<Money>>,
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Moment>,
    /// Null removes it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Option<Moment>>,
}

impl PricePatch {
    fn apply(self, fields: &mut PriceFields) {
        let ends_at = self.ends_at.map(|it| it.map(|Moment(at)| at));
        *fields = PriceFields {
            kind: self.kind.unwrap_or(fields.kind),
            price: self.price.unwrap_or(fields.price),
            compare_at: self.compare_at.unwrap_or(fields.compare_at),
            starts_at: self.starts_at.map_or(fields.starts_at, |Moment(at)| at),
            ends_at: ends_at.unwrap_or(fields.ends_at),
        };
    }
}

/// A price of a variant: from `starts_at` on, before `ends_at`.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(in crate::catalog) struct PriceView {
    #[schema(value_type = String)]
    id: PriceId,
    #[schema(value_type = String)]
    variant_id: VariantId,
    kind: PriceKind,
    price: Money,
    compare_at: Option<Money>,
    #[schema(value_type = String, format = DateTime)]
    starts_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<PriceRow> for PriceView {
    fn from(row: PriceRow) -> Self {
        Self {
            id: row.id,
            variant_id: row.variant,
            kind: row.fields.kind,
            price: row.fields.price,
            compare_at: row.fields.compare_at,
            starts_at: row.fields.starts_at,
            ends_at: row.fields.ends_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

impl Versioned for PriceView {
    fn version(&self) -> i64 {
        self.version
    }
}

/// Gives a variant a price for a time.
#[utoipa::path(post, path = "/variants/{id}/prices", operation_id = "create_price",
    tag = "prices",
    params(("id" = String, Path)), request_body = PriceBody, security(("bearer" = [])),
    responses((status = 201, body = PriceView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "prices.create", skip_all, fields(variant.id = %id))]
async fn create(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    Write { body, call }: Write<PriceBody>,
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
        let row = service::create(&mut run.tx, &act, (id, body.fields(now))).await?;
        Ok::<_, ApiError>((StatusCode::CREATED, PriceView::from(row)))
    };
    let created = created.await;
    let version = version_of(&created);
    Ok(tag(run.finish(created).await?, version))
}

/// Changes a price.
#[utoipa::path(patch, path = "/prices/{id}", operation_id = "change_price",
    tag = "prices",
    params(("id" = String, Path), ("If-Match" = String, Header)), request_body = PricePatch,
    security(("bearer" = [])),
    responses((status = 200, body = PriceView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "prices.change", skip_all, fields(price.id = %id))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<PriceId>,
    if_match: IfMatch,
    Write { body, call }: Write<PricePatch>,
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
        let edit = |fields: &mut PriceFields| body.apply(fields);
        let row = service::change(&mut run.tx, &act, (id, &if_match), edit).await?;
        Ok::<_, ApiError>((StatusCode::OK, PriceView::from(row)))
    };
    let changed = changed.await;
    let version = version_of(&changed);
    Ok(tag(run.finish(changed).await?, version))
}

/// Takes a price away.
#[utoipa::path(delete, path = "/prices/{id}", operation_id = "delete_price",
    tag = "prices",
    params(("id" = String, Path), ("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "prices.delete", skip_all, fields(price.id = %id))]
async fn delete(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<PriceId>,
    if_match: IfMatch,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.db.begin().await?;
    let now = app.clock.now();
    let act = Act {
        who: &who,
        call: &call,
        now,
    };
    service::delete(&mut tx, &act, (id, &if_match)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
