//! A publisher that is killed and comes back: no viewer is lost, and the show goes on (spec
//! media.md 3.4, 6.6).

use std::time::Duration;

use crate::audience::{Audience, Seen};
use crate::publisher::{Publisher, Take};
use crate::server::Server;

/// Seconds for which the publisher is gone, all below the grace of 30 s.
const OUTAGES_S: [u64; 3] = [2, 10, 29];
/// From the publisher's return to a moving picture.
const BACK_WITHIN: Duration = Duration::from_secs(20);
/// More than a take can show.
const TAKE_PICTURES: u32 = 10_000;
/// Two seconds, which is passed through.
const GOP: u32 = 60;

#[tokio::test]
async fn a_publisher_killed_and_back_within_the_grace_loses_no_viewer_and_after_it_the_show_ends() {
    let server = Server::start("outages").await;
    let take = |number: u32| Take {
        number,
        counted: number * TAKE_PICTURES,
        gop: GOP,
    };
    let start = |number| Publisher::start_as(&server, server.publish_url(), take(number));
    let mut publisher = start(0);
    server.on_air().await;
    let mut audience = Audience::enter(&server).await;
    assert_eq!(server.discontinuities().await, 0);
    for (number, outage) in (1..).zip(OUTAGES_S) {
        publisher.kill().await;
        tokio::time::sleep(Duration::from_secs(outage)).await;
        let away = audience.photograph(&format!("away{outage}")).await;
        check_sessions(&away, outage);
        publisher = start(number);
        let from = i64::from(take(number).counted);
        let (back, took) = audience
            .until(BACK_WITHIN, "the next take", |sees| {
                sees.counter >= Some(from)
            })
            .await;
        eprintln!("after {outage} s: back in {took:?}");
        check_sessions(&back, outage);
        // The picture moves on both, and not only its first frame.
        let on = from + 60;
        let (moving, _) = audience
            .until(BACK_WITHIN, "a moving picture", |sees| {
                sees.counter >= Some(on)
            })
            .await;
        check_sessions(&moving, outage);
        assert_eq!(server.discontinuities().await, number, "after {outage} s");
    }
    publisher.kill().await;
    // Nobody comes back this time: the show ends in good order after the grace.
    server.listed("#EXT-X-ENDLIST").await;
    audience.photograph("over").await;
}

/// Nobody had to connect again, and nothing was shown twice.
fn check_sessions(seen: &Seen, outage: u64) {
    let [whep, hls] = [&seen.whep, &seen.hls].map(|sees| sees.as_ref().expect("both watch"));
    for (sees, protocol) in [(whep, "whep"), (hls, "hls")] {
        let about = format!("{protocol}, after {outage} s: {sees:?}");
        assert_eq!(sees.protocol.as_deref(), Some(protocol), "{about}");
        assert_eq!(sees.sessions, 1, "{about}");
        assert_eq!(sees.backwards, 0, "{about}");
        assert_eq!(sees.trouble, [""; 0], "{about}");
    }
    assert_eq!(whep.peer.as_deref(), Some("connected"), "{seen:?}");
}
