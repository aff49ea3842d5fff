//! What an FLV viewer costs: CPU of the server per viewer-second and per frame, beside two others
//! in the same run (spec media.md 10.3): a bare loop that writes the same slices, and viewers that
//! each make their own tags and write them one by one, as plain servers do.
//!
//! Fixed input: 720p30 at 2.5 Mb/s with a keyframe each 2 s and AAC; 100 viewers (or the number in
//! `VIEWERS`) over TCP, read by a process of their own. The ways take turns for three rounds of
//! 5 s, and the median counts. Not Criterion: what counts is the CPU of a whole process.
//!
//! Not here: HTTP, whose chunks cost the same in each way.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench stops when it cannot go on, prints its figures, and is no server"
)]

mod cpu;
#[path = "../support/show.rs"]
mod show;
mod sink;
mod tags;
mod ways;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lamplight_media::broadcast::{Broadcast, Broadcasts, Limits};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::sink::Sink;
use self::ways::Way;

const VIEWERS: u32 = 100;
const ROUNDS: usize = 3;
const MEASURED: Duration = Duration::from_secs(5);
/// Everybody has caught up with the show.
const SETTLE: Duration = Duration::from_secs(2);
/// A viewer may cost so much of what the bare loop costs (media.md 10.3).
const TARGET: f64 = 1.5;
/// Pictures and sounds a second.
const RATE: f64 = 30.0 + 48_000.0 / 1_024.0;

fn main() {
    if std::env::args().any(|word| word == sink::ARGUMENT) {
        sink::run();
        return;
    }
    let asked = std::env::var("VIEWERS").ok().and_then(|n| n.parse().ok());
    let count = asked.unwrap_or(VIEWERS);
    // One thread, as a server of one core has.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let costs = runtime.block_on(run(count));
    print(count, &costs);
}

/// CPU of one viewer in a second, and of one frame.
#[derive(Clone, Copy, Debug)]
struct Cost {
    viewer_ms: f64,
    frame_us: f64,
}

fn print(count: u32, costs: &[Cost]) {
    let [bare, own, ..] = *costs else {
        panic!("two are compared with");
    };
    println!("viewers {count}, median of {ROUNDS} rounds of {MEASURED:?}");
    println!("way                     ms/viewer-s   us/frame  of the loop  of own tags");
    for (way, cost) in Way::ALL.iter().zip(costs) {
        let Cost {
            viewer_ms,
            frame_us,
        } = cost;
        let of = |other: Cost| viewer_ms / other.viewer_ms;
        let name = way.to_string();
        println!(
            "{name:<22}  {viewer_ms:>11.3}  {frame_us:>9.2}  {:>11.2}  {:>11.2}",
            of(bare),
            of(own)
        );
    }
    println!("target: a viewer of ours at most {TARGET} of the loop");
}

async fn run(count: u32) -> Vec<Cost> {
    let hub = Broadcasts::new(Limits::default());
    let cancel = CancellationToken::new();
    let broadcast = show::start(&hub, show::Sounds::InTime, &cancel);
    broadcast.settled().await.unwrap();
    let mut sink = Sink::start();
    let mut rounds = vec![Vec::new(); Way::ALL.len()];
    for _ in 0..ROUNDS {
        for (costs, way) in rounds.iter_mut().zip(Way::ALL) {
            costs.push(measure(way, count, (&hub, &broadcast), &mut sink).await);
        }
    }
    cancel.cancel();
    rounds.into_iter().map(median).collect()
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|one, other| one.viewer_ms.total_cmp(&other.viewer_ms));
    costs[costs.len() / 2]
}

async fn measure(
    way: Way,
    count: u32,
    (hub, broadcast): (&Arc<Broadcasts>, &Arc<Broadcast>),
    sink: &mut Sink,
) -> Cost {
    let (cancel, frames) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let streams = sink.connect(count).await;
    let mut viewers = ways::serve(way, (hub, broadcast), streams, &frames);
    let watching = cancel.clone();
    let serving = tokio::spawn(async move {
        tokio::select! {
            () = watching.cancelled() => {}
            _ended = viewers.join_next() => panic!("a viewer was lost"),
        }
    });
    sleep(SETTLE).await;
    let read = || frames.load(Ordering::Relaxed);
    let (began, cpu, before, bytes) = (Instant::now(), cpu::of_threads(), read(), sink.bytes());
    sleep(MEASURED).await;
    let (cpu, time) = (cpu::of_threads() - cpu, began.elapsed());
    let (frames, bytes) = (read() - before, sink.bytes() - bytes);
    cancel.cancel();
    serving.await.unwrap();
    let viewer_seconds = f64::from(count) * time.as_secs_f64();
    let number = |n: u64| f64::from(u32::try_from(n).unwrap());
    let wanted = viewer_seconds * RATE;
    assert!(
        number(frames) > wanted * 0.99,
        "{way}: {frames} of {wanted} frames"
    );
    // A way that leaves something out is no match for the others.
    let rate = number(bytes / 1_000) / viewer_seconds;
    assert!((300.0..360.0).contains(&rate), "{way}: {rate} kB a second");
    Cost {
        viewer_ms: cpu.as_secs_f64() * 1e3 / viewer_seconds,
        frame_us: cpu.as_secs_f64() * 1e6 / number(frames),
    }
}
