//! What WHIP and WHEP have in common over HTTP (media.md 4.1): how often an address may offer, what
//! an offer looks like, `PATCH` and its `ETag`, `Link`s, `OPTIONS`.
//!
//! Invariant: the session id is 128 random bits: knowing it is the right to change the session.
//!
//! Not here: who may publish or watch, SDP, media.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{AppendHeaders, IntoResponse, Response};
use dashmap::DashMap;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_MATCH, LINK, LOCATION,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lamplight_media::webrtc::Port;
use lamplight_media::webrtc::sdp::{Fragment, OFFER_BYTES_MAX, OfferError};
use lamplight_media::whep::{Control, PatchError, Patched};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::clock::Timestamp;
use crate::config::IceServer;
use crate::http::{ApiError, Code, read_body};

pub(super) const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ENDPOINT_METHODS: &str = "GET, HEAD, OPTIONS, POST";
const VIEWER_METHODS: &str = "DELETE, OPTIONS, PATCH";
const PUBLISHER_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH";
/// An address that made no offer for this long is forgotten when there are too many.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Offers of one address: this many a second, and so many at once.
const OFFERS_PER_S: f64 = 10.0;
const OFFERS_BURST: f64 = 20.0;
/// Addresses remembered.
const ADDRESSES_MAX: usize = 65_536;

/// The WebRTC sessions of this process.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    port: OnceLock<Arc<Port>>,
    pub(super) viewers: DashMap<String, Held>,
    pub(super) publishers: DashMap<String, Held>,
    offers: DashMap<IpAddr, (f64, Instant)>,
}

/// The server's hold on a session.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) room: String,
    pub(super) control: Arc<Control>,
    pub(super) leave: CancellationToken,
    pub(super) since: Timestamp,
    /// The hash of the secret it came with, if it needed one.
    pub(super) secret: Option<String>,
}

impl Sessions {
    pub(super) fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }

    /// The port of all WebRTC media.
    pub(super) fn port(&self) -> Result<Arc<Port>, ApiError> {
        self.port.get().cloned().ok_or_else(busy)
    }

    /// Takes one of an address's offers.
    pub(super) fn may_offer(&self, ip: IpAddr, now: Instant) -> Result<(), ApiError> {
        if ip.is_loopback() {
            return Ok(());
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
        if level >= 1.0 {
            return Ok(());
        }
        let error = ApiError::new(Code::RateLimited, "at most ten offers a second");
        Err(error.after(Duration::from_secs(1)))
    }
}

/// Gives the routes the port of all WebRTC media.
pub(crate) fn use_port(app: &App, port: Arc<Port>) {
    // A second port would be a fault of ours; the first one stays.
    drop(Sessions::of(app).port.set(port));
}

/// Changes what later answers say about where that port is.
pub(crate) fn set_public(app: &App, addrs: Vec<IpAddr>, port: Option<u16>) {
    if let Some(udp) = Sessions::of(app).port.get() {
        udp.set_public(addrs, port);
    }
}

/// The offer of a request, or the answer to one that has none.
pub(super) async fn offer_of(headers: &HeaderMap, body: Body) -> Result<String, Response> {
    if !has_type(headers, SDP) {
        return Err(unsupported());
    }
    read_text(body).await.map_err(IntoResponse::into_response)
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

async fn read_text(body: Body) -> Result<String, ApiError> {
    let bytes = read_body(body, OFFER_BYTES_MAX).await?;
    String::from_utf8(bytes.to_vec())
        .map_err(|_binary| ApiError::new(Code::Malformed, "the body is not text"))
}

/// 503 with a random wait, so that those turned away do not come back all at once.
pub(super) fn busy() -> ApiError {
    let mut random = [0];
    let wait = getrandom::fill(&mut random).map_or(5, |()| 3 + u64::from(random[0] % 6));
    ApiError::busy(Duration::from_secs(wait))
}

/// 201: the answer, and where the session is.
pub(super) fn created(app: &App, location: String, tag: &str, answer: String) -> Response {
    let headers = [
        (CONTENT_TYPE, SDP.to_owned()),
        (LOCATION, location),
        (ETAG, quoted(tag)),
        (CACHE_CONTROL, "no-store".to_owned()),
    ];
    (StatusCode::CREATED, headers, links(app), answer).into_response()
}

/// One `Link` for each ICE server (RFC 9725 4.6).
pub(super) fn links(app: &App) -> AppendHeaders<Vec<(HeaderName, String)>> {
    let link = |server: &IceServer| {
        let user = server.user.as_ref().map(|(user, credential)| {
            format!(
                "; username=\"{user}\"; credential=\"{credential}\"; credential-type=\"password\""
            )
        });
        let user = user.unwrap_or_default();
        (LINK, format!("<{}>; rel=\"ice-server\"{user}", server.url))
    };
    AppendHeaders(app.config().webrtc.ice_servers.iter().map(link).collect())
}

/// Candidates: 204; or a restart of ICE: 200 with our fragment.
pub(super) async fn patch(
    control: &Control,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if !has_type(headers, FRAGMENT) {
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
    let fragment = read_text(body).await?;
    let fragment = Fragment::read(&fragment)?;
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

impl From<OfferError> for ApiError {
    fn from(err: OfferError) -> Self {
        match err {
            OfferError::Unreadable(why) => Self::new(Code::Malformed, why),
            OfferError::Unservable(why) => Self::new(Code::Unservable, why),
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

/// A strong `ETag`.
fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}

/// The secret of an `Authorization: Bearer`; the scheme in any case.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, secret) = header.split_once(' ')?;
    let secret = secret.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !secret.is_empty()).then_some(secret)
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

/// OPTIONS of a viewer's session, when it is no preflight.
pub(super) async fn session_options(State(app): State<App>) -> Response {
    ([(ALLOW, VIEWER_METHODS)], links(&app)).into_response()
}

/// OPTIONS of a publisher's session, when it is no preflight.
pub(super) async fn publisher_options(State(app): State<App>) -> Response {
    ([(ALLOW, PUBLISHER_METHODS)], links(&app)).into_response()
}
