//! What one viewer is sent, and when: which tracks, from which frame on, how fast.
//!
//! Invariants
//! - A viewer never gets part of a frame followed by another without a skip to a keyframe (I30).
//! - A slow viewer slows nobody: it jumps to the newest keyframe.
//!
//! Not here: RTP, sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::track;
use crate::broadcast::{Broadcast, Cursor, Delivery, Start};
use crate::frame::{Frame, TrackId};
use crate::time::MediaTime;

/// A made track gives a new viewer a keyframe at most this old.
const FRESH: Duration = Duration::from_secs(1);
/// How far behind a viewer may fall before it jumps.
const BEHIND_MAX: Duration = Duration::from_millis(500);
/// Frames are sent this much faster than real time until the viewer is live.
const CATCH_UP_PERCENT: i64 = 250;

/// What a viewer asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// The H.264 profile it offered for the picture.
    pub(super) profile: Option<u8>,
    pub(super) sound: bool,
}

/// A cursor and the frame it gave that may not be sent yet.
#[derive(Debug)]
struct Reader {
    cursor: Cursor,
    next: Option<Delivery>,
}

impl Reader {
    fn new(broadcast: &Broadcast, track: TrackId, start: Start) -> Self {
        Self {
            cursor: broadcast.cursor(track, start),
            next: None,
        }
    }

    fn peek(&mut self) -> Option<&Delivery> {
        if self.next.is_none() {
            self.next = self.cursor.try_next();
        }
        self.next.as_ref()
    }
}

/// Lets frames out faster than real time, but not all at once, until the viewer is live.
#[derive(Clone, Copy, Debug)]
struct Gate {
    opened: Instant,
    first: MediaTime,
}

impl Gate {
    /// When a frame may go.
    fn due(&self, dts: MediaTime) -> Instant {
        let ahead_us = dts.micros_since(self.first).max(0) * 100 / CATCH_UP_PERCENT;
        self.opened + Duration::from_micros(u64::try_from(ahead_us).unwrap_or(0))
    }
}

/// The frames of one viewer.
#[derive(Debug)]
pub(super) struct Playout {
    broadcast: Arc<Broadcast>,
    video: Option<Reader>,
    audio: Option<Reader>,
    has_audio: bool,
    gate: Option<Gate>,
    skipped: u64,
}

impl Playout {
    pub(super) fn new(broadcast: &Arc<Broadcast>, wants: Wants) -> Self {
        let video = wants.profile.map(|profile| {
            let track = track::picture(broadcast, profile);
            Reader::new(broadcast, track, Start::NewestKey)
        });
        Self {
            broadcast: Arc::clone(broadcast),
            video,
            audio: None,
            has_audio: wants.sound,
            gate: None,
            skipped: 0,
        }
    }

    /// Frames passed over so far.
    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next frame that may go now.
    pub(super) fn next(&mut self, now: Instant) -> Option<Arc<Frame>> {
        self.next_picture(now).or_else(|| self.next_sound(now))
    }

    /// When [`Self::next`] may give something although nothing new is written.
    pub(super) fn due(&self) -> Option<Instant> {
        let gate = self.gate?;
        let next = [self.video.as_ref(), self.audio.as_ref()];
        let waiting = next.into_iter().flatten().filter_map(|r| r.next.as_ref());
        waiting.map(|d| gate.due(d.frame.dts)).min()
    }

    /// Waits for a frame. Cancel-safe.
    pub(super) async fn ready(&mut self) {
        let video = self.video.as_mut().filter(|r| r.next.is_none());
        let audio = self.audio.as_mut().filter(|r| r.next.is_none());
        tokio::select! {
            () = ready(video) => {}
            () = ready(audio) => {}
        }
    }

    /// The viewer cannot decode and wants a keyframe.
    pub(super) fn request_keyframe(&self) {
        if let Some(reader) = &self.video {
            // On a passthrough track the next keyframe is never farther than the GOP rule allows.
            reader.cursor.request_keyframe();
        }
    }

    fn next_picture(&mut self, now: Instant) -> Option<Arc<Frame>> {
        loop {
            let newest = self.video.as_ref().and_then(|r| r.cursor.newest_dts());
            let delivery = self.video.as_mut().and_then(Reader::peek)?;
            let frame = Arc::clone(&delivery.frame);
            if frame.track == TrackId::Video && frame.pts != frame.dts {
                // B-frames appeared: a browser would show them in the wrong order.
                let made = Reader::new(&self.broadcast, TrackId::Clean, Start::NewestKey);
                self.video = Some(made);
                continue;
            }
            if !self.may_go(now, frame.dts, newest) {
                return None;
            }
            if self.is_stale(now, &frame) {
                if let Some(reader) = &mut self.video {
                    reader.next = None;
                    reader.cursor.request_keyframe();
                }
                continue;
            }
            self.skipped += u64::from(taken(&mut self.video));
            if self.has_audio && self.audio.is_none() {
                let start = Start::At(frame.dts);
                self.audio = Some(Reader::new(&self.broadcast, TrackId::Opus, start));
            }
            return Some(frame);
        }
    }

    fn next_sound(&mut self, now: Instant) -> Option<Arc<Frame>> {
        if self.has_audio && self.audio.is_none() && self.video.is_none() {
            let start = Start::At(self.broadcast.now_t(now));
            self.audio = Some(Reader::new(&self.broadcast, TrackId::Opus, start));
        }
        let newest = self.audio.as_ref().and_then(|r| r.cursor.newest_dts());
        let delivery = self.audio.as_mut().and_then(Reader::peek)?;
        let frame = Arc::clone(&delivery.frame);
        if !self.may_go(now, frame.dts, newest) {
            return None;
        }
        taken(&mut self.audio);
        Some(frame)
    }

    /// The gate: opens at the first frame, is gone once the viewer is live.
    fn may_go(&mut self, now: Instant, dts: MediaTime, newest: Option<MediaTime>) -> bool {
        let behind = newest.map_or(Duration::ZERO, |newest| newest.saturating_since(dts));
        let gate = match self.gate {
            Some(gate) => gate,
            None if behind > BEHIND_MAX && self.skipped == 0 && self.audio.is_none() => {
                *self.gate.insert(Gate {
                    opened: now,
                    first: dts,
                })
            }
            None => return true,
        };
        if behind.is_zero() {
            self.gate = None;
            return true;
        }
        now >= gate.due(dts)
    }

    /// A made track starts a viewer at a fresh keyframe; and one that fell behind jumps.
    fn is_stale(&mut self, now: Instant, frame: &Frame) -> bool {
        let Some(reader) = &mut self.video else {
            return false;
        };
        let age = self.broadcast.now_t(now).saturating_since(frame.dts);
        if self.audio.is_none() && self.has_audio && reader.cursor.track().is_made() {
            return !frame.is_key || age > FRESH;
        }
        let behind = reader
            .cursor
            .newest_dts()
            .map(|t| t.saturating_since(frame.dts));
        if self.gate.is_none() && behind.is_some_and(|b| b > BEHIND_MAX) {
            let skipped = reader.cursor.jump_to_newest_key();
            return skipped > 0;
        }
        false
    }
}

/// Takes the peeked frame; returns how many were passed over before it.
fn taken(reader: &mut Option<Reader>) -> u32 {
    let taken = reader.as_mut().and_then(|r| r.next.take());
    taken.map_or(0, |delivery| delivery.skipped)
}

/// Waits for a frame; for ever when there is no track, or it has ended.
async fn ready(reader: Option<&mut Reader>) {
    if let Some(reader) = reader
        && reader.cursor.ready().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}
