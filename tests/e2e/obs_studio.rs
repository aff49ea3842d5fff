//! A host with OBS Studio: goes live, crashes, comes back, stops, mistypes a key.

use std::time::Duration;

use crate::audience::Audience;
use crate::clip;
use crate::obs::{Obs, Screen};
use crate::pattern;
use crate::probe::Probe;
use crate::server::Server;

/// More than the first take can show.
const SECOND_TAKE: u32 = 10_000;
/// OBS sets a keyframe every 8.3 s; a viewer waits for one at most.
const BACK_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test]
async fn obs_goes_live_comes_back_after_a_crash_stops_and_is_told_of_a_wrong_key() {
    let server = Server::start("obs_studio").await;
    let screen = Screen::open().await;
    let key = server.urls.stream_key.clone();
    let first = clip::make(&server, 0).await;
    let second = clip::make(&server, SECOND_TAKE).await;
    let mut obs = Obs::start(&server, &screen, &first).await;
    assert!(obs.stream(&server, &key).await, "{}", obs.log());
    server.on_air().await;
    Probe::of(&server).await.check_tracks("48000");
    let heard = pattern::Seen::of(&server.urls.hls, pattern::CLIP).await;
    heard.check_sound();
    let mut audience = Audience::enter(&server).await;

    obs.kill().await;
    let mut obs = Obs::start(&server, &screen, &second).await;
    assert!(obs.stream(&server, &key).await, "{}", obs.log());
    // The picture moves, and not only its first frame has come.
    let from = i64::from(SECOND_TAKE) + 60;
    let (back, took) = audience
        .until(BACK_WITHIN, "the second take", |sees| {
            sees.counter >= Some(from)
        })
        .await;
    eprintln!("back in {took:?}: {back:?}");
    for sees in back.whep.iter().chain(&back.hls) {
        assert_eq!((sees.sessions, sees.backwards), (1, 0), "{sees:?}");
        assert_eq!(sees.trouble, [""; 0], "{sees:?}");
    }
    server.logged(&["publisher is back"]).await;
    let instances = server.times_logged(&["publisher came"]);
    assert_eq!(instances, 1, "it is the same broadcast");

    obs.stop().await;
    server.logged(&["broadcast over", "finished"]).await;

    let is_live = obs.stream(&server, "live_mistyped").await;
    assert!(!is_live, "{}", obs.log());
    server.logged(&["publisher refused", "unknown_key"]).await;
    assert!(
        obs.log().contains("stream key is not known"),
        "{}",
        obs.log()
    );
}
