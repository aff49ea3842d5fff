//! Which track a viewer watches: the source where it can be taken as it is, else a made one.

use std::time::Duration;

use super::terms::Rendition;
use crate::broadcast::{Broadcast, Cursor, Start};
use crate::frame::{Codec, Kind, TrackId, TrackInfo};
use crate::transcode::ladder;

/// A source whose keyframes are farther apart is not passed through.
const GOP_MAX: Duration = Duration::from_secs(3);
/// A source's rate is known once the ring holds this much.
const MEASURED: Duration = Duration::from_secs(1);
/// A rung is worth moving to when it has at most this part of the source's rate.
const LESS_PERCENT: u64 = 90;
/// `profile_idc` of Constrained Baseline, where nothing is known.
const BASELINE: u8 = 66;

/// `profile_idc` of the source picture; that of `clean` when the source is not H.264.
pub(super) fn source_profile(broadcast: &Broadcast) -> u8 {
    let info = broadcast.source(Kind::Video);
    let info = info.filter(|info| info.codec == Codec::H264);
    info.map_or(BASELINE, |info| profile(&info))
}

/// Passes the source through where the viewer can take it as it is.
pub(super) fn picture(broadcast: &Broadcast, offered_profile: u8) -> TrackId {
    let source = broadcast.cursor(TrackId::Video, Start::Live);
    let info = source.info();
    let fits = info.is_none_or(|info| fits(&info, offered_profile));
    if fits && is_plain(broadcast, &source) {
        TrackId::Video
    } else {
        TrackId::Clean
    }
}

/// The track of a rendition.
pub(super) fn shown(broadcast: &Broadcast, offered_profile: u8, rendition: Rendition) -> TrackId {
    match rendition {
        Rendition::Source => picture(broadcast, offered_profile),
        Rendition::Rung(lines) => TrackId::Rung(lines),
    }
}

/// The renditions that can be shown now, each with its bits per second, the highest first: the
/// source and the rungs that are clearly less. Empty while the source's rate is not known.
pub(super) fn renditions(broadcast: &Broadcast) -> Vec<(Rendition, u64)> {
    let facts = broadcast.facts(TrackId::Video);
    if facts.span < MEASURED {
        return Vec::new();
    }
    let source_bps = facts.bitrate_bps;
    let rungs = ladder::of(broadcast).iter();
    let rungs = rungs
        .map(|rung| (*rung, rung.bitrate_bps(facts.frame_rate)))
        .filter(|(rung, bps)| {
            let is_less = *bps <= source_bps.saturating_mul(LESS_PERCENT) / 100;
            is_less && broadcast.unavailable(rung.track()).is_none()
        })
        .map(|(rung, bps)| (Rendition::Rung(rung.lines), bps));
    std::iter::once((Rendition::Source, source_bps))
        .chain(rungs)
        .collect()
}

/// The source's sound, if it is Opus already.
pub(super) fn sound(broadcast: &Broadcast) -> TrackId {
    let info = broadcast.source(Kind::Audio);
    if info.is_some_and(|info| info.codec == Codec::Opus) {
        TrackId::Audio
    } else {
        TrackId::Opus
    }
}

/// Whether a viewer that offered a profile can decode a source.
pub(super) fn fits(info: &TrackInfo, offered_profile: u8) -> bool {
    info.codec == Codec::H264 && profile(info) <= offered_profile
}

/// Whether the source shows each frame when it decodes it, with keyframes near enough.
pub(super) fn is_plain(broadcast: &Broadcast, source: &Cursor) -> bool {
    let info = broadcast.source(Kind::Video);
    let says_reordering = info.and_then(|i| i.reorder_frames).is_some_and(|n| n > 0);
    !says_reordering && !source.has_reordering() && source.gop() <= GOP_MAX
}

fn profile(info: &TrackInfo) -> u8 {
    info.config.get(1).copied().unwrap_or(BASELINE)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use time::OffsetDateTime;
    use tokio::time::Instant;

    use super::*;
    use crate::broadcast::{BroadcastKey, Broadcasts, Limits, Publisher};
    use crate::frame::{Shape, TrackInfo};

    fn open(codecs: [(Codec, u8); 2]) -> (Arc<Broadcasts>, Publisher) {
        let hub = Broadcasts::new(Limits::default());
        let now = Instant::now();
        let key = BroadcastKey::new("room_1");
        let mut publisher = hub.open(key, now, OffsetDateTime::UNIX_EPOCH).unwrap();
        for (codec, profile) in codecs {
            let shape = match codec {
                Codec::Aac | Codec::Opus => Shape::Audio {
                    rate: 48_000,
                    channels: 2,
                },
                _ => Shape::Video {
                    width: 640,
                    height: 360,
                },
            };
            let info = TrackInfo {
                codec,
                generation: 0,
                shape,
                config: Bytes::from(vec![1, profile]),
                reorder_frames: Some(0),
            };
            publisher.set_track(now, info).unwrap();
        }
        (hub, publisher)
    }

    /// Source picture and sound; then what a viewer that takes High gets of them.
    #[tokio::test(start_paused = true)]
    async fn only_what_a_viewer_can_take_is_passed_through() {
        let rows = [
            ((Codec::H264, 77), Codec::Aac, TrackId::Video, TrackId::Opus),
            (
                (Codec::H264, 122),
                Codec::Opus,
                TrackId::Clean,
                TrackId::Audio,
            ),
            ((Codec::Hevc, 1), Codec::Aac, TrackId::Clean, TrackId::Opus),
            ((Codec::Av1, 0), Codec::Opus, TrackId::Clean, TrackId::Audio),
        ];
        for (source, sound_codec, video, audio) in rows {
            let (_hub, publisher) = open([source, (sound_codec, 0)]);
            let broadcast = publisher.broadcast();
            assert_eq!(picture(broadcast, 100), video, "{source:?}");
            assert_eq!(sound(broadcast), audio, "{sound_codec:?}");
        }
    }
}
