//! A thousand comings and goings of each kind of session: memory is what it was.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{memory_is_back, quiet_as, resident_kib, soon};
use crate::support::TestServer;
use crate::support::show::Show;

const VIEWER: &str = include_str!("../broadcasts/offers/chromium.sdp");
const PUBLISHER: &str = include_str!("../broadcasts/offers/obs.sdp");
/// What is kept for the life of the process is made in these.
const WARM_UP: usize = 300;
const CYCLES: usize = 1_000;
const GROWTH_PER_CENT_MAX: u64 = 5;

/// Memory before and after the cycles stays within its bound.
async fn cycles(name: &str, server: &TestServer, cycle: impl AsyncFn(usize)) {
    let idle = server.app().tasks.running();
    for n in 0..WARM_UP {
        cycle(n).await;
    }
    quiet_as(server, &idle, name).await;
    let before = resident_kib();
    for n in 0..CYCLES {
        cycle(n).await;
    }
    quiet_as(server, &idle, name).await;
    eprintln!("{name}: {before} KiB, then {}", resident_kib());
    memory_is_back(before + before * GROWTH_PER_CENT_MAX / 100).await;
}

/// Offers, and leaves by the address it was given.
async fn come_and_go(server: &TestServer, path: &str, offer: &str, key: Option<&str>) {
    let request = server.client.post(server.url(path));
    let mut request = request.header("content-type", "application/sdp");
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    let answer = request
        .body(offer.replace('\n', "\r\n"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    let session = answer.headers()["location"].to_str().unwrap().to_owned();
    let left = server.client.delete(server.url(&session)).send().await;
    assert_eq!(left.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn viewers_over_whep_and_ll_hls_leave_nothing_behind() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let mut show = Show::start(&server, &room);
    show.run_to(120);
    let whep = format!("/whep/{room}");
    let hls = format!("/hls/{room}/index.m3u8");
    // Once it can be watched, all that makes it runs.
    assert_eq!(server.get(&hls).await.status, 200);
    cycles("whep", &server, async |_| {
        come_and_go(&server, &whep, VIEWER, None).await
    })
    .await;
    cycles("hls", &server, async |_| {
        let list = server.get(&hls).await;
        let media = list
            .text
            .lines()
            .find(|line| line.contains("live.m3u8"))
            .unwrap();
        let media = media
            .split('"')
            .find(|part| part.contains("live.m3u8"))
            .unwrap_or(media);
        let path = format!("/hls/{room}/{media}");
        assert_eq!(server.get(&path).await.status, 200, "{path}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_over_whip_and_rtmp_leave_nothing_behind() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let keys = format!("/api/v1/rooms/{room}/publish_keys");
    let made = server.post(&keys, &serde_json::json!({})).await.json();
    let key = made["key"].as_str().unwrap();
    cycles("whip", &server, async |_| {
        come_and_go(&server, "/whip", PUBLISHER, Some(key)).await;
    })
    .await;
    let port = server.running().bound().rtmp;
    cycles("rtmp", &server, async |n| {
        let mut socket = TcpStream::connect(port).await.unwrap();
        let hello = [&[3][..], &[7; 1_536]].concat();
        socket.write_all(&hello).await.unwrap();
        let mut answer = vec![0; 1 + 2 * 1_536];
        soon("S0, S1 and S2", socket.read_exact(&mut answer))
            .await
            .unwrap();
        // Every other one says nothing more, and the rest a word that is none.
        if n % 2 == 0 {
            drop(socket.write_all(&[0xff; 1_600]).await);
        }
    })
    .await;
}
