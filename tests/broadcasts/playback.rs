//! Rooms that are not public: playback tokens, what they open, and whom they count.

use std::time::Duration;

use serde_json::{Value, json};

use super::whep;
use crate::support::show::Show;
use crate::support::{Answer, TestServer};

struct Stage {
    server: TestServer,
    room: String,
    _show: Show,
}

impl Stage {
    async fn set(watch: &'static str) -> Self {
        let server = TestServer::start().await;
        let room = server.room(&server.creator("anna").await).await;
        let mut tx = server.app().db.begin().await.unwrap();
        let sql = "UPDATE room_access SET watch = $1 WHERE room_id = $2";
        let query = sqlx::query(sql).bind(watch).bind(room.clone());
        query.execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let mut show = Show::start(&server, &room);
        show.run_to(198);
        Self {
            server,
            room,
            _show: show,
        }
    }

    async fn token(&self, wish: Value) -> String {
        let path = format!("/api/v1/media/broadcasts/{}/tokens", self.room);
        let made = self.server.post(&path, &wish).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["token"].as_str().unwrap().into()
    }

    async fn hls(&self, rest: &str) -> Answer {
        self.server.get(&format!("/hls/{}/{rest}", self.room)).await
    }

    /// The multivariant playlist, once there is something to play.
    async fn index(&self, query: &str) -> Answer {
        let path = format!("index.m3u8{query}");
        let there = async {
            loop {
                let answer = self.hls(&path).await;
                if answer.status != 404 {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), there)
            .await
            .unwrap()
    }

    async fn offer(&self, query: &str) -> Answer {
        let path = format!("/whep/{}{query}", self.room);
        whep::offer_to(&self.server, &path, whep::CHROMIUM).await
    }

    /// `{whep, hls, unique}` as the API tells them.
    async fn viewers(&self) -> Value {
        let path = format!("/api/v1/media/broadcasts/{}", self.room);
        let request = self.server.client.get(self.server.url(&path));
        let sent = request.bearer_auth(&self.server.key).send().await.unwrap();
        Answer::of(sent).await.json()["viewers"].clone()
    }
}

/// The address of a media playlist, as the multivariant one names it.
fn media_playlist(index: &Answer) -> &str {
    let is_address = |line: &&str| line.contains("live.m3u8") && !line.starts_with('#');
    index.text.lines().find(is_address).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_room_opens_to_its_token_on_each_protocol_and_to_nothing_else() {
    let stage = Stage::set("token").await;
    let token = stage.token(json!({ "viewer_id": "ada" })).await;
    let other = Stage::set("token").await.token(json!({})).await;
    let forged = format!("{}x", &token[..token.len() - 1]);
    for query in [
        "",
        "?token=",
        "?token=x",
        &format!("?token={other}"),
        &format!("?token={forged}"),
    ] {
        let offer = stage.offer(query).await;
        assert_eq!(
            (offer.status, offer.code().as_str()),
            (401, "unauthenticated"),
            "{query}"
        );
        assert_eq!(offer.header("www-authenticate"), "Bearer");
        let index = stage.index(query).await;
        assert_eq!(
            (index.status, index.code().as_str()),
            (401, "unauthenticated"),
            "{query}"
        );
    }
    let playlist = stage.hls("src/live.m3u8").await;
    assert_eq!(
        (playlist.status, playlist.code().as_str()),
        (401, "unauthenticated")
    );

    assert_eq!(stage.offer(&format!("?token={token}")).await.status, 201);
    let path = stage.server.url(&format!("/whep/{}", stage.room));
    let bearer = stage.server.client.post(path).bearer_auth(&token);
    let bearer = bearer
        .header("content-type", "application/sdp")
        .body(whep::CHROMIUM);
    assert_eq!(bearer.send().await.unwrap().status(), 201);
    let index = stage.index(&format!("?token={token}")).await;
    assert_eq!(index.status, 200, "{}", index.text);
    assert!(!index.text.contains(&token), "{}", index.text);
    let playlist = stage.hls(media_playlist(&index)).await;
    assert_eq!(playlist.status, 200, "{}", playlist.text);
    assert_eq!(playlist.header("cache-control"), "no-store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_what_it_opened_are_good_until_it_expires() {
    let stage = Stage::set("token").await;
    let token = stage.token(json!({ "ttl_s": 60 })).await;
    let index = stage.index(&format!("?token={token}")).await;
    let playlist = media_playlist(&index);
    assert_eq!(stage.hls(playlist).await.status, 200);
    stage.server.app().clock.advance(Duration::from_secs(61));
    assert_eq!(stage.offer(&format!("?token={token}")).await.status, 401);
    assert_eq!(stage.hls(playlist).await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_room_takes_nobody_whatever_they_hold() {
    let stage = Stage::set("closed").await;
    let token = stage.token(json!({})).await;
    let offer = stage.offer(&format!("?token={token}")).await;
    assert_eq!((offer.status, offer.code().as_str()), (403, "forbidden"));
    assert_eq!(stage.index(&format!("?token={token}")).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_playlists_are_viewers_and_those_of_one_person_are_one() {
    let stage = Stage::set("public").await;
    let token = stage.token(json!({ "viewer_id": "ada" })).await;
    for query in [
        format!("?token={token}"),
        format!("?token={token}"),
        String::new(),
    ] {
        let index = stage.index(&query).await;
        assert_eq!(index.status, 200, "{}", index.text);
        assert_eq!(stage.hls(media_playlist(&index)).await.status, 200);
    }
    assert_eq!(stage.hls("src/live.m3u8?s=made-up").await.status, 200);
    let viewers = stage.viewers().await;
    assert_eq!(viewers["hls"]["now"], 3, "{viewers}");
    assert_eq!(viewers["unique"], 2, "{viewers}");
}

/// A buyer may name any point of the timeline that its screen can show.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_playlists_is_where_its_newest_list_reaches() {
    let stage = Stage::set("public").await;
    let index = stage.index("").await;
    let playlist = media_playlist(&index);
    let name = playlist.split("s=").nth(1).unwrap().to_owned();
    let path = format!("/api/v1/media/sessions/{name}");
    let look = async || {
        let request = stage.server.client.get(stage.server.url(&path));
        let sent = request.bearer_auth(&stage.server.key).send().await.unwrap();
        Answer::of(sent).await.json()
    };
    let before = look().await;
    assert_eq!(before["protocol"], "hls", "{before}");
    assert_eq!(before["playhead_us"], Value::Null, "{before}");
    assert_eq!(stage.hls(playlist).await.status, 200);
    let shown = look().await;
    let [from, to] = [0, 1].map(|at| shown["playhead_us"][at].as_i64().unwrap());
    assert!(from <= 0 && to > 1_000_000, "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_for_a_token_beyond_its_bounds_is_refused_by_name() {
    let stage = Stage::set("token").await;
    let path = format!("/api/v1/media/broadcasts/{}/tokens", stage.room);
    let rows = [
        (json!({ "ttl_s": 0 }), "/ttl_s"),
        (json!({ "ttl_s": 86_401 }), "/ttl_s"),
        (json!({ "viewer_id": "" }), "/viewer_id"),
        (json!({ "viewer_id": "x".repeat(65) }), "/viewer_id"),
    ];
    for (wish, pointer) in rows {
        let refused = stage.server.post(&path, &wish).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (422, "out_of_bounds"),
            "{wish}"
        );
        assert_eq!(refused.json()["errors"][0]["pointer"], pointer);
    }
    let unknown = "/api/v1/media/broadcasts/room_01M86VRGYAE3AR7SWFHPWY1Y64/tokens";
    assert_eq!(
        stage.server.post(unknown, &json!({})).await.code(),
        "not_found"
    );
}
