//! The picture of one viewer: which track it comes from, and how it moves to another.
//!
//! Invariants
//! - The first frame, and the first after every skip or move, is a keyframe (I4).
//! - No frame is older than the last, over moves as well (I11).
//! - Of a source with reordered frames only those leave that nothing refers to the order of.
//!
//! Not here: when a frame may go.

use std::sync::Arc;
use std::time::Duration;

use super::reader::Reader;
use super::track;
use crate::broadcast::{Broadcast, Cursor, Delivery, Start};
use crate::frame::{Frame, TrackId, TrackInfo};
use crate::time::MediaTime;

/// A made track gives a new viewer a keyframe at most this old.
const FRESH: Duration = Duration::from_secs(1);
/// An encoder this close to what the viewer has seen has caught up with the source.
const CAUGHT_UP: Duration = Duration::from_millis(300);
/// A viewer that lost the picture waits for a source's keyframe that is due by then.
const KEYFRAME_WAIT_MAX: Duration = Duration::from_millis(2_500);

/// The frames of a picture, in the order in which they are shown.
#[derive(Debug)]
pub(super) struct Picture {
    broadcast: Arc<Broadcast>,
    /// The H.264 profile the viewer offered.
    profile: u8,
    reader: Reader,
    /// The demand for `clean` while the source still plays.
    warming: Option<Cursor>,
    /// The parameters of the source that were judged last.
    judged: Option<Arc<TrackInfo>>,
    /// Presentation time of the newest frame taken.
    shown: Option<MediaTime>,
    /// The discontinuity of the newest frame taken.
    discontinuities: Option<u32>,
    skipped: u64,
}

impl Picture {
    pub(super) fn new(broadcast: &Arc<Broadcast>, profile: u8) -> Self {
        let track = track::picture(broadcast, profile);
        Self {
            broadcast: Arc::clone(broadcast),
            profile,
            reader: Reader::new(broadcast, track, Start::NewestKey),
            warming: None,
            judged: None,
            shown: None,
            discontinuities: None,
            skipped: 0,
        }
    }

    pub(super) const fn skipped(&self) -> u64 {
        self.skipped
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.shown.is_some()
    }

    /// The viewer is there: what it is shown first is at most a second older than the track.
    pub(super) fn begin(&mut self) {
        let cursor = &self.reader.cursor;
        let Some(newest) = cursor.newest_dts().filter(|_| cursor.track().is_made()) else {
            return;
        };
        let key = cursor.newest_key_dts();
        if key.is_none_or(|key| newest.saturating_since(key) > FRESH) {
            self.reader = Reader::new(&self.broadcast, cursor.track(), Start::Live);
            self.reader.cursor.request_keyframe();
        }
    }

    /// The next frame to show.
    pub(super) fn peek(&mut self) -> Option<&Delivery> {
        loop {
            self.move_on();
            let frame = Arc::clone(&self.reader.peek()?.frame);
            if frame.track != TrackId::Video || self.may_pass(&frame) {
                break;
            }
            self.drop_one();
        }
        self.reader.peek()
    }

    /// Takes the frame that [`Self::peek`] gave.
    pub(super) fn take(&mut self) -> Option<Arc<Frame>> {
        let delivery = self.reader.next.take()?;
        // Before the first frame there was nothing to pass over.
        if self.has_begun() {
            self.skipped += u64::from(delivery.skipped);
        }
        self.shown = self.shown.max(Some(delivery.frame.pts));
        self.discontinuities = Some(delivery.frame.discontinuities);
        Some(delivery.frame)
    }

    /// Passes over everything up to the newest keyframe; its time, if there is one ahead.
    pub(super) fn jump(&mut self) -> Option<MediaTime> {
        let dts = self.reader.next.as_ref()?.frame.dts;
        let key = self.reader.cursor.newest_key_dts()?;
        if key <= dts {
            return None;
        }
        self.drop_one();
        self.reader.cursor.jump_to_newest_key();
        Some(key)
    }

    /// The viewer cannot decode what it got, or is too slow, and wants a keyframe.
    pub(super) fn request_keyframe(&mut self) {
        let cursor = &self.reader.cursor;
        if cursor.track().is_made() {
            return cursor.request_keyframe();
        }
        let (Some(key), Some(newest)) = (cursor.newest_key_dts(), cursor.newest_dts()) else {
            return;
        };
        let next = key + cursor.gop();
        if next.saturating_since(newest) > KEYFRAME_WAIT_MAX {
            self.leave_source();
        }
    }

    /// Looks whether the source can still be passed through; once a second is enough.
    pub(super) fn check(&mut self) {
        if self.is_passing() && !track::is_plain(&self.broadcast, &self.reader.cursor) {
            self.leave_source();
        }
    }

    /// Why the picture cannot be made, if it cannot.
    pub(super) fn unavailable(&self) -> Option<&'static str> {
        let made = self.warming.as_ref().unwrap_or(&self.reader.cursor);
        made.unavailable()
    }

    /// Waits until [`Self::peek`] may give something. Cancel-safe.
    pub(super) async fn ready(&mut self) {
        self.reader.ready().await;
    }

    pub(super) const fn waiting(&self) -> Option<&Delivery> {
        self.reader.next.as_ref()
    }

    fn is_passing(&self) -> bool {
        self.reader.cursor.track() == TrackId::Video
    }

    fn drop_one(&mut self) {
        if let Some(delivery) = self.reader.next.take() {
            self.skipped += u64::from(delivery.skipped) + 1;
        }
    }

    /// Whether a frame of the source may go as it is.
    fn may_pass(&mut self, frame: &Frame) -> bool {
        let is_known = self
            .judged
            .as_ref()
            .is_some_and(|i| Arc::ptr_eq(i, &frame.info));
        if !is_known {
            self.judged = Some(Arc::clone(&frame.info));
            if !track::fits(&frame.info, self.profile) {
                // It cannot be decoded at all: nothing more of it.
                self.leave_source();
                self.settle_on_clean();
                return false;
            }
        }
        let before = self.discontinuities.unwrap_or(frame.discontinuities);
        if before != frame.discontinuities && !frame.is_key {
            // It refers to pictures of another encoder.
            return false;
        }
        if frame.pts == frame.dts {
            return true;
        }
        // Reordered frames: a browser shows them in the order in which they come.
        self.leave_source();
        if frame.is_discardable {
            return false;
        }
        let is_behind = self.shown.is_some_and(|shown| frame.pts <= shown);
        if is_behind {
            self.settle_on_clean();
        }
        !is_behind
    }

    /// From now on `clean` is wanted; the source plays until that has caught up.
    fn leave_source(&mut self) {
        if self.is_passing() && self.warming.is_none() {
            let cursor = self.broadcast.cursor(TrackId::Clean, Start::Live);
            self.warming = Some(cursor);
        }
    }

    fn move_on(&mut self) {
        let Some(warming) = &self.warming else { return };
        let is_ready = match (warming.newest_dts(), self.shown) {
            (Some(made), Some(shown)) => made + CAUGHT_UP >= shown,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_ready {
            self.settle_on_clean();
        }
    }

    /// Nothing more of the source: the next frame is a keyframe of `clean` after the last one.
    fn settle_on_clean(&mut self) {
        let Some(shown) = self.shown else {
            self.reader = Reader::new(&self.broadcast, TrackId::Clean, Start::NewestKey);
            self.warming = None;
            return self.begin();
        };
        let from = shown.shifted(1);
        self.reader = Reader::new(&self.broadcast, TrackId::Clean, Start::At(from));
        self.reader.cursor.request_keyframe_from(from);
        self.warming = None;
    }
}
