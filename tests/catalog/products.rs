//! Products and variants: made, shown, changed, published, listed; races for one of them.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Caller, id_of, is, made, mug, refusal, register, variant_of};
use crate::support::{TestServer, redacted};

const NOBODYS: &str = "prd_01M86VRGYAE3AR7SWFHF7J4WXW";

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_made_as_a_draft_that_only_its_shop_sees() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let answer = boss.post("/products", &mug(&shop, "mug")).await;
    assert_eq!(
        (answer.status, answer.header("etag").as_str()),
        (201, "\"1\"")
    );
    insta::assert_json_snapshot!(redacted(answer.json()));
    let path = format!("/products/{}", id_of(&answer.json()));
    let shown = boss.get(&path).await;
    assert_eq!((shown.status, shown.json()), (200, answer.json()));
    assert_eq!(
        refusal(&Caller::nobody(&server).get(&path).await),
        is(404, "not_found")
    );
    let (stranger, _) = register(&server, "stranger").await;
    assert_eq!(refusal(&stranger.get(&path).await), is(404, "not_found"));
    assert_eq!(
        server
            .count("SELECT COUNT(*) FROM stock WHERE on_hand = 0")
            .await,
        1
    );
    let told = "SELECT COUNT(*) FROM event_log WHERE type = 'product.created' \
                AND stream LIKE 'merchant:mch_%'";
    while server.count(told).await == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_wish_twice_makes_one_product() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let body = mug(&boss.shop("Clay").await, "mug");
    let once = |key: &'static str| {
        let (boss, body) = (boss.clone(), body.clone());
        async move {
            let path = (Method::POST, "/products");
            boss.ask(path, &[("idempotency-key", key)], Some(&body))
                .await
        }
    };
    let (one, other) = tokio::join!(once("k"), once("k"));
    assert_eq!((one.status, &one.text), (201, &other.text));
    let again = boss.post("/products", &body).await;
    assert_eq!(refusal(&again), is(409, "duplicate_external_id"));
    assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 1);
    assert_eq!(server.count("SELECT COUNT(*) FROM variants").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_out_of_bounds_is_named_by_its_place() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let good = mug(&boss.shop("Clay").await, "mug");
    let long = |n: usize| "x".repeat(n);
    let many = |n: usize| -> Value {
        (0..n)
            .map(|at| (format!("a{at}"), json!("x")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let cases = [
        ("title", json!(""), "/title"),
        ("title", json!(long(121)), "/title"),
        ("description", json!(long(20_001)), "/description"),
        ("external_id", json!("a b"), "/external_id"),
        ("external_id", json!(long(65)), "/external_id"),
        ("category", json!(""), "/category"),
        ("attributes", many(51), "/attributes"),
        ("media", json!(vec![good["media"][0].clone(); 21]), "/media"),
        (
            "media",
            json!([{ "url": "javascript:x", "kind": "image" }]),
            "/media/0/url",
        ),
        ("variants", json!(vec![json!({}); 101]), "/variants"),
        (
            "variants",
            json!([{}, { "options": many(6) }]),
            "/variants/1/options",
        ),
        (
            "variants",
            json!([{ "weight_g": -1 }]),
            "/variants/0/weight_g",
        ),
        (
            "variants",
            json!([{ "external_id": "ä" }]),
            "/variants/0/external_id",
        ),
    ];
    for (field, value, pointer) in cases {
        let mut body = good.clone();
        body[field] = value;
        let answer = boss.post("/products", &body).await;
        assert_eq!(refusal(&answer), is(422, "out_of_bounds"), "{pointer}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_product_is_malformed() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let good = mug(&boss.shop("Clay").await, "mug");
    for (field, value, code) in [
        ("title", json!(5), "malformed"),
        (
            "media",
            json!([{ "url": "/a", "kind": "smell" }]),
            "malformed",
        ),
        ("colour", json!("red"), "unknown_field"),
        ("merchant_id", Value::Null, "malformed"),
    ] {
        let mut body = good.clone();
        body[field] = value;
        assert_eq!(
            refusal(&boss.post("/products", &body).await),
            is(400, code),
            "{field}"
        );
    }
    let mut elsewhere = good.clone();
    elsewhere["merchant_id"] = json!("mch_01M86VRGYAE3AR7SWFHF7J4WXW");
    assert_eq!(
        refusal(&boss.post("/products", &elsewhere).await),
        is(404, "not_found")
    );
    assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_needs_the_version_it_was_meant_for_and_changes_only_what_it_names() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let path = format!("/products/{}", id_of(&mug));
    let change = json!({ "title": " A cup ", "category": null });
    let without = boss.ask((Method::PATCH, &path), &[], Some(&change)).await;
    assert_eq!(refusal(&without), is(428, "precondition_required"));
    let changed = boss.patch(&path, "\"1\"", &change).await;
    assert_eq!(
        (changed.status, changed.header("etag").as_str()),
        (200, "\"2\"")
    );
    let mut expected = mug.clone();
    expected["title"] = json!("A cup");
    expected["category"] = Value::Null;
    expected["version"] = json!(2);
    assert_eq!(changed.json(), expected);
    let stale = boss.patch(&path, "\"1\"", &change).await;
    assert_eq!(refusal(&stale), is(412, "stale"));
    assert_eq!(stale.header("etag"), "\"2\"");
    let again = boss.patch(&path, "\"2\"", &change).await;
    assert_eq!(again.json(), expected, "twice changes nothing");
    let unknown = boss
        .patch(&format!("/products/{NOBODYS}"), "\"1\"", &change)
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
    let bad = boss.patch(&path, "\"2\"", &json!({ "title": "" })).await;
    assert_eq!(refusal(&bad), is(422, "out_of_bounds"));
    let more = boss.patch(&path, "\"2\"", &json!({ "variants": [] })).await;
    assert_eq!(refusal(&more), is(400, "unknown_field"));
    let audited = "SELECT COUNT(*) FROM audit_log WHERE route = 'PATCH /api/v1/products/{id}'";
    assert_eq!(server.count(audited).await, 1);
}

/// C27
#[tokio::test(flavor = "multi_thread")]
async fn of_many_changes_of_one_version_one_wins() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let path = format!("/products/{}", id_of(&mug));
    let changes = (0..16).map(|n| {
        let (boss, path) = (boss.clone(), path.clone());
        async move {
            boss.patch(&path, "\"1\"", &json!({ "title": format!("{n}") }))
                .await
        }
    });
    let answers = join_all(changes).await;
    let won: Vec<_> = answers.iter().filter(|it| it.status == 200).collect();
    assert_eq!(won.len(), 1);
    let lost = answers.iter().filter(|it| it.status != 200);
    for answer in lost {
        assert_eq!(refusal(answer), is(412, "stale"));
        assert_eq!(answer.header("etag"), "\"2\"");
    }
    assert_eq!(boss.get(&path).await.json(), won[0].json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_published_once_it_has_a_list_price_and_then_everybody_sees_it() {
    let server = TestServer::start().await;
    let (boss, nobody) = (Caller::operator(&server), Caller::nobody(&server));
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let (path, variant) = (format!("/products/{}", id_of(&mug)), variant_of(&mug));
    let publish = format!("{path}/publish");
    let unpriced = boss.step(&publish, "\"1\"").await;
    assert_eq!(refusal(&unpriced), is(422, "not_sellable"));
    made(boss.price(&variant, "sale", 999).await);
    let only_sale = boss.step(&publish, "\"2\"").await;
    assert_eq!(refusal(&only_sale), is(422, "not_sellable"));
    made(boss.price(&variant, "list", 1_999).await);
    let without = boss.ask((Method::POST, &publish), &[], None).await;
    assert_eq!(refusal(&without), is(428, "precondition_required"));
    assert_eq!(
        refusal(&boss.step(&publish, "\"2\"").await),
        is(412, "stale")
    );
    let published = boss.step(&publish, "\"3\"").await;
    assert_eq!(
        (published.status, &published.json()["status"]),
        (200, &json!("active"))
    );
    let again = boss.step(&publish, "\"4\"").await;
    assert_eq!(refusal(&again), is(409, "invalid_state"));

    let seen = nobody.get(&path).await;
    assert_eq!(seen.status, 200);
    insta::assert_json_snapshot!(redacted(seen.json()));
    let tag = seen.header("etag");
    let known = nobody
        .ask((Method::GET, &path), &[("if-none-match", &tag)], None)
        .await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));

    let archived = boss.step(&format!("{path}/archive"), "\"4\"").await;
    assert_eq!(
        (archived.status, &archived.json()["status"]),
        (200, &json!("archived"))
    );
    assert_eq!(refusal(&nobody.get(&path).await), is(404, "not_found"));
    let again = boss.step(&format!("{path}/archive"), "\"5\"").await;
    assert_eq!(refusal(&again), is(409, "invalid_state"));
    let unknown = boss
        .step(&format!("/products/{NOBODYS}/archive"), "\"1\"")
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_of_what_the_public_sees_changes_when_a_sale_begins() {
    let server = TestServer::start().await;
    let (boss, nobody) = (Caller::operator(&server), Caller::nobody(&server));
    let mug = boss.mug_on_sale(&boss.shop("Clay").await, "mug").await;
    let (path, variant) = (format!("/products/{}", id_of(&mug)), variant_of(&mug));
    let clock = &server.app().clock;
    let starts_at = clock.now().plus(Duration::from_secs(60)).to_string();
    let sale = json!({ "kind": "sale", "price": super::yuan(999), "starts_at": starts_at });
    made(
        boss.post(&format!("/variants/{variant}/prices"), &sale)
            .await,
    );
    let before = nobody.get(&path).await;
    assert_eq!(
        before.json()["variants"][0]["price"]["price"]["amount"],
        1_999
    );
    clock.advance(Duration::from_secs(60));
    let tag = before.header("etag");
    let after = nobody
        .ask((Method::GET, &path), &[("if-none-match", &tag)], None)
        .await;
    assert_eq!(after.status, 200);
    assert_eq!(after.json()["variants"][0]["price"]["price"]["amount"], 999);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_is_put_by_its_external_id() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let path = format!("/merchants/{shop}/products/external/mug");
    let mut body = mug(&shop, "mug");
    let without = boss.ask((Method::PUT, &path), &[], Some(&body)).await;
    assert_eq!(refusal(&without), is(428, "precondition_required"));
    let missing = boss.put(&path, ("if-match", "\"1\""), &body).await;
    assert_eq!(refusal(&missing), is(404, "not_found"));
    let put = boss.put(&path, ("if-none-match", "*"), &body).await;
    assert_eq!((put.status, put.header("etag").as_str()), (201, "\"1\""));
    let again = boss.put(&path, ("if-none-match", "*"), &body).await;
    assert_eq!(refusal(&again), is(412, "stale"));
    assert_eq!(again.header("etag"), "\"1\"");
    let same = boss.put(&path, ("if-match", "\"1\""), &body).await;
    assert_eq!(
        (same.status, same.json()),
        (200, put.json()),
        "twice changes nothing"
    );

    body["title"] = json!("A cup");
    body["variants"] = json!([
        { "external_id": "mug-l", "options": { "size": "L" } },
        { "external_id": "mug-m", "options": { "size": "M" }, "weight_g": 400 },
    ]);
    let replaced = boss.put(&path, ("if-match", "\"1\""), &body).await;
    assert_eq!(replaced.status, 200, "{}", replaced.text);
    let variants = replaced.json()["variants"].clone();
    assert_eq!(
        variants[0]["id"],
        put.json()["variants"][0]["id"],
        "known by its external id"
    );
    assert_eq!(
        (&variants[0]["weight_g"], &variants[0]["version"]),
        (&json!(400), &json!(2))
    );
    assert_eq!(variants[1]["external_id"], "mug-l");

    body["variants"] = json!([{ "external_id": "mug-l", "options": { "size": "L" } }]);
    let tag = replaced.header("etag");
    let fewer = boss.put(&path, ("if-match", &tag), &body).await;
    assert_eq!(fewer.json()["variants"][0]["status"], "archived");
    body.as_object_mut().unwrap().remove("variants");
    let tag = fewer.header("etag");
    let left = boss.put(&path, ("if-match", &tag), &body).await;
    assert_eq!(left.json(), fewer.json(), "no variants named, none changed");
    body["external_id"] = json!("jug");
    let other = boss.put(&path, ("if-match", &tag), &body).await;
    assert_eq!(refusal(&other), is(422, "out_of_bounds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_make_one_external_id_one_wins() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let path = format!("/merchants/{shop}/products/external/mug");
    let body = json!({ "title": "A mug" });
    let puts = (0..12).map(|_| boss.put(&path, ("if-none-match", "*"), &body));
    let answers = join_all(puts).await;
    assert_eq!(answers.iter().filter(|it| it.status == 201).count(), 1);
    for answer in answers.iter().filter(|it| it.status != 201) {
        assert_eq!(refusal(answer), is(412, "stale"));
    }
    let body = mug(&shop, "cup");
    let answers = join_all((0..12).map(|_| boss.post("/products", &body))).await;
    assert_eq!(answers.iter().filter(|it| it.status == 201).count(), 1);
    for answer in answers.iter().filter(|it| it.status != 201) {
        assert_eq!(refusal(answer), is(409, "duplicate_external_id"));
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM products").await, 2);

    // Two products race for the external id of a third.
    let other = boss.mug(&shop, "jug").await;
    let bowl = boss.mug(&shop, "bowl").await;
    let rename = |product: &Value| {
        let (boss, path) = (boss.clone(), format!("/products/{}", id_of(product)));
        async move {
            boss.patch(&path, "\"1\"", &json!({ "external_id": "pot" }))
                .await
        }
    };
    let (one, two) = tokio::join!(rename(&other), rename(&bowl));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_are_added_changed_and_archived() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mug = boss.mug(&boss.shop("Clay").await, "mug").await;
    let product = format!("/products/{}", id_of(&mug));
    let body = json!({ "external_id": "mug-l", "options": { "size": "L" }, "barcode": "690" });
    let added = boss.post(&format!("{product}/variants"), &body).await;
    assert_eq!(
        (added.status, added.header("etag").as_str()),
        (201, "\"1\"")
    );
    insta::assert_json_snapshot!(redacted(added.json()));
    let again = boss.post(&format!("{product}/variants"), &body).await;
    assert_eq!(refusal(&again), is(409, "duplicate_external_id"));
    let unknown = boss
        .post(&format!("/products/{NOBODYS}/variants"), &json!({}))
        .await;
    assert_eq!(refusal(&unknown), is(404, "not_found"));
    assert_eq!(
        boss.get(&product).await.header("etag"),
        "\"2\"",
        "the product rises with it"
    );

    let path = format!("/variants/{}", id_of(&added.json()));
    let taken = boss
        .patch(&path, "\"1\"", &json!({ "external_id": "mug-m" }))
        .await;
    assert_eq!(refusal(&taken), is(409, "duplicate_external_id"));
    let changed = boss
        .patch(&path, "\"1\"", &json!({ "barcode": null, "weight_g": 500 }))
        .await;
    assert_eq!(
        (changed.status, changed.header("etag").as_str()),
        (200, "\"2\"")
    );
    assert_eq!(changed.json()["barcode"], Value::Null);
    assert_eq!(changed.json()["options"], json!({ "size": "L" }));
    let same = boss
        .patch(&path, "\"2\"", &json!({ "weight_g": 500 }))
        .await;
    assert_eq!(same.json(), changed.json(), "twice changes nothing");
    let stale = boss.patch(&path, "\"1\"", &json!({ "weight_g": 1 })).await;
    assert_eq!(refusal(&stale), is(412, "stale"));
    let archived = boss.step(&format!("{path}/archive"), "\"2\"").await;
    assert_eq!(
        (archived.status, &archived.json()["status"]),
        (200, &json!("archived"))
    );
    let again = boss.step(&format!("{path}/archive"), "\"3\"").await;
    assert_eq!(refusal(&again), is(409, "invalid_state"));
    let unknown = "/variants/var_01M86VRGYAE3AR7SWFHF7J4WXW/archive";
    assert_eq!(
        refusal(&boss.step(unknown, "\"1\"").await),
        is(404, "not_found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_product_has_at_most_a_hundred_variants_for_sale() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let mut body = mug(&boss.shop("Clay").await, "mug");
    body["variants"] = json!(vec![json!({}); 100]);
    let full = made(boss.post("/products", &body).await);
    let path = format!("/products/{}/variants", id_of(&full));
    let over = boss.post(&path, &json!({})).await;
    assert_eq!(refusal(&over), is(422, "out_of_bounds"));
    let first = format!("/variants/{}/archive", variant_of(&full));
    assert_eq!(boss.step(&first, "\"1\"").await.status, 200);
    made(boss.post(&path, &json!({})).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_public_lists_what_is_for_sale_and_the_shop_lists_all() {
    let server = TestServer::start().await;
    let (boss, nobody) = (Caller::operator(&server), Caller::nobody(&server));
    let (shop, other) = (boss.shop("Clay").await, boss.shop("Wood").await);
    let mug = id_of(&boss.mug_on_sale(&shop, "mug").await);
    let bowl = id_of(&boss.mug_on_sale(&other, "bowl").await);
    let draft = id_of(&boss.mug(&shop, "draft").await);
    let ids = |answer: crate::support::Answer| -> Vec<String> {
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(id_of)
            .collect()
    };
    let by_shop = format!("/products?merchant_id={shop}");
    assert_eq!(
        ids(nobody.get("/products").await),
        [bowl.clone(), mug.clone()]
    );
    assert_eq!(ids(nobody.get(&by_shop).await), std::slice::from_ref(&mug));
    assert_eq!(
        ids(nobody.get("/products?status=draft").await),
        Vec::<String>::new()
    );
    assert_eq!(
        ids(nobody.get("/products?status[in]=draft,active").await).len(),
        2
    );
    assert_eq!(
        ids(boss.get("/products").await),
        [draft.clone(), bowl, mug.clone()]
    );
    assert_eq!(ids(boss.get(&by_shop).await), [draft.clone(), mug.clone()]);
    assert_eq!(
        ids(boss.get(&format!("{by_shop}&status=draft")).await),
        std::slice::from_ref(&draft)
    );
    assert_eq!(
        ids(boss
            .get(&format!("{by_shop}&q=A%20m&category=kitchen"))
            .await)
        .len(),
        2
    );
    assert_eq!(
        ids(boss.get(&format!("{by_shop}&q=mug")).await).len(),
        0,
        "not its beginning"
    );
    let later = "created_at[gte]=2030-01-01T00:00:00Z";
    assert_eq!(ids(boss.get(&format!("{by_shop}&{later}")).await).len(), 0);
    for (path, code) in [
        ("/products?colour=red", "unknown_filter"),
        ("/products?status=sold", "malformed"),
        ("/products?merchant_id=x", "malformed"),
        ("/products?after=x", "bad_cursor"),
    ] {
        assert_eq!(refusal(&nobody.get(path).await), is(400, code), "{path}");
    }
    let page = boss.get("/products?limit=1").await.json();
    let next = page["page"]["next"].as_str().unwrap().to_owned();
    let foreign = boss.get(&format!("{by_shop}&limit=1&after={next}")).await;
    assert_eq!(
        refusal(&foreign),
        is(400, "bad_cursor"),
        "of another filter"
    );
    let public = nobody.get(&format!("/products?limit=1&after={next}")).await;
    assert_eq!(refusal(&public), is(400, "bad_cursor"), "of another eye");
}

/// C25
#[tokio::test(flavor = "multi_thread")]
async fn a_walk_sees_what_stood_throughout_once_while_others_come_and_go() {
    let server = TestServer::start().await;
    let boss = Caller::operator(&server);
    let shop = boss.shop("Clay").await;
    let mut standing = BTreeSet::new();
    let mut going = Vec::new();
    for n in 0..30 {
        let body = json!({ "merchant_id": shop, "title": format!("{n}") });
        let id = id_of(&made(boss.post("/products", &body).await));
        match n % 3 {
            0 => going.push(id),
            _ => drop(standing.insert(id)),
        }
    }
    let list = format!("/products?merchant_id={shop}&status=draft&limit=4");
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = boss.get(&format!("{list}{after}")).await.json();
        seen.extend(page["data"].as_array().unwrap().iter().map(id_of));
        // One leaves the filter, one comes, between any two pages.
        if let Some(id) = going.pop() {
            let archived = boss.step(&format!("/products/{id}/archive"), "\"1\"").await;
            assert_eq!(archived.status, 200);
        }
        let body = json!({ "merchant_id": shop, "title": "new" });
        made(boss.post("/products", &body).await);
        match page["page"]["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let once: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "nothing twice");
    assert!(once.is_superset(&standing));
}
