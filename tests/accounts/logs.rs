//! What is logged of people who log in: nothing secret, at any level.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::PASSWORD;
use crate::support::{Folder, lamplight};

const WRONG: &str = "not the heron";

/// A server that is killed when dropped.
struct Serving(Child);

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// CM12: the log of a server that logs everything holds no password, token, key or code.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_at_any_level() {
    let folder = Folder::new();
    let log = folder.0.join("log");
    let child = lamplight(&["serve", "--set", "log.level=trace"])
        .env("LAMPLIGHT_DATA_DIR", folder.0.join("data"))
        .env("LAMPLIGHT_HTTP__LISTEN", "127.0.0.1:0")
        .env("LAMPLIGHT_HTTP__ADMIN_LISTEN", "127.0.0.1:0")
        .env("LAMPLIGHT_RTMP__LISTEN", "127.0.0.1:0")
        .env("LAMPLIGHT_WEBRTC__UDP", "127.0.0.1:0")
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn();
    let _serving = Serving(child.unwrap());
    let accepts = async {
        loop {
            let text = fs::read_to_string(&log).unwrap();
            let after = text.split_once("http.addr=").map(|(_, rest)| rest);
            let addr = after.and_then(|rest| rest.split_whitespace().next());
            if let Some(addr) = addr {
                return format!("http://{addr}/api/v1");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let base = tokio::time::timeout(Duration::from_secs(20), accepts)
        .await
        .unwrap();
    let client = reqwest::Client::new();
    let post = async |path: &str, token: &str, body: Value| {
        let request = client.post(format!("{base}{path}")).bearer_auth(token);
        let answer = request
            .header("Idempotency-Key", "k")
            .json(&body)
            .send()
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap_or_default(),
        )
    };
    let body = json!({ "handle": "anna", "password": PASSWORD });
    let (status, made) = post("/accounts", "", body.clone()).await;
    assert_eq!(status, 201, "{made}");
    let token = made["session"]["token"].as_str().unwrap();
    let code = made["recovery_codes"][0].as_str().unwrap();
    let key = json!({ "name": "k", "scopes": ["posts:read"] });
    let (_, key) = post("/me/api_keys", token, key).await;
    let body = json!({ "handle": "anna", "password": WRONG });
    assert_eq!(post("/sessions", "", body).await.0, 401);
    let body = json!({ "current": WRONG, "password": PASSWORD });
    assert_eq!(post("/me/password", token, body).await.0, 401);
    let body = json!({ "handle": "anna", "password": { "is": WRONG } });
    assert_eq!(post("/sessions", "", body).await.0, 400);
    let body = json!({ "handle": "anna", "recovery_code": code, "password": "a loud heron" });
    assert_eq!(post("/accounts/recover", "", body).await.0, 201);

    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("answered"), "the level has no effect");
    let key = key["secret"].as_str().unwrap();
    for secret in [PASSWORD, WRONG, "a loud heron", token, code, key] {
        assert!(!said.contains(secret), "{secret}");
    }
}
