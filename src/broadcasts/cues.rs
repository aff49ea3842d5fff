//! Cues: timed data handed to the media core.

use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::Broadcast;
use lamplight_media::cue::{self, At, CueError, CueKind};
use lamplight_media::time::MediaTime;
use tokio::time::Instant;

use super::service::find;
use crate::app::App;
use crate::ids::RoomId;

/// A cue before it is stamped.
#[derive(Clone, Debug)]
pub(crate) struct NewCue {
    pub(crate) id: String,
    pub(crate) class: String,
    /// Whether a late joiner needs it.
    pub(crate) is_listed: bool,
    /// `None`: the next frame.
    pub(crate) t_us: Option<i64>,
    /// `None`: open-ended.
    pub(crate) duration_us: Option<u64>,
    pub(crate) payload: Bytes,
}

/// Where a cue was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacedCue {
    pub(crate) id: String,
    pub(crate) t_us: i64,
}

/// Why a cue was not placed or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceCueError {
    #[error("the room is not live")]
    NotLive,
    #[error("the cue was refused")]
    Refused(#[from] CueError),
}

/// Places a cue on the timeline of a room's broadcast.
pub(crate) async fn place_cue(
    app: &App,
    room: RoomId,
    cue: NewCue,
) -> Result<PlacedCue, PlaceCueError> {
    let broadcast = find(app, room).ok_or(PlaceCueError::NotLive)?;
    let at = cue
        .t_us
        .map_or(At::Now, |us| At::Time(MediaTime::from_micros(us)));
    let kind = if cue.is_listed {
        CueKind::Listed
    } else {
        CueKind::Passing
    };
    let cue = cue::NewCue {
        id: cue.id,
        class: cue.class,
        duration: cue.duration_us.map(Duration::from_micros),
        kind,
        payload: cue.payload,
    };
    let stamped = broadcast.cue(Instant::now(), at, cue).await?;
    Ok(PlacedCue {
        id: stamped.id,
        t_us: stamped.t.as_micros(),
    })
}

/// Ends an open listed cue; returns the T at which it ends.
pub(super) fn close_cue(app: &App, room: RoomId, id: &str) -> Result<i64, PlaceCueError> {
    let broadcast = find(app, room).ok_or(PlaceCueError::NotLive)?;
    Ok(broadcast.close_cue(Instant::now(), id)?.as_micros())
}

/// The T that is now in a room, in microseconds.
pub(crate) fn now_us(app: &App, room: RoomId) -> Option<i64> {
    let now = |broadcast: &Broadcast| broadcast.now_t(Instant::now()).as_micros();
    find(app, room).map(|broadcast| now(&broadcast))
}
