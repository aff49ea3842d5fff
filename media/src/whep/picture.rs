//! The picture of one viewer: which track it comes from, and how it moves to another.
//!
//! Invariants
//! - The first frame, and the first after every skip or move, is a keyframe (I4).
//! - No frame is older than the last, over moves as well (I11).
//! - The track before goes on until the keyframe of the next one is there.
//! - Of a source with reordered frames only those leave that nothing refers to the order of.
//!
//! Not here: when a frame may go; when to move.

use std::sync::Arc;
use std::time::Duration;

use super::reader::Reader;
use super::terms::Rendition;
use super::track;
use crate::broadcast::{Broadcast, Delivery, Start};
use crate::frame::{Frame, TrackId, TrackInfo};
use crate::time::MediaTime;
use crate::webrtc::sdp::Decodes;

/// A made track gives a new viewer a keyframe at most this old.
const FRESH: Duration = Duration::from_secs(1);
/// An encoder this close to what the viewer has seen has caught up with the source.
const CAUGHT_UP: Duration = Duration::from_millis(300);
/// A viewer that lost the picture waits for a source's keyframe that is due by then.
const KEYFRAME_WAIT_MAX: Duration = Duration::from_millis(2_500);
/// The track before is not waited for when it is this far behind the next one.
const BEFORE_MAX: Duration = Duration::from_secs(1);
/// At the second look, a second apart, a keyframe that did not come is not waited for any more,
/// until so many looks later.
const LOOKS_MAX: u8 = 2;
const RESTS: u8 = 5;

/// The next track, while the one before goes on.
#[derive(Debug)]
struct Ahead {
    /// At the first keyframe after what was shown.
    reader: Reader,
    /// The track before is shown up to here, and what follows waits for the keyframe.
    until: Option<MediaTime>,
    /// The track before cannot go on for long.
    is_due: bool,
    has_asked: bool,
    /// How often it was looked at since `until` is set.
    looks: u8,
    /// Looks to come before a keyframe is waited for again.
    rests: u8,
}

impl Ahead {
    fn new(broadcast: &Broadcast, track: TrackId, shown: Option<MediaTime>) -> Self {
        let start = shown.map_or(Start::NewestKey, |shown| Start::At(shown.shifted(1)));
        Self {
            reader: Reader::new(broadcast, track, start),
            until: None,
            is_due: false,
            has_asked: false,
            looks: 0,
            rests: 0,
        }
    }

    fn track(&self) -> TrackId {
        self.reader.cursor.track()
    }

    /// The first keyframe after what was shown, if it is there.
    fn key(&mut self, broadcast: &Broadcast, shown: MediaTime) -> Option<MediaTime> {
        let key = self.reader.peek()?.frame.dts;
        if key > shown {
            return Some(key);
        }
        let start = Start::At(shown.shifted(1));
        self.reader = Reader::new(broadcast, self.track(), start);
        Some(self.reader.peek()?.frame.dts)
    }

    fn has_caught_up(&self, shown: MediaTime) -> bool {
        let newest = self.reader.cursor.newest_dts();
        newest.is_some_and(|newest| newest + CAUGHT_UP >= shown)
    }

    fn ask_from(&mut self, from: MediaTime) {
        if !std::mem::replace(&mut self.has_asked, true) {
            self.reader.cursor.request_keyframe_from(from);
        }
    }
}

/// The frames of a picture, in the order in which they are shown.
#[derive(Debug)]
pub(super) struct Picture {
    broadcast: Arc<Broadcast>,
    decodes: Decodes,
    reader: Reader,
    ahead: Option<Ahead>,
    /// There is only sound for now.
    is_paused: bool,
    /// The parameters of the source that were judged last, and whether the viewer can decode it.
    judged: Option<(Arc<TrackInfo>, bool)>,
    /// Frames of the source are left out up to a keyframe: the viewer cannot take anything else.
    skips_to_key: bool,
    /// Presentation time of the newest frame taken.
    shown: Option<MediaTime>,
    /// The discontinuity of the newest frame taken.
    discontinuities: Option<u32>,
    skipped: u64,
}

impl Picture {
    pub(super) fn new(broadcast: &Arc<Broadcast>, decodes: Decodes, rendition: Rendition) -> Self {
        let track = track::shown(broadcast, decodes, rendition);
        Self {
            broadcast: Arc::clone(broadcast),
            decodes,
            reader: Reader::new(broadcast, track, Start::NewestKey),
            ahead: None,
            is_paused: false,
            judged: None,
            skips_to_key: false,
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

    /// What is shown; `None` while there is only sound.
    pub(super) fn rendition(&self) -> Option<Rendition> {
        (!self.is_paused).then(|| Rendition::of(self.reader.cursor.track()))
    }

    pub(super) const fn is_moving(&self) -> bool {
        self.ahead.is_some()
    }

    /// Moves to another rendition at a keyframe; what is shown now goes on until that is there.
    pub(super) fn move_to(&mut self, rendition: Rendition) {
        let track = track::shown(&self.broadcast, self.decodes, rendition);
        if std::mem::take(&mut self.is_paused) {
            return self.resume(track);
        }
        let is_due = self.ahead.as_ref().is_some_and(|ahead| ahead.is_due);
        let ahead = Ahead::new(&self.broadcast, track, self.shown);
        let is_there = track == self.reader.cursor.track();
        self.ahead = (!is_there).then_some(Ahead { is_due, ..ahead });
    }

    /// Nothing more is shown until the next [`Self::move_to`], and nobody has to make it.
    pub(super) fn pause(&mut self) {
        self.is_paused = true;
        self.ahead = None;
        self.reader = Reader::new(&self.broadcast, TrackId::Video, Start::Live);
    }

    fn resume(&mut self, track: TrackId) {
        self.reader = Reader::new(&self.broadcast, track, Start::NewestKey);
        let key = self.reader.cursor.newest_key_dts();
        if key <= self.shown {
            return self.settle(track);
        }
        self.begin();
    }

    /// The next frame to show.
    pub(super) fn peek(&mut self) -> Option<&Delivery> {
        if self.is_paused {
            return None;
        }
        loop {
            self.move_on();
            let frame = Arc::clone(&self.reader.peek()?.frame);
            if self.is_held(&frame) {
                return None;
            }
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
        let count = |answer| self.broadcast.count("keyframe_requests_total", answer);
        if cursor.track().is_made() {
            count("forced");
            return cursor.request_keyframe();
        }
        let (Some(key), Some(newest)) = (cursor.newest_key_dts(), cursor.newest_dts()) else {
            return;
        };
        let next = key + cursor.gop();
        if next.saturating_since(newest) > KEYFRAME_WAIT_MAX {
            count("moved");
            self.leave_source();
        } else {
            count("waited");
        }
    }

    /// Looks whether the source can still be passed through, and whether a move gets on; to be
    /// called once a second.
    pub(super) fn check(&mut self) {
        let is_shown = self.is_passing() && !self.is_paused;
        if is_shown && !track::is_plain(&self.broadcast, &self.reader.cursor) {
            self.leave_source();
        }
        let Some(ahead) = &mut self.ahead else { return };
        if ahead.until.is_some() && ahead.reader.next.is_none() {
            ahead.looks += 1;
        }
        ahead.rests = ahead.rests.saturating_sub(1);
        if ahead.looks >= LOOKS_MAX {
            let again = Ahead::new(&self.broadcast, ahead.track(), self.shown);
            *ahead = Ahead {
                is_due: ahead.is_due,
                rests: RESTS,
                ..again
            };
        }
    }

    /// Why the picture cannot be made, if it cannot. A move to what cannot be made is given up.
    pub(super) fn unavailable(&mut self) -> Option<&'static str> {
        let ahead = self.ahead.as_ref();
        let reason = ahead.and_then(|ahead| ahead.reader.cursor.unavailable());
        if let (Some(reason), Some(ahead)) = (reason, ahead) {
            if ahead.is_due {
                return Some(reason);
            }
            self.ahead = None;
        }
        self.reader.cursor.unavailable()
    }

    /// Waits until [`Self::peek`] may give something. Cancel-safe.
    pub(super) async fn ready(&mut self) {
        if self.is_paused {
            return std::future::pending().await;
        }
        let Some(ahead) = &mut self.ahead else {
            return self.reader.ready().await;
        };
        tokio::select! {
            () = self.reader.ready() => {}
            () = ahead.reader.ready() => {}
        }
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
        if !self.judge(&frame.info) {
            // Nothing more of it: what is made of it follows, or nothing.
            self.leave_at_once(TrackId::Clean);
            return false;
        }
        if self.skips_to_key && !frame.is_key {
            return false;
        }
        self.skips_to_key = false;
        let before = self.discontinuities.unwrap_or(frame.discontinuities);
        if before != frame.discontinuities && !frame.is_key {
            // It refers to pictures of another encoder.
            return false;
        }
        let is_behind = self.shown.is_some_and(|shown| frame.pts <= shown);
        if frame.pts == frame.dts && !is_behind {
            return true;
        }
        // Reordered frames: a browser shows them in the order in which they come.
        self.leave_source();
        if frame.is_discardable {
            return false;
        }
        if is_behind {
            let next = self.ahead.as_ref().map_or(TrackId::Clean, Ahead::track);
            self.leave_at_once(next);
        }
        !is_behind
    }

    fn judge(&mut self, info: &Arc<TrackInfo>) -> bool {
        if let Some((judged, can)) = &self.judged
            && Arc::ptr_eq(judged, info)
        {
            return *can;
        }
        let can = self.decodes.can_show(info);
        self.judged = Some((Arc::clone(info), can));
        can
    }

    /// No frame of the source that refers to this one is shown: another track is, or the source
    /// from its next keyframe on where the viewer can take no other.
    fn leave_at_once(&mut self, next: TrackId) {
        if self.decodes.can_show_made() {
            self.settle(next);
        } else {
            self.skips_to_key = true;
        }
    }

    /// The source plays until what it is left for has caught up: a rung, or `clean`. Whoever can
    /// take neither stays.
    fn leave_source(&mut self) {
        if !self.is_passing() || !self.decodes.can_show_made() {
            return;
        }
        let (broadcast, shown) = (&self.broadcast, self.shown);
        let clean = || Ahead::new(broadcast, TrackId::Clean, shown);
        self.ahead.get_or_insert_with(clean).is_due = true;
    }

    /// Whether a frame waits for the keyframe of the next track.
    fn is_held(&self, frame: &Frame) -> bool {
        let Some(ahead) = &self.ahead else {
            return false;
        };
        let is_beyond = ahead.until.is_some_and(|until| frame.pts >= until);
        is_beyond && ahead.reader.next.is_none()
    }

    /// Moves when the next track has its keyframe and the one before has come up to it.
    fn move_on(&mut self) {
        let Some(ahead) = &mut self.ahead else { return };
        let Some(shown) = self.shown else {
            let track = ahead.track();
            return self.settle(track);
        };
        let is_made = self.reader.cursor.track().is_made();
        let waiting = self.reader.peek().map(|delivery| &*delivery.frame);
        if let Some(key) = ahead.key(&self.broadcast, shown) {
            let newest = ahead.reader.cursor.newest_dts();
            let is_far = newest.is_some_and(|newest| newest.saturating_since(key) > BEFORE_MAX);
            if waiting.is_none_or(|frame| frame.pts >= key) && (waiting.is_some() || is_far) {
                self.switch();
            }
            return;
        }
        let may_ask = ahead.until.is_none() && ahead.rests == 0 && ahead.track().is_made();
        if !may_ask || !ahead.has_caught_up(shown) {
            return;
        }
        let from = shown.shifted(1);
        ahead.ask_from(from);
        ahead.until = if is_made {
            // Of made tracks all have their keyframes together.
            waiting.filter(|frame| frame.is_key).map(|frame| frame.pts)
        } else {
            // A source is ahead of what is made of it.
            Some(from)
        };
    }

    /// The next frame is the keyframe of the next track.
    fn switch(&mut self) {
        let Some(ahead) = self.ahead.take() else {
            return;
        };
        self.reader = ahead.reader;
        if let Some(delivery) = &mut self.reader.next {
            // What was passed over to find it was shown by the other.
            delivery.skipped = 0;
        }
    }

    /// Nothing more of this track: the next frame is a keyframe of another, after the last one.
    fn settle(&mut self, track: TrackId) {
        self.ahead = None;
        let Some(shown) = self.shown else {
            self.reader = Reader::new(&self.broadcast, track, Start::NewestKey);
            return self.begin();
        };
        let from = shown.shifted(1);
        self.reader = Reader::new(&self.broadcast, track, Start::At(from));
        if track.is_made() {
            self.reader.cursor.request_keyframe_from(from);
        }
    }

    /// Whether a rendition can be made as things are.
    pub(super) fn can_show(&self, rendition: Rendition) -> bool {
        let track = track::shown(&self.broadcast, self.decodes, rendition);
        self.can_decode(rendition) && self.broadcast.unavailable(track).is_none()
    }

    /// Whether a rendition is in a form that the viewer takes: a source that is not waits to be.
    pub(super) fn can_decode(&self, rendition: Rendition) -> bool {
        rendition == Rendition::Source || self.decodes.can_show_made()
    }

    /// Goes to another rendition at once: this one is not made any more.
    pub(super) fn flee_to(&mut self, rendition: Rendition) {
        self.settle(track::shown(&self.broadcast, self.decodes, rendition));
    }
}
