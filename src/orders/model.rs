//! Wishes, orders and what they cost; pure.
#![deny(clippy::float_arithmetic)]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::app::hash;
use crate::catalog::{Good, Hold, Terms, Units};
use crate::clock::Timestamp;
use crate::ids::{
    AccountId, CheckoutId, CreatorId, EntryId, LineId, MerchantId, OrderId, PaymentId,
    ReservationId, RoomId, VariantId,
};
use crate::money::{Currency, Money};
use crate::rooms::{Attribution, Charged, PriceWish};

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

/// One line of a wish.
#[derive(Clone, Debug)]
pub(super) struct LineWish {
    pub(super) quantity: i64,
    /// What the buyer saw, and where
    pub(super) price: PriceWish,
    /// On whose shelf it was
    pub(super) entry: Option<EntryId>,
}

impl LineWish {
    pub(super) const fn variant(&self) -> VariantId {
        self.price.variant
    }
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
    /// Where it was sold, and by whom: that of its first line that was.
    pub(super) sold_in: Option<(RoomId, CreatorId)>,
    /// Nothing of it is sent.
    pub(super) is_virtual: bool,
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
    /// SHA-256 of the offer
    pub(super) offer_hash: Option<String>,
    pub(super) entry: Option<EntryId>,
    pub(super) creator_bps: i64,
}

/// Why nothing was composed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ComposeError {
    #[error("there is nothing to buy")]
    Empty,
    #[error("{0} is not sold")]
    NotSellable(VariantId),
    #[error("{0} is not on the shelf of that room with this product")]
    NotOnShelf(EntryId),
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
    /// What shelf entries bring to whom.
    pub(super) entries: HashMap<EntryId, Attribution>,
    /// Who operates which creator: nobody brings themselves.
    pub(super) operated: HashSet<(AccountId, CreatorId)>,
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
        let not_sellable = ComposeError::NotSellable(line.variant());
        let Some(good) = goods.get(&line.variant()) else {
            return Err(not_sellable);
        };
        let (order, reservation) = *ids.orders.get(&good.merchant).ok_or(not_sellable)?;
        let hold = holds.entry(good.merchant).or_insert(Hold {
            reservation,
            order,
            lines: Vec::new(),
        });
        hold.lines.push(Units {
            variant: line.variant(),
            quantity: line.quantity,
        });
    }
    Ok(holds.into_values().collect())
}

/// Makes the orders of a wish, at what each of its lines is charged.
pub(super) fn compose(
    now: Timestamp,
    wish: &Wish,
    ids: &Ids,
    (facts, charged): (&Facts, &[Charged]),
) -> Result<Checkout, ComposeError> {
    let mut orders: BTreeMap<MerchantId, Order> = BTreeMap::new();
    let mut currency: Option<Currency> = None;
    for (line, charged) in wish.lines.iter().zip(charged) {
        let not_sellable = || ComposeError::NotSellable(line.variant());
        let good = facts.goods.get(&line.variant());
        let good = good
            .filter(|good| good.is_active)
            .ok_or_else(not_sellable)?;
        let terms = facts.terms.get(&good.merchant).ok_or_else(not_sellable)?;
        if *currency.get_or_insert(terms.currency) != charged.quote.price.currency() {
            return Err(ComposeError::SeveralCurrencies);
        }
        if good.requires_shipping && wish.ship_to.is_none() {
            return Err(ComposeError::AddressRequired);
        }
        let brought = brought(wish.buyer, line, good, facts)?;
        let made = made_line(now, (line, charged), good, (terms, brought))?;
        let ids = *ids.orders.get(&good.merchant).ok_or_else(not_sellable)?;
        let order = orders.entry(good.merchant).or_insert_with(|| Order {
            id: ids.0,
            reservation: ids.1,
            merchant: good.merchant,
            sold_in: None,
            is_virtual: true,
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
            order.is_virtual = false;
        }
        order.due = order.items + order.shipping;
        let sold_in = brought.map(|it| (it.room, it.creator));
        order.sold_in = order.sold_in.or(sold_in);
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

/// Who brought the buyer to this line.
fn brought<'a>(
    buyer: AccountId,
    line: &LineWish,
    good: &Good,
    facts: &'a Facts,
) -> Result<Option<Brought<'a>>, ComposeError> {
    let Some(entry) = line.entry else {
        return Ok(None);
    };
    let found = facts.entries.get(&entry);
    let found = found.filter(|it| it.product == good.product && Some(it.room) == line.price.room);
    let attribution = found.ok_or(ComposeError::NotOnShelf(entry))?;
    let is_own = facts.operated.contains(&(buyer, attribution.creator));
    Ok(Some(Brought {
        attribution,
        bps: if is_own { 0 } else { attribution.creator_bps },
    }))
}

/// A shelf entry's creator, and what of the line is theirs.
#[derive(Clone, Copy)]
struct Brought<'a> {
    attribution: &'a Attribution,
    bps: i64,
}

impl Deref for Brought<'_> {
    type Target = Attribution;

    fn deref(&self) -> &Attribution {
        self.attribution
    }
}

fn made_line(
    now: Timestamp,
    (wish, charged): (&LineWish, &Charged),
    good: &Good,
    (terms, brought): (&Terms, Option<Brought<'_>>),
) -> Result<Line, ComposeError> {
    let quote = &charged.quote;
    let unit_price = quote.price.amount_minor();
    let base = unit_price
        .checked_mul(wish.quantity)
        .ok_or(ComposeError::Amount)?;
    let explain = serde_json::json!([{ "kind": quote.kind, "price_id": quote.row,
        "seq": quote.seq, "amount": unit_price, "is_honoured": charged.is_honoured }]);
    Ok(Line {
        id: LineId::new(now),
        variant: wish.variant(),
        title: good.title.clone(),
        options: good.options.clone(),
        quantity: wish.quantity,
        unit_price,
        base,
        platform_bps: terms.fee_bps,
        explain: explain.to_string(),
        offer_hash: wish.price.offer.as_deref().map(hash),
        entry: wish.entry,
        creator_bps: brought.map_or(0, |it| it.bps),
    })
}
