//! Cues (spec media.md 1.5): opaque bytes from the server, pinned to a T.
//!
//! Invariants
//! - A cue has one T; every output shows that T (I13).
//! - A cue is refused or delivered, never lost silently; open listed cues reach late joiners (I14).
//! - A place that was taken is filled or given back: a cue that must be recorded first cannot be
//!   refused afterwards.
//! - The payload is never read here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::broadcast::Ended;
use crate::time::MediaTime;

/// Bytes of an id and of a class.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a payload.
pub const PAYLOAD_BYTES_MAX: usize = 1_024;
/// How far ahead a cue may be placed.
pub const AHEAD_MAX: Duration = Duration::from_secs(60);
/// How long a cue may last, if it has an end.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Listed cues open at once.
pub const OPEN_MAX: usize = 200;
/// Cues ahead of the running T at once.
pub const AHEAD_COUNT_MAX: usize = 1_000;
/// Cue news kept for readers.
const WINDOW_MAX: usize = 1_000;
/// Ids remembered so that none is used twice.
const IDS_MAX: usize = 4_096;
/// Cues that may wait for the next frame.
const PENDING_MAX: usize = 64;

const LISTED_PER_S: f64 = 2.0;
const LISTED_BURST: f64 = 20.0;
const PASSING_PER_S: f64 = 100.0;
const BYTES_PER_S: f64 = 65_536.0;

/// Whether a late joiner needs the cue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CueKind {
    /// State, for example a pinned card. May be open-ended and closed later.
    Listed,
    /// News of the moment.
    Passing,
}

/// Where on T a new cue goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At the next picture to be written (sound if there is no picture).
    Now,
    /// At this time, at most [`AHEAD_MAX`] ahead.
    Time(MediaTime),
}

/// A cue on the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cue {
    /// Unique within the instance; at most 64 bytes.
    pub id: String,
    /// What it is, for the player, for example `card`.
    pub class: String,
    /// When it takes effect.
    pub t: MediaTime,
    /// How long it lasts; `None` is open-ended.
    pub duration: Option<Duration>,
    /// Whether a late joiner needs it.
    pub kind: CueKind,
    /// At most 1 024 bytes; never read here.
    pub payload: Bytes,
}

/// A cue before it is stamped.
#[derive(Clone, Debug)]
pub struct NewCue {
    /// Unique within the instance; at most 64 bytes of visible ASCII.
    pub id: String,
    /// At most 64 bytes of visible ASCII.
    pub class: String,
    /// How long it lasts; `None` is open-ended.
    pub duration: Option<Duration>,
    /// Whether a late joiner needs it.
    pub kind: CueKind,
    /// At most 1 024 bytes.
    pub payload: Bytes,
}

/// What happened to a cue.
#[derive(Clone, Debug)]
pub enum CueNews {
    /// It is on the timeline.
    Opened(Arc<Cue>),
    /// A listed one ends at `t`.
    Closed {
        /// The cue that ends.
        cue: Arc<Cue>,
        /// When it ends.
        t: MediaTime,
    },
}

/// Where a cue was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Its id.
    pub id: String,
    /// Its place on T.
    pub t: MediaTime,
}

/// Why a cue was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CueError {
    /// The payload is over 1 024 bytes.
    #[error("the payload is larger than 1024 bytes")]
    TooLarge,
    /// The id or class is empty, over 64 bytes, or not visible ASCII without quotes.
    #[error("id and class take 1 to 64 characters of visible ASCII without a double quote")]
    BadName,
    /// The id was used before in this instance.
    #[error("this id was used before")]
    IdUsed,
    /// The time is more than 60 s ahead or before the epoch, or the duration is over 24 h.
    #[error("a cue begins between the start and 60 s ahead, and lasts at most 24 h")]
    OutOfRange,
    /// More cues than the bounds allow.
    #[error("too many cues; wait a moment")]
    TooMany,
    /// No such open listed cue.
    #[error("no such open cue")]
    NotFound,
    /// The broadcast has ended.
    #[error("the broadcast has ended")]
    Ended,
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    rate: f64,
    burst: f64,
    at: Option<Instant>,
}

impl Bucket {
    const fn new(rate: f64, burst: f64) -> Self {
        Self {
            level: burst,
            rate,
            burst,
            at: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.level = (self.level + passed.as_secs_f64() * self.rate).min(self.burst);
        self.at = Some(now);
    }

    fn give_back(&mut self, taken: f64) {
        self.level = (self.level + taken).min(self.burst);
    }
}

#[derive(Debug)]
struct Pending {
    cue: NewCue,
    reply: oneshot::Sender<Result<Stamped, CueError>>,
}

/// A place on the timeline that is taken and not filled yet. Dropped, it is given back.
#[derive(Debug)]
pub struct CuePlace {
    log: Arc<CueLog>,
    /// None once it is filled.
    cue: Option<NewCue>,
    t: MediaTime,
    is_ahead: bool,
}

impl CuePlace {
    /// Puts the cue on the timeline.
    ///
    /// # Errors
    /// [`CueError::Ended`] when the broadcast has ended meanwhile.
    pub fn fill(mut self) -> Result<Stamped, CueError> {
        let cue = self.cue.take().ok_or(CueError::Ended)?;
        let mut state = self.log.lock();
        state.held.retain(|(id, _)| *id != cue.id);
        if state.is_ended {
            return Err(CueError::Ended);
        }
        let stamped = place(&mut state, cue, self.t);
        self.log.wake(state);
        Ok(stamped)
    }
}

impl Drop for CuePlace {
    fn drop(&mut self) {
        let Some(cue) = self.cue.take() else {
            return;
        };
        let mut state = self.log.lock();
        state.held.retain(|(id, _)| *id != cue.id);
        let ahead = state.ahead.iter().position(|t| *t == self.t);
        if let Some(ahead) = ahead.filter(|_| self.is_ahead) {
            state.ahead.swap_remove(ahead);
        }
        let bytes = size(&cue);
        state.bytes.give_back(bytes);
        match cue.kind {
            CueKind::Listed => state.listed.give_back(1.0),
            CueKind::Passing => state.passing.give_back(1.0),
        }
    }
}

#[derive(Debug)]
struct State {
    first: u64,
    news: VecDeque<CueNews>,
    open: Vec<Arc<Cue>>,
    ids: VecDeque<String>,
    pending: Vec<Pending>,
    /// The cues whose places are taken and not filled.
    held: Vec<(String, CueKind)>,
    /// Where the cues lie that were ahead when they were placed.
    ahead: Vec<MediaTime>,
    listed: Bucket,
    passing: Bucket,
    bytes: Bucket,
    is_ended: bool,
}

/// All cues of one instance.
#[derive(Debug)]
pub(crate) struct CueLog {
    state: Mutex<State>,
    head: watch::Sender<u64>,
}

impl CueLog {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                first: 0,
                news: VecDeque::new(),
                open: Vec::new(),
                ids: VecDeque::new(),
                pending: Vec::new(),
                held: Vec::new(),
                ahead: Vec::new(),
                listed: Bucket::new(LISTED_PER_S, LISTED_BURST),
                passing: Bucket::new(PASSING_PER_S, PASSING_PER_S),
                bytes: Bucket::new(BYTES_PER_S, BYTES_PER_S),
                is_ended: false,
            }),
            head: watch::Sender::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a cue for the next frame; the receiver gets its stamp.
    pub(crate) fn wait_for_frame(
        &self,
        now: Instant,
        cue: NewCue,
    ) -> Result<oneshot::Receiver<Result<Stamped, CueError>>, CueError> {
        let mut state = self.lock();
        admit(&mut state, now, &cue)?;
        if state.pending.len() >= PENDING_MAX {
            return Err(CueError::TooMany);
        }
        let (reply, stamped) = oneshot::channel();
        state.pending.push(Pending { cue, reply });
        Ok(stamped)
    }

    /// Places every waiting cue at `t`, in the order they came. Called before the frame of time
    /// `t` is readable, so that no output sees the frame without its cues.
    pub(crate) fn stamp_pending(&self, t: MediaTime) {
        let mut state = self.lock();
        if state.pending.is_empty() {
            return;
        }
        for Pending { cue, reply } in std::mem::take(&mut state.pending) {
            let stamped = place(&mut state, cue, t);
            // A caller that gave up still finds its cue on the timeline.
            drop(reply.send(Ok(stamped)));
        }
        self.wake(state);
    }

    /// Places a cue at `t` at once; `running` is the T that is now.
    pub(crate) fn put(
        &self,
        now: Instant,
        cue: NewCue,
        t: MediaTime,
        running: MediaTime,
    ) -> Result<Stamped, CueError> {
        let mut state = self.lock();
        state.ahead.retain(|ahead| *ahead > running);
        if t > running && state.ahead.len() >= AHEAD_COUNT_MAX {
            return Err(CueError::TooMany);
        }
        admit(&mut state, now, &cue)?;
        if t > running {
            state.ahead.push(t);
        }
        let stamped = place(&mut state, cue, t);
        self.wake(state);
        Ok(stamped)
    }

    /// Takes the place of a cue at `t`; `running` is the T that is now.
    pub(crate) fn hold(
        self: &Arc<Self>,
        now: Instant,
        cue: NewCue,
        t: MediaTime,
        running: MediaTime,
    ) -> Result<CuePlace, CueError> {
        let mut state = self.lock();
        state.ahead.retain(|ahead| *ahead > running);
        let is_ahead = t > running;
        if is_ahead && state.ahead.len() >= AHEAD_COUNT_MAX {
            return Err(CueError::TooMany);
        }
        admit(&mut state, now, &cue)?;
        if is_ahead {
            state.ahead.push(t);
        }
        state.held.push((cue.id.clone(), cue.kind));
        drop(state);
        Ok(CuePlace {
            log: Arc::clone(self),
            cue: Some(cue),
            t,
            is_ahead,
        })
    }

    /// Ends an open listed cue at `t`.
    pub(crate) fn close(&self, id: &str, t: MediaTime) -> Result<MediaTime, CueError> {
        let mut state = self.lock();
        let at = state
            .open
            .iter()
            .position(|c| c.id == id)
            .ok_or(CueError::NotFound)?;
        let cue = state.open.remove(at);
        let t = t.max(cue.t);
        tell(&mut state, CueNews::Closed { cue, t });
        self.wake(state);
        Ok(t)
    }

    /// No cue comes after this.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        for Pending { reply, .. } in std::mem::take(&mut state.pending) {
            drop(reply.send(Err(CueError::Ended)));
        }
        self.wake(state);
    }

    /// Forgets open cues whose duration has passed.
    pub(crate) fn lapse(&self, t: MediaTime) {
        self.lock()
            .open
            .retain(|c| c.duration.is_none_or(|d| c.t + d > t));
    }

    pub(crate) fn cursor(self: &Arc<Self>) -> CueCursor {
        let state = self.lock();
        let next = state.first + state.news.len() as u64;
        let open = state.open.iter().cloned().collect();
        CueCursor {
            log: Arc::clone(self),
            head: self.head.subscribe(),
            open,
            next,
            is_drained: false,
        }
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        drop(state);
        self.head.send_modify(|n| *n += 1);
    }
}

fn admit(state: &mut State, now: Instant, cue: &NewCue) -> Result<(), CueError> {
    if state.is_ended {
        return Err(CueError::Ended);
    }
    if cue.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(CueError::TooLarge);
    }
    if !is_name(&cue.id) || !is_name(&cue.class) {
        return Err(CueError::BadName);
    }
    if cue.duration.is_some_and(|d| d > DURATION_MAX) {
        return Err(CueError::OutOfRange);
    }
    let waiting = state.pending.iter().map(|p| &p.cue.id);
    let mut taken = waiting.chain(state.held.iter().map(|(id, _)| id));
    if taken.any(|id| *id == cue.id) || state.ids.iter().any(|id| *id == cue.id) {
        return Err(CueError::IdUsed);
    }
    let held = state.held.iter();
    let held = held.filter(|(_, kind)| *kind == CueKind::Listed).count();
    let open = state.open.len() + state.pending.len() + held;
    if cue.kind == CueKind::Listed && open >= OPEN_MAX {
        return Err(CueError::TooMany);
    }
    let size = size(cue);
    let bucket = match cue.kind {
        CueKind::Listed => &mut state.listed,
        CueKind::Passing => &mut state.passing,
    };
    bucket.refill(now);
    state.bytes.refill(now);
    if bucket.level < 1.0 || state.bytes.level < size {
        return Err(CueError::TooMany);
    }
    bucket.level -= 1.0;
    state.bytes.level -= size;
    Ok(())
}

fn size(cue: &NewCue) -> f64 {
    let bytes = cue.payload.len() + cue.id.len() + cue.class.len();
    u32::try_from(bytes).map_or(f64::INFINITY, f64::from)
}

/// Ids and classes stand in quoted playlist attributes and in JSON.
fn is_name(name: &str) -> bool {
    let is_sized = (1..=NAME_BYTES_MAX).contains(&name.len());
    is_sized
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

fn place(state: &mut State, new: NewCue, t: MediaTime) -> Stamped {
    let NewCue {
        id,
        class,
        duration,
        kind,
        payload,
    } = new;
    let cue = Arc::new(Cue {
        id,
        class,
        t,
        duration,
        kind,
        payload,
    });
    if state.ids.len() >= IDS_MAX {
        state.ids.pop_front();
    }
    state.ids.push_back(cue.id.clone());
    if kind == CueKind::Listed {
        state.open.push(Arc::clone(&cue));
    }
    let stamped = Stamped {
        id: cue.id.clone(),
        t,
    };
    tell(state, CueNews::Opened(cue));
    stamped
}

fn tell(state: &mut State, news: CueNews) {
    if state.news.len() >= WINDOW_MAX {
        state.news.pop_front();
        state.first += 1;
    }
    state.news.push_back(news);
}

/// One reader's place among the cues: first those open when it was made, then the news.
#[derive(Debug)]
pub struct CueCursor {
    log: Arc<CueLog>,
    head: watch::Receiver<u64>,
    open: VecDeque<Arc<Cue>>,
    next: u64,
    /// Nothing to read until there is news: known without a look at the log.
    is_drained: bool,
}

impl CueCursor {
    /// The next piece of news, if it is there already.
    pub fn try_next(&mut self) -> Option<CueNews> {
        if let Some(cue) = self.open.pop_front() {
            return Some(CueNews::Opened(cue));
        }
        if self.is_drained && !self.head.has_changed().unwrap_or(true) {
            return None;
        }
        let state = self.log.lock();
        self.head.mark_unchanged();
        self.next = self.next.max(state.first);
        let at = usize::try_from(self.next - state.first).ok()?;
        let news = state.news.get(at).cloned();
        self.is_drained = news.is_none() && !state.is_ended;
        self.next += u64::from(news.is_some());
        news
    }

    /// The next piece of news; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// [`Ended`] when the broadcast is over and all news was read.
    pub async fn next(&mut self) -> Result<CueNews, Ended> {
        loop {
            if let Some(news) = self.try_next() {
                return Ok(news);
            }
            if !self.is_drained && self.log.lock().is_ended {
                return Err(Ended);
            }
            self.head.changed().await.map_err(|_closed| Ended)?;
            self.is_drained = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(id: &str, kind: CueKind) -> NewCue {
        let payload = Bytes::from_static(b"{}");
        NewCue {
            id: id.into(),
            class: "card".into(),
            duration: None,
            kind,
            payload,
        }
    }

    /// Puts a cue at the beginning, which is now.
    fn put(log: &CueLog, now: Instant, cue: NewCue) -> Result<Stamped, CueError> {
        log.put(now, cue, MediaTime::ZERO, MediaTime::ZERO)
    }

    fn ids(cursor: &mut CueCursor) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(news) = cursor.try_next() {
            out.push(match news {
                CueNews::Opened(cue) => cue.id.clone(),
                CueNews::Closed { cue, .. } => format!("-{}", cue.id),
            });
        }
        out
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_joiner_gets_open_listed_cues_and_no_old_news() {
        let log = Arc::new(CueLog::new());
        let now = Instant::now();
        put(&log, now, new("a", CueKind::Listed)).unwrap();
        put(&log, now, new("b", CueKind::Passing)).unwrap();
        put(&log, now, new("c", CueKind::Listed)).unwrap();
        log.close("a", MediaTime::from_micros(5)).unwrap();
        let mut late = log.cursor();
        assert_eq!(ids(&mut late), ["c"]);
        put(&log, now, new("d", CueKind::Passing)).unwrap();
        log.close("c", MediaTime::from_micros(9)).unwrap();
        assert_eq!(ids(&mut late), ["d", "-c"]);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_rate_a_cue_is_refused_and_time_heals_it() {
        let log = Arc::new(CueLog::new());
        let now = Instant::now();
        for n in 0..20 {
            put(&log, now, new(&format!("l{n}"), CueKind::Listed)).unwrap();
        }
        let over = put(&log, now, new("x", CueKind::Listed));
        assert_eq!(over, Err(CueError::TooMany));
        let later = now + Duration::from_secs(1);
        assert!(put(&log, later, new("x", CueKind::Listed)).is_ok());
        assert_eq!(
            put(&log, later, new("x", CueKind::Passing)),
            Err(CueError::IdUsed)
        );
    }

    /// Outputs keep what is ahead until its time comes, so it is counted before it is taken.
    #[tokio::test(start_paused = true)]
    async fn a_thousand_cues_may_be_ahead_and_no_more() {
        let log = Arc::new(CueLog::new());
        let start = Instant::now();
        let second = |s: u64| MediaTime::ZERO + Duration::from_secs(s);
        let put_at = |n: u64, running: u64, at: u64| {
            let now = start + Duration::from_millis(n * 11);
            let cue = new(&format!("c{n}"), CueKind::Passing);
            log.put(now, cue, second(at), second(running))
        };
        for n in 0..1_000 {
            assert!(put_at(n, 5, 60).is_ok(), "{n}");
        }
        assert_eq!(put_at(1_000, 5, 61), Err(CueError::TooMany));
        assert!(
            put_at(1_001, 5, 5).is_ok(),
            "what is not ahead is not counted"
        );
        assert!(put_at(1_002, 60, 61).is_ok(), "what has come is not ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_is_taken_is_filled_whatever_came_meanwhile_or_given_back() {
        let log = Arc::new(CueLog::new());
        let (now, t) = (Instant::now(), MediaTime::from_micros(7));
        let hold = |id: &str| log.hold(now, new(id, CueKind::Listed), t, MediaTime::ZERO);
        let held = hold("a").unwrap();
        assert!(matches!(hold("a"), Err(CueError::IdUsed)));
        for n in 1..20 {
            put(&log, now, new(&format!("l{n}"), CueKind::Listed)).unwrap();
        }
        let over = put(&log, now, new("x", CueKind::Listed));
        assert_eq!(over, Err(CueError::TooMany));
        assert_eq!(held.fill().map(|stamped| stamped.t), Ok(t));
        assert!(matches!(hold("a"), Err(CueError::IdUsed)), "it stands");

        let later = now + Duration::from_secs(1);
        let two = ["b", "c"].map(|id| {
            let cue = new(id, CueKind::Listed);
            log.hold(later, cue, t, MediaTime::ZERO).unwrap()
        });
        let next = || put(&log, later, new("d", CueKind::Listed));
        assert_eq!(next(), Err(CueError::TooMany));
        drop(two);
        assert!(next().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_cue_longer_than_a_day_is_refused() {
        let log = Arc::new(CueLog::new());
        let lasting = |id: &str, duration| NewCue {
            duration: Some(duration),
            ..new(id, CueKind::Listed)
        };
        for duration in [DURATION_MAX + Duration::from_micros(1), Duration::MAX] {
            let placed = put(&log, Instant::now(), lasting("a", duration));
            assert_eq!(placed, Err(CueError::OutOfRange));
            let waiting = log.wait_for_frame(Instant::now(), lasting("a", duration));
            assert!(matches!(waiting, Err(CueError::OutOfRange)));
        }
        let placed = put(&log, Instant::now(), lasting("a", DURATION_MAX));
        assert!(placed.is_ok());
        log.lapse(MediaTime::from_micros(1));
    }

    #[test]
    fn names_that_would_break_a_playlist_line_are_refused() {
        for bad in ["", "a\"b", "a\nb", "ü", "a b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_name("card-17"));
    }
}
