//! What a viewer sees of a room's cards at a time (commerce.md 9, T4).
//!
//! Invariants
//! - `seq` is the number up to which every card is in force: whoever hears those behind it misses
//!   none.
//! - A snapshot of the past shows the price of then; the offer beside it is the one of now.

use std::collections::BTreeMap;

use serde::Serialize;
use sqlx::AnyConnection;

use super::super::envelope::CouponData;
use super::super::goods;
use super::super::model::{Room, State};
use super::super::offers::{Pricing, QuoteKind};
use super::super::shelf::{self, LEFT_TOLD_MAX};
use super::super::timeline::{Cards, ShownDeal, Slot, Timeline};
use super::desk::{AHEAD_US_MAX, RoomCards};
use super::line::Line;
use super::store;
use crate::app::App;
use crate::clock::Timestamp;
use crate::ids::{CouponId, DealId, EntryId, VariantId};
use crate::money::Money;

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub(in crate::rooms) enum SnapshotError {
    #[error("at_us lies between the start of the show and now")]
    OutOfRange,
    #[error("reading cards")]
    Db(#[from] sqlx::Error),
}

/// The cards of a room at a room time.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(in crate::rooms) struct SnapshotView {
    pub(in crate::rooms) at_us: i64,
    /// Every card up to this number is in force; those behind it are still to come
    pub(in crate::rooms) seq: i64,
    pinned: Option<ShownEntryView>,
    explained: Option<ShownEntryView>,
    coupon: Option<ShownCouponView>,
    /// Of the variants in these cards, and of those the room has a price for
    prices: Vec<ShownPriceView>,
    deals: Vec<ShownDealView>,
    sold_out: Vec<SoldOutView>,
}

/// A shelf entry in a card.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
struct ShownEntryView {
    #[schema(value_type = String)]
    entry: EntryId,
    /// Since when, in room time
    at_us: i64,
    /// The card that put it there
    seq: i64,
}

/// A coupon in a card.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct ShownCouponView {
    #[schema(value_type = String)]
    coupon: CouponId,
    title: String,
    #[schema(format = DateTime)]
    ends_at: String,
    at_us: i64,
    seq: i64,
}

/// The price of a variant.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct ShownPriceView {
    #[schema(value_type = String)]
    variant: VariantId,
    #[schema(value_type = Option<String>)]
    entry: Option<EntryId>,
    /// The price at the time of the snapshot
    price_then: Option<Money>,
    kind_then: Option<QuoteKind>,
    /// The price in force now
    price: Option<Money>,
    /// Of the price in force now
    offer: Option<String>,
    /// Units left now, up to 100; only in a snapshot of now
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<i64>,
}

/// A deal in a card.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
struct ShownDealView {
    #[schema(value_type = String)]
    id: DealId,
    /// `countdown` or `open`
    phase: &'static str,
    /// Units left now; only in a snapshot of now
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<i64>,
    /// Until it opens, or closes
    remaining_ms: i64,
    paused: bool,
}

/// A variant that is sold out.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
struct SoldOutView {
    #[schema(value_type = String)]
    variant: VariantId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    deal: Option<DealId>,
}

#[cfg(test)]
impl SnapshotView {
    /// The numbers of the cards that pin and explain.
    pub(super) fn shown(&self) -> (Option<i64>, Option<i64>) {
        let seq = |it: &ShownEntryView| it.seq;
        (
            self.pinned.as_ref().map(seq),
            self.explained.as_ref().map(seq),
        )
    }
}

impl SnapshotView {
    /// The same without what its tag does not cover.
    pub(in crate::rooms) fn covered(&self) -> Self {
        let mut covered = self.clone();
        covered.at_us = 0;
        covered.prices.iter_mut().for_each(|it| it.left = None);
        for deal in &mut covered.deals {
            deal.left = None;
            deal.remaining_ms = 0;
        }
        covered
    }
}

/// Which time a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::rooms) enum When {
    Now,
    /// A room time up to now, and as far ahead as cards may be placed.
    At(i64),
    /// A room time that a recording reaches.
    Recorded(i64),
}

/// The cards of a room at a room time, or now; `is_inside` to those who run the room.
pub(in crate::rooms) async fn snapshot(
    app: &App,
    room: Room,
    when: When,
    is_inside: bool,
) -> Result<SnapshotView, SnapshotError> {
    RoomCards::prepare(app, room.id).await?;
    let mut reader = app.db.readers().acquire().await?;
    let rehearsed = rehearsed(app, &room, is_inside);
    let mut now = RoomCards::read(&mut reader, app, room).await?;
    let now_us = now.clock.now_us;
    let ahead_us = if now.room.state.is_over() {
        0
    } else {
        AHEAD_US_MAX
    };
    let asked_us = match when {
        When::Now => now_us,
        When::At(at_us) if !(0..=now_us + ahead_us).contains(&at_us) => {
            return Err(SnapshotError::OutOfRange);
        }
        When::At(at_us) | When::Recorded(at_us) => at_us,
    };
    if let Some(rehearsed) = rehearsed {
        now.timeline = rehearsed;
    }
    let (cards, seq) = if asked_us >= now.timeline.settled().at_us {
        (now.timeline.at(asked_us), now.timeline.whole_to(asked_us))
    } else {
        state_at(&mut reader, &now, asked_us).await?
    };
    let is_now = when == When::Now;
    let prices = prices(&mut reader, app, &now, (&cards, asked_us, is_now)).await?;
    let (out, of_deals) = (&cards.sold_out, &cards.deals_sold_out);
    let out = out.iter().map(|(variant, slot)| (None, variant, slot));
    let of_deals = of_deals.iter().flat_map(|(deal, variants)| {
        let variants = variants.iter();
        variants.map(|(variant, slot)| (Some(*deal), variant, slot))
    });
    let is_out = |slot: &Slot<bool>| slot.at(asked_us).and_then(|it| it.value) == Some(true);
    let sold_out = out.chain(of_deals).filter(|(.., slot)| is_out(slot));
    Ok(SnapshotView {
        at_us: asked_us,
        seq,
        pinned: shown(&cards.pinned, asked_us),
        explained: shown(&cards.explained, asked_us),
        coupon: coupon(&cards.coupon, asked_us),
        prices,
        deals: deals(&cards, asked_us),
        sold_out: sold_out
            .map(|(deal, variant, _)| SoldOutView {
                variant: *variant,
                deal,
            })
            .collect(),
    })
}

/// The state from the last checkpoint before a time on.
async fn state_at(
    reader: &mut AnyConnection,
    now: &RoomCards,
    at_us: i64,
) -> sqlx::Result<(Cards, i64)> {
    let id = now.room.id;
    let checkpoint = store::checkpoint_at(reader, id, at_us).await?;
    let events = store::fold_after(reader, id, &checkpoint, at_us).await?;
    let mut timeline = Timeline::behind(checkpoint);
    events.into_iter().for_each(|event| timeline.insert(event));
    let seq = store::whole_to(reader, id, at_us).await?;
    Ok((timeline.at(at_us), seq))
}

/// What was rehearsed, to those who run the room; nothing to others.
fn rehearsed(app: &App, room: &Room, is_inside: bool) -> Option<Timeline> {
    let is_rehearsal = room.state == State::Rehearsal && is_inside;
    is_rehearsal.then(|| Line::of(app, room.id).rehearsed())
}

async fn prices(
    reader: &mut AnyConnection,
    app: &App,
    now: &RoomCards,
    (cards, at_us, is_now): (&Cards, i64, bool),
) -> sqlx::Result<Vec<ShownPriceView>> {
    let set = cards.prices.iter().filter_map(|(variant, slot)| {
        let held = slot.at(at_us)?;
        held.value.as_ref().map(|shown| (*variant, shown.entry))
    });
    let mut wanted: BTreeMap<VariantId, Option<EntryId>> = set.collect();
    for id in cards.entries(at_us) {
        let Some(entry) = shelf::find(reader, id).await? else {
            continue;
        };
        let variants = goods::variants(reader, [entry.product]).await?;
        for variant in entry.sold(&variants) {
            wanted.entry(variant.id).or_insert(Some(id));
        }
    }
    let variants: Vec<VariantId> = wanted.keys().copied().collect();
    let wall = wall_of(app.clock.now(), now, at_us);
    let pricing = Pricing::since(reader, (app.clock.now(), wall), now, &variants).await?;
    let left = if is_now {
        goods::left(reader, variants).await?
    } else {
        BTreeMap::new()
    };
    let view = |(variant, entry): (VariantId, Option<EntryId>)| {
        let of_room = cards.prices.get(&variant).and_then(|slot| slot.at(at_us));
        let of_room = of_room.and_then(|held| held.value.as_ref());
        let then = of_room.map(|shown| (shown.price, QuoteKind::Room));
        let listed = pricing
            .at(variant, at_us)
            .map(|quote| (quote.price, quote.kind));
        let then = then.or(listed);
        let priced = pricing.priced(app, variant, entry);
        ShownPriceView {
            variant,
            entry,
            price_then: then.map(|(price, _)| price),
            kind_then: then.map(|(_, kind)| kind),
            price: priced.as_ref().map(|priced| priced.quote.price),
            offer: priced.map(|priced| priced.offer),
            left: left
                .get(&variant)
                .copied()
                .filter(|left| *left <= LEFT_TOLD_MAX),
        }
    };
    Ok(wanted.into_iter().map(view).collect())
}

/// The time of day of a room time.
fn wall_of(now: Timestamp, cards: &RoomCards, at_us: i64) -> Timestamp {
    let room = &cards.room;
    let stands_at = room
        .ended_at
        .filter(|_| room.state.is_over())
        .unwrap_or(now);
    let back_us = cards.clock.now_us.saturating_sub(at_us);
    Timestamp::from_micros(stands_at.as_micros().saturating_sub(back_us))
}

fn shown(slot: &Slot<EntryId>, at_us: i64) -> Option<ShownEntryView> {
    let held = slot.at(at_us)?;
    Some(ShownEntryView {
        entry: held.value?,
        at_us: held.at_us,
        seq: held.seq,
    })
}

fn coupon(slot: &Slot<CouponData>, at_us: i64) -> Option<ShownCouponView> {
    let held = slot.at(at_us)?;
    let data = held.value.as_ref()?;
    Some(ShownCouponView {
        coupon: data.coupon,
        title: data.title.clone(),
        ends_at: data.ends_at.clone(),
        at_us: held.at_us,
        seq: held.seq,
    })
}

fn deals(cards: &Cards, at_us: i64) -> Vec<ShownDealView> {
    let view = |(id, slot): (&DealId, &Slot<ShownDeal>)| {
        let (phase, until_us) = match slot.at(at_us)?.value.as_ref()? {
            ShownDeal::Countdown { opens_at_us } => ("countdown", *opens_at_us),
            ShownDeal::Open { closes_at_us, .. } => ("open", *closes_at_us),
        };
        Some(ShownDealView {
            id: *id,
            phase,
            left: None,
            remaining_ms: until_us.saturating_sub(at_us).max(0) / 1_000,
            paused: false,
        })
    };
    cards.deals.iter().filter_map(view).collect()
}
