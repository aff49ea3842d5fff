//! The bounded queue between the packager and the store (spec media.md 6.7, 8.5).
//!
//! Invariants
//! - Pushing never waits. Beyond [`SEGMENTS_MAX`] or [`BYTES_MAX`] the oldest segment that nobody
//!   has begun to write is dropped, and its row becomes a gap.
//! - Order is kept: a row leaves after every object that was pushed before it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::row::Row;

/// Segments that wait.
pub const SEGMENTS_MAX: usize = 64;
/// Bytes that wait.
pub const BYTES_MAX: usize = 256 << 20;
/// Entries that wait, rows without an object counted; beyond, the oldest leaves.
const ENTRIES_MAX: usize = 16_384;

/// An object to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where.
    pub key: String,
    /// What; the same bytes that live viewers get.
    pub bytes: Bytes,
}

/// What leaves the queue.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// An object, and the row for the index once it is kept.
    Object(Stored, Row),
    /// A row that has no object.
    Row(Row),
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Objects that wait.
    pub waiting: usize,
    /// Their bytes.
    pub waiting_bytes: usize,
    /// Segments that were dropped because it was full.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    status: Status,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

/// Where the packager puts what is to be kept. Dropping it ends the recording.
#[derive(Debug)]
pub struct Recorder {
    shared: Arc<Shared>,
    recording: String,
}

/// Where the server takes it out.
#[derive(Debug)]
pub struct Backlog {
    shared: Arc<Shared>,
}

/// The queue of a recording, both ends.
pub fn queue(recording: &str) -> (Recorder, Backlog) {
    let shared = Arc::new(Shared::default());
    let backlog = Backlog {
        shared: Arc::clone(&shared),
    };
    let recording = recording.to_owned();
    (Recorder { shared, recording }, backlog)
}

impl Recorder {
    /// The name of what it records.
    pub(crate) fn recording(&self) -> &str {
        &self.recording
    }

    /// Puts an entry in; how many segments that has cost.
    pub fn push(&self, entry: Entry) -> u64 {
        let mut state = self.shared.lock();
        let before = state.status.dropped;
        state.push(entry);
        let dropped = state.status.dropped - before;
        drop(state);
        self.shared.changed.notify_one();
        dropped
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.changed.notify_one();
    }
}

impl Backlog {
    /// The oldest entry; `None` once the recording is over and everything is out. May be dropped
    /// while it waits.
    pub async fn next(&mut self) -> Option<Entry> {
        loop {
            {
                let mut state = self.shared.lock();
                if let Some(entry) = state.pop() {
                    return Some(entry);
                }
                if state.is_closed {
                    return None;
                }
            }
            self.shared.changed.notified().await;
        }
    }

    /// Whether nothing waits now.
    pub fn is_empty(&self) -> bool {
        self.shared.lock().entries.is_empty()
    }

    /// Looks at the queue, from elsewhere and for as long as anybody likes.
    pub fn gauge(&self) -> impl Fn() -> Status + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.lock().status
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, entry: Entry) {
        if let Entry::Object(stored, _) = &entry {
            self.status.waiting += 1;
            self.status.waiting_bytes += stored.bytes.len();
        }
        self.entries.push_back(entry);
        while self.status.waiting > SEGMENTS_MAX || self.status.waiting_bytes > BYTES_MAX {
            if !self.drop_oldest() {
                break;
            }
        }
        if self.entries.len() > ENTRIES_MAX {
            // What the index lacks is a hole, which readers take for a gap.
            let oldest = self.pop();
            self.status.dropped += u64::from(oldest.is_some());
        }
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.forget(&entry);
        Some(entry)
    }

    fn forget(&mut self, entry: &Entry) {
        if let Entry::Object(stored, _) = entry {
            self.status.waiting -= 1;
            self.status.waiting_bytes -= stored.bytes.len();
        }
    }

    /// Puts a gap in the place of the oldest segment. Init sections stay: they are small, and
    /// everything after them needs them.
    fn drop_oldest(&mut self) -> bool {
        let is_segment = |entry: &Entry| matches!(entry, Entry::Object(_, Row::Segment(_)));
        let Some(at) = self.entries.iter().position(is_segment) else {
            return false;
        };
        let Some(entry) = self.entries.remove(at) else {
            return false;
        };
        self.forget(&entry);
        self.status.dropped += 1;
        if let Entry::Object(_, row) = entry
            && let Some(gap) = row.lost()
        {
            self.entries.insert(at, Entry::Row(gap));
        }
        true
    }
}
