//! What the demo prints and keeps.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::app::Bound;
use crate::config::{Config, Sources};
use crate::serve::open;

fn seed() -> Seed {
    Seed {
        room: "room_01M86VRGYAE3AR7SWFHPWY1Y64".parse().unwrap(),
        stream_key: "live_key".into(),
        operator_token: "sk_token".into(),
    }
}

fn bound() -> Bound {
    let addr = |text: &str| text.parse().unwrap();
    Bound {
        http: addr("0.0.0.0:8080"),
        https: None,
        admin: addr("127.0.0.1:9090"),
        rtmp: addr("[::]:1935"),
        rtmps: None,
        webrtc: addr("0.0.0.0:3478"),
    }
}

#[test]
fn the_json_summary_is_one_line_with_the_agreed_keys() {
    let line = Summary::new(bound(), &seed(), true).render(Print::Json);
    assert_eq!(line.lines().count(), 1);
    insta::assert_snapshot!(line);
}

#[test]
fn the_text_summary_reads_well() {
    insta::assert_snapshot!(Summary::new(bound(), &seed(), false).render(Print::Text));
}

#[tokio::test]
async fn the_seed_stays_the_same_until_it_is_of_no_use() {
    let dir = std::env::temp_dir().join(format!("lamplight-seed-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let config = Config::load(&Sources {
        settings: vec![format!("data_dir={:?}", dir.display().to_string())],
        ..Sources::default()
    });
    let app = open(config.unwrap(), Clock::system()).await.unwrap();
    let first = Seed::load_or_plant(&app).await.unwrap();
    let again = Seed::load_or_plant(&app).await.unwrap();
    assert_eq!(first.room, again.room);
    assert_eq!(first.stream_key, again.stream_key);
    assert_eq!(first.operator_token, again.operator_token);

    let path = dir.join("demo.json");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    std::fs::write(&path, b"not a seed").unwrap();
    let other = Seed::load_or_plant(&app).await.unwrap();
    assert_ne!(first.room, other.room);
    app.db.close().await;
    std::fs::remove_dir_all(&dir).unwrap();
}
