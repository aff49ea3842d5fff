//! What a handler takes from a request, each with our errors: JSON writes, paths, queries.

use std::time::Duration;

use axum::RequestExt;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::BODY_BYTES_MAX;
use super::error::{ApiError, Code};
use super::request::{RequestId, RequestPath};
use crate::app::{App, hex};

/// How long a body may take.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(10);
/// Bytes read beyond the bound before the answer.
pub(super) const THROWN_AWAY_MAX: usize = 1024 * 1024;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The body of a route that takes none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoBody {}

/// One write as the client made it: enough to recognise it when it comes again.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Method and route template.
    pub(crate) route: String,
    /// The path, for `instance`.
    pub(crate) path: String,
    pub(crate) request_id: String,
    /// SHA-256 of method, path, query and body bytes.
    pub(super) fingerprint: String,
    pub(super) key: Option<String>,
}

impl Call {
    /// The call before its body is read: without a key, it is not told from its repeat.
    pub(super) async fn of(request: &mut Request, app: &App) -> Result<Self, ApiError> {
        let route: MatchedPath = request
            .extract_parts()
            .await
            .map_err(|_unrouted| ApiError::not_found())?;
        let RequestId(request_id) = request.extract_parts_with_state(app).await?;
        let path = request.extensions().get::<RequestPath>();
        let RequestPath(path) = path.expect("every request passes through `around`").clone();
        Ok(Self {
            route: format!("{} {}", request.method(), route.as_str()),
            path,
            request_id,
            fingerprint: String::new(),
            key: None,
        })
    }

    /// Refuses a call that could not be told from its repeat.
    pub(crate) fn require_key(&self) -> Result<(), ApiError> {
        if self.key.is_some() {
            return Ok(());
        }
        let detail = "send an Idempotency-Key of your own making, so that a repeat is recognised";
        Err(ApiError::new(Code::IdempotencyKeyMissing, detail))
    }

    /// A name that is the same for each repeat of this call; none without an `Idempotency-Key`.
    pub(crate) fn derived_id(&self, prefix: &str) -> Option<String> {
        let key = self.key.as_deref()?;
        let digest = Sha256::digest(format!("{}\n{key}", self.path).as_bytes());
        Some(format!("{prefix}{}", hex(digest.split_at(12).0)))
    }
}

/// A JSON write and how it was called.
#[derive(Clone, Debug)]
pub(crate) struct Write<T> {
    pub(crate) body: T,
    pub(crate) call: Call,
}

impl<T: DeserializeOwned> FromRequest<App> for Write<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, app: &App) -> Result<Self, ApiError> {
        let key = idempotency_key(&request)?;
        let mut call = Call::of(&mut request, app).await?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let has_json_type = has_json_type(&request);
        let bytes = read_body(request.into_body(), BODY_BYTES_MAX).await?;
        if !bytes.is_empty() && !has_json_type {
            let detail = "send the body as Content-Type: application/json";
            return Err(ApiError::new(Code::UnsupportedMediaType, detail));
        }
        let text = if bytes.is_empty() {
            b"{}"
        } else {
            bytes.as_ref()
        };
        let body = parse_json(text)?;
        let query = uri.query().unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [method.as_str(), &call.path, query] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.update(&bytes);
        call.fingerprint = hex(&hash.finalize());
        call.key = key;
        Ok(Self { body, call })
    }
}

/// Reads a body of at most `bytes_max`, within [`BODY_WITHIN`].
///
/// Of a longer one a little more is read and thrown away: closing a socket with unread bytes in
/// it would take the answer from a client that is still sending.
pub(crate) async fn read_body(mut body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let read = async {
        let (mut bytes, mut seen) = (BytesMut::new(), 0_usize);
        while let Some(frame) = body.frame().await {
            let broke_off = |_broken| ApiError::new(Code::Malformed, "the body broke off");
            let Ok(data) = frame.map_err(broke_off)?.into_data() else {
                continue;
            };
            seen = seen.saturating_add(data.len());
            if seen <= bytes_max {
                bytes.extend_from_slice(&data);
            } else if seen > bytes_max.saturating_add(THROWN_AWAY_MAX) {
                break;
            }
        }
        if seen > bytes_max {
            let detail = format!("a body has at most {bytes_max} bytes here");
            return Err(ApiError::new(Code::TooLarge, detail));
        }
        Ok(bytes.freeze())
    };
    match tokio::time::timeout(BODY_WITHIN, read).await {
        Ok(read) => read,
        Err(_elapsed) => Err(ApiError::new(Code::Timeout, "the body came too slowly")),
    }
}

fn has_json_type(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    let kind = kind.and_then(|k| k.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

fn idempotency_key(request: &Request) -> Result<Option<String>, ApiError> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let is_good = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len())
        && key.as_bytes().iter().all(|b| (0x20..0x7f).contains(b));
    match key.to_str() {
        Ok(key) if is_good => Ok(Some(key.into())),
        _ => Err(ApiError::new(
            Code::Malformed,
            "Idempotency-Key takes 1 to 255 printable ASCII characters",
        )),
    }
}

/// Reads JSON; tells an unknown field from a bad shape.
pub(crate) fn parse_json<T: DeserializeOwned>(text: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(text).map_err(|err| {
        let message = err.to_string();
        match unknown_field(&message) {
            Some(field) => ApiError::new(Code::UnknownField, format!("unknown field {field:?}"))
                .at(format!("/{field}"), "unknown"),
            None => ApiError::new(Code::Malformed, without_value(&message)),
        }
    })
}

/// Serde's message about a value without the value, which may be a secret.
fn without_value(message: &str) -> &str {
    let tells_value = ["invalid type: ", "invalid value: "];
    let is_told = tells_value.iter().any(|start| message.starts_with(start));
    match message.rfind("expected ").filter(|_| is_told) {
        Some(at) => message.get(at..).unwrap_or_default(),
        None => message,
    }
}

/// The name in serde's message about a field that is not there.
fn unknown_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    rest.split_once('`').map(|(field, _)| field)
}

/// Reads a field that may be missing (`None`) or null (`Some(None)`): for `#[serde(default,
/// deserialize_with = ..)]` on what a PATCH can take away.
pub(crate) fn given<'de, T, D>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
{
    Option::deserialize(from).map(Some)
}

/// Path parameters; an id of another form is an object that does not exist.
#[derive(Clone, Debug)]
pub(crate) struct Path<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|_other_form| ApiError::not_found())
    }
}

/// Query parameters; an unknown one is refused.
#[derive(Clone, Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection| {
                let message = rejection.body_text();
                match unknown_field(&message) {
                    Some(name) => {
                        let detail = format!("there is no filter {name:?} here");
                        ApiError::new(Code::UnknownFilter, detail)
                    }
                    None => ApiError::new(Code::Malformed, message),
                }
            })
    }
}
