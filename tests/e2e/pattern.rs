//! What a show looks and sounds like to ffmpeg over LL-HLS.
//!
//! The number of a picture stands in it as two rows of boxes, of which one is the reverse of the
//! other.

use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::program;

const BITS: usize = 16;
const PICTURES: usize = 60;
/// Longer than reading two seconds of a live show takes anywhere.
const READ_MAX: Duration = Duration::from_secs(60);

/// Where a show has the numbers of its pictures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    width: usize,
    height: usize,
    /// The line through the row that is white for 1, and the one through its reverse.
    lines: [usize; 2],
}

/// The demo's own show: along the lower edge.
pub(crate) const DEMO: Layout = Layout {
    width: 1_280,
    height: 720,
    lines: [702, 714],
};

/// Shows of [`crate::clip`]: along the upper edge.
pub(crate) const CLIP: Layout = Layout {
    width: 640,
    height: 360,
    lines: [60, 20],
};

#[derive(Debug)]
pub(crate) struct Seen {
    numbers: Vec<Option<u32>>,
    /// The loudest sample, of 32 767.
    loudest: u16,
}

impl Seen {
    pub(crate) async fn of(hls: &str, layout: Layout) -> Self {
        let pictures = [
            "-map",
            "0:v:0",
            "-fps_mode",
            "passthrough",
            "-pix_fmt",
            "gray",
            "-f",
            "rawvideo",
        ];
        let luma = read(hls, &[&pictures[..], &["-frames:v", "60"]].concat()).await;
        let sound = read(hls, &["-map", "0:a:0", "-f", "s16le", "-t", "1"]).await;
        let samples = sound.chunks_exact(2);
        let loudness = samples.map(|two| i16::from_le_bytes([two[0], two[1]]).unsigned_abs());
        let pictures = luma.chunks_exact(layout.width * layout.height);
        Self {
            numbers: pictures.map(|luma| layout.number(luma)).collect(),
            loudest: loudness.max().unwrap_or(0),
        }
    }

    /// Every picture comes once and in order, and there is something to hear.
    pub(crate) fn check(&self) {
        let Self { numbers, .. } = self;
        assert_eq!(numbers.len(), PICTURES);
        let first = numbers[0].expect("the first picture has its number");
        for (n, number) in (first..).zip(numbers) {
            assert_eq!(*number, Some(n), "{numbers:?}");
        }
        self.check_sound();
    }

    /// There is something to hear.
    pub(crate) fn check_sound(&self) {
        let Self { loudest, .. } = self;
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

impl Layout {
    /// The number of a picture; nothing if the two rows of boxes disagree.
    fn number(self, luma: &[u8]) -> Option<u32> {
        let is_white = |bit: usize, y: usize| {
            let x = (2 * bit + 1) * self.width / (2 * BITS);
            luma[y * self.width + x] > 128
        };
        let mut number = 0;
        for bit in 0..BITS {
            let [is_set, is_reverse] = self.lines.map(|y| is_white(bit, y));
            if is_set == is_reverse {
                return None;
            }
            number |= u32::from(is_set) << bit;
        }
        Some(number)
    }
}
