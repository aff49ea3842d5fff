//! What a WHEP viewer costs: CPU of the server per viewer-second and per packet, beside the floor
//! measured in the same run (spec media.md 10.3).
//!
//! Fixed input: 720p30 at 2.5 Mb/s with a keyframe each 2 s and AAC sound, made into Opus once;
//! 50 viewers (or the number in `VIEWERS`) of the `webrtc` crate in a process of their own, 10 s.
//! Not Criterion: what counts is the CPU of a whole process while others play with it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a bench stops when it cannot go on, prints its figures, and is no server"
)]

mod floor;
#[path = "../support/show.rs"]
mod show;
mod viewers;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lamplight_media::broadcast::Broadcasts;
use lamplight_media::webrtc::{Port, PortConfig};
use lamplight_media::whep;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const VIEWERS: u32 = 50;
const MEASURED: Duration = Duration::from_secs(10);
/// Everybody is there, and the start is over.
const SETTLE: Duration = Duration::from_secs(3);
const PAYLOAD_BYTES_MAX: usize = 1_160;
/// What the issue that built WHEP asked for.
const TARGET_MS: f64 = 2.4;

fn main() {
    if let Some(count) = std::env::args().find_map(|a| a.strip_prefix("--viewers=")?.parse().ok()) {
        viewers::run(count);
        return;
    }
    let asked = std::env::var("VIEWERS").ok().and_then(|n| n.parse().ok());
    let count = asked.unwrap_or(VIEWERS);
    let floor = floor::measure();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let cost = runtime.block_on(serve(count));
    print(count, floor, &cost);
}

struct Cost {
    cpu: Duration,
    time: Duration,
    packets: u64,
}

fn print(count: u32, floor: floor::Floor, cost: &Cost) {
    let viewer_seconds = f64::from(count) * cost.time.as_secs_f64();
    let cpu_ms = cost.cpu.as_secs_f64() * 1_000.0;
    let packets = f64::from(u32::try_from(cost.packets).unwrap());
    let per_packet_us = cpu_ms * 1_000.0 / packets;
    let floor_us = floor.packet_us();
    println!("viewers                 {count}");
    println!("packets per viewer-s    {:.0}", packets / viewer_seconds);
    println!("floor F per packet      {floor_us:.2} us ({floor})");
    println!(
        "WHEP per packet         {per_packet_us:.2} us = {:.1} F",
        per_packet_us / floor_us
    );
    println!(
        "WHEP per viewer-second  {:.2} ms of CPU; target {TARGET_MS} ms: {:.2} of it",
        cpu_ms / viewer_seconds,
        cpu_ms / viewer_seconds / TARGET_MS
    );
}

async fn serve(count: u32) -> Cost {
    let hub = Broadcasts::new(lamplight_media::broadcast::Limits::default());
    let cancel = CancellationToken::new();
    let config = PortConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        public_addrs: Vec::new(),
        public_port: None,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
    };
    let port = Port::bind(config, Arc::clone(&hub)).unwrap();
    tokio::spawn(Arc::clone(&port).run(cancel.clone()));
    let broadcast = show::start(&hub, show::Sounds::WithPictures, &cancel);
    broadcast.settled().await.unwrap();

    let mut crowd = Crowd::start(count);
    for _ in 0..count {
        let offer = crowd.read();
        let terms = whep::Terms::default();
        let accepted = whep::accept(&port, &broadcast, &offer, terms, Instant::now()).unwrap();
        tokio::spawn(accepted.session.run(cancel.clone(), Arc::clone(&hub)));
        crowd.write(&accepted.answer);
    }
    assert_eq!(crowd.read(), "all see the show");
    tokio::time::sleep(SETTLE).await;
    let (began, cpu, packets) = (Instant::now(), floor::process_cpu(), crowd.packets());
    tokio::time::sleep(MEASURED).await;
    let cost = Cost {
        cpu: floor::process_cpu() - cpu,
        time: began.elapsed(),
        packets: crowd.packets() - packets,
    };
    cancel.cancel();
    cost
}

/// The process of the viewers; a line each way is a message.
struct Crowd {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Crowd {
    fn start(count: u32) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg(format!("--viewers={count}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let to = child.stdin.take().unwrap();
        let from = BufReader::new(child.stdout.take().unwrap());
        Self { child, to, from }
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().replace('\t', "\r\n")
    }

    fn write(&mut self, text: &str) {
        writeln!(self.to, "{}", text.replace("\r\n", "\t")).unwrap();
    }

    /// RTP packets that all viewers got so far.
    fn packets(&mut self) -> u64 {
        self.write("packets");
        self.read().parse().unwrap()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Over already, or ended here.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
