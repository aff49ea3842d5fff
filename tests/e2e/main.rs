//! The product end to end: real encoders publish, the real binary serves, real players watch.
//!
//! Run by `cargo xtask e2e`, which builds the pages and the browser's driver first. What was on
//! screen, what the server logged and what ffmpeg said is kept under `target/e2e`.

#[cfg(test)]
mod audience;
#[cfg(test)]
mod client;
#[cfg(test)]
mod clip;
#[cfg(test)]
mod clip_file;
#[cfg(test)]
mod conformance;
#[cfg(test)]
mod encoders;
#[cfg(test)]
mod flv;
#[cfg(test)]
mod hls_players;
#[cfg(test)]
mod http_flv;
#[cfg(test)]
mod link;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod obs;
#[cfg(test)]
mod obs_studio;
#[cfg(test)]
mod odd_publishers;
#[cfg(test)]
mod outages;
#[cfg(test)]
mod pattern;
#[cfg(test)]
mod players;
#[cfg(test)]
mod probe;
#[cfg(test)]
mod publisher;
#[cfg(test)]
mod rtmp_play;
#[cfg(test)]
mod server;
#[cfg(test)]
mod show_times;
#[cfg(test)]
mod slow_readers;
#[cfg(test)]
mod viewer;
#[cfg(test)]
mod whip_publisher;

use std::time::Duration;

use self::publisher::Publisher;
use self::server::Server;
use self::show_times::ShowTimes;
use self::viewer::{Seen, Viewer};
use self::whip_publisher::WhipPublisher;

/// From opening the page to the first picture (issue: within 2 s and 3 s of joining).
const WHEP_FIRST_FRAME_MS_MAX: f64 = 2_000.0;
const HLS_FIRST_FRAME_MS_MAX: f64 = 3_000.0;
const WATCHED: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_viewer_over_whep_sees_and_hears_the_show_and_the_card_on_its_frame() {
    let seen = watch("whep").await;
    seen.check(WHEP_FIRST_FRAME_MS_MAX);
}

#[tokio::test]
async fn a_viewer_over_ll_hls_sees_and_hears_the_show_and_the_card_on_its_frame() {
    let seen = watch("hls").await;
    seen.check(HLS_FIRST_FRAME_MS_MAX);
}

/// One show, one viewer of it, and where the card was on the publisher's own clock.
async fn watch(protocol: &str) -> Watched {
    let server = Server::start(protocol).await;
    let publisher = Publisher::start(&server, server.publish_url());
    server.on_air().await;
    let viewer = Viewer {
        protocol,
        watched: WATCHED,
    };
    let seen = viewer.watch(&server).await;
    let recording = publisher.stop().await;
    let times = ShowTimes::read(&recording);
    Watched { seen, times }
}

struct Watched {
    seen: Seen,
    times: ShowTimes,
}

impl Watched {
    fn check(&self, first_frame_ms_max: f64) {
        let Self { seen, times } = self;
        eprintln!("{seen:#?}");
        assert_eq!(seen.trouble, [""; 0], "the page raised errors");
        seen.check_picture(first_frame_ms_max, WATCHED);
        seen.check_sound();
        let expected = times.counter_at(seen.cue.t_us);
        seen.check_card(expected);
    }
}

#[tokio::test]
async fn a_browser_publishes_over_whip_and_is_watched_over_both() {
    let server = Server::start("whip").await;
    let publisher = WhipPublisher::start(&server).await;
    server.on_air().await;
    for (protocol, first_frame_ms_max) in [
        ("whep", WHEP_FIRST_FRAME_MS_MAX),
        ("hls", HLS_FIRST_FRAME_MS_MAX),
    ] {
        let watched = Duration::from_secs(15);
        let viewer = Viewer { protocol, watched };
        let seen = viewer.watch(&server).await;
        eprintln!("{seen:#?}");
        seen.check_picture(first_frame_ms_max, watched);
        seen.check_sound();
    }
    let sent = publisher.stop().await;
    eprintln!("{sent:#?}");
    assert_eq!(sent.status, 200, "DELETE of the session");
}

#[tokio::test]
async fn the_demo_is_on_air_by_itself_with_picture_sound_and_cards() {
    let server = Server::start_show("demo").await;
    // ffmpeg knows no parts: it needs a whole segment.
    server.listed("#EXTINF").await;
    let show = pattern::Seen::of(&server.urls.hls, pattern::DEMO).await;
    show.check();
    // A passing card is in the parts alone: the owner of its ID3 frame tells it.
    server.carried(b"lamplight/cue/1").await;
}

#[tokio::test]
async fn a_wrong_stream_key_is_answered_with_a_sentence_that_says_what_to_do() {
    let server = Server::start("wrong_key").await;
    let publisher = Publisher::start(&server, format!("{}/live_wrong", server.urls.rtmp));
    let said = publisher.refused().await;
    eprintln!("{said}");
    assert!(said.contains("stream key"), "ffmpeg said: {said}");
}

#[tokio::test]
async fn sigterm_during_a_show_ends_the_server_with_code_0_in_bounded_time() {
    let server = Server::start("sigterm").await;
    let publisher = Publisher::start(&server, server.publish_url());
    let viewer = Viewer {
        protocol: "whep",
        watched: Duration::from_secs(1),
    };
    let seen = viewer.watch(&server).await;
    assert!(
        seen.counters.last > seen.counters.first,
        "there was no show to end"
    );
    server.terminate().await;
    publisher.refused().await;
}
