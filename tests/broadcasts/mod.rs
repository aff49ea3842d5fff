//! Cues over HTTP.

mod clip;
mod dvr;
mod flv;
mod hls;
mod playback;
mod replay;
mod rtmp_play;
mod rtmps;
mod running;
mod thumb;
mod whep;
mod whip;

use serde_json::{Value, json};

use crate::support::show::Show;
use crate::support::{Answer, TestServer};

fn cues_of(room: &str) -> String {
    format!("/api/v1/media/broadcasts/{room}/cues")
}

fn cue() -> Value {
    json!({ "class": "note", "kind": "listed", "data": "hello", "id": "n1", "t_us": 1_000_000 })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cue_is_put_once_and_ended_once() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _publisher = server.publish(&room);
    let path = cues_of(&room);
    let put = server.post(&path, &cue()).await;
    assert_eq!(put.status, 201, "{}", put.text);
    assert_eq!(put.json(), json!({ "id": "n1", "t_us": 1_000_000 }));
    assert_eq!(server.post(&path, &cue()).await.code(), "id_used");

    let one = format!("{path}/n1");
    let ended = server.delete(&one).await;
    assert_eq!(
        (ended.status, ended.json()),
        (200, json!({ "t_us": 1_000_000 }))
    );
    assert_eq!(server.delete(&one).await.code(), "not_found");
    let sql = "SELECT COUNT(*) FROM audit_log WHERE diff LIKE '%cue%'";
    assert_eq!(server.count(sql).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_key_puts_no_second_cue() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _publisher = server.publish(&room);
    let body = json!({ "class": "note", "kind": "passing", "data": "x", "t_us": 0 });
    let first = server.post_once("k", &cues_of(&room), &body).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let again = server.post_once("k", &cues_of(&room), &body).await;
    assert_eq!((again.status, again.code().as_str()), (409, "id_used"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cue_for_the_next_frame_takes_the_running_time_when_none_comes() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _publisher = server.publish(&room);
    let body = json!({ "class": "note", "kind": "passing", "data": "" });
    let put = server.post(&cues_of(&room), &body).await;
    assert_eq!(put.status, 201, "{}", put.text);
    assert!(put.json()["t_us"].as_i64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cue_needs_a_known_live_room_and_a_key() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let waiting = server.post(&cues_of(&room), &cue()).await;
    assert_eq!((waiting.status, waiting.code().as_str()), (409, "not_live"));
    assert_eq!(waiting.header("retry-after"), "1");
    let unknown = cues_of("room_01M86VRGYAE3AR7SWFHPWY1Y64");
    assert_eq!(server.post(&unknown, &cue()).await.code(), "not_found");
    assert_eq!(
        server.delete(&format!("{unknown}/x")).await.code(),
        "not_found"
    );
    let request = server.client.post(server.url(&cues_of(&room))).json(&cue());
    let stranger = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(
        (stranger.status, stranger.code().as_str()),
        (401, "unauthenticated")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cue_beyond_a_bound_is_refused_by_name() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _publisher = server.publish(&room);
    let cases = [
        ("data", json!("x".repeat(1_025)), 422, "cue_too_large"),
        ("t_us", json!(3_600_000_000_i64), 422, "at_out_of_range"),
        ("t_us", json!(-1), 422, "at_out_of_range"),
        ("class", json!(""), 422, "out_of_bounds"),
        ("class", json!("a\"b"), 422, "out_of_bounds"),
        ("id", json!("x".repeat(65)), 422, "out_of_bounds"),
        (
            "duration_us",
            json!(86_400_000_001_u64),
            422,
            "at_out_of_range",
        ),
        ("duration_us", json!(u64::MAX), 422, "at_out_of_range"),
        ("duration_us", json!(-1), 400, "malformed"),
        ("kind", json!("loud"), 400, "malformed"),
        ("colour", json!("red"), 400, "unknown_field"),
    ];
    for (field, value, status, code) in cases {
        let mut body = cue();
        body[field] = value;
        let answer = server.post(&cues_of(&room), &body).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{body}"
        );
    }
    for n in 0..20 {
        let mut body = cue();
        body["id"] = json!(format!("l{n}"));
        assert_eq!(server.post(&cues_of(&room), &body).await.status, 201);
    }
    let over = server.post(&cues_of(&room), &cue()).await;
    assert_eq!((over.status, over.code().as_str()), (429, "rate_limited"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_cue_names_the_field() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let _publisher = server.publish(&room);
    let cases = [
        ("class", json!(""), "/class"),
        ("id", json!("x".repeat(65)), "/id"),
        ("data", json!("x".repeat(1_025)), "/data"),
    ];
    for (field, value, pointer) in cases {
        let mut body = cue();
        body[field] = value;
        let answer = server.post(&cues_of(&room), &body).await;
        assert_eq!(answer.status, 422, "{field}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer);
    }
    let most = json!("x".repeat(1_024));
    let mut body = cue();
    body["data"] = most;
    assert_eq!(server.post(&cues_of(&room), &body).await.status, 201);
    for field in ["class", "kind", "data"] {
        let mut body = cue();
        body.as_object_mut().unwrap().remove(field);
        let answer = server.post(&cues_of(&room), &body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(field), "{detail}");
    }
    let mut body = cue();
    body["data"] = json!("x".repeat(300_000));
    let answer = server.post(&cues_of(&room), &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_known_key_ends_a_cue_and_only_a_listed_one() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let one = format!("{}/n1", cues_of(&room));
    let waiting = server.delete(&one).await;
    assert_eq!((waiting.status, waiting.code().as_str()), (409, "not_live"));
    let _publisher = server.publish(&room);
    assert_eq!(server.post(&cues_of(&room), &cue()).await.status, 201);
    for key in ["", "sk_nobody", "live_stream_key"] {
        let request = server.client.delete(server.url(&one));
        let request = match key {
            "" => request,
            key => request.bearer_auth(key),
        };
        let stranger = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(
            (stranger.status, stranger.code().as_str()),
            (401, "unauthenticated"),
            "{key}"
        );
        assert!(!stranger.header("www-authenticate").is_empty());
    }
    let mut passing = cue();
    passing["kind"] = json!("passing");
    passing["id"] = json!("p1");
    assert_eq!(server.post(&cues_of(&room), &passing).await.status, 201);
    let news = server.delete(&format!("{}/p1", cues_of(&room))).await;
    assert_eq!((news.status, news.code().as_str()), (404, "not_found"));
    assert_eq!(server.delete(&one).await.status, 200);
    let again = server.post(&cues_of(&room), &cue()).await;
    assert_eq!((again.status, again.code().as_str()), (409, "id_used"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cue_reaches_the_playlists_and_its_end_a_second_line() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(&server, &room);
    show.run_to(100);
    assert_eq!(server.post(&cues_of(&room), &cue()).await.status, 201);
    let ended = format!("{}/n1", cues_of(&room));
    assert_eq!(server.delete(&ended).await.status, 200);
    let playlist = format!("/hls/{room}/src/live.m3u8");
    let lines = async {
        loop {
            let text = server.get(&playlist).await.text;
            let ranges = text.lines().filter(|l| l.starts_with("#EXT-X-DATERANGE:"));
            let ranges: Vec<String> = ranges.map(String::from).collect();
            if ranges.len() == 2 {
                return ranges;
            }
            tokio::task::yield_now().await;
        }
    };
    let within = std::time::Duration::from_secs(5);
    let lines = tokio::time::timeout(within, lines).await.unwrap();
    let opened = "#EXT-X-DATERANGE:ID=\"n1\",CLASS=\"lamplight.note\",START-DATE=";
    assert!(lines[0].starts_with(opened), "{lines:?}");
    assert!(lines[0].contains("X-LAMPLIGHT-T=\"1000000\""), "{lines:?}");
    assert!(
        lines[0].contains("X-LAMPLIGHT-DATA=\"aGVsbG8\""),
        "{lines:?}"
    );
    assert!(
        lines[1].contains("ID=\"n1\"") && lines[1].contains("END-DATE="),
        "{lines:?}"
    );
}
