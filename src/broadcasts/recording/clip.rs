//! A clip as one file over HTTP (media.md 6.7): read from the store segment by segment, while it is
//! sent.
//!
//! Invariants
//! - A request holds one segment at a time; at most [`CLIPS_MAX`] are sent at once, the next is
//!   told to come again.
//! - The same clip is the same bytes, so that a range of one answer goes on with another's.

use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::unfold;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use lamplight_media::record::{self, Clip, ClipError, ClipPiece, ClipPlan, Need};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{error, warn};

use super::Recordings;
use super::keeper::within;
use super::replay::{A_MINUTE, Asked, Wanted, bad, nothing, refused};
use super::store::{Store, StoreError};
use crate::app::App;
use crate::broadcasts::hls::{NO_STORE, cached, counted, single_range};
use crate::broadcasts::model::Watch;
use crate::broadcasts::playback;
use crate::http::{ApiError, Code, Path, Query};

/// Clips that are sent at once.
const CLIPS_MAX: usize = 64;
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);
/// Of the bytes of the same clip: raised when they are laid out in another way.
const LAYOUT: u32 = 1;
const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year][month][day]-[hour][minute][second]");

/// Room for clips that are being sent.
#[derive(Debug)]
pub(super) struct Clips(Arc<Semaphore>);

impl Default for Clips {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(CLIPS_MAX)))
    }
}

/// A clip of a recording, or all of it, as one file.
pub(in crate::broadcasts) async fn clip(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let response = clip_of(&app, &name, &asked, &headers).await;
    counted(&app, "clip", response.unwrap_or_else(|refused| refused))
}

async fn clip_of(
    app: &App,
    name: &str,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let wanted = Wanted::parse(name).ok_or_else(nothing)?;
    let watch = wanted.watch(app).await?;
    let viewer = playback::admit(app, (wanted.room, watch), headers, asked.token());
    viewer.map_err(|error| cached(error.into_response(), NO_STORE))?;
    let span = asked.span().map_err(bad)?;
    let index = wanted.index(app).await?;
    let plan = index.clip(wanted.instance, span).map_err(unclipped)?;
    let recordings = Recordings::of(app);
    let busy = |_full| cached(ApiError::busy(RETRY).into_response(), NO_STORE);
    let permit = Arc::clone(&recordings.clips.0).try_acquire_owned();
    let mut source = Source {
        app: app.clone(),
        store: recordings.store(app),
        name: wanted.name.to_owned(),
        _permit: permit.map_err(busy)?,
    };
    let clip = source.open(plan).await?;
    let stamp = clip.wall().format(STAMP).unwrap_or_default();
    let file = format!("{}-{stamp}.mp4", wanted.room);
    let response = answer(clip, source, &file, headers);
    let cache = match watch {
        Watch::Public => A_MINUTE,
        Watch::Token | Watch::Closed => NO_STORE,
    };
    Ok(cached(response, cache))
}

fn unclipped(err: ClipError) -> Response {
    let error = match err {
        ClipError::Nothing => return nothing(),
        ClipError::TooLong => {
            let detail = "a clip has 6 hours and 65 535 segments at most: give a to_us that is \
                          nearer to from_us";
            ApiError::new(Code::OutOfBounds, detail)
        }
        ClipError::Changes { .. } => {
            let detail =
                format!("{err}, and one file has one form: let the clip end or begin there");
            ApiError::new(Code::Unservable, detail)
        }
        ClipError::Damaged(_) => ApiError::internal(&err),
    };
    bad(error)
}

/// The file, or the one range of it that is asked for (RFC 9110 13, 14).
fn answer(clip: Clip, source: Source, file: &str, headers: &HeaderMap) -> Response {
    let (length, first) = (clip.bytes(), clip.piece_at(head_bytes(&clip)));
    let first = first.map_or_else(String::new, |piece| piece.need.file);
    let tag = format!("\"{LAYOUT}-{first}-{length}\"");
    let is_tag = |name: HeaderName| {
        headers
            .get(name)
            .map(|known| known.as_bytes() == tag.as_bytes())
    };
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let ranges = text(RANGE).and_then(|range| range.strip_prefix("bytes="));
    let ranges = ranges.filter(|_| is_tag(IF_RANGE).unwrap_or(true));
    let whole = 0..length;
    let mut response = if is_tag(IF_NONE_MATCH) == Some(true) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        match ranges.map(|ranges| range_of(ranges, length)) {
            None => sent(clip, source, whole, StatusCode::OK),
            Some(Some(range)) => {
                let says = format!("bytes {}-{}/{length}", range.start, range.end - 1);
                let mut response = sent(clip, source, range, StatusCode::PARTIAL_CONTENT);
                put(&mut response, CONTENT_RANGE, &says);
                response
            }
            Some(None) => {
                let mut response = StatusCode::RANGE_NOT_SATISFIABLE.into_response();
                put(&mut response, CONTENT_RANGE, &format!("bytes */{length}"));
                response
            }
        }
    };
    put(&mut response, CONTENT_TYPE, "video/mp4");
    put(&mut response, ACCEPT_RANGES, "bytes");
    put(&mut response, ETAG, &tag);
    // Shown where it is opened; kept under a name that says what it is.
    let disposition = format!("inline; filename=\"{file}\"");
    put(&mut response, CONTENT_DISPOSITION, &disposition);
    response
}

fn head_bytes(clip: &Clip) -> u64 {
    u64::try_from(clip.head().len()).unwrap_or(u64::MAX)
}

fn put(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn range_of(ranges: &str, length: u64) -> Option<Range<u64>> {
    let range = single_range(ranges, usize::try_from(length).ok()?)?;
    Some(u64::try_from(range.start).ok()?..u64::try_from(range.end).ok()?)
}

fn sent(clip: Clip, source: Source, range: Range<u64>, status: StatusCode) -> Response {
    let length = (range.end - range.start).to_string();
    let sending = Sending {
        clip,
        source,
        range,
    };
    let slices = unfold(sending, |mut sending| async {
        let slice = sending.next().await?;
        Some((slice, sending))
    });
    let mut response = (status, Body::from_stream(slices)).into_response();
    put(&mut response, CONTENT_LENGTH, &length);
    response
}

/// Where a clip is read from.
struct Source {
    app: App,
    store: Arc<Store>,
    name: String,
    _permit: OwnedSemaphorePermit,
}

impl Source {
    async fn read(&self, need: &Need) -> Result<Bytes, StoreError> {
        let key = record::key(&self.name, need.rendition, &need.file);
        within(&key, self.store.get(&key, None)).await
    }

    /// The clip, once what it begins with is read.
    async fn open(&mut self, plan: ClipPlan) -> Result<Clip, Response> {
        let read = plan.needs().iter().map(|need| self.read(need));
        let read = try_join_all(read).await.map_err(refused)?;
        plan.open(&read).map_err(unclipped)
    }
}

/// What is left of an answer.
struct Sending {
    clip: Clip,
    source: Source,
    range: Range<u64>,
}

impl Sending {
    async fn next(&mut self) -> Option<Result<Bytes, StoreError>> {
        let Range { start, end } = self.range;
        if start >= end {
            return None;
        }
        let (bytes, from) = match self.clip.piece_at(start) {
            None => (self.clip.head().clone(), 0),
            Some(piece) => match self.piece(&piece).await {
                Ok(bytes) => (bytes, piece.from),
                Err(err) => {
                    let error = &err as &dyn std::error::Error;
                    error!(error, recording.id = self.source.name, "a clip is cut off");
                    self.range.start = end;
                    return Some(Err(err));
                }
            },
        };
        let within = |at: u64| usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX);
        let slice = bytes.slice(within(start)..within(end).min(bytes.len()));
        let size = u64::try_from(slice.len()).unwrap_or(u64::MAX);
        self.range.start = start.saturating_add(size);
        let stats = self.source.app.media.stats();
        stats.add("egress_bytes_total", "hls", size);
        Some(Ok(slice))
    }

    async fn piece(&self, piece: &ClipPiece) -> Result<Bytes, StoreError> {
        let read = self.source.read(&piece.need).await?;
        let (bytes, whole) = self.clip.write(piece, read);
        if let Err(err) = whole {
            let error = &err as &dyn std::error::Error;
            let file = piece.need.file.as_str();
            warn!(
                error,
                recording.id = self.source.name,
                file,
                "a gap in a clip"
            );
        }
        Ok(bytes)
    }
}
