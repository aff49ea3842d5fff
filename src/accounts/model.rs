//! Handles and scopes: pure rules.

use std::fmt;

/// Characters of a handle.
const HANDLE_LEN: std::ops::RangeInclusive<usize> = 3..=30;

/// Names that would be taken for the house itself, or that are paths.
const RESERVED: [&str; 22] = [
    "admin",
    "administrator",
    "api",
    "assets",
    "creators",
    "feed",
    "help",
    "lamplight",
    "live",
    "me",
    "moderator",
    "official",
    "operator",
    "platform",
    "root",
    "rooms",
    "security",
    "staff",
    "studio",
    "support",
    "system",
    "whep",
];

/// A name people type: folded to lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle(String);

/// Why a text is not a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    #[error(
        "a handle has 3 to 30 Latin letters, digits, _ - or .; these three not at the ends and \
         not doubled; not digits only"
    )]
    Invalid,
    #[error("this handle is reserved; take another")]
    Reserved,
}

impl Handle {
    pub(crate) fn parse(text: &str) -> Result<Self, HandleError> {
        let folded = text.to_ascii_lowercase();
        let is_mark = |b: u8| matches!(b, b'_' | b'-' | b'.');
        let bytes = folded.as_bytes();
        let is_spelt = bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || is_mark(*b));
        let has_mark_at_end = [bytes.first(), bytes.last()]
            .into_iter()
            .flatten()
            .any(|b| is_mark(*b));
        let has_double_mark = bytes
            .windows(2)
            .any(|pair| pair.iter().all(|b| is_mark(*b)));
        let is_number = bytes.iter().all(u8::is_ascii_digit);
        let is_good = HANDLE_LEN.contains(&folded.len())
            && is_spelt
            && !has_mark_at_end
            && !has_double_mark
            && !is_number;
        if !is_good {
            return Err(HandleError::Invalid);
        }
        if RESERVED.contains(&folded.as_str()) {
            return Err(HandleError::Reserved);
        }
        Ok(Self(folded))
    }

    /// What two handles share that look alike: the skeleton of UTS 39 for the letters allowed.
    pub(crate) fn skeleton(&self) -> String {
        let alike = |c| match c {
            '0' => "O".to_owned(),
            '1' => "l".to_owned(),
            'm' => "rn".to_owned(),
            c => String::from(c),
        };
        self.0.chars().map(alike).collect()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key may do, as far as anything of this version asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    RoomsManage,
    MediaManage,
    LedgerRead,
    InventoryRead,
    InventoryAdjust,
}

/// What the key of an operator holds: all of commerce.md 4, so that a later version need not make
/// a new key.
pub(super) const OPERATOR_SCOPES: [&str; 19] = [
    "products:write",
    "prices:write",
    "deals:write",
    "inventory:read",
    "inventory:adjust",
    "rooms:manage",
    "cards:control",
    "coupons:write",
    "orders:read",
    "orders:fulfil",
    "payments:read",
    "payments:refund",
    "settlements:read",
    "payouts:write",
    "ledger:read",
    "disputes:resolve",
    "webhooks:manage",
    "keys:manage",
    "media:manage",
];

impl Scope {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RoomsManage => "rooms:manage",
            Self::MediaManage => "media:manage",
            Self::LedgerRead => "ledger:read",
            Self::InventoryRead => "inventory:read",
            Self::InventoryAdjust => "inventory:adjust",
        }
    }

    /// A scope that nothing here asks for is skipped.
    pub(super) fn parse(text: &str) -> Option<Self> {
        const ALL: [Scope; 5] = [
            Scope::RoomsManage,
            Scope::MediaManage,
            Scope::LedgerRead,
            Scope::InventoryRead,
            Scope::InventoryAdjust,
        ];
        ALL.into_iter()
            .find(|scope| scope.as_str() == text)
    }
}
