//! The outbox and its relay.
//!
//! Invariant: log row, stream numbers and the removal of the outbox row are one transaction.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Executor, Row};
use tokio::sync::Notify;
use tracing::{error, warn};

use super::{Bus, Event, Kind, NewEvent};
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::ids::EventId;

/// The wire version of an event's body.
const API_VERSION: i64 = 1;
/// Bytes of an envelope.
const ENVELOPE_BYTES_MAX: usize = 20 * 1024;
/// Rows moved in one transaction.
const BATCH_MAX: i64 = 256;
/// Looks without being told, for rows another process left.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Appends an event to the outbox in the transaction of the change it tells.
///
/// # Errors
/// The database's error.
pub(crate) async fn append(tx: &mut Tx, now: Timestamp, event: NewEvent) -> sqlx::Result<EventId> {
    let id = EventId::new(now);
    let (seq, created_us) = next_of_subject(tx, &event.subject_id, now).await?;
    let streams: Vec<String> = event.streams.iter().map(|s| s.name()).collect();
    let body = event.data.to_string();
    assert!(
        body.len() < ENVELOPE_BYTES_MAX,
        "events carry ids and states, not documents"
    );
    let sql = "INSERT INTO outbox (event_id, type, subject_kind, subject_id, subject_seq, \
               streams, body, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(event.kind.as_str())
        .bind(event.subject_kind.as_str())
        .bind(event.subject_id)
        .bind(seq)
        .bind(json!(streams).to_string())
        .bind(body)
        .bind(created_us);
    tx.execute(query).await?;
    tx.tell_after_commit();
    Ok(id)
}

/// The next number of a subject. The row stays locked until the commit, so numbers appear in order.
async fn next_of_subject(tx: &mut Tx, id: &str, now: Timestamp) -> sqlx::Result<(i64, i64)> {
    let sql = "INSERT INTO event_subjects (subject_id, seq, last_us) VALUES ($1, 1, $2) \
               ON CONFLICT (subject_id) DO UPDATE SET seq = event_subjects.seq + 1, \
               last_us = CASE WHEN event_subjects.last_us > $2 THEN event_subjects.last_us \
               ELSE $2 END RETURNING seq, last_us";
    let query = sqlx::query(sql).bind(id).bind(now.as_micros());
    let row = tx.fetch_one(query).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Moves outbox rows to the log and the bus.
#[derive(Debug)]
pub(crate) struct Relay {
    db: Db,
    bus: Bus,
    news: Arc<Notify>,
}

impl Relay {
    pub(crate) fn new(db: Db, bus: Bus) -> Self {
        let news = db.news();
        Self { db, bus, news }
    }

    /// Runs for ever; may be dropped at any time, since a batch is one transaction.
    pub(crate) async fn run(self) {
        let mut retry_after = Duration::from_millis(100);
        loop {
            match self.drain().await {
                Ok(()) => {
                    retry_after = Duration::from_millis(100);
                    // Waking without news is harmless; the timer finds rows of other processes.
                    drop(tokio::time::timeout(LOOK_EVERY, self.news.notified()).await);
                }
                Err(err) => {
                    warn!(
                        error = &err as &dyn std::error::Error,
                        "relay failed, will retry"
                    );
                    tokio::time::sleep(retry_after).await;
                    retry_after = (retry_after * 2).min(RETRY_AFTER_MAX);
                }
            }
        }
    }

    /// Moves everything that is there now.
    pub(crate) async fn drain(&self) -> sqlx::Result<()> {
        while self.move_batch().await? > 0 {}
        Ok(())
    }

    async fn move_batch(&self) -> sqlx::Result<usize> {
        if !self.has_rows().await? {
            return Ok(0);
        }
        let mut tx = self.db.begin().await?;
        let sql = "SELECT event_id, type, subject_kind, subject_id, subject_seq, streams, body, \
                   created_us FROM outbox ORDER BY created_us, subject_seq LIMIT $1";
        let rows = tx.fetch_all(sqlx::query(sql).bind(BATCH_MAX)).await?;
        let mut moved = Vec::with_capacity(rows.len());
        for row in &rows {
            let row = Waiting::read(row)?;
            let sql = "DELETE FROM outbox WHERE event_id = $1";
            let done = tx.execute(sqlx::query(sql).bind(&row.event_id)).await?;
            // Another process may have moved it meanwhile.
            if done.rows_affected() == 1 {
                log(&mut tx, &row).await?;
                moved.push(row);
            }
        }
        tx.commit().await?;
        let count = moved.len();
        for event in moved.into_iter().filter_map(Waiting::into_event) {
            self.bus.publish(event);
        }
        Ok(count)
    }

    /// Asks a reader first: an empty outbox must not cost a write transaction every second.
    async fn has_rows(&self) -> sqlx::Result<bool> {
        let sql = "SELECT event_id FROM outbox LIMIT 1";
        let row = sqlx::query(sql).fetch_optional(self.db.readers()).await?;
        Ok(row.is_some())
    }
}

/// One row of the outbox.
#[derive(Debug)]
struct Waiting {
    event_id: String,
    kind: String,
    subject_kind: String,
    subject_id: String,
    subject_seq: i64,
    streams: Vec<String>,
    data: Value,
    created_us: i64,
}

impl Waiting {
    fn read(row: &sqlx::any::AnyRow) -> sqlx::Result<Self> {
        let decode = |err: serde_json::Error| sqlx::Error::Decode(err.into());
        let (streams, body): (String, String) = (row.try_get(5)?, row.try_get(6)?);
        Ok(Self {
            event_id: row.try_get(0)?,
            kind: row.try_get(1)?,
            subject_kind: row.try_get(2)?,
            subject_id: row.try_get(3)?,
            subject_seq: row.try_get(4)?,
            streams: serde_json::from_str(&streams).map_err(decode)?,
            data: serde_json::from_str(&body).map_err(decode)?,
            created_us: row.try_get(7)?,
        })
    }

    fn envelope(&self, stream: &str, seq: i64) -> String {
        json!({
            "id": self.event_id,
            "type": self.kind,
            "stream": stream,
            "seq": seq,
            "subject": { "kind": self.subject_kind, "id": self.subject_id },
            "subject_seq": self.subject_seq,
            "occurred_at": Timestamp::from_micros(self.created_us),
            "api_version": API_VERSION,
            "data": self.data,
        })
        .to_string()
    }

    fn into_event(self) -> Option<Event> {
        let (id, kind) = (self.event_id.parse(), Kind::parse(&self.kind));
        let (Ok(id), Some(kind)) = (id, kind) else {
            error!(event.id = %self.event_id, event.kind = %self.kind, "unknown event in outbox");
            return None;
        };
        Some(Event {
            id,
            kind,
            subject_id: self.subject_id,
            subject_seq: self.subject_seq,
            occurred_at: Timestamp::from_micros(self.created_us),
            data: self.data,
        })
    }
}

async fn log(tx: &mut Tx, row: &Waiting) -> sqlx::Result<()> {
    for stream in &row.streams {
        let sql = "INSERT INTO event_streams (stream, seq) VALUES ($1, 1) ON CONFLICT (stream) \
                   DO UPDATE SET seq = event_streams.seq + 1 RETURNING seq";
        let seq: i64 = tx
            .fetch_one(sqlx::query(sql).bind(stream))
            .await?
            .try_get(0)?;
        let sql = "INSERT INTO event_log (stream, seq, event_id, type, subject_id, subject_seq, \
                   body, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
        let query = sqlx::query(sql)
            .bind(stream)
            .bind(seq)
            .bind(&row.event_id)
            .bind(&row.kind)
            .bind(&row.subject_id)
            .bind(row.subject_seq)
            .bind(row.envelope(stream, seq))
            .bind(row.created_us);
        tx.execute(query).await?;
    }
    Ok(())
}
