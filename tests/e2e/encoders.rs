//! Encoders other than ffmpeg and browsers: what they send arrives whole, and their stop is a stop.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::timeout;

use crate::client::{program, signal};
use crate::clip;
use crate::pattern;
use crate::probe::Probe;
use crate::server::Server;

const STOP_MAX: Duration = Duration::from_secs(10);

/// Plays a clip at its own speed, encodes it anew, and sends it with `rtmp2sink`.
const GSTREAMER: &str = "flvmux name=mux streamable=true ! rtmp2sink name=server \
    filesrc name=clip ! decodebin name=show \
    show. ! queue ! clocksync ! videoconvert \
    ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=60 ! h264parse ! queue ! mux. \
    show. ! queue ! clocksync ! audioconvert ! audioresample \
    ! voaacenc bitrate=128000 ! aacparse ! queue ! mux.";

/// Those of packages that are often left out.
const ELEMENTS: [&str; 4] = ["rtmp2sink", "x264enc", "voaacenc", "avdec_h264"];

/// A running `gst-launch-1.0`; killed when dropped.
struct GStreamer {
    child: Child,
}

impl GStreamer {
    async fn start(server: &Server, clip: &Path) -> Self {
        for element in ELEMENTS {
            let mut look = program("gst-inspect-1.0");
            let found = look.args(["--exists", element]).status().await.unwrap();
            assert!(found.success(), "no {element}: run scripts/setup.sh --test");
        }
        let pipeline = GSTREAMER
            .replace(
                "name=clip",
                &format!("name=clip location={}", clip.display()),
            )
            .replace("name=server", &format!("location={}", server.publish_url()));
        let log = File::create(server.folder().join("gstreamer.log")).unwrap();
        let mut command = program("gst-launch-1.0");
        command
            .args(["--no-position", "--eos-on-shutdown"])
            .args(pipeline.split_whitespace())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = command.spawn().unwrap();
        Self { child }
    }

    /// Ends the stream in good order; everything was well with it until then.
    async fn stop(mut self) {
        signal(&self.child, "INT").await;
        let ended = timeout(STOP_MAX, self.child.wait()).await;
        let status = ended.expect("GStreamer ends when asked").unwrap();
        assert!(status.success(), "GStreamer says {status}: see its log");
    }
}

#[tokio::test]
async fn gstreamer_publishes_every_picture_over_rtmp_and_its_stop_ends_the_broadcast() {
    let server = Server::start("gstreamer").await;
    let clip = clip::make(&server, 0).await;
    let publisher = GStreamer::start(&server, &clip).await;
    server.on_air().await;
    let early = Probe::of(&server).await;
    early.check_tracks("44100");
    assert_eq!(early.duration_s(), None, "it is live");
    let show = pattern::Seen::of(&server.urls.hls, pattern::CLIP).await;
    show.check();
    Probe::later_than(&server, early.start_s()).await;
    publisher.stop().await;
    server.logged(&["publisher gone", "finished"]).await;
    server.logged(&["broadcast over", "finished"]).await;
    let whole = Probe::of(&server).await;
    assert!(whole.duration_s() > Some(2.0), "{whole:?}");
}
