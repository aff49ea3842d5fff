//! Offer tokens (commerce.md 8, O2): one price of one variant, signed.
//!
//! Invariants
//! - The payload's keys stand in the order of the contract; the MAC covers every byte before it.
//! - Nothing of a token is read before its MAC was found good.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::keys::KeyRing;
use crate::clock::Timestamp;
use crate::ids::{DealId, EntryId, RoomId, VariantId};
use crate::money::{Currency, Money};

const PREFIX: &str = "ofr1.";
/// Bytes of a token: one of ours has under 300.
const TOKEN_BYTES_MAX: usize = 512;

/// One price of one variant, as a token carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// None outside rooms.
    pub(crate) room: Option<RoomId>,
    pub(crate) entry: Option<EntryId>,
    pub(crate) variant: VariantId,
    pub(crate) deal: Option<DealId>,
    /// The `seq` of the card that set the price, or the version of the price's row.
    pub(crate) seq: i64,
    pub(crate) price: Money,
    /// The room time from which it is valid; 0 outside rooms.
    pub(crate) from_us: i64,
    /// Unix seconds.
    pub(crate) expires_s: i64,
}

/// Why a token is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("the offer was not made here, or was changed")]
    Invalid,
    #[error("the offer has expired")]
    Expired,
}

/// The keys stand in the order of the contract.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Payload {
    k: u32,
    r: Option<RoomId>,
    e: Option<EntryId>,
    v: VariantId,
    d: Option<DealId>,
    q: i64,
    a: i64,
    c: Currency,
    f: i64,
    x: i64,
}

/// Signs an offer with the newest key.
pub(super) fn write(keys: &KeyRing, offer: &Offer) -> String {
    let key = keys.newest();
    let payload = Payload {
        k: key.id,
        r: offer.room,
        e: offer.entry,
        v: offer.variant,
        d: offer.deal,
        q: offer.seq,
        a: offer.price.amount_minor(),
        c: offer.price.currency(),
        f: offer.from_us,
        x: offer.expires_s,
    };
    let payload = serde_json::to_vec(&payload).expect("ids and numbers have a JSON form");
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload));
    let mac = URL_SAFE_NO_PAD.encode(key.mac(text.as_bytes()));
    format!("{text}.{mac}")
}

/// Reads a token that one of the keys signed.
pub(super) fn read(keys: &KeyRing, now: Timestamp, token: &str) -> Result<Offer, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Invalid);
    }
    let (text, mac) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
    let mac = URL_SAFE_NO_PAD.decode(mac);
    let mac = mac.map_err(|_shape| TokenError::Invalid)?;
    let signer = keys.signer(now, text.as_bytes(), &mac);
    let signer = signer.ok_or(TokenError::Invalid)?;
    let payload = text.strip_prefix(PREFIX).ok_or(TokenError::Invalid)?;
    let payload = URL_SAFE_NO_PAD.decode(payload);
    let payload = payload.map_err(|_shape| TokenError::Invalid)?;
    let payload = serde_json::from_slice::<Payload>(&payload);
    let payload = payload.map_err(|_shape| TokenError::Invalid)?;
    if payload.k != signer {
        return Err(TokenError::Invalid);
    }
    if now.as_micros().div_euclid(1_000_000) > payload.x {
        return Err(TokenError::Expired);
    }
    Ok(Offer {
        room: payload.r,
        entry: payload.e,
        variant: payload.v,
        deal: payload.d,
        seq: payload.q,
        price: Money::new(payload.a, payload.c),
        from_us: payload.f,
        expires_s: payload.x,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::db::NOON;

    /// Vector V8 of payments.md 19.
    const V8: &str = concat!(
        r#"{"k":1,"r":"room_01KDY1234567890ABCDEFGHJKM","e":"shf_01KDY1234567890ABCDEFGHJKM","#,
        r#""v":"var_01KDY1234567890ABCDEFGHJKM","d":null,"q":7,"a":1999,"c":"CNY","#,
        r#""f":12345678,"x":1767380645}"#
    );

    fn vector() -> (KeyRing, Offer) {
        let mut key = [0; 32];
        key.iter_mut().zip(0..).for_each(|(byte, n)| *byte = n);
        let offer = Offer {
            room: "room_01KDY1234567890ABCDEFGHJKM".parse().ok(),
            entry: "shf_01KDY1234567890ABCDEFGHJKM".parse().ok(),
            variant: "var_01KDY1234567890ABCDEFGHJKM".parse().unwrap(),
            deal: None,
            seq: 7,
            price: Money::new(1_999, Currency::CNY),
            from_us: 12_345_678,
            expires_s: 1_767_380_645,
        };
        (KeyRing::of(1, &key), offer)
    }

    const BEFORE: Timestamp = Timestamp::from_micros(1_767_294_245_000_000);

    #[test]
    fn the_vector_is_written_to_the_byte_and_read_back() {
        let (keys, offer) = vector();
        let token = write(&keys, &offer);
        assert_eq!(token.len(), 270);
        assert!(token.ends_with(".TazZkRs5xzfv3VZnhVcb0w"), "{token}");
        let payload = token.split('.').nth(1).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
        assert_eq!(String::from_utf8(payload).unwrap(), V8);
        assert_eq!(read(&keys, BEFORE, &token), Ok(offer));
    }

    #[test]
    fn an_offer_lasts_to_its_last_second() {
        let (keys, offer) = vector();
        let token = write(&keys, &offer);
        let last = Timestamp::from_micros(offer.expires_s * 1_000_000 + 999_999);
        assert_eq!(read(&keys, last, &token), Ok(offer));
        let after = last.plus(Duration::from_micros(1));
        assert_eq!(read(&keys, after, &token), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_any_one_byte_altered_is_refused() {
        let (keys, offer) = vector();
        let token = write(&keys, &offer);
        for place in 0..token.len() {
            for byte in 0x20..0x7f {
                let mut altered = token.clone().into_bytes();
                if altered[place] == byte {
                    continue;
                }
                altered[place] = byte;
                let altered = String::from_utf8(altered).unwrap();
                let found = read(&keys, BEFORE, &altered);
                assert_eq!(found, Err(TokenError::Invalid), "{altered}");
            }
        }
    }

    #[test]
    fn a_token_of_another_key_is_refused() {
        let (_, offer) = vector();
        let token = write(&KeyRing::of(1, &[1; 32]), &offer);
        let found = read(&KeyRing::of(1, &[2; 32]), BEFORE, &token);
        assert_eq!(found, Err(TokenError::Invalid));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_back_and_what_was_altered_is_not(
            (seq, amount) in (1_i64..100_000, 1_i64..10_000_000_000),
            (from_us, hours, has_room) in (0_i64..1 << 40, 0_i64..24, any::<bool>()),
            (place, flip) in (any::<prop::sample::Index>(), 1_u8..=255),
        ) {
            let (keys, offer) = vector();
            let offer = Offer {
                room: offer.room.filter(|_| has_room),
                seq,
                price: Money::new(amount, Currency::CNY),
                from_us,
                expires_s: NOON.as_micros() / 1_000_000 + hours * 3_600,
                ..offer
            };
            let token = write(&keys, &offer);
            prop_assert_eq!(read(&keys, NOON, &token), Ok(offer));
            let mut altered = token.into_bytes();
            let place = place.index(altered.len());
            altered[place] ^= flip;
            // Bytes that are no text cannot even be asked about.
            if let Ok(altered) = String::from_utf8(altered) {
                prop_assert_eq!(read(&keys, NOON, &altered), Err(TokenError::Invalid));
            }
        }

        #[test]
        fn no_text_whatever_is_read_as_an_offer(text in ".{0,300}") {
            let (keys, _) = vector();
            prop_assert_eq!(read(&keys, NOON, &text), Err(TokenError::Invalid));
        }
    }
}
