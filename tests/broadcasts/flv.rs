//! HTTP-FLV: every status and header of media.md 7, and the session over the API.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::support::show::Show;
use crate::support::{Answer, TestServer};

const UNKNOWN: &str = "room_01M86VRGYAE3AR7SWFHPWY1Y64";
const WITHIN: Duration = Duration::from_secs(10);

async fn on_air(server: &TestServer) -> (String, Show) {
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(server, &room);
    show.run_to(90);
    (room, show)
}

async fn open(server: &TestServer, path: &str) -> reqwest::Response {
    server.client.get(server.url(path)).send().await.unwrap()
}

/// Reads until so many bytes came.
async fn read(response: &mut reqwest::Response, bytes: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < bytes {
        let chunk = timeout(WITHIN, response.chunk()).await.unwrap().unwrap();
        got.extend_from_slice(&chunk.expect("the stream goes on"));
    }
    got
}

async fn as_operator(server: &TestServer, path: &str) -> Answer {
    let request = server.client.get(server.url(path)).bearer_auth(&server.key);
    Answer::of(request.send().await.unwrap()).await
}

async fn viewers(server: &TestServer, room: &str) -> Value {
    let path = format!("/api/v1/media/broadcasts/{room}");
    as_operator(server, &path).await.json()["viewers"]["flv"]["now"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_is_streamed_to_counted_shown_and_kicked() {
    let server = TestServer::start().await;
    let (room, _show) = on_air(&server).await;
    let mut stream = open(&server, &format!("/flv/{room}.flv")).await;
    assert_eq!(stream.status(), 200);
    let said = |name: &str| stream.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(said("content-type"), "video/x-flv");
    assert_eq!(said("cache-control"), "no-store");
    assert_eq!(said("x-accel-buffering"), "no");
    assert_eq!(said("access-control-allow-origin"), "*");
    assert_eq!(said("transfer-encoding"), "chunked");
    let session = format!("/api/v1/media/sessions/{}", said("lamplight-session"));
    let begun = read(&mut stream, 500).await;
    assert_eq!(begun[..9], *b"FLV\x01\x05\0\0\0\x09");
    assert_eq!(viewers(&server, &room).await, 1);
    let shown = as_operator(&server, &session).await.json();
    assert_eq!(
        (&shown["protocol"], &shown["room"]),
        (&"flv".into(), &room.clone().into())
    );
    assert_eq!(shown["viewer"]["rendition"], "src");
    assert!(shown["viewer"]["frames"].as_u64().unwrap() > 0, "{shown}");
    assert_eq!(server.delete(&session).await.status, 204);
    let ended = async { while let Ok(Some(_)) = stream.chunk().await {} };
    timeout(WITHIN, ended).await.expect("the stream ends");
    let left = async {
        while viewers(&server, &room).await != 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(WITHIN, left).await.expect("it counts no more");
    assert_eq!(as_operator(&server, &session).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_refused_by_name() {
    let server = TestServer::start().await;
    let creator = server.creator("bert").await;
    let quiet = server.room(&creator).await;
    let (room, _show) = on_air(&server).await;
    let rows = [
        (format!("{UNKNOWN}.flv"), 404, "not_found"),
        (room.clone(), 404, "not_found"),
        (format!("{quiet}.flv"), 404, "not_live"),
        (format!("{room}.flv?rendition=v1080"), 422, "unservable"),
        (format!("{room}.flv?rendition=big"), 422, "unservable"),
        (format!("{room}.flv?audio=mp3"), 422, "unservable"),
    ];
    for (file, status, code) in rows {
        let answer = server.get(&format!("/flv/{file}")).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{file}"
        );
        if code == "not_live" {
            assert_eq!(answer.header("retry-after"), "2");
        }
    }
    let mut tx = server.app().db.begin().await.unwrap();
    let sql = "UPDATE room_access SET watch = 'token' WHERE room_id = $1";
    let query = sqlx::query(sql).bind(quiet.clone());
    query.execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let private = server.room(&creator).await;
    let mut tx = server.app().db.begin().await.unwrap();
    let query = sqlx::query(sql).bind(private.clone());
    query.execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let answer = server.get(&format!("/flv/{private}.flv")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (401, "unauthenticated")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_takes_nobody_more_and_head_takes_no_place() {
    let server = TestServer::start_with(&["limits.room_viewers_max=1"]).await;
    let (room, _show) = on_air(&server).await;
    let path = format!("/flv/{room}.flv");
    for _ in 0..3 {
        let head = server.client.head(server.url(&path)).send().await.unwrap();
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()["content-type"], "video/x-flv");
        assert!(!head.headers().contains_key("content-length"));
    }
    let mut stream = open(&server, &path).await;
    read(&mut stream, 100).await;
    let full = server.get(&path).await;
    assert_eq!((full.status, full.code().as_str()), (503, "busy"));
    assert!(!full.header("retry-after").is_empty());
}
