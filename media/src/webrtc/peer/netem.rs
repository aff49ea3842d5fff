//! A viewer behind an emulated network, in virtual time: seeded loss, delay, jitter that changes
//! the order, and doubles, both ways (spec media.md 11.1 `netem`).
//!
//! The server's end is the real one. The viewer opens packets, puts them in order, asks again for
//! what is missing as browsers do, and shows a picture when all of it is there.
//!
//! Not here: bandwidth ([`crate::whep`]'s tests of renditions), DTLS ([`crate::webrtc::dtls`]'s).

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{Stage, frame};
use super::*;
use crate::frame::TrackId;

const PICTURE: Duration = Duration::from_micros(33_333);
const STEP: Duration = Duration::from_millis(5);
/// A picture that is not whole by then is passed over.
const PATIENCE: Duration = Duration::from_millis(700);
const ASK_AFTER: Duration = Duration::from_millis(20);
const ASK_EVERY: Duration = Duration::from_millis(50);
const ASKS_MAX: u32 = 10;
const PICTURE_BYTES: usize = 5_000;
const SSRC: u32 = 0x1234_7ff1;
/// Where the numbers of that stream begin.
const FIRST: u16 = 0x7ff1;

/// What happens to datagrams on their way.
#[derive(Clone, Copy, Debug)]
struct Weather {
    seed: u64,
    loss_percent: u64,
    /// One way.
    delay: Duration,
    /// Added to some at random: those behind overtake them.
    jitter: Duration,
    doubles_percent: u64,
}

/// One way of the path.
struct Way<T> {
    weather: Weather,
    random: u64,
    /// By arrival, and by the order of sending among those that arrive together.
    under_way: BTreeMap<(Instant, u64), T>,
    sent: u64,
}

impl<T: Clone> Way<T> {
    fn new(weather: Weather, salt: u64) -> Self {
        Self {
            weather,
            random: (weather.seed + 1) * 0x9e37_79b9 + salt,
            under_way: BTreeMap::new(),
            sent: 0,
        }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 20) % below
    }

    fn send(&mut self, now: Instant, what: T) {
        let copies = 1 + u64::from(self.draw(100) < self.weather.doubles_percent);
        for _ in 0..copies {
            if self.draw(100) < self.weather.loss_percent {
                continue;
            }
            let most_us = u64::try_from(self.weather.jitter.as_micros()).unwrap();
            let jitter = Duration::from_micros(self.draw(most_us + 1));
            self.sent += 1;
            let at = (now + self.weather.delay + jitter, self.sent);
            self.under_way.insert(at, what.clone());
        }
    }

    fn arrived(&mut self, now: Instant) -> Vec<T> {
        let later = self.under_way.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.under_way, later)
            .into_values()
            .collect()
    }
}

/// The browser's end.
#[derive(Default)]
struct Viewer {
    /// Packets of pictures not yet shown: RTP time and whether it is the last of its picture.
    waiting: BTreeMap<u16, (u32, bool)>,
    next: u16,
    newest: u16,
    asked: BTreeMap<u16, (u32, Instant)>,
    shown: Vec<u32>,
    passed_over: u32,
    /// Since when the packet that is next is missing.
    stuck: Option<Instant>,
}

impl Viewer {
    fn take(&mut self, packet: &rtc::rtp::Packet) {
        let header = &packet.header;
        let number = header.sequence_number;
        if number < self.next {
            return;
        }
        self.newest = self.newest.max(number);
        self.asked.remove(&number);
        self.waiting
            .insert(number, (header.timestamp, header.marker));
    }

    /// Shows every picture that is whole and next; after a while goes on without one that is not.
    fn show(&mut self, now: Instant) {
        loop {
            let mut end = self.next;
            let last = loop {
                match self.waiting.get(&end) {
                    Some((time, true)) => break Some(*time),
                    Some(_) => end += 1,
                    None => break None,
                }
            };
            if let Some(time) = last {
                self.shown.push(time);
                self.forget_to(end + 1);
            } else if self.newest > end && self.is_out_of_patience(now) {
                let rest = self.waiting.range(end..).find(|(_, (_, is_last))| *is_last);
                let Some((&to, _)) = rest else { return };
                self.passed_over += 1;
                self.forget_to(to + 1);
            } else {
                return;
            }
        }
    }

    fn is_out_of_patience(&mut self, now: Instant) -> bool {
        let since = *self.stuck.get_or_insert(now);
        now - since > PATIENCE
    }

    fn forget_to(&mut self, next: u16) {
        self.next = next;
        self.stuck = None;
        self.waiting = self.waiting.split_off(&next);
        self.asked = self.asked.split_off(&next);
    }

    /// What it asks for again now.
    fn asks(&mut self, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        for number in self.next..self.newest {
            if self.waiting.contains_key(&number) {
                continue;
            }
            // What was overtaken comes within the jitter.
            let first = now + ASK_AFTER - ASK_EVERY;
            let (asks, at) = self.asked.entry(number).or_insert((0, first));
            if *asks < ASKS_MAX && now >= *at + ASK_EVERY {
                (*asks, *at) = (*asks + 1, now);
                out.push(number);
            }
        }
        out
    }
}

/// What came of a show.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    shown: Vec<u32>,
    passed_over: u32,
    repeated: u64,
    packets: u64,
    nacks: u64,
}

/// Plays pictures over a path; the rest of the path's queue is heard to its end.
async fn play(weather: Weather, pictures: i64) -> Outcome {
    let mut stage = Stage::set("").await;
    stage.peer.round_trip.measured = Some(weather.delay * 2);
    let mut viewer = Viewer {
        next: FIRST,
        newest: FIRST,
        ..Viewer::default()
    };
    let (mut down, mut up) = (Way::new(weather, 1), Way::new(weather, 2));
    let began = stage.now;
    let (mut written, mut packets) = (0, 0);
    let until = PICTURE * u32::try_from(pictures).unwrap() + Duration::from_secs(3);
    while stage.now - began < until {
        let due = i64::try_from((stage.now - began).as_micros() / PICTURE.as_micros()).unwrap();
        while written < pictures && written <= due {
            stage.write(&frame(TrackId::Video, written * 33_333, PICTURE_BYTES));
            written += 1;
        }
        for datagram in stage.arrived() {
            packets += 1;
            down.send(stage.now, datagram);
        }
        for asked in up.arrived(stage.now) {
            for datagram in stage.ask(SSRC, asked) {
                down.send(stage.now, datagram);
            }
        }
        for datagram in down.arrived(stage.now) {
            // A double does not open: it is a repetition.
            if let Some(packet) = stage.open(&datagram) {
                viewer.take(&packet);
            }
        }
        viewer.show(stage.now);
        let asks = viewer.asks(stage.now);
        if !asks.is_empty() {
            up.send(stage.now, asks);
        }
        stage.now += STEP;
    }
    let counts = stage.peer.counts();
    Outcome {
        shown: viewer.shown,
        passed_over: viewer.passed_over,
        repeated: counts.repeated,
        packets,
        nacks: counts.nacks,
    }
}

fn weather(seed: u64, loss_percent: u64, round_trip_ms: u64) -> Weather {
    Weather {
        seed,
        loss_percent,
        delay: Duration::from_millis(round_trip_ms / 2),
        jitter: Duration::from_millis(12),
        doubles_percent: 2,
    }
}

/// Of 300 pictures so many are shown at least, by percent lost each way and round trip.
const TABLE: [(u64, u64, usize); 9] = [
    (0, 20, 300),
    (0, 300, 300),
    (2, 100, 300),
    (5, 20, 300),
    (5, 100, 299),
    (5, 300, 295),
    (10, 100, 297),
    // More is lost here than may be sent again: what is whole is shown, and a real viewer moves to
    // a smaller rendition.
    (20, 20, 90),
    (20, 100, 45),
];

#[tokio::test]
async fn pictures_come_whole_and_in_order_over_paths_that_lose_double_and_reorder() {
    const PICTURES: i64 = 300;
    for (loss, round_trip, least) in TABLE {
        for seed in 0..3 {
            let what = format!("{loss} %, {round_trip} ms, seed {seed}");
            let outcome = play(weather(seed, loss, round_trip), PICTURES).await;
            let shown: BTreeSet<u32> = outcome.shown.iter().copied().collect();
            assert_eq!(shown.len(), outcome.shown.len(), "one came twice: {what}");
            let in_order = |pair: &[u32]| pair[1].wrapping_sub(pair[0]) < 1 << 31;
            assert!(
                outcome.shown.windows(2).all(in_order),
                "out of order: {what}"
            );
            assert!(shown.len() >= least, "{} shown: {what}", shown.len());
            // Nothing is sent again that was not asked for, and of all a fifth at most.
            assert!(outcome.repeated <= outcome.nacks, "{what}");
            let budget = outcome.packets / 5 + START_PACKETS;
            assert!(
                outcome.repeated <= budget,
                "{} again: {what}",
                outcome.repeated
            );
        }
    }
}

/// What may be sent again before anything was sent, in packets.
const START_PACKETS: u64 = 60;

#[tokio::test]
async fn the_same_seed_is_the_same_show() {
    let one = play(weather(7, 10, 100), 100).await;
    assert_eq!(play(weather(7, 10, 100), 100).await, one);
    assert_ne!(
        play(weather(8, 10, 100), 100).await.shown,
        Vec::<u32>::new()
    );
}
