//! Wishes, orders and what they cost; pure.
#![deny(clippy::float_arithmetic)]

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::catalog::{Good, Hold, InForce, Terms, Units};
use crate::clock::Timestamp;
use crate::ids::{
    AccountId, CheckoutId, LineId, MerchantId, OrderId, PaymentId, ReservationId, VariantId,
};
use crate::money::{Currency, Money};

/// The most that is owed at once, in minor units (commerce.md 14).
pub(super) const AMOUNT_MAX: i64 = 10_000_000_000;
pub(super) const QUANTITY: std::ops::RangeInclusive<i64> = 1..=999;
pub(super) const LINES_MAX: usize = 100;
pub(super) const MERCHANTS_MAX: usize = 10;
/// Unpaid checkouts of one buyer.
pub(super) const UNPAID_MAX: i64 = 20;

/// Where an order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Reserved,
    AwaitingPayment,
    Closing,
    Paid,
    Fulfilling,
    Completed,
    Closed,
    Expired,
    Cancelled,
}

impl Status {
    const ALL: [Self; 9] = [
        Self::Reserved,
        Self::AwaitingPayment,
        Self::Closing,
        Self::Paid,
        Self::Fulfilling,
        Self::Completed,
        Self::Closed,
        Self::Expired,
        Self::Cancelled,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::AwaitingPayment => "awaiting_payment",
            Self::Closing => "closing",
            Self::Paid => "paid",
            Self::Fulfilling => "fulfilling",
            Self::Completed => "completed",
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One line of a wish, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineWish {
    pub(super) variant: VariantId,
    pub(super) quantity: i64,
    /// What the buyer saw
    pub(super) unit_price: Money,
}

/// Where parcels go.
#[derive(Clone, Debug, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShipTo {
    /// 1 to 80 characters
    pub(super) name: String,
    /// 3 to 32 characters
    pub(super) phone: String,
    /// 1 to 120 characters
    pub(super) region: String,
    /// 1 to 200 characters
    pub(super) address: String,
    /// At most 16 characters
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) postcode: Option<String>,
}

/// What somebody wants to buy.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) buyer: AccountId,
    pub(super) lines: Vec<LineWish>,
    pub(super) ship_to: Option<ShipTo>,
    pub(super) client_ref: Option<String>,
    /// Only lines of one merchant will do.
    pub(super) is_single: bool,
}

/// One act of buying, composed.
#[derive(Clone, Debug)]
pub(super) struct Checkout {
    pub(super) id: CheckoutId,
    pub(super) payment: PaymentId,
    pub(super) due: Money,
    pub(super) orders: Vec<Order>,
}

/// What one buyer buys of one merchant.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) id: OrderId,
    pub(super) reservation: ReservationId,
    pub(super) merchant: MerchantId,
    pub(super) items: i64,
    pub(super) shipping: i64,
    pub(super) due: i64,
    pub(super) lines: Vec<Line>,
}

/// One variant of an order; its price is frozen.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) id: LineId,
    pub(super) variant: VariantId,
    pub(super) title: String,
    pub(super) options: String,
    pub(super) quantity: i64,
    pub(super) unit_price: i64,
    pub(super) base: i64,
    pub(super) platform_bps: i64,
    /// JSON: which price it was, and why
    pub(super) explain: String,
}

/// Why nothing was composed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ComposeError {
    #[error("there is nothing to buy")]
    Empty,
    #[error("{0} is not sold")]
    NotSellable(VariantId),
    #[error("the price of {variant} is {} by now, in minor units", .now.amount_minor())]
    PriceChanged { variant: VariantId, now: Money },
    #[error("these lines are of several merchants: use /checkouts, or an order for each")]
    SeveralMerchants,
    #[error("one checkout is of at most {MERCHANTS_MAX} merchants")]
    TooManyMerchants,
    #[error("these lines are in several currencies: buy each currency by itself")]
    SeveralCurrencies,
    #[error("goods are sent to an address: give ship_to")]
    AddressRequired,
    #[error("at most {AMOUNT_MAX} minor units are owed at once")]
    Amount,
}

/// What the catalog says of a wish's lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) goods: HashMap<VariantId, Good>,
    pub(super) terms: HashMap<MerchantId, Terms>,
    pub(super) prices: HashMap<VariantId, InForce>,
}

/// The ids of a checkout, which its stock is held under before its prices are known.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    pub(super) checkout: CheckoutId,
    pub(super) payment: PaymentId,
    pub(super) orders: BTreeMap<MerchantId, (OrderId, ReservationId)>,
}

impl Ids {
    /// For lines of these merchants.
    pub(super) fn new(now: Timestamp, merchants: impl IntoIterator<Item = MerchantId>) -> Self {
        let merchants = merchants.into_iter();
        let orders = merchants.map(|it| (it, (OrderId::new(now), ReservationId::new(now))));
        Self {
            checkout: CheckoutId::new(now),
            payment: PaymentId::new(now),
            orders: orders.collect(),
        }
    }
}

/// The stock to be held for a wish: all of each merchant under its own order.
pub(super) fn holds(
    wish: &Wish,
    ids: &Ids,
    goods: &HashMap<VariantId, Good>,
) -> Result<Vec<Hold>, ComposeError> {
    let mut holds: BTreeMap<MerchantId, Hold> = BTreeMap::new();
    for line in &wish.lines {
        let not_sellable = ComposeError::NotSellable(line.variant);
        let Some(good) = goods.get(&line.variant) else {
            return Err(not_sellable);
        };
        let (order, reservation) = *ids.orders.get(&good.merchant).ok_or(not_sellable)?;
        let hold = holds.entry(good.merchant).or_insert(Hold {
            reservation,
            order,
            lines: Vec::new(),
        });
        hold.lines.push(Units {
            variant: line.variant,
            quantity: line.quantity,
        });
    }
    Ok(holds.into_values().collect())
}

/// Makes the orders of a wish, at the prices in force.
pub(super) fn compose(
    now: Timestamp,
    wish: &Wish,
    ids: &Ids,
    facts: &Facts,
) -> Result<Checkout, ComposeError> {
    let mut orders: BTreeMap<MerchantId, Order> = BTreeMap::new();
    let mut currency: Option<Currency> = None;
    for line in &wish.lines {
        let not_sellable = || ComposeError::NotSellable(line.variant);
        let good = facts.goods.get(&line.variant).filter(|good| good.is_active);
        let good = good.ok_or_else(not_sellable)?;
        let price = facts.prices.get(&line.variant).ok_or_else(not_sellable)?;
        let terms = facts.terms.get(&good.merchant).ok_or_else(not_sellable)?;
        if price.price != line.unit_price {
            return Err(ComposeError::PriceChanged {
                variant: line.variant,
                now: price.price,
            });
        }
        if *currency.get_or_insert(terms.currency) != price.price.currency() {
            return Err(ComposeError::SeveralCurrencies);
        }
        if good.requires_shipping && wish.ship_to.is_none() {
            return Err(ComposeError::AddressRequired);
        }
        let made = made_line(now, line, good, (price, terms))?;
        let ids = *ids.orders.get(&good.merchant).ok_or_else(not_sellable)?;
        let order = orders.entry(good.merchant).or_insert_with(|| Order {
            id: ids.0,
            reservation: ids.1,
            merchant: good.merchant,
            items: 0,
            shipping: 0,
            due: 0,
            lines: Vec::new(),
        });
        order.items = order
            .items
            .checked_add(made.base)
            .ok_or(ComposeError::Amount)?;
        if good.requires_shipping {
            order.shipping = terms.shipping_fee;
        }
        order.due = order.items + order.shipping;
        order.lines.push(made);
    }
    let currency = currency.ok_or(ComposeError::Empty)?;
    match orders.len() {
        2.. if wish.is_single => return Err(ComposeError::SeveralMerchants),
        count if count > MERCHANTS_MAX => return Err(ComposeError::TooManyMerchants),
        _ => {}
    }
    let due = orders
        .values()
        .try_fold(0_i64, |sum, it| sum.checked_add(it.due));
    let due = due
        .filter(|due| *due <= AMOUNT_MAX)
        .ok_or(ComposeError::Amount)?;
    Ok(Checkout {
        id: ids.checkout,
        payment: ids.payment,
        due: Money::new(due, currency),
        orders: orders.into_values().collect(),
    })
}

fn made_line(
    now: Timestamp,
    wish: &LineWish,
    good: &Good,
    (price, terms): (&InForce, &Terms),
) -> Result<Line, ComposeError> {
    let unit_price = price.price.amount_minor();
    let base = unit_price
        .checked_mul(wish.quantity)
        .ok_or(ComposeError::Amount)?;
    let kind = if price.is_sale { "sale" } else { "list" };
    let explain = serde_json::json!([{ "kind": kind, "price_id": price.id, "amount": unit_price }]);
    Ok(Line {
        id: LineId::new(now),
        variant: wish.variant,
        title: good.title.clone(),
        options: good.options.clone(),
        quantity: wish.quantity,
        unit_price,
        base,
        platform_bps: terms.fee_bps,
        explain: explain.to_string(),
    })
}
