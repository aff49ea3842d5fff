//! WHIP over HTTP: every status and header of media.md 4.1 that names it, and the habits of OBS.

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::support::{Answer, TestServer};

/// What OBS sends: sound before picture, no candidates, port 9.
const OBS: &str = include_str!("offers/obs.sdp");

struct Stage {
    server: TestServer,
    room: String,
    key: String,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(&[]).await
    }

    async fn set_with(settings: &[&str]) -> Self {
        let server = TestServer::start_with(settings).await;
        let room = server.room(&server.creator("anna").await).await;
        let made = server
            .post(&format!("/api/v1/rooms/{room}/publish_keys"), &json!({}))
            .await;
        assert_eq!(made.status, 201, "{}", made.text);
        let key = made.json()["key"].as_str().unwrap().to_owned();
        Self { server, room, key }
    }

    fn post(&self, offer: &str) -> RequestBuilder {
        let request = self.server.client.post(self.server.url("/whip"));
        let request = request.header("content-type", "application/sdp");
        request.body(offer.replace('\n', "\r\n"))
    }

    async fn offer(&self, offer: &str) -> Answer {
        sent(self.post(offer).bearer_auth(&self.key)).await
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        sent(self.server.client.request(method, self.server.url(path))).await
    }
}

async fn sent(request: RequestBuilder) -> Answer {
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn obs_gets_an_answer_that_it_can_read_and_leaves_with_200() {
    let stage = Stage::set().await;
    let answer = stage.offer(OBS).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert_eq!(answer.header("cache-control"), "no-store");
    let tag = answer.header("etag");
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'));
    let session = answer.header("location");
    let id = session.strip_prefix("/whip/").unwrap();
    assert!(
        id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()),
        "{session}"
    );
    let count = |line: &str| answer.text.matches(line).count();
    for (line, times) in [
        ("a=ice-lite", 1),
        ("a=group:BUNDLE 0 1", 1),
        ("a=setup:passive", 2),
        ("a=recvonly", 2),
        ("a=rtcp-mux", 2),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111", 1),
        ("m=video 9 UDP/TLS/RTP/SAVPF 96", 1),
        ("a=end-of-candidates", 1),
        ("a=candidate:", 1),
        ("a=fingerprint:sha-256", 1),
    ] {
        let found = count(line);
        // A session-level line may stand for both sections.
        assert!(
            found == times || (line.contains("finger") && found == 2),
            "{line}: {}",
            answer.text
        );
    }
    assert!(!answer.text.contains(&stage.key));
    let left = stage.call(Method::DELETE, &session).await;
    assert_eq!((left.status, left.text.as_str()), (200, ""));
    let again = stage.call(Method::DELETE, &session).await;
    assert_eq!((again.status, again.code().as_str()), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_run_in_the_order_of_their_table() {
    let stage = Stage::set().await;
    let large = "v=0\n".repeat(20_000);
    let sdp = "application/sdp";
    let key = stage.key.as_str();
    let cases = [
        ("text/plain", "", "", 415, "unsupported_media_type"),
        ("", "", OBS, 415, "unsupported_media_type"),
        (sdp, "", large.as_str(), 413, "too_large"),
        (sdp, "", "", 401, "unauthenticated"),
        (sdp, "live_unknown", OBS, 401, "unauthenticated"),
        (sdp, key, "", 400, "malformed"),
        (sdp, key, "v=0\n", 400, "malformed"),
        (sdp, key, OBS, 201, ""),
    ];
    let mut unauthenticated = Vec::new();
    for (kind, key, body, status, code) in cases {
        let mut request = stage.server.client.post(stage.server.url("/whip"));
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        if !key.is_empty() {
            request = request.bearer_auth(key);
        }
        let answer = sent(request.body(body.replace('\n', "\r\n"))).await;
        assert_eq!(answer.status, status, "{kind} {code}: {}", answer.text);
        if status != 201 {
            assert_eq!(answer.code(), code);
        }
        if status == 401 {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            unauthenticated.push(answer.json()["detail"].clone());
        }
        let accepts = if status == 415 { sdp } else { "" };
        assert_eq!(answer.header("accept-post"), accepts);
    }
    assert_eq!(unauthenticated[0], unauthenticated[1], "one body for all");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_deleted_and_a_room_that_ended_are_403() {
    let stage = Stage::set().await;
    let rooms = format!("/api/v1/rooms/{}", stage.room);
    let other = stage
        .server
        .post(&format!("{rooms}/publish_keys"), &json!({}))
        .await
        .json();
    let one = format!("{rooms}/publish_keys/{}", other["key_id"].as_str().unwrap());
    assert_eq!(stage.server.delete(&one).await.status, 204);
    let deleted = other["key"].as_str().unwrap();
    let refused = sent(stage.post(OBS).bearer_auth(deleted)).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "forbidden")
    );
    let called_off = stage
        .server
        .post(&format!("{rooms}/cancel"), &json!({}))
        .await;
    assert_eq!(called_off.status, 200, "{}", called_off.text);
    let refused = stage.offer(OBS).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (403, "forbidden")
    );
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("ended"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_keeps_its_publisher_answers_409_and_nothing_is_half_accepted() {
    let stage = Stage::set_with(&["publish.takeover=refuse"]).await;
    let first = stage.offer(OBS).await;
    assert_eq!(first.status, 201, "{}", first.text);
    let second = stage.offer(OBS).await;
    assert_eq!((second.status, second.code().as_str()), (409, "busy"));
    assert_eq!(second.header("retry-after"), "30");
    stage.call(Method::DELETE, &first.header("location")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_publisher_takes_over_but_not_with_an_offer_that_cannot_be_taken() {
    let stage = Stage::set().await;
    let first = stage.offer(OBS).await.header("location");
    let bad = stage.offer(&OBS.replace("H264", "VP8")).await;
    assert_eq!(bad.status, 422, "{}", bad.text);
    let patch = || {
        let request = stage.server.client.patch(stage.server.url(&first));
        let request = request.header("content-type", "application/trickle-ice-sdpfrag");
        sent(request.header("if-match", "*").body("a=ice-ufrag:Wd8x\r\n"))
    };
    assert_eq!(patch().await.status, 204, "the first one is still there");
    assert_eq!(stage.offer(OBS).await.status, 201);
    let gone = async {
        while patch().await.status != 404 {
            tokio::task::yield_now().await;
        }
    };
    let within = std::time::Duration::from_secs(20);
    tokio::time::timeout(within, gone)
        .await
        .expect("the first one has to go");
}

#[tokio::test(flavor = "multi_thread")]
async fn hevc_and_av1_are_taken_where_h264_is_not_offered() {
    let h264 = "profile-level-id=42e01f;packetization-mode=1;level-asymmetry-allowed=1";
    for (name, parameters) in [
        ("H265/90000", "level-id=120;profile-id=1;tier-flag=0"),
        ("AV1/90000", "level-idx=8;profile=0;tier=0"),
    ] {
        let stage = Stage::set().await;
        let offer = OBS.replace("H264/90000", name).replace(h264, parameters);
        let answer = stage.offer(&offer).await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.text);
        let map = format!("a=rtpmap:96 {name}\r\n");
        assert!(answer.text.contains(&map), "{name}: {}", answer.text);
        let session = answer.header("location");
        assert_eq!(stage.call(Method::DELETE, &session).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_422_and_says_what_would_do() {
    let stage = Stage::set().await;
    let twice = {
        let video = OBS
            .split("m=")
            .nth(2)
            .unwrap()
            .replace("a=mid:1", "a=mid:2");
        OBS.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + "m=" + &video
    };
    let cases = [
        (OBS.replace("a=sendonly", "a=recvonly"), "sendonly"),
        (OBS.replace("a=sendonly", "a=inactive"), "sendonly"),
        (twice, "at most one"),
        (
            OBS.replacen("a=msid:show-stream", "a=msid:other", 1),
            "MediaStream",
        ),
        (OBS.replace("a=group:BUNDLE 0 1\n", ""), "BUNDLE"),
        (OBS.replace("BUNDLE 0 1", "BUNDLE 1"), "BUNDLE"),
        (OBS.replace(" H264/", " VP8/"), "send H.264"),
        (OBS.replace(" H264/", " VP9/"), "send H.264"),
        (OBS.replace(" H264/", " VP9/"), "H265/90000 or AV1/90000"),
        (
            OBS.replace("packetization-mode=1", "packetization-mode=0"),
            "packetization-mode=1",
        ),
        (OBS.replace(" opus/", " L16/"), "opus/48000/2"),
        (
            OBS.replace("a=mid:1", "a=setup:passive\na=mid:1"),
            "setup:actpass",
        ),
    ];
    for (offer, named) in cases {
        let answer = stage.offer(&offer).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "unservable"),
            "{named}"
        );
        let body = answer.json();
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{named}: {detail}");
    }
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nc=IN IP4 0.0.0.0\na=mid:2\n\
                a=sctp-port:5000\n";
    let with_data = OBS.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + data;
    let answer = stage.offer(&with_data).await;
    assert_eq!(
        answer.status, 201,
        "a data channel is no matter: {}",
        answer.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_needs_its_type_its_tag_and_an_id_that_is_known() {
    let stage = Stage::set().await;
    let accepted = stage.offer(OBS).await;
    let (session, tag) = (accepted.header("location"), accepted.header("etag"));
    let fragment = "application/trickle-ice-sdpfrag";
    let candidates = "a=ice-ufrag:Wd8x\r\na=candidate:1 1 udp 1 10.0.0.1 9 typ host\r\n";
    let restart = "a=ice-ufrag:another\r\na=ice-pwd:0123456789012345678901\r\n";
    let unknown = format!("/whip/{}", "0".repeat(32));
    let cases = [
        (&unknown, fragment, "*", candidates, 404),
        (&session, "application/sdp", "*", candidates, 415),
        (&session, fragment, "", candidates, 428),
        (&session, fragment, "\"other\"", candidates, 412),
        (&session, fragment, tag.as_str(), "hello", 400),
        (&session, fragment, tag.as_str(), candidates, 204),
        (&session, fragment, "\"*\"", candidates, 204),
        (&session, fragment, "*", restart, 200),
        (&session, fragment, tag.as_str(), candidates, 412),
    ];
    for (path, kind, tag, body, status) in cases {
        let request = stage.server.client.patch(stage.server.url(path));
        let mut request = request.header("content-type", kind);
        if !tag.is_empty() {
            request = request.header("if-match", tag);
        }
        let answer = sent(request.body(body)).await;
        assert_eq!(
            answer.status, status,
            "{path} {kind} {tag}: {}",
            answer.text
        );
        assert_eq!(answer.header("etag").is_empty(), status != 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_that_is_sent_with_a_session_must_be_its_own() {
    let stage = Stage::set().await;
    let session = stage.offer(OBS).await.header("location");
    let delete = || stage.server.client.delete(stage.server.url(&session));
    let wrong = sent(delete().bearer_auth("live_other")).await;
    assert_eq!(
        (wrong.status, wrong.code().as_str()),
        (401, "unauthenticated")
    );
    let right = sent(delete().bearer_auth(&stage.key)).await;
    assert_eq!(right.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn get_head_options_and_other_methods_have_their_answers() {
    let stage = Stage::set().await;
    let session = stage.offer(OBS).await.header("location");
    for path in ["/whip", session.as_str()] {
        for method in [Method::GET, Method::HEAD] {
            let answer = stage.call(method, path).await;
            assert_eq!((answer.status, answer.text.as_str()), (204, ""), "{path}");
        }
        let options = stage.call(Method::OPTIONS, path).await;
        assert_eq!(options.status, 200);
        let put = stage.call(Method::PUT, path).await;
        assert_eq!(
            (put.status, put.code().as_str()),
            (405, "method_not_allowed")
        );
        assert!(!put.header("allow").is_empty());
    }
    let options = stage.call(Method::OPTIONS, "/whip").await;
    assert_eq!(options.header("allow"), "GET, HEAD, OPTIONS, POST");
    assert_eq!(options.header("accept-post"), "application/sdp");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_is_told_of_the_ice_servers_that_are_configured() {
    let servers = "webrtc.ice_servers=[\"stun:stun.example\", \"turn:turn.example user secret\"]";
    let stage = Stage::set_with(&[servers]).await;
    let accepted = sent(stage.post(OBS).bearer_auth(&stage.key)).await;
    assert_eq!(accepted.status, 201);
    // OBS reads one server per header, up to a comma.
    let links = accepted.header("link");
    assert!(
        links.starts_with("<stun:stun.example>; rel=\"ice-server\""),
        "{links}"
    );
}
