//! A clip as one file, judged by ffprobe and ffmpeg.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::client::program;
use crate::clip::{PICTURE, TONE};
use crate::server::Server;

const SHOWN: &str = "14";
const SHOWN_MAX: Duration = Duration::from_secs(40);
/// The recording is there ten seconds after the end of the grace at most.
const READY_MAX: Duration = Duration::from_secs(60);
const PROBED_MAX: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(300);
/// Of the picture; a frame of sound is shorter.
const FRAME_S: f64 = 1.0 / 30.0;
/// A picture is shown so much later than it is decoded: two are reordered.
const REORDERED_S: f64 = 2.0 * FRAME_S;
const KINDS: [&str; 2] = ["video", "audio"];

#[derive(Debug, Deserialize)]
struct Probe {
    streams: Vec<Stream>,
    packets: Vec<Packet>,
    format: Format,
}

#[derive(Debug, Deserialize)]
struct Stream {
    codec_name: String,
    duration: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Packet {
    codec_type: String,
    pts_time: String,
    dts_time: String,
    flags: String,
}

#[derive(Debug, Deserialize)]
struct Format {
    start_time: String,
    duration: String,
}

fn number(text: &str) -> f64 {
    text.parse().unwrap()
}

/// A show of reordered pictures with sound of the same clock, until its end.
async fn show(server: &Server) {
    let mut ffmpeg = program("ffmpeg");
    ffmpeg
        .args(["-nostdin", "-nostats", "-loglevel", "warning"])
        .args(["-re", "-f", "lavfi", "-i", PICTURE])
        .args(["-re", "-f", "lavfi", "-i", TONE, "-t", SHOWN])
        .args(["-map", "0:v", "-map", "1:a", "-c:v", "libx264"])
        .args(["-preset", "ultrafast", "-bf", "2", "-pix_fmt", "yuv420p"])
        .args(["-g", "60", "-sc_threshold", "0", "-c:a", "aac"])
        .args(["-f", "flv", &server.publish_url()]);
    let mut ffmpeg = ffmpeg.spawn().unwrap();
    server.on_air().await;
    let ended = timeout(SHOWN_MAX, ffmpeg.wait()).await;
    assert!(ended.expect("the show ends").unwrap().success());
}

/// The name of the recording, once it can be played.
async fn recorded(server: &Server) -> String {
    let folder = server.folder().join("data/recordings");
    let found = async {
        loop {
            let all = std::fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap());
            let ended = all.filter(|entry| entry.path().join("index.jsonl").exists());
            let names = ended.map(|entry| entry.file_name().into_string().unwrap());
            if let Some(name) = names.last() {
                return name;
            }
            sleep(LOOK_AGAIN).await;
        }
    };
    let found = timeout(READY_MAX, found).await;
    found.expect("the recording has its end: see server.log")
}

async fn probe(url: &str) -> Probe {
    let mut ffprobe = program("ffprobe");
    ffprobe
        .args([
            "-loglevel",
            "error",
            "-show_streams",
            "-show_format",
            "-show_packets",
        ])
        .args(["-of", "json", url])
        .stdout(Stdio::piped());
    let output = timeout(PROBED_MAX, ffprobe.output()).await;
    let output = output.expect("ffprobe reads in time").unwrap();
    assert!(output.status.success(), "ffprobe failed: see above");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Decodes all of it from somewhere on; what ffmpeg complained of.
async fn decode(url: &str, from_s: &str) -> String {
    let mut ffmpeg = program("ffmpeg");
    ffmpeg
        .args(["-nostdin", "-loglevel", "warning", "-xerror"])
        .args(["-err_detect", "explode", "-ss", from_s, "-i", url])
        .args(["-f", "null", "-"])
        .stderr(Stdio::piped());
    let output = timeout(PROBED_MAX, ffmpeg.output()).await;
    let output = output.expect("ffmpeg decodes in time").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

impl Probe {
    fn check(&self, lasts_s: f64) {
        let codecs: Vec<&str> = self.streams.iter().map(|s| s.codec_name.as_str()).collect();
        assert_eq!(codecs, ["h264", "aac"]);
        let lengths = self.streams.iter().filter_map(|s| s.duration.as_ref());
        for lasts in lengths.chain([&self.format.duration]) {
            assert!(
                (number(lasts) - lasts_s).abs() < 0.1,
                "{lasts} of {lasts_s} s"
            );
        }
        let start_s = number(&self.format.start_time);
        assert!((0.0..REORDERED_S).contains(&start_s), "{start_s}");
        for kind in KINDS {
            let decoded = self.times(kind, |packet| &packet.dts_time);
            assert!(decoded.is_sorted_by(|a, b| a < b), "{kind}: {decoded:?}");
            let shown = self.times(kind, |packet| &packet.pts_time);
            assert!(
                (shown[0] - start_s).abs() < REORDERED_S,
                "{kind}: {shown:?}"
            );
            let last = shown.iter().copied().fold(0.0, f64::max);
            assert!((last - lasts_s).abs() < 0.15, "{kind} ends at {last}");
        }
        let decoded = KINDS.map(|kind| self.times(kind, |packet| &packet.dts_time)[0]);
        assert_eq!(decoded[0].min(decoded[1]), 0.0, "{decoded:?}");
        let mut pictures = self.packets.iter().filter(|p| p.codec_type == KINDS[0]);
        assert!(pictures.next().unwrap().flags.starts_with('K'));
    }

    fn times(&self, kind: &str, of: impl Fn(&Packet) -> &String) -> Vec<f64> {
        let packets = self.packets.iter().filter(|p| p.codec_type == kind);
        packets.map(|packet| number(of(packet))).collect()
    }

    /// Picture and sound are as far apart as in the segments that it was made of.
    fn check_sync(&self, segments: &Self) {
        let moved = KINDS.map(|kind| {
            let shown = |probe: &Self| probe.times(kind, |packet| &packet.pts_time)[0];
            shown(segments) - shown(self)
        });
        assert!((moved[0] - 4.0).abs() < FRAME_S, "{moved:?}");
        assert!((moved[0] - moved[1]).abs() < 0.001, "{moved:?}");
    }
}

#[tokio::test]
async fn ffmpeg_decodes_a_clip_of_a_recording_from_its_beginning_and_from_its_middle() {
    let server = Server::start("clip_file").await;
    show(&server).await;
    let name = recorded(&server).await;
    let base = format!("{}/vod/{name}/clip.mp4", server.urls.http);
    // Segments of two seconds: from 4 s to 10 s.
    let clip = format!("{base}?from_us=5000000&to_us=9000000");
    let file = probe(&clip).await;
    file.check(6.0);
    let list = clip.replace("clip.mp4", "index.m3u8");
    file.check_sync(&probe(&list).await);
    probe(&base).await.check(number(SHOWN));
    for (url, from_s) in [(&clip, "0"), (&base, "0"), (&base, "7.5")] {
        assert_eq!(decode(url, from_s).await, "", "{url} from {from_s} s");
    }
}
