//! Checkouts, orders and their payments over HTTP (commerce.md 5.6, payments.md 4).

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::close::{self, CloseError};
use super::model::{LINES_MAX, LineWish, QUANTITY, ShipTo, Wish};
use super::ship::{self, Parcel};
use super::store::{self, StandingOrder};
use super::views::{CheckoutView, OrderView, PaymentView, ShipmentView, ShippedBody};
use super::{complete, pay, place};
use crate::accounts::{Entry, Principal, Role, Scope, audit};
use crate::app::App;
use crate::catalog::{self, Released};
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Code, Cursor, Kept, NoBody, Page, Path, Problem, Query,
    Seek, Write,
};
use crate::ids::{AccountId, CheckoutId, EntryId, OrderId, RoomId, ShipmentId};
use crate::money::Money;
use crate::rooms::PriceWish;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(check_out))
        .routes(routes!(order, list))
        .routes(routes!(one))
        .routes(routes!(one_checkout))
        .routes(routes!(cancel))
        .routes(routes!(start_payment))
        .routes(routes!(add_shipment))
        .routes(routes!(set_delivered))
        .routes(routes!(confirm))
}

const OFFER_BYTES_MAX: usize = 1_024;
const PLAYBACK_CHARS_MAX: usize = 128;

/// One variant to be bought.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct LineBody {
    #[schema(value_type = String)]
    variant_id: String,
    /// 1 to 999
    quantity: i64,
    /// What the buyer saw, as a signed offer: honoured while the buyer can still be seeing it
    #[serde(default)]
    offer: Option<String>,
    /// What the buyer saw, without an offer; another price now is refused
    #[serde(default)]
    unit_price: Option<Money>,
    /// The room it is bought in
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    room_id: Option<RoomId>,
    /// The shelf entry it is bought from
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    entry_id: Option<EntryId>,
    /// The room time the buyer sees, microseconds
    #[serde(default)]
    at_us: Option<i64>,
    /// The WHEP session, or the `s` of LL-HLS
    #[serde(default)]
    playback_id: Option<String>,
}

impl LineBody {
    fn parse(self, n: usize) -> Result<LineWish, ApiError> {
        if self.offer.is_none() && self.unit_price.is_none() {
            let detail = "give offer or unit_price: what the buyer saw";
            let refusal = ApiError::new(Code::PriceUnconfirmed, detail);
            return Err(refusal.at(format!("/lines/{n}/offer"), "missing"));
        }
        // An id of another form is a variant that does not exist.
        let not_sellable = |_form| {
            let detail = format!("there is no variant {:?}", self.variant_id);
            let refusal = ApiError::new(Code::NotSellable, detail);
            refusal.at(format!("/lines/{n}/variant_id"), "unknown")
        };
        Ok(LineWish {
            quantity: self.quantity,
            price: PriceWish {
                variant: self.variant_id.parse().map_err(not_sellable)?,
                room: self.room_id,
                offer: self.offer,
                unit_price: self.unit_price,
                at_us: self.at_us,
                playback_id: self.playback_id,
            },
            entry: self.entry_id,
        })
    }
}

/// What somebody wants to buy.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CheckoutBody {
    /// 1 to 100
    lines: Vec<LineBody>,
    #[serde(default)]
    ship_to: Option<ShipTo>,
    /// Of the caller's own making, unique for the buyer; 1 to 64 characters
    #[serde(default)]
    client_ref: Option<String>,
}

impl CheckoutBody {
    fn parse(self, buyer: AccountId, is_single: bool) -> Result<Wish, ApiError> {
        let mut bounds = Bounds::default();
        if self.lines.len() > LINES_MAX {
            bounds.add("/lines", "length");
        }
        for (n, line) in self.lines.iter().enumerate() {
            bounds.number(&format!("/lines/{n}/quantity"), line.quantity, QUANTITY);
            let offer = line.offer.as_deref().unwrap_or_default();
            bounds.number(
                &format!("/lines/{n}/offer"),
                offer.len(),
                0..=OFFER_BYTES_MAX,
            );
            let playback = line.playback_id.as_deref().unwrap_or_default();
            bounds.text(
                &format!("/lines/{n}/playback_id"),
                playback,
                0..=PLAYBACK_CHARS_MAX,
            );
        }
        if let Some(text) = &self.client_ref {
            bounds.text("/client_ref", text, 1..=64);
        }
        if let Some(to) = &self.ship_to {
            bounds.text("/ship_to/name", &to.name, 1..=80);
            bounds.text("/ship_to/phone", &to.phone, 3..=32);
            bounds.text("/ship_to/region", &to.region, 1..=120);
            bounds.text("/ship_to/address", &to.address, 1..=200);
            let postcode = to.postcode.as_deref().unwrap_or_default();
            bounds.text("/ship_to/postcode", postcode, 0..=16);
        }
        bounds.check()?;
        let lines = self.lines.into_iter().enumerate();
        let lines = lines.map(|(n, line)| line.parse(n));
        Ok(Wish {
            buyer,
            lines: lines.collect::<Result<_, _>>()?,
            ship_to: self.ship_to,
            client_ref: self.client_ref,
            is_single,
        })
    }
}

/// How a checkout is to be paid.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct PaymentBody {
    provider: Provider,
    method: Method,
}

/// Who moves the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Provider {
    Wallet,
    Alipay,
    Stripe,
}

/// By which way of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum Method {
    Balance,
    Qr,
    Page,
    Wap,
    Card,
}

/// Places a checkout: orders of one or more merchants, all or none. Stock is held until
/// `pay_before_at`.
#[utoipa::path(post, path = "/checkouts", tag = "orders",
    params(("Idempotency-Key" = String, Header)),
    request_body = CheckoutBody, security(("bearer" = [])),
    responses((status = 201, body = CheckoutView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.check_out", skip_all)]
async fn check_out(
    State(app): State<App>,
    who: Principal,
    Write { body, call }: Write<CheckoutBody>,
) -> Result<Response, ApiError> {
    let wish = body.parse(who.account()?, false)?;
    call.require_key()?;
    let write = Kept::enter(&app, &who.name(), call).await?;
    Ok(place::place(&app, write, wish).await?.into_response())
}

/// Places an order of one merchant.
#[utoipa::path(post, path = "/orders", tag = "orders",
    params(("Idempotency-Key" = String, Header)),
    request_body = CheckoutBody, security(("bearer" = [])),
    responses((status = 201, body = CheckoutView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.place", skip_all)]
async fn order(
    State(app): State<App>,
    who: Principal,
    Write { body, call }: Write<CheckoutBody>,
) -> Result<Response, ApiError> {
    let wish = body.parse(who.account()?, true)?;
    call.require_key()?;
    let write = Kept::enter(&app, &who.name(), call).await?;
    Ok(place::place(&app, write, wish).await?.into_response())
}

/// Which page of orders.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
}

/// Lists the caller's own orders, newest first.
#[utoipa::path(get, path = "/orders", tag = "orders", params(ListQuery),
    security(("bearer" = [])),
    responses((status = 200, body = Page<OrderView>), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn list(
    State(app): State<App>,
    who: Principal,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<OrderView>>, ApiError> {
    let buyer = who.account()?;
    let limit = wire::limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("orders {buyer}"));
    let seek: Seek<OrderId> = cursor.seek(query.after.as_deref(), query.before.as_deref())?;
    let (test, order, from) = match seek {
        // Behind every id: `p` comes after `o`.
        Seek::First => ("<", "DESC", "p".into()),
        Seek::After(id) => ("<", "DESC", id.to_string()),
        Seek::Before(id) => (">", "ASC", id.to_string()),
    };
    let mut reader = app.db.readers().acquire().await?;
    let walk = (test, order, from.as_str());
    let orders = store::orders_of(&mut reader, buyer, walk, i64::from(limit) + 1).await?;
    let views = orders.into_iter().map(OrderView::from).collect();
    Ok(Json(cursor.page(
        views,
        limit,
        &seek,
        |view: &OrderView| view.id.to_string(),
    )))
}

/// Shows an order of the caller or of the caller's shop; of anybody to an operator or auditor.
#[utoipa::path(get, path = "/orders/{id}", tag = "orders", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = OrderView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let found = store::order(&mut reader, "", id).await?;
    let order = found.ok_or_else(ApiError::not_found)?;
    if !may_see(&who, order.buyer) {
        catalog::may(&mut reader, &who, order.merchant, Scope::OrdersRead)
            .await
            .map_err(|_other| ApiError::not_found())?;
    }
    Ok(Json(order.into()))
}

/// Shows a checkout of the caller; of anybody to an operator or auditor.
#[utoipa::path(get, path = "/checkouts/{id}", tag = "orders", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = CheckoutView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one_checkout(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<CheckoutId>,
) -> Result<Json<CheckoutView>, ApiError> {
    Ok(Json(shown(&app, &who, id).await?))
}

async fn shown(app: &App, who: &Principal, id: CheckoutId) -> Result<CheckoutView, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let found = store::checkouts(&mut reader, "", [id]).await?.remove(&id);
    let found = found.filter(|it| may_see(who, it.buyer));
    let mut found = found.ok_or_else(ApiError::not_found)?;
    store::add_lines(&mut reader, &mut found.orders).await?;
    Ok(found.into())
}

fn may_see(who: &Principal, buyer: AccountId) -> bool {
    let is_own = who.account().is_ok_and(|account| account == buyer);
    is_own || who.is_platform(Role::Operator) || who.is_platform(Role::Auditor)
}

/// Cancels a checkout that is not paid; its stock goes back.
#[utoipa::path(post, path = "/checkouts/{id}/cancel", tag = "orders",
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    security(("bearer" = [])),
    responses((status = 200, body = CheckoutView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.cancel", skip_all, fields(checkout.id = %id))]
async fn cancel(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<CheckoutId>,
    Write { call, .. }: Write<NoBody>,
) -> Result<Json<CheckoutView>, ApiError> {
    call.require_key()?;
    let mut reader = app.db.readers().acquire().await?;
    let found = store::checkouts(&mut reader, "", [id]).await?.remove(&id);
    drop(reader);
    let is_operator = who.is_platform(Role::Operator);
    let may_cancel = |buyer| is_operator || who.account().is_ok_and(|account| account == buyer);
    let found = found.filter(|it| may_cancel(it.buyer));
    let found = found.ok_or_else(ApiError::not_found)?;
    match close::close(&app, &found, (Released::Cancelled, who.name())).await {
        Ok(()) => shown(&app, &who, id).await.map(Json),
        Err(CloseError::Api(err)) => Err(err),
        Err(CloseError::Moved) => {
            let now = shown(&app, &who, id).await?;
            match now.state.as_str() {
                // The same wish again changes nothing.
                "cancelled" => Ok(Json(now)),
                "paid" => Err(ApiError::new(
                    Code::OrderAlreadyPaid,
                    "this checkout is paid: ask for a refund",
                )),
                other => Err(ApiError::new(
                    Code::InvalidState,
                    format!("this checkout is {other}"),
                )),
            }
        }
    }
}

/// Pays a checkout. Out of the wallet it is done at once.
#[utoipa::path(post, path = "/checkouts/{id}/payments", tag = "payments",
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    request_body = PaymentBody, security(("bearer" = [])),
    responses((status = 201, body = PaymentView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.pay", skip_all, fields(checkout.id = %id))]
async fn start_payment(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<CheckoutId>,
    Write { body, call }: Write<PaymentBody>,
) -> Result<Response, ApiError> {
    let buyer = who.account()?;
    call.require_key()?;
    if body.provider != Provider::Wallet || body.method != Method::Balance {
        let detail = "pay with provider wallet and method balance";
        return Err(ApiError::new(Code::ProviderNotAvailable, detail));
    }
    let write = Kept::enter(&app, &who.name(), call).await?;
    // Once it is paid its stock cannot be confirmed again; a repeat hears what it heard before.
    if let Some(stored) = write.stored().await? {
        return Ok(stored.into_response());
    }
    Ok(pay::pay(&app, write, (buyer, id)).await?.into_response())
}

/// A parcel that leaves.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ShipmentBody {
    /// 1 to 100
    lines: Vec<ShippedBody>,
    /// 1 to 40 characters
    carrier: String,
    /// 1 to 64 characters
    tracking_no: String,
}

impl ShipmentBody {
    fn parse(self, order: OrderId) -> Result<Parcel, ApiError> {
        let mut bounds = Bounds::default();
        bounds.number("/lines", self.lines.len(), 1..=LINES_MAX);
        bounds.text("/carrier", &self.carrier, 1..=40);
        bounds.text("/tracking_no", &self.tracking_no, 1..=64);
        let mut lines = BTreeMap::new();
        for (n, line) in self.lines.iter().enumerate() {
            bounds.number(&format!("/lines/{n}/quantity"), line.quantity, QUANTITY);
            if lines.insert(line.line_id, line.quantity).is_some() {
                bounds.add(&format!("/lines/{n}/line_id"), "repeated");
            }
        }
        bounds.check()?;
        Ok(Parcel {
            order,
            carrier: self.carrier,
            tracking_no: self.tracking_no,
            lines,
        })
    }
}

/// Sends a parcel of an order.
#[utoipa::path(post, path = "/orders/{id}/shipments", tag = "orders",
    operation_id = "add_shipment",
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    request_body = ShipmentBody, security(("bearer" = [])),
    responses((status = 201, body = ShipmentView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.ship", skip_all, fields(order.id = %id))]
async fn add_shipment(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<OrderId>,
    Write { body, call }: Write<ShipmentBody>,
) -> Result<Response, ApiError> {
    let order = served(&app, &who, id).await?;
    call.require_key()?;
    let parcel = body.parse(id)?;
    let write = Kept::enter(&app, &who.name(), call).await?;
    Ok(ship::ship(&app, (who, write), (&order, parcel))
        .await?
        .into_response())
}

/// An order of a shop that the caller sends parcels for.
async fn served(app: &App, who: &Principal, id: OrderId) -> Result<StandingOrder, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let order = store::order(&mut reader, "", id).await?;
    let order = order.ok_or_else(ApiError::not_found)?;
    catalog::may(&mut reader, who, order.merchant, Scope::OrdersFulfil).await?;
    Ok(order)
}

/// A parcel arrived.
#[utoipa::path(post, path = "/shipments/{id}/delivered", tag = "orders",
    operation_id = "set_delivered", params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = OrderView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.deliver", skip_all, fields(shipment.id = %id))]
async fn set_delivered(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<ShipmentId>,
    Write { call, .. }: Write<NoBody>,
) -> Result<Response, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let order = ship::order_of(&mut reader, id).await?;
    drop(reader);
    let order = order.ok_or_else(ApiError::not_found)?;
    served(&app, &who, order).await?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let done = async {
        let lock = run.tx.for_update();
        let now = app.clock.now();
        let found = store::order(&mut run.tx, lock, order).await?;
        let found = found.ok_or_else(ApiError::not_found)?;
        let terms = catalog::terms(&mut run.tx, [found.merchant]).await?;
        let days = terms
            .get(&found.merchant)
            .map_or(0, |it| it.auto_confirm_days);
        if ship::deliver(&mut run.tx, now, (id, &found), days).await? {
            let entry = Entry {
                who: &who,
                call: &call,
                object_id: found.id.to_string(),
                diff: json!({ "delivered": id }),
            };
            audit(&mut run.tx, now, entry).await?;
        }
        let found = store::order(&mut run.tx, "", order).await?;
        let found = found.ok_or_else(ApiError::not_found)?;
        Ok::<_, ApiError>((StatusCode::OK, OrderView::from(found)))
    };
    let done = done.await;
    run.finish(done).await
}

/// Confirms that everything of an order arrived: its money goes to those who sold it.
#[utoipa::path(post, path = "/orders/{id}/confirm", tag = "orders",
    operation_id = "confirm_order",
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    security(("bearer" = [])),
    responses((status = 200, body = OrderView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "orders.confirm", skip_all, fields(order.id = %id))]
async fn confirm(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<OrderId>,
    Write { call, .. }: Write<NoBody>,
) -> Result<Response, ApiError> {
    let buyer = who.account()?;
    call.require_key()?;
    let mut run = match wire::begin(&app, &who.name(), call).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let done = async {
        let lock = run.tx.for_update();
        let found = store::order(&mut run.tx, lock, id).await?;
        let found = found.filter(|order| order.buyer == buyer);
        let found = found.ok_or_else(ApiError::not_found)?;
        if !complete::is_confirmable(&found) {
            let says = format!("the order is {}", found.status.as_str());
            return Err(ApiError::new(Code::InvalidState, says));
        }
        let orders = std::slice::from_ref(&found);
        complete::complete(&mut run.tx, &app, (orders, &who.name())).await?;
        let found = store::order(&mut run.tx, "", id).await?;
        let found = found.ok_or_else(ApiError::not_found)?;
        Ok((StatusCode::OK, OrderView::from(found)))
    };
    let done = done.await;
    run.finish(done).await
}
