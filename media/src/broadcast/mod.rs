//! Broadcasts: the one hub between publishers and viewers.
//!
//! A [`Publisher`] writes samples; they are placed on T and appended to the ring of their track.
//! Everything else (WHEP, LL-HLS, converters) reads rings through [`Cursor`]s.
//!
//! Invariants
//! - The ring is the only queue between publisher and viewer (I1).
//! - At most one publish session per broadcast at any instant (I7).
//! - News for the server leaves through one bounded stream; state changes are never dropped.
//!
//! Not here: who may publish, rooms, users; tasks (the server runs the futures).

mod ring;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use time::OffsetDateTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cue::{AHEAD_MAX, At, CueCursor, CueError, CueLog, NewCue, Stamped};
use crate::frame::{Codec, Frame, Kind, Sample, TrackId, TrackInfo};
use crate::stats::Stats;
use crate::time::{MediaTime, micros};

use self::ring::Ring;
pub use self::ring::{Cursor, Delivery, Ended, Facts, Start, TrackWriter};
use self::timeline::{Moment, Reading, SessionClock, WallClock};

/// How long the second track may take to appear before outputs go on without it.
const SETTLE: Duration = Duration::from_millis(1_500);
/// A cue for "now" takes the running T when no frame comes for this long.
const CUE_WAIT: Duration = Duration::from_millis(500);
/// Entries of the event stream.
const EVENTS_MAX: usize = 256;
/// One frame, when the rate is not known yet.
const FRAME_US_DEFAULT: i64 = 33_333;

/// The server's name of a broadcast; opaque to the media core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BroadcastKey(Arc<str>);

impl BroadcastKey {
    /// A key from the server's own name of the room.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name it was made from.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BroadcastKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bounds of the whole hub.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Broadcasts at once.
    pub broadcasts_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            broadcasts_max: 500,
        }
    }
}

/// Why a publish session could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Somebody publishes into this broadcast already.
    #[error("the broadcast has a publisher already")]
    Busy,
    /// The node carries as many broadcasts as it may.
    #[error("this node is full")]
    Full,
}

/// Why a broadcast ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The publisher said so.
    Finished,
    /// The connection broke or fell silent.
    Lost,
    /// The publisher changed the kind of codec in mid-session.
    CodecChanged,
    /// The server ended it: key revoked, room ended.
    Server,
    /// The process stops.
    Shutdown,
}

impl EndReason {
    /// The stable word for logs and messages.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Lost => "lost",
            Self::CodecChanged => "codec_changed",
            Self::Server => "ended_by_server",
            Self::Shutdown => "shutdown",
        }
    }
}

/// News for the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A room went live afresh.
    Started(Arc<Broadcast>),
    /// A track appeared or changed its parameters.
    TracksChanged(Arc<Broadcast>),
    /// The broadcast is over.
    Ended(Arc<Broadcast>, EndReason),
}

/// All broadcasts of this process.
#[derive(Debug)]
pub struct Broadcasts {
    live: DashMap<BroadcastKey, Arc<Broadcast>>,
    limits: Limits,
    stats: Stats,
    events: Events,
}

impl Broadcasts {
    /// An empty hub.
    pub fn new(limits: Limits) -> Arc<Self> {
        let (live, stats, events) = (DashMap::new(), Stats::default(), Events::default());
        Arc::new(Self {
            live,
            limits,
            stats,
            events,
        })
    }

    /// Opens a publish session: a new instance of the broadcast. `wall` is the time of day that
    /// belongs to `now`.
    ///
    /// # Errors
    /// [`OpenError`] when the key is taken or the node is full.
    pub fn open(
        self: &Arc<Self>,
        key: BroadcastKey,
        now: Instant,
        wall: OffsetDateTime,
    ) -> Result<Publisher, OpenError> {
        let is_full = self.live.len() >= self.limits.broadcasts_max;
        let broadcast = match self.live.entry(key.clone()) {
            Entry::Occupied(_) => return Err(OpenError::Busy),
            Entry::Vacant(_) if is_full => return Err(OpenError::Full),
            Entry::Vacant(entry) => {
                let broadcast = Broadcast::new(key, Arc::downgrade(self), now, wall);
                Arc::clone(&entry.insert(broadcast))
            }
        };
        self.events.push(Event::Started(Arc::clone(&broadcast)));
        Ok(Publisher::new(broadcast, wall))
    }

    /// The live broadcast of this name.
    pub fn find(&self, key: &BroadcastKey) -> Option<Arc<Broadcast>> {
        self.live.get(key).map(|b| Arc::clone(&b))
    }

    /// All live broadcasts, in no order.
    pub fn list(&self) -> Vec<Arc<Broadcast>> {
        self.live.iter().map(|b| Arc::clone(&b)).collect()
    }

    /// The counters of the media core.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The next piece of news for the server; one task reads it. Cancel-safe.
    pub async fn next_event(&self) -> Event {
        self.events.next().await
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
            let at = queue
                .iter()
                .position(|e| matches!(e, Event::TracksChanged(_)));
            if let Some(at) = at {
                queue.remove(at);
            } else if matches!(event, Event::TracksChanged(_)) {
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

/// One instance of a broadcast: its tracks, timeline and cues.
#[derive(Debug)]
pub struct Broadcast {
    key: BroadcastKey,
    instance: String,
    hub: Weak<Broadcasts>,
    origin: Mutex<Option<Instant>>,
    opened: Instant,
    clock: Mutex<WallClock>,
    rings: RwLock<BTreeMap<TrackId, Arc<Ring>>>,
    demand: watch::Sender<u64>,
    discontinuities: AtomicU32,
    settled: watch::Sender<bool>,
    cues: Arc<CueLog>,
    end: watch::Sender<Option<EndReason>>,
}

impl Broadcast {
    fn new(
        key: BroadcastKey,
        hub: Weak<Broadcasts>,
        now: Instant,
        wall: OffsetDateTime,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            instance: new_instance(),
            hub,
            origin: Mutex::new(None),
            opened: now,
            clock: Mutex::new(WallClock::new(unix_micros(wall))),
            rings: RwLock::default(),
            demand: watch::Sender::new(0),
            discontinuities: AtomicU32::new(0),
            settled: watch::Sender::new(false),
            cues: Arc::new(CueLog::new()),
            end: watch::Sender::new(None),
        })
    }

    /// The server's name of it.
    pub fn key(&self) -> &BroadcastKey {
        &self.key
    }

    /// Twelve characters, new each time the room goes live afresh.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The T that is now by the server's clock.
    pub fn now_t(&self, now: Instant) -> MediaTime {
        let elapsed_us = self.elapsed_us(now);
        self.clock().t_at(elapsed_us).max(MediaTime::ZERO)
    }

    /// The time of day of a point on T.
    pub fn wall(&self, t: MediaTime) -> OffsetDateTime {
        let unix_us = self.clock().unix_us(t);
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_us) * 1_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The parameters of the publisher's picture or sound, once known.
    pub fn source(&self, kind: Kind) -> Option<Arc<TrackInfo>> {
        let track = match kind {
            Kind::Video => TrackId::Video,
            Kind::Audio => TrackId::Audio,
        };
        self.rings().get(&track).and_then(|ring| ring.info())
    }

    /// Waits until it is known which tracks the publisher sends: both headers came, or 1.5 s
    /// passed after the first media with the one that did.
    ///
    /// # Errors
    /// [`Ended`] when the broadcast ends before.
    pub async fn settled(&self) -> Result<(), Ended> {
        let mut settled = self.settled.subscribe();
        let mut end = self.end.subscribe();
        tokio::select! {
            known = settled.wait_for(|known| *known) => known.map(|_| ()).map_err(|_closed| Ended),
            _ = end.wait_for(Option::is_some) => Err(Ended),
        }
    }

    /// A reader's place in a track. For a made track this is the demand for it.
    pub fn cursor(&self, track: TrackId, start: Start) -> Cursor {
        self.ring(track).cursor(start)
    }

    /// Where a converter writes the track it makes.
    pub fn made(&self, track: TrackId) -> TrackWriter {
        TrackWriter {
            ring: self.ring(track),
        }
    }

    /// What can be measured of a track; all zero when it does not exist.
    pub fn facts(&self, track: TrackId) -> Facts {
        let ring = self.rings().get(&track).map(Arc::clone);
        ring.map(|r| r.facts()).unwrap_or_default()
    }

    /// How many cursors read a track.
    pub fn users(&self, track: TrackId) -> usize {
        self.rings().get(&track).map_or(0, |r| r.users())
    }

    /// Changes whenever a made track gains its first user or loses its last.
    pub fn demand(&self) -> watch::Receiver<u64> {
        self.demand.subscribe()
    }

    /// Why a track cannot be made, if it cannot.
    pub fn unavailable(&self, track: TrackId) -> Option<&'static str> {
        self.rings().get(&track).and_then(|r| r.unavailable())
    }

    /// Places a cue on the timeline. [`At::Now`] waits for the next frame, at most half a second.
    ///
    /// # Errors
    /// [`CueError`] says which bound or rule refused it; nothing was placed then.
    pub async fn cue(&self, now: Instant, at: At, cue: NewCue) -> Result<Stamped, CueError> {
        match at {
            At::Now => {
                let mut stamped = self.cues.wait_for_frame(now, cue)?;
                let answer = match tokio::time::timeout(CUE_WAIT, &mut stamped).await {
                    Ok(answer) => answer,
                    Err(_elapsed) => {
                        // The frames stopped: the running T stands in for theirs.
                        self.cues.stamp_pending(self.now_t(now + CUE_WAIT));
                        stamped.await
                    }
                };
                answer.unwrap_or(Err(CueError::Ended))
            }
            At::Time(t) => {
                let running = self.now_t(now);
                if t < MediaTime::ZERO || t > running + AHEAD_MAX {
                    return Err(CueError::OutOfRange);
                }
                self.cues.put(now, cue, t, running)
            }
        }
    }

    /// Ends an open listed cue; returns the T at which it ends.
    ///
    /// # Errors
    /// [`CueError::NotFound`] when no such listed cue is open.
    pub fn close_cue(&self, now: Instant, id: &str) -> Result<MediaTime, CueError> {
        self.cues.close(id, self.now_t(now))
    }

    /// A reader's place among the cues: first those open now, then the news.
    pub fn cues(&self) -> CueCursor {
        self.cues.cursor()
    }

    /// Waits for the end.
    pub async fn ended(&self) -> EndReason {
        let mut end = self.end.subscribe();
        let reason = end.wait_for(Option::is_some).await.ok().and_then(|r| *r);
        reason.unwrap_or(EndReason::Shutdown)
    }

    /// Ends the broadcast; the first reason counts.
    pub fn end(self: &Arc<Self>, reason: EndReason) {
        let is_first = self.end.send_if_modified(|end| {
            let is_first = end.is_none();
            end.get_or_insert(reason);
            is_first
        });
        if !is_first {
            return;
        }
        for ring in self.rings().values() {
            ring.close();
        }
        self.cues.end();
        if let Some(hub) = self.hub.upgrade() {
            hub.live.remove_if(&self.key, |_, b| Arc::ptr_eq(b, self));
            hub.events.push(Event::Ended(Arc::clone(self), reason));
        }
    }

    /// True once it is over.
    pub fn is_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    fn ring(&self, track: TrackId) -> Arc<Ring> {
        if let Some(ring) = self.rings().get(&track) {
            return Arc::clone(ring);
        }
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        let ring = rings
            .entry(track)
            .or_insert_with(|| Arc::new(Ring::new(track, self.demand.clone())));
        let ring = Arc::clone(ring);
        drop(rings);
        if self.is_ended() {
            ring.close();
        }
        ring
    }

    fn rings(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<TrackId, Arc<Ring>>> {
        self.rings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn clock(&self) -> MutexGuard<'_, WallClock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_us(&self, now: Instant) -> i64 {
        let origin = *self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        micros(now.saturating_duration_since(origin.unwrap_or(self.opened)))
    }

    fn tell_tracks_changed(self: &Arc<Self>) {
        if let Some(hub) = self.hub.upgrade() {
            hub.events.push(Event::TracksChanged(Arc::clone(self)));
        }
    }
}

/// Sixty random bits in lower-case Crockford base32.
fn new_instance() -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = [0; 12];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    random
        .iter()
        .map(|b| char::from(DIGITS[usize::from(b & 31)]))
        .collect()
}

fn unix_micros(wall: OffsetDateTime) -> i64 {
    i64::try_from(wall.unix_timestamp_nanos() / 1_000).unwrap_or(0)
}

/// The publisher changed what it sends in a way that one instance cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kind of codec changed in mid-session")]
pub struct CodecChanged;

/// One publish session. Dropping it ends the broadcast as [`EndReason::Lost`].
#[derive(Debug)]
pub struct Publisher {
    broadcast: Arc<Broadcast>,
    clock: SessionClock,
    newest: Option<MediaTime>,
    first_media: Option<Instant>,
    opened_wall: OffsetDateTime,
    reason: EndReason,
}

impl Publisher {
    fn new(broadcast: Arc<Broadcast>, opened_wall: OffsetDateTime) -> Self {
        Self {
            broadcast,
            clock: SessionClock::default(),
            newest: None,
            first_media: None,
            opened_wall,
            reason: EndReason::Lost,
        }
    }

    /// What it publishes into.
    pub fn broadcast(&self) -> &Arc<Broadcast> {
        &self.broadcast
    }

    /// Sets the parameters of the picture or sound; identical ones are ignored.
    ///
    /// # Errors
    /// [`CodecChanged`] when the track had another codec before.
    pub fn set_track(&mut self, now: Instant, info: TrackInfo) -> Result<(), CodecChanged> {
        let track = source_track(kind_of(info.codec));
        let ring = self.broadcast.ring(track);
        let old = ring.info();
        if old.as_ref().is_some_and(|old| old.codec != info.codec) {
            return Err(CodecChanged);
        }
        let info = ring.set_info(info);
        if old.is_none_or(|old| old.generation != info.generation) {
            self.broadcast.tell_tracks_changed();
        }
        self.settle(now);
        Ok(())
    }

    /// Places a sample on T and hands it to every reader. Takes bounded time; never waits.
    /// `None` when it was dropped: its track has no parameters yet, or it lies before the epoch.
    pub fn write(&mut self, now: Instant, sample: Sample) -> Option<MediaTime> {
        let broadcast = Arc::clone(&self.broadcast);
        let ring = broadcast.ring(source_track(sample.kind));
        let info = ring.info()?;
        self.begin(now);
        let elapsed_us = broadcast.elapsed_us(now);
        let reading = Reading {
            kind: sample.kind,
            dts: sample.dts,
            audio: info
                .audio_rate()
                .filter(|_| sample.samples > 0)
                .map(|r| (sample.samples, r)),
        };
        let moment = Moment {
            elapsed_us,
            newest: self.newest,
            frame_us: FRAME_US_DEFAULT,
        };
        let stamp = self.clock.stamp(reading, moment)?;
        if stamp.is_discontinuity {
            broadcast.discontinuities.fetch_add(1, Ordering::AcqRel);
            broadcast.clock().step(stamp.t, elapsed_us);
        } else {
            broadcast.clock().observe(stamp.t, elapsed_us);
        }
        let pts = stamp.t + sample.composition;
        self.stamp_cues(sample.kind, pts);
        let duration = reading.audio.map(|(samples, rate)| {
            Duration::from_nanos(
                u64::try_from(crate::time::samples_to_nanos(samples, rate)).unwrap_or(0),
            )
        });
        let frame = Frame {
            track: ring.track(),
            info,
            dts: stamp.t,
            pts,
            duration,
            is_key: sample.is_key,
            is_discardable: sample.is_discardable,
            discontinuities: broadcast.discontinuities.load(Ordering::Acquire),
            payload: sample.payload,
            rtp: std::sync::OnceLock::new(),
        };
        self.newest = self.newest.max(Some(stamp.t));
        self.settle(now);
        ring.push(Arc::new(frame)).then_some(stamp.t)
    }

    /// Waits until the server ends the broadcast.
    pub async fn ended(&self) -> EndReason {
        self.broadcast.ended().await
    }

    /// Ends the session and the broadcast.
    pub fn finish(mut self, reason: EndReason) {
        self.reason = reason;
    }

    /// The first media fixes the epoch: its arrival is the server time of T = 0.
    fn begin(&mut self, now: Instant) {
        if self.first_media.is_some() {
            return;
        }
        self.first_media = Some(now);
        let since_open = now.saturating_duration_since(self.broadcast.opened);
        let wall = self.opened_wall + since_open;
        *self
            .broadcast
            .origin
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(now);
        *self.broadcast.clock() = WallClock::new(unix_micros(wall));
    }

    fn stamp_cues(&self, kind: Kind, pts: MediaTime) {
        if kind == Kind::Video || self.broadcast.source(Kind::Video).is_none() {
            self.broadcast.cues.stamp_pending(pts);
            self.broadcast.cues.lapse(pts);
        }
    }

    fn settle(&self, now: Instant) {
        if *self.broadcast.settled.borrow() {
            return;
        }
        let has_both = self.broadcast.source(Kind::Video).is_some()
            && self.broadcast.source(Kind::Audio).is_some();
        let is_late = self.first_media.is_some_and(|first| now - first >= SETTLE);
        if has_both || is_late {
            self.broadcast.settled.send_replace(true);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.broadcast.end(self.reason);
    }
}

const fn source_track(kind: Kind) -> TrackId {
    match kind {
        Kind::Video => TrackId::Video,
        Kind::Audio => TrackId::Audio,
    }
}

const fn kind_of(codec: Codec) -> Kind {
    match codec {
        Codec::H264 | Codec::Hevc | Codec::Av1 => Kind::Video,
        Codec::Aac | Codec::Opus => Kind::Audio,
    }
}
