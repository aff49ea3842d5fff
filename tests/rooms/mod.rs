//! Rooms and their keys over HTTP.

mod buying;
mod cards;
mod replay;
mod shelf;
mod stage;
mod stream;

use serde_json::{Value, json};
use sqlx::Row;

use crate::support::{Answer, TestServer, redacted};

const PATH: &str = "/api/v1/rooms";
const UNKNOWN: &str = "/api/v1/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64";

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_made_and_shown_to_everyone() {
    let server = TestServer::start().await;
    let creator = server.creator("anna").await;
    let body = json!({
        "creator_id": creator,
        "title": " Mugs, live ",
        "starts_at": "2026-10-01T12:00:00+02:00",
        "auto_start": true,
        "interrupt_grace_s": 60,
    });
    let made = server.post(PATH, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    insta::assert_json_snapshot!(redacted(made.json()));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let shown = server.get(&format!("{PATH}/{id}")).await;
    assert_eq!((shown.status, shown.json()), (200, made.json()));

    let tag = shown.header("etag");
    assert_eq!(tag, "\"1\"");
    let request = server.client.get(server.url(&format!("{PATH}/{id}")));
    let known = request.header("If-None-Match", tag).send().await.unwrap();
    assert_eq!(Answer::of(known).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_wish_twice_makes_one_room() {
    let server = TestServer::start().await;
    let body = json!({ "creator_id": server.creator("anna").await, "title": "A" });
    let first = server.post_once("k", PATH, &body).await;
    let again = server.post_once("k", PATH, &body).await;
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.text, again.text);
    let other = json!({ "creator_id": body["creator_id"], "title": "B" });
    let other = server.post_once("k", PATH, &other).await;
    assert_eq!(other.code(), "idempotency_key_reused");
    assert_eq!(server.count("SELECT COUNT(*) FROM rooms").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_room_and_another_form_of_id_are_the_same_404() {
    let server = TestServer::start().await;
    let mut answers = Vec::new();
    for id in ["room_01M86VRGYAE3AR7SWFHPWY1Y64", "room_x", "cre_1", "%20"] {
        let answer = server.get(&format!("{PATH}/{id}")).await;
        let mut body = answer.json();
        body["instance"] = Value::Null;
        body["request_id"] = Value::Null;
        answers.push((answer.status, body));
    }
    assert_eq!(answers[0].0, 404);
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_wishes_are_refused_by_name() {
    let server = TestServer::start().await;
    let good = json!({ "creator_id": server.creator("anna").await, "title": "A" });
    let cases = [
        (
            "creator_id",
            json!("cre_01M86VRGYAE3AR7SWFHF7J4WXW"),
            422,
            "out_of_bounds",
        ),
        ("creator_id", json!("me"), 422, "out_of_bounds"),
        ("title", json!(" "), 422, "out_of_bounds"),
        ("title", json!("x".repeat(81)), 422, "out_of_bounds"),
        ("title", json!("a\u{0}b"), 422, "out_of_bounds"),
        ("starts_at", json!("soon"), 400, "malformed"),
        (
            "starts_at",
            json!("2099-01-01T00:00:00Z"),
            422,
            "out_of_bounds",
        ),
        ("interrupt_grace_s", json!(0), 422, "out_of_bounds"),
        ("card_lead_ms", json!(1e30), 400, "malformed"),
        ("auto_start", json!("yes"), 400, "malformed"),
        ("colour", json!(1), 400, "unknown_field"),
    ];
    for (field, value, status, code) in cases {
        let mut body = good.clone();
        body[field] = value;
        let answer = server.post(PATH, &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{body}"
        );
    }
    assert_eq!(server.count("SELECT COUNT(*) FROM rooms").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_the_list_sees_every_room_once() {
    let server = TestServer::start().await;
    let creator = server.creator("anna").await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(server.room(&creator).await);
    }
    made.reverse();
    let mut seen: Vec<String> = Vec::new();
    let mut path = format!("{PATH}?limit=2");
    loop {
        let page = server.get(&path).await.json();
        let ids = page["data"].as_array().unwrap().iter();
        seen.extend(ids.map(|room| room["id"].as_str().unwrap().into()));
        let Some(next) = page["page"]["next"].as_str() else {
            break;
        };
        path = format!("{PATH}?limit=2&after={next}");
    }
    assert_eq!(seen, made);
    let none = server.get(&format!("{PATH}?status[in]=live,ended")).await;
    insta::assert_json_snapshot!(none.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_says_what_it_cannot_read() {
    let server = TestServer::start().await;
    let creator = server.creator("anna").await;
    server.room(&creator).await;
    server.room(&creator).await;
    let page = server.get(&format!("{PATH}?limit=1")).await.json();
    let next = page["page"]["next"].as_str().unwrap();
    let cases = [
        ("limit=0".into(), "out_of_bounds"),
        ("limit=many".into(), "malformed"),
        ("colour=red".into(), "unknown_filter"),
        ("status[in]=loud".into(), "malformed"),
        ("created_at[lt]=soon".into(), "malformed"),
        ("creator_id=me".into(), "malformed"),
        ("after=rubbish".into(), "bad_cursor"),
        (format!("creator_id={creator}&after={next}"), "bad_cursor"),
    ];
    for (query, code) in cases {
        let answer = server.get(&format!("{PATH}?{query}")).await;
        assert_eq!(answer.code(), code, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_key_is_shown_once_and_stored_as_a_hash() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let keys = format!("{PATH}/{room}/publish_keys");
    let made = server.post_once("k", &keys, &json!({})).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let body = made.json();
    let key = body["key"].as_str().unwrap();
    assert_eq!(key.len(), "live_".len() + 43);
    let port = server.running().bound().rtmp.port();
    assert_eq!(body["rtmp_url"], format!("rtmp://127.0.0.1:{port}/live"));
    let again = server.post_once("k", &keys, &json!({})).await;
    assert_eq!(again.text, made.text, "a repeat shows the same key");

    for sql in [
        "SELECT secret_hash FROM publish_keys",
        "SELECT body FROM idempotency_keys",
        "SELECT diff FROM audit_log",
        "SELECT body FROM event_log",
    ] {
        let rows = sqlx::query(sql).fetch_all(server.app().db.readers()).await;
        for row in rows.unwrap() {
            let text: String = row.get(0);
            assert!(!text.contains(key), "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_beside_a_key_are_those_of_this_server_over_http_2_too() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let url = server.url(&format!("{PATH}/{room}/publish_keys"));
    let request = client.build().unwrap().post(url).bearer_auth(&server.key);
    let made = Answer::of(request.json(&json!({})).send().await.unwrap()).await;
    let bound = server.running().bound();
    let body = made.json();
    assert_eq!(body["whip_url"], format!("http://{}/whip", bound.http));
    assert_eq!(body["rtmp_url"], format!("rtmp://{}/live", bound.rtmp));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_are_valid_and_a_deleted_one_is_gone() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let keys = format!("{PATH}/{room}/publish_keys");
    let first = server.post(&keys, &json!({})).await.json();
    assert_eq!(server.post(&keys, &json!({})).await.status, 201);
    assert_eq!(server.post(&keys, &json!({})).await.code(), "limit_reached");
    let one = format!("{keys}/{}", first["key_id"].as_str().unwrap());
    assert_eq!(server.delete(&one).await.status, 204);
    assert_eq!(server.delete(&one).await.code(), "not_found");
    assert_eq!(server.post(&keys, &json!({})).await.status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_an_unknown_room_are_not_found() {
    let server = TestServer::start().await;
    let keys = format!("{UNKNOWN}/publish_keys");
    assert_eq!(server.post(&keys, &json!({})).await.code(), "not_found");
    let key = format!("{keys}/key_01M86VRGYAE3AR7SWFHPWY1Y64");
    assert_eq!(server.delete(&key).await.code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_called_off_once_and_takes_no_key_then() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let path = |verb| format!("{PATH}/{room}/{verb}");
    let nothing = json!({});
    assert_eq!(
        server.post(&path("start"), &nothing).await.code(),
        "invalid_state"
    );
    assert_eq!(
        server.post(&path("end"), &nothing).await.code(),
        "invalid_state"
    );
    let first = server.post_once("k", &path("cancel"), &nothing).await;
    assert_eq!(
        (first.status, &first.json()["state"]),
        (200, &json!("cancelled"))
    );
    let again = server.post_once("k", &path("cancel"), &nothing).await;
    assert_eq!(again.text, first.text);
    assert_eq!(
        server.post(&path("cancel"), &nothing).await.code(),
        "invalid_state"
    );
    assert_eq!(
        server.post(&path("publish_keys"), &nothing).await.code(),
        "room_ended"
    );
    let unknown = server.post(&format!("{UNKNOWN}/cancel"), &nothing).await;
    assert_eq!(unknown.code(), "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_is_started_and_ended_by_hand() {
    let server = TestServer::start().await;
    let body = json!({ "creator_id": server.creator("anna").await, "title": "A" });
    let room = server.post(PATH, &body).await.json()["id"].clone();
    let room = room.as_str().unwrap();
    let path = |verb| format!("{PATH}/{room}/{verb}");
    let publisher = server.send_silence(room);
    server.reaches(room, "rehearsal").await;
    let live = server.post(&path("start"), &json!({})).await;
    assert_eq!(live.json()["state"], "live", "{}", live.text);
    assert_eq!(live.json()["live_at"], "2026-09-21T14:13:20.000Z");
    let over = server.post(&path("end"), &json!({})).await;
    assert_eq!(over.json()["state"], "ended", "{}", over.text);
    assert_eq!(publisher.ended().await.reason(), "ended_by_server");
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_need_a_valid_key_and_reads_need_none() {
    let server = TestServer::start().await;
    for header in [
        "",
        "Bearer sk_wrong",
        "Bearer",
        "Basic sk_wrong",
        "Bearer live_x",
    ] {
        let request = server.client.post(server.url(PATH)).json(&json!({}));
        let sent = request
            .header("Authorization", header)
            .send()
            .await
            .unwrap();
        let answer = Answer::of(sent).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (401, "unauthenticated")
        );
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_eq!(server.get(PATH).await.status, 200);
}
