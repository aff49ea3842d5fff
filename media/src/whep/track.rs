//! Which track a viewer watches: the source where it can be taken as it is, else a made one.

use std::time::Duration;

use super::terms::Rendition;
use crate::broadcast::{Broadcast, Cursor, Start};
use crate::frame::{Codec, Kind, TrackId};
use crate::transcode::ladder;
use crate::webrtc::sdp::Decodes;

/// A source whose keyframes are farther apart is not passed through.
const GOP_MAX: Duration = Duration::from_secs(3);
/// A source's rate is known once the ring holds this much.
const MEASURED: Duration = Duration::from_secs(1);
/// A rung is worth moving to when it has at most this part of the source's rate.
const LESS_PERCENT: u64 = 90;

/// Passes the source through where the viewer can take it as it is, or can take nothing else.
pub(super) fn picture(broadcast: &Broadcast, decodes: Decodes) -> TrackId {
    let source = broadcast.cursor(TrackId::Video, Start::Live);
    let info = source.info();
    let fits = info.is_none_or(|info| decodes.can_show(&info));
    if !decodes.can_show_made() || fits && is_plain(broadcast, &source) {
        TrackId::Video
    } else {
        TrackId::Clean
    }
}

/// The track of a rendition.
pub(super) fn shown(broadcast: &Broadcast, decodes: Decodes, rendition: Rendition) -> TrackId {
    match rendition {
        Rendition::Source => picture(broadcast, decodes),
        Rendition::Rung(lines) => TrackId::Rung(lines),
    }
}

/// Why a viewer that offered no H.264 cannot be shown a rendition.
pub(super) fn needs_h264(broadcast: &Broadcast, rendition: Rendition) -> Option<&'static str> {
    if rendition != Rendition::Source {
        return Some("a rendition below the source is H.264");
    }
    let source = broadcast.cursor(TrackId::Video, Start::Live);
    is_reordered(broadcast, &source)
        .then_some("this show has B-frames, which are taken out by making H.264 of it")
}

/// The renditions that can be shown now, each with its bits per second, the highest first: the
/// source and the rungs that are clearly less. Empty while the source's rate is not known.
pub(super) fn renditions(broadcast: &Broadcast) -> Vec<(Rendition, u64)> {
    let facts = broadcast.facts(TrackId::Video);
    if facts.span < MEASURED {
        return Vec::new();
    }
    let source_bps = facts.bitrate_bps;
    let rungs = ladder::of(broadcast).into_iter();
    let rungs = rungs
        .map(|rung| (rung, rung.bitrate_bps(facts.frame_rate)))
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

/// Whether the source shows each frame when it decodes it, with keyframes near enough.
pub(super) fn is_plain(broadcast: &Broadcast, source: &Cursor) -> bool {
    !is_reordered(broadcast, source) && source.gop() <= GOP_MAX
}

fn is_reordered(broadcast: &Broadcast, source: &Cursor) -> bool {
    let info = broadcast.source(Kind::Video);
    let says_reordering = info.and_then(|i| i.reorder_frames).is_some_and(|n| n > 0);
    says_reordering || source.has_reordering()
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
    use crate::webrtc::sdp::Bounds;

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
                config: Bytes::from([&[1, profile][..], &[0; 11]].concat()),
                reorder_frames: Some(0),
            };
            publisher.set_track(now, info).unwrap();
        }
        (hub, publisher)
    }

    const HIGH: Decodes = Decodes {
        h264: Some(100),
        own: None,
    };

    fn own(codec: Codec, h264: Option<u8>) -> Decodes {
        let bounds = Bounds {
            profile: 1,
            is_high_tier: false,
            level: 120,
        };
        Decodes {
            h264,
            own: Some((codec, bounds)),
        }
    }

    /// Source picture and sound; then what viewers get of them.
    #[tokio::test(start_paused = true)]
    async fn only_what_a_viewer_can_take_is_passed_through() {
        use Codec::{Aac, Av1, H264, Hevc, Opus};
        use TrackId::{Audio, Clean, Video};
        let made = TrackId::Opus;
        let rows = [
            ((H264, 77), Aac, HIGH, Video, made),
            ((H264, 122), Opus, HIGH, Clean, Audio),
            ((Hevc, 1), Aac, HIGH, Clean, made),
            ((Av1, 0), Opus, HIGH, Clean, Audio),
            ((Hevc, 1), Opus, own(Hevc, Some(66)), Video, Audio),
            ((Hevc, 2), Opus, own(Hevc, Some(66)), Clean, Audio),
            ((Hevc, 1), Opus, own(Av1, Some(66)), Clean, Audio),
            ((Av1, 5), Opus, own(Av1, None), Video, Audio),
            // Whoever takes nothing else waits for what it can take.
            ((Hevc, 2), Opus, own(Hevc, None), Video, Audio),
        ];
        for (source, sound_codec, decodes, video, audio) in rows {
            let (_hub, publisher) = open([source, (sound_codec, 0)]);
            let broadcast = publisher.broadcast();
            assert_eq!(picture(broadcast, decodes), video, "{source:?}");
            assert_eq!(sound(broadcast), audio, "{sound_codec:?}");
        }
    }
}
