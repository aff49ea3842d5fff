//! Offers on a real database: prices of the catalogue, of a card, and what is charged.

use std::time::Duration;

use serde_json::json;
use sqlx::Executor;

use super::super::cards::{By, Desk, NewCard, PlacedCard, Says};
use super::super::envelope::Action;
use super::super::tests::Show;
use super::*;
use crate::db::NOON;
use crate::ids::{MerchantId, PriceId, ProductId};
use crate::money::Currency;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn yuan(amount: i64) -> Money {
    Money::new(amount, Currency::CNY)
}

/// Lets time pass for the media core; only that: a database does not wait for a paused clock.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A room on air and a variant that is sold for 2 000.
struct Counter {
    show: Show,
    room: RoomId,
    merchant: MerchantId,
    variant: VariantId,
    _publisher: Box<dyn std::any::Any>,
}

impl Counter {
    async fn new() -> Self {
        let mut show = Show::new().await;
        let room = show.room(show.wish()).await.unwrap();
        let publisher = Box::new(show.publish(room));
        show.look().await;
        let (merchant, variant) = stock_up(&show).await;
        Self {
            show,
            room,
            merchant,
            variant,
            _publisher: publisher,
        }
    }

    fn app(&self) -> &App {
        &self.show.it.app
    }

    /// Sets the room's price at a room time; where the card stands.
    async fn set(&self, amount: Option<i64>, at_us: Option<i64>) -> PlacedCard {
        let card = NewCard {
            action: Action::Price,
            entry: None,
            at_us,
            ttl_us: 0,
            says: Says::Price {
                merchant: self.merchant,
                variant: self.variant,
                amount,
                currency: Currency::CNY,
            },
        };
        let app = self.app();
        let mut tx = app.db.begin().await.unwrap();
        let mut desk = Desk::open(&mut tx, app, self.room).await.unwrap();
        let placed = desk.put(&mut tx, app, By::System, card).await.unwrap();
        let written = desk.finish(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        written.hand_over(app);
        placed
    }

    async fn priced(&self, room: Option<RoomId>) -> Priced {
        let mut reader = self.app().db.readers().acquire().await.unwrap();
        let pricing = pricing(&mut reader, self.app(), room, &[self.variant]).await;
        let entry = None;
        pricing
            .unwrap()
            .priced(self.app(), self.variant, entry)
            .unwrap()
    }

    fn wish(&self, offer: &str) -> PriceWish {
        PriceWish {
            variant: self.variant,
            room: Some(self.room),
            offer: Some(offer.into()),
            unit_price: None,
            at_us: None,
            playback_id: None,
        }
    }

    async fn judge(&self, wish: &PriceWish) -> Result<Charged, OfferError> {
        let mut tx = self.app().db.begin().await.unwrap();
        let judged = accept(&mut tx, self.app(), wish).await;
        tx.rollback().await.unwrap();
        judged
    }
}

async fn stock_up(show: &Show) -> (MerchantId, VariantId) {
    let (merchant, product) = (MerchantId::new(NOON), ProductId::new(NOON));
    let (variant, price) = (VariantId::new(NOON), PriceId::new(NOON));
    let us = NOON.as_micros();
    let rows = [
        format!(
            "INSERT INTO merchants (id, name, currency, status, shipping_fee, settle_after_days, \
             reserve_bps, fee_bps, commission_cap_bps, auto_confirm_days, version, created_us, \
             updated_us) VALUES ('{merchant}', 'Mugs', 'CNY', 'active', 0, 7, 0, 0, 0, 7, 1, {us}, \
             {us})"
        ),
        format!(
            "INSERT INTO products (id, merchant_id, title, description, media, attributes, \
             requires_shipping, status, version, created_us, updated_us) VALUES ('{product}', \
             '{merchant}', 'Mug', '', '[]', '{{}}', 1, 'active', 1, {us}, {us})"
        ),
        format!(
            "INSERT INTO variants (id, product_id, merchant_id, options, status, version, \
             created_us, updated_us) VALUES ('{variant}', '{product}', '{merchant}', '{{}}', \
             'active', 1, {us}, {us})"
        ),
        format!(
            "INSERT INTO prices (id, variant_id, kind, amount, currency, starts_us, version, \
             created_us, updated_us) VALUES ('{price}', '{variant}', 'list', 2000, 'CNY', 0, 1, \
             {us}, {us})"
        ),
    ];
    let mut tx = show.it.db().begin().await.unwrap();
    for sql in rows {
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        tx.execute(query).await.unwrap();
    }
    tx.commit().await.unwrap();
    (merchant, variant)
}

#[tokio::test]
async fn the_price_of_a_card_is_in_force_from_its_time_on_and_the_old_one_is_honoured() {
    let counter = Counter::new().await;
    let list = counter.priced(Some(counter.room)).await;
    assert_eq!(
        (list.quote.price, list.quote.kind),
        (yuan(2_000), QuoteKind::List)
    );
    let placed = counter.set(Some(1_500), None).await;
    let before = counter.judge(&counter.wish(&list.offer)).await.unwrap();
    assert!(
        !before.is_honoured,
        "before its time the old price is in force"
    );

    pass(Duration::from_secs(1)).await;
    let room = counter.priced(Some(counter.room)).await;
    assert_eq!(
        (room.quote.price, room.quote.seq),
        (yuan(1_500), placed.seq)
    );
    let now = counter.judge(&counter.wish(&room.offer)).await.unwrap();
    assert_eq!(now.quote.price, yuan(1_500));
    // The price falls: who saw the higher one pays the lower.
    let seen = PriceWish {
        at_us: Some(placed.at_us - 1),
        ..counter.wish(&list.offer)
    };
    assert_eq!(counter.judge(&seen).await.unwrap().quote.price, yuan(1_500));

    let back = counter.set(None, None).await;
    pass(Duration::from_secs(2)).await;
    let seen = |at_us| PriceWish {
        at_us: Some(at_us),
        ..counter.wish(&room.offer)
    };
    let honoured = counter.judge(&seen(back.at_us - 1)).await.unwrap();
    assert_eq!(
        (honoured.quote.price, honoured.is_honoured),
        (yuan(1_500), true)
    );
    let late = counter.judge(&seen(back.at_us)).await;
    let Err(OfferError::Changed(current)) = late else {
        panic!("another price is in force: {late:?}");
    };
    assert_eq!(current.quote.price, yuan(2_000));
    counter.judge(&counter.wish(&current.offer)).await.unwrap();
    pass(Duration::from_secs(9)).await;
    let gone = counter.judge(&seen(back.at_us - 1)).await;
    assert!(matches!(gone, Err(OfferError::Changed(_))), "{gone:?}");
}

#[tokio::test]
async fn an_offer_of_a_card_holds_no_earlier_than_the_card() {
    let counter = Counter::new().await;
    let placed = counter.set(Some(1_500), None).await;
    let sql = "SELECT envelope FROM card_events";
    let rows = sqlx::query_as::<_, (String,)>(sql);
    let (envelope,) = rows.fetch_one(counter.app().db.readers()).await.unwrap();
    let envelope: serde_json::Value = serde_json::from_str(&envelope).unwrap();
    let token = envelope["data"]["offer"].as_str().unwrap();
    assert_eq!(envelope["data"]["amount"], json!(1_500));
    let early = counter.judge(&counter.wish(token)).await;
    assert!(matches!(early, Err(OfferError::NotStarted)), "{early:?}");
    pass(Duration::from_secs(1)).await;
    let charged = counter.judge(&counter.wish(token)).await.unwrap();
    assert_eq!(
        (charged.quote.price, charged.quote.seq),
        (yuan(1_500), placed.seq)
    );
}

#[tokio::test]
async fn an_offer_is_for_its_place_only_and_for_a_day() {
    let counter = Counter::new().await;
    let outside = counter.priced(None).await;
    let elsewhere = counter.judge(&counter.wish(&outside.offer)).await;
    assert!(
        matches!(elsewhere, Err(OfferError::Invalid)),
        "{elsewhere:?}"
    );
    let wish = PriceWish {
        room: None,
        ..counter.wish(&outside.offer)
    };
    counter.judge(&wish).await.unwrap();
    assert!(outside.valid_until <= counter.app().clock.now().plus(DAY));
    counter.app().clock.advance(DAY + Duration::from_secs(1));
    let old = counter.judge(&wish).await;
    assert!(matches!(old, Err(OfferError::Expired)), "{old:?}");
    let named = PriceWish {
        offer: None,
        unit_price: Some(yuan(2_000)),
        ..wish.clone()
    };
    counter.judge(&named).await.unwrap();
    let nothing = PriceWish {
        offer: None,
        ..wish
    };
    let nothing = counter.judge(&nothing).await;
    assert!(
        matches!(nothing, Err(OfferError::Unconfirmed)),
        "{nothing:?}"
    );
}

#[tokio::test]
async fn a_playback_that_is_not_known_has_no_price_honoured() {
    let counter = Counter::new().await;
    let first = counter.set(Some(1_000), None).await;
    pass(Duration::from_secs(1)).await;
    let offer = counter.priced(Some(counter.room)).await.offer;
    let back = counter.set(None, None).await;
    pass(Duration::from_secs(1)).await;
    let wish = PriceWish {
        at_us: Some(back.at_us - 1),
        ..counter.wish(&offer)
    };
    assert!(first.at_us < back.at_us - 1);
    counter.judge(&wish).await.unwrap();
    let named = PriceWish {
        playback_id: Some("nobody".into()),
        ..wish
    };
    let refused = counter.judge(&named).await;
    assert!(
        matches!(refused, Err(OfferError::Changed(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_transaction_sees_the_price_it_sets() {
    let counter = Counter::new().await;
    let app = counter.app();
    let mut tx = app.db.begin().await.unwrap();
    let mut desk = Desk::open(&mut tx, app, counter.room).await.unwrap();
    let card = NewCard {
        action: Action::Price,
        entry: None,
        at_us: None,
        ttl_us: 0,
        says: Says::Price {
            merchant: counter.merchant,
            variant: counter.variant,
            amount: Some(1_200),
            currency: Currency::CNY,
        },
    };
    desk.put(&mut tx, app, By::System, card).await.unwrap();
    drop(desk.finish(&mut tx).await.unwrap());
    pass(Duration::from_secs(1)).await;
    let named = PriceWish {
        offer: None,
        unit_price: Some(yuan(1_200)),
        ..counter.wish("")
    };
    accept(&mut tx, app, &named).await.unwrap();
    let outside = counter.priced(Some(counter.room)).await;
    assert_eq!(outside.quote.price, yuan(2_000), "nobody else sees it");
    tx.rollback().await.unwrap();
    let undone = counter.judge(&named).await;
    assert!(matches!(undone, Err(OfferError::Changed(_))), "{undone:?}");
}
