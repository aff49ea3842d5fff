//! Somebody plays the show over RTMP: GStreamer, and ffmpeg, which writes what it was sent into a
//! file.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::{sleep, timeout};

use crate::client::program;
use crate::flv::{Tag, VIDEO, tags};
use crate::players;
use crate::publisher::{Publisher, Take};
use crate::server::Server;

const GROWN_MAX: Duration = Duration::from_secs(30);
/// A stop is waited after for five seconds.
const OVER_MAX: Duration = Duration::from_secs(20);
const AWAY: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Some seconds of pictures.
const SOME: usize = 120;
const GOP: u32 = 60;

/// ffmpeg as a player; killed when dropped.
struct Player {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

impl Player {
    fn start(server: &Server) -> Self {
        let [file, log] = ["played.flv", "player.log"].map(|name| server.folder().join(name));
        let mut command = program("ffmpeg");
        command
            .args(["-nostats", "-loglevel", "warning", "-copyts", "-i"])
            .arg(server.play_url())
            .args([
                "-map",
                "0",
                "-c",
                "copy",
                "-flush_packets",
                "1",
                "-f",
                "flv",
            ])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        Self { child, file, log }
    }

    /// What was played so far; the tags that are whole.
    fn pictures(&self) -> Vec<Tag> {
        let bytes = std::fs::read(&self.file).unwrap_or_default();
        let all = tags(&bytes.into());
        let is_picture = |tag: &Tag| tag.kind == VIDEO && tag.is_media();
        all.into_iter().filter(is_picture).collect()
    }

    async fn has_played(&mut self, pictures: usize) {
        let grown = async {
            while self.pictures().len() < pictures {
                let ended = self.child.try_wait().unwrap();
                assert_eq!(ended, None, "it plays on: {}", self.said());
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(GROWN_MAX, grown).await.expect("pictures come");
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

#[tokio::test]
async fn ffmpeg_plays_every_picture_over_rtmp_through_a_crash_of_the_publisher_to_the_end() {
    let server = Server::start("rtmp_play").await;
    let take = |number: u32| Take {
        number,
        counted: number * 10_000,
        gop: GOP,
    };
    // It asks before there is anything to play.
    let mut player = Player::start(&server);
    let publisher = Publisher::start_as(&server, server.publish_url(), take(0));
    player.has_played(SOME).await;
    publisher.kill().await;
    sleep(AWAY).await;
    let publisher = Publisher::start_as(&server, server.publish_url(), take(1));
    let before = player.pictures().len();
    player.has_played(before + SOME).await;
    publisher.stop().await;
    let over = timeout(OVER_MAX, player.child.wait()).await;
    let status = over.expect("ffmpeg is told that the show is over").unwrap();
    assert!(status.success(), "{}", player.said());

    let pictures = player.pictures();
    let steps = pictures
        .windows(2)
        .map(|two| two[1].stamp_ms - two[0].stamp_ms);
    let is_one_picture = |ms: &i64| (33..=34).contains(ms);
    let others: Vec<i64> = steps.filter(|ms| !is_one_picture(ms)).collect();
    assert_eq!(others.len(), 1, "one outage: {others:?}");
    assert!(others[0] >= 3_000, "as long as it was: {others:?}");
    let is_key = |tag: &Tag| tag.body[0] == 0x17;
    assert!(is_key(&pictures[0]));
    let after = pictures
        .windows(2)
        .find(|two| two[1].stamp_ms - two[0].stamp_ms > 1_000);
    assert!(is_key(&after.unwrap()[1]), "the second take begins whole");
}

#[tokio::test]
async fn gstreamer_sees_every_picture_over_rtmp_and_hears_the_tone() {
    let server = Server::start("rtmp_gstreamer").await;
    let publisher = Publisher::start_as(&server, server.publish_url(), Take::FIRST);
    server.on_air().await;
    let seen = players::Seen::by("peers/rtmp_gstreamer.py", &server).await;
    eprintln!("GStreamer over RTMP: {seen:?}");
    seen.check();
    publisher.stop().await;
}
