//! Handles and the states of an account: pure rules.

use std::fmt;

use caseless::Caseless;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_security::{
    GeneralSecurityProfile, RestrictionLevel, RestrictionLevelDetection, skeleton,
};

use crate::clock::Timestamp;
use crate::ids::AccountId;

/// Characters of a handle.
const HANDLE_LEN: std::ops::RangeInclusive<usize> = 3..=30;
/// Bytes of what can fold to a handle.
const TEXT_BYTES_MAX: usize = 1_024;

pub(super) const DISPLAY_NAME: std::ops::RangeInclusive<usize> = 1..=40;
pub(super) const BIO: std::ops::RangeInclusive<usize> = 0..=1_000;
pub(super) const BIRTH_YEAR_MIN: i64 = 1_900;
pub(super) const LOCALE_DEFAULT: &str = "en";
pub(super) const TZ_DEFAULT: &str = "UTC";
/// Recovery codes of an account.
pub(super) const CODES: usize = 8;
const CODE_DIGITS: usize = 16;
const CODE_GROUP: usize = 4;

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

    /// One that was taken once; the rules may have changed since.
    pub(super) fn stored(text: &str) -> Self {
        Self(text.into())
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
        let is_like = |word: &&str| self.skeleton() == Self::skeleton_of(word);
        RESERVED.contains(&self.0.as_str()) || (!self.0.is_ascii() && RESERVED.iter().any(is_like))
    }

    /// What two handles share that look alike: the skeleton of UTS 39.
    pub(crate) fn skeleton(&self) -> String {
        Self::skeleton_of(&self.0)
    }

    pub(super) fn skeleton_of(folded: &str) -> String {
        skeleton(folded).collect()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Compatibility forms and case taken away; folding may bring forward a form, so twice.
pub(crate) fn folded(text: &str) -> String {
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

/// An account to be made.
#[derive(Clone, Debug)]
pub(crate) struct Profile {
    pub(crate) handle: Handle,
    pub(crate) display_name: String,
    pub(crate) bio: String,
    pub(crate) locale: String,
    pub(crate) tz: String,
    pub(crate) birth_year: Option<i64>,
}

impl Profile {
    /// Nothing but a handle.
    pub(crate) fn of(handle: Handle) -> Self {
        Self {
            display_name: handle.to_string(),
            handle,
            bio: String::new(),
            locale: LOCALE_DEFAULT.into(),
            tz: TZ_DEFAULT.into(),
            birth_year: None,
        }
    }
}

/// An account as stored.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) handle: String,
    pub(crate) display_name: String,
    pub(crate) bio: String,
    pub(crate) avatar_id: Option<String>,
    pub(crate) locale: String,
    pub(crate) tz: String,
    pub(crate) birth_year: Option<i64>,
    pub(crate) state: State,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

/// Whether a text has the form of a language tag.
pub(super) fn is_locale(text: &str) -> bool {
    let is_part = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    (2..=35).contains(&text.len()) && text.split('-').all(is_part)
}

/// Whether a text has the form of a name of the time zone database.
pub(super) fn is_tz(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_+-/".contains(&b);
    (1..=64).contains(&text.len())
        && text.bytes().all(is_plain)
        && text.split('/').all(|part| !part.is_empty())
}

/// One of the codes that let an account in again: 80 random bits.
pub(super) fn new_code() -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut bytes = [0_u8; CODE_DIGITS];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    let digit = |byte: u8| char::from(DIGITS[usize::from(byte % 32)]);
    let groups: Vec<String> = bytes
        .chunks(CODE_GROUP)
        .map(|group| group.iter().map(|byte| digit(*byte)).collect())
        .collect();
    groups.join("-")
}

/// A code as it was meant, however it was typed.
pub(super) fn code_meant(text: &str) -> String {
    let upper = text.chars().filter(char::is_ascii_alphanumeric);
    let upper = upper.map(|c| match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        c => c,
    });
    upper.take(CODE_DIGITS + 1).collect()
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

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Limited => "limited",
            Self::Suspended => "suspended",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    /// Whether everyone may see it.
    pub(super) const fn is_shown(self) -> bool {
        matches!(self, Self::Active | Self::Limited)
    }

    pub(super) fn decode(text: &str) -> sqlx::Result<Self> {
        let mut all = Self::ALL.into_iter();
        let state = all.find(|state| state.as_str() == text);
        state.ok_or_else(|| sqlx::Error::Decode("state".into()))
    }
}
