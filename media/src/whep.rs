//! WHEP: an offer in, an answer out, a session to run (draft-ietf-wish-whep-04; spec media.md
//! 4.1, 4.2, 4.4).
//!
//! Invariants
//! - One SSRC, one sequence, one clock per kind for the whole session.
//! - A viewer never gets part of a frame followed by another without a skip to a keyframe (I30).
//! - A slow viewer slows nobody: it jumps to the newest keyframe.
//!
//! Not here: routes, who may watch, how many; bandwidth estimation and rungs.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::broadcast::{Broadcast, Broadcasts, Cursor, Delivery, Start};
use crate::cue::{CueCursor, CueKind, CueNews};
use crate::frame::{Codec, Kind, TrackId};
use crate::stats::Stats;
use crate::time::MediaTime;
use crate::webrtc::message::{self, RtpLine, RtpLines};
use crate::webrtc::peer::{Peer, PeerSpec, Protection, offers_gcm};
use crate::webrtc::sdp::{Offer, OfferError};
use crate::webrtc::{Burst, Datagram, Inbox, Port};

/// Removed when not connected by then.
const CONNECT: Duration = Duration::from_secs(15);
/// Lost when nothing authenticated came for this long.
const SILENCE: Duration = Duration::from_secs(30);
/// A source whose keyframes are farther apart is not passed through.
const GOP_MAX: Duration = Duration::from_secs(3);
/// A made track gives a new viewer a keyframe at most this old.
const FRESH: Duration = Duration::from_secs(1);
/// How far behind a viewer may fall before it jumps.
const BEHIND_MAX: Duration = Duration::from_millis(500);
/// Frames are sent this much faster than real time until the viewer is live.
const CATCH_UP_PERCENT: i64 = 250;
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Data channel bytes in flight: passing cues are dropped, then the channel is closed.
const PASSING_BYTES_MAX: usize = 64 << 10;
const LISTED_BYTES_MAX: usize = 256 << 10;
/// Datagrams taken before anything else gets a turn.
const DATAGRAMS_AT_ONCE: usize = 64;

/// Why an offer was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum WhepError {
    /// 400 or 422: the offer itself.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// 503: what the viewer needs cannot be made now.
    #[error("the picture cannot be converted for this viewer now")]
    Unavailable,
    /// The engine refused an offer that had passed our judgement.
    #[error("the offer cannot be answered")]
    Engine(#[source] rtc::shared::error::Error),
}

/// An accepted viewer.
#[derive(Debug)]
pub struct Accepted {
    /// 128 random bits: knowing it is the right to end the session.
    pub id: String,
    /// The SDP answer.
    pub answer: String,
    /// Run it, or the viewer gets nothing.
    pub session: Session,
}

/// Judges an offer and builds its session. Costs milliseconds of CPU: not for a media task.
///
/// # Errors
/// [`WhepError`] says which status it is.
pub fn accept(
    port: &Arc<Port>,
    broadcast: &Arc<Broadcast>,
    offer: &str,
    now: Instant,
) -> Result<Accepted, WhepError> {
    let profile = source_profile(broadcast);
    let offer = Offer::read(offer, profile)?;
    let video = offer
        .video
        .as_ref()
        .map(|choice| video_track(broadcast, choice.profile));
    if video == Some(TrackId::Clean) && broadcast.unavailable(TrackId::Clean).is_some() {
        return Err(WhepError::Unavailable);
    }
    let mut random = [0_u8; 64];
    getrandom::fill(&mut random).expect("the operating system gives random bytes");
    let (id, ufrag, password) = names(&random);
    let number = |at: usize| {
        random
            .iter()
            .skip(at)
            .take(4)
            .fold(0_u32, |sum, b| sum << 8 | u32::from(*b))
    };
    let lines = RtpLines {
        video: offer.video.is_some().then(|| RtpLine {
            rate: 90_000,
            offset: number(40),
        }),
        audio: offer.audio.is_some().then(|| RtpLine {
            rate: 48_000,
            offset: number(44),
        }),
    };
    let spec = PeerSpec {
        offer,
        ufrag,
        password,
        video_ssrc: number(48) | 1,
        audio_ssrc: (number(52) | 1) ^ 2,
        lines,
    };
    let inbox = port.enter(&spec.ufrag);
    let (peer, answer) =
        Peer::build(port, &spec, Protection::Gcm, now.into_std()).map_err(WhepError::Engine)?;
    let session = Session {
        port: Arc::clone(port),
        broadcast: Arc::clone(broadcast),
        cues: broadcast.cues(),
        video: video.map(|track| Reader::new(broadcast, track)),
        audio: None,
        has_audio: spec.offer.audio.is_some(),
        spec,
        peer: Box::new(peer),
        inbox,
        burst: Burst::default(),
        greeted: false,
        gate: None,
        heard: now,
        clock_at: now,
        skipped: 0,
    };
    Ok(Accepted {
        id,
        answer,
        session,
    })
}

/// Session id (128 bits), ICE name and password from random bytes.
fn names(random: &[u8; 64]) -> (String, String, String) {
    const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/";
    let (id, rest) = random.split_at(16);
    let text = |bytes: &[u8], digits: usize| -> String {
        bytes
            .iter()
            .map(|b| char::from(DIGITS[usize::from(*b) % digits]))
            .collect()
    };
    let id = id.iter().map(|b| format!("{b:02x}")).collect();
    let (ufrag, rest) = rest.split_at(16);
    (id, text(ufrag, 64), text(rest.split_at(28).0, 64))
}

/// `profile_idc` of the source picture; that of `clean` when the source is not H.264.
fn source_profile(broadcast: &Broadcast) -> u8 {
    let info = broadcast.source(Kind::Video);
    info.filter(|info| info.codec == Codec::H264)
        .and_then(|info| info.config.get(1).copied())
        .unwrap_or(66)
}

/// Passes the source through where the viewer can take it as it is.
fn video_track(broadcast: &Broadcast, offered_profile: u8) -> TrackId {
    let facts = broadcast.facts(TrackId::Video);
    let info = broadcast.source(Kind::Video);
    if info.as_ref().is_some_and(|i| i.codec != Codec::H264) {
        return TrackId::Clean;
    }
    let says_reordering = info.and_then(|i| i.reorder_frames).is_some_and(|n| n > 0);
    let is_plain = !facts.has_reordering && !says_reordering && facts.gop <= GOP_MAX;
    if is_plain && source_profile(broadcast) <= offered_profile {
        TrackId::Video
    } else {
        TrackId::Clean
    }
}

/// Opus is passed through, other sound is made into it.
fn audio_track(broadcast: &Broadcast) -> TrackId {
    let info = broadcast.source(Kind::Audio);
    if info.is_some_and(|info| info.codec == Codec::Opus) {
        TrackId::Audio
    } else {
        TrackId::Opus
    }
}

/// A cursor and the frame it gave that may not be sent yet.
#[derive(Debug)]
struct Reader {
    cursor: Cursor,
    next: Option<Delivery>,
}

impl Reader {
    fn new(broadcast: &Broadcast, track: TrackId) -> Self {
        Self {
            cursor: broadcast.cursor(track, Start::NewestKey),
            next: None,
        }
    }

    fn at(broadcast: &Broadcast, track: TrackId, t: MediaTime) -> Self {
        Self {
            cursor: broadcast.cursor(track, Start::At(t)),
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

/// One viewer, from its answer to its end.
#[derive(Debug)]
pub struct Session {
    port: Arc<Port>,
    broadcast: Arc<Broadcast>,
    spec: PeerSpec,
    /// Boxed: it is large, and sessions are moved when they are spawned.
    peer: Box<Peer>,
    inbox: Inbox,
    burst: Burst,
    cues: CueCursor,
    video: Option<Reader>,
    audio: Option<Reader>,
    has_audio: bool,
    /// True once the protection was settled by the first DTLS message.
    greeted: bool,
    gate: Option<Gate>,
    heard: Instant,
    clock_at: Instant,
    skipped: u64,
}

enum Turn {
    Go,
    End(&'static str),
}

impl Session {
    /// Serves the viewer until it goes, the broadcast ends, or `cancel`.
    pub async fn run(mut self, cancel: CancellationToken, hub: Arc<Broadcasts>) {
        let until = Instant::now() + CONNECT;
        let reason = loop {
            let now = Instant::now();
            self.work(now).await;
            if self.peer.is_over {
                break "gone";
            }
            if !self.peer.is_connected && now >= until {
                break "not_connected";
            }
            if now.saturating_duration_since(self.heard) > SILENCE {
                break "silent";
            }
            let wake = self.wake_at(now, until);
            match self.wait(wake, &cancel).await {
                Turn::Go => {}
                Turn::End(reason) => break reason,
            }
        };
        self.finish(reason, hub.stats()).await;
    }

    /// Everything that can be done now.
    async fn work(&mut self, now: Instant) {
        if self.peer.deadline().is_some_and(|at| at <= now.into_std()) {
            self.peer.tick(now.into_std());
        }
        self.peer
            .drain(now.into_std(), &self.port, &mut self.burst)
            .await;
        if self.peer.is_connected {
            self.answer_keyframe_request();
            self.send_video(now).await;
            self.send_audio(now).await;
            self.send_clock(now);
            self.send_cues(now);
            self.peer
                .drain(now.into_std(), &self.port, &mut self.burst)
                .await;
        }
    }

    async fn wait(&mut self, wake: Instant, cancel: &CancellationToken) -> Turn {
        let is_live = self.peer.is_connected;
        let video = self.video.as_mut().filter(|r| is_live && r.next.is_none());
        let audio = self.audio.as_mut().filter(|r| is_live && r.next.is_none());
        let mut read_cues = false;
        let turn = tokio::select! {
            biased;
            () = cancel.cancelled() => Turn::End("shutdown"),
            _reason = self.broadcast.ended() => Turn::End("ended"),
            datagram = self.inbox.next() => match datagram {
                Some(datagram) => {
                    self.take(datagram);
                    Turn::Go
                }
                None => Turn::End("closed"),
            },
            () = sleep_until(wake) => Turn::Go,
            () = ready(video) => Turn::Go,
            () = ready(audio) => Turn::Go,
            news = self.cues.next(), if is_live && self.peer.channel_opened => {
                read_cues = true;
                if let Ok(news) = news {
                    self.send_cue(Instant::now(), &news);
                }
                Turn::Go
            }
        };
        if !read_cues {
            for _ in 0..DATAGRAMS_AT_ONCE {
                let Some(datagram) = self.inbox.try_next() else {
                    break;
                };
                self.take(datagram);
            }
        }
        turn
    }

    fn take(&mut self, datagram: Datagram) {
        let now = Instant::now();
        self.heard = now;
        if !self.greeted
            && let Some(offers_gcm) = offers_gcm(&datagram.bytes)
        {
            self.greeted = true;
            debug!(is_gcm = offers_gcm, "client hello");
            if !offers_gcm {
                self.fall_back(now);
            }
        }
        self.peer.receive(now.into_std(), datagram);
    }

    /// The client has no GCM: the same connection again, with the older protection. What ICE has
    /// learnt so far is learnt again from the next check.
    fn fall_back(&mut self, now: Instant) {
        let built = Peer::build(&self.port, &self.spec, Protection::Sha1, now.into_std());
        match built {
            Ok((peer, _same_answer)) => *self.peer = peer,
            Err(err) => debug!(error = %err, "cannot fall back to the older protection"),
        }
    }

    fn wake_at(&self, now: Instant, until: Instant) -> Instant {
        let mut wake = now + Duration::from_secs(1);
        if !self.peer.is_connected {
            wake = wake.min(until);
        }
        if let Some(at) = self.peer.deadline() {
            wake = wake.min(Instant::from_std(at));
        }
        if let Some(gate) = self.gate {
            let next = [self.video.as_ref(), self.audio.as_ref()];
            let due = next.into_iter().flatten().filter_map(|r| r.next.as_ref());
            for delivery in due {
                wake = wake.min(gate.due(delivery.frame.dts));
            }
        }
        wake
    }

    async fn send_video(&mut self, now: Instant) {
        loop {
            let newest = self.video.as_ref().and_then(|r| r.cursor.newest_dts());
            let Some(delivery) = self.video.as_mut().and_then(Reader::peek) else {
                return;
            };
            let frame = Arc::clone(&delivery.frame);
            if frame.track == TrackId::Video && frame.pts != frame.dts {
                // B-frames appeared: a browser would show them in the wrong order.
                self.video = Some(Reader::new(&self.broadcast, TrackId::Clean));
                continue;
            }
            if !self.may_go(now, frame.dts, newest) {
                return;
            }
            if self.is_stale(now, &frame) {
                if let Some(reader) = &mut self.video {
                    reader.next = None;
                    reader.cursor.request_keyframe();
                }
                continue;
            }
            self.skipped += u64::from(delivery_skipped(&mut self.video));
            if self.has_audio && self.audio.is_none() {
                let track = audio_track(&self.broadcast);
                self.audio = Some(Reader::at(&self.broadcast, track, frame.dts));
            }
            self.peer.write(now.into_std(), &frame);
            self.peer
                .drain(now.into_std(), &self.port, &mut self.burst)
                .await;
        }
    }

    async fn send_audio(&mut self, now: Instant) {
        if self.has_audio && self.audio.is_none() && self.video.is_none() {
            let from = self.broadcast.now_t(now);
            let track = audio_track(&self.broadcast);
            self.audio = Some(Reader::at(&self.broadcast, track, from));
        }
        loop {
            let newest = self.audio.as_ref().and_then(|r| r.cursor.newest_dts());
            let Some(delivery) = self.audio.as_mut().and_then(Reader::peek) else {
                return;
            };
            let frame = Arc::clone(&delivery.frame);
            if !self.may_go(now, frame.dts, newest) {
                return;
            }
            delivery_skipped(&mut self.audio);
            self.peer.write(now.into_std(), &frame);
            self.peer
                .drain(now.into_std(), &self.port, &mut self.burst)
                .await;
        }
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
    fn is_stale(&mut self, now: Instant, frame: &crate::frame::Frame) -> bool {
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

    fn answer_keyframe_request(&mut self) {
        if self.peer.wants_keyframe()
            && let Some(reader) = &self.video
        {
            // On a passthrough track the next keyframe is never farther than the GOP rule allows.
            reader.cursor.request_keyframe();
        }
    }

    fn send_clock(&mut self, now: Instant) {
        if !self.peer.channel_opened || now < self.clock_at {
            return;
        }
        let t = self.broadcast.now_t(now);
        let text = message::clock(&self.spec.lines, t, self.broadcast.wall(t));
        if self.peer.send_text(now.into_std(), text) {
            self.clock_at = now + CLOCK_EVERY;
        }
    }

    fn send_cues(&mut self, now: Instant) {
        if !self.peer.channel_opened {
            return;
        }
        while let Some(news) = self.cues.try_next() {
            self.send_cue(now, &news);
        }
    }

    fn send_cue(&mut self, now: Instant, news: &CueNews) {
        let unsent = self.peer.unsent_text();
        let is_passing = matches!(news, CueNews::Opened(cue) if cue.kind == CueKind::Passing);
        if is_passing && unsent > PASSING_BYTES_MAX {
            return;
        }
        if unsent > LISTED_BYTES_MAX {
            self.peer.close_channel();
            return;
        }
        let text = message::cue(&self.spec.lines, news);
        self.peer.send_text(now.into_std(), text);
    }

    async fn finish(mut self, reason: &'static str, stats: &Stats) {
        let now = Instant::now();
        let word = if reason == "gone" { None } else { Some(reason) };
        if let Some(word) = word.filter(|_| self.peer.is_connected) {
            self.peer.send_text(now.into_std(), message::bye(word));
            self.peer
                .drain(now.into_std(), &self.port, &mut self.burst)
                .await;
        }
        self.peer.close();
        self.peer
            .drain(now.into_std(), &self.port, &mut self.burst)
            .await;
        let (calls, datagrams, bytes) = self.burst.sent;
        stats.add("egress_bytes_total", "whep", bytes);
        stats.add("egress_packets_total", "whep", datagrams);
        stats.add("udp_sends_total", "whep", calls);
        stats.add("frames_skipped_total", "whep", self.skipped);
        stats.add("rtp_nack_received_total", "whep", self.peer.nacks());
        info!(
            reason,
            egress.bytes = bytes,
            frames.skipped = self.skipped,
            "viewer gone"
        );
    }
}

/// Takes the peeked frame; returns how many were passed over before it.
fn delivery_skipped(reader: &mut Option<Reader>) -> u32 {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use time::OffsetDateTime;

    use super::*;
    use crate::broadcast::{BroadcastKey, Limits, Publisher};
    use crate::frame::{Shape, TrackInfo};

    fn open(codecs: [(Codec, u8); 2]) -> (Arc<Broadcasts>, Publisher) {
        let hub = Broadcasts::new(Limits::default());
        let now = Instant::now();
        let key = BroadcastKey::new("room_1");
        let mut publisher = hub.open(key, now, OffsetDateTime::UNIX_EPOCH).unwrap();
        for (codec, profile) in codecs {
            let shape = match codec {
                Codec::Aac | Codec::Opus => Shape::Audio {
                    rate: 48_000,
                    channels: 2,
                },
                _ => Shape::Video {
                    width: 640,
                    height: 360,
                },
            };
            let info = TrackInfo {
                codec,
                generation: 0,
                shape,
                config: Bytes::from(vec![1, profile]),
                reorder_frames: Some(0),
            };
            publisher.set_track(now, info).unwrap();
        }
        (hub, publisher)
    }

    /// Source picture and sound; then what a viewer that takes High gets of them.
    #[tokio::test(start_paused = true)]
    async fn only_what_a_viewer_can_take_is_passed_through() {
        let rows = [
            ((Codec::H264, 77), Codec::Aac, TrackId::Video, TrackId::Opus),
            (
                (Codec::H264, 122),
                Codec::Opus,
                TrackId::Clean,
                TrackId::Audio,
            ),
            ((Codec::Hevc, 1), Codec::Aac, TrackId::Clean, TrackId::Opus),
            ((Codec::Av1, 0), Codec::Opus, TrackId::Clean, TrackId::Audio),
        ];
        for (picture, sound, video, audio) in rows {
            let (_hub, publisher) = open([picture, (sound, 0)]);
            let broadcast = publisher.broadcast();
            assert_eq!(video_track(broadcast, 100), video, "{picture:?}");
            assert_eq!(audio_track(broadcast), audio, "{sound:?}");
        }
    }
}
