//! Who may watch a room (media.md 2): everyone, holders of a playback token, or nobody.
//!
//! A token is `pt1.<payload>.<mac>`: room, viewer and expiry, signed with the node's key. A session
//! of LL-HLS is named by a text that is signed too: it opens the media playlists of the room it was
//! given for, and only such sessions are counted as viewers.
//!
//! Invariants
//! - A token is in no URL of ours: playlists carry the session's name instead.
//! - A refused token gets the same answer whatever is wrong with it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dashmap::DashMap;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::Watch;
use super::signal::bearer;
use super::store;
use crate::accounts::{Principal, Scope};
use crate::app::{App, Secrets};
use crate::clock::Timestamp;
use crate::http::{ApiError, Bounds, Call, Code, Path, Problem, Write};
use crate::ids::RoomId;

const PREFIX: &str = "pt1";
const TOKEN_BYTES_MAX: usize = 512;
const VIEWER_CHARS_MAX: usize = 64;
const TTL_S_DEFAULT: u32 = 3_600;
const TTL_S_MAX: u32 = 86_400;
/// How long a session of LL-HLS lasts without a token.
const SESSION_TTL: Duration = Duration::from_secs(86_400);
/// Expiry and random bytes of a session's name, and its MAC.
const NAME_BYTES: usize = 12;
const NAME_MAC_BYTES: usize = 12;
/// How long it is remembered who may watch a room, and of how many rooms.
const REMEMBERED_FOR: Duration = Duration::from_secs(5);
const REMEMBERED_MAX: usize = 4_096;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(make_token))
}

/// A viewer who may watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Viewer {
    /// The name the token gives, so that a person counts once.
    pub(super) id: Option<Arc<str>>,
    /// Until when.
    pub(super) until: Option<Timestamp>,
}

/// What a token says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    /// Room.
    r: String,
    /// Viewer.
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<String>,
    /// Expiry, Unix seconds.
    x: i64,
}

/// What was found out of rooms a moment ago.
#[derive(Debug, Default)]
struct Known(DashMap<String, (Watch, Instant)>);

/// Who may watch a room, as of a few seconds ago at most; `None` when there is no such room.
pub(super) async fn watch_of(app: &App, room: &str) -> Result<Option<Watch>, ApiError> {
    let known: Arc<Known> = app.parts.part();
    let now = Instant::now();
    if let Some(entry) = known.0.get(room)
        && now.saturating_duration_since(entry.1) < REMEMBERED_FOR
    {
        return Ok(Some(entry.0));
    }
    let watch = store::watch(&app.db, room).await?;
    if let Some(watch) = watch {
        if known.0.len() >= REMEMBERED_MAX {
            known.0.clear();
        }
        known.0.insert(room.to_owned(), (watch, now));
    }
    Ok(watch)
}

/// Lets a viewer in by what its request carries.
pub(super) fn admit(
    app: &App,
    (room, watch): (&str, Watch),
    headers: &HeaderMap,
    query_token: Option<&str>,
) -> Result<Viewer, ApiError> {
    let token = query_token.or_else(|| bearer(headers));
    let payload = token.and_then(|token| read(&app.secrets, token));
    let now = app.clock.now().as_micros() / 1_000_000;
    let payload = payload.filter(|payload| payload.r == room && payload.x > now);
    match (watch, payload) {
        (Watch::Closed, _) => Err(ApiError::new(
            Code::Forbidden,
            "this room takes no viewers now",
        )),
        (_, Some(payload)) => Ok(Viewer {
            id: payload.v.map(Into::into),
            until: Some(Timestamp::from_micros(payload.x * 1_000_000)),
        }),
        (Watch::Public, None) => Ok(Viewer {
            id: None,
            until: None,
        }),
        (Watch::Token, None) => Err(unauthenticated()),
    }
}

fn unauthenticated() -> ApiError {
    let detail = "this room is private: send a playback token of it that has not expired, as \
                  ?token= or Authorization: Bearer";
    ApiError::new(Code::Unauthenticated, detail)
}

fn read(secrets: &Secrets, token: &str) -> Option<Payload> {
    if token.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (signed, mac) = token.rsplit_once('.')?;
    let payload = signed.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
    if !is_equal(&mac, &secrets.mac(signed.as_bytes())) {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn write(secrets: &Secrets, payload: &Payload) -> String {
    let json = serde_json::to_vec(payload).expect("texts and numbers are JSON");
    let signed = format!("{PREFIX}.{}", URL_SAFE_NO_PAD.encode(json));
    let mac = URL_SAFE_NO_PAD.encode(secrets.mac(signed.as_bytes()));
    format!("{signed}.{mac}")
}

/// In the same time wherever they differ.
fn is_equal(one: &[u8], other: &[u8]) -> bool {
    let differ = |sum, (a, b): (&u8, &u8)| sum | (a ^ b);
    one.len() == other.len() && one.iter().zip(other).fold(0, differ) == 0
}

/// Names a session of LL-HLS.
pub(super) fn name_session(app: &App, room: &str, until: Option<Timestamp>) -> String {
    let now = app.clock.now().as_micros() / 1_000_000;
    let ttl = i64::try_from(SESSION_TTL.as_secs()).unwrap_or(0);
    let until = until.map_or(now + ttl, |until| until.as_micros() / 1_000_000);
    let mut name = [0; NAME_BYTES];
    getrandom::fill(&mut name).expect("the operating system gives random bytes");
    let (expiry, _) = name.split_at_mut(4);
    expiry.copy_from_slice(&u32::try_from(until).unwrap_or(u32::MAX).to_be_bytes());
    let mac = session_mac(&app.secrets, room, &name);
    URL_SAFE_NO_PAD.encode([&name[..], &mac].concat())
}

/// The name of the session in a query, if it is one of this room that has not expired.
pub(super) fn session_of<'a>(app: &App, room: &str, query: &'a str) -> Option<&'a str> {
    let mut pairs = query.split('&');
    let text = pairs.find_map(|pair| pair.strip_prefix("s="))?;
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (name, mac) = bytes.split_at_checked(NAME_BYTES)?;
    let expiry: [u8; 4] = name.split_at_checked(4)?.0.try_into().ok()?;
    let now = app.clock.now().as_micros() / 1_000_000;
    let is_current = i64::from(u32::from_be_bytes(expiry)) > now;
    (is_current && is_equal(mac, &session_mac(&app.secrets, room, name))).then_some(text)
}

fn session_mac(secrets: &Secrets, room: &str, name: &[u8]) -> Vec<u8> {
    let text = [b"hls-session.", room.as_bytes(), b".", name].concat();
    secrets
        .mac(&text)
        .into_iter()
        .take(NAME_MAC_BYTES)
        .collect()
}

/// What a playback token is for.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct TokenBody {
    /// Your name of the viewer, who then counts once however it watches; 1 to 64 characters of
    /// visible ASCII
    #[serde(default)]
    viewer_id: Option<String>,
    /// Seconds the token is good for, 1 to 86 400; an hour when missing
    #[serde(default)]
    ttl_s: Option<u32>,
}

/// A playback token.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct TokenView {
    /// For `?token=` or `Authorization: Bearer` of WHEP and `index.m3u8`
    token: String,
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
}

/// Makes a playback token of a room.
#[utoipa::path(post, path = "/media/broadcasts/{room}/tokens", tag = "media",
    params(("room" = String, Path)), request_body = TokenBody, security(("bearer" = [])),
    responses((status = 201, body = TokenView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.make_token", skip_all, fields(room.id = %room))]
async fn make_token(
    State(app): State<App>,
    who: Principal,
    Path(room): Path<RoomId>,
    Write { body, call }: Write<TokenBody>,
) -> Result<(StatusCode, Json<TokenView>), ApiError> {
    who.require(Scope::MediaManage)?;
    let _: Call = call;
    let mut bounds = Bounds::default();
    if let Some(viewer) = &body.viewer_id {
        bounds.text("/viewer_id", viewer, 1..=VIEWER_CHARS_MAX);
    }
    bounds.check()?;
    let ttl_s = body.ttl_s.unwrap_or(TTL_S_DEFAULT);
    if !(1..=TTL_S_MAX).contains(&ttl_s) {
        return Err(ApiError::bounds(Vec::new()).at("/ttl_s", "range_1_86400"));
    }
    if !store::has_access(&app.db, room).await? {
        return Err(ApiError::not_found());
    }
    let expires = app.clock.now().as_micros() / 1_000_000 + i64::from(ttl_s);
    let payload = Payload {
        r: room.to_string(),
        v: body.viewer_id,
        x: expires,
    };
    let view = TokenView {
        token: write(&app.secrets, &payload),
        expires_at: Timestamp::from_micros(expires * 1_000_000),
    };
    Ok((StatusCode::CREATED, Json(view)))
}
