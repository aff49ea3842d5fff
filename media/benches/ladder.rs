//! What a ladder costs (spec media.md 5.2 rule 8): a source of 720p30 and two rungs of it, 480 and
//! 360 lines, against one `ffmpeg` process that does the same: decode, scale, encode with the same
//! encoder, rates and one thread each.
//!
//! CPU time of this process and of the child, in turns, as the kernel counts it; neither waits for
//! real time. Then the delay that `clean` adds to a source that plays as fast as it is shown. Fails
//! over either bar.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench that cannot do its work stops"
)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::frame::Video;
use lamplight_media::broadcast::{Broadcast, BroadcastKey, Broadcasts, Limits, Publisher, Start};
use lamplight_media::frame::{Kind, Sample, TrackId, TrackInfo};
use lamplight_media::time::SourceTime;
use lamplight_media::transcode::encoder::{Encoded, VideoEncoder, VideoSettings};
use lamplight_media::transcode::{self, ConvertConfig};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

const SIZE: (u32, u32) = (1_280, 720);
const RATE: i64 = 30;
const SECONDS: i64 = 10;
const ROUNDS: usize = 3;
/// Of the process that does the same.
const BAR: f64 = 1.15;
/// Two frames and 50 ms, for 19 of 20 pictures.
const DELAY_MAX: Duration = Duration::from_micros(2 * 1_000_000 / 30 + 50_000);
const RUNGS: [TrackId; 2] = [TrackId::Rung(480), TrackId::Rung(360)];
/// Pictures that a rung may lie behind: fewer than the queues on the way hold.
const BEHIND_MAX: i64 = 8;

fn main() {
    if std::env::args().any(|argument| argument == "--list") {
        return;
    }
    let file = std::env::temp_dir().join(format!("lamplight-ladder-{}.h264", std::process::id()));
    let (info, units) = source();
    std::fs::write(&file, annex_b(&info, &units)).unwrap();
    let mut ratios = Vec::new();
    println!("720p30, {SECONDS} s of it, rungs of 480 and 360 lines; seconds of CPU");
    println!("{:>8} {:>8} {:>8}", "ours", "ffmpeg", "ratio");
    for _ in 0..ROUNDS {
        let before = cpu();
        ours(&info, &units);
        let between = cpu();
        ffmpeg(&file);
        let after = cpu();
        let (ours, theirs) = (between.0 - before.0, after.1 - between.1);
        println!("{ours:>8.2} {theirs:>8.2} {:>8.3}", ours / theirs);
        ratios.push(ours / theirs);
    }
    std::fs::remove_file(&file).unwrap();
    let delay = delay_of_clean(&info, &units);
    println!("clean is made {delay:?} after its source, at most {DELAY_MAX:?} is allowed");
    ratios.sort_by(f64::total_cmp);
    let median = ratios[ROUNDS / 2];
    println!("median {median:.3}, at most {BAR} is allowed");
    assert!(median <= BAR, "the ladder costs too much");
    assert!(delay <= DELAY_MAX, "clean comes too late");
}

/// Seconds of CPU of this process, and of its children that have ended.
fn cpu() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name of the program may hold spaces; what follows it does not.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    // Hundredths of a second, on every Linux of today.
    let seconds = |at: usize| fields[at].parse::<f64>().unwrap() / 100.0;
    (seconds(11) + seconds(12), seconds(13) + seconds(14))
}

/// FFmpeg's moving test picture at 3 Mb/s, keyframes each two seconds.
fn source() -> (TrackInfo, Vec<Encoded>) {
    let graph = format!("testsrc2=size={}x{}:rate={RATE}", SIZE.0, SIZE.1);
    let count = (SECONDS * RATE).to_string();
    let mut child = Command::new("ffmpeg")
        .args([
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            &graph,
            "-frames:v",
            &count,
        ])
        .args(["-pix_fmt", "yuv420p", "-f", "rawvideo", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let settings = VideoSettings {
        width: SIZE.0,
        height: SIZE.1,
        bitrate_bps: 3_000_000,
        frame_rate: 30,
        b_frames: 0,
        gop: 60,
    };
    let mut encoder = VideoEncoder::open(["libx264"], &settings).unwrap();
    let mut raw = child.stdout.take().unwrap();
    let mut units = Vec::new();
    for n in 0..SECONDS * RATE {
        let mut picture = Video::new(Pixel::YUV420P, SIZE.0, SIZE.1);
        for plane in 0..3 {
            let (width, stride) = (picture.plane_width(plane), picture.stride(plane));
            let width = usize::try_from(width).unwrap();
            for row in picture.data_mut(plane).chunks_exact_mut(stride) {
                raw.read_exact(&mut row[..width]).unwrap();
            }
        }
        let t = n * 1_000_000 / RATE;
        units.extend(encoder.encode(&mut picture, t, n % 60 == 0).unwrap());
    }
    assert!(child.wait().unwrap().success());
    (encoder.info().unwrap().clone(), units)
}

/// The same with start codes, as `ffmpeg` reads it.
fn annex_b(info: &TrackInfo, units: &[Encoded]) -> Vec<u8> {
    const START: [u8; 4] = [0, 0, 0, 1];
    let mut out = Vec::new();
    // One set of each kind, behind its length of two bytes.
    let mut rest = &info.config[5..];
    for _ in 0..2 {
        let length = usize::from(u16::from_be_bytes([rest[1], rest[2]]));
        out.extend(START);
        out.extend(&rest[3..3 + length]);
        rest = &rest[3 + length..];
    }
    for unit in units {
        let mut rest: &[u8] = &unit.payload;
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
            out.extend(START);
            out.extend(&after[..length]);
            rest = &after[length..];
        }
    }
    out
}

fn ours(info: &TrackInfo, units: &[Encoded]) {
    convert(info, async |publisher, broadcast| {
        play(publisher, broadcast, units).await;
    });
}

/// Lets the converters run beside a publisher.
fn convert<T>(info: &TrackInfo, play: impl AsyncFnOnce(&mut Publisher, &Arc<Broadcast>) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let hub = Broadcasts::new(Limits::default());
    let key = BroadcastKey::new("room_1");
    let wall = OffsetDateTime::UNIX_EPOCH;
    let mut publisher = hub.open(key, Instant::now(), wall).unwrap();
    publisher.set_track(Instant::now(), info.clone()).unwrap();
    let broadcast = Arc::clone(publisher.broadcast());
    let cancel = CancellationToken::new();
    let running = transcode::run(
        Arc::clone(&broadcast),
        Arc::new(ConvertConfig::default()),
        cancel.clone(),
    );
    let played = runtime.block_on(async {
        let playing = async {
            let played = play(&mut publisher, &broadcast).await;
            cancel.cancel();
            played
        };
        tokio::join!(running, playing).1
    });
    assert_eq!(hub.stats().total("converter_dropped_total"), 0);
    played
}

/// How long after the source 19 of 20 pictures of `clean` are there.
fn delay_of_clean(info: &TrackInfo, units: &[Encoded]) -> Duration {
    convert(info, async |publisher, broadcast| {
        let mut source = broadcast.cursor(TrackId::Video, Start::OldestKey);
        let mut clean = broadcast.cursor(TrackId::Clean, Start::OldestKey);
        let began = Instant::now();
        let (mut arrived, mut delays) = (Vec::new(), Vec::new());
        for unit in units.iter().take(150) {
            sleep_until(began + Duration::from_micros(unit.dts.unsigned_abs())).await;
            publisher.write(Instant::now(), sample(unit));
            while let Some(delivery) = source.try_next() {
                arrived.push(delivery.frame);
            }
            while let Some(delivery) = clean.try_next() {
                let made = delivery.frame;
                let its = arrived.iter().find(|frame| frame.pts == made.pts).unwrap();
                let [from, to] = [its, &made].map(|frame| *frame.arrived.get().unwrap());
                delays.push(to - from);
            }
        }
        assert!(delays.len() > 100);
        delays.sort();
        delays[delays.len() * 19 / 20]
    })
}

fn sample(unit: &Encoded) -> Sample {
    Sample {
        kind: Kind::Video,
        dts: SourceTime::from_micros(unit.dts),
        composition: Duration::ZERO,
        samples: 0,
        is_key: unit.is_key,
        is_discardable: false,
        payload: Bytes::clone(&unit.payload),
    }
}

/// As fast as the slower rung is made.
async fn play(publisher: &mut Publisher, broadcast: &Arc<Broadcast>, units: &[Encoded]) {
    let mut viewers = RUNGS.map(|track| (broadcast.cursor(track, Start::OldestKey), 0_i64));
    for (n, unit) in (0_i64..).zip(units) {
        publisher.write(Instant::now(), sample(unit));
        let is_last = n + 1 == SECONDS * RATE;
        let due = if is_last { n } else { n - BEHIND_MAX };
        for (cursor, made) in &mut viewers {
            loop {
                while cursor.try_next().is_some() {
                    *made += 1;
                }
                if *made >= due {
                    break;
                }
                sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

fn ffmpeg(file: &Path) {
    let graph = "[0:v]split=2[a][b];\
                 [a]scale=854:480:flags=bilinear[x];[b]scale=640:360:flags=bilinear[y]";
    let mut command = Command::new("ffmpeg");
    command
        .args([
            "-v",
            "error",
            "-filter_threads",
            "1",
            "-filter_complex_threads",
            "1",
        ])
        .args(["-threads", "1", "-r", "30", "-i"])
        .arg(PathBuf::from(file))
        .args(["-filter_complex", graph]);
    for (label, rate) in [("[x]", "1200k"), ("[y]", "700k")] {
        command
            .args(["-map", label, "-c:v", "libx264", "-threads", "1"])
            .args([
                "-preset",
                "veryfast",
                "-tune",
                "zerolatency",
                "-profile:v",
                "baseline",
            ])
            .args(["-b:v", rate, "-maxrate", rate, "-bufsize", rate, "-g", "60"])
            .args([
                "-x264-params",
                "scenecut=0:sliced-threads=0:sync-lookahead=0",
            ])
            .args(["-f", "h264", "-y", "/dev/null"]);
    }
    assert!(command.status().unwrap().success());
}
