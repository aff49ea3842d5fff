//! Shops, staff and agreements over HTTP (commerce.md 5.1).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, VARY};
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::service::{self, Changes, NewMerchant};
use super::{keys, store};
use crate::accounts::{Principal, Role};
use crate::app::App;
use crate::catalog::access::{Act, StaffRole, is_of_platform};
use crate::catalog::model::{
    AMOUNT, Merchant, MerchantStatus, check_amount_in, check_external_id, check_name,
};
use crate::catalog::routes::{Versioned, tag, version_of};
use crate::clock::Timestamp;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Code, IfMatch, NoBody, Path, Problem, Write,
};
use crate::ids::{AccountId, CreatorId, MerchantId};
use crate::money::{Currency, Money};

/// What a shop may promise a creator.
const CAP_BPS: std::ops::RangeInclusive<i64> = 0..=8_000;
/// What the platform keeps, for good or for a while.
const PLATFORM_BPS: std::ops::RangeInclusive<i64> = 0..=3_000;

pub(in crate::catalog) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(one, change))
        .routes(routes!(put_staff, delete_staff))
        .routes(routes!(put_cap))
        .merge(keys::routes())
}

/// A shop to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct MerchantBody {
    /// 1 to 80 characters
    name: String,
    /// Of all its prices, for good
    #[schema(value_type = String)]
    currency: Currency,
    /// 1 to 64 of `[A-Za-z0-9_.:-]`
    #[serde(default)]
    external_id: Option<String>,
}

/// What shall change of a shop; what is missing stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct MerchantPatch {
    /// 1 to 80 characters
    #[serde(default)]
    name: Option<String>,
    /// Flat, per order
    #[serde(default)]
    shipping_fee: Option<Money>,
    /// What a creator without an agreement may ask, 0 to 8 000
    #[serde(default)]
    commission_cap_bps: Option<i64>,
    /// From delivery until an order counts as received, 1 to 30
    #[serde(default)]
    auto_confirm_days: Option<i64>,
    /// From completion until the money is free, 0 to 31; the platform's to set
    #[serde(default)]
    settle_after_days: Option<i64>,
    /// Of the shop's part, kept back for 30 days, 0 to 3 000; the platform's to set
    #[serde(default)]
    reserve_bps: Option<i64>,
    /// The platform's part, 0 to 3 000; the platform's to set
    #[serde(default)]
    fee_bps: Option<i64>,
}

impl MerchantPatch {
    fn parse(self) -> Result<Changes, ApiError> {
        let mut bounds = Bounds::default();
        if let Some(name) = &self.name {
            check_name(&mut bounds, "/name", name);
        }
        let numbers = [
            ("/commission_cap_bps", self.commission_cap_bps, CAP_BPS),
            ("/auto_confirm_days", self.auto_confirm_days, 1..=30),
            ("/settle_after_days", self.settle_after_days, 0..=31),
            ("/reserve_bps", self.reserve_bps, PLATFORM_BPS),
            ("/fee_bps", self.fee_bps, PLATFORM_BPS),
        ];
        for (pointer, number, allowed) in numbers {
            if let Some(number) = number {
                bounds.number(pointer, number, allowed);
            }
        }
        bounds.check()?;
        if let Some(fee) = self.shipping_fee {
            // Shipping may be free.
            check_amount_in("/shipping_fee", fee, 0..=*AMOUNT.end())?;
        }
        Ok(Changes {
            name: self.name.map(|name| name.trim().into()),
            shipping_fee: self.shipping_fee,
            commission_cap_bps: self.commission_cap_bps,
            auto_confirm_days: self.auto_confirm_days,
            settle_after_days: self.settle_after_days,
            reserve_bps: self.reserve_bps,
            fee_bps: self.fee_bps,
        })
    }
}

/// A shop. The public sees its name.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MerchantView {
    #[schema(value_type = String)]
    id: MerchantId,
    name: String,
    #[serde(flatten)]
    inside: Option<MerchantInsideView>,
}

/// What a shop's owners see of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MerchantInsideView {
    #[schema(value_type = String)]
    currency: Currency,
    status: MerchantStatus,
    /// Flat, per order
    shipping_fee: Money,
    commission_cap_bps: i64,
    auto_confirm_days: i64,
    settle_after_days: i64,
    reserve_bps: i64,
    fee_bps: i64,
    external_id: Option<String>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl MerchantView {
    fn public(shop: Merchant) -> Self {
        Self {
            id: shop.id,
            name: shop.name,
            inside: None,
        }
    }

    fn inside(shop: Merchant) -> Self {
        let inside = MerchantInsideView {
            currency: shop.currency,
            status: shop.status,
            shipping_fee: shop.shipping_fee,
            commission_cap_bps: shop.commission_cap_bps,
            auto_confirm_days: shop.auto_confirm_days,
            settle_after_days: shop.settle_after_days,
            reserve_bps: shop.reserve_bps,
            fee_bps: shop.fee_bps,
            external_id: shop.external_id,
            version: shop.version,
            created_at: shop.created_at,
            updated_at: shop.updated_at,
        };
        Self {
            id: shop.id,
            name: shop.name,
            inside: Some(inside),
        }
    }
}

impl Versioned for MerchantView {
    fn version(&self) -> i64 {
        self.inside.as_ref().map_or(0, |it| it.version)
    }
}

/// Makes a shop, owned by the caller's account.
#[utoipa::path(post, path = "/merchants", operation_id = "create_merchant",
    tag = "merchants", request_body = MerchantBody,
    security(("bearer" = [])),
    responses((status = 201, body = MerchantView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.create", skip_all)]
async fn create(
    State(app): State<App>,
    who: Principal,
    Write { body, call }: Write<MerchantBody>,
) -> Result<Response, ApiError> {
    let is_open = app.config().merchants.open && who.session().is_ok();
    if !is_open && !who.is_platform(Role::Operator) {
        let detail = "shops are made by the platform here";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let mut bounds = Bounds::default();
    check_name(&mut bounds, "/name", &body.name);
    check_external_id(&mut bounds, "/external_id", body.external_id.as_deref());
    bounds.check()?;
    let wish = NewMerchant {
        owner: who.account()?,
        name: body.name.trim().into(),
        currency: body.currency,
        external_id: body.external_id,
    };
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
        let shop = service::create(&mut run.tx, &act, wish).await?;
        Ok::<_, ApiError>((StatusCode::CREATED, MerchantView::inside(shop)))
    };
    let created = created.await;
    let version = version_of(&created);
    Ok(tag(run.finish(created).await?, version))
}

/// Shows a shop.
#[utoipa::path(get, path = "/merchants/{id}", operation_id = "show_merchant",
    tag = "merchants", params(("id" = String, Path)),
    security((), ("bearer" = [])),
    responses((status = 200, body = MerchantView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    State(app): State<App>,
    who: Option<Principal>,
    Path(id): Path<MerchantId>,
) -> Result<Response, ApiError> {
    let mut db = app.db.readers().acquire().await?;
    let shop = store::merchant(&mut db, id).await?;
    let shop = shop.ok_or_else(ApiError::not_found)?;
    let is_inside = match &who {
        Some(who) if is_of_platform(who) => true,
        Some(who) => match (who.merchant_key(), who.session()) {
            (Some((own, _)), _) => own == id,
            (None, Ok((account, _))) => {
                store::staff_role(&mut db, id, account).await? == Some(StaffRole::Owner)
            }
            (None, Err(_key)) => false,
        },
        None => false,
    };
    let version = shop.version;
    let mut response = if is_inside {
        wire::tagged(Json(MerchantView::inside(shop)).into_response(), version)
    } else {
        Json(MerchantView::public(shop)).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-cache"));
    headers.insert(
        VARY,
        http::HeaderValue::from_static("authorization, cookie"),
    );
    Ok(response)
}

/// Changes a shop.
#[utoipa::path(patch, path = "/merchants/{id}", operation_id = "change_merchant",
    tag = "merchants",
    params(("id" = String, Path), ("If-Match" = String, Header)), request_body = MerchantPatch,
    security(("bearer" = [])),
    responses((status = 200, body = MerchantView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.change", skip_all, fields(merchant.id = %id))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<MerchantId>,
    if_match: IfMatch,
    Write { body, call }: Write<MerchantPatch>,
) -> Result<Response, ApiError> {
    let changes = body.parse()?;
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
        let shop = service::change(&mut run.tx, &act, (id, &if_match), changes).await?;
        Ok::<_, ApiError>((StatusCode::OK, MerchantView::inside(shop)))
    };
    let changed = changed.await;
    let version = version_of(&changed);
    Ok(tag(run.finish(changed).await?, version))
}

/// A role to be given.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct StaffBody {
    role: StaffRole,
}

/// Who works in a shop, and as what.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct StaffView {
    #[schema(value_type = String)]
    merchant_id: MerchantId,
    #[schema(value_type = String)]
    account_id: AccountId,
    role: StaffRole,
}

/// Gives an account a role in a shop.
#[utoipa::path(put, path = "/merchants/{id}/staff/{account_id}", tag = "merchants",
    params(("id" = String, Path), ("account_id" = String, Path)), request_body = StaffBody,
    security(("bearer" = [])),
    responses((status = 200, body = StaffView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.put_staff", skip_all, fields(merchant.id = %id))]
async fn put_staff(
    State(app): State<App>,
    who: Principal,
    Path((id, account)): Path<(MerchantId, AccountId)>,
    Write { body, call }: Write<StaffBody>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let put = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        service::put_staff(&mut run.tx, &act, (id, account, body.role)).await?;
        let view = StaffView {
            merchant_id: id,
            account_id: account,
            role: body.role,
        };
        Ok::<_, ApiError>((StatusCode::OK, view))
    };
    let put = put.await;
    run.finish(put).await
}

/// Takes an account out of a shop.
#[utoipa::path(delete, path = "/merchants/{id}/staff/{account_id}", tag = "merchants",
    params(("id" = String, Path), ("account_id" = String, Path)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.delete_staff", skip_all, fields(merchant.id = %id))]
async fn delete_staff(
    State(app): State<App>,
    who: Principal,
    Path((id, account)): Path<(MerchantId, AccountId)>,
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
    service::delete_staff(&mut tx, &act, (id, account)).await?;
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a creator may ask.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CommissionBody {
    /// 0 to 8 000
    cap_bps: i64,
}

/// What a shop agreed with a creator.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CommissionView {
    #[schema(value_type = String)]
    merchant_id: MerchantId,
    #[schema(value_type = String)]
    creator_id: CreatorId,
    cap_bps: i64,
}

/// Agrees with a creator on the most commission it may ask.
#[utoipa::path(put, path = "/merchants/{id}/commission/{creator_id}", operation_id = "put_commission",
    tag = "merchants",
    params(("id" = String, Path), ("creator_id" = String, Path)), request_body = CommissionBody,
    security(("bearer" = [])),
    responses((status = 200, body = CommissionView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "merchants.put_commission", skip_all, fields(merchant.id = %id))]
async fn put_cap(
    State(app): State<App>,
    who: Principal,
    Path((id, creator)): Path<(MerchantId, CreatorId)>,
    Write { body, call }: Write<CommissionBody>,
) -> Result<Response, ApiError> {
    let mut bounds = Bounds::default();
    bounds.number("/cap_bps", body.cap_bps, CAP_BPS);
    bounds.check()?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let put = async {
        let act = Act {
            who: &who,
            call: &call,
            now,
        };
        service::put_cap(&mut run.tx, &act, (id, creator, body.cap_bps)).await?;
        let view = CommissionView {
            merchant_id: id,
            creator_id: creator,
            cap_bps: body.cap_bps,
        };
        Ok::<_, ApiError>((StatusCode::OK, view))
    };
    let put = put.await;
    run.finish(put).await
}
