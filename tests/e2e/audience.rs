//! Two viewers at once, one over each protocol, in headless Chromium (`browser/audience.mjs`).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use crate::server::Server;

const READY_MAX: Duration = Duration::from_secs(150);
const LOOK_MAX: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Two viewers; gone when dropped.
pub(crate) struct Audience {
    _child: Child,
    words: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
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
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/browser/audience.mjs");
        let mut node = Command::new("node");
        node.arg(script)
            .arg(task.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut child = node.spawn().unwrap();
        let words = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(READY_MAX, lines.next_line()).await;
        let first = first.expect("both pages show a picture in time").unwrap();
        assert_eq!(
            first.as_deref(),
            Some("ready"),
            "the browser failed: see above"
        );
        Self {
            _child: child,
            words,
            lines,
        }
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
        self.words
            .write_all(format!("{word}\n").as_bytes())
            .await
            .unwrap();
        let line = timeout(LOOK_MAX, self.lines.next_line()).await;
        let line = line.expect("the browser answers").unwrap();
        serde_json::from_str(&line.expect("the browser is there: see above")).unwrap()
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
