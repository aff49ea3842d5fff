//! The binary as a process: commands, refusals at start, the demo.

mod crash;
mod doctor;
mod reload;

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Folder, api_key, lamplight};

fn free_tcp() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn free_udp() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().to_string()
}

/// A demo that is killed when dropped.
struct Demo {
    child: Child,
    first_line: String,
}

impl Demo {
    fn start(folder: &Folder) -> Self {
        Self::start_with(folder, &["--no-publisher"])
    }

    /// A demo with these arguments beside.
    fn start_with(folder: &Folder, more: &[&str]) -> Self {
        let mut child = lamplight(&[&["demo", "--print", "json"], more].concat())
            .env(
                "LAMPLIGHT_HTTP__LISTEN",
                free_tcp().replace("127.0.0.1", "0.0.0.0"),
            )
            .env("LAMPLIGHT_HTTP__ADMIN_LISTEN", free_tcp())
            .env("LAMPLIGHT_RTMP__LISTEN", free_tcp())
            .env("LAMPLIGHT_WEBRTC__UDP", free_udp())
            .env("LAMPLIGHT_DATA_DIR", folder.0.join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first_line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut first_line).unwrap();
        Self { child, first_line }
    }

    fn summary(&self) -> Value {
        serde_json::from_str(&self.first_line).unwrap()
    }

    fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn the_demo_prints_its_line_when_it_accepts_and_keeps_its_keys() {
    let folder = Folder::new();
    let demo = Demo::start(&folder);
    let first = demo.summary();
    let keys: Vec<_> = first.as_object().unwrap().keys().cloned().collect();
    let mut expected = [
        "http",
        "rtmp",
        "whip",
        "whep",
        "hls",
        "room",
        "stream_key",
        "operator_token",
    ];
    expected.sort_unstable();
    assert_eq!(keys.len(), expected.len());
    assert!(expected.iter().all(|key| first[key].is_string()), "{first}");
    assert!(
        first["http"]
            .as_str()
            .unwrap()
            .starts_with("http://127.0.0.1:")
    );

    let ready = format!("{}/readyz", first["http"].as_str().unwrap());
    assert_eq!(reqwest::get(ready).await.unwrap().status(), 200);
    at_rest(&demo).await;
    assert_eq!(demo.terminate(), Some(0));

    let again = Demo::start(&folder).summary();
    for key in ["room", "stream_key", "operator_token"] {
        assert_eq!(first[key], again[key]);
    }
}

/// Waits until what the start took is given back: freed pages go to the system within seconds.
async fn at_rest(demo: &Demo) {
    // The bound is 40 MiB in all; the program of a release build takes 12 of them.
    let is_at_rest = || resident_kib(demo.child.id()) < 28 * 1024;
    for _ in 0..150 {
        if is_at_rest() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let rss = resident_kib(demo.child.id());
    panic!("{rss} KiB at rest beside the program");
}

/// Resident memory less the pages of the program file itself, which a debug build has thrice.
fn resident_kib(process: u32) -> u64 {
    let maps = std::fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let program = env!("CARGO_BIN_EXE_lamplight");
    let mut is_program = false;
    let mut sum = 0;
    for line in maps.lines() {
        if let Some(size) = line.strip_prefix("Rss:") {
            let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
            sum += if is_program { 0 } else { size };
        } else if !line
            .split(' ')
            .next()
            .is_some_and(|word| word.ends_with(':'))
        {
            is_program = line.ends_with(program);
        }
    }
    sum
}

#[test]
fn a_start_with_a_bad_configuration_says_all_that_is_wrong_and_stops() {
    let folder = Folder::new();
    let file = folder.0.join("lamplight.toml");
    std::fs::write(&file, "[http]\nlisten = 5\ncolour = \"red\"\n").unwrap();
    let output = lamplight(&["serve", "--config"])
        .arg(&file)
        .env("LAMPLIGHT_RTMP__LISTEN", "nowhere")
        .args(["--set", "hls.part_ms_target=50"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    let said = said.replace(&folder.0.display().to_string(), "[folder]");
    insta::assert_snapshot!(said);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = lamplight(&["serve"])
        .env("LAMPLIGHT_DATA_DIR", &folder.0)
        .env("LAMPLIGHT_HTTP__LISTEN", &addr)
        .env("LAMPLIGHT_RTMP__LISTEN", free_tcp())
        .env("LAMPLIGHT_WEBRTC__UDP", free_udp())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("http.listen") && said.contains(&addr),
        "{said}"
    );
}

#[test]
fn the_limit_of_file_descriptors_is_raised_to_the_hard_one() {
    let folder = Folder::new();
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -Sn 256; exec \"$0\" serve"])
        .arg(env!("CARGO_BIN_EXE_lamplight"))
        .env("LAMPLIGHT_DATA_DIR", &folder.0)
        .env("LAMPLIGHT_HTTP__LISTEN", free_tcp())
        .env("LAMPLIGHT_HTTP__ADMIN_LISTEN", free_tcp())
        .env("LAMPLIGHT_RTMP__LISTEN", free_tcp())
        .env("LAMPLIGHT_WEBRTC__UDP", free_udp())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = lines.find(|line| line.as_ref().unwrap().contains("file descriptors"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let numbers: Vec<_> = line.unwrap().split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{limits}");
    let told = told.unwrap().unwrap();
    assert!(told.contains(numbers[0]), "{told}");
}

#[test]
fn an_operator_is_made_once_per_handle_and_the_schema_can_be_brought_up_alone() {
    let folder = Folder::new();
    let run = |arguments: &[&str]| {
        lamplight(arguments)
            .env("LAMPLIGHT_DATA_DIR", &folder.0)
            .output()
            .unwrap()
    };
    assert!(run(&["migrate"]).status.success());
    assert!(run(&["migrate"]).status.success(), "twice changes nothing");
    let create = ["admin", "create-operator", "--handle", "boss"];
    let key = api_key(&run(&create));
    assert_eq!(key.len(), 46);
    let again = run(&create);
    assert_eq!(again.status.code(), Some(1));
    let said = String::from_utf8(again.stderr).unwrap();
    let taken = "lamplight: the handle boss is taken, or looks like one that is";
    assert_eq!(said.trim_end(), taken);
}

#[test]
fn the_help_names_every_command() {
    let output = lamplight(&["--help"]).output().unwrap();
    insta::assert_snapshot!(String::from_utf8(output.stdout).unwrap());
}
