//! What people at the controls say to a room's cards.

use serde_json::value::RawValue;

use super::super::envelope::{Action, Data};
use super::super::goods;
use super::super::model::Room;
use super::super::shelf;
use super::desk::{NewCard, Says};
use crate::db::Tx;
use crate::ids::{EntryId, MerchantId, VariantId};
use crate::money::Currency;

/// Minor units of a price.
pub(super) const AMOUNT: std::ops::RangeInclusive<i64> = 1..=10_000_000_000;

/// A command, as it was sent.
#[derive(Debug)]
pub(super) struct Command {
    pub(super) action: Action,
    pub(super) entry: Option<EntryId>,
    pub(super) at_us: Option<i64>,
    pub(super) ttl_us: i64,
    pub(super) what: What,
}

/// What it is about.
#[derive(Debug)]
pub(super) enum What {
    /// The entry alone says it.
    Entry,
    Price {
        variant: VariantId,
        /// None takes the room's price back.
        amount: Option<i64>,
        currency: Option<Currency>,
    },
    Custom(Box<RawValue>),
}

/// Why a command says nothing to this room.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("the entry is not on the shelf of this room, or is hidden")]
    NoEntry,
    #[error("no entry on the shelf of this room sells this variant")]
    NoVariant,
    #[error("the shop of this variant sells in another currency")]
    OtherCurrency,
    #[error("reading the shelf")]
    Db(#[from] sqlx::Error),
}

impl Command {
    /// The card that it asks for in a room; of a price, the shop that must allow it.
    pub(super) async fn card(
        self,
        tx: &mut Tx,
        room: &Room,
    ) -> Result<(NewCard, Option<MerchantId>), CommandError> {
        let (entry, says, merchant) = match self.what {
            What::Entry => {
                if let Some(id) = self.entry {
                    on_shelf(tx, room, id).await?;
                }
                (self.entry, Says::Data(Data::None), None)
            }
            What::Custom(data) => {
                if let Some(id) = self.entry {
                    on_shelf(tx, room, id).await?;
                }
                (self.entry, Says::Data(Data::Custom(data)), None)
            }
            What::Price {
                variant,
                amount,
                currency,
            } => {
                let (entry, own) = selling(tx, room, (variant, self.entry)).await?;
                if currency.is_some_and(|currency| currency != own) {
                    return Err(CommandError::OtherCurrency);
                }
                let says = Says::Price {
                    merchant: entry.merchant,
                    variant,
                    amount,
                    currency: own,
                };
                (Some(entry.id), says, Some(entry.merchant))
            }
        };
        let card = NewCard {
            action: self.action,
            entry,
            at_us: self.at_us,
            ttl_us: self.ttl_us,
            says,
        };
        Ok((card, merchant))
    }
}

async fn on_shelf(tx: &mut Tx, room: &Room, id: EntryId) -> Result<shelf::Entry, CommandError> {
    let entry = shelf::find(tx, id).await?;
    let entry = entry.filter(|entry| entry.room == room.id && !entry.is_hidden);
    entry.ok_or(CommandError::NoEntry)
}

/// The entry that sells a variant, the one that was named if any was; and its currency.
pub(super) async fn selling(
    tx: &mut Tx,
    room: &Room,
    (variant, named): (VariantId, Option<EntryId>),
) -> Result<(shelf::Entry, Currency), CommandError> {
    let product = goods::product_of(tx, variant).await?;
    let product = product.ok_or(CommandError::NoVariant)?;
    let variants = goods::variants(tx, [product]).await?;
    let sells = |entry: &shelf::Entry| {
        entry.product == product && entry.sold(&variants).any(|it| it.id == variant)
    };
    let entry = match named {
        Some(id) => Some(on_shelf(tx, room, id).await?),
        None => shelf::list(tx, room.id).await?.into_iter().find(sells),
    };
    let entry = entry.filter(sells).ok_or(CommandError::NoVariant)?;
    let products = goods::products(tx, [product]).await?;
    let currency = products.get(&product).map(|product| product.currency);
    let currency = currency.ok_or(CommandError::NoVariant)?;
    Ok((entry, currency))
}

/// JSON without the blanks that no reader needs.
pub(super) fn compact(raw: &RawValue) -> String {
    let (mut is_text, mut is_escaped) = (false, false);
    let kept = raw.get().chars().filter(|letter| {
        if is_text {
            is_text = is_escaped || *letter != '"';
            is_escaped = !is_escaped && *letter == '\\';
            return true;
        }
        is_text = *letter == '"';
        !letter.is_ascii_whitespace()
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn blanks_go_and_texts_stay() {
        let cases = [
            ("{ }", "{}"),
            ("{ \"a b\" : [ 1 , 2 ] }", r#"{"a b":[1,2]}"#),
            (
                r#"{"a": "x \" y", "b": "\\" }"#,
                r#"{"a":"x \" y","b":"\\"}"#,
            ),
        ];
        for (text, expected) in cases {
            let raw = RawValue::from_string(text.into()).unwrap();
            assert_eq!(compact(&raw), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_compact_says_the_same(texts in prop::collection::vec("\\PC{0,12}", 0..6)) {
            let value = json!({ "all": texts, "more": [{ "x": null }, 1.5] });
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            let compacted = compact(&RawValue::from_string(pretty).unwrap());
            prop_assert_eq!(&compacted, &value.to_string());
            prop_assert_eq!(serde_json::from_str::<Value>(&compacted).unwrap(), value);
        }
    }
}
