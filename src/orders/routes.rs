//! Checkouts, orders and their payments over HTTP (commerce.md 5.6, payments.md 4).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::close::{self, CloseError};
use super::model::{Checkout, LINES_MAX, LineWish, QUANTITY, ShipTo, Status, Wish};
use super::pay;
use super::place;
use super::store::{self, Attempt, Standing, StandingOrder};
use crate::accounts::{Principal, Role};
use crate::app::App;
use crate::catalog::Released;
use crate::clock::Timestamp;
use crate::http::{
    self as wire, ApiError, Bounds, Code, Cursor, Kept, NoBody, Page, Path, Problem, Query, Seek,
    Write,
};
use crate::ids::{
    AccountId, AttemptId, CheckoutId, LineId, MerchantId, OrderId, PaymentId, VariantId,
};
use crate::money::Money;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(check_out))
        .routes(routes!(order, list))
        .routes(routes!(one))
        .routes(routes!(one_checkout))
        .routes(routes!(cancel))
        .routes(routes!(start_payment))
}

/// One variant to be bought.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct LineBody {
    #[schema(value_type = String)]
    variant_id: String,
    /// 1 to 999
    quantity: i64,
    /// What the buyer saw; another price now is refused
    #[serde(default)]
    unit_price: Option<Money>,
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
        let lines = self.lines.into_iter().enumerate().map(|(n, line)| {
            let Some(unit_price) = line.unit_price else {
                let detail = "give unit_price: the price that the buyer saw";
                let refusal = ApiError::new(Code::PriceUnconfirmed, detail);
                return Err(refusal.at(format!("/lines/{n}/unit_price"), "missing"));
            };
            // An id of another form is a variant that does not exist.
            let not_sellable = |_form| {
                let detail = format!("there is no variant {:?}", line.variant_id);
                let refusal = ApiError::new(Code::NotSellable, detail);
                refusal.at(format!("/lines/{n}/variant_id"), "unknown")
            };
            Ok(LineWish {
                variant: line.variant_id.parse().map_err(not_sellable)?,
                quantity: line.quantity,
                unit_price,
            })
        });
        Ok(Wish {
            buyer,
            lines: lines.collect::<Result<_, _>>()?,
            ship_to: self.ship_to,
            client_ref: self.client_ref,
            is_single,
        })
    }
}

/// One variant of an order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct LineView {
    #[schema(value_type = String)]
    id: LineId,
    #[schema(value_type = String)]
    variant_id: VariantId,
    title: String,
    options: Value,
    quantity: i64,
    unit_price: Money,
    /// `quantity` × `unit_price`
    base: Money,
}

/// What one buyer buys of one merchant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct OrderView {
    #[schema(value_type = String)]
    id: OrderId,
    #[schema(value_type = String)]
    checkout_id: CheckoutId,
    #[schema(value_type = String)]
    merchant_id: MerchantId,
    status: Status,
    payment_status: String,
    fulfilment: String,
    items: Money,
    shipping: Money,
    due: Money,
    lines: Vec<LineView>,
    ship_to: Option<Value>,
    #[schema(value_type = Option<String>, format = DateTime)]
    paid_at: Option<Timestamp>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

impl From<StandingOrder> for OrderView {
    fn from(order: StandingOrder) -> Self {
        let money = |amount| Money::new(amount, order.currency);
        let line = |line: &store::StandingLine| LineView {
            id: line.id,
            variant_id: line.variant,
            title: line.title.clone(),
            options: json_of(&line.options),
            quantity: line.quantity,
            unit_price: money(line.unit_price),
            base: money(line.base),
        };
        Self {
            id: order.id,
            checkout_id: order.checkout,
            merchant_id: order.merchant,
            status: order.status,
            payment_status: order.payment_status,
            fulfilment: order.fulfilment,
            items: money(order.items),
            shipping: money(order.shipping),
            due: money(order.due),
            lines: order.lines.iter().map(line).collect(),
            ship_to: order.ship_to.as_deref().map(json_of),
            paid_at: order.paid_at,
            version: order.version,
            created_at: order.created_at,
        }
    }
}

/// One act of buying.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct CheckoutView {
    #[schema(value_type = String)]
    checkout_id: CheckoutId,
    /// `open`, `closing`, `paid`, `expired` or `cancelled`
    state: String,
    due: Money,
    /// Stock is held until then
    #[schema(value_type = String, format = DateTime)]
    pay_before_at: Timestamp,
    orders: Vec<OrderView>,
}

impl CheckoutView {
    /// As it is when it was just placed.
    pub(super) fn placed(
        wish: &Wish,
        checkout: &Checkout,
        (now, pay_before_at): (Timestamp, Timestamp),
    ) -> Self {
        let money = |amount| Money::new(amount, checkout.due.currency());
        let order = |order: &super::model::Order| OrderView {
            id: order.id,
            checkout_id: checkout.id,
            merchant_id: order.merchant,
            status: Status::Reserved,
            payment_status: "unpaid".into(),
            fulfilment: "none".into(),
            items: money(order.items),
            shipping: money(order.shipping),
            due: money(order.due),
            lines: order
                .lines
                .iter()
                .map(|line| LineView {
                    id: line.id,
                    variant_id: line.variant,
                    title: line.title.clone(),
                    options: json_of(&line.options),
                    quantity: line.quantity,
                    unit_price: money(line.unit_price),
                    base: money(line.base),
                })
                .collect(),
            ship_to: wish
                .ship_to
                .as_ref()
                .and_then(|to| serde_json::to_value(to).ok()),
            paid_at: None,
            version: 1,
            created_at: now,
        };
        Self {
            checkout_id: checkout.id,
            state: "open".into(),
            due: checkout.due,
            pay_before_at,
            orders: checkout.orders.iter().map(order).collect(),
        }
    }
}

impl From<Standing> for CheckoutView {
    fn from(standing: Standing) -> Self {
        Self {
            checkout_id: standing.id,
            state: standing.state,
            due: standing.due,
            pay_before_at: standing.pay_before,
            orders: standing.orders.into_iter().map(OrderView::from).collect(),
        }
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

/// A try to pay.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct PaymentView {
    #[schema(value_type = String)]
    payment_id: PaymentId,
    #[schema(value_type = String)]
    attempt_id: AttemptId,
    /// `captured`
    status: String,
    amount: Money,
    instructions: InstructionsView,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// What the buyer has to do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct InstructionsView {
    /// `none`: it is paid
    kind: String,
}

impl PaymentView {
    pub(super) fn captured(standing: &Standing, attempt: &Attempt) -> Self {
        Self {
            payment_id: standing.payment,
            attempt_id: attempt.id,
            status: "captured".into(),
            amount: attempt.amount,
            instructions: InstructionsView {
                kind: "none".into(),
            },
            expires_at: attempt.expires_at,
        }
    }
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

/// Shows an order of the caller; of anybody to an operator or auditor.
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
    let found = store::order(&mut reader, id).await?;
    let found = found.filter(|order| may_see(&who, order.buyer));
    found
        .map(|order| Json(order.into()))
        .ok_or_else(ApiError::not_found)
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
