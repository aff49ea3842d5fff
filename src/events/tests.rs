//! The outbox and its relay, on a real database.

use serde_json::{Value, json};
use sqlx::{Executor, Row};

use super::*;
use crate::db::{Db, Folder, NOON, fresh};

struct Fixture {
    db: Db,
    bus: Bus,
    _folder: Folder,
}

impl Fixture {
    async fn new() -> Self {
        let folder = Folder::new();
        Self {
            db: fresh(&folder).await,
            bus: Bus::default(),
            _folder: folder,
        }
    }

    fn relay(&self) -> Relay {
        Relay::new(self.db.clone(), self.bus.clone())
    }
}

fn event(subject: &str, streams: Vec<Stream>) -> NewEvent {
    NewEvent {
        kind: Kind::RoomScheduled,
        subject_kind: SubjectKind::Room,
        subject_id: subject.into(),
        streams,
        data: json!({ "title": "x" }),
    }
}

async fn append_one(it: &Fixture, at: Timestamp, subject: &str, streams: Vec<Stream>) {
    let mut tx = it.db.begin().await.unwrap();
    append(&mut tx, at, event(subject, streams)).await.unwrap();
    tx.commit().await.unwrap();
}

async fn log(it: &Fixture, stream: &str) -> Vec<(i64, String, i64)> {
    let sql = "SELECT seq, subject_id, subject_seq FROM event_log WHERE stream = $1 ORDER BY seq";
    let rows = sqlx::query(sql).bind(stream).fetch_all(it.db.readers());
    let rows = rows.await.unwrap();
    rows.iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect()
}

async fn waiting(it: &Fixture) -> i64 {
    let query = sqlx::query("SELECT COUNT(*) FROM outbox");
    query.fetch_one(it.db.readers()).await.unwrap().get(0)
}

#[tokio::test]
async fn numbers_have_no_gap_per_stream_and_per_subject() {
    let it = Fixture::new().await;
    let relay = it.relay();
    for subject in ["a", "b", "a"] {
        append_one(&it, NOON, subject, vec![Stream::Platform, Stream::Social]).await;
    }
    relay.drain().await.unwrap();
    append_one(&it, NOON, "a", vec![Stream::Platform]).await;
    relay.drain().await.unwrap();
    let a = |seq, n| (seq, String::from("a"), n);
    let b = (2, String::from("b"), 1);
    assert_eq!(
        log(&it, "platform").await,
        [a(1, 1), b.clone(), a(3, 2), a(4, 3)]
    );
    assert_eq!(log(&it, "social").await, [a(1, 1), b, a(3, 2)]);
    assert_eq!(waiting(&it).await, 0);
}

#[tokio::test]
async fn a_change_that_is_rolled_back_tells_nothing_and_takes_no_number() {
    let it = Fixture::new().await;
    let mut tx = it.db.begin().await.unwrap();
    append(&mut tx, NOON, event("a", vec![Stream::Platform]))
        .await
        .unwrap();
    tx.rollback().await.unwrap();
    append_one(&it, NOON, "a", vec![Stream::Platform]).await;
    let relay = it.relay();
    relay.drain().await.unwrap();
    assert_eq!(log(&it, "platform").await, [(1, String::from("a"), 1)]);
}

#[tokio::test]
async fn a_clock_that_steps_back_does_not_reorder_a_subject() {
    let it = Fixture::new().await;
    let earlier = Timestamp::from_micros(NOON.as_micros() - 5_000_000);
    append_one(&it, NOON, "a", vec![Stream::Platform]).await;
    append_one(&it, earlier, "a", vec![Stream::Platform]).await;
    let mut heard = it.bus.subscribe();
    let relay = it.relay();
    relay.drain().await.unwrap();
    for seq in [1, 2] {
        assert_eq!(heard.recv().await.unwrap().subject_seq, seq);
    }
}

#[tokio::test]
async fn the_bus_carries_what_the_log_holds() {
    let it = Fixture::new().await;
    let mut heard = it.bus.subscribe();
    append_one(&it, NOON, "a", vec![Stream::Platform]).await;
    let relay = it.relay();
    relay.drain().await.unwrap();
    relay.drain().await.unwrap();
    let event = heard.recv().await.unwrap();
    assert_eq!((event.kind, event.occurred_at), (Kind::RoomScheduled, NOON));
    assert!(heard.try_recv().is_err(), "told once");

    let mut tx = it.db.begin().await.unwrap();
    let query = sqlx::query("SELECT body FROM event_log WHERE stream = 'platform'");
    let body: String = tx.fetch_one(query).await.unwrap().get(0);
    let mut body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["id"], json!(event.id));
    body["id"] = json!("[id]");
    insta::assert_json_snapshot!(body);
}

#[tokio::test]
async fn every_kind_is_read_back_from_its_name() {
    for kind in Kind::ALL {
        assert_eq!(Kind::parse(kind.as_str()), Some(kind));
    }
    assert_eq!(Kind::parse("room.exploded"), None);
}
