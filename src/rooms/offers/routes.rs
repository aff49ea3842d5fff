//! Prices over HTTP: what a variant costs now, in a room or outside, and why.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::rules::{Candidate, QuoteKind, Why};
use super::{OfferError, Priced, RoomCards, pricing};
use crate::app::App;
use crate::catalog;
use crate::clock::Timestamp;
use crate::http::{ApiError, Bounds, Code, Path, Problem, Query};
use crate::ids::{PriceId, RoomId, VariantId};
use crate::money::Money;

const QUANTITY: std::ops::RangeInclusive<i64> = 1..=999;

pub(in crate::rooms) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(now))
}

/// For whom a price is asked.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
struct NowQuery {
    /// The room it is bought in
    room_id: Option<String>,
    /// 1 to 999
    quantity: Option<i64>,
}

/// The price of one unit now.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct VariantPriceView {
    #[schema(value_type = String)]
    variant_id: VariantId,
    price: Money,
    kind: QuoteKind,
    /// What the price is compared with
    compare_at: Option<Money>,
    /// Every price that could be charged, the one that is first
    explain: Vec<CandidateView>,
    /// Promises this price: show it with the order
    offer: String,
    /// When the offer expires, or another price comes into force
    #[schema(value_type = String, format = DateTime)]
    valid_until: Timestamp,
}

/// A price that won or lost.
#[derive(Debug, Serialize, utoipa::ToSchema)]
struct CandidateView {
    kind: QuoteKind,
    price: Money,
    /// Of the price list; null for the price of a room or deal
    #[schema(value_type = Option<String>)]
    price_id: Option<PriceId>,
    is_charged: bool,
    reason: Why,
}

impl From<Candidate> for CandidateView {
    fn from(candidate: Candidate) -> Self {
        Self {
            kind: candidate.quote.kind,
            price: candidate.quote.price,
            price_id: candidate.quote.row,
            is_charged: candidate.why == Why::StrongestInForce,
            reason: candidate.why,
        }
    }
}

/// Says what a variant costs now, and why.
#[utoipa::path(get, path = "/variants/{id}/price", tag = "prices",
    operation_id = "show_variant_price", params(("id" = String, Path), NowQuery),
    responses((status = 200, body = VariantPriceView), (status = "4XX", body = Problem,
        content_type = "application/problem+json")))]
#[tracing::instrument(name = "offers.price", skip_all, fields(variant.id = %id))]
async fn now(
    State(app): State<App>,
    Path(id): Path<VariantId>,
    Query(query): Query<NowQuery>,
) -> Result<Json<VariantPriceView>, ApiError> {
    let mut bounds = Bounds::default();
    bounds.number("/quantity", query.quantity.unwrap_or(1), QUANTITY);
    bounds.check()?;
    // An id of another form is a room that does not exist.
    let room = query.room_id.as_deref().map(str::parse::<RoomId>);
    let room = room.transpose().map_err(|_form| ApiError::not_found())?;
    if let Some(room) = room {
        RoomCards::prepare(&app, room).await?;
    }
    let mut reader = app.db.readers().acquire().await?;
    let good = catalog::goods(&mut reader, [id]).await?.remove(&id);
    let good = good.ok_or_else(ApiError::not_found)?;
    let prices = match pricing(&mut reader, &app, room, &[id]).await {
        Err(OfferError::Invalid) => return Err(ApiError::not_found()),
        prices => prices?,
    };
    let entry = None;
    let priced = prices.priced(&app, id, entry).filter(|_| good.is_active);
    let priced: Priced = priced.ok_or(OfferError::NotSellable)?;
    let currency = priced.quote.price.currency();
    Ok(Json(VariantPriceView {
        variant_id: id,
        price: priced.quote.price,
        kind: priced.quote.kind,
        compare_at: priced
            .quote
            .compare_at
            .map(|amount| Money::new(amount, currency)),
        explain: prices.candidates(id).into_iter().map(Into::into).collect(),
        offer: priced.offer,
        valid_until: priced.valid_until,
    }))
}

impl From<OfferError> for ApiError {
    fn from(err: OfferError) -> Self {
        let code = match err {
            OfferError::Db(err) => return err.into(),
            OfferError::Changed(priced) => {
                let detail = "the price has changed; show it and ask again";
                return Self::new(Code::PriceChanged, detail)
                    .telling("current_offer", priced.offer)
                    .telling("current_price", priced.quote.price);
            }
            OfferError::Unconfirmed => Code::PriceUnconfirmed,
            OfferError::Invalid => Code::OfferInvalid,
            OfferError::Expired => Code::OfferExpired,
            OfferError::NotStarted => Code::OfferNotStarted,
            OfferError::DealNotStarted => Code::DealNotStarted,
            OfferError::DealEnded => Code::DealEnded,
            OfferError::SoldOut => Code::SoldOut,
            OfferError::NotSellable => Code::NotSellable,
        };
        Self::new(code, err.to_string())
    }
}
