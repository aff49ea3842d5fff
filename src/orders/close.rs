//! Closing what is not paid: order rule 4 of commerce.md 7, as a rider on the release of its stock.
//!
//! Rule 5, for checkouts that an outside provider may still be paid for, comes with the first such
//! provider: a wallet's attempt is over when it is answered.

use serde_json::json;

use super::model::Status;
use super::pay::refusal_of;
use super::store::{self, Going, Standing};
use crate::app::App;
use crate::catalog::{self, Command, Released, Ride, Seat, Verdict, What};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::ApiError;
use crate::ids::CheckoutId;

/// Why a checkout was not closed.
#[derive(Debug)]
pub(super) enum CloseError {
    /// It is not open any more.
    Moved,
    Api(ApiError),
}

impl From<sqlx::Error> for CloseError {
    fn from(err: sqlx::Error) -> Self {
        Self::Api(err.into())
    }
}

/// Expires or cancels a checkout, and gives its stock back.
pub(super) async fn close(
    app: &App,
    standing: &Standing,
    (reason, actor): (Released, String),
) -> Result<(), CloseError> {
    let command = Command {
        actor: actor.clone(),
        what: What::Release {
            reservations: standing
                .orders
                .iter()
                .map(|order| order.reservation)
                .collect(),
            reason,
        },
    };
    let ride = CloseRide {
        checkout: standing.id,
        reason,
        actor,
        found: None,
    };
    catalog::submit(app, command, ride).await
}

#[derive(Debug)]
struct CloseRide {
    checkout: CheckoutId,
    reason: Released,
    actor: String,
    found: Option<Standing>,
}

impl Ride for CloseRide {
    type Answer = ();
    type Refusal = CloseError;

    fn touches(&self) -> Vec<String> {
        vec![self.checkout.to_string()]
    }

    async fn prepare(tx: &mut Tx, _: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let ids: Vec<CheckoutId> = seats.iter().map(|seat| seat.ride.checkout).collect();
        let lock = tx.for_update();
        let mut standing = store::checkouts(tx, lock, ids).await?;
        for seat in seats {
            let found = standing.remove(&seat.ride.checkout);
            let open = found.filter(|found| refusal_of(found).is_none());
            if open.is_none() {
                seat.verdict = Verdict::Refused(CloseError::Moved);
            }
            seat.ride.found = open;
        }
        Ok(())
    }

    async fn write(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let mut going = Vec::new();
        let mut news = Vec::new();
        for seat in seats {
            let (Verdict::Admitted(_), Some(found)) = (&seat.verdict, &seat.ride.found) else {
                continue;
            };
            let (to, kind) = match seat.ride.reason {
                Released::Expired => (Status::Expired, Kind::OrderExpired),
                Released::Cancelled => (Status::Cancelled, Kind::OrderCancelled),
            };
            going.push(Going {
                checkout: found.id,
                payment: found.payment,
                to,
                captured: 0,
                orders: found.orders.iter().map(|it| (it.id, it.status)).collect(),
                event: match seat.ride.reason {
                    Released::Expired => "expire",
                    Released::Cancelled => "cancel",
                },
                actor: seat.ride.actor.clone(),
            });
            news.extend(found.orders.iter().map(|order| NewEvent {
                kind,
                subject_kind: SubjectKind::Order,
                subject_id: order.id.to_string(),
                streams: vec![Stream::Merchant(order.merchant)],
                data: json!({ "order_id": order.id, "checkout_id": found.id }),
            }));
            seat.verdict = Verdict::Answered(());
        }
        store::go(tx, now, &going).await?;
        events::append_all(tx, now, &news).await?;
        Ok(())
    }
}
