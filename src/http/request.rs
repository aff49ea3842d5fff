//! What surrounds every request: its id, who really asks, its span, the shape of its errors.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use super::error::ApiError;
use crate::app::App;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: &str = "x-forwarded-for";
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Addresses read of one `X-Forwarded-For`.
const FORWARDED_MAX: usize = 16;
const SLOW: Duration = Duration::from_secs(1);

/// The socket's other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) addr: SocketAddr,
    /// Over TLS that ends here.
    pub(crate) is_secure: bool,
}

/// The address of the client, behind proxies that are trusted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client(pub(crate) IpAddr);

/// The id under which a request is logged.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// The whole path: a nested route sees only its end.
#[derive(Clone, Debug)]
pub(super) struct RequestPath(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Client {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let client = parts.extensions.get::<Self>();
        Ok(*client.expect("every request passes through `around`"))
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = parts.extensions.get::<Self>();
        Ok(id.expect("every request passes through `around`").clone())
    }
}

/// Gives a request its id, client and span, and its error a body.
pub(crate) async fn around(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let peer = request.extensions().get::<Peer>().copied();
    let client = client_of(peer, request.headers(), &app.config().http.trusted_proxies);
    let path = request.uri().path().to_owned();
    request.extensions_mut().insert(RequestId(id.clone()));
    request.extensions_mut().insert(RequestPath(path.clone()));
    request.extensions_mut().insert(client);
    let span =
        tracing::info_span!("http.request", request.id = %id, http.method = %request.method());
    let begun = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        response = rendered(response, &error, &path, &id);
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    count(status.as_u16());
    let took = begun.elapsed();
    span.in_scope(|| {
        tracing::debug!(
            http.status = status.as_u16(),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            is_slow = took > SLOW,
            "answered"
        );
    });
    response
}

/// The problem's response with the headers that inner layers set.
fn rendered(inner: Response, error: &ApiError, path: &str, id: &str) -> Response {
    let mut response = error.render(path, id);
    for (name, value) in inner.headers() {
        if !response.headers().contains_key(name) && name != http::header::CONTENT_LENGTH {
            response.headers_mut().append(name.clone(), value.clone());
        }
    }
    response
}

fn count(status: u16) {
    let class = match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    metrics::counter!("lamplight_http_requests_total", "status" => class).increment(1);
}

/// The client's own id if it is short and plain, else a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    match given.filter(is_plain) {
        Some(id) => id.into(),
        None => format!("req_{}", Uuid::now_v7().simple()),
    }
}

/// Walks `X-Forwarded-For` from the right while the hop that said it is trusted.
fn client_of(peer: Option<Peer>, headers: &HeaderMap, trusted: &[IpAddr]) -> Client {
    let unknown = Ipv4Addr::UNSPECIFIED.into();
    let mut client = peer.map_or(unknown, |peer| peer.addr.ip().to_canonical());
    let said = headers
        .get_all(FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|hop| hop.trim().parse::<IpAddr>().ok());
    let said: Vec<_> = said.collect();
    for hop in said.into_iter().rev().take(FORWARDED_MAX) {
        let Some(hop) = hop.filter(|_| trusted.contains(&client)) else {
            break;
        };
        client = hop.to_canonical();
    }
    Client(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trusted_hop_may_name_the_client() {
        let trusted: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap()).into();
        let cases = [
            ("10.0.0.1", "203.0.113.7", "203.0.113.7"),
            (
                "10.0.0.1",
                "198.51.100.1, 203.0.113.7, 10.0.0.2",
                "203.0.113.7",
            ),
            ("192.0.2.9", "203.0.113.7", "192.0.2.9"),
            ("10.0.0.1", "rubbish", "10.0.0.1"),
            ("10.0.0.1", "", "10.0.0.1"),
        ];
        for (peer, header, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(FORWARDED_FOR, header.parse().unwrap());
            let peer = Peer {
                addr: SocketAddr::new(peer.parse().unwrap(), 1),
                is_secure: false,
            };
            let Client(client) = client_of(Some(peer), &headers, &trusted);
            assert_eq!(client.to_string(), expected, "{header}");
        }
    }

    #[test]
    fn a_request_id_that_could_break_a_log_line_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, "abc-1.2:3_4".parse().unwrap());
        assert_eq!(request_id(&headers), "abc-1.2:3_4");
        for bad in ["a b", "\"", "", &"x".repeat(65)] {
            headers.insert(REQUEST_ID, bad.parse().unwrap());
            assert!(request_id(&headers).starts_with("req_"), "{bad:?}");
        }
    }
}
