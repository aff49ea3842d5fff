//! The checker of low-latency HLS against our own server, in a show in which something happens.

use std::fs::File;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::client::{program, signal};
use crate::hls_players::Clock;
use crate::server::Server;

const CHECKED: Duration = Duration::from_secs(120);
/// Over that: its start, and what it is still held for.
const AROUND_MAX: Duration = Duration::from_secs(90);

/// Two minutes with a rung that starts, a publisher that is killed and comes back, and one that
/// stands still: no rule is broken, our own included.
#[tokio::test]
async fn no_rule_is_broken_in_two_minutes_of_a_show_with_troubles() {
    let server = Server::start("conformance").await;
    let url = server.urls.hls.clone();
    check_with_troubles(&server, &url).await;
}

/// The same of the lists that reach farther back; what they list is there when the live window has
/// moved on, from the first segment on.
#[tokio::test]
async fn no_rule_is_broken_in_the_lists_of_the_dvr_and_the_store_has_what_they_list() {
    let server = Server::start("conformance_dvr").await;
    let url = server.urls.hls.replace("index.m3u8", "dvr.m3u8");
    let _show = check_with_troubles(&server, &url).await;
    let client = reqwest::Client::new();
    for rendition in ["src", "aac"] {
        let base = url.replace("dvr.m3u8", rendition);
        let list = client.get(format!("{base}/dvr.m3u8")).send().await.unwrap();
        let list = list.text().await.unwrap();
        assert!(list.contains("#EXT-X-MEDIA-SEQUENCE:0\n"), "{list}");
        let mut is_gap = false;
        let mut fetched = 0;
        for line in list.lines() {
            is_gap |= line == "#EXT-X-GAP";
            if line.starts_with('#') {
                continue;
            }
            let status = client
                .get(format!("{base}/{line}"))
                .send()
                .await
                .unwrap()
                .status();
            assert_eq!(status == 200, !is_gap, "{line}: {status}");
            fetched += usize::from(!is_gap);
            is_gap = false;
        }
        assert!(fetched > 50, "{list}");
    }
}

/// Checks a show that is published twice; gives the publisher that is on air at the end.
async fn check_with_troubles(server: &Server, url: &str) -> Clock {
    let first = Clock::start(server);
    server.on_air().await;
    server.listed("-s3.m4s").await;
    let log = server.folder().join("hls-check.log");
    // The one that runs these tests.
    let xtask = format!("{}/target/debug/xtask", env!("CARGO_MANIFEST_DIR"));
    let mut checker = program(&xtask);
    checker
        .args(["hls-check", url, "--strict-lamplight"])
        .args(["--seconds", &CHECKED.as_secs().to_string()])
        .stderr(File::create(&log).unwrap());
    let mut checker = checker.spawn().unwrap();
    // The rung starts with the checker, which plays every rendition that is listed.
    sleep(CHECKED / 4).await;
    first.kill().await;
    sleep(Duration::from_secs(3)).await;
    let second = Clock::start(server);
    sleep(CHECKED / 4).await;
    signal(second.child(), "STOP").await;
    sleep(Duration::from_secs(4)).await;
    signal(second.child(), "CONT").await;
    let ended = timeout(CHECKED + AROUND_MAX, checker.wait()).await;
    let status = ended.expect("it ends by itself").unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{said}");
    second
}
