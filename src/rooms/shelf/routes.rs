//! The shelf over HTTP.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::cards::{By, RoomCards};
use super::super::routes::{etag_of, fresh, if_known};
use super::super::store as rooms;
use super::view::{ShelfEntryView, Shown, without_left};
use super::{Change, NewEntry, ShelfError, Where};
use crate::accounts::{Entry, Principal, audit};
use crate::app::App;
use crate::creators::{self, Bit};
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Code, IfMatch, NoBody, Path, Problem, Write, given,
    tagged,
};
use crate::ids::{EntryId, RoomId};

const VARIANTS_MAX: usize = 100;
const NUMBER: std::ops::RangeInclusive<i64> = 1..=9_999;
const BPS: std::ops::RangeInclusive<i64> = 0..=9_000;
const NOTE: std::ops::RangeInclusive<usize> = 0..=200;

pub(in crate::rooms) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(change, remove))
}

/// A product to be put on a shelf.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct AddEntryBody {
    product_id: String,
    /// Those to sell; all of the product without it
    #[serde(default)]
    variant_ids: Option<Vec<String>>,
    /// What the host calls it: 1 to 9 999, once per room
    #[serde(default)]
    number: Option<i64>,
    /// The entry to stand behind; null for the first place; the last one without it
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    after: Option<Option<String>>,
    commission: CommissionBody,
    /// At most 200 characters, for those who run the room
    #[serde(default)]
    note: Option<String>,
}

/// Shares of what is sold, in basis points.
#[derive(Clone, Copy, Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CommissionBody {
    creator_bps: i64,
    affiliate_bps: i64,
}

impl AddEntryBody {
    fn parse(self) -> Result<NewEntry, ApiError> {
        let mut bounds = Bounds::default();
        check_number(&mut bounds, self.number);
        check_note(&mut bounds, self.note.as_deref());
        let chosen = self.variant_ids.unwrap_or_default();
        if chosen.len() > VARIANTS_MAX {
            bounds.add("/variant_ids", "length");
        }
        let CommissionBody {
            creator_bps,
            affiliate_bps,
        } = self.commission;
        bounds.number("/commission/creator_bps", creator_bps, BPS);
        bounds.number("/commission/affiliate_bps", affiliate_bps, BPS);
        bounds.check()?;
        let product = self.product_id.parse();
        let product = product.map_err(|_form| ShelfError::NoProduct)?;
        let variants: Result<Vec<_>, _> = chosen.iter().map(|id| id.parse()).collect();
        Ok(NewEntry {
            product,
            variants: variants.map_err(|_form| ShelfError::NoVariant)?,
            number: self.number,
            at: place(self.after)?.unwrap_or(Where::Last),
            creator_bps,
            affiliate_bps,
            note: tidied(self.note),
        })
    }
}

/// What is to change of an entry.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeEntryBody {
    /// The entry to stand behind; null for the first place
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    after: Option<Option<String>>,
    /// At most 200 characters; null takes it away
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    note: Option<Option<String>>,
    /// A hidden entry is on no card and is shown only to those who run the room
    #[serde(default)]
    hidden: Option<bool>,
    /// Null takes it away
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    number: Option<Option<i64>>,
}

impl ChangeEntryBody {
    fn parse(self) -> Result<Change, ApiError> {
        let mut bounds = Bounds::default();
        check_number(&mut bounds, self.number.flatten());
        check_note(
            &mut bounds,
            self.note.iter().flatten().next().map(String::as_str),
        );
        bounds.check()?;
        Ok(Change {
            at: place(self.after)?,
            note: self.note.map(tidied),
            is_hidden: self.hidden,
            number: self.number,
        })
    }
}

fn check_number(bounds: &mut Bounds, number: Option<i64>) {
    if let Some(number) = number {
        bounds.number("/number", number, NUMBER);
    }
}

fn check_note(bounds: &mut Bounds, note: Option<&str>) {
    bounds.text("/note", note.unwrap_or_default(), NOTE);
}

fn tidied(note: Option<String>) -> Option<String> {
    note.map(|note| note.trim().to_owned())
        .filter(|note| !note.is_empty())
}

fn place(after: Option<Option<String>>) -> Result<Option<Where>, ApiError> {
    let place = match after {
        None => return Ok(None),
        Some(None) => Where::First,
        Some(Some(id)) => {
            let id = id.parse().map_err(|_form| ShelfError::NoNeighbour)?;
            Where::After(id)
        }
    };
    Ok(Some(place))
}

/// Puts a product on the shelf of a room.
#[utoipa::path(post, path = "/rooms/{id}/shelf", tag = "rooms", operation_id = "add_to_shelf",
    params(("id" = String, Path)), request_body = AddEntryBody, security(("bearer" = [])),
    responses((status = 201, body = ShelfEntryView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "shelf.add", skip_all, fields(room.id = %id))]
async fn add(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    Write { body, call }: Write<AddEntryBody>,
) -> Result<Response, ApiError> {
    let wish = body.parse()?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(answer),
        Begin::Run(run) => run,
    };
    let now = app.clock.now();
    let added = async {
        let room = rooms::lock(&mut run.tx, id).await?;
        let room = room.ok_or_else(ApiError::not_found)?;
        creators::may(&mut run.tx, &who, room.creator, Bit::GoLive).await?;
        let entry = super::add(&mut run.tx, now, &room, wish).await?;
        let diff = json!({ "product_id": entry.product, "number": entry.number });
        let record = Entry {
            who: &who,
            call: &call,
            object_id: entry.id.to_string(),
            diff,
        };
        audit(&mut run.tx, now, record).await?;
        let shown = Shown::read(&mut run.tx, &app, room, std::slice::from_ref(&entry)).await?;
        let is_inside = true;
        Ok::<_, ApiError>((StatusCode::CREATED, shown.entry(&app, &entry, is_inside)))
    };
    let added = added.await;
    let version = added.as_ref().map_or(0, |(_, view)| view.version());
    Ok(tagged(run.finish(added).await?, version))
}

/// The shelf of a room.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct ShelfView {
    /// In the order of the shelf
    data: Vec<ShelfEntryView>,
}

/// Shows the shelf of a room, in its order.
#[utoipa::path(get, path = "/rooms/{id}/shelf", tag = "rooms", operation_id = "show_shelf",
    params(("id" = String, Path)),
    responses((status = 200, body = ShelfView), (status = 304), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "shelf.list", skip_all, fields(room.id = %id))]
async fn list(
    State(app): State<App>,
    who: Option<Principal>,
    Path(id): Path<RoomId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let room = rooms::find(&app.db, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    RoomCards::prepare(&app, id).await?;
    let is_inside = match &who {
        Some(who) => {
            let may = creators::may_see(&app.db, who, room.creator, Bit::GoLive).await;
            may.is_ok()
        }
        None => false,
    };
    let mut reader = app.db.readers().acquire().await?;
    let mut entries = super::list(&mut reader, id).await?;
    entries.retain(|entry| is_inside || !entry.is_hidden);
    let shown = Shown::read(&mut reader, &app, room, &entries).await?;
    let views = entries.iter();
    let views = views.map(|entry| shown.entry(&app, entry, is_inside));
    let data: Vec<ShelfEntryView> = views.collect();
    let mut covered = data.clone();
    without_left(&mut covered);
    let tag = etag_of(&covered)?;
    Ok(if_known(&headers, &tag).unwrap_or_else(|| fresh(&ShelfView { data }, &tag)))
}

/// Changes an entry of a shelf.
#[utoipa::path(patch, path = "/shelf/{id}", tag = "rooms", operation_id = "change_shelf_entry",
    params(("id" = String, Path), ("If-Match" = String, Header)), request_body = ChangeEntryBody,
    security(("bearer" = [])),
    responses((status = 200, body = ShelfEntryView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "shelf.change", skip_all, fields(entry.id = %id))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<EntryId>,
    if_match: IfMatch,
    Write { body, call }: Write<ChangeEntryBody>,
) -> Result<Response, ApiError> {
    let change = body.parse()?;
    let mut tx = app.db.begin().await?;
    let found = super::lock(&mut tx, id).await?;
    let (room, entry) = found.ok_or_else(ApiError::not_found)?;
    creators::may(&mut tx, &who, room.creator, Bit::GoLive).await?;
    if_match.check(entry.version)?;
    let diff = json!({ "hidden": change.is_hidden, "number": change.number });
    let name = who.name();
    let what = (change, By::Person(&name));
    let (entry, written) = super::change(&mut tx, &app, (room.clone(), entry), what).await?;
    let record = Entry {
        who: &who,
        call: &call,
        object_id: id.to_string(),
        diff,
    };
    audit(&mut tx, app.clock.now(), record).await?;
    let shown = Shown::read(&mut tx, &app, room, std::slice::from_ref(&entry)).await?;
    tx.commit().await?;
    if let Some(written) = written {
        written.hand_over(&app);
    }
    let is_inside = true;
    let view = shown.entry(&app, &entry, is_inside);
    Ok(fresh(&view, &wire::etag(entry.version)))
}

/// Takes an entry off a shelf.
#[utoipa::path(delete, path = "/shelf/{id}", tag = "rooms", operation_id = "remove_from_shelf",
    params(("id" = String, Path), ("If-Match" = String, Header)), security(("bearer" = [])),
    responses((status = 204), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "shelf.remove", skip_all, fields(entry.id = %id))]
async fn remove(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<EntryId>,
    if_match: IfMatch,
    Write {
        body: NoBody {},
        call,
    }: Write<NoBody>,
) -> Result<StatusCode, ApiError> {
    let mut tx = app.db.begin().await?;
    let found = super::lock(&mut tx, id).await?;
    let (room, entry) = found.ok_or_else(ApiError::not_found)?;
    creators::may(&mut tx, &who, room.creator, Bit::GoLive).await?;
    if_match.check(entry.version)?;
    let name = who.name();
    let written = super::remove(&mut tx, &app, (room, id), By::Person(&name)).await?;
    let record = Entry {
        who: &who,
        call: &call,
        object_id: id.to_string(),
        diff: json!({ "product_id": entry.product, "removed": true }),
    };
    audit(&mut tx, app.clock.now(), record).await?;
    tx.commit().await?;
    if let Some(written) = written {
        written.hand_over(&app);
    }
    Ok(StatusCode::NO_CONTENT)
}

impl From<ShelfError> for ApiError {
    fn from(err: ShelfError) -> Self {
        let unknown = |field| Self::bounds(Vec::new()).at(field, "unknown");
        let code = match err {
            ShelfError::NoProduct => return unknown("/product_id"),
            ShelfError::NoVariant => return unknown("/variant_ids"),
            ShelfError::NoNeighbour => return unknown("/after"),
            ShelfError::Card(err) => return err.into(),
            ShelfError::Db(err) => return err.into(),
            ShelfError::Full => Code::ShelfFull,
            ShelfError::NumberTaken(_) => Code::NumberTaken,
            ShelfError::NotSellable => Code::NotSellable,
            ShelfError::NotAgreed => Code::CommissionNotAgreed,
            ShelfError::RoomEnded => Code::RoomEnded,
        };
        Self::new(code, err.to_string())
    }
}
