//! All broadcasts of this process, by name: who may open one, and what the server is told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::attendance::{Came, NotNow, PublishPolicy};
use super::converters::{Converters, LoadStep, encoders_max_default};
use super::{Broadcast, BroadcastKey, EndReason, Publisher};
use crate::doctor;
use crate::stats::Stats;

/// Entries of the event stream.
const EVENTS_MAX: usize = 256;
/// How often it is looked at how many watch.
const VIEWERS_EVERY: Duration = Duration::from_secs(1);

/// Bounds of the whole hub.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Broadcasts at once.
    pub broadcasts_max: usize,
    /// Encoders of pictures at once.
    pub encoders_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            broadcasts_max: 500,
            encoders_max: encoders_max_default(),
        }
    }
}

/// Why a publish session could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Somebody publishes into this broadcast already.
    #[error("the broadcast has a publisher already")]
    Busy,
    /// Two encoders take it from each other; the one there keeps it for a while.
    #[error("two encoders publish into the broadcast in turn")]
    TwoEncoders,
    /// The node carries as many broadcasts as it may.
    #[error("this node is full")]
    Full,
}

impl From<NotNow> for OpenError {
    fn from(not: NotNow) -> Self {
        match not {
            NotNow::Busy => Self::Busy,
            NotNow::TwoEncoders => Self::TwoEncoders,
            // Whoever asks again begins anew.
            NotNow::Over => Self::Busy,
        }
    }
}

/// News for the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A room went live afresh.
    Started(Arc<Broadcast>),
    /// Its publisher is gone and awaited: the broadcast goes on without one.
    Lost(Arc<Broadcast>),
    /// A publisher is there again.
    Returned(Arc<Broadcast>),
    /// A track appeared or changed its parameters.
    TracksChanged(Arc<Broadcast>),
    /// The ingest doctor found something, or, without a verdict, finds it no more.
    Verdict(Arc<Broadcast>, doctor::Code, Option<doctor::Verdict>),
    /// Something is left out because the node has too much to do, or taken up again.
    Overload(Arc<Broadcast>, LoadStep),
    /// The number of viewers changed; told at most once a second.
    Viewers(Arc<Broadcast>),
    /// The broadcast is over.
    Ended(Arc<Broadcast>, EndReason),
    /// Its recording has its end and can be played.
    RecordingReady(Arc<Broadcast>),
}

impl Event {
    /// Whether it only says that it is worth looking again.
    const fn is_hint(&self) -> bool {
        matches!(self, Self::TracksChanged(_) | Self::Viewers(_))
    }
}

/// All broadcasts of this process.
#[derive(Debug)]
pub struct Broadcasts {
    live: DashMap<BroadcastKey, Arc<Broadcast>>,
    broadcasts_max: AtomicUsize,
    is_draining: AtomicBool,
    stats: Stats,
    converters: Converters,
    events: Events,
    /// There is more to watch over than there was.
    to_watch: Notify,
    /// A room went live afresh.
    opened: Notify,
}

impl Broadcasts {
    /// An empty hub.
    pub fn new(limits: Limits) -> Arc<Self> {
        let (live, stats, events) = (DashMap::new(), Stats::default(), Events::default());
        Arc::new(Self {
            live,
            broadcasts_max: AtomicUsize::new(limits.broadcasts_max),
            is_draining: AtomicBool::new(false),
            stats,
            converters: Converters::new(limits.encoders_max),
            events,
            to_watch: Notify::new(),
            opened: Notify::new(),
        })
    }

    /// Bounds the hub anew. What lies beyond a lower bound goes on; no other begins.
    pub fn set_limits(&self, limits: Limits) {
        self.broadcasts_max
            .store(limits.broadcasts_max, Ordering::Relaxed);
        self.converters.set_encoders_max(limits.encoders_max);
    }

    /// Has viewers told to come again elsewhere, or to the next process; their sessions go on.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    fn is_full(&self) -> bool {
        self.live.len() >= self.broadcasts_max.load(Ordering::Relaxed)
    }

    /// Opens a publish session that stands alone: [`PublishPolicy::ONCE`].
    ///
    /// # Errors
    /// [`OpenError`] when the key is taken or the node is full.
    pub fn open(
        self: &Arc<Self>,
        key: BroadcastKey,
        now: Instant,
        wall: OffsetDateTime,
    ) -> Result<Publisher, OpenError> {
        self.join(key, (now, wall), PublishPolicy::ONCE)
    }

    /// Opens a publish session: into the broadcast of this name if there is one, else into a new
    /// instance. `at` is a moment and the time of day that belongs to it.
    ///
    /// # Errors
    /// [`OpenError`] when the policy does not let it in, or the node is full.
    pub fn join(
        self: &Arc<Self>,
        key: BroadcastKey,
        at: (Instant, OffsetDateTime),
        policy: PublishPolicy,
    ) -> Result<Publisher, OpenError> {
        let (now, wall) = at;
        let is_full = self.is_full();
        let broadcast = match self.live.entry(key.clone()) {
            Entry::Occupied(entry) if !entry.get().is_ending() => {
                let broadcast = Arc::clone(entry.get());
                drop(entry);
                let entered = self.enter(broadcast, at, policy);
                // It was decided this very moment: now it is in nobody's way.
                return match entered {
                    Err(NotNow::Over) => self.join(key, at, policy),
                    entered => Ok(entered?),
                };
            }
            // About to be removed by whoever ended it, which looks whether it is still its own.
            Entry::Occupied(mut entry) => {
                let broadcast = Broadcast::new(key, Arc::downgrade(self), at, policy);
                entry.insert(Arc::clone(&broadcast));
                broadcast
            }
            Entry::Vacant(_) if is_full => return Err(OpenError::Full),
            Entry::Vacant(entry) => {
                let broadcast = Broadcast::new(key, Arc::downgrade(self), at, policy);
                Arc::clone(&entry.insert(broadcast))
            }
        };
        // The first one has viewers to be counted.
        self.to_watch.notify_one();
        self.opened.notify_waiters();
        self.events.push(Event::Started(Arc::clone(&broadcast)));
        Ok(Publisher::new(broadcast, (now, wall)))
    }

    /// Whether [`Self::join`] would open a session now; nothing is changed.
    ///
    /// # Errors
    /// [`OpenError`] as `join` would give it.
    pub fn may_join(
        &self,
        key: &BroadcastKey,
        now: Instant,
        policy: PublishPolicy,
    ) -> Result<(), OpenError> {
        match self.find(key).filter(|broadcast| !broadcast.is_ending()) {
            Some(there) => Ok(there.attendance().would_enter(now, policy)?),
            None if self.is_full() => Err(OpenError::Full),
            None => Ok(()),
        }
    }

    fn enter(
        &self,
        broadcast: Arc<Broadcast>,
        at: (Instant, OffsetDateTime),
        policy: PublishPolicy,
    ) -> Result<Publisher, NotNow> {
        let came = broadcast.enter(at.0, policy)?;
        match came {
            Came::Back => self.events.push(Event::Returned(Arc::clone(&broadcast))),
            Came::InsteadOf => self.stats.add("publish_takeovers_total", "newer", 1),
        }
        Ok(Publisher::new(broadcast, at))
    }

    /// Puts a new instance in the place of one whose publisher came back with other codecs.
    pub(super) fn replace(
        self: &Arc<Self>,
        old: &Arc<Broadcast>,
        at: (Instant, OffsetDateTime),
    ) -> Arc<Broadcast> {
        let key = old.key().clone();
        let policy = old.attendance().policy();
        let broadcast = Broadcast::new(key.clone(), Arc::downgrade(self), at, policy);
        self.live.insert(key, Arc::clone(&broadcast));
        self.opened.notify_waiters();
        old.end(EndReason::CodecChanged);
        self.events.push(Event::Started(Arc::clone(&broadcast)));
        broadcast
    }

    /// Ends broadcasts whose publisher did not come back in time, and tells of viewers that came
    /// and went. Runs for ever; the server runs it once.
    pub async fn watch(&self) {
        loop {
            let changed = self.to_watch.notified();
            let now = Instant::now();
            let all = self.list();
            let mut next = (!all.is_empty()).then(|| now + VIEWERS_EVERY);
            for broadcast in all {
                if broadcast.audience().has_news(now) {
                    self.tell(Event::Viewers(Arc::clone(&broadcast)));
                }
                let mut attendance = broadcast.attendance();
                let (overdue, until) = (attendance.overdue(now), attendance.awaited_until());
                drop(attendance);
                match overdue {
                    Some(reason) => broadcast.end(reason),
                    None => next = [next, until].into_iter().flatten().min(),
                }
            }
            tokio::select! {
                () = changed => {}
                () = until(next) => {}
            }
        }
    }

    /// Tells that the recording of a broadcast has its end.
    pub fn recording_ready(&self, broadcast: &Arc<Broadcast>) {
        self.tell(Event::RecordingReady(Arc::clone(broadcast)));
    }

    pub(super) fn tell(&self, event: Event) {
        if matches!(event, Event::Lost(_)) {
            self.to_watch.notify_one();
        }
        self.events.push(event);
    }

    pub(super) fn forget(&self, broadcast: &Arc<Broadcast>) {
        self.live
            .remove_if(broadcast.key(), |_, b| Arc::ptr_eq(b, broadcast));
    }

    /// The live broadcast of this name.
    pub fn find(&self, key: &BroadcastKey) -> Option<Arc<Broadcast>> {
        self.live.get(key).map(|b| Arc::clone(&b))
    }

    /// The same, as soon as there is one. Cancel-safe.
    pub async fn opened(&self, key: &BroadcastKey) -> Arc<Broadcast> {
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            // Before the look: what opens after it is told.
            opened.as_mut().enable();
            let there = self.find(key).filter(|broadcast| !broadcast.is_ending());
            if let Some(broadcast) = there {
                return broadcast;
            }
            opened.await;
        }
    }

    /// All live broadcasts, in no order.
    pub fn list(&self) -> Vec<Arc<Broadcast>> {
        self.live.iter().map(|b| Arc::clone(&b)).collect()
    }

    /// The counters of the media core.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The converters of this process.
    pub const fn converters(&self) -> &Converters {
        &self.converters
    }

    /// The next piece of news for the server; one task reads it. Cancel-safe.
    pub async fn next_event(&self) -> Event {
        self.events.next().await
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[derive(Debug, Default)]
struct Events {
    queue: Mutex<VecDeque<Event>>,
    notify: Notify,
}

impl Events {
    fn push(&self, event: Event) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= EVENTS_MAX {
            // What only says "look again" makes room for changes of state.
            let at = queue.iter().position(Event::is_hint);
            if let Some(at) = at {
                queue.remove(at);
            } else if event.is_hint() {
                return;
            }
        }
        queue.push_back(event);
        drop(queue);
        self.notify.notify_one();
    }

    async fn next(&self) -> Event {
        loop {
            let notified = self.notify.notified();
            let event = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.pop_front()
            };
            if let Some(event) = event {
                return event;
            }
            notified.await;
        }
    }
}
