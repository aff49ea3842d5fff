//! Rooms over HTTP.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::State as AppState;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, ETAG};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::model::{
    AHEAD_MAX, CARD_LEAD_MS, CARD_LEAD_MS_DEFAULT, Change, INTERRUPT_GRACE_S,
    INTERRUPT_GRACE_S_DEFAULT, NewRoom, Order, PRICE_HONOUR_MS, PRICE_HONOUR_MS_DEFAULT, Room,
    State, TITLE,
};
use super::service::{self, CreateError, KeyError, OrderError};
use super::store::{self, Filter};
use super::{cards, offers, replay, shelf};
use crate::accounts::{Entry, Principal, audit};
use crate::app::{App, hex};
use crate::broadcasts::{self, AddKeyError};
use crate::clock::Timestamp;
use crate::creators::{self, Bit};
use crate::db::Tx;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Call, Code, Cursor, IfMatch, NoBody, Page, Path,
    Problem, Query, Reached, Write, given,
};
use crate::ids::{CreatorId, KeyId, RoomId};

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change))
        .routes(routes!(clock))
        .routes(routes!(start))
        .routes(routes!(end))
        .routes(routes!(cancel))
        .routes(routes!(add_key))
        .routes(routes!(delete_key))
        .merge(shelf::routes())
        .merge(cards::routes())
        .merge(offers::routes())
        .merge(replay::routes())
}

/// A show to be made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    #[schema(value_type = String)]
    creator_id: String,
    /// 1 to 80 characters
    title: String,
    /// RFC 3339, at most 60 days ahead
    #[serde(default)]
    starts_at: Option<String>,
    /// Live as soon as the publisher sends; else a rehearsal first
    #[serde(default)]
    auto_start: bool,
    /// Milliseconds, 100 to 2 000
    #[serde(default)]
    card_lead_ms: Option<i64>,
    /// Milliseconds, 0 to 15 000
    #[serde(default)]
    price_honour_ms: Option<i64>,
    /// Seconds without a publisher until the show ends, 10 to 1 800
    #[serde(default)]
    interrupt_grace_s: Option<i64>,
}

impl CreateBody {
    fn parse(self, now: Timestamp) -> Result<NewRoom, ApiError> {
        let mut bounds = Bounds::default();
        bounds.text("/title", &self.title, TITLE);
        let starts_at = starts_at(&mut bounds, self.starts_at.as_deref(), now)?;
        let card_lead_ms = self.card_lead_ms.unwrap_or(CARD_LEAD_MS_DEFAULT);
        bounds.number("/card_lead_ms", card_lead_ms, CARD_LEAD_MS);
        let price_honour_ms = self.price_honour_ms.unwrap_or(PRICE_HONOUR_MS_DEFAULT);
        bounds.number("/price_honour_ms", price_honour_ms, PRICE_HONOUR_MS);
        let interrupt_grace_s = self.interrupt_grace_s.unwrap_or(INTERRUPT_GRACE_S_DEFAULT);
        bounds.number("/interrupt_grace_s", interrupt_grace_s, INTERRUPT_GRACE_S);
        bounds.check()?;
        // An id of another form is a creator that does not exist.
        let creator = self.creator_id.parse().map_err(|_form| no_creator())?;
        Ok(NewRoom {
            creator,
            title: self.title.trim().into(),
            starts_at,
            auto_start: self.auto_start,
            card_lead_ms,
            price_honour_ms,
            interrupt_grace_s,
        })
    }
}

/// The page a room belongs to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RoomCreatorView {
    #[schema(value_type = String)]
    id: CreatorId,
    name: String,
    handle: String,
}

/// A live show.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct RoomView {
    #[schema(value_type = String)]
    id: RoomId,
    title: String,
    creator: RoomCreatorView,
    state: State,
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    live_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    interrupted_at: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    auto_start: bool,
    card_lead_ms: i64,
    price_honour_ms: i64,
    /// Null: the show never ends by itself.
    interrupt_grace_s: Option<i64>,
    version: i64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<Room> for RoomView {
    fn from(room: Room) -> Self {
        let grace = Some(room.interrupt_grace_s);
        Self {
            id: room.id,
            title: room.title,
            creator: RoomCreatorView {
                id: room.creator,
                name: room.creator_name,
                handle: room.creator_handle,
            },
            state: room.state,
            starts_at: room.starts_at,
            live_at: room.live_at,
            interrupted_at: room.interrupted_at,
            ended_at: room.ended_at,
            auto_start: room.auto_start,
            card_lead_ms: room.card_lead_ms,
            price_honour_ms: room.price_honour_ms,
            interrupt_grace_s: grace.filter(|s| *s != super::model::GRACE_FOR_EVER),
            version: room.version,
            created_at: room.created_at,
            updated_at: room.updated_at,
        }
    }
}

/// Makes a room.
#[utoipa::path(post, path = "/rooms", tag = "rooms", request_body = CreateBody,
    security(("bearer" = [])),
    responses((status = 201, body = RoomView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "rooms.create", skip_all, fields(principal.id = %who.name()))]
async fn create(
    AppState(app): AppState<App>,
    who: Principal,
    Write { body, call }: Write<CreateBody>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let wish = body.parse(now)?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let made = async {
        let diff = json!({ "title": wish.title, "creator_id": wish.creator });
        // Another's creator is as good as none.
        let allowed = creators::may(&mut run.tx, &who, wish.creator, Bit::GoLive).await;
        allowed.map_err(|err| match err.code() {
            Code::NotFound => no_creator(),
            _ => err,
        })?;
        let id = service::create(&mut run.tx, now, wish).await?;
        let entry = Entry {
            who: &who,
            call: &call,
            object_id: id.to_string(),
            diff,
        };
        audit(&mut run.tx, now, entry).await?;
        let room = store::lock(&mut run.tx, id).await?;
        let room = room.ok_or(sqlx::Error::RowNotFound)?;
        Ok::<_, ApiError>((StatusCode::CREATED, RoomView::from(room)))
    };
    let made = made.await;
    run.finish(made).await
}

/// Filters of the list of rooms.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
    creator_id: Option<String>,
    /// States, separated by commas
    #[serde(rename = "status[in]")]
    status_in: Option<String>,
    /// RFC 3339
    #[serde(rename = "created_at[gte]")]
    created_from: Option<String>,
    /// RFC 3339
    #[serde(rename = "created_at[lt]")]
    created_before: Option<String>,
}

impl ListQuery {
    fn filter(&self) -> Result<Filter, ApiError> {
        let malformed =
            |name: &str| ApiError::new(Code::Malformed, format!("{name} cannot be read"));
        let states = self.status_in.iter().flat_map(|list| list.split(','));
        let states: Option<Vec<_>> = states.map(|word| State::parse(word.trim())).collect();
        let states = states.filter(|list| list.len() <= State::ALL.len());
        let time = |name: &str, text: &Option<String>| match text.as_deref().map(Timestamp::parse) {
            Some(None) => Err(malformed(name)),
            Some(at) => Ok(at),
            None => Ok(None),
        };
        let creator = self.creator_id.as_deref().map(str::parse).transpose();
        Ok(Filter {
            creator: creator.map_err(|_form| malformed("creator_id"))?,
            states: states.ok_or_else(|| malformed("status[in]"))?,
            created_from: time("created_at[gte]", &self.created_from)?,
            created_before: time("created_at[lt]", &self.created_before)?,
        })
    }
}

/// Lists rooms, newest first.
#[utoipa::path(get, path = "/rooms", tag = "rooms", params(ListQuery),
    responses((status = 200, body = Page<RoomView>), (status = 400, body = Problem,
        content_type = "application/problem+json")))]
async fn list(
    AppState(app): AppState<App>,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<RoomView>>, ApiError> {
    let filter = query.filter()?;
    let limit = wire::limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("rooms {filter:?}"));
    let seek = cursor.seek::<RoomId>(query.after.as_deref(), query.before.as_deref())?;
    let rooms = store::list(&app.db, &filter, &seek, limit).await?;
    let views: Vec<_> = rooms.into_iter().map(RoomView::from).collect();
    Ok(Json(
        cursor.page(views, limit, &seek, |room| room.id.to_string()),
    ))
}

/// Shows a room.
#[utoipa::path(get, path = "/rooms/{id}", tag = "rooms", operation_id = "show_room",
    params(("id" = String, Path)),
    responses((status = 200, body = RoomView), (status = 304), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    AppState(app): AppState<App>,
    Path(id): Path<RoomId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let room = store::find(&app.db, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    let tag = wire::etag(room.version);
    Ok(if_known(&headers, &tag).unwrap_or_else(|| fresh(&RoomView::from(room), &tag)))
}

/// The tag of what an answer shows.
pub(super) fn etag_of<T: Serialize>(view: &T) -> Result<String, ApiError> {
    let body = serde_json::to_vec(view).map_err(|err| ApiError::internal(&err))?;
    let digest = hex(&Sha256::digest(&body));
    Ok(format!("\"{}\"", digest.split_at(32).0))
}

/// The answer to somebody who has it already.
pub(super) fn if_known(headers: &HeaderMap, tag: &str) -> Option<Response> {
    wire::is_known(headers, tag).then(|| marked(StatusCode::NOT_MODIFIED.into_response(), tag))
}

/// The answer with its tag; whoever keeps it asks again before it shows it.
pub(super) fn fresh<T: Serialize>(view: &T, tag: &str) -> Response {
    marked(Json(view).into_response(), tag)
}

fn marked(mut response: Response, tag: &str) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(ETAG, tag);
    }
    response
}

/// The time of a room.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ClockView {
    state: State,
    /// Microseconds since the beginning of the show, over all its instances
    room_now_us: i64,
    /// When that was read
    #[schema(value_type = String, format = DateTime)]
    wall_at: Timestamp,
    /// The running instance of its media; null without one
    instance: Option<String>,
    /// What to add to the T of the instance
    offset_us: Option<i64>,
}

/// Shows the time of a room.
#[utoipa::path(get, path = "/rooms/{id}/clock", tag = "rooms", operation_id = "show_room_clock",
    params(("id" = String, Path)),
    responses((status = 200, body = ClockView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn clock(AppState(app): AppState<App>, Path(id): Path<RoomId>) -> Result<Response, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let room = store::find_in(&mut reader, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    let clock = cards::now_of(&mut reader, &app, &room).await?;
    let view = ClockView {
        state: room.state,
        room_now_us: clock.now_us,
        wall_at: app.clock.now(),
        offset_us: clock.instance.as_ref().map(|place| place.offset_us),
        instance: clock.instance.map(|place| place.instance),
    };
    let mut response = Json(view).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What is to change of a show.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeRoomBody {
    /// 1 to 80 characters
    #[serde(default)]
    title: Option<String>,
    /// Of an announced show: RFC 3339, at most 60 days ahead; null takes it away
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    starts_at: Option<Option<String>>,
    #[serde(default)]
    auto_start: Option<bool>,
    /// Milliseconds, 100 to 2 000
    #[serde(default)]
    card_lead_ms: Option<i64>,
    /// Milliseconds, 0 to 15 000
    #[serde(default)]
    price_honour_ms: Option<i64>,
    /// Seconds without a publisher until the show ends, 10 to 1 800
    #[serde(default)]
    interrupt_grace_s: Option<i64>,
}

impl ChangeRoomBody {
    fn parse(self, now: Timestamp) -> Result<Change, ApiError> {
        let mut bounds = Bounds::default();
        if let Some(title) = &self.title {
            bounds.text("/title", title, TITLE);
        }
        for (pointer, number, allowed) in [
            ("/card_lead_ms", self.card_lead_ms, CARD_LEAD_MS),
            ("/price_honour_ms", self.price_honour_ms, PRICE_HONOUR_MS),
            (
                "/interrupt_grace_s",
                self.interrupt_grace_s,
                INTERRUPT_GRACE_S,
            ),
        ] {
            if let Some(number) = number {
                bounds.number(pointer, number, allowed);
            }
        }
        let starts_at = match self.starts_at {
            None => None,
            Some(text) => Some(starts_at(&mut bounds, text.as_deref(), now)?),
        };
        bounds.check()?;
        Ok(Change {
            title: self.title.map(|title| title.trim().to_owned()),
            starts_at,
            auto_start: self.auto_start,
            card_lead_ms: self.card_lead_ms,
            price_honour_ms: self.price_honour_ms,
            interrupt_grace_s: self.interrupt_grace_s,
        })
    }
}

/// When a show begins, as it is sent.
fn starts_at(
    bounds: &mut Bounds,
    text: Option<&str>,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApiError> {
    let Some(text) = text else {
        return Ok(None);
    };
    let at = Timestamp::parse(text).ok_or_else(|| {
        let detail = "starts_at must be a time of RFC 3339";
        ApiError::new(Code::Malformed, detail).at("/starts_at", "time")
    })?;
    if at > now.plus(AHEAD_MAX) {
        bounds.add("/starts_at", "range");
    }
    Ok(Some(at))
}

/// Changes a show.
#[utoipa::path(patch, path = "/rooms/{id}", tag = "rooms", operation_id = "change_room",
    params(("id" = String, Path), ("If-Match" = String, Header)), request_body = ChangeRoomBody,
    security(("bearer" = [])),
    responses((status = 200, body = RoomView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "rooms.change", skip_all, fields(room.id = %id))]
async fn change(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    if_match: IfMatch,
    Write { body, call }: Write<ChangeRoomBody>,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let change = body.parse(now)?;
    let mut tx = app.db.begin().await?;
    let room = store::lock(&mut tx, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    creators::may(&mut tx, &who, room.creator, Bit::GoLive).await?;
    if_match.check(room.version)?;
    let room = service::change(&mut tx, now, room, change).await?;
    let entry = Entry {
        who: &who,
        call: &call,
        object_id: id.to_string(),
        diff: json!({ "title": room.title, "starts_at": room.starts_at }),
    };
    audit(&mut tx, now, entry).await?;
    tx.commit().await?;
    let tag = wire::etag(room.version);
    Ok(fresh(&RoomView::from(room), &tag))
}

/// Brings a room from rehearsal on air.
#[utoipa::path(post, path = "/rooms/{id}/start", tag = "rooms", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = RoomView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn start(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    follow(&app, &who, &call, (id, Order::Start)).await
}

/// Ends a show for good and cuts its publisher.
#[utoipa::path(post, path = "/rooms/{id}/end", tag = "rooms", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = RoomView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn end(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    follow(&app, &who, &call, (id, Order::End)).await
}

/// Calls a show off before it was on air.
#[utoipa::path(post, path = "/rooms/{id}/cancel", tag = "rooms", params(("id" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, body = RoomView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
async fn cancel(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    follow(&app, &who, &call, (id, Order::Cancel)).await
}

#[tracing::instrument(name = "rooms.follow", skip_all, fields(room.id = %id, room.order = ?order))]
async fn follow(
    app: &App,
    who: &Principal,
    call: &Call,
    (id, order): (RoomId, Order),
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let mut moved = None;
    let followed = async {
        operate(&mut run.tx, who, id).await?;
        moved = service::follow(&mut run.tx, app, id, order).await?;
        let room = store::lock(&mut run.tx, id).await?;
        let room = room.ok_or(sqlx::Error::RowNotFound)?;
        let entry = Entry {
            who,
            call,
            object_id: id.to_string(),
            diff: json!({ "state": room.state }),
        };
        audit(&mut run.tx, app.clock.now(), entry).await?;
        Ok::<_, ApiError>((StatusCode::OK, RoomView::from(room)))
    };
    let followed = followed.await;
    let answer = run.finish(followed).await?;
    if let Some(moved) = moved {
        moved.tell(app).await?;
    }
    Ok(answer)
}

/// A fresh stream key; the secret is shown this once.
#[derive(Serialize, utoipa::ToSchema)]
struct PublishKeyView {
    #[schema(value_type = String)]
    key_id: KeyId,
    /// What OBS calls the stream key
    key: String,
    /// What OBS calls the server
    rtmp_url: String,
    whip_url: String,
}

/// Adds a stream key to a room; at most two are valid at once.
#[utoipa::path(post, path = "/rooms/{id}/publish_keys", tag = "rooms",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 201, body = PublishKeyView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "rooms.add_key", skip_all, fields(room.id = %id))]
async fn add_key(
    AppState(app): AppState<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    Reached { scheme, host }: Reached,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<Response, ApiError> {
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let added = async {
        operate(&mut run.tx, &who, id).await?;
        let key = service::add_key(&mut run.tx, now, id).await?;
        let entry = Entry {
            who: &who,
            call: &call,
            object_id: id.to_string(),
            diff: json!({ "key_added": key.id }),
        };
        audit(&mut run.tx, now, entry).await?;
        let view = PublishKeyView {
            key_id: key.id,
            key: key.secret,
            rtmp_url: rtmp_url(
                &host,
                app.bound
                    .get()
                    .map_or(app.config().rtmp.listen, |bound| bound.rtmp),
            ),
            whip_url: format!("{scheme}://{host}/whip"),
        };
        Ok::<_, ApiError>((StatusCode::CREATED, view))
    };
    let added = added.await;
    run.finish(added).await
}

/// Deletes a stream key and cuts whoever publishes with it.
#[utoipa::path(delete, path = "/rooms/{id}/publish_keys/{key_id}", tag = "rooms",
    params(("id" = String, Path), ("key_id" = String, Path)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "rooms.delete_key", skip_all, fields(room.id = %id))]
async fn delete_key(
    AppState(app): AppState<App>,
    who: Principal,
    Path((id, key)): Path<(RoomId, KeyId)>,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    operate(&mut tx, &who, id).await?;
    service::revoke_key(&mut tx, now, id, key).await?;
    let entry = Entry {
        who: &who,
        call: &call,
        object_id: id.to_string(),
        diff: json!({ "key_deleted": key }),
    };
    audit(&mut tx, now, entry).await?;
    tx.commit().await?;
    broadcasts::cut(&app, id, key);
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses unless the caller may run the shows of the room's creator. Another's room is as good as
/// none.
async fn operate(tx: &mut Tx, who: &Principal, id: RoomId) -> Result<(), ApiError> {
    let room = store::lock(tx, id).await?.ok_or_else(ApiError::not_found)?;
    creators::may(tx, who, room.creator, Bit::GoLive).await
}

/// The ingest address on the host the client used.
fn rtmp_url(host: &str, listen: SocketAddr) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    format!("rtmp://{name}:{}/live", listen.port())
}

fn no_creator() -> ApiError {
    ApiError::bounds(Vec::new()).at("/creator_id", "unknown")
}

impl From<CreateError> for ApiError {
    fn from(err: CreateError) -> Self {
        match err {
            CreateError::NoCreator(_) => no_creator(),
            CreateError::LimitReached => Self::new(Code::LimitReached, err.to_string()),
            CreateError::Db(err) => err.into(),
        }
    }
}

impl From<OrderError> for ApiError {
    fn from(err: OrderError) -> Self {
        match err {
            OrderError::NotFound => Self::not_found(),
            OrderError::InvalidState(_) => Self::new(Code::InvalidState, err.to_string()),
            OrderError::NoMedia => Self::new(Code::NoMedia, err.to_string()),
            OrderError::Db(err) => err.into(),
        }
    }
}

impl From<KeyError> for ApiError {
    fn from(err: KeyError) -> Self {
        match err {
            KeyError::NotFound => Self::not_found(),
            KeyError::RoomEnded => Self::new(Code::RoomEnded, err.to_string()),
            KeyError::Add(AddKeyError::LimitReached) => {
                Self::new(Code::LimitReached, err.to_string())
            }
            KeyError::Add(AddKeyError::Db(err)) | KeyError::Db(err) => err.into(),
        }
    }
}
