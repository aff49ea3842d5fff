//! What ffprobe says of a broadcast over LL-HLS.

use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::timeout;

use crate::client::program;
use crate::server::Server;

const PROBED_MAX: Duration = Duration::from_secs(30);
const GROWN_MAX: Duration = Duration::from_secs(30);

/// What one run said.
#[derive(Debug, Deserialize)]
pub(crate) struct Probe {
    streams: Vec<Stream>,
    format: Format,
}

#[derive(Debug, Deserialize)]
struct Stream {
    codec_name: String,
    width: Option<u32>,
    height: Option<u32>,
    sample_rate: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Format {
    start_time: String,
    duration: Option<String>,
}

impl Probe {
    /// Looks until a player that opens the show now would begin after this time.
    pub(crate) async fn later_than(server: &Server, start_s: f64) -> Self {
        let grown = async {
            loop {
                let probe = Self::of(server).await;
                if probe.start_s() > start_s {
                    return probe;
                }
            }
        };
        let grown = timeout(GROWN_MAX, grown).await;
        grown.expect("the playlist grows")
    }

    pub(crate) async fn of(server: &Server) -> Self {
        // ffprobe knows no parts: it needs a whole segment.
        server.listed("#EXTINF").await;
        let mut ffprobe = program("ffprobe");
        ffprobe
            .args(["-loglevel", "error", "-show_streams", "-show_format"])
            .args(["-of", "json", "-live_start_index", "-1"])
            .arg(&server.urls.hls)
            .stdout(Stdio::piped());
        let output = timeout(PROBED_MAX, ffprobe.output()).await;
        let output = output.expect("ffprobe reads in time").unwrap();
        assert!(output.status.success(), "ffprobe failed: see above");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A picture of the clip's size in H.264 and its one rung, and one sound in AAC.
    pub(crate) fn check_tracks(&self, sample_rate: &str) {
        let of = |codec: &str| {
            let of_codec = |stream: &&Stream| stream.codec_name == codec;
            self.streams.iter().filter(of_codec).collect::<Vec<_>>()
        };
        let sounds = of("aac");
        let rates: Vec<_> = sounds.iter().map(|s| s.sample_rate.as_deref()).collect();
        assert_eq!(rates, [Some(sample_rate)], "{self:?}");
        let pictures = of("h264");
        let sizes: Vec<_> = pictures.iter().map(|p| (p.width, p.height)).collect();
        let expected = [(Some(640), Some(360)), (Some(426), Some(240))];
        assert_eq!(sizes, expected, "{self:?}");
        assert_eq!(self.streams.len(), 3, "{self:?}");
    }

    /// Where the newest segment begins; the oldest one when the show is over.
    pub(crate) fn start_s(&self) -> f64 {
        self.format.start_time.parse().unwrap()
    }

    /// Nothing while it is live.
    pub(crate) fn duration_s(&self) -> Option<f64> {
        let duration = self.format.duration.as_ref()?;
        Some(duration.parse().unwrap())
    }
}
