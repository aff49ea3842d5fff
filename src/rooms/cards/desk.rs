//! Putting cards on a room's timeline, in the transaction of whatever they announce.
//!
//! Invariants
//! - Stamp and number are taken under the lock of the room's row, which lasts to the commit.
//! - A cue's place is taken before anything is written: over the bounds of the media core an
//!   operator's card is refused, one of the system waits its turn.
//! - What is not committed is handed over to nobody.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::clock::{self, RoomClock};
use super::super::envelope::{Action, Data, EnvelopeError, Event, PriceData, Stamped};
use super::super::model::{Room, State};
use super::super::offers::{self, Offer};
use super::super::store as rooms;
use super::super::timeline::{Checkpoint, Repeat, Slot, Timeline};
use super::line::Line;
use super::store;
use crate::app::App;
use crate::broadcasts::{self, HeldCue, PlaceCueError};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, Kind, NewEvent, Stream, SubjectKind};
use crate::ids::{EntryId, MerchantId, RoomId, VariantId};
use crate::money::{Currency, Money};

/// How far ahead a caller may place a card.
pub(crate) const AHEAD_US_MAX: i64 = 60_000_000;
/// Events of a room; its end may write a few more.
const EVENTS_MAX: i64 = 100_000;
/// The life of an offer.
const OFFER_S: i64 = 24 * 60 * 60;

/// Why a card was not put on the timeline.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CardError {
    #[error("there is no such room")]
    NoRoom,
    #[error("the room is {0}; cards need one that is on air")]
    NotLive(&'static str),
    #[error("the room is over; its cards stay as they are")]
    Ended,
    #[error("at_us lies between now with the room's lead, and 60 s ahead")]
    OutOfRange,
    #[error("a room has at most {EVENTS_MAX} cards")]
    LimitReached,
    #[error("too many cards; wait a moment")]
    TooMany,
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("writing the card")]
    Db(#[from] sqlx::Error),
}

/// Who puts a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By<'a> {
    /// Somebody at the controls, by the name the log knows.
    Person(&'a str),
    System,
}

/// What a card is to say.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    Data(Data),
    /// The room's price of a variant of this merchant; none takes it back.
    Price {
        merchant: MerchantId,
        variant: VariantId,
        amount: Option<i64>,
        currency: Currency,
    },
}

/// A card before it is stamped.
#[derive(Clone, Debug)]
pub(crate) struct NewCard {
    pub(crate) action: Action,
    pub(crate) entry: Option<EntryId>,
    /// None: as soon as the room's lead allows.
    pub(crate) at_us: Option<i64>,
    /// 0: until something else is said.
    pub(crate) ttl_us: i64,
    pub(crate) says: Says,
}

impl NewCard {
    /// A card that takes effect at once and stays.
    pub(crate) const fn of(action: Action, entry: Option<EntryId>, data: Data) -> Self {
        Self {
            action,
            entry,
            at_us: None,
            ttl_us: 0,
            says: Says::Data(data),
        }
    }
}

/// Where a card stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedCard {
    pub(crate) seq: i64,
    pub(crate) at_us: i64,
    pub(crate) issued_at: Timestamp,
    /// It was there: nothing was written.
    pub(crate) is_repeat: bool,
}

/// A room's cards as one connection sees them.
#[derive(Clone, Debug)]
pub(in crate::rooms) struct RoomCards {
    pub(in crate::rooms) room: Room,
    pub(in crate::rooms) clock: RoomClock,
    pub(in crate::rooms) timeline: Timeline,
}

impl RoomCards {
    /// Sees to it that the room's timeline is in memory. Whoever holds a reader's connection calls
    /// it before: reading it needs another, and there are few.
    pub(in crate::rooms) async fn prepare(app: &App, id: RoomId) -> sqlx::Result<()> {
        let line = Line::of(app, id);
        if line.is_read() {
            return Ok(());
        }
        let mut reader = app.db.readers().acquire().await?;
        let Some(room) = rooms::find_in(&mut reader, id).await? else {
            return Ok(());
        };
        let clock = now_of(&mut reader, app, &room).await?;
        drop(reader);
        line.timeline(app, clock.now_us).await?;
        Ok(())
    }

    /// Looks at a room that this connection has read, or locked.
    pub(in crate::rooms) async fn read(
        connection: &mut sqlx::AnyConnection,
        app: &App,
        room: Room,
    ) -> sqlx::Result<Self> {
        let line = Line::of(app, room.id);
        let clock = now_of(connection, app, &room).await?;
        let mut timeline = line.timeline(app, clock.now_us).await?;
        let seq = store::seq(connection, room.id).await?;
        if seq > timeline.seq() {
            // Cards of this transaction, or of one whose hand-over is still to come.
            let behind = timeline.seq();
            for event in store::events_after(connection, room.id, behind).await? {
                timeline.insert(event);
            }
        }
        Ok(Self {
            room,
            clock,
            timeline,
        })
    }
}

/// Room time now; it never runs back.
pub(in crate::rooms) async fn now_of(
    connection: &mut sqlx::AnyConnection,
    app: &App,
    room: &Room,
) -> sqlx::Result<RoomClock> {
    let line = Line::of(app, room.id);
    let is_before = matches!(room.state, State::Scheduled | State::Rehearsal);
    // Before the show every instance begins at 0: its time may run back.
    let floor_us = if is_before { 0 } else { line.floor_us() };
    let spans = clock::spans(connection, room.id).await?;
    let running = broadcasts::running(app, room.id);
    let read = clock::read(room, &spans, running, (app.clock.now(), floor_us));
    if !is_before && !room.state.is_over() {
        line.saw(read.now_us);
    }
    Ok(read)
}

/// A room's timeline while one transaction writes on it.
#[derive(Debug)]
pub(crate) struct Desk {
    line: Arc<Line>,
    cards: RoomCards,
    now: Timestamp,
    written: Written,
}

/// What was written, to be handed over after the commit. Dropped, the next look at the room finds
/// what was committed of it.
#[derive(Debug)]
#[must_use = "after the commit the carriers wait for it"]
pub(crate) struct Written {
    line: Arc<Line>,
    is_rehearsal: bool,
    events: Vec<(Arc<Event>, Option<HeldCue>)>,
    checkpoint: Option<Checkpoint>,
}

impl Written {
    /// Hands everything over. Call it once the transaction is committed.
    pub(crate) fn hand_over(self, app: &App) {
        for (event, held) in self.events {
            if self.is_rehearsal {
                self.line.rehearse(event);
                continue;
            }
            if let Some(held) = held {
                self.line.keep(event.seq, held);
            }
            self.line.hand_over(app, event);
        }
        if let Some(checkpoint) = self.checkpoint {
            self.line.settle(checkpoint);
        }
    }
}

impl Desk {
    /// Locks the room until the end of the transaction.
    pub(crate) async fn open(tx: &mut Tx, app: &App, id: RoomId) -> Result<Self, CardError> {
        let room = rooms::lock(tx, id).await?.ok_or(CardError::NoRoom)?;
        Self::of(tx, app, room).await
    }

    /// The same for a room that the transaction has locked.
    pub(in crate::rooms) async fn of(
        tx: &mut Tx,
        app: &App,
        room: Room,
    ) -> Result<Self, CardError> {
        let is_rehearsal = match room.state {
            State::Live | State::Interrupted => false,
            State::Rehearsal => true,
            State::Ended => return Err(CardError::Ended),
            State::Scheduled | State::Cancelled => {
                return Err(CardError::NotLive(room.state.as_str()));
            }
        };
        let line = Line::of(app, room.id);
        let mut cards = RoomCards::read(tx, app, room).await?;
        if is_rehearsal {
            cards.timeline = line.rehearsed();
        }
        let written = Written {
            line: Arc::clone(&line),
            is_rehearsal,
            events: Vec::new(),
            checkpoint: None,
        };
        Ok(Self {
            line,
            cards,
            now: app.clock.now(),
            written,
        })
    }

    pub(in crate::rooms) const fn cards(&self) -> &RoomCards {
        &self.cards
    }

    /// Puts one card, unless it says what holds already.
    pub(crate) async fn put(
        &mut self,
        tx: &mut Tx,
        app: &App,
        by: By<'_>,
        card: NewCard,
    ) -> Result<PlacedCard, CardError> {
        let at_us = self.stamp(card.at_us)?;
        self.put_at(tx, app, by, (card, at_us)).await
    }

    /// Takes an entry out of every card, those that are ahead too.
    pub(in crate::rooms) async fn withdraw(
        &mut self,
        tx: &mut Tx,
        app: &App,
        by: By<'_>,
        entry: EntryId,
    ) -> Result<(), CardError> {
        let at_us = self.stamp(None)?;
        let mut closings = Vec::new();
        let cards = self.cards.timeline.at(at_us);
        for (slot, action) in [
            (&cards.pinned, Action::Unpin),
            (&cards.explained, Action::ExplainEnd),
        ] {
            if slot.has(&entry, at_us) {
                closings.push((action, at_us));
            }
        }
        let ahead = self.cards.timeline.ahead(at_us);
        for event in ahead.filter(|event| event.entry == Some(entry)) {
            match event.action {
                Action::Pin => closings.push((Action::Unpin, event.at_us)),
                Action::ExplainStart => closings.push((Action::ExplainEnd, event.at_us)),
                _ => {}
            }
        }
        for (action, at_us) in closings {
            let card = NewCard::of(action, None, Data::None);
            self.put_at(tx, app, by, (card, at_us)).await?;
        }
        Ok(())
    }

    /// Closes what is pinned and explained at the end of the show, and writes the last checkpoint.
    pub(in crate::rooms) async fn close(
        mut self,
        tx: &mut Tx,
        app: &App,
    ) -> Result<Written, CardError> {
        if self.written.is_rehearsal {
            return Ok(self.written);
        }
        let end_us = self.cards.clock.now_us;
        let cards = self.cards.timeline.at(end_us);
        let is_shown = [
            (Action::Unpin, shows(&cards.pinned, end_us)),
            (Action::ExplainEnd, shows(&cards.explained, end_us)),
            (Action::CouponUnpin, shows(&cards.coupon, end_us)),
        ];
        for (action, _) in is_shown.into_iter().filter(|(_, is_shown)| *is_shown) {
            let card = NewCard::of(action, None, Data::None);
            self.put_at(tx, app, By::System, (card, end_us)).await?;
        }
        if let Some(last) = self.cards.timeline.last(end_us) {
            store::insert_checkpoint(tx, self.cards.room.id, &last).await?;
            self.written.checkpoint = Some(last);
        }
        Ok(self.written)
    }

    /// Ends the writing; a checkpoint that is due is written with it.
    pub(crate) async fn finish(mut self, tx: &mut Tx) -> Result<Written, CardError> {
        let now_us = self.cards.clock.now_us;
        let is_due = !self.written.is_rehearsal;
        if let Some(due) = self.cards.timeline.due(now_us).filter(|_| is_due) {
            store::insert_checkpoint(tx, self.cards.room.id, &due).await?;
            self.written.checkpoint = Some(due);
        }
        Ok(self.written)
    }

    /// When a card takes effect (T1).
    fn stamp(&self, asked_us: Option<i64>) -> Result<i64, CardError> {
        let now_us = self.cards.clock.now_us;
        let earliest_us = now_us + self.cards.room.card_lead_ms.saturating_mul(1_000);
        let allowed = earliest_us..=now_us + AHEAD_US_MAX;
        let at_us = asked_us.unwrap_or(earliest_us);
        allowed
            .contains(&at_us)
            .then_some(at_us)
            .ok_or(CardError::OutOfRange)
    }

    async fn put_at(
        &mut self,
        tx: &mut Tx,
        app: &App,
        by: By<'_>,
        (card, at_us): (NewCard, i64),
    ) -> Result<PlacedCard, CardError> {
        let seq = self.cards.timeline.seq() + 1;
        if by != By::System && seq > EVENTS_MAX {
            return Err(CardError::LimitReached);
        }
        let merchant = match card.says {
            Says::Price { merchant, .. } => Some(merchant),
            Says::Data(_) => None,
        };
        let event = Event::write(Stamped {
            room: self.cards.room.id,
            seq,
            action: card.action,
            at_us,
            issued_us: self.now.as_micros(),
            ttl_us: card.ttl_us,
            entry: card.entry,
            data: self.data(app, &card, (seq, at_us)),
        })?;
        if let Some(repeat) = self.cards.timeline.at(at_us).repeated_by(&event) {
            return Ok(self.repeated(repeat));
        }
        let event = Arc::new(event);
        let held = if self.written.is_rehearsal {
            None
        } else {
            let held = self.hold(app, by, &event)?;
            let actor = match by {
                By::Person(name) => name,
                By::System => "system",
            };
            store::insert(tx, self.cards.room.id, &event, actor).await?;
            self.tell(tx, &event, merchant).await?;
            held
        };
        self.cards.timeline.insert(Arc::clone(&event));
        self.written.events.push((event, held));
        Ok(PlacedCard {
            seq,
            at_us,
            issued_at: self.now,
            is_repeat: false,
        })
    }

    fn repeated(&self, repeat: Repeat) -> PlacedCard {
        let from_the_start = self
            .cards
            .room
            .live_at
            .unwrap_or(self.cards.room.created_at);
        let issued_at = repeat.issued_us.map(Timestamp::from_micros);
        PlacedCard {
            seq: repeat.seq,
            at_us: repeat.at_us,
            issued_at: issued_at.unwrap_or(from_the_start),
            is_repeat: true,
        }
    }

    /// The card's data; a price carries the offer that promises it.
    fn data(&self, app: &App, card: &NewCard, (seq, at_us): (i64, i64)) -> Data {
        let (variant, amount, currency) = match &card.says {
            Says::Data(data) => return data.clone(),
            Says::Price {
                variant,
                amount,
                currency,
                ..
            } => (*variant, *amount, *currency),
        };
        let sign = |amount| {
            let offer = Offer {
                room: Some(self.cards.room.id),
                entry: card.entry,
                variant,
                deal: None,
                seq,
                price: Money::new(amount, currency),
                from_us: at_us,
                expires_s: self.now.as_micros().div_euclid(1_000_000) + OFFER_S,
            };
            offers::sign(app, &offer)
        };
        Data::Price(PriceData {
            variant,
            amount,
            currency,
            offer: amount.map(sign),
        })
    }

    fn hold(&self, app: &App, by: By<'_>, event: &Event) -> Result<Option<HeldCue>, CardError> {
        match self.line.hold(app, event) {
            Ok(held) => Ok(held),
            Err(_over) if by == By::System => Ok(None),
            Err(PlaceCueError::NotLive | PlaceCueError::Refused(_)) => Err(CardError::TooMany),
        }
    }

    async fn tell(
        &self,
        tx: &mut Tx,
        event: &Event,
        merchant: Option<MerchantId>,
    ) -> sqlx::Result<()> {
        let kind = match event.action {
            Action::Pin => Kind::CardPinned,
            Action::Unpin => Kind::CardUnpinned,
            Action::ExplainStart => Kind::CardExplained,
            Action::Price => Kind::CardPriceChanged,
            // Deals tell of themselves; the others are no news outside the room.
            _ => return Ok(()),
        };
        let room = &self.cards.room;
        let mut streams = vec![Stream::Creator(room.creator), Stream::Platform];
        streams.extend(merchant.map(Stream::Merchant));
        let news = NewEvent {
            kind,
            subject_kind: SubjectKind::Room,
            subject_id: room.id.to_string(),
            streams,
            data: news_of(room, event),
        };
        events::append(tx, self.now, news).await?;
        Ok(())
    }
}

fn news_of(room: &Room, event: &Event) -> Value {
    let mut data = json!({
        "room_id": room.id,
        "creator_id": room.creator,
        "seq": event.seq,
        "at_us": event.at_us,
        "entry_id": event.entry,
    });
    if let (Data::Price(price), Some(fields)) = (&event.data, data.as_object_mut()) {
        let amount = price
            .amount
            .map(|amount| Money::new(amount, price.currency));
        fields.insert("variant_id".into(), json!(price.variant));
        fields.insert("price".into(), json!(amount));
    }
    data
}

fn shows<T>(slot: &Slot<T>, at_us: i64) -> bool {
    slot.at(at_us).is_some_and(|held| held.value.is_some())
}
