//! Streams of cards: the state first, then every card once.

use std::time::Duration;

use serde_json::{Value, json};

use super::stage::Stage;
use crate::support::{Answer, TestServer};

/// An event as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    id: Option<i64>,
    kind: String,
    data: String,
}

/// A stream that is read event by event.
struct Events {
    response: reqwest::Response,
    text: String,
}

impl Events {
    async fn open(server: &TestServer, path: &str, after: Option<i64>) -> Self {
        let mut request = server.client.get(server.url(path));
        if let Some(after) = after {
            request = request.header("Last-Event-ID", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let kind = &response.headers()["content-type"];
        assert_eq!(kind, "text/event-stream");
        Self {
            response,
            text: String::new(),
        }
    }

    async fn next(&mut self) -> Sent {
        let read = async {
            loop {
                if let Some((event, rest)) = self.text.split_once("\n\n") {
                    let event = event.to_owned();
                    self.text = rest.to_owned();
                    return event;
                }
                let chunk = self.response.chunk().await.unwrap().expect("it goes on");
                self.text.push_str(std::str::from_utf8(&chunk).unwrap());
            }
        };
        let event = tokio::time::timeout(Duration::from_secs(5), read).await;
        let event = event.expect("an event comes");
        let field = |name: &str| {
            let mut lines = event.lines();
            lines.find_map(|line| line.strip_prefix(name).map(str::to_owned))
        };
        Sent {
            id: field("id: ").map(|id| id.parse().unwrap()),
            kind: field("event: ").unwrap(),
            data: field("data: ").unwrap(),
        }
    }
}

fn custom(n: i64) -> Value {
    json!({ "action": "custom", "data": { "n": n } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_joiner_gets_the_state_first_and_then_every_card_once() {
    let stage = Stage::live().await;
    let thing = stage.thing("Mug", 100).await;
    let entry = stage.shelve(&thing).await;
    let at_us = stage.pin(&entry).await["at_us"].as_i64().unwrap();
    stage.reach(at_us).await;
    // In force after the stream begins: it is no part of the snapshot.
    let ahead = json!({ "action": "explain_start", "entry_id": entry, "at_us": at_us + 9_000_000 });
    assert_eq!(stage.card(&ahead).await.status, 201);
    assert_eq!(stage.card(&custom(3)).await.status, 201);

    let path = stage.path("/cards/stream");
    let mut events = Events::open(&stage.server, &path, None).await;
    let first = events.next().await;
    assert_eq!((first.kind.as_str(), first.id), ("snapshot", Some(1)));
    let snapshot: Value = serde_json::from_str(&first.data).unwrap();
    assert_eq!(snapshot["pinned"]["entry"], json!(entry));
    assert_eq!(
        (&snapshot["seq"], &snapshot["explained"]),
        (&json!(1), &Value::Null)
    );
    for n in 4..=6 {
        assert_eq!(stage.card(&custom(n)).await.status, 201);
    }
    let envelopes = stage.envelopes().await;
    for seq in 2..=6_usize {
        let sent = events.next().await;
        let id = i64::try_from(seq).unwrap();
        assert_eq!((sent.kind.as_str(), sent.id), ("card", Some(id)));
        assert_eq!(sent.data, envelopes[seq - 1], "to the byte");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumes_behind_the_card_it_saw_last() {
    let stage = Stage::live().await;
    for n in 1..=5 {
        assert_eq!(stage.card(&custom(n)).await.status, 201);
    }
    let path = stage.path("/cards/stream");
    let mut events = Events::open(&stage.server, &path, Some(3)).await;
    for id in [4, 5] {
        let sent = events.next().await;
        assert_eq!((sent.kind.as_str(), sent.id), ("card", Some(id)));
    }
    assert_eq!(stage.card(&custom(6)).await.status, 201);
    assert_eq!(events.next().await.id, Some(6));
    let mut from_nowhere = Events::open(&stage.server, &path, Some(99)).await;
    assert_eq!(from_nowhere.next().await.kind, "snapshot");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_show_is_heard() {
    let stage = Stage::live().await;
    let entry = stage.shelve(&stage.thing("Mug", 100).await).await;
    let at_us = stage.pin(&entry).await["at_us"].as_i64().unwrap();
    stage.reach(at_us).await;
    let mut events = Events::open(&stage.server, &stage.path("/cards/stream"), None).await;
    assert_eq!(events.next().await.kind, "snapshot");
    let ended = stage.server.post(&stage.path("/end"), &json!({})).await;
    assert_eq!(ended.status, 200, "{}", ended.text);
    let sent: Value = serde_json::from_str(&events.next().await.data).unwrap();
    assert_eq!(sent["action"], "unpin");
    let mut late = Events::open(&stage.server, &stage.path("/cards/stream"), None).await;
    assert_eq!(late.next().await.id, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_an_unknown_room_is_not_found_and_an_account_has_ten() {
    let stage = Stage::live().await;
    let server = &stage.server;
    let nowhere = "/api/v1/rooms/room_01M86VRGYAE3AR7SWFHPWY1Y64/cards/stream";
    assert_eq!(server.get(nowhere).await.code(), "not_found");
    let url = server.url(&stage.path("/cards/stream"));
    let open = async || {
        let request = server.client.get(&url).bearer_auth(&server.key);
        request.send().await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..10 {
        let response = open().await;
        assert_eq!(response.status(), 200);
        held.push(response);
    }
    let over = Answer::of(open().await).await;
    assert_eq!((over.status, over.code().as_str()), (429, "rate_limited"));
    held.clear();
    let freed = async {
        while open().await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(5), freed).await;
    freed.expect("places are given back");
}
