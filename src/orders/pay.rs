//! Paying out of a wallet: order rule 3 of commerce.md 7, as a rider on the confirmation of the
//! checkout's stock. The fact that it is paid is made in the transaction that moves the money.

use http::StatusCode;
use serde_json::json;

use super::model::Status;
use super::store::{self, Attempt, Going, Standing};
use super::views::PaymentView;
use crate::app::App;
use crate::catalog::{self, Command, Refused, Ride, Seat, Verdict, What};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::{self as wire, ApiError, Code, Kept, Stored};
use crate::ids::{AccountId, AttemptId, CheckoutId};
use crate::money::Money;
use crate::payments::{Part, WalletPay, pay_from_wallets};

/// Pays a checkout of this buyer out of the wallet.
pub(super) async fn pay(
    app: &App,
    write: Kept,
    (buyer, checkout): (AccountId, CheckoutId),
) -> Result<Stored, ApiError> {
    let mut reader = app.db.readers().acquire().await?;
    let found = store::checkouts(&mut reader, "", [checkout]).await?;
    drop(reader);
    let found = found.into_values().find(|it| it.buyer == buyer);
    let found = found.ok_or_else(ApiError::not_found)?;
    let command = Command {
        actor: buyer.to_string(),
        what: What::Confirm {
            reservations: found.orders.iter().map(|order| order.reservation).collect(),
        },
    };
    let attempt = AttemptId::new(app.clock.now());
    let ride = PayRide {
        write,
        checkout,
        attempt,
        taken: None,
        failed: None,
    };
    catalog::submit(app, command, ride).await
}

/// Why a checkout is not paid in the state it is in; none if it may be.
pub(super) fn refusal_of(standing: &Standing) -> Option<ApiError> {
    let refuse = |code, says: &str| Some(ApiError::new(code, says));
    match standing.state.as_str() {
        "open" => None,
        "paid" => refuse(Code::OrderAlreadyPaid, "this checkout is paid"),
        "closing" => refuse(Code::OrderClosing, "this checkout is being closed"),
        other => {
            let says = format!("this checkout is {other}: place it again");
            refuse(Code::InvalidState, &says)
        }
    }
}

#[derive(Debug)]
struct PayRide {
    write: Kept,
    checkout: CheckoutId,
    attempt: AttemptId,
    /// Money was moved for it in this transaction.
    taken: Option<Standing>,
    /// There was not enough.
    failed: Option<Standing>,
}

impl PayRide {
    fn attempt(&self, standing: &Standing, error: Option<&'static str>) -> Attempt {
        Attempt {
            id: self.attempt,
            payment: standing.payment,
            n: standing.attempts + 1,
            amount: standing.due,
            error,
            expires_at: standing.pay_before,
        }
    }
}

impl Ride for PayRide {
    type Answer = Stored;
    type Refusal = ApiError;

    fn touches(&self) -> Vec<String> {
        let checkout = self.checkout.to_string();
        self.write.touches().into_iter().chain([checkout]).collect()
    }

    async fn prepare(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let writes: Vec<&Kept> = seats.iter().map(|seat| &seat.ride.write).collect();
        let known = wire::replays(tx, &writes).await?;
        let ids: Vec<CheckoutId> = seats.iter().map(|seat| seat.ride.checkout).collect();
        let lock = tx.for_update();
        let mut standing = store::checkouts(tx, lock, ids).await?;
        let mut asked = Vec::new();
        for (at, (seat, known)) in seats.iter_mut().zip(known).enumerate() {
            (seat.ride.taken, seat.ride.failed) = (None, None);
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
            let Some(found) = standing.remove(&seat.ride.checkout) else {
                seat.verdict = Verdict::Refused(ApiError::not_found());
                continue;
            };
            match refusal_of(&found) {
                Some(refusal) => seat.verdict = Verdict::Refused(refusal),
                None => asked.push((at, found)),
            }
        }
        let pays: Vec<WalletPay> = asked.iter().map(|(_, found)| wallet_pay(found)).collect();
        let taken = pay_from_wallets(tx, now, &pays).await?;
        for ((at, found), is_taken) in asked.into_iter().zip(taken) {
            let Some(seat) = seats.get_mut(at) else {
                continue;
            };
            if is_taken {
                seat.ride.taken = Some(found);
            } else {
                let detail = "there is not enough in the wallet for this checkout";
                seat.verdict = Verdict::Refused(ApiError::new(Code::InsufficientFunds, detail));
                seat.ride.failed = Some(found);
            }
        }
        Ok(())
    }

    async fn write(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let mut attempts = Vec::new();
        let mut going = Vec::new();
        let mut news = Vec::new();
        for seat in seats.iter_mut() {
            if let Some(failed) = &seat.ride.failed {
                attempts.push(seat.ride.attempt(failed, Some("insufficient_funds")));
            }
            let Some(standing) = &seat.ride.taken else {
                continue;
            };
            if !matches!(seat.verdict, Verdict::Admitted(_)) {
                // Its money is moved and its stock is not: nothing of this may be committed.
                return Err(sqlx::Error::RowNotFound);
            }
            let attempt = seat.ride.attempt(standing, None);
            attempts.push(attempt);
            going.push(paid(standing));
            news.extend(paid_events(standing));
            let view = PaymentView::captured(standing, &attempt);
            let body = serde_json::to_vec(&view);
            seat.verdict = Verdict::Answered(Stored {
                status: StatusCode::CREATED,
                body: body.map_err(|err| sqlx::Error::Encode(err.into()))?,
                is_replay: false,
            });
        }
        store::insert_attempts(tx, now, &attempts).await?;
        store::go(tx, now, &going).await?;
        events::append_all(tx, now, &news).await?;
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

fn wallet_pay(standing: &Standing) -> WalletPay {
    let part = |order: &store::StandingOrder| Part {
        order: order.id,
        due: Money::new(order.due, order.currency),
    };
    WalletPay {
        payment: standing.payment,
        buyer: standing.buyer,
        parts: standing.orders.iter().map(part).collect(),
    }
}

fn paid(standing: &Standing) -> Going {
    Going {
        checkout: standing.id,
        payment: standing.payment,
        to: Status::Paid,
        captured: standing.due.amount_minor(),
        orders: standing
            .orders
            .iter()
            .map(|it| (it.id, it.status))
            .collect(),
        event: "paid",
        actor: standing.buyer.to_string(),
    }
}

fn paid_events(standing: &Standing) -> Vec<NewEvent> {
    let order = |order: &store::StandingOrder| NewEvent {
        kind: Kind::OrderPaid,
        subject_kind: SubjectKind::Order,
        subject_id: order.id.to_string(),
        streams: vec![Stream::Merchant(order.merchant)],
        data: json!({ "order_id": order.id, "checkout_id": standing.id,
            "due": order.due, "currency": order.currency }),
    };
    let captured = NewEvent {
        kind: Kind::PaymentCaptured,
        subject_kind: SubjectKind::Payment,
        subject_id: standing.payment.to_string(),
        streams: vec![Stream::Platform],
        data: json!({ "payment_id": standing.payment, "checkout_id": standing.id,
            "provider": "wallet", "amount": standing.due }),
    };
    standing
        .orders
        .iter()
        .map(order)
        .chain([captured])
        .collect()
}

impl From<Refused> for super::close::CloseError {
    fn from(refused: Refused) -> Self {
        match refused {
            // Another closed or paid it meanwhile.
            Refused::InvalidState => Self::Moved,
            other => Self::Api(other.into()),
        }
    }
}
