//! Recordings over HTTP, and what kill -9 leaves of them (media.md 6.7).

use std::time::Duration;

use lamplight_media::broadcast::EndReason;

use crate::support::moto::{BUCKET, Moto};
use crate::support::show::Show;
use crate::support::{Answer, TestServer};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
/// Five whole segments and a little.
const PICTURES: i64 = 320;
const WITHIN: Duration = Duration::from_secs(10);

/// A show of somewhat more than ten seconds that is over, by the name of its recording.
pub(super) async fn over(server: &TestServer) -> String {
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(server, &room);
    show.run_to(PICTURES);
    let instance = show.publisher.broadcast().instance().to_owned();
    let packaged = async {
        let list = format!("/hls/{room}/src/live.m3u8");
        let newest = format!("{instance}-s4.m4s");
        while !server.get(&list).await.text.contains(&newest) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, packaged).await.unwrap();
    show.publisher.finish(EndReason::Finished);
    format!("{room}.{instance}")
}

/// The answer once the recording is there, which is ten seconds after the end at most.
pub(super) async fn ready(server: &TestServer, path: &str) -> Answer {
    let answered = async {
        loop {
            let answer = server.get(path).await;
            if answer.status != 404 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, answered).await.unwrap()
}

fn lengths(list: &str) -> f64 {
    let lines = list
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:"));
    lines
        .map(|l| l.trim_end_matches(',').parse::<f64>().unwrap())
        .sum()
}

/// Fetches every file that a list names; how many segments there are.
async fn fetch_all(server: &TestServer, base: &str, list: &str) -> usize {
    let map = list
        .lines()
        .find_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\""));
    let map = map.unwrap().trim_end_matches('"');
    let segments: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    for file in segments.iter().copied().chain([map]) {
        let url = server.url(&format!("{base}/{file}"));
        let media = server.client.get(&url).send().await.unwrap();
        assert_eq!(media.status(), 200, "{file}");
        let cache = media.headers()["cache-control"].to_str().unwrap();
        assert!(cache.contains("immutable"), "{cache}");
        let whole = media.bytes().await.unwrap();
        let some = server.client.get(&url).header("Range", "bytes=2-5");
        let some = some.send().await.unwrap();
        assert_eq!(some.status(), 206);
        assert_eq!(some.bytes().await.unwrap(), whole.slice(2..6));
    }
    segments.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_that_is_over_is_played_from_its_recording() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    let index = ready(&server, &format!("/vod/{name}/index.m3u8")).await;
    assert_eq!(
        (index.status, index.header("content-type")),
        (200, PLAYLIST.into())
    );
    assert!(index.text.contains("src/vod.m3u8"), "{}", index.text);
    assert!(
        index.text.contains("CODECS=\"avc1.42c01e,mp4a.40.2\""),
        "{}",
        index.text
    );
    assert!(index.text.contains("RESOLUTION=640x360"), "{}", index.text);
    for rendition in ["src", "aac"] {
        let base = format!("/vod/{name}/{rendition}");
        let list = server.get(&format!("{base}/vod.m3u8")).await;
        assert_eq!(
            (list.status, list.header("content-type")),
            (200, PLAYLIST.into())
        );
        assert!(list.text.ends_with("#EXT-X-ENDLIST\n"), "{}", list.text);
        let lasts = lengths(&list.text);
        assert!((10.6..10.8).contains(&lasts), "{lasts}: {}", list.text);
        assert_eq!(fetch_all(&server, &base, &list.text).await, 6);
    }
}

/// The same from a store that speaks S3, and `doctor` tries it.
#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_recorded_to_and_played_from_a_store_that_speaks_s3() {
    let moto = Moto::start();
    let file = moto.credentials(&std::env::temp_dir());
    let settings = [
        format!("record.store=\"s3://{BUCKET}/eu/shows\""),
        format!("record.s3_endpoint=\"http://{}\"", moto.addr),
        format!(
            "record.s3_credentials_file={:?}",
            file.display().to_string()
        ),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = TestServer::start_with(&settings).await;
    let name = over(&server).await;
    ready(&server, &format!("/vod/{name}/index.m3u8")).await;
    let base = format!("/vod/{name}/src");
    let list = server.get(&format!("{base}/vod.m3u8")).await;
    assert_eq!(fetch_all(&server, &base, &list.text).await, 6);
    let mut doctor = server.command(&["doctor"]);
    for setting in &settings {
        doctor.args(["--set", setting]);
    }
    let said = String::from_utf8(doctor.output().unwrap().stdout).unwrap();
    let line = said.lines().find(|line| line.contains("record.store"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    let all = "s3://recordings/eu/shows takes, gives, lists and removes";
    assert!(line.contains(all), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_is_the_segments_of_its_stretch() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    let clip = "?from_us=3000000&to_us=7500000";
    let index = ready(&server, &format!("/vod/{name}/index.m3u8{clip}")).await;
    assert!(
        index.text.contains(&format!("src/vod.m3u8{clip}\n")),
        "{}",
        index.text
    );
    let list = server.get(&format!("/vod/{name}/src/vod.m3u8{clip}")).await;
    let segments = list.text.lines().filter(|line| !line.starts_with('#'));
    assert_eq!(segments.count(), 3, "{}", list.text);
    let start = "#EXT-X-START:TIME-OFFSET=1,PRECISE=YES";
    assert!(list.text.contains(start), "{}", list.text);
    for bad in ["?from_us=5&to_us=5", "?from_us=-1", "?from_us=9&to_us=3"] {
        let answer = server.get(&format!("/vod/{name}/index.m3u8{bad}")).await;
        assert_eq!(answer.status, 400, "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_recording_is_not_found() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    ready(&server, &format!("/vod/{name}/index.m3u8")).await;
    let instance = name.split_once('.').unwrap().1;
    let paths = [
        "/vod/room_1.abcdefghijkl/index.m3u8".to_owned(),
        "/vod/nonsense/index.m3u8".to_owned(),
        "/vod/..%2f..%2fetc.abcdefghijkl/index.m3u8".to_owned(),
        format!("/vod/{name}/v480/vod.m3u8"),
        format!("/vod/{name}/src/live.m3u8"),
        format!("/vod/{name}/src/{instance}-s6.m4s"),
        format!("/vod/{name}/src/{instance}-s01.m4s"),
        format!("/vod/{name}/src/{instance}-init1.mp4"),
        format!("/vod/{name}/src/..%2findex.jsonl"),
        format!("/vod/{name}/src/index.jsonl"),
    ];
    for path in paths {
        assert_eq!(server.get(&path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_show_is_not_recorded_when_that_is_off() {
    let server = TestServer::start_with(&["record.enabled=false"]).await;
    let name = over(&server).await;
    let list = server.app().config().data_dir.join("recordings");
    assert_eq!(
        server.get(&format!("/vod/{name}/index.m3u8")).await.status,
        404
    );
    assert!(!list.exists());
}

/// A store that takes nothing: live is whole, the alarm counter rises, readiness stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_is_counted_and_live_goes_on() {
    let server = TestServer::start_with(&["record.dir=/dev/null/recordings"]).await;
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(&server, &room);
    show.run_to(PICTURES);
    let alarm = async {
        while server.app().media.stats().total("store_dropped_total") == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, alarm).await.unwrap();
    let list = server.get(&format!("/hls/{room}/src/live.m3u8")).await.text;
    assert!(list.contains("-s4.m4s") && !list.contains("GAP"), "{list}");
    assert_eq!(server.get("/readyz").await.status, 200);
    let admin = server.running().bound().admin;
    let metrics = reqwest::get(format!("http://{admin}/metrics"))
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    let alarm = "lamplight_media_store_dropped_total{kind=\"failed\"}";
    assert!(metrics.contains(alarm), "{metrics}");
    assert!(metrics.contains("lamplight_media_store_queue_segments"));
}

/// Makes every room private; a token of the one of this recording, once that is known everywhere.
pub(super) async fn set_private(server: &TestServer, name: &str) -> String {
    let room = name.split_once('.').unwrap().0;
    let sql = "UPDATE room_access SET watch = 'token'";
    let mut tx = server.app().db.begin().await.unwrap();
    sqlx::query(sql).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
    let refused = async {
        while server.get(&format!("/vod/{name}/index.m3u8")).await.status != 401 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // It is remembered for five seconds who may watch.
    tokio::time::timeout(WITHIN, refused).await.unwrap();
    let path = format!("/api/v1/media/broadcasts/{room}/tokens");
    let made = server.post(&path, &serde_json::json!({})).await;
    made.json()["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_recording_needs_what_the_room_needs() {
    let server = TestServer::start().await;
    let name = over(&server).await;
    ready(&server, &format!("/vod/{name}/index.m3u8")).await;
    let token = set_private(&server, &name).await;
    assert_eq!(
        server
            .get(&format!("/vod/{name}/src/vod.m3u8"))
            .await
            .status,
        401
    );
    let index = server
        .get(&format!("/vod/{name}/index.m3u8?token={token}"))
        .await;
    assert_eq!(
        (index.status, index.header("cache-control")),
        (200, "no-store".into())
    );
    assert!(!index.text.contains(&token), "a token is in no URL of ours");
    let list = index
        .text
        .lines()
        .find(|line| line.starts_with("src/"))
        .unwrap();
    assert_eq!(server.get(&format!("/vod/{name}/{list}")).await.status, 200);
}
