//! What operators of a creator may do: bits, presets, and the question whether one may.
//!
//! Invariant: a bit and its expiry are tested in the statement of the write's transaction.

use std::ops::{BitAnd, BitOr};

use sqlx::{Any, Executor, Row};

use crate::accounts::{Principal, Resource, Role, Scope, Verb};
use crate::clock::Timestamp;
use crate::db::{Db, Tx};
use crate::http::ApiError;
use crate::ids::{AccountId, CreatorId};

/// One permission on a creator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bit {
    EditPage,
    ManageOperators,
    WritePosts,
    PublishPosts,
    GoLive,
    AssistLive,
    ModerateChat,
    ManageCards,
    ManageAds,
    ViewFinance,
    ViewAnalytics,
    ManagePayout,
    CloseCreator,
    ReplyAsCreator,
}

impl Bit {
    /// In the order of their numbers, which are stored.
    pub(crate) const ALL: [Self; 14] = [
        Self::EditPage,
        Self::ManageOperators,
        Self::WritePosts,
        Self::PublishPosts,
        Self::GoLive,
        Self::AssistLive,
        Self::ModerateChat,
        Self::ManageCards,
        Self::ManageAds,
        Self::ViewFinance,
        Self::ViewAnalytics,
        Self::ManagePayout,
        Self::CloseCreator,
        Self::ReplyAsCreator,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::EditPage => "edit_page",
            Self::ManageOperators => "manage_operators",
            Self::WritePosts => "write_posts",
            Self::PublishPosts => "publish_posts",
            Self::GoLive => "go_live",
            Self::AssistLive => "assist_live",
            Self::ModerateChat => "moderate_chat",
            Self::ManageCards => "manage_cards",
            Self::ManageAds => "manage_ads",
            Self::ViewFinance => "view_finance",
            Self::ViewAnalytics => "view_analytics",
            Self::ManagePayout => "manage_payout",
            Self::CloseCreator => "close_creator",
            Self::ReplyAsCreator => "reply_as_creator",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bit| bit.as_str() == text)
    }

    const fn mask(self) -> i64 {
        match self {
            Self::EditPage => 1,
            Self::ManageOperators => 1 << 1,
            Self::WritePosts => 1 << 2,
            Self::PublishPosts => 1 << 3,
            Self::GoLive => 1 << 4,
            Self::AssistLive => 1 << 5,
            Self::ModerateChat => 1 << 6,
            Self::ManageCards => 1 << 7,
            Self::ManageAds => 1 << 8,
            Self::ViewFinance => 1 << 9,
            Self::ViewAnalytics => 1 << 10,
            Self::ManagePayout => 1 << 11,
            Self::CloseCreator => 1 << 12,
            Self::ReplyAsCreator => 1 << 13,
        }
    }

    /// The scope that lets the platform do the same on every creator; without one its operators
    /// do it by session.
    const fn scope(self) -> Option<Scope> {
        match self {
            Self::GoLive | Self::AssistLive | Self::ModerateChat => Some(Scope::RoomsManage),
            Self::ManageCards => Some(Scope::CardsControl),
            Self::ViewFinance => Some(Scope::SettlementsRead),
            Self::ManagePayout => Some(Scope::PayoutsWrite),
            Self::EditPage
            | Self::ManageOperators
            | Self::WritePosts
            | Self::PublishPosts
            | Self::ManageAds
            | Self::ViewAnalytics
            | Self::CloseCreator
            | Self::ReplyAsCreator => None,
        }
    }

    /// What a key of an operator's account must be for; `None`: no key will do.
    const fn reach(self) -> Option<(Resource, Verb)> {
        match self {
            Self::WritePosts | Self::PublishPosts | Self::ReplyAsCreator => {
                Some((Resource::Posts, Verb::Write))
            }
            Self::GoLive | Self::ManageCards => Some((Resource::Rooms, Verb::Manage)),
            Self::AssistLive => Some((Resource::Rooms, Verb::Write)),
            Self::ModerateChat => Some((Resource::Chat, Verb::Manage)),
            Self::ManageAds => Some((Resource::Ads, Verb::Manage)),
            Self::ViewFinance => Some((Resource::Orders, Verb::Read)),
            Self::ViewAnalytics => Some((Resource::Analytics, Verb::Read)),
            Self::EditPage | Self::ManageOperators | Self::ManagePayout | Self::CloseCreator => {
                None
            }
        }
    }
}

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits(i64);

impl Bits {
    pub(crate) const ALL: Self = Self((1 << 14) - 1);

    pub(super) const fn of_stored(number: i64) -> Self {
        Self(number & Self::ALL.0)
    }

    pub(super) const fn as_number(self) -> i64 {
        self.0
    }

    pub(crate) const fn has(self, bit: Bit) -> bool {
        self.0 & bit.mask() != 0
    }

    pub(super) const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(super) fn names(self) -> Vec<&'static str> {
        let held = Bit::ALL.into_iter().filter(|bit| self.has(*bit));
        held.map(Bit::as_str).collect()
    }
}

impl FromIterator<Bit> for Bits {
    fn from_iter<I: IntoIterator<Item = Bit>>(bits: I) -> Self {
        Self(bits.into_iter().fold(0, |all, bit| all.bitor(bit.mask())))
    }
}

impl BitAnd for Bits {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// A set to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    Owner,
    Admin,
    Editor,
    LiveHost,
    LiveAssistant,
    ChatModerator,
    ProductManager,
    AdOperator,
    Finance,
    Analyst,
    CustomerService,
    /// Bits of the inviter's own choice.
    Custom,
}

impl Preset {
    pub(super) const ALL: [Self; 12] = [
        Self::Owner,
        Self::Admin,
        Self::Editor,
        Self::LiveHost,
        Self::LiveAssistant,
        Self::ChatModerator,
        Self::ProductManager,
        Self::AdOperator,
        Self::Finance,
        Self::Analyst,
        Self::CustomerService,
        Self::Custom,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::LiveHost => "live_host",
            Self::LiveAssistant => "live_assistant",
            Self::ChatModerator => "chat_moderator",
            Self::ProductManager => "product_manager",
            Self::AdOperator => "ad_operator",
            Self::Finance => "finance",
            Self::Analyst => "analyst",
            Self::CustomerService => "customer_service",
            Self::Custom => "custom",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.as_str() == text)
    }

    /// The table of community.md 3.
    pub(super) fn bits(self) -> Bits {
        let bits: &[Bit] = match self {
            Self::Owner => &Bit::ALL,
            Self::Admin => &[
                Bit::EditPage,
                Bit::ManageOperators,
                Bit::WritePosts,
                Bit::PublishPosts,
                Bit::GoLive,
                Bit::AssistLive,
                Bit::ModerateChat,
                Bit::ManageCards,
                Bit::ManageAds,
                Bit::ViewFinance,
                Bit::ViewAnalytics,
                Bit::ReplyAsCreator,
            ],
            Self::Editor => &[
                Bit::WritePosts,
                Bit::PublishPosts,
                Bit::ViewAnalytics,
                Bit::ReplyAsCreator,
            ],
            Self::LiveHost => &[
                Bit::GoLive,
                Bit::AssistLive,
                Bit::ModerateChat,
                Bit::ManageCards,
                Bit::ViewAnalytics,
                Bit::ReplyAsCreator,
            ],
            Self::LiveAssistant => &[Bit::AssistLive, Bit::ModerateChat, Bit::ManageCards],
            Self::ChatModerator => &[Bit::ModerateChat],
            Self::ProductManager => &[Bit::WritePosts, Bit::ManageCards],
            Self::AdOperator => &[Bit::ManageAds, Bit::ViewAnalytics],
            Self::Finance => &[Bit::ViewFinance, Bit::ViewAnalytics, Bit::ManagePayout],
            Self::Analyst => &[Bit::ViewAnalytics],
            Self::CustomerService => &[Bit::ReplyAsCreator],
            Self::Custom => &[],
        };
        bits.iter().copied().collect()
    }
}

/// Refuses unless the caller may do this with the creator: by its own bits, or for the platform.
/// Who is no operator of it at all is told that there is nothing.
pub(crate) async fn may(
    tx: &mut Tx,
    who: &Principal,
    creator: CreatorId,
    bit: Bit,
) -> Result<(), ApiError> {
    rights(&mut **tx, who, creator, bit).await.map(drop)
}

/// The same for a read.
pub(crate) async fn may_see(
    db: &Db,
    who: &Principal,
    creator: CreatorId,
    bit: Bit,
) -> Result<(), ApiError> {
    rights(db.readers(), who, creator, bit).await.map(drop)
}

/// All that the caller may do with the creator, of which `bit` is needed.
pub(super) async fn rights<'c>(
    db: impl Executor<'c, Database = Any>,
    who: &Principal,
    creator: CreatorId,
    bit: Bit,
) -> Result<Bits, ApiError> {
    let account = who.account()?;
    let own = own_bits(db, creator, account, who.asked_at()).await?;
    let own = own.ok_or_else(ApiError::not_found)?;
    if is_of_platform(who, bit) {
        return Ok(Bits::ALL);
    }
    let own = own.ok_or_else(ApiError::not_found)?;
    if who.is_kept_from(creator) {
        return Err(ApiError::not_found());
    }
    if !own.has(bit) {
        return Err(ApiError::lacks(bit.as_str()));
    }
    match bit.reach() {
        Some((resource, verb)) => who.reach(resource, verb)?,
        None => who.whole().map(drop)?,
    }
    Ok(own)
}

fn is_of_platform(who: &Principal, bit: Bit) -> bool {
    match bit.scope() {
        Some(scope) => who.holds(scope),
        None => who.is_platform(Role::Operator) && who.session().is_ok(),
    }
}

/// The bits of an account on a creator; `Some(None)` when it is no operator of it, `None` when
/// there is no such creator.
async fn own_bits<'c>(
    db: impl Executor<'c, Database = Any>,
    creator: CreatorId,
    account: AccountId,
    now: Timestamp,
) -> sqlx::Result<Option<Option<Bits>>> {
    let sql = "SELECT o.bits FROM creators c LEFT JOIN operators o ON o.creator_id = c.id \
               AND o.account_id = $2 AND o.state = 'active' \
               AND (o.expires_us IS NULL OR o.expires_us > $3) \
               WHERE c.id = $1 AND c.state = 'active'";
    let query = sqlx::query(sql)
        .bind(creator.to_string())
        .bind(account.to_string())
        .bind(now.as_micros());
    let Some(row) = db.fetch_optional(query).await? else {
        return Ok(None);
    };
    let bits: Option<i64> = row.try_get(0)?;
    Ok(Some(bits.map(Bits::of_stored)))
}
