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
use std::time::Duration;

use tokio::time::Instant;

use super::audio::{AAC_BPS, SoundConverter};
use super::encoder::AudioCodec;
use crate::broadcast::{Broadcast, Making, TrackWriter};
use crate::frame::{Frame, Kind, TrackId};
use crate::time::MediaTime;

/// Frames that wait for a decoder.
pub(super) const FRAMES_MAX: usize = 16;

/// What the threads tell the feeder.
#[derive(Debug)]
pub(super) struct Signals {
    /// The place among the converters, held until the last thread has ended.
    pub(super) making: Making,
    /// Microseconds that the encoder needs for a picture; 0 before the first.
    pub(super) effort_us: AtomicU64,
    /// Set when the conversion can never work as it is.
    pub(super) hopeless: OnceLock<&'static str>,
    /// True once the worker was given up: what its threads still hold is no longer wanted. Held
    /// while a frame is written, so that none slips in behind the first of the next worker.
    is_over: Mutex<bool>,
}

/// What the sound is made of.
#[derive(Debug)]
pub(super) enum Heard {
    /// A frame of the source.
    Sound(Arc<Frame>),
    /// There is no source: silence lasts as long as this picture stands.
    Silence(Arc<Frame>),
}

/// The input of running threads.
#[derive(Debug)]
pub(super) struct Worker {
    input: SyncSender<Heard>,
    pub(super) signals: Arc<Signals>,
}

/// Why a frame was not taken.
#[derive(Debug)]
pub(super) enum Refused<T> {
    /// The queue is full: offer it again.
    Full(T),
    /// The threads have ended.
    Gone,
}

impl Worker {
    /// Starts the thread that makes `opus` or `aac`.
    pub(super) fn start(broadcast: &Arc<Broadcast>, track: TrackId) -> std::io::Result<Self> {
        let (input, heard) = sync_channel(FRAMES_MAX);
        let making = broadcast.make(track).map_err(std::io::Error::other)?;
        let out = Output::new(broadcast, making);
        let signals = Arc::clone(&out.signals);
        let thread = Builder::new().name(track.to_string());
        thread.spawn(move || make_sound(&heard, &out))?;
        Ok(Self { input, signals })
    }

    /// Hands a frame to the decoder without waiting.
    pub(super) fn offer(&self, heard: Heard) -> Result<(), Refused<Heard>> {
        self.input.try_send(heard).map_err(|error| match error {
            TrySendError::Full(heard) => Refused::Full(heard),
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
    pub(super) fn new(broadcast: &Arc<Broadcast>, making: Making) -> Self {
        Self {
            broadcast: Arc::clone(broadcast),
            writer: broadcast.made(making.job().track()),
            signals: Arc::new(Signals {
                making,
                effort_us: AtomicU64::new(0),
                hopeless: OnceLock::new(),
                is_over: Mutex::new(false),
            }),
        }
    }

    pub(super) fn give_up(&self, reason: &'static str) {
        // The first reason is the one that counts.
        let _ = self.signals.hopeless.set(reason);
    }

    pub(super) fn write(&self, frame: Frame) {
        let is_over = self.signals.over();
        if !*is_over {
            let source = match frame.track.kind() {
                Kind::Video => TrackId::Video,
                Kind::Audio => TrackId::Audio,
            };
            if let Some(newest) = self.broadcast.newest_dts(source) {
                let lag = newest.saturating_since(frame.dts);
                self.signals.making.observe("converter_lag_seconds", lag);
            }
            // Refused only at the start, where sound repeats what is there already.
            let _ = self.writer.write(frame);
            self.signals.making.count_made();
        }
    }
}

impl Signals {
    /// Frames written.
    pub(super) fn made(&self) -> u64 {
        self.making.job().made()
    }

    /// A picture or a frame of sound took so long. What is kept is a running mean over some eight.
    pub(super) fn note_effort(&self, took: Duration) {
        self.making.observe("converter_frame_seconds", took);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mean = match self.effort_us.load(Ordering::Relaxed) {
            0 => us,
            // One that was interrupted counts little.
            mean => mean - mean / 8 + us.min(2 * mean) / 8,
        };
        self.effort_us.store(mean, Ordering::Relaxed);
    }

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

fn make_sound(heard: &Receiver<Heard>, out: &Output) {
    let track = out.writer.track();
    let codec = match track {
        TrackId::Aac => AudioCodec::Aac,
        _ => AudioCodec::Opus,
    };
    let lines = out.broadcast.lines(TrackId::Video);
    let bitrate_bps = match codec {
        AudioCodec::Aac => AAC_BPS,
        // Without a picture as beside the largest.
        AudioCodec::Opus if lines == 0 => out.broadcast.ladder().around(u32::MAX).audio_bps,
        AudioCodec::Opus => out.broadcast.ladder().around(lines).audio_bps,
    };
    let mut converter = match SoundConverter::open_at(codec, bitrate_bps) {
        Ok(converter) => converter,
        Err(error) => {
            tracing::error!(%error, %track, "viewers who need it get no sound");
            return out.give_up("no_encoder");
        }
    };
    out.signals.making.name(codec.encoder());
    let info = out.writer.set_info(converter.info());
    let length = converter.packet_length();
    while let Ok(heard) = heard.recv() {
        let began = Instant::now();
        let (made, frame) = match &heard {
            Heard::Sound(frame) => (converter.push(frame), frame),
            Heard::Silence(frame) => {
                let made = converter.silence_until(frame.dts, frame.discontinuities);
                (made, frame)
            }
        };
        let packets = match made {
            Ok(packets) => packets,
            Err(error) => {
                tracing::warn!(%error, "the source sound cannot be converted");
                return out.give_up("no_decoder");
            }
        };
        out.signals.note_effort(began.elapsed());
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
                flv: OnceLock::new(),
                chunks: OnceLock::new(),
                arrived: OnceLock::new(),
            });
        }
    }
}
