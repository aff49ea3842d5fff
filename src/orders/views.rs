//! Orders, checkouts, payments and parcels as the wire shows them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::model::{Checkout, Status, Wish};
use super::ship::Parcel;
use super::store::{self, Attempt, Standing, StandingOrder};
use crate::clock::Timestamp;
use crate::ids::{
    AttemptId, CheckoutId, LineId, MerchantId, OrderId, PaymentId, ShipmentId, VariantId,
};
use crate::money::Money;

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
    pub(super) id: OrderId,
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
    pub(super) state: String,
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

/// So many units of a line.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShippedBody {
    #[schema(value_type = String)]
    pub(super) line_id: LineId,
    /// 1 to 999
    pub(super) quantity: i64,
}

/// A parcel.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShipmentView {
    #[schema(value_type = String)]
    id: ShipmentId,
    #[schema(value_type = String)]
    order_id: OrderId,
    carrier: String,
    tracking_no: String,
    /// `sent` or `delivered`
    state: String,
    lines: Vec<ShippedBody>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl ShipmentView {
    pub(super) fn sent(id: ShipmentId, parcel: &Parcel, now: Timestamp) -> Self {
        let lines = parcel.lines.iter();
        let lines = lines.map(|(line_id, quantity)| ShippedBody {
            line_id: *line_id,
            quantity: *quantity,
        });
        Self {
            id,
            order_id: parcel.order,
            carrier: parcel.carrier.clone(),
            tracking_no: parcel.tracking_no.clone(),
            state: "sent".into(),
            lines: lines.collect(),
            created_at: now,
        }
    }
}
