//! Cues: timed data handed to the media core; and what points of the timeline a viewer can see.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lamplight_media::broadcast::Broadcast;
use lamplight_media::cue::{self, At, CueError, CueKind, CuePlace};
use lamplight_media::time::MediaTime;
use tokio::time::Instant;

use super::flv;
use super::service::find;
use super::signal::Sessions;
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

impl From<NewCue> for cue::NewCue {
    fn from(cue: NewCue) -> Self {
        let kind = if cue.is_listed {
            CueKind::Listed
        } else {
            CueKind::Passing
        };
        Self {
            id: cue.id,
            class: cue.class,
            duration: cue.duration_us.map(Duration::from_micros),
            kind,
            payload: cue.payload,
        }
    }
}

/// The running instance of a room's broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningT {
    pub(crate) instance: String,
    /// The T that is now.
    pub(crate) t_us: i64,
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

impl PlaceCueError {
    /// Over the bounds of the media core: later there is room again.
    pub(crate) fn is_for_now(self) -> bool {
        self == Self::Refused(CueError::TooMany)
    }
}

/// Places a cue on the timeline of a room's broadcast.
pub(super) async fn place_cue(
    app: &App,
    room: RoomId,
    cue: NewCue,
) -> Result<PlacedCue, PlaceCueError> {
    let broadcast = find(app, room).ok_or(PlaceCueError::NotLive)?;
    let at = cue
        .t_us
        .map_or(At::Now, |us| At::Time(MediaTime::from_micros(us)));
    let stamped = broadcast.cue(Instant::now(), at, cue.into()).await?;
    Ok(PlacedCue {
        id: stamped.id,
        t_us: stamped.t.as_micros(),
    })
}

/// A cue's place that is taken, to be filled once what it tells is committed. Dropped, it is given
/// back.
#[derive(Debug)]
pub(crate) struct HeldCue(CuePlace);

impl HeldCue {
    pub(crate) fn fill(self) -> Result<(), PlaceCueError> {
        self.0.fill()?;
        Ok(())
    }
}

/// Takes the place of a cue in this instance of a room's broadcast.
pub(crate) fn hold_cue(
    app: &App,
    (room, instance): (RoomId, &str),
    cue: NewCue,
) -> Result<HeldCue, PlaceCueError> {
    let broadcast = instance_of(app, room, instance)?;
    let t = MediaTime::from_micros(cue.t_us.unwrap_or(0));
    Ok(HeldCue(broadcast.hold_cue(
        Instant::now(),
        t,
        cue.into(),
    )?))
}

/// Ends an open listed cue of this instance at a T.
pub(crate) fn end_cue(
    app: &App,
    (room, instance): (RoomId, &str),
    (id, t_us): (&str, i64),
) -> Result<(), PlaceCueError> {
    let broadcast = instance_of(app, room, instance)?;
    broadcast.close_cue_at(Instant::now(), id, MediaTime::from_micros(t_us))?;
    Ok(())
}

fn instance_of(app: &App, room: RoomId, instance: &str) -> Result<Arc<Broadcast>, PlaceCueError> {
    let broadcast = find(app, room).filter(|broadcast| broadcast.instance() == instance);
    broadcast.ok_or(PlaceCueError::NotLive)
}

/// The instance that runs in a room, with media or waiting for its publisher's return.
pub(crate) fn running(app: &App, room: RoomId) -> Option<RunningT> {
    let broadcast = find(app, room).filter(|broadcast| broadcast.had_media())?;
    Some(RunningT {
        instance: broadcast.instance().into(),
        t_us: broadcast.now_t(Instant::now()).as_micros(),
    })
}

/// The points of T between which a viewer of a room can be; `session` is the id of a WHEP session,
/// the `s` of LL-HLS playlists, or the id of an FLV session.
pub(crate) fn playhead(app: &App, room: RoomId, session: &str) -> Option<(i64, i64)> {
    let span = |(from, to): (MediaTime, MediaTime)| (from.as_micros(), to.as_micros());
    let name = room.to_string();
    if let Some(viewer) = Sessions::of(app).viewers.get(session) {
        let control = Some(&viewer.control).filter(|_| viewer.room == name);
        return control.and_then(|control| control.playhead()).map(span);
    }
    if let Some(viewer) = flv::Sessions::of(app).viewers.get(session) {
        let control = Some(&viewer.control).filter(|_| viewer.room == name);
        return control.and_then(|control| control.playhead()).map(span);
    }
    let (_, listed) = find(app, room)?.audience().session(session)?;
    listed.map(span)
}

/// Ends an open listed cue; returns the T at which it ends.
pub(super) fn close_cue(app: &App, room: RoomId, id: &str) -> Result<i64, PlaceCueError> {
    let broadcast = find(app, room).ok_or(PlaceCueError::NotLive)?;
    Ok(broadcast.close_cue(Instant::now(), id)?.as_micros())
}
