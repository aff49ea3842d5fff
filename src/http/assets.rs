//! The pages, built by `cargo xtask web` and embedded in the binary.
//!
//! Invariant: files under `assets/` carry a hash in their name and never change; the page itself
//! is asked for anew each time.

use std::borrow::Cow;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::RustEmbed;

use super::error::ApiError;
use crate::app::hex;

/// The page of a build without the front end.
const MISSING: &str = include_str!("missing.html");

const PAGE_CACHE: &str = "no-cache";
const HASHED_CACHE: &str = "public, max-age=31536000, immutable";
/// hls.js runs its parser in a worker made of a blob and plays from one.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; \
                      worker-src 'self' blob:; style-src 'self' 'unsafe-inline'; \
                      connect-src 'self'; object-src 'none'; base-uri 'none'; \
                      frame-ancestors 'self'";

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Web;

/// The one page of the front end, for every path it owns.
pub(crate) async fn index(headers: HeaderMap) -> Response {
    match Web::get("index.html") {
        Some(page) => file(
            "index.html",
            page.data,
            page.metadata.sha256_hash(),
            &headers,
        ),
        None => (
            [
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (CACHE_CONTROL, PAGE_CACHE),
            ],
            MISSING,
        )
            .into_response(),
    }
}

/// Any other file of the front end.
pub(crate) async fn asset(Path(path): Path<String>, headers: HeaderMap) -> Response {
    match Web::get(&path) {
        Some(found) => file(&path, found.data, found.metadata.sha256_hash(), &headers),
        None => ApiError::not_found().into_response(),
    }
}

fn file(path: &str, data: Cow<'static, [u8]>, hash: [u8; 32], asked: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", hex(hash.split_at(16).0));
    let is_known = asked
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|tags| tags.to_str().ok())
        .any(|tags| tags.split(',').any(|t| t.trim() == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        data.into_response()
    };
    let is_hashed = path.starts_with("assets/");
    let cache = if is_hashed { HASHED_CACHE } else { PAGE_CACHE };
    let pairs = [
        (CONTENT_TYPE, content_type(path)),
        (CACHE_CONTROL, cache),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "strict-origin-when-cross-origin"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    let headers = response.headers_mut();
    for (name, value) in pairs {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    response
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map" | "webmanifest") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("webp") => "image/webp",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
