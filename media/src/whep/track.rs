//! Which track a viewer watches: the source where it can be taken as it is, else a made one.

use std::time::Duration;

use crate::broadcast::Broadcast;
use crate::frame::{Kind, TrackId};

/// A source whose keyframes are farther apart is not passed through.
const GOP_MAX: Duration = Duration::from_secs(3);
/// Constrained Baseline, where nothing is known.
const BASELINE: u8 = 66;

/// `profile_idc` of the source picture.
pub(super) fn source_profile(broadcast: &Broadcast) -> u8 {
    let info = broadcast.source(Kind::Video);
    info.and_then(|info| info.config.get(1).copied())
        .unwrap_or(BASELINE)
}

/// Passes the source through where the viewer can take it as it is.
pub(super) fn picture(broadcast: &Broadcast, offered_profile: u8) -> TrackId {
    let facts = broadcast.facts(TrackId::Video);
    let info = broadcast.source(Kind::Video);
    let says_reordering = info.and_then(|i| i.reorder_frames).is_some_and(|n| n > 0);
    let is_plain = !facts.has_reordering && !says_reordering && facts.gop <= GOP_MAX;
    if is_plain && source_profile(broadcast) <= offered_profile {
        TrackId::Video
    } else {
        TrackId::Clean
    }
}
