//! LL-HLS over HTTP (media.md 6.5): requests to answers of the media core, answers to headers.
//!
//! Not here: what a playlist says; whether a part is there.

use std::ops::Range;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_RANGE, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, RANGE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use lamplight_media::hls::{Answer, Directives, Media, Rendered, RenditionId};

use super::{outputs, store};
use crate::app::{App, new_secret};
use crate::http::{ApiError, Code, Held, Path};

const PLAYLIST: &str = "application/vnd.apple.mpegurl";
const NO_STORE: &str = "no-store";
const A_SECOND: &str = "public, max-age=1";
const TWO_SECONDS: &str = "public, max-age=2";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const RETRY: Duration = Duration::from_secs(2);
/// Characters of a session id: 96 random bits.
const SESSION_CHARS: usize = 16;

/// The multivariant playlist.
pub(super) async fn multivariant(
    State(app): State<App>,
    Path(room): Path<String>,
    held: Held,
    headers: HeaderMap,
) -> Response {
    let Some(stream) = outputs::newest(&app, &room) else {
        return absent(&app, &room).await;
    };
    let session = app.config.hls.sessions.then(|| {
        let mut session = new_secret("");
        session.truncate(SESSION_CHARS);
        session
    });
    let cache = if session.is_some() {
        NO_STORE
    } else {
        TWO_SECONDS
    };
    match held.hold(stream.multivariant(session.as_deref())).await {
        Ok(answer) => playlist_response(&answer, &headers, cache),
        Err(refused) => cached(refused.into_response(), NO_STORE),
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
        return absent(&app, &room).await;
    };
    let Some(rendition) = RenditionId::parse(&rendition) else {
        return cached(ApiError::not_found().into_response(), A_SECOND);
    };
    if name != "live.m3u8" {
        return match held.hold(stream.media(rendition, &name)).await {
            Ok(media) => media_response(media, rendition, &name, &headers),
            Err(refused) => cached(refused.into_response(), NO_STORE),
        };
    }
    match Directives::parse(query.as_deref().unwrap_or_default()) {
        Err(bad) => cached(malformed(bad.0), A_SECOND),
        Ok(directives) => {
            let longest = stream.config().target_duration * 6;
            let answer = match held.hold(stream.playlist(rendition, directives)).await {
                Ok(answer) => answer,
                Err(refused) => return cached(refused.into_response(), NO_STORE),
            };
            let long = format!("public, max-age={}", longest.as_secs());
            let was_held = matches!(answer, Answer::Playlist { was_held: true, .. });
            playlist_response(&answer, &headers, if was_held { &long } else { A_SECOND })
        }
    }
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

fn not_live() -> Response {
    let error = ApiError::new(Code::MediaNotLive, "nobody publishes into this room now");
    cached(error.after(RETRY).into_response(), A_SECOND)
}

fn busy() -> Response {
    cached(ApiError::busy(RETRY).into_response(), NO_STORE)
}

fn cached(mut response: Response, cache: &str) -> Response {
    let value = HeaderValue::from_str(cache).expect("cache rules are plain ASCII");
    response.headers_mut().insert(CACHE_CONTROL, value);
    response
}

fn playlist_response(answer: &Answer, headers: &HeaderMap, cache: &str) -> Response {
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

fn media_response(
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

fn single_range(ranges: &str, length: usize) -> Option<Range<usize>> {
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
