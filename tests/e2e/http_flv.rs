//! HTTP-FLV (spec media.md 7): ffmpeg, GStreamer and mpegts.js are sent every picture at its time,
//! also over the absence of the publisher.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use crate::client::program;
use crate::flv::{AUDIO, Tag, VIDEO, tags};
use crate::hls_players::{self, Clock};
use crate::pattern;
use crate::players;
use crate::publisher::{Publisher, Take};
use crate::server::Server;

const PACKETS: usize = 150;
const PROBED_MAX: Duration = Duration::from_secs(60);
const WATCHED: Duration = Duration::from_secs(30);
/// Its buffer is held between 0.4 and 0.8 s, before which stand encoder and screen.
const DELAY_MS_MAX: f64 = 1_500.0;
const OUTAGE: Duration = Duration::from_secs(5);
const BACK_WITHIN: Duration = Duration::from_secs(30);
const ENDED_WITHIN: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A viewer that keeps what it is sent as it is; gone when dropped.
pub(crate) struct Keeper {
    child: Child,
    file: PathBuf,
}

impl Keeper {
    pub(crate) fn start(server: &Server, name: &str) -> Self {
        let file = server.folder().join(name);
        let mut curl = program("curl");
        curl.args(["-s", "-S", "-f", "-N", "-o"])
            .arg(&file)
            .arg(server.flv_url());
        let child = curl.spawn().unwrap();
        Self { child, file }
    }

    pub(crate) fn tags(&self) -> Vec<Tag> {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        tags(&bytes.into())
    }

    /// Waits until what it was sent is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&[Tag]) -> bool) -> Vec<Tag> {
        let came = async {
            loop {
                let tags = self.tags();
                if is_so(&tags) {
                    return tags;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        let came = timeout(BACK_WITHIN, came).await;
        came.unwrap_or_else(|_| panic!("{what} did not come"))
    }

    /// It was not disconnected.
    pub(crate) fn assert_watches(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the viewer was lost");
    }

    /// Waits until the server ended the stream in good order; the file of what was sent.
    async fn ended(mut self) -> PathBuf {
        let ended = timeout(ENDED_WITHIN, self.child.wait()).await;
        let status = ended.expect("the stream ends with the show").unwrap();
        assert!(status.success(), "the stream broke off: {status}");
        self.file
    }
}

/// Within each track time goes forward.
pub(crate) fn assert_forward(tags: &[Tag]) {
    for kind in [AUDIO, VIDEO] {
        let stamps: Vec<i64> = stamps(tags, kind).collect();
        assert!(stamps.is_sorted(), "track {kind} goes back: {stamps:?}");
    }
}

fn stamps(tags: &[Tag], kind: u8) -> impl Iterator<Item = i64> + '_ {
    let of_kind = tags.iter().filter(move |tag| tag.kind == kind);
    of_kind.filter(|tag| tag.is_media()).map(|tag| tag.stamp_ms)
}

pub(crate) fn pictures(tags: &[Tag]) -> Vec<i64> {
    stamps(tags, VIDEO).collect()
}

/// When a picture is decoded and shown, in milliseconds.
type Times = (i64, i64);

#[derive(Debug, Deserialize)]
struct Packets {
    packets: Vec<Packet>,
}

#[derive(Debug, Deserialize)]
struct Packet {
    dts_time: String,
    pts_time: String,
}

/// The times that ffprobe finds.
async fn probed(url: &str) -> Vec<Times> {
    let mut ffprobe = program("ffprobe");
    let count = format!("%+#{PACKETS}");
    ffprobe
        .args(["-loglevel", "error", "-select_streams", "v", "-of", "json"])
        .args(["-show_entries", "packet=dts_time,pts_time"])
        .args(["-read_intervals", &count, url])
        .stdout(Stdio::piped());
    let output = timeout(PROBED_MAX, ffprobe.output()).await;
    let output = output.expect("ffprobe reads in time").unwrap();
    assert!(output.status.success(), "ffprobe failed: see above");
    let found: Packets = serde_json::from_slice(&output.stdout).unwrap();
    let ms = |text: &str| {
        let (whole, part) = text.split_once('.').expect("seconds have a point");
        whole.parse::<i64>().unwrap() * 1_000 + part[..3].parse::<i64>().unwrap()
    };
    let times = found.packets.iter();
    times.map(|p| (ms(&p.dts_time), ms(&p.pts_time))).collect()
}

/// The same of what the publisher sent: T is the distance to the first stamp of either track.
fn published(recording: &Path) -> Vec<Times> {
    let tags = tags(&std::fs::read(recording).unwrap().into());
    let mut media = tags.iter().filter(|tag| tag.is_media()).peekable();
    let first = media.peek().expect("something was sent").stamp_ms;
    let pictures = media.filter(|tag| tag.kind == VIDEO);
    let times = |tag: &Tag| {
        let dts = tag.stamp_ms - first;
        (dts, dts + tag.composition_ms())
    };
    pictures.map(times).collect()
}

#[tokio::test]
async fn ffmpeg_and_gstreamer_are_sent_every_picture_at_its_time_over_http_flv() {
    let server = Server::start("http_flv").await;
    let publisher = Publisher::start_as(&server, server.publish_url(), Take::FIRST);
    server.on_air().await;
    let url = server.flv_url();
    pattern::Seen::of(&url, pattern::CLIP).await.check();
    let found = probed(&url).await;
    let seen = players::Seen::by("peers/flv_gstreamer.py", &server).await;
    eprintln!("GStreamer: {seen:?}");
    seen.check();
    let sent = published(&publisher.stop().await);
    assert!(found.len() >= PACKETS, "{} packets", found.len());
    let begin = sent.iter().position(|times| *times == found[0]);
    let begin = begin.unwrap_or_else(|| panic!("{:?} was not sent: {sent:?}", found[0]));
    assert_eq!(found, sent[begin..begin + found.len()]);
}

#[tokio::test]
async fn mpegts_js_plays_http_flv_in_chromium_without_a_stall() {
    let server = Server::start("mpegts_js").await;
    let _clock = Clock::start(&server);
    server.on_air().await;
    let player = ("mpegts.js", server.flv_url());
    let player = (player.0, player.1.as_str());
    let seen = hls_players::Seen::of(player, &server, WATCHED, &[]).await;
    seen.check(WATCHED);
    assert_eq!(seen.stalls, 0, "{seen:?}");
    let delay_ms = seen.delay_ms.p50.expect("pictures were read");
    eprintln!(
        "delay over HTTP-FLV: {delay_ms:.0} ms, p95 {:?}",
        seen.delay_ms.p95
    );
    assert!(delay_ms < DELAY_MS_MAX, "{seen:?}");
}

#[tokio::test]
async fn a_publisher_killed_and_back_within_the_grace_closes_no_http_flv_viewer() {
    let server = Server::start("http_flv_outage").await;
    let take = |number: u32| Take {
        number,
        counted: number * 10_000,
        gop: 60,
    };
    let start = |number| Publisher::start_as(&server, server.publish_url(), take(number));
    let publisher = start(0);
    server.on_air().await;
    let mut keeper = Keeper::start(&server, "kept.flv");
    let mut ffmpeg = program("ffmpeg");
    let (url, log) = (server.flv_url(), server.folder().join("viewer.log"));
    ffmpeg
        .args(["-nostdin", "-loglevel", "error", "-i", &url])
        .args(["-map", "0", "-fps_mode", "passthrough", "-f", "null", "-"])
        .stderr(std::fs::File::create(&log).unwrap());
    let mut viewer = ffmpeg.spawn().unwrap();
    let of = |tags: &[Tag], kind: u8| {
        tags.iter()
            .filter(|t| t.kind == kind && t.is_header())
            .count()
    };
    let begun = keeper
        .until("the show", |tags| pictures(tags).len() > 60)
        .await;
    assert_eq!([of(&begun, AUDIO), of(&begun, VIDEO)], [1, 1]);
    publisher.kill().await;
    let gone_at = Instant::now();
    sleep(OUTAGE).await;
    let before = pictures(&keeper.tags()).len();
    let publisher = start(1);
    let back = |tags: &[Tag]| pictures(tags).len() > before + 90;
    let tags = keeper.until("the next take", back).await;
    let away = gone_at.elapsed();
    keeper.assert_watches();
    assert_eq!(viewer.try_wait().unwrap(), None, "ffmpeg was lost");
    assert_eq!(server.times_logged(&["viewer left"]), 0);
    assert_forward(&tags);
    assert_eq!(
        [of(&tags, AUDIO), of(&tags, VIDEO)],
        [2, 2],
        "headers are repeated once"
    );
    let stamps = pictures(&tags);
    // T went on while nobody sent: by no less than the absence, and no more than all that passed.
    let hole = stamps[before] - stamps[before - 1];
    let most = i64::try_from(away.as_millis()).unwrap();
    assert!((4_500..most).contains(&hole), "{hole} ms in {most} ms");
    let mut media = tags
        .iter()
        .filter(|tag| tag.kind == VIDEO && tag.is_media());
    assert!(media.nth(before).unwrap().is_key());
    publisher.stop().await;
    let file = keeper.ended().await;
    let ended = timeout(ENDED_WITHIN, viewer.wait()).await;
    let status = ended.expect("ffmpeg sees the end").unwrap();
    assert!(status.success(), "see {}", log.display());
    decodes(&file).await;
}

/// All of a file can be decoded.
async fn decodes(file: &Path) {
    let mut ffmpeg = program("ffmpeg");
    ffmpeg
        .args(["-nostdin", "-loglevel", "error", "-xerror", "-i"])
        .arg(file)
        .args(["-map", "0", "-fps_mode", "passthrough", "-f", "null", "-"]);
    let decoded = timeout(PROBED_MAX, ffmpeg.status()).await;
    let status = decoded.expect("ffmpeg decodes in time").unwrap();
    assert!(
        status.success(),
        "what was sent cannot be decoded: see above"
    );
}
