//! Files of products and prices: a line each, in order, bad ones alone, repeats without effect.

use serde_json::{Value, json};

use super::{Caller, is, refusal, register, yuan};
use crate::support::{Answer, TestServer};

const NDJSON: &str = "application/x-ndjson";

async fn send(who: &Caller<'_>, path: &str, file: String) -> Answer {
    let url = who.server.url(&format!("/api/v1{path}"));
    let mut request = who.server.client.post(url).header("content-type", NDJSON);
    if !who.token.is_empty() {
        request = request.bearer_auth(&who.token);
    }
    Answer::of(request.body(file).send().await.unwrap()).await
}

fn file(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// What became of each line: number, status, code.
fn outcome(answer: &Answer) -> Vec<(u64, String, Option<String>)> {
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.header("content-type"), NDJSON);
    let read = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let status = line["status"].as_str().unwrap().to_owned();
        let code = line["code"].as_str().map(ToOwned::to_owned);
        assert_eq!(line["id"].is_string(), code.is_none(), "{line}");
        (line["line"].as_u64().unwrap(), status, code)
    };
    answer.text.lines().map(read).collect()
}

fn line(n: u64, status: &str) -> (u64, String, Option<String>) {
    (n, status.into(), None)
}

fn failed(n: u64, code: &str) -> (u64, String, Option<String>) {
    (n, "failed".into(), Some(code.into()))
}

fn mug(shop: &str, n: usize) -> Value {
    json!({ "merchant_id": shop, "external_id": format!("mug-{n}"), "title": "A mug",
        "variants": [{ "external_id": format!("mug-{n}-m"), "options": { "size": "M" } }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_fails_alone_and_a_repeat_changes_nothing() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let mut long = mug(&shop, 3);
    long["title"] = json!("x".repeat(121));
    let mut taken = mug(&shop, 4);
    taken["variants"][0]["external_id"] = json!("mug-1-m");
    let mut nameless = mug(&shop, 5);
    nameless.as_object_mut().unwrap().remove("external_id");
    let nowhere = mug("mch_01M86VRGYAE3AR7SWFHF7J4WXW", 6);
    let text = format!(
        "{}\n\nnot JSON\n{}{}",
        mug(&shop, 1),
        file(&[long, taken, nameless, nowhere, mug(&shop, 2), mug(&shop, 1)]),
        mug(&shop, 7)
    );
    let bad = [
        failed(3, "malformed"),
        failed(4, "out_of_bounds"),
        failed(5, "duplicate_external_id"),
        failed(6, "out_of_bounds"),
        failed(7, "not_found"),
    ];
    for [first, second] in [["created", "created"], ["unchanged", "unchanged"]] {
        let answer = send(&boss, "/bulk/products", text.clone()).await;
        let mut expected = vec![line(1, first)];
        expected.extend(bad.clone());
        expected.extend([line(8, second), line(9, "unchanged"), line(10, second)]);
        assert_eq!(outcome(&answer), expected);
        assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 3);
        assert_eq!(server.count("SELECT COUNT(*) FROM variants").await, 3);
        assert_eq!(
            server
                .count("SELECT CAST(SUM(version) AS BIGINT) FROM products")
                .await,
            3
        );
    }
    let audited = "SELECT COUNT(*) FROM audit_log WHERE route = 'POST /api/v1/bulk/products'";
    assert_eq!(
        server.count(audited).await,
        6,
        "three products, three variants"
    );
    let mut changed = mug(&shop, 2);
    changed["title"] = json!("A cup");
    let answer = send(&boss, "/bulk/products", file(&[mug(&shop, 1), changed])).await;
    assert_eq!(outcome(&answer), [line(1, "unchanged"), line(2, "updated")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_file_is_saved_in_groups_and_answered_in_its_order() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let lines: Vec<Value> = (0..450).map(|n| mug(&shop, n)).collect();
    for status in ["created", "unchanged"] {
        let answer = send(&boss, "/bulk/products", file(&lines)).await;
        let expected: Vec<_> = (1..=450).map(|n| line(n, status)).collect();
        assert_eq!(outcome(&answer), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_file_twice_at_once_in_another_order_makes_everything_once() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let lines: Vec<Value> = (0..120).map(|n| mug(&shop, n)).collect();
    let turned: Vec<Value> = lines.iter().rev().cloned().collect();
    let (one, other) = tokio::join!(
        send(&boss, "/bulk/products", file(&lines)),
        send(&boss, "/bulk/products", file(&turned))
    );
    let all = [outcome(&one), outcome(&other)].concat();
    assert_eq!(all.iter().filter(|it| it.1 == "created").count(), 120);
    assert_eq!(all.iter().filter(|it| it.1 == "unchanged").count(), 120);
    assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_of_a_file_are_those_of_its_variants() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let products = file(&[mug(&shop, 1), mug(&shop, 2)]);
    outcome(&send(&boss, "/bulk/products", products).await);
    let list = |n: usize, amount: i64| {
        json!({ "merchant_id": shop, "external_id": format!("mug-{n}-m"), "kind": "list",
            "price": yuan(amount) })
    };
    let (starts_at, ends_at) = ("2030-01-01T00:00:00+08:00", "2030-01-02T00:00:00+08:00");
    let mut sale = list(1, 999);
    sale["kind"] = json!("sale");
    sale["starts_at"] = json!(starts_at);
    sale["ends_at"] = json!(ends_at);
    let mut over = sale.clone();
    over["starts_at"] = json!("2030-01-01T12:00:00+08:00");
    let text = file(&[
        list(1, 1_999),
        list(2, 2_999),
        sale,
        over,
        list(3, 1),
        list(1, 0),
    ]);
    let bad = [
        failed(4, "price_window_overlaps"),
        failed(5, "not_found"),
        failed(6, "amount_out_of_range"),
    ];
    for status in ["created", "unchanged"] {
        let answer = send(&boss, "/bulk/prices", text.clone()).await;
        let mut expected = vec![line(1, status), line(2, status), line(3, status)];
        expected.extend(bad.clone());
        assert_eq!(outcome(&answer), expected);
        // The list price without a beginning is the one in force, however late it comes again.
        server
            .app()
            .clock
            .advance(std::time::Duration::from_secs(3_600));
    }
    let answer = send(&boss, "/bulk/prices", file(&[list(1, 1_899)])).await;
    assert_eq!(outcome(&answer), [line(1, "updated")]);
    assert_eq!(server.count("SELECT COUNT(*) FROM prices").await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_beyond_its_bounds_is_too_large_and_what_was_saved_stands() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let mut lines: Vec<Value> = (0..100).map(|n| mug(&shop, n)).collect();
    let mut wide = mug(&shop, 100);
    wide["description"] = json!("x".repeat(65 * 1_024));
    lines.push(wide);
    let answer = send(&boss, "/bulk/products", file(&lines)).await;
    assert_eq!(refusal(&answer), is(413, "too_large"));
    assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 100);
    let answer = send(&boss, "/bulk/products", "\n".repeat(100_001)).await;
    assert_eq!(refusal(&answer), is(413, "too_large"));
    let wide = format!("{}\n", " ".repeat(60 * 1_024)).repeat(1_100);
    let answer = send(&boss, "/bulk/products", wide).await;
    assert_eq!(refusal(&answer), is(413, "too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_for_those_who_may_write_each_of_its_lines() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let (shop, other) = (boss.shop("Clay").await, boss.shop("Wood").await);
    let body = json!({ "name": "erp", "scopes": ["products:write"] });
    let key = super::made(
        boss.post(&format!("/merchants/{shop}/api_keys"), &body)
            .await,
    );
    let erp = Caller::with(&server, key["secret"].as_str().unwrap());
    let mut own = mug(&shop, 2);
    own.as_object_mut().unwrap().remove("merchant_id");
    let text = file(&[mug(&shop, 1), own, mug(&other, 3)]);
    let answer = send(&erp, "/bulk/products", text.clone()).await;
    let expected = [
        line(1, "created"),
        line(2, "created"),
        failed(3, "not_found"),
    ];
    assert_eq!(outcome(&answer), expected);
    let refused = send(&erp, "/bulk/prices", text.clone()).await;
    assert_eq!(refusal(&refused), is(403, "forbidden"));
    let nobody = send(&Caller::nobody(&server), "/bulk/products", text.clone()).await;
    assert_eq!(refusal(&nobody), is(401, "unauthenticated"));
    let (stranger, _) = register(&server, "stranger").await;
    let answer = send(&stranger, "/bulk/products", file(&[mug(&shop, 9)])).await;
    assert_eq!(outcome(&answer), [failed(1, "not_found")]);
    let wrong = boss.post("/bulk/products", &mug(&shop, 1)).await;
    assert_eq!(refusal(&wrong), is(415, "unsupported_media_type"));
}
