//! WHEP over HTTP (media.md 4.1): who may watch, then an offer for an answer.
//!
//! Invariants
//! - Checks run in the order of the specification's table; the first that fails answers.
//! - The session id is 128 random bits: knowing it is the right to end the session.
//!
//! Not here: SDP, media.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse, Response};
use dashmap::DashMap;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lamplight_media::broadcast::{Broadcast, BroadcastKey};
use lamplight_media::webrtc::Port;
use lamplight_media::webrtc::sdp::{Fragment, OFFER_BYTES_MAX, OfferError};
use lamplight_media::whep::{self, Accepted, Control, PatchError, Patched, WhepError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::store;
use crate::app::App;
use crate::config::IceServer;
use crate::http::{ApiError, Client, Code, Path, read_body};

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ENDPOINT_METHODS: &str = "GET, HEAD, OPTIONS, POST";
const SESSION_METHODS: &str = "DELETE, OPTIONS, PATCH";
/// An address that made no offer for this long is forgotten when there are too many.
const FORGET_AFTER: Duration = Duration::from_secs(10);
const NOT_LIVE_RETRY: Duration = Duration::from_secs(2);
/// Offers of one address: this many a second, and so many at once.
const OFFERS_PER_S: f64 = 10.0;
const OFFERS_BURST: f64 = 20.0;
/// Addresses remembered.
const ADDRESSES_MAX: usize = 65_536;

/// The viewers of this process.
#[derive(Debug, Default)]
struct Viewers {
    port: OnceLock<Arc<Port>>,
    sessions: DashMap<String, Viewer>,
    offers: DashMap<IpAddr, (f64, Instant)>,
}

#[derive(Debug)]
struct Viewer {
    room: String,
    control: Arc<Control>,
    cancel: CancellationToken,
}

impl Viewers {
    fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }

    /// Takes one of an address's offers; false when it has none left.
    fn may_offer(&self, ip: IpAddr, now: Instant) -> bool {
        if ip.is_loopback() {
            return true;
        }
        if self.offers.len() >= ADDRESSES_MAX {
            self.offers
                .retain(|_, (_, at)| now.saturating_duration_since(*at) < FORGET_AFTER);
        }
        let mut bucket = self.offers.entry(ip).or_insert((OFFERS_BURST, now));
        let (level, at) = *bucket;
        let refilled = now.saturating_duration_since(at).as_secs_f64() * OFFERS_PER_S;
        let level = (level + refilled).min(OFFERS_BURST);
        *bucket = ((level - 1.0).max(0.0), now);
        level >= 1.0
    }

    fn of_room(&self, room: &str) -> usize {
        self.sessions.iter().filter(|v| v.room == room).count()
    }
}

/// Gives the routes the port of all WebRTC media.
pub(crate) fn use_port(app: &App, port: Arc<Port>) {
    // A second port would be a fault of ours; the first one stays.
    drop(Viewers::of(app).port.set(port));
}

/// An offer: 201 with an answer, or why not.
pub(super) async fn offer(
    State(app): State<App>,
    Client(client): Client,
    Path(room): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let viewers = Viewers::of(&app);
    if !viewers.may_offer(client, Instant::now()) {
        let error = ApiError::new(Code::RateLimited, "at most ten offers a second");
        return Err(error.after(Duration::from_secs(1)));
    }
    if !has_type(&headers, SDP) {
        return Ok(unsupported());
    }
    let offer = read_offer(body).await?;
    let broadcast = find(&app, &viewers, &room).await?;
    let port = viewers.port.get().cloned().ok_or_else(busy)?;
    let accepted = answer(port, broadcast, offer).await?;
    Ok(admit(&app, &viewers, room, accepted))
}

fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|k| k.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next();
    essence
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case(wanted)
}

fn unsupported() -> Response {
    let detail = "send the offer as Content-Type: application/sdp";
    let mut response = ApiError::new(Code::UnsupportedMediaType, detail).into_response();
    response
        .headers_mut()
        .insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    response
}

async fn read_offer(body: Body) -> Result<String, ApiError> {
    let bytes = read_body(body, OFFER_BYTES_MAX).await?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_binary| ApiError::new(Code::Malformed, "the body is not text"))
}

/// The broadcast to watch, if there is room for one more.
async fn find(app: &App, viewers: &Viewers, room: &str) -> Result<Arc<Broadcast>, ApiError> {
    let live = app.media.find(&BroadcastKey::new(room));
    if live.is_none() {
        let is_room = store::is_room(&app.db, room).await;
        if !is_room.map_err(|err| ApiError::internal(&err))? {
            return Err(ApiError::not_found());
        }
    }
    let limits = &app.config.limits;
    let is_full = viewers.sessions.len() >= limits.whep_max
        || viewers.of_room(room) >= limits.room_viewers_max;
    if !app.is_open() || is_full {
        return Err(busy());
    }
    live.ok_or_else(|| {
        let error = ApiError::new(Code::NotLive, "nobody publishes into this room now");
        error.after(NOT_LIVE_RETRY)
    })
}

/// 503 with a random wait, so that those turned away do not come back all at once.
fn busy() -> ApiError {
    let mut random = [0];
    let wait = getrandom::fill(&mut random).map_or(5, |()| 3 + u64::from(random[0] % 6));
    ApiError::busy(Duration::from_secs(wait))
}

/// Negotiates on a thread of its own: it takes milliseconds of CPU.
async fn answer(
    port: Arc<Port>,
    broadcast: Arc<Broadcast>,
    offer: String,
) -> Result<Accepted, ApiError> {
    let negotiate = move || whep::accept(&port, &broadcast, &offer, Instant::now());
    let accepted = tokio::task::spawn_blocking(negotiate).await;
    accepted
        .map_err(|err| ApiError::internal(&err))?
        .map_err(ApiError::from)
}

impl From<WhepError> for ApiError {
    fn from(err: WhepError) -> Self {
        match err {
            WhepError::Offer(OfferError::Unreadable(why)) => Self::new(Code::Malformed, why),
            WhepError::Offer(OfferError::Unservable(why)) => Self::new(Code::Unservable, why),
            WhepError::Unavailable => busy(),
        }
    }
}

/// Starts the session and says where it is.
fn admit(app: &App, viewers: &Arc<Viewers>, room: String, accepted: Accepted) -> Response {
    let Accepted {
        id,
        answer,
        control,
        session,
    } = accepted;
    let cancel = app.tasks.cancel_token().child_token();
    let location = format!("/whep/{room}/{id}");
    let tag = quoted(&control.tag());
    let span = tracing::info_span!("whep.session", broadcast.id = %room);
    let viewer = Viewer {
        room,
        control: Arc::new(control),
        cancel: cancel.clone(),
    };
    viewers.sessions.insert(id.clone(), viewer);
    let (viewers, hub) = (Arc::clone(viewers), Arc::clone(&app.media));
    let run = async move {
        session.run(cancel, hub).await;
        viewers.sessions.remove(&id);
    };
    app.tasks.spawn("whep.session", run.instrument(span));
    let headers = [
        (CONTENT_TYPE, SDP.to_owned()),
        (LOCATION, location),
        (ETAG, tag),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (StatusCode::CREATED, headers, links(app), answer).into_response()
}

/// One `Link` for each ICE server (RFC 9725 4.6).
fn links(app: &App) -> AppendHeaders<Vec<(HeaderName, String)>> {
    let link = |server: &IceServer| {
        let user = server.user.as_ref().map(|(user, credential)| {
            format!(
                "; username=\"{user}\"; credential=\"{credential}\"; credential-type=\"password\""
            )
        });
        let user = user.unwrap_or_default();
        (LINK, format!("<{}>; rel=\"ice-server\"{user}", server.url))
    };
    AppendHeaders(app.config.webrtc.ice_servers.iter().map(link).collect())
}

/// The viewer leaves: 200, as OBS and the draft want it.
pub(super) async fn leave(
    State(app): State<App>,
    Path((room, id)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let viewers = Viewers::of(&app);
    // Forgotten at once: the session itself may take a moment to end.
    let left = viewers.sessions.remove_if(&id, |_, v| v.room == room);
    left.ok_or_else(ApiError::not_found)?.1.cancel.cancel();
    Ok(StatusCode::OK)
}

/// A strong `ETag`.
fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}

/// Candidates of a viewer: 204; or a restart of ICE: 200 with our fragment.
pub(super) async fn patch(
    State(app): State<App>,
    Path((room, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let viewers = Viewers::of(&app);
    let known = viewers.sessions.get(&id).filter(|v| v.room == room);
    let control = known.map(|viewer| Arc::clone(&viewer.control));
    let control = control.ok_or_else(ApiError::not_found)?;
    if !has_type(&headers, FRAGMENT) {
        let detail = format!("send the fragment as Content-Type: {FRAGMENT}");
        return Err(ApiError::new(Code::UnsupportedMediaType, detail));
    }
    let Some(asked) = headers.get(IF_MATCH) else {
        let detail = "send the ETag of the session, or *, as If-Match";
        return Err(ApiError::new(Code::PreconditionRequired, detail));
    };
    let tag = quoted(&control.tag());
    if ![tag.as_bytes(), b"*", b"\"*\""].contains(&asked.as_bytes()) {
        let detail = "If-Match is not the ETag of this session";
        return Err(ApiError::new(Code::PreconditionFailed, detail));
    }
    let fragment = read_offer(body).await?;
    let fragment = Fragment::read(&fragment).map_err(WhepError::Offer)?;
    match control.patch(Instant::now(), &fragment)? {
        Patched::Candidates => Ok(StatusCode::NO_CONTENT.into_response()),
        Patched::Restarted(answer) => {
            let headers = [
                (CONTENT_TYPE, FRAGMENT.to_owned()),
                (ETAG, quoted(&control.tag())),
                (CACHE_CONTROL, "no-store".to_owned()),
            ];
            Ok((headers, answer).into_response())
        }
    }
}

impl From<PatchError> for ApiError {
    fn from(err: PatchError) -> Self {
        match err {
            PatchError::NoPassword => Self::new(Code::Malformed, err.to_string()),
            PatchError::Past => Self::new(Code::PreconditionFailed, err.to_string()),
            PatchError::TooFast => {
                Self::new(Code::RateLimited, err.to_string()).after(Duration::from_secs(1))
            }
            PatchError::Gone => Self::not_found(),
        }
    }
}

/// GET and HEAD of the endpoint: it is there, and says nothing.
pub(super) async fn endpoint() -> Response {
    ([(CONTENT_TYPE, SDP)], ()).into_response()
}

/// OPTIONS of the endpoint, when it is no preflight.
pub(super) async fn endpoint_options(State(app): State<App>) -> Response {
    let headers = [(ALLOW, ENDPOINT_METHODS), (ACCEPT_POST, SDP)];
    (headers, links(&app)).into_response()
}

/// OPTIONS of a session, when it is no preflight.
pub(super) async fn session_options(State(app): State<App>) -> Response {
    ([(ALLOW, SESSION_METHODS)], links(&app)).into_response()
}
