//! What a strict viewer finds in the LL-HLS of one publisher: lengths, keyframes, whether sound and
//! picture are in step.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use mp4_atom::{Atom, Decode, Header, Moof, Moov};
use tokio::time::timeout;

use super::rows::Plays;
use crate::client::program;

const READ_MAX: Duration = Duration::from_secs(60);
/// From the first message to so many segments; odd ones begin late.
const SEGMENTS_MAX: Duration = Duration::from_secs(40);
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Segments with media that are looked at.
const SEGMENTS: usize = 3;
/// A part of 128 samples is loud or it is not.
const LOUD_DB: f64 = -25.0;
const BRIGHT: f64 = 120.0;

/// One rendition as it was fetched.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) list: String,
    /// The newest run of complete segments with media under one init section: the length that is
    /// said of each, and a file of it.
    segments: Vec<(f64, PathBuf)>,
    joined: PathBuf,
}

/// A frame as its fragment tells of it, in seconds of T.
#[derive(Clone, Copy, Debug)]
struct Sample {
    dts: f64,
    duration: f64,
    is_key: bool,
}

pub(crate) async fn multivariant(url: &str) -> String {
    wait(&format!("{url}/index.m3u8"), |text| {
        text.starts_with("#EXTM3U")
    })
    .await
}

/// Waits until a playlist says what is wanted of it.
async fn wait(url: &str, is_wanted: impl Fn(&str) -> bool) -> String {
    let mut last = String::new();
    let waited = async {
        loop {
            if let Ok(answer) = reqwest::get(url).await {
                last = answer.text().await.unwrap_or_default();
            }
            if is_wanted(&last) {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let waited = timeout(SEGMENTS_MAX, waited).await;
    waited.unwrap_or_else(|_| panic!("{url}: {last}"));
    last
}

impl Fetched {
    /// Fetches once what is odd about it has happened, and it has gone on after that.
    pub(crate) async fn of((url, rendition): (&str, &str), plays: &Plays, folder: &Path) -> Self {
        let is_long = |text: &str| {
            let is_broken = discontinuities(text) >= plays.discontinuities;
            let is_over = is_broken && (!plays.has_gap || text.contains("#EXT-X-GAP"));
            is_over && run(text).len() >= SEGMENTS
        };
        let list = wait(&format!("{url}/{rendition}/live.m3u8"), is_long).await;
        let get = |name: String| async move {
            let answer = reqwest::get(format!("{url}/{rendition}/{name}"))
                .await
                .unwrap();
            assert_eq!(answer.status(), 200, "{name}");
            answer.bytes().await.unwrap()
        };
        let (mut segments, mut joined) = (Vec::new(), Vec::new());
        for Listed { map, length, name } in run(&list) {
            let (init, media) = (get(map).await, get(name.clone()).await);
            let file = folder.join(format!("{rendition}-{name}.mp4"));
            std::fs::write(&file, [&init[..], &media[..]].concat()).unwrap();
            if joined.is_empty() {
                joined.extend_from_slice(&init);
            }
            joined.extend_from_slice(&media);
            segments.push((length, file));
        }
        let file = folder.join(format!("{rendition}.mp4"));
        std::fs::write(&file, joined).unwrap();
        Self {
            list,
            segments,
            joined: file,
        }
    }

    /// How many discontinuities there were.
    pub(crate) fn discontinuities(&self) -> usize {
        discontinuities(&self.list)
    }

    /// Each segment lasts as long as the list says, follows the one before, and begins with a
    /// keyframe if it `has_keys`.
    pub(crate) fn check_segments(&self, has_keys: bool, frame_s: f64) {
        let mut expected = None;
        for (length, file) in &self.segments {
            let samples = samples(file);
            let says = || format!("{}: {samples:?}\n{}", file.display(), self.list);
            let (first, last) = (samples.first().unwrap(), samples.last().unwrap());
            assert!(first.is_key || !has_keys, "{}", says());
            let lasts = last.dts + last.duration - first.dts;
            // A track may begin later than the other.
            let is_first = expected.is_none() && lasts < *length;
            assert!(
                is_first || (lasts - length).abs() <= frame_s,
                "{lasts}: {}",
                says()
            );
            let follows = expected.is_none_or(|at: f64| (first.dts - at).abs() < 0.002);
            assert!(follows, "{expected:?}: {}", says());
            expected = Some(last.dts + last.duration);
        }
    }

    /// When the picture turns bright, in seconds of T.
    pub(crate) async fn flashes(&self) -> Vec<f64> {
        let filter = ["-vf", "signalstats,metadata=print:file=-"];
        rises(&self.joined, &filter, "lavfi.signalstats.YAVG=", BRIGHT).await
    }

    /// When the sound begins.
    pub(crate) async fn tones(&self) -> Vec<f64> {
        let filter = [
            "-af",
            "asetnsamples=n=128,astats=metadata=1:reset=1,ametadata=print:file=-",
        ];
        let level = "lavfi.astats.Overall.RMS_level=";
        rises(&self.joined, &filter, level, LOUD_DB).await
    }
}

/// A complete segment with media.
#[derive(Clone, Debug)]
struct Listed {
    map: String,
    length: f64,
    name: String,
}

/// The segments with media since the newest gap, discontinuity or init section.
fn run(text: &str) -> Vec<Listed> {
    let mut open = Vec::new();
    let (mut map, mut length, mut is_gap) = (String::new(), 0.0, false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
            rest.trim_end_matches('"').clone_into(&mut map);
            open.clear();
        } else if line == "#EXT-X-DISCONTINUITY" {
            open.clear();
        } else if line == "#EXT-X-GAP" {
            is_gap = true;
        } else if let Some(rest) = line.strip_prefix("#EXTINF:") {
            length = rest.trim_end_matches(',').parse().unwrap();
        } else if !line.starts_with('#') {
            let name = line.to_owned();
            let map = map.clone();
            if std::mem::take(&mut is_gap) {
                open.clear();
            } else {
                open.push(Listed { map, length, name });
            }
        }
    }
    open
}

/// How many discontinuities are listed or were.
fn discontinuities(list: &str) -> usize {
    let listed = list.matches("#EXT-X-DISCONTINUITY\n").count();
    let gone = list.lines().find_map(|line| {
        let number = line.strip_prefix("#EXT-X-DISCONTINUITY-SEQUENCE:")?;
        number.parse::<usize>().ok()
    });
    listed + gone.unwrap_or(0)
}

/// The frames of an init section and fragments of one track.
fn samples(file: &Path) -> Vec<Sample> {
    let bytes = std::fs::read(file).unwrap();
    let (mut rest, mut scale, mut out) = (&bytes[..], 1.0, Vec::new());
    while !rest.is_empty() {
        let header = Header::decode(&mut rest).expect("a box");
        let (mut body, after) = rest.split_at(header.size.expect("a length"));
        rest = after;
        if header.kind == Moov::KIND {
            let moov = Moov::decode_body(&mut body).expect("an init section");
            scale = f64::from(moov.trak[0].mdia.mdhd.timescale);
        } else if header.kind == Moof::KIND {
            let moof = Moof::decode_body(&mut body).expect("a fragment");
            let traf = &moof.traf[0];
            let ticks = traf.tfdt.as_ref().expect("a time").base_media_decode_time;
            let mut dts = u32::try_from(ticks).map_or(f64::NAN, f64::from);
            for entry in traf.trun.iter().flat_map(|trun| &trun.samples) {
                let lasts = f64::from(entry.duration.expect("a length"));
                out.push(Sample {
                    dts: dts / scale,
                    duration: lasts / scale,
                    // Depends on no other.
                    is_key: entry.flags.is_none_or(|flags| flags >> 24 & 3 == 2),
                });
                dts += lasts;
            }
        }
    }
    out
}

/// Times at which a value rises over a limit.
async fn rises(file: &Path, filter: &[&str], key: &str, limit: f64) -> Vec<f64> {
    let mut ffmpeg = program("ffmpeg");
    ffmpeg
        .args(["-nostdin", "-loglevel", "error", "-copyts", "-i"])
        .arg(file)
        .args(filter)
        .args(["-f", "null", "-"]);
    let text = output(ffmpeg).await;
    let (mut at, mut was_over, mut out) = (0.0, true, Vec::new());
    for line in text.lines() {
        if let Some((_, time)) = line.split_once("pts_time:") {
            at = time.trim().parse().unwrap();
        } else if let Some(value) = line.strip_prefix(key) {
            // Silence is minus infinity.
            let is_over = value.parse().unwrap_or(f64::NEG_INFINITY) > limit;
            if is_over && !was_over {
                out.push(at);
            }
            was_over = is_over;
        }
    }
    out
}

async fn output(mut command: tokio::process::Command) -> String {
    command.stdout(Stdio::piped());
    let output = timeout(READ_MAX, command.output()).await;
    let output = output.expect("it is read in time").unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        write!(text, "failed: {}", output.status).unwrap();
    }
    text
}
