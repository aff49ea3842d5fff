//! The H.264 encoders that can be named: what FFmpeg is told for each, and which of them work here.
//!
//! Invariant: an encoder is used only after it has encoded one picture in this process.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ffmpeg_next::util::format::Pixel;
use ffmpeg_next::util::frame::Video;
use ffmpeg_next::{Dictionary, Error};

use super::encoder::{VideoEncoder, VideoSettings};
use crate::bitstream::h264_level::level;

/// Names that `convert.encoder` may have.
pub const H264_ENCODERS: [&str; 5] = [
    "libx264",
    "h264_nvenc",
    "h264_vaapi",
    "h264_qsv",
    "libopenh264",
];

/// The picture that an encoder is tried with: large enough for every device.
const TRIAL: VideoSettings = VideoSettings {
    width: 256,
    height: 144,
    bitrate_bps: 300_000,
    frame_rate: 30,
    b_frames: 0,
    gop: 60,
};
/// Grey.
const LEVEL: u8 = 128;

/// What came of the one trial of each name.
static TRIED: Mutex<BTreeMap<String, Result<(), Unusable>>> = Mutex::new(BTreeMap::new());

/// Why an encoder cannot be used here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Unusable {
    reason: String,
}

/// Encodes one picture with an encoder, once in the process; blocks for some milliseconds then.
///
/// # Errors
/// [`Unusable`], the same at every call: it is logged at the first.
pub fn try_out(name: &str) -> Result<(), Unusable> {
    let mut tried = TRIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = tried.get(name) {
        return known.clone();
    }
    let result = encode_one(name).map_err(|error| Unusable {
        reason: match error {
            Error::EncoderNotFound => "this FFmpeg has no encoder of that name".into(),
            other => other.to_string(),
        },
    });
    if let Err(unusable) = &result {
        tracing::warn!(encoder = name, reason = %unusable, "this encoder does not work here");
    }
    tried.insert(name.to_owned(), result.clone());
    result
}

/// The first of these encoders that works here; each before it is tried, and logged if it does not.
pub fn first_that_works<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().find(|name| try_out(name).is_ok())
}

fn encode_one(name: &str) -> Result<(), Error> {
    let mut encoder = VideoEncoder::open_one(name, &TRIAL)?;
    let mut picture = Video::new(encoder.format(), TRIAL.width, TRIAL.height);
    for plane in 0..picture.planes() {
        picture.data_mut(plane).fill(LEVEL);
    }
    let mut made = encoder.encode(&mut picture, 0, true)?;
    made.extend(encoder.finish());
    let is_good = made.first().is_some_and(|unit| unit.is_key) && encoder.info().is_some();
    is_good.then_some(()).ok_or(Error::InvalidData)
}

/// The name as it stands in metrics.
pub(super) fn label(name: &str) -> &'static str {
    let known = H264_ENCODERS.into_iter().find(|known| *known == name);
    known.unwrap_or("other")
}

/// How an encoder wants its pictures.
pub(super) fn format_of(name: &str) -> Pixel {
    match name {
        "h264_vaapi" | "h264_qsv" => Pixel::NV12,
        _ => Pixel::YUV420P,
    }
}

/// Whether its pictures have to lie in the memory of a graphics device.
pub(super) fn is_on_device(name: &str) -> bool {
    name == "h264_vaapi"
}

/// No reordering and no delay where there are no B-frames, keyframes where they are asked for.
pub(super) fn options(name: &str, settings: &VideoSettings) -> Dictionary<'static> {
    let is_clean = settings.b_frames == 0;
    let pairs: &[(&str, &str)] = match (name, is_clean) {
        // zerolatency would cut each picture into slices.
        ("libx264", true) => &[
            ("preset", "veryfast"),
            ("forced-idr", "1"),
            ("profile", "baseline"),
            ("tune", "zerolatency"),
            (
                "x264-params",
                "scenecut=0:sliced-threads=0:rc-lookahead=0:sync-lookahead=0:\
                 repeat-headers=1:annexb=1",
            ),
        ],
        ("libx264", false) => &[
            ("preset", "veryfast"),
            ("forced-idr", "1"),
            ("profile", "high"),
            (
                "x264-params",
                "scenecut=0:sliced-threads=0:rc-lookahead=10:repeat-headers=1:annexb=1",
            ),
        ],
        ("h264_nvenc", _) => &[
            ("preset", "p3"),
            ("tune", "ull"),
            ("profile", "baseline"),
            ("rc", "cbr"),
            ("delay", "0"),
            ("zerolatency", "1"),
            ("forced-idr", "1"),
            ("no-scenecut", "1"),
        ],
        ("h264_qsv", _) => &[
            ("preset", "veryfast"),
            ("profile", "baseline"),
            ("forced_idr", "1"),
            ("async_depth", "1"),
            ("look_ahead", "0"),
        ],
        ("h264_vaapi", _) => &[("profile", "constrained_baseline"), ("async_depth", "1")],
        ("libopenh264", _) => &[("profile", "constrained_baseline"), ("rc_mode", "bitrate")],
        _ => &[],
    };
    let mut options = Dictionary::new();
    for (key, value) in pairs {
        options.set(key, value);
    }
    if is_clean {
        // What playlists say of a rung before it is made must be true of it.
        let (size, rate) = ((settings.width, settings.height), settings.frame_rate);
        let level = level(size, rate, settings.bitrate_bps.into());
        let level = match name {
            "h264_vaapi" => level.to_string(),
            _ => format!("{}.{}", level / 10, level % 10),
        };
        if matches!(name, "libx264" | "h264_nvenc" | "h264_vaapi") {
            options.set("level", &level);
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No machine that builds this needs a graphics device.
    #[test]
    fn the_first_encoder_that_encodes_a_picture_is_taken() {
        assert_eq!(try_out("libx264"), Ok(()));
        let missing = try_out("lib_none").unwrap_err();
        assert!(missing.to_string().contains("no encoder of that name"));
        assert_eq!(first_that_works(["lib_none", "libx264"]), Some("libx264"));
        assert_eq!(first_that_works(["lib_none"]), None);
        for name in H264_ENCODERS {
            // Whatever it says here, it says it again and does not end the process.
            assert_eq!(try_out(name), try_out(name), "{name}");
        }
    }
}
