//! Placing: order rule 1 of commerce.md 7, as a rider on the reservation of its stock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::model::{self, Checkout, ComposeError, Facts, Ids, LineWish, UNPAID_MAX, Wish};
use super::store;
use super::views::CheckoutView;
use crate::app::App;
use crate::catalog::{self, Command, Ride, Seat, Sequencer, Verdict, What};
use crate::clock::Timestamp;
use crate::creators;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::http::{self as wire, ApiError, Code, Kept, Stored};
use crate::ids::{RoomId, VariantId};
use crate::rooms::{self, Charged, OfferError, Pricing};

/// How long an unpaid order holds its stock.
pub(super) const HELD_FOR: Duration = Duration::from_secs(900);

/// Places all orders of a wish, or none.
pub(super) async fn place(app: &App, write: Kept, wish: Wish) -> Result<Stored, ApiError> {
    let variants = wish.lines.iter().map(LineWish::variant);
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
        app: app.clone(),
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
    app: App,
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
        let Some(app) = seats.first().map(|seat| seat.ride.app.clone()) else {
            return Ok(());
        };
        let facts = facts(tx, seats).await?;
        let prices = Rooms::read(tx, &app, seats).await?;
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
            let ride = &mut seat.ride;
            let charged = prices.charge(&app, &ride.wish);
            let made = charged.and_then(|charged| {
                let made = model::compose(now, &ride.wish, &ride.ids, (&facts, &charged));
                made.map_err(ApiError::from)
            });
            match made {
                Ok(checkout) => ride.checkout = Some(checkout),
                Err(refusal) => seat.verdict = Verdict::Refused(refusal),
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

/// What the catalog, shelves and creators say of all these wishes.
async fn facts(tx: &mut Tx, seats: &[Seat<PlaceRide>]) -> sqlx::Result<Facts> {
    let lines = || seats.iter().flat_map(|seat| &seat.ride.wish.lines);
    let variants: BTreeSet<VariantId> = lines().map(LineWish::variant).collect();
    let goods = catalog::goods(tx, variants).await?;
    let merchants: BTreeSet<_> = goods.values().map(|good| good.merchant).collect();
    let terms = catalog::terms(tx, merchants).await?;
    let entries: BTreeSet<_> = lines().filter_map(|line| line.entry).collect();
    let entries = rooms::attributions(tx, entries).await?;
    let sold_by_a_creator = seats.iter().filter(|seat| {
        let mut lines = seat.ride.wish.lines.iter();
        lines.any(|line| line.entry.is_some())
    });
    let buyers: BTreeSet<_> = sold_by_a_creator.map(|seat| seat.ride.wish.buyer).collect();
    let operated = creators::operated_by(tx, buyers).await?;
    Ok(Facts {
        goods,
        terms,
        entries,
        operated,
    })
}

/// The prices in each room of a batch, and outside of rooms.
struct Rooms(HashMap<Option<RoomId>, Pricing>);

impl Rooms {
    async fn read(tx: &mut Tx, app: &App, seats: &[Seat<PlaceRide>]) -> sqlx::Result<Self> {
        let mut wanted: BTreeMap<Option<RoomId>, BTreeSet<VariantId>> = BTreeMap::new();
        for line in seats.iter().flat_map(|seat| &seat.ride.wish.lines) {
            wanted
                .entry(line.price.room)
                .or_default()
                .insert(line.variant());
        }
        let mut all = HashMap::new();
        for (room, variants) in wanted {
            let variants: Vec<VariantId> = variants.into_iter().collect();
            match rooms::pricing(tx, app, room, &variants).await {
                Ok(prices) => {
                    all.insert(room, prices);
                }
                Err(OfferError::Db(err)) => return Err(err),
                // There is no such room: whoever named it is told.
                Err(_) => {}
            }
        }
        Ok(Self(all))
    }

    /// What each line of a wish is charged.
    fn charge(&self, app: &App, wish: &Wish) -> Result<Vec<Charged>, ApiError> {
        let lines = wish.lines.iter().enumerate();
        let charged = lines.map(|(n, line)| {
            let prices = self.0.get(&line.price.room).ok_or(OfferError::Invalid);
            let charged = prices.and_then(|prices| prices.accept(app, &line.price));
            charged.map_err(|err| {
                let refusal = ApiError::from(err).telling("variant_id", line.variant());
                refusal.at(format!("/lines/{n}"), "price")
            })
        });
        charged.collect()
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
            ComposeError::NotOnShelf(_) => Self::new(Code::OfferInvalid, says),
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
