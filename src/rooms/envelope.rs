//! Envelopes (commerce.md 9): what a card says, to the byte. Pure.
//!
//! Invariant: an envelope's bytes are written once, in the key order of the contract.
//!
//! Not here: what cards fold to ([`super::timeline`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use crate::ids::{CouponId, DealId, EntryId, RoomId, VariantId};
use crate::money::Currency;

/// Bytes of an envelope and of its data.
const ENVELOPE_BYTES_MAX: usize = 1_024;
const DATA_BYTES_MAX: usize = 640;
const VERSION: u8 = 1;

/// What a card does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Pin,
    Unpin,
    ExplainStart,
    ExplainEnd,
    Price,
    DealAnnounce,
    DealOpen,
    DealClose,
    SoldOut,
    Restock,
    CouponPin,
    CouponUnpin,
    Custom,
}

impl Action {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::ExplainStart => "explain_start",
            Self::ExplainEnd => "explain_end",
            Self::Price => "price",
            Self::DealAnnounce => "deal_announce",
            Self::DealOpen => "deal_open",
            Self::DealClose => "deal_close",
            Self::SoldOut => "sold_out",
            Self::Restock => "restock",
            Self::CouponPin => "coupon_pin",
            Self::CouponUnpin => "coupon_unpin",
            Self::Custom => "custom",
        }
    }

    /// A late joiner of a media output needs it as long as it is open.
    pub(super) const fn is_listed(self) -> bool {
        matches!(
            self,
            Self::Pin | Self::ExplainStart | Self::CouponPin | Self::DealOpen
        )
    }
}

/// An event's `data`, by its action.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    None,
    Price(PriceData),
    Announce(AnnounceData),
    Open(OpenData),
    Close(DealData),
    Stock(StockData),
    Coupon(CouponData),
    Custom(Box<RawValue>),
}

/// Of `price`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct PriceData {
    pub(crate) variant: VariantId,
    /// None takes the room's price back.
    pub(crate) amount: Option<i64>,
    pub(crate) currency: Currency,
    pub(crate) offer: Option<String>,
}

/// Of `deal_announce`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct AnnounceData {
    pub(crate) deal: DealId,
    pub(crate) opens_in_ms: i64,
}

/// Of `deal_open`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct OpenData {
    pub(crate) deal: DealId,
    pub(crate) lines: Vec<OpenLine>,
    pub(crate) closes_in_ms: i64,
}

/// One variant of a deal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct OpenLine {
    pub(crate) variant: VariantId,
    pub(crate) amount: i64,
    pub(crate) quota: i64,
}

/// Of `deal_close`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct DealData {
    pub(crate) deal: DealId,
}

/// Of `sold_out` and `restock`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct StockData {
    pub(crate) variant: VariantId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deal: Option<DealId>,
}

/// Of `coupon_pin`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct CouponData {
    pub(crate) coupon: CouponId,
    pub(crate) title: String,
    /// RFC 3339
    pub(crate) ends_at: String,
}

/// Why a card cannot be an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EnvelopeError {
    #[error("a card has at most {ENVELOPE_BYTES_MAX} bytes, its data {DATA_BYTES_MAX}")]
    TooLarge,
    #[error("the envelope cannot be read")]
    Unreadable,
}

/// The keys stand in the order of the contract.
#[derive(Debug, Serialize)]
struct Envelope<'a> {
    v: u8,
    room: RoomId,
    seq: i64,
    action: Action,
    at_us: i64,
    issued_us: i64,
    ttl_us: i64,
    entry: Option<EntryId>,
    data: &'a RawValue,
}

#[derive(Debug, Deserialize)]
struct ReadEnvelope<'a> {
    v: u8,
    seq: i64,
    action: Action,
    at_us: i64,
    issued_us: i64,
    ttl_us: i64,
    entry: Option<EntryId>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A card before it is an envelope.
#[derive(Clone, Debug)]
pub(super) struct Stamped {
    pub(super) room: RoomId,
    pub(super) seq: i64,
    pub(super) action: Action,
    pub(super) at_us: i64,
    pub(super) issued_us: i64,
    pub(super) ttl_us: i64,
    pub(super) entry: Option<EntryId>,
    pub(super) data: Data,
}

/// An event of the timeline.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) seq: i64,
    pub(super) action: Action,
    pub(super) at_us: i64,
    pub(super) issued_us: i64,
    pub(super) ttl_us: i64,
    pub(super) entry: Option<EntryId>,
    pub(super) data: Data,
    /// The exact bytes that every carrier delivers.
    pub(super) envelope: Arc<str>,
}

/// A place of the state that a listed card holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListedSlot {
    Pinned,
    Explained,
    Coupon,
    Deal(DealId),
}

impl Event {
    /// Writes the envelope.
    pub(super) fn write(card: Stamped) -> Result<Self, EnvelopeError> {
        let data = card.data.to_raw();
        let data = data.map_err(|_shape| EnvelopeError::Unreadable)?;
        let envelope = Envelope {
            v: VERSION,
            room: card.room,
            seq: card.seq,
            action: card.action,
            at_us: card.at_us,
            issued_us: card.issued_us,
            ttl_us: card.ttl_us,
            entry: card.entry,
            data: &data,
        };
        let text = serde_json::to_string(&envelope);
        let text = text.map_err(|_shape| EnvelopeError::Unreadable)?;
        if text.len() > ENVELOPE_BYTES_MAX || data.get().len() > DATA_BYTES_MAX {
            return Err(EnvelopeError::TooLarge);
        }
        Ok(Self {
            seq: card.seq,
            action: card.action,
            at_us: card.at_us,
            issued_us: card.issued_us,
            ttl_us: card.ttl_us,
            entry: card.entry,
            data: card.data,
            envelope: text.into(),
        })
    }

    /// Reads what [`Event::write`] wrote.
    pub(super) fn read(envelope: &str) -> Result<Self, EnvelopeError> {
        let unreadable = |_shape| EnvelopeError::Unreadable;
        let read: ReadEnvelope<'_> = serde_json::from_str(envelope).map_err(unreadable)?;
        if read.v != VERSION {
            return Err(EnvelopeError::Unreadable);
        }
        Ok(Self {
            seq: read.seq,
            action: read.action,
            at_us: read.at_us,
            issued_us: read.issued_us,
            ttl_us: read.ttl_us,
            entry: read.entry,
            data: Data::read(read.action, read.data).map_err(unreadable)?,
            envelope: envelope.into(),
        })
    }

    /// Its place in the order of the fold.
    pub(super) const fn place(&self) -> (i64, i64) {
        (self.at_us, self.seq)
    }

    /// The place of the state that it writes, of those that listed cards hold.
    pub(super) const fn slot(&self) -> Option<ListedSlot> {
        match (self.action, &self.data) {
            (Action::Pin | Action::Unpin, _) => Some(ListedSlot::Pinned),
            (Action::ExplainStart | Action::ExplainEnd, _) => Some(ListedSlot::Explained),
            (Action::CouponPin | Action::CouponUnpin, _) => Some(ListedSlot::Coupon),
            (_, Data::Announce(AnnounceData { deal, .. }))
            | (_, Data::Open(OpenData { deal, .. }))
            | (_, Data::Close(DealData { deal })) => Some(ListedSlot::Deal(*deal)),
            _ => None,
        }
    }

    pub(super) const fn until_us(&self) -> Option<i64> {
        if self.ttl_us == 0 {
            None
        } else {
            Some(self.at_us.saturating_add(self.ttl_us))
        }
    }
}

impl Data {
    fn to_raw(&self) -> serde_json::Result<Box<RawValue>> {
        match self {
            Self::None => RawValue::from_string("{}".into()),
            Self::Price(data) => to_raw_value(data),
            Self::Announce(data) => to_raw_value(data),
            Self::Open(data) => to_raw_value(data),
            Self::Close(data) => to_raw_value(data),
            Self::Stock(data) => to_raw_value(data),
            Self::Coupon(data) => to_raw_value(data),
            Self::Custom(data) => Ok(data.clone()),
        }
    }

    fn read(action: Action, raw: &RawValue) -> serde_json::Result<Self> {
        let text = raw.get();
        Ok(match action {
            Action::Pin
            | Action::Unpin
            | Action::ExplainStart
            | Action::ExplainEnd
            | Action::CouponUnpin => Self::None,
            Action::Price => Self::Price(serde_json::from_str(text)?),
            Action::DealAnnounce => Self::Announce(serde_json::from_str(text)?),
            Action::DealOpen => Self::Open(serde_json::from_str(text)?),
            Action::DealClose => Self::Close(serde_json::from_str(text)?),
            Action::SoldOut | Action::Restock => Self::Stock(serde_json::from_str(text)?),
            Action::CouponPin => Self::Coupon(serde_json::from_str(text)?),
            Action::Custom => Self::Custom(raw.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::db::NOON;

    fn room() -> RoomId {
        RoomId::derived(&["room"])
    }

    fn entry(n: u8) -> EntryId {
        EntryId::derived(&["entry", &n.to_string()])
    }

    fn variant(n: u8) -> VariantId {
        VariantId::derived(&["variant", &n.to_string()])
    }

    fn stamped(seq: i64, action: Action, data: Data) -> Stamped {
        Stamped {
            room: room(),
            seq,
            action,
            at_us: 1_000 * seq,
            issued_us: NOON.as_micros(),
            ttl_us: 0,
            entry: None,
            data,
        }
    }

    #[test]
    fn an_envelope_is_compact_and_its_keys_stand_in_order() {
        let card = Stamped {
            entry: Some(entry(1)),
            ..stamped(7, Action::Pin, Data::None)
        };
        let event = Event::write(card).unwrap();
        let expected = format!(
            concat!(
                r#"{{"v":1,"room":"{}","seq":7,"action":"pin","at_us":7000,"issued_us":{},"#,
                r#""ttl_us":0,"entry":"{}","data":{{}}}}"#
            ),
            room(),
            NOON.as_micros(),
            entry(1)
        );
        assert_eq!(*event.envelope, *expected);
    }

    #[test]
    fn the_data_of_each_action_has_its_own_keys() {
        let deal = DealId::derived(&["deal"]);
        let price = Data::Price(PriceData {
            variant: variant(1),
            amount: Some(5),
            currency: Currency::CNY,
            offer: Some("ofr1.x.y".into()),
        });
        let open = Data::Open(OpenData {
            deal,
            lines: vec![OpenLine {
                variant: variant(1),
                amount: 5,
                quota: 9,
            }],
            closes_in_ms: 60_000,
        });
        let (v, stock) = (variant(1), |deal| StockData {
            variant: variant(1),
            deal,
        });
        let cases = [
            (
                Action::Price,
                price,
                format!(r#"{{"variant":"{v}","amount":5,"currency":"CNY","offer":"ofr1.x.y"}}"#),
            ),
            (
                Action::DealOpen,
                open,
                format!(
                    concat!(
                        r#"{{"deal":"{}","lines":[{{"variant":"{}","amount":5,"quota":9}}],"#,
                        r#""closes_in_ms":60000}}"#
                    ),
                    deal, v
                ),
            ),
            (
                Action::SoldOut,
                Data::Stock(stock(None)),
                format!(r#"{{"variant":"{v}"}}"#),
            ),
            (
                Action::Restock,
                Data::Stock(stock(Some(deal))),
                format!(r#"{{"variant":"{v}","deal":"{deal}"}}"#),
            ),
        ];
        for (action, data, expected) in cases {
            let event = Event::write(stamped(1, action, data)).unwrap();
            assert!(
                event
                    .envelope
                    .ends_with(&format!(r#","data":{expected}}}"#))
            );
            let read = Event::read(&event.envelope).unwrap();
            assert_eq!(read.envelope, event.envelope);
            let again = Event::write(Stamped {
                data: read.data,
                ..stamped(1, action, Data::None)
            });
            assert_eq!(again.unwrap().envelope, event.envelope);
        }
    }

    #[test]
    fn an_envelope_beyond_its_bounds_is_refused() {
        let custom = |letters: usize| {
            let data = to_raw_value(&json!({ "x": "y".repeat(letters) })).unwrap();
            Event::write(stamped(1, Action::Custom, Data::Custom(data)))
        };
        let fits = DATA_BYTES_MAX - r#"{"x":""}"#.len();
        assert!(custom(fits).unwrap().envelope.len() <= ENVELOPE_BYTES_MAX);
        assert_eq!(custom(fits + 1).unwrap_err(), EnvelopeError::TooLarge);
    }
}
