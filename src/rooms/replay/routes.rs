//! Replays of cards over HTTP.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::cards::{SnapshotView, When, events_behind, snapshot};
use super::super::clock;
use super::super::model::Room;
use super::super::{goods, shelf, store as rooms};
use super::{Rebase, explained, webvtt};
use crate::app::App;
use crate::broadcasts;
use crate::http::{ApiError, Bounds, Code, Path, Problem, Query};
use crate::ids::{EntryId, RoomId};

pub(in crate::rooms) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(timeline))
        .routes(routes!(chapters))
}

/// Which part of which recording.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ReplayQuery {
    /// The instance whose recording it is; the first one without it
    instance: Option<String>,
    /// Microseconds of the replay at which it is trimmed
    from_us: Option<i64>,
    to_us: Option<i64>,
}

/// The cards of a replay, on its clock.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ReplayView {
    /// The name of the recording in `/vod/{recording}`
    recording: String,
    /// All of the room, in their order
    recordings: Vec<String>,
    duration_us: i64,
    /// The cards at its first frame
    snapshot: SnapshotView,
    /// What follows, in the order of the replay
    data: Vec<ReplayedView>,
}

/// A card of a replay.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ReplayedView {
    /// Microseconds of the replay from which it is in force
    t_us: i64,
    /// The envelope, to the byte
    #[schema(value_type = Object)]
    event: Box<RawValue>,
}

/// A recording and its clock.
struct Replay {
    room: Room,
    name: String,
    all: Vec<String>,
    clock: Rebase,
}

impl Replay {
    /// Opens a recording of a show that is over.
    async fn open(app: &App, id: RoomId, query: &ReplayQuery) -> Result<Self, ApiError> {
        let (from_us, to_us) = (query.from_us.unwrap_or(0), query.to_us.unwrap_or(i64::MAX));
        let mut bounds = Bounds::default();
        bounds.number("/from_us", from_us, 0..=i64::MAX);
        if to_us <= from_us {
            bounds.add("/to_us", "range");
        }
        bounds.check()?;
        let mut reader = app.db.readers().acquire().await?;
        let room = rooms::find_in(&mut reader, id).await?;
        let room = room.ok_or_else(ApiError::not_found)?;
        let spans = clock::spans(&mut reader, id).await?;
        drop(reader);
        if !room.state.is_over() {
            let detail = "the show is not over; its replay comes after it";
            return Err(ApiError::new(Code::InvalidState, detail));
        }
        let mut found = Vec::new();
        for span in spans {
            let instance = span.place.instance;
            if let Some(stretches) = broadcasts::stretches(app, id, &instance).await {
                found.push((instance, Rebase::new(&stretches, span.place.offset_us)));
            }
        }
        let name = |instance: &str| format!("{id}.{instance}");
        let all = found.iter().map(|(instance, _)| name(instance)).collect();
        let wanted = |(instance, _): &(String, Rebase)| {
            query.instance.as_ref().is_none_or(|it| it == instance)
        };
        let (instance, clock) = found.into_iter().find(wanted).ok_or_else(|| {
            let detail = "there is no recording of this show, or it is not finished";
            ApiError::new(Code::InvalidState, detail)
        })?;
        Ok(Self {
            room,
            name: name(&instance),
            all,
            clock: clock.trimmed(from_us, to_us),
        })
    }
}

/// Lists the cards of a show on the clock of its replay.
#[utoipa::path(get, path = "/rooms/{id}/replay/timeline", tag = "rooms",
    operation_id = "show_replay_timeline", params(("id" = String, Path), ReplayQuery),
    responses((status = 200, body = ReplayView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "replay.timeline", skip_all, fields(room.id = %id))]
async fn timeline(
    State(app): State<App>,
    Path(id): Path<RoomId>,
    Query(query): Query<ReplayQuery>,
) -> Result<Json<ReplayView>, ApiError> {
    let replay = Replay::open(&app, id, &query).await?;
    let clock = &replay.clock;
    let begins_us = clock.begins_us().unwrap_or(0);
    let is_inside = false;
    let snapshot = snapshot(&app, replay.room, When::Recorded(begins_us), is_inside).await?;
    let events = events_behind(&app, id, begins_us).await?;
    let mut data = Vec::new();
    for event in events {
        let Some(t_us) = clock.of(event.at_us) else {
            continue;
        };
        let envelope = RawValue::from_string(event.envelope.to_string());
        let event = envelope.map_err(|err| ApiError::internal(&err))?;
        data.push(ReplayedView { t_us, event });
    }
    Ok(Json(ReplayView {
        recording: replay.name,
        recordings: replay.all,
        duration_us: clock.duration_us(),
        snapshot,
        data,
    }))
}

/// Lists what was explained when, as chapters of a replay.
#[utoipa::path(get, path = "/rooms/{id}/replay/chapters.vtt", tag = "rooms",
    operation_id = "show_replay_chapters", params(("id" = String, Path), ReplayQuery),
    responses((status = 200, body = String, content_type = "text/vtt"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "replay.chapters", skip_all, fields(room.id = %id))]
async fn chapters(
    State(app): State<App>,
    Path(id): Path<RoomId>,
    Query(query): Query<ReplayQuery>,
) -> Result<Response, ApiError> {
    let replay = Replay::open(&app, id, &query).await?;
    let clock = &replay.clock;
    let (Some(begins_us), Some((_, ends_us))) = (clock.begins_us(), clock.stretches.last()) else {
        return Ok(answer(&webvtt(&[])));
    };
    let from_the_start = i64::MIN;
    let events = events_behind(&app, id, from_the_start).await?;
    let found = explained(events.iter().map(AsRef::as_ref), *ends_us);
    let titles = titles(&app, found.iter().map(|it| it.entry)).await?;
    let shown = found.iter().filter_map(|it| {
        let from_us = clock.of(it.from_us.max(begins_us))?;
        let to_us = if it.to_us < *ends_us {
            clock.of(it.to_us)?
        } else {
            clock.duration_us()
        };
        // What lies in a gap as a whole lasts no time at all.
        (from_us < to_us).then(|| (from_us, to_us, titles[&it.entry].clone()))
    });
    let shown: Vec<_> = shown.collect();
    Ok(answer(&webvtt(&shown)))
}

fn answer(text: &str) -> Response {
    let mut response = text.to_owned().into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/vtt"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// What the entries sell, by name. Of one that was taken away nothing is known any more.
async fn titles(
    app: &App,
    entries: impl Iterator<Item = EntryId>,
) -> Result<HashMap<EntryId, String>, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let mut titles = HashMap::new();
    for id in entries {
        if titles.contains_key(&id) {
            continue;
        }
        let entry = shelf::find(&mut reader, id).await?;
        let title = match entry {
            Some(entry) => {
                let products = goods::products(&mut reader, [entry.product]).await?;
                let product = products.get(&entry.product);
                product.map_or_else(String::new, |product| product.title.clone())
            }
            None => String::new(),
        };
        let title = if title.is_empty() {
            "…".into()
        } else {
            title
        };
        titles.insert(id, title);
    }
    Ok(titles)
}
