//! Streams over HTTP.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hub::{FullError, Hub};
use super::stream::{From, Stream};
use crate::accounts::Principal;
use crate::app::App;
use crate::http::{ApiError, Code, Path, Problem};
use crate::ids::RoomId;
use crate::rooms;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Tells proxies to hand on every event at once.
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const RETRY: Duration = Duration::from_secs(5);

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(cards))
}

/// Streams the cards of a room as Server-Sent Events: `snapshot`, then `card` after `card` by its
/// number, and `stock` hints in between.
#[utoipa::path(get, path = "/rooms/{id}/cards/stream", tag = "rooms",
    operation_id = "stream_cards",
    params(("id" = String, Path), ("Last-Event-ID" = Option<i64>, Header,
        description = "The number of the last card that was received")),
    responses((status = 200, body = String, content_type = "text/event-stream"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "live.cards", skip_all, fields(room.id = %id))]
async fn cards(
    State(app): State<App>,
    who: Option<Principal>,
    Path(id): Path<RoomId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if !app.is_open() {
        return Err(ApiError::busy(RETRY));
    }
    let listener = rooms::listen(&app, id, who.as_ref()).await?;
    let (newest, is_inside) = (listener.newest, listener.is_inside);
    let account = who.as_ref().and_then(|who| who.account().ok());
    let seat = Hub::of(&app).enter(&app, (id, account), listener)?;
    let from = match last_seen(&headers) {
        Some(seq) if (1..=newest).contains(&seq) => From::Card(seq),
        // Nothing was seen, or something that was never sent here.
        _ => From::Now,
    };
    let stream = Stream::open(&app, (id, is_inside), seat, from).await?;
    let events = unfold(stream, |mut stream| async {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(event), stream))
    });
    let headers = [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (BUFFERING, "no"),
    ];
    Ok((headers, Body::from_stream(events)).into_response())
}

fn last_seen(headers: &HeaderMap) -> Option<i64> {
    headers
        .get(LAST_EVENT_ID)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
}

impl std::convert::From<FullError> for ApiError {
    fn from(err: FullError) -> Self {
        match err {
            FullError::Room => Self::busy(RETRY),
            FullError::Account => Self::new(Code::RateLimited, err.to_string()).after(RETRY),
        }
    }
}
