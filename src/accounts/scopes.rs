//! What a caller may do: roles of the platform, scopes of its keys and of merchants' keys
//! (commerce.md 4), scopes of accounts' keys (community.md 4). Pure tables.

use serde::{Deserialize, Serialize};

/// A role of the platform's own staff.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Operator,
    Moderator,
    AdsReviewer,
    PolicyAuthor,
    PolicyApprover,
    Auditor,
}

impl Role {
    pub(crate) const ALL: [Self; 6] = [
        Self::Operator,
        Self::Moderator,
        Self::AdsReviewer,
        Self::PolicyAuthor,
        Self::PolicyApprover,
        Self::Auditor,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Moderator => "moderator",
            Self::AdsReviewer => "ads_reviewer",
            Self::PolicyAuthor => "policy_author",
            Self::PolicyApprover => "policy_approver",
            Self::Auditor => "auditor",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether holders of this role have the scope.
    pub(super) const fn has(self, scope: Scope) -> bool {
        match self {
            Self::Operator => true,
            Self::Auditor => matches!(
                scope,
                Scope::InventoryRead
                    | Scope::OrdersRead
                    | Scope::PaymentsRead
                    | Scope::SettlementsRead
                    | Scope::LedgerRead
            ),
            Self::Moderator | Self::AdsReviewer | Self::PolicyAuthor | Self::PolicyApprover => {
                false
            }
        }
    }
}

/// What a key of the platform or of a merchant may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    ProductsWrite,
    PricesWrite,
    DealsWrite,
    InventoryRead,
    InventoryAdjust,
    RoomsManage,
    CardsControl,
    CouponsWrite,
    OrdersRead,
    OrdersFulfil,
    PaymentsRead,
    PaymentsRefund,
    SettlementsRead,
    PayoutsWrite,
    LedgerRead,
    DisputesResolve,
    WebhooksManage,
    KeysManage,
    MediaManage,
}

impl Scope {
    pub(crate) const ALL: [Self; 19] = [
        Self::ProductsWrite,
        Self::PricesWrite,
        Self::DealsWrite,
        Self::InventoryRead,
        Self::InventoryAdjust,
        Self::RoomsManage,
        Self::CardsControl,
        Self::CouponsWrite,
        Self::OrdersRead,
        Self::OrdersFulfil,
        Self::PaymentsRead,
        Self::PaymentsRefund,
        Self::SettlementsRead,
        Self::PayoutsWrite,
        Self::LedgerRead,
        Self::DisputesResolve,
        Self::WebhooksManage,
        Self::KeysManage,
        Self::MediaManage,
    ];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ProductsWrite => "products:write",
            Self::PricesWrite => "prices:write",
            Self::DealsWrite => "deals:write",
            Self::InventoryRead => "inventory:read",
            Self::InventoryAdjust => "inventory:adjust",
            Self::RoomsManage => "rooms:manage",
            Self::CardsControl => "cards:control",
            Self::CouponsWrite => "coupons:write",
            Self::OrdersRead => "orders:read",
            Self::OrdersFulfil => "orders:fulfil",
            Self::PaymentsRead => "payments:read",
            Self::PaymentsRefund => "payments:refund",
            Self::SettlementsRead => "settlements:read",
            Self::PayoutsWrite => "payouts:write",
            Self::LedgerRead => "ledger:read",
            Self::DisputesResolve => "disputes:resolve",
            Self::WebhooksManage => "webhooks:manage",
            Self::KeysManage => "keys:manage",
            Self::MediaManage => "media:manage",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// Whether a merchant's key can hold it; the others reach beyond one shop.
    pub(crate) const fn is_of_merchants(self) -> bool {
        !matches!(
            self,
            Self::RoomsManage
                | Self::CardsControl
                | Self::LedgerRead
                | Self::DisputesResolve
                | Self::MediaManage
        )
    }
}

/// What a key of an account is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Posts,
    Rooms,
    Communities,
    Meetups,
    Chat,
    Analytics,
    Ads,
    Support,
    Orders,
}

impl Resource {
    const ALL: [Self; 9] = [
        Self::Posts,
        Self::Rooms,
        Self::Communities,
        Self::Meetups,
        Self::Chat,
        Self::Analytics,
        Self::Ads,
        Self::Support,
        Self::Orders,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Posts => "posts",
            Self::Rooms => "rooms",
            Self::Communities => "communities",
            Self::Meetups => "meetups",
            Self::Chat => "chat",
            Self::Analytics => "analytics",
            Self::Ads => "ads",
            Self::Support => "support",
            Self::Orders => "orders",
        }
    }
}

/// What a key of an account does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Read,
    Write,
    Manage,
}

impl Verb {
    const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Manage];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Manage => "manage",
        }
    }
}

/// A scope of an account's key: it narrows what the account itself may do, and none holds another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Reach(pub(crate) Resource, pub(crate) Verb);

/// The text names no scope of an account's key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("there is no such scope")]
pub(crate) struct NoScope;

impl Reach {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (resource, verb) = text.split_once(':')?;
        let resource = Resource::ALL.into_iter().find(|r| r.as_str() == resource)?;
        let verb = Verb::ALL.into_iter().find(|v| v.as_str() == verb)?;
        Some(Self(resource, verb))
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.0.as_str(), self.1.as_str())
    }
}

impl TryFrom<String> for Reach {
    type Error = NoScope;

    fn try_from(text: String) -> Result<Self, NoScope> {
        Self::parse(&text).ok_or(NoScope)
    }
}

impl From<Reach> for String {
    fn from(reach: Reach) -> Self {
        reach.to_string()
    }
}
