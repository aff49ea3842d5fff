//! WHEP over HTTP (media.md 4.1): who may watch, then an offer for an answer.
//!
//! Invariants
//! - Checks run in the order of the specification's table; the first that fails answers.
//!
//! Not here: SDP, media.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use lamplight_media::broadcast::{Broadcast, BroadcastKey};
use lamplight_media::webrtc::Port;
use lamplight_media::whep::{self, Accepted, Rendition, Terms, WhepError};
use serde::Deserialize;
use tokio::time::Instant;
use tracing::Instrument;

use super::admission;
use super::playback::{self, Viewer};
use super::signal::{self, Held, Sessions, busy, created, offer_of};
use crate::app::App;
use crate::http::{ApiError, Client, Code, Path, Query};

const NOT_LIVE_RETRY: Duration = Duration::from_secs(2);

/// What a player may ask for beside its offer.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    /// Pins one rendition.
    rendition: Option<String>,
    /// Opens a private room.
    token: Option<String>,
}

impl Wish {
    fn terms(&self, app: &App, viewer: Viewer) -> Result<Terms, ApiError> {
        let name = self.rendition.as_deref();
        let rendition = name.map(|name| {
            let detail = "rendition is src, or v and the lines of a rung, as in v480";
            Rendition::parse(name).ok_or_else(|| ApiError::new(Code::Unservable, detail))
        });
        Ok(Terms {
            rendition: rendition.transpose()?,
            expires_at: viewer
                .until
                .map(|until| Instant::now() + until.since(app.clock.now())),
            viewer: viewer.id,
        })
    }
}

/// An offer: 201 with an answer, or why not.
pub(super) async fn offer(
    State(app): State<App>,
    Client(client): Client,
    (Path(room), Query(wish)): (Path<String>, Query<Wish>),
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let sessions = Sessions::of(&app);
    sessions.may_offer(client, Instant::now())?;
    let offer = match offer_of(&headers, body).await {
        Ok(offer) => offer,
        Err(response) => return Ok(response),
    };
    let judged = judge(&app, &sessions, (&room, &wish), &headers, offer).await;
    let outcome = judged.as_ref().map_or_else(ApiError::word, |_| "accepted");
    let labels = ["whep", outcome];
    app.media
        .stats()
        .add_two("viewer_sessions_total", labels, 1);
    Ok(admit(&app, &sessions, room, judged?))
}

/// Everything that may refuse an offer that is one.
async fn judge(
    app: &App,
    sessions: &Sessions,
    (room, wish): (&str, &Wish),
    headers: &HeaderMap,
    offer: String,
) -> Result<Accepted, ApiError> {
    let watch = playback::watch_of(app, room).await?;
    let watch = watch.ok_or_else(ApiError::not_found)?;
    let viewer = playback::admit(app, (room, watch), headers, wish.token.as_deref())?;
    let broadcast = find(app, sessions, room)?;
    let terms = wish.terms(app, viewer)?;
    answer(sessions.port()?, broadcast, offer, terms).await
}

/// The broadcast to watch, if there is room for one more.
fn find(app: &App, sessions: &Sessions, room: &str) -> Result<Arc<Broadcast>, ApiError> {
    let config = app.config();
    let limits = &config.limits;
    let is_full = sessions.viewers.len() >= limits.whep_max
        || admission::is_room_full(app, room)
        || of_room(sessions, room) >= limits.room_viewers_max;
    if !app.is_open() || is_full || !admission::has_room_for_viewer(app) {
        return Err(busy());
    }
    let live = app.media.find(&BroadcastKey::new(room));
    live.ok_or_else(|| {
        let error = ApiError::new(Code::NotLive, "nobody publishes into this room now");
        error.after(NOT_LIVE_RETRY)
    })
}

/// Negotiates on a thread of its own: it takes milliseconds of CPU.
async fn answer(
    port: Arc<Port>,
    broadcast: Arc<Broadcast>,
    offer: String,
    terms: Terms,
) -> Result<Accepted, ApiError> {
    let negotiate = move || whep::accept(&port, &broadcast, &offer, terms, Instant::now());
    let accepted = tokio::task::spawn_blocking(negotiate).await;
    accepted
        .map_err(|err| ApiError::internal(&err))?
        .map_err(ApiError::from)
}

fn of_room(sessions: &Sessions, room: &str) -> usize {
    sessions.viewers.iter().filter(|v| v.room == room).count()
}

impl From<WhepError> for ApiError {
    fn from(err: WhepError) -> Self {
        match err {
            WhepError::Offer(offer) => offer.into(),
            WhepError::Unavailable => busy(),
            WhepError::NoRendition(_) | WhepError::NeedsH264(_) => {
                Self::new(Code::Unservable, err.to_string())
            }
        }
    }
}

/// Starts the session and says where it is.
fn admit(app: &App, sessions: &Arc<Sessions>, room: String, accepted: Accepted) -> Response {
    let Accepted {
        id,
        answer,
        control,
        session,
    } = accepted;
    let leave = app.tasks.cancel_token().child_token();
    let location = format!("/whep/{room}/{id}");
    let tag = control.tag();
    let span = tracing::info_span!("whep.session", broadcast.id = %room);
    let held = Held {
        room,
        control: Arc::new(control),
        leave: leave.clone(),
        since: app.clock.now(),
        secret: None,
    };
    sessions.viewers.insert(id.clone(), held);
    let (sessions, hub) = (Arc::clone(sessions), Arc::clone(&app.media));
    let run = async move {
        session.run(leave, hub).await;
        sessions.viewers.remove(&id);
    };
    app.tasks.spawn("whep.session", run.instrument(span));
    created(app, location, &tag, answer)
}

/// The viewer leaves: 200, as OBS and the draft want it.
pub(super) async fn leave(
    State(app): State<App>,
    Path((room, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let sessions = Sessions::of(&app);
    // Forgotten at once: the session itself may take a moment to end.
    let left = sessions.viewers.remove_if(&id, |_, v| v.room == room);
    left.ok_or_else(ApiError::not_found)?.1.leave.cancel();
    Ok(StatusCode::OK)
}

/// Candidates of a viewer, or a restart of ICE.
pub(super) async fn patch(
    State(app): State<App>,
    Path((room, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let sessions = Sessions::of(&app);
    let known = sessions.viewers.get(&id).filter(|v| v.room == room);
    let control = known.map(|viewer| Arc::clone(&viewer.control));
    let control = control.ok_or_else(ApiError::not_found)?;
    signal::patch(&control, &headers, body).await
}
