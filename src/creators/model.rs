//! What a creator is.

use serde::{Deserialize, Serialize};

use crate::accounts::Handle;
use crate::clock::Timestamp;
use crate::ids::{AccountId, CreatorId};

/// Characters of a name and of a bio.
pub(super) const NAME_MAX: usize = 40;
pub(super) const BIO_MAX: usize = 1_000;
pub(super) const CATEGORY_MAX: usize = 40;
/// Creators of one account.
pub(super) const OWNED_MAX: i64 = 10;
/// Every bit of community.md 3.
pub(super) const ALL_BITS: i64 = (1 << 14) - 1;

/// What stands behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Person,
    Merchant,
    Organisation,
    Media,
    Official,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Person,
        Self::Merchant,
        Self::Organisation,
        Self::Media,
        Self::Official,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Merchant => "merchant",
            Self::Organisation => "organisation",
            Self::Media => "media",
            Self::Official => "official",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A wish for a creator.
#[derive(Clone, Debug)]
pub(crate) struct NewCreator {
    pub(crate) owner: AccountId,
    pub(crate) handle: Handle,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) bio: String,
    pub(crate) category: String,
}

/// A creator as stored.
#[derive(Clone, Debug)]
pub(crate) struct Creator {
    pub(crate) id: CreatorId,
    pub(crate) handle: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) bio: String,
    pub(crate) category: String,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}
