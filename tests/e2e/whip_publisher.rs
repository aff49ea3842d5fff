//! Headless Chromium as a publisher over WHIP, driven by `browser/publish.mjs`.

use std::time::Duration;

use serde::Deserialize;

use crate::client::{Client, script};
use crate::server::Server;

const LIVE_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(20);

/// A browser that publishes; killed when dropped.
pub(crate) struct WhipPublisher {
    browser: Client,
}

/// What the browser says of what it sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "printed, for whoever reads a failed run")]
pub(crate) struct Sent {
    /// Of the `DELETE` with which it left.
    pub(crate) status: u16,
    frames_encoded: u32,
    key_frames_encoded: u32,
    pli_count: u32,
    nack_count: u32,
    frame_width: u32,
}

impl WhipPublisher {
    /// Starts, and waits until the connection stands.
    pub(crate) async fn start(server: &Server) -> Self {
        let task = serde_json::json!({
            "http": server.urls.http,
            "whip": server.urls.whip,
            "stream_key": server.urls.stream_key,
        });
        let mut browser = Client::start(script("browser/publish.mjs", &task));
        assert_eq!(browser.line(LIVE_MAX).await, "live");
        Self { browser }
    }

    /// Leaves as a person would who closes the page in good order.
    pub(crate) async fn stop(mut self) -> Sent {
        self.browser.hang_up();
        serde_json::from_str(&self.browser.line(STOP_MAX).await).unwrap()
    }
}
