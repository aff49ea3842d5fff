//! Shelves over HTTP.

use reqwest::Method;
use serde_json::{Value, json};

use super::stage::{Stage, made, yuan};
use crate::support::Answer;

const UNKNOWN: &str = "/api/v1/shelf/shf_01M86VRGYAE3AR7SWFHPWY1Y64";

fn ids(shelf: &Value) -> Vec<String> {
    let entries = shelf.as_array().unwrap().iter();
    entries
        .map(|it| it["id"].as_str().unwrap().into())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_put_on_the_shelf_once_and_shown_to_everyone() {
    let stage = Stage::new().await;
    let mug = stage.thing("Mug", 1_999).await;
    let body = json!({
        "product_id": mug.product,
        "number": 7,
        "commission": { "creator_bps": 1_000, "affiliate_bps": 500 },
        "note": " say the price ",
    });
    let path = stage.path("/shelf");
    let first = stage.server.post_once("k", &path, &body).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let again = stage.server.post_once("k", &path, &body).await;
    assert_eq!((again.status, &again.text), (201, &first.text));
    let entry = first.json();
    assert_eq!(entry["note"], "say the price");
    assert_eq!(entry["commission"]["creator_bps"], 1_000);

    let shelf = stage.shelf().await;
    assert_eq!(shelf.as_array().unwrap().len(), 1);
    let shown = &shelf[0];
    let facts = ["number", "price", "left", "pinned", "sold_out", "title"];
    let facts: Vec<_> = facts.iter().map(|name| &shown[name]).collect();
    let expected = json!([7, yuan(1_999), 5, false, false, "Mug"]);
    assert_eq!(json!(facts), expected);
    assert!(shown["offer"].as_str().unwrap().starts_with("ofr1."));
    assert_eq!(shown["variants"][0]["kind"], "list");
    assert_eq!(shown.get("note"), None, "the note is for those who run it");
    let inside = stage.server.get_as_operator(&path).await.json();
    assert_eq!(inside["data"][0]["note"], "say the price");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_stand_where_they_are_put() {
    let stage = Stage::new().await;
    let thing = stage.thing("Mug", 100).await;
    let a = stage.shelve(&thing).await;
    let b = stage.shelve(&thing).await;
    let first = made(&stage.add(&thing, &json!({ "after": null })).await);
    let middle = made(&stage.add(&thing, &json!({ "after": a })).await);
    assert_eq!(
        ids(&stage.shelf().await),
        [&first, &a, &middle, &b].map(Clone::clone)
    );
    let moved = json!({ "after": b });
    let path = format!("/api/v1/shelf/{first}");
    let moved = stage.change(&path, "\"1\"", &moved).await;
    assert_eq!(moved.status, 200, "{}", moved.text);
    assert_eq!(moved.header("etag"), "\"2\"");
    assert_eq!(
        ids(&stage.shelf().await),
        [&a, &middle, &b, &first].map(Clone::clone)
    );
    let odd = stage.add(&thing, &json!({ "after": "shf_x" })).await;
    assert_eq!(odd.code(), "out_of_bounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shelf_refuses_what_does_not_fit() {
    let stage = Stage::new().await;
    let thing = stage.thing("Mug", 100).await;
    let draft = json!({ "merchant_id": stage.shop, "title": "Draft", "variants": [{}] });
    let draft = made(&stage.server.post("/api/v1/products", &draft).await);
    let taken = stage.add(&thing, &json!({ "number": 7 })).await;
    assert_eq!(taken.status, 201, "{}", taken.text);
    let share = |creator: i64, affiliate: i64| {
        let commission = json!({ "creator_bps": creator, "affiliate_bps": affiliate });
        json!({ "commission": commission })
    };
    let cases = [
        (json!({ "number": 7 }), 409, "number_taken"),
        (json!({ "number": 0 }), 422, "out_of_bounds"),
        (json!({ "note": "x".repeat(201) }), 422, "out_of_bounds"),
        (share(2_001, 0), 422, "commission_not_agreed"),
        (share(1_500, 501), 422, "commission_not_agreed"),
        (json!({ "product_id": draft }), 422, "not_sellable"),
        (json!({ "product_id": "prd_x" }), 422, "out_of_bounds"),
        (json!({ "variant_ids": ["var_x"] }), 422, "out_of_bounds"),
        (json!({ "colour": 1 }), 400, "unknown_field"),
    ];
    for (more, status, code) in cases {
        let answer = stage.add(&thing, &more).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{more}"
        );
    }
    assert_eq!(stage.add(&thing, &share(1_500, 500)).await.status, 201);
    let nowhere = "/api/v1/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64/shelf";
    let body = json!({
        "product_id": thing.product,
        "commission": { "creator_bps": 0, "affiliate_bps": 0 },
    });
    assert_eq!(stage.server.post(nowhere, &body).await.code(), "not_found");
    assert_eq!(stage.server.get(nowhere).await.code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_needs_the_version_that_was_read() {
    let stage = Stage::new().await;
    let entry = stage.shelve(&stage.thing("Mug", 100).await).await;
    let path = format!("/api/v1/shelf/{entry}");
    let server = &stage.server;
    let request = server.client.request(Method::PATCH, server.url(&path));
    let without = request.bearer_auth(&server.key).json(&json!({}));
    let without = Answer::of(without.send().await.unwrap()).await;
    assert_eq!(without.code(), "precondition_required");
    let stale = stage.change(&path, "\"9\"", &json!({ "number": 3 })).await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "stale"));
    assert_eq!(stale.header("etag"), "\"1\"");
    let changed = stage.change(&path, "\"1\"", &json!({ "number": 3 })).await;
    assert_eq!(
        (changed.status, &changed.json()["number"]),
        (200, &json!(3))
    );
    let unknown = stage.change(UNKNOWN, "*", &json!({})).await;
    assert_eq!(unknown.code(), "not_found");
    let gone = server.client.delete(server.url(&path));
    let gone = gone.bearer_auth(&server.key).header("If-Match", "\"2\"");
    assert_eq!(gone.send().await.unwrap().status(), 204);
    assert!(ids(&stage.shelf().await).is_empty());
    assert_eq!(
        stage.change(&path, "*", &json!({})).await.code(),
        "not_found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_of_a_shelf_is_the_same_until_more_than_what_is_left_changes() {
    let stage = Stage::new().await;
    let thing = stage.thing("Mug", 100).await;
    let entry = stage.shelve(&thing).await;
    let path = stage.path("/shelf");
    let tag = stage.server.get(&path).await.header("etag");
    let stock = format!("/api/v1/variants/{}/stock/adjustments", thing.variant);
    let more = json!({ "delta": 3, "reason": "receive" });
    let more = stage.server.post_once("more", &stock, &more).await;
    assert_eq!(more.status, 201, "{}", more.text);
    assert_eq!(stage.shelf().await[0]["left"], 8);
    let request = stage.server.client.get(stage.server.url(&path));
    let known = request.header("If-None-Match", &tag).send().await.unwrap();
    assert_eq!(known.status(), 304);
    let change = json!({ "number": 4 });
    stage
        .change(&format!("/api/v1/shelf/{entry}"), "*", &change)
        .await;
    assert_ne!(stage.server.get(&path).await.header("etag"), tag);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_hidden_or_taken_away_is_on_no_card() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let (a, b) = (stage.shelve(&thing).await, stage.shelve(&thing).await);
    let path = |entry: &str| format!("/api/v1/shelf/{entry}");
    stage.pin(&a).await;
    let hidden = json!({ "hidden": true });
    let hidden = stage.change(&path(&a), "*", &hidden).await;
    assert_eq!(hidden.status, 200, "{}", hidden.text);
    assert_eq!(ids(&stage.shelf().await), std::slice::from_ref(&b));
    let pinned = stage.pin(&b).await;
    let explained = json!({ "action": "explain_start", "entry_id": b });
    assert_eq!(stage.card(&explained).await.status, 201);
    let server = &stage.server;
    let gone = server.client.delete(server.url(&path(&b)));
    let gone = gone.bearer_auth(&server.key).header("If-Match", "*");
    assert_eq!(gone.send().await.unwrap().status(), 204);
    let actions: Vec<String> = stage
        .envelopes()
        .await
        .iter()
        .map(|text| serde_json::from_str::<Value>(text).unwrap()["action"].clone())
        .map(|action| action.as_str().unwrap().into())
        .collect();
    let expected = [
        "pin",
        "unpin",
        "pin",
        "explain_start",
        "unpin",
        "explain_end",
    ];
    assert_eq!(actions, expected);
    let later = pinned["at_us"].as_i64().unwrap() + 5_000_000;
    let seen = stage.seen(later).await;
    assert_eq!(
        (&seen["pinned"], &seen["explained"]),
        (&Value::Null, &Value::Null)
    );
    let again = json!({ "action": "pin", "entry_id": a });
    assert_eq!(stage.card(&again).await.code(), "out_of_bounds");
}
