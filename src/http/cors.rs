//! CORS: which web origins may call the API and read media.
//!
//! Only a preflight is answered here; another OPTIONS request reaches its route.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use http::{HeaderValue, Method, StatusCode};

use crate::app::App;

const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
const HEADERS: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, \
                       Range, X-Request-Id";
const EXPOSED: &str = "Accept-Post, Age, Content-Length, Content-Range, Date, ETag, \
                       Idempotency-Replayed, Lamplight-Session, Link, Location, RateLimit, \
                       RateLimit-Policy, Retry-After, X-Request-Id";
/// Browsers ask again after two hours at most, whatever is said here.
const MAX_AGE_S: &str = "7200";

/// The layer as a function for `axum::middleware`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cors;

impl Cors {
    pub(crate) async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
        let origin = request.headers().get(ORIGIN).cloned();
        let allowed = allowed(&app.config().http.cors_origins, origin.as_ref());
        let is_preflight = request.method() == Method::OPTIONS
            && request
                .headers()
                .contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let mut response = if is_preflight {
            StatusCode::OK.into_response()
        } else {
            next.run(request).await
        };
        let headers = response.headers_mut();
        if let Some(allowed) = allowed {
            if allowed != "*" {
                headers.append(VARY, HeaderValue::from_static("Origin"));
            }
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(
                ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(EXPOSED),
            );
            if is_preflight {
                let pairs = [
                    (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
                    (ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
                    (ACCESS_CONTROL_MAX_AGE, MAX_AGE_S),
                ];
                for (name, value) in pairs {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
        }
        response
    }
}

/// `*` when every origin is allowed, the origin itself when it is listed.
fn allowed(origins: &[String], origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    if origins.iter().any(|o| o == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = origin?;
    let is_listed = origins.iter().any(|o| o.as_bytes() == origin.as_bytes());
    is_listed.then(|| origin.clone())
}
