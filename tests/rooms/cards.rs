//! Cards over HTTP, and what every carrier gets of them.

use lamplight_media::broadcast::{BroadcastKey, EndReason};
use lamplight_media::cue::{CueCursor, CueKind, CueNews};
use serde_json::{Value, json};

use super::stage::{Stage, yuan};
use crate::support::Answer;

fn at(placed: &Value) -> i64 {
    placed["at_us"].as_i64().unwrap()
}

fn cues(stage: &Stage) -> CueCursor {
    let media = &stage.server.app().media;
    media.find(&BroadcastKey::new(&stage.room)).unwrap().cues()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_put_once_and_a_repeat_tells_where_it_stands() {
    let stage = Stage::live().await;
    let entry = stage.shelve(&stage.thing("Mug", 100).await).await;
    let body = json!({ "action": "pin", "entry_id": entry });
    let path = stage.path("/cards");
    let first = stage.server.post_once("k", &path, &body).await;
    assert_eq!(first.status, 201, "{}", first.text);
    assert_eq!(first.json()["seq"], 1);
    let replayed = stage.server.post_once("k", &path, &body).await;
    assert_eq!((replayed.status, &replayed.text), (201, &first.text));
    let repeated = stage.card(&body).await;
    assert_eq!((repeated.status, repeated.json()), (200, first.json()));
    let unpin = json!({ "action": "unpin" });
    assert_eq!(stage.card(&unpin).await.json()["seq"], 2);
    assert_eq!(stage.card(&unpin).await.status, 200);
    assert_eq!(stage.card(&body).await.json()["seq"], 3);
    assert_eq!(stage.envelopes().await.len(), 3);
    let nothing = json!({ "action": "explain_end" });
    let nothing = stage.card(&nothing).await;
    assert_eq!((nothing.status, &nothing.json()["seq"]), (200, &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_takes_effect_at_its_time_and_not_before() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let (a, b) = (stage.shelve(&thing).await, stage.shelve(&thing).await);
    let first = at(&stage.pin(&a).await);
    let later = first + 30_000_000;
    let body = json!({ "action": "pin", "entry_id": b, "at_us": later, "ttl_ms": 5_000 });
    let second = stage.card(&body).await;
    assert_eq!(
        (second.status, at(&second.json())),
        (201, later),
        "{}",
        second.text
    );
    let pinned = async |at_us: i64| stage.seen(at_us).await["pinned"]["entry"].clone();
    assert_eq!(pinned(first - 1).await, Value::Null);
    assert_eq!(pinned(first).await, json!(a));
    assert_eq!(pinned(later - 1).await, json!(a));
    assert_eq!(pinned(later).await, json!(b));
    assert_eq!(
        pinned(later + 5_000_000).await,
        json!(a),
        "what lapsed gives way"
    );
    let seen = stage.seen(first).await;
    assert_eq!(
        (&seen["seq"], &seen["pinned"]["seq"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(stage.seen(later).await["seq"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_by_name_and_takes_no_number() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let entry = stage.shelve(&thing).await;
    let other = stage.thing("Pan", 100).await;
    let now = stage.server.get(&stage.path("/clock")).await.json();
    let now = now["room_now_us"].as_i64().unwrap();
    let custom = |data: Value| json!({ "action": "custom", "data": data });
    let price = |data: Value| json!({ "action": "price", "data": data });
    let pin = |name: &str, value: Value| {
        let mut body = json!({ "action": "pin", "entry_id": entry });
        body[name] = value;
        body
    };
    let cases = [
        (pin("at_us", json!(now)), 422, "at_out_of_range"),
        (
            pin("at_us", json!(now + 90_000_000)),
            422,
            "at_out_of_range",
        ),
        (pin("ttl_ms", json!(3_600_001)), 422, "out_of_bounds"),
        (pin("entry_id", json!("shf_x")), 422, "out_of_bounds"),
        (pin("data", json!({ "x": 1 })), 422, "out_of_bounds"),
        (pin("colour", json!(1)), 400, "unknown_field"),
        (json!({ "action": "pin" }), 422, "out_of_bounds"),
        (json!({ "action": "dance" }), 400, "malformed"),
        (json!({ "action": "deal_open" }), 422, "out_of_bounds"),
        (json!({ "action": "sold_out" }), 422, "out_of_bounds"),
        (json!({ "action": "coupon_pin" }), 422, "out_of_bounds"),
        (custom(json!([1])), 400, "malformed"),
        (
            custom(json!({ "x": "y".repeat(700) })),
            422,
            "card_too_large",
        ),
        (price(json!({})), 400, "malformed"),
        (
            price(json!({ "variant": thing.variant, "amount": 0 })),
            422,
            "amount_out_of_range",
        ),
        (
            price(json!({ "variant": other.variant, "amount": 1 })),
            422,
            "out_of_bounds",
        ),
        (
            price(json!({ "variant": thing.variant, "amount": 1, "currency": "EUR" })),
            422,
            "out_of_bounds",
        ),
    ];
    for (body, status, code) in cases {
        let answer = stage.card(&body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{body}"
        );
    }
    assert!(stage.envelopes().await.is_empty());
    assert_eq!(stage.pin(&entry).await["seq"], 1);
    let nowhere = "/api/v1/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64/cards";
    let body = json!({ "action": "unpin" });
    assert_eq!(stage.server.post(nowhere, &body).await.code(), "not_found");
    assert_eq!(stage.server.get(nowhere).await.code(), "not_found");
    let events = stage.server.get(&format!("{nowhere}/events")).await;
    assert_eq!(events.code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_puts_twenty_cards_a_second() {
    let stage = Stage::live().await;
    let body = json!({ "action": "custom", "data": { "n": 1 } });
    let path = stage.path("/cards");
    for _ in 0..20 {
        assert_eq!(stage.server.post(&path, &body).await.status, 201);
    }
    let over = stage.server.post(&path, &body).await;
    assert_eq!((over.status, over.code().as_str()), (429, "rate_limited"));
    assert_eq!(stage.card(&body).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_the_bounds_of_the_media_core_nothing_is_written() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let (a, b) = (stage.shelve(&thing).await, stage.shelve(&thing).await);
    let mut put = 0;
    let refused = loop {
        let entry = if put % 2 == 0 { &a } else { &b };
        let answer = stage
            .card(&json!({ "action": "pin", "entry_id": entry }))
            .await;
        if answer.status != 201 {
            break answer;
        }
        put += 1;
        assert!(put < 100, "listed cards are bounded");
    };
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "rate_limited")
    );
    assert_eq!(stage.envelopes().await.len(), put);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_price_of_a_room_is_in_force_from_its_time_on_and_can_be_taken_back() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 1_999).await;
    let entry = stage.shelve(&thing).await;
    let body = |amount: Value| {
        let data = json!({ "variant": thing.variant, "amount": amount });
        json!({ "action": "price", "data": data })
    };
    let set = stage.card(&body(json!(1_500))).await;
    assert_eq!(set.status, 201, "{}", set.text);
    let price = async || stage.shelf().await[0]["price"].clone();
    assert_eq!(
        price().await,
        yuan(1_999),
        "before its time the old one is in force"
    );
    stage.reach(at(&set.json())).await;
    assert_eq!(price().await, yuan(1_500));
    let events = stage.server.get(&stage.path("/cards/events")).await.json();
    let event = &events["data"][0];
    assert_eq!(
        (&event["entry"], &event["data"]["amount"]),
        (&json!(entry), &json!(1_500))
    );
    assert!(
        event["data"]["offer"]
            .as_str()
            .unwrap()
            .starts_with("ofr1.")
    );
    let now = stage.server.get(&stage.path("/cards")).await.json();
    let shown = &now["prices"][0];
    assert_eq!(
        (&shown["price_then"], &shown["price"]),
        (&yuan(1_500), &yuan(1_500))
    );
    assert_eq!(
        (&shown["left"], &shown["kind_then"]),
        (&json!(5), &json!("room"))
    );

    assert_eq!(stage.card(&body(json!(1_500))).await.status, 200);
    let back = stage.card(&body(Value::Null)).await;
    stage.reach(at(&back.json())).await;
    assert_eq!(price().await, yuan(1_999));
    let then = stage.seen(at(&set.json())).await;
    let shown = &then["prices"][0];
    assert_eq!(
        (&shown["price_then"], &shown["price"]),
        (&yuan(1_500), &yuan(1_999))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_leave_as_a_cue_at_the_same_time() {
    let stage = Stage::live().await;
    let entry = stage.shelve(&stage.thing("Mug", 100).await).await;
    let mut cues = cues(&stage);
    stage.pin(&entry).await;
    let custom = json!({ "action": "custom", "data": { "a": "b c", "n": 1.5 } });
    assert_eq!(stage.card(&custom).await.status, 201);
    let clock = stage.server.get(&stage.path("/clock")).await.json();
    let offset_us = clock["offset_us"].as_i64().unwrap();
    for (seq, envelope) in (1..).zip(stage.envelopes().await) {
        let CueNews::Opened(cue) = cues.next().await.unwrap() else {
            panic!("nothing was closed");
        };
        assert_eq!(
            (cue.id.as_str(), cue.class.as_str()),
            (&*format!("card-{seq}"), "card")
        );
        assert_eq!(cue.payload, envelope.as_bytes());
        let event: Value = serde_json::from_str(&envelope).unwrap();
        assert_eq!(cue.t.as_micros() + offset_us, at(&event));
        let kind = if seq == 1 {
            CueKind::Listed
        } else {
            CueKind::Passing
        };
        assert_eq!(cue.kind, kind);
    }
    let listed = stage.server.get(&stage.path("/cards/events")).await;
    let bytes = format!("[{}]", stage.envelopes().await.join(","));
    assert!(listed.text.contains(&bytes), "{}", listed.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_cue_is_closed_by_the_card_that_takes_its_place() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let (a, b) = (stage.shelve(&thing).await, stage.shelve(&thing).await);
    let mut cues = cues(&stage);
    stage.pin(&a).await;
    let second = stage.pin(&b).await;
    for name in ["card-1", "card-2"] {
        let opened = cues.next().await.unwrap();
        assert!(matches!(opened, CueNews::Opened(cue) if cue.id == name));
    }
    let CueNews::Closed { cue, t } = cues.next().await.unwrap() else {
        panic!("the first is closed");
    };
    assert_eq!((cue.id.as_str(), t.as_micros()), ("card-1", at(&second)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_is_given_what_is_open_and_what_is_ahead() {
    let mut stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let (a, b) = (stage.shelve(&thing).await, stage.shelve(&thing).await);
    let pinned = at(&stage.pin(&a).await);
    stage.reach(pinned).await;
    let explain = json!({ "action": "explain_start", "entry_id": a });
    stage.card(&explain).await;
    let ended = stage.card(&json!({ "action": "explain_end" })).await;
    let ahead = pinned + 40_000_000;
    let ahead_of = json!({ "action": "pin", "entry_id": b, "at_us": ahead });
    assert_eq!(stage.card(&ahead_of).await.status, 201);
    stage.reach(at(&ended.json())).await;
    let before = stage.server.get(&stage.path("/clock")).await.json();

    stage.publisher().finish(EndReason::Finished);
    stage.send().await;
    let adopted = async {
        loop {
            let clock = stage.server.get(&stage.path("/clock")).await.json();
            let is_placed =
                clock["instance"].is_string() && clock["instance"] != before["instance"];
            if is_placed {
                return clock;
            }
        }
    };
    let clock = tokio::time::timeout(std::time::Duration::from_secs(5), adopted).await;
    let clock = clock.unwrap();
    let time = |clock: &Value| clock["room_now_us"].as_i64().unwrap();
    assert!(time(&clock) >= time(&before), "room time never runs back");
    let offset_us = clock["offset_us"].as_i64().unwrap();
    assert!(offset_us > 0);
    let envelopes = stage.envelopes().await;
    let mut cues = cues(&stage);
    let mut given = Vec::new();
    while given.len() < 2 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(5), cues.next());
        if let CueNews::Opened(cue) = next.await.unwrap().unwrap() {
            let seq: usize = cue.id.strip_prefix("card-").unwrap().parse().unwrap();
            assert_eq!(cue.payload, envelopes[seq - 1].as_bytes());
            given.push((cue.id.clone(), cue.t.as_micros()));
        }
    }
    given.sort();
    let expected = [
        ("card-1".to_owned(), 0),
        ("card-4".to_owned(), ahead - offset_us),
    ];
    assert_eq!(given, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_show_closes_its_cards_and_nothing_is_written_after_it() {
    let stage = Stage::live().await;
    let entry = stage.shelve(&stage.thing("Mug", 100).await).await;
    let pinned = at(&stage.pin(&entry).await);
    stage
        .card(&json!({ "action": "explain_start", "entry_id": entry }))
        .await;
    stage.reach(pinned + 400_000).await;
    let ended = stage.server.post(&stage.path("/end"), &json!({})).await;
    assert_eq!(ended.json()["state"], "ended", "{}", ended.text);
    let now = stage.server.get(&stage.path("/cards")).await.json();
    assert_eq!(
        (&now["pinned"], &now["explained"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(now["seq"], 4);
    assert_eq!(stage.seen(pinned).await["pinned"]["entry"], json!(entry));
    let sql = "SELECT COUNT(*) FROM card_checkpoints";
    assert_eq!(stage.server.count(sql).await, 1);
    let over = stage.card(&json!({ "action": "unpin" })).await;
    assert_eq!((over.status, over.code().as_str()), (409, "room_ended"));
    let beyond = stage.path(&format!("/cards?at_us={}", at(&now) + 1));
    assert_eq!(stage.server.get(&beyond).await.code(), "at_out_of_range");
    let events = stage
        .server
        .get(&stage.path("/cards/events?after_seq=2"))
        .await;
    assert_eq!(events.json()["data"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_need_a_show_and_the_permission() {
    let stage = Stage::new().await;
    let body = json!({ "action": "unpin" });
    let early = stage.card(&body).await;
    assert_eq!(
        (early.status, early.code().as_str()),
        (409, "room_not_live")
    );
    let server = &stage.server;
    let request = server.client.post(server.url(&stage.path("/cards")));
    let nobody = Answer::of(request.json(&body).send().await.unwrap()).await;
    assert_eq!(nobody.code(), "unauthenticated");
    let clock = server.get(&stage.path("/clock")).await.json();
    assert_eq!(
        (&clock["state"], &clock["room_now_us"]),
        (&json!("scheduled"), &json!(0))
    );
    assert_eq!(clock["instance"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rehearsed_is_forgotten_at_the_start() {
    let stage = Stage::new().await;
    let server = &stage.server;
    let body = json!({ "creator_id": stage.creator, "title": "Rehearsed" });
    let room = server.post("/api/v1/rooms", &body).await.json()["id"].clone();
    let path = |rest: &str| format!("/api/v1/rooms/{}{rest}", room.as_str().unwrap());
    let _publisher = server.send_silence(room.as_str().unwrap());
    server.reaches(room.as_str().unwrap(), "rehearsal").await;
    let thing = stage.thing("Mug", 100).await;
    let shelve = json!({
        "product_id": thing.product,
        "commission": { "creator_bps": 0, "affiliate_bps": 0 },
    });
    let entry = server.post(&path("/shelf"), &shelve).await.json()["id"].clone();
    let pin = json!({ "action": "pin", "entry_id": entry });
    let pinned = server.post(&path("/cards"), &pin).await;
    assert_eq!((pinned.status, &pinned.json()["seq"]), (201, &json!(1)));
    let at_us = at(&pinned.json());
    let seen = path(&format!("/cards?at_us={at_us}"));
    assert_eq!(server.get(&seen).await.json()["pinned"], Value::Null);
    let inside = server.get_as_operator(&seen).await.json();
    assert_eq!(inside["pinned"]["entry"], entry);
    assert_eq!(server.count("SELECT COUNT(*) FROM card_events").await, 0);

    assert_eq!(server.post(&path("/start"), &json!({})).await.status, 200);
    let inside = server.get_as_operator(&seen).await.json();
    assert_eq!(
        (&inside["pinned"], &inside["seq"]),
        (&Value::Null, &json!(0))
    );
    let first = server.post(&path("/cards"), &pin).await;
    assert_eq!(first.json()["seq"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_not_sent_twice_to_who_has_it() {
    let stage = Stage::live().await;
    let entry = stage.shelve(&stage.thing("Mug", 100).await).await;
    let at_us = at(&stage.pin(&entry).await);
    stage.reach(at_us).await;
    let path = stage.path("/cards");
    let tag = stage.server.get(&path).await.header("etag");
    let request = stage.server.client.get(stage.server.url(&path));
    let known = request.header("If-None-Match", &tag).send().await.unwrap();
    assert_eq!(known.status(), 304, "time alone is no change");
    let unpin = stage.card(&json!({ "action": "unpin" })).await;
    stage.reach(at(&unpin.json())).await;
    assert_ne!(stage.server.get(&path).await.header("etag"), tag);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_changed_by_who_read_it_last() {
    let stage = Stage::new().await;
    let change = json!({ "title": "Pans", "card_lead_ms": 500, "starts_at": null });
    let path = stage.path("");
    let changed = stage.change(&path, "\"1\"", &change).await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    assert_eq!(
        (&changed.json()["title"], &changed.json()["card_lead_ms"]),
        (&json!("Pans"), &json!(500))
    );
    assert_eq!(changed.header("etag"), "\"2\"");
    let stale = stage.change(&path, "\"1\"", &change).await;
    assert_eq!(stale.code(), "stale");
    let cases = [
        (json!({ "card_lead_ms": 99 }), "out_of_bounds"),
        (json!({ "title": "" }), "out_of_bounds"),
        (json!({ "starts_at": "soon" }), "malformed"),
        (json!({ "state": "live" }), "unknown_field"),
    ];
    for (body, code) in cases {
        assert_eq!(stage.change(&path, "*", &body).await.code(), code, "{body}");
    }
    let nowhere = "/api/v1/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64";
    assert_eq!(
        stage.change(nowhere, "*", &json!({})).await.code(),
        "not_found"
    );
    let off = stage.server.post(&stage.path("/cancel"), &json!({})).await;
    assert_eq!(off.status, 200, "{}", off.text);
    let late = stage.change(&path, "*", &json!({ "title": "x" })).await;
    assert_eq!(late.code(), "invalid_state");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_out_and_what_comes_back_is_said_once_each() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let entry = stage.shelve(&thing).await;
    let path = format!("/api/v1/variants/{}/stock/adjustments", thing.variant);
    let adjust = async |key: &str, delta: i64| {
        let body = json!({ "delta": delta, "reason": "correct" });
        let adjusted = stage.server.post_once(key, &path, &body).await;
        assert_eq!(adjusted.status, 201, "{}", adjusted.text);
    };
    let said = async |count: usize| {
        let said = async {
            loop {
                let envelopes = stage.envelopes().await;
                if envelopes.len() == count {
                    return serde_json::from_str::<Value>(&envelopes[count - 1]).unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        let said = tokio::time::timeout(std::time::Duration::from_secs(5), said).await;
        said.expect("a card says it")
    };
    adjust("a", -5).await;
    let out = said(1).await;
    assert_eq!(
        (&out["action"], &out["entry"]),
        (&json!("sold_out"), &json!(entry))
    );
    assert_eq!(out["data"], json!({ "variant": thing.variant }));
    let seen = stage.seen(at(&out)).await;
    assert_eq!(seen["sold_out"], json!([{ "variant": thing.variant }]));
    assert_eq!(stage.shelf().await[0]["sold_out"], true);
    adjust("b", 2).await;
    assert_eq!(said(2).await["action"], "restock");
    adjust("c", 2).await;
    adjust("d", -4).await;
    assert_eq!(said(3).await["action"], "sold_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_says_what_it_costs_in_a_room_and_why() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 1_999).await;
    stage.shelve(&thing).await;
    let data = json!({ "variant": thing.variant, "amount": 1_500 });
    let set = stage
        .card(&json!({ "action": "price", "data": data }))
        .await;
    stage.reach(at(&set.json())).await;
    let path = format!("/api/v1/variants/{}/price", thing.variant);
    let outside = stage.server.get(&path).await.json();
    assert_eq!(
        (&outside["price"], &outside["kind"]),
        (&yuan(1_999), &json!("list"))
    );
    let inside = format!("{path}?room_id={}", stage.room);
    let inside = stage.server.get(&inside).await.json();
    assert_eq!(
        (&inside["price"], &inside["kind"]),
        (&yuan(1_500), &json!("room"))
    );
    assert!(inside["offer"].as_str().unwrap().starts_with("ofr1."));
    let why = inside["explain"].as_array().unwrap().iter();
    let why: Vec<_> = why.map(|it| [&it["kind"], &it["reason"]]).collect();
    let expected = json!([["room", "strongest_in_force"], ["list", "below_room_price"]]);
    assert_eq!(json!(why), expected);
    let nowhere = format!("{path}?room_id=room_01M86VRGYAE3AR7SWFHPWY1Y64");
    assert_eq!(stage.server.get(&nowhere).await.code(), "not_found");
    let unknown = "/api/v1/variants/var_01M86VRGYAE3AR7SWFHPWY1Y64/price";
    assert_eq!(stage.server.get(unknown).await.code(), "not_found");
}
