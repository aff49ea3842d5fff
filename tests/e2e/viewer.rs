//! A viewer: headless Chromium on the watch page, driven by `browser/watch.mjs`.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::client::script;
use crate::server::Server;

/// Over the watched time: start of the browser, the card, sound, pictures.
const AROUND_MAX: Duration = Duration::from_secs(300);
const TONE_HZ: f64 = 1_000.0;
/// The publisher's rate; a viewer of half of it sees no show.
const FRAMES_PER_SECOND: f64 = 30.0;

pub(crate) struct Viewer<'a> {
    pub(crate) protocol: &'a str,
    pub(crate) watched: Duration,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) frames: Frames,
    pub(crate) counters: Counters,
    pub(crate) stats: Stats,
    pub(crate) cue: Cue,
    pub(crate) card: Card,
    pub(crate) heard: Heard,
    /// Errors that the page's scripts threw.
    pub(crate) trouble: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Frames {
    count: u32,
    first: f64,
    last: f64,
    longest_gap_ms: f64,
    stalls: u32,
    unreadable: u32,
}

/// The burnt-in number of the first and the last frame seen.
#[derive(Debug, Deserialize)]
pub(crate) struct Counters {
    pub(crate) first: i64,
    pub(crate) last: i64,
    backwards: u32,
}

/// What the player says of itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Stats {
    protocol: String,
    first_frame_ms: f64,
    sessions: u32,
    latency_ms: Option<f64>,
}

/// The server's answer to the cue.
#[derive(Debug, Deserialize)]
pub(crate) struct Cue {
    pub(crate) t_us: i64,
}

/// The card's event, and the counter on screen at that moment.
#[derive(Debug, Deserialize)]
pub(crate) struct Card {
    protocol: String,
    is_late: bool,
    counter: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Heard {
    hz: f64,
    db: f64,
}

impl Viewer<'_> {
    /// Watches, fires a cue, sees its card, listens.
    pub(crate) async fn watch(&self, server: &Server) -> Seen {
        let task = serde_json::json!({
            "http": server.urls.http,
            "room": server.urls.room,
            "operator_token": server.urls.operator_token,
            "protocol": self.protocol,
            "watch_ms": u64::try_from(self.watched.as_millis()).unwrap(),
            "pictures": server.folder(),
        });
        let mut browser = script("browser/watch.mjs", &task);
        let browser = browser.stdout(Stdio::piped()).spawn().unwrap();
        let output = timeout(self.watched + AROUND_MAX, browser.wait_with_output()).await;
        let output = output.expect("the browser is done in time").unwrap();
        assert!(output.status.success(), "the viewer failed: see above");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Seen {
    pub(crate) fn check_picture(&self, first_frame_ms_max: f64, watched: Duration) {
        let Self {
            frames,
            counters,
            stats,
            ..
        } = self;
        assert_eq!(stats.sessions, 1, "the player had to connect again");
        assert_eq!(stats.protocol, self.card.protocol);
        assert!(
            stats.first_frame_ms <= first_frame_ms_max,
            "{}",
            stats.first_frame_ms
        );
        assert!(frames.last - frames.first >= watched.as_secs_f64() * 1_000.0);
        assert_eq!(
            frames.stalls, 0,
            "stalls over 500 ms; longest {}",
            frames.longest_gap_ms
        );
        assert_eq!(counters.backwards, 0, "a frame was shown after a later one");
        // A frame that changes while it is being read may be unreadable, not one in a hundred.
        assert!(
            frames.unreadable * 100 <= frames.count,
            "{} unreadable",
            frames.unreadable
        );
        let sent = (counters.last - counters.first).unsigned_abs();
        let sent = f64::from(u32::try_from(sent).unwrap());
        let in_time = (frames.last - frames.first) / 1_000.0 * FRAMES_PER_SECOND;
        assert!(
            (sent / in_time - 1.0).abs() < 0.1,
            "{sent} frames went by in {in_time}"
        );
        assert!(
            f64::from(frames.count) > sent / 2.0,
            "{} of {sent} shown",
            frames.count
        );
        assert!(
            stats.latency_ms.is_some_and(|ms| ms < 10_000.0),
            "{:?}",
            stats.latency_ms
        );
    }

    pub(crate) fn check_sound(&self) {
        let Heard { hz, db } = self.heard;
        assert!((hz - TONE_HZ).abs() < 20.0, "heard {hz} Hz");
        assert!(db > -60.0, "heard {db} dB");
    }

    /// The card came on the frame with this burnt-in number, or one beside it.
    pub(crate) fn check_card(&self, expected: i64) {
        assert!(!self.card.is_late, "the card missed its frame");
        let counter = self.card.counter.expect("the card's frame is readable");
        assert!(
            (counter - expected).abs() <= 1,
            "shown on {counter}, belongs to {expected}"
        );
    }
}
