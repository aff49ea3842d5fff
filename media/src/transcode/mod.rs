//! Conversion: tracks made from the publisher's for viewers who cannot take them as they are.
//!
//! [`run`] follows the demand for `clean`, the rungs, `opus` and `aac` of one broadcast. Data goes
//! from a cursor on the source ring to a worker's bounded queue, through its threads, into the
//! rings of the made tracks. All pictures share one decoder.
//!
//! Invariants
//! - A made track carries T of its source; nothing is shifted.
//! - Codecs run on OS threads of their own; nothing here blocks the runtime or the publisher.
//! - Nobody watching means nothing is encoded, but for the linger.

pub mod audio;
pub mod choice;
pub mod decoder;
mod demand;
pub mod encoder;
mod ffi;
pub(crate) mod forecast;
pub mod ladder;
mod lanes;
pub mod overload;
mod pictures;
#[cfg(test)]
mod tests;
pub mod thumbnail;
mod video;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::demand::{Demand, StallWatch, Step};
use self::worker::{Heard, Refused, Worker};
use crate::broadcast::{Broadcast, Cursor, Ended, Start};
use crate::frame::TrackId;

/// How long a frame waits before it is offered again to a full queue.
const RETRY: Duration = Duration::from_millis(4);

/// What is made, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvertConfig {
    /// FFmpeg's name of the H.264 encoder.
    pub encoder: String,
    /// Encoders to try in this order when the first does not work.
    pub encoder_fallback: Vec<String>,
    /// Keyframe distance of a made picture whose source's are too far apart.
    pub gop: Duration,
    /// How long a converter goes on after its last viewer has left.
    pub linger: Duration,
    /// Lines of `clean` at most.
    pub clean_height_max: u32,
    /// Whether `aac` is silence while the publisher sends no sound.
    pub has_silent_audio: bool,
    /// What goes wrong with the encoders of these tracks.
    #[cfg(test)]
    pub(crate) faults: Vec<(TrackId, tests::Fault)>,
}

impl Default for ConvertConfig {
    fn default() -> Self {
        Self {
            encoder: "libx264".into(),
            encoder_fallback: vec!["libopenh264".into()],
            gop: Duration::from_secs(2),
            linger: Duration::from_secs(15),
            clean_height_max: 1_080,
            has_silent_audio: false,
            #[cfg(test)]
            faults: Vec::new(),
        }
    }
}

impl ConvertConfig {
    fn encoders(&self) -> Vec<&str> {
        let all = std::iter::once(&self.encoder).chain(&self.encoder_fallback);
        all.map(String::as_str).collect()
    }
}

/// Makes `clean`, rungs, `opus` and `aac` of a broadcast while somebody reads them; returns when
/// the broadcast ends or `cancel` says so.
pub async fn run(broadcast: Arc<Broadcast>, config: Arc<ConvertConfig>, cancel: CancellationToken) {
    let tracks = async {
        tokio::join!(
            pictures::follow(&broadcast, &config),
            follow_sound(&broadcast, TrackId::Opus, &config),
            follow_sound(&broadcast, TrackId::Aac, &config),
        );
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = tracks => {}
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A worker with its place in the source.
struct Feed {
    worker: Worker,
    cursor: Cursor,
    /// Taken from the ring but not yet by the queue.
    waiting: Option<Heard>,
    /// The picture, whose length silence has while there never was a sound.
    silence: Option<Cursor>,
    stall: StallWatch,
}

/// Why feeding stopped.
#[derive(Debug)]
enum Stopped {
    /// The source is over.
    Ended,
    /// The threads ended or make nothing.
    Failed,
    /// It cannot work here, for this reason.
    Hopeless(&'static str),
}

/// One sound is converted into one other: to `opus` when it is AAC, to `aac` when it is Opus.
async fn follow_sound(broadcast: &Arc<Broadcast>, track: TrackId, config: &ConvertConfig) {
    let mut changes = broadcast.demand();
    let mut demand = Demand::new(config.linger);
    let mut feed: Option<Feed> = None;
    let writer = broadcast.made(track);
    loop {
        changes.mark_unchanged();
        match demand.step(Instant::now(), broadcast.users(track)) {
            Step::Start => match Feed::start(broadcast, track, config) {
                Ok(started) => feed = Some(started),
                Err(error) => {
                    tracing::error!(%error, %track, "no thread for a converter");
                    writer.set_unavailable(Some("no_thread"));
                    demand.rest(Instant::now());
                }
            },
            Step::Stop => {
                feed = None;
                // Nobody reads it, and who comes later must not begin at what is old by then.
                writer.clear();
            }
            Step::Keep => {}
        }
        // Viewers look at this before they ask, so it is withdrawn without waiting for one.
        if !demand.is_resting() && broadcast.unavailable(track).is_some() {
            writer.set_unavailable(None);
        }
        let deadline = demand.deadline();
        let stopped = tokio::select! {
            _ = broadcast.ended(), if feed.is_none() => return,
            _ = changes.changed() => continue,
            () = until(deadline) => continue,
            stopped = run_feed(&mut feed) => stopped,
        };
        feed = None;
        let may_retry = match stopped {
            Stopped::Ended => return,
            Stopped::Failed => demand.fail(Instant::now()),
            Stopped::Hopeless(reason) => {
                writer.set_unavailable(Some(reason));
                demand.rest(Instant::now());
                continue;
            }
        };
        tracing::warn!(%track, may_retry, "a converter failed");
        if !may_retry {
            writer.set_unavailable(Some("converter_failed"));
        }
    }
}

async fn run_feed(feed: &mut Option<Feed>) -> Stopped {
    match feed {
        Some(feed) => feed.run().await,
        None => std::future::pending().await,
    }
}

impl Feed {
    /// The sound is made from the picture's newest keyframe on, where viewers begin.
    fn start(
        broadcast: &Arc<Broadcast>,
        track: TrackId,
        config: &ConvertConfig,
    ) -> std::io::Result<Self> {
        let video = broadcast.cursor(TrackId::Video, Start::Live);
        let start = video.newest_key_dts().map_or(Start::Live, Start::At);
        let is_silent = config.has_silent_audio
            && track == TrackId::Aac
            && broadcast.newest_dts(TrackId::Audio).is_none();
        Ok(Self {
            worker: Worker::start(broadcast, track)?,
            cursor: broadcast.cursor(TrackId::Audio, start),
            waiting: None,
            silence: is_silent.then(|| broadcast.cursor(TrackId::Video, Start::NewestKey)),
            stall: StallWatch::new(Instant::now()),
        })
    }

    /// Feeds until something ends. Cancel-safe: a frame taken from the ring is kept.
    async fn run(&mut self) -> Stopped {
        loop {
            if let Some(reason) = self.worker.signals.hopeless.get() {
                return Stopped::Hopeless(reason);
            }
            let heard = match self.waiting.take() {
                Some(heard) => heard,
                None => match self.hear().await {
                    Ok(heard) => heard,
                    Err(Ended) => return Stopped::Ended,
                },
            };
            let made = self.worker.signals.made();
            if self.stall.is_stalled(Instant::now(), made) {
                return Stopped::Failed;
            }
            match self.worker.offer(heard) {
                Ok(()) => {}
                Err(Refused::Full(heard)) => {
                    self.waiting = Some(heard);
                    sleep(RETRY).await;
                }
                Err(Refused::Gone) => {
                    let reason = self.worker.signals.hopeless.get();
                    return reason.map_or(Stopped::Failed, |r| Stopped::Hopeless(r));
                }
            }
        }
    }

    /// The next sound; silence as long as there never was one and somebody wants it. Cancel-safe.
    async fn hear(&mut self) -> Result<Heard, Ended> {
        if let Some(picture) = &mut self.silence {
            tokio::select! {
                biased;
                sound = self.cursor.next() => {
                    self.silence = None;
                    return Ok(Heard::Sound(sound?.frame));
                }
                picture = picture.next() => return Ok(Heard::Silence(picture?.frame)),
            }
        }
        Ok(Heard::Sound(self.cursor.next().await?.frame))
    }
}
