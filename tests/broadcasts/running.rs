//! What runs now, over the API: looking at it, and ending it.

use lamplight_media::broadcast::About;
use lamplight_media::request::Protocol;
use serde_json::Value;
use tokio::time::Instant;

use super::whep;
use crate::support::TestServer;
use crate::support::show::Show;

const BROADCASTS: &str = "/api/v1/media/broadcasts";
const UNKNOWN: &str = "room_01M86VRGYAE3AR7SWFHPWY1Y64";

fn session_path(id: &str) -> String {
    format!("/api/v1/media/sessions/{id}")
}

/// A room with a show of two seconds, whose publisher is known.
async fn on_air(server: &TestServer, creator: &str) -> (String, Show) {
    let room = server.room(creator).await;
    let mut show = Show::start(server, &room);
    let about = About {
        protocol: Protocol::Rtmp,
        bitrate_bps_max: 4_000_000,
    };
    show.publisher.introduce(Instant::now(), about);
    show.run_to(60);
    show.publisher
        .name_encoder(Instant::now(), "obs-output module (libobs version 29.0.2)");
    (room, show)
}

/// Waits until the broadcast is as wanted.
async fn until(server: &TestServer, room: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{BROADCASTS}/{room}");
    let seen = async {
        loop {
            let answer = server.get_as_operator(&path).await;
            if answer.status == 200 && is_so(&answer.json()) {
                return answer.json();
            }
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(std::time::Duration::from_secs(10), seen).await;
    seen.expect("the broadcast comes to be so")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broadcast_is_shown_with_its_publisher_tracks_and_viewers() {
    let server = TestServer::start().await;
    let (room, _show) = on_air(&server, &server.creator("anna").await).await;
    let mut shown = until(&server, &room, |seen| !seen["hls"].is_null()).await;
    // What depends on when it was looked at; converters start when somebody asks for their track.
    let tracks = shown["renditions"].as_array_mut().unwrap();
    tracks.retain(|track| track["name"] == "video" || track["name"] == "audio");
    for track in tracks {
        track["users"] = "[users]".into();
        track["bitrate_bps"] = "[bps]".into();
    }
    insta::assert_json_snapshot!(crate::support::redacted(shown), {
        ".instance" => "[instance]",
        ".epoch" => "[time]",
        ".t_us" => "[us]",
        ".publish.session_id" => "[id]",
        ".publish.since" => "[time]",
        ".publish.verdicts" => "[verdicts]",
        ".hls.held" => "[held]",
        ".hls.msn" => "[msn]",
        ".hls.part" => "[part]",
        ".hls.window_ms" => "[ms]",
        ".hls.window_bytes" => "[bytes]",
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_walked_by_room_in_both_directions() {
    let server = TestServer::start().await;
    let creator = server.creator("anna").await;
    let mut rooms = Vec::new();
    let mut shows = Vec::new();
    for _ in 0..3 {
        let (room, show) = on_air(&server, &creator).await;
        rooms.push(room);
        shows.push(show);
    }
    rooms.sort();
    let names = |page: &Value| -> Vec<String> {
        let rows = page["data"].as_array().unwrap().iter();
        rows.map(|row| row["room"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = server
        .get_as_operator(&format!("{BROADCASTS}?limit=2"))
        .await
        .json();
    assert_eq!(names(&first), rooms[..2]);
    assert_eq!(first["data"][0]["state"], "live");
    assert_eq!(first["data"][0]["protocol"], "rtmp");
    let next = first["page"]["next"].as_str().unwrap();
    let second = server
        .get_as_operator(&format!("{BROADCASTS}?limit=2&after={next}"))
        .await
        .json();
    assert_eq!(names(&second), rooms[2..]);
    assert_eq!(second["page"]["has_more"], false);
    let back = second["page"]["prev"].as_str().unwrap();
    let again = server
        .get_as_operator(&format!("{BROADCASTS}?limit=2&before={back}"))
        .await
        .json();
    assert_eq!(names(&again), rooms[..2]);
    let bad = server
        .get_as_operator(&format!("{BROADCASTS}?after=x"))
        .await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "bad_cursor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_not_live_or_not_allowed_is_told_apart() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let rows = [
        (format!("{BROADCASTS}/{room}"), 404, "not_live"),
        (format!("{BROADCASTS}/{UNKNOWN}"), 404, "not_found"),
        (session_path("0123"), 404, "not_found"),
        (format!("{BROADCASTS}?limit=0"), 422, "out_of_bounds"),
    ];
    for (path, status, code) in rows {
        let answer = server.get_as_operator(&path).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{path}"
        );
        let stranger = server.get(&path).await;
        assert_eq!(
            (stranger.status, stranger.code().as_str()),
            (401, "unauthenticated")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_is_kicked_ends_with_its_broadcast_once() {
    let server = TestServer::start().await;
    let (room, show) = on_air(&server, &server.creator("anna").await).await;
    let shown = until(&server, &room, |seen| !seen["publish"].is_null()).await;
    let id = shown["publish"]["session_id"].as_str().unwrap();
    let session = server.get_as_operator(&session_path(id)).await.json();
    assert_eq!(session["protocol"], "rtmp");
    assert_eq!(session["publish"]["width"], 640);
    assert_eq!(session["viewer"], Value::Null);
    assert_eq!(server.delete(&session_path(id)).await.status, 204);
    assert!(show.publisher.broadcast().is_ended());
    assert_eq!(server.delete(&session_path(id)).await.code(), "not_found");
    let sql = "SELECT COUNT(*) FROM audit_log WHERE diff LIKE '%session%'";
    assert_eq!(server.count(sql).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewers_session_is_shown_and_kicked_by_the_id_of_its_place() {
    let server = TestServer::start().await;
    let (room, _show) = on_air(&server, &server.creator("anna").await).await;
    let place = whep::offer_to(&server, &format!("/whep/{room}"), whep::CHROMIUM).await;
    assert_eq!(place.status, 201, "{}", place.text);
    let place = place.header("location");
    let id = place.rsplit('/').next().unwrap();
    let shown = server.get_as_operator(&session_path(id)).await;
    insta::assert_json_snapshot!(crate::support::redacted(shown.json()), { ".id" => "[id]" });
    assert_eq!(server.delete(&session_path(id)).await.status, 204);
    assert_eq!(
        server.get_as_operator(&session_path(id)).await.code(),
        "not_found"
    );
    assert_eq!(
        server.delete(&place).await.status,
        404,
        "its place is gone too"
    );
}

/// What a collector reads: one line of a counter, by its labels.
async fn counted(server: &TestServer, line: &str) -> Option<u64> {
    let admin = server.running().bound().admin;
    let metrics = reqwest::get(format!("http://{admin}/metrics"))
        .await
        .unwrap();
    let text = metrics.text().await.unwrap();
    let counts = text.lines().filter_map(|it| it.strip_prefix(line));
    counts.filter_map(|count| count.trim().parse().ok()).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_reads_who_came_who_was_refused_and_what_was_taken_in() {
    let server = TestServer::start().await;
    let (room, _show) = on_air(&server, &server.creator("anna").await).await;
    let accepted = whep::offer_to(&server, &format!("/whep/{room}"), whep::CHROMIUM).await;
    assert_eq!(accepted.status, 201);
    let unknown = whep::offer_to(&server, &format!("/whep/{UNKNOWN}"), whep::CHROMIUM).await;
    assert_eq!(unknown.status, 404);
    let lines = [
        (
            r#"viewer_sessions_total{protocol="whep",outcome="accepted"}"#,
            1,
        ),
        (
            r#"viewer_sessions_total{protocol="whep",outcome="not_found"}"#,
            1,
        ),
        (r#"ingest_frames_total{protocol="rtmp",kind="video"}"#, 60),
        (r#"broadcasts{state="live"}"#, 1),
        (r#"viewers{protocol="whep"}"#, 0),
    ];
    for (line, expected) in lines {
        let count = counted(&server, &format!("lamplight_media_{line}")).await;
        assert_eq!(count, Some(expected), "{line}");
    }
}
