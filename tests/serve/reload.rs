//! Reading the configuration again while the server runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use lamplight_media::broadcast::{BroadcastKey, OpenError};
use lamplight_media::rtmp::client::{Client, ClientError};
use serde_json::json;
use tokio::time::Instant;

use crate::support::tls::{Certificate, settings};
use crate::support::{Folder, NOON, TestServer, lamplight};

#[tokio::test(flavor = "multi_thread")]
async fn origins_and_limits_count_at_once() {
    let server = TestServer::start().await;
    let origin = async || {
        let request = server.client.get(server.url("/healthz"));
        let asked = request.header("Origin", "https://other.example").send();
        let answer = asked.await.unwrap();
        answer.headers().contains_key("access-control-allow-origin")
    };
    assert!(origin().await);
    let open = |room: &str| {
        let (key, wall) = (BroadcastKey::new(room), NOON.to_datetime());
        server.app().media.open(key, Instant::now(), wall)
    };
    let first = open("one");
    let left = server.reload(&[
        "http.cors_origins=[\"https://shop.example\"]",
        "limits.broadcasts_max=1",
    ]);
    assert!(left.unwrap().is_empty());
    assert!(!origin().await);
    assert_eq!(open("two").unwrap_err(), OpenError::Full);
    assert!(server.reload(&[]).unwrap().is_empty());
    assert!(open("two").is_ok() && first.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_publisher_meets_the_new_takeover() {
    let server = TestServer::start().await;
    let room = server.room(&server.creator("anna").await).await;
    let path = format!("/api/v1/rooms/{room}/publish_keys");
    let made = server.post(&path, &json!({})).await.json();
    let target = format!(
        "{}/{}",
        made["rtmp_url"].as_str().unwrap(),
        made["key"].as_str().unwrap()
    );
    let publish = async || Client::connect(&target.parse().unwrap()).await;
    let _first = publish().await.unwrap();
    let _second = publish().await.unwrap();
    let left = server.reload(&["publish.takeover=refuse", "publish.grace_s=600"]);
    assert!(left.unwrap().is_empty());
    let refused = publish().await.unwrap_err();
    assert!(matches!(refused, ClientError::Refused { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_handshake_shows_the_new_certificate_and_a_bad_one_changes_nothing() {
    let folder = Folder::new();
    let first = Certificate::write_to(&folder.0);
    let settings = settings(&folder.0);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = TestServer::start_with(&settings).await;
    let addr = server.running().bound().https.unwrap();
    let _open = first.connect(addr, &[]).await.unwrap();

    let second = Certificate::write_to(&folder.0);
    assert!(server.reload(&[]).unwrap().is_empty());
    assert!(first.connect(addr, &[]).await.is_err());
    second.connect(addr, &[]).await.unwrap();

    std::fs::write(folder.0.join("key.pem"), "no key").unwrap();
    let said = server.reload(&["limits.whep_max=1"]).unwrap_err();
    assert!(said.to_string().starts_with("http.tls_key"), "{said}");
    assert_eq!(server.app().config().limits.whep_max, 2_000);
    second.connect(addr, &[]).await.unwrap();
}

/// `lamplight serve` with a file of its own; killed when dropped.
struct Process {
    child: Child,
    lines: BufReader<ChildStderr>,
    folder: Folder,
}

impl Process {
    fn start(more: &str) -> Self {
        let folder = Folder::new();
        write(&folder, more);
        let mut child = lamplight(&["serve", "--config"])
            .arg(folder.0.join("lamplight.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut process = Self {
            child,
            lines,
            folder,
        };
        process.hears("accepting");
        process
    }

    /// Changes the file, tells the process, and returns what it logs up to this word.
    fn rereads(&mut self, more: &str, until: &str) -> String {
        write(&self.folder, more);
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-HUP", &id]).status();
        assert!(told.unwrap().success());
        self.hears(until)
    }

    fn hears(&mut self, word: &str) -> String {
        let mut said = String::new();
        while !said.contains(word) {
            let read = self.lines.read_line(&mut said).unwrap();
            assert!(read > 0, "no {word:?} in {said}");
        }
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn write(folder: &Folder, more: &str) {
    let data_dir = folder.0.join("data").display().to_string();
    let text = format!(
        "data_dir = {data_dir:?}\nrtmp.listen = \"127.0.0.1:0\"\n\
         webrtc.udp = \"127.0.0.1:0\"\n{more}\n"
    );
    std::fs::write(folder.0.join("lamplight.toml"), text).unwrap();
}

const LISTEN: &str = "http.listen = \"127.0.0.1:0\"\nhttp.admin_listen = \"127.0.0.1:0\"";

#[test]
fn a_signal_reads_the_file_again_and_a_bad_one_is_refused_whole() {
    let mut process = Process::start(LISTEN);
    let said = process.rereads(
        "http.listen = \"127.0.0.1:1\"\nhttp.admin_listen = \"127.0.0.1:0\"\n\
         log.level = \"debug\"",
        "configuration read again",
    );
    assert!(
        said.contains("needs a restart config.key=\"http.listen\""),
        "{said}"
    );

    let bad = format!("{LISTEN}\nlog.level = \"error\"\nlimits.whep_max = 0\ncolour = 1");
    let said = process.rereads(&bad, "there is no such key");
    let faults: Vec<_> = said
        .lines()
        .filter(|line| line.contains("the configuration stays as it was"))
        .collect();
    assert_eq!(faults.len(), 2, "{said}");
    assert!(faults[0].contains("limits.whep_max"), "{said}");
    // The level of the bad file, which would hide this line, was not taken.
    process.rereads(LISTEN, "configuration read again");
}
