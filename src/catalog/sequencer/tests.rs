//! Batches against one at a time, and the writer on a real database under parallel wishes.

use proptest::prelude::*;
use sqlx::Row as _;

use super::book::Book;
use super::command::Back;
use super::*;
use crate::app::Fixture;
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, NOON, Tx};
use crate::ids::{AccountId, MerchantId, OrderId, ProductId, ReservationId};

/// A command that carries nothing.
#[derive(Clone, Copy, Debug)]
struct Alone;

impl Ride for Alone {
    type Answer = Effect;
    type Refusal = Refused;

    fn touches(&self) -> Vec<String> {
        Vec::new()
    }

    async fn prepare(_: &mut Tx, _: Timestamp, _: &mut [Seat<Self>]) -> sqlx::Result<()> {
        Ok(())
    }

    async fn write(_: &mut Tx, _: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        for seat in seats {
            if let Verdict::Admitted(effect) = &mut seat.verdict {
                seat.verdict = Verdict::Answered(std::mem::take(effect));
            }
        }
        Ok(())
    }
}

fn variant(n: usize) -> VariantId {
    VariantId::derived(&["variant", &n.to_string()])
}

fn buyer(n: usize) -> AccountId {
    AccountId::derived(&["buyer", &n.to_string()])
}

fn reservation(n: usize) -> ReservationId {
    ReservationId::derived(&["reservation", &n.to_string()])
}

fn wish(what: What) -> Command {
    Command {
        actor: "system".into(),
        what,
    }
}

fn reserve(n: usize, who: usize, lines: &[(usize, i64)]) -> Command {
    let units = |&(at, quantity): &(usize, i64)| Units {
        variant: variant(at),
        quantity,
    };
    wish(What::Reserve {
        buyer: buyer(who),
        expires_at: NOON,
        holds: vec![Hold {
            reservation: reservation(n),
            order: OrderId::derived(&["order", &n.to_string()]),
            lines: lines.iter().map(units).collect(),
        }],
    })
}

fn receive(at: usize, delta: i64) -> Command {
    wish(What::Adjust {
        variant: variant(at),
        delta,
        reason: Reason::Receive,
        note: None,
    })
}

/// What a shop's counters do, said as shortly as it can be.
#[derive(Clone, Debug, Default)]
struct Model {
    on_hand: [i64; 3],
    reserved: [i64; 3],
    committed: [i64; 3],
    /// Lines of a reservation while it is active, and its buyer.
    active: std::collections::BTreeMap<usize, (usize, Vec<(usize, i64)>)>,
    units: std::collections::BTreeMap<(usize, usize), i64>,
}

#[derive(Clone, Debug)]
enum Act {
    Reserve(usize, Vec<(usize, i64)>),
    Confirm(usize),
    Release(usize),
    Adjust(usize, i64),
    Ship(usize, i64),
}

const LIMIT: i64 = 6;

impl Model {
    fn free(&self, at: usize) -> i64 {
        self.on_hand[at] - self.reserved[at] - self.committed[at]
    }

    fn act(&mut self, n: usize, act: &Act) -> bool {
        let before = self.clone();
        let is_done = match act {
            Act::Reserve(who, lines) => {
                for &(at, quantity) in lines {
                    self.reserved[at] += quantity;
                    *self.units.entry((*who, at)).or_default() += quantity;
                }
                self.active.insert(n, (*who, lines.clone()));
                let is_within = self
                    .units
                    .iter()
                    .all(|((_, at), n)| *at != 0 || *n <= LIMIT);
                is_within && (0..3).all(|at| self.free(at) >= 0)
            }
            Act::Confirm(id) | Act::Release(id) => match self.active.remove(id) {
                None => false,
                Some((who, lines)) => {
                    for (at, quantity) in lines {
                        self.reserved[at] -= quantity;
                        if matches!(act, Act::Confirm(_)) {
                            self.committed[at] += quantity;
                        } else {
                            *self.units.entry((who, at)).or_default() -= quantity;
                        }
                    }
                    true
                }
            },
            Act::Adjust(at, delta) => {
                self.on_hand[*at] += delta;
                *delta > 0 || self.free(*at) >= 0
            }
            Act::Ship(at, quantity) => {
                self.on_hand[*at] -= quantity;
                self.committed[*at] -= quantity;
                self.committed[*at] >= 0
            }
        };
        if !is_done {
            *self = before;
        }
        is_done
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let lines = prop::collection::vec((0..3_usize, 1..4_i64), 1..4);
    let delta = prop_oneof![-6..0_i64, 1..9_i64];
    let act = prop_oneof![
        4 => (0..3_usize, lines).prop_map(|(who, lines)| Act::Reserve(who, lines)),
        2 => (0..40_usize).prop_map(Act::Confirm),
        2 => (0..40_usize).prop_map(Act::Release),
        2 => (0..3_usize, delta).prop_map(|(at, by)| Act::Adjust(at, by)),
        1 => (0..3_usize, 1..4_i64).prop_map(|(at, quantity)| Act::Ship(at, quantity)),
    ];
    prop::collection::vec(act, 1..60)
}

fn command(n: usize, act: &Act) -> Command {
    match act {
        Act::Reserve(who, lines) => reserve(n, *who, lines),
        Act::Confirm(id) => wish(What::Confirm {
            reservations: vec![reservation(*id)],
        }),
        Act::Release(id) => wish(What::Release {
            reservations: vec![reservation(*id)],
            reason: Released::Expired,
        }),
        Act::Adjust(at, delta) => receive(*at, *delta),
        Act::Ship(at, quantity) => wish(What::Ship {
            order: OrderId::derived(&["shipped", &n.to_string()]),
            lines: vec![Units {
                variant: variant(*at),
                quantity: *quantity,
            }],
        }),
    }
}

fn stock(on_hand: i64, per_buyer_limit: Option<i64>) -> Stock {
    Stock {
        on_hand,
        reserved: 0,
        committed: 0,
        ring_fenced: 0,
        safety: 0,
        incoming: 0,
        per_buyer_limit,
        movement_seq: 0,
        version: 1,
    }
}

proptest! {
    /// C1, C2, C4, C6, C9: what a batch does is what the model does one at a time.
    #[test]
    fn any_list_of_commands_does_what_the_rules_say(acts in acts()) {
        let mut book = Book::default();
        let mut model = Model::default();
        for at in 0..3 {
            let limit = (at == 0).then_some(LIMIT);
            book.stock.insert(variant(at), stock(0, limit));
        }
        for (n, act) in acts.iter().enumerate() {
            let is_done = model.act(n, act);
            let decision = book.decide(NOON, &command(n, act));
            prop_assert_eq!(decision.is_ok(), is_done, "{:?}: {:?}", act, decision);
            for at in 0..3 {
                let held = book.stock[&variant(at)];
                let is = (held.on_hand, held.reserved, held.committed);
                prop_assert_eq!(is, (model.on_hand[at], model.reserved[at], model.committed[at]));
            }
        }
        for at in 0..3 {
            let moved = book.changes.movements.iter().filter(|it| it.variant == variant(at));
            let sum: i64 = moved.clone().map(|it| it.by.on_hand).sum();
            prop_assert_eq!(sum, model.on_hand[at]);
            prop_assert!(moved.map(|it| it.seq).eq(1..=book.stock[&variant(at)].movement_seq));
        }
    }
}

/// A shop with so many variants, none of them in stock.
async fn shop(it: &Fixture, variants: usize) {
    let mut tx = it.db().begin().await.unwrap();
    let merchant = MerchantId::derived(&["merchant"]).to_string();
    let product = ProductId::derived(&["product"]).to_string();
    let sql = "INSERT INTO merchants (id, name, currency, status, shipping_fee, \
               settle_after_days, reserve_bps, fee_bps, commission_cap_bps, auto_confirm_days, \
               version, created_us, updated_us) \
               VALUES ($1, 'A shop', 'CNY', 'active', 0, 7, 0, 0, 0, 7, 1, 0, 0)";
    let query = sqlx::query(sql).bind(merchant.clone());
    query.execute(&mut *tx).await.unwrap();
    let sql = "INSERT INTO products (id, merchant_id, title, description, media, attributes, \
               requires_shipping, status, version, created_us, updated_us) \
               VALUES ($1, $2, 'A mug', '', '[]', '{}', 1, 'active', 1, 0, 0)";
    let query = sqlx::query(sql)
        .bind(product.clone())
        .bind(merchant.clone());
    query.execute(&mut *tx).await.unwrap();
    let all: Vec<usize> = (0..variants).collect();
    let bulk = Bulk {
        head: "INSERT INTO variants (id, product_id, merchant_id, options, status, version, \
               created_us, updated_us)",
        width: 8,
        tail: "",
    };
    let bind = |query: Bound, n: &usize| {
        let query = query.bind(variant(*n).to_string()).bind(product.clone());
        let query = query.bind(merchant.clone()).bind("[]").bind("active");
        query.bind(1_i64).bind(0_i64).bind(0_i64)
    };
    bulk.execute(&mut tx, &all, bind).await.unwrap();
    let sql = "INSERT INTO stock (variant_id, location_id, on_hand, reserved, committed, \
               ring_fenced, safety, incoming, movement_seq, epoch, version, created_us, \
               updated_us) SELECT id, 'default', 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0 FROM variants";
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    it.app.tasks.spawn("catalog.sequencer", run(it.app.clone()));
}

async fn number(it: &Fixture, sql: &'static str) -> i64 {
    let row = sqlx::query(sql).fetch_one(it.db().readers()).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn parallel_wishes_for_too_little_stock_take_exactly_what_is_there() {
    let it = Fixture::new().await;
    shop(&it, 2).await;
    submit(&it.app, receive(0, 50), Alone).await.unwrap();
    let wishes = (0..200).map(|n| submit(&it.app, reserve(n, n, &[(0, 1)]), Alone));
    let answers = futures_util::future::join_all(wishes).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 50);
    let sold_out = Refused::SoldOut {
        variant: variant(0),
        restock_possible: true,
    };
    let refused: Vec<_> = answers.iter().filter_map(|a| a.as_ref().err()).collect();
    assert!(
        refused.iter().all(|refused| **refused == sold_out),
        "{refused:?}"
    );
    assert_eq!(
        number(
            &it,
            "SELECT reserved FROM stock ORDER BY reserved DESC LIMIT 1"
        )
        .await,
        50
    );
    assert_eq!(
        number(&it, "SELECT COUNT(*) FROM reservation_lines").await,
        50
    );
    let sequencer = it.app.parts.part::<Sequencer>();
    assert_eq!(sequencer.sold_out(variant(0)), Some(sold_out));
    assert_eq!(sequencer.sold_out(variant(1)), None);
    let sql = "SELECT COUNT(*) FROM outbox WHERE type = 'inventory.sold_out'";
    assert_eq!(number(&it, sql).await, 1);
}

#[tokio::test]
async fn what_is_released_can_be_had_again_at_once() {
    let it = Fixture::new().await;
    shop(&it, 1).await;
    submit(&it.app, receive(0, 1), Alone).await.unwrap();
    submit(&it.app, reserve(0, 0, &[(0, 1)]), Alone)
        .await
        .unwrap();
    let release = || {
        wish(What::Release {
            reservations: vec![reservation(0)],
            reason: Released::Cancelled,
        })
    };
    submit(&it.app, release(), Alone).await.unwrap();
    let again = submit(&it.app, release(), Alone).await;
    assert_eq!(again, Err(Refused::InvalidState));
    submit(&it.app, reserve(1, 1, &[(0, 1)]), Alone)
        .await
        .unwrap();
    assert_eq!(number(&it, "SELECT COUNT(*) FROM stock_movements").await, 4);
    let sql = "SELECT CAST(SUM(units) AS BIGINT) FROM buyer_units";
    assert_eq!(number(&it, sql).await, 1);
}

#[tokio::test]
async fn a_buyer_cannot_pass_the_limit_by_asking_in_parallel() {
    let it = Fixture::new().await;
    shop(&it, 1).await;
    submit(&it.app, receive(0, 100), Alone).await.unwrap();
    let settings = wish(What::Settings {
        variant: variant(0),
        if_version: Some(2),
        settings: Settings {
            per_buyer_limit: Some(Some(3)),
            ..Settings::default()
        },
    });
    submit(&it.app, settings, Alone).await.unwrap();
    let wishes = (0..20).map(|n| submit(&it.app, reserve(n, n % 2, &[(0, 2)]), Alone));
    let answers = futures_util::future::join_all(wishes).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 2);
    let limit = Refused::PurchaseLimit {
        variant: variant(0),
        limit: 3,
    };
    assert!(
        answers
            .iter()
            .filter_map(|a| a.as_ref().err())
            .all(|refused| *refused == limit)
    );
}

/// Q7: counters that do not agree with their movements are not decided on.
#[tokio::test]
async fn stock_that_disagrees_with_its_movements_is_frozen() {
    let it = Fixture::new().await;
    shop(&it, 1).await;
    let mut tx = it.db().begin().await.unwrap();
    sqlx::query("UPDATE stock SET on_hand = 5")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let refused = submit(&it.app, reserve(0, 0, &[(0, 1)]), Alone).await;
    assert_eq!(refused, Err(Refused::Busy));
}

/// Q8: an owner that was overtaken writes nothing.
#[tokio::test]
async fn a_stale_owner_touches_no_row() {
    let it = Fixture::new().await;
    shop(&it, 1).await;
    submit(&it.app, receive(0, 5), Alone).await.unwrap();
    let mut tx = it.db().begin().await.unwrap();
    let later = Timestamp::from_micros(i64::MAX);
    let taken = store::take_lease(&mut tx, "another", (later, later))
        .await
        .unwrap();
    assert_eq!(taken, Some(2));
    tx.commit().await.unwrap();
    let refused = submit(&it.app, reserve(0, 0, &[(0, 1)]), Alone).await;
    assert_eq!(refused, Err(Refused::Busy));
    assert_eq!(number(&it, "SELECT reserved FROM stock").await, 0);
}

/// What was sold and is given back is on sale again, lost, or on the shelf as it was returned; and
/// what went back before it was paid is had again only while there is some.
#[test]
fn sold_units_come_back_as_they_were_given_up() {
    let mut book = Book::default();
    book.stock.insert(variant(0), stock(5, None));
    let units = |quantity| Units {
        variant: variant(0),
        quantity,
    };
    let revive = |n: usize, quantity| {
        wish(What::Revive {
            buyer: buyer(0),
            hold: Hold {
                reservation: reservation(n),
                order: OrderId::derived(&["order", &n.to_string()]),
                lines: vec![units(quantity)],
            },
        })
    };
    assert!(book.decide(NOON, &revive(0, 4)).is_ok());
    let refused = book.decide(NOON, &revive(1, 2));
    let left = Refused::Insufficient {
        variant: variant(0),
        left: 1,
    };
    assert_eq!(refused, Err(left));
    let restock = |lines: &[(i64, Back)]| {
        let lines = lines
            .iter()
            .map(|(quantity, back)| (units(*quantity), *back));
        wish(What::Restock {
            order: OrderId::derived(&["order", "0"]),
            lines: lines.collect(),
        })
    };
    let too_much = restock(&[(3, Back::Unshipped), (2, Back::Lost)]);
    assert_eq!(book.decide(NOON, &too_much), Err(Refused::InvalidState));
    let lines = [(2, Back::Unshipped), (1, Back::Lost), (1, Back::Returned)];
    assert!(book.decide(NOON, &restock(&lines)).is_ok());
    let is = book.stock[&variant(0)];
    assert_eq!((is.on_hand, is.reserved, is.committed), (5, 0, 1));
    assert_eq!(is.available(), 4);
}
