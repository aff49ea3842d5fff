//! Offers (commerce.md 8): which price is in force, the tokens that promise it, and what a buyer
//! who shows one is charged.
//!
//! Invariants
//! - Never is more charged than the wish says.
//! - A token says the same to all viewers, so that what shows it can be cached.
//! - A price and the card that announces it are one transaction: an order that cannot see the one
//!   cannot see the other.
//!
//! Not here: stock, quotas and limits; the prices of the catalogue ([`super::goods`]).

mod keys;
mod routes;
mod rules;
#[cfg(test)]
mod tests;
mod token;

use std::collections::HashMap;
use std::time::Duration;

use sqlx::AnyConnection;

use self::keys::OfferKeys;
pub(crate) use self::keys::{KeyFileError, open_offer_keys, rotate_offer_keys};
pub(super) use self::routes::routes;
pub(crate) use self::rules::QuoteKind;
pub(super) use self::rules::Window;
pub(crate) use self::rules::{Candidate, Charged, Quote};
use self::rules::{Claim, DealPrice, Look, Place, Playhead, Prices, Refusal, RoomPrice};
pub(crate) use self::token::{Offer, TokenError};
use super::cards::RoomCards;
use super::goods;
use super::timeline::PricePoint;
use crate::app::App;
use crate::broadcasts;
use crate::clock::Timestamp;
#[cfg(test)]
use crate::db::Tx;
use crate::ids::{EntryId, RoomId, VariantId};
use crate::money::Money;

/// Tokens of one price are the same for so long; their life is a day, less this at most.
const SAME_FOR_S: i64 = 600;
const LIFE_S: i64 = 24 * 60 * 60;
/// How far back a price may be claimed.
const BACK: Duration = Duration::from_secs(90);

/// Signs an offer.
pub(super) fn sign(app: &App, offer: &Offer) -> String {
    token::write(&OfferKeys::of(app), offer)
}

/// A wish for the price of one variant.
#[derive(Clone, Debug)]
pub(crate) struct PriceWish {
    pub(crate) variant: VariantId,
    pub(crate) room: Option<RoomId>,
    pub(crate) offer: Option<String>,
    pub(crate) unit_price: Option<Money>,
    /// The room time the buyer sees.
    pub(crate) at_us: Option<i64>,
    pub(crate) playback_id: Option<String>,
}

/// A price with the token that promises it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Priced {
    pub(crate) quote: Quote,
    pub(crate) offer: String,
    /// When the offer expires, or the price changes by itself.
    pub(crate) valid_until: Timestamp,
}

/// Why a wish's price is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OfferError {
    #[error("give the offer you saw, or the unit price")]
    Unconfirmed,
    #[error("the offer was not made here, or for something else")]
    Invalid,
    #[error("the offer has expired; take the one in force")]
    Expired,
    #[error("the offer is not in force yet")]
    NotStarted,
    #[error("the deal is not open yet")]
    DealNotStarted,
    #[error("the deal is over")]
    DealEnded,
    #[error("the deal has no units left")]
    SoldOut,
    #[error("the price has changed; see current_price")]
    Changed(Box<Priced>),
    #[error("this variant has no price now")]
    NotSellable,
    #[error("reading prices")]
    Db(#[from] sqlx::Error),
}

/// The prices of some variants in one place at one moment.
#[derive(Debug)]
pub(crate) struct Pricing {
    now: Timestamp,
    place: Option<Place>,
    /// What T of the running instance lacks to room time.
    offset_us: Option<i64>,
    prices: HashMap<VariantId, Prices>,
}

impl Pricing {
    /// Reads the prices of variants outside rooms.
    pub(crate) async fn outside(
        connection: &mut AnyConnection,
        now: Timestamp,
        variants: &[VariantId],
    ) -> sqlx::Result<Self> {
        Self::listed(connection, (now, now.before(BACK)), variants).await
    }

    async fn listed(
        connection: &mut AnyConnection,
        (now, since): (Timestamp, Timestamp),
        variants: &[VariantId],
    ) -> sqlx::Result<Self> {
        let mut windows = goods::windows(connection, since, variants.to_vec()).await?;
        let prices = variants.iter().map(|variant| {
            let prices = Prices {
                windows: windows.remove(variant).unwrap_or_default(),
                ..Prices::default()
            };
            (*variant, prices)
        });
        Ok(Self {
            now,
            place: None,
            offset_us: None,
            prices: prices.collect(),
        })
    }

    /// Reads the prices of variants in a room.
    pub(super) async fn within(
        connection: &mut AnyConnection,
        now: Timestamp,
        cards: &RoomCards,
        variants: &[VariantId],
    ) -> sqlx::Result<Self> {
        Self::since(connection, (now, now), cards, variants).await
    }

    /// The same with the prices of the catalogue that were in force since a time.
    pub(super) async fn since(
        connection: &mut AnyConnection,
        (now, since): (Timestamp, Timestamp),
        cards: &RoomCards,
        variants: &[VariantId],
    ) -> sqlx::Result<Self> {
        let since = since.min(now.before(BACK));
        let mut pricing = Self::listed(connection, (now, since), variants).await?;
        let room = &cards.room;
        let ended_us = cards.clock.now_us;
        // Room time stands where the show ended; what was honoured then still can be.
        let since_end = room.ended_at.map(|ended_at| now.since(ended_at));
        let since_end = since_end.filter(|_| room.state.is_over());
        let since_end_us = since_end.and_then(|since| i64::try_from(since.as_micros()).ok());
        pricing.place = Some(Place {
            room: room.id,
            now_us: ended_us.saturating_add(since_end_us.unwrap_or(0)),
            price_honour_ms: room.price_honour_ms,
            ended_us: since_end_us.map(|_| ended_us),
        });
        let instance = cards.clock.instance.as_ref();
        pricing.offset_us = instance.map(|instance| instance.offset_us);
        for (variant, prices) in &mut pricing.prices {
            let points = cards.timeline.prices(*variant).iter();
            prices.room = points.map(room_price).collect();
            prices.deals = deals(cards, *variant);
        }
        Ok(pricing)
    }

    fn look(&self, variant: VariantId) -> Option<Look<'_>> {
        Some(Look {
            prices: self.prices.get(&variant)?,
            place: self.place,
            now: self.now,
        })
    }

    /// The price in force with its token, for a variant of this shelf entry.
    pub(crate) fn priced(
        &self,
        app: &App,
        variant: VariantId,
        entry: Option<EntryId>,
    ) -> Option<Priced> {
        let look = self.look(variant)?;
        let quote = look.current()?;
        let now_s = self.now.as_micros().div_euclid(1_000_000);
        let expires_s = now_s.div_euclid(SAME_FOR_S) * SAME_FOR_S + LIFE_S;
        let offer = Offer {
            room: self.place.map(|place| place.room),
            entry: quote.entry.or(entry),
            variant,
            deal: quote.deal,
            seq: quote.seq,
            price: quote.price,
            from_us: quote.from_us,
            expires_s,
        };
        let expires_us = expires_s.saturating_mul(1_000_000);
        let until_us = look.changes_at_us().unwrap_or(i64::MAX).min(expires_us);
        Some(Priced {
            quote,
            offer: sign(app, &offer),
            valid_until: Timestamp::from_micros(until_us),
        })
    }

    /// Every candidate, the winner first.
    pub(crate) fn candidates(&self, variant: VariantId) -> Vec<Candidate> {
        let look = self.look(variant);
        look.map_or_else(Vec::new, |look| look.candidates())
    }

    /// The price that was in force at a point of room time.
    pub(super) fn at(&self, variant: VariantId, at_us: i64) -> Option<Quote> {
        self.look(variant)?.at(at_us)
    }

    /// What one unit costs the buyer of a wish (O3–O7).
    pub(crate) fn accept(&self, app: &App, wish: &PriceWish) -> Result<Charged, OfferError> {
        if wish.room != self.place.map(|place| place.room) {
            return Err(OfferError::Invalid);
        }
        let look = self.look(wish.variant).ok_or(OfferError::NotSellable)?;
        let claim = Claim {
            variant: wish.variant,
            unit_price: wish.unit_price,
            at_us: wish.at_us,
            playhead: self.playhead(app, wish),
        };
        let judged = match wish.offer.as_deref() {
            Some(token) => {
                let offer = token::read(&OfferKeys::of(app), self.now, token)?;
                look.judge(&claim, &offer)
            }
            None => look.judge_named(&claim),
        };
        judged.map_err(|refusal| match refusal {
            Refusal::Unconfirmed => OfferError::Unconfirmed,
            Refusal::Invalid => OfferError::Invalid,
            Refusal::NotStarted => OfferError::NotStarted,
            Refusal::DealNotStarted => OfferError::DealNotStarted,
            Refusal::DealEnded => OfferError::DealEnded,
            Refusal::SoldOut => OfferError::SoldOut,
            Refusal::NotSellable => OfferError::NotSellable,
            Refusal::Changed(_) => match self.priced(app, wish.variant, None) {
                Some(priced) => OfferError::Changed(Box::new(priced)),
                None => OfferError::NotSellable,
            },
        })
    }

    fn playhead(&self, app: &App, wish: &PriceWish) -> Playhead {
        let (Some(session), Some(room)) = (wish.playback_id.as_deref(), wish.room) else {
            return Playhead::NotNamed;
        };
        let range = broadcasts::playhead(app, room, session);
        match range.zip(self.offset_us) {
            Some(((from, to), offset_us)) => Playhead::Range(from + offset_us, to + offset_us),
            None => Playhead::Unknown,
        }
    }
}

/// What one unit costs the buyer of a wish, as this transaction sees prices and cards.
///
/// # Errors
/// [`OfferError`] is what the buyer is told.
#[cfg(test)]
pub(crate) async fn accept(
    tx: &mut Tx,
    app: &App,
    wish: &PriceWish,
) -> Result<Charged, OfferError> {
    let pricing = pricing(tx, app, wish.room, &[wish.variant]).await?;
    pricing.accept(app, wish)
}

/// The prices of variants in a room, or outside, as this connection sees them.
///
/// # Errors
/// [`OfferError::Invalid`] when there is no such room.
pub(crate) async fn pricing(
    connection: &mut AnyConnection,
    app: &App,
    room: Option<RoomId>,
    variants: &[VariantId],
) -> Result<Pricing, OfferError> {
    let now = app.clock.now();
    let Some(id) = room else {
        return Ok(Pricing::outside(connection, now, variants).await?);
    };
    let room = super::store::find_in(connection, id).await?;
    let room = room.ok_or(OfferError::Invalid)?;
    let cards = RoomCards::read(connection, app, room).await?;
    Ok(Pricing::within(connection, now, &cards, variants).await?)
}

impl From<TokenError> for OfferError {
    fn from(err: TokenError) -> Self {
        match err {
            TokenError::Invalid => Self::Invalid,
            TokenError::Expired => Self::Expired,
        }
    }
}

const fn room_price(point: &PricePoint) -> RoomPrice {
    RoomPrice {
        seq: point.seq,
        at_us: point.at_us,
        until_us: point.until_us,
        price: point.price,
        entry: point.entry,
    }
}

/// The deals on a variant, the one opened last behind the others.
const fn deals(_cards: &RoomCards, _variant: VariantId) -> Vec<DealPrice> {
    // Deals come with their own tables; until then no room has any.
    Vec::new()
}
