//! The bus inside one process.
//!
//! Invariant: publishing never waits. A reader that falls [`BEHIND_MAX`] events behind is told so
//! (`RecvError::Lagged`) and reads what it missed from the event log.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::Event;

/// Events a slow reader may be behind.
const BEHIND_MAX: usize = 1_024;

/// A cheap handle on the bus.
#[derive(Clone, Debug)]
pub struct Bus {
    sender: broadcast::Sender<Arc<Event>>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(BEHIND_MAX),
        }
    }
}

impl Bus {
    /// Hands an event to every reader there is now.
    pub fn publish(&self, event: Event) {
        // No reader is no error: the event is in the log.
        drop(self.sender.send(Arc::new(event)));
    }

    /// A reader of everything published from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }
}
