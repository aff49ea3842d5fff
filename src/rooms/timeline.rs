//! The card timeline (commerce.md 9): the state that cards fold to. Pure.
//!
//! Invariants
//! - The state at t is the fold, in the order of (`at_us`, `seq`), of all events with `at_us` ≤ t
//!   that have not lapsed at t, whatever the order they were put in.
//! - At most one pinned entry, one explained entry, one pinned coupon.
//!
//! Not here: clocks, rows, carriers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::envelope::{Action, CouponData, Data, Event, OpenLine, PriceData, StockData};
use crate::ids::{DealId, EntryId, VariantId};
use crate::money::Money;

/// Events between two checkpoints.
const CHECKPOINT_EVERY: usize = 256;
/// How long a price that was superseded is remembered: as far as a viewer may be behind, and what
/// a room may honour beside it.
const PRICES_KEPT_US: i64 = 90_000_000;

/// What one event wrote into a slot; `value` none is a slot that was cleared.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Written<T> {
    pub(super) seq: i64,
    pub(super) at_us: i64,
    pub(super) issued_us: i64,
    until_us: Option<i64>,
    pub(super) value: Option<T>,
}

/// A place of the state: the last event without an end that wrote it, and on top of it those with
/// an end. When the uppermost lapses, what is below comes back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Slot<T>(Vec<Written<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Slot<T> {
    fn write(&mut self, event: &Event, value: Option<T>) {
        let until_us = event.until_us();
        if until_us.is_none() {
            self.0.clear();
        } else {
            let lasts = |it: &Written<T>| it.until_us.is_none_or(|until| until > event.at_us);
            self.0.retain(lasts);
        }
        self.0.push(Written {
            seq: event.seq,
            at_us: event.at_us,
            issued_us: event.issued_us,
            until_us,
            value,
        });
    }

    /// What holds at a time, which lies behind every event that was folded.
    pub(super) fn at(&self, at_us: i64) -> Option<&Written<T>> {
        self.live(at_us).next_back()
    }

    /// Whether a value holds at a time, or comes back later.
    pub(super) fn has(&self, value: &T, at_us: i64) -> bool
    where
        T: PartialEq,
    {
        self.live(at_us).any(|it| it.value.as_ref() == Some(value))
    }

    /// All that has not lapsed at a time, the lowest first.
    fn live(&self, at_us: i64) -> impl DoubleEndedIterator<Item = &Written<T>> {
        let lasts = move |it: &&Written<T>| it.until_us.is_none_or(|until| until > at_us);
        self.0.iter().filter(lasts)
    }
}

/// A price of the room.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct ShownPrice {
    pub(super) price: Money,
    pub(super) offer: Option<String>,
    pub(super) entry: Option<EntryId>,
}

/// A deal that viewers see.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub(super) enum ShownDeal {
    Countdown {
        opens_at_us: i64,
    },
    Open {
        closes_at_us: i64,
        lines: Vec<OpenLine>,
    },
}

/// Every place of the state, folded up to some point of the order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Cards {
    pub(super) pinned: Slot<EntryId>,
    pub(super) explained: Slot<EntryId>,
    pub(super) coupon: Slot<CouponData>,
    pub(super) prices: BTreeMap<VariantId, Slot<ShownPrice>>,
    pub(super) deals: BTreeMap<DealId, Slot<ShownDeal>>,
    /// `true` where it is; a unit would be read back as nothing.
    pub(super) sold_out: BTreeMap<VariantId, Slot<bool>>,
    /// By deal, then by variant.
    pub(super) deals_sold_out: BTreeMap<DealId, BTreeMap<VariantId, Slot<bool>>>,
}

impl Cards {
    /// Folds the next event in the order of (`at_us`, `seq`).
    pub(super) fn apply(&mut self, event: &Event) {
        match (event.action, &event.data) {
            (Action::Pin, _) => self.pinned.write(event, event.entry),
            (Action::Unpin, _) => self.pinned.write(event, None),
            (Action::ExplainStart, _) => self.explained.write(event, event.entry),
            (Action::ExplainEnd, _) => self.explained.write(event, None),
            (Action::CouponPin, Data::Coupon(data)) => {
                self.coupon.write(event, Some(data.clone()));
            }
            (Action::CouponUnpin, _) => self.coupon.write(event, None),
            (Action::Price, Data::Price(data)) => {
                let shown = |amount| ShownPrice {
                    price: Money::new(amount, data.currency),
                    offer: data.offer.clone(),
                    entry: event.entry,
                };
                let slot = self.prices.entry(data.variant).or_default();
                slot.write(event, data.amount.map(shown));
            }
            (_, Data::Announce(data)) => {
                let opens_at_us = event.at_us.saturating_add(data.opens_in_ms * 1_000);
                let shown = ShownDeal::Countdown { opens_at_us };
                self.deals
                    .entry(data.deal)
                    .or_default()
                    .write(event, Some(shown));
            }
            (_, Data::Open(data)) => {
                let shown = ShownDeal::Open {
                    closes_at_us: event.at_us.saturating_add(data.closes_in_ms * 1_000),
                    lines: data.lines.clone(),
                };
                self.deals
                    .entry(data.deal)
                    .or_default()
                    .write(event, Some(shown));
            }
            (_, Data::Close(data)) => {
                self.deals.entry(data.deal).or_default().write(event, None);
            }
            (action, Data::Stock(data)) => {
                let is_sold_out = action == Action::SoldOut;
                self.stock_slot(data)
                    .write(event, is_sold_out.then_some(true));
            }
            (_, Data::None | Data::Price(_) | Data::Coupon(_) | Data::Custom(_)) => {}
        }
    }

    fn stock_slot(&mut self, data: &StockData) -> &mut Slot<bool> {
        match data.deal {
            None => self.sold_out.entry(data.variant).or_default(),
            Some(deal) => {
                let of_deal = self.deals_sold_out.entry(deal).or_default();
                of_deal.entry(data.variant).or_default()
            }
        }
    }

    /// The event that set what this one would set once more, if there is no difference.
    pub(super) fn repeated_by(&self, event: &Event) -> Option<Repeat> {
        let at_us = event.at_us;
        match (event.action, &event.data) {
            (Action::Pin, _) => same(&self.pinned, event, event.entry.as_ref()),
            (Action::Unpin, _) => same(&self.pinned, event, None),
            (Action::ExplainStart, _) => same(&self.explained, event, event.entry.as_ref()),
            (Action::ExplainEnd, _) => same(&self.explained, event, None),
            (Action::CouponPin, Data::Coupon(data)) => same(&self.coupon, event, Some(data)),
            (Action::CouponUnpin, _) => same(&self.coupon, event, None),
            (Action::Price, Data::Price(data)) => {
                let empty = Slot::default();
                let slot = self.prices.get(&data.variant).unwrap_or(&empty);
                let shown = slot.at(at_us).and_then(|it| it.value.as_ref());
                let price = data.amount.map(|amount| Money::new(amount, data.currency));
                let is_same = shown.map(|shown| shown.price) == price;
                is_same.then(|| repeat(slot, event)).flatten()
            }
            (_, Data::Close(data)) => {
                let empty = Slot::default();
                same(self.deals.get(&data.deal).unwrap_or(&empty), event, None)
            }
            (action, Data::Stock(data)) => {
                let empty = Slot::default();
                let slot = match data.deal {
                    None => self.sold_out.get(&data.variant),
                    Some(deal) => {
                        let of_deal = self.deals_sold_out.get(&deal);
                        of_deal.and_then(|of_deal| of_deal.get(&data.variant))
                    }
                };
                let wanted = (action == Action::SoldOut).then_some(&true);
                same(slot.unwrap_or(&empty), event, wanted)
            }
            _ => None,
        }
    }

    /// The numbers of the listed events that are open at a time.
    pub(super) fn open(&self, at_us: i64) -> Vec<i64> {
        let deals = self.deals.values().flat_map(|slot| slot.live(at_us));
        let deals = deals.filter(|it| matches!(it.value, Some(ShownDeal::Open { .. })));
        let mut open: Vec<i64> = shown(&self.pinned, at_us)
            .chain(shown(&self.explained, at_us))
            .chain(shown(&self.coupon, at_us))
            .chain(deals.map(|it| it.seq))
            .collect();
        open.sort_unstable();
        open
    }

    /// The entries a viewer sees in a card: pinned, then explained.
    pub(super) fn entries(&self, at_us: i64) -> Vec<EntryId> {
        let slots = [self.pinned.at(at_us), self.explained.at(at_us)];
        slots
            .into_iter()
            .flatten()
            .filter_map(|it| it.value)
            .collect()
    }
}

fn shown<T>(slot: &Slot<T>, at_us: i64) -> impl Iterator<Item = i64> {
    let live = slot.live(at_us).filter(|it| it.value.is_some());
    live.map(|it| it.seq)
}

/// The event whose state a command repeats; seq 0 is the state no event set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    pub(super) seq: i64,
    pub(super) at_us: i64,
    /// None of the state that was there from the start.
    pub(super) issued_us: Option<i64>,
}

fn same<T: PartialEq>(slot: &Slot<T>, event: &Event, wanted: Option<&T>) -> Option<Repeat> {
    let held = slot.at(event.at_us).and_then(|it| it.value.as_ref());
    (held == wanted).then(|| repeat(slot, event)).flatten()
}

/// The event that set what holds in a slot, if it lasts as long as the one that repeats it.
fn repeat<T>(slot: &Slot<T>, event: &Event) -> Option<Repeat> {
    let Some(held) = slot.at(event.at_us) else {
        return (event.ttl_us == 0).then_some(Repeat {
            seq: 0,
            at_us: 0,
            issued_us: None,
        });
    };
    let ttl_us = held.until_us.map_or(0, |until| until - held.at_us);
    (ttl_us == event.ttl_us).then_some(Repeat {
        seq: held.seq,
        at_us: held.at_us,
        issued_us: Some(held.issued_us),
    })
}

/// A point of the order up to which no event can be put in any more, and the state behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) seq: i64,
    pub(super) at_us: i64,
    pub(super) cards: Arc<Cards>,
}

impl Default for Checkpoint {
    /// The state before the first event.
    fn default() -> Self {
        Self {
            seq: 0,
            at_us: i64::MIN,
            cards: Arc::default(),
        }
    }
}

impl Checkpoint {
    pub(super) const fn place(&self) -> (i64, i64) {
        (self.at_us, self.seq)
    }
}

/// A price a card set for a variant, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PricePoint {
    pub(super) seq: i64,
    pub(super) at_us: i64,
    pub(super) until_us: Option<i64>,
    pub(super) price: Option<Money>,
    pub(super) entry: Option<EntryId>,
}

/// The events of a room behind its last checkpoint. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Timeline {
    settled: Checkpoint,
    /// In the order of (`at_us`, `seq`).
    tail: Vec<Arc<Event>>,
    /// The newest number.
    seq: i64,
    /// What each variant cost of late, in the order of (`at_us`, `seq`).
    prices: Arc<HashMap<VariantId, Vec<PricePoint>>>,
}

impl Timeline {
    /// A timeline whose events follow, in any order.
    pub(super) fn behind(settled: Checkpoint) -> Self {
        let mut prices: HashMap<_, Vec<PricePoint>> = HashMap::new();
        for (variant, slot) in &settled.cards.prices {
            let points = slot.0.iter().map(PricePoint::of).collect();
            prices.insert(*variant, points);
        }
        Self {
            seq: settled.seq,
            settled,
            tail: Vec::new(),
            prices: Arc::new(prices),
        }
    }

    pub(super) const fn seq(&self) -> i64 {
        self.seq
    }

    /// Where it begins: behind its last checkpoint.
    pub(super) const fn settled(&self) -> &Checkpoint {
        &self.settled
    }

    /// Every number up to this one was given out.
    pub(super) fn reach(&mut self, seq: i64) {
        self.seq = self.seq.max(seq);
    }

    /// The events behind the last checkpoint, in the order of the fold.
    pub(super) fn events(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.tail.iter()
    }

    /// When a card without an end loses its place to another, as far as is known by now.
    pub(super) fn closes_at_us(&self, event: &Event) -> Option<i64> {
        let settled_us = self.settled.at_us;
        if event.place() <= self.settled.place()
            && !self.settled.cards.open(settled_us).contains(&event.seq)
        {
            return Some(settled_us);
        }
        let slot = event.slot()?;
        let later = self.tail.iter().filter(|it| it.place() > event.place());
        let mut takers = later.filter(|it| it.ttl_us == 0 && it.slot().as_ref() == Some(&slot));
        takers.next().map(|it| it.at_us)
    }

    /// Puts an event in its place.
    pub(super) fn insert(&mut self, event: Arc<Event>) {
        self.seq = self.seq.max(event.seq);
        if let Data::Price(data) = &event.data {
            let points = Arc::make_mut(&mut self.prices);
            let points = points.entry(data.variant).or_default();
            put_price(points, &event, data);
        }
        let behind = self.tail.partition_point(|it| it.place() < event.place());
        self.tail.insert(behind, event);
    }

    /// The state at a time that does not lie before the last checkpoint.
    pub(super) fn at(&self, at_us: i64) -> Cards {
        let mut cards = Cards::clone(&self.settled.cards);
        for event in self.tail.iter().take_while(|it| it.at_us <= at_us) {
            cards.apply(event);
        }
        cards
    }

    /// The highest number up to which every event is in force at a time.
    pub(super) fn whole_to(&self, at_us: i64) -> i64 {
        let ahead = self.ahead(at_us).map(|it| it.seq - 1);
        ahead.min().unwrap_or(self.seq)
    }

    /// The events that are not in force yet, in their order.
    pub(super) fn ahead(&self, at_us: i64) -> impl Iterator<Item = &Arc<Event>> {
        self.tail.iter().skip_while(move |it| it.at_us <= at_us)
    }

    /// The next checkpoint, once so many events are settled before `now_us` that it is due.
    pub(super) fn due(&self, now_us: i64) -> Option<Checkpoint> {
        let last = self.tail.get(CHECKPOINT_EVERY - 1)?;
        (last.at_us <= now_us).then(|| self.checkpoint(CHECKPOINT_EVERY))
    }

    /// The checkpoint behind all events in force at `now_us`; none if there is nothing new.
    pub(super) fn last(&self, now_us: i64) -> Option<Checkpoint> {
        let count = self.tail.iter().take_while(|it| it.at_us <= now_us).count();
        (count > 0).then(|| self.checkpoint(count))
    }

    fn checkpoint(&self, count: usize) -> Checkpoint {
        let mut cards = Cards::clone(&self.settled.cards);
        let mut place = self.settled.place();
        for event in self.tail.iter().take(count) {
            cards.apply(event);
            place = event.place();
        }
        Checkpoint {
            seq: place.1,
            at_us: place.0,
            cards: Arc::new(cards),
        }
    }

    /// Forgets the events before a checkpoint.
    pub(super) fn settle(&mut self, checkpoint: Checkpoint) {
        if checkpoint.place() <= self.settled.place() {
            return;
        }
        let before = self
            .tail
            .partition_point(|it| it.place() <= checkpoint.place());
        self.tail.drain(..before);
        self.settled = checkpoint;
    }

    /// Forgets prices that nobody can claim any more.
    pub(super) fn forget_prices(&mut self, now_us: i64) {
        let horizon_us = now_us - PRICES_KEPT_US;
        let is_long = |points: &Vec<PricePoint>| stale(points, horizon_us) > 0;
        if self.prices.values().any(is_long) {
            for points in Arc::make_mut(&mut self.prices).values_mut() {
                points.drain(..stale(points, horizon_us));
            }
        }
    }

    /// What a variant cost of late.
    pub(super) fn prices(&self, variant: VariantId) -> &[PricePoint] {
        self.prices.get(&variant).map_or(&[], Vec::as_slice)
    }
}

impl PricePoint {
    fn of(written: &Written<ShownPrice>) -> Self {
        Self {
            seq: written.seq,
            at_us: written.at_us,
            until_us: written.until_us,
            price: written.value.as_ref().map(|shown| shown.price),
            entry: written.value.as_ref().and_then(|shown| shown.entry),
        }
    }
}

fn put_price(points: &mut Vec<PricePoint>, event: &Event, data: &PriceData) {
    let behind = points.partition_point(|it| (it.at_us, it.seq) < event.place());
    let point = PricePoint {
        seq: event.seq,
        at_us: event.at_us,
        until_us: event.until_us(),
        price: data.amount.map(|amount| Money::new(amount, data.currency)),
        entry: event.entry,
    };
    points.insert(behind, point);
}

/// How many points at the front say nothing of any time from the horizon on: those before the
/// last one without an end that was in force there.
fn stale(points: &[PricePoint], horizon_us: i64) -> usize {
    let is_base = |it: &PricePoint| it.at_us <= horizon_us && it.until_us.is_none();
    points.iter().rposition(is_base).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::super::envelope::Stamped;
    use super::*;
    use crate::db::NOON;
    use crate::ids::RoomId;
    use crate::money::Currency;

    fn room() -> RoomId {
        RoomId::derived(&["room"])
    }

    fn entry(n: u8) -> EntryId {
        EntryId::derived(&["entry", &n.to_string()])
    }

    fn variant(n: u8) -> VariantId {
        VariantId::derived(&["variant", &n.to_string()])
    }

    fn stamped(seq: i64, action: Action, data: Data) -> Stamped {
        Stamped {
            room: room(),
            seq,
            action,
            at_us: 1_000 * seq,
            issued_us: NOON.as_micros(),
            ttl_us: 0,
            entry: None,
            data,
        }
    }

    /// A random card: what, at which time, for how long.
    #[derive(Clone, Debug)]
    struct Card {
        action: Action,
        at_us: i64,
        ttl_us: i64,
        of: u8,
    }

    fn cards() -> impl Strategy<Value = Vec<Card>> {
        let kinds = [
            Action::Pin,
            Action::Unpin,
            Action::ExplainStart,
            Action::ExplainEnd,
            Action::Price,
            Action::SoldOut,
            Action::Restock,
            Action::Custom,
        ];
        let ttl = prop_oneof![3 => Just(0_i64), 1 => 1_i64..60];
        let card = (
            prop::sample::select(kinds.to_vec()),
            0_i64..400,
            ttl,
            0_u8..3,
        );
        let card = card.prop_map(|(action, at_us, ttl_us, of)| Card {
            action,
            at_us,
            ttl_us,
            of,
        });
        prop::collection::vec(card, 0..700)
    }

    fn event(seq: i64, card: &Card) -> Arc<Event> {
        let data = match card.action {
            Action::Price => Data::Price(PriceData {
                variant: variant(card.of),
                amount: Some(seq).filter(|seq| seq % 3 != 0),
                currency: Currency::CNY,
                offer: None,
            }),
            Action::SoldOut | Action::Restock => Data::Stock(StockData {
                variant: variant(card.of),
                deal: None,
            }),
            Action::Custom => Data::Custom(to_raw_value(&json!({})).unwrap()),
            _ => Data::None,
        };
        let has_entry = matches!(card.action, Action::Pin | Action::ExplainStart);
        let stamped = Stamped {
            at_us: card.at_us,
            ttl_us: card.ttl_us,
            entry: has_entry.then(|| entry(card.of)),
            ..stamped(seq, card.action, data)
        };
        Arc::new(Event::write(stamped).unwrap())
    }

    fn events(cards: &[Card]) -> Vec<Arc<Event>> {
        (1..)
            .zip(cards)
            .map(|(seq, card)| event(seq, card))
            .collect()
    }

    /// What a viewer can see at a time.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        pinned: Option<(EntryId, i64)>,
        explained: Option<(EntryId, i64)>,
        prices: BTreeMap<VariantId, i64>,
        sold_out: Vec<VariantId>,
    }

    fn seen(cards: &Cards, at_us: i64) -> Seen {
        let entry = |slot: &Slot<EntryId>| {
            let written = slot.at(at_us)?;
            written.value.map(|entry| (entry, written.seq))
        };
        let price = |(variant, slot): (&VariantId, &Slot<ShownPrice>)| {
            let shown = slot.at(at_us)?.value.as_ref()?;
            Some((*variant, shown.price.amount_minor()))
        };
        let out =
            |(variant, slot): (&VariantId, &Slot<bool>)| slot.at(at_us)?.value.map(|_| *variant);
        Seen {
            pinned: entry(&cards.pinned),
            explained: entry(&cards.explained),
            prices: cards.prices.iter().filter_map(price).collect(),
            sold_out: cards.sold_out.iter().filter_map(out).collect(),
        }
    }

    /// The sentence of the contract, word for word: sort, leave out what has lapsed, fold.
    fn by_the_book(events: &[Arc<Event>], at_us: i64) -> Seen {
        let holds = |it: &&Arc<Event>| {
            it.at_us <= at_us && (it.ttl_us == 0 || at_us < it.at_us + it.ttl_us)
        };
        let mut events: Vec<_> = events.iter().filter(holds).collect();
        events.sort_by_key(|it| (it.at_us, it.seq));
        let mut seen = Seen::default();
        for it in events {
            match (it.action, &it.data) {
                (Action::Pin, _) => seen.pinned = it.entry.map(|entry| (entry, it.seq)),
                (Action::Unpin, _) => seen.pinned = None,
                (Action::ExplainStart, _) => {
                    seen.explained = it.entry.map(|entry| (entry, it.seq));
                }
                (Action::ExplainEnd, _) => seen.explained = None,
                (_, Data::Price(data)) => {
                    match data.amount {
                        Some(amount) => seen.prices.insert(data.variant, amount),
                        None => seen.prices.remove(&data.variant),
                    };
                }
                (action, Data::Stock(data)) => {
                    seen.sold_out.retain(|it| *it != data.variant);
                    if action == Action::SoldOut {
                        seen.sold_out.push(data.variant);
                    }
                }
                _ => {}
            }
        }
        seen.sold_out.sort_unstable();
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// C19: the live state is the fold, whatever order the events were put in.
        #[test]
        fn the_state_at_any_time_is_the_fold_of_what_has_not_lapsed(
            cards in cards(), times in prop::collection::vec(0_i64..500, 1..20),
        ) {
            let events = events(&cards);
            let mut timeline = Timeline::default();
            events.iter().for_each(|it| timeline.insert(Arc::clone(it)));
            for at_us in times {
                let live = timeline.at(at_us);
                prop_assert_eq!(seen(&live, at_us), by_the_book(&events, at_us));
                let whole_to = timeline.whole_to(at_us);
                prop_assert!(events.iter().all(|it| it.seq > whole_to || it.at_us <= at_us));
                prop_assert!(events.iter().filter(|it| it.seq == whole_to + 1)
                    .all(|it| it.at_us > at_us));
            }
        }

        /// C19: a snapshot is the full fold, and folds no more than one stretch of events.
        #[test]
        fn a_snapshot_from_its_checkpoint_is_the_full_fold(
            cards in cards(), times in prop::collection::vec(0_i64..500, 1..20),
        ) {
            let events = events(&cards);
            let mut timeline = Timeline::default();
            events.iter().for_each(|it| timeline.insert(Arc::clone(it)));
            let mut checkpoints = vec![Checkpoint::default()];
            while let Some(due) = timeline.due(i64::MAX) {
                timeline.settle(due.clone());
                checkpoints.push(due);
            }
            for at_us in times {
                let mut before = checkpoints.iter().rev();
                let base = before.find(|it| it.at_us <= at_us).unwrap();
                let text = serde_json::to_string(&*base.cards).unwrap();
                let base = Checkpoint {
                    cards: Arc::new(serde_json::from_str(&text).unwrap()),
                    ..*base
                };
                let mut behind = Timeline::behind(base.clone());
                let rest = events.iter().filter(|it| it.place() > base.place());
                let rest: Vec<_> = rest.filter(|it| it.at_us <= at_us).collect();
                prop_assert!(rest.len() <= CHECKPOINT_EVERY + cards.len() % CHECKPOINT_EVERY);
                rest.into_iter().for_each(|it| behind.insert(Arc::clone(it)));
                prop_assert_eq!(seen(&behind.at(at_us), at_us), by_the_book(&events, at_us));
            }
        }

        /// C19: a command that repeats the state changes nothing, so it may be left out.
        #[test]
        fn a_repeated_command_would_change_nothing(cards in cards()) {
            let mut timeline = Timeline::default();
            for card in &cards {
                let event = event(timeline.seq() + 1, card);
                let state = timeline.at(event.at_us);
                let Some(repeat) = state.repeated_by(&event) else {
                    timeline.insert(event);
                    continue;
                };
                prop_assert!(repeat.seq < event.seq && repeat.at_us <= event.at_us);
                let mut with = state.clone();
                with.apply(&event);
                let strip = |seen: Seen| Seen {
                    pinned: seen.pinned.map(|(entry, _)| (entry, 0)),
                    explained: seen.explained.map(|(entry, _)| (entry, 0)),
                    ..seen
                };
                prop_assert_eq!(
                    strip(seen(&with, event.at_us)),
                    strip(seen(&state, event.at_us))
                );
            }
        }

        /// What is forgotten of prices changes no price of the last minute.
        #[test]
        fn forgotten_prices_are_those_nobody_can_claim(cards in cards(), back in 0_i64..90) {
            let second = |card: &Card| Card {
                at_us: card.at_us * 1_000_000,
                ttl_us: card.ttl_us * 1_000_000,
                ..card.clone()
            };
            let cards: Vec<_> = cards.iter().map(second).collect();
            let mut timeline = Timeline::default();
            events(&cards).into_iter().for_each(|it| timeline.insert(it));
            let whole = timeline.clone();
            let now_us = 400_000_000;
            timeline.forget_prices(now_us);
            let at_us = now_us - back * 1_000_000;
            let price_of = |timeline: &Timeline, of: u8| {
                let holds = |it: &&PricePoint| {
                    it.at_us <= at_us && it.until_us.is_none_or(|until| at_us < until)
                };
                let points = timeline.prices(variant(of)).iter();
                points.rev().find(holds).map(|it| it.seq)
            };
            for of in 0..3 {
                prop_assert_eq!(price_of(&timeline, of), price_of(&whole, of));
            }
        }
    }

    #[test]
    fn what_a_listed_card_with_an_end_covered_stays_open_and_comes_back() {
        let mut timeline = Timeline::default();
        let card = |action, at_us, ttl_us, of| Card {
            action,
            at_us,
            ttl_us,
            of,
        };
        let cards = [
            card(Action::Pin, 10, 0, 1),
            card(Action::Pin, 20, 10, 2),
            card(Action::ExplainStart, 25, 0, 1),
            card(Action::Pin, 50, 0, 0),
        ];
        events(&cards)
            .into_iter()
            .for_each(|it| timeline.insert(it));
        let open = |at_us| timeline.at(at_us).open(at_us);
        assert_eq!(open(15), [1]);
        assert_eq!(open(25), [1, 2, 3]);
        assert_eq!(open(30), [1, 3]);
        assert_eq!(open(50), [3, 4]);
        assert_eq!(timeline.at(30).entries(30), [entry(1), entry(1)]);
    }
}
