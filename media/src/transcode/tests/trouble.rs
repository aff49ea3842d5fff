//! Encoders that fail, are too slow, too many, or not wanted for a while: the others and the
//! publisher notice nothing (I19).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{FRAME_US, Fault, frame, open_in, publish, source_of};
use crate::broadcast::{Broadcast, Broadcasts, Cursor, Limits, LoadStep, Publisher, Start};
use crate::frame::{Frame, TrackId};
use crate::time::MediaTime;
use crate::transcode::encoder::Encoded;
use crate::transcode::lanes::{Begin, Lanes};
use crate::transcode::worker::Refused;
use crate::transcode::{ConvertConfig, run};

const RUNG: TrackId = TrackId::Rung(240);
/// As many as there are units, so that the encoder's next keyframe follows.
const DAMAGED: i64 = 100;

/// A publisher in virtual time that goes no faster than `clean` is made.
struct Show {
    hub: Arc<Broadcasts>,
    publisher: Publisher,
    broadcast: Arc<Broadcast>,
    units: Vec<Encoded>,
    sent: i64,
    /// Pictures of which nothing can be made.
    lost: i64,
    waits_for_rung: bool,
    clean: Cursor,
    made: Vec<Arc<Frame>>,
}

impl Show {
    fn new(encoders_max: usize) -> Self {
        let (info, units) = source_of(4, 25);
        let hub = Broadcasts::new(Limits {
            encoders_max,
            ..Limits::default()
        });
        let publisher = open_in(&hub, info);
        let broadcast = Arc::clone(publisher.broadcast());
        Self {
            clean: broadcast.cursor(TrackId::Clean, Start::OldestKey),
            hub,
            publisher,
            broadcast,
            units,
            sent: 0,
            lost: 0,
            waits_for_rung: false,
            made: Vec::new(),
        }
    }

    /// A picture that no decoder can read.
    async fn step_damaged(&mut self) {
        let (dts, pts) = (self.sent * FRAME_US, self.sent * FRAME_US + 2 * FRAME_US);
        let payload = bytes::Bytes::from_static(&[0, 0, 0, 4, 0x41, 0, 0, 4]);
        publish(
            &mut self.publisher,
            &[Encoded {
                dts,
                pts,
                is_key: false,
                payload,
            }],
        );
        self.sent += 1;
        sleep(Duration::from_micros(FRAME_US.unsigned_abs())).await;
    }

    /// The next picture, and what became of those before.
    async fn step(&mut self) {
        let count = i64::try_from(self.units.len()).unwrap();
        let by = self.sent / count * count * FRAME_US;
        let unit = &self.units[usize::try_from(self.sent % count).unwrap()];
        let (dts, pts) = (unit.dts + by, unit.pts + by);
        publish(
            &mut self.publisher,
            &[Encoded {
                dts,
                pts,
                ..unit.clone()
            }],
        );
        self.sent += 1;
        let newest = self.broadcast.newest_dts(TrackId::Video);
        assert_eq!(
            newest,
            Some(MediaTime::from_micros(dts)),
            "the publisher goes on"
        );
        // Two or three are in the decoder, so that fewer wait than may wait.
        let due = self.sent - self.lost - 5;
        while i64::try_from(self.made.len()).unwrap() < due {
            match self.clean.try_next() {
                Some(delivery) => self.made.push(delivery.frame),
                // No time passes while the threads work.
                None if self.lost == 0 => tokio::task::yield_now().await,
                // The feeder has much to make up for, and looks at the clock for it: as much time
                // passes as the threads have.
                None => {
                    let moment = Duration::from_millis(1);
                    std::thread::sleep(moment);
                    sleep(moment).await;
                }
            }
        }
        // The same for the rung, where it has no fault.
        let newest = self.made.last().map(|frame| frame.dts);
        while self.waits_for_rung && self.broadcast.newest_dts(RUNG) < newest {
            tokio::task::yield_now().await;
        }
        sleep(Duration::from_micros(FRAME_US.unsigned_abs())).await;
    }

    async fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.step().await;
        }
    }

    /// Runs until this is so; how long that took.
    async fn run_until(&mut self, is_so: impl Fn(&Broadcast) -> bool) -> Duration {
        let began = Instant::now();
        while !is_so(&self.broadcast) {
            self.step().await;
            assert!(began.elapsed() < Duration::from_secs(60), "it never was");
        }
        began.elapsed()
    }

    fn assert_clean_is_whole(&self) {
        assert!(self.made[0].is_key);
        for pair in self.made.windows(2) {
            assert_eq!(pair[1].dts.micros_since(pair[0].dts), FRAME_US);
        }
    }
}

async fn with(config: ConvertConfig, show: &mut Show, play: impl AsyncFnOnce(&mut Show)) {
    let cancel = CancellationToken::new();
    let running = run(
        Arc::clone(&show.broadcast),
        Arc::new(config),
        cancel.clone(),
    );
    let playing = async {
        play(show).await;
        cancel.cancel();
    };
    tokio::join!(running, playing);
}

fn faulty(fault: Fault) -> ConvertConfig {
    ConvertConfig {
        linger: Duration::ZERO,
        faults: vec![(RUNG, fault)],
        ..ConvertConfig::default()
    }
}

/// Three seconds without a picture start it again; the third time in a minute it is given up, and
/// those who wait are told.
#[tokio::test(start_paused = true)]
async fn a_failing_encoder_is_started_twice_more_and_then_rests_while_clean_goes_on() {
    for fault in [Fault::Refuses(12), Fault::Silent(0), Fault::Ends(12)] {
        let mut show = Show::new(8);
        with(faulty(fault.clone()), &mut show, async |show| {
            show.run(Duration::from_secs(1)).await;
            let rung = show.broadcast.cursor(RUNG, Start::NewestKey);
            let took = show.run_until(|b| b.unavailable(RUNG).is_some()).await;
            assert_eq!(rung.unavailable(), Some("converter_failed"), "{fault:?}");
            let seconds = took.as_secs_f64();
            assert!((9.0..13.0).contains(&seconds), "{fault:?}: {seconds} s");
            show.run(Duration::from_secs(2)).await;
            assert_eq!(rung.unavailable(), Some("converter_failed"));
        })
        .await;
        show.assert_clean_is_whole();
    }
}

/// One failure, and it is made again, from a keyframe on.
#[tokio::test(start_paused = true)]
async fn a_converter_that_failed_once_is_there_again_after_three_seconds() {
    let mut show = Show::new(8);
    // Each start gives so many.
    with(faulty(Fault::Silent(100)), &mut show, async |show| {
        show.run(Duration::from_secs(1)).await;
        let mut rung = show.broadcast.cursor(RUNG, Start::OldestKey);
        show.run(Duration::from_secs(9)).await;
        let mut frames = Vec::new();
        while let Some(delivery) = rung.try_next() {
            frames.push(delivery.frame);
        }
        let jump = frames
            .windows(2)
            .find(|w| w[1].dts.micros_since(w[0].dts) > 1_000_000);
        let [before, after] = jump.expect("it was started again") else {
            unreachable!()
        };
        let away = after.dts.micros_since(before.dts);
        assert!((2_900_000..4_500_000).contains(&away), "away for {away} us");
        assert!(after.is_key);
        assert_eq!(rung.unavailable(), None);
    })
    .await;
    show.assert_clean_is_whole();
}

/// Nothing can be decoded for a while: the decoder is started again, and what comes then is made.
#[tokio::test(start_paused = true)]
async fn after_seconds_that_no_decoder_reads_the_picture_is_there_again_from_a_keyframe_on() {
    let mut show = Show::new(8);
    with(ConvertConfig::default(), &mut show, async |show| {
        show.run(Duration::from_secs(2)).await;
        for _ in 0..DAMAGED {
            show.step_damaged().await;
        }
        assert_eq!(show.broadcast.unavailable(TrackId::Clean), None);
        // Some that were inside the decoder are lost as well.
        show.lost = DAMAGED + 7;
        show.run(Duration::from_secs(2)).await;
    })
    .await;
    let holes = show
        .made
        .windows(2)
        .filter(|w| w[1].dts.micros_since(w[0].dts) > FRAME_US);
    let holes: Vec<_> = holes.collect();
    // One or two of the last good pictures may come out with the next good one.
    assert!(holes.len() <= 2, "{} holes", holes.len());
    let [before, after] = holes.last().expect("a hole") else {
        unreachable!()
    };
    let away = after.dts.micros_since(before.dts) / FRAME_US;
    assert!(
        (DAMAGED..DAMAGED + 6).contains(&away),
        "{away} pictures are missing"
    );
    assert!(after.is_key);
}

/// Neither more than four pictures wait for it, nor does it delay the other (5.2 rule 1).
#[tokio::test]
async fn an_encoder_that_is_too_slow_loses_its_own_pictures_and_delays_no_other() {
    let (info, units) = source_of(4, 25);
    let hub = Broadcasts::new(Limits::default());
    let mut publisher = open_in(&hub, info.clone());
    publish(&mut publisher, &units);
    let broadcast = Arc::clone(publisher.broadcast());
    let slow = Duration::from_millis(200);
    let config = Arc::new(faulty(Fault::Slow(slow)));
    let info = Arc::new(info);
    let mut clean = broadcast.cursor(TrackId::Clean, Start::OldestKey);
    let lanes = Lanes::start(&broadcast, &config).unwrap();
    let _fast = lanes.add(broadcast.make(TrackId::Clean).unwrap(), Begin::Next);
    let encoding = lanes
        .add(broadcast.make(RUNG).unwrap(), Begin::Next)
        .unwrap();
    let began = Instant::now();
    for unit in &units {
        let mut offered = lanes.offer(Arc::new(frame(&info, unit)));
        while let Err(Refused::Full(frame)) = offered {
            sleep(Duration::from_millis(1)).await;
            offered = lanes.offer(frame);
        }
    }
    let mut frames = 0;
    while frames < 95 {
        let delivery = clean.next().await.unwrap();
        assert_eq!(
            delivery.frame.dts.as_micros(),
            (2 + frames) * FRAME_US,
            "none is missing"
        );
        frames += 1;
    }
    // As fast as it can would be 19 s.
    let took = began.elapsed();
    assert!(took < slow * 15, "waited for the slow one: {took:?}");
    let job = Arc::clone(encoding.signals.making.job());
    let (made, dropped) = (job.made(), job.dropped());
    // One is in its hands, four wait, the others are gone.
    assert!(made + dropped + 5 >= 95, "{made} made, {dropped} dropped");
    assert_eq!(hub.stats().total("converter_dropped_total"), job.dropped());
    assert_eq!((job.track(), job.encoder()), (RUNG, "libx264"));
}

#[tokio::test(start_paused = true)]
async fn a_rung_that_finds_no_place_says_so_and_is_made_when_there_is_one() {
    let mut show = Show::new(2);
    with(
        faulty(Fault::Slow(Duration::ZERO)),
        &mut show,
        async |show| {
            show.run(Duration::from_secs(1)).await;
            let first = show.broadcast.cursor(TrackId::Rung(360), Start::NewestKey);
            show.run_until(|b| b.newest_dts(TrackId::Rung(360)).is_some())
                .await;
            let mut second = show.broadcast.cursor(RUNG, Start::NewestKey);
            show.run_until(|b| b.unavailable(RUNG) == Some("encoders_max"))
                .await;
            assert_eq!(show.hub.converters().jobs().len(), 2);
            drop(first);
            let took = show.run_until(|b| b.newest_dts(RUNG).is_some()).await;
            assert!(took < Duration::from_secs(7), "{took:?}");
            assert_eq!(second.unavailable(), None);
            assert!(second.try_next().unwrap().frame.is_key);
        },
    )
    .await;
    show.assert_clean_is_whole();
}

#[tokio::test(start_paused = true)]
async fn what_is_shed_stops_at_once_and_comes_back_with_a_keyframe_when_it_may() {
    let mut show = Show::new(8);
    with(
        faulty(Fault::Slow(Duration::ZERO)),
        &mut show,
        async |show| {
            show.run(Duration::from_secs(1)).await;
            let mut rung = show.broadcast.cursor(RUNG, Start::NewestKey);
            show.run_until(|b| b.newest_dts(RUNG).is_some()).await;
            show.broadcast.take_load_step(LoadStep::Shed(RUNG));
            show.run(Duration::from_secs(1)).await;
            assert_eq!(rung.unavailable(), Some("overload"));
            let only_clean = show.hub.converters().jobs();
            assert_eq!(only_clean.len(), 1, "its thread has ended");
            while rung.try_next().is_some() {}
            let before = show.broadcast.newest_dts(RUNG);
            show.broadcast.take_load_step(LoadStep::Restored(RUNG));
            show.run_until(|b| b.newest_dts(RUNG) > before).await;
            assert_eq!(rung.unavailable(), None);
            assert!(rung.try_next().unwrap().frame.is_key);
        },
    )
    .await;
    show.assert_clean_is_whole();
}

/// I15: its threads end within a second of the linger, and nothing runs that nobody needs.
#[tokio::test(start_paused = true)]
async fn a_converter_ends_a_linger_after_its_last_user() {
    let mut show = Show::new(8);
    let config = ConvertConfig {
        linger: Duration::from_secs(2),
        ..ConvertConfig::default()
    };
    with(config, &mut show, async |show| {
        show.run(Duration::from_secs(1)).await;
        let count = |show: &Show| show.hub.converters().jobs().len();
        assert_eq!(count(show), 1, "one viewer of one track");
        let rung = show.broadcast.cursor(RUNG, Start::NewestKey);
        show.run_until(|b| b.newest_dts(RUNG).is_some()).await;
        drop(rung);
        show.run(Duration::from_millis(1_900)).await;
        assert_eq!(count(show), 2, "somebody may come back");
        show.run(Duration::from_millis(1_100)).await;
        assert_eq!(count(show), 1);
    })
    .await;
    show.assert_clean_is_whole();
}

/// `clean` becomes smaller with a keyframe, and all other tracks have one at the same T.
#[tokio::test(start_paused = true)]
async fn clean_steps_down_in_lines_where_all_tracks_have_a_keyframe() {
    let mut show = Show::new(8);
    with(
        faulty(Fault::Slow(Duration::ZERO)),
        &mut show,
        async |show| {
            let mut rung = show.broadcast.cursor(RUNG, Start::OldestKey);
            show.run(Duration::from_millis(1_300)).await;
            show.broadcast.take_load_step(LoadStep::CleanLines(60));
            show.run(Duration::from_millis(1_300)).await;
            show.broadcast
                .take_load_step(LoadStep::CleanLines(u32::MAX));
            show.run(Duration::from_millis(1_300)).await;
            let mut keys = Vec::new();
            while let Some(delivery) = rung.try_next() {
                keys.extend(delivery.frame.is_key.then_some(delivery.frame.dts));
            }
            let turns = show
                .made
                .windows(2)
                .filter(|w| w[0].info.shape != w[1].info.shape);
            let turns: Vec<_> = turns.map(|w| Arc::clone(&w[1])).collect();
            let sizes: Vec<_> = turns.iter().map(|f| f.info.picture_size()).collect();
            assert_eq!(sizes, [Some((106, 60)), Some((160, 90))]);
            for turn in turns {
                assert!(turn.is_key && keys.contains(&turn.dts), "{:?}", turn.dts);
            }
        },
    )
    .await;
    show.assert_clean_is_whole();
}
