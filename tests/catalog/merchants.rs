//! Shops: made, changed, staffed; keys of theirs; and who may do what in them.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Caller, id_of, is, made, mug, refusal, register, variant_of, yuan};
use crate::support::{TestServer, redacted};

const NOBODYS: &str = "mch_01M86VRGYAE3AR7SWFHF7J4WXW";

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_made_by_an_operator_and_the_public_sees_its_name() {
    let server = TestServer::start().await;
    let (boss, nobody) = (Caller::operator(&server), Caller::nobody(&server));
    let body = json!({ "name": "Clay", "currency": "CNY", "external_id": "clay" });
    let answer = boss.post("/merchants", &body).await;
    assert_eq!(
        (answer.status, answer.header("etag").as_str()),
        (201, "\"1\"")
    );
    insta::assert_json_snapshot!(redacted(answer.json()));
    let again = boss.post("/merchants", &body).await;
    assert_eq!(refusal(&again), is(409, "duplicate_external_id"));
    let id = id_of(&answer.json());
    let path = format!("/merchants/{id}");
    assert_eq!(boss.get(&path).await.json(), answer.json());
    let (stranger, _) = register(&server, "stranger").await;
    for caller in [&nobody, &stranger] {
        let seen = caller.get(&path).await;
        assert_eq!(
            (seen.status, seen.json()),
            (200, json!({ "id": id, "name": "Clay" }))
        );
        assert_eq!(seen.header("etag"), "");
    }
    assert_eq!(
        refusal(&nobody.get(&format!("/merchants/{NOBODYS}")).await),
        is(404, "not_found")
    );
    for (field, value, code) in [
        ("name", json!(""), (422, "out_of_bounds")),
        ("name", json!("x".repeat(81)), (422, "out_of_bounds")),
        ("external_id", json!("a b"), (422, "out_of_bounds")),
        ("currency", json!("yuan"), (400, "malformed")),
    ] {
        let mut body = json!({ "name": "Wood", "currency": "CNY" });
        body[field] = value;
        let answer = boss.post("/merchants", &body).await;
        assert_eq!(refusal(&answer), is(code.0, code.1), "{body}");
    }
    let refused = stranger
        .post("/merchants", &json!({ "name": "Wood", "currency": "CNY" }))
        .await;
    assert_eq!(refusal(&refused), is(403, "forbidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_shops_are_open_to_all_their_makers_own_them() {
    let server = TestServer::start_with(&["merchants.open=true"]).await;
    let (anna, _) = register(&server, "anna").await;
    let shop = anna.shop("Clay").await;
    let path = format!("/merchants/{shop}");
    let fee = json!({ "shipping_fee": yuan(600), "commission_cap_bps": 3_000 });
    let changed = anna.patch(&path, "\"1\"", &fee).await;
    assert_eq!(
        (changed.status, changed.header("etag").as_str()),
        (200, "\"2\"")
    );
    assert_eq!(changed.json()["shipping_fee"], yuan(600));
    let same = anna.patch(&path, "\"2\"", &fee).await;
    assert_eq!(same.json(), changed.json(), "twice changes nothing");
    assert_eq!(
        refusal(&anna.patch(&path, "\"1\"", &fee).await),
        is(412, "stale")
    );
    let without = anna.ask((Method::PATCH, &path), &[], Some(&fee)).await;
    assert_eq!(refusal(&without), is(428, "precondition_required"));
    for term in ["settle_after_days", "reserve_bps", "fee_bps"] {
        let refused = anna.patch(&path, "\"2\"", &json!({ term: 1 })).await;
        assert_eq!(refusal(&refused), is(403, "forbidden"), "{term}");
    }
    let boss = Caller::operator(&server);
    let terms = json!({ "settle_after_days": 3, "reserve_bps": 100, "fee_bps": 500 });
    let changed = boss.patch(&path, "\"2\"", &terms).await;
    assert_eq!(
        (changed.status, &changed.json()["fee_bps"]),
        (200, &json!(500))
    );
    for (field, value, code) in [
        ("commission_cap_bps", json!(8_001), "out_of_bounds"),
        ("auto_confirm_days", json!(0), "out_of_bounds"),
        ("settle_after_days", json!(32), "out_of_bounds"),
        ("reserve_bps", json!(3_001), "out_of_bounds"),
        ("fee_bps", json!(-1), "out_of_bounds"),
        ("name", json!(" "), "out_of_bounds"),
        (
            "shipping_fee",
            json!({ "amount": 1, "currency": "EUR" }),
            "out_of_bounds",
        ),
        ("shipping_fee", yuan(-1), "amount_out_of_range"),
    ] {
        let refused = boss.patch(&path, "\"3\"", &json!({ field: value })).await;
        assert_eq!(refusal(&refused), is(422, code), "{field}");
    }
    let unknown = boss
        .patch(&format!("/merchants/{NOBODYS}"), "\"1\"", &fee)
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
    let (stranger, _) = register(&server, "stranger").await;
    assert_eq!(
        refusal(&stranger.patch(&path, "\"3\"", &fee).await),
        is(404, "not_found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_never_loses_its_last_owner() {
    let server = TestServer::start_with(&["merchants.open=true"]).await;
    let (anna, anna_id) = register(&server, "anna").await;
    let (bert, bert_id) = register(&server, "bert").await;
    let shop = anna.shop("Clay").await;
    let staff = |id: &str| format!("/merchants/{shop}/staff/{id}");
    let put = |who: &Caller<'_>, id: &str, role: &str| {
        let (who, path, body) = (who.token.clone(), staff(id), json!({ "role": role }));
        let server = &server;
        async move {
            Caller::with(server, &who)
                .ask((Method::PUT, &path), &[], Some(&body))
                .await
        }
    };
    assert_eq!(
        refusal(&put(&bert, &bert_id, "owner").await),
        is(404, "not_found")
    );
    assert_eq!(
        refusal(&put(&anna, &anna_id, "support").await),
        is(409, "invalid_state")
    );
    assert_eq!(
        refusal(&anna.delete(&staff(&anna_id), "*").await),
        is(409, "invalid_state")
    );
    let given = put(&anna, &bert_id, "catalogue").await;
    assert_eq!(given.status, 200, "{}", given.text);
    insta::assert_json_snapshot!(redacted(given.json()));
    let again = put(&anna, &bert_id, "catalogue").await;
    assert_eq!((again.status, again.json()), (200, given.json()));
    assert_eq!(
        refusal(&put(&bert, &bert_id, "owner").await),
        is(403, "forbidden")
    );
    assert_eq!(put(&anna, &bert_id, "owner").await.status, 200);
    let unknown = put(&anna, "acc_01M86VRGYAE3AR7SWFHF7J4WXW", "owner").await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
    assert_eq!(put(&anna, &bert_id, "boss").await.status, 400);

    // Both owners leave at once: one of them stays.
    let (annas, berts) = (staff(&anna_id), staff(&bert_id));
    let (one, other) = tokio::join!(anna.delete(&annas, "*"), bert.delete(&berts, "*"));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [204, 409]);
    let owners = "SELECT COUNT(*) FROM merchant_staff WHERE role = 'owner'";
    assert_eq!(server.count(owners).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_of_a_shop_do_what_their_table_says() {
    let server = TestServer::start_with(&["merchants.open=true"]).await;
    let (anna, _) = register(&server, "anna").await;
    let shop = anna.shop("Clay").await;
    let product = anna.mug(&shop, "mug").await;
    let path = format!("/products/{}", id_of(&product));
    let (bert, bert_id) = register(&server, "bert").await;
    for (role, status) in [("catalogue", 201), ("finance", 403), ("support", 403)] {
        let staff = format!("/merchants/{shop}/staff/{bert_id}");
        let body = json!({ "role": role });
        assert_eq!(
            anna.ask((Method::PUT, &staff), &[], Some(&body))
                .await
                .status,
            200
        );
        let answer = bert.post("/products", &mug(&shop, role)).await;
        assert_eq!(answer.status, status, "{role}: {}", answer.text);
        assert_eq!(bert.get(&path).await.status, 200, "{role} sees drafts");
        let change = bert.patch(&path, "*", &json!({ "category": role })).await;
        assert_eq!(
            change.status,
            if status == 201 { 200 } else { 403 },
            "{role}"
        );
        let price = bert.price(&variant_of(&product), "list", 1).await;
        assert_eq!(
            price.status,
            if status == 201 { 201 } else { 403 },
            "{role}"
        );
        let keys = bert.get(&format!("/merchants/{shop}/api_keys")).await;
        assert_eq!(refusal(&keys), is(403, "forbidden"), "{role}");
        let terms = bert
            .patch(&format!("/merchants/{shop}"), "*", &json!({ "name": "x" }))
            .await;
        assert_eq!(refusal(&terms), is(403, "forbidden"), "{role}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_agreed_with_a_creator_is_kept() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let creator = server.creator("anna").await;
    let path = format!("/merchants/{shop}/commission/{creator}");
    let put = |bps: i64| {
        let (boss, path) = (boss.clone(), path.clone());
        async move {
            boss.ask((Method::PUT, &path), &[], Some(&json!({ "cap_bps": bps })))
                .await
        }
    };
    for bps in [3_000, 3_000, 0] {
        let answer = put(bps).await;
        assert_eq!(
            (answer.status, &answer.json()["cap_bps"]),
            (200, &json!(bps))
        );
    }
    assert_eq!(server.count("SELECT cap_bps FROM commission_caps").await, 0);
    assert_eq!(refusal(&put(8_001).await), is(422, "out_of_bounds"));
    let other = format!("/merchants/{NOBODYS}/commission/{creator}");
    let unknown = boss
        .ask((Method::PUT, &other), &[], Some(&json!({ "cap_bps": 1 })))
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
}

/// A key of a shop: its id and secret.
async fn key(by: &Caller<'_>, shop: &str, scopes: &[&str]) -> (String, String) {
    let body = json!({ "name": "erp", "scopes": scopes });
    let key = made(by.post(&format!("/merchants/{shop}/api_keys"), &body).await);
    (id_of(&key), key["secret"].as_str().unwrap().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shops_key_does_what_it_lists_in_its_own_shop_only() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let (shop, other) = (boss.shop("Clay").await, boss.shop("Wood").await);
    let (_, secret) = key(&boss, &shop, &["products:write"]).await;
    let erp = Caller::with(&server, &secret);
    let mut body = mug(&shop, "mug");
    body.as_object_mut().unwrap().remove("merchant_id");
    let product = made(erp.post("/products", &body).await);
    assert_eq!(product["merchant_id"], json!(shop));
    assert_eq!(
        refusal(&erp.post("/products", &mug(&other, "mug")).await),
        is(404, "not_found")
    );
    let price = erp.price(&variant_of(&product), "list", 1).await;
    assert_eq!(refusal(&price), is(403, "forbidden"), "it lacks the scope");
    let theirs = boss.mug(&other, "theirs").await;
    let path = format!("/products/{}", id_of(&theirs));
    assert_eq!(refusal(&erp.get(&path).await), is(404, "not_found"));
    let refused = erp.patch(&path, "\"1\"", &json!({ "title": "x" })).await;
    assert_eq!(refusal(&refused), is(404, "not_found"));
    let own = erp.get(&format!("/merchants/{shop}")).await.json();
    assert_eq!(own["currency"], "CNY");
    let keys = erp.get(&format!("/merchants/{shop}/api_keys")).await;
    assert_eq!(refusal(&keys), is(403, "forbidden"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_replaced_and_deleted() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let path = format!("/merchants/{shop}/api_keys");
    let (id, secret) = key(&boss, &shop, &["products:write", "keys:manage"]).await;
    let list = boss.get(&path).await;
    assert!(!list.text.contains(&secret), "shown once");
    let mut shown = redacted(list.json());
    shown["data"][0]["last4"] = json!("[last4]");
    insta::assert_json_snapshot!(shown);

    let erp = Caller::with(&server, &secret);
    let rotate = format!("/api_keys/{id}/rotate");
    let rotated = made(erp.post(&rotate, &json!({ "overlap_s": 60 })).await);
    let fresh = Caller::with(&server, rotated["secret"].as_str().unwrap());
    let both = [erp.get(&path).await.status, fresh.get(&path).await.status];
    assert_eq!(both, [200, 200], "both are valid for the overlap");
    let again = fresh.post(&rotate, &json!({ "overlap_s": 0 })).await;
    assert_eq!(refusal(&again), is(409, "invalid_state"));
    server.app().clock.advance(Duration::from_secs(60));
    assert_eq!(refusal(&erp.get(&path).await), is(401, "unauthenticated"));
    assert_eq!(
        fresh.get(&path).await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let other = boss.shop("Wood").await;
    let (theirs, _) = key(&boss, &other, &["products:write"]).await;
    let own = format!("/api_keys/{}", id_of(&rotated));
    for refused in [
        fresh
            .post(
                &format!("/api_keys/{theirs}/rotate"),
                &json!({ "overlap_s": 0 }),
            )
            .await,
        fresh
            .ask((Method::DELETE, &format!("/api_keys/{theirs}")), &[], None)
            .await,
        boss.ask(
            (Method::DELETE, "/api_keys/key_01M86VRGYAE3AR7SWFHF7J4WXW"),
            &[],
            None,
        )
        .await,
    ] {
        assert_eq!(refusal(&refused), is(404, "not_found"));
    }
    assert_eq!(
        boss.ask((Method::DELETE, &own), &[], None).await.status,
        204
    );
    assert_eq!(
        refusal(&boss.ask((Method::DELETE, &own), &[], None).await),
        is(404, "not_found")
    );
    assert_eq!(refusal(&fresh.get(&path).await), is(401, "unauthenticated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_hands_out_no_more_than_it_has() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let path = format!("/merchants/{shop}/api_keys");
    let (_, secret) = key(&boss, &shop, &["products:write", "keys:manage"]).await;
    let erp = Caller::with(&server, &secret);
    let wish = |scopes: Value| json!({ "name": "more", "scopes": scopes });
    made(erp.post(&path, &wish(json!(["products:write"]))).await);
    let beyond = erp.post(&path, &wish(json!(["payouts:write"]))).await;
    assert_eq!(refusal(&beyond), is(403, "grant_exceeds_own"));
    let (strong, _) = key(&boss, &shop, &["payouts:write"]).await;
    let rotate = format!("/api_keys/{strong}/rotate");
    let beyond = erp.post(&rotate, &json!({ "overlap_s": 0 })).await;
    assert_eq!(refusal(&beyond), is(403, "grant_exceeds_own"));
    for (scopes, pointer) in [
        (json!([]), "/scopes"),
        (json!(["all"]), "/scopes/0"),
        (json!(["products:write", "ledger:read"]), "/scopes/1"),
    ] {
        let refused = boss.post(&path, &wish(scopes)).await;
        assert_eq!(refusal(&refused), is(422, "out_of_bounds"));
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
    let elsewhere = json!({ "name": "x", "scopes": ["products:write"], "ip_allow": ["192.0.2.1"] });
    let far = made(boss.post(&path, &elsewhere).await);
    let far = Caller::with(&server, far["secret"].as_str().unwrap());
    let refused = far.post("/products", &mug(&shop, "mug")).await;
    assert_eq!(
        refusal(&refused),
        is(403, "forbidden"),
        "from another address"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_has_at_most_32_keys_however_many_ask_at_once() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let path = format!("/merchants/{shop}/api_keys");
    let body = json!({ "name": "erp", "scopes": ["products:write"] });
    let answers = join_all((0..36).map(|_| boss.post(&path, &body))).await;
    assert_eq!(answers.iter().filter(|it| it.status == 201).count(), 32);
    for answer in answers.iter().filter(|it| it.status != 201) {
        assert_eq!(refusal(answer), is(409, "limit_reached"));
    }
}
