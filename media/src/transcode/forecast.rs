//! What the rungs of a broadcast will be like, told before any of them is made.

use super::{ladder, video};
use crate::bitstream::h264_level::level;
use crate::broadcast::Broadcast;
use crate::frame::{Kind, TrackId};

/// A rung as it is made when somebody wants it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forecast {
    /// The short side of its picture, its name.
    pub(crate) lines: u16,
    pub(crate) size: (u32, u32),
    pub(crate) frame_rate: Option<f64>,
    pub(crate) bitrate_bps: u64,
    /// RFC 6381.
    pub(crate) codecs: String,
}

/// The rungs of a broadcast as its source is now, the highest first; none before that is known.
pub(crate) fn rungs(broadcast: &Broadcast) -> Vec<Forecast> {
    let source = broadcast.source(Kind::Video);
    let Some((width, height)) = source.and_then(|info| info.picture_size()) else {
        return Vec::new();
    };
    let source_rate = broadcast.facts(TrackId::Video).frame_rate;
    let forecast = |rung: &ladder::Rung| {
        let size = video::fitted(width, height, u32::from(rung.lines));
        let fps_max = rung.fps_max.map_or(f64::INFINITY, f64::from);
        let frame_rate = source_rate.map(|rate| rate.min(fps_max));
        let nominal = video::nominal_rate(source_rate, rung.fps_max);
        let bitrate_bps = rung.bitrate_bps(source_rate);
        let level = level(size, nominal, bitrate_bps);
        Forecast {
            lines: rung.lines,
            size,
            frame_rate,
            bitrate_bps,
            codecs: format!("avc1.42c0{level:02x}"),
        }
    };
    ladder::of(broadcast).iter().map(forecast).collect()
}
