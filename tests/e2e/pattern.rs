//! What the demo's own show looks and sounds like to ffmpeg over LL-HLS.
//!
//! Along the lower edge of the picture its number stands as boxes, white for 1, and below each box
//! its reverse.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::program;

const WIDTH: usize = 1_280;
const HEIGHT: usize = 720;
const BITS: usize = 16;
const ROW: usize = 12;
const PICTURES: usize = 60;
/// Longer than reading two seconds of a live show takes anywhere.
const READ_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Seen {
    numbers: Vec<Option<u32>>,
    /// The loudest sample, of 32 767.
    loudest: u16,
}

impl Seen {
    pub(crate) async fn of(hls: &str) -> Self {
        let pictures = [
            "-map",
            "0:v",
            "-fps_mode",
            "passthrough",
            "-pix_fmt",
            "gray",
            "-f",
            "rawvideo",
        ];
        let luma = read(hls, &[&pictures[..], &["-frames:v", "60"]].concat()).await;
        let sound = read(hls, &["-map", "0:a", "-f", "s16le", "-t", "1"]).await;
        let samples = sound.chunks_exact(2);
        let loudness = samples.map(|two| i16::from_le_bytes([two[0], two[1]]).unsigned_abs());
        Self {
            numbers: luma.chunks_exact(WIDTH * HEIGHT).map(number).collect(),
            loudest: loudness.max().unwrap_or(0),
        }
    }

    /// Every picture comes once and in order, and there is something to hear.
    pub(crate) fn check(&self) {
        let Self { numbers, loudest } = self;
        assert_eq!(numbers.len(), PICTURES);
        let first = numbers[0].expect("the first picture has its number");
        for (n, number) in (first..).zip(numbers) {
            assert_eq!(*number, Some(n), "{numbers:?}");
        }
        assert!(*loudest > 1_000, "the loudest sample is {loudest}");
    }
}

async fn read(hls: &str, arguments: &[&str]) -> Vec<u8> {
    let mut command = program("ffmpeg");
    command
        .args(["-nostdin", "-loglevel", "error", "-i", hls])
        .args(arguments)
        .arg("-")
        .stdout(Stdio::piped());
    let output = timeout(READ_MAX, command.output()).await;
    let output = output.expect("ffmpeg reads the show").unwrap();
    assert!(output.status.success(), "ffmpeg failed: see above");
    output.stdout
}

/// The number of a picture; nothing if the two rows of boxes disagree.
fn number(luma: &[u8]) -> Option<u32> {
    let is_white = |bit: usize, y: usize| {
        let x = bit * (WIDTH / BITS) + WIDTH / BITS / 2;
        luma[y * WIDTH + x] > 128
    };
    let mut number = 0;
    for bit in 0..BITS {
        let is_set = is_white(bit, HEIGHT - ROW - ROW / 2);
        if is_set == is_white(bit, HEIGHT - ROW / 2) {
            return None;
        }
        number |= u32::from(is_set) << bit;
    }
    Some(number)
}
