//! LL-HLS over HTTP: every status and header of media.md 6.5.
//!
//! The show has two seconds between keyframes, so a segment is four parts of half a second, and a
//! part is fifteen pictures.

use std::time::Duration;

use lamplight_media::broadcast::EndReason;
use reqwest::header::HeaderMap;

use crate::support::show::Show;
use crate::support::{Answer, TestServer};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
const A_SECOND: &str = "public, max-age=1";
const HELD: &str = "public, max-age=24";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
/// Three whole segments, one whole part of the fourth, and a little.
const PICTURES: i64 = 198;
const WITHIN: Duration = Duration::from_secs(5);

struct Stage {
    server: TestServer,
    room: String,
    show: Option<Show>,
}

impl Stage {
    /// A show whose segment 3 has one part.
    async fn set() -> Self {
        let server = TestServer::start().await;
        let room = server.room(&server.creator("anna").await).await;
        let mut show = Show::start(&server, &room);
        show.run_to(PICTURES);
        let stage = Self {
            server,
            room,
            show: Some(show),
        };
        let packaged = async {
            while stage.get("index.m3u8").await.status == 404 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WITHIN, packaged).await.unwrap();
        for rendition in ["src", "aac"] {
            // It may not be asked for before the packager is two segments away from it.
            let here = format!("{rendition}/live.m3u8?_HLS_msn=3&_HLS_part=0");
            let packaged = async {
                while stage.get(&here).await.status == 400 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(WITHIN, packaged).await.unwrap();
            assert_eq!(stage.get(&here).await.status, 200, "{rendition}");
        }
        stage
    }

    fn show(&mut self) -> &mut Show {
        self.show.as_mut().unwrap()
    }

    fn path(&self, rest: &str) -> String {
        format!("/hls/{}/{rest}", self.room)
    }

    async fn get(&self, rest: &str) -> Answer {
        self.server.get(&self.path(rest)).await
    }

    async fn get_with(&self, rest: &str, name: &str, value: &str) -> reqwest::Response {
        let url = self.server.url(&self.path(rest));
        let request = self.server.client.get(url).header(name, value);
        request.send().await.unwrap()
    }

    /// The answer to a request that is waiting now, and that `next` satisfies.
    async fn held(&mut self, rest: &str, next: i64) -> Answer {
        let url = self.server.url(&self.path(rest));
        let request = self.server.client.get(url).send();
        let look = self.server.url(&self.path("src/live.m3u8"));
        let look = self.server.client.get(look).send();
        let show = self.show.as_mut().unwrap();
        let goes_on = async {
            // Meanwhile the server has answered another, so the request has come to it.
            assert_eq!(look.await.unwrap().status(), 200);
            show.run_to(next);
        };
        let (answer, ()) = tokio::join!(request, goes_on);
        Answer::of(answer.unwrap()).await
    }

    /// The show ends, and the playlists know.
    async fn end(&mut self) {
        let show = self.show.take().unwrap();
        show.publisher.finish(EndReason::Finished);
        let ended = async {
            while !self.get("src/live.m3u8").await.text.contains("ENDLIST") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(WITHIN, ended).await.unwrap();
    }
}

/// The first quoted URI of lines that begin so.
fn uri(playlist: &str, tag: &str) -> String {
    let line = playlist.lines().find(|line| line.starts_with(tag)).unwrap();
    let quoted = line.split_once("URI=\"").unwrap().1;
    quoted.split('"').next().unwrap().into()
}

/// A playlist without what differs in every run.
fn redacted(playlist: &str) -> String {
    let map = uri(playlist, "#EXT-X-MAP");
    let instance = map.split('-').next().unwrap();
    let playlist = playlist.replace(instance, "[instance]");
    without(&playlist, &["PROGRAM-DATE-TIME:"])
}

/// A text whose values after these names depend on when it was looked at.
fn without(text: &str, names: &[&str]) -> String {
    let hide = |text: String, name: &&str| {
        let mut pieces = text.split(name);
        let first = pieces.next().unwrap().to_owned();
        pieces.fold(first, |text, piece| {
            let at = piece.find([',', '\n']).unwrap();
            format!("{text}{name}[measured]{}", &piece[at..])
        })
    };
    names.iter().fold(text.to_owned(), hide)
}

fn status_and_cache(answer: &Answer) -> (u16, String) {
    (answer.status, answer.header("cache-control"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_multivariant_playlist_is_of_one_viewer() {
    let stage = Stage::set().await;
    let one = stage.get("index.m3u8").await;
    assert_eq!(status_and_cache(&one), (200, "no-store".into()));
    assert_eq!(one.header("content-type"), PLAYLIST);
    assert_eq!(one.header("vary"), "Accept-Encoding");
    let session = one.text.split_once("?s=").unwrap().1;
    let session = session.split(['"', '\n']).next().unwrap();
    let shared = one.text.replace(session, "[session]");
    let measured = ["BANDWIDTH=", "FRAME-RATE="];
    insta::assert_snapshot!(without(&shared, &measured));
    let other = stage.get("index.m3u8").await;
    assert_ne!(one.text, other.text, "a session is of one viewer");
    let with_session = format!("src/live.m3u8?s={session}");
    assert_eq!(stage.get(&with_session).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_says_what_there_is() {
    let stage = Stage::set().await;
    for rendition in ["src", "aac"] {
        let answer = stage.get(&format!("{rendition}/live.m3u8")).await;
        assert_eq!(status_and_cache(&answer), (200, A_SECOND.into()));
        assert_eq!(answer.header("content-type"), PLAYLIST);
        assert_eq!(answer.header("vary"), "Accept-Encoding");
        assert_eq!(answer.header("set-cookie"), "");
        assert_eq!(answer.header("age"), "");
        insta::assert_snapshot!(rendition, redacted(&answer.text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directive_gets_the_row_of_its_table() {
    let stage = Stage::set().await;
    let cases = [
        ("", 200, A_SECOND),
        ("?s=abc", 200, A_SECOND),
        ("?_HLS_msn=0", 200, HELD),
        ("?_HLS_msn=2", 200, HELD),
        ("?_HLS_msn=2&_HLS_part=3", 200, HELD),
        ("?_HLS_msn=2&_HLS_part=4", 200, HELD),
        ("?_HLS_msn=2&_HLS_part=99", 200, HELD),
        ("?_HLS_part=0&s=abc&_HLS_msn=3", 200, HELD),
        ("?_HLS_skip=YES", 200, A_SECOND),
        ("?_HLS_skip=v2", 200, A_SECOND),
        ("?_HLS_msn=5", 400, A_SECOND),
        ("?_HLS_msn=5&_HLS_part=0", 400, A_SECOND),
        ("?_HLS_msn=3&_HLS_part=7", 400, A_SECOND),
        ("?_HLS_msn=4&_HLS_part=6", 400, A_SECOND),
        ("?_HLS_part=1", 400, A_SECOND),
        ("?_HLS_msn=", 400, A_SECOND),
        ("?_HLS_msn=x", 400, A_SECOND),
        ("?_HLS_msn=-1", 400, A_SECOND),
        ("?_HLS_msn=+1", 400, A_SECOND),
        ("?_HLS_msn=%31", 400, A_SECOND),
        ("?_HLS_msn=1.5", 400, A_SECOND),
        ("?_HLS_msn=18446744073709551615", 400, A_SECOND),
        ("?_HLS_msn=18446744073709551616", 400, A_SECOND),
        ("?_HLS_msn=3&_HLS_part=18446744073709551615", 400, A_SECOND),
        ("?_HLS_msn=1&_HLS_msn=1", 400, A_SECOND),
        ("?_HLS_msn=1&_HLS_part=0&_HLS_part=0", 400, A_SECOND),
        ("?_HLS_skip=no", 400, A_SECOND),
    ];
    for (query, status, cache) in cases {
        let answer = stage.get(&format!("src/live.m3u8{query}")).await;
        assert_eq!(status_and_cache(&answer), (status, cache.into()), "{query}");
        if status == 400 {
            assert_eq!(answer.code(), "malformed", "{query}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_directive_is_named_with_the_fix() {
    let stage = Stage::set().await;
    let cases = [
        (
            "?_HLS_msn=x",
            "_HLS_msn and _HLS_part take decimal integers",
        ),
        ("?_HLS_part=1", "_HLS_part needs _HLS_msn"),
        ("?_HLS_msn=9", "_HLS_msn is more than two segments ahead"),
        ("?_HLS_msn=3&_HLS_part=9", "_HLS_part is too far ahead"),
        ("?_HLS_skip=x", "_HLS_skip takes YES or v2"),
    ];
    for (query, detail) in cases {
        let answer = stage.get(&format!("src/live.m3u8{query}")).await;
        assert_eq!(answer.json()["detail"], detail, "{query}");
    }
    let long = format!("src/live.m3u8?x={}", "y".repeat(3_000));
    let answer = stage.get(&long).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "malformed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_that_is_waited_for_comes_with_its_part_and_not_before() {
    let mut stage = Stage::set().await;
    let ahead = "src/live.m3u8?_HLS_msn=3&_HLS_part=1";
    let answer = stage.held(ahead, 211).await;
    assert_eq!(status_and_cache(&answer), (200, HELD.into()));
    // Part 1 of segment 3 is the fourteenth of the show.
    assert!(answer.text.contains("-p13.m4s\""), "{}", answer.text);

    let far = "src/live.m3u8?_HLS_msn=3&_HLS_part=6";
    let answer = stage.held(far, 256).await;
    assert_eq!(answer.status, 200, "past the end of 3 is the first of 4");
    assert!(answer.text.contains("-p16.m4s\",INDEPENDENT=YES"));

    let whole = stage.held("src/live.m3u8?_HLS_msn=4", 301).await;
    assert_eq!(status_and_cache(&whole), (200, HELD.into()));
    assert!(whole.text.contains("-s4.m4s"), "{}", whole.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hinted_part_is_sent_once_it_is_whole() {
    let mut stage = Stage::set().await;
    let playlist = stage.get("src/live.m3u8").await.text;
    let hinted = format!("src/{}", uri(&playlist, "#EXT-X-PRELOAD-HINT"));
    let part = stage.held(&hinted, 211).await;
    assert_eq!(status_and_cache(&part), (200, IMMUTABLE.into()));
    assert_eq!(part.header("content-type"), "video/mp4");
    let listed = stage.get("src/live.m3u8").await.text;
    let name = hinted.strip_prefix("src/").unwrap();
    assert!(listed.contains(&format!("URI=\"{name}\"")), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_leaves_out_what_is_older_than_24_seconds() {
    let mut stage = Stage::set().await;
    for segment in 4..18 {
        let until = segment * 60 + 16;
        let here = format!("src/live.m3u8?_HLS_msn={segment}&_HLS_part=0");
        assert_eq!(stage.held(&here, until).await.status, 200);
    }
    let whole = stage.get("src/live.m3u8").await.text;
    for (skip, version) in [("YES", "9"), ("v2", "10")] {
        let path = format!("src/live.m3u8?_HLS_skip={skip}");
        let delta = stage.get(&path).await;
        let tag = format!("#EXT-X-VERSION:{version}\n");
        assert!(delta.text.contains(&tag), "{}", delta.text);
        let skipped = delta
            .text
            .split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=")
            .unwrap();
        let skipped: usize = skipped.1.lines().next().unwrap().parse().unwrap();
        let count = |text: &str| text.matches("#EXTINF").count();
        assert_eq!(skipped + count(&delta.text), count(&whole), "{skip}");
        assert!(skipped >= 5, "{skipped} of 34 s are older than 24 s");
        assert!(!delta.text.contains("#EXT-X-MAP"), "{}", delta.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn media_is_immutable_and_carries_its_tag() {
    let stage = Stage::set().await;
    for (rendition, kind) in [("src", "video/mp4"), ("aac", "audio/mp4")] {
        let playlist = stage.get(&format!("{rendition}/live.m3u8")).await.text;
        let segment = playlist.lines().find(|line| line.ends_with("-s0.m4s"));
        let names = [
            uri(&playlist, "#EXT-X-MAP"),
            uri(&playlist, "#EXT-X-PART:"),
            segment.unwrap().to_owned(),
        ];
        for name in names {
            let path = format!("{rendition}/{name}");
            let url = stage.server.url(&stage.path(&path));
            let media = stage.server.client.get(url).send().await.unwrap();
            assert_eq!(media.status(), 200, "{name}");
            let header = |field| media.headers()[field].to_str().unwrap().to_owned();
            assert_eq!(header("content-type"), kind, "{name}");
            assert_eq!(header("cache-control"), IMMUTABLE, "{name}");
            assert_eq!(header("accept-ranges"), "bytes", "{name}");
            let tag = header("etag");
            let bytes = media.bytes().await.unwrap();
            assert_eq!(
                bytes.get(5..8),
                Some(&b"typ"[..])
                    .filter(|_| name.contains("init"))
                    .or(Some(&b"oof"[..])),
                "{name}"
            );
            let again = stage.get_with(&path, "if-none-match", &tag).await;
            assert_eq!(again.status(), 304, "{name}");
            assert_eq!(again.headers()["etag"].to_str().unwrap(), tag);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_its_parts_and_any_single_range_of_them() {
    let stage = Stage::set().await;
    let playlist = stage.get("src/live.m3u8").await.text;
    let segment = playlist.lines().find(|l| l.ends_with("-s2.m4s")).unwrap();
    let path = format!("src/{segment}");
    let whole = stage.get_with(&path, "x", "y").await.bytes().await.unwrap();
    let mut parts = Vec::new();
    for n in 8..12 {
        let part = format!("src/{}", segment.replace("-s2.", &format!("-p{n}.")));
        let part = stage.get_with(&part, "x", "y").await;
        parts.extend_from_slice(&part.bytes().await.unwrap());
    }
    assert_eq!(whole, parts);
    let length = whole.len();
    let cases = [
        ("bytes=0-9", 206, format!("bytes 0-9/{length}"), 10),
        (
            "bytes=-5",
            206,
            format!("bytes {}-{}/{length}", length - 5, length - 1),
            5,
        ),
        ("bytes=99999999-", 416, format!("bytes */{length}"), 0),
        ("bytes=9-3", 416, format!("bytes */{length}"), 0),
        ("lines=0-9", 200, String::new(), length),
    ];
    for (range, status, says, bytes) in cases {
        let answer = stage.get_with(&path, "range", range).await;
        assert_eq!(answer.status(), status, "{range}");
        let said = answer.headers().get("content-range");
        assert_eq!(said.map_or("", |v| v.to_str().unwrap()), says, "{range}");
        assert_eq!(answer.bytes().await.unwrap().len(), bytes, "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_for_a_second() {
    let stage = Stage::set().await;
    let playlist = stage.get("src/live.m3u8").await.text;
    let instance = uri(&playlist, "#EXT-X-MAP");
    let instance = instance.split('-').next().unwrap();
    let paths = [
        format!("src/{instance}-s3.m4s"),
        format!("src/{instance}-s99.m4s"),
        format!("src/{instance}-p14.m4s"),
        format!("src/{instance}-p999.m4s"),
        format!("src/{instance}-init9.mp4"),
        format!("src/{instance}-s00.m4s"),
        format!("src/{instance}-s-1.m4s"),
        format!("src/{instance}-s18446744073709551616.m4s"),
        "src/000000000000-s0.m4s".to_owned(),
        "src/index.m3u8".to_owned(),
        "src/..%2f..%2flive.m3u8".to_owned(),
        "src/%00".to_owned(),
        "v720/live.m3u8".to_owned(),
    ];
    for path in paths {
        let answer = stage.get(&path).await;
        assert_eq!(status_and_cache(&answer), (404, A_SECOND.into()), "{path}");
        assert_eq!(answer.code(), "not_found", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_is_unknown_or_waits_is_told_apart() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let unknown = "room_01M86VRGYAE3AR7SWFHPWY1Y64";
    for file in ["index.m3u8", "src/live.m3u8", "src/x-s0.m4s"] {
        let waiting = server.get(&format!("/hls/{room}/{file}")).await;
        assert_eq!(status_and_cache(&waiting), (404, A_SECOND.into()));
        assert_eq!(waiting.code(), "not_live");
        assert_eq!(waiting.header("retry-after"), "2");
        for other in [unknown, "nonsense", "a%2fb"] {
            let answer = server.get(&format!("/hls/{other}/{file}")).await;
            assert_eq!(status_and_cache(&answer), (404, A_SECOND.into()), "{other}");
            assert_eq!(answer.code(), "not_found", "{other}");
        }
        let no_text = server.get(&format!("/hls/%ff/{file}")).await;
        assert_eq!(
            (no_text.status, no_text.code().as_str()),
            (404, "not_found")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn media_of_a_show_that_ended_stays_while_the_next_one_is_live() {
    let mut stage = Stage::set().await;
    let before = stage.get("src/live.m3u8").await.text;
    let names = [
        uri(&before, "#EXT-X-MAP"),
        uri(&before, "#EXT-X-PART:"),
        before
            .lines()
            .find(|l| l.ends_with("-s1.m4s"))
            .unwrap()
            .into(),
    ];
    let fetched = async |stage: &Stage| {
        let mut all = Vec::new();
        for name in &names {
            let path = format!("src/{name}");
            let media = stage.get_with(&path, "x", "y").await;
            assert_eq!(media.status(), 200, "{name}");
            all.push(media.bytes().await.unwrap());
        }
        all
    };
    let first = fetched(&stage).await;
    stage.end().await;
    let mut next = Show::start(&stage.server, &stage.room);
    next.run_to(PICTURES);
    stage.show = Some(next);
    let is_new = async {
        while stage.get("src/live.m3u8").await.text.contains("ENDLIST") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, is_new).await.unwrap();
    assert_eq!(fetched(&stage).await, first);
    let here = "src/live.m3u8?_HLS_msn=3&_HLS_part=0";
    let after = stage.get(here).await.text;
    assert_ne!(uri(&after, "#EXT-X-MAP"), names[0], "another instance");
}

/// It had nothing to play yet when it ended: like a room where nobody publishes.
#[tokio::test(flavor = "multi_thread")]
async fn a_show_that_ended_before_it_could_be_played_is_not_live() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(&server, &room);
    show.run_to(10);
    let url = server.url(&format!("/hls/{room}/index.m3u8"));
    let waits = server.client.get(&url).send();
    let ends = async {
        // It is packaged once its playlist is more than "nobody publishes".
        let list = format!("/hls/{room}/src/live.m3u8");
        while server.get(&list).await.status == 404 {
            tokio::task::yield_now().await;
        }
        show.publisher.finish(EndReason::Finished);
    };
    let (held, ()) = tokio::join!(waits, ends);
    for answer in [
        Answer::of(held.unwrap()).await,
        server.get(&format!("/hls/{room}/index.m3u8")).await,
        server.get(&format!("/hls/{room}/src/live.m3u8")).await,
    ] {
        assert_eq!(status_and_cache(&answer), (404, A_SECOND.into()));
        assert_eq!(answer.code(), "not_live");
        assert_eq!(answer.header("retry-after"), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_that_ended_stays_and_ignores_directives() {
    let mut stage = Stage::set().await;
    let playlist = stage.get("src/live.m3u8").await.text;
    let hinted = format!("src/{}", uri(&playlist, "#EXT-X-PRELOAD-HINT"));
    stage.end().await;
    let ended = stage.get("src/live.m3u8").await.text;
    assert!(ended.ends_with("#EXT-X-ENDLIST\n"), "{ended}");
    assert!(!ended.contains("PRELOAD-HINT"), "{ended}");
    for query in ["?_HLS_msn=99", "?_HLS_msn=3&_HLS_part=99", "?_HLS_skip=YES"] {
        let answer = stage.get(&format!("src/live.m3u8{query}")).await;
        assert_eq!((answer.status, &answer.text), (200, &ended), "{query}");
    }
    let next = hinted.replace("-p13.", "-p14.");
    assert_eq!(stage.get(&next).await.status, 404);
    assert_eq!(stage.get("index.m3u8").await.status, 200);
    let first = ended.lines().find(|line| line.ends_with("-s0.m4s"));
    let first = format!("src/{}", first.unwrap());
    assert_eq!(stage.get(&first).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_playlist_comes_in_the_coding_the_client_takes() {
    let stage = Stage::set().await;
    let cases = [
        ("gzip", "gzip"),
        ("gzip, deflate, br", "br"),
        ("br;q=0, gzip;q=0.5", "gzip"),
        ("gzip;q=0", ""),
        ("identity", ""),
        ("*;q=0.1", ""),
    ];
    for path in ["index.m3u8", "src/live.m3u8"] {
        for (takes, coding) in cases {
            let answer = stage.get_with(path, "accept-encoding", takes).await;
            let header = |headers: &HeaderMap, name: &str| {
                headers
                    .get(name)
                    .map_or_else(String::new, |v| v.to_str().unwrap().into())
            };
            assert_eq!(
                header(answer.headers(), "content-encoding"),
                coding,
                "{takes}"
            );
            assert_eq!(
                header(answer.headers(), "vary"),
                "Accept-Encoding",
                "{takes}"
            );
            let bytes = answer.bytes().await.unwrap();
            match coding {
                "gzip" => assert_eq!(bytes.get(..2), Some(&[0x1f, 0x8b][..])),
                "br" => assert!(!bytes.starts_with(b"#EXTM3U")),
                _ => assert!(bytes.starts_with(b"#EXTM3U")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_origin_may_read_ranges_and_their_headers() {
    let stage = Stage::set().await;
    let url = stage.server.url(&stage.path("src/live.m3u8"));
    let preflight = stage
        .server
        .client
        .request(reqwest::Method::OPTIONS, url)
        .header("origin", "https://shop.example")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "range");
    let preflight = Answer::of(preflight.send().await.unwrap()).await;
    assert_eq!(preflight.status, 200);
    let allowed = preflight.header("access-control-allow-headers");
    assert!(allowed.split(", ").any(|name| name == "Range"), "{allowed}");
    for path in ["src/live.m3u8", "src/none.m4s", "src/live.m3u8?_HLS_msn=x"] {
        let answer = stage.get_with(path, "origin", "https://shop.example").await;
        let answer = Answer::of(answer).await;
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        let exposed = answer.header("access-control-expose-headers");
        for name in ["Content-Length", "Content-Range", "Age", "ETag", "Date"] {
            assert!(exposed.split(", ").any(|e| e == name), "{name}: {exposed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_says_what_get_would_and_other_methods_are_refused() {
    let stage = Stage::set().await;
    let call = async |method: reqwest::Method, path: &str| {
        let url = stage.server.url(&stage.path(path));
        let request = stage.server.client.request(method, url);
        Answer::of(request.send().await.unwrap()).await
    };
    let head = call(reqwest::Method::HEAD, "src/live.m3u8").await;
    let get = stage.get("src/live.m3u8").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for name in ["content-type", "cache-control", "content-length", "vary"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    for path in ["index.m3u8", "src/live.m3u8"] {
        let post = call(reqwest::Method::POST, path).await;
        assert_eq!(
            (post.status, post.code().as_str()),
            (405, "method_not_allowed")
        );
        assert_eq!(post.header("allow"), "GET,HEAD");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_speak_http_2_without_tls() {
    let mut stage = Stage::set().await;
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let client = client.build().unwrap();
    let url = stage.server.url(&stage.path("src/live.m3u8"));
    let waiting = client.get(format!("{url}?_HLS_msn=3&_HLS_part=1")).send();
    let beside = async {
        let now = client.get(&url).send().await.unwrap();
        stage.show().run_to(211);
        now
    };
    let (held, now) = tokio::join!(waiting, beside);
    let held = held.unwrap();
    assert_eq!(
        (now.version(), now.status().as_u16()),
        (reqwest::Version::HTTP_2, 200)
    );
    assert_eq!(
        (held.version(), held.status().as_u16()),
        (reqwest::Version::HTTP_2, 200)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_connection_at_most_32_requests_wait() {
    let mut stage = Stage::set().await;
    let client = reqwest::Client::builder().http2_prior_knowledge();
    let client = client.build().unwrap();
    let url = stage.server.url(&stage.path("src/live.m3u8"));
    // The connection stands before many want it.
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..33 {
        let waiting = client.get(format!("{url}?_HLS_msn=3&_HLS_part=1"));
        requests.spawn(waiting.send());
    }
    let first = requests.join_next().await.unwrap().unwrap().unwrap();
    let refused = Answer::of(first).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (429, "rate_limited")
    );
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    stage.show().run_to(211);
    for answer in requests.join_all().await {
        assert_eq!(answer.unwrap().status(), 200);
    }
}
