//! Replays of cards over HTTP.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::Answer;
use crate::support::show::Show;

/// Five whole segments of two seconds and a little.
const PICTURES: i64 = 320;
const WITHIN: Duration = Duration::from_secs(10);

/// The answer once the recording is there.
async fn ready(stage: &Stage, path: &str) -> Answer {
    let answered = async {
        loop {
            let answer = stage.server.get(path).await;
            if answer.status == 200 {
                return answer;
            }
            assert_eq!(answer.code(), "invalid_state");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, answered).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_has_the_cards_of_the_show_on_its_own_clock() {
    let stage = Stage::new().await;
    let entry = stage.shelve(&stage.thing("Mug & pan", 100).await).await;
    let mut show = Show::start(&stage.server, &stage.room);
    show.run_to(PICTURES);
    stage.server.reaches(&stage.room, "live").await;
    let path = stage.path("/replay/timeline");
    assert_eq!(stage.server.get(&path).await.code(), "invalid_state");
    for (action, at_us) in [("pin", 2_000_000), ("explain_start", 3_000_000)] {
        let body = json!({ "action": action, "entry_id": entry, "at_us": at_us });
        let put = stage.card(&body).await;
        assert_eq!(put.status, 201, "{}", put.text);
    }
    let ended = json!({ "action": "explain_end", "at_us": 5_000_000 });
    assert_eq!(stage.card(&ended).await.status, 201);
    let late = json!({ "action": "custom", "at_us": 50_000_000 });
    assert_eq!(stage.card(&late).await.status, 201);
    let list = format!("/hls/{}/src/live.m3u8", stage.room);
    let packaged = async {
        while !stage.server.get(&list).await.text.contains("-s4.m4s") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, packaged).await.unwrap();
    let instance = show.publisher.broadcast().instance().to_owned();
    let over = stage.server.post(&stage.path("/end"), &json!({})).await;
    assert_eq!(over.status, 200, "{}", over.text);

    let replay = ready(&stage, &path).await.json();
    assert_eq!(replay["recording"], format!("{}.{instance}", stage.room));
    assert_eq!(replay["snapshot"]["pinned"], Value::Null);
    let times = |replay: &Value| -> Vec<(i64, String)> {
        let data = replay["data"].as_array().unwrap().iter();
        data.map(|it| {
            let action = it["event"]["action"].as_str().unwrap();
            (it["t_us"].as_i64().unwrap(), action.into())
        })
        .collect()
    };
    let expected = [
        (2_000_000, "pin".to_owned()),
        (3_000_000, "explain_start".into()),
        (5_000_000, "explain_end".into()),
    ];
    assert_eq!(
        times(&replay),
        expected,
        "the late one is beyond the recording"
    );
    let length = replay["duration_us"].as_i64().unwrap();
    assert!((10_000_000..=11_000_000).contains(&length), "{length}");

    let trimmed = stage
        .server
        .get(&format!("{path}?from_us=2500000&to_us=4000000"))
        .await;
    let trimmed = trimmed.json();
    assert_eq!(trimmed["snapshot"]["pinned"]["entry"], json!(entry));
    assert_eq!(times(&trimmed), [(500_000, "explain_start".to_owned())]);
    assert_eq!(trimmed["duration_us"], 1_500_000);

    let chapters = stage.server.get(&stage.path("/replay/chapters.vtt")).await;
    assert_eq!(chapters.header("content-type"), "text/vtt");
    let expected = "WEBVTT\n\n1\n00:00:03.000 --> 00:00:05.000\nMug &amp; pan\n";
    assert_eq!(chapters.text, expected);
    let odd = stage.server.get(&format!("{path}?from_us=5&to_us=5")).await;
    assert_eq!(odd.code(), "out_of_bounds");
    let unknown = stage.server.get(&format!("{path}?instance=nothing")).await;
    assert_eq!(unknown.code(), "invalid_state");
    let nowhere = "/api/v1/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64/replay";
    for file in ["timeline", "chapters.vtt"] {
        let answer = stage.server.get(&format!("{nowhere}/{file}")).await;
        assert_eq!(answer.code(), "not_found");
    }
}
