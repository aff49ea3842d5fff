//! Thumbnails (spec media.md 6.7): the newest keyframe of a broadcast as a small JPEG.
//!
//! Invariants
//! - Of a broadcast at most one picture is decoded in [`LASTS`], and none that nobody asked for;
//!   who asks meanwhile gets the same bytes.
//! - At most [`THREADS_MAX`] threads decode at once, over all broadcasts; the rest wait their turn.
//! - What nobody asked for within [`KEPT`] is forgotten, and so is the oldest beyond [`ROOMS_MAX`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use bytes::Bytes;
use ffmpeg_next::codec::flag::Flags;
use ffmpeg_next::software::scaling;
use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame::Video;
use ffmpeg_next::{Packet, Rational, codec, encoder};
use tokio::sync::{OnceCell, Semaphore, oneshot};
use tokio::time::Instant;

use super::decoder::VideoDecoder;
use super::ffi;
use crate::broadcast::{Broadcast, Start};
use crate::frame::{Frame, Kind, TrackId};
use crate::time::MediaTime;

/// How long a thumbnail is the newest one.
pub const LASTS: Duration = Duration::from_secs(10);
const KEPT: Duration = Duration::from_secs(60);
const THREADS_MAX: usize = 2;
const ROOMS_MAX: usize = 1_000;
const WIDTH_MAX: u32 = 640;
/// Of a portrait: twice as high as wide.
const HEIGHT_MAX: u32 = 1_280;
const BYTES_MAX: usize = 100 << 10;
/// Quantisers of a JPEG, the best first.
const QUALITIES: [i32; 6] = [4, 7, 11, 16, 23, 31];
/// How often a picture that is too large at all of them is halved.
const HALVINGS: u32 = 4;

/// Why there is no thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoThumbnail {
    /// The show has no picture, or none that can be decoded alone is there yet.
    #[error("there is no picture")]
    NoPicture,
    /// The picture cannot be decoded, or not be made small enough.
    #[error("no thumbnail could be made: {0}")]
    Codec(#[from] ffmpeg_next::Error),
    /// There is no thread for it.
    #[error("there is no thread for a thumbnail")]
    NoThread,
}

type Made = Result<(MediaTime, Bytes), NoThumbnail>;

/// The thumbnails of all broadcasts.
#[derive(Debug)]
pub struct Thumbnails {
    /// By instance.
    slots: Mutex<HashMap<String, Slot>>,
    threads: Semaphore,
}

#[derive(Debug)]
struct Slot {
    began: Instant,
    asked: Instant,
    made: Arc<OnceCell<Made>>,
    /// What was made of the keyframe before.
    before: Option<(MediaTime, Bytes)>,
}

impl Default for Thumbnails {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
            threads: Semaphore::new(THREADS_MAX),
        }
    }
}

impl Thumbnails {
    /// The thumbnail of a broadcast. May be dropped while it waits.
    ///
    /// # Errors
    /// [`NoThumbnail`], the same to all who ask within [`LASTS`].
    pub async fn of(&self, broadcast: &Broadcast) -> Result<Bytes, NoThumbnail> {
        if broadcast.source(Kind::Video).is_none() {
            return Err(NoThumbnail::NoPicture);
        }
        let (cell, before) = self.slot(broadcast.instance(), Instant::now());
        let made = cell.get_or_init(|| self.make(broadcast, before)).await;
        made.clone().map(|(_, jpeg)| jpeg)
    }

    fn slot(
        &self,
        instance: &str,
        now: Instant,
    ) -> (Arc<OnceCell<Made>>, Option<(MediaTime, Bytes)>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| now.saturating_duration_since(slot.asked) < KEPT);
        if !slots.contains_key(instance) && slots.len() >= ROOMS_MAX {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.asked);
            let oldest = oldest.map(|(instance, _)| instance.clone());
            oldest.and_then(|oldest| slots.remove(&oldest));
        }
        let slot = slots.entry(instance.to_owned()).or_insert_with(|| Slot {
            began: now,
            asked: now,
            made: Arc::default(),
            before: None,
        });
        slot.asked = now;
        if now.saturating_duration_since(slot.began) >= LASTS {
            slot.began = now;
            let made = slot.made.get().cloned().and_then(Result::ok);
            slot.before = made.or_else(|| slot.before.take());
            slot.made = Arc::default();
        }
        (Arc::clone(&slot.made), slot.before.clone())
    }

    async fn make(&self, broadcast: &Broadcast, before: Option<(MediaTime, Bytes)>) -> Made {
        let newest = broadcast
            .cursor(TrackId::Video, Start::NewestKey)
            .try_next();
        let newest = newest.map(|delivery| delivery.frame);
        // A group that outgrew its ring has lost its keyframe; what was made of that still stands.
        let Some(frame) = newest.filter(|frame| frame.is_key) else {
            return before.ok_or(NoThumbnail::NoPicture);
        };
        if let Some(before) = before.filter(|(t, _)| *t == frame.dts) {
            return Ok(before);
        }
        let _turn = self.threads.acquire().await;
        let (done, made) = oneshot::channel();
        let t = frame.dts;
        let work = move || {
            // Nobody waits for it any more when this fails.
            let _ = done.send(thumbnail(&frame));
        };
        let thread = Builder::new().name("thumbnail".into()).spawn(work);
        thread.map_err(|_io| NoThumbnail::NoThread)?;
        let jpeg = made.await.unwrap_or(Err(NoThumbnail::NoPicture))?;
        Ok((t, jpeg))
    }
}

/// A keyframe as a JPEG.
pub(super) fn thumbnail(frame: &Frame) -> Result<Bytes, NoThumbnail> {
    let mut decoder = VideoDecoder::open(&frame.info)?;
    let mut pictures = decoder.decode(frame);
    pictures.extend(decoder.finish());
    let picture = pictures.into_iter().next().ok_or(NoThumbnail::NoPicture)?.1;
    small_jpeg(&picture)
}

/// The best JPEG of the picture within the bounds.
pub(super) fn small_jpeg(picture: &Video) -> Result<Bytes, NoThumbnail> {
    let mut size = fitted(picture.width(), picture.height());
    for _ in 0..HALVINGS {
        let scaled = scaled(picture, size)?;
        for quality in QUALITIES {
            let jpeg = jpeg(&scaled, quality)?;
            if jpeg.len() <= BYTES_MAX {
                return Ok(jpeg);
            }
        }
        size = ((size.0 / 2).max(1), (size.1 / 2).max(1));
    }
    Err(NoThumbnail::Codec(ffmpeg_next::Error::BufferTooSmall))
}

/// The size within the bounds that keeps the shape; never larger than the picture.
pub(super) fn fitted(width: u32, height: u32) -> (u32, u32) {
    let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
    let (wide, high) = (u64::from(WIDTH_MAX), u64::from(HEIGHT_MAX));
    let nearest = |side: u64, to: u64, of: u64| ((side * to + of / 2) / of).max(1);
    let (width, height) = match (width > wide, height > high) {
        (false, false) => (width, height),
        _ if height * wide > width * high => (nearest(width, high, height), high),
        _ => (wide, nearest(height, wide, width)),
    };
    let side = |side: u64| u32::try_from(side).unwrap_or(1);
    (side(width), side(height))
}

fn scaled(picture: &Video, (width, height): (u32, u32)) -> Result<Video, ffmpeg_next::Error> {
    let mut scaler = scaling::Context::get(
        picture.format(),
        picture.width(),
        picture.height(),
        Pixel::YUVJ420P,
        width,
        height,
        scaling::Flags::AREA,
    )?;
    let mut out = Video::empty();
    scaler.run(picture, &mut out)?;
    Ok(out)
}

fn jpeg(picture: &Video, quality: i32) -> Result<Bytes, ffmpeg_next::Error> {
    ffi::init();
    let found = encoder::find(codec::Id::MJPEG).ok_or(ffmpeg_next::Error::EncoderNotFound)?;
    let mut context = codec::Context::new_with_codec(found);
    ffi::set_single_thread(&mut context);
    context.set_flags(Flags::QSCALE);
    let mut video = context.encoder().video()?;
    video.set_width(picture.width());
    video.set_height(picture.height());
    video.set_format(Pixel::YUVJ420P);
    video.set_time_base(Rational(1, 1));
    video.set_global_quality(quality * ffmpeg_next::ffi::FF_QP2LAMBDA);
    video.set_qmin(1);
    video.set_qmax(31);
    let mut opened = video.open()?;
    let mut shown = picture.clone();
    shown.set_pts(Some(0));
    ffi::set_quality(&mut shown, quality * ffmpeg_next::ffi::FF_QP2LAMBDA);
    opened.send_frame(&shown)?;
    opened.send_eof()?;
    let mut packet = Packet::empty();
    opened.receive_packet(&mut packet)?;
    let data = packet.data().ok_or(ffmpeg_next::Error::InvalidData)?;
    Ok(Bytes::copy_from_slice(data))
}
