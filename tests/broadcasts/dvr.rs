//! The lists that reach farther back, over HTTP (media.md 6.6).

use std::time::Duration;

use super::replay::set_private;
use crate::support::TestServer;
use crate::support::show::Show;

/// Of two seconds: more than the live list has.
const SEGMENTS: i64 = 44;
const WITHIN: Duration = Duration::from_secs(10);

/// A live show of so many segments, once all of them are listed.
async fn live(server: &TestServer) -> (String, Show) {
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(server, &room);
    let list = format!("/hls/{room}/src/live.m3u8");
    let packaged = async {
        // A segment at a time: more than the rings hold would be passed over.
        for msn in 0..SEGMENTS {
            show.run_to((msn + 1) * 60 + 2);
            while !server
                .get(&list)
                .await
                .text
                .contains(&format!("-s{msn}.m4s"))
            {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(WITHIN, packaged).await.unwrap();
    (room, show)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_of_the_dvr_sees_the_show_from_its_beginning() {
    let server = TestServer::start().await;
    let (room, _show) = live(&server).await;
    let index = server.get(&format!("/hls/{room}/dvr.m3u8")).await;
    assert_eq!(index.status, 200);
    assert_eq!(
        index.header("content-type"),
        "application/vnd.apple.mpegurl"
    );
    let is_src = |line: &&str| line.starts_with("src/dvr.m3u8?s=");
    assert!(
        index.text.lines().any(|line| is_src(&line)),
        "{}",
        index.text
    );
    for rendition in ["src", "aac"] {
        let path = format!("/hls/{room}/{rendition}/dvr.m3u8");
        let list = server.get(&path).await;
        assert_eq!(
            (list.status, list.header("cache-control")),
            (200, "public, max-age=1".into())
        );
        assert!(
            list.text.contains("#EXT-X-MEDIA-SEQUENCE:0\n"),
            "{}",
            list.text
        );
        let delta = server.get(&format!("{path}?_HLS_skip=YES")).await.text;
        assert!(delta.contains("#EXT-X-SKIP:"), "{delta}");
        let listed = |text: &str| text.matches("#EXTINF").count();
        assert!(listed(&delta) < 15 && listed(&list.text) >= 44, "{delta}");
        for file in list.text.lines().filter(|line| !line.starts_with('#')) {
            let file = format!("/hls/{room}/{rendition}/{file}");
            let media = server.client.get(server.url(&file)).send().await.unwrap();
            assert_eq!(media.status(), 200, "{file}");
        }
    }
    let none = server.get(&format!("/hls/{room}/v240/dvr.m3u8")).await;
    assert_eq!(none.status, 404, "a rung is not recorded");
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_dvr_where_it_is_off_or_nothing_is_recorded() {
    for off in ["hls.dvr_s=0", "record.enabled=false"] {
        let server = TestServer::start_with(&[off]).await;
        let (room, _show) = live(&server).await;
        assert_eq!(
            server.get(&format!("/hls/{room}/dvr.m3u8")).await.status,
            404,
            "{off}"
        );
        let list = server.get(&format!("/hls/{room}/src/dvr.m3u8")).await;
        assert_eq!(list.status, 404, "{off}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dvr_of_a_private_room_needs_a_token() {
    let server = TestServer::start().await;
    let (room, _show) = live(&server).await;
    let token = set_private(&server, &format!("{room}.abcdefghijkl")).await;
    for path in ["dvr.m3u8", "src/dvr.m3u8"] {
        assert_eq!(
            server.get(&format!("/hls/{room}/{path}")).await.status,
            401,
            "{path}"
        );
    }
    let index = server
        .get(&format!("/hls/{room}/dvr.m3u8?token={token}"))
        .await;
    let list = index
        .text
        .lines()
        .find(|line| line.starts_with("src/"))
        .unwrap();
    assert_eq!(server.get(&format!("/hls/{room}/{list}")).await.status, 200);
}
