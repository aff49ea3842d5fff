//! Verdicts: what is wrong with a stream, and the setting that mends it (spec media.md 3.6).

use crate::time::MediaTime;

/// What a verdict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Code {
    /// Pictures are not shown in the order in which they are decoded.
    Bframes,
    /// Keyframes are more than 3 s apart.
    GopLong,
    /// Keyframes come now sooner, now later.
    GopIrregular,
    /// More bits a second than the key allows.
    BitrateHigh,
    /// Media comes late or in pushes.
    UploadUnstable,
    /// The encoder leaves pictures out.
    FramesDropped,
    /// The publisher's clock is fast or slow.
    ClockDrift,
    /// Picture and sound of one moment do not come together.
    AvSkew,
    /// There is no sound.
    NoAudio,
    /// There is no picture.
    NoVideo,
    /// The sound is not sampled at 48 kHz.
    AudioRate,
    /// The picture is coded in a way that many players cannot show.
    Profile,
    /// The picture has an odd size, or more than 1080 lines.
    SizeOdd,
    /// The publisher's clock jumped.
    Timestamps,
    /// Two encoders use the key in turn.
    TwoEncoders,
    /// Several tracks of a kind came; one is taken.
    Multitrack,
    /// Several layers were offered; one is taken.
    SimulcastOff,
    /// A track began after the show had.
    LateTrack,
    /// Requests for keyframes are not heard.
    KeyframeDeaf,
}

/// How much a verdict matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Viewers notice nothing.
    Info,
    /// It costs quality, delay or a re-encode.
    Warning,
    /// Viewers miss something.
    Error,
}

impl Severity {
    /// The stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Code {
    /// The stable word for programs, logs and counters.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bframes => "bframes",
            Self::GopLong => "gop_long",
            Self::GopIrregular => "gop_irregular",
            Self::BitrateHigh => "bitrate_high",
            Self::UploadUnstable => "upload_unstable",
            Self::FramesDropped => "frames_dropped",
            Self::ClockDrift => "clock_drift",
            Self::AvSkew => "av_skew",
            Self::NoAudio => "no_audio",
            Self::NoVideo => "no_video",
            Self::AudioRate => "audio_rate",
            Self::Profile => "profile",
            Self::SizeOdd => "size_odd",
            Self::Timestamps => "timestamps",
            Self::TwoEncoders => "two_encoders",
            Self::Multitrack => "multitrack",
            Self::SimulcastOff => "simulcast_off",
            Self::LateTrack => "late_track",
            Self::KeyframeDeaf => "keyframe_deaf",
        }
    }

    /// How much it matters.
    pub const fn severity(self) -> Severity {
        match self {
            Self::ClockDrift | Self::AudioRate | Self::SimulcastOff | Self::Multitrack => {
                Severity::Info
            }
            Self::BitrateHigh
            | Self::NoAudio
            | Self::NoVideo
            | Self::TwoEncoders
            | Self::LateTrack => Severity::Error,
            _ => Severity::Warning,
        }
    }

    /// The unit of the measured value; `None` where there is nothing to measure.
    pub const fn unit(self) -> Option<&'static str> {
        match self {
            Self::GopLong | Self::UploadUnstable => Some("s"),
            Self::GopIrregular | Self::FramesDropped => Some("percent"),
            Self::BitrateHigh => Some("kbps"),
            Self::ClockDrift => Some("ppm"),
            Self::AvSkew => Some("ms"),
            Self::AudioRate => Some("hz"),
            Self::SizeOdd => Some("lines"),
            _ => None,
        }
    }

    /// What to do about it, in the words of OBS. `limit_kbps` is what the key allows.
    pub fn sentence(self, value: f64, limit_kbps: u64) -> String {
        let text = match self {
            Self::GopLong => {
                return format!(
                    "Settings > Output > Streaming: set Keyframe Interval to 2 s (now {value:.1} \
                     s; 0 means automatic)."
                );
            }
            Self::BitrateHigh => {
                return format!(
                    "Settings > Output > Streaming: set Video Bitrate so that all is at most \
                     {limit_kbps} kb/s."
                );
            }
            _ => self.fixed(),
        };
        text.to_owned()
    }

    const fn fixed(self) -> &'static str {
        match self {
            Self::Bframes => {
                "Settings > Output > Streaming: set B-frames to 0 (x264: add bframes=0) to spare \
                 the server a re-encode for WebRTC viewers."
            }
            Self::GopIrregular => {
                "Settings > Output > Streaming: add scenecut=0 to the x264 Options, or set \
                 Keyframe Interval to 2 s."
            }
            Self::UploadUnstable => {
                "The upload stalls. Lower the bitrate, turn on Settings > Advanced > Dynamically \
                 change bitrate, and use a cable instead of Wi-Fi."
            }
            Self::FramesDropped => {
                "The encoder leaves frames out. Lower the bitrate or the output resolution, turn \
                 on Settings > Advanced > Dynamically change bitrate, and look at the CPU load."
            }
            Self::ClockDrift => {
                "The encoder's clock is off. Use one audio device for all sources; viewers notice \
                 nothing."
            }
            Self::AvSkew => {
                "Sound and picture come apart. Edit > Advanced Audio Properties: set the Sync \
                 Offset."
            }
            Self::NoAudio => "There is no sound. Unmute a source in the Audio Mixer, or add one.",
            Self::NoVideo => "There is no picture. Add a video source to the scene.",
            Self::AudioRate => "Settings > Audio: set Sample Rate to 48 kHz.",
            Self::Profile => {
                "Many players cannot show this picture. Settings > Output > Streaming: Profile \
                 high; Settings > Advanced: Color Format NV12; no interlacing."
            }
            Self::SizeOdd => {
                "Settings > Video: choose an Output (Scaled) Resolution with even numbers and at \
                 most 1080 lines."
            }
            Self::Timestamps => {
                "The encoder's clock jumped. Stop the stream and start it again; if it happens \
                 again, report the version of the encoder."
            }
            Self::TwoEncoders => {
                "Two encoders use this stream key in turn. Stop one of them; the other may come \
                 in again after 30 seconds."
            }
            Self::Multitrack => {
                "Several tracks came and the first is taken. Send one video and one audio track."
            }
            Self::SimulcastOff => {
                "Several layers were offered and one is taken. Send one layer; the server makes \
                 the others."
            }
            Self::LateTrack => {
                "A track began after the show. Start all sources before you start streaming; HLS \
                 viewers get it with the next show."
            }
            Self::KeyframeDeaf => {
                "The encoder does not hear requests for keyframes. Settings > Output > Streaming: \
                 set Keyframe Interval to 1 or 2 s."
            }
            Self::GopLong | Self::BitrateHigh => "",
        }
    }
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What it is about.
    pub code: Code,
    /// Since this point of the show.
    pub since: MediaTime,
    /// What was measured last, in [`Code::unit`].
    pub value: Option<f64>,
    /// What to do about it, in the words of OBS.
    pub sentence: String,
}
