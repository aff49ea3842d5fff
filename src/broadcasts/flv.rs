//! HTTP-FLV (media.md 7): who may watch, then the stream as the body of the answer.
//!
//! Not here: tags, which frames a viewer is sent.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dashmap::DashMap;
use futures_util::stream::{empty, unfold};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use lamplight_media::broadcast::{Broadcast, BroadcastKey};
use lamplight_media::flv::viewer::{self, Control, Refused, Terms, Viewer};
use lamplight_media::whep::Rendition;
use serde::Deserialize;
use tokio::time::Instant;
use tracing::Instrument;

use super::admission;
use super::playback;
use super::signal::busy;
use crate::app::{App, new_secret};
use crate::clock::Timestamp;
use crate::http::{ApiError, Code, Hangup, Path, Query, SendBuffer};

const NOT_LIVE_RETRY: Duration = Duration::from_secs(2);
const FLV: &str = "flv";
/// What the kernel may hold for a viewer (media.md 8.5): one that reads slowly is behind the show
/// by no more than this.
const KERNEL_BYTES: usize = 512 * 1024;
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Names the session for `/api/v1/media/sessions/{id}`.
const SESSION: HeaderName = HeaderName::from_static("lamplight-session");

/// What a player may ask for, over RTMP as well.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    /// Another picture than the publisher's.
    rendition: Option<String>,
    /// `opus`: the player hears it; else it is converted to AAC.
    audio: Option<String>,
    /// Opens a private room.
    token: Option<String>,
}

/// The viewers over HTTP-FLV and RTMP of this process.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) viewers: DashMap<String, Watching>,
}

/// The server's hold on a viewer.
#[derive(Debug)]
pub(super) struct Watching {
    /// `flv` or `rtmp`.
    pub(super) protocol: &'static str,
    pub(super) room: String,
    pub(super) control: Control,
    pub(super) since: Timestamp,
}

impl Sessions {
    pub(super) fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }
}

/// The stream.
pub(super) async fn play(
    State(app): State<App>,
    (hangup, send_buffer): (Hangup, SendBuffer),
    (Path(file), Query(wish)): (Path<String>, Query<Wish>),
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let opened = open(&app, &file, &wish, &headers).await;
    let outcome = opened.as_ref().map_or_else(ApiError::word, |_| "accepted");
    let stats = app.media.stats();
    stats.add_two("viewer_sessions_total", [FLV, outcome], 1);
    let (viewer, control, room) = opened?;
    send_buffer.bound(KERNEL_BYTES);
    let id = admit(&app, control, room, hangup);
    let slices = unfold(viewer, |mut viewer| async {
        let slice = viewer.next().await?;
        Some((Ok::<_, Infallible>(slice), viewer))
    });
    Ok(([(SESSION, id)], answer(Body::from_stream(slices))).into_response())
}

/// What GET would be answered, without a body.
pub(super) async fn look(
    State(app): State<App>,
    (Path(file), Query(wish)): (Path<String>, Query<Wish>),
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (broadcast, terms, _) = judge(&app, &file, &wish, &headers).await?;
    viewer::check(&broadcast, &terms)?;
    Ok(answer(Body::from_stream(
        empty::<Result<Bytes, Infallible>>(),
    )))
}

fn answer(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, "video/x-flv"),
        (CACHE_CONTROL, "no-store"),
        (BUFFERING, "no"),
    ];
    (headers, body).into_response()
}

async fn open(
    app: &App,
    file: &str,
    wish: &Wish,
    headers: &HeaderMap,
) -> Result<(Viewer, Control, String), ApiError> {
    let (broadcast, terms, room) = judge(app, file, wish, headers).await?;
    let leave = app.tasks.cancel_token().child_token();
    let (viewer, control) = viewer::open(&app.media, &broadcast, terms, leave)?;
    Ok((viewer, control, room))
}

/// Everything that may refuse a viewer but its rendition: in the order of the statuses of WHEP.
async fn judge(
    app: &App,
    file: &str,
    wish: &Wish,
    headers: &HeaderMap,
) -> Result<(Arc<Broadcast>, Terms, String), ApiError> {
    let room = file.strip_suffix(".flv").ok_or_else(ApiError::not_found)?;
    let viewer = let_in(app, room, wish, headers).await?;
    let live = app.media.find(&BroadcastKey::new(room));
    let broadcast = live.ok_or_else(|| {
        let error = ApiError::new(Code::MediaNotLive, "nobody publishes into this room now");
        error.after(NOT_LIVE_RETRY)
    })?;
    Ok((broadcast, terms(app, wish, viewer)?, room.to_owned()))
}

/// Whether somebody may watch a room, live or not.
pub(super) async fn let_in(
    app: &App,
    room: &str,
    wish: &Wish,
    headers: &HeaderMap,
) -> Result<playback::Viewer, ApiError> {
    let watch = playback::watch_of(app, room).await?;
    let watch = watch.ok_or_else(ApiError::not_found)?;
    let viewer = playback::admit(app, (room, watch), headers, wish.token.as_deref())?;
    let is_full = admission::is_room_full(app, room) || !admission::has_room_for_viewer(app);
    if !app.is_open() || is_full {
        return Err(busy());
    }
    Ok(viewer)
}

/// What is settled for a viewer that is let in.
pub(super) fn terms(app: &App, wish: &Wish, viewer: playback::Viewer) -> Result<Terms, ApiError> {
    let name = wish.rendition.as_deref();
    let rendition = name.map(|name| {
        let detail = "rendition is src, or v and the lines of a rung, as in v480";
        Rendition::parse(name).ok_or_else(|| ApiError::new(Code::Unservable, detail))
    });
    let takes_opus = match wish.audio.as_deref() {
        None | Some("aac") => false,
        Some("opus") => true,
        Some(_) => {
            let detail = "audio is aac, or opus for a player of enhanced FLV";
            return Err(ApiError::new(Code::Unservable, detail));
        }
    };
    let lasts = viewer.until.map(|until| until.since(app.clock.now()));
    Ok(Terms {
        rendition: rendition.transpose()?,
        takes_opus,
        expires_at: lasts.map(|lasts| Instant::now() + lasts),
        viewer: viewer.id,
        session: None,
        merge: app.config().flv.merge,
    })
}

/// Watches over the session until its end; its id.
fn admit(app: &App, control: Control, room: String, hangup: Hangup) -> String {
    let sessions = Sessions::of(app);
    let id = new_secret("flv_");
    let span = tracing::info_span!("flv.session", broadcast.id = %room);
    let watching = Watching {
        protocol: FLV,
        room,
        control: control.clone(),
        since: app.clock.now(),
    };
    sessions.viewers.insert(id.clone(), watching);
    let key = id.clone();
    let run = async move {
        let is_stuck = control.watch().await;
        sessions.viewers.remove(&key);
        if is_stuck {
            hangup.close();
        }
    };
    app.tasks.spawn("flv.session", run.instrument(span));
    id
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NoRendition(_) => Self::new(Code::Unservable, refused.to_string()),
            Refused::Unavailable => busy(),
        }
    }
}
