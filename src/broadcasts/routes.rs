//! Media over HTTP: cues, and the paths that media protocols fix.

use std::time::Duration;

use axum::extract::State;
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::StatusCode;
use lamplight_media::cue::{CueError, NAME_BYTES_MAX, PAYLOAD_BYTES_MAX};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::cues::{self, NewCue, PlaceCueError};
use super::{flv, hls, playback, recording, running, signal, store, thumb, whep, whip};
use crate::accounts::{Entry, Principal, Scope, audit};
use crate::app::App;
use crate::http::{ApiError, Bounds, Call, Code, NoBody, Path, Problem, Write};
use crate::ids::RoomId;

/// When a caller beyond the bounds may try again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(put_cue))
        .routes(routes!(end_cue))
        .merge(running::routes())
        .merge(playback::routes())
}

/// The routes of players; they stand outside `/api/v1`.
pub(crate) fn media_routes() -> Router<App> {
    Router::new()
        .route("/flv/{file}", get(flv::play).head(flv::look))
        .route("/hls/{room}/index.m3u8", get(hls::multivariant))
        .route("/hls/{room}/dvr.m3u8", get(hls::dvr))
        .route("/hls/{room}/{rendition}/{file}", get(hls::file))
        .route("/thumb/{file}", get(thumb::thumb))
        .route("/vod/{recording}/index.m3u8", get(recording::multivariant))
        .route("/vod/{recording}/clip.mp4", get(recording::clip))
        .route("/vod/{recording}/{rendition}/{file}", get(recording::file))
        .route(
            "/whep/{room}",
            get(signal::endpoint)
                .post(whep::offer)
                .options(signal::endpoint_options),
        )
        .route(
            "/whep/{room}/{session}",
            delete(whep::leave)
                .patch(whep::patch)
                .options(signal::session_options),
        )
        .route(
            "/whip",
            get(whip::nothing)
                .post(whip::offer)
                .options(signal::endpoint_options),
        )
        .route(
            "/whip/{session}",
            get(whip::nothing)
                .delete(whip::leave)
                .patch(whip::patch)
                .options(signal::publisher_options),
        )
}

/// Whether a late joiner needs a cue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
enum CueKind {
    /// State, open until closed or until its duration is over
    Listed,
    /// News of the moment
    Passing,
}

/// A cue to be put on a room's timeline.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CueBody {
    /// What it is, for the player; 1 to 64 characters of visible ASCII
    class: String,
    kind: CueKind,
    /// At most 1 024 bytes; players get it unchanged
    data: String,
    /// 1 to 64 characters of visible ASCII, unique while the show lasts
    #[serde(default)]
    id: Option<String>,
    /// Microseconds on the room's timeline, at most 60 s ahead; the next frame when missing
    #[serde(default)]
    t_us: Option<i64>,
    /// Microseconds, at most a day; open-ended when missing
    #[serde(default)]
    duration_us: Option<u64>,
}

impl CueBody {
    fn parse(self, call: &Call) -> Result<NewCue, ApiError> {
        if self.data.len() > PAYLOAD_BYTES_MAX {
            let detail = format!("data has at most {PAYLOAD_BYTES_MAX} bytes");
            return Err(ApiError::new(Code::CueTooLarge, detail).at("/data", "length"));
        }
        let mut bounds = Bounds::default();
        bounds.text("/class", &self.class, 1..=NAME_BYTES_MAX);
        if let Some(id) = &self.id {
            bounds.text("/id", id, 1..=NAME_BYTES_MAX);
        }
        bounds.check()?;
        let id = self.id.or_else(|| call.derived_id("cue-"));
        Ok(NewCue {
            id: id.unwrap_or_else(|| format!("cue-{}", Uuid::now_v7().simple())),
            class: self.class,
            is_listed: self.kind == CueKind::Listed,
            t_us: self.t_us,
            duration_us: self.duration_us,
            payload: self.data.into(),
        })
    }
}

/// Where a cue was put.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CueView {
    id: String,
    t_us: i64,
}

/// Where a cue ends.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CueEndView {
    t_us: i64,
}

/// Puts a cue on the timeline of a live room.
#[utoipa::path(post, path = "/media/broadcasts/{room}/cues", tag = "media",
    params(("room" = String, Path)), request_body = CueBody, security(("bearer" = [])),
    responses((status = 201, body = CueView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.put_cue", skip_all, fields(room.id = %room))]
async fn put_cue(
    State(app): State<App>,
    who: Principal,
    Path(room): Path<RoomId>,
    Write { body, call }: Write<CueBody>,
) -> Result<(StatusCode, Json<CueView>), ApiError> {
    who.require(Scope::MediaManage)?;
    let cue = body.parse(&call)?;
    known(&app, room).await?;
    let placed = cues::place_cue(&app, room, cue).await?;
    let diff = json!({ "cue_put": placed.id });
    record(&app, &who, &call, (room, diff)).await?;
    let view = CueView {
        id: placed.id,
        t_us: placed.t_us,
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// Ends an open listed cue.
#[utoipa::path(delete, path = "/media/broadcasts/{room}/cues/{id}", tag = "media",
    params(("room" = String, Path), ("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = CueEndView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "broadcasts.end_cue", skip_all, fields(room.id = %room))]
async fn end_cue(
    State(app): State<App>,
    who: Principal,
    Path((room, id)): Path<(RoomId, String)>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Json<CueEndView>, ApiError> {
    who.require(Scope::MediaManage)?;
    known(&app, room).await?;
    let t_us = cues::close_cue(&app, room, &id)?;
    let diff = json!({ "cue_ended": id });
    record(&app, &who, &call, (room, diff)).await?;
    Ok(Json(CueEndView { t_us }))
}

async fn known(app: &App, room: RoomId) -> Result<(), ApiError> {
    if store::has_access(&app.db, room).await? {
        Ok(())
    } else {
        Err(ApiError::not_found())
    }
}

async fn record(
    app: &App,
    who: &Principal,
    call: &Call,
    (room, diff): (RoomId, serde_json::Value),
) -> Result<(), ApiError> {
    let entry = Entry {
        who,
        call,
        object_id: room.to_string(),
        diff,
    };
    let mut tx = app.db.begin().await?;
    audit(&mut tx, app.clock.now(), entry).await?;
    Ok(tx.commit().await?)
}

impl From<PlaceCueError> for ApiError {
    fn from(err: PlaceCueError) -> Self {
        let refused = match err {
            PlaceCueError::NotLive => {
                return Self::new(Code::NotLive, "nobody publishes into this room now")
                    .after(TRY_AGAIN);
            }
            PlaceCueError::Refused(refused) => refused,
        };
        let code = match refused {
            CueError::TooLarge => Code::CueTooLarge,
            CueError::BadName => Code::OutOfBounds,
            CueError::IdUsed => Code::IdUsed,
            CueError::OutOfRange => Code::AtOutOfRange,
            CueError::TooMany => {
                return Self::new(Code::RateLimited, refused.to_string()).after(TRY_AGAIN);
            }
            CueError::NotFound => return Self::not_found(),
            CueError::Ended => Code::NotLive,
        };
        Self::new(code, refused.to_string())
    }
}
