//! The outbox and its relay.
//!
//! Invariant: log row, stream numbers and the removal of the outbox row are one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Executor, Row};
use tokio::sync::Notify;
use tracing::{error, warn};

use super::{Bus, Event, Kind, NewEvent};
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Db, Tx, select_in};
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
    let ids = append_all(tx, now, &[event]).await?;
    ids.into_iter().next().ok_or(sqlx::Error::RowNotFound)
}

/// The same for many events, in their order, with as many statements as one takes.
///
/// # Errors
/// The database's error.
pub(crate) async fn append_all(
    tx: &mut Tx,
    now: Timestamp,
    events: &[NewEvent],
) -> sqlx::Result<Vec<EventId>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let mut places = take_places(tx, now, events).await?;
    let mut rows = Vec::with_capacity(events.len());
    for event in events {
        let place = places.get_mut(event.subject_id.as_str());
        let place = place.ok_or(sqlx::Error::RowNotFound)?;
        place.seq += 1;
        rows.push((EventId::new(now), event, *place));
    }
    let bulk = Bulk {
        head: "INSERT INTO outbox (event_id, type, subject_kind, subject_id, subject_seq, \
               streams, body, created_us)",
        width: 8,
        tail: "",
    };
    let bind = |query: Bound, (id, event, place): &(EventId, &NewEvent, Place)| {
        let streams: Vec<String> = event.streams.iter().map(|s| s.name()).collect();
        let body = event.data.to_string();
        assert!(
            body.len() < ENVELOPE_BYTES_MAX,
            "events carry ids and states, not documents"
        );
        query
            .bind(id.to_string())
            .bind(event.kind.as_str())
            .bind(event.subject_kind.as_str())
            .bind(event.subject_id.clone())
            .bind(place.seq)
            .bind(json!(streams).to_string())
            .bind(body)
            .bind(place.created_us)
    };
    bulk.execute(tx, &rows, bind).await?;
    tx.tell_after_commit();
    Ok(rows.into_iter().map(|(id, _, _)| id).collect())
}

/// Where the next event of a subject stands: behind `seq`.
#[derive(Clone, Copy)]
struct Place {
    seq: i64,
    created_us: i64,
}

/// Takes the numbers of all events' subjects. The rows stay locked until the commit, so numbers
/// appear in order.
async fn take_places(
    tx: &mut Tx,
    now: Timestamp,
    events: &[NewEvent],
) -> sqlx::Result<HashMap<String, Place>> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for event in events {
        *counts.entry(&event.subject_id).or_default() += 1;
    }
    let bulk = Bulk {
        head: "INSERT INTO event_subjects (subject_id, seq, last_us)",
        width: 3,
        tail: "ON CONFLICT (subject_id) DO UPDATE SET seq = event_subjects.seq + excluded.seq, \
               last_us = CASE WHEN event_subjects.last_us > excluded.last_us \
               THEN event_subjects.last_us ELSE excluded.last_us END \
               RETURNING subject_id, seq, last_us",
    };
    let bind = |query: Bound, (subject, count): &(&str, i64)| {
        let query = query.bind((*subject).to_owned()).bind(*count);
        query.bind(now.as_micros())
    };
    let subjects: Vec<_> = counts.iter().map(|(id, count)| (*id, *count)).collect();
    let mut places = HashMap::new();
    for row in bulk.fetch(tx, &subjects, bind).await? {
        let (id, last): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let taken = counts.get(id.as_str()).copied().unwrap_or_default();
        let place = Place {
            seq: last - taken,
            created_us: row.try_get(2)?,
        };
        places.insert(id, place);
    }
    Ok(places)
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
        let rows: Vec<Waiting> = rows.iter().map(Waiting::read).collect::<Result<_, _>>()?;
        let ids = rows.iter().map(|row| row.event_id.as_str());
        // Another process may have moved some meanwhile.
        let delete = "DELETE FROM outbox WHERE event_id IN";
        let mut taken = HashSet::new();
        for row in select_in(&mut tx, delete, " RETURNING event_id", ids).await? {
            taken.insert(row.try_get::<String, _>(0)?);
        }
        let moved = rows.into_iter().filter(|row| taken.contains(&row.event_id));
        let moved: Vec<Waiting> = moved.collect();
        log(&mut tx, &moved).await?;
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

/// Writes events to each of their streams, with the next numbers of it.
async fn log(tx: &mut Tx, events: &[Waiting]) -> sqlx::Result<()> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for stream in events.iter().flat_map(|event| &event.streams) {
        *counts.entry(stream).or_default() += 1;
    }
    let bulk = Bulk {
        head: "INSERT INTO event_streams (stream, seq)",
        width: 2,
        tail: "ON CONFLICT (stream) DO UPDATE SET seq = event_streams.seq + excluded.seq \
               RETURNING stream, seq",
    };
    let streams: Vec<_> = counts.iter().map(|(name, count)| (*name, *count)).collect();
    let bind =
        |query: Bound, (stream, count): &(&str, i64)| query.bind((*stream).to_owned()).bind(*count);
    let mut last: HashMap<String, i64> = HashMap::new();
    for row in bulk.fetch(tx, &streams, bind).await? {
        let (stream, seq): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
        let taken = counts.get(stream.as_str()).copied().unwrap_or_default();
        last.insert(stream, seq - taken);
    }
    let mut rows = Vec::new();
    for event in events {
        for stream in &event.streams {
            let seq = last.get_mut(stream).ok_or(sqlx::Error::RowNotFound)?;
            *seq += 1;
            rows.push((stream, *seq, event));
        }
    }
    let bulk = Bulk {
        head: "INSERT INTO event_log (stream, seq, event_id, type, subject_id, subject_seq, \
               body, created_us)",
        width: 8,
        tail: "",
    };
    let bind = |query: Bound, (stream, seq, event): &(&String, i64, &Waiting)| {
        query
            .bind((*stream).clone())
            .bind(*seq)
            .bind(event.event_id.clone())
            .bind(event.kind.clone())
            .bind(event.subject_id.clone())
            .bind(event.subject_seq)
            .bind(event.envelope(stream, *seq))
            .bind(event.created_us)
    };
    bulk.execute(tx, &rows, bind).await?;
    Ok(())
}
