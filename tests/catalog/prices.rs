//! Price windows: made, changed, deleted, refused when they overlap; which is in force, and why.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Caller, id_of, is, made, refusal, register, variant_of, yuan};
use crate::support::{TestServer, redacted};

const NOBODYS: &str = "prc_01M86VRGYAE3AR7SWFHF7J4WXW";

/// `s` seconds from now.
fn from_now(server: &TestServer, s: u64) -> String {
    server
        .app()
        .clock
        .now()
        .plus(Duration::from_secs(s))
        .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_is_made_changed_and_deleted() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let prices = format!("/variants/{}/prices", variant_of(&mug));
    let body = json!({ "kind": "list", "price": yuan(1_999), "compare_at": yuan(2_999) });
    let answer = boss.post(&prices, &body).await;
    assert_eq!(
        (answer.status, answer.header("etag").as_str()),
        (201, "\"1\"")
    );
    insta::assert_json_snapshot!(redacted(answer.json()));
    let again = boss.post(&prices, &body).await;
    assert_eq!(refusal(&again), is(409, "price_window_overlaps"));
    let unknown = "/variants/var_01M86VRGYAE3AR7SWFHF7J4WXW/prices";
    assert_eq!(
        refusal(&boss.post(unknown, &body).await),
        is(404, "not_found")
    );

    let path = format!("/prices/{}", id_of(&answer.json()));
    let ends_at = from_now(&server, 60);
    let change = json!({ "price": yuan(1_899), "compare_at": null, "ends_at": ends_at });
    let changed = boss.patch(&path, "\"1\"", &change).await;
    assert_eq!(
        (changed.status, changed.header("etag").as_str()),
        (200, "\"2\"")
    );
    assert_eq!(changed.json()["price"], yuan(1_899));
    assert_eq!(changed.json()["compare_at"], Value::Null);
    assert_eq!(changed.json()["ends_at"], json!(ends_at));
    let same = boss.patch(&path, "\"2\"", &change).await;
    assert_eq!(same.json(), changed.json(), "twice changes nothing");
    assert_eq!(
        refusal(&boss.patch(&path, "\"1\"", &change).await),
        is(412, "stale")
    );
    let unknown = boss
        .patch(&format!("/prices/{NOBODYS}"), "\"1\"", &change)
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));

    let product = format!("/products/{}", id_of(&mug));
    let shown = boss.get(&product).await;
    assert_eq!(
        shown.json()["variants"][0]["prices"],
        json!([changed.json()])
    );
    assert_eq!(
        shown.header("etag"),
        "\"3\"",
        "the product rises with its prices"
    );
    assert_eq!(
        refusal(&boss.delete(&path, "\"1\"").await),
        is(412, "stale")
    );
    assert_eq!(boss.delete(&path, "\"2\"").await.status, 204);
    assert_eq!(
        refusal(&boss.delete(&path, "\"2\"").await),
        is(404, "not_found")
    );
    assert_eq!(server.count("SELECT COUNT(*) FROM prices").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_that_cannot_be_are_refused() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let prices = format!("/variants/{}/prices", variant_of(&mug));
    let good = json!({ "kind": "list", "price": yuan(1_999) });
    let euro = json!({ "amount": 1_999, "currency": "EUR" });
    let past = "2020-01-01T00:00:00Z";
    let cases = [
        (
            "price",
            yuan(0),
            422,
            "amount_out_of_range",
            "/price/amount",
        ),
        (
            "price",
            yuan(10_000_000_001),
            422,
            "amount_out_of_range",
            "/price/amount",
        ),
        ("price", euro, 422, "out_of_bounds", "/price/currency"),
        (
            "compare_at",
            yuan(1_998),
            422,
            "out_of_bounds",
            "/compare_at/amount",
        ),
        ("ends_at", json!(past), 422, "out_of_bounds", "/ends_at"),
    ];
    for (field, value, status, code, pointer) in cases {
        let mut body = good.clone();
        body[field] = value;
        let answer = boss.post(&prices, &body).await;
        assert_eq!(refusal(&answer), is(status, code), "{body}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
    }
    for (field, value) in [
        ("kind", json!("deal")),
        ("price", json!({ "amount": 19.99, "currency": "CNY" })),
        ("starts_at", json!("soon")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(
            refusal(&boss.post(&prices, &body).await),
            is(400, "malformed"),
            "{body}"
        );
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM prices").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_one_kind_may_touch_but_not_overlap() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let prices = format!("/variants/{}/prices", variant_of(&mug));
    let window = |kind: &str, (from, to): (u64, u64)| {
        json!({ "kind": kind, "price": yuan(999), "starts_at": from_now(&server, from),
            "ends_at": from_now(&server, to) })
    };
    let first = made(boss.post(&prices, &window("sale", (10, 20))).await);
    made(boss.post(&prices, &window("sale", (20, 30))).await);
    made(boss.post(&prices, &window("list", (15, 25))).await);
    for (from, to) in [(5, 11), (12, 13), (29, 40), (0, 50)] {
        let over = boss.post(&prices, &window("sale", (from, to))).await;
        assert_eq!(
            refusal(&over),
            is(409, "price_window_overlaps"),
            "{from} {to}"
        );
    }
    let path = format!("/prices/{}", id_of(&first));
    let longer = json!({ "ends_at": from_now(&server, 21) });
    let over = boss.patch(&path, "\"1\"", &longer).await;
    assert_eq!(refusal(&over), is(409, "price_window_overlaps"));
    let kind = boss.patch(&path, "\"1\"", &json!({ "kind": "list" })).await;
    assert_eq!(refusal(&kind), is(409, "price_window_overlaps"));
    let shorter = json!({ "ends_at": from_now(&server, 15) });
    assert_eq!(boss.patch(&path, "\"1\"", &shorter).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_windows_at_once_one_is_admitted() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let variant = variant_of(&mug);
    let answers = join_all((1..=12).map(|n| boss.price(&variant, "list", n))).await;
    assert_eq!(answers.iter().filter(|it| it.status == 201).count(), 1);
    for answer in answers.iter().filter(|it| it.status != 201) {
        assert_eq!(refusal(answer), is(409, "price_window_overlaps"));
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM prices").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_in_force_says_why_and_until_when() {
    let server = TestServer::start().await;
    let (boss, nobody) = (Caller::operator(&server), Caller::nobody(&server));
    let shop = boss.shop("Clay").await;
    let mug = boss.mug_on_sale(&shop, "mug").await;
    let variant = variant_of(&mug);
    let sale = json!({ "kind": "sale", "price": yuan(999), "compare_at": yuan(1_999),
        "starts_at": from_now(&server, 10), "ends_at": from_now(&server, 20) });
    made(
        boss.post(&format!("/variants/{variant}/prices"), &sale)
            .await,
    );
    let (begins, ends) = (from_now(&server, 10), from_now(&server, 20));
    let path = format!("/variants/{variant}/price?quantity=3");
    let now = nobody.get(&path).await;
    assert_eq!(now.json()["price"], yuan(1_999));
    assert_eq!(
        (&now.json()["kind"], &now.json()["valid_until"]),
        (&json!("list"), &json!(begins))
    );
    assert_eq!(now.json()["explain"].as_array().unwrap().len(), 1);
    server.app().clock.advance(Duration::from_secs(10));
    let during = nobody.get(&path).await;
    assert_eq!(during.json()["valid_until"], json!(ends));
    let mut shown = during.json();
    // Signed: other bytes with each key.
    let offer = shown.as_object_mut().unwrap().remove("offer");
    assert!(offer.unwrap().as_str().unwrap().starts_with("ofr1."));
    insta::assert_json_snapshot!(redacted(shown));
    server.app().clock.advance(Duration::from_secs(10));
    let after = nobody.get(&path).await;
    assert_eq!(after.json()["kind"], "list");
    // For as long as its offer is.
    let until = after.json()["valid_until"].as_str().unwrap().to_owned();
    assert!(
        until > from_now(&server, 60) && until < from_now(&server, 86_401),
        "{until}"
    );

    let many = nobody
        .get(&format!("/variants/{variant}/price?quantity=1000"))
        .await;
    assert_eq!(refusal(&many), is(422, "out_of_bounds"));
    let unknown = nobody
        .get("/variants/var_01M86VRGYAE3AR7SWFHF7J4WXW/price")
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
    let draft = variant_of(&boss.mug(&shop, "draft").await);
    let draft = nobody.get(&format!("/variants/{draft}/price")).await;
    assert_eq!(refusal(&draft), is(422, "not_sellable"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_prices_are_not_there() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug_on_sale(&boss.shop("Clay").await, "mug").await;
    let (stranger, _) = register(&server, "stranger").await;
    let variant = variant_of(&mug);
    let refused = stranger.price(&variant, "sale", 1).await;
    assert_eq!(refusal(&refused), is(404, "not_found"));
    let price = id_of(&mug["variants"][0]["prices"][0]);
    let path = format!("/prices/{price}");
    let refused = stranger
        .patch(&path, "\"1\"", &json!({ "price": yuan(1) }))
        .await;
    assert_eq!(refusal(&refused), is(404, "not_found"));
    assert_eq!(
        refusal(&stranger.delete(&path, "\"1\"").await),
        is(404, "not_found")
    );
    let nobody = Caller::nobody(&server).price(&variant, "sale", 1).await;
    assert_eq!(refusal(&nobody), is(401, "unauthenticated"));
}
