//! Events: what happened, told once it is true.
//!
//! A use case appends an event to the outbox in the transaction of the change ([`append`]). The
//! [`Relay`] moves it into the event log, numbers it per stream, and publishes it on the [`Bus`].
//!
//! Invariants
//! - Every committed change has its event, and no event tells of a change that was rolled back.
//! - `seq` has no gap per stream, `subject_seq` none per subject; a subject's n+1 is never
//!   published before its n.
//! - Delivery is at least once: a consumer ignores an id it has seen.
//!
//! Not here: webhooks, the event API, what viewers hear.

mod bus;
mod outbox;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub use self::bus::Bus;
pub(crate) use self::outbox::{Relay, append, append_all};
use crate::clock::Timestamp;
use crate::ids::{CreatorId, EventId, MerchantId};

/// A kind of event, by its name on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    AccountRegistered,
    SessionStarted,
    CreatorCreated,
    CreatorChanged,
    OperatorChanged,
    RoomScheduled,
    RoomLive,
    RoomInterrupted,
    RoomResumed,
    RoomEnded,
    RoomCancelled,
    CardPinned,
    CardUnpinned,
    CardExplained,
    CardPriceChanged,
    LedgerDayClosed,
    ProductCreated,
    ProductUpdated,
    ProductArchived,
    InventorySoldOut,
    InventoryRestocked,
    InventoryAdjusted,
    OrderReserved,
    OrderPaid,
    OrderExpired,
    OrderCancelled,
    PaymentCaptured,
    OrderShipped,
    OrderDelivered,
    OrderCompleted,
    SettlementScheduled,
    SettlementReleased,
}

impl Kind {
    const ALL: [Self; 32] = [
        Self::AccountRegistered,
        Self::SessionStarted,
        Self::CreatorCreated,
        Self::CreatorChanged,
        Self::OperatorChanged,
        Self::RoomScheduled,
        Self::RoomLive,
        Self::RoomInterrupted,
        Self::RoomResumed,
        Self::RoomEnded,
        Self::RoomCancelled,
        Self::CardPinned,
        Self::CardUnpinned,
        Self::CardExplained,
        Self::CardPriceChanged,
        Self::LedgerDayClosed,
        Self::ProductCreated,
        Self::ProductUpdated,
        Self::ProductArchived,
        Self::InventorySoldOut,
        Self::InventoryRestocked,
        Self::InventoryAdjusted,
        Self::OrderReserved,
        Self::OrderPaid,
        Self::OrderExpired,
        Self::OrderCancelled,
        Self::PaymentCaptured,
        Self::OrderShipped,
        Self::OrderDelivered,
        Self::OrderCompleted,
        Self::SettlementScheduled,
        Self::SettlementReleased,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AccountRegistered => "account.registered",
            Self::SessionStarted => "session.started",
            Self::CreatorCreated => "creator.created",
            Self::CreatorChanged => "creator.changed",
            Self::OperatorChanged => "operator.changed",
            Self::RoomScheduled => "room.scheduled",
            Self::RoomLive => "room.live",
            Self::RoomInterrupted => "room.interrupted",
            Self::RoomResumed => "room.resumed",
            Self::RoomEnded => "room.ended",
            Self::RoomCancelled => "room.cancelled",
            Self::CardPinned => "card.pinned",
            Self::CardUnpinned => "card.unpinned",
            Self::CardExplained => "card.explained",
            Self::CardPriceChanged => "card.price_changed",
            Self::LedgerDayClosed => "ledger.day_closed",
            Self::ProductCreated => "product.created",
            Self::ProductUpdated => "product.updated",
            Self::ProductArchived => "product.archived",
            Self::InventorySoldOut => "inventory.sold_out",
            Self::InventoryRestocked => "inventory.restocked",
            Self::InventoryAdjusted => "inventory.adjusted",
            Self::OrderReserved => "order.reserved",
            Self::OrderPaid => "order.paid",
            Self::OrderExpired => "order.expired",
            Self::OrderCancelled => "order.cancelled",
            Self::PaymentCaptured => "payment.captured",
            Self::OrderShipped => "order.shipped",
            Self::OrderDelivered => "order.delivered",
            Self::OrderCompleted => "order.completed",
            Self::SettlementScheduled => "settlement.scheduled",
            Self::SettlementReleased => "settlement.released",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubjectKind {
    Account,
    Creator,
    Room,
    LedgerDay,
    Product,
    Stock,
    Order,
    Payment,
    Settlement,
}

impl SubjectKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Creator => "creator",
            Self::Room => "room",
            Self::LedgerDay => "ledger_day",
            Self::Product => "product",
            Self::Stock => "stock",
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Settlement => "settlement",
        }
    }
}

/// A numbered sequence of events with one audience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Creator(CreatorId),
    Merchant(MerchantId),
    Platform,
    Social,
}

impl Stream {
    fn name(self) -> String {
        match self {
            Self::Creator(id) => format!("creator:{id}"),
            Self::Merchant(id) => format!("merchant:{id}"),
            Self::Platform => "platform".into(),
            Self::Social => "social".into(),
        }
    }
}

/// An event before it has an id and numbers.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub kind: Kind,
    pub subject_kind: SubjectKind,
    pub subject_id: String,
    pub streams: Vec<Stream>,
    pub data: Value,
}

/// An event as the bus carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub kind: Kind,
    pub subject_id: String,
    pub subject_seq: i64,
    pub occurred_at: Timestamp,
    pub data: Value,
}
