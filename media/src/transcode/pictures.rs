//! The demand for made pictures: `clean` and each rung have users of their own, and share one
//! decoder while any of them has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep};

use super::demand::{Demand, StallWatch, Step};
use super::lanes::{Encoding, Lanes};
use super::worker::Refused;
use super::{ConvertConfig, RETRY, ladder, until};
use crate::broadcast::{Broadcast, Cursor, Ended, Start};
use crate::frame::{Frame, TrackId};

/// Makes pictures until the broadcast ends.
pub(super) async fn follow(broadcast: &Arc<Broadcast>, config: &Arc<ConvertConfig>) {
    let mut changes = broadcast.demand();
    let rungs = ladder::RUNGS.into_iter().map(ladder::Rung::track);
    let tracks = std::iter::once(TrackId::Clean).chain(rungs);
    let mut tracks: Vec<Track> = tracks.map(|id| Track::new(id, config)).collect();
    let mut feed: Option<Feed> = None;
    loop {
        changes.mark_unchanged();
        for track in &mut tracks {
            track.step(Instant::now(), (broadcast, config), &mut feed);
        }
        feed = feed.filter(|feed| !feed.encoders.is_empty());
        let deadlines = tracks.iter().filter_map(|track| track.demand.deadline());
        let deadline = deadlines.min();
        let stopped = tokio::select! {
            _ = broadcast.ended(), if feed.is_none() => return,
            _ = changes.changed() => continue,
            () = until(deadline) => continue,
            stopped = run(&mut feed) => stopped,
        };
        match stopped {
            Stopped::Ended => return,
            Stopped::Decoder(reason) => {
                let all = feed.take().map_or_else(Vec::new, |feed| feed.encoders);
                for running in all {
                    fail(&mut tracks, broadcast, running.encoding.track, reason);
                }
            }
            Stopped::Encoder(id, reason) => {
                if let Some(feed) = &mut feed {
                    feed.remove(id);
                }
                fail(&mut tracks, broadcast, id, reason);
            }
        }
    }
}

fn fail(
    tracks: &mut [Track],
    broadcast: &Arc<Broadcast>,
    id: TrackId,
    reason: Option<&'static str>,
) {
    if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
        track.fail(Instant::now(), broadcast, reason);
    }
}

/// Why feeding stopped.
#[derive(Debug)]
enum Stopped {
    /// The source is over.
    Ended,
    /// Nothing is decoded any more; it never can be, if there is a reason.
    Decoder(Option<&'static str>),
    /// One track is not made any more; it never can be, if there is a reason.
    Encoder(TrackId, Option<&'static str>),
}

/// A track that may be wanted.
#[derive(Debug)]
struct Track {
    id: TrackId,
    demand: Demand,
}

impl Track {
    const fn new(id: TrackId, config: &ConvertConfig) -> Self {
        Self {
            id,
            demand: Demand::new(config.linger),
        }
    }

    fn step(
        &mut self,
        now: Instant,
        (broadcast, config): (&Arc<Broadcast>, &Arc<ConvertConfig>),
        feed: &mut Option<Feed>,
    ) {
        match self.demand.step(now, broadcast.users(self.id)) {
            Step::Start => {
                if let Err(error) = Feed::add(feed, (broadcast, config), self.id) {
                    tracing::error!(%error, track = %self.id, "no thread for a converter");
                    self.fail(now, broadcast, Some("no_thread"));
                }
            }
            Step::Stop => {
                if let Some(feed) = feed {
                    feed.remove(self.id);
                }
                // Nobody reads it, and who comes later must not begin at what is old by then.
                broadcast.made(self.id).clear();
            }
            Step::Keep => {}
        }
        // Viewers look at this before they ask, so it is withdrawn without waiting for one.
        if !self.demand.is_resting() && broadcast.unavailable(self.id).is_some() {
            broadcast.made(self.id).set_unavailable(None);
        }
    }

    fn fail(&mut self, now: Instant, broadcast: &Arc<Broadcast>, reason: Option<&'static str>) {
        let may_retry = reason.is_none() && self.demand.fail(now);
        tracing::warn!(track = %self.id, may_retry, "a converter failed");
        if reason.is_some() {
            self.demand.rest(now);
        }
        if !may_retry {
            let reason = reason.unwrap_or("converter_failed");
            broadcast.made(self.id).set_unavailable(Some(reason));
        }
    }
}

/// A running decoder with its place in the source and its encoders.
#[derive(Debug)]
struct Feed {
    lanes: Lanes,
    encoders: Vec<Running>,
    cursor: Cursor,
    /// Taken from the ring but not yet by the queue.
    waiting: Option<Arc<Frame>>,
    stall: StallWatch,
}

#[derive(Debug)]
struct Running {
    encoding: Encoding,
    stall: StallWatch,
}

async fn run(feed: &mut Option<Feed>) -> Stopped {
    match feed {
        Some(feed) => feed.run().await,
        None => std::future::pending().await,
    }
}

impl Feed {
    /// Adds an encoder to the decoder that runs, or to one that is started for it.
    fn add(
        feed: &mut Option<Self>,
        (broadcast, config): (&Arc<Broadcast>, &Arc<ConvertConfig>),
        id: TrackId,
    ) -> std::io::Result<()> {
        let now = Instant::now();
        let feed = match feed {
            Some(feed) => feed,
            none => none.insert(Self {
                lanes: Lanes::start(broadcast, config)?,
                encoders: Vec::new(),
                cursor: broadcast.cursor(TrackId::Video, Start::NewestKey),
                waiting: None,
                stall: StallWatch::new(now),
            }),
        };
        feed.encoders.push(Running {
            encoding: feed.lanes.add(id)?,
            stall: StallWatch::new(now),
        });
        Ok(())
    }

    fn remove(&mut self, id: TrackId) {
        self.encoders.retain(|running| running.encoding.track != id);
    }

    /// Feeds until something ends. Cancel-safe: a frame taken from the ring is kept.
    async fn run(&mut self) -> Stopped {
        loop {
            let frame = match self.waiting.take() {
                Some(frame) => frame,
                None => match self.cursor.next().await {
                    Ok(delivery) => delivery.frame,
                    Err(Ended) => return Stopped::Ended,
                },
            };
            if let Some(stopped) = self.trouble(Instant::now()) {
                self.waiting = Some(frame);
                return stopped;
            }
            match self.lanes.offer(frame) {
                Ok(()) => {}
                Err(Refused::Full(frame)) => {
                    self.waiting = Some(frame);
                    sleep(RETRY).await;
                }
                Err(Refused::Gone) => {
                    return Stopped::Decoder(self.lanes.hopeless.get().copied());
                }
            }
        }
    }

    /// Looks whether what goes in also comes out.
    fn trouble(&mut self, now: Instant) -> Option<Stopped> {
        if let Some(reason) = self.lanes.hopeless.get() {
            return Some(Stopped::Decoder(Some(reason)));
        }
        let decoded = self.lanes.decoded.load(Ordering::Relaxed);
        if self.stall.is_stalled(now, decoded) {
            return Some(Stopped::Decoder(None));
        }
        for Running { encoding, stall } in &mut self.encoders {
            let reason = encoding.signals.hopeless.get().copied();
            let made = encoding.signals.made.load(Ordering::Relaxed);
            if reason.is_some() || stall.is_stalled(now, made) {
                return Some(Stopped::Encoder(encoding.track, reason));
            }
        }
        None
    }
}
