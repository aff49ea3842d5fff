//! ffmpeg as OBS would send: x264 with B-frames, 8.3 s between keyframes, AAC at 44.1 kHz.
//!
//! A frame counter is burnt into the picture: 16 boxes, black for 1, and below them the same
//! inverted. What is sent is also kept in a file, whose stamps are those of the RTMP messages.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Child;
use tokio::time::timeout;

use crate::client::{program, signal};
use crate::clip::{PICTURE, TONE, counter_filter};
use crate::server::Server;

const STOP_MAX: Duration = Duration::from_secs(10);
/// ffmpeg gives up by itself once the server has closed the connection.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// One run of ffmpeg in a show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Take {
    pub(crate) number: u32,
    /// Pictures that other takes may have shown.
    pub(crate) counted: u32,
    /// Pictures from one keyframe to the next.
    pub(crate) gop: u32,
}

impl Take {
    /// OBS with nothing set: 8.3 s between keyframes.
    pub(crate) const FIRST: Self = Self {
        number: 0,
        counted: 0,
        gop: 250,
    };
}

/// A running ffmpeg; killed when dropped.
pub(crate) struct Publisher {
    child: Child,
    recording: PathBuf,
    log: PathBuf,
}

impl Publisher {
    pub(crate) fn start(server: &Server, url: String) -> Self {
        Self::start_as(server, url, Take::FIRST)
    }

    /// Starts a take of a show: its pictures are counted on from those before.
    pub(crate) fn start_as(server: &Server, url: String, take: Take) -> Self {
        let Take {
            number,
            counted,
            gop,
        } = take;
        let gop = gop.to_string();
        let recording = server.folder().join(format!("sent{number}.flv"));
        let log = server.folder().join(format!("ffmpeg{number}.log"));
        let outputs = format!("[f=flv:onfail=abort]{url}|[f=flv]{}", recording.display());
        let filter = counter_filter(counted);
        let mut command = program("ffmpeg");
        command
            .args(["-nostats", "-loglevel", "verbose"])
            .args(["-re", "-f", "lavfi", "-i", PICTURE])
            .args(["-re", "-f", "lavfi", "-i", TONE])
            .args(["-map", "0:v", "-map", "1:a", "-vf", &filter])
            .args([
                "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p",
            ])
            .args([
                "-b:v",
                "1500k",
                "-bf",
                "2",
                "-g",
                &gop,
                "-sc_threshold",
                "0",
            ])
            .args(["-c:a", "aac", "-b:a", "128k", "-flags", "+global_header"])
            .args(["-f", "tee", &outputs])
            .stderr(File::create(&log).unwrap());
        let child = command.spawn().unwrap();
        Self {
            child,
            recording,
            log,
        }
    }

    /// Ends the show as a person would; gives the file of what was sent.
    pub(crate) async fn stop(mut self) -> PathBuf {
        signal(&self.child, "INT").await;
        let ended = timeout(STOP_MAX, self.child.wait()).await;
        ended.expect("ffmpeg ends when asked").unwrap();
        self.recording
    }

    /// Ends it as a crash of the machine would.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("the show went on until now");
    }

    /// Waits until ffmpeg has given up; gives what it said.
    pub(crate) async fn refused(mut self) -> String {
        let ended = timeout(REFUSED_MAX, self.child.wait()).await;
        let status = ended.expect("ffmpeg notices that it was refused").unwrap();
        assert!(!status.success(), "ffmpeg thinks that all went well");
        std::fs::read_to_string(self.log).unwrap()
    }
}
