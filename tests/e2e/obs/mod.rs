//! OBS Studio on a screen of its own in memory, driven through its websocket (`control.mjs`).
//!
//! Invariant: its settings are in the test's folder, and it speaks to nobody but this machine.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::client::{Client, program, script};
use crate::server::{Server, free_tcp_port};

const SCREEN_MAX: Duration = Duration::from_secs(20);
const READY_MAX: Duration = Duration::from_secs(40);
const ANSWER_MAX: Duration = Duration::from_secs(10);
const STATE_MAX: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// The websocket listens on every interface.
const PASSWORD: &str = "only for this test";
/// The version whose first start this is not: OBS asks nothing.
const LAST_VERSION: u32 = 29 << 24;

/// A screen in memory; gone when dropped.
pub(crate) struct Screen {
    _xvfb: Client,
    number: String,
}

impl Screen {
    pub(crate) async fn open() -> Self {
        let mut command = program("Xvfb");
        command.args(["-displayfd", "1", "-nolisten", "tcp"]);
        command.args(["-screen", "0", "1024x768x24"]);
        let mut xvfb = Client::start(command);
        let number = xvfb.line(SCREEN_MAX).await;
        Self {
            _xvfb: xvfb,
            number,
        }
    }
}

/// A running OBS; killed when dropped.
pub(crate) struct Obs {
    child: Child,
    control: Client,
    log: PathBuf,
}

impl Obs {
    /// Starts with a scene that plays the clip, and does not stream yet.
    pub(crate) async fn start(server: &Server, screen: &Screen, clip: &Path) -> Self {
        let home = server.folder().join("obs");
        let port = free_tcp_port();
        let port = port.rsplit(':').next().expect("an address has a port");
        write_settings(&home, port, clip);
        let take = clip.file_stem().expect("a clip has a name");
        let log = home.join(take).with_extension("log");
        let output = File::create(&log).unwrap();
        let mut command = program("obs");
        command
            .args([
                "--multi",
                "--minimize-to-tray",
                "--unfiltered_log",
                "--disable-shutdown-check",
            ])
            .env("DISPLAY", format!(":{}", screen.number))
            .env("QT_QPA_PLATFORM", "xcb")
            .env("HOME", &home)
            .env("XDG_CONFIG_HOME", &home)
            .env("XDG_RUNTIME_DIR", &home)
            .env_remove("DBUS_SESSION_BUS_ADDRESS")
            // It looks for news at its start; nobody answers there.
            .env("https_proxy", "http://127.0.0.1:9")
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = command.spawn().unwrap();
        let task = json!({ "port": port, "password": PASSWORD });
        let mut control = script("obs/control.mjs", &task);
        // Where Node does not offer it by itself yet.
        control.env("NODE_OPTIONS", "--experimental-websocket");
        let mut control = Client::start(control);
        assert_eq!(control.line(READY_MAX).await, "ready");
        Self {
            child,
            control,
            log,
        }
    }

    /// Streams with this key, and waits until the server took it or not.
    pub(crate) async fn stream(&mut self, server: &Server, key: &str) -> bool {
        let settings = json!({ "server": server.urls.rtmp, "key": key });
        let service = json!({
            "streamServiceType": "rtmp_custom",
            "streamServiceSettings": settings,
        });
        self.ask("SetStreamServiceSettings", service).await;
        let before = self.outcomes();
        self.ask("StartStream", json!({})).await;
        let decided = async {
            while self.outcomes() == before {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(STATE_MAX, decided)
            .await
            .expect("OBS connects or gives up");
        self.is_active().await
    }

    /// How many times the stream came on or did not.
    fn outcomes(&self) -> usize {
        let log = self.log();
        log.matches("= Streaming Start =").count() + log.matches("= Streaming Stop =").count()
    }

    pub(crate) async fn stop(&mut self) {
        self.ask("StopStream", json!({})).await;
        let stopped = async {
            while self.is_active().await {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(STATE_MAX, stopped).await.expect("OBS stops");
    }

    /// Ends it as a crash of the machine would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("it ran until now");
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    async fn is_active(&mut self) -> bool {
        let status = self.ask("GetStreamStatus", json!({})).await;
        status["outputActive"] == true
    }

    async fn ask(&mut self, request: &str, data: Value) -> Value {
        let request = json!({ "requestType": request, "requestData": data });
        self.control.say(&request.to_string()).await;
        serde_json::from_str(&self.control.line(ANSWER_MAX).await).unwrap()
    }
}

/// A profile and a scene, as OBS keeps them.
fn write_settings(home: &Path, port: &str, clip: &Path) {
    let settings = home.join("obs-studio");
    let profile = settings.join("basic/profiles/e2e");
    let scenes = settings.join("basic/scenes");
    for folder in [&profile, &scenes] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let global = format!(
        "[General]\nFirstRun=true\nLastVersion={LAST_VERSION}\nEnableAutoUpdates=false\n\
         [Basic]\nProfile=e2e\nProfileDir=e2e\nSceneCollection=e2e\nSceneCollectionFile=e2e\n\
         [OBSWebSocket]\nFirstLoad=false\nServerEnabled=true\nServerPort={port}\n\
         AlertsEnabled=false\nAuthRequired=true\nServerPassword={PASSWORD}\n"
    );
    let source = json!({
        "id": "ffmpeg_source",
        "name": "clip",
        "settings": { "local_file": clip, "is_local_file": true, "looping": true },
        "mixers": 255,
    });
    let item = json!({ "name": "clip", "id": 1, "visible": true });
    let scene = json!({
        "id": "scene",
        "name": "scene",
        "settings": { "id_counter": 1, "items": [item] },
    });
    let collection = json!({
        "name": "e2e",
        "current_scene": "scene",
        "current_program_scene": "scene",
        "scene_order": [{ "name": "scene" }],
        "sources": [source, scene],
    });
    std::fs::write(settings.join("global.ini"), global).unwrap();
    std::fs::write(profile.join("basic.ini"), include_str!("basic.ini")).unwrap();
    std::fs::write(scenes.join("e2e.json"), collection.to_string()).unwrap();
}
