//! The stock sequencer: one writer decides all stock, many wishes in one commit (commerce.md 10).
//!
//! Invariants
//! - An answer that admits anything leaves after its commit; what is refused changed nothing.
//! - A batch gives what its commands one at a time, in the order of arrival, would.
//! - Counters in memory are those of the last commit: a failed one makes them be read again.
//! - Of several processes one decides; another's write touches no row.
//!
//! Not here: what rides on a command ([`Ride`]): orders, payments, answers under a key.

mod book;
mod command;
mod desk;
mod ride;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use dashmap::DashMap;
use tokio::sync::mpsc::{Receiver, Sender, channel};

pub(crate) use self::command::{
    COUNTER_MAX, Command, Effect, Hold, Movement, Reason, Refused, Released, Settings, Stock,
    Units, What,
};
pub(crate) use self::desk::run;
use self::ride::Queued;
pub(crate) use self::ride::{Ride, Seat, Verdict};
pub(super) use self::store::read_stock;
use crate::app::App;
use crate::ids::VariantId;

/// Commands that wait (commerce.md 14).
const QUEUE_MAX: usize = 8_192;

/// The way to the one writer.
#[derive(Debug)]
pub(crate) struct Sequencer {
    queue: Sender<Queued>,
    /// Taken once, by the writer.
    waiting: Mutex<Option<Receiver<Queued>>>,
    /// What is sold out, and whether unpaid reservations exist. Set after the commit that emptied
    /// it, cleared before a command that brought units back is answered.
    sold_out: DashMap<VariantId, bool>,
}

impl Default for Sequencer {
    fn default() -> Self {
        let (queue, waiting) = channel(QUEUE_MAX);
        Self {
            queue,
            waiting: Mutex::new(Some(waiting)),
            sold_out: DashMap::new(),
        }
    }
}

impl Sequencer {
    fn take_queue(&self) -> Option<Receiver<Queued>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take()
    }

    fn flag(&self, variant: VariantId, stock: &Stock) {
        if stock.available() == 0 {
            self.sold_out.insert(variant, stock.reserved > 0);
        } else {
            self.sold_out.remove(&variant);
        }
    }

    fn unflag_all(&self) {
        self.sold_out.clear();
    }

    /// Refuses at once what is known to be sold out (Q3). It says nothing of restocks to come.
    pub(crate) fn sold_out(&self, variant: VariantId) -> Option<Refused> {
        let flag = self.sold_out.get(&variant)?;
        Some(Refused::SoldOut {
            variant,
            restock_possible: *flag,
        })
    }
}

/// Hands a command and its rider to the writer, and waits for the commit.
///
/// # Errors
/// The rider's own refusal, or what stock answers; [`Refused::Busy`] when the queue is full or the
/// server stops.
pub(crate) async fn submit<R: Ride>(
    app: &App,
    command: Command,
    ride: R,
) -> Result<R::Answer, R::Refusal> {
    let sequencer = app.parts.part::<Sequencer>();
    let (queued, heard) = Queued::new(command, ride);
    if sequencer.queue.try_send(queued).is_err() {
        metrics::counter!("lamplight_sequencer_full_total").increment(1);
        return Err(Refused::Busy.into());
    }
    match heard.await {
        Ok(answer) => answer,
        Err(_stopped) => Err(Refused::Busy.into()),
    }
}
