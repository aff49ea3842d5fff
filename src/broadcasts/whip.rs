//! WHIP over HTTP (media.md 4.1, RFC 9725): who may publish, then an offer for an answer.
//!
//! Invariants
//! - Checks run in the order of the specification's table; the first that fails answers, and
//!   nothing is changed before the last one: no publisher has to go for an offer that cannot be
//!   taken.
//! - The stream key appears in no URL, log line, metric or error body.
//!
//! Not here: SDP, media.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use lamplight_media::broadcast::Publisher;
use lamplight_media::request::{Refusal, RefusalCode};
use lamplight_media::whip::{self, Accepted, Terms, WhipError};
use tokio::time::Instant;
use tracing::{Instrument, info};

use super::signal::{self, Held, Sessions, bearer, busy, created, offer_of};
use super::{service, store};
use crate::app::{App, hash};
use crate::http::{ApiError, Client, Code, Path};

const BUSY_RETRY: Duration = Duration::from_secs(30);
/// Longer than any key.
const SECRET_BYTES_MAX: usize = 512;

/// An offer: 201 with an answer, or why not.
pub(super) async fn offer(
    State(app): State<App>,
    Client(client): Client,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let sessions = Sessions::of(&app);
    sessions.may_offer(client, Instant::now())?;
    let offer = match offer_of(&headers, body).await {
        Ok(offer) => offer,
        Err(response) => return Ok(response),
    };
    let secret = bearer(&headers).filter(|secret| secret.len() <= SECRET_BYTES_MAX);
    let secret = secret.ok_or_else(unauthenticated)?;
    let key = service::admit(&app, secret)
        .await
        .map_err(|no| refused(&app, no))?;
    service::may_open(&app, key.room).map_err(|no| refused(&app, no))?;
    let port = sessions.port()?;
    let terms = Terms {
        bitrate_bps_max: app.config().publish.bitrate_bps_max,
    };
    let accepted = whip::accept(&port, &offer, terms, Instant::now()).await?;
    let publisher = service::open(&app, key.room, key.id).map_err(|no| refused(&app, no))?;
    Ok(start(
        &app,
        &sessions,
        (&key, secret),
        (accepted, publisher),
    ))
}

fn unauthenticated() -> ApiError {
    let detail = "send Authorization: Bearer with the stream key of your room, whole and without \
                  spaces; in OBS it is the Bearer Token";
    ApiError::new(Code::Unauthenticated, detail)
}

/// The same words as over RTMP; of keys that are not known no more than that.
fn refused(app: &App, refusal: Refusal) -> ApiError {
    let outcome = ["whip", refusal.code.reason()];
    app.media.stats().reject("whip", refusal.code.reason());
    app.media
        .stats()
        .add_two("publish_sessions_total", outcome, 1);
    info!(reason = refusal.code.reason(), "publisher refused");
    match refusal.code {
        RefusalCode::UnknownKey | RefusalCode::UnknownRoom => unauthenticated(),
        RefusalCode::NotAllowed => ApiError::new(Code::Forbidden, refusal.sentence),
        RefusalCode::Busy => ApiError::new(Code::PublisherBusy, refusal.sentence).after(BUSY_RETRY),
        RefusalCode::TryAgain | RefusalCode::NotLive => busy(),
        RefusalCode::Unsupported => ApiError::new(Code::Unservable, refusal.sentence),
    }
}

impl From<WhipError> for ApiError {
    fn from(err: WhipError) -> Self {
        match err {
            WhipError::Offer(offer) => offer.into(),
            WhipError::Unanswerable(_) => Self::new(Code::Malformed, err.to_string()),
            WhipError::Busy => busy(),
        }
    }
}

/// Starts the session and says where it is.
fn start(
    app: &App,
    sessions: &Arc<Sessions>,
    (key, secret): (&store::FoundKey, &str),
    (accepted, publisher): (Accepted, Publisher),
) -> Response {
    let Accepted {
        id,
        answer,
        control,
        session,
    } = accepted;
    let outcome = ["whip", "accepted"];
    app.media
        .stats()
        .add_two("publish_sessions_total", outcome, 1);
    let leave = app.tasks.cancel_token().child_token();
    let location = format!("/whip/{id}");
    let tag = control.tag();
    let room = key.room.to_string();
    let span = tracing::info_span!("whip.session", broadcast.id = %room);
    span.in_scope(|| info!("publisher accepted"));
    let held = Held {
        room,
        control: Arc::new(control),
        leave: leave.clone(),
        since: app.clock.now(),
        secret: Some(hash(secret)),
    };
    sessions.publishers.insert(id.clone(), held);
    let cancel = app.tasks.cancel_token();
    let (sessions, hub) = (Arc::clone(sessions), Arc::clone(&app.media));
    let run = async move {
        session.run(publisher, leave, cancel, hub).await;
        sessions.publishers.remove(&id);
    };
    app.tasks.spawn("whip.session", run.instrument(span));
    created(app, location, &tag, answer)
}

/// The publisher stops: 200 exactly, since OBS takes any other for a failure.
pub(super) async fn leave(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let sessions = Sessions::of(&app);
    let known = sessions
        .publishers
        .get(&id)
        .ok_or_else(ApiError::not_found)?;
    check_secret(&headers, &known)?;
    drop(known);
    // Forgotten at once: the session itself may take a moment to end.
    let left = sessions.publishers.remove(&id);
    left.ok_or_else(ApiError::not_found)?.1.leave.cancel();
    Ok(StatusCode::OK)
}

/// The id is the right to end a session; a bearer that is sent all the same must be the right one.
fn check_secret(headers: &HeaderMap, held: &Held) -> Result<(), ApiError> {
    if !headers.contains_key(http::header::AUTHORIZATION) {
        return Ok(());
    }
    let is_right = bearer(headers).map(hash) == held.secret;
    if is_right {
        Ok(())
    } else {
        Err(unauthenticated())
    }
}

/// Candidates of a publisher, or a restart of ICE.
pub(super) async fn patch(
    State(app): State<App>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let sessions = Sessions::of(&app);
    let known = sessions
        .publishers
        .get(&id)
        .ok_or_else(ApiError::not_found)?;
    check_secret(&headers, &known)?;
    let control = Arc::clone(&known.control);
    drop(known);
    signal::patch(&control, &headers, body).await
}

/// GET and HEAD: it is there, and says nothing.
pub(super) async fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
