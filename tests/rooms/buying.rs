//! Prices honoured by the frame: a buyer pays what is on the buyer's own screen.

use serde_json::{Value, json};

use super::stage::{Stage, Thing, yuan};
use crate::support::Answer;

/// What a viewer of the shelf is offered for its first entry.
async fn offered(stage: &Stage) -> String {
    let shelf = stage.shelf().await;
    let offer = &shelf[0]["variants"][0]["offer"];
    offer
        .as_str()
        .unwrap_or_else(|| panic!("no offer in {shelf}"))
        .into()
}

/// Buys one, with this offer and what else the wish says.
async fn buys(stage: &Stage, key: &str, (thing, offer): (&Thing, &str), more: &Value) -> Answer {
    let mut line = json!({ "variant_id": thing.variant, "quantity": 1, "offer": offer,
        "room_id": stage.room });
    for (name, value) in more.as_object().unwrap() {
        line[name] = value.clone();
    }
    let wish = json!({ "lines": [line], "ship_to": { "name": "A buyer", "phone": "12345",
        "region": "Here", "address": "A street" } });
    stage
        .server
        .post_once(key, "/api/v1/checkouts", &wish)
        .await
}

fn unit_price(placed: &Answer) -> Value {
    assert_eq!(placed.status, 201, "{}", placed.text);
    placed.json()["orders"][0]["lines"][0]["unit_price"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_changed_on_air_is_charged_by_the_frame_that_the_buyer_sees() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 1_000).await;
    let entry = stage.shelve(&thing).await;
    let old = offered(&stage).await;
    let price = json!({ "action": "price", "entry_id": entry,
        "data": { "variant": thing.variant, "amount": 1_500 } });
    let changed = stage.card(&price).await;
    assert_eq!(changed.status, 201, "{}", changed.text);
    let at_us = changed.json()["at_us"].as_i64().unwrap();
    stage.reach(at_us).await;
    let new = offered(&stage).await;
    assert_ne!(old, new);

    // One whose picture is behind still sees the old price; one who is there sees the new one.
    let behind = json!({ "at_us": at_us - 1 });
    let one = buys(&stage, "behind", (&thing, &old), &behind).await;
    assert_eq!(unit_price(&one), yuan(1_000));
    let one = buys(&stage, "there", (&thing, &new), &json!({ "at_us": at_us })).await;
    assert_eq!(unit_price(&one), yuan(1_500));

    // The old one is not for who has seen the new, nor for who does not say what they see.
    for (key, more) in [("saw", json!({ "at_us": at_us })), ("silent", json!({}))] {
        let stale = buys(&stage, key, (&thing, &old), &more).await;
        assert_eq!((stale.status, stale.code()), (422, "price_changed".into()));
        assert_eq!(stale.json()["current_price"], yuan(1_500));
        let current = stale.json()["current_offer"].as_str().unwrap().to_owned();
        assert_eq!(current, new);
    }
    let unknown = json!({ "at_us": at_us - 1, "playback_id": "nobody" });
    let unknown = buys(&stage, "unknown", (&thing, &old), &unknown).await;
    assert_eq!(unknown.code(), "price_changed", "no such playback is known");
    let forged = format!(
        "{}{}",
        &new[..new.len() - 1],
        if new.ends_with('A') { 'B' } else { 'A' }
    );
    let forged = buys(&stage, "forged", (&thing, &forged), &json!({})).await;
    assert_eq!(
        (forged.status, forged.code()),
        (422, "offer_invalid".into())
    );

    // And nobody is behind for longer than the room allows.
    let path = stage.path("");
    let strict = stage
        .change(&path, "*", &json!({ "price_honour_ms": 0 }))
        .await;
    assert_eq!(strict.status, 200, "{}", strict.text);
    let late = buys(&stage, "late", (&thing, &old), &behind).await;
    assert_eq!(late.code(), "price_changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_remembers_the_shelf_it_came_from() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 1_000).await;
    let entry = stage.shelve(&thing).await;
    let offer = offered(&stage).await;
    let placed = buys(
        &stage,
        "k1",
        (&thing, &offer),
        &json!({ "entry_id": entry }),
    )
    .await;
    assert_eq!(unit_price(&placed), yuan(1_000));
    let sql = "SELECT COUNT(*) FROM orders WHERE room_id IS NOT NULL AND creator_id IS NOT NULL";
    assert_eq!(stage.server.count(sql).await, 1);
    // The operator who buys here operates the creator: nobody brings themselves.
    assert_eq!(
        stage
            .server
            .count("SELECT creator_bps FROM order_lines")
            .await,
        0
    );
    let other = stage.thing("Pan", 1_000).await;
    let elsewhere = buys(
        &stage,
        "k2",
        (&other, &offer),
        &json!({ "entry_id": entry }),
    )
    .await;
    assert_eq!(
        elsewhere.code(),
        "offer_invalid",
        "an offer is for its own variant"
    );
}
