//! Repeats: the same `Idempotency-Key` gives the same answer and one effect.
//!
//! Invariants
//! - The key row and the effect are one transaction; a crash between commit and answer is
//!   followed by a replay.
//! - Stored are 2xx, and 409 and 422 that a transaction decided; anything else is decided anew.
//! - A stored body is sealed: it may hold a secret that is shown once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};
use tokio::sync::Notify;

use super::body::Call;
use super::error::{ApiError, Code, PROBLEM_JSON};
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Db, Tx};

/// How long a repeat waits for the first request.
const WAIT: Duration = Duration::from_secs(2);
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows cleared away in one pass.
const SWEEP_MAX: i64 = 1_000;
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Whether a write is new.
#[derive(Debug)]
pub(crate) enum Begin {
    /// It came before: this was the answer.
    Replay(Response),
    /// It runs now, in this transaction.
    Run(Box<Run>),
}

/// A write that runs. Dropped, it leaves no trace.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) tx: Tx,
    app: App,
    call: Call,
    /// `None` when the client gave no key.
    kept: Option<(Row, Slot)>,
}

/// Opens the transaction of a write, or finds its stored answer.
pub(crate) async fn begin(app: &App, principal: &str, call: Call) -> Result<Begin, ApiError> {
    let kept = match Row::of(principal, &call) {
        None => None,
        Some(row) => {
            let slot = Slot::enter(app, row.name()).await?;
            Some((row, slot))
        }
    };
    let mut tx = app.db.begin().await?;
    if let Some((row, _)) = &kept {
        if let Some(replay) = row.stored(&mut tx, app).await? {
            return Ok(Begin::Replay(replay));
        }
        if !row.insert(&mut tx).await? {
            // Another node runs it.
            return Err(in_progress());
        }
    }
    let app = app.clone();
    Ok(Begin::Run(Box::new(Run {
        tx,
        app,
        call,
        kept,
    })))
}

impl Run {
    /// Commits the effect together with its answer; a refusal undoes the effect.
    pub(crate) async fn finish<V, E>(
        self: Box<Self>,
        outcome: Result<(StatusCode, V), E>,
    ) -> Result<Response, ApiError>
    where
        V: Serialize,
        ApiError: From<E>,
    {
        let (status, view) = match outcome {
            Ok(answer) => answer,
            Err(err) => return self.refuse(ApiError::from(err)).await,
        };
        let body = serde_json::to_vec(&view).map_err(|err| ApiError::internal(&err))?;
        let Self {
            mut tx, app, kept, ..
        } = *self;
        if let Some((row, _)) = &kept {
            row.store(&mut tx, &app, status, &body).await?;
        }
        tx.commit().await?;
        Ok(answer(status, body))
    }

    async fn refuse(self: Box<Self>, error: ApiError) -> Result<Response, ApiError> {
        let Self {
            tx,
            app,
            call,
            kept,
        } = *self;
        tx.rollback().await?;
        let status = error.code().status();
        let is_kept = status == StatusCode::CONFLICT || status == StatusCode::UNPROCESSABLE_ENTITY;
        let Some((row, _slot)) = kept.filter(|_| is_kept) else {
            return Err(error);
        };
        let problem = error.problem(&call.path, &call.request_id);
        let body = serde_json::to_vec(&problem).map_err(|err| ApiError::internal(&err))?;
        let mut tx = app.db.begin().await?;
        if row.insert(&mut tx).await? {
            row.store(&mut tx, &app, status, &body).await?;
            tx.commit().await?;
        }
        Err(error)
    }
}

/// A write that is decided together with others, in a transaction of somebody else.
#[derive(Debug)]
pub(crate) struct Kept {
    app: App,
    call: Call,
    kept: Option<(Row, Slot)>,
}

/// An answer as it is kept: what is sent again byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
    pub(crate) is_replay: bool,
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let mut response = answer(self.status, self.body);
        if self.is_replay {
            let headers = response.headers_mut();
            headers.insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl Kept {
    /// Waits for an earlier request of the same key in this process.
    pub(crate) async fn enter(app: &App, principal: &str, call: Call) -> Result<Self, ApiError> {
        let kept = match Row::of(principal, &call) {
            None => None,
            Some(row) => {
                let slot = Slot::enter(app, row.name()).await?;
                Some((row, slot))
            }
        };
        Ok(Self {
            app: app.clone(),
            call,
            kept,
        })
    }

    pub(crate) const fn call(&self) -> &Call {
        &self.call
    }

    /// The name of the row it will write.
    pub(crate) fn touches(&self) -> Option<String> {
        self.kept.as_ref().map(|(row, _)| row.name())
    }

    /// The stored answer, read outside of any transaction: for what is refused before one begins.
    pub(crate) async fn stored(&self) -> Result<Option<Stored>, ApiError> {
        let Some((row, _)) = &self.kept else {
            return Ok(None);
        };
        let sql = format!("{SELECT} WHERE principal = $1 AND route = $2 AND key = $3");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(row.principal.clone())
            .bind(row.route.clone())
            .bind(row.key.clone());
        let found = query.fetch_optional(self.app.db.readers()).await?;
        match found {
            None => Ok(None),
            Some(found) => row.read(&self.app, &found),
        }
    }

    fn problem(&self, error: &ApiError) -> Option<Stored> {
        let status = error.code().status();
        let is_kept = status == StatusCode::CONFLICT || status == StatusCode::UNPROCESSABLE_ENTITY;
        // That key belongs to another request's answer.
        let is_kept = is_kept && error.code() != Code::IdempotencyKeyReused;
        let problem = error.problem(&self.call.path, &self.call.request_id);
        let body = serde_json::to_vec(&problem).ok()?;
        is_kept.then_some(Stored {
            status,
            body,
            is_replay: false,
        })
    }
}

/// The stored answers of writes, in their order.
///
/// # Errors
/// The database's error.
pub(crate) async fn replays(
    tx: &mut Tx,
    writes: &[&Kept],
) -> sqlx::Result<Vec<Option<Result<Stored, ApiError>>>> {
    let wanted = writes.iter().filter_map(|write| write.kept.as_ref());
    let wanted: Vec<&Row> = wanted.map(|(row, _)| row).collect();
    let tail = format!(
        ") {SELECT} JOIN wanted ON principal = wanted.p AND route = wanted.r AND key = wanted.k"
    );
    let bulk = Bulk {
        head: "WITH wanted (p, r, k) AS (",
        width: 3,
        tail: &tail,
    };
    let bind = |query: Bound, row: &&Row| {
        let query = query.bind(row.principal.clone()).bind(row.route.clone());
        query.bind(row.key.clone())
    };
    let mut found: HashMap<String, AnyRow> = HashMap::new();
    for row in bulk.fetch(tx, &wanted, bind).await? {
        let name = format!(
            "{}\n{}\n{}",
            row.try_get::<String, _>(4)?,
            row.try_get::<String, _>(5)?,
            row.try_get::<String, _>(6)?
        );
        found.insert(name, row);
    }
    let mut answers = Vec::with_capacity(writes.len());
    for write in writes {
        let own = write.kept.as_ref();
        let own = own.and_then(|(row, _)| Some((row, found.get(&row.name())?)));
        answers.push(own.and_then(|(row, found)| row.read(&write.app, found).transpose()));
    }
    Ok(answers)
}

/// Keeps answers in the transaction of their effects: successes, and refusals that a repeat shall
/// hear again.
///
/// # Errors
/// The database's error.
pub(crate) async fn keep(
    tx: &mut Tx,
    now: Timestamp,
    answers: &[(&Kept, Result<Stored, &ApiError>)],
) -> sqlx::Result<()> {
    let mut rows = Vec::new();
    for (write, answer) in answers {
        let stored = match answer {
            Ok(stored) => Some(stored.clone()),
            Err(error) => write.problem(error),
        };
        if let (Some((row, _)), Some(stored)) = (&write.kept, stored) {
            let sealed = write.app.secrets.seal(&row.name(), &stored.body);
            rows.push((row, stored.status, sealed));
        }
    }
    let bulk = Bulk {
        head: "INSERT INTO idempotency_keys (principal, route, key, fingerprint, state, status, \
               body, expires_us)",
        width: 8,
        tail: "ON CONFLICT (principal, route, key) DO UPDATE SET \
               fingerprint = excluded.fingerprint, status = excluded.status, \
               body = excluded.body, expires_us = excluded.expires_us",
    };
    let bind = |query: Bound, (row, status, sealed): &(&Row, StatusCode, String)| {
        query
            .bind(row.principal.clone())
            .bind(row.route.clone())
            .bind(row.key.clone())
            .bind(row.fingerprint.clone())
            .bind("done")
            .bind(i64::from(status.as_u16()))
            .bind(sealed.clone())
            .bind(now.plus(KEPT).as_micros())
    };
    bulk.execute(tx, &rows, bind).await?;
    Ok(())
}

/// What [`Row::read`] reads.
const SELECT: &str = "SELECT fingerprint, status, body, expires_us, principal, route, key \
                      FROM idempotency_keys";

/// The identity of a write.
#[derive(Clone, Debug)]
struct Row {
    principal: String,
    route: String,
    key: String,
    fingerprint: String,
}

impl Row {
    fn of(principal: &str, call: &Call) -> Option<Self> {
        Some(Self {
            principal: principal.into(),
            route: call.route.clone(),
            key: call.key.clone()?,
            fingerprint: call.fingerprint.clone(),
        })
    }

    /// Also what the sealed body is bound to.
    fn name(&self) -> String {
        format!("{}\n{}\n{}", self.principal, self.route, self.key)
    }

    /// The answer of the first request, if it is known and not too old.
    async fn stored(&self, tx: &mut Tx, app: &App) -> Result<Option<Response>, ApiError> {
        let sql = format!("{SELECT} WHERE principal = $1 AND route = $2 AND key = $3");
        let query = sqlx::query(sqlx::AssertSqlSafe(sql))
            .bind(&self.principal)
            .bind(&self.route)
            .bind(&self.key);
        let Some(row) = tx.fetch_optional(query).await? else {
            return Ok(None);
        };
        let stored = self.read(app, &row)?;
        if stored.is_none() {
            self.forget(tx).await?;
        }
        Ok(stored.map(IntoResponse::into_response))
    }

    /// The stored answer; none when it is too old to count.
    fn read(&self, app: &App, row: &AnyRow) -> Result<Option<Stored>, ApiError> {
        let expires_us: Option<i64> = row.try_get(3)?;
        if expires_us.is_some_and(|at| at <= app.clock.now().as_micros()) {
            return Ok(None);
        }
        if row.try_get::<String, _>(0)? != self.fingerprint {
            let detail = "this Idempotency-Key was used for another request; take a fresh one";
            return Err(ApiError::new(Code::IdempotencyKeyReused, detail));
        }
        let (status, body): (Option<i64>, Option<String>) = (row.try_get(1)?, row.try_get(2)?);
        let status = status
            .and_then(|s| u16::try_from(s).ok())
            .and_then(|s| StatusCode::from_u16(s).ok());
        let body = body.and_then(|sealed| app.secrets.unseal(&self.name(), &sealed));
        let (Some(status), Some(body)) = (status, body) else {
            // The key file was changed: the effect stands, its answer is gone.
            let detail = "this request was done, but its answer can no longer be read";
            return Err(ApiError::new(Code::InvalidState, detail));
        };
        Ok(Some(Stored {
            status,
            body,
            is_replay: true,
        }))
    }

    async fn forget(&self, tx: &mut Tx) -> sqlx::Result<()> {
        let sql = "DELETE FROM idempotency_keys WHERE principal = $1 AND route = $2 AND key = $3";
        let query = sqlx::query(sql)
            .bind(&self.principal)
            .bind(&self.route)
            .bind(&self.key);
        tx.execute(query).await?;
        Ok(())
    }

    async fn insert(&self, tx: &mut Tx) -> sqlx::Result<bool> {
        let sql = "INSERT INTO idempotency_keys (principal, route, key, fingerprint, state) \
                   VALUES ($1, $2, $3, $4, 'running') ON CONFLICT DO NOTHING";
        let query = sqlx::query(sql)
            .bind(&self.principal)
            .bind(&self.route)
            .bind(&self.key)
            .bind(&self.fingerprint);
        Ok(tx.execute(query).await?.rows_affected() == 1)
    }

    async fn store(
        &self,
        tx: &mut Tx,
        app: &App,
        status: StatusCode,
        body: &[u8],
    ) -> sqlx::Result<()> {
        let sql = "UPDATE idempotency_keys SET state = 'done', status = $4, body = $5, \
                   expires_us = $6 WHERE principal = $1 AND route = $2 AND key = $3";
        let query = sqlx::query(sql)
            .bind(&self.principal)
            .bind(&self.route)
            .bind(&self.key)
            .bind(i64::from(status.as_u16()))
            .bind(app.secrets.seal(&self.name(), body))
            .bind(app.clock.now().plus(KEPT).as_micros());
        tx.execute(query).await?;
        Ok(())
    }
}

fn answer(status: StatusCode, body: Vec<u8>) -> Response {
    let kind = if status.is_success() {
        "application/json"
    } else {
        PROBLEM_JSON
    };
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn in_progress() -> ApiError {
    let detail = "the first request with this Idempotency-Key still runs; ask again";
    ApiError::new(Code::IdempotencyInProgress, detail).after(WAIT)
}

/// Clears away answers that nobody may ask for any more.
pub(crate) async fn sweep(db: &Db, now: Timestamp) -> sqlx::Result<u64> {
    let sql = "DELETE FROM idempotency_keys WHERE expires_us IN (SELECT expires_us FROM \
               idempotency_keys WHERE expires_us <= $1 ORDER BY expires_us LIMIT $2)";
    let mut tx = db.begin().await?;
    let query = sqlx::query(sql).bind(now.as_micros()).bind(SWEEP_MAX);
    let done = tx.execute(query).await?;
    tx.commit().await?;
    Ok(done.rows_affected())
}

/// The writes with a key that run in this process.
#[derive(Debug, Default)]
struct Slots {
    taken: Mutex<HashSet<String>>,
    freed: Notify,
}

/// A name in [`Slots`], given back when dropped.
#[derive(Debug)]
struct Slot {
    slots: Arc<Slots>,
    name: String,
}

impl Slot {
    /// Waits a bounded time for the first request of this name.
    async fn enter(app: &App, name: String) -> Result<Self, ApiError> {
        let slots: Arc<Slots> = app.parts.part();
        let entered = async {
            loop {
                let freed = slots.freed.notified();
                tokio::pin!(freed);
                // Registered before the look, so that no wake-up falls between the two.
                freed.as_mut().enable();
                if slots.lock().insert(name.clone()) {
                    return;
                }
                freed.await;
            }
        };
        match tokio::time::timeout(WAIT, entered).await {
            Ok(()) => Ok(Self { slots, name }),
            Err(_elapsed) => Err(in_progress()),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.lock().remove(&self.name);
        self.slots.freed.notify_waiters();
    }
}

impl Slots {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
