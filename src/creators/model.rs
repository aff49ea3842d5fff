//! What a creator is, and who operates it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rights::{Bits, Preset};
use crate::accounts::Handle;
use crate::clock::Timestamp;
use crate::ids::{AccountId, CreatorId, InviteId};

/// Characters of a name and of a bio.
pub(super) const NAME_MAX: usize = 40;
pub(super) const BIO_MAX: usize = 1_000;
pub(super) const CATEGORY_MAX: usize = 40;
/// Creators of one account.
pub(super) const OWNED_MAX: i64 = 10;
/// Operators of one creator, and creators that one account operates; with those invited.
pub(super) const OPERATORS_MAX: i64 = 50;
pub(super) const OPERATED_MAX: i64 = 30;
/// How long an invitation stands.
pub(super) const INVITED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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

/// Where an operator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Standing {
    Pending,
    Active,
    Expired,
    Revoked,
    Left,
}

impl Standing {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Active,
        Self::Expired,
        Self::Revoked,
        Self::Left,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Left => "left",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }
}

/// An account that operates a creator, did, or is asked to.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    pub(crate) creator: CreatorId,
    pub(crate) account: AccountId,
    pub(crate) handle: String,
    pub(crate) display_name: String,
    pub(crate) preset: Preset,
    pub(crate) bits: Bits,
    pub(crate) state: Standing,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) invited_by: AccountId,
    /// `None`: made with the creator.
    pub(crate) invite: Option<InviteId>,
    pub(crate) invite_until: Option<Timestamp>,
    pub(crate) version: i64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

impl Operator {
    /// Where it stands at this moment: invitations and grants run out by themselves.
    pub(crate) fn standing(&self, now: Timestamp) -> Standing {
        let is_over = |until: Option<Timestamp>| until.is_some_and(|at| at <= now);
        let is_expired = match self.state {
            Standing::Pending => is_over(self.invite_until) || is_over(self.expires_at),
            Standing::Active => is_over(self.expires_at),
            Standing::Expired | Standing::Revoked | Standing::Left => false,
        };
        if is_expired {
            Standing::Expired
        } else {
            self.state
        }
    }

    /// Whether the creator has an owner for good as long as this one stays.
    pub(crate) fn is_owner(&self) -> bool {
        self.state == Standing::Active && self.preset == Preset::Owner && self.expires_at.is_none()
    }
}

/// What an operator is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant {
    pub(crate) preset: Preset,
    pub(crate) bits: Bits,
    pub(crate) expires_at: Option<Timestamp>,
}
