//! Money: whole minor units of one currency. No floats, ever.
#![deny(clippy::float_arithmetic, clippy::arithmetic_side_effects)]

use std::fmt;

use serde::{Deserialize, Serialize};

/// A currency of ISO 4217, for example `CNY`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

/// The text is not three capital letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a currency is three capital letters, for example CNY")]
pub struct BadCurrency;

impl Currency {
    pub const CNY: Self = Self(*b"CNY");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("three capital letters are UTF-8")
    }
}

impl TryFrom<String> for Currency {
    type Error = BadCurrency;

    fn try_from(text: String) -> Result<Self, BadCurrency> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(|_length| BadCurrency)?;
        if code.iter().all(u8::is_ascii_uppercase) {
            Ok(Self(code))
        } else {
            Err(BadCurrency)
        }
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> Self {
        currency.as_str().into()
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An amount of money. Sums are checked: another currency or an overflow gives `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Money {
    /// Minor units
    amount: i64,
    /// Of ISO 4217
    #[schema(value_type = String)]
    currency: Currency,
}

impl Money {
    pub const fn new(amount_minor: i64, currency: Currency) -> Self {
        Self {
            amount: amount_minor,
            currency,
        }
    }

    pub const fn amount_minor(self) -> i64 {
        self.amount
    }

    pub const fn currency(self) -> Currency {
        self.currency
    }

    pub fn checked_add(self, other: Self) -> Option<Self> {
        if self.currency != other.currency {
            return None;
        }
        let amount = self.amount.checked_add(other.amount)?;
        Some(Self::new(amount, self.currency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_amount_then_currency() {
        let price = Money::new(1_999, Currency::CNY);
        let json = serde_json::to_string(&price).unwrap();
        assert_eq!(json, r#"{"amount":1999,"currency":"CNY"}"#);
        assert_eq!(serde_json::from_str::<Money>(&json).unwrap(), price);
    }

    #[test]
    fn floats_and_other_currencies_are_refused() {
        for bad in [
            r#"{"amount":19.99,"currency":"CNY"}"#,
            r#"{"amount":1999,"currency":"cny"}"#,
            r#"{"amount":1999,"currency":"YUAN"}"#,
            r#"{"amount":9223372036854775808,"currency":"CNY"}"#,
        ] {
            assert!(serde_json::from_str::<Money>(bad).is_err(), "{bad}");
        }
        let euro = Currency::try_from(String::from("EUR")).unwrap();
        let cny = Money::new(1, Currency::CNY);
        assert_eq!(cny.checked_add(Money::new(1, euro)), None);
        assert_eq!(cny.checked_add(Money::new(i64::MAX, Currency::CNY)), None);
    }
}
