//! A network between viewers and the server's UDP port, in user space: loss, delay, and a queue
//! before a narrow place. Whoever watches through it finds it in the answer's candidates.
//!
//! Invariant: what is lost follows from the seed and the order of datagrams alone.
#![expect(
    clippy::disallowed_methods,
    reason = "a network goes on beside the test and ends with it"
)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Bytes that wait before the narrow place: half a second of 0.5 Mb/s.
const QUEUE_BYTES: u64 = 32 << 10;

/// Datagrams under way; what is more is lost.
const UNDER_WAY_MAX: usize = 8_192;

/// What the network is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Of a thousand datagrams, each way.
    pub(crate) lost_per_mille: u64,
    /// One way.
    pub(crate) delay: Duration,
    /// Towards the viewer.
    pub(crate) bps: u64,
}

/// A running network; its tasks end with the test.
pub(crate) struct Link {
    bps: Arc<AtomicU64>,
    port: u16,
}

impl Link {
    /// A network in front of a server that will listen there.
    pub(crate) async fn open(server: SocketAddr, weather: Weather) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = front.local_addr().unwrap().port();
        let bps = Arc::new(AtomicU64::new(weather.bps));
        tokio::spawn(run(front, server, weather, Arc::clone(&bps)));
        Self { bps, port }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// The narrow place becomes so narrow.
    pub(crate) fn narrow(&self, bps: u64) {
        self.bps.store(bps, Ordering::Relaxed);
    }
}

async fn run(front: Arc<UdpSocket>, server: SocketAddr, weather: Weather, bps: Arc<AtomicU64>) {
    let dice = Arc::new(Mutex::new(Dice(0x9e37_79b9_7f4a_7c15)));
    let mut upstreams: HashMap<SocketAddr, mpsc::Sender<(Instant, Vec<u8>)>> = HashMap::new();
    let mut buffer = vec![0; 2_048];
    loop {
        let (length, client) = front.recv_from(&mut buffer).await.unwrap();
        let up = upstreams.entry(client).or_insert_with(|| {
            let (up, waiting) = mpsc::channel(UNDER_WAY_MAX);
            let (front, bps, dice) = (Arc::clone(&front), Arc::clone(&bps), Arc::clone(&dice));
            tokio::spawn(async move {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                back.connect(server).await.unwrap();
                tokio::spawn(upwards(Arc::clone(&back), waiting));
                downwards((front, back), client, weather, (bps, dice)).await;
            });
            up
        });
        if !dice.lock().unwrap().loses(weather.lost_per_mille) {
            let _ = up.try_send((Instant::now() + weather.delay, buffer[..length].to_vec()));
        }
    }
}

async fn upwards(back: Arc<UdpSocket>, mut waiting: mpsc::Receiver<(Instant, Vec<u8>)>) {
    while let Some((due, datagram)) = waiting.recv().await {
        sleep_until(due).await;
        // A server that has ended refuses, which is no matter here.
        drop(back.send(&datagram).await);
    }
}

async fn downwards(
    (front, back): (Arc<UdpSocket>, Arc<UdpSocket>),
    client: SocketAddr,
    weather: Weather,
    (bps, dice): (Arc<AtomicU64>, Arc<Mutex<Dice>>),
) {
    let (send, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY_MAX);
    tokio::spawn(async move {
        while let Some((due, datagram)) = waiting.recv().await {
            sleep_until(due).await;
            drop(front.send_to(&datagram, client).await);
        }
    });
    let mut free = Instant::now();
    let mut buffer = vec![0; 2_048];
    loop {
        let Ok(length) = back.recv(&mut buffer).await else {
            continue;
        };
        let now = Instant::now();
        let rate = bps.load(Ordering::Relaxed);
        let waits = free.saturating_duration_since(now);
        let queued = u64::try_from(waits.as_micros()).unwrap() * rate / 8_000_000;
        if queued > QUEUE_BYTES || dice.lock().unwrap().loses(weather.lost_per_mille) {
            continue;
        }
        let bits = u64::try_from(length).unwrap() * 8;
        free = free.max(now) + Duration::from_micros(bits * 1_000_000 / rate);
        let _ = send.try_send((free + weather.delay, buffer[..length].to_vec()));
    }
}

/// xorshift64*: the same seed, the same losses.
struct Dice(u64);

impl Dice {
    fn loses(&mut self, per_mille: u64) -> bool {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 1_000 < per_mille
    }
}
