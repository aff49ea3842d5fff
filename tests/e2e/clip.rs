//! Shows of a minute on disk, for encoders that play a file: a frame counter burnt into the
//! picture (16 boxes, black for 1, and below them the same inverted), and a tone.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use crate::client::program;
use crate::server::Server;

pub(crate) const PICTURE: &str = "testsrc2=size=640x360:rate=30";
pub(crate) const TONE: &str = "sine=frequency=1000:sample_rate=44100";

const BITS: u32 = 16;
const CELL: u32 = 40;
const MADE_MAX: Duration = Duration::from_secs(60);
/// Longer than any test looks at it.
const SECONDS: &str = "60";

/// Makes a clip whose pictures are counted from `counted`.
pub(crate) async fn make(server: &Server, counted: u32) -> PathBuf {
    let clip = server.folder().join(format!("clip{counted}.mp4"));
    let mut ffmpeg = program("ffmpeg");
    ffmpeg
        .args(["-nostdin", "-loglevel", "error"])
        .args(["-f", "lavfi", "-i", PICTURE, "-f", "lavfi", "-i", TONE])
        .args(["-vf", &counter_filter(counted), "-t", SECONDS])
        .args(["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt"])
        .args(["yuv420p", "-c:a", "aac"])
        .arg(&clip);
    let made = timeout(MADE_MAX, ffmpeg.status()).await;
    let status = made.expect("ffmpeg makes a clip in time").unwrap();
    assert!(status.success(), "ffmpeg made no clip: see above");
    clip
}

pub(crate) fn counter_filter(counted: u32) -> String {
    boxes(&format!("n+{counted}"))
}

/// Draws a number, an expression of ffmpeg's.
pub(crate) fn boxes(number: &str) -> String {
    let mut filter = String::from("drawbox=x=0:y=0:w=640:h=80:color=white:t=fill");
    for bit in 0..BITS {
        let x = bit * CELL;
        for (row, test) in [(0, "gt"), (CELL, "eq")] {
            let when = format!("{test}(bitand({number},{}),0)", 1_u32 << bit);
            let place = format!("x={x}:y={row}:w={CELL}:h={CELL}");
            write!(
                filter,
                ",drawbox={place}:color=black:t=fill:enable='{when}'"
            )
            .expect("a String takes all text");
        }
    }
    filter
}
