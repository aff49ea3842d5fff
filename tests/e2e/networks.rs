//! Viewers over WHEP behind bad networks: losses, and a path that becomes narrow.

use std::time::Duration;

use tokio::time::Instant;

use crate::audience::{Audience, OneSees};
use crate::link::{Link, Weather};
use crate::publisher::Publisher;
use crate::server::{Server, free_udp_port};

const WATCHED: Duration = Duration::from_secs(20);
/// Of the frames sent.
const SHOWN_MIN: f64 = 0.95;
/// From the step to a rung that fits.
const MOVED_WITHIN: Duration = Duration::from_secs(3);
const FREEZE_MS_MAX: f64 = 1_000.0;
/// Lines of the rung below the publisher's 360.
const RUNG_LINES: u32 = 240;

/// A show, watched over WHEP through a network.
async fn watch(name: &str, weather: Weather) -> (Server, Publisher, Link, Audience) {
    let udp = free_udp_port();
    let link = Link::open(udp.parse().unwrap(), weather).await;
    let server = Server::start_behind(name, &udp, link.port()).await;
    let publisher = Publisher::start(&server, server.publish_url());
    server.on_air().await;
    let mut audience = Audience::enter_over(&server, &["whep"]).await;
    // The beginning is not judged: keyframes, estimates and buffers find their places.
    let settled = |sees: &OneSees| sees.decoded >= 240;
    audience
        .until(Duration::from_secs(60), "eight seconds", settled)
        .await;
    (server, publisher, link, audience)
}

#[tokio::test]
async fn at_five_per_cent_loss_a_viewer_is_shown_nearly_every_frame() {
    let weather = Weather {
        lost_per_mille: 50,
        delay: Duration::from_millis(50),
        bps: 20_000_000,
    };
    let (_server, publisher, _link, mut audience) = watch("lossy", weather).await;
    let first = audience.look().await.whep.unwrap();
    tokio::time::sleep(WATCHED).await;
    let last = audience.photograph("after").await.whep.unwrap();
    let sent = last.counter.unwrap() - first.counter.unwrap();
    let decoded = last.decoded - first.decoded;
    eprintln!("{decoded} of {sent}; {first:?} {last:?}");
    assert_eq!((last.sessions, last.backwards), (first.sessions, 0));
    let sent = f64::from(u32::try_from(sent).unwrap());
    assert!(
        f64::from(decoded) >= sent * SHOWN_MIN,
        "{decoded} of {sent}"
    );
    publisher.stop().await;
}

#[tokio::test]
async fn a_path_that_becomes_narrow_is_given_a_rung_that_fits_without_a_long_freeze() {
    let weather = Weather {
        lost_per_mille: 0,
        delay: Duration::from_millis(25),
        bps: 4_000_000,
    };
    let (_server, publisher, link, mut audience) = watch("narrow", weather).await;
    let before = audience.look().await.whep.unwrap();
    assert_eq!(before.lines, Some(360), "{before:?}");
    audience.say_anew().await;
    let stepped = Instant::now();
    link.narrow(500_000);
    let fits = |sees: &OneSees| sees.lines == Some(RUNG_LINES);
    let (_, took) = audience
        .until(Duration::from_secs(20), "a rung that fits", fits)
        .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let after = audience.photograph("narrow").await.whep.unwrap();
    eprintln!("on the rung after {took:?}; {after:?}");
    assert!(stepped.elapsed() > took);
    assert!(took <= MOVED_WITHIN, "{took:?}");
    assert!(after.longest_gap_ms <= FREEZE_MS_MAX, "{after:?}");
    assert_eq!((after.sessions, after.backwards), (1, 0));
    link.narrow(4_000_000);
    let is_back = |sees: &OneSees| sees.lines == Some(360);
    let (_, took) = audience
        .until(Duration::from_secs(40), "the full picture", is_back)
        .await;
    eprintln!("and back after {took:?}");
    publisher.stop().await;
}
