//! Placing: order rule 1 of commerce.md 7, as a rider on the reservation of its stock.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::model::{self, Checkout, ComposeError, Facts, Ids, UNPAID_MAX, Wish};
use super::routes::CheckoutView;
use super::store;
use crate::app::App;
use crate::catalog::{self, Command, Ride, Seat, Sequencer, Verdict, What};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::{self as wire, ApiError, Code, Kept, Stored};

/// How long an unpaid order holds its stock.
pub(super) const HELD_FOR: Duration = Duration::from_secs(900);

/// Places all orders of a wish, or none.
pub(super) async fn place(app: &App, write: Kept, wish: Wish) -> Result<Stored, ApiError> {
    let variants = wish.lines.iter().map(|line| line.variant);
    let mut reader = app.db.readers().acquire().await?;
    let goods = catalog::goods(&mut reader, variants.clone()).await?;
    drop(reader);
    let sequencer = app.parts.part::<Sequencer>();
    if let Some(refused) = variants
        .clone()
        .find_map(|variant| sequencer.sold_out(variant))
    {
        // Whoever won hears again that they won.
        return match write.stored().await? {
            Some(stored) => Ok(stored),
            None => Err(refused.into()),
        };
    }
    let now = app.clock.now();
    let ids = Ids::new(now, goods.values().map(|good| good.merchant));
    let expires_at = now.plus(HELD_FOR);
    let command = Command {
        actor: wish.buyer.to_string(),
        what: What::Reserve {
            buyer: wish.buyer,
            expires_at,
            holds: model::holds(&wish, &ids, &goods)?,
        },
    };
    let ride = PlaceRide {
        write,
        wish,
        ids,
        expires_at,
        checkout: None,
    };
    catalog::submit(app, command, ride).await
}

#[derive(Debug)]
struct PlaceRide {
    write: Kept,
    wish: Wish,
    ids: Ids,
    expires_at: Timestamp,
    /// Once its prices are found good.
    checkout: Option<Checkout>,
}

impl Ride for PlaceRide {
    type Answer = Stored;
    type Refusal = ApiError;

    fn touches(&self) -> Vec<String> {
        let buyer = format!("buyer {}", self.wish.buyer);
        self.write.touches().into_iter().chain([buyer]).collect()
    }

    async fn prepare(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let writes: Vec<&Kept> = seats.iter().map(|seat| &seat.ride.write).collect();
        let known = wire::replays(tx, &writes).await?;
        for (seat, known) in seats.iter_mut().zip(known) {
            match known {
                None => {}
                Some(Ok(stored)) => seat.verdict = Verdict::Answered(stored),
                Some(Err(error)) => seat.verdict = Verdict::Refused(error),
            }
        }
        let buyers = seats.iter().map(|seat| seat.ride.wish.buyer);
        let unpaid = store::unpaid(tx, buyers.collect::<Vec<_>>()).await?;
        let lines = seats.iter().flat_map(|seat| &seat.ride.wish.lines);
        let variants: std::collections::BTreeSet<_> = lines.map(|line| line.variant).collect();
        let goods = catalog::goods(tx, variants.iter().copied()).await?;
        let merchants: std::collections::BTreeSet<_> =
            goods.values().map(|good| good.merchant).collect();
        let facts = Facts {
            terms: catalog::terms(tx, merchants).await?,
            prices: catalog::in_force(tx, now, variants).await?,
            goods,
        };
        for seat in seats {
            if !matches!(seat.verdict, Verdict::Waiting) {
                continue;
            }
            if unpaid
                .get(&seat.ride.wish.buyer)
                .is_some_and(|n| *n >= UNPAID_MAX)
            {
                let detail = format!("pay or cancel one of your {UNPAID_MAX} unpaid checkouts");
                let refusal = ApiError::new(Code::RateLimited, detail);
                seat.verdict = Verdict::Refused(refusal.after(Duration::from_secs(60)));
                continue;
            }
            match model::compose(now, &seat.ride.wish, &seat.ride.ids, &facts) {
                Ok(checkout) => seat.ride.checkout = Some(checkout),
                Err(err) => seat.verdict = Verdict::Refused(err.into()),
            }
        }
        Ok(())
    }

    async fn write(tx: &mut Tx, now: Timestamp, seats: &mut [Seat<Self>]) -> sqlx::Result<()> {
        let admitted = seats.iter().filter_map(|seat| match seat.verdict {
            Verdict::Admitted(_) => {
                let ride = &seat.ride;
                Some((&ride.wish, ride.checkout.as_ref()?, ride.expires_at))
            }
            _ => None,
        });
        let admitted: Vec<(&Wish, &Checkout, Timestamp)> = admitted.collect();
        store::insert(tx, now, &admitted).await?;
        let news: Vec<NewEvent> = admitted.iter().flat_map(reserved).collect();
        events::append_all(tx, now, &news).await?;
        for seat in seats.iter_mut() {
            if let (Verdict::Admitted(_), Some(checkout)) = (&seat.verdict, &seat.ride.checkout) {
                let view =
                    CheckoutView::placed(&seat.ride.wish, checkout, (now, seat.ride.expires_at));
                let body = serde_json::to_vec(&view);
                let body = body.map_err(|err| sqlx::Error::Encode(err.into()))?;
                seat.verdict = Verdict::Answered(Stored {
                    status: StatusCode::CREATED,
                    body,
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

fn reserved((wish, checkout, expires_at): &(&Wish, &Checkout, Timestamp)) -> Vec<NewEvent> {
    let event = |order: &model::Order| NewEvent {
        kind: Kind::OrderReserved,
        subject_kind: SubjectKind::Order,
        subject_id: order.id.to_string(),
        streams: vec![Stream::Merchant(order.merchant)],
        data: json!({ "order_id": order.id, "checkout_id": checkout.id, "buyer_id": wish.buyer,
            "due": order.due, "currency": checkout.due.currency(),
            "pay_before_at": expires_at }),
    };
    checkout.orders.iter().map(event).collect()
}

impl From<ComposeError> for ApiError {
    fn from(err: ComposeError) -> Self {
        let says = err.to_string();
        match err {
            ComposeError::Empty => Self::new(Code::EmptyCart, says),
            ComposeError::NotSellable(_) => Self::new(Code::NotSellable, says),
            ComposeError::PriceChanged { variant, now } => Self::new(Code::PriceChanged, says)
                .telling("variant_id", variant)
                .telling("current_price", now),
            ComposeError::SeveralMerchants => Self::new(Code::SeveralMerchants, says),
            ComposeError::TooManyMerchants => Self::new(Code::OutOfBounds, says),
            ComposeError::SeveralCurrencies => Self::new(Code::SeveralCurrencies, says),
            ComposeError::AddressRequired => {
                Self::new(Code::AddressRequired, says).at("/ship_to", "missing")
            }
            ComposeError::Amount => Self::new(Code::AmountOutOfRange, says),
        }
    }
}
