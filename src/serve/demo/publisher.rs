//! The demo's own publisher: the test pattern, sent to our own RTMP port like anybody's stream.
//!
//! It steps aside for anybody who publishes with the demo's key, and is back when they are gone.
//! When it ends by itself it starts again, later and later while it does not last.

use std::net::SocketAddr;
use std::time::Duration;

use lamplight_media::pattern::{self, Settings};
use lamplight_media::rtmp::client::PublishTarget;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::seed::Seed;
use crate::app::App;
use crate::broadcasts;
use crate::ids::RoomId;
use crate::serve::Server;

const AGAIN_FIRST: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long a guest may be away before the pattern is back: less than the broadcast waits.
const STEP_ASIDE: Duration = Duration::from_secs(4);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A show that went on for this long was a good one.
const LASTED: Duration = Duration::from_secs(60);

/// Keeps the test pattern on air until the server stops.
pub(super) fn start(server: &Server, rtmp: SocketAddr, seed: &Seed) {
    let target = PublishTarget {
        addr: rtmp.to_string(),
        app: "live".into(),
        stream_key: seed.stream_key.clone(),
    };
    let app = server.app().clone();
    let tasks = &server.app().tasks;
    tasks.spawn_until_stop("demo.publisher", run(app, seed.room, target));
}

async fn run(app: App, room: RoomId, target: PublishTarget) {
    let mut again = AGAIN_FIRST;
    loop {
        guests_gone(&app, room).await;
        let started = Instant::now();
        debug!("the test pattern starts");
        let wall = app.clock.now().to_datetime();
        let Err(err) = pattern::publish(&target, &Settings::default(), wall).await;
        if broadcasts::has_publisher(&app, room) {
            info!("somebody else publishes into the demo's room, the test pattern waits");
            again = AGAIN_FIRST;
            continue;
        }
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

/// Waits until nobody else publishes, and a moment more: they may only be changing a setting.
async fn guests_gone(app: &App, room: RoomId) {
    let mut free_since = None;
    loop {
        let now = Instant::now();
        if broadcasts::has_publisher(app, room) {
            free_since = Some(now + STEP_ASIDE);
        } else if free_since.is_none_or(|at| now >= at) {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}
