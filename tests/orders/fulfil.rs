//! After payment: parcels, receipt, the split of the money and its release.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::TestServer;
use crate::support::shop::{Buyer, PRICE, SHIPPING, Shop};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A paid order of so many mugs.
async fn paid(server: &TestServer, shop: &Shop, buyer: &Buyer, quantity: i64) -> Value {
    buyer.has(server, 100_000).await;
    let wish = shop.wish_sent(0, quantity);
    let checkout = buyer.places(server, "place", &wish).await;
    let paid = buyer.pays(server, "pay", &checkout).await;
    assert_eq!(paid.status, 201, "{}", paid.text);
    let read = buyer
        .get(server, &format!("/api/v1/checkouts/{checkout}"))
        .await;
    read.json()["orders"][0].clone()
}

fn parcel(order: &Value, quantity: i64) -> Value {
    json!({ "carrier": "Post", "tracking_no": "T1",
        "lines": [{ "line_id": order["lines"][0]["id"], "quantity": quantity }] })
}

async fn balance(server: &TestServer, prefix: &str) -> i64 {
    let path = format!("/api/v1/ledger/accounts?path_prefix={prefix}");
    let list = server.get_as_operator(&path).await.json();
    let accounts = list["data"].as_array().unwrap();
    let of = |account: &Value| {
        let number = |name: &str| account[name].as_i64().unwrap();
        number("credits_posted") - number("debits_posted")
    };
    accounts.iter().map(of).sum()
}

async fn reaches(server: &TestServer, buyer: &Buyer, order: &str, status: &str) {
    let path = format!("/api/v1/orders/{order}");
    let reached = async {
        while buyer.get(server, &path).await.json()["status"] != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(30), reached).await;
    reached.expect("the job looks after orders");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parcel_leaves_once_and_never_with_more_than_was_sold() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 5).await;
    shop.sends(&server).await;
    let [anna] = <[Buyer; 1]>::try_from(Buyer::register(&server, 1).await).unwrap();
    let order = paid(&server, &shop, &anna, 3).await;
    let id = order["id"].as_str().unwrap();
    let path = format!("/api/v1/orders/{id}/shipments");
    let too_many = server.post_once("s0", &path, &parcel(&order, 4)).await;
    assert_eq!(
        (too_many.status, too_many.code()),
        (422, "exceeds_unshipped".into())
    );
    let sent = server.post_once("s1", &path, &parcel(&order, 2)).await;
    assert_eq!(sent.status, 201, "{}", sent.text);
    let again = server.post_once("s1", &path, &parcel(&order, 2)).await;
    assert_eq!((again.status, &again.text), (201, &sent.text));
    let by_the_buyer = anna.post(&server, "s2", (&path, &parcel(&order, 1))).await;
    assert_eq!(by_the_buyer.status, 404, "the shop is not theirs");
    let rest = server.post_once("s3", &path, &parcel(&order, 2)).await;
    assert_eq!(rest.code(), "exceeds_unshipped");
    let rest = server.post_once("s4", &path, &parcel(&order, 1)).await;
    assert_eq!(rest.status, 201, "{}", rest.text);
    let read = anna
        .get(&server, &format!("/api/v1/orders/{id}"))
        .await
        .json();
    assert_eq!(
        (&read["status"], &read["fulfilment"]),
        (&json!("fulfilling"), &json!("shipped"))
    );
    assert_eq!(server.count("SELECT on_hand FROM stock").await, 2);
    assert_eq!(server.count("SELECT committed FROM stock").await, 0);
    assert_eq!(server.count("SELECT COUNT(*) FROM shipments").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_receipt_splits_the_money_and_the_calendar_releases_it() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 5).await;
    shop.sends(&server).await;
    let [anna, ben] = <[Buyer; 2]>::try_from(Buyer::register(&server, 2).await).unwrap();
    let order = paid(&server, &shop, &anna, 2).await;
    let id = order["id"].as_str().unwrap();
    let confirm = format!("/api/v1/orders/{id}/confirm");
    let early = anna.post(&server, "c0", (&confirm, &json!({}))).await;
    assert_eq!((early.status, early.code()), (409, "invalid_state".into()));
    let path = format!("/api/v1/orders/{id}/shipments");
    let sent = server
        .post_once("s1", &path, &parcel(&order, 2))
        .await
        .json();
    let delivered = format!(
        "/api/v1/shipments/{}/delivered",
        sent["id"].as_str().unwrap()
    );
    let read = server.post(&delivered, &json!({})).await;
    assert_eq!(read.json()["fulfilment"], "delivered", "{}", read.text);
    assert_eq!(server.post(&delivered, &json!({})).await.status, 200);
    assert_eq!(
        ben.post(&server, "c1", (&confirm, &json!({}))).await.status,
        404
    );
    let done = anna.post(&server, "c1", (&confirm, &json!({}))).await;
    assert_eq!(done.json()["status"], "completed", "{}", done.text);
    let again = anna.post(&server, "c1", (&confirm, &json!({}))).await;
    assert_eq!((again.status, &again.text), (200, &done.text));
    let twice = anna.post(&server, "c2", (&confirm, &json!({}))).await;
    assert_eq!(twice.code(), "invalid_state");

    // 5 % of the items are the platform's; the shop has the rest and the shipping.
    let fee = (2 * PRICE * 500 + 5_000) / 10_000;
    let own = 2 * PRICE - fee + SHIPPING;
    assert_eq!(balance(&server, "order:").await, 0);
    assert_eq!(balance(&server, "platform:revenue").await, fee);
    let sql = "SELECT credits_posted FROM ledger_accounts WHERE kind = 'merchant_pending'";
    assert_eq!(server.count(sql).await, own);
    server.app().clock.advance(8 * DAY);
    let released = async {
        let sql = "SELECT COUNT(*) FROM settlements WHERE state = 'released'";
        while server.count(sql).await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let released = tokio::time::timeout(Duration::from_secs(30), released).await;
    released.expect("the job releases what is due");
    let sql = "SELECT credits_posted FROM ledger_accounts WHERE kind = 'merchant_available'";
    assert_eq!(server.count(sql).await, own);
    let verified = server.command(&["ledger", "verify"]).output().unwrap();
    assert!(
        verified.status.success(),
        "{}",
        String::from_utf8_lossy(&verified.stdout)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_confirms_is_completed_by_time() {
    let server = TestServer::start().await;
    let shop = Shop::open(&server, 1, 5).await;
    let [anna] = <[Buyer; 1]>::try_from(Buyer::register(&server, 1).await).unwrap();
    // Nothing of it is sent: it is delivered when it is paid.
    let order = paid(&server, &shop, &anna, 1).await;
    assert_eq!(order["fulfilment"], "delivered");
    let id = order["id"].as_str().unwrap();
    server.app().clock.advance(DAY + Duration::from_secs(1));
    reaches(&server, &anna, id, "completed").await;
    assert_eq!(balance(&server, "order:").await, 0);
}
