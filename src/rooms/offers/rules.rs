//! Which price is in force, and which offer is honoured (commerce.md 8): pure.
//!
//! Invariants
//! - What is charged is a price in force now or at the room time the wish claims, and never more
//!   than the wish says.
//! - Prices of one variant have one order: open deal with units left, room price, sale, list.
//!
//! Not here: tokens and their keys; whether there is stock.

use serde::Serialize;

use super::token::Offer;
use crate::clock::Timestamp;
use crate::ids::{DealId, EntryId, PriceId, RoomId, VariantId};
use crate::money::Money;

/// How far behind the room a viewer may be whose price is honoured.
const BEHIND_US_MAX: i64 = 60_000_000;

/// What kind of price it is; the later wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QuoteKind {
    List,
    Sale,
    Room,
    Deal,
}

/// A row of a variant's price list; its window is of wall time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) id: PriceId,
    pub(crate) kind: QuoteKind,
    pub(crate) price: Money,
    pub(crate) compare_at: Option<i64>,
    pub(crate) version: i64,
    pub(crate) starts_us: i64,
    pub(crate) ends_us: Option<i64>,
}

impl Window {
    fn holds(&self, wall_us: i64) -> bool {
        self.starts_us <= wall_us && self.ends_us.is_none_or(|ends| wall_us < ends)
    }
}

/// A price that a card set, or took back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoomPrice {
    pub(crate) seq: i64,
    pub(crate) at_us: i64,
    /// When it lapses.
    pub(crate) until_us: Option<i64>,
    pub(crate) price: Option<Money>,
    pub(crate) entry: Option<EntryId>,
}

/// The price of a variant in a deal of the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DealPrice {
    pub(crate) deal: DealId,
    /// The card that opened it.
    pub(crate) seq: i64,
    pub(crate) price: Money,
    pub(crate) entry: Option<EntryId>,
    /// Room time.
    pub(crate) opens_us: i64,
    /// Room time; none while it is open without an end that is fixed.
    pub(crate) closes_us: Option<i64>,
    /// Open, or closing and still within `price_honour_ms`.
    pub(crate) is_admitting: bool,
    pub(crate) has_units: bool,
}

impl DealPrice {
    fn holds(&self, at_us: i64) -> bool {
        self.opens_us <= at_us && self.closes_us.is_none_or(|closes| at_us < closes)
    }
}

/// Everything that prices one variant in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prices {
    pub(crate) windows: Vec<Window>,
    /// In the order of (`at_us`, `seq`).
    pub(crate) room: Vec<RoomPrice>,
    pub(crate) deals: Vec<DealPrice>,
}

/// A room at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) room: RoomId,
    /// Room time now. It runs on after the end, so that what was honoured then still can be.
    pub(crate) now_us: i64,
    pub(crate) price_honour_ms: i64,
    /// The room time of its end: no price of the room is in force from there on.
    pub(crate) ended_us: Option<i64>,
}

/// One price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) kind: QuoteKind,
    pub(crate) price: Money,
    pub(crate) compare_at: Option<i64>,
    /// The row of the price list, if it is of one.
    pub(crate) row: Option<PriceId>,
    /// The card's number, or the version of the price's row.
    pub(crate) seq: i64,
    pub(crate) entry: Option<EntryId>,
    pub(crate) deal: Option<DealId>,
    /// The room time from which it is valid.
    pub(crate) from_us: i64,
}

/// Why a candidate won or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    StrongestInForce,
    /// A deal has units left at its own price.
    BelowDeal,
    BelowRoomPrice,
    BelowSale,
    /// The deal has no units left.
    SoldOut,
}

/// A candidate of a resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) quote: Quote,
    pub(crate) why: Why,
}

/// What a wish says of its price.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) variant: VariantId,
    pub(crate) unit_price: Option<Money>,
    /// The room time the buyer sees.
    pub(crate) at_us: Option<i64>,
    pub(crate) playhead: Playhead,
}

/// What the media core knows of the buyer's playback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Playhead {
    /// The wish names none.
    NotNamed,
    /// The session is not known, or has shown nothing.
    Unknown,
    /// It can be seeing these points of room time.
    Range(i64, i64),
}

impl Playhead {
    fn allows(self, at_us: i64) -> bool {
        match self {
            Self::NotNamed => true,
            Self::Unknown => false,
            Self::Range(from, to) => (from..=to).contains(&at_us),
        }
    }
}

/// What one unit costs a buyer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charged {
    pub(crate) quote: Quote,
    /// The price is no longer in force; the buyer saw it on the own screen.
    pub(crate) is_honoured: bool,
}

/// Why a wish's price is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Neither an offer nor a unit price.
    Unconfirmed,
    Invalid,
    NotStarted,
    DealNotStarted,
    DealEnded,
    SoldOut,
    /// Another price is in force.
    Changed(Quote),
    /// No price is in force.
    NotSellable,
}

/// One variant's prices, looked at from one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) prices: &'a Prices,
    pub(crate) place: Option<Place>,
    pub(crate) now: Timestamp,
}

impl Look<'_> {
    /// Every candidate of this moment, the winner first (O1).
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        let now_us = self.room_now_us();
        let deals = self.prices.deals.iter().filter(|deal| deal.holds(now_us));
        let mut all: Vec<Candidate> = Vec::new();
        for deal in deals.filter(|deal| deal.is_admitting).rev() {
            let why = if deal.has_units {
                Why::StrongestInForce
            } else {
                Why::SoldOut
            };
            all.push(Candidate {
                quote: quote_of_deal(deal),
                why,
            });
        }
        let lower = [
            self.room_price(now_us),
            self.window(QuoteKind::Sale, self.now.as_micros()),
            self.window(QuoteKind::List, self.now.as_micros()),
        ];
        let in_force = |quote| Candidate {
            quote,
            why: Why::StrongestInForce,
        };
        all.extend(lower.into_iter().flatten().map(in_force));
        let winner = all.iter().position(|it| it.why == Why::StrongestInForce);
        let Some(winner) = winner else {
            return all;
        };
        let beaten_by = match all[winner].quote.kind {
            QuoteKind::Deal => Why::BelowDeal,
            QuoteKind::Room => Why::BelowRoomPrice,
            QuoteKind::Sale | QuoteKind::List => Why::BelowSale,
        };
        for loser in all.iter_mut().skip(winner + 1) {
            if loser.why == Why::StrongestInForce {
                loser.why = beaten_by;
            }
        }
        all.swap(0, winner);
        all
    }

    /// The price in force now.
    pub(crate) fn current(&self) -> Option<Quote> {
        let candidates = self.candidates();
        let first = candidates
            .first()
            .filter(|it| it.why == Why::StrongestInForce);
        first.map(|it| it.quote)
    }

    /// When the price in force may change by itself, in wall time.
    pub(crate) fn changes_at_us(&self) -> Option<i64> {
        let now_us = self.now.as_micros();
        let edges = self.prices.windows.iter().flat_map(Window::edges);
        edges.filter(|edge| *edge > now_us).min()
    }

    /// The price that was in force at a point of room time, as far as it is known.
    pub(crate) fn at(&self, at_us: i64) -> Option<Quote> {
        let deals = self.prices.deals.iter().rev();
        let mut deals = deals.filter(|deal| deal.holds(at_us));
        if let Some(deal) = deals.next() {
            return Some(quote_of_deal(deal));
        }
        let wall_us = self.wall_us(at_us);
        self.room_price(at_us)
            .or_else(|| self.window(QuoteKind::Sale, wall_us))
            .or_else(|| self.window(QuoteKind::List, wall_us))
    }

    /// What a buyer is charged who shows this offer (O3–O6).
    pub(crate) fn judge(&self, claim: &Claim, offer: &Offer) -> Result<Charged, Refusal> {
        let room = self.place.map(|place| place.room);
        if offer.variant != claim.variant || offer.room != room {
            return Err(Refusal::Invalid);
        }
        let is_early = self.place.is_some_and(|at| at.now_us < offer.from_us);
        if let Some(deal) = offer.deal {
            if is_early {
                return Err(Refusal::DealNotStarted);
            }
            return self.judge_deal(claim, offer, deal);
        }
        if is_early {
            return Err(Refusal::NotStarted);
        }
        let current = self.current().ok_or(Refusal::NotSellable)?;
        if current.price == offer.price {
            return Ok(in_force(current));
        }
        let seen = self.honoured(claim, offer);
        let seen = seen.ok_or(Refusal::Changed(current))?;
        lower(seen, current)
    }

    /// What a buyer is charged who names the price instead (O7).
    pub(crate) fn judge_named(&self, claim: &Claim) -> Result<Charged, Refusal> {
        let named = claim.unit_price.ok_or(Refusal::Unconfirmed)?;
        let current = self.current().ok_or(Refusal::NotSellable)?;
        if current.price == named {
            Ok(in_force(current))
        } else {
            Err(Refusal::Changed(current))
        }
    }

    fn judge_deal(&self, claim: &Claim, offer: &Offer, id: DealId) -> Result<Charged, Refusal> {
        let deal = self.prices.deals.iter().find(|deal| deal.deal == id);
        let deal = deal.filter(|deal| deal.is_admitting && deal.price == offer.price);
        let deal = deal.ok_or(Refusal::DealEnded)?;
        if deal.holds(self.room_now_us()) {
            if !deal.has_units {
                return Err(Refusal::SoldOut);
            }
            return Ok(in_force(quote_of_deal(deal)));
        }
        let seen = self.honoured(claim, offer).ok_or(Refusal::DealEnded)?;
        if !deal.has_units {
            return Err(Refusal::SoldOut);
        }
        match self.current() {
            Some(current) => lower(seen, current),
            None => Ok(honoured(seen)),
        }
    }

    /// The superseded price, if it is still honoured (O5): it was in force at the claimed point of
    /// room time, and has not been gone for longer than the room allows.
    fn honoured(&self, claim: &Claim, offer: &Offer) -> Option<Quote> {
        let place = self.place?;
        let at_us = claim.at_us?;
        let matches = |quote: Quote| quote.price == offer.price && quote.deal == offer.deal;
        let honoured_from = place.now_us - place.price_honour_ms.saturating_mul(1_000);
        let edges = self.edges().into_iter().rev();
        let mut ends = edges.filter(|edge| self.at(edge - 1).is_some_and(matches));
        let end_us = ends.next().filter(|end| *end >= honoured_from)?;
        let is_seen = (offer.from_us..end_us).contains(&at_us)
            && at_us >= place.now_us - BEHIND_US_MAX
            && claim.playhead.allows(at_us);
        self.at(at_us).filter(|quote| is_seen && matches(*quote))
    }

    /// The points of room time at which the price may have changed, up to now.
    fn edges(&self) -> Vec<i64> {
        let Prices {
            windows,
            room,
            deals,
        } = self.prices;
        let room_now_us = self.room_now_us();
        let ended = self.place.and_then(|place| place.ended_us);
        let of_room = room.iter().flat_map(|it| [Some(it.at_us), it.until_us]);
        let of_deals = deals
            .iter()
            .flat_map(|it| [Some(it.opens_us), it.closes_us]);
        let walls = windows.iter().flat_map(Window::edges);
        let of_windows = walls.map(|wall| Some(room_now_us - (self.now.as_micros() - wall)));
        let all = of_room.chain(of_deals).chain(of_windows).chain([ended]);
        let mut all: Vec<i64> = all.flatten().filter(|edge| *edge <= room_now_us).collect();
        all.sort_unstable();
        all
    }

    fn room_price(&self, at_us: i64) -> Option<Quote> {
        let ended_us = self.place?.ended_us;
        let holds =
            |it: &&RoomPrice| it.at_us <= at_us && it.until_us.is_none_or(|until| at_us < until);
        let newest = self.prices.room.iter().rev().find(holds);
        let newest = newest.filter(|_| ended_us.is_none_or(|ended| at_us < ended))?;
        Some(Quote {
            kind: QuoteKind::Room,
            price: newest.price?,
            compare_at: None,
            row: None,
            seq: newest.seq,
            entry: newest.entry,
            deal: None,
            from_us: newest.at_us,
        })
    }

    fn window(&self, kind: QuoteKind, wall_us: i64) -> Option<Quote> {
        let mut windows = self.prices.windows.iter();
        let window = windows.find(|it| it.kind == kind && it.holds(wall_us))?;
        Some(Quote {
            kind,
            price: window.price,
            compare_at: window.compare_at,
            row: Some(window.id),
            seq: window.version,
            entry: None,
            deal: None,
            from_us: 0,
        })
    }

    fn room_now_us(&self) -> i64 {
        self.place.map_or(0, |place| place.now_us)
    }

    fn wall_us(&self, at_us: i64) -> i64 {
        self.now.as_micros() - (self.room_now_us() - at_us)
    }
}

impl Window {
    fn edges(&self) -> impl Iterator<Item = i64> + use<> {
        [Some(self.starts_us), self.ends_us].into_iter().flatten()
    }
}

const fn quote_of_deal(deal: &DealPrice) -> Quote {
    Quote {
        kind: QuoteKind::Deal,
        price: deal.price,
        compare_at: None,
        row: None,
        seq: deal.seq,
        entry: deal.entry,
        deal: Some(deal.deal),
        from_us: deal.opens_us,
    }
}

const fn in_force(quote: Quote) -> Charged {
    Charged {
        quote,
        is_honoured: false,
    }
}

const fn honoured(quote: Quote) -> Charged {
    Charged {
        quote,
        is_honoured: true,
    }
}

/// The lower of what the buyer saw and what is in force.
fn lower(seen: Quote, current: Quote) -> Result<Charged, Refusal> {
    if seen.price.currency() != current.price.currency() {
        return Err(Refusal::Changed(current));
    }
    if current.price.amount_minor() < seen.price.amount_minor() {
        Ok(in_force(current))
    } else {
        Ok(honoured(seen))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::db::NOON;
    use crate::money::Currency;

    const S: i64 = 1_000_000;
    const HONOUR_S: i64 = 8;

    fn variant() -> VariantId {
        VariantId::derived(&["variant"])
    }

    fn deal(n: i64) -> DealId {
        DealId::derived(&["deal", &n.to_string()])
    }

    fn yuan(amount: i64) -> Money {
        Money::new(amount, Currency::CNY)
    }

    fn place(now_s: i64) -> Place {
        Place {
            room: RoomId::derived(&["room"]),
            now_us: now_s * S,
            price_honour_ms: HONOUR_S * 1_000,
            ended_us: None,
        }
    }

    fn list(amount: i64) -> Window {
        Window {
            id: PriceId::derived(&["list"]),
            kind: QuoteKind::List,
            price: yuan(amount),
            compare_at: None,
            version: 1,
            starts_us: 0,
            ends_us: None,
        }
    }

    fn card(seq: i64, at_s: i64, amount: Option<i64>) -> RoomPrice {
        RoomPrice {
            seq,
            at_us: at_s * S,
            until_us: None,
            price: amount.map(yuan),
            entry: None,
        }
    }

    fn claim(at_s: Option<i64>) -> Claim {
        Claim {
            variant: variant(),
            unit_price: None,
            at_us: at_s.map(|s| s * S),
            playhead: Playhead::NotNamed,
        }
    }

    fn offer(quote: Quote) -> Offer {
        Offer {
            room: Some(place(0).room),
            entry: quote.entry,
            variant: variant(),
            deal: quote.deal,
            seq: quote.seq,
            price: quote.price,
            from_us: quote.from_us,
            expires_s: i64::MAX,
        }
    }

    fn look(prices: &Prices, place: Place) -> Look<'_> {
        Look {
            prices,
            place: Some(place),
            now: NOON,
        }
    }

    /// List 2 000; the room says 1 500 from second 100 on and 1 700 from 110 on.
    fn show() -> Prices {
        Prices {
            windows: vec![list(2_000)],
            room: vec![card(1, 100, Some(1_500)), card(2, 110, Some(1_700))],
            deals: Vec::new(),
        }
    }

    fn charged(result: Result<Charged, Refusal>) -> (i64, bool) {
        let charged = result.unwrap();
        (charged.quote.price.amount_minor(), charged.is_honoured)
    }

    #[test]
    fn the_price_in_force_is_charged_and_before_its_time_the_old_one_is() {
        let prices = show();
        let new = offer(look(&prices, place(110)).current().unwrap());
        let then = look(&prices, place(110));
        assert_eq!(charged(then.judge(&claim(None), &new)), (1_700, false));
        let early = look(&prices, place(109));
        assert_eq!(early.judge(&claim(None), &new), Err(Refusal::NotStarted));
        assert_eq!(early.current().unwrap().price, yuan(1_500));
    }

    #[test]
    fn a_viewer_behind_pays_the_price_on_the_own_screen() {
        let prices = show();
        let old = offer(look(&prices, place(105)).current().unwrap());
        let at = |now_s, claim| look(&prices, place(now_s)).judge(&claim, &old);
        assert_eq!(charged(at(113, claim(Some(109)))), (1_500, true));
        assert_eq!(charged(at(118, claim(Some(109)))), (1_500, true));
        let changed = |result| matches!(result, Err(Refusal::Changed(now)) if now.seq == 2);
        assert!(changed(at(119, claim(Some(109)))), "gone for too long");
        assert!(changed(at(113, claim(None))), "claims no time");
        assert!(changed(at(113, claim(Some(110)))), "saw the new price");
        assert!(changed(at(113, claim(Some(99)))), "it was not in force yet");
        let named = |playhead| Claim {
            playhead,
            ..claim(Some(109))
        };
        let within = Playhead::Range(108 * S, 111 * S);
        assert_eq!(charged(at(113, named(within))), (1_500, true));
        let beyond = Playhead::Range(110 * S, 112 * S);
        assert!(changed(at(113, named(beyond))));
        assert!(changed(at(113, named(Playhead::Unknown))));
    }

    #[test]
    fn the_lower_of_the_two_is_charged() {
        let mut prices = show();
        prices.room.push(card(3, 115, Some(1_000)));
        let old = offer(look(&prices, place(112)).current().unwrap());
        let result = look(&prices, place(117)).judge(&claim(Some(114)), &old);
        assert_eq!(charged(result), (1_000, false));
    }

    #[test]
    fn a_price_of_the_room_ends_with_it_and_is_honoured_a_little_longer() {
        let prices = show();
        let old = offer(look(&prices, place(115)).current().unwrap());
        let over = |now_s| Place {
            ended_us: Some(120 * S),
            ..place(now_s)
        };
        let after = look(&prices, over(125));
        assert_eq!(after.current().unwrap().price, yuan(2_000));
        assert_eq!(charged(after.judge(&claim(Some(119)), &old)), (1_700, true));
        let late = look(&prices, over(129)).judge(&claim(Some(119)), &old);
        assert!(matches!(late, Err(Refusal::Changed(_))));
    }

    #[test]
    fn an_offer_of_another_variant_or_room_is_invalid() {
        let prices = show();
        let good = offer(look(&prices, place(115)).current().unwrap());
        let others = [
            Offer { room: None, ..good },
            Offer {
                room: Some(RoomId::derived(&["other"])),
                ..good
            },
            Offer {
                variant: VariantId::derived(&["other"]),
                ..good
            },
        ];
        for other in others {
            let result = look(&prices, place(115)).judge(&claim(None), &other);
            assert_eq!(result, Err(Refusal::Invalid));
        }
    }

    #[test]
    fn a_named_price_must_be_the_one_in_force() {
        let prices = show();
        let named = |amount: i64| Claim {
            unit_price: Some(yuan(amount)),
            ..claim(Some(109))
        };
        let at = look(&prices, place(113));
        assert_eq!(charged(at.judge_named(&named(1_700))), (1_700, false));
        for wrong in [1_500, 1_699, 2_000] {
            let result = at.judge_named(&named(wrong));
            assert!(matches!(result, Err(Refusal::Changed(_))), "{wrong}");
        }
        assert_eq!(at.judge_named(&claim(None)), Err(Refusal::Unconfirmed));
        let nothing = Prices::default();
        let result = look(&nothing, place(113)).judge_named(&named(1));
        assert_eq!(result, Err(Refusal::NotSellable));
    }

    fn open_deal() -> DealPrice {
        DealPrice {
            deal: deal(1),
            seq: 3,
            price: yuan(900),
            entry: None,
            opens_us: 120 * S,
            closes_us: Some(180 * S),
            is_admitting: true,
            has_units: true,
        }
    }

    #[test]
    fn a_deal_is_charged_while_it_has_units_and_honoured_after_its_close() {
        let with = |deal| Prices {
            deals: vec![deal],
            ..show()
        };
        let open = with(open_deal());
        let token = offer(look(&open, place(130)).current().unwrap());
        let judge = |prices: &Prices, now_s, at_s| {
            look(prices, place(now_s)).judge(&claim(Some(at_s)), &token)
        };
        assert_eq!(judge(&open, 119, 118), Err(Refusal::DealNotStarted));
        assert_eq!(charged(judge(&open, 130, 128)), (900, false));
        assert_eq!(charged(judge(&open, 185, 179)), (900, true));
        assert_eq!(judge(&open, 185, 181), Err(Refusal::DealEnded));
        assert_eq!(judge(&open, 189, 179), Err(Refusal::DealEnded));
        let empty = with(DealPrice {
            has_units: false,
            ..open_deal()
        });
        assert_eq!(judge(&empty, 130, 128), Err(Refusal::SoldOut));
        assert_eq!(judge(&empty, 185, 179), Err(Refusal::SoldOut));
        let closed = with(DealPrice {
            is_admitting: false,
            ..open_deal()
        });
        assert_eq!(judge(&closed, 185, 179), Err(Refusal::DealEnded));
    }

    #[test]
    fn every_candidate_is_explained_and_the_winner_comes_first() {
        let sale = Window {
            kind: QuoteKind::Sale,
            ..list(1_800)
        };
        let mut prices = show();
        prices.windows.push(sale);
        prices.deals.push(DealPrice {
            has_units: false,
            ..open_deal()
        });
        let found = |prices: &Prices, now_s| {
            let candidates = look(prices, place(now_s)).candidates();
            let all = candidates.iter().map(|it| (it.quote.kind, it.why));
            all.collect::<Vec<_>>()
        };
        let (deal, room) = (QuoteKind::Deal, QuoteKind::Room);
        let (sale, list) = (QuoteKind::Sale, QuoteKind::List);
        assert_eq!(
            found(&prices, 50),
            [(sale, Why::StrongestInForce), (list, Why::BelowSale)]
        );
        assert_eq!(
            found(&prices, 130),
            [
                (room, Why::StrongestInForce),
                (deal, Why::SoldOut),
                (sale, Why::BelowRoomPrice),
                (list, Why::BelowRoomPrice)
            ]
        );
        prices.deals[0].has_units = true;
        assert_eq!(found(&prices, 130)[0], (deal, Why::StrongestInForce));
        assert_eq!(found(&prices, 130)[1], (room, Why::BelowDeal));
    }

    /// A random show: (second, amount or none, seconds it lasts or 0), and a sale of wall time.
    type Cards = Vec<(i64, Option<i64>, i64)>;

    fn shows() -> impl Strategy<Value = (Cards, (i64, i64), Option<i64>)> {
        let amount = prop::option::weighted(0.8, 5_i64..9);
        let lasts = prop_oneof![3 => Just(0_i64), 1 => 1_i64..20];
        let cards = prop::collection::vec((0_i64..100, amount, lasts), 0..8);
        let end = prop::option::weighted(0.3, 60_i64..110);
        (cards, (-20_i64..100, 1_i64..60), end)
    }

    fn prices_of(cards: &Cards, sale: (i64, i64), now_s: i64) -> Prices {
        let mut room: Vec<RoomPrice> = (1..)
            .zip(cards)
            .map(|(seq, &(at_s, amount, lasts_s))| RoomPrice {
                until_us: (lasts_s > 0).then(|| (at_s + lasts_s) * S),
                ..card(seq, at_s, amount)
            })
            .collect();
        room.sort_by_key(|it| (it.at_us, it.seq));
        let wall = |at_s: i64| NOON.as_micros() - (now_s - at_s) * S;
        let sale = Window {
            kind: QuoteKind::Sale,
            price: yuan(6),
            starts_us: wall(sale.0),
            ends_us: Some(wall(sale.0 + sale.1)),
            ..list(6)
        };
        Prices {
            windows: vec![list(8), sale],
            room,
            deals: Vec::new(),
        }
    }

    /// The amount in force in a second of room time, read off the show itself.
    fn naive(cards: &Cards, sale: (i64, i64), end_s: Option<i64>, at_s: i64) -> i64 {
        let mut newest = None;
        for (seq, &(from_s, amount, lasts_s)) in cards.iter().enumerate() {
            let holds = from_s <= at_s && (lasts_s == 0 || at_s < from_s + lasts_s);
            if holds && newest.is_none_or(|(place, _)| place <= (from_s, seq)) {
                newest = Some(((from_s, seq), amount));
            }
        }
        let is_over = end_s.is_some_and(|end_s| end_s <= at_s);
        let room = newest.and_then(|(_, amount)| amount).filter(|_| !is_over);
        let is_sale = (sale.0..sale.0 + sale.1).contains(&at_s);
        room.unwrap_or(if is_sale { 6 } else { 8 })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// C18 and O4–O6: what is charged is in force now or was at the claimed time, never above
        /// the offer; and the offer is taken exactly when the rules say so.
        #[test]
        fn an_offer_is_charged_as_the_rules_say(
            (cards, sale, end_s) in shows(),
            (now_s, back_s, seen_s) in (0_i64..120, 0_i64..40, 0_i64..40),
        ) {
            let end_s = end_s.filter(|end_s| *end_s <= now_s);
            let prices = prices_of(&cards, sale, now_s);
            let now = Look {
                prices: &prices,
                place: Some(Place { ended_us: end_s.map(|s| s * S), ..place(now_s) }),
                now: NOON,
            };
            let made_s = (now_s - back_s).max(0);
            let at_s = (now_s - seen_s).max(0);
            let token = offer(now.at(made_s * S).unwrap());
            let amount = token.price.amount_minor();
            prop_assert_eq!(amount, naive(&cards, sale, end_s, made_s));

            let naive = |at_s| naive(&cards, sale, end_s, at_s);
            let last_s = (0..=now_s).rev().find(|s| naive(*s) == amount).unwrap();
            let is_current = naive(now_s) == amount;
            let is_honoured = now_s - (last_s + 1) <= HONOUR_S
                && token.from_us <= at_s * S
                && at_s <= last_s
                && naive(at_s) == amount;
            let judged = now.judge(&claim(Some(at_s)), &token);
            prop_assert_eq!(judged.is_ok(), is_current || is_honoured, "{:?}", judged);
            if let Ok(charged) = judged {
                let charged = charged.quote.price.amount_minor();
                prop_assert!(charged <= amount);
                prop_assert!(charged == naive(now_s) || charged == naive(at_s));
            }
        }
    }
}
