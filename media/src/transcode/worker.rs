//! The threads of one conversion: decoder and encoder of `clean`, or the one of `opus`.
//!
//! A worker lives as long as its input: dropping the [`Worker`] lets the threads end. Inputs are
//! bounded; nobody waits for them on the runtime.
//!
//! Invariants
//! - The first picture of a worker is a keyframe after all that were made before (I31).
//! - A worker that was given up writes nothing more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use ffmpeg_next::util::frame::Video;
use tokio::time::Instant;

use super::ConvertConfig;
use super::audio::OpusConverter;
use super::decoder::VideoDecoder;
use super::encoder::Encoded;
use super::video::{CleanEncoder, CleanError, KeyGrid};
use crate::broadcast::{Broadcast, TrackWriter};
use crate::frame::{Frame, TrackId};
use crate::time::MediaTime;

/// Frames that wait for a decoder.
const FRAMES_MAX: usize = 16;
/// Pictures that wait for the encoder; at the bound the decoder waits, or drops the newest when
/// it is [`BEHIND_MAX_US`] late already.
const PICTURES_MAX: usize = 4;
/// Length of an Opus packet.
const OPUS_PACKET: Duration = Duration::from_millis(20);
/// A picture this close to the source's newest frame has caught up with it.
const CAUGHT_UP_US: i64 = 200_000;
/// A publisher's burst may put the encoder this far behind without loss; the ring keeps the rest.
const BEHIND_MAX_US: i64 = 1_000_000;

/// What the threads tell the feeder.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Frames written.
    pub(super) made: AtomicU64,
    /// Pictures dropped because the encoder was behind.
    pub(super) dropped: AtomicU64,
    /// Set when the conversion can never work as it is.
    pub(super) hopeless: OnceLock<&'static str>,
    /// True once the worker was given up: what its threads still hold is no longer wanted. Held
    /// while a frame is written, so that none slips in behind the first of the next worker.
    is_over: Mutex<bool>,
}

/// The input of running threads.
#[derive(Debug)]
pub(super) struct Worker {
    input: SyncSender<Arc<Frame>>,
    pub(super) signals: Arc<Signals>,
}

/// Why a frame was not taken.
#[derive(Debug)]
pub(super) enum Refused {
    /// The queue is full: offer it again.
    Full(Arc<Frame>),
    /// The threads have ended.
    Gone,
}

impl Worker {
    /// Starts the threads that make `track`.
    pub(super) fn start(
        broadcast: &Arc<Broadcast>,
        track: TrackId,
        config: &Arc<ConvertConfig>,
    ) -> std::io::Result<Self> {
        let (input, frames) = sync_channel(FRAMES_MAX);
        let signals = Arc::new(Signals::default());
        let out = Output {
            broadcast: Arc::clone(broadcast),
            writer: broadcast.made(track),
            signals: Arc::clone(&signals),
        };
        match track {
            TrackId::Opus => {
                let thread = Builder::new().name("opus".into());
                thread.spawn(move || make_opus(&frames, &out))?;
            }
            _ => start_clean(frames, out, config)?,
        }
        Ok(Self { input, signals })
    }

    /// Hands a frame to the decoder without waiting.
    pub(super) fn offer(&self, frame: Arc<Frame>) -> Result<(), Refused> {
        self.input.try_send(frame).map_err(|error| match error {
            TrySendError::Full(frame) => Refused::Full(frame),
            TrySendError::Disconnected(_) => Refused::Gone,
        })
    }
}

#[derive(Clone, Debug)]
struct Output {
    broadcast: Arc<Broadcast>,
    writer: TrackWriter,
    signals: Arc<Signals>,
}

impl Output {
    fn give_up(&self, reason: &'static str) {
        // The first reason is the one that counts.
        let _ = self.signals.hopeless.set(reason);
    }

    fn write(&self, frame: Frame) {
        let is_over = self.signals.over();
        if !*is_over {
            // Refused only at the start, where sound repeats what is there already.
            let _ = self.writer.write(frame);
            self.signals.made.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Signals {
    fn over(&self) -> MutexGuard<'_, bool> {
        self.is_over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        *self.signals.over() = true;
    }
}

fn start_clean(
    frames: Receiver<Arc<Frame>>,
    out: Output,
    config: &Arc<ConvertConfig>,
) -> std::io::Result<()> {
    let (pictures, due) = sync_channel(PICTURES_MAX);
    let (encoder_out, config) = (out.clone(), Arc::clone(config));
    let source = out.broadcast.made(TrackId::Video);
    let gop = config.gop;
    let thread = Builder::new().name("clean-encode".into());
    thread.spawn(move || encode_clean(&due, &encoder_out, &config))?;
    let thread = Builder::new().name("clean-decode".into());
    thread.spawn(move || {
        let decoding = Decoding {
            out,
            pictures,
            grid: KeyGrid::new(gop),
            is_key_due: false,
            has_caught_up: false,
            discontinuities: 0,
            source,
        };
        decoding.run(&frames);
    })?;
    Ok(())
}

struct Picture {
    t: i64,
    is_key: bool,
    discontinuities: u32,
    picture: Video,
}

struct Decoding {
    out: Output,
    pictures: SyncSender<Picture>,
    grid: KeyGrid,
    /// A keyframe was due on a picture that was dropped.
    is_key_due: bool,
    /// While the start of a GOP is made up for, no picture is dropped.
    has_caught_up: bool,
    discontinuities: u32,
    /// What can be measured of the source.
    source: TrackWriter,
}

impl Decoding {
    fn run(mut self, frames: &Receiver<Arc<Frame>>) {
        let mut open: Option<(Arc<crate::frame::TrackInfo>, VideoDecoder)> = None;
        while let Ok(frame) = frames.recv() {
            let is_same = open
                .as_ref()
                .is_some_and(|(info, _)| info.is_same_format(&frame.info));
            let is_jump = frame.discontinuities != self.discontinuities;
            if !is_same || is_jump {
                let left = open.as_mut().map(|(_, decoder)| decoder.finish());
                if !self.pass_on(left.unwrap_or_default()) {
                    return;
                }
                self.discontinuities = frame.discontinuities;
            }
            if !is_same {
                open = match VideoDecoder::open(&frame.info) {
                    Ok(decoder) => Some((Arc::clone(&frame.info), decoder)),
                    Err(error) => {
                        tracing::warn!(%error, "the source picture cannot be decoded");
                        self.out.give_up("no_decoder");
                        return;
                    }
                };
            }
            let Some((_, decoder)) = open.as_mut() else {
                return;
            };
            if !self.pass_on(decoder.decode(&frame)) {
                return;
            }
        }
        let left = open.as_mut().map(|(_, decoder)| decoder.finish());
        self.pass_on(left.unwrap_or_default());
    }

    /// False when the encoder has gone.
    fn pass_on(&mut self, pictures: Vec<(i64, Video)>) -> bool {
        pictures
            .into_iter()
            .all(|(t, picture)| self.pass_on_one(t, picture))
    }

    fn pass_on_one(&mut self, t: i64, picture: Video) -> bool {
        let gop = self.source.gop();
        let is_key = self.grid.is_key(t, super::ffi::is_key(&picture), gop) || self.is_key_due;
        let newest = self.source.newest_dts();
        let behind_us = newest.map_or(0, |n| n.as_micros() - t);
        self.has_caught_up |= behind_us < CAUGHT_UP_US;
        let picture = Picture {
            t,
            is_key,
            discontinuities: self.discontinuities,
            picture,
        };
        self.is_key_due = false;
        if !self.has_caught_up || behind_us < BEHIND_MAX_US {
            return self.pictures.send(picture).is_ok();
        }
        match self.pictures.try_send(picture) {
            Ok(()) => true,
            Err(TrySendError::Full(dropped)) => {
                self.is_key_due = dropped.is_key;
                self.out.signals.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

fn encode_clean(pictures: &Receiver<Picture>, out: &Output, config: &ConvertConfig) {
    let mut encoder = CleanEncoder::new(config.encoders(), config.clean_height_max);
    // What a worker before made stands in the ring; pictures as old as that would be refused there,
    // and those after them would refer to them.
    let mut last = out.writer.newest_dts().map(MediaTime::as_micros);
    while let Ok(picture) = pictures.recv() {
        if last.is_some_and(|last| picture.t <= last) {
            continue;
        }
        last = Some(picture.t);
        // Asked first, so that a request is not left over when the grid wants one anyway.
        let (now, t) = (Instant::now(), MediaTime::from_micros(picture.t));
        let is_asked = out.writer.take_keyframe_request_at(now, t);
        let is_key = is_asked || picture.is_key;
        let facts = || out.broadcast.facts(TrackId::Video);
        match encoder.encode((picture.t, picture.picture), is_key, facts) {
            Ok(made) => write_clean(made, &encoder, out, picture.discontinuities),
            Err(CleanError::NoEncoder(error)) => {
                tracing::error!(%error, "viewers who need a re-encoded picture get none");
                out.give_up("no_encoder");
                return;
            }
            Err(error @ CleanError::Codec(_)) => {
                tracing::debug!(%error, t = picture.t, "skipped a picture");
            }
        }
    }
}

fn write_clean(made: Vec<Encoded>, encoder: &CleanEncoder<'_>, out: &Output, discontinuities: u32) {
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
        });
    }
}

fn make_opus(frames: &Receiver<Arc<Frame>>, out: &Output) {
    let mut converter = match OpusConverter::open() {
        Ok(converter) => converter,
        Err(error) => {
            tracing::error!(%error, "viewers who need Opus get no sound");
            return out.give_up("no_encoder");
        }
    };
    let info = out.writer.set_info(converter.info());
    while let Ok(frame) = frames.recv() {
        let packets = match converter.push(&frame) {
            Ok(packets) => packets,
            Err(error) => {
                tracing::warn!(%error, "the source sound cannot be converted");
                return out.give_up("no_decoder");
            }
        };
        for (t, payload) in packets.into_iter().filter(|(t, _)| *t >= 0) {
            let t = MediaTime::from_micros(t);
            out.write(Frame {
                track: out.writer.track(),
                info: Arc::clone(&info),
                dts: t,
                pts: t,
                duration: Some(OPUS_PACKET),
                is_key: true,
                is_discardable: false,
                discontinuities: frame.discontinuities,
                payload,
                rtp: OnceLock::new(),
            });
        }
    }
}
