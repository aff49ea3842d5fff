//! `lamplight doctor`: what it says of a machine, and that it changes nothing.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::tls::Certificate;
use crate::support::{Folder, TestServer, lamplight};

/// What depends on the machine the test runs on.
const OF_MACHINE: [&str; 8] = [
    "convert.encoder",
    "encoder of",
    "net.core",
    "webrtc.public_addrs",
    "file descriptors",
    "free disk space",
    "clock",
    "convert.encoder_fallback",
];

fn doctor(folder: &Folder) -> Command {
    let mut command = lamplight(&["doctor"]);
    command
        .env("LAMPLIGHT_DATA_DIR", folder.0.join("data"))
        .env("LAMPLIGHT_WEBRTC__UDP", "127.0.0.1:0");
    for key in ["HTTP__LISTEN", "HTTP__ADMIN_LISTEN", "RTMP__LISTEN"] {
        command.env(format!("LAMPLIGHT_{key}"), "127.0.0.1:0");
    }
    command
}

/// The same over a certificate in the folder, as JSON.
fn with_tls(folder: &Folder) -> Command {
    let mut command = doctor(folder);
    command
        .arg("--json")
        .env("LAMPLIGHT_HTTP__TLS_CERT", folder.0.join("cert.pem"))
        .env("LAMPLIGHT_HTTP__TLS_KEY", folder.0.join("key.pem"))
        .env("LAMPLIGHT_HTTP__TLS_LISTEN", "127.0.0.1:0");
    command
}

fn said(output: &Output, folder: &Folder) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.replace(&folder.0.display().to_string(), "[folder]")
}

/// The verdict and text of one check.
fn finding(output: &Output, check: &str) -> (String, String) {
    let findings: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = findings.as_array().unwrap().iter();
    let found = all.find(|f| f["check"] == check).unwrap();
    let text = |name: &str| found[name].as_str().unwrap().to_owned();
    (text("verdict"), text("text"))
}

#[test]
fn a_fresh_machine_is_told_line_by_line_and_stays_fresh() {
    let folder = Folder::new();
    let output = doctor(&folder).output().unwrap();
    let said = said(&output, &folder);
    let lines = said.lines().map(|line| {
        let (verdict, rest) = line.split_at(6);
        let check = rest.split_once(": ").unwrap().0;
        if OF_MACHINE.iter().any(|name| check.starts_with(name)) {
            return format!("[?]   {check}: [of this machine]\n");
        }
        format!("{verdict}{rest}\n")
    });
    insta::assert_snapshot!(lines.collect::<String>());
    assert!(!folder.0.join("data").exists());
    let has_fault = said.lines().any(|line| line.starts_with("fail"));
    assert_eq!(output.status.success(), !has_fault);
}

#[test]
fn what_would_stop_the_start_fails_with_what_to_do() {
    let folder = Folder::new();
    let data = folder.0.join("data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("lamplight.db"), "no database, but text").unwrap();
    std::fs::write(data.join("secret.key"), [7; 32]).unwrap();
    std::fs::set_permissions(data.join("secret.key"), PermissionsExt::from_mode(0o644)).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = doctor(&folder)
        .arg("--json")
        .env(
            "LAMPLIGHT_RTMP__LISTEN",
            taken.local_addr().unwrap().to_string(),
        )
        .env("LAMPLIGHT_HTTP__TLS_CERT", folder.0.join("nowhere.pem"))
        .env("LAMPLIGHT_HTTP__TLS_KEY", folder.0.join("nowhere.pem"))
        .env("LAMPLIGHT_HTTP__TLS_LISTEN", "127.0.0.1:0")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let cases = [
        ("rtmp.listen", "stop it or set rtmp.listen"),
        ("key file", "chmod 600"),
        ("database", "mend db.url"),
        ("http.tls_cert", "cannot be read"),
    ];
    for (check, advice) in cases {
        let (verdict, text) = finding(&output, check);
        assert_eq!(verdict, "fail", "{check}: {text}");
        assert!(text.contains(advice), "{check}: {text}");
    }
    let left: Vec<_> = std::fs::read_dir(&data).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing was made: {left:?}");

    let output = doctor(&folder)
        .args(["--json", "--set", "data_dir=/proc/version"])
        .output()
        .unwrap();
    let (verdict, text) = finding(&output, "data_dir");
    assert_eq!(
        (verdict.as_str(), text.as_str()),
        ("fail", "/proc/version is no directory; set data_dir")
    );
}

#[test]
fn a_migrated_database_opens_and_a_certificate_says_until_when() {
    let folder = Folder::new();
    Certificate::write_to(&folder.0);
    let data = folder.0.join("data");
    let key = folder.0.join("key.pem");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let output = with_tls(&folder).output().unwrap();
    let (verdict, text) = finding(&output, "http.tls_cert");
    assert_eq!(verdict, "warn");
    assert!(text.contains("chmod o="), "{text}");
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o640)).unwrap();
    let migrate = lamplight(&["migrate"])
        .env("LAMPLIGHT_DATA_DIR", &data)
        .status();
    assert!(migrate.unwrap().success());
    let count = || std::fs::read_dir(&data).unwrap().count();
    let before = count();
    let output = with_tls(&folder).output().unwrap();
    assert_eq!(finding(&output, "database").0, "ok");
    assert_eq!(finding(&output, "key file").0, "ok");
    let (verdict, text) = finding(&output, "http.tls_cert");
    assert_eq!(verdict, "ok");
    assert!(text.starts_with("good until "), "{text}");
    assert_eq!(count(), before);
}

#[test]
fn a_bad_configuration_is_a_finding_for_each_fault() {
    let folder = Folder::new();
    let output = doctor(&folder)
        .args(["--set", "limits.whep_max=0", "--set", "colour=1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output, &folder);
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.lines().all(|line| line.starts_with("fail  config: ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_that_a_running_server_has_are_no_fault() {
    let folder = Folder::new();
    let server = TestServer::start().await;
    let bound = server.running().bound();
    let output = doctor(&folder)
        .arg("--json")
        .env("LAMPLIGHT_HTTP__LISTEN", bound.http.to_string())
        .env("LAMPLIGHT_RTMP__LISTEN", bound.rtmp.to_string())
        .env("LAMPLIGHT_WEBRTC__UDP", bound.webrtc.to_string())
        .output()
        .unwrap();
    for key in ["http.listen", "rtmp.listen", "webrtc.udp"] {
        let (verdict, text) = finding(&output, key);
        assert!(text.ends_with("a Lamplight runs here"), "{text}");
        assert_eq!(verdict, "ok");
    }
}
