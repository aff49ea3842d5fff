//! One publish session: samples in, frames on T out.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::report::{About, Notes};
use super::timeline::{Moment, Reading, SessionClock, WallClock};
use super::{Broadcast, EndReason, unix_micros};
use crate::doctor::{Code, Seen};
use crate::frame::{Codec, Frame, Kind, Sample, TrackId, TrackInfo};
use crate::time::{MediaTime, samples_to_nanos};

/// How long the second track may take to appear before outputs go on without it.
pub(super) const SETTLE: Duration = Duration::from_millis(1_500);
/// One frame, when the rate is not known yet.
const FRAME_US_DEFAULT: i64 = 33_333;

/// The publisher changed what it sends in a way that one instance cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kind of codec changed in mid-session")]
pub struct CodecChanged;

/// One publish session. Dropping it lets the broadcast wait for the next one, as its policy says
/// of [`EndReason::Lost`].
#[derive(Debug)]
pub struct Publisher {
    broadcast: Arc<Broadcast>,
    number: u64,
    clock: SessionClock,
    first_media: Option<Instant>,
    opened: (Instant, OffsetDateTime),
    /// What this session said it sends.
    tracks: Vec<TrackInfo>,
    /// Boxed: a publisher is moved about before it is run.
    notes: Box<Notes>,
    reason: EndReason,
}

impl Publisher {
    pub(super) fn new(broadcast: Arc<Broadcast>, opened: (Instant, OffsetDateTime)) -> Self {
        let number = broadcast.attendance().number();
        Self {
            broadcast,
            number,
            clock: SessionClock::default(),
            first_media: None,
            opened,
            tracks: Vec::new(),
            notes: Box::new(Notes::new(opened.1)),
            reason: EndReason::Lost,
        }
    }

    /// Says who this is; the report of the session is there from now on.
    pub fn introduce(&mut self, now: Instant, about: About) {
        self.notes.introduce(about);
        self.publish_report(now);
    }

    /// Says what the encoder calls itself.
    pub fn name_encoder(&mut self, now: Instant, name: &str) {
        if self.notes.name_encoder(name) {
            self.publish_report(now);
        }
    }

    /// Says that something of the stream is so, or no more; the doctor's verdict tells it.
    pub fn note(&mut self, code: Code, is_so: bool) {
        self.notes.set(code, is_so);
    }

    /// Says that something just happened to the stream.
    pub fn found(&mut self, now: Instant, code: Code) {
        self.notes.doctor.find(now, code, 0.0);
    }

    /// Says how many thousandths of the packets were lost for good.
    pub const fn measure_loss(&mut self, per_mille: u64) {
        self.notes.loss_per_mille = Some(per_mille);
    }

    fn publish_report(&self, now: Instant) {
        let frame_rate = self.broadcast.facts(TrackId::Video).frame_rate;
        let report = Arc::new(self.notes.report(now, frame_rate));
        let attendance = self.broadcast.attendance();
        if attendance.number() == self.number && attendance.is_present() {
            *self.broadcast.reported() = Some(report);
        }
    }

    /// Looks after the session once a second.
    fn look(&mut self, now: Instant) {
        let had_fight = self.broadcast.attendance().had_fight(now);
        self.notes.doctor.lasts(Code::TwoEncoders, had_fight, 0.0);
        for change in self.notes.doctor.look(now) {
            self.broadcast.tell_verdict(change);
        }
        self.publish_report(now);
    }

    fn count(&self, seen: &Seen) {
        let Some(hub) = self.broadcast.hub.upgrade() else {
            return;
        };
        let kind = match seen.kind {
            Kind::Video => "video",
            Kind::Audio => "audio",
        };
        let labels = [self.notes.protocol(), kind];
        let bytes = u64::try_from(seen.bytes).unwrap_or(0);
        hub.stats().add_two("ingest_frames_total", labels, 1);
        hub.stats().add_two("ingest_bytes_total", labels, bytes);
    }

    /// What it publishes into.
    pub fn broadcast(&self) -> &Arc<Broadcast> {
        &self.broadcast
    }

    /// Sets the parameters of the picture or sound; identical ones are ignored. A session that
    /// comes back with other codecs than the broadcast had begins a new instance.
    ///
    /// # Errors
    /// [`CodecChanged`] when the track had another codec before in this session.
    pub fn set_track(&mut self, now: Instant, info: TrackInfo) -> Result<(), CodecChanged> {
        let kind = kind_of(info.codec);
        let is_other = |old: &TrackInfo| kind_of(old.codec) == kind && old.codec != info.codec;
        if self.tracks.iter().any(is_other) {
            return Err(CodecChanged);
        }
        self.tracks.retain(|old| kind_of(old.codec) != kind);
        self.tracks.push(info.clone());
        let old = self.broadcast.source(kind);
        if old.is_some_and(|old| old.codec != info.codec) {
            if self.first_media.is_some() {
                return Err(CodecChanged);
            }
            self.begin_anew(now);
        }
        self.put_track(now, info);
        Ok(())
    }

    /// The same session in a new instance.
    fn begin_anew(&mut self, now: Instant) {
        let Some(hub) = self.broadcast.hub.upgrade() else {
            return;
        };
        let wall = self.opened.1 + now.saturating_duration_since(self.opened.0);
        self.broadcast = hub.replace(&self.broadcast, (now, wall));
        self.opened = (now, wall);
        self.number = self.broadcast.attendance().number();
        for track in self.tracks.clone() {
            self.put_track(now, track);
        }
    }

    fn put_track(&mut self, now: Instant, info: TrackInfo) {
        let ring = self.broadcast.ring(source_track(kind_of(info.codec)));
        let old = ring.info();
        self.notes.doctor.track(&info);
        if old.is_none() && *self.broadcast.settled.borrow() {
            self.notes.set(Code::LateTrack, true);
        }
        let info = ring.set_info(info);
        if old.is_none_or(|old| old.generation != info.generation) {
            self.broadcast.tell_tracks_changed();
        }
        self.settle(now);
    }

    /// Places a sample on T and hands it to every reader. Takes bounded time; never waits.
    /// `None` when it was dropped: its track has no parameters yet, or it lies before the epoch.
    pub fn write(&mut self, now: Instant, sample: Sample) -> Option<MediaTime> {
        let broadcast = Arc::clone(&self.broadcast);
        let ring = broadcast.ring(source_track(sample.kind));
        let info = ring.info()?;
        // Held to the end: whoever takes over waits for this frame, and none comes after.
        let mut attendance = broadcast.attendance();
        if attendance.number() != self.number {
            return None;
        }
        self.begin(now);
        let is_first = !attendance.is_sending;
        let elapsed_us = broadcast.elapsed_us(now);
        let reading = Reading {
            kind: sample.kind,
            dts: sample.dts,
            audio: info
                .audio_rate()
                .filter(|_| sample.samples > 0)
                .map(|r| (sample.samples, r)),
        };
        let moment = Moment {
            elapsed_us,
            newest: attendance.newest,
            frame_us: FRAME_US_DEFAULT,
        };
        let stamp = self.clock.stamp(reading, moment)?;
        broadcast.follow(stamp, elapsed_us, is_first);
        let pts = stamp.t + sample.composition;
        self.stamp_cues(sample.kind, pts);
        let seen = Seen {
            kind: sample.kind,
            t: stamp.t,
            elapsed_us,
            is_reordered: !sample.composition.is_zero(),
            is_key: sample.is_key,
            bytes: sample.payload.len(),
            // A session that comes back begins anew, which is no jump.
            is_reanchored: stamp.is_discontinuity && !is_first,
        };
        self.notes.doctor.observe(now, &seen);
        self.count(&seen);
        let duration = reading.audio.map(|(samples, rate)| {
            Duration::from_nanos(u64::try_from(samples_to_nanos(samples, rate)).unwrap_or(0))
        });
        let frame = Frame {
            track: ring.track(),
            info,
            dts: stamp.t,
            pts,
            duration,
            is_key: sample.is_key,
            is_discardable: sample.is_discardable,
            discontinuities: broadcast.discontinuities.load(Ordering::Acquire),
            payload: sample.payload,
            rtp: OnceLock::new(),
            flv: OnceLock::new(),
            chunks: OnceLock::new(),
            arrived: OnceLock::new(),
        };
        attendance.newest = attendance.newest.max(Some(stamp.t));
        attendance.newest_at = Some(now);
        (attendance.has_media, attendance.is_sending) = (true, true);
        self.settle(now);
        let is_taken = ring.push(Arc::new(frame));
        drop(attendance);
        if self.notes.doctor.is_due(now) {
            self.look(now);
        }
        is_taken.then_some(stamp.t)
    }

    /// Waits until the server ends the broadcast, or a newer session takes this one's place.
    pub async fn ended(&self) -> EndReason {
        let mut session = self.broadcast.session.subscribe();
        tokio::select! {
            reason = self.broadcast.ended() => reason,
            _newer = session.wait_for(|number| *number != self.number) => EndReason::Replaced,
        }
    }

    /// Ends the session; the reason decides how long the broadcast waits for the next one.
    pub fn finish(mut self, reason: EndReason) {
        self.reason = reason;
    }

    /// The first media of all fixes the epoch: its arrival is the server time of T = 0.
    fn begin(&mut self, now: Instant) {
        if self.first_media.is_some() {
            return;
        }
        self.first_media = Some(now);
        let origin = &self.broadcast.origin;
        let mut origin = origin.lock().unwrap_or_else(PoisonError::into_inner);
        if origin.is_none() {
            *origin = Some(now);
            let wall = self.opened.1 + now.saturating_duration_since(self.opened.0);
            *self.broadcast.clock() = WallClock::new(unix_micros(wall));
        }
    }

    fn stamp_cues(&self, kind: Kind, pts: MediaTime) {
        if kind == Kind::Video || self.broadcast.source(Kind::Video).is_none() {
            self.broadcast.cues.stamp_pending(pts);
            self.broadcast.cues.lapse(pts);
        }
    }

    fn settle(&self, now: Instant) {
        if *self.broadcast.settled.borrow() {
            return;
        }
        let has_both = self.broadcast.source(Kind::Video).is_some()
            && self.broadcast.source(Kind::Audio).is_some();
        let is_late = self.first_media.is_some_and(|first| now - first >= SETTLE);
        if has_both || is_late {
            self.broadcast.settled.send_replace(true);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.broadcast
            .leave(Instant::now(), self.number, self.reason);
    }
}

const fn source_track(kind: Kind) -> TrackId {
    match kind {
        Kind::Video => TrackId::Video,
        Kind::Audio => TrackId::Audio,
    }
}

const fn kind_of(codec: Codec) -> Kind {
    match codec {
        Codec::H264 | Codec::Hevc | Codec::Av1 => Kind::Video,
        Codec::Aac | Codec::Opus => Kind::Audio,
    }
}
