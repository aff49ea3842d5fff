//! A real server on free ports over a fresh database, and a client for it.
//!
//! The end is strict: dropping a [`TestServer`] fails a test that leaves events in the outbox or
//! tasks running.

pub(crate) mod moto;
mod postgres;
pub(crate) mod shop;
pub(crate) mod show;
pub(crate) mod tls;

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use lamplight::app::App;
use lamplight::clock::{Clock, Timestamp};
use lamplight::config::{Config, Sources};
use lamplight::serve::{Server, TlsError};
use lamplight_media::broadcast::{BroadcastKey, Publisher};
use lamplight_media::frame::{Codec, Kind, Sample, Shape, TrackInfo};
use lamplight_media::time::SourceTime;
use serde_json::{Value, json};
use sqlx::Row;
use tokio::time::Instant;

/// Where the server's clock stands.
pub(crate) const NOON: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

const DRAINED_WITHIN: Duration = Duration::from_secs(5);

/// A directory of one test, removed when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lamplight-http-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The binary with settings of the test only.
pub(crate) fn lamplight(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lamplight"));
    command.args(arguments).env_clear();
    command
}

/// What the server said.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    /// The stable code of a problem.
    pub(crate) fn code(&self) -> String {
        let kind = self.header("content-type");
        assert_eq!(kind, "application/problem+json", "{}", self.text);
        self.json()["code"].as_str().unwrap().into()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name);
        value.map_or_else(String::new, |v| v.to_str().unwrap().into())
    }

    pub(crate) async fn of(response: reqwest::Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await.unwrap(),
        }
    }
}

/// A running server with an operator.
pub(crate) struct TestServer {
    server: Option<Server>,
    pub(crate) key: String,
    pub(crate) client: reqwest::Client,
    settings: Vec<String>,
    _folder: Folder,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// A server with settings of this test beside.
    pub(crate) async fn start_with(more: &[&str]) -> Self {
        let folder = Folder::new();
        let url = postgres::fresh_database().await.unwrap_or_default();
        let own = [
            format!("data_dir={:?}", folder.0.display().to_string()),
            format!("db.url={url:?}"),
        ];
        let free = [
            "http.listen=127.0.0.1:0",
            "http.admin_listen=127.0.0.1:0",
            "rtmp.listen=127.0.0.1:0",
            "webrtc.udp=127.0.0.1:0",
            // Shows are written at once; a slow test is no silence.
            "hls.gap_after_ms=10000",
        ];
        let settings: Vec<_> = own
            .iter()
            .cloned()
            .chain(free.iter().chain(more).map(|s| (*s).to_owned()))
            .collect();
        let config = load(settings.clone());
        let server = Server::start(config, Clock::standing_at(NOON)).await;
        let [data_dir, db_url] = own;
        let made = lamplight(&["admin", "create-operator", "--handle", "boss"])
            .args(["--set", &data_dir, "--set", &db_url])
            .output()
            .unwrap();
        Self {
            server: Some(server.unwrap()),
            key: api_key(&made),
            client: reqwest::Client::new(),
            settings,
            _folder: folder,
        }
    }

    pub(crate) fn app(&self) -> &App {
        self.running().app()
    }

    pub(crate) fn running(&self) -> &Server {
        self.server.as_ref().expect("it runs until dropped")
    }

    /// Reads the configuration again with these settings changed; the keys that need a restart.
    pub(crate) fn reload(&self, more: &[&str]) -> Result<Vec<String>, TlsError> {
        let more = more.iter().map(|&setting| setting.to_owned());
        let settings = self.settings.iter().cloned().chain(more).collect();
        self.running().reload(&load(settings))
    }

    /// The binary on the same data directory and database.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = lamplight(arguments);
        let [data_dir, db_url] = [&self.settings[0], &self.settings[1]];
        command.args(["--set", data_dir, "--set", db_url]);
        command
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().bound().http)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.client.get(self.url(path));
        Answer::of(request.send().await.unwrap()).await
    }

    /// A read by the operator.
    pub(crate) async fn get_as_operator(&self, path: &str) -> Answer {
        let request = self.client.get(self.url(path)).bearer_auth(&self.key);
        Answer::of(request.send().await.unwrap()).await
    }

    /// A write by the operator.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.client.post(self.url(path)).bearer_auth(&self.key);
        Answer::of(request.json(body).send().await.unwrap()).await
    }

    /// The same with an `Idempotency-Key`.
    pub(crate) async fn post_once(&self, key: &str, path: &str, body: &Value) -> Answer {
        let request = self.client.post(self.url(path)).bearer_auth(&self.key);
        let request = request.header("Idempotency-Key", key).json(body);
        Answer::of(request.send().await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        let request = self.client.delete(self.url(path)).bearer_auth(&self.key);
        Answer::of(request.send().await.unwrap()).await
    }

    /// A creator's id.
    pub(crate) async fn creator(&self, handle: &str) -> String {
        let body = json!({ "kind": "person", "handle": handle, "name": "Anna" });
        let made = self.post("/api/v1/creators", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["id"].as_str().unwrap().into()
    }

    /// A room's id.
    pub(crate) async fn room(&self, creator: &str) -> String {
        let body = json!({ "creator_id": creator, "title": "A show", "auto_start": true });
        let made = self.post("/api/v1/rooms", &body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["id"].as_str().unwrap().into()
    }

    /// A publisher into a room, past its key: for what viewers and operators get.
    pub(crate) fn publish(&self, room: &str) -> Publisher {
        let wall = NOON.to_datetime();
        let media = &self.app().media;
        media
            .open(BroadcastKey::new(room), Instant::now(), wall)
            .unwrap()
    }

    /// A publisher whose first frame, silence, is in.
    pub(crate) fn send_silence(&self, room: &str) -> Publisher {
        let mut publisher = self.publish(room);
        let info = TrackInfo {
            codec: Codec::Aac,
            generation: 0,
            shape: Shape::Audio {
                rate: 48_000,
                channels: 2,
            },
            config: Bytes::from_static(&[0x11, 0x90]),
            reorder_frames: None,
        };
        publisher.set_track(Instant::now(), info).unwrap();
        let silence = Sample {
            kind: Kind::Audio,
            dts: SourceTime::from_millis(0),
            composition: Duration::ZERO,
            samples: 1_024,
            is_key: true,
            is_discardable: false,
            payload: Bytes::from_static(&[0; 8]),
        };
        publisher.write(Instant::now(), silence).unwrap();
        publisher
    }

    /// Waits for the reconciler to bring a room to a state.
    pub(crate) async fn reaches(&self, room: &str, state: &str) {
        let path = format!("/api/v1/rooms/{room}");
        let reached = async {
            while self.get(&path).await.json()["state"] != state {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(DRAINED_WITHIN, reached).await;
        reached.unwrap_or_else(|_| panic!("the room is not {state}"));
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let row = sqlx::query(sql).fetch_one(self.app().db.readers()).await;
        row.unwrap().get(0)
    }

    async fn end(server: Server) -> Result<(), String> {
        let app = server.app();
        let drained = async {
            loop {
                let query = sqlx::query("SELECT event_id FROM outbox LIMIT 1");
                let row = query.fetch_optional(app.db.readers()).await;
                if row.unwrap().is_none() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let is_drained = tokio::time::timeout(DRAINED_WITHIN, drained).await.is_ok();
        let left = server.stop(Duration::ZERO).await;
        match (is_drained, left.is_empty()) {
            (false, _) => Err("events are left in the outbox".into()),
            (true, false) => Err(format!("tasks still run: {left:?}")),
            (true, true) => Ok(()),
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let server = self.server.take().expect("dropped once");
        let ended = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(Self::end(server))
        });
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

fn load(settings: Vec<String>) -> Config {
    let sources = Sources {
        settings,
        ..Sources::default()
    };
    Config::load(&sources).unwrap()
}

/// The key that `admin create-operator` printed.
pub(crate) fn api_key(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    let key = said.split_whitespace().find(|word| word.starts_with("sk_"));
    key.expect("the key is printed").into()
}

/// A body with its ids and request id made the same in every run.
pub(crate) fn redacted(mut body: Value) -> Value {
    redact(&mut body);
    body
}

fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::String(text) => {
            let prefixes = [
                "room_", "cre_", "key_", "req_", "live_", "c1.", "acc_", "ses_", "st_", "ak_",
                "inv_",
            ];
            if let Some(prefix) = prefixes.iter().find(|p| text.starts_with(**p)) {
                *text = format!("[{}]", prefix.trim_end_matches(['_', '.']));
            }
        }
        _ => {}
    }
}
