//! The threads of made pictures: one decoder of the source, and beside it an encoder for each
//! track that is wanted (spec media.md 5.2).
//!
//! Dropping [`Lanes`] lets all threads end, dropping an [`Encoding`] that of its encoder.
//!
//! Invariants
//! - A picture is decoded once, whatever the number of tracks made of it (I16).
//! - Which pictures become keyframes is decided before the encoders, so that all tracks have theirs
//!   at equal T (I17); the first picture of a track is one (I31).
//! - One decoder means one place in the source. A track that shall begin behind it takes the
//!   decoder back: the source is decoded a second time from there, the others are not given what
//!   they had, and keyframes fall where they fell the first time.
//! - An encoder that is too slow loses pictures of its own track and delays no other: while a burst
//!   is made up for, only those are waited for that are faster than their pictures come.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use ffmpeg_next::util::frame::Video;
use tokio::time::Instant;

use super::decoder::VideoDecoder;
use super::encoder::Encoded;
use super::video::{KeyGrid, PictureEncoder, PictureError, Target, Thinner};
use super::worker::{FRAMES_MAX, Output, Refused, Signals};
use super::{ConvertConfig, ffi};
use crate::broadcast::{Broadcast, Making, TrackWriter};
use crate::frame::{Frame, TrackId, TrackInfo};
use crate::time::MediaTime;

/// Pictures that wait for an encoder. At the bound the decoder waits a while, then the newest is
/// dropped.
const PICTURES_MAX: usize = 4;
/// A picture this close to the source's newest frame has caught up with it.
const CAUGHT_UP_US: i64 = 200_000;
/// A publisher's burst may put the decoder this far behind without loss; the ring keeps the rest.
const BEHIND_MAX_US: i64 = 1_000_000;
/// An encoder keeps up that needs at most this part of the time between two pictures.
const KEEPS_UP_PERCENT: i64 = 90;
/// Pictures farther apart say nothing about their rate.
const STEP_MAX_US: i64 = 1_000_000;
/// So long it is known where keyframes were: at least as long as the source's ring reaches.
const KEYS_KEPT_US: i64 = 20_000_000;
/// Keyframes that somebody asked for are at least this far apart (I32).
const FORCED_EVERY: Duration = Duration::from_millis(500);

/// What the decoder is given.
#[derive(Debug)]
enum Work {
    Frame(Arc<Frame>),
    /// Some encoder came or went.
    Look,
}

/// Lanes that the decoder has not yet taken over.
type Arrivals = Arc<Mutex<Vec<Lane>>>;

/// The input of a running decoder.
#[derive(Debug)]
pub(super) struct Lanes {
    broadcast: Arc<Broadcast>,
    config: Arc<ConvertConfig>,
    input: SyncSender<Work>,
    arrivals: Arrivals,
    /// Pictures decoded.
    pub(super) decoded: Arc<AtomicU64>,
    /// Microseconds that the decoder needs for a frame.
    pub(super) decode_us: Arc<AtomicU64>,
    /// Set when the source can never be decoded.
    pub(super) hopeless: Arc<OnceLock<&'static str>>,
}

impl Lanes {
    /// Starts the decoder.
    pub(super) fn start(
        broadcast: &Arc<Broadcast>,
        config: &Arc<ConvertConfig>,
    ) -> std::io::Result<Self> {
        let (input, work) = sync_channel(FRAMES_MAX);
        let lanes = Self {
            broadcast: Arc::clone(broadcast),
            config: Arc::clone(config),
            input,
            arrivals: Arc::default(),
            decoded: Arc::default(),
            decode_us: Arc::default(),
            hopeless: Arc::default(),
        };
        let decoding = Decoding {
            lanes: Vec::new(),
            arrivals: Arc::clone(&lanes.arrivals),
            decoded: Arc::clone(&lanes.decoded),
            decode_us: Arc::clone(&lanes.decode_us),
            hopeless: Arc::clone(&lanes.hopeless),
            taken: None,
            passed: i64::MIN,
            keys: VecDeque::new(),
            grid: KeyGrid::new(config.gop),
            is_key_due: false,
            forced: None,
            behind_max_us: None,
            discontinuities: 0,
            source: broadcast.made(TrackId::Video),
            clean_lines_max: broadcast.clean_lines_max(),
            broadcast: Arc::clone(broadcast),
        };
        let thread = Builder::new().name("decode".into());
        thread.spawn(move || decoding.run(&work))?;
        Ok(lanes)
    }

    /// Hands a frame to the decoder without waiting.
    pub(super) fn offer(&self, frame: Arc<Frame>) -> Result<(), Refused<Arc<Frame>>> {
        match self.input.try_send(Work::Frame(frame)) {
            Err(TrySendError::Full(Work::Frame(frame))) => Err(Refused::Full(frame)),
            Err(TrySendError::Disconnected(_)) => Err(Refused::Gone),
            Ok(()) | Err(TrySendError::Full(Work::Look)) => Ok(()),
        }
    }

    /// Starts an encoder.
    pub(super) fn add(&self, making: Making, begin: Begin) -> std::io::Result<Encoding> {
        let track = making.job().track();
        let target = match self.broadcast.ladder().of_track(track) {
            Some(rung) => Target::Rung(rung),
            None => Target::Clean {
                lines_max: self.config.clean_height_max,
            },
        };
        let out = Output::new(&self.broadcast, making);
        let (pictures, due) = sync_channel(PICTURES_MAX);
        let written = out.writer.newest_dts().map(MediaTime::as_micros);
        let (from, is_back) = match begin {
            Begin::Next => (None, true),
            Begin::At(t) => (Some(t), true),
            Begin::Again(t) => (Some(t), false),
        };
        let before = from.map(|from| from.as_micros() - 1);
        let lane = Lane {
            pictures,
            after: written.max(before).unwrap_or(i64::MIN),
            writer: out.writer.clone(),
            signals: Arc::clone(&out.signals),
            thinner: target.thinner(),
            is_back,
            has_begun: false,
            misses_key: false,
            step_us: 0,
        };
        let encoding = Encoding {
            track,
            signals: Arc::clone(&out.signals),
            input: self.input.clone(),
        };
        let config = Arc::clone(&self.config);
        let thread = Builder::new().name(format!("encode-{track}"));
        thread.spawn(move || encode(&due, (&out, target), &config))?;
        lock(&self.arrivals).push(lane);
        encoding.look();
        Ok(encoding)
    }
}

/// What an encoder that starts is given first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// What is decoded next.
    Next,
    /// The picture at this T, which the decoder has still to come to.
    At(MediaTime),
    /// The picture at this T, once the decoder has gone back.
    Again(MediaTime),
}

/// A running encoder.
#[derive(Debug)]
pub(super) struct Encoding {
    pub(super) track: TrackId,
    pub(super) signals: Arc<Signals>,
    input: SyncSender<Work>,
}

impl Encoding {
    /// Lets the decoder see that something changed. Where its queue is full it looks anyway.
    fn look(&self) {
        let _ = self.input.try_send(Work::Look);
    }
}

impl Drop for Encoding {
    fn drop(&mut self) {
        self.signals.end();
        self.look();
        let dropped = self.signals.making.job().dropped();
        if dropped > 0 {
            let track = self.track;
            tracing::warn!(dropped, %track, "pictures left out: the encoder is slow");
        }
    }
}

fn lock(arrivals: &Mutex<Vec<Lane>>) -> MutexGuard<'_, Vec<Lane>> {
    arrivals.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Picture {
    t: i64,
    is_key: bool,
    discontinuities: u32,
    /// Lines that `clean` may have.
    clean_lines_max: u32,
    picture: Video,
}

/// The decoder's side of an encoder.
#[derive(Debug)]
struct Lane {
    pictures: SyncSender<Picture>,
    /// Pictures up to this T stand in the ring already, or were given.
    after: i64,
    writer: TrackWriter,
    signals: Arc<Signals>,
    thinner: Thinner,
    /// False while the decoder has yet to go back for it.
    is_back: bool,
    /// True once it was given its first keyframe.
    has_begun: bool,
    /// A keyframe was dropped, and none was taken since.
    misses_key: bool,
    /// Mean distance of the pictures given.
    step_us: i64,
}

/// Whether the decoder waits for an encoder whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// It is too far behind: the picture is dropped.
    Never,
    /// Others wait with it: only for one that is faster than its pictures come.
    Patiently,
    /// There is no other.
    Always,
}

/// What became of a picture: taken or dropped, or nobody is there to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handed {
    Taken,
    Gone,
}

impl Lane {
    /// Whether the picture at `t` should be a keyframe for this track's sake.
    fn wants_key(&self, t: i64) -> bool {
        let is_lacking = self.misses_key || !self.has_begun;
        self.is_back
            && t > self.after
            && (is_lacking || self.writer.wants_keyframe(MediaTime::from_micros(t)))
    }

    /// Whether the encoder is faster than its pictures come, as far as that is known.
    fn keeps_up(&self) -> bool {
        let effort_us = self.signals.effort_us.load(Ordering::Relaxed);
        let effort_us = i64::try_from(effort_us).unwrap_or(i64::MAX);
        effort_us.saturating_mul(100) <= self.step_us * KEEPS_UP_PERCENT || self.step_us == 0
    }

    fn note_step(&mut self, t: i64) {
        let step_us = t.saturating_sub(self.after).min(STEP_MAX_US);
        if self.has_begun {
            self.step_us = match self.step_us {
                0 => step_us,
                mean => mean + (step_us - mean) / 8,
            };
        }
    }

    fn hand(&mut self, picture: Picture, wait: Wait) -> Handed {
        let (t, is_key) = (picture.t, picture.is_key);
        let is_wanted = self.is_back && t > self.after && (self.has_begun || is_key);
        if !is_wanted || !self.thinner.keeps(t, is_key) {
            return Handed::Taken;
        }
        let may_wait = match wait {
            Wait::Never => false,
            Wait::Patiently => self.keeps_up(),
            Wait::Always => true,
        };
        let sent = match self.pictures.try_send(picture) {
            Err(TrySendError::Full(picture)) if may_wait => self
                .pictures
                .send(picture)
                .map_err(|gone| TrySendError::Disconnected(gone.0)),
            other => other,
        };
        match sent {
            Ok(()) => {
                self.note_step(t);
                (self.after, self.has_begun) = (t, true);
                self.misses_key &= !is_key;
                Handed::Taken
            }
            Err(TrySendError::Full(_)) => {
                self.misses_key |= is_key;
                self.signals.making.count_dropped();
                Handed::Taken
            }
            Err(TrySendError::Disconnected(_)) => Handed::Gone,
        }
    }
}

struct Decoding {
    lanes: Vec<Lane>,
    arrivals: Arrivals,
    decoded: Arc<AtomicU64>,
    decode_us: Arc<AtomicU64>,
    hopeless: Arc<OnceLock<&'static str>>,
    /// Decode time of the newest frame taken.
    taken: Option<MediaTime>,
    /// T of the newest picture passed on; what is older is seen a second time.
    passed: i64,
    /// T of the keyframes among those passed on.
    keys: VecDeque<i64>,
    grid: KeyGrid,
    /// The next picture becomes a keyframe.
    is_key_due: bool,
    /// When a keyframe was last made because somebody asked.
    forced: Option<Instant>,
    /// How far behind the source it may be before encoders are no longer waited for: while the
    /// start of a group is made up for, as far as it began, and a second.
    behind_max_us: Option<i64>,
    discontinuities: u32,
    /// What can be measured of the source.
    source: TrackWriter,
    broadcast: Arc<Broadcast>,
    /// Lines that `clean` may have.
    clean_lines_max: u32,
}

impl Decoding {
    fn run(mut self, work: &Receiver<Work>) {
        let mut open: Option<(Arc<TrackInfo>, VideoDecoder)> = None;
        while let Ok(work) = work.recv() {
            self.look();
            let Work::Frame(frame) = work else { continue };
            let is_same = open
                .as_ref()
                .is_some_and(|(info, _)| info.is_same_format(&frame.info));
            let is_jump = frame.discontinuities != self.discontinuities;
            let is_again = self.taken.replace(frame.dts) >= Some(frame.dts);
            if !is_same || is_jump || is_again {
                let left = open.as_mut().map(|(_, decoder)| decoder.finish());
                // What is decoded again comes again, and then in whole.
                let left = left.filter(|_| !is_again);
                self.pass_on(left.unwrap_or_default());
                self.discontinuities = frame.discontinuities;
            }
            if is_again {
                self.behind_max_us = None;
                self.lanes.iter_mut().for_each(|lane| lane.is_back = true);
            }
            if !is_same {
                // Encoders that have to change their size begin with a keyframe: so do the others.
                self.is_key_due = true;
                open = match VideoDecoder::open(&frame.info) {
                    Ok(decoder) => Some((Arc::clone(&frame.info), decoder)),
                    Err(error) => {
                        tracing::warn!(%error, "the source picture cannot be decoded");
                        // The first reason is the one that counts.
                        let _ = self.hopeless.set("no_decoder");
                        return;
                    }
                };
            }
            if let Some((_, decoder)) = &mut open {
                let began = Instant::now();
                let pictures = decoder.decode(&frame);
                self.note_effort(began.elapsed());
                self.pass_on(pictures);
            }
        }
    }

    /// A running mean over some sixteen frames, in which one that was interrupted counts little.
    fn note_effort(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mean = self.decode_us.load(Ordering::Relaxed);
        let mean = match mean {
            0 => us,
            mean => mean - mean / 16 + us.min(2 * mean) / 16,
        };
        self.decode_us.store(mean, Ordering::Relaxed);
    }

    /// Takes over encoders that came and lets go of those that went.
    fn look(&mut self) {
        self.lanes.append(&mut lock(&self.arrivals));
        self.lanes.retain(|lane| !lane.signals.is_over());
    }

    fn pass_on(&mut self, pictures: Vec<(i64, Video)>) {
        for (t, picture) in pictures {
            self.decoded.fetch_add(1, Ordering::Relaxed);
            self.pass_on_one(Instant::now(), t, &picture);
        }
    }

    fn pass_on_one(&mut self, now: Instant, t: i64, picture: &Video) {
        let lines_max = self.broadcast.clean_lines_max();
        // Another size begins with a keyframe, and where one track has one all have.
        self.is_key_due |= std::mem::replace(&mut self.clean_lines_max, lines_max) != lines_max;
        let is_key = self.is_key(now, t, picture);
        let newest = self.source.newest_dts();
        let behind_us = newest.map_or(0, |n| n.as_micros() - t);
        let behind_max_us = self.behind_max_us.get_or_insert(behind_us + BEHIND_MAX_US);
        if behind_us < CAUGHT_UP_US {
            *behind_max_us = BEHIND_MAX_US;
        }
        let wait = match self.lanes.len() {
            _ if behind_us >= *behind_max_us => Wait::Never,
            1 => Wait::Always,
            _ => Wait::Patiently,
        };
        let (discontinuities, clean_lines_max) = (self.discontinuities, self.clean_lines_max);
        self.lanes.retain_mut(|lane| {
            // Without memory for a handle there is none for anything else.
            let Some(picture) = ffi::share(picture) else {
                return true;
            };
            let picture = Picture {
                t,
                is_key,
                discontinuities,
                clean_lines_max,
                picture,
            };
            lane.hand(picture, wait) != Handed::Gone
        });
        if is_key {
            let t = MediaTime::from_micros(t);
            self.lanes.iter().for_each(|l| l.writer.answer_keyframe(t));
        }
    }

    /// Whether the picture at `t` becomes a keyframe, of all tracks.
    fn is_key(&mut self, now: Instant, t: i64, picture: &Video) -> bool {
        if t <= self.passed {
            return self.keys.contains(&t);
        }
        self.passed = t;
        let is_key = self.is_new_key(now, t, picture);
        if is_key {
            self.keys.push_back(t);
        }
        while self.keys.front().is_some_and(|key| t - key > KEYS_KEPT_US) {
            self.keys.pop_front();
        }
        is_key
    }

    fn is_new_key(&mut self, now: Instant, t: i64, picture: &Video) -> bool {
        let gop = self.source.gop();
        let is_due = self.grid.is_key(t, ffi::is_key(picture), gop);
        let is_due = std::mem::take(&mut self.is_key_due) || is_due;
        // Who is alone with a keyframe that it missed gets it at once.
        let is_missed = self.lanes.len() == 1 && self.lanes.iter().any(|lane| lane.misses_key);
        let is_over = self.forced.is_none_or(|at| now - at >= FORCED_EVERY);
        let may_force = is_over || is_missed;
        let is_asked = may_force && self.lanes.iter().any(|lane| lane.wants_key(t));
        if is_asked && !is_due {
            self.forced = Some(now);
        }
        is_due || is_asked
    }
}

fn encode(pictures: &Receiver<Picture>, (out, target): (&Output, Target), config: &ConvertConfig) {
    let mut encoder = PictureEncoder::new(config.encoders(), target, out.broadcast.ladder());
    #[cfg(test)]
    encoder.strike_with(config.fault(out.writer.track()));
    while let Ok(picture) = pictures.recv() {
        let facts = || out.broadcast.facts(TrackId::Video);
        let (began, opened) = (Instant::now(), encoder.opened());
        encoder.limit_clean(picture.clean_lines_max);
        match encoder.encode((picture.t, picture.picture), picture.is_key, facts) {
            Ok(made) => {
                out.signals.making.name(encoder.name());
                // One that is opened takes longer, once.
                if encoder.opened() == opened {
                    out.signals.note_effort(began.elapsed());
                }
                write(made, &encoder, out, picture.discontinuities);
            }
            Err(PictureError::NoEncoder(error)) => {
                tracing::error!(%error, "viewers who need a re-encoded picture get none");
                out.give_up("no_encoder");
                return;
            }
            Err(error @ PictureError::Codec(_)) => {
                tracing::debug!(%error, t = picture.t, "skipped a picture");
            }
        }
    }
}

fn write(made: Vec<Encoded>, encoder: &PictureEncoder<'_>, out: &Output, discontinuities: u32) {
    let Some(info) = encoder.info() else {
        return;
    };
    let info = out.writer.set_info(info.clone());
    for unit in made {
        let t = MediaTime::from_micros(unit.pts);
        out.write(Frame {
            track: out.writer.track(),
            info: Arc::clone(&info),
            dts: t,
            pts: t,
            duration: None,
            is_key: unit.is_key,
            is_discardable: false,
            discontinuities,
            payload: unit.payload,
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        });
    }
}
