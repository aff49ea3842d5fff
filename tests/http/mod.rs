//! The wire: problems, health, pages, the document, both versions of HTTP.

mod tls;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, TestServer, redacted};

const ROOMS: &str = "/api/v1/rooms";

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_says_everything_rfc_9457_and_we_promise() {
    let server = TestServer::start().await;
    let body = json!({ "creator_id": "x", "title": "" });
    let answer = server.post(ROOMS, &body).await;
    assert_eq!(answer.json()["request_id"], answer.header("x-request-id"));
    insta::assert_json_snapshot!(redacted(answer.json()));
    let missing = server.get("/api/v1/nothing").await;
    insta::assert_json_snapshot!(redacted(missing.json()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_will_not_do_is_refused_before_it_is_read_as_a_wish() {
    let server = TestServer::start().await;
    let post = async |kind: &'static str, body: Vec<u8>| {
        let request = server
            .client
            .post(server.url(ROOMS))
            .bearer_auth(&server.key);
        let sent = request.header("Content-Type", kind).body(body).send();
        let answer = Answer::of(sent.await.unwrap()).await;
        (answer.status, answer.code())
    };
    let refused = |status, code: &str| (status, code.to_owned());
    let deep = b"[".repeat(100_000);
    let cases: [(&str, Vec<u8>, _); 6] = [
        (
            "application/json",
            vec![b' '; 300_000],
            refused(413, "too_large"),
        ),
        (
            "text/plain",
            b"{}".to_vec(),
            refused(415, "unsupported_media_type"),
        ),
        ("application/json", b"{".to_vec(), refused(400, "malformed")),
        (
            "application/json",
            b"\xff\xfe".to_vec(),
            refused(400, "malformed"),
        ),
        (
            "application/json",
            b"[]".to_vec(),
            refused(400, "malformed"),
        ),
        ("application/json", deep, refused(400, "malformed")),
    ];
    for (kind, body, expected) in cases {
        assert_eq!(post(kind, body).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_idempotency_key_is_refused() {
    let server = TestServer::start().await;
    for key in ["", &"x".repeat(256), "caf\u{e9}"] {
        let answer = server.post_once(key, ROOMS, &json!({})).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed"),
            "{key}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_is_told_which_ones_there_are() {
    let server = TestServer::start().await;
    let answer = server.delete(ROOMS).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (405, "method_not_allowed")
    );
    assert_eq!(answer.header("allow"), "GET,HEAD,POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_answer_and_metrics_stay_on_the_admin_port() {
    let server = TestServer::start().await;
    assert_eq!(
        server.get("/healthz").await.json(),
        json!({ "status": "ok" })
    );
    assert_eq!(
        server.get("/readyz").await.json(),
        json!({ "status": "ready" })
    );
    assert_eq!(server.get("/metrics").await.status, 404);
    let admin = server.running().bound().admin;
    let metrics = reqwest::get(format!("http://{admin}/metrics"))
        .await
        .unwrap();
    let text = Answer::of(metrics).await.text;
    assert!(
        text.contains("lamplight_http_requests_total{status=\"2xx\"}"),
        "{text}"
    );
    assert!(
        text.contains("lamplight_media_broadcasts{state=\"live\"} 0"),
        "{text}"
    );
    let api = reqwest::get(format!("http://{admin}{ROOMS}"))
        .await
        .unwrap();
    assert_eq!(api.status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_speaks_both_versions_of_http() {
    let server = TestServer::start().await;
    let client = reqwest::Client::builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let answer = client.get(server.url("/healthz")).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    let answer = server
        .client
        .get(server.url("/healthz"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_headers_are_refused_and_the_connection_closed() {
    let server = TestServer::start().await;
    let mut stream = TcpStream::connect(server.running().bound().http)
        .await
        .unwrap();
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "y".repeat(20_000)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = Vec::new();
    let read = stream.read_to_end(&mut said);
    drop(
        tokio::time::timeout(Duration::from_secs(5), read)
            .await
            .unwrap(),
    );
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("HTTP/1.1 431"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_headers_over_http_2_are_refused_on_their_stream() {
    let server = TestServer::start().await;
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let client = client.build().unwrap();
    let request = client.get(server.url("/healthz"));
    let sent = request.header("X", "y".repeat(20_000)).send().await;
    assert_eq!(sent.unwrap().status(), 431);
    let after = client.get(server.url("/healthz")).send().await.unwrap();
    assert_eq!(after.status(), 200, "the connection goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_of_another_origin_may_ask() {
    let server = TestServer::start().await;
    let preflight = server
        .client
        .request(reqwest::Method::OPTIONS, server.url(ROOMS))
        .header("Origin", "https://shop.example")
        .header("Access-Control-Request-Method", "POST")
        .send()
        .await
        .unwrap();
    let preflight = Answer::of(preflight).await;
    assert_eq!(preflight.status, 200);
    assert_eq!(preflight.header("access-control-allow-origin"), "*");
    assert!(
        preflight
            .header("access-control-allow-headers")
            .contains("Authorization")
    );
    let answer = server.get(ROOMS).await;
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("Location")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_echoed_and_an_odd_one_replaced() {
    let server = TestServer::start().await;
    for (given, is_kept) in [("abc-1", true), ("a b", false)] {
        let request = server.client.get(server.url("/healthz"));
        let sent = request.header("X-Request-Id", given).send().await.unwrap();
        let id = Answer::of(sent).await.header("x-request-id");
        assert_eq!(id == given, is_kept, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_where_the_page_lives_and_nowhere_else() {
    let server = TestServer::start().await;
    for path in ["/", "/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64"] {
        let page = server.get(path).await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").starts_with("text/html"));
        assert_eq!(page.header("cache-control"), "no-cache");
    }
    for path in [
        "/nothing.js",
        "/assets/../../Cargo.toml",
        "/..%2f..%2fCargo.toml",
    ] {
        assert_eq!(server.get(path).await.code(), "not_found", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_served_document_is_the_one_in_docs() {
    let server = TestServer::start().await;
    let served = server.get("/api/v1/openapi.json").await.json();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(
        served == kept,
        "run `cargo xtask openapi` and read the difference"
    );
    assert_eq!(served["openapi"], "3.1.0");
}
