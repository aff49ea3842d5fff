//! Players that are not ours on LL-HLS: hls.js, Shaka and video.js in Chromium, GStreamer.
//!
//! The time of day is burnt into the picture where it is made, so that the delay that is measured
//! is the true one: encoder, server, player and screen.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Child;
use tokio::time::timeout;

use crate::client::{program, script};
use crate::clip::{PICTURE, TONE, boxes};
use crate::server::Server;

const WATCHED: Duration = Duration::from_secs(60);
/// Over the watched time: start of the browser, changes, sound.
const AROUND_MAX: Duration = Duration::from_secs(120);
/// What is promised with parts of 500 ms, glass to glass: a hold-back of three, and what encoding,
/// sending and showing take.
const DELAY_MS_MAX: f64 = 2_200.0;
/// Between two pictures while another rendition takes over: a few pictures on a busy machine.
const GAP_MS_MAX: f64 = 300.0;
const TONE_HZ: f64 = 1_000.0;

/// ffmpeg with the time of day in the picture; killed when dropped.
pub(crate) struct Clock {
    child: Child,
}

impl Clock {
    pub(crate) fn start(server: &Server) -> Self {
        // The time of day in milliseconds while the boxes are drawn, counted pictures after.
        let filter = format!(
            "settb=1/1000,setpts=RTCTIME/1000,{},settb=1/30,setpts=N",
            boxes("mod(floor(t*1000+0.5),65536)")
        );
        let log = File::create(server.folder().join("clock.log")).unwrap();
        let mut command = program("ffmpeg");
        command
            .args(["-nostats", "-loglevel", "warning"])
            .args(["-re", "-f", "lavfi", "-i", PICTURE])
            .args(["-re", "-f", "lavfi", "-i", TONE])
            .args(["-map", "0:v", "-map", "1:a", "-vf", &filter])
            .args(["-c:v", "libx264", "-preset", "ultrafast", "-tune"])
            .args(["zerolatency", "-pix_fmt", "yuv420p", "-b:v", "1500k"])
            .args(["-g", "60", "-sc_threshold", "0"])
            .args(["-c:a", "aac", "-b:a", "128k", "-f", "flv"])
            .arg(server.publish_url())
            .stderr(log);
        let child = command.spawn().unwrap();
        Self { child }
    }

    pub(crate) const fn child(&self) -> &Child {
        &self.child
    }

    /// Ends it as a crash of the machine would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("the show went on until now");
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    frames: u32,
    pub(crate) stalls: u32,
    unreadable: u32,
    backwards: u32,
    errors: Vec<String>,
    pub(crate) delay_ms: Summary,
    #[serde(default)]
    changes: Vec<Change>,
    heard: Heard,
    trouble: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    max: Option<f64>,
}

/// After another rendition was chosen.
#[derive(Debug, Deserialize)]
struct Change {
    height: u32,
    stalls: u32,
    backwards: u32,
    gap_ms: Summary,
}

#[derive(Debug, Deserialize)]
struct Heard {
    hz: f64,
}

impl Seen {
    async fn by(player: &str, server: &Server, watched: Duration, changes: &[u32]) -> Self {
        Self::of((player, &server.urls.hls), server, watched, changes).await
    }

    /// What a player shows of this address.
    pub(crate) async fn of(
        (player, url): (&str, &str),
        server: &Server,
        watched: Duration,
        changes: &[u32],
    ) -> Self {
        let task = serde_json::json!({
            "url": url,
            "player": player,
            "watch_ms": u64::try_from(watched.as_millis()).unwrap(),
            "changes": changes,
            "pictures": server.folder(),
        });
        let mut browser = script("browser/foreign_player.mjs", &task);
        browser.stdout(Stdio::piped()).stderr(Stdio::inherit());
        let output = timeout(watched + AROUND_MAX, browser.output()).await;
        let output = output.expect("the browser is done in time").unwrap();
        assert!(output.status.success(), "{player} failed: see above");
        let seen: Self = serde_json::from_slice(&output.stdout).unwrap();
        eprintln!("{player}: {seen:?}");
        seen
    }

    /// Nearly every picture, and its sound.
    pub(crate) fn check(&self, watched: Duration) {
        let pictures = watched.as_secs_f64() * 30.0;
        assert!(f64::from(self.frames) > pictures * 0.9, "{self:?}");
        self.check_that_it_plays();
    }

    /// A moving picture and its sound, without an error that ends it.
    fn check_that_it_plays(&self) {
        assert!(self.frames > 60, "{self:?}");
        assert!(self.unreadable * 50 <= self.frames, "{self:?}");
        assert_eq!(self.backwards, 0, "{self:?}");
        assert!((self.heard.hz - TONE_HZ).abs() < 20.0, "{self:?}");
        let fatal = self
            .errors
            .iter()
            .filter(|error| error.starts_with("fatal"));
        assert_eq!(fatal.count(), 0, "{self:?}");
        assert!(self.trouble.is_empty(), "{self:?}");
    }
}

/// 60 s without a stall at the delay that is promised; then to a rung and back without a gap.
#[tokio::test]
async fn hls_js_plays_a_minute_without_a_stall_and_changes_rungs_without_a_gap() {
    let server = Server::start("hls_js").await;
    let _clock = Clock::start(&server);
    server.on_air().await;
    let seen = Seen::by("hls.js", &server, WATCHED, &[240, 360]).await;
    seen.check(WATCHED);
    assert_eq!(seen.stalls, 0, "{seen:?}");
    let delay = seen
        .delay_ms
        .p50
        .zip(seen.delay_ms.p95)
        .expect("pictures were read");
    assert!(delay.0 <= DELAY_MS_MAX, "{seen:?}");
    assert_eq!(seen.changes.len(), 2);
    for change in &seen.changes {
        assert_eq!((change.stalls, change.backwards), (0, 0), "{seen:?}");
        let gap_ms = change.gap_ms.max.expect("pictures came");
        assert!(gap_ms < GAP_MS_MAX, "to {} lines: {seen:?}", change.height);
    }
}

/// Shaka asks for the hinted part, and takes one that never comes for an error.
#[tokio::test]
async fn shaka_and_video_js_play() {
    let server = Server::start("hls_players").await;
    let _clock = Clock::start(&server);
    server.on_air().await;
    // Shaka looks into three whole segments before it plays, and fails where there are fewer.
    server.listed("-s3.m4s").await;
    let watched = Duration::from_secs(20);
    let shaka = Seen::by("shaka", &server, watched, &[]).await;
    shaka.check(watched);
    assert!(shaka.stalls <= 1, "{shaka:?}");
    // It changes renditions by itself, and may stand still for that.
    let video_js = Seen::by("video.js", &server, watched, &[]).await;
    video_js.check_that_it_plays();
}
