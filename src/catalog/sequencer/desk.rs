//! The one writer: takes what waits as a batch, decides it, commits it, answers.
//!
//! Batches form by themselves: while one is being committed, the next gathers. There is no timer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::book::Book;
use super::ride::{Batch, Queued};
use super::{Sequencer, store};
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::{Engine, Tx};
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};

/// Commands of one commit.
const BATCH_MAX: usize = 512;
const LEASE: Duration = Duration::from_secs(3);
const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// Serves the queue until the server stops; a batch that was begun is finished.
pub(crate) async fn run(app: App) {
    let sequencer: Arc<Sequencer> = app.parts.part();
    let Some(queue) = sequencer.take_queue() else {
        return;
    };
    let cancel = app.tasks.cancel_token();
    let mut desk = Desk::new(app, sequencer, queue);
    desk.renew().await;
    loop {
        let next = timeout(RENEWED_EVERY, desk.next());
        let queued = tokio::select! {
            biased;
            () = cancel.cancelled() => break,
            queued = next => queued,
        };
        match queued {
            Ok(Some(queued)) => desk.turn(queued).await,
            Ok(None) => break,
            Err(_quiet) => desk.renew().await,
        }
    }
    desk.leave().await;
}

/// What became of an attempt.
enum Attempt {
    Committed,
    /// Another process decides stock now.
    NotOwner,
}

struct Desk {
    app: App,
    sequencer: Arc<Sequencer>,
    queue: Receiver<Queued>,
    /// Taken from the queue, but not for the batch before.
    ahead: Option<Queued>,
    /// This process, while it runs.
    owner: String,
    /// None while another process is the owner.
    epoch: Option<i64>,
    book: Book,
}

impl Desk {
    fn new(app: App, sequencer: Arc<Sequencer>, queue: Receiver<Queued>) -> Self {
        Self {
            app,
            sequencer,
            queue,
            ahead: None,
            owner: uuid::Uuid::now_v7().simple().to_string(),
            epoch: None,
            book: Book::default(),
        }
    }

    /// Waits for a command, and takes all that wait with it, up to the first that touches what one
    /// before it touches. Dropped before it is done, it loses nothing.
    async fn next(&mut self) -> Option<Vec<Queued>> {
        let first = match self.ahead.take() {
            Some(ahead) => ahead,
            None => self.queue.recv().await?,
        };
        let mut touched: HashSet<String> = first.touches.iter().cloned().collect();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX {
            let Ok(queued) = self.queue.try_recv() else {
                break;
            };
            if queued.touches.iter().any(|name| touched.contains(name)) {
                self.ahead = Some(queued);
                break;
            }
            touched.extend(queued.touches.iter().cloned());
            batch.push(queued);
        }
        Some(batch)
    }

    async fn turn(&mut self, queued: Vec<Queued>) {
        metrics::histogram!("lamplight_sequencer_batch").record(size(queued.len()));
        let mut batch = Batch::new(queued);
        let err = match self.attempt(&mut batch).await {
            Ok(Attempt::Committed) => return batch.answer(),
            Ok(Attempt::NotOwner) => {
                self.step_down();
                return batch.refuse();
            }
            Err(err) => err,
        };
        self.book.drop_touched();
        if batch.commands.len() == 1 {
            let error = &err as &dyn std::error::Error;
            error!(error, "a command of the stock sequencer failed");
            return batch.refuse();
        }
        // One that fails shall not take the others with it; and if only the answer to the commit
        // was lost, each finds its own record.
        warn!(
            error = &err as &dyn std::error::Error,
            "a batch failed, each of it is tried alone"
        );
        for mut alone in batch.split() {
            match self.attempt(&mut alone).await {
                Ok(Attempt::Committed) => alone.answer(),
                Ok(Attempt::NotOwner) => {
                    self.step_down();
                    alone.refuse();
                }
                Err(err) => {
                    self.book.drop_touched();
                    let error = &err as &dyn std::error::Error;
                    error!(error, "a command of the stock sequencer failed");
                    alone.refuse();
                }
            }
        }
    }

    /// One batch in one transaction.
    async fn attempt(&mut self, batch: &mut Batch) -> sqlx::Result<Attempt> {
        if self.epoch.is_none() {
            self.take().await?;
        }
        let Some(epoch) = self.epoch else {
            return Ok(Attempt::NotOwner);
        };
        batch.reset();
        self.book.begin();
        let now = self.app.clock.now();
        let mut tx = self.app.db.begin().await?;
        if !store::keep_lease(&mut tx, (&self.owner, epoch), now.plus(LEASE)).await? {
            tx.rollback().await?;
            return Ok(Attempt::NotOwner);
        }
        batch.prepare(&mut tx, now).await?;
        let waiting = batch.waiting();
        let commands = waiting
            .iter()
            .filter_map(|place| batch.commands.get(*place));
        store::load(&mut tx, &mut self.book, commands).await?;
        for place in waiting {
            if let Some(command) = batch.commands.get(place) {
                let decision = self.book.decide(now, command);
                batch.decided(place, decision);
            }
        }
        if !store::save(&mut tx, &self.book, (epoch, now)).await? {
            tx.rollback().await?;
            return Ok(Attempt::NotOwner);
        }
        self.tell(&mut tx, now).await?;
        batch.write(&mut tx, now).await?;
        tx.commit().await?;
        self.flag();
        Ok(Attempt::Committed)
    }

    /// Events of what ran out in this batch, or came back.
    async fn tell(&self, tx: &mut Tx, now: Timestamp) -> sqlx::Result<()> {
        let mut news = Vec::new();
        for (variant, before) in &self.book.changes.touched {
            let after = self
                .book
                .stock
                .get(variant)
                .map_or(0, |stock| stock.available());
            let kind = match (*before > 0, after > 0) {
                (true, false) => Kind::InventorySoldOut,
                (false, true) => Kind::InventoryRestocked,
                _ => continue,
            };
            let Some(merchant) = self.book.merchants.get(variant) else {
                continue;
            };
            news.push(NewEvent {
                kind,
                subject_kind: SubjectKind::Stock,
                subject_id: variant.to_string(),
                streams: vec![Stream::Merchant(*merchant)],
                data: json!({ "variant_id": variant, "available": after }),
            });
        }
        events::append_all(tx, now, &news).await?;
        Ok(())
    }

    /// After the commit, before any answer: what is sold out is refused without queueing.
    fn flag(&self) {
        for variant in self.book.changes.touched.keys() {
            if let Some(stock) = self.book.stock.get(variant) {
                self.sequencer.flag(*variant, stock);
            }
        }
    }

    /// Takes the desk if it is free.
    async fn take(&mut self) -> sqlx::Result<()> {
        let now = self.app.clock.now();
        // Beside SQLite there is one server; what is left of an earlier one is no hindrance.
        let free_at = match self.app.db.engine() {
            Engine::Sqlite => Timestamp::from_micros(i64::MAX),
            Engine::Postgres => now,
        };
        let mut tx = self.app.db.begin().await?;
        let times = (free_at, now.plus(LEASE));
        let epoch = store::take_lease(&mut tx, &self.owner, times).await?;
        tx.commit().await?;
        if let Some(epoch) = epoch {
            info!(sequencer.epoch = epoch, "this process decides stock");
            self.epoch = Some(epoch);
        }
        Ok(())
    }

    /// Keeps the desk while nothing is asked, or takes it once it is free.
    async fn renew(&mut self) {
        let renewed = match self.epoch {
            None => self.take().await,
            Some(_) if self.app.db.engine() == Engine::Sqlite => Ok(()),
            Some(epoch) => self.extend(epoch, LEASE).await,
        };
        if let Err(err) = renewed {
            warn!(
                error = &err as &dyn std::error::Error,
                "the stock lease was not renewed"
            );
        }
    }

    async fn extend(&mut self, epoch: i64, by: Duration) -> sqlx::Result<()> {
        let mut tx = self.app.db.begin().await?;
        let until = self.app.clock.now().plus(by);
        let is_kept = store::keep_lease(&mut tx, (&self.owner, epoch), until).await?;
        tx.commit().await?;
        if !is_kept {
            self.step_down();
        }
        Ok(())
    }

    fn step_down(&mut self) {
        if self.epoch.take().is_some() {
            warn!("another process decides stock now");
        }
        self.book = Book::default();
        self.sequencer.unflag_all();
    }

    /// Leaves the desk to whoever comes next, at once.
    async fn leave(mut self) {
        if let Some(epoch) = self.epoch
            && let Err(err) = self.extend(epoch, Duration::ZERO).await
        {
            let error = &err as &dyn std::error::Error;
            warn!(error, "the stock lease was not given up");
        }
    }
}

fn size(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
