//! Checkouts over HTTP: placed, paid out of a wallet, cancelled, expired; and a storm of them.

mod fulfil;

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;

use crate::support::TestServer;
use crate::support::shop::{Buyer, PRICE, Shop};

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_is_placed_once_per_key_and_holds_its_stock() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 5).await;
    let [anna] = <[Buyer; 1]>::try_from(Buyer::register(&server, 1).await).unwrap();
    let wish = shop.wish(0, 2);
    let first = anna.post(&server, "k1", ("/api/v1/checkouts", &wish)).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let placed = first.json();
    assert_eq!(placed["due"]["amount"], 2 * PRICE);
    assert_eq!(placed["orders"][0]["status"], "reserved");
    assert_eq!(placed["orders"][0]["lines"][0]["quantity"], 2);

    let again = anna.post(&server, "k1", ("/api/v1/checkouts", &wish)).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    assert_eq!(again.header("idempotency-replayed"), "true");
    let other = anna
        .post(&server, "k1", ("/api/v1/checkouts", &shop.wish(0, 1)))
        .await;
    assert_eq!(
        (other.status, other.code()),
        (422, "idempotency_key_reused".into())
    );
    assert_eq!(server.count("SELECT reserved FROM stock").await, 2);
    assert_eq!(server.count("SELECT COUNT(*) FROM orders").await, 1);

    let id = placed["checkout_id"].as_str().unwrap();
    let read = anna
        .get(&server, &format!("/api/v1/checkouts/{id}"))
        .await
        .json();
    assert_eq!(read, placed);
    let list = anna.get(&server, "/api/v1/orders").await.json();
    assert_eq!(list["data"][0], placed["orders"][0]);
    let order = placed["orders"][0]["id"].as_str().unwrap();
    let read = anna
        .get(&server, &format!("/api/v1/orders/{order}"))
        .await
        .json();
    assert_eq!(read, placed["orders"][0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_bought_is_refused_with_a_code_and_holds_nothing() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 5).await;
    let [anna] = <[Buyer; 1]>::try_from(Buyer::register(&server, 1).await).unwrap();
    let line = |quantity: i64, amount: i64, currency: &str| {
        json!({ "lines": [{ "variant_id": shop.variants[0], "quantity": quantity,
            "unit_price": { "amount": amount, "currency": currency } }] })
    };
    let cases = [
        (line(1, PRICE - 1, "CNY"), 422, "price_changed"),
        (line(1, PRICE, "EUR"), 422, "price_changed"),
        (line(6, PRICE, "CNY"), 422, "insufficient_stock"),
        (line(0, PRICE, "CNY"), 422, "out_of_bounds"),
        (line(1_000, PRICE, "CNY"), 422, "out_of_bounds"),
        (json!({ "lines": [] }), 422, "empty_cart"),
        (
            json!({ "lines": [{ "variant_id": "var_x", "quantity": 1,
            "unit_price": { "amount": 1, "currency": "CNY" } }] }),
            422,
            "not_sellable",
        ),
        (
            json!({ "lines": [{ "variant_id": shop.variants[0], "quantity": 1 }] }),
            422,
            "price_unconfirmed",
        ),
        (json!({ "lines": [], "gift": true }), 400, "unknown_field"),
    ];
    for (n, (wish, status, code)) in cases.into_iter().enumerate() {
        let key = format!("case-{n}");
        let refused = anna.post(&server, &key, ("/api/v1/checkouts", &wish)).await;
        assert_eq!(
            (refused.status, refused.code()),
            (status, code.into()),
            "{}",
            refused.text
        );
        if status == 422 && code == "price_changed" {
            assert_eq!(refused.json()["current_price"]["amount"], PRICE);
        }
        if code == "insufficient_stock" {
            assert_eq!(refused.json()["left"], 5);
        }
    }
    // Two lines of one variant are checked as their sum.
    let wish = json!({ "lines": [shop.wish(0, 3)["lines"][0], shop.wish(0, 3)["lines"][0]] });
    let refused = anna
        .post(&server, "sum", ("/api/v1/checkouts", &wish))
        .await;
    assert_eq!(refused.code(), "insufficient_stock");
    assert_eq!(server.count("SELECT reserved FROM stock").await, 0);
    assert_eq!(server.count("SELECT COUNT(*) FROM checkouts").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_pays_a_checkout_once_and_stock_order_and_money_move_together() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 5).await;
    let [anna, ben] = <[Buyer; 2]>::try_from(Buyer::register(&server, 2).await).unwrap();
    let checkout = anna.places(&server, "k1", &shop.wish(0, 2)).await;
    let poor = anna.pays(&server, "p1", &checkout).await;
    assert_eq!(
        (poor.status, poor.code()),
        (422, "insufficient_funds".into())
    );
    anna.has(&server, 10_000).await;
    assert_eq!(ben.pays(&server, "p1", &checkout).await.status, 404);
    let paid = anna.pays(&server, "p2", &checkout).await;
    assert_eq!(paid.status, 201, "{}", paid.text);
    let again = anna.pays(&server, "p2", &checkout).await;
    assert_eq!((again.status, &again.text), (201, &paid.text));
    let twice = anna.pays(&server, "p3", &checkout).await;
    assert_eq!(
        (twice.status, twice.code()),
        (409, "order_already_paid".into())
    );

    let read = anna
        .get(&server, &format!("/api/v1/checkouts/{checkout}"))
        .await
        .json();
    assert_eq!(
        (&read["state"], &read["orders"][0]["status"]),
        (&json!("paid"), &json!("paid"))
    );
    assert_eq!(server.count("SELECT committed FROM stock").await, 2);
    assert_eq!(server.count("SELECT reserved FROM stock").await, 0);
    let sql = "SELECT credits_posted FROM ledger_accounts WHERE kind = 'order_escrow'";
    assert_eq!(server.count(sql).await, 2 * PRICE);
    let sql = "SELECT debits_posted FROM ledger_accounts WHERE kind = 'wallet'";
    assert_eq!(server.count(sql).await, 2 * PRICE);
    let sql = "SELECT COUNT(*) FROM payment_attempts WHERE state = 'failed'";
    assert_eq!(server.count(sql).await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM order_history").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_checkout_gives_its_stock_back_and_is_not_paid() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 1).await;
    let [anna, ben] = <[Buyer; 2]>::try_from(Buyer::register(&server, 2).await).unwrap();
    anna.has(&server, 10_000).await;
    let checkout = anna.places(&server, "k1", &shop.wish(0, 1)).await;
    let sold_out = ben
        .post(&server, "k1", ("/api/v1/checkouts", &shop.wish(0, 1)))
        .await;
    assert_eq!((sold_out.status, sold_out.code()), (422, "sold_out".into()));
    assert_eq!(sold_out.json()["restock_possible"], true);
    let path = format!("/api/v1/checkouts/{checkout}/cancel");
    assert_eq!(
        ben.post(&server, "c0", (&path, &json!({}))).await.status,
        404
    );
    let cancelled = anna.post(&server, "c1", (&path, &json!({}))).await;
    assert_eq!(cancelled.json()["state"], "cancelled", "{}", cancelled.text);
    let again = anna.post(&server, "c2", (&path, &json!({}))).await;
    assert_eq!((again.status, again.json()), (200, cancelled.json()));
    let late = anna.pays(&server, "p1", &checkout).await;
    assert_eq!((late.status, late.code()), (409, "invalid_state".into()));
    ben.places(&server, "k2", &shop.wish(0, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_paid_in_time_expires_and_can_be_bought_by_another() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 1).await;
    let [anna, ben] = <[Buyer; 2]>::try_from(Buyer::register(&server, 2).await).unwrap();
    let checkout = anna.places(&server, "k1", &shop.wish(0, 1)).await;
    server.app().clock.advance(Duration::from_secs(901));
    let path = format!("/api/v1/checkouts/{checkout}");
    let expired = async {
        while anna.get(&server, &path).await.json()["state"] != "expired" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), expired)
        .await
        .expect("the job looks");
    ben.places(&server, "k2", &shop.wish(0, 1)).await;
}

/// Many buyers, too few units, repeats among them: exactly what is there is sold.
#[tokio::test(flavor = "multi_thread")]
async fn a_sold_out_storm_sells_exactly_what_is_there() {
    const UNITS: i64 = 100;
    const BUYERS: usize = 300;
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, UNITS).await;
    let buyers = Buyer::register(&server, BUYERS).await;
    let wish = shop.wish(0, 1);
    // Each buyer asks three times, the last with the key of the first.
    let wishes = (0..3 * BUYERS).map(|n| {
        let (server, wish) = (&server, &wish);
        let buyer = &buyers[n % BUYERS];
        let key = ["a", "b", "a"][n / BUYERS];
        async move {
            let path = "/api/v1/checkouts";
            (n % BUYERS, key, buyer.post(server, key, (path, wish)).await)
        }
    });
    let answers: Vec<_> = futures_util::stream::iter(wishes)
        .buffer_unordered(64)
        .collect()
        .await;
    let mut won: BTreeMap<(usize, &str), String> = BTreeMap::new();
    for (buyer, key, answer) in answers {
        match answer.status {
            201 => {
                let text = won
                    .entry((buyer, key))
                    .or_insert_with(|| answer.text.clone());
                assert_eq!(*text, answer.text, "a repeat hears the same");
            }
            422 => assert_eq!(answer.code(), "sold_out", "{}", answer.text),
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert_eq!(i64::try_from(won.len()).unwrap(), UNITS);
    assert_eq!(server.count("SELECT reserved FROM stock").await, UNITS);
    let sql = "SELECT COUNT(*) FROM reservations WHERE state = 'active'";
    assert_eq!(server.count(sql).await, UNITS);
    assert_eq!(server.count("SELECT COUNT(*) FROM orders").await, UNITS);
}
