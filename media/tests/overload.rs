//! Too much to encode (spec media.md 5.3): one core, and encoders that want more than it has.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::{Broadcast, Cursor, Event, LoadStep, Making, Start, TrackWriter};
use lamplight_media::frame::{Frame, TrackId};
use lamplight_media::transcode::overload;
use tokio::time::Instant;

use crate::support::hls::settle;
use crate::support::{Show, picture_info};

/// Pictures that wait for an encoder.
const PICTURES_MAX: usize = 4;
const V480: TrackId = TrackId::Rung(480);
const V360: TrackId = TrackId::Rung(360);

/// An encoder that takes a fixed part of the core for each picture.
struct Encoder {
    writer: TrackWriter,
    making: Option<Making>,
    /// Milliseconds of the core that a picture takes.
    cost: f64,
    waiting: VecDeque<Arc<Frame>>,
    /// Milliseconds done of the first that waits.
    done: f64,
    has_begun: bool,
}

impl Encoder {
    fn new(broadcast: &Arc<Broadcast>, track: TrackId, cost: f64) -> Self {
        Self {
            writer: broadcast.made(track),
            making: None,
            cost,
            waiting: VecDeque::new(),
            done: 0.0,
            has_begun: false,
        }
    }

    fn take(&mut self, broadcast: &Arc<Broadcast>, frame: &Arc<Frame>) {
        if broadcast.is_shed(self.writer.track()) || self.writer.users() == 0 {
            self.making = None;
            self.waiting.clear();
            self.has_begun = false;
            return;
        }
        let track = self.writer.track();
        let making = || broadcast.make(track).expect("there is a place");
        let making = self.making.get_or_insert_with(making);
        if !self.has_begun && !frame.is_key {
            return;
        }
        self.has_begun = true;
        // One is in its hands.
        if self.waiting.len() > PICTURES_MAX {
            making.count_dropped();
        } else {
            self.waiting.push_back(Arc::clone(frame));
        }
    }

    /// Works for so many milliseconds.
    fn work(&mut self, ms: f64) {
        self.done += ms;
        while self.done >= self.cost - 1e-9 {
            let Some(frame) = self.waiting.pop_front() else {
                self.done = 0.0;
                return;
            };
            self.done -= self.cost;
            let info = self.writer.set_info(picture_info());
            self.writer.write(Frame {
                track: self.writer.track(),
                info,
                dts: frame.pts,
                pts: frame.pts,
                duration: None,
                is_key: frame.is_key,
                is_discardable: false,
                discontinuities: frame.discontinuities,
                payload: Bytes::from_static(&[0, 0, 0, 3, 0x65, 1, 2]),
                rtp: OnceLock::new(),
                flv: OnceLock::new(),
                chunks: OnceLock::new(),
                arrived: OnceLock::new(),
            });
            if let Some(making) = &self.making {
                making.count_made();
            }
        }
    }
}

/// A show with its encoders, on one core.
struct Node {
    show: Show,
    broadcast: Arc<Broadcast>,
    source: Cursor,
    passing: Cursor,
    encoders: Vec<Encoder>,
    /// Milliseconds of the core that are left for each picture of the source.
    core: f64,
    began: Instant,
    /// What was told, and when.
    told: Vec<(u64, LoadStep)>,
}

impl Node {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test runs the guard beside the show"
    )]
    fn start(costs: &[(TrackId, f64)]) -> Self {
        let show = Show::start(30);
        let (hub, broadcast) = (show.hub(), show.broadcast());
        tokio::spawn(async move { overload::watch(&hub).await });
        let encoders = costs.iter();
        let encoders = encoders.map(|(track, cost)| Encoder::new(&broadcast, *track, *cost));
        Self {
            source: broadcast.cursor(TrackId::Video, Start::OldestKey),
            passing: broadcast.cursor(TrackId::Video, Start::OldestKey),
            encoders: encoders.collect(),
            broadcast,
            show,
            core: 33.0,
            began: Instant::now(),
            told: Vec::new(),
        }
    }

    async fn run(&mut self, seconds: u64) {
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            self.show.step();
            while let Some(delivery) = self.source.try_next() {
                for encoder in &mut self.encoders {
                    encoder.take(&self.broadcast, &delivery.frame);
                }
            }
            self.share();
            settle().await;
            self.listen();
            tokio::time::advance(self.show.picture_length()).await;
        }
    }

    /// All that have something to do get the same.
    fn share(&mut self) {
        for _ in 0..33 {
            let busy = self.encoders.iter_mut();
            let mut busy: Vec<_> = busy.filter(|e| !e.waiting.is_empty()).collect();
            let count = u32::try_from(busy.len()).expect("few");
            for encoder in &mut busy {
                encoder.work(self.core / 33.0 / f64::from(count));
            }
        }
    }

    fn listen(&mut self) {
        let hub = self.show.hub();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        loop {
            let mut next = std::pin::pin!(hub.next_event());
            match next.as_mut().poll(&mut context) {
                std::task::Poll::Ready(Event::Overload(_, step)) => {
                    self.told.push((self.began.elapsed().as_secs(), step));
                }
                std::task::Poll::Ready(_) => {}
                std::task::Poll::Pending => return,
            }
        }
    }

    /// Every picture of the source reached whoever takes it as it is, at once.
    fn assert_source_is_whole(&mut self) {
        let mut count = 0;
        while let Some(delivery) = self.passing.try_next() {
            assert_eq!(delivery.skipped, 0);
            count += 1;
        }
        assert!(count > 0);
    }

    fn lag(&self, track: TrackId) -> Duration {
        let newest = |track| self.broadcast.newest_dts(track).expect("it has begun");
        newest(TrackId::Video).saturating_since(newest(track))
    }
}

/// The core carries two of three: the top rung goes, whoever watched it is told, the others keep up
/// again. It comes back after half a minute; since that is too much again, after a whole one next.
#[tokio::test(start_paused = true)]
async fn the_top_rung_is_left_out_until_the_others_keep_up_and_tried_again_later() {
    let mut node = Node::start(&[(TrackId::Clean, 16.0), (V480, 12.0), (V360, 8.0)]);
    let viewers = [TrackId::Clean, V360].map(|t| node.broadcast.cursor(t, Start::NewestKey));
    node.run(10).await;
    assert_eq!(node.told, []);
    let viewer = node.broadcast.cursor(V480, Start::NewestKey);
    node.run(10).await;
    assert_eq!(node.told.len(), 1, "{:?}", node.told);
    assert_eq!(node.told[0].1, LoadStep::Shed(V480));
    assert_eq!(viewer.unavailable(), Some("overload"));
    assert!(viewers.iter().all(|viewer| viewer.unavailable().is_none()));
    let lags = [TrackId::Clean, V360].map(|track| node.lag(track));
    assert!(
        lags.iter().all(|lag| *lag < Duration::from_millis(200)),
        "{lags:?}"
    );
    node.run(120).await;
    let steps: Vec<_> = node.told.iter().map(|(_, step)| *step).collect();
    let (shed, restored) = (LoadStep::Shed(V480), LoadStep::Restored(V480));
    assert_eq!(
        steps,
        [shed, restored, shed, restored, shed],
        "{:?}",
        node.told
    );
    let after = |n: usize| node.told[n].0 - node.told[n - 1].0;
    assert!((30..33).contains(&after(1)), "{:?}", node.told);
    assert!((60..63).contains(&after(3)), "{:?}", node.told);
    node.assert_source_is_whole();
    let stats = node.show.hub();
    assert_eq!(stats.stats().total("overload_steps_total"), 5);
}

/// Nothing helps: one step every three seconds, down to 480 lines, and the source goes on.
#[tokio::test(start_paused = true)]
async fn a_core_that_is_taken_away_costs_every_rung_and_then_lines_of_clean() {
    let mut node = Node::start(&[(TrackId::Clean, 10.0), (V480, 5.0), (V360, 4.0)]);
    let all = [TrackId::Clean, V480, V360];
    let viewers = all.map(|track| node.broadcast.cursor(track, Start::NewestKey));
    node.run(10).await;
    assert_eq!(node.told, []);
    node.core = 3.0;
    node.run(30).await;
    let steps: Vec<_> = node.told.iter().map(|(_, step)| *step).collect();
    // Its picture has 360 lines: there is nothing to step down to.
    assert_eq!(steps, [LoadStep::Shed(V480), LoadStep::Shed(V360)]);
    assert_eq!(node.told[1].0 - node.told[0].0, 3);
    assert_eq!(viewers[0].unavailable(), None);
    node.assert_source_is_whole();
    node.core = 33.0;
    node.run(100).await;
    let steps: Vec<_> = node.told[2..].iter().map(|(_, step)| *step).collect();
    let restored = [LoadStep::Restored(V360), LoadStep::Restored(V480)];
    assert_eq!(steps, restored, "the last first: {:?}", node.told);
    assert!(viewers.iter().all(|viewer| viewer.unavailable().is_none()));
}
