//! The demand for made pictures: `clean` and each rung have users of their own, and share one
//! decoder while any of them has.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::demand::{Demand, StallWatch, Step};
use super::lanes::{Begin, Encoding, Lanes};
use super::worker::Refused;
use super::{ConvertConfig, RETRY, until};
use crate::broadcast::{Broadcast, Cursor, Ended, Making, OVERLOAD, Start};
use crate::frame::{Frame, TrackId};
use crate::time::MediaTime;

/// Running encoders wait so long at most while the decoder goes back for one that starts.
const BACK_MAX: Duration = Duration::from_millis(400);

/// Makes pictures until the broadcast ends.
pub(super) async fn follow(broadcast: &Arc<Broadcast>, config: &Arc<ConvertConfig>) {
    let mut changes = broadcast.demand();
    let ladder = broadcast.ladder();
    let rungs = ladder.rungs().iter().map(|rung| rung.track());
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
                    fail(&mut tracks, running.encoding.track, reason);
                }
            }
            Stopped::Encoder(id, reason) => {
                if let Some(feed) = &mut feed {
                    feed.remove(id);
                }
                fail(&mut tracks, id, reason);
            }
        }
    }
}

fn fail(tracks: &mut [Track], id: TrackId, reason: Option<&'static str>) {
    if let Some(track) = tracks.iter_mut().find(|track| track.id == id) {
        track.fail(Instant::now(), reason);
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
    /// Why it rests, while it does.
    reason: &'static str,
}

impl Track {
    const fn new(id: TrackId, config: &ConvertConfig) -> Self {
        Self {
            id,
            demand: Demand::new(config.linger),
            reason: "",
        }
    }

    fn step(
        &mut self,
        now: Instant,
        (broadcast, config): (&Arc<Broadcast>, &Arc<ConvertConfig>),
        feed: &mut Option<Feed>,
    ) {
        let (is_shed, users) = (broadcast.is_shed(self.id), broadcast.users(self.id));
        let step = match is_shed {
            true if self.demand.halt() => Step::Stop,
            true => Step::Keep,
            false => self.demand.step(now, users),
        };
        match step {
            Step::Start => self.start(now, (broadcast, config), feed),
            Step::Stop => {
                if let Some(feed) = feed {
                    feed.remove(self.id);
                }
            }
            Step::Keep => {}
        }
        if step == Step::Stop || users == 0 && self.demand.is_off() {
            // Who comes later must not begin at what is old by then.
            broadcast.made(self.id).clear();
        }
        // Viewers look at this before they ask, so it is withdrawn without waiting for one.
        let reason = match is_shed {
            true => Some(OVERLOAD),
            false => self.demand.is_resting().then_some(self.reason),
        };
        if broadcast.unavailable(self.id) != reason {
            broadcast.made(self.id).set_unavailable(reason);
        }
    }

    fn start(
        &mut self,
        now: Instant,
        (broadcast, config): (&Arc<Broadcast>, &Arc<ConvertConfig>),
        feed: &mut Option<Feed>,
    ) {
        let making = match broadcast.make(self.id) {
            Ok(making) => making,
            Err(error) => {
                tracing::warn!(track = %self.id, %error, "a rendition is not made");
                self.reason = "encoders_max";
                return self.demand.wait(now);
            }
        };
        if let Err(error) = Feed::add(feed, (broadcast, config), making) {
            tracing::error!(%error, track = %self.id, "no thread for a converter");
            self.fail(now, Some("no_thread"));
        }
    }

    /// It ended; it never can be made if there is a reason.
    fn fail(&mut self, now: Instant, reason: Option<&'static str>) {
        let may_retry = reason.is_none() && self.demand.fail(now);
        tracing::warn!(track = %self.id, may_retry, "a converter failed");
        if reason.is_some() {
            self.demand.rest(now);
        }
        self.reason = reason.unwrap_or("converter_failed");
    }
}

/// A running decoder with its place in the source and its encoders.
#[derive(Debug)]
struct Feed {
    lanes: Lanes,
    encoders: Vec<Running>,
    cursor: Cursor,
    /// Decode time of the keyframe at which the cursor begins, while it was not read from.
    begins: Option<MediaTime>,
    /// Decode time of the newest frame that the decoder was given, since it went back.
    fed: Option<MediaTime>,
    /// The decoder goes back with the next frame it is given.
    is_back: bool,
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
        making: Making,
    ) -> std::io::Result<()> {
        let now = Instant::now();
        let begin = broadcast.made(making.job().track()).take_begin();
        let feed = match feed {
            Some(feed) => feed,
            none => {
                let cursor = broadcast.cursor(TrackId::Video, Start::NewestKey);
                none.insert(Self {
                    lanes: Lanes::start(broadcast, config)?,
                    encoders: Vec::new(),
                    begins: cursor.newest_key_dts(),
                    fed: None,
                    is_back: false,
                    cursor,
                    waiting: None,
                    stall: StallWatch::new(now),
                })
            }
        };
        let begin = begin.map_or(Begin::Next, |begin| feed.reach(broadcast, begin));
        feed.encoders.push(Running {
            encoding: feed.lanes.add(making, begin)?,
            stall: StallWatch::new(now),
        });
        Ok(())
    }

    /// Sees to it that what is shown from `from` on is decoded, if need be again, unless the other
    /// tracks would have to wait too long for the decoder.
    fn reach(&mut self, broadcast: &Arc<Broadcast>, from: MediaTime) -> Begin {
        let Some(key) = self.cursor.key_before(from) else {
            return Begin::At(from);
        };
        let begin = from.max(key.pts);
        let is_ahead = match self.fed {
            Some(fed) => fed < key.dts || fed < from,
            None => self.begins.is_none_or(|begins| begins <= key.dts),
        };
        if is_ahead && self.is_back {
            return Begin::Again(begin);
        }
        if is_ahead {
            return Begin::At(begin);
        }
        let count = u64::try_from(self.cursor.count_from(key.dts)).unwrap_or(u64::MAX);
        let effort = self.lanes.decode_us.load(Ordering::Relaxed);
        let wait = Duration::from_micros(count.saturating_mul(effort));
        if !self.encoders.is_empty() && wait > BACK_MAX {
            return Begin::Next;
        }
        self.cursor = broadcast.cursor(TrackId::Video, Start::At(key.dts));
        self.is_back |= self.fed.is_some();
        (self.begins, self.fed, self.waiting) = (Some(key.dts), None, None);
        if self.is_back {
            Begin::Again(begin)
        } else {
            Begin::At(begin)
        }
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
            let dts = frame.dts;
            match self.lanes.offer(frame) {
                Ok(()) => (self.fed, self.is_back) = (Some(dts), false),
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
            let made = encoding.signals.made();
            if reason.is_some() || stall.is_stalled(now, made) {
                return Some(Stopped::Encoder(encoding.track, reason));
            }
        }
        None
    }
}
