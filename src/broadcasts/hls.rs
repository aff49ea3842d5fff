//! LL-HLS over HTTP (media.md 6.5): requests to answers of the media core, answers to headers.
//!
//! Not here: what a playlist says; whether a part is there.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use lamplight_media::broadcast::BroadcastKey;
use lamplight_media::hls::{Answer, Directives, List, Media, Rendered, RenditionId, Stream};
use serde::Deserialize;
use tokio::time::Instant;

use super::model::Watch;
use super::playback::{self, Viewer};
use super::{admission, outputs, recording, store};
use crate::app::App;
use crate::http::{ApiError, Code, Held, Path, Query};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
pub(super) const NO_STORE: &str = "no-store";
pub(super) const A_SECOND: &str = "public, max-age=1";
const TWO_SECONDS: &str = "public, max-age=2";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const RETRY: Duration = Duration::from_secs(2);
/// What opens a private room.
#[derive(Debug, Deserialize)]
pub(super) struct Key {
    token: Option<String>,
}

/// The multivariant playlist.
pub(super) async fn multivariant(
    State(app): State<App>,
    Path(room): Path<String>,
    Query(key): Query<Key>,
    held: Held,
    headers: HeaderMap,
) -> Response {
    let token = key.token.as_deref();
    let response = multivariant_of(&app, (&room, List::Live), token, held, &headers).await;
    counted(&app, "playlist", response)
}

/// That of the lists that reach farther back.
pub(super) async fn dvr(
    State(app): State<App>,
    Path(room): Path<String>,
    Query(key): Query<Key>,
    held: Held,
    headers: HeaderMap,
) -> Response {
    let token = key.token.as_deref();
    let response = multivariant_of(&app, (&room, List::Dvr), token, held, &headers).await;
    counted(&app, "playlist", response)
}

async fn multivariant_of(
    app: &App,
    (room, list): (&str, List),
    token: Option<&str>,
    held: Held,
    headers: &HeaderMap,
) -> Response {
    let (stream, viewer, watch) = match open(app, room, headers, token).await {
        Ok(opened) => opened,
        Err(refused) => return refused,
    };
    let is_named = app.config().hls.sessions || watch != Watch::Public;
    let session = is_named.then(|| playback::name_session(app, room, viewer.until));
    let cache = if is_named { NO_STORE } else { TWO_SECONDS };
    let answer = held
        .hold(stream.multivariant_of(list, session.as_deref()))
        .await;
    match answer {
        Ok(answer) => {
            if let (Answer::Playlist { .. }, Some(session)) = (&answer, &session) {
                let outcome = ["hls", "accepted"];
                app.media
                    .stats()
                    .add_two("viewer_sessions_total", outcome, 1);
                note_viewer(app, (room, &stream), session, viewer.id.as_deref());
            }
            playlist_response(&answer, headers, cache)
        }
        Err(refused) => cached(refused.into_response(), NO_STORE),
    }
}

/// The package of a room, for a viewer who may watch it while there is room for one more.
async fn open(
    app: &App,
    room: &str,
    headers: &HeaderMap,
    token: Option<&str>,
) -> Result<(Arc<Stream>, Viewer, Watch), Response> {
    let refuse = |error: ApiError| cached(error.into_response(), NO_STORE);
    let watch = playback::watch_of(app, room).await.map_err(refuse)?;
    let Some(watch) = watch else {
        return Err(cached(ApiError::not_found().into_response(), A_SECOND));
    };
    let viewer = playback::admit(app, (room, watch), headers, token).map_err(refuse)?;
    let stream = outputs::newest(app, room).ok_or_else(not_live)?;
    if admission::is_room_full(app, room) || !admission::has_room_for_viewer(app) {
        return Err(busy());
    }
    Ok((stream, viewer, watch))
}

/// Counts a session among the viewers of its broadcast.
fn note_viewer(app: &App, of: (&str, &Stream), session: &str, viewer: Option<&str>) {
    let (room, stream) = of;
    let live = app.media.find(&BroadcastKey::new(room));
    let live = live.filter(|live| live.instance() == stream.instance());
    if let Some(live) = live {
        live.audience().ask(Instant::now(), session, viewer);
    }
}

/// Remembers what a session can be seeing from now on.
fn note_list(app: &App, (room, stream): (&str, &Stream), session: &str) {
    let live = app.media.find(&BroadcastKey::new(room));
    let live = live.filter(|live| live.instance() == stream.instance());
    if let (Some(live), Some(status)) = (live, stream.status()) {
        let listed_us = i64::try_from(status.listed.as_micros()).unwrap_or(i64::MAX);
        let listed = (status.edge.shifted(-listed_us), status.edge);
        live.audience().show(session, listed);
    }
}

/// A media playlist, init section, segment or part.
pub(super) async fn file(
    State(app): State<App>,
    Path((room, rendition, name)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    held: Held,
    headers: HeaderMap,
) -> Response {
    let Some(stream) = outputs::holding(&app, &room, &name) else {
        return counted(&app, class_of(&name), absent(&app, &room).await);
    };
    let Some(rendition) = RenditionId::parse(&rendition) else {
        let response = cached(ApiError::not_found().into_response(), A_SECOND);
        return counted(&app, class_of(&name), response);
    };
    let Some(list) = List::parse(&name) else {
        let response = match held.hold(stream.media(rendition, &name)).await {
            Ok(Media::NotFound) if stream.is_in_store(rendition, &name) => {
                let of = (room.as_str(), stream.instance());
                let media = recording::kept(&app, of, rendition, &name).await;
                media_response(media, rendition, &name, &headers)
            }
            Ok(media) => media_response(media, rendition, &name, &headers),
            Err(refused) => cached(refused.into_response(), NO_STORE),
        };
        return counted(&app, class_of(&name), response);
    };
    let query = query.unwrap_or_default();
    let directives = match Directives::parse(&query) {
        Ok(directives) => directives,
        Err(bad) => return counted(&app, "playlist", cached(malformed(bad.0), A_SECOND)),
    };
    let class = if directives.skip.is_some() {
        "delta"
    } else {
        "playlist"
    };
    let session = playback::session_of(&app, &room, &query);
    let is_private = match playback::watch_of(&app, &room).await {
        Ok(watch) => watch != Some(Watch::Public),
        Err(error) => return counted(&app, class, cached(error.into_response(), NO_STORE)),
    };
    if is_private && session.is_none() {
        let detail = "open the room's index.m3u8 with a playback token first";
        let error = ApiError::new(Code::Unauthenticated, detail);
        return counted(&app, class, cached(error.into_response(), NO_STORE));
    }
    if let Some(session) = session {
        note_viewer(&app, (&room, &stream), session, None);
    }
    let response = match held.hold(stream.list(list, rendition, directives)).await {
        Ok(answer) => {
            if let Some(session) = session {
                note_list(&app, (&room, &stream), session);
            }
            let longest = stream.config().target_duration * 6;
            let long = format!("public, max-age={}", longest.as_secs());
            let cache = match answer {
                _ if is_private => NO_STORE,
                Answer::Playlist { was_held: true, .. } => long.as_str(),
                _ => A_SECOND,
            };
            playlist_response(&answer, &headers, cache)
        }
        Err(refused) => cached(refused.into_response(), NO_STORE),
    };
    counted(&app, class, response)
}

pub(super) fn class_of(name: &str) -> &'static str {
    let kind = name.rsplit_once('-').map_or("", |(_, kind)| kind);
    match kind.chars().next() {
        Some('i') => "init",
        Some('s') => "segment",
        Some('p') => "part",
        _ => "playlist",
    }
}

/// Counts an answer and its bytes.
pub(super) fn counted(app: &App, class: &'static str, response: Response) -> Response {
    let status = match response.status().as_u16() {
        200 => "200",
        206 => "206",
        304 => "304",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        416 => "416",
        422 => "422",
        503 => "503",
        _ => "other",
    };
    let stats = app.media.stats();
    stats.add_two("hls_requests_total", [class, status], 1);
    let bytes = HttpBody::size_hint(response.body()).exact();
    stats.add("egress_bytes_total", "hls", bytes.unwrap_or(0));
    response
}

/// The answer for a room without a package.
async fn absent(app: &App, room: &str) -> Response {
    match store::is_room(&app.db, room).await {
        Ok(true) => not_live(),
        Ok(false) => cached(ApiError::not_found().into_response(), A_SECOND),
        Err(err) => ApiError::internal(&err).into_response(),
    }
}

fn malformed(detail: &str) -> Response {
    ApiError::new(Code::Malformed, detail).into_response()
}

pub(super) fn not_live() -> Response {
    let error = ApiError::new(Code::MediaNotLive, "nobody publishes into this room now");
    cached(error.after(RETRY).into_response(), A_SECOND)
}

fn busy() -> Response {
    cached(ApiError::busy(RETRY).into_response(), NO_STORE)
}

pub(super) fn cached(mut response: Response, cache: &str) -> Response {
    let value = HeaderValue::from_str(cache).expect("cache rules are plain ASCII");
    response.headers_mut().insert(CACHE_CONTROL, value);
    response
}

pub(super) fn playlist_response(answer: &Answer, headers: &HeaderMap, cache: &str) -> Response {
    let body = match answer {
        Answer::Playlist { body, .. } => body,
        Answer::Bad(why) => return cached(malformed(why), A_SECOND),
        Answer::NotFound => return cached(ApiError::not_found().into_response(), A_SECOND),
        Answer::NotLive => return not_live(),
        Answer::Busy => return busy(),
    };
    let (encoding, bytes) = encoded(body, headers);
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PLAYLIST));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if let Some(encoding) = encoding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    cached(response, cache)
}

/// The best form the client takes.
fn encoded(body: &Rendered, headers: &HeaderMap) -> (Option<&'static str>, Bytes) {
    let accepted = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let (mut takes_brotli, mut takes_gzip) = (false, false);
    for coding in accepted {
        let (name, quality) = coding.split_once(";q=").unwrap_or((coding, "1"));
        let is_taken = quality.trim().parse::<f32>().is_ok_and(|q| q > 0.0);
        match name.trim() {
            "br" => takes_brotli = is_taken,
            "gzip" => takes_gzip = is_taken,
            _ => {}
        }
    }
    match (takes_brotli, takes_gzip) {
        (true, _) => (Some("br"), body.brotli()),
        (false, true) => (Some("gzip"), body.gzip.clone()),
        (false, false) => (None, body.plain.clone()),
    }
}

pub(super) fn media_response(
    media: Media,
    rendition: RenditionId,
    name: &str,
    headers: &HeaderMap,
) -> Response {
    let bytes = match media {
        Media::Found(bytes) => bytes,
        Media::NotFound => return cached(ApiError::not_found().into_response(), A_SECOND),
        Media::Busy => return busy(),
    };
    // A name never denotes two contents, so it is its own tag.
    let tag = format!("\"{name}\"");
    let is_known = headers
        .get(IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ranged(bytes, headers)
    };
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(rendition.content_type()),
    );
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    cached(response, IMMUTABLE)
}

/// The bytes, or the single range of them that is asked for (RFC 9110 14).
fn ranged(bytes: Bytes, headers: &HeaderMap) -> Response {
    let asked = headers.get(RANGE).and_then(|range| range.to_str().ok());
    let Some(ranges) = asked.and_then(|range| range.strip_prefix("bytes=")) else {
        return bytes.into_response();
    };
    let length = bytes.len();
    match single_range(ranges, length) {
        Some(range) => {
            let says = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let part = bytes.slice(range);
            (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, says)], part).into_response()
        }
        None => {
            let says = format!("bytes */{length}");
            (StatusCode::RANGE_NOT_SATISFIABLE, [(CONTENT_RANGE, says)]).into_response()
        }
    }
}

/// The one range that is asked for; `None` when it is none of so many bytes.
pub(super) fn single_range(ranges: &str, length: usize) -> Option<Range<usize>> {
    let (from, to) = ranges.split_once('-')?;
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let range = match (from.trim(), to.trim()) {
        ("", to) => length.saturating_sub(number(to)?)..length,
        (from, "") => number(from)?..length,
        (from, to) => number(from)?..number(to)?.saturating_add(1).min(length),
    };
    (range.start < range.end).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_a_bad_one_is_not() {
        let cases = [
            ("0-9", Some(0..10)),
            ("90-", Some(90..100)),
            ("-5", Some(95..100)),
            ("95-200", Some(95..100)),
            ("100-", None),
            ("9-3", None),
            ("-0", None),
            ("0-1,3-4", None),
            ("x-y", None),
            ("18446744073709551616-", None),
        ];
        for (asked, expected) in cases {
            assert_eq!(single_range(asked, 100), expected, "{asked}");
        }
    }
}
