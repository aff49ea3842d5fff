//! What a checkout is made of, for any wish.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::model::{ComposeError, Facts, Ids, LineWish, ShipTo, Wish, compose, holds};
use crate::catalog::{Good, Terms};
use crate::db::NOON;
use crate::ids::{AccountId, CreatorId, EntryId, MerchantId, ProductId, RoomId, VariantId};
use crate::money::{Currency, Money};
use crate::rooms::{Attribution, Charged, PriceWish, Quote, QuoteKind};

const MERCHANTS: usize = 3;
const VARIANTS: usize = 9;
const FEE: i64 = 700;

fn merchant(n: usize) -> MerchantId {
    MerchantId::derived(&["merchant", &n.to_string()])
}

fn variant(n: usize) -> VariantId {
    VariantId::derived(&["variant", &n.to_string()])
}

fn cny(amount: i64) -> Money {
    Money::new(amount, Currency::CNY)
}

/// Variant `n` is of merchant `n % 3`, costs `100 (n + 1)`, and is sent when `n` is even.
fn facts() -> Facts {
    let mut facts = Facts::default();
    for n in 0..VARIANTS {
        let good = Good {
            product: ProductId::derived(&["product", &n.to_string()]),
            merchant: merchant(n % MERCHANTS),
            title: format!("Mug {n}"),
            options: "[]".into(),
            requires_shipping: n % 2 == 0,
            is_active: true,
        };
        facts.goods.insert(variant(n), good);
    }
    for n in 0..MERCHANTS {
        let terms = Terms {
            currency: Currency::CNY,
            shipping_fee: FEE,
            fee_bps: 500,
            reserve_bps: 0,
            settle_after_days: 7,
            auto_confirm_days: 7,
        };
        facts.terms.insert(merchant(n), terms);
    }
    facts
}

fn price_of(n: usize) -> i64 {
    100 * (i64::try_from(n).unwrap() + 1)
}

fn wish(lines: &[(usize, i64)]) -> Wish {
    let line = |&(n, quantity): &(usize, i64)| LineWish {
        quantity,
        price: PriceWish {
            variant: variant(n),
            room: None,
            offer: None,
            unit_price: Some(cny(price_of(n))),
            at_us: None,
            playback_id: None,
        },
        entry: None,
    };
    Wish {
        buyer: AccountId::derived(&["buyer"]),
        lines: lines.iter().map(line).collect(),
        ship_to: Some(ShipTo {
            name: "A buyer".into(),
            phone: "123".into(),
            region: "Here".into(),
            address: "A street".into(),
            postcode: None,
        }),
        client_ref: None,
        is_single: false,
    }
}

/// What each line says is what is charged.
fn charged(wish: &Wish) -> Vec<Charged> {
    let one = |line: &LineWish| Charged {
        quote: Quote {
            kind: QuoteKind::List,
            price: line.price.unit_price.unwrap(),
            compare_at: None,
            row: None,
            seq: 1,
            entry: None,
            deal: None,
            from_us: 0,
        },
        is_honoured: false,
    };
    wish.lines.iter().map(one).collect()
}

fn ids() -> Ids {
    Ids::new(NOON, (0..MERCHANTS).map(merchant))
}

proptest! {
    /// C15, C16: every line is in the order of its merchant once, the sums are exact, and what is
    /// held is what is ordered.
    #[test]
    fn any_wish_is_split_by_merchant_and_sums_up(
        lines in prop::collection::vec((0..VARIANTS, 1..999_i64), 1..100)
    ) {
        let (wish, ids, facts) = (wish(&lines), ids(), facts());
        let made = compose(NOON, &wish, &ids, (&facts, &charged(&wish))).unwrap();
        let mut expected: BTreeMap<MerchantId, i64> = BTreeMap::new();
        let mut sent: BTreeMap<MerchantId, i64> = BTreeMap::new();
        for (n, quantity) in &lines {
            *expected.entry(merchant(n % MERCHANTS)).or_default() += price_of(*n) * quantity;
            if n % 2 == 0 {
                sent.insert(merchant(n % MERCHANTS), FEE);
            }
        }
        prop_assert_eq!(made.orders.len(), expected.len());
        for order in &made.orders {
            let bases: i64 = order.lines.iter().map(|line| line.base).sum();
            prop_assert_eq!(order.items, bases);
            prop_assert_eq!(order.items, expected[&order.merchant]);
            prop_assert_eq!(order.shipping, sent.get(&order.merchant).copied().unwrap_or(0));
            prop_assert_eq!(order.due, order.items + order.shipping);
        }
        let dues: i64 = made.orders.iter().map(|order| order.due).sum();
        prop_assert_eq!(made.due, cny(dues));
        let held = holds(&wish, &ids, &facts.goods).unwrap();
        for hold in held {
            let order = made.orders.iter().find(|order| order.id == hold.order).unwrap();
            prop_assert_eq!(order.reservation, hold.reservation);
            let wanted: Vec<_> = order.lines.iter().map(|it| (it.variant, it.quantity)).collect();
            let units: Vec<_> = hold.lines.iter().map(|it| (it.variant, it.quantity)).collect();
            prop_assert_eq!(units, wanted);
        }
    }
}

#[test]
fn a_wish_that_does_not_hold_is_refused_by_its_name() {
    let facts = facts();
    let refused = |wish: &Wish| {
        let charged = charged(wish);
        compose(NOON, wish, &ids(), (&facts, &charged)).unwrap_err()
    };
    let mut nowhere = wish(&[(0, 1)]);
    nowhere.ship_to = None;
    assert_eq!(refused(&nowhere), ComposeError::AddressRequired);
    let mut single = wish(&[(0, 1), (1, 1)]);
    single.is_single = true;
    assert_eq!(refused(&single), ComposeError::SeveralMerchants);
    assert_eq!(refused(&wish(&[])), ComposeError::Empty);
    let mut unknown = wish(&[(0, 1)]);
    unknown.lines[0].price.variant = variant(99);
    assert_eq!(refused(&unknown), ComposeError::NotSellable(variant(99)));
    let mut elsewhere = wish(&[(0, 1)]);
    let entry = EntryId::derived(&["entry"]);
    elsewhere.lines[0].entry = Some(entry);
    assert_eq!(refused(&elsewhere), ComposeError::NotOnShelf(entry));
}

/// Whoever's room it was has their share frozen in the line; nobody brings themselves.
#[test]
fn the_creator_of_the_room_is_written_on_the_line_but_not_for_an_own_purchase() {
    let mut facts = facts();
    let (entry, room) = (EntryId::derived(&["entry"]), RoomId::derived(&["room"]));
    let creator = CreatorId::derived(&["creator"]);
    let attribution = Attribution {
        room,
        creator,
        product: facts.goods[&variant(0)].product,
        creator_bps: 1_000,
    };
    facts.entries.insert(entry, attribution);
    let mut wish = wish(&[(0, 1), (3, 1)]);
    wish.lines[0].entry = Some(entry);
    wish.lines[0].price.room = Some(room);
    let made = |facts: &Facts| compose(NOON, &wish, &ids(), (facts, &charged(&wish))).unwrap();
    let order = made(&facts).orders.remove(0);
    assert_eq!(order.sold_in, Some((room, creator)));
    let shares: Vec<i64> = order.lines.iter().map(|line| line.creator_bps).collect();
    assert_eq!(shares, [1_000, 0]);
    facts.operated.insert((wish.buyer, creator));
    let order = made(&facts).orders.remove(0);
    assert_eq!(order.lines[0].creator_bps, 0);
}
