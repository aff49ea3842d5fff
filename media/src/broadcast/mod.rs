//! Broadcasts: the one hub between publishers and viewers.
//!
//! A [`Publisher`] writes samples; they are placed on T and appended to the ring of their track.
//! Everything else (WHEP, LL-HLS, converters) reads rings through [`Cursor`]s.
//!
//! Invariants
//! - The ring is the only queue between publisher and viewer (I1).
//! - At most one publish session per broadcast at any instant (I7); the broadcast outlives it by
//!   the grace of its policy, and no reader notices more than that frames stay away (I6).
//! - News for the server leaves through one bounded stream; state changes are never dropped.
//!
//! Not here: who may publish, rooms, users; tasks (the server runs the futures).

mod attendance;
mod audience;
mod converters;
mod facts;
mod hub;
mod publisher;
mod report;
mod ring;
#[cfg(test)]
mod tests;
mod timeline;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cue::{AHEAD_MAX, At, CueCursor, CueError, CueLog, CuePlace, NewCue, Stamped};
use crate::doctor::Change;
use crate::frame::{Kind, TrackId, TrackInfo};
use crate::stats::Histogram;
use crate::time::{MediaTime, micros};
use crate::transcode::ladder::Ladder;

use self::attendance::{Attendance, Came, NotNow, Went};
pub use self::attendance::{PublishPolicy, Takeover};
pub use self::audience::{Audience, Counts, Output, OutputCounts, Presence};
pub use self::converters::{
    Converters, Job, LoadStep, Making, OVERLOAD, TooManyEncoders, encoders_max_default,
};
pub use self::facts::Facts;
pub use self::hub::{Broadcasts, Event, Limits, OpenError};
pub use self::publisher::{CodecChanged, Publisher};
pub use self::report::{About, PublishReport, TrackReport};
use self::ring::Ring;
pub use self::ring::{Cursor, Delivery, Ended, Start, TrackWriter};
use self::timeline::{Stamp, WallClock};

/// A cue for "now" takes the running T when no frame comes for this long.
const CUE_WAIT: Duration = Duration::from_millis(500);

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
    /// Of a session, never of a broadcast: a newer one took its place.
    Replaced,
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
            Self::Replaced => "replaced",
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
    attendance: Mutex<Attendance>,
    /// Of the session that may write, for those that may not any more.
    session: watch::Sender<u64>,
    report: Mutex<Option<Arc<PublishReport>>>,
    audience: Audience,
    shed: converters::Shed,
    ladder: Mutex<Arc<Ladder>>,
}

impl Broadcast {
    fn new(
        key: BroadcastKey,
        hub: Weak<Broadcasts>,
        (now, wall): (Instant, OffsetDateTime),
        policy: PublishPolicy,
    ) -> Arc<Self> {
        let attendance = Attendance::new(policy);
        Arc::new(Self {
            session: watch::Sender::new(attendance.number()),
            attendance: Mutex::new(attendance),
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
            report: Mutex::default(),
            audience: Audience::default(),
            shed: converters::Shed::default(),
            ladder: Mutex::new(Ladder::standard()),
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

    /// The ladder of this instance.
    pub fn ladder(&self) -> Arc<Ladder> {
        Arc::clone(&self.ladder.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives this instance a ladder of its own: to be called once, before its outputs are started.
    pub fn set_ladder(&self, ladder: Arc<Ladder>) {
        *self.ladder.lock().unwrap_or_else(PoisonError::into_inner) = ladder;
    }

    /// Lines of a track's picture, or of the source's while that is not known.
    pub(crate) fn lines(&self, track: TrackId) -> u32 {
        let info = self.rings().get(&track).and_then(|ring| ring.info());
        let size = info.or_else(|| self.source(Kind::Video));
        let size = size.and_then(|info| info.picture_size());
        size.map_or(0, |(width, height)| width.min(height))
    }

    /// A reader's place in a track. For a made track this is the demand for it.
    pub fn cursor(&self, track: TrackId, start: Start) -> Cursor {
        self.ring(track).cursor(start)
    }

    /// A reader's place in a made track from `from` on, a time that is still in the source's ring:
    /// if nobody reads the track yet, it is made from there, faster than real time until it has
    /// caught up (spec media.md 5.2 rule 7).
    ///
    /// The first frame is a keyframe at or after `from`, normally at it. It is a later one when the
    /// track was begun before for somebody else, and when its decoder runs for other tracks and is
    /// so far ahead that they would have to wait for it too long.
    pub fn cursor_from(&self, track: TrackId, from: MediaTime) -> Cursor {
        self.ring(track).cursor_from(from)
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

    /// Decode time of a track's newest frame; `None` before the first.
    pub fn newest_dts(&self, track: TrackId) -> Option<MediaTime> {
        self.rings().get(&track).and_then(|r| r.newest_dts())
    }

    /// The tracks there are, as they are now.
    pub fn tracks(&self) -> Vec<TrackReport> {
        let rings: Vec<Arc<Ring>> = self.rings().values().map(Arc::clone).collect();
        let newest = |track| self.newest_dts(track);
        let jobs = self.jobs();
        let report = |ring: &Arc<Ring>| {
            let track = ring.track();
            let source = match track.kind() {
                Kind::Video => TrackId::Video,
                Kind::Audio => TrackId::Audio,
            };
            let both = newest(source).zip(ring.newest_dts());
            TrackReport {
                track,
                users: ring.users(),
                bitrate_bps: ring.facts().bitrate_bps,
                lag: both.map(|(source, made)| source.saturating_since(made)),
                bytes: ring.bytes(),
                encoder: jobs
                    .iter()
                    .rfind(|job| job.track() == track)
                    .map(|job| job.encoder())
                    .filter(|name| !name.is_empty()),
                unavailable: ring.unavailable(),
            }
        };
        rings.iter().map(report).collect()
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

    /// Takes the place of a cue at a time at most 60 s ahead, to be filled once what it tells is
    /// recorded.
    ///
    /// # Errors
    /// [`CueError`] says which bound or rule refused it; nothing was taken then.
    pub fn hold_cue(&self, now: Instant, t: MediaTime, cue: NewCue) -> Result<CuePlace, CueError> {
        let running = self.now_t(now);
        if t < MediaTime::ZERO || t > running + AHEAD_MAX {
            return Err(CueError::OutOfRange);
        }
        self.cues.hold(now, cue, t, running)
    }

    /// Ends an open listed cue; returns the T at which it ends.
    ///
    /// # Errors
    /// [`CueError::NotFound`] when no such listed cue is open.
    pub fn close_cue(&self, now: Instant, id: &str) -> Result<MediaTime, CueError> {
        self.cues.close(id, self.now_t(now))
    }

    /// Ends an open listed cue at a time at most 60 s ahead, and not before it began; returns it.
    ///
    /// # Errors
    /// [`CueError::NotFound`] when no such listed cue is open, [`CueError::OutOfRange`] when the
    /// time lies too far ahead.
    pub fn close_cue_at(
        &self,
        now: Instant,
        id: &str,
        t: MediaTime,
    ) -> Result<MediaTime, CueError> {
        if t > self.now_t(now) + AHEAD_MAX {
            return Err(CueError::OutOfRange);
        }
        self.cues.close(id, t)
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
            hub.forget(self);
            hub.tell(Event::Ended(Arc::clone(self), reason));
        }
    }

    /// Whether a publisher is connected; a broadcast also goes on for a while without one.
    pub fn has_publisher(&self) -> bool {
        self.attendance().is_present()
    }

    /// Whether the publisher that is connected has sent frames.
    pub fn is_sending(&self) -> bool {
        self.attendance().is_sending
    }

    /// Whether any publisher of it has sent frames.
    pub fn had_media(&self) -> bool {
        self.attendance().has_media
    }

    /// The publish session that is there, as it was a second ago at most.
    pub fn publish_report(&self) -> Option<Arc<PublishReport>> {
        self.reported().clone()
    }

    /// Who watches.
    pub const fn audience(&self) -> &Audience {
        &self.audience
    }

    fn reported(&self) -> MutexGuard<'_, Option<Arc<PublishReport>>> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, now: Instant, policy: PublishPolicy) -> Result<Came, NotNow> {
        let mut attendance = self.attendance();
        let came = attendance.enter(now, policy)?;
        self.session.send_replace(attendance.number());
        *self.reported() = None;
        Ok(came)
    }

    fn leave(self: &Arc<Self>, now: Instant, number: u64, reason: EndReason) {
        let mut attendance = self.attendance();
        let went = attendance.leave(now, number, reason);
        if went != Went::Unnoticed {
            *self.reported() = None;
        }
        drop(attendance);
        match went {
            Went::Unnoticed => {}
            Went::ForGood => self.end(reason),
            Went::Awaited => {
                if let Some(hub) = self.hub.upgrade() {
                    hub.tell(Event::Lost(Arc::clone(self)));
                }
            }
        }
    }

    fn attendance(&self) -> MutexGuard<'_, Attendance> {
        self.attendance
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// True once it is over.
    pub fn is_ended(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// True once nobody can publish into it any more.
    fn is_ending(&self) -> bool {
        self.is_ended() || self.attendance().is_over()
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

    /// Lets the wall clock follow a frame, or step with a discontinuity.
    fn follow(&self, stamp: Stamp, elapsed_us: i64, is_returned: bool) {
        if stamp.is_discontinuity {
            let cause = if is_returned {
                "returned"
            } else {
                "reanchored"
            };
            self.count("discontinuities_total", cause);
            self.discontinuities.fetch_add(1, Ordering::AcqRel);
            self.clock().step(stamp.t, elapsed_us);
        } else {
            self.clock().observe(stamp.t, elapsed_us);
        }
    }

    /// Counts one of something in the hub's counters.
    pub(crate) fn count(&self, name: &'static str, label: &'static str) {
        if let Some(hub) = self.hub.upgrade() {
            hub.stats().add(name, label, 1);
        }
    }

    /// One of the hub's histograms, for who needs it often.
    pub(crate) fn histogram(
        &self,
        name: &'static str,
        label: &'static str,
    ) -> Option<Arc<Histogram>> {
        self.hub
            .upgrade()
            .map(|hub| hub.stats().histogram(name, label))
    }

    /// Takes a measurement into one of the hub's histograms.
    pub(crate) fn observe(&self, name: &'static str, label: &'static str, took: Duration) {
        if let Some(histogram) = self.histogram(name, label) {
            histogram.observe(took);
        }
    }

    fn tell_verdict(self: &Arc<Self>, change: Change) {
        let Some(hub) = self.hub.upgrade() else {
            return;
        };
        let (code, found) = match change {
            Change::Found(verdict) => (verdict.code, Some(verdict)),
            Change::Cleared(code) => (code, None),
        };
        hub.tell(Event::Verdict(Arc::clone(self), code, found));
    }

    fn tell_tracks_changed(self: &Arc<Self>) {
        if let Some(hub) = self.hub.upgrade() {
            hub.tell(Event::TracksChanged(Arc::clone(self)));
        }
    }
}

/// Sixty random bits.
fn new_instance() -> String {
    random_text::<12>()
}

/// Five random bits a digit, in lower-case Crockford base32.
fn random_text<const N: usize>() -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = [0; N];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    random
        .iter()
        .map(|b| char::from(DIGITS[usize::from(b & 31)]))
        .collect()
}

fn unix_micros(wall: OffsetDateTime) -> i64 {
    i64::try_from(wall.unix_timestamp_nanos() / 1_000).unwrap_or(0)
}
