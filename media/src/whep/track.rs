//! Which track a viewer watches: the source where it can be taken as it is, else a made one.

use std::time::Duration;

use crate::broadcast::{Broadcast, Cursor, Start};
use crate::frame::{Codec, Kind, TrackId, TrackInfo};

/// A source whose keyframes are farther apart is not passed through.
const GOP_MAX: Duration = Duration::from_secs(3);
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
