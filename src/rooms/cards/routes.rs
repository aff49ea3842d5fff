//! Cards over HTTP.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::envelope::{Action, EnvelopeError};
use super::super::model::Room;
use super::super::routes::{etag_of, fresh, if_known};
use super::super::store as rooms;
use super::command::{AMOUNT, Command, CommandError, What, compact};
use super::desk::{By, CardError, Desk, PlacedCard, Written};
use super::snapshot::{SnapshotError, SnapshotView, When, snapshot};
use super::store;
use crate::accounts::{Entry, Principal, Scope, audit};
use crate::app::App;
use crate::catalog;
use crate::clock::Timestamp;
use crate::creators::{self, Bit};
use crate::db::Tx;
use crate::http::{
    self as wire, ApiError, Begin, Bounds, Call, Code, Path, Problem, Query, Rate, Write,
};
use crate::ids::{CouponId, RoomId, VariantId};
use crate::money::Currency;

const TTL_MS: std::ops::RangeInclusive<i64> = 0..=3_600_000;
const EVENTS: std::ops::RangeInclusive<i64> = 1..=500;
/// Cards of one caller.
const BY_CALLER: Rate = Rate::new("cards", 20, Duration::from_secs(1));
const AGAIN: Duration = Duration::from_millis(500);

pub(in crate::rooms) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, put))
        .routes(routes!(events))
}

/// What is to happen to the cards of a room.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct CardBody {
    action: Action,
    /// Of `pin` and `explain_start`; with `price` the entry that sells the variant
    #[serde(default)]
    entry_id: Option<String>,
    /// Of `coupon_pin`
    #[serde(default)]
    coupon_id: Option<String>,
    /// Room time, at most 60 s ahead; as soon as the room's lead allows without it
    #[serde(default)]
    at_us: Option<i64>,
    /// 0 to 3 600 000; 0: until something else is said
    #[serde(default)]
    ttl_ms: Option<i64>,
    /// Of `price`: `variant`, `amount` (null takes it back), `currency`; of `custom`: any object
    /// of at most 640 bytes
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
}

/// The data of `price`, as it is sent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceBody {
    variant: VariantId,
    amount: Option<i64>,
    #[serde(default)]
    currency: Option<Currency>,
}

impl CardBody {
    fn parse(self) -> Result<Command, ApiError> {
        let mut bounds = Bounds::default();
        let ttl_ms = self.ttl_ms.unwrap_or(0);
        bounds.number("/ttl_ms", ttl_ms, TTL_MS);
        let needs_entry = matches!(self.action, Action::Pin | Action::ExplainStart);
        if needs_entry && self.entry_id.is_none() {
            bounds.add("/entry_id", "missing");
        }
        bounds.check()?;
        let entry = self.entry_id.as_deref().map(str::parse).transpose();
        let entry = entry.map_err(|_form| CommandError::NoEntry)?;
        let has_data = self
            .data
            .as_deref()
            .is_some_and(|data| compact(data) != "{}");
        let what = match self.action {
            Action::Price => price(self.data.as_deref())?,
            Action::Custom => What::Custom(custom(self.data.as_deref())?),
            _ if has_data => {
                return Err(ApiError::bounds(Vec::new()).at("/data", "unknown"));
            }
            Action::Pin
            | Action::Unpin
            | Action::ExplainStart
            | Action::ExplainEnd
            | Action::CouponUnpin => What::Entry,
            Action::CouponPin => return Err(no_coupon(self.coupon_id.as_deref())),
            // Deals and stock speak for themselves.
            Action::DealAnnounce
            | Action::DealOpen
            | Action::DealClose
            | Action::SoldOut
            | Action::Restock => {
                return Err(ApiError::bounds(Vec::new()).at("/action", "not_by_hand"));
            }
        };
        Ok(Command {
            action: self.action,
            // These clear a place of the state, whoever holds it.
            entry: entry.filter(|_| needs_entry || !matches!(what, What::Entry)),
            at_us: self.at_us,
            ttl_us: ttl_ms * 1_000,
            what,
        })
    }
}

fn price(data: Option<&RawValue>) -> Result<What, ApiError> {
    let text = data.map_or("{}", RawValue::get);
    let body: PriceBody = serde_json::from_str(text).map_err(|err| {
        ApiError::new(Code::Malformed, format!("data of a price: {err}")).at("/data", "shape")
    })?;
    if body.amount.is_some_and(|amount| !AMOUNT.contains(&amount)) {
        let detail = "a price has 1 to 10^10 minor units";
        return Err(ApiError::new(Code::AmountOutOfRange, detail).at("/data/amount", "range"));
    }
    Ok(What::Price {
        variant: body.variant,
        amount: body.amount,
        currency: body.currency,
    })
}

fn custom(data: Option<&RawValue>) -> Result<Box<RawValue>, ApiError> {
    let text = data.map_or_else(|| "{}".into(), compact);
    let not_an_object = || {
        let detail = "data is an object";
        ApiError::new(Code::Malformed, detail).at("/data", "shape")
    };
    if !text.starts_with('{') {
        return Err(not_an_object());
    }
    RawValue::from_string(text).map_err(|_shape| not_an_object())
}

/// Coupons have no tables yet, so that none can be shown.
fn no_coupon(id: Option<&str>) -> ApiError {
    match id.map(str::parse::<CouponId>) {
        None => ApiError::bounds(Vec::new()).at("/coupon_id", "missing"),
        Some(_) => ApiError::new(Code::CouponNotActive, "there is no such active coupon"),
    }
}

/// Where a card stands.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct PlacedCardView {
    seq: i64,
    /// The room time from which it is in force
    at_us: i64,
    #[schema(value_type = String, format = DateTime)]
    issued_at: Timestamp,
}

impl From<PlacedCard> for PlacedCardView {
    fn from(placed: PlacedCard) -> Self {
        Self {
            seq: placed.seq,
            at_us: placed.at_us,
            issued_at: placed.issued_at,
        }
    }
}

/// Puts a card on the timeline of a room.
#[utoipa::path(post, path = "/rooms/{id}/cards", tag = "rooms", operation_id = "put_card",
    params(("id" = String, Path)), request_body = CardBody, security(("bearer" = [])),
    responses((status = 201, body = PlacedCardView),
        (status = 200, body = PlacedCardView, description = "It repeats the present state"),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "cards.put", skip_all, fields(room.id = %id))]
async fn put(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<RoomId>,
    Write { body, call }: Write<CardBody>,
) -> Result<Response, ApiError> {
    let command = body.parse()?;
    let taken = BY_CALLER.take(&app, &who.name())?;
    let mut run = match wire::begin(&app, &who.name(), call.clone()).await? {
        Begin::Replay(answer) => return Ok(taken.show(answer)),
        Begin::Run(run) => run,
    };
    let mut written = None;
    let put = async {
        let room = rooms::lock(&mut run.tx, id).await?;
        let room = room.ok_or_else(ApiError::not_found)?;
        let caller = Caller {
            who: &who,
            call: &call,
        };
        let (placed, put) = caller.put(&mut run.tx, &app, (room, command)).await?;
        written = Some(put);
        let status = if placed.is_repeat {
            StatusCode::OK
        } else {
            StatusCode::CREATED
        };
        Ok::<_, ApiError>((status, PlacedCardView::from(placed)))
    };
    let put = put.await;
    let answer = run.finish(put).await?;
    if let Some(written) = written {
        written.hand_over(&app);
    }
    Ok(taken.show(answer))
}

/// Who puts a card, by which call.
#[derive(Clone, Copy, Debug)]
struct Caller<'a> {
    who: &'a Principal,
    call: &'a Call,
}

impl Caller<'_> {
    async fn put(
        self,
        tx: &mut Tx,
        app: &App,
        (room, command): (Room, Command),
    ) -> Result<(PlacedCard, Written), ApiError> {
        let (id, creator) = (room.id, room.creator);
        let is_price = matches!(command.what, What::Price { .. });
        if !is_price {
            creators::may(tx, self.who, creator, Bit::ManageCards).await?;
        }
        let action = command.action;
        let (card, merchant) = command.card(tx, &room).await?;
        if let Some(merchant) = merchant {
            catalog::may(tx, self.who, merchant, Scope::PricesWrite).await?;
        }
        let mut desk = Desk::of(tx, app, room).await?;
        let name = self.who.name();
        let placed = desk.put(tx, app, By::Person(&name), card).await?;
        let written = desk.finish(tx).await?;
        let entry = Entry {
            who: self.who,
            call: self.call,
            object_id: id.to_string(),
            diff: json!({ "card": placed.seq, "action": action, "at_us": placed.at_us }),
        };
        if !placed.is_repeat {
            audit(tx, app.clock.now(), entry).await?;
        }
        Ok((placed, written))
    }
}

/// A time of a room.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct SnapshotQuery {
    /// Room time; now without it
    at_us: Option<i64>,
}

/// Shows the cards of a room at a time.
#[utoipa::path(get, path = "/rooms/{id}/cards", tag = "rooms", operation_id = "show_cards",
    params(("id" = String, Path), SnapshotQuery),
    responses((status = 200, body = SnapshotView), (status = 304),
        (status = "4XX", body = Problem, content_type = "application/problem+json")))]
#[tracing::instrument(name = "cards.show", skip_all, fields(room.id = %id))]
async fn show(
    State(app): State<App>,
    who: Option<Principal>,
    Path(id): Path<RoomId>,
    Query(query): Query<SnapshotQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let room = rooms::find(&app.db, id).await?;
    let room = room.ok_or_else(ApiError::not_found)?;
    let is_inside = runs_cards(&app, who.as_ref(), &room).await;
    let when = query.at_us.map_or(When::Now, When::At);
    let view = snapshot(&app, room, when, is_inside).await?;
    let tag = etag_of(&view.covered())?;
    Ok(if_known(&headers, &tag).unwrap_or_else(|| fresh(&view, &tag)))
}

/// Whether the caller runs the cards of a room, and so sees what is rehearsed.
pub(in crate::rooms) async fn runs_cards(app: &App, who: Option<&Principal>, room: &Room) -> bool {
    match who {
        Some(who) => {
            let may = creators::may_see(&app.db, who, room.creator, Bit::ManageCards).await;
            may.is_ok()
        }
        None => false,
    }
}

/// Which events.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Those behind this number; all from the first one on without it
    after_seq: Option<i64>,
    /// 1 to 500, default 500
    limit: Option<i64>,
}

/// Card events, in the order of their numbers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CardEventsView {
    /// The envelopes, to the byte
    #[schema(value_type = Vec<Object>)]
    data: Vec<Box<RawValue>>,
    page: CardEventsPage,
}

/// Whether there are more.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CardEventsPage {
    /// For `after_seq=`
    next: Option<i64>,
    has_more: bool,
}

/// Lists the card events of a room.
#[utoipa::path(get, path = "/rooms/{id}/cards/events", tag = "rooms",
    operation_id = "list_card_events", params(("id" = String, Path), EventsQuery),
    responses((status = 200, body = CardEventsView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "cards.events", skip_all, fields(room.id = %id))]
async fn events(
    State(app): State<App>,
    Path(id): Path<RoomId>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<CardEventsView>, ApiError> {
    let limit = query.limit.unwrap_or(*EVENTS.end());
    let mut bounds = Bounds::default();
    bounds.number("/limit", limit, EVENTS);
    bounds.check()?;
    let mut reader = app.db.readers().acquire().await?;
    let room = rooms::find_in(&mut reader, id).await?;
    room.ok_or_else(ApiError::not_found)?;
    let after = query.after_seq.unwrap_or(0);
    let mut found = store::envelopes_after(&mut reader, id, after, limit + 1).await?;
    let size = usize::try_from(limit).unwrap_or(0);
    let has_more = found.len() > size;
    found.truncate(size);
    let next = found.last().map(|(seq, _)| *seq).filter(|_| has_more);
    let data = found.into_iter();
    let data = data.map(|(_, envelope)| RawValue::from_string(envelope));
    let data: Result<Vec<_>, _> = data.collect();
    Ok(Json(CardEventsView {
        data: data.map_err(|err| ApiError::internal(&err))?,
        page: CardEventsPage { next, has_more },
    }))
}

impl From<CardError> for ApiError {
    fn from(err: CardError) -> Self {
        let code = match err {
            CardError::Db(err) => return err.into(),
            CardError::NoRoom => return Self::not_found(),
            CardError::NotLive(_) => Code::RoomNotLive,
            CardError::Ended => Code::RoomEnded,
            CardError::OutOfRange => Code::AtOutOfRange,
            CardError::LimitReached => Code::LimitReached,
            CardError::TooMany => {
                return Self::new(Code::RateLimited, err.to_string()).after(AGAIN);
            }
            CardError::Envelope(EnvelopeError::TooLarge) => Code::CardTooLarge,
            CardError::Envelope(EnvelopeError::Unreadable) => return Self::internal(&err),
        };
        Self::new(code, err.to_string())
    }
}

impl From<CommandError> for ApiError {
    fn from(err: CommandError) -> Self {
        let at = match err {
            CommandError::NoEntry => "/entry_id",
            CommandError::NoVariant => "/data/variant",
            CommandError::OtherCurrency => "/data/currency",
            CommandError::Db(err) => return err.into(),
        };
        Self::bounds(Vec::new()).at(at, "unknown")
    }
}

impl From<SnapshotError> for ApiError {
    fn from(err: SnapshotError) -> Self {
        match err {
            SnapshotError::OutOfRange => Self::new(Code::AtOutOfRange, err.to_string()),
            SnapshotError::Db(err) => err.into(),
        }
    }
}
