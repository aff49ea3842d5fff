//! Ids: a prefix and 26 characters of Crockford base32 holding a `UUIDv7`.
//!
//! Invariants
//! - One type per kind of thing, so that a room id never stands where a creator id belongs.
//! - Ids made by one process sort in the order they were made.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use uuid::{ContextV7, Uuid};

use crate::clock::Timestamp;

const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LEN: usize = 26;

/// The counter that keeps ids of one millisecond in order.
static ORDER: Mutex<ContextV7> = Mutex::new(ContextV7::new());

/// The text is not an id of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct BadId;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id of this moment.
            pub fn new(now: Timestamp) -> Self {
                Self(new_v7(now))
            }

            /// The id that the same cause always makes (payments.md 6).
            pub fn derived(cause: &[&str]) -> Self {
                Self(derive(cause))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(&encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                let digits = text.strip_prefix($prefix).ok_or(BadId)?;
                decode(digits).map(Self).ok_or(BadId)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

ids! {
    /// A login.
    AccountId = "acc_";
    /// A Life Account: the page that streams and posts.
    CreatorId = "cre_";
    /// One live show.
    RoomId = "room_";
    /// A machine credential, or the key of a publisher.
    KeyId = "key_";
    /// A fact told to the outside.
    EventId = "evt_";
    /// A row of the audit log.
    AuditId = "aud_";
    /// A login that is open.
    SessionId = "ses_";
    /// The wish that somebody operate a creator.
    InviteId = "inv_";
    /// A shop.
    MerchantId = "mch_";
    /// What is described.
    ProductId = "prd_";
    /// What is priced, counted and bought.
    VariantId = "var_";
    /// A row of a variant's price list.
    PriceId = "prc_";
    /// A change of a variant's stock.
    MovementId = "mov_";
    /// Stock held for an order.
    ReservationId = "rsv_";
    /// A product on a room's shelf.
    EntryId = "shf_";
    /// A flash price with a quota and a clock.
    DealId = "deal_";
    /// A rule that lowers a price.
    CouponId = "cpn_";
    /// One act of buying.
    CheckoutId = "chk_";
    /// What one buyer buys of one merchant.
    OrderId = "ord_";
    /// One variant of an order.
    LineId = "lin_";
    /// A parcel of an order.
    ShipmentId = "shp_";
    /// The split of a completed order, and its calendar.
    SettlementId = "stl_";
    /// What a checkout owes, once.
    PaymentId = "pay_";
    /// One try to pay with one provider.
    AttemptId = "att_";
    /// An account of the ledger.
    LedgerAccountId = "led_";
    /// A movement between two accounts of the ledger.
    TransferId = "trf_";
}

fn new_v7(now: Timestamp) -> Uuid {
    let us = u64::try_from(now.as_micros()).unwrap_or(0);
    let nanos = u32::try_from(us % 1_000_000 * 1_000).unwrap_or(0);
    let order = ORDER.lock().unwrap_or_else(PoisonError::into_inner);
    Uuid::new_v7(uuid::Timestamp::from_unix(&*order, us / 1_000_000, nanos))
}

/// SHA-256 over the parts, joined by `|`: its first 16 bytes, marked as `UUIDv8`.
fn derive(cause: &[&str]) -> Uuid {
    let digest = Sha256::digest(cause.join("|").as_bytes());
    let mut bytes = [0; 16];
    bytes
        .iter_mut()
        .zip(digest)
        .for_each(|(to, from)| *to = from);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

fn encode(id: Uuid) -> String {
    let bits = id.as_u128();
    let digit = |n: usize| {
        let five = usize::try_from((bits >> (5 * (LEN - 1 - n))) & 31).unwrap_or(0);
        char::from(DIGITS[five])
    };
    (0..LEN).map(digit).collect()
}

fn decode(digits: &str) -> Option<Uuid> {
    let bytes = digits.as_bytes();
    if bytes.len() != LEN || bytes.first()? > &b'7' {
        return None;
    }
    let mut bits = 0_u128;
    for byte in bytes {
        let five = DIGITS.iter().position(|d| d == byte)?;
        bits = bits << 5 | u128::try_from(five).ok()?;
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn another_prefix_case_or_length_is_not_an_id() {
        let id = RoomId::new(Timestamp::from_micros(1_700_000_000_000_000)).to_string();
        assert_eq!(id.len(), "room_".len() + LEN);
        let other = id.replace("room_", "cre_");
        let lower = format!("room_{}", id["room_".len()..].to_lowercase());
        let big = format!("room_8{}", &id["room_0".len()..]);
        for bad in [&other, &lower, &big, &id[..id.len() - 1], "", "room_"] {
            assert_eq!(bad.parse::<RoomId>(), Err(BadId), "{bad}");
        }
    }

    #[test]
    fn ids_of_one_instant_sort_in_the_order_they_were_made() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let made: Vec<_> = (0..1_000).map(|_| RoomId::new(now).to_string()).collect();
        assert!(made.is_sorted());
    }

    #[test]
    fn the_same_cause_makes_the_same_id_and_another_another() {
        let made = EventId::derived(&["refund", "att_1", "ord_1"]);
        assert_eq!(made, EventId::derived(&["refund", "att_1", "ord_1"]));
        assert_ne!(made, EventId::derived(&["refund", "att_1", "ord_2"]));
        assert_eq!(made.to_string().parse::<EventId>(), Ok(made));
        assert_eq!(made.0.get_version_num(), 8);
    }

    proptest! {
        #[test]
        fn an_id_read_back_is_the_same(us in 0_i64..4_000_000_000_000_000) {
            let id = EventId::new(Timestamp::from_micros(us));
            prop_assert_eq!(id.to_string().parse::<EventId>(), Ok(id));
        }
    }
}
