//! The demo's own publisher: the test pattern, sent to our own RTMP port like anybody's stream.
//!
//! When it ends it starts again, later and later while it does not last.

use std::net::SocketAddr;
use std::time::Duration;

use lamplight_media::pattern::{self, Settings};
use lamplight_media::rtmp::client::PublishTarget;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use crate::app::App;
use crate::serve::Server;

const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// A show that went on for this long was a good one.
const LASTED: Duration = Duration::from_secs(60);

/// Keeps the test pattern on air until the server stops.
pub(super) fn start(server: &Server, rtmp: SocketAddr, stream_key: &str) {
    let target = PublishTarget {
        addr: rtmp.to_string(),
        app: "live".into(),
        stream_key: stream_key.into(),
    };
    let app = server.app().clone();
    let tasks = &server.app().tasks;
    tasks.spawn_until_stop("demo.publisher", run(app, target));
}

async fn run(app: App, target: PublishTarget) {
    let mut again = AGAIN_FIRST;
    loop {
        let started = Instant::now();
        debug!("the test pattern starts");
        let wall = app.clock.now().to_datetime();
        let Err(err) = pattern::publish(&target, &Settings::default(), wall).await;
        if started.elapsed() >= LASTED {
            again = AGAIN_FIRST;
        }
        warn!(
            error = &err as &dyn std::error::Error,
            again.seconds = again.as_secs(),
            "the test pattern is off air, starting it again"
        );
        sleep(again).await;
        again = (again * 2).min(AGAIN_MAX);
    }
}
