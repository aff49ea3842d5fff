//! Stock over HTTP (commerce.md 5.3); what changes it goes through the sequencer.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::ETAG;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::sequencer::{
    COUNTER_MAX, Command, Effect, Movement, Reason, Refused, Ride, Seat, Settings, Stock, Verdict,
    What, read_stock, submit,
};
use crate::accounts::{Entry, Principal, Scope, audit};
use crate::app::App;
use crate::clock::Timestamp;
use crate::db::{Tx, parsed};
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::{
    self as wire, ApiError, Bounds, Code, Cursor, IfMatch, Kept, Page, Path, Problem, Query, Seek,
    Stored, Write,
};
use crate::ids::{MerchantId, MovementId, VariantId};

const NOTE_CHARS_MAX: usize = 200;
const LIMIT: std::ops::RangeInclusive<i64> = 1..=999;

pub(crate) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(one, set, change))
        .routes(routes!(adjust))
        .routes(routes!(movements))
}

/// The counters of a variant.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct StockView {
    #[schema(value_type = String)]
    variant_id: VariantId,
    on_hand: i64,
    /// Held by unpaid orders
    reserved: i64,
    /// Paid, not sent
    committed: i64,
    /// Set aside for deals
    ring_fenced: i64,
    /// Never sold
    safety: i64,
    /// Announced by suppliers, not here
    incoming: i64,
    /// What can be sold: `on_hand` less all that is held, at least 0
    available: i64,
    /// Units a buyer may have
    per_buyer_limit: Option<i64>,
    version: i64,
}

impl StockView {
    fn of(variant_id: VariantId, stock: &Stock) -> Self {
        Self {
            variant_id,
            on_hand: stock.on_hand,
            reserved: stock.reserved,
            committed: stock.committed,
            ring_fenced: stock.ring_fenced,
            safety: stock.safety,
            incoming: stock.incoming,
            available: stock.available(),
            per_buyer_limit: stock.per_buyer_limit,
            version: stock.version,
        }
    }
}

/// A change of counters.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct MovementView {
    #[schema(value_type = String)]
    id: MovementId,
    #[schema(value_type = String)]
    variant_id: VariantId,
    /// 1, 2, 3 … per variant
    seq: i64,
    kind: String,
    on_hand: i64,
    reserved: i64,
    committed: i64,
    ring_fenced: i64,
    reason: String,
    note: Option<String>,
    order_id: Option<String>,
    actor: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<&Movement> for MovementView {
    fn from(it: &Movement) -> Self {
        Self {
            id: it.id,
            variant_id: it.variant,
            seq: it.seq,
            kind: it.kind.as_str().into(),
            on_hand: it.by.on_hand,
            reserved: it.by.reserved,
            committed: it.by.committed,
            ring_fenced: it.by.ring_fenced,
            reason: it.reason.into(),
            note: it.note.clone(),
            order_id: it.order.map(|order| order.to_string()),
            actor: it.actor.clone(),
            created_at: it.created_at,
        }
    }
}

/// Stock that came or went.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct AdjustBody {
    /// Not 0
    delta: i64,
    reason: Reason,
    /// At most 200 characters
    #[serde(default)]
    note: Option<String>,
}

/// Stock as it was counted.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct SetBody {
    on_hand: i64,
    /// What it was before: another number is refused
    change_from: i64,
    reason: Reason,
}

/// What is not a counter; what is absent stays.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    #[serde(default)]
    safety: Option<i64>,
    #[serde(default)]
    incoming: Option<i64>,
    /// 1 to 999; null removes it
    #[serde(default, with = "maybe")]
    #[schema(value_type = Option<i64>)]
    per_buyer_limit: Option<Option<i64>>,
}

/// Tells `null` from absent.
mod maybe {
    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Option<i64>>, D::Error> {
        Option::<i64>::deserialize(from).map(Some)
    }
}

/// Shows the counters of a variant.
#[utoipa::path(get, path = "/variants/{id}/stock", tag = "stock",
    params(("id" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = StockView), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn one(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
) -> Result<Response, ApiError> {
    owner(&app, &who, id, Scope::InventoryRead).await?;
    let sql = "SELECT on_hand, reserved, committed, ring_fenced, safety, incoming, \
               per_buyer_limit, movement_seq, version FROM stock WHERE variant_id = $1";
    let query = sqlx::query(sql).bind(id.to_string());
    let row = query.fetch_optional(app.db.readers()).await?;
    let row = row.ok_or_else(ApiError::not_found)?;
    let stock = read_stock(&row, 0)?;
    let response = Json(StockView::of(id, &stock)).into_response();
    Ok(wire::tagged(response, stock.version))
}

/// Books stock that came or went.
#[utoipa::path(post, path = "/variants/{id}/stock/adjustments", tag = "stock",
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    request_body = AdjustBody, security(("bearer" = [])),
    responses((status = 201, body = MovementView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "stock.adjust", skip_all, fields(variant.id = %id))]
async fn adjust(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    Write { body, call }: Write<AdjustBody>,
) -> Result<Response, ApiError> {
    let merchant = owner(&app, &who, id, Scope::InventoryAdjust).await?;
    call.require_key()?;
    let mut bounds = Bounds::default();
    bounds.number("/delta", body.delta, -COUNTER_MAX..=COUNTER_MAX);
    if body.delta == 0 {
        bounds.add("/delta", "zero");
    }
    if let Some(note) = &body.note {
        bounds.text("/note", note, 0..=NOTE_CHARS_MAX);
    }
    bounds.check()?;
    let what = What::Adjust {
        variant: id,
        delta: body.delta,
        reason: body.reason,
        note: body.note,
    };
    let diff = json!({ "delta": body.delta, "reason": body.reason.as_str() });
    let ride = StockRide::new(&app, (who, call), (id, merchant), (Shown::Movement, diff)).await?;
    ride.send(&app, what).await
}

/// Sets what was counted, if it was still what the caller thinks.
#[utoipa::path(put, path = "/variants/{id}/stock", tag = "stock",
    params(("id" = String, Path), ("Idempotency-Key" = String, Header)),
    request_body = SetBody, security(("bearer" = [])),
    responses((status = 200, body = StockView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "stock.set", skip_all, fields(variant.id = %id))]
async fn set(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    Write { body, call }: Write<SetBody>,
) -> Result<Response, ApiError> {
    let merchant = owner(&app, &who, id, Scope::InventoryAdjust).await?;
    call.require_key()?;
    let mut bounds = Bounds::default();
    bounds.number("/on_hand", body.on_hand, 0..=COUNTER_MAX);
    bounds.number("/change_from", body.change_from, 0..=COUNTER_MAX);
    bounds.check()?;
    let what = What::Set {
        variant: id,
        on_hand: body.on_hand,
        change_from: body.change_from,
        reason: body.reason,
    };
    let diff = json!({ "on_hand": [body.change_from, body.on_hand] });
    let ride = StockRide::new(&app, (who, call), (id, merchant), (Shown::Stock, diff)).await?;
    ride.send(&app, what).await
}

/// Changes what is not a counter.
#[utoipa::path(patch, path = "/variants/{id}/stock", tag = "stock",
    params(("id" = String, Path), ("If-Match" = String, Header)),
    request_body = ChangeBody, security(("bearer" = [])),
    responses((status = 200, body = StockView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "stock.change", skip_all, fields(variant.id = %id))]
async fn change(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    if_match: IfMatch,
    Write { body, call }: Write<ChangeBody>,
) -> Result<Response, ApiError> {
    let merchant = owner(&app, &who, id, Scope::InventoryAdjust).await?;
    let mut bounds = Bounds::default();
    bounds.number("/safety", body.safety.unwrap_or(0), 0..=COUNTER_MAX);
    bounds.number("/incoming", body.incoming.unwrap_or(0), 0..=COUNTER_MAX);
    let limit = body.per_buyer_limit.flatten();
    bounds.number("/per_buyer_limit", limit.unwrap_or(1), LIMIT);
    bounds.check()?;
    let what = What::Settings {
        variant: id,
        if_version: if_match.version(),
        settings: Settings {
            safety: body.safety,
            incoming: body.incoming,
            per_buyer_limit: body.per_buyer_limit,
        },
    };
    let diff = json!({ "safety": body.safety, "incoming": body.incoming,
        "per_buyer_limit": limit });
    let ride = StockRide::new(&app, (who, call), (id, merchant), (Shown::Stock, diff)).await?;
    ride.send(&app, what).await
}

/// Which page of movements.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    /// 1 to 200, default 50
    limit: Option<u32>,
    /// The `next` of a page
    after: Option<String>,
    /// The `prev` of a page
    before: Option<String>,
}

/// Lists what changed the counters of a variant, newest first.
#[utoipa::path(get, path = "/variants/{id}/stock/movements", tag = "stock",
    params(("id" = String, Path), PageQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<MovementView>), (status = 404, body = Problem,
        content_type = "application/problem+json")))]
async fn movements(
    State(app): State<App>,
    who: Principal,
    Path(id): Path<VariantId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<MovementView>>, ApiError> {
    owner(&app, &who, id, Scope::InventoryRead).await?;
    let limit = wire::limit(query.limit)?;
    let cursor = Cursor::of(&app.secrets, &format!("movements {id}"));
    let seek: Seek<i64> = cursor.seek(query.after.as_deref(), query.before.as_deref())?;
    let (test, order, from) = match seek {
        Seek::First => ("seq <= $2", "DESC", i64::MAX),
        Seek::After(seq) => ("seq < $2", "DESC", seq),
        Seek::Before(seq) => ("seq > $2", "ASC", seq),
    };
    let sql = format!(
        "SELECT id, seq, kind, d_on_hand, d_reserved, d_committed, d_ring_fenced, reason, note, \
         ref_id, actor, created_us FROM stock_movements WHERE variant_id = $1 AND {test} \
         ORDER BY seq {order} LIMIT $3"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.to_string())
        .bind(from)
        .bind(i64::from(limit) + 1)
        .fetch_all(app.db.readers())
        .await?;
    let read = |row: &sqlx::any::AnyRow| {
        Ok::<_, sqlx::Error>(MovementView {
            id: parsed(row, 0)?,
            variant_id: id,
            seq: row.try_get(1)?,
            kind: row.try_get(2)?,
            on_hand: row.try_get(3)?,
            reserved: row.try_get(4)?,
            committed: row.try_get(5)?,
            ring_fenced: row.try_get(6)?,
            reason: row.try_get(7)?,
            note: row.try_get(8)?,
            order_id: row.try_get(9)?,
            actor: row.try_get(10)?,
            created_at: Timestamp::from_micros(row.try_get(11)?),
        })
    };
    let views: Vec<MovementView> = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(Json(
        cursor.page(views, limit, &seek, |view| view.seq.to_string()),
    ))
}

/// The merchant whose stock it is, if the caller may do this with it.
async fn owner(
    app: &App,
    who: &Principal,
    id: VariantId,
    scope: Scope,
) -> Result<MerchantId, ApiError> {
    let sql = "SELECT merchant_id FROM variants WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string());
    let row = query.fetch_optional(app.db.readers()).await?;
    let merchant: MerchantId = parsed(&row.ok_or_else(ApiError::not_found)?, 0)?;
    // A key is for its own shop.
    if who.merchant_key().is_some_and(|(own, _)| own != merchant) {
        return Err(ApiError::not_found());
    }
    who.require(scope)?;
    Ok(merchant)
}

/// What the answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Movement,
    Stock,
}

/// Audit, event and answer of a change by hand.
#[derive(Debug)]
struct StockRide {
    who: Principal,
    write: Kept,
    variant: VariantId,
    merchant: MerchantId,
    shown: Shown,
    diff: serde_json::Value,
}

impl StockRide {
    async fn new(
        app: &App,
        (who, call): (Principal, wire::Call),
        (variant, merchant): (VariantId, MerchantId),
        (shown, diff): (Shown, serde_json::Value),
    ) -> Result<Self, ApiError> {
        let write = Kept::enter(app, &who.name(), call).await?;
        Ok(Self {
            who,
            write,
            variant,
            merchant,
            shown,
            diff,
        })
    }

    async fn send(self, app: &App, what: What) -> Result<Response, ApiError> {
        let actor = self.who.name();
        let stored = submit(app, Command { actor, what }, self).await?;
        Ok(stored.into_response())
    }

    fn answer(&self, effect: &Effect) -> Result<Stored, sqlx::Error> {
        let encode = |err: serde_json::Error| sqlx::Error::Encode(err.into());
        let (status, body) = match (self.shown, effect.movements.first()) {
            (Shown::Movement, Some(movement)) => {
                let view = MovementView::from(movement);
                (StatusCode::CREATED, serde_json::to_vec(&view))
            }
            _ => {
                let stock = effect.stock.iter().find(|(id, _)| *id == self.variant);
                let view = stock.map(|(id, stock)| StockView::of(*id, stock));
                (StatusCode::OK, serde_json::to_vec(&view))
            }
        };
        Ok(Stored {
            status,
            body: body.map_err(encode)?,
            is_replay: false,
        })
    }

    async fn record(&self, tx: &mut Tx, now: Timestamp, effect: &Effect) -> sqlx::Result<()> {
        let entry = Entry {
            who: &self.who,
            call: self.write.call(),
            object_id: self.variant.to_string(),
            diff: self.diff.clone(),
        };
        audit(tx, now, entry).await?;
        let Some((_, stock)) = effect.stock.first() else {
            return Ok(());
        };
        let event = NewEvent {
            kind: Kind::InventoryAdjusted,
            subject_kind: SubjectKind::Stock,
            subject_id: self.variant.to_string(),
            streams: vec![Stream::Merchant(self.merchant)],
            data: json!({ "variant_id": self.variant, "on_hand": stock.on_hand,
                "available": stock.available(), "safety": stock.safety }),
        };
        events::append(tx, now, event).await?;
        Ok(())
    }
}

impl Ride for StockRide {
    type Answer = Stored;
    type Refusal = ApiError;

    fn touches(&self) -> Vec<String> {
        self.write.touches().into_iter().collect()
    }

    async fn prepare(tx: &mut Tx, _: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let writes: Vec<&Kept> = seats.iter().map(|seat| &seat.ride.write).collect();
        let known = wire::replays(tx, &writes).await?;
        for (seat, known) in seats.iter_mut().zip(known) {
            match known {
                None => {}
                Some(Ok(stored)) => seat.verdict = Verdict::Answered(stored),
                Some(Err(error)) => seat.verdict = Verdict::Refused(error),
            }
        }
        Ok(())
    }

    async fn write(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        for seat in seats.iter_mut() {
            let Verdict::Admitted(effect) = &seat.verdict else {
                if let Verdict::Refused(error) = &seat.verdict {
                    wire::keep(tx, now, &[(&seat.ride.write, Err(error))]).await?;
                }
                continue;
            };
            seat.ride.record(tx, now, effect).await?;
            let stored = seat.ride.answer(effect)?;
            wire::keep(tx, now, &[(&seat.ride.write, Ok(stored.clone()))]).await?;
            seat.verdict = Verdict::Answered(stored);
        }
        Ok(())
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let says = refused.to_string();
        match refused {
            Refused::SoldOut {
                restock_possible, ..
            } => Self::new(Code::SoldOut, says).telling("restock_possible", restock_possible),
            Refused::Insufficient { left, .. } => {
                Self::new(Code::InsufficientStock, says).telling("left", left)
            }
            Refused::PurchaseLimit { .. } => Self::new(Code::PurchaseLimitReached, says),
            Refused::NoStock(_) => Self::not_found(),
            Refused::InvalidState => Self::new(Code::InvalidState, says),
            Refused::Changed { on_hand } => {
                Self::new(Code::StockChanged, says).telling("on_hand", on_hand)
            }
            Refused::Stale { version } => {
                Self::new(Code::Stale, says).with(ETAG, wire::etag(version))
            }
            Refused::Busy => Self::busy(std::time::Duration::from_secs(1)),
        }
    }
}
