//! One viewer, from its answer to its end: drives the connection, the frames and the cues.
//!
//! Invariants
//! - One SSRC, one sequence, one clock per kind for the whole session.
//! - Cues leave in order; listed ones are never dropped, passing ones at a bound.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::playout::Playout;
use crate::broadcast::{Broadcast, Broadcasts};
use crate::cue::{CueCursor, CueKind, CueNews};
use crate::stats::Stats;
use crate::webrtc::message;
use crate::webrtc::peer::{Peer, PeerSpec, Protection, offers_gcm};
use crate::webrtc::{Burst, Datagram, Inbox, Port};

/// Removed when not connected by then.
const CONNECT: Duration = Duration::from_secs(15);
/// Lost when nothing authenticated came for this long.
const SILENCE: Duration = Duration::from_secs(30);
const CLOCK_EVERY: Duration = Duration::from_secs(10);
/// Data channel bytes in flight: passing cues are dropped, then the channel is closed.
const PASSING_BYTES_MAX: usize = 64 << 10;
const LISTED_BYTES_MAX: usize = 256 << 10;
/// Datagrams taken before anything else gets a turn.
const DATAGRAMS_AT_ONCE: usize = 64;

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
    playout: Playout,
    cues: CueCursor,
    /// True once the protection was settled by the first DTLS message.
    greeted: bool,
    heard: Instant,
    clock_at: Instant,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) port: Arc<Port>,
    pub(super) broadcast: Arc<Broadcast>,
    pub(super) spec: PeerSpec,
    pub(super) peer: Peer,
    pub(super) inbox: Inbox,
    pub(super) playout: Playout,
}

enum Turn {
    Go,
    End(&'static str),
}

impl Session {
    pub(super) fn new(parts: Parts, now: Instant) -> Self {
        let Parts {
            port,
            broadcast,
            spec,
            peer,
            inbox,
            playout,
        } = parts;
        Self {
            port,
            cues: broadcast.cues(),
            broadcast,
            spec,
            peer: Box::new(peer),
            inbox,
            burst: Burst::default(),
            playout,
            greeted: false,
            heard: now,
            clock_at: now,
        }
    }

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
            if self.peer.is_connected
                && let Some(reason) = self.playout.check(now)
            {
                break reason;
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
        self.drain(now).await;
        if self.peer.is_connected {
            if self.peer.wants_keyframe() {
                self.playout.request_keyframe();
            }
            while let Some(frame) = self.playout.next(now) {
                self.peer.write(now.into_std(), &frame);
                self.drain(now).await;
            }
            self.send_clock(now);
            self.send_cues(now);
            self.drain(now).await;
        }
    }

    async fn drain(&mut self, now: Instant) {
        self.peer
            .drain(now.into_std(), &self.port, &mut self.burst)
            .await;
    }

    async fn wait(&mut self, wake: Instant, cancel: &CancellationToken) -> Turn {
        let is_live = self.peer.is_connected;
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
            () = self.playout.ready(), if is_live => Turn::Go,
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
        self.playout.due().map_or(wake, |due| wake.min(due))
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
            self.drain(now).await;
        }
        self.peer.close();
        self.drain(now).await;
        let (calls, datagrams, bytes) = self.burst.sent;
        stats.add("egress_bytes_total", "whep", bytes);
        stats.add("egress_packets_total", "whep", datagrams);
        stats.add("udp_sends_total", "whep", calls);
        stats.add("frames_skipped_total", "whep", self.playout.skipped());
        stats.add("rtp_nack_received_total", "whep", self.peer.nacks());
        info!(
            reason,
            egress.bytes = bytes,
            frames.skipped = self.playout.skipped(),
            "viewer gone"
        );
    }
}
