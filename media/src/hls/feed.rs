//! Where the picture of `src` comes from: the publisher's track, or `clean` behind the same address
//! (spec media.md 6.3 rule 4).
//!
//! Invariants
//! - A change of feed leaves no hole: the source is passed on up to the keyframe of `clean` that
//!   takes over.
//! - Nothing waits long for `clean`; whatever becomes of it, the source goes on.
//! - Once `clean` has failed it is not asked for again in this publish session; a publisher that
//!   comes back is passed through until it gives way again.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::broadcast::{Broadcast, Cursor, Delivery, Ended, Start};
use crate::frame::{Codec, Frame, TrackId, TrackInfo};
use crate::time::MediaTime;

/// A source whose keyframes are farther apart, or with fewer frames, gives way to `clean`.
const GOP_MAX: Duration = Duration::from_secs(3);
const FRAME_RATE_MIN: f64 = 10.0;
/// Frames that must have come before their rate counts.
const RATE_KNOWN_AFTER: Duration = Duration::from_secs(2);
/// `clean` this far behind is waited for; farther behind it still has to catch up.
const NEAR: Duration = Duration::from_millis(500);
/// How long a frame of the source waits for that of `clean`, beyond two of its own length.
const HOLD: Duration = Duration::from_millis(600);
/// After waiting in vain the source goes on unhindered for this long.
const REST: Duration = Duration::from_secs(2);

/// A frame of the picture.
#[derive(Debug)]
pub(super) struct Fed {
    pub(super) frame: Arc<Frame>,
    /// It is the first of another feed than the frame before.
    pub(super) is_turn: bool,
    /// Frames before it were lost.
    pub(super) is_after_loss: bool,
}

/// The picture of `src`, whichever track it is read from.
#[derive(Debug)]
pub(super) struct VideoFeed {
    broadcast: Arc<Broadcast>,
    cursor: Cursor,
    mode: Mode,
    /// A frame of the source, taken from its ring, that waits for `clean`.
    held: Option<HeldFrame>,
    /// Decode time of the newest frame passed on.
    passed: Option<MediaTime>,
    /// Discontinuities of T before that frame.
    discontinuities: u32,
    /// The next frame is the first of this feed.
    has_turned: bool,
    watch: Watch,
}

#[derive(Debug)]
enum Mode {
    Source,
    /// The source is passed on until a keyframe of `clean` can take over.
    Turning(Turning),
    Clean,
}

#[derive(Debug)]
struct Turning {
    clean: Cursor,
    /// The first keyframe of `clean` that is not behind what was passed on.
    key: Option<Arc<Frame>>,
    /// No frame waits before this.
    rests_until: Option<Instant>,
}

#[derive(Debug)]
struct HeldFrame {
    delivery: Delivery,
    until: Instant,
}

enum Verdict {
    Pass,
    Wait,
    Turn(Arc<Frame>),
}

/// Looks for what an LL-HLS player cannot take as it is.
#[derive(Debug, Default)]
struct Watch {
    began: Option<MediaTime>,
    /// Keyframes seen.
    keys: u32,
    /// `clean` has failed.
    is_over: bool,
}

impl VideoFeed {
    /// The picture from the oldest keyframe in the ring on.
    pub(super) fn new(broadcast: Arc<Broadcast>) -> Self {
        let cursor = broadcast.cursor(TrackId::Video, Start::OldestKey);
        Self {
            broadcast,
            cursor,
            mode: Mode::Source,
            held: None,
            passed: None,
            discontinuities: 0,
            has_turned: false,
            watch: Watch::default(),
        }
    }

    /// The parameters of the track that is read now, once known.
    pub(super) fn info(&self) -> Option<Arc<TrackInfo>> {
        self.cursor.info()
    }

    /// Whether it is known from where the picture comes for long: players that begin just before
    /// the feed changes stumble over it.
    pub(super) fn is_settled(&self) -> bool {
        match self.mode {
            Mode::Source => {
                let is_other = self.info().is_some_and(|info| info.codec != Codec::H264);
                is_other || self.watch.is_over || self.watch.keys >= 2
            }
            Mode::Turning(_) => false,
            Mode::Clean => true,
        }
    }

    /// The next frame, if it may be passed on already.
    pub(super) fn next(&mut self, now: Instant) -> Option<Fed> {
        loop {
            match &self.mode {
                Mode::Source => {
                    let delivery = self.take_source(now)?.delivery;
                    if self.is_new_session(&delivery) {
                        self.watch = Watch::default();
                    }
                    // HEVC and AV1 are always passed through: who asks for them wants them.
                    let is_possible = delivery.frame.info.codec == Codec::H264
                        && self.broadcast.unavailable(TrackId::Clean).is_none();
                    if self.watch.gives_way(&delivery.frame, &self.cursor) && is_possible {
                        self.turn(delivery.frame.dts);
                    }
                    return Some(self.pass(delivery));
                }
                Mode::Turning(turning) => {
                    let Some(reason) = turning.clean.unavailable() else {
                        return self.next_turning(now);
                    };
                    self.give_up(reason);
                }
                Mode::Clean => {
                    if let Some(delivery) = self.cursor.try_next() {
                        if self.comes_back(&delivery.frame) {
                            continue;
                        }
                        return Some(self.pass(delivery));
                    }
                    let reason = self.cursor.unavailable()?;
                    self.fall_back(reason);
                }
            }
        }
    }

    /// Waits until [`VideoFeed::next`] may give something. Cancel-safe.
    pub(super) async fn ready(&mut self) -> Result<(), Ended> {
        match (&mut self.mode, &self.held) {
            (Mode::Clean, _) => self.cursor.ready_or_unavailable().await,
            (Mode::Turning(turning), Some(held)) => {
                tokio::select! {
                    ready = turning.clean.ready_or_unavailable() => ready,
                    () = sleep_until(held.until) => Ok(()),
                }
            }
            _ => self.cursor.ready().await,
        }
    }

    /// What is left is passed on without waiting for anything.
    pub(super) fn hurry(&mut self) {
        if let Mode::Turning(_) = self.mode {
            self.mode = Mode::Source;
            self.watch.is_over = true;
        }
    }

    fn pass(&mut self, delivery: Delivery) -> Fed {
        self.passed = Some(delivery.frame.dts);
        self.discontinuities = delivery.frame.discontinuities;
        Fed {
            frame: delivery.frame,
            is_turn: std::mem::take(&mut self.has_turned),
            is_after_loss: delivery.skipped > 0,
        }
    }

    fn take_source(&mut self, now: Instant) -> Option<HeldFrame> {
        self.held.take().or_else(|| {
            let delivery = self.cursor.try_next()?;
            let passed = self.passed.unwrap_or(delivery.frame.dts);
            let length = delivery.frame.dts.saturating_since(passed);
            let until = now + HOLD + length.min(GOP_MAX) * 2;
            Some(HeldFrame { delivery, until })
        })
    }

    fn turn(&mut self, from: MediaTime) {
        let broadcast = self.broadcast.key();
        info!(broadcast.id = %broadcast, "pictures or keyframes too far apart, re-encoding");
        let clean = self.broadcast.cursor(TrackId::Clean, Start::At(from));
        self.mode = Mode::Turning(Turning {
            clean,
            key: None,
            rests_until: None,
        });
    }

    fn next_turning(&mut self, now: Instant) -> Option<Fed> {
        let held = self.take_source(now)?;
        if self.is_new_session(&held.delivery) {
            self.mode = Mode::Source;
            self.watch = Watch::default();
        }
        let Mode::Turning(turning) = &mut self.mode else {
            return Some(self.pass(held.delivery));
        };
        match turning.judge(&held, self.passed, now) {
            Verdict::Pass => Some(self.pass(held.delivery)),
            Verdict::Wait => {
                self.held = Some(held);
                None
            }
            Verdict::Turn(key) => {
                let mode = std::mem::replace(&mut self.mode, Mode::Clean);
                if let Mode::Turning(turning) = mode {
                    self.cursor = turning.clean;
                }
                self.has_turned = true;
                Some(self.pass(Delivery {
                    newest: key.dts,
                    frame: key,
                    skipped: 0,
                }))
            }
        }
    }

    /// A publisher begins with a keyframe; T jumping in mid-session does not.
    fn is_new_session(&self, delivery: &Delivery) -> bool {
        let frame = &delivery.frame;
        let is_jump = frame.discontinuities != self.discontinuities;
        is_jump && frame.is_key && delivery.skipped == 0
    }

    /// The publisher of this frame of `clean` has come back: its picture is passed through again.
    fn comes_back(&mut self, frame: &Frame) -> bool {
        if frame.discontinuities == self.discontinuities {
            return false;
        }
        let from = self.passed.unwrap_or(frame.dts).shifted(1);
        let source = || self.broadcast.cursor(TrackId::Video, Start::At(from));
        let first = source().try_next();
        if !first.is_some_and(|delivery| self.is_new_session(&delivery)) {
            return false;
        }
        let broadcast = self.broadcast.key();
        info!(broadcast.id = %broadcast, "the publisher is back, no re-encoding for now");
        self.cursor = source();
        self.mode = Mode::Source;
        self.watch = Watch::default();
        self.has_turned = true;
        true
    }

    /// `clean` cannot be made after all; nothing of it was shown.
    fn give_up(&mut self, reason: &'static str) {
        warn!(broadcast.id = %self.broadcast.key(), reason, "no re-encoding, the source stays");
        self.mode = Mode::Source;
        self.watch.is_over = true;
    }

    /// `clean` cannot be made any longer: the source comes back at its next keyframe.
    fn fall_back(&mut self, reason: &'static str) {
        let broadcast = self.broadcast.key();
        warn!(broadcast.id = %broadcast, reason, "re-encoding failed, back to the source");
        let from = self.passed.unwrap_or(MediaTime::ZERO).shifted(1);
        self.cursor = self.broadcast.cursor(TrackId::Video, Start::At(from));
        self.mode = Mode::Source;
        self.watch.is_over = true;
        self.has_turned = true;
    }
}

impl Turning {
    /// What becomes of a frame of the source.
    fn judge(&mut self, held: &HeldFrame, passed: Option<MediaTime>, now: Instant) -> Verdict {
        let next = held.delivery.frame.dts;
        let passed = passed.unwrap_or(next);
        // A keyframe behind what was passed on already is of no use.
        self.key = self.key.take().filter(|key| key.dts > passed);
        while self.key.is_none() {
            let Some(delivery) = self.clean.try_next() else {
                break;
            };
            self.key = Some(delivery.frame).filter(|f| f.is_key && f.dts > passed);
        }
        if let Some(key) = self.key.take_if(|key| key.dts <= next) {
            return Verdict::Turn(key);
        }
        let newest = self.clean.newest_dts();
        let length = next.saturating_since(passed);
        let is_near = newest.is_some_and(|newest| {
            newest < next && passed.saturating_since(newest) <= NEAR + length
        });
        if self.key.is_some() || !is_near || self.rests_until.is_some_and(|t| now < t) {
            return Verdict::Pass;
        }
        if now < held.until {
            return Verdict::Wait;
        }
        self.rests_until = Some(now + REST);
        Verdict::Pass
    }
}

impl Watch {
    /// Rule 4: whether the source can no longer be passed through.
    fn gives_way(&mut self, frame: &Frame, source: &Cursor) -> bool {
        let began = *self.began.get_or_insert(frame.dts);
        self.keys = self.keys.saturating_add(frame.is_key.into());
        // As converters measure it, who have their keyframes where the source has until then.
        let is_long = source.gop() > GOP_MAX;
        let is_known = frame.dts.saturating_since(began) > RATE_KNOWN_AFTER;
        let is_slow = || {
            let rate = source.facts().frame_rate;
            rate.is_some_and(|rate| rate < FRAME_RATE_MIN)
        };
        !self.is_over && (is_long || is_known && is_slow())
    }
}
