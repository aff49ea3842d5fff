//! Which price is in force, for any windows: against a model that looks at every moment alone.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{prices_in_force, rank, store};
use crate::app::Fixture;
use crate::catalog::model::{PriceFields, PriceKind, PriceRow};
use crate::catalog::store::{insert_product, insert_variant};
use crate::catalog::tests::{product, shop, variant};
use crate::clock::Timestamp;
use crate::db::{NOON, Tx};
use crate::ids::{PriceId, VariantId};
use crate::money::{Currency, Money};

/// Moments of the model.
const MOMENTS: usize = 12;

/// A window that somebody wants: a kind, a beginning, an end or none.
#[derive(Clone, Copy, Debug)]
struct Wish {
    kind: PriceKind,
    starts: usize,
    ends: Option<usize>,
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let kind = prop_oneof![Just(PriceKind::Sale), Just(PriceKind::List)];
    let window = (0..MOMENTS, 1..=4_usize, prop::bool::weighted(0.2));
    let wish = (kind, window).prop_map(|(kind, (starts, length, is_open))| Wish {
        kind,
        starts,
        ends: (!is_open).then_some(starts + length),
    });
    prop::collection::vec(wish, 0..10)
}

fn at(moment: usize) -> Timestamp {
    Timestamp::from_micros(NOON.as_micros() + i64::try_from(moment).unwrap())
}

fn row(variant: VariantId, n: usize, wish: Wish) -> PriceRow {
    let amount = i64::try_from(n).unwrap() + 1;
    PriceRow {
        id: PriceId::new(NOON),
        variant,
        fields: PriceFields {
            kind: wish.kind,
            price: Money::new(amount, Currency::CNY),
            compare_at: None,
            starts_at: at(wish.starts),
            ends_at: wish.ends.map(at),
        },
        version: 1,
        created_at: NOON,
        updated_at: NOON,
    }
}

/// At each moment the number of the wish that holds it, for one kind.
#[derive(Clone, Copy, Default)]
struct Held([Option<usize>; MOMENTS + 4]);

impl Held {
    /// Takes the moments of a window, if all are free.
    fn take(&mut self, n: usize, wish: Wish) -> bool {
        let ends = wish.ends.unwrap_or(self.0.len());
        let moments = &mut self.0[wish.starts..ends];
        let is_free = moments.iter().all(Option::is_none);
        if is_free {
            moments.fill(Some(n));
        }
        is_free
    }
}

/// A fresh variant without a price.
async fn bare_variant(tx: &mut Tx, name: &str) -> VariantId {
    let mug = product(shop(tx, name).await, None, "A mug");
    insert_product(tx, &mug).await.unwrap();
    let small = variant(&mug, None);
    insert_variant(tx, &small).await.unwrap();
    small.id
}

async fn check(it: &Fixture, name: &str, wishes: Vec<Wish>) {
    let mut tx = it.db().begin().await.unwrap();
    let variant = bare_variant(&mut tx, name).await;
    let (mut sale, mut list) = (Held::default(), Held::default());
    let mut rows: Vec<PriceRow> = Vec::new();
    for (n, wish) in wishes.iter().enumerate() {
        let held = match wish.kind {
            PriceKind::Sale => &mut sale,
            PriceKind::List => &mut list,
        };
        let row = row(variant, n, *wish);
        let is_free = rows.iter().all(|other| !other.fields.overlaps(&row.fields));
        assert_eq!(is_free, held.take(n, *wish), "{wish:?} of {wishes:?}");
        if is_free {
            store::insert(&mut tx, &row).await.unwrap();
            rows.push(row);
        }
    }
    for moment in 0..MOMENTS + 4 {
        let expected = sale.0[moment].or(list.0[moment]);
        let found = prices_in_force(&mut tx, at(moment), &[variant])
            .await
            .unwrap();
        let amounts: Vec<_> = found
            .iter()
            .map(|row| row.fields.price.amount_minor())
            .collect();
        let expected: Vec<_> = expected
            .map(|n| i64::try_from(n).unwrap() + 1)
            .into_iter()
            .collect();
        assert_eq!(amounts, expected, "at {moment} of {wishes:?}");
        // What is explained is ranked the same way.
        let mut open = rows.clone();
        open.retain(|row| row.fields.is_in_force(at(moment)));
        rank(&mut open);
        assert_eq!(
            open.first().map(|row| row.id),
            found.first().map(|row| row.id)
        );
        assert!(open.len() <= 2, "one of a kind");
    }
    tx.rollback().await.unwrap();
}

/// C18 and O1: at any moment the sale goes before the list, whatever the windows; windows of one
/// kind are refused exactly when they share a moment.
#[test]
fn at_every_moment_the_strongest_open_window_is_in_force() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let it = runtime.block_on(Fixture::new());
    let mut runner = TestRunner::new(Config::with_cases(64));
    let outcome = runner.run(&wishes(), |wishes| {
        runtime.block_on(check(&it, "any", wishes));
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(async { drop(it) });
}

#[tokio::test]
async fn prices_of_many_variants_are_found_at_once_and_those_without_one_left_out() {
    let it = Fixture::new().await;
    let mut tx = it.db().begin().await.unwrap();
    let (one, other) = (
        bare_variant(&mut tx, "a").await,
        bare_variant(&mut tx, "b").await,
    );
    let bare = bare_variant(&mut tx, "c").await;
    let open = |kind| Wish {
        kind,
        starts: 0,
        ends: None,
    };
    for (n, variant, kind) in [
        (0, one, PriceKind::List),
        (1, other, PriceKind::List),
        (2, other, PriceKind::Sale),
    ] {
        store::insert(&mut tx, &row(variant, n, open(kind)))
            .await
            .unwrap();
    }
    let found = prices_in_force(&mut tx, at(1), &[other, bare, one])
        .await
        .unwrap();
    let mut found: Vec<_> = found
        .iter()
        .map(|row| (row.variant, row.fields.kind))
        .collect();
    found.sort();
    let mut expected = vec![(one, PriceKind::List), (other, PriceKind::Sale)];
    expected.sort();
    assert_eq!(found, expected);
    assert!(
        prices_in_force(&mut tx, at(1), &[])
            .await
            .unwrap()
            .is_empty()
    );
}
