//! Two viewers at once, one over each protocol, in headless Chromium (`browser/audience.mjs`).

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use crate::client::{Client, script};
use crate::server::Server;

const READY_MAX: Duration = Duration::from_secs(150);
const LOOK_MAX: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Two viewers; gone when dropped.
pub(crate) struct Audience {
    browser: Client,
}

/// What both see.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) whep: Option<OneSees>,
    pub(crate) hls: Option<OneSees>,
}

/// What one sees.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct OneSees {
    /// None without a session.
    pub(crate) protocol: Option<String>,
    /// How often the player had to connect.
    #[serde(default)]
    pub(crate) sessions: u32,
    /// The number burnt into the picture on screen.
    pub(crate) counter: Option<i64>,
    pub(crate) backwards: u32,
    /// The state of the WebRTC connection, if there is one.
    pub(crate) peer: Option<String>,
    /// Pictures that WebRTC decoded.
    pub(crate) decoded: u32,
    /// Lines of the picture that WebRTC shows.
    pub(crate) lines: Option<u32>,
    /// The longest time between two pictures on screen.
    pub(crate) longest_gap_ms: f64,
    pub(crate) trouble: Vec<String>,
}

impl Audience {
    /// Opens both pages, and waits until both show a picture.
    pub(crate) async fn enter(server: &Server) -> Self {
        Self::enter_over(server, &["whep", "hls"]).await
    }

    /// Opens a page for each protocol, and waits until all show a picture.
    pub(crate) async fn enter_over(server: &Server, protocols: &[&str]) -> Self {
        let task = serde_json::json!({
            "http": server.urls.http,
            "room": server.urls.room,
            "pictures": server.folder(),
            "protocols": protocols,
        });
        let mut browser = Client::start(script("browser/audience.mjs", &task));
        assert_eq!(browser.line(READY_MAX).await, "ready");
        Self { browser }
    }

    /// What both see now.
    pub(crate) async fn look(&mut self) -> Seen {
        self.say("look").await
    }

    /// From now on the longest time between two pictures is measured anew.
    pub(crate) async fn say_anew(&mut self) {
        self.say("anew").await;
    }

    /// The same, and pictures of both pages under this name.
    pub(crate) async fn photograph(&mut self, name: &str) -> Seen {
        self.say(name).await
    }

    async fn say(&mut self, word: &str) -> Seen {
        self.browser.say(word).await;
        serde_json::from_str(&self.browser.line(LOOK_MAX).await).unwrap()
    }

    /// Waits until both see what is wanted; what they saw then, and how long it took.
    pub(crate) async fn until(
        &mut self,
        within: Duration,
        what: &str,
        is_so: impl Fn(&OneSees) -> bool,
    ) -> (Seen, Duration) {
        let began = Instant::now();
        loop {
            let seen = self.look().await;
            if seen.whep.iter().chain(&seen.hls).all(&is_so) {
                return (seen, began.elapsed());
            }
            assert!(began.elapsed() < within, "{what} did not come: {seen:#?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
