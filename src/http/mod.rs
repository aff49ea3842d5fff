//! The wire: problems, bodies, pages, repeats, health, the embedded pages.
//!
//! Invariants
//! - Every error leaves as `application/problem+json` with a stable code and the request's id.
//! - Every body and header list has a bound; beyond it the answer is 413 or 431.
//! - A handler answers only after its commit.
//!
//! Not here: who may do what ([`crate::accounts`]), any rule of a module.

mod assets;
mod body;
mod cors;
mod error;
mod etag;
mod hangup;
mod health;
mod held;
mod idempotency;
mod lines;
pub(crate) mod openapi;
mod page;
mod rate;
mod reached;
mod request;
mod send_buffer;
#[cfg(test)]
mod tests;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::assets::{asset, index};
pub(crate) use self::body::{Call, NoBody, Path, Query, Write, given, parse_json, read_body};
pub(crate) use self::cors::Cors;
pub(crate) use self::error::{ApiError, Bound, Bounds, Code, Problem};
pub(crate) use self::etag::{Expected, IfMatch, etag, exists, is_known, tagged};
pub(crate) use self::hangup::Hangup;
pub(crate) use self::health::{counted, install_recorder};
pub(crate) use self::held::Held;
pub(crate) use self::idempotency::{Begin, Kept, Stored, begin, keep, replays, sweep};
pub(crate) use self::lines::{Line, Lines};
pub(crate) use self::page::{Cursor, Page, Seek, limit};
pub(crate) use self::rate::{Rate, Taken};
pub(crate) use self::reached::Reached;
pub(crate) use self::request::{Client, Peer, around};
pub(crate) use self::send_buffer::SendBuffer;
use crate::app::App;

/// Health and readiness.
pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

/// Bytes of a request body, unless a route has its own bound.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;
