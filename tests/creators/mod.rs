//! Creators over HTTP.

mod operators;

use serde_json::json;

use crate::support::{TestServer, redacted};

const PATH: &str = "/api/v1/creators";

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_is_made_and_shown() {
    let server = TestServer::start().await;
    let body = json!({ "kind": "person", "handle": "Anna", "name": "Anna", "bio": "Hi" });
    let made = server.post(PATH, &body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    insta::assert_json_snapshot!(redacted(made.json()));
    let id = made.json()["id"].as_str().unwrap().to_owned();
    for name in [id.as_str(), "anna"] {
        let shown = server.get(&format!("{PATH}/{name}")).await;
        assert_eq!((shown.status, shown.json()), (200, made.json()));
    }
    assert_eq!(
        server
            .count("SELECT COUNT(*) FROM audit_log WHERE route = 'POST /api/v1/creators'")
            .await,
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_wish_twice_makes_one_creator() {
    let server = TestServer::start().await;
    let body = json!({ "kind": "person", "handle": "anna", "name": "Anna" });
    let (one, other) = tokio::join!(
        server.post_once("k", PATH, &body),
        server.post_once("k", PATH, &body)
    );
    assert_eq!((one.status, other.status), (201, 201));
    assert_eq!(one.text, other.text);
    let replays = [&one, &other].map(|a| a.header("idempotency-replayed"));
    assert_eq!(replays.iter().filter(|r| *r == "true").count(), 1);
    let again = server.post(PATH, &body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "handle_taken"));
    assert_eq!(server.count("SELECT COUNT(*) FROM creators").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_replayed_too() {
    let server = TestServer::start().await;
    server.creator("anna").await;
    let body = json!({ "kind": "person", "handle": "anna", "name": "Anna" });
    let first = server.post_once("k", PATH, &body).await;
    let again = server.post_once("k", PATH, &body).await;
    assert_eq!((first.status, again.status), (409, 409));
    assert_eq!(first.text, again.text);
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.code(), "handle_taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_creator_is_not_found() {
    let server = TestServer::start().await;
    for name in ["nobody", "cre_01M86VRGYAE3AR7SWFHF7J4WXW"] {
        let answer = server.get(&format!("{PATH}/{name}")).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_wishes_are_refused_by_name() {
    let server = TestServer::start().await;
    let long = "x".repeat(41);
    let good = json!({ "kind": "person", "handle": "anna", "name": "Anna" });
    let cases = [
        ("handle", json!("a"), 422, "handle_invalid"),
        ("handle", json!("admin"), 422, "handle_reserved"),
        ("name", json!(""), 422, "out_of_bounds"),
        ("name", json!(long), 422, "out_of_bounds"),
        ("name", json!(5), 400, "malformed"),
        ("kind", json!("robot"), 400, "malformed"),
        ("colour", json!("red"), 400, "unknown_field"),
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
    assert_eq!(server.count("SELECT COUNT(*) FROM creators").await, 0);
}
