//! What one viewer is sent, and when.
//!
//! Invariants
//! - A viewer never gets part of a frame followed by another without a skip to a keyframe (I30).
//! - A slow viewer slows nobody: it jumps to the newest keyframe.
//! - It is never left in silence: [`Playout::check`] says when it must be sent away.
//!
//! Not here: RTP, sockets.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pace::Run;
use super::picture::Picture;
use super::reader::Reader;
use super::track;
use crate::broadcast::{Broadcast, Start};
use crate::frame::{Frame, Kind, TrackId};
use crate::time::MediaTime;

/// The sound waits for the picture, so that both begin together, but no longer than this.
const PICTURE_WAIT_MAX: Duration = Duration::from_secs(1);
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A viewer that got no keyframe for this long, while there were pictures, is sent away.
const WITHOUT_KEY_MAX: Duration = Duration::from_secs(15);

/// What a viewer asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// The H.264 profile it offered for the picture.
    pub(super) profile: Option<u8>,
    pub(super) sound: bool,
}

impl Wants {
    /// The made tracks it needs as things are.
    pub(super) fn made(&self, broadcast: &Broadcast) -> impl Iterator<Item = TrackId> {
        let picture = self.profile.map(|p| track::picture(broadcast, p));
        let sound = self.sound.then(|| track::sound(broadcast));
        let all = picture.into_iter().chain(sound);
        all.filter(|track| track.is_made())
    }
}

/// The frames of one viewer.
#[derive(Debug)]
pub(super) struct Playout {
    broadcast: Arc<Broadcast>,
    picture: Option<Picture>,
    sound: Option<Sound>,
    /// The frames under way; `None` when all was sent.
    run: Option<Run>,
    /// When the first frame was asked for: the viewer is connected.
    began: Option<Instant>,
    checked: Option<Instant>,
    /// The source's newest picture at the last check.
    source: Option<MediaTime>,
    /// How long pictures came without a keyframe for this viewer.
    without_key: Duration,
}

/// The sound, made from the moment of the answer so that it is warm, sent from the first picture.
#[derive(Debug)]
struct Sound {
    reader: Reader,
    has_begun: bool,
}

impl Sound {
    fn new(broadcast: &Broadcast) -> Self {
        Self {
            reader: Reader::new(broadcast, track::sound(broadcast), Start::Live),
            has_begun: false,
        }
    }

    /// From `t` on, unless it plays already.
    fn begin_at(&mut self, t: MediaTime) {
        if !self.has_begun {
            self.has_begun = true;
            self.reader.cursor.jump_to(t);
        }
    }

    /// From what comes next.
    fn begin_live(&mut self, broadcast: &Broadcast) {
        self.has_begun = true;
        let track = self.reader.cursor.track();
        self.reader = Reader::new(broadcast, track, Start::Live);
    }

    /// Leaves out what lies before `t`.
    fn jump_to(&mut self, t: MediaTime) {
        let waiting = self.reader.next.as_ref();
        if self.has_begun && waiting.is_none_or(|d| d.frame.dts < t) {
            self.reader.next = None;
            self.reader.cursor.jump_to(t);
        }
    }
}

impl Playout {
    pub(super) fn new(broadcast: &Arc<Broadcast>, wants: Wants) -> Self {
        Self {
            picture: wants.profile.map(|p| Picture::new(broadcast, p)),
            sound: wants.sound.then(|| Sound::new(broadcast)),
            broadcast: Arc::clone(broadcast),
            run: None,
            began: None,
            checked: None,
            source: None,
            without_key: Duration::ZERO,
        }
    }

    /// Pictures passed over so far.
    pub(super) fn skipped(&self) -> u64 {
        self.picture.as_ref().map_or(0, Picture::skipped)
    }

    /// The next frame that may go now. The first call says that the viewer is there.
    pub(super) fn next(&mut self, now: Instant) -> Option<Arc<Frame>> {
        if self.began.is_none() {
            self.began = Some(now);
            if let Some(picture) = &mut self.picture {
                picture.begin();
            }
        }
        self.next_picture(now).or_else(|| self.next_sound(now))
    }

    /// When [`Self::next`] may give something although nothing new is written.
    pub(super) fn due(&self) -> Option<Instant> {
        let sound = self.sound.as_ref();
        if sound.is_some_and(|s| !s.has_begun)
            && let Some(began) = self.began
        {
            let begins = began + PICTURE_WAIT_MAX;
            return Some(self.frames_due().map_or(begins, |due| due.min(begins)));
        }
        self.frames_due()
    }

    fn frames_due(&self) -> Option<Instant> {
        let run = self.run?;
        let picture = self.picture.as_ref().and_then(Picture::waiting);
        let sound = self.sound.as_ref().and_then(|s| s.reader.next.as_ref());
        let waiting = picture.into_iter().chain(sound);
        waiting.map(|d| run.due(d.frame.dts)).min()
    }

    /// Waits for a frame. Cancel-safe.
    pub(super) async fn ready(&mut self) {
        let picture = async {
            match &mut self.picture {
                Some(picture) => picture.ready().await,
                None => std::future::pending().await,
            }
        };
        let sound = async {
            match &mut self.sound {
                Some(sound) if sound.has_begun => sound.reader.ready().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = picture => {}
            () = sound => {}
        }
    }

    /// The viewer cannot decode and wants a keyframe.
    pub(super) fn request_keyframe(&mut self) {
        if let Some(picture) = &mut self.picture {
            picture.request_keyframe();
        }
    }

    /// Looks once a second whether the viewer can go on; if not, why.
    pub(super) fn check(&mut self, now: Instant) -> Option<&'static str> {
        let passed = self.checked.map_or(CHECK_EVERY, |at| now - at);
        if passed < CHECK_EVERY {
            return None;
        }
        let is_first = self.checked.replace(now).is_none();
        let picture = self.picture.as_ref().and_then(Picture::unavailable);
        let sound = self.sound.as_ref();
        let sound = sound.and_then(|s| s.reader.cursor.unavailable());
        if picture.or(sound).is_some() {
            return Some("unavailable");
        }
        let picture = self.picture.as_mut()?;
        picture.check();
        // While the publisher is away there is no keyframe to be had.
        let source = self.broadcast.newest_dts(TrackId::Video);
        if source != std::mem::replace(&mut self.source, source) && !is_first {
            self.without_key += passed;
        }
        (self.without_key > WITHOUT_KEY_MAX).then_some("too_slow")
    }

    fn next_picture(&mut self, now: Instant) -> Option<Arc<Frame>> {
        let picture = self.picture.as_mut()?;
        loop {
            let Some(delivery) = picture.peek() else {
                self.run = None;
                return None;
            };
            let dts = delivery.frame.dts;
            let run = self.run.get_or_insert_with(|| Run::new(now, delivery));
            if now < run.due(dts) {
                return None;
            }
            if run.is_late(now, dts) {
                if let Some(key) = picture.jump() {
                    self.run = None;
                    if let Some(sound) = &mut self.sound {
                        sound.jump_to(key);
                    }
                    continue;
                }
                if !std::mem::replace(&mut run.has_asked, true) {
                    picture.request_keyframe();
                }
            }
            break;
        }
        let frame = picture.take()?;
        if frame.is_key {
            self.without_key = Duration::ZERO;
        }
        if let Some(sound) = &mut self.sound {
            sound.begin_at(frame.dts);
        }
        Some(frame)
    }

    fn next_sound(&mut self, now: Instant) -> Option<Arc<Frame>> {
        let may_begin = self.may_sound_begin(now);
        let sound = self.sound.as_mut()?;
        if !sound.has_begun {
            if may_begin {
                sound.begin_live(&self.broadcast);
            }
            return None;
        }
        let dts = sound.reader.peek()?.frame.dts;
        // The picture's pace is the sound's as well, or they would part.
        if self.run.is_some_and(|run| now < run.due(dts)) {
            return None;
        }
        sound.reader.next.take().map(|d| d.frame)
    }

    /// Whether the sound goes ahead without a picture.
    fn may_sound_begin(&self, now: Instant) -> bool {
        let is_alone = self.picture.is_none() || self.broadcast.source(Kind::Video).is_none();
        is_alone || self.began.is_some_and(|at| now >= at + PICTURE_WAIT_MAX)
    }
}
