//! What threads of a conversion share with the runtime, and the thread of the sound.
//!
//! A worker lives as long as its input: dropping the [`Worker`] lets the thread end. Inputs are
//! bounded; nobody waits for them on the runtime.
//!
//! Invariant: a worker that was given up writes nothing more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;

use super::audio::SoundConverter;
use super::encoder::AudioCodec;
use crate::broadcast::{Broadcast, TrackWriter};
use crate::frame::{Frame, Kind, TrackId};
use crate::time::MediaTime;

/// Frames that wait for a decoder.
pub(super) const FRAMES_MAX: usize = 16;

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
    /// Starts the thread that makes `opus` or `aac`.
    pub(super) fn start(broadcast: &Arc<Broadcast>, track: TrackId) -> std::io::Result<Self> {
        let (input, frames) = sync_channel(FRAMES_MAX);
        let out = Output::new(broadcast, track);
        let signals = Arc::clone(&out.signals);
        let thread = Builder::new().name(track.to_string());
        thread.spawn(move || make_sound(&frames, &out))?;
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

/// Where a thread writes the track it makes.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) broadcast: Arc<Broadcast>,
    pub(super) writer: TrackWriter,
    pub(super) signals: Arc<Signals>,
}

impl Output {
    pub(super) fn new(broadcast: &Arc<Broadcast>, track: TrackId) -> Self {
        Self {
            broadcast: Arc::clone(broadcast),
            writer: broadcast.made(track),
            signals: Arc::default(),
        }
    }

    pub(super) fn give_up(&self, reason: &'static str) {
        // The first reason is the one that counts.
        let _ = self.signals.hopeless.set(reason);
    }

    pub(super) fn write(&self, frame: Frame) {
        let is_over = self.signals.over();
        if !*is_over {
            let (source, kind) = match frame.track.kind() {
                Kind::Video => (TrackId::Video, "video"),
                Kind::Audio => (TrackId::Audio, "audio"),
            };
            if let Some(newest) = self.broadcast.newest_dts(source) {
                let lag = newest.saturating_since(frame.dts);
                self.broadcast.observe("converter_lag_seconds", kind, lag);
            }
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

    /// Nothing more is written from now on.
    pub(super) fn end(&self) {
        *self.over() = true;
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.signals.end();
    }
}

fn make_sound(frames: &Receiver<Arc<Frame>>, out: &Output) {
    let track = out.writer.track();
    let codec = match track {
        TrackId::Aac => AudioCodec::Aac,
        _ => AudioCodec::Opus,
    };
    let mut converter = match SoundConverter::open(codec) {
        Ok(converter) => converter,
        Err(error) => {
            tracing::error!(%error, %track, "viewers who need it get no sound");
            return out.give_up("no_encoder");
        }
    };
    let info = out.writer.set_info(converter.info());
    let length = converter.packet_length();
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
                track,
                info: Arc::clone(&info),
                dts: t,
                pts: t,
                duration: Some(length),
                is_key: true,
                is_discardable: false,
                discontinuities: frame.discontinuities,
                payload,
                rtp: OnceLock::new(),
                arrived: OnceLock::new(),
            });
        }
    }
}
