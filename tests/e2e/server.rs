//! The real binary as a person starts it: `lamplight demo --print json`.

use std::collections::HashSet;
use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::signal;

/// The design says 500 ms for a release build on a machine with nothing else to do.
const START_MAX: Duration = Duration::from_secs(20);
/// From the publisher's start to a playlist of its show.
const ON_AIR_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether the show is on air.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// The demo fires a card every 20 s.
const LISTED_MAX: Duration = Duration::from_secs(40);
/// 10 s of drain, then at most 5 s to close everything.
const STOP_MAX: Duration = Duration::from_secs(16);

/// The first line of `--print json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Urls {
    pub(crate) http: String,
    pub(crate) rtmp: String,
    pub(crate) whip: String,
    pub(crate) whep: String,
    pub(crate) hls: String,
    pub(crate) room: String,
    pub(crate) stream_key: String,
    pub(crate) operator_token: String,
}

/// A running demo without its own publisher; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) urls: Urls,
    folder: PathBuf,
}

impl Server {
    /// Starts on free ports with an empty data directory of its own, and waits for a publisher.
    pub(crate) async fn start(name: &str) -> Self {
        Self::start_with(name, &["--no-publisher"]).await
    }

    /// Starts the demo with a show of its own.
    pub(crate) async fn start_show(name: &str) -> Self {
        Self::start_with(name, &[]).await
    }

    /// Starts behind a network: WebRTC listens at `udp`, and viewers are told of `public_port`.
    pub(crate) async fn start_behind(name: &str, udp: &str, public_port: u16) -> Self {
        let port = format!("webrtc.public_port={public_port}");
        let udp = format!("webrtc.udp={udp}");
        Self::start_with(name, &["--no-publisher", "--set", &udp, "--set", &port]).await
    }

    async fn start_with(name: &str, options: &[&str]) -> Self {
        let folder = folder(name);
        let log = File::create(folder.join("server.log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_lamplight"));
        command
            .args(["demo", "--print", "json"])
            .args(options)
            .env("LAMPLIGHT_HTTP__LISTEN", free_tcp_port())
            .env("LAMPLIGHT_HTTP__ADMIN_LISTEN", free_tcp_port())
            .env("LAMPLIGHT_RTMP__LISTEN", free_tcp_port())
            .env("LAMPLIGHT_WEBRTC__UDP", free_udp_port())
            .env("LAMPLIGHT_DATA_DIR", folder.join("data"))
            .env("LAMPLIGHT_LOG__LEVEL", "info,lamplight_media::whep=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(START_MAX, lines.next_line()).await;
        let first = first
            .expect("the demo says where it is within 20 s")
            .unwrap();
        let first = first.expect("the demo starts: see server.log");
        let urls: Urls = serde_json::from_str(&first).unwrap();
        urls.check();
        Self {
            child,
            urls,
            folder,
        }
    }

    pub(crate) fn publish_url(&self) -> String {
        format!("{}/{}", self.urls.rtmp, self.urls.stream_key)
    }

    /// Where the room is played over RTMP.
    pub(crate) fn play_url(&self) -> String {
        format!("{}/{}", self.urls.rtmp, self.urls.room)
    }

    /// The show over HTTP-FLV.
    pub(crate) fn flv_url(&self) -> String {
        format!("{}/flv/{}.flv", self.urls.http, self.urls.room)
    }

    /// Waits until the show can be watched.
    pub(crate) async fn on_air(&self) {
        let client = reqwest::Client::new();
        let on_air = async {
            while !client
                .get(&self.urls.hls)
                .send()
                .await
                .is_ok_and(|it| it.status() == 200)
            {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        timeout(ON_AIR_MAX, on_air)
            .await
            .expect("the show comes on air: see server.log");
    }

    /// Waits until a media playlist of the show holds `text`.
    pub(crate) async fn listed(&self, text: &str) {
        let client = reqwest::Client::new();
        let url = self.urls.hls.replace("index.m3u8", "src/live.m3u8");
        let listed = async {
            while !get(&client, &url).await.is_some_and(|it| it.contains(text)) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        timeout(LISTED_MAX, listed)
            .await
            .unwrap_or_else(|_| panic!("no playlist held {text}: see server.log"));
    }

    /// How many discontinuities the show has had, by the playlist of its picture.
    pub(crate) async fn discontinuities(&self) -> u32 {
        let client = reqwest::Client::new();
        let url = self.urls.hls.replace("index.m3u8", "src/live.m3u8");
        let list = get(&client, &url).await.expect("the show is on air");
        let gone = list.lines().find_map(|line| {
            let number = line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:")?;
            number.parse::<u32>().ok()
        });
        let listed = list.lines().filter(|line| *line == "#EXT-X-DISCONTINUITY");
        gone.unwrap_or(0) + u32::try_from(listed.count()).unwrap()
    }

    /// Waits until a segment of the picture holds `bytes`.
    pub(crate) async fn carried(&self, bytes: &[u8]) {
        let client = reqwest::Client::new();
        let base = self.urls.hls.replace("index.m3u8", "src/");
        let mut seen = HashSet::new();
        let carried = async {
            loop {
                let list = get(&client, &format!("{base}live.m3u8")).await;
                let list = list.unwrap_or_default();
                for name in list.lines().filter(|line| line.ends_with(".m4s")) {
                    if !seen.insert(name.to_owned()) {
                        continue;
                    }
                    let segment = client.get(format!("{base}{name}")).send().await.unwrap();
                    let segment = segment.bytes().await.unwrap();
                    if segment.windows(bytes.len()).any(|w| w == bytes) {
                        return;
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let carried = timeout(LISTED_MAX, carried).await;
        carried.expect("a segment carries it: see server.log");
    }

    /// Waits until a line of the log holds all these words.
    pub(crate) async fn logged(&self, words: &[&str]) {
        let logged = async {
            while self.times_logged(words) == 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        timeout(LISTED_MAX, logged)
            .await
            .unwrap_or_else(|_| panic!("{words:?} was not logged: see server.log"));
    }

    /// How many lines of the log hold all these words.
    pub(crate) fn times_logged(&self, words: &[&str]) -> usize {
        let log = std::fs::read_to_string(self.folder.join("server.log")).unwrap();
        let holds = |line: &&str| words.iter().all(|word| line.contains(word));
        log.lines().filter(holds).count()
    }

    /// Where this test keeps what it made.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sends SIGTERM and sees the process end well.
    pub(crate) async fn terminate(mut self) {
        signal(&self.child, "TERM").await;
        let ended = timeout(STOP_MAX, self.child.wait()).await;
        let status = ended.expect("it ends within 16 s of SIGTERM").unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

async fn get(client: &reqwest::Client, url: &str) -> Option<String> {
    client.get(url).send().await.ok()?.text().await.ok()
}

impl Urls {
    /// What issue 2 promises of the eight values.
    fn check(&self) {
        let Self {
            http, rtmp, room, ..
        } = self;
        assert!(http.starts_with("http://127.0.0.1:"), "{http}");
        assert!(
            rtmp.starts_with("rtmp://127.0.0.1:") && rtmp.ends_with("/live"),
            "{rtmp}"
        );
        for url in [&self.whip, &self.whep, &self.hls] {
            assert!(url.starts_with(http.as_str()), "{url} is not below {http}");
        }
        assert!(room.starts_with("room_"), "{room}");
        assert!(self.stream_key.starts_with("live_"));
        assert!(self.operator_token.starts_with("sk_"));
    }
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("target/e2e")
        .join(name);
    // Left by an earlier run, or not there yet.
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn free_tcp_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

pub(crate) fn free_udp_port() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}
