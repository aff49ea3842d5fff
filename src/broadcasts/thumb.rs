//! Thumbnails of live rooms over HTTP (media.md 6.7).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lamplight_media::broadcast::BroadcastKey;
use lamplight_media::transcode::thumbnail::{NoThumbnail, Thumbnails};
use serde::Deserialize;
use tokio::time::timeout;
use tracing::warn;

use super::hls::{A_SECOND, NO_STORE, cached, not_live};
use super::model::Watch;
use super::playback;
use crate::app::App;
use crate::http::{ApiError, Path, Query};

/// As long as one is the newest.
const PUBLIC: &str = "public, max-age=10";
const PRIVATE: &str = "private, max-age=10";
/// On a machine that is busy; who asks again finds it made.
const MADE_WITHIN: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(2);

/// What opens a private room.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    token: Option<String>,
}

/// The newest keyframe of a room as a JPEG.
pub(super) async fn thumb(
    State(app): State<App>,
    Path(file): Path<String>,
    Query(key): Query<Key>,
    headers: HeaderMap,
) -> Response {
    let token = key.token.as_deref();
    let response = thumb_of(&app, &file, token, &headers).await;
    response.unwrap_or_else(|refused| refused)
}

async fn thumb_of(
    app: &App,
    file: &str,
    token: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let nothing = || cached(ApiError::not_found().into_response(), A_SECOND);
    let refuse = |error: ApiError| cached(error.into_response(), NO_STORE);
    let room = file.strip_suffix(".jpg").ok_or_else(nothing)?;
    let watch = playback::watch_of(app, room).await.map_err(refuse)?;
    let watch = watch.ok_or_else(nothing)?;
    playback::admit(app, (room, watch), headers, token).map_err(refuse)?;
    let live = app.media.find(&BroadcastKey::new(room));
    let live = live.ok_or_else(not_live)?;
    let thumbnails: Arc<Thumbnails> = app.parts.part();
    let busy = |_elapsed| cached(ApiError::busy(RETRY).into_response(), NO_STORE);
    let made = timeout(MADE_WITHIN, thumbnails.of(&live))
        .await
        .map_err(busy)?;
    let jpeg = made.map_err(|err| {
        if err != NoThumbnail::NoPicture {
            let error = &err as &dyn std::error::Error;
            warn!(error, broadcast.id = room, "no thumbnail");
        }
        nothing()
    })?;
    let stats = app.media.stats();
    stats.add(
        "egress_bytes_total",
        "thumb",
        u64::try_from(jpeg.len()).unwrap_or(0),
    );
    let cache = match watch {
        Watch::Public => PUBLIC,
        Watch::Token | Watch::Closed => PRIVATE,
    };
    Ok(cached(
        ([(CONTENT_TYPE, "image/jpeg")], jpeg).into_response(),
        cache,
    ))
}
