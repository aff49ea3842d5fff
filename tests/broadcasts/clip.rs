//! A clip as one file over HTTP (media.md 6.7): whole, in ranges, and refused.

use super::replay::{over, ready, set_private};
use crate::support::TestServer;

const CLIP: &str = "from_us=3000000&to_us=7500000";

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_is_one_file_that_is_shown_and_kept_under_its_name() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    let path = format!("/vod/{name}/clip.mp4?{CLIP}");
    ready(&server, &path).await;
    let url = server.url(&path);
    let whole = server.client.get(&url).send().await.unwrap();
    assert_eq!(whole.status(), 200);
    let header = |name: &str| whole.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "video/mp4");
    assert_eq!(header("cache-control"), "public, max-age=60");
    assert_eq!(header("accept-ranges"), "bytes");
    let room = name.split_once('.').unwrap().0;
    let disposition = header("content-disposition");
    let begins = format!("inline; filename=\"{room}-20");
    assert!(
        disposition.starts_with(&begins) && disposition.ends_with(".mp4\""),
        "{disposition}"
    );
    let (tag, length) = (header("etag"), header("content-length"));
    let bytes = whole.bytes().await.unwrap();
    assert_eq!(bytes.len().to_string(), length);
    assert_eq!(&bytes[4..8], b"ftyp");

    let head = server.client.head(&url).send().await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(head.headers()["content-length"], length);
    assert_eq!(head.bytes().await.unwrap().len(), 0);
    let known = server
        .client
        .get(&url)
        .header("If-None-Match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(known.status(), 304);
}

/// A player that seeks, and a download that goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_of_a_clip_is_those_bytes_of_the_whole() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    let path = format!("/vod/{name}/clip.mp4");
    ready(&server, &path).await;
    let url = server.url(&path);
    let whole = server.client.get(&url).send().await.unwrap();
    let tag = whole.headers()["etag"].clone();
    let whole = whole.bytes().await.unwrap();
    let length = whole.len();
    let middle = length / 2;
    let cases = [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=4-7".to_owned(), 4..8),
        (format!("bytes={middle}-"), middle..length),
        (
            format!("bytes={}-{}", middle - 3_000, middle),
            middle - 3_000..middle + 1,
        ),
        ("bytes=-10".to_owned(), length - 10..length),
    ];
    for (asked, range) in cases {
        let some = server
            .client
            .get(&url)
            .header("Range", &asked)
            .header("If-Range", &tag);
        let some = some.send().await.unwrap();
        assert_eq!(some.status(), 206, "{asked}");
        let says = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        assert_eq!(some.headers()["content-range"], says, "{asked}");
        assert_eq!(
            some.headers()["content-length"],
            (range.end - range.start).to_string()
        );
        assert_eq!(some.bytes().await.unwrap(), whole.slice(range), "{asked}");
    }
    let beyond = server
        .client
        .get(&url)
        .header("Range", format!("bytes={length}-"));
    let beyond = beyond.send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    assert_eq!(
        beyond.headers()["content-range"],
        format!("bytes */{length}")
    );
    let other = server
        .client
        .get(&url)
        .header("Range", "bytes=4-7")
        .header("If-Range", "\"x\"");
    assert_eq!(other.send().await.unwrap().bytes().await.unwrap(), whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_of_nothing_or_of_nonsense_is_refused() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    ready(&server, &format!("/vod/{name}/index.m3u8")).await;
    let cases = [
        (
            format!("/vod/{name}/clip.mp4?from_us=60000000&to_us=70000000"),
            404,
        ),
        (format!("/vod/{name}/clip.mp4?from_us=5&to_us=5"), 400),
        (format!("/vod/{name}/clip.mp4?from_us=-1"), 400),
        (format!("/vod/{name}/clip.mp4?from_us=x"), 400),
        ("/vod/room_1.abcdefghijkl/clip.mp4".to_owned(), 404),
        ("/vod/nonsense/clip.mp4".to_owned(), 404),
    ];
    for (path, status) in cases {
        assert_eq!(server.get(&path).await.status, status, "{path}");
    }
}

/// Its beginning cannot be written: an answer that says so, and no half a file.
#[tokio::test(flavor = "multi_thread")]
async fn a_clip_whose_store_lost_its_beginning_is_not_found_and_one_damaged_later_is_whole() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    let path = format!("/vod/{name}/clip.mp4?{CLIP}");
    ready(&server, &path).await;
    let whole = server.client.get(server.url(&path)).send().await.unwrap();
    let whole = whole.bytes().await.unwrap();
    let instance = name.split_once('.').unwrap().1;
    let kept = server
        .app()
        .config()
        .data_dir
        .join("recordings")
        .join(&name);
    let segment = |msn: u32| kept.join("src").join(format!("{instance}-s{msn}.m4s"));
    std::fs::write(segment(2), b"rubbish").unwrap();
    let filled = server.client.get(server.url(&path)).send().await.unwrap();
    assert_eq!(filled.bytes().await.unwrap().len(), whole.len());
    std::fs::remove_file(segment(1)).unwrap();
    assert_eq!(server.get(&path).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_of_a_private_recording_needs_a_token() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    let path = format!("/vod/{name}/clip.mp4?{CLIP}");
    ready(&server, &path).await;
    let token = set_private(&server, &name).await;
    assert_eq!(server.get(&path).await.status, 401);
    let url = server.url(&format!("{path}&token={token}"));
    let clip = server.client.get(&url).send().await.unwrap();
    assert_eq!(clip.status(), 200);
    assert_eq!(clip.headers()["cache-control"], "no-store");
    let bearer = server.client.get(server.url(&path)).bearer_auth(&token);
    assert_eq!(bearer.send().await.unwrap().status(), 200);
}
