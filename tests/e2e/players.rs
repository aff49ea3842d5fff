//! WebRTC stacks other than a browser's: aiortc and GStreamer watch and publish.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use crate::client::{Client, script};
use crate::clip;
use crate::pattern;
use crate::probe::Probe;
use crate::publisher::{Publisher, Take};
use crate::server::Server;

/// Pictures a viewer looks at: five seconds.
const LOOKED_AT: usize = 150;
const WATCHED_MAX: Duration = Duration::from_secs(60);
const LIVE_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);
/// GStreamer alone waits for most of a second before it shows anything.
const FIRST_MS_MAX: f64 = 5_000.0;
/// Of 32 767; the tone's loudest sample is about 3 000.
const HEARD_MIN: u16 = 1_000;

/// What a viewer saw and heard.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    /// Nothing where a picture was damaged.
    numbers: Vec<Option<u32>>,
    size: (u32, u32),
    first_ms: f64,
    sound_ms: f64,
    loudest: u16,
    /// The answer to its DELETE, where there is one.
    #[serde(default)]
    left: Option<u16>,
}

impl Seen {
    pub(crate) async fn by(viewer: &str, server: &Server) -> Self {
        let task = serde_json::json!({
            "whep": server.urls.whep,
            "flv": server.flv_url(),
            "rtmp": server.play_url(),
            "frames": LOOKED_AT,
        });
        let mut viewer = Client::start(script(viewer, &task));
        let said = viewer.line(WATCHED_MAX).await;
        serde_json::from_str(&said).unwrap()
    }

    /// Every picture came once, in order and undamaged, and there was something to hear.
    pub(crate) fn check(&self) {
        let Self { numbers, .. } = self;
        let first = numbers[0].expect("the first picture has its number");
        for (n, number) in (first..).zip(numbers) {
            assert_eq!(*number, Some(n), "{self:?}");
        }
        assert_eq!(self.size, (640, 360));
        assert!(self.first_ms < FIRST_MS_MAX, "{self:?}");
        assert!(self.sound_ms >= 4_900.0, "{self:?}");
        assert!(self.loudest > HEARD_MIN, "{self:?}");
    }
}

/// One show for both, since making it costs more than watching it.
#[tokio::test]
async fn aiortc_and_gstreamer_see_every_picture_over_whep_and_hear_the_tone() {
    let server = Server::start("players").await;
    let publisher = Publisher::start_as(&server, server.publish_url(), Take::FIRST);
    server.on_air().await;
    for viewer in ["peers/whep_aiortc.py", "peers/whep_gstreamer.py"] {
        let seen = Seen::by(viewer, &server).await;
        eprintln!("{viewer}: {seen:?}");
        seen.check();
        assert_eq!(seen.left, Some(200), "DELETE of the session");
    }
    publisher.stop().await;
}

/// A publisher that plays a clip.
struct WhipClient(Client);

impl WhipClient {
    /// Starts, and waits until the connection stands.
    async fn publish(client: &str, server: &Server, clip: &Path) -> Self {
        let task = serde_json::json!({
            "whip": server.urls.whip,
            "stream_key": server.urls.stream_key,
            "clip": clip,
        });
        let mut client = Client::start(script(client, &task));
        assert_eq!(client.line(LIVE_MAX).await, "live");
        Self(client)
    }

    /// Leaves; the answer to its DELETE.
    async fn stop(mut self) -> String {
        self.0.hang_up();
        self.0.line(STOP_MAX).await
    }
}

#[tokio::test]
async fn aiortc_publishes_every_picture_over_whip_and_its_delete_ends_the_broadcast() {
    let server = Server::start("aiortc").await;
    arrives_whole(&server, "peers/whip_aiortc.py").await;
}

#[tokio::test]
async fn webrtcbin_publishes_every_picture_over_whip_and_its_delete_ends_the_broadcast() {
    let server = Server::start("webrtcbin").await;
    arrives_whole(&server, "peers/whip_gstreamer.py").await;
}

async fn arrives_whole(server: &Server, client: &str) {
    let clip = clip::make(server, 0).await;
    let publisher = WhipClient::publish(client, server, &clip).await;
    server.on_air().await;
    let probe = Probe::of(server).await;
    probe.check_tracks("48000");
    let show = pattern::Seen::of(&server.urls.hls, pattern::CLIP).await;
    show.check();
    assert_eq!(publisher.stop().await, "200");
    server.logged(&["broadcast over", "finished"]).await;
}
