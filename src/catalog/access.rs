//! Who may do what in a shop (commerce.md 4).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::AnyConnection;

use super::merchants::{merchant, staff_role};
use crate::accounts::{Entry, Principal, Role, Scope, audit};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{ApiError, Call, Code};
use crate::ids::MerchantId;

/// What a person does in a shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StaffRole {
    Owner,
    Catalogue,
    Fulfilment,
    Finance,
    Support,
}

impl StaffRole {
    pub(super) const ALL: [Self; 5] = [
        Self::Owner,
        Self::Catalogue,
        Self::Fulfilment,
        Self::Finance,
        Self::Support,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Catalogue => "catalogue",
            Self::Fulfilment => "fulfilment",
            Self::Finance => "finance",
            Self::Support => "support",
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether the role has the scope in its own shop. Support refunds up to an amount only.
    pub(crate) const fn has(self, scope: Scope) -> bool {
        use Scope as S;
        match self {
            Self::Owner => scope.is_of_merchants(),
            Self::Catalogue => matches!(
                scope,
                S::ProductsWrite
                    | S::PricesWrite
                    | S::DealsWrite
                    | S::CouponsWrite
                    | S::InventoryRead
                    | S::InventoryAdjust
            ),
            Self::Fulfilment => matches!(
                scope,
                S::InventoryRead | S::InventoryAdjust | S::OrdersRead | S::OrdersFulfil
            ),
            Self::Finance => matches!(
                scope,
                S::OrdersRead
                    | S::PaymentsRead
                    | S::PaymentsRefund
                    | S::SettlementsRead
                    | S::PayoutsWrite
            ),
            Self::Support => matches!(
                scope,
                S::InventoryRead | S::OrdersRead | S::PaymentsRead | S::PaymentsRefund
            ),
        }
    }
}

/// Refuses who may not do this in a shop: the platform by its scopes, a shop's staff by their
/// roles, a shop's key by its scopes. Of a shop that is not theirs nobody learns anything.
///
/// # Errors
/// 404 for another's shop, 403 for one's own without the scope.
pub(crate) async fn may(
    db: &mut AnyConnection,
    who: &Principal,
    shop: MerchantId,
    scope: Scope,
) -> Result<(), ApiError> {
    if let Some((own, scopes)) = who.merchant_key() {
        return match own == shop {
            true if scopes.contains(&scope) => Ok(()),
            true => Err(lacks(scope.as_str())),
            false => Err(ApiError::not_found()),
        };
    }
    if is_of_platform(who) || who.holds(scope) {
        let exists = merchant(db, shop).await?.is_some();
        return match exists {
            true if who.holds(scope) => Ok(()),
            // Staff of the platform may be staff of a shop, too.
            true => may_by_role(db, who, (shop, scope)).await,
            false => Err(ApiError::not_found()),
        };
    }
    may_by_role(db, who, (shop, scope)).await
}

async fn may_by_role(
    db: &mut AnyConnection,
    who: &Principal,
    (shop, scope): (MerchantId, Scope),
) -> Result<(), ApiError> {
    match staff_role(db, shop, who.account()?).await? {
        // A key of an account has no scope for shops.
        Some(role) if role.has(scope) && who.session().is_ok() => Ok(()),
        None if !is_of_platform(who) => Err(ApiError::not_found()),
        _ => Err(lacks(scope.as_str())),
    }
}

/// Refuses all but the owners of a shop and the operators of the platform.
pub(super) async fn may_own(
    db: &mut AnyConnection,
    who: &Principal,
    shop: MerchantId,
) -> Result<(), ApiError> {
    if let Some((own, _)) = who.merchant_key() {
        return match own == shop {
            true => Err(lacks("owner")),
            false => Err(ApiError::not_found()),
        };
    }
    if who.is_platform(Role::Operator) {
        let exists = merchant(db, shop).await?.is_some();
        return exists.then_some(()).ok_or_else(ApiError::not_found);
    }
    match staff_role(db, shop, who.account()?).await? {
        Some(StaffRole::Owner) if who.session().is_ok() => Ok(()),
        None if !is_of_platform(who) => Err(ApiError::not_found()),
        _ => Err(lacks("owner")),
    }
}

/// Whether the caller sees what the public does not: drafts, archived products, price windows.
pub(super) async fn sees(
    db: &mut AnyConnection,
    who: Option<&Principal>,
    shop: MerchantId,
) -> sqlx::Result<bool> {
    let Some(who) = who else { return Ok(false) };
    if let Some((own, _)) = who.merchant_key() {
        return Ok(own == shop);
    }
    if is_of_platform(who) {
        return Ok(true);
    }
    match who.session() {
        Ok((account, _)) => Ok(staff_role(db, shop, account).await?.is_some()),
        Err(_key) => Ok(false),
    }
}

/// Whether the caller sees every shop from inside.
pub(super) fn is_of_platform(who: &Principal) -> bool {
    [Role::Operator, Role::Auditor]
        .into_iter()
        .any(|role| who.is_platform(role))
}

fn lacks(needed: &str) -> ApiError {
    ApiError::new(
        Code::Forbidden,
        format!("this needs the permission {needed}"),
    )
}

/// A write while it runs: who, by which call, when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act<'a> {
    pub(super) who: &'a Principal,
    pub(super) call: &'a Call,
    pub(super) now: Timestamp,
}

impl Act<'_> {
    /// Records what became of an object.
    pub(super) async fn record(
        &self,
        tx: &mut Tx,
        object_id: String,
        diff: Value,
    ) -> sqlx::Result<()> {
        let entry = Entry {
            who: self.who,
            call: self.call,
            object_id,
            diff,
        };
        audit(tx, self.now, entry).await
    }
}
