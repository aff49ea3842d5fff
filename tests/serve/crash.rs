//! kill -9 in the middle of a show (media.md 6.7): the next start ends the recording, and it plays.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Demo;
use crate::support::Folder;

const WITHIN: Duration = Duration::from_secs(40);

/// The pages of the index of the one recording there is.
fn pages(data: &Path) -> Vec<PathBuf> {
    let folders = std::fs::read_dir(data.join("recordings"));
    let folders = folders
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok());
    let files = files.flatten().flatten().map(|entry| entry.path());
    let is_page = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "jsonl");
    files.filter(is_page).collect()
}

fn rows(data: &Path) -> Vec<Value> {
    let texts = pages(data)
        .into_iter()
        .filter_map(|page| std::fs::read_to_string(page).ok());
    let lines: Vec<String> = texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Seconds of the segments of `src` that are kept.
fn kept_s(data: &Path) -> f64 {
    let rows = rows(data);
    let is_kept = |row: &&Value| row["row"] == "segment" && row["rendition"] == "src";
    let lengths = rows
        .iter()
        .filter(is_kept)
        .map(|row| row["duration_us"].as_f64().unwrap());
    lengths.sum::<f64>() / 1e6
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waits = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let came = tokio::time::timeout(WITHIN, waits).await;
    came.unwrap_or_else(|_| panic!("{what} did not come"));
}

#[tokio::test]
async fn a_show_cut_off_by_kill_is_played_after_the_next_start() {
    let folder = Folder::new();
    let data = folder.0.join("data");
    let mut demo = Demo::start_with(&folder, &[]);
    let said = demo.summary();
    let text = |key: &str| said[key].as_str().unwrap().to_owned();
    until("a segment", || kept_s(&data) > 1.0).await;
    let room = text("room").rsplit('/').next().unwrap().to_owned();
    let cues = format!("{}/api/v1/media/broadcasts/{room}/cues", text("http"));
    let cue = json!({ "id": "a-test", "class": "card", "kind": "listed", "data": "{}" });
    let client = reqwest::Client::new();
    let placed = client
        .post(cues)
        .bearer_auth(text("operator_token"))
        .json(&cue);
    let placed: Value = placed.send().await.unwrap().json().await.unwrap();
    let t_us = placed["t_us"]
        .as_i64()
        .unwrap_or_else(|| panic!("{placed}"));
    until("the cue's segment", || {
        let t_s = Duration::from_micros(t_us.unsigned_abs()).as_secs_f64();
        kept_s(&data) > t_s && rows(&data).iter().any(|row| row["id"] == "a-test")
    })
    .await;
    demo.child.kill().unwrap();
    demo.child.wait().unwrap();
    let kept = kept_s(&data);
    let page = pages(&data).remove(0);
    let name = page
        .parent()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();

    let next = Demo::start(&folder);
    let again = next.summary();
    let base = format!("{}/vod/{name}", again["http"].as_str().unwrap());
    let answered = async {
        while reqwest::get(format!("{base}/index.m3u8"))
            .await
            .unwrap()
            .status()
            != 200
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WITHIN, answered)
        .await
        .expect("it is playable");
    check_replay(&base, kept, t_us).await;
    let left = std::fs::read_dir(data.join("recordings/unfinished")).unwrap();
    assert_eq!(left.count(), 0);
}

/// The replay has what was kept, and the cue at its T; all it names is there.
async fn check_replay(base: &str, kept_s: f64, t_us: i64) {
    let list = reqwest::get(format!("{base}/src/vod.m3u8")).await.unwrap();
    let list = list.text().await.unwrap();
    assert!(list.ends_with("#EXT-X-ENDLIST\n"), "{list}");
    let lengths = list
        .lines()
        .filter_map(|line| line.strip_prefix("#EXTINF:"));
    let lasts: f64 = lengths
        .map(|l| l.trim_end_matches(',').parse::<f64>().unwrap())
        .sum();
    assert!(
        (lasts - kept_s).abs() < 0.01,
        "{lasts} s of {kept_s}: {list}"
    );
    assert!(list.contains("ID=\"a-test\""), "{list}");
    assert!(
        list.contains(&format!("X-LAMPLIGHT-T=\"{t_us}\"")),
        "{list}"
    );
    for file in list.lines().filter(|line| !line.starts_with('#')) {
        let media = reqwest::get(format!("{base}/src/{file}")).await.unwrap();
        assert_eq!(media.status(), 200, "{file}");
    }
}
