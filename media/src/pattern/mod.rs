//! A show that runs by itself: a test pattern with burnt-in counter and clock, and a tone,
//! published as an encoder would: over RTMP, H.264 with B-frames, AAC.
//!
//! Invariants
//! - Everything goes through the network and the server's own ingest; nothing here knows the hub.
//! - Picture, counter, clock and bell belong together: picture `n` is shown `n` frames after the
//!   start, with the wall clock of that moment in it.
//!
//! Not here: cards, and trying again.

mod canvas;
mod font;
mod scene;
mod studio;
#[cfg(test)]
mod tests;
mod tone;

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use self::studio::{Studio, Tag, millis};
use crate::rtmp::amf::Value;
use crate::rtmp::client::{Client, ClientError, PublishTarget};
use crate::transcode::encoder::NoEncoder;

/// Tags that wait for their time; at the bound the thread that makes them waits.
const TAGS_MAX: usize = 32;
/// From the start of the encoders to the first tag that is due: they need a while to fill.
const LEAD: Duration = Duration::from_millis(600);

/// What the show is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Width in luma samples, even.
    pub width: u32,
    /// Height in luma samples, even, at least 180.
    pub height: u32,
    /// Pictures per second.
    pub frame_rate: u32,
    /// Seconds from one keyframe to the next.
    pub gop_s: u32,
    /// Bits per second of the picture.
    pub video_bps: u32,
    /// Bits per second of the sound.
    pub audio_bps: u32,
}

impl Default for Settings {
    /// 720p30 at 2.5 Mb/s with a keyframe every 2 s, and 128 kb/s of sound.
    fn default() -> Self {
        Self {
            width: 1_280,
            height: 720,
            frame_rate: 30,
            gop_s: 2,
            video_bps: 2_500_000,
            audio_bps: 128_000,
        }
    }
}

/// Why the show ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// The server refused it, or the connection broke.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is nothing here to encode the picture with.
    #[error(transparent)]
    NoEncoder(#[from] NoEncoder),
    /// An encoder failed.
    #[error("encoding the test pattern")]
    Codec(#[from] ffmpeg_next::Error),
    /// The system gave no thread.
    #[error("starting the thread of the test pattern")]
    Thread(#[from] std::io::Error),
}

/// Publishes the show until the connection ends; `wall` is the time of this call.
///
/// Dropping the future ends the show.
///
/// # Errors
/// Always, at last: [`PatternError`] says why it ended.
pub async fn publish(
    target: &PublishTarget,
    settings: &Settings,
    wall: OffsetDateTime,
) -> Result<std::convert::Infallible, PatternError> {
    let opened = Instant::now();
    let mut client = Client::connect(target).await?;
    client.write_metadata(metadata(settings)).await?;
    let start = Instant::now() + LEAD;
    let (out, mut tags) = mpsc::channel(TAGS_MAX);
    let ended = roll(settings, wall + (start - opened), out)?;
    loop {
        let tag = tokio::select! {
            tag = tags.recv() => tag,
            error = client.refused() => return Err(error.into()),
        };
        let Some(tag) = tag else {
            // The thread ends only with an error while we listen; a panic is told by the runtime.
            return Err(ended.await.unwrap_or_else(|_panic| thread_lost()));
        };
        let due = start + Duration::from_micros(u64::try_from(tag.due_us).unwrap_or(0));
        tokio::select! {
            () = sleep_until(due) => {}
            error = client.refused() => return Err(error.into()),
        }
        client.write(tag.kind, stamp(tag.due_us), tag.body).await?;
    }
}

/// Starts the thread; what it says at its end comes over the channel that is returned.
fn roll(
    settings: &Settings,
    wall: OffsetDateTime,
    out: mpsc::Sender<Tag>,
) -> Result<oneshot::Receiver<PatternError>, PatternError> {
    let (say, ended) = oneshot::channel();
    let settings = settings.clone();
    let thread = std::thread::Builder::new().name("pattern".into());
    thread.spawn(move || {
        let shown = Studio::open(&settings, wall).and_then(|studio| studio.run(&out));
        if let Err(error) = shown {
            // Nobody listens when the show was dropped.
            let _ = say.send(error);
        }
    })?;
    Ok(ended)
}

fn thread_lost() -> PatternError {
    std::io::Error::other("the thread ended without a word").into()
}

/// RTMP's stamp: milliseconds in 32 bits that wrap.
fn stamp(us: i64) -> u32 {
    u32::try_from(millis(us) & i64::from(u32::MAX)).unwrap_or(0)
}

fn metadata(settings: &Settings) -> Vec<(String, Value)> {
    let numbers = [
        ("width", settings.width),
        ("height", settings.height),
        ("framerate", settings.frame_rate),
        ("videodatarate", settings.video_bps / 1_000),
        ("audiodatarate", settings.audio_bps / 1_000),
    ];
    let numbers = numbers.map(|(name, n)| (name.to_owned(), Value::Number(f64::from(n))));
    let encoder = ("encoder".to_owned(), Value::text("Lamplight test pattern"));
    numbers.into_iter().chain([encoder]).collect()
}
