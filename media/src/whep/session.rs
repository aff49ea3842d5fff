//! One viewer, from its answer to its end: drives the connection, the frames and the cues.
//!
//! Invariants
//! - One SSRC, one sequence, one clock per kind for the whole session.
//! - Cues leave in order; listed ones are never dropped, passing ones at a bound.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::gauges::{Gauges, Measured};
use super::playout::{Playout, Seen};
use super::terms::Lease;
use crate::broadcast::{Broadcast, Broadcasts, Output, Presence};
use crate::cue::{CueCursor, CueKind, CueNews};
use crate::stats::{Histogram, Stats};
use crate::time::MediaTime;
use crate::webrtc::message::{self, RtpLines};
use crate::webrtc::peer::{Peer, Taken};
use crate::webrtc::{Burst, Inbox, Letter, Port};

/// Removed when not connected by then.
const CONNECT: Duration = Duration::from_secs(15);
/// Lost when nothing authenticated came for this long.
const SILENCE: Duration = Duration::from_secs(30);
/// Nothing is looked after less often.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often it is looked at which rendition the path carries.
const STEER_EVERY: Duration = Duration::from_millis(100);
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Data channel bytes in flight: passing cues are dropped, then the channel is closed.
const PASSING_BYTES_MAX: usize = 64 << 10;
const LISTED_BYTES_MAX: usize = 256 << 10;
/// Datagrams taken before anything else gets a turn.
const LETTERS_AT_ONCE: usize = 64;

/// One viewer, from its answer to its end.
#[derive(Debug)]
pub struct Session {
    port: Arc<Port>,
    broadcast: Arc<Broadcast>,
    lines: RtpLines,
    /// Boxed: it is large, and sessions are moved when they are spawned.
    peer: Box<Peer>,
    inbox: Inbox,
    burst: Burst,
    playout: Playout,
    cues: CueCursor,
    /// Not connected by then: removed.
    connect_until: Instant,
    /// True once a connection stood.
    was_connected: bool,
    /// When the clock is told again.
    clock_at: Instant,
    /// The discontinuity of T of the newest frame sent.
    discontinuities: u32,
    gauges: Arc<Gauges>,
    measured_at: Instant,
    lease: Arc<Lease>,
    steered_at: Instant,
    /// What stands for the outcome of a probe that could not be made.
    unprobed: Option<bool>,
    /// True once the viewer was told to connect anew.
    was_sent_away: bool,
    /// Who it is, if the server knows; and that it counts, while it is connected.
    viewer: Option<Arc<str>>,
    presence: Option<Presence>,
    sent: Sent,
}

/// What a session has sent, and what of it the counters of the hub have.
#[derive(Debug)]
struct Sent {
    asked: Instant,
    first_frame: Option<Duration>,
    frames: u64,
    newest: Option<MediaTime>,
    /// When the first frame went: those that came before it waited for the viewer.
    began: Option<Instant>,
    delay: Arc<Histogram>,
    counted: Vec<u64>,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) port: Arc<Port>,
    pub(super) broadcast: Arc<Broadcast>,
    pub(super) lines: RtpLines,
    pub(super) peer: Peer,
    pub(super) inbox: Inbox,
    pub(super) playout: Playout,
    pub(super) gauges: Arc<Gauges>,
    pub(super) lease: Arc<Lease>,
    pub(super) viewer: Option<Arc<str>>,
}

impl Session {
    pub(super) fn new(parts: Parts, now: Instant) -> Self {
        let Parts {
            port,
            broadcast,
            lines,
            peer,
            inbox,
            playout,
            gauges,
            lease,
            viewer,
        } = parts;
        Self {
            port,
            cues: broadcast.cues(),
            broadcast,
            lines,
            peer: Box::new(peer),
            inbox,
            burst: Burst::default(),
            playout,
            connect_until: now + CONNECT,
            was_connected: false,
            clock_at: now,
            discontinuities: 0,
            gauges,
            measured_at: now,
            lease,
            steered_at: now,
            unprobed: None,
            was_sent_away: false,
            viewer,
            presence: None,
            sent: Sent {
                asked: now,
                first_frame: None,
                frames: 0,
                newest: None,
                began: None,
                delay: Arc::default(),
                counted: Vec::new(),
            },
        }
    }

    /// Serves the viewer until it goes, the broadcast ends, or `cancel`.
    pub async fn run(mut self, cancel: CancellationToken, hub: Arc<Broadcasts>) {
        let broadcast = Arc::clone(&self.broadcast);
        let over = async {
            tokio::select! {
                () = cancel.cancelled() => "shutdown",
                _reason = broadcast.ended() => "ended",
            }
        };
        // Both are made once: a session wakes up a hundred times a second.
        let (mut over, mut alarm) = (pin!(over), pin!(sleep_until(self.connect_until)));
        let reason = loop {
            let now = Instant::now();
            if hub.is_draining() {
                self.send_away(now);
            }
            if let Some(reason) = self.work(now, hub.stats()).await {
                break reason;
            }
            let wake = self.wake_at(now);
            if alarm.is_elapsed() || wake < alarm.deadline() {
                alarm.as_mut().reset(wake);
            }
            let is_live = self.peer.is_connected();
            tokio::select! {
                biased;
                reason = over.as_mut() => break reason,
                letter = self.inbox.next() => match letter {
                    Some(letter) => self.take_all(letter),
                    None => break "closed",
                },
                () = alarm.as_mut() => {}
                () = self.playout.ready(), if is_live => {}
                news = self.cues.next(), if is_live && self.peer.has_channel() => {
                    if let Ok(news) = news {
                        self.send_cue(Instant::now(), &news);
                    }
                }
            }
        };
        self.finish(reason, hub.stats()).await;
    }

    /// Everything that can be done now; why the session ends, if it does.
    async fn work(&mut self, now: Instant, stats: &Stats) -> Option<&'static str> {
        let at = now.into_std();
        if self.peer.deadline().is_some_and(|due| due <= at) {
            self.peer.tick(at);
        }
        if self.peer.is_connected() {
            self.connected(now);
            if self.peer.answer_reports(at, &self.port, &mut self.burst) {
                self.playout.request_keyframe();
            }
            self.steer(now);
            self.send_frames(now, stats).await;
            let out = (&*self.port, &mut self.burst);
            self.peer.write_probe(at, out);
            let broadcast = &self.broadcast;
            self.peer.report(at, || {
                let t = broadcast.now_t(now);
                (t, broadcast.wall(t))
            });
            self.send_clock(now);
            self.send_cues(now);
            if now >= self.measured_at {
                self.measured_at = now + CHECK_EVERY;
                let measured = self.measure(now);
                let estimates = stats.rates("estimate_bps", "whep");
                estimates.observe_bps(measured.estimate_bps);
                self.gauges.set(measured);
                self.count(stats);
            }
        }
        self.peer.flush(&self.port, &mut self.burst);
        self.burst.settle(&self.port).await;
        self.verdict(now)
    }

    /// Lets the path decide which rendition is shown.
    fn steer(&mut self, now: Instant) {
        if now < self.steered_at {
            return;
        }
        self.steered_at = now + STEER_EVERY;
        let path = self.peer.path(now.into_std());
        let narrow = path.is_narrow.then_some(path.estimate_bps);
        self.playout.narrow_to(now, narrow);
        let seen = Seen {
            estimate_bps: path.estimate_bps,
            lost: path.fraction_lost,
            probe: self
                .unprobed
                .take()
                .or_else(|| self.peer.probed(now.into_std())),
        };
        if let Some(rate_bps) = self.playout.steer(now, seen)
            && !self.peer.probe(now.into_std(), rate_bps)
        {
            // Where nobody can tell what came of a probe the estimate is all there is to ask.
            self.unprobed = Some(true);
        }
    }

    fn measure(&self, now: Instant) -> Measured {
        let (path, counts) = (self.peer.path(now.into_std()), self.peer.counts());
        let live = self.broadcast.now_t(now);
        let lag = self.sent.newest.map(|newest| live.saturating_since(newest));
        Measured {
            estimate_bps: path.estimate_bps,
            round_trip: path.round_trip,
            loss_per_mille: u64::from(path.fraction_lost) * 1_000 / 256,
            packets: self.burst.datagrams,
            bytes: self.burst.bytes,
            skipped: self.playout.skipped(),
            nacks: counts.nacks,
            retransmitted: counts.repeated,
            keyframe_requests: counts.keyframe_requests,
            frames: self.sent.frames,
            switches: self.playout.moves().all(),
            rendition: self.playout.rendition(),
            pacer: self.playout.behind(now),
            first_frame: self.sent.first_frame,
            lag: lag.unwrap_or_default(),
        }
    }

    /// Adds to the counters of the hub what came since they were added to last.
    fn count(&mut self, stats: &Stats) {
        let (counts, moves) = (self.peer.counts(), self.playout.moves());
        let whep = "whep";
        let rows = [
            ("egress_bytes_total", [whep, ""], self.burst.bytes),
            ("egress_packets_total", [whep, ""], self.burst.datagrams),
            ("udp_sends_total", [whep, ""], self.burst.calls),
            ("udp_send_blocked_total", [whep, ""], self.burst.blocked),
            ("frames_skipped_total", [whep, ""], self.playout.skipped()),
            ("rendition_switches_total", ["up", "path"], moves.up),
            ("rendition_switches_total", ["down", "path"], moves.down),
            (
                "rendition_switches_total",
                ["forced", "unavailable"],
                moves.forced,
            ),
            ("rtp_nack_received_total", [whep, ""], counts.nacks),
            ("rtp_retransmitted_total", [whep, ""], counts.repeated),
        ];
        self.sent.counted.resize(rows.len(), 0);
        for ((name, labels, count), counted) in rows.into_iter().zip(&mut self.sent.counted) {
            if count > *counted {
                stats.add_two(name, labels, count - *counted);
                *counted = count;
            }
        }
    }

    fn verdict(&mut self, now: Instant) -> Option<&'static str> {
        let silent = now
            .into_std()
            .saturating_duration_since(self.peer.ice.heard);
        if self.peer.is_over {
            Some("gone")
        } else if let Some(reason) = self.lease.over(now) {
            Some(reason)
        } else if !self.was_connected {
            (now >= self.connect_until).then_some("not_connected")
        } else if silent > SILENCE {
            Some("silent")
        } else {
            self.playout.check(now)
        }
    }

    /// The connection stands: its address is the session's own.
    fn connected(&mut self, now: Instant) {
        if std::mem::replace(&mut self.was_connected, true) {
            return;
        }
        let audience = self.broadcast.audience();
        self.presence = Some(audience.enter(now, Output::Whep, self.viewer.take()));
        if let Some(route) = self.peer.ice.route() {
            self.inbox.prove(route);
        }
    }

    async fn send_frames(&mut self, now: Instant, stats: &Stats) {
        while let Some(frame) = self.playout.next(now) {
            if frame.discontinuities > self.discontinuities {
                self.discontinuities = frame.discontinuities;
                self.clock_at = now;
            }
            let broadcast = &self.broadcast;
            self.playout.spend(now, frame.payload.len());
            let out = (&*self.port, &mut self.burst);
            self.peer
                .write(now.into_std(), out, &frame, |t| broadcast.wall(t));
            self.burst.settle(&self.port).await;
            self.sent.frames += 1;
            self.gauges.sent(frame.pts);
            self.sent.newest = self.sent.newest.max(Some(frame.dts));
            let arrived = frame.arrived.get().copied();
            if let Some(arrived) =
                arrived.filter(|at| self.sent.began.is_some_and(|began| *at > began))
            {
                let took = Instant::now().saturating_duration_since(arrived);
                self.sent.delay.observe(took);
            }
            if self.sent.first_frame.is_none() {
                self.sent.began = Some(now);
                self.sent.delay = stats.histogram("forward_delay_seconds", "whep");
                let took = now.saturating_duration_since(self.sent.asked);
                self.sent.first_frame = Some(took);
                stats.histogram("first_frame_seconds", "whep").observe(took);
            }
        }
    }

    /// Takes this letter and those that wait behind it, but not so many that nothing else gets a
    /// turn.
    fn take_all(&mut self, letter: Letter) {
        let now = Instant::now();
        self.take(now, letter);
        for _ in 0..LETTERS_AT_ONCE {
            let Some(letter) = self.inbox.try_next() else {
                break;
            };
            self.take(now, letter);
        }
    }

    fn take(&mut self, now: Instant, letter: Letter) {
        let datagram = match letter {
            Letter::Datagram(datagram) => datagram,
            Letter::Restart(names) => {
                self.inbox.rename(&names);
                return self.peer.ice.restart(*names);
            }
        };
        let from = datagram.from;
        match self.peer.receive(now.into_std(), datagram) {
            Taken::Check => {
                // Another's address stays another's: its datagrams are not for this session.
                self.inbox.admit(from);
            }
            Taken::Forged => self.port.reject(from, "stun_integrity"),
            Taken::Other => {}
        }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let mut wake = now + CHECK_EVERY;
        if !self.was_connected {
            wake = wake.min(self.connect_until);
        }
        if let Some(at) = self.peer.deadline() {
            wake = wake.min(Instant::from_std(at));
        }
        if let Some(until) = self.lease.until() {
            wake = wake.min(until);
        }
        self.playout.due().map_or(wake, |due| wake.min(due))
    }

    fn send_clock(&mut self, now: Instant) {
        if !self.peer.has_channel() || now < self.clock_at {
            return;
        }
        let t = self.broadcast.now_t(now);
        let text = message::clock(&self.lines, t, self.broadcast.wall(t));
        if self.peer.send_text(now.into_std(), text) {
            self.clock_at = now + CLOCK_EVERY;
        }
    }

    /// The server stops: the viewer had better find another, or the next process. Told with the
    /// next frame; the session goes on until the viewer leaves or the server does.
    fn send_away(&mut self, now: Instant) {
        if !self.was_sent_away && self.peer.has_channel() {
            self.was_sent_away = self.peer.send_text(now.into_std(), message::reconnect());
        }
    }

    fn send_cues(&mut self, now: Instant) {
        if !self.peer.has_channel() {
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
            self.peer.close_channel(now.into_std());
            return;
        }
        let text = message::cue(&self.lines, news);
        self.peer.send_text(now.into_std(), text);
    }

    async fn finish(mut self, reason: &'static str, stats: &Stats) {
        drop(self.presence.take());
        let at = Instant::now().into_std();
        if reason != "gone" && self.peer.is_connected() {
            self.peer.send_text(at, message::bye(reason));
        }
        self.peer.close(at);
        self.peer.flush(&self.port, &mut self.burst);
        self.burst.settle(&self.port).await;
        self.count(stats);
        let (bytes, skipped) = (self.burst.bytes, self.playout.skipped());
        info!(
            reason,
            egress.bytes = bytes,
            frames.skipped = skipped,
            "viewer gone"
        );
    }
}
