//! Which track a viewer watches: the source where it can be taken as it is, else a made one.

use std::time::Duration;

use crate::broadcast::{Broadcast, Cursor, Start};
use crate::frame::{Codec, Kind, TrackId, TrackInfo};

/// A source whose keyframes are farther apart is not passed through.
const GOP_MAX: Duration = Duration::from_secs(3);
/// `profile_idc` of Constrained Baseline, where nothing is known.
const BASELINE: u8 = 66;

/// `profile_idc` of the source picture.
pub(super) fn source_profile(broadcast: &Broadcast) -> u8 {
    broadcast
        .source(Kind::Video)
        .map_or(BASELINE, |i| profile(&i))
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
