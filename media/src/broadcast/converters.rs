//! The converters of this process: how many encoders of pictures there may be at once, what each of
//! them does, and what a broadcast goes without while the node is overloaded.
//!
//! Invariants
//! - A track that is made has a [`Making`], from before its first thread starts until its last has
//!   ended.
//! - At most [`Converters::encoders_max`] encode pictures; one more is refused, with a reason.
//!
//! Not here: the threads ([`crate::transcode`]); who decides that there is too much to do
//! ([`crate::transcode::overload`]).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use super::{Broadcast, Event};
use crate::frame::{Kind, TrackId};

/// Encoders of pictures for each core.
const ENCODERS_PER_CORE: usize = 2;

/// As many encoders of pictures as this machine is trusted with.
pub fn encoders_max_default() -> usize {
    let cores = std::thread::available_parallelism();
    ENCODERS_PER_CORE * cores.map_or(1, std::num::NonZero::get)
}

/// There are as many encoders as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this node makes as many pictures as it may")]
pub struct TooManyEncoders;

/// The tracks that are made in this process.
#[derive(Debug)]
pub struct Converters {
    encoders_max: AtomicUsize,
    jobs: Mutex<Vec<Arc<Job>>>,
    last: AtomicU64,
}

impl Converters {
    pub(super) fn new(encoders_max: usize) -> Self {
        Self {
            encoders_max: AtomicUsize::new(encoders_max),
            jobs: Mutex::default(),
            last: AtomicU64::new(0),
        }
    }

    /// Bounds them anew; those beyond a lower bound go on.
    pub(super) fn set_encoders_max(&self, encoders_max: usize) {
        self.encoders_max.store(encoders_max, Ordering::Relaxed);
    }

    /// Encoders of pictures there may be at once.
    pub fn encoders_max(&self) -> usize {
        self.encoders_max.load(Ordering::Relaxed)
    }

    /// What is made now.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        self.lock().clone()
    }

    fn begin(
        &self,
        broadcast: &Arc<Broadcast>,
        track: TrackId,
    ) -> Result<Arc<Job>, TooManyEncoders> {
        let mut jobs = self.lock();
        let encoders = jobs.iter().filter(|job| job.track.kind() == Kind::Video);
        if track.kind() == Kind::Video && encoders.count() >= self.encoders_max() {
            return Err(TooManyEncoders);
        }
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let job = Arc::new(Job::new(broadcast, track, number));
        jobs.push(Arc::clone(&job));
        Ok(job)
    }

    fn end(&self, job: &Arc<Job>) {
        self.lock().retain(|other| !Arc::ptr_eq(other, job));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One track that is made.
#[derive(Debug)]
pub struct Job {
    number: u64,
    broadcast: Weak<Broadcast>,
    track: TrackId,
    encoder: OnceLock<&'static str>,
    made: AtomicU64,
    dropped: AtomicU64,
}

impl Job {
    fn new(broadcast: &Arc<Broadcast>, track: TrackId, number: u64) -> Self {
        Self {
            number,
            broadcast: Arc::downgrade(broadcast),
            track,
            encoder: OnceLock::new(),
            made: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Tells it from every other, also of the same track.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The broadcast, if it still is.
    pub fn broadcast(&self) -> Option<Arc<Broadcast>> {
        self.broadcast.upgrade()
    }

    /// What is made.
    pub const fn track(&self) -> TrackId {
        self.track
    }

    /// FFmpeg's name of the encoder; empty before it is open.
    pub fn encoder(&self) -> &'static str {
        self.encoder.get().copied().unwrap_or_default()
    }

    /// Frames written so far.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Pictures left out so far, because the encoder was behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The right to make a track, as long as it is held.
#[derive(Debug)]
pub struct Making {
    job: Arc<Job>,
    hub: Weak<super::Broadcasts>,
}

impl Making {
    /// What is known of it.
    pub const fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// This encoder does it.
    pub fn name(&self, encoder: &'static str) {
        // One that is opened again is the same one.
        let _ = self.job.encoder.set(encoder);
    }

    /// A frame was written.
    pub fn count_made(&self) {
        self.job.made.fetch_add(1, Ordering::Relaxed);
    }

    /// A picture was left out.
    pub fn count_dropped(&self) {
        self.job.dropped.fetch_add(1, Ordering::Relaxed);
        if let Some(hub) = self.hub.upgrade() {
            hub.stats().add("converter_dropped_total", "video", 1);
        }
    }

    /// Takes a measurement of it into one of the hub's histograms.
    pub(crate) fn observe(&self, name: &'static str, took: Duration) {
        if let Some(hub) = self.hub.upgrade() {
            let kind = match self.job.track.kind() {
                Kind::Video => "video",
                Kind::Audio => "audio",
            };
            let labels = [kind, self.job.encoder()];
            hub.stats().histogram_of(name, labels).observe(took);
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(hub) = self.hub.upgrade() {
            hub.converters().end(&self.job);
        }
    }
}

/// What a broadcast goes without while the node is overloaded.
#[derive(Debug)]
pub(super) struct Shed {
    tracks: Mutex<BTreeSet<TrackId>>,
    clean_lines_max: AtomicU32,
}

impl Default for Shed {
    fn default() -> Self {
        Self {
            tracks: Mutex::default(),
            clean_lines_max: AtomicU32::new(u32::MAX),
        }
    }
}

/// A step against overload, or back (spec media.md 5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadStep {
    /// This track is not made for now.
    Shed(TrackId),
    /// It is made again when somebody wants it.
    Restored(TrackId),
    /// `clean` has at most so many lines from now on; [`u32::MAX`]: as many as the source.
    CleanLines(u32),
}

/// Why a track that was shed cannot be had.
pub const OVERLOAD: &str = "overload";

impl Broadcast {
    /// Takes a place among the converters for a track that is to be made.
    ///
    /// # Errors
    /// [`TooManyEncoders`] when there is none left.
    pub fn make(self: &Arc<Self>, track: TrackId) -> Result<Making, TooManyEncoders> {
        let hub = Weak::clone(&self.hub);
        let job = match hub.upgrade() {
            Some(hub) => hub.converters().begin(self, track)?,
            None => Arc::new(Job::new(self, track, 0)),
        };
        Ok(Making { job, hub })
    }

    /// The tracks of it that are made now.
    pub(super) fn jobs(&self) -> Vec<Arc<Job>> {
        let hub = self.hub.upgrade();
        let jobs = hub.map_or_else(Vec::new, |hub| hub.converters().jobs());
        let is_its = |job: &Arc<Job>| std::ptr::eq(job.broadcast.as_ptr(), self);
        jobs.into_iter().filter(is_its).collect()
    }

    /// Whether a track is left out while the node is overloaded.
    pub fn is_shed(&self, track: TrackId) -> bool {
        self.shed_tracks().contains(&track)
    }

    /// Lines of `clean` at most while the node is overloaded; else [`u32::MAX`].
    pub fn clean_lines_max(&self) -> u32 {
        self.shed.clean_lines_max.load(Ordering::Relaxed)
    }

    /// Leaves something out, or takes it up again; readers of the track are told.
    pub fn take_load_step(self: &Arc<Self>, step: LoadStep) {
        match step {
            LoadStep::Shed(track) => {
                self.shed_tracks().insert(track);
                self.ring(track).set_unavailable(Some(OVERLOAD));
            }
            LoadStep::Restored(track) => {
                self.shed_tracks().remove(&track);
                self.ring(track).set_unavailable(None);
            }
            LoadStep::CleanLines(lines) => {
                self.shed.clean_lines_max.store(lines, Ordering::Relaxed);
            }
        }
        // Whoever makes the track looks again.
        self.demand.send_modify(|n| *n = n.wrapping_add(1));
        if let Some(hub) = self.hub.upgrade() {
            hub.tell(Event::Overload(Arc::clone(self), step));
        }
    }

    fn shed_tracks(&self) -> MutexGuard<'_, BTreeSet<TrackId>> {
        self.shed
            .tracks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use tokio::time::Instant;

    use super::super::{BroadcastKey, Broadcasts, Limits};
    use super::*;

    #[tokio::test]
    async fn one_encoder_too_many_is_refused_until_another_has_ended() {
        let hub = Broadcasts::new(Limits {
            encoders_max: 2,
            ..Limits::default()
        });
        let (key, now) = (BroadcastKey::new("room_1"), Instant::now());
        let publisher = hub.open(key, now, OffsetDateTime::UNIX_EPOCH).unwrap();
        let broadcast = publisher.broadcast();
        let clean = broadcast.make(TrackId::Clean).unwrap();
        let _rung = broadcast.make(TrackId::Rung(480)).unwrap();
        let _sound = broadcast.make(TrackId::Opus).expect("sound costs little");
        assert_eq!(
            broadcast.make(TrackId::Rung(360)).unwrap_err(),
            TooManyEncoders
        );
        drop(clean);
        let rung = broadcast.make(TrackId::Rung(360)).unwrap();
        rung.count_dropped();
        assert_eq!(hub.stats().total("converter_dropped_total"), 1);
        let tracks: Vec<_> = hub.converters().jobs().iter().map(|j| j.track()).collect();
        assert_eq!(
            tracks,
            [TrackId::Rung(480), TrackId::Opus, TrackId::Rung(360)]
        );
    }
}
