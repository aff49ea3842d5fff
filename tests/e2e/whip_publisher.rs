//! Headless Chromium as a publisher over WHIP, driven by `browser/publish.mjs`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::server::Server;

const LIVE_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(20);

/// A browser that publishes; killed when dropped.
pub(crate) struct WhipPublisher {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
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
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/browser/publish.mjs");
        let mut node = Command::new("node");
        node.arg(script)
            .arg(task.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut child = node.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(LIVE_MAX, lines.next_line()).await;
        let first = first.expect("the browser is live in time").unwrap();
        assert_eq!(
            first.as_deref(),
            Some("live"),
            "the browser failed: see above"
        );
        Self { child, lines }
    }

    /// Leaves as a person would who closes the page in good order.
    pub(crate) async fn stop(mut self) -> Sent {
        drop(self.child.stdin.take());
        let last = timeout(STOP_MAX, self.lines.next_line()).await;
        let last = last.expect("the browser leaves in time").unwrap();
        serde_json::from_str(&last.expect("it says what it sent")).unwrap()
    }
}
