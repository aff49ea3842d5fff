//! Handles and the states of an account: pure rules.

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

/// Where an account is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Active,
    Limited,
    Suspended,
    Closing,
    Closed,
}

impl State {
    const ALL: [Self; 5] = [
        Self::Active,
        Self::Limited,
        Self::Suspended,
        Self::Closing,
        Self::Closed,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Limited => "limited",
            Self::Suspended => "suspended",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    pub(super) fn decode(text: &str) -> sqlx::Result<Self> {
        let mut all = Self::ALL.into_iter();
        let state = all.find(|state| state.as_str() == text);
        state.ok_or_else(|| sqlx::Error::Decode("state".into()))
    }
}
