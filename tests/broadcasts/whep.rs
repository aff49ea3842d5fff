//! WHEP over HTTP: every status and header of media.md 4.1 and 4.2.

use lamplight_media::frame::{Codec, TrackInfo};
use reqwest::Method;
use serde_json::Value;

use crate::support::show::{Show, picture_of};
use crate::support::{Answer, TestServer};

pub(super) const CHROMIUM: &str = include_str!("offers/chromium.sdp");
const FIREFOX: &str = include_str!("offers/firefox.sdp");
const SAFARI: &str = include_str!("offers/safari.sdp");
const UNKNOWN: &str = "room_01M86VRGYAE3AR7SWFHPWY1Y64";

struct Stage {
    server: TestServer,
    path: String,
    _show: Show,
}

impl Stage {
    /// A room that is live.
    async fn set() -> Self {
        Self::set_with(&[]).await
    }

    async fn set_with(settings: &[&str]) -> Self {
        let server = TestServer::start_with(settings).await;
        let room = server.room(&server.creator("anna").await).await;
        let show = Show::start(&server, &room);
        Self::run(server, &room, show)
    }

    /// A room whose picture is of this form.
    async fn set_for(picture: TrackInfo) -> Self {
        let server = TestServer::start().await;
        let room = server.room(&server.creator("anna").await).await;
        let show = Show::start_with(&server, &room, picture);
        Self::run(server, &room, show)
    }

    fn run(server: TestServer, room: &str, mut show: Show) -> Self {
        show.run_to(60);
        Self {
            server,
            path: format!("/whep/{room}"),
            _show: show,
        }
    }

    async fn offer(&self, offer: impl AsRef<str>) -> Answer {
        offer_to(&self.server, &self.path, offer.as_ref()).await
    }

    async fn call(&self, method: Method, path: &str) -> Answer {
        let request = self.server.client.request(method, self.server.url(path));
        Answer::of(request.send().await.unwrap()).await
    }
}

/// An offer as browsers send it: lines end with CR LF.
fn crlf(offer: &str) -> String {
    offer.replace('\n', "\r\n")
}

pub(super) async fn offer_to(server: &TestServer, path: &str, offer: &str) -> Answer {
    let request = server.client.post(server.url(path));
    let request = request.header("content-type", "application/sdp");
    let sent = request.body(crlf(offer)).send();
    Answer::of(sent.await.unwrap()).await
}

/// An answer without what is random or of this machine.
fn redacted(answer: &str) -> String {
    let hide = |line: &str| {
        let random = [
            "o=",
            "a=ice-ufrag:",
            "a=ice-pwd:",
            "a=fingerprint:",
            "a=candidate:",
            "a=ssrc:",
            "a=ssrc-group:",
            "a=msid:",
        ];
        let prefix = random.iter().find(|p| line.starts_with(**p));
        prefix.map_or_else(|| line.to_owned(), |p| format!("{p}[…]"))
    };
    let lines = answer.split_terminator("\r\n").map(hide);
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_offer_has_an_answer_and_a_place() {
    let stage = Stage::set().await;
    let answer = stage.offer(CHROMIUM).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/sdp");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let session = answer.header("location");
    let id = session.strip_prefix(&format!("{}/", stage.path)).unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()));
    let tag = answer.header("etag");
    assert!(tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"'));
    let other = stage.offer(CHROMIUM).await;
    assert_ne!(other.header("location"), session);
    assert_ne!(other.header("etag"), tag);
}

/// The show has 360 lines: one rung lies below.
#[tokio::test(flavor = "multi_thread")]
async fn a_player_can_pin_a_rendition_that_the_show_has_and_no_other() {
    let stage = Stage::set().await;
    for (wish, status) in [
        ("src", 201),
        ("v240", 201),
        ("v480", 422),
        ("v360", 422),
        ("best", 422),
        ("", 422),
    ] {
        let path = format!("{}?rendition={wish}", stage.path);
        let answer = offer_to(&stage.server, &path, CHROMIUM).await;
        assert_eq!(answer.status, status, "{wish}: {}", answer.text);
        if status == 201 {
            // No query in the address of the session.
            assert!(!answer.header("location").contains('?'));
        } else {
            assert_eq!(answer.json()["code"], "unservable", "{wish}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_browser_gets_the_answer_it_needs() {
    let stage = Stage::set().await;
    let offers = [
        ("chromium", CHROMIUM),
        ("firefox", FIREFOX),
        ("safari", SAFARI),
    ];
    for (name, offer) in offers {
        let answer = stage.offer(offer).await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.text);
        insta::assert_snapshot!(name, redacted(&answer.text));
        let count = |line: &str| answer.text.matches(line).count();
        assert_eq!(count("a=ice-lite\r\n"), 1, "{name}");
        assert_eq!(count("a=group:BUNDLE "), 1, "{name}");
        assert_eq!(count("a=recvonly"), 0, "{name}");
        assert_eq!(count("a=sendonly\r\n"), 2, "{name}");
        assert_eq!(count("a=setup:passive\r\n"), count("m="), "{name}");
        assert!(count("a=end-of-candidates\r\n") > 0, "{name}");
        let mut candidates: Vec<&str> = answer.text.lines().collect();
        candidates.retain(|line| line.starts_with("a=candidate:"));
        assert_eq!(candidates.len(), 1, "{name}: {candidates:?}");
        let ours = stage.server.running().bound().webrtc;
        let place = format!(" {} {} ", ours.ip(), ours.port());
        assert!(candidates[0].contains(&place), "{candidates:?}");
        let stereo = "stereo=1;sprop-stereo=1;useinbandfec=1\r\n";
        assert_eq!(count(stereo), 1, "{name}");
    }
}

/// Main profile, level 3.1.
fn hevc() -> TrackInfo {
    picture_of(Codec::Hevc, &[1, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 93])
}

/// Main profile, level 3.1.
fn av1() -> TrackInfo {
    picture_of(Codec::Av1, &[0x81, 5, 0x0c, 0])
}

/// An offer of a browser with the forms that newer ones have beside H.264.
fn with_own_codecs(offer: &str) -> String {
    let forms = "a=rtpmap:45 AV1/90000\na=rtcp-fb:45 nack pli\na=rtcp-fb:45 transport-cc\n\
                 a=fmtp:45 level-idx=5;profile=0;tier=0\n\
                 a=rtpmap:49 H265/90000\na=rtcp-fb:49 nack\na=rtcp-fb:49 transport-cc\n\
                 a=fmtp:49 level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST\n";
    offer.replace("a=rtpmap:103 H264", &format!("{forms}a=rtpmap:103 H264"))
}

/// The source's codec stands before H.264, which the session may move to without a new offer.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_the_sources_own_codec_beside_h264() {
    for (name, picture) in [("chromium_hevc", hevc()), ("chromium_av1", av1())] {
        let stage = Stage::set_for(picture).await;
        let answer = stage.offer(with_own_codecs(CHROMIUM)).await;
        assert_eq!(answer.status, 201, "{name}: {}", answer.text);
        insta::assert_snapshot!(name, redacted(&answer.text));
        let plain = stage.offer(CHROMIUM).await;
        assert_eq!(plain.status, 201, "H.264 is made of it: {}", plain.text);
        assert!(!plain.text.contains("H265") && !plain.text.contains("AV1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_without_h264_is_taken_while_the_show_is_in_a_codec_of_its_offer() {
    let offer = with_own_codecs(CHROMIUM).replace(" H264/", " VP9/");
    let reordered = TrackInfo {
        reorder_frames: Some(2),
        ..hevc()
    };
    let high = picture_of(Codec::Hevc, &[1, 1, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 123]);
    let cases = [
        (hevc(), "", 201, ""),
        (av1(), "", 201, ""),
        (av1(), "?rendition=src", 201, ""),
        (hevc(), "?rendition=v240", 422, "below the source"),
        (reordered, "", 422, "B-frames"),
        (high, "", 422, "level-id=123"),
    ];
    for (picture, query, status, named) in cases {
        let name = format!("{:?}{query} {named}", picture.codec);
        let stage = Stage::set_for(picture).await;
        let path = format!("{}{query}", stage.path);
        let answer = offer_to(&stage.server, &path, &offer).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text);
        if status == 422 {
            let body = answer.json();
            let detail = body["detail"].as_str().unwrap();
            assert!(detail.contains(named), "{name}: {detail}");
            assert!(detail.contains("H264/90000"), "{name}: {detail}");
        }
    }
    let stage = Stage::set().await;
    assert_eq!(stage.offer(&offer).await.status, 422, "the show is H.264");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_run_in_the_order_of_their_table() {
    let stage = Stage::set().await;
    let server = &stage.server;
    let waiting = server.room(&server.creator("bob").await).await;
    let (live, waiting) = (stage.path.clone(), format!("/whep/{waiting}"));
    let unknown = format!("/whep/{UNKNOWN}");
    let large = "v=0\n".repeat(20_000);
    let sdp = "application/sdp";
    let cases = [
        (&unknown, "text/plain", "", 415, "unsupported_media_type"),
        (&unknown, "", "", 415, "unsupported_media_type"),
        (
            &live,
            "application/json",
            CHROMIUM,
            415,
            "unsupported_media_type",
        ),
        (&unknown, sdp, &large, 413, "too_large"),
        (&unknown, sdp, "", 404, "not_found"),
        (&waiting, sdp, "", 409, "not_live"),
        (&waiting, sdp, CHROMIUM, 409, "not_live"),
        (&live, sdp, "", 400, "malformed"),
        (&live, "Application/SDP; charset=utf-8", CHROMIUM, 201, ""),
    ];
    for (path, kind, body, status, code) in cases {
        let request = server.client.post(server.url(path)).body(crlf(body));
        let request = match kind {
            "" => request,
            kind => request.header("content-type", kind),
        };
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{path} {kind}: {}", answer.text);
        if status != 201 {
            assert_eq!(answer.code(), code, "{path} {kind}");
        }
        let accepts = if status == 415 { sdp } else { "" };
        assert_eq!(answer.header("accept-post"), accepts, "{path} {kind}");
        let retry = if status == 409 { "2" } else { "" };
        assert_eq!(answer.header("retry-after"), retry, "{path} {kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_usable_sdp_is_400_and_says_what_is_missing() {
    let stage = Stage::set().await;
    let without = |start: &str| -> String {
        let kept = CHROMIUM.lines().filter(|line| !line.starts_with(start));
        kept.map(|line| format!("{line}\n")).collect()
    };
    let session_only = CHROMIUM.split("m=").next().unwrap().to_owned();
    let cases = [
        ("{}".to_owned(), "v=0"),
        (without("v=0"), "v=0"),
        (session_only, "m="),
        (without("a=fingerprint:"), "a=fingerprint"),
        (without("a=ice-ufrag:"), "a=ice-ufrag"),
        (without("a=ice-pwd:"), "a=ice-pwd"),
        (CHROMIUM.replace("s=-\n", "s=-\nnonsense\n"), "line"),
        (CHROMIUM.replace("s=-\n", "s=-\0\n"), "line"),
        (CHROMIUM.replace("s=-\n", "s=caf\u{e9}\u{0}\n"), "line"),
        (CHROMIUM.replace("a=mid:0\n", "a=mid:0\ra=x\n"), "line"),
        (CHROMIUM.replace("m=video 9 ", "m=video x "), "m="),
        (CHROMIUM.replace("sha-256 ", "sha-256 zz"), "fingerprint"),
    ];
    for (offer, named) in cases {
        let answer = stage.offer(&offer).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "malformed"),
            "{named}"
        );
        let body = answer.json();
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{named}: {detail}");
    }
    let url = stage.server.url(&stage.path);
    let request = stage
        .server
        .client
        .post(url)
        .header("content-type", "application/sdp");
    let binary = Answer::of(request.body(vec![0xff, 0xfe]).send().await.unwrap()).await;
    assert_eq!((binary.status, binary.code().as_str()), (400, "malformed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_is_422_and_says_what_would_do() {
    let stage = Stage::set().await;
    let audio_twice = {
        let audio = CHROMIUM.split("m=").nth(2).unwrap();
        let again = format!("m={}", audio.replace("a=mid:1", "a=mid:3"));
        CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3") + &again
    };
    let many = (3..1_003).map(|n| format!("m=audio 9 X 0\na=mid:{n}\n"));
    let many = CHROMIUM.to_owned() + &many.collect::<String>();
    let data_only = {
        let mut parts = CHROMIUM.split("m=");
        let session = parts.next().unwrap().replace("BUNDLE 0 1 2", "BUNDLE 2");
        format!("{session}m={}", parts.nth(2).unwrap())
    };
    let cases = [
        (CHROMIUM.replace("a=recvonly", "a=sendonly"), "recvonly"),
        (CHROMIUM.replace("a=recvonly", "a=inactive"), "recvonly"),
        (CHROMIUM.replace("m=audio", "m=video"), "at most one video"),
        (audio_twice, "at most one"),
        (many, "16"),
        (data_only, "video or an audio"),
        (CHROMIUM.replace("a=group:BUNDLE 0 1 2\n", ""), "BUNDLE"),
        (CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 0 2"), "BUNDLE"),
        (
            CHROMIUM.replace("BUNDLE 0 1 2", "BUNDLE 0 1\na=group:BUNDLE 2"),
            "BUNDLE",
        ),
        (CHROMIUM.replace(" H264/", " H265/"), "H264/90000"),
        (
            CHROMIUM.replace("packetization-mode=1", "packetization-mode=0"),
            "packetization-mode=1",
        ),
        (CHROMIUM.replace(" opus/", " L16/"), "opus/48000/2"),
        (CHROMIUM.replace("m=application", "m=text"), "data channel"),
    ];
    for (offer, named) in cases {
        let answer = stage.offer(&offer).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (422, "unservable"),
            "{named}"
        );
        let body: Value = answer.json();
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{named}: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_candidates_are_no_matter() {
    let stage = Stage::set().await;
    let candidate = "a=candidate:1 1 udp 1 10.0.0.1 9 typ host\n";
    let many = candidate.repeat(1_000);
    let offer = CHROMIUM.replace("a=mid:0\n", &format!("a=mid:0\n{many}"));
    assert_eq!(stage.offer(offer).await.status, 201);
    let most = CHROMIUM.replace("a=mid:0\n", &candidate.repeat(10_000));
    assert_eq!(stage.offer(most).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_leaves_once() {
    let stage = Stage::set().await;
    let session = stage.offer(CHROMIUM).await.header("location");
    let elsewhere = session.replace(&stage.path, &format!("/whep/{UNKNOWN}"));
    assert_eq!(
        stage.call(Method::DELETE, &elsewhere).await.code(),
        "not_found"
    );
    let left = stage.call(Method::DELETE, &session).await;
    assert_eq!((left.status, left.text.as_str()), (200, ""));
    let again = stage.call(Method::DELETE, &session).await;
    assert_eq!((again.status, again.code().as_str()), (404, "not_found"));
    let never = format!("{}/{}", stage.path, "0".repeat(32));
    let never = stage.call(Method::DELETE, &never).await;
    assert_eq!((never.status, never.code().as_str()), (404, "not_found"));
}

#[tokio::test(flavor = "multi_thread")]
async fn get_head_options_and_other_methods_have_their_answers() {
    let stage = Stage::set().await;
    let session = stage.offer(CHROMIUM).await.header("location");
    for method in [Method::GET, Method::HEAD] {
        let answer = stage.call(method, &stage.path).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, ""));
        assert_eq!(answer.header("content-type"), "application/sdp");
    }
    for (path, methods) in [
        (&stage.path, "GET, HEAD, OPTIONS, POST"),
        (&session, "DELETE, OPTIONS, PATCH"),
    ] {
        let options = stage.call(Method::OPTIONS, path).await;
        assert_eq!(options.status, 200, "{path}");
        assert_eq!(options.header("allow"), methods, "{path}");
        let put = stage.call(Method::PUT, path).await;
        assert_eq!(
            (put.status, put.code().as_str()),
            (405, "method_not_allowed")
        );
        let mut allowed: Vec<String> = put
            .header("allow")
            .split(',')
            .map(|m| m.trim().into())
            .collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(", "), methods, "{path}");
    }
    let options = stage.call(Method::OPTIONS, &stage.path).await;
    assert_eq!(options.header("accept-post"), "application/sdp");
}

#[tokio::test(flavor = "multi_thread")]
async fn any_origin_may_offer_and_read_where_its_session_is() {
    let stage = Stage::set().await;
    let session = stage.offer(CHROMIUM).await.header("location");
    for (path, method) in [
        (&stage.path, "POST"),
        (&session, "DELETE"),
        (&session, "PATCH"),
    ] {
        let url = stage.server.url(path);
        let request = stage.server.client.request(Method::OPTIONS, url);
        let request = request
            .header("origin", "https://shop.example")
            .header("access-control-request-method", method)
            .header(
                "access-control-request-headers",
                "authorization,content-type,if-match",
            );
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("link"), "");
        let lists = |header: &str, name: &str| answer.header(header).split(", ").any(|n| n == name);
        assert!(lists("access-control-allow-methods", method), "{method}");
        for name in ["Authorization", "Content-Type", "If-Match"] {
            assert!(lists("access-control-allow-headers", name), "{name}");
        }
        for name in ["Location", "ETag", "Link", "Retry-After", "Accept-Post"] {
            assert!(lists("access-control-expose-headers", name), "{name}");
        }
    }
    let refused = stage.offer("").await;
    assert_eq!(refused.header("access-control-allow-origin"), "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_ice_server_has_a_link_of_its_own_but_not_in_a_preflight() {
    let servers = "webrtc.ice_servers=[\"stun:stun.example\", \
                   \"turn:turn.example:3478?transport=udp anna secret\"]";
    let stage = Stage::set_with(&[servers]).await;
    let url = stage.server.url(&stage.path);
    let client = &stage.server.client;
    let offer = client.post(&url).header("content-type", "application/sdp");
    let made = offer.body(crlf(CHROMIUM)).send().await.unwrap();
    let session = made.headers()["location"].to_str().unwrap().to_owned();
    let session = stage.server.url(&session);
    let options = |url: &str| client.request(Method::OPTIONS, url);
    let links = |answer: &reqwest::Response| -> Vec<String> {
        let links = answer.headers().get_all("link").iter();
        links
            .map(|link| link.to_str().unwrap().to_owned())
            .collect()
    };
    let expected = [
        "<stun:stun.example>; rel=\"ice-server\"",
        "<turn:turn.example:3478?transport=udp>; rel=\"ice-server\"; username=\"anna\"; \
         credential=\"secret\"; credential-type=\"password\"",
    ];
    assert_eq!(links(&made), expected);
    for url in [&url, &session] {
        assert_eq!(links(&options(url).send().await.unwrap()), expected);
        let preflight = options(url)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST");
        assert!(links(&preflight.send().await.unwrap()).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_gets_the_row_of_its_table() {
    let stage = Stage::set().await;
    let made = stage.offer(CHROMIUM).await;
    let (session, tag) = (made.header("location"), made.header("etag"));
    let never = format!("{}/{}", stage.path, "0".repeat(32));
    let kind = "application/trickle-ice-sdpfrag";
    let ours = "a=ice-ufrag:Ab1+\na=ice-pwd:0123456789abcdefABCDEF+/\nm=video 9 X 0\na=mid:0\n\
                a=candidate:1 1 udp 1 x.local 9 typ host\n";
    let restart = ours.replace("Ab1+", "Zz9+");
    let nameless = restart.replace("a=ice-pwd", "a=x");
    let cases = [
        (&never, "text/plain", "", "", 404),
        (&session, "text/plain", "", "", 415),
        (&session, kind, "", "", 428),
        (&session, kind, "\"other\"", "", 412),
        (&session, kind, &tag, "nonsense", 400),
        (&session, kind, &tag, ours, 204),
        (&session, kind, "*", ours, 204),
        (&session, kind, "\"*\"", ours, 204),
        (&session, kind, "*", &nameless, 400),
        (&session, kind, "*", &restart, 200),
        (&session, kind, &tag, &restart, 412),
        (&session, kind, "*", &restart, 204),
        (&session, kind, "*", ours, 412),
    ];
    for (path, kind, tag, body, status) in cases {
        let request = stage.server.client.patch(stage.server.url(path));
        let request = request.header("content-type", kind).body(crlf(body));
        let request = match tag {
            "" => request,
            tag => request.header("if-match", tag),
        };
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(
            answer.status, status,
            "{kind} {tag} {body}: {}",
            answer.text
        );
        if status == 204 {
            assert_eq!(
                (answer.text.as_str(), answer.header("etag").as_str()),
                ("", "")
            );
        } else if status == 200 {
            assert_eq!(answer.header("content-type"), kind);
            assert_eq!(answer.header("cache-control"), "no-store");
            let etag = answer.header("etag");
            assert!(etag.starts_with('"') && etag != *tag && etag != made.header("etag"));
            let count = |line: &str| answer.text.matches(line).count();
            assert_eq!((count("a=ice-ufrag:"), count("a=ice-pwd:")), (1, 1));
            assert_eq!(count("a=candidate:"), 1);
            assert_eq!(count("a=mid:0\r\n"), 1);
        } else {
            assert!(!answer.code().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_viewer_too_many_is_told_to_come_back() {
    for setting in ["limits.whep_max=1", "limits.room_viewers_max=1"] {
        let stage = Stage::set_with(&[setting]).await;
        let first = stage.offer(CHROMIUM).await;
        assert_eq!(first.status, 201, "{setting}: {}", first.text);
        let second = stage.offer(CHROMIUM).await;
        assert_eq!((second.status, second.code().as_str()), (503, "busy"));
        let wait: u64 = second.header("retry-after").parse().unwrap();
        assert!((3..=8).contains(&wait), "{wait}");
        let unknown = format!("/whep/{UNKNOWN}");
        let unknown = offer_to(&stage.server, &unknown, CHROMIUM).await;
        assert_eq!(unknown.status, 404, "an unknown room is told first");
        let url = first.header("location");
        assert_eq!(stage.call(Method::DELETE, &url).await.status, 200);
        let room_again = async {
            while stage.offer(CHROMIUM).await.status == 503 {
                tokio::task::yield_now().await;
            }
        };
        let within = std::time::Duration::from_secs(5);
        tokio::time::timeout(within, room_again).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_may_not_offer_without_end() {
    let stage = Stage::set_with(&["http.trusted_proxies=[127.0.0.1]"]).await;
    let from = async |address: &str| {
        let url = stage.server.url(&stage.path);
        let request = stage.server.client.post(url);
        let request = request.header("x-forwarded-for", address);
        Answer::of(request.send().await.unwrap()).await
    };
    let mut limited = None;
    // More than any pace of this machine refills at ten a second.
    for _ in 0..1_000 {
        let answer = from("203.0.113.1").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
        assert_eq!(answer.status, 415);
    }
    let limited = limited.unwrap();
    assert_eq!(limited.code(), "rate_limited");
    assert_eq!(limited.header("retry-after"), "1");
    assert_eq!(from("203.0.113.2").await.status, 415, "another may");
}
