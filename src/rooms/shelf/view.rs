//! What a shelf looks like on the wire.
//!
//! Invariant: the tag of a shelf covers everything but `left`, which changes with every order.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;
use sqlx::AnyConnection;

use super::super::cards::RoomCards;
use super::super::goods::{self, Product, Variant};
use super::super::model::Room;
use super::super::offers::{Priced, Pricing, QuoteKind};
use super::super::timeline::{Cards, Slot};
use super::Entry;
use crate::app::App;
use crate::clock::Timestamp;
use crate::ids::{EntryId, MerchantId, ProductId, RoomId, VariantId};
use crate::money::Money;

/// Up to this many units are told exactly.
pub(in crate::rooms) const LEFT_TOLD_MAX: i64 = 100;

/// A product on a shelf, as everybody sees it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct ShelfEntryView {
    #[schema(value_type = String)]
    pub(super) id: EntryId,
    #[schema(value_type = String)]
    room_id: RoomId,
    #[schema(value_type = String)]
    product_id: ProductId,
    #[schema(value_type = String)]
    merchant_id: MerchantId,
    title: String,
    /// As the product has them
    #[schema(value_type = Vec<Object>)]
    media: Value,
    number: Option<i64>,
    /// The lowest of its variants' prices
    price: Option<Money>,
    /// Of that variant
    offer: Option<String>,
    /// Units of all variants; null for more than 100
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    left: Option<Option<i64>>,
    pinned: bool,
    explained: bool,
    sold_out: bool,
    variants: Vec<ShelfVariantView>,
    /// For those who run the room
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    inside: Option<InsideView>,
    version: i64,
}

/// What only those who run a room see of an entry.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(super) struct InsideView {
    hidden: bool,
    note: Option<String>,
    commission: CommissionView,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// Shares of what is sold, in basis points.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
struct CommissionView {
    creator_bps: i64,
    affiliate_bps: i64,
}

/// A variant of an entry.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct ShelfVariantView {
    #[schema(value_type = String)]
    id: VariantId,
    #[schema(value_type = Object)]
    options: Value,
    price: Option<Money>,
    kind: Option<QuoteKind>,
    /// What the price is compared with
    compare_at: Option<Money>,
    offer: Option<String>,
    /// Null for more than 100
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>)]
    left: Option<Option<i64>>,
    sold_out: bool,
}

/// Units left, as they are told: a number up to 100, else null.
fn told(units: i64) -> Option<i64> {
    Some(units).filter(|units| *units <= LEFT_TOLD_MAX)
}

/// Everything a shelf shows, read at one moment.
pub(super) struct Shown {
    cards: Cards,
    at_us: i64,
    products: HashMap<ProductId, Product>,
    variants: HashMap<ProductId, Vec<Variant>>,
    pricing: Pricing,
    left: BTreeMap<VariantId, i64>,
}

impl Shown {
    /// Reads what these entries show.
    pub(super) async fn read(
        connection: &mut AnyConnection,
        app: &App,
        room: Room,
        entries: &[Entry],
    ) -> sqlx::Result<Self> {
        let products = entries.iter().map(|it| it.product).collect::<Vec<_>>();
        let found = goods::products(connection, products.clone()).await?;
        let variants = goods::variants(connection, products).await?;
        let sold = entries.iter().flat_map(|it| it.sold(&variants));
        let sold: Vec<VariantId> = sold.map(|it| it.id).collect();
        let cards = RoomCards::read(connection, app, room).await?;
        let now = app.clock.now();
        let pricing = Pricing::within(connection, now, &cards, &sold).await?;
        let left = goods::left(connection, sold).await?;
        let at_us = cards.clock.now_us;
        Ok(Self {
            cards: cards.timeline.at(at_us),
            at_us,
            products: found,
            variants,
            pricing,
            left,
        })
    }

    /// What an entry looks like; `is_inside` to those who run the room.
    pub(super) fn entry(&self, app: &App, entry: &Entry, is_inside: bool) -> ShelfEntryView {
        let product = self.products.get(&entry.product);
        let is_sold = product.is_some_and(|product| product.is_sold);
        let sold: Vec<&Variant> = entry.sold(&self.variants).collect();
        let mut cheapest: Option<Priced> = None;
        let mut variants = Vec::with_capacity(sold.len());
        for variant in &sold {
            let priced = self.pricing.priced(app, variant.id, Some(entry.id));
            let priced = priced.filter(|_| is_sold);
            variants.push(self.variant(variant, priced.as_ref()));
            if let Some(priced) = priced {
                let amount = priced.quote.price.amount_minor();
                let is_lower = |least: &Priced| amount < least.quote.price.amount_minor();
                if cheapest.as_ref().is_none_or(is_lower) {
                    cheapest = Some(priced);
                }
            }
        }
        let units = sold.iter().filter_map(|it| self.left.get(&it.id)).sum();
        let is_shown = |slot: &Slot<EntryId>| {
            slot.at(self.at_us).and_then(|held| held.value) == Some(entry.id)
        };
        ShelfEntryView {
            id: entry.id,
            room_id: entry.room,
            product_id: entry.product,
            merchant_id: entry.merchant,
            title: product.map_or_else(String::new, |product| product.title.clone()),
            media: product.map_or_else(|| Value::Array(Vec::new()), |it| it.media.clone()),
            number: entry.number,
            price: cheapest.as_ref().map(|priced| priced.quote.price),
            offer: cheapest.map(|priced| priced.offer),
            left: Some(told(units)),
            pinned: is_shown(&self.cards.pinned),
            explained: is_shown(&self.cards.explained),
            sold_out: variants.iter().all(|variant| variant.sold_out),
            variants,
            inside: is_inside.then(|| InsideView::of(entry)),
            version: entry.version,
        }
    }

    fn variant(&self, variant: &Variant, priced: Option<&Priced>) -> ShelfVariantView {
        let units = self.left.get(&variant.id).copied().unwrap_or(0);
        let flag = self.cards.sold_out.get(&variant.id);
        let is_flagged = flag.is_some_and(|slot| {
            let held = slot.at(self.at_us).and_then(|held| held.value);
            held == Some(true)
        });
        let compared = |priced: &Priced| {
            let amount = priced.quote.compare_at?;
            Some(Money::new(amount, priced.quote.price.currency()))
        };
        ShelfVariantView {
            id: variant.id,
            options: variant.options.clone(),
            price: priced.map(|priced| priced.quote.price),
            kind: priced.map(|priced| priced.quote.kind),
            compare_at: priced.and_then(compared),
            offer: priced.map(|priced| priced.offer.clone()),
            left: Some(told(units)),
            sold_out: units == 0 || is_flagged,
        }
    }
}

impl InsideView {
    fn of(entry: &Entry) -> Self {
        Self {
            hidden: entry.is_hidden,
            note: entry.note.clone(),
            commission: CommissionView {
                creator_bps: entry.creator_bps,
                affiliate_bps: entry.affiliate_bps,
            },
            created_at: entry.created_at,
            updated_at: entry.updated_at,
        }
    }
}

impl ShelfEntryView {
    pub(super) const fn version(&self) -> i64 {
        self.version
    }
}

/// The same without what a tag does not cover.
pub(super) fn without_left(views: &mut [ShelfEntryView]) {
    for view in views {
        view.left = None;
        for variant in &mut view.variants {
            variant.left = None;
        }
    }
}
