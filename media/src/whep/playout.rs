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

use super::pace::{Narrow, Run};
use super::picture::Picture;
use super::reader::Reader;
use super::rendition::{Move, Policy, Sight};
use super::terms::Rendition;
use super::track;
use crate::broadcast::{Broadcast, OVERLOAD, Start};
use crate::frame::{Frame, Kind, TrackId};
use crate::time::MediaTime;
use crate::webrtc::sdp::Decodes;

/// The sound waits for the picture, so that both begin together, but no longer than this.
const PICTURE_WAIT_MAX: Duration = Duration::from_secs(1);
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// A viewer that got no keyframe for this long, while there were pictures, is sent away.
const WITHOUT_KEY_MAX: Duration = Duration::from_secs(15);

/// What a viewer asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wants {
    /// What it can decode, when it wants a picture.
    pub(super) picture: Option<Decodes>,
    pub(super) sound: bool,
    /// The one rendition it is shown; `None`: what its path carries.
    pub(super) rendition: Option<Rendition>,
}

impl Wants {
    /// The made tracks it needs as things are.
    pub(super) fn made(&self, broadcast: &Broadcast) -> impl Iterator<Item = TrackId> {
        let rendition = self.rendition.unwrap_or(Rendition::Source);
        let picture = self.picture.map(|d| track::shown(broadcast, d, rendition));
        let sound = self.sound.then(|| track::sound(broadcast));
        let all = picture.into_iter().chain(sound);
        all.filter(|track| track.is_made())
    }
}

/// What is seen of a viewer's path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) estimate_bps: u64,
    /// Of 256.
    pub(super) lost: u8,
    /// What came of the last probe, once that is known.
    pub(super) probe: Option<bool>,
}

/// How often the picture moved to another rendition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    pub(super) up: u64,
    pub(super) down: u64,
    /// What was shown could not be made any more.
    pub(super) forced: u64,
}

impl Moves {
    pub(super) const fn all(self) -> u64 {
        self.up + self.down + self.forced
    }
}

/// The frames of one viewer.
#[derive(Debug)]
pub(super) struct Playout {
    broadcast: Arc<Broadcast>,
    picture: Option<Picture>,
    /// `None` for a viewer that wants one rendition and no other.
    policy: Option<Policy>,
    /// That one rendition.
    pinned: Option<Rendition>,
    /// What it can be shown, the highest first, and the bits per second of each.
    renditions: Vec<Rendition>,
    rates: Vec<u64>,
    moves: Moves,
    sound: Option<Sound>,
    /// The frames under way; `None` when all was sent.
    run: Option<Run>,
    /// How a path that was found to be narrow is filled.
    narrow: Option<Narrow>,
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
        let rendition = wants.rendition.unwrap_or(Rendition::Source);
        let picture = |decodes| Picture::new(broadcast, decodes, rendition);
        Self {
            picture: wants.picture.map(picture),
            policy: wants.rendition.is_none().then(Policy::new),
            pinned: wants.rendition,
            renditions: Vec::new(),
            rates: Vec::new(),
            moves: Moves::default(),
            sound: wants.sound.then(|| Sound::new(broadcast)),
            broadcast: Arc::clone(broadcast),
            run: None,
            narrow: None,
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

    /// How often the picture moved to another rendition.
    pub(super) const fn moves(&self) -> Moves {
        self.moves
    }

    /// What is shown.
    pub(super) fn rendition(&self) -> Option<Rendition> {
        self.picture.as_ref().and_then(Picture::rendition)
    }

    /// Moves between renditions as the path wants it; the rate of a probe, when one is needed. To
    /// be called several times a second.
    pub(super) fn steer(&mut self, now: Instant, seen: Seen) -> Option<u64> {
        let behind = self.behind(now);
        let (Some(policy), Some(picture)) = (&mut self.policy, &mut self.picture) else {
            return None;
        };
        let playing = picture.rendition();
        let place = playing.map(|playing| self.renditions.iter().position(|r| *r == playing));
        // What plays is not in the list before it is known, and while it cannot be made.
        if self.renditions.is_empty() || place == Some(None) {
            return None;
        }
        let current = place.flatten();
        let sight = Sight {
            estimate_bps: seen.estimate_bps,
            lost: seen.lost,
            behind,
            rates: &self.rates,
            current,
            is_moving: picture.is_moving(),
            probe: seen.probe,
            has_sound: self.sound.is_some(),
        };
        let decided = policy.step(now, sight);
        match decided {
            Move::Stay => {}
            Move::Probe(bps) => return Some(bps),
            Move::SoundOnly => {
                picture.pause();
                self.run = None;
                self.moves.down += 1;
            }
            Move::To(place) => {
                if let Some(rendition) = self.renditions.get(place) {
                    picture.move_to(*rendition);
                    // The highest comes first; from no picture at all every one is up.
                    let is_down = current.is_some_and(|current| place > current);
                    let moves = &mut self.moves;
                    *(if is_down {
                        &mut moves.down
                    } else {
                        &mut moves.up
                    }) += 1;
                }
            }
        }
        tracing::debug!(
            ?decided,
            estimate.bps = seen.estimate_bps,
            behind_ms = behind.as_millis(),
            "rendition"
        );
        None
    }

    /// How long the picture that is due has waited.
    pub(super) fn behind(&self, now: Instant) -> Duration {
        let waiting = self.picture.as_ref().and_then(Picture::waiting);
        let waited = self.run.zip(waiting);
        waited.map_or(Duration::ZERO, |(run, d)| run.waited(now, d.frame.dts))
    }

    /// The path carries no more than this; `None` while it is not the limit.
    pub(super) fn narrow_to(&mut self, now: Instant, rate_bps: Option<u64>) {
        match (rate_bps, &mut self.narrow) {
            (Some(rate_bps), Some(narrow)) => narrow.set_rate(rate_bps),
            (Some(rate_bps), none) => *none = Some(Narrow::new(now, rate_bps)),
            (None, narrow) => *narrow = None,
        }
    }

    /// So many bytes were sent.
    pub(super) fn spend(&mut self, now: Instant, bytes: usize) {
        if let Some(narrow) = &mut self.narrow {
            narrow.spend(now, bytes);
        }
    }

    /// Looks what the viewer can be shown.
    fn look(&mut self) {
        let (Some(picture), true) = (&mut self.picture, self.policy.is_some()) else {
            return;
        };
        let all = track::renditions(&self.broadcast).into_iter();
        let decoded = all.filter(|(rendition, _)| picture.can_decode(*rendition));
        (self.renditions, self.rates) = decoded.unzip();
        let playing = picture.rendition();
        let is_known = playing.is_none_or(|playing| self.renditions.contains(&playing));
        if !is_known && !self.renditions.is_empty() && !picture.is_moving() {
            // The source has become less than the rung.
            picture.move_to(Rendition::Source);
        }
    }

    /// Goes back to the one rendition that the viewer wants, once it is made again.
    fn come_back(&mut self) {
        let (Some(pinned), Some(picture)) = (self.pinned, &mut self.picture) else {
            return;
        };
        let is_away = picture.rendition().is_some_and(|playing| playing != pinned);
        if is_away && !picture.is_moving() && picture.can_show(pinned) {
            picture.move_to(pinned);
        }
    }

    /// Goes on with another rendition when the one that plays is not made any more: the next lower
    /// one, else the next higher. False when there is none.
    ///
    /// A viewer that wants one rendition goes from it only for a while: when it is left out because
    /// there is too much to encode.
    fn flee(&mut self, reason: &'static str) -> bool {
        let may_flee = self.policy.is_some() || reason == OVERLOAD;
        let (Some(picture), true) = (&mut self.picture, may_flee) else {
            return false;
        };
        let lines = |rendition| match rendition {
            Rendition::Source => u16::MAX,
            Rendition::Rung(lines) => lines,
        };
        let playing = picture.rendition().map_or(0, lines);
        let all = track::renditions(&self.broadcast).into_iter();
        let all = all.map(|(rendition, _)| rendition);
        let others: Vec<_> = all
            .filter(|r| lines(*r) != playing && picture.can_show(*r))
            .collect();
        let lower = others.iter().find(|r| lines(**r) < playing);
        let Some(next) = lower.or_else(|| others.last()) else {
            return false;
        };
        picture.flee_to(*next);
        self.moves.forced += 1;
        true
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
        let free_at = self.narrow.map(|narrow| narrow.free_at);
        let picture = picture.map(|d| free_at.into_iter().fold(run.due(d.frame.dts), Instant::max));
        let sound = sound.map(|d| run.due(d.frame.dts));
        picture.into_iter().chain(sound).min()
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
        let sound = self.sound.as_ref();
        let sound = sound.and_then(|s| s.reader.cursor.unavailable());
        let picture = self.picture.as_mut().and_then(Picture::unavailable);
        if sound.is_some() || picture.is_some_and(|reason| !self.flee(reason)) {
            return Some("unavailable");
        }
        self.look();
        self.come_back();
        let picture = self.picture.as_mut()?;
        picture.check();
        if picture.rendition().is_none() {
            self.without_key = Duration::ZERO;
        }
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
            if self.narrow.is_some_and(|narrow| now < narrow.free_at) {
                return None;
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
