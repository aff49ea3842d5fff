//! Replays over HTTP (media.md 2): playlists from the index, media from the store. Who may watch a
//! room live may watch its recordings.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use lamplight_media::hls::{Answer, Media, Rendered, RenditionId};
use lamplight_media::record::{self, Index, Span};
use lamplight_media::time::MediaTime;
use serde::Deserialize;
use tracing::error;

use super::Recordings;
use super::keeper::{index_key, within};
use super::store::StoreError;
use crate::app::App;
use crate::broadcasts::hls::{
    A_SECOND, NO_STORE, cached, class_of, counted, media_response, playlist_response,
};
use crate::broadcasts::model::Watch;
use crate::broadcasts::playback;
use crate::http::{ApiError, Code, Path, Query};
use crate::ids::RoomId;

pub(super) const A_MINUTE: &str = "public, max-age=60";
/// The last piece of the path of a media playlist.
const PLAYLIST_NAME: &str = "vod.m3u8";
const ROOM_CHARS_MAX: usize = 64;
const INSTANCE_CHARS: usize = 12;

/// What opens a private room, and what a clip takes.
#[derive(Debug, Deserialize)]
pub(in crate::broadcasts) struct Asked {
    token: Option<String>,
    from_us: Option<i64>,
    to_us: Option<i64>,
}

impl Asked {
    pub(super) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    pub(super) fn span(&self) -> Result<Option<Span>, ApiError> {
        if self.from_us.is_none() && self.to_us.is_none() {
            return Ok(None);
        }
        let (from_us, to_us) = (self.from_us.unwrap_or(0), self.to_us.unwrap_or(i64::MAX));
        let span = Span::new(from_us, to_us).ok_or_else(|| {
            let detail = "from_us and to_us are microseconds of the recording's timeline, from 0 \
                          on, from_us before to_us";
            ApiError::new(Code::Malformed, detail)
        });
        span.map(Some)
    }
}

/// A recording by its name.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) room: &'a str,
    pub(super) instance: &'a str,
}

impl<'a> Wanted<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let parts = name.split_once('.').filter(|(room, instance)| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            let is_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let is_room = (1..=ROOM_CHARS_MAX).contains(&room.len());
            is_room
                && room.bytes().all(is_plain)
                && instance.len() == INSTANCE_CHARS
                && instance.bytes().all(is_digit)
        });
        let (room, instance) = parts?;
        Some(Self {
            name,
            room,
            instance,
        })
    }

    /// Its index, once it has its end.
    pub(super) async fn index(&self, app: &App) -> Result<Arc<Index>, Response> {
        let recordings = Recordings::of(app);
        if let Some(known) = recordings.known_index(self.name) {
            return Ok(known);
        }
        let (key, store) = (index_key(self.name), recordings.store(app));
        let bytes = within(&key, store.get(&key, None)).await.map_err(refused)?;
        let index = Arc::new(Index::read(&bytes));
        if !index.is_ended() || !index.has_media() {
            return Err(nothing());
        }
        recordings.remember_index(self.name, &index);
        Ok(index)
    }

    pub(super) async fn watch(&self, app: &App) -> Result<Watch, Response> {
        let watch = playback::watch_of(app, self.room).await;
        let watch = watch.map_err(|error| cached(error.into_response(), NO_STORE))?;
        watch.ok_or_else(nothing)
    }
}

/// The stretches of T of which a recording has media; none if there is no such recording, or it
/// still runs.
pub(crate) async fn stretches(app: &App, room: RoomId, instance: &str) -> Option<Vec<(i64, i64)>> {
    let name = format!("{room}.{instance}");
    let index = Wanted::parse(&name)?.index(app).await.ok()?;
    let stretches = index.stretches().into_iter();
    let micros = |(from, to): (MediaTime, MediaTime)| (from.as_micros(), to.as_micros());
    Some(stretches.map(micros).collect())
}

pub(super) fn bad(error: ApiError) -> Response {
    cached(error.into_response(), A_SECOND)
}

pub(super) fn nothing() -> Response {
    cached(ApiError::not_found().into_response(), A_SECOND)
}

pub(super) fn refused(err: StoreError) -> Response {
    if let StoreError::NotFound(_) = err {
        return nothing();
    }
    error!(
        error = &err as &dyn std::error::Error,
        "reading a recording failed"
    );
    cached(
        ApiError::busy(std::time::Duration::from_secs(2)).into_response(),
        NO_STORE,
    )
}

/// The multivariant playlist of a recording, or of a clip of it.
pub(in crate::broadcasts) async fn multivariant(
    State(app): State<App>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Response {
    let response = multivariant_of(&app, &name, &asked, &headers).await;
    counted(&app, "playlist", response.unwrap_or_else(|refused| refused))
}

async fn multivariant_of(
    app: &App,
    name: &str,
    asked: &Asked,
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let wanted = Wanted::parse(name).ok_or_else(nothing)?;
    let watch = wanted.watch(app).await?;
    let viewer = playback::admit(app, (wanted.room, watch), headers, asked.token());
    let viewer = viewer.map_err(|error| cached(error.into_response(), NO_STORE))?;
    let span = asked.span().map_err(bad)?;
    let index = wanted.index(app).await?;
    let is_private = watch != Watch::Public;
    let mut query = Vec::new();
    if let Some(span) = span {
        query.push(format!("from_us={}", span.from.as_micros()));
        query.push(format!("to_us={}", span.to.as_micros()));
    }
    if is_private {
        let session = playback::name_session(app, wanted.room, viewer.until);
        query.push(format!("s={session}"));
    }
    let query = match query.join("&") {
        none if none.is_empty() => none,
        some => format!("?{some}"),
    };
    let text = index.multivariant(&query).ok_or_else(nothing)?;
    Ok(playlist(text, headers, is_private))
}

fn playlist(text: String, headers: &HeaderMap, is_private: bool) -> Response {
    let answer = Answer::Playlist {
        body: Rendered::new(text),
        was_held: false,
    };
    let cache = if is_private { NO_STORE } else { A_MINUTE };
    playlist_response(&answer, headers, cache)
}

/// A media playlist, init section or segment of a recording.
pub(in crate::broadcasts) async fn file(
    State(app): State<App>,
    Path((name, rendition, file)): Path<(String, String, String)>,
    Query(asked): Query<Asked>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let response = async {
        let wanted = Wanted::parse(&name).ok_or_else(nothing)?;
        let rendition = RenditionId::parse(&rendition).ok_or_else(nothing)?;
        if file != PLAYLIST_NAME {
            return media(&app, &wanted, (rendition, &file), &headers).await;
        }
        let is_private = wanted.watch(&app).await? != Watch::Public;
        let query = query.unwrap_or_default();
        if is_private && playback::session_of(&app, wanted.room, &query).is_none() {
            let detail = "open the recording's index.m3u8 with a playback token first";
            let error = ApiError::new(Code::Unauthenticated, detail);
            return Err(cached(error.into_response(), NO_STORE));
        }
        let (span, index) = (asked.span().map_err(bad)?, wanted.index(&app).await?);
        let text = index.playlist(wanted.instance, rendition, span);
        let text = text.ok_or_else(nothing)?;
        Ok(playlist(text, &headers, is_private))
    };
    let response: Result<Response, Response> = response.await;
    counted(
        &app,
        class_of(&file),
        response.unwrap_or_else(|refused| refused),
    )
}

/// Media names are a capability by their instance, as live ones are.
async fn media(
    app: &App,
    wanted: &Wanted<'_>,
    (rendition, file): (RenditionId, &str),
    headers: &HeaderMap,
) -> Result<Response, Response> {
    let index = wanted.index(app).await?;
    let known = index.bytes_of(rendition, wanted.instance, file);
    known.ok_or_else(nothing)?;
    let key = record::key(wanted.name, rendition, file);
    let store = Recordings::of(app).store(app);
    let bytes = within(&key, store.get(&key, None)).await.map_err(refused)?;
    Ok(media_response(
        Media::Found(bytes),
        rendition,
        file,
        headers,
    ))
}
