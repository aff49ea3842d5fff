//! The bounded history of one track, and the cursors that read it.
//!
//! Invariants
//! - Writing takes bounded time and never waits for a reader (I1).
//! - `dts` strictly increases in a ring (I3).
//! - A cursor's first video frame, and the first after every skip, is a keyframe (I4); `skipped`
//!   is the number of frames passed over (I5).
//! - A cursor owns no frames: it is a sequence number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::facts::{Facts, Groups, frame_rate};
use crate::frame::{Frame, Kind, TrackId, TrackInfo};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError};
use crate::time::MediaTime;

/// Bounds of spec media.md 8.5; whichever is reached first.
const RING_SPAN: Duration = Duration::from_secs(12);
const VIDEO_FRAMES_MAX: usize = 1_024;
const VIDEO_BYTES_MAX: usize = 32 << 20;
const AUDIO_FRAMES_MAX: usize = 2_048;
const AUDIO_BYTES_MAX: usize = 2 << 20;
/// A forced keyframe at most this often per track (I32).
const KEYFRAME_INTERVAL_MIN: Duration = Duration::from_millis(500);

/// The broadcast, or this track of it, is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the track has ended")]
pub struct Ended;

/// Where a cursor begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the newest keyframe in the ring, or the first that comes.
    NewestKey,
    /// At the oldest keyframe in the ring, or the first that comes.
    OldestKey,
    /// At the first frame (picture: keyframe) at or after this decode time.
    At(MediaTime),
    /// At the newest keyframe at or before this decode time; at the oldest there is if none is.
    Before(MediaTime),
    /// At the next frame (picture: keyframe) to be written.
    Live,
}

/// A frame and how many were passed over to reach it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The frame.
    pub frame: Arc<Frame>,
    /// Frames of this track passed over since the last delivery.
    pub skipped: u32,
    /// Decode time of the newest frame in the ring at that moment.
    pub newest: MediaTime,
}

#[derive(Debug, Default)]
struct State {
    first: u64,
    frames: VecDeque<Arc<Frame>>,
    /// Sequence numbers of keyframes still held.
    keys: VecDeque<u64>,
    bytes: usize,
    is_ended: bool,
    has_reordering: bool,
    groups: Groups,
    keyframe_wanted: bool,
    /// A keyframe is wanted at or after this time, and an earlier one is of no use.
    keyframe_wanted_from: Option<MediaTime>,
    keyframe_given: Option<Instant>,
    unavailable: Option<&'static str>,
    /// Where a converter that starts shall begin.
    begin: Option<MediaTime>,
}

impl State {
    fn head(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    fn frame(&self, seq: u64) -> Option<&Arc<Frame>> {
        let at = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.frames.get(at)
    }

    fn wants_keyframe(&self, t: MediaTime) -> bool {
        self.keyframe_wanted || self.keyframe_wanted_from.is_some_and(|from| t >= from)
    }

    fn answer_keyframe(&mut self, t: MediaTime) {
        self.keyframe_wanted = false;
        self.keyframe_wanted_from = self.keyframe_wanted_from.filter(|from| t < *from);
    }

    /// The newest keyframe at or before `t`, else the oldest.
    fn key_before(&self, t: MediaTime) -> Option<u64> {
        let is_before = |seq: &&u64| self.frame(**seq).is_some_and(|frame| frame.dts <= t);
        let found = self.keys.iter().rev().find(is_before);
        found.or_else(|| self.keys.front()).copied()
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.bytes -= frame.payload.len();
            if self.keys.front() == Some(&self.first) {
                self.keys.pop_front();
            }
            self.first += 1;
        }
    }
}

/// The history of one track.
#[derive(Debug)]
pub(crate) struct Ring {
    track: TrackId,
    state: Mutex<State>,
    head: watch::Sender<u64>,
    info: watch::Sender<Option<Arc<TrackInfo>>>,
    users: AtomicUsize,
    demand: watch::Sender<u64>,
}

impl Ring {
    pub(crate) fn new(track: TrackId, demand: watch::Sender<u64>) -> Self {
        Self {
            track,
            state: Mutex::default(),
            head: watch::Sender::new(0),
            info: watch::Sender::new(None),
            users: AtomicUsize::new(0),
            demand,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn track(&self) -> TrackId {
        self.track
    }

    pub(crate) fn users(&self) -> usize {
        self.users.load(Ordering::Acquire)
    }

    pub(crate) fn info(&self) -> Option<Arc<TrackInfo>> {
        self.info.borrow().clone()
    }

    /// Sets the track's parameters; equal ones change nothing. Returns the parameters in force.
    pub(crate) fn set_info(&self, info: TrackInfo) -> Arc<TrackInfo> {
        if let Some(old) = self.info().filter(|old| old.is_same_format(&info)) {
            return old;
        }
        let generation = self.info().map_or(0, |old| old.generation + 1);
        let info = Arc::new(TrackInfo { generation, ..info });
        self.info.send_replace(Some(Arc::clone(&info)));
        info
    }

    pub(crate) fn set_unavailable(&self, reason: Option<&'static str>) {
        self.lock().unavailable = reason;
        self.head.send_modify(|_| ());
    }

    pub(crate) fn unavailable(&self) -> Option<&'static str> {
        self.lock().unavailable
    }

    /// Appends a frame; one that does not advance `dts` is refused with `false`.
    pub(crate) fn push(&self, frame: Arc<Frame>) -> bool {
        frame.arrived.get_or_init(Instant::now);
        let head = {
            let mut state = self.lock();
            let is_late = state.groups.last.is_some_and(|last| frame.dts <= last);
            if state.is_ended || is_late {
                return false;
            }
            note(&mut state, &frame);
            if frame.is_key {
                let seq = state.head();
                state.keys.push_back(seq);
            }
            state.bytes += frame.payload.len();
            state.frames.push_back(frame);
            self.evict(&mut state);
            state.head()
        };
        self.head.send_replace(head);
        true
    }

    fn evict(&self, state: &mut State) {
        let (frames_max, bytes_max) = match self.track.kind() {
            Kind::Video => (VIDEO_FRAMES_MAX, VIDEO_BYTES_MAX),
            Kind::Audio => (AUDIO_FRAMES_MAX, AUDIO_BYTES_MAX),
        };
        let is_over = |state: &State| {
            let (Some(first), Some(last)) = (state.frames.front(), state.frames.back()) else {
                return false;
            };
            let span = last.dts.saturating_since(first.dts);
            state.frames.len() > frames_max || state.bytes > bytes_max || span > RING_SPAN
        };
        while state.frames.len() > 1 && is_over(state) {
            // A picture without its keyframe is of no use: the oldest group leaves as a whole,
            // unless it is the only one.
            let next_key = state.keys.iter().copied().find(|&k| k > state.first);
            let until = match (self.track.kind(), next_key) {
                (Kind::Video, Some(key)) => key,
                _ => state.first + 1,
            };
            while state.first < until {
                state.pop();
            }
        }
    }

    pub(crate) fn close(&self) {
        self.lock().is_ended = true;
        // Sends even if the number is the same, so that sleepers look at the flag.
        self.head.send_modify(|_| ());
        self.info.send_modify(|_| ());
    }

    /// Decode time of the newest frame, also when it is no longer held.
    pub(crate) fn newest_dts(&self) -> Option<MediaTime> {
        self.lock().groups.last
    }

    pub(crate) fn request_keyframe(&self) {
        self.lock().keyframe_wanted = true;
    }

    pub(crate) fn request_keyframe_from(&self, t: MediaTime) {
        let mut state = self.lock();
        state.keyframe_wanted_from = state.keyframe_wanted_from.max(Some(t));
    }

    /// Whether the picture at `t` must be a keyframe because a reader asked.
    pub(crate) fn take_keyframe_request(&self, now: Instant, t: MediaTime) -> bool {
        let mut state = self.lock();
        let is_due = state
            .keyframe_given
            .is_none_or(|t| now - t >= KEYFRAME_INTERVAL_MIN);
        if !state.wants_keyframe(t) || !is_due {
            return false;
        }
        state.answer_keyframe(t);
        state.keyframe_given = Some(now);
        true
    }

    pub(crate) fn wants_keyframe(&self, t: MediaTime) -> bool {
        self.lock().wants_keyframe(t)
    }

    pub(crate) fn answer_keyframe(&self, t: MediaTime) {
        self.lock().answer_keyframe(t);
    }

    /// Bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The largest distance between keyframes so far, counting the one still open.
    pub(crate) fn gop(&self) -> Duration {
        self.lock().groups.span()
    }

    /// Forgets the frames held; `dts` goes on to increase.
    pub(crate) fn clear(&self) {
        let mut state = self.lock();
        state.begin = None;
        while !state.frames.is_empty() {
            state.pop();
        }
    }

    pub(crate) fn facts(&self) -> Facts {
        let state = self.lock();
        let (Some(first), Some(last)) = (state.frames.front(), state.frames.back()) else {
            return Facts::default();
        };
        let span = last.dts.saturating_since(first.dts);
        let bits = 8 * state.bytes as u64;
        let bitrate_bps = bits
            .saturating_mul(1_000)
            .checked_div(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
            .unwrap_or(0);
        Facts {
            has_reordering: state.has_reordering,
            gop: state.groups.span(),
            frame_rate: frame_rate(&state.frames),
            bitrate_bps,
            span,
        }
    }

    /// A cursor at `from`, where the converter shall begin if this makes it start.
    pub(crate) fn cursor_from(self: &Arc<Self>, from: MediaTime) -> Cursor {
        self.open_cursor(Start::At(from), Some(from))
    }

    fn take_begin(&self) -> Option<MediaTime> {
        let mut state = self.lock();
        let last = state.groups.last;
        // What was written is not written again.
        state.begin.take().filter(|begin| last < Some(*begin))
    }

    pub(crate) fn cursor(self: &Arc<Self>, start: Start) -> Cursor {
        self.open_cursor(start, None)
    }

    fn open_cursor(self: &Arc<Self>, start: Start, begin: Option<MediaTime>) -> Cursor {
        let is_first = self.users.fetch_add(1, Ordering::AcqRel) == 0;
        if let Some(from) = begin {
            let mut state = self.lock();
            state.begin = Some(state.begin.map_or(from, |begin| begin.min(from)));
        }
        if is_first && self.track.is_made() {
            self.demand.send_modify(|n| *n += 1);
        }
        let live_from = self.lock().head();
        Cursor {
            ring: Arc::clone(self),
            head: self.head.subscribe(),
            info: self.info.subscribe(),
            place: Place::Unset(start),
            live_from,
            passed: 0,
            is_drained: false,
        }
    }
}

/// Keeps what [`Facts`] needs beyond the frames held.
fn note(state: &mut State, frame: &Frame) {
    let is_new = state.groups.note(frame);
    state.has_reordering = frame.pts != frame.dts || state.has_reordering && !is_new;
}

#[derive(Clone, Copy, Debug)]
enum Place {
    /// Not yet found.
    Unset(Start),
    /// The next frame to look at.
    At { seq: u64, must_be_key: bool },
}

/// One reader's place in one ring. For a made track it is also the demand for it.
#[derive(Debug)]
pub struct Cursor {
    ring: Arc<Ring>,
    head: watch::Receiver<u64>,
    info: watch::Receiver<Option<Arc<TrackInfo>>>,
    place: Place,
    live_from: u64,
    passed: u32,
    /// Nothing to read until something is written: known without a look at the ring.
    is_drained: bool,
}

impl Cursor {
    /// The track it reads.
    pub fn track(&self) -> TrackId {
        self.ring.track()
    }

    /// The parameters of the track, once known.
    pub fn info(&self) -> Option<Arc<TrackInfo>> {
        self.ring.info()
    }

    /// Waits for the parameters of the track.
    ///
    /// # Errors
    /// [`Ended`] when the track ends before it has any.
    pub async fn wait_info(&mut self) -> Result<Arc<TrackInfo>, Ended> {
        loop {
            if let Some(info) = self.info.borrow_and_update().clone() {
                return Ok(info);
            }
            if self.ring.lock().is_ended {
                return Err(Ended);
            }
            self.info.changed().await.map_err(|_closed| Ended)?;
        }
    }

    /// Why the track cannot be made, if it cannot.
    pub fn unavailable(&self) -> Option<&'static str> {
        self.ring.unavailable()
    }

    /// Decode time of the newest frame in the ring.
    pub fn newest_dts(&self) -> Option<MediaTime> {
        self.ring.newest_dts()
    }

    /// Decode time of the newest keyframe in the ring.
    pub fn newest_key_dts(&self) -> Option<MediaTime> {
        let state = self.ring.lock();
        let key = *state.keys.back()?;
        state.frame(key).map(|f| f.dts)
    }

    /// The keyframe at which [`Start::Before`] begins.
    pub(crate) fn key_before(&self, t: MediaTime) -> Option<Arc<Frame>> {
        let state = self.ring.lock();
        state
            .key_before(t)
            .and_then(|key| state.frame(key).cloned())
    }

    /// Frames held from this decode time on.
    pub(crate) fn count_from(&self, t: MediaTime) -> usize {
        let state = self.ring.lock();
        state.frames.len() - state.frames.partition_point(|f| f.dts < t)
    }

    /// Asks the encoder of a made track for a keyframe.
    pub fn request_keyframe(&self) {
        self.ring.request_keyframe();
    }

    /// Asks the encoder of a made track for a keyframe at or after `t`.
    pub fn request_keyframe_from(&self, t: MediaTime) {
        self.ring.request_keyframe_from(t);
    }

    /// The largest distance between keyframes so far, counting the one still open.
    pub fn gop(&self) -> Duration {
        self.ring.gop()
    }

    /// True once a frame was seen whose presentation is not its decode time.
    pub fn has_reordering(&self) -> bool {
        self.ring.lock().has_reordering
    }

    /// What can be measured of the track.
    pub fn facts(&self) -> Facts {
        self.ring.facts()
    }

    /// The next frame, if it is there already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        if self.is_drained && !self.head.has_changed().unwrap_or(true) {
            return None;
        }
        let ring = Arc::clone(&self.ring);
        let state = ring.lock();
        self.head.mark_unchanged();
        self.is_drained = !state.is_ended;
        let is_video = self.ring.track.kind() == Kind::Video;
        let (mut seq, mut must_be_key) = match self.place {
            Place::Unset(start) => (self.find(&state, start)?, is_video),
            Place::At { seq, must_be_key } => (seq, must_be_key),
        };
        if seq < state.first {
            // Overtaken by the writer: all that is left of use starts at the newest keyframe.
            let to = state
                .keys
                .back()
                .copied()
                .unwrap_or(state.first)
                .max(state.first);
            self.passed = self
                .passed
                .saturating_add(u32::try_from(to - seq).unwrap_or(u32::MAX));
            (seq, must_be_key) = (to, is_video);
        }
        while let Some(frame) = state.frame(seq) {
            seq += 1;
            if must_be_key && !frame.is_key {
                self.passed = self.passed.saturating_add(1);
                continue;
            }
            self.place = Place::At {
                seq,
                must_be_key: false,
            };
            let skipped = std::mem::take(&mut self.passed);
            self.is_drained = seq >= state.head() && !state.is_ended;
            return Some(Delivery {
                frame: Arc::clone(frame),
                skipped,
                newest: state.frames.back().map_or(frame.dts, |last| last.dts),
            });
        }
        self.place = Place::At { seq, must_be_key };
        None
    }

    fn find(&self, state: &State, start: Start) -> Option<u64> {
        match start {
            Start::NewestKey => state.keys.back().copied(),
            Start::OldestKey => state.keys.front().copied(),
            Start::Live => Some(self.live_from),
            Start::Before(t) => state.key_before(t),
            Start::At(t) => {
                let at = state.frames.partition_point(|f| f.dts < t);
                (at < state.frames.len()).then(|| state.first + at as u64)
            }
        }
    }

    /// Waits until [`Cursor::try_next`] may give something. Cancel-safe.
    ///
    /// # Errors
    /// [`Ended`] when the track is over and all of it was read.
    pub async fn ready(&mut self) -> Result<(), Ended> {
        let is_known = self.is_drained && !self.head.has_changed().unwrap_or(true);
        if !is_known && self.has_more()? {
            return Ok(());
        }
        self.head.changed().await.map_err(|_closed| Ended)?;
        self.is_drained = false;
        Ok(())
    }

    /// Waits until [`Cursor::try_next`] may give something, or the track cannot be made: then it
    /// returns at once until the caller lets go of the cursor. Cancel-safe.
    ///
    /// # Errors
    /// [`Ended`] when the track is over and all of it was read.
    pub async fn ready_or_unavailable(&mut self) -> Result<(), Ended> {
        if self.unavailable().is_some() {
            return Ok(());
        }
        // Also woken when the track becomes unavailable.
        self.ready().await
    }

    /// Whether there is something to read.
    fn has_more(&mut self) -> Result<bool, Ended> {
        let state = self.ring.lock();
        self.head.mark_unchanged();
        let has_more = match self.place {
            Place::Unset(start) => self.find(&state, start).is_some(),
            Place::At { seq, .. } => seq < state.head(),
        };
        if !has_more && state.is_ended {
            return Err(Ended);
        }
        self.is_drained = !has_more && !state.is_ended;
        Ok(has_more)
    }

    /// The next frame; waits for it. Cancel-safe.
    ///
    /// # Errors
    /// [`Ended`] when the track is over and all of it was read.
    pub async fn next(&mut self) -> Result<Delivery, Ended> {
        loop {
            if let Some(delivery) = self.try_next() {
                return Ok(delivery);
            }
            self.ready().await?;
        }
    }

    /// Jumps forward to the newest keyframe, if it lies ahead. The frames passed over are added
    /// to the next delivery's `skipped`; returns their number.
    pub fn jump_to_newest_key(&mut self) -> u32 {
        let ring = Arc::clone(&self.ring);
        let state = ring.lock();
        let Some(&key) = state.keys.back() else {
            return 0;
        };
        let Place::At { seq, .. } = self.place else {
            return 0;
        };
        if key <= seq {
            return 0;
        }
        let skipped = u32::try_from(key - seq).unwrap_or(u32::MAX);
        self.passed = self.passed.saturating_add(skipped);
        self.place = Place::At {
            seq: key,
            must_be_key: true,
        };
        skipped
    }

    /// Jumps forward to the first frame at or after `t`; returns the number passed over.
    pub fn jump_to(&mut self, t: MediaTime) -> u32 {
        let ring = Arc::clone(&self.ring);
        let state = ring.lock();
        self.is_drained = false;
        let Place::At { seq, .. } = self.place else {
            self.place = Place::Unset(Start::At(t));
            return 0;
        };
        let to = state.first + state.frames.partition_point(|f| f.dts < t) as u64;
        if to <= seq {
            return 0;
        }
        let skipped = u32::try_from(to - seq).unwrap_or(u32::MAX);
        self.passed = self.passed.saturating_add(skipped);
        self.place = Place::At {
            seq: to,
            must_be_key: self.ring.track.kind() == Kind::Video,
        };
        skipped
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if self.ring.users.fetch_sub(1, Ordering::AcqRel) == 1 && self.ring.track.is_made() {
            self.ring.demand.send_modify(|n| *n += 1);
        }
    }
}

/// Where a converter writes the track it makes.
#[derive(Clone, Debug)]
pub struct TrackWriter {
    pub(crate) ring: Arc<Ring>,
}

impl TrackWriter {
    /// The track it writes.
    pub fn track(&self) -> TrackId {
        self.ring.track()
    }

    /// Sets the parameters of the frames to come; equal ones change nothing. Returns those in
    /// force, with their generation.
    pub fn set_info(&self, info: TrackInfo) -> Arc<TrackInfo> {
        self.ring.set_info(info)
    }

    /// Appends a frame; `false` when it is not newer than the last, or the track has ended.
    pub fn write(&self, frame: Frame) -> bool {
        self.ring.push(Arc::new(frame))
    }

    /// True when the next frame must be a keyframe because a viewer asked; at most twice a second.
    pub fn take_keyframe_request(&self, now: Instant) -> bool {
        self.take_keyframe_request_at(now, MediaTime::MAX)
    }

    /// The same for a frame of a known time, which also answers who wants one at or after it.
    pub fn take_keyframe_request_at(&self, now: Instant, t: MediaTime) -> bool {
        self.ring.take_keyframe_request(now, t)
    }

    /// Whether somebody waits for a keyframe that the picture at `t` could be.
    pub fn wants_keyframe(&self, t: MediaTime) -> bool {
        self.ring.wants_keyframe(t)
    }

    /// The picture at `t` becomes a keyframe: who waited for one has it.
    pub fn answer_keyframe(&self, t: MediaTime) {
        self.ring.answer_keyframe(t);
    }

    /// Forgets the frames of a track that is no longer made, so that nobody starts at them.
    pub fn clear(&self) {
        self.ring.clear();
    }

    /// The largest distance between keyframes so far, counting the one still open.
    pub fn gop(&self) -> Duration {
        self.ring.gop()
    }

    /// Where a converter that starts now shall begin, if a reader said so.
    pub(crate) fn take_begin(&self) -> Option<MediaTime> {
        self.ring.take_begin()
    }

    /// Says why the track cannot be made, or that it can again.
    pub fn set_unavailable(&self, reason: Option<&'static str>) {
        self.ring.set_unavailable(reason);
    }

    /// How many cursors read the track.
    pub fn users(&self) -> usize {
        self.ring.users()
    }

    /// Decode time of the newest frame written.
    pub fn newest_dts(&self) -> Option<MediaTime> {
        self.ring.newest_dts()
    }
}
