//! Handles and the states of an account: pure rules.

use std::fmt;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::{
    GeneralSecurityProfile, RestrictionLevel, RestrictionLevelDetection, skeleton,
};

/// Characters of a handle.
const HANDLE_LEN: std::ops::RangeInclusive<usize> = 3..=30;
/// Bytes of what can fold to a handle.
const TEXT_BYTES_MAX: usize = 1_024;

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

/// A name people type, folded: NFKC and without case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handle(String);

/// Why a text is not a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HandleError {
    #[error(
        "a handle has 3 to 30 letters or digits of one script (Latin beside Chinese, Japanese or \
         Korean is one), _ - or .; these three not at the ends and not doubled; not digits only"
    )]
    Invalid,
    #[error("this handle is reserved; take another")]
    Reserved,
}

impl Handle {
    pub(crate) fn parse(text: &str) -> Result<Self, HandleError> {
        // Folding makes a text longer at most, by a few times.
        if text.len() > TEXT_BYTES_MAX {
            return Err(HandleError::Invalid);
        }
        let handle = Self(folded(text));
        if !handle.is_good() {
            return Err(HandleError::Invalid);
        }
        if handle.is_reserved() {
            return Err(HandleError::Reserved);
        }
        Ok(handle)
    }

    fn is_good(&self) -> bool {
        let chars: Vec<char> = self.0.chars().collect();
        let is_mark = |c: &char| matches!(c, '_' | '-' | '.');
        let has_mark_at_end = [chars.first(), chars.last()]
            .into_iter()
            .flatten()
            .any(is_mark);
        let has_double_mark = chars.windows(2).any(|pair| pair.iter().all(is_mark));
        let is_number = chars.iter().all(|c| c.is_numeric());
        HANDLE_LEN.contains(&chars.len())
            && chars.iter().all(|c| is_mark(c) || is_letter(*c))
            && chars.first().is_some_and(|c| !is_combining_mark(*c))
            && !has_mark_at_end
            && !has_double_mark
            && !is_number
            && self
                .0
                .as_str()
                .check_restriction_level(RestrictionLevel::HighlyRestrictive)
    }

    /// Of the house itself, or in other letters what looks like it.
    fn is_reserved(&self) -> bool {
        let is_like = |word: &&str| self.skeleton() == skeleton(word).collect::<String>();
        RESERVED.contains(&self.0.as_str()) || (!self.0.is_ascii() && RESERVED.iter().any(is_like))
    }

    /// What two handles share that look alike: the skeleton of UTS 39.
    pub(crate) fn skeleton(&self) -> String {
        skeleton(&self.0).collect()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Compatibility forms and case taken away; folding may bring forward a form, so twice.
fn folded(text: &str) -> String {
    let once: String = text.nfkc().default_case_fold().nfkc().collect();
    once.chars().default_case_fold().nfkc().collect()
}

/// A letter, digit or sign on a letter that identifiers may have (UTS 39).
fn is_letter(c: char) -> bool {
    (c.is_alphanumeric() || is_combining_mark(c)) && c.identifier_allowed()
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
