//! Parcels: order rules 11 and 12 of commerce.md 7. Sending one rides on the departure of its units
//! from stock.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use sqlx::{Executor, Row as _};

use super::model::Status;
use super::store::{self, StandingOrder, Step};
use super::views::ShipmentView;
use crate::accounts::{Entry, Principal, audit};
use crate::app::App;
use crate::catalog::{self, Command, Ride, Seat, Units, Verdict, What};
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Tx, parsed};
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::{self as wire, ApiError, Code, Kept, Stored};
use crate::ids::{LineId, OrderId, ShipmentId};

/// After all was sent, when nobody says that it arrived.
const CONFIRMED_AFTER: Duration = Duration::from_secs(15 * 24 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A parcel that leaves.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) order: OrderId,
    pub(super) carrier: String,
    pub(super) tracking_no: String,
    pub(super) lines: BTreeMap<LineId, i64>,
}

/// Sends a parcel of an order that the caller was found to serve.
pub(super) async fn ship(
    app: &App,
    (who, write): (Principal, Kept),
    (order, parcel): (&StandingOrder, Parcel),
) -> Result<Stored, ApiError> {
    let mut units = Vec::new();
    for (line, quantity) in &parcel.lines {
        let found = order.lines.iter().find(|it| it.id == *line);
        let found = found.ok_or_else(|| exceeds("a line is not of this order"))?;
        units.push(Units {
            variant: found.variant,
            quantity: *quantity,
        });
    }
    let command = Command {
        actor: who.name(),
        what: What::Ship {
            order: order.id,
            lines: units,
        },
    };
    let ride = ShipRide {
        id: ShipmentId::new(app.clock.now()),
        who,
        write,
        parcel,
        found: None,
    };
    catalog::submit(app, command, ride).await
}

fn exceeds(says: &str) -> ApiError {
    ApiError::new(Code::ExceedsUnshipped, says)
}

#[derive(Debug)]
struct ShipRide {
    id: ShipmentId,
    who: Principal,
    write: Kept,
    parcel: Parcel,
    found: Option<StandingOrder>,
}

impl ShipRide {
    /// Whether the parcel may leave as the order stands now.
    fn check(&self, order: &StandingOrder) -> Result<(), ApiError> {
        if !matches!(order.status, Status::Paid | Status::Fulfilling) {
            let says = format!("the order is {}", order.status.as_str());
            return Err(ApiError::new(Code::InvalidState, says));
        }
        for (line, quantity) in &self.parcel.lines {
            let found = order.lines.iter().find(|it| it.id == *line);
            let left = found.map_or(0, |it| it.quantity - it.shipped);
            if *quantity > left {
                let says = format!("{line} has {left} units that are not sent yet");
                return Err(exceeds(&says));
            }
        }
        Ok(())
    }

    async fn write(&self, tx: &mut Tx, now: Timestamp, order: &StandingOrder) -> sqlx::Result<()> {
        insert(tx, now, (self.id, &self.parcel)).await?;
        let sent = |line: &store::StandingLine| {
            line.shipped + self.parcel.lines.get(&line.id).copied().unwrap_or(0)
        };
        let is_all = order.lines.iter().all(|line| sent(line) == line.quantity);
        let sql = "UPDATE orders SET status = 'fulfilling', fulfilment = $2, \
                   shipped_us = COALESCE($3, shipped_us), \
                   auto_confirm_us = COALESCE($4, auto_confirm_us), version = version + 1, \
                   updated_us = $5 WHERE id = $1 AND status IN ('paid', 'fulfilling')";
        let query = sqlx::query(sql)
            .bind(order.id.to_string())
            .bind(if is_all { "shipped" } else { "partial" })
            .bind(is_all.then_some(now.as_micros()))
            .bind(is_all.then_some(now.plus(CONFIRMED_AFTER).as_micros()))
            .bind(now.as_micros());
        tx.execute(query).await?;
        let step = Step {
            order: order.id,
            seq: store::last_step(tx, order.id).await? + 1,
            from: Some(order.status),
            event: "ship",
            to: Status::Fulfilling,
            actor: self.who.name(),
        };
        store::append_history(tx, now, &[step]).await?;
        let entry = Entry {
            who: &self.who,
            call: self.write.call(),
            object_id: order.id.to_string(),
            diff: json!({ "shipment": self.id, "lines": self.parcel.lines.len() }),
        };
        audit(tx, now, entry).await?;
        let event = NewEvent {
            kind: Kind::OrderShipped,
            subject_kind: SubjectKind::Order,
            subject_id: order.id.to_string(),
            streams: vec![Stream::Merchant(order.merchant)],
            data: json!({ "order_id": order.id, "shipment_id": self.id, "is_all": is_all }),
        };
        events::append(tx, now, event).await?;
        Ok(())
    }
}

impl Ride for ShipRide {
    type Answer = Stored;
    type Refusal = ApiError;

    fn touches(&self) -> Vec<String> {
        let order = self.parcel.order.to_string();
        self.write.touches().into_iter().chain([order]).collect()
    }

    async fn prepare(tx: &mut Tx, _: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let writes: Vec<&Kept> = seats.iter().map(|seat| &seat.ride.write).collect();
        let known = wire::replays(tx, &writes).await?;
        for (seat, known) in seats.iter_mut().zip(known) {
            seat.ride.found = None;
            match known {
                None => {}
                Some(Ok(stored)) => {
                    seat.verdict = Verdict::Answered(stored);
                    continue;
                }
                Some(Err(error)) => {
                    seat.verdict = Verdict::Refused(error);
                    continue;
                }
            }
            let lock = tx.for_update();
            let Some(order) = store::order(tx, lock, seat.ride.parcel.order).await? else {
                seat.verdict = Verdict::Refused(ApiError::not_found());
                continue;
            };
            match seat.ride.check(&order) {
                Ok(()) => seat.ride.found = Some(order),
                Err(refusal) => seat.verdict = Verdict::Refused(refusal),
            }
        }
        Ok(())
    }

    async fn write(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        for seat in seats.iter_mut() {
            if let (Verdict::Admitted(_), Some(order)) = (&seat.verdict, &seat.ride.found) {
                seat.ride.write(tx, now, order).await?;
                let view = ShipmentView::sent(seat.ride.id, &seat.ride.parcel, now);
                let body = serde_json::to_vec(&view);
                seat.verdict = Verdict::Answered(Stored {
                    status: StatusCode::CREATED,
                    body: body.map_err(|err| sqlx::Error::Encode(err.into()))?,
                    is_replay: false,
                });
            }
        }
        let kept = seats.iter().filter_map(|seat| match &seat.verdict {
            Verdict::Answered(stored) if !stored.is_replay => {
                Some((&seat.ride.write, Ok(stored.clone())))
            }
            Verdict::Refused(error) => Some((&seat.ride.write, Err(error))),
            _ => None,
        });
        let kept: Vec<_> = kept.collect();
        wire::keep(tx, now, &kept).await
    }
}

async fn insert(
    tx: &mut Tx,
    now: Timestamp,
    (id, parcel): (ShipmentId, &Parcel),
) -> sqlx::Result<()> {
    let sql = "INSERT INTO shipments (id, order_id, carrier, tracking_no, state, version, \
               created_us, updated_us) VALUES ($1, $2, $3, $4, 'sent', 1, $5, $5)";
    let query = sqlx::query(sql)
        .bind(id.to_string())
        .bind(parcel.order.to_string())
        .bind(parcel.carrier.clone())
        .bind(parcel.tracking_no.clone())
        .bind(now.as_micros());
    tx.execute(query).await?;
    let lines: Vec<(LineId, i64)> = parcel.lines.iter().map(|(id, n)| (*id, *n)).collect();
    let bulk = Bulk {
        head: "INSERT INTO shipment_lines (shipment_id, line_id, quantity)",
        width: 3,
        tail: "",
    };
    let bind = |query: Bound, (line, quantity): &(LineId, i64)| {
        let query = query.bind(id.to_string()).bind(line.to_string());
        query.bind(*quantity)
    };
    bulk.execute(tx, &lines, bind).await?;
    let bulk = Bulk {
        head: "WITH sent (id, n) AS (",
        width: 2,
        tail: ") UPDATE order_lines SET shipped = shipped + sent.n FROM sent \
               WHERE order_lines.id = sent.id AND shipped + sent.n <= quantity",
    };
    let bind = |query: Bound, (line, quantity): &(LineId, i64)| {
        query.bind(line.to_string()).bind(*quantity)
    };
    store::all(bulk.execute(tx, &lines, bind).await?, lines.len())
}

/// The order of a parcel.
pub(super) async fn order_of(
    db: &mut sqlx::AnyConnection,
    id: ShipmentId,
) -> sqlx::Result<Option<OrderId>> {
    let sql = "SELECT order_id FROM shipments WHERE id = $1";
    let query = sqlx::query(sql).bind(id.to_string());
    let row = query.fetch_optional(db).await?;
    row.map(|row| parsed(&row, 0)).transpose()
}

/// A parcel arrived; once all of an order did, its receipt is taken as confirmed after so many
/// days. False when it had arrived before.
pub(super) async fn deliver(
    tx: &mut Tx,
    now: Timestamp,
    (id, order): (ShipmentId, &StandingOrder),
    auto_confirm_days: i64,
) -> sqlx::Result<bool> {
    let sql = "UPDATE shipments SET state = 'delivered', delivered_us = $2, \
               version = version + 1, updated_us = $2 WHERE id = $1 AND state = 'sent'";
    let query = sqlx::query(sql).bind(id.to_string()).bind(now.as_micros());
    if tx.execute(query).await?.rows_affected() == 0 {
        return Ok(false);
    }
    let sql = "SELECT COUNT(*) FROM shipments WHERE order_id = $1 AND state = 'sent'";
    let query = sqlx::query(sql).bind(order.id.to_string());
    let under_way: i64 = tx.fetch_one(query).await?.try_get(0)?;
    let is_all = order.lines.iter().all(|line| line.shipped == line.quantity) && under_way == 0;
    if !is_all {
        return Ok(true);
    }
    let days = u32::try_from(auto_confirm_days).unwrap_or(0);
    let sql = "UPDATE orders SET fulfilment = 'delivered', delivered_us = $2, \
               auto_confirm_us = $3, version = version + 1, updated_us = $2 \
               WHERE id = $1 AND status = 'fulfilling'";
    let query = sqlx::query(sql)
        .bind(order.id.to_string())
        .bind(now.as_micros())
        .bind(now.plus(DAY * days).as_micros());
    tx.execute(query).await?;
    let event = NewEvent {
        kind: Kind::OrderDelivered,
        subject_kind: SubjectKind::Order,
        subject_id: order.id.to_string(),
        streams: vec![Stream::Merchant(order.merchant)],
        data: json!({ "order_id": order.id }),
    };
    events::append(tx, now, event).await?;
    Ok(true)
}
