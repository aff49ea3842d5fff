//! Making and changing shops, their staff and their agreements. Each function is one write in the
//! caller's transaction.

use serde_json::json;

use super::store;
use crate::accounts::{self, Role};
use crate::catalog::access::{Act, StaffRole, may_own};
use crate::catalog::model::{Merchant, MerchantStatus};
use crate::catalog::service::duplicate;
use crate::db::Tx;
use crate::http::{ApiError, Bounds, Code, IfMatch};
use crate::ids::{AccountId, CreatorId, MerchantId};
use crate::money::{Currency, Money};

/// People of one shop (commerce.md 14).
const STAFF_MAX: i64 = 50;
const SETTLE_AFTER_DAYS: i64 = 7;
const AUTO_CONFIRM_DAYS: i64 = 7;

/// A shop to be made.
#[derive(Clone, Debug)]
pub(super) struct NewMerchant {
    pub(super) owner: AccountId,
    pub(super) name: String,
    pub(super) currency: Currency,
    pub(super) external_id: Option<String>,
}

/// What shall change of a shop; what is missing stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) name: Option<String>,
    pub(super) shipping_fee: Option<Money>,
    pub(super) commission_cap_bps: Option<i64>,
    pub(super) auto_confirm_days: Option<i64>,
    pub(super) settle_after_days: Option<i64>,
    pub(super) reserve_bps: Option<i64>,
    pub(super) fee_bps: Option<i64>,
}

impl Changes {
    /// What the platform decides, not the shop.
    const fn has_terms_of_platform(&self) -> bool {
        self.settle_after_days.is_some() || self.reserve_bps.is_some() || self.fee_bps.is_some()
    }
}

/// Makes a shop with its owner.
pub(super) async fn create(
    tx: &mut Tx,
    act: &Act<'_>,
    wish: NewMerchant,
) -> Result<Merchant, ApiError> {
    let shop = Merchant {
        id: MerchantId::new(act.now),
        name: wish.name,
        currency: wish.currency,
        status: MerchantStatus::Active,
        shipping_fee: Money::new(0, wish.currency),
        settle_after_days: SETTLE_AFTER_DAYS,
        reserve_bps: 0,
        fee_bps: 0,
        commission_cap_bps: 0,
        auto_confirm_days: AUTO_CONFIRM_DAYS,
        external_id: wish.external_id,
        version: 1,
        created_at: act.now,
        updated_at: act.now,
    };
    if !store::insert(tx, &shop).await? {
        return Err(duplicate());
    }
    store::put_staff(tx, shop.id, (wish.owner, StaffRole::Owner)).await?;
    let diff = json!({ "name": shop.name, "currency": shop.currency, "owner": wish.owner });
    act.record(tx, shop.id.to_string(), diff).await?;
    Ok(shop)
}

/// Changes the terms of a shop.
pub(super) async fn change(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, if_match): (MerchantId, &IfMatch),
    changes: Changes,
) -> Result<Merchant, ApiError> {
    let from = own(tx, act, id).await?;
    if_match.check(from.version)?;
    if changes.has_terms_of_platform() && !act.who.is_platform(Role::Operator) {
        let detail = "settle_after_days, reserve_bps and fee_bps are the platform's to set";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let fee = changes.shipping_fee.unwrap_or(from.shipping_fee);
    if fee.currency() != from.currency {
        let mut bounds = Bounds::default();
        bounds.add("/shipping_fee/currency", "currency");
        bounds.check()?;
    }
    let mut to = Merchant {
        name: changes.name.unwrap_or_else(|| from.name.clone()),
        shipping_fee: fee,
        commission_cap_bps: changes
            .commission_cap_bps
            .unwrap_or(from.commission_cap_bps),
        auto_confirm_days: changes.auto_confirm_days.unwrap_or(from.auto_confirm_days),
        settle_after_days: changes.settle_after_days.unwrap_or(from.settle_after_days),
        reserve_bps: changes.reserve_bps.unwrap_or(from.reserve_bps),
        fee_bps: changes.fee_bps.unwrap_or(from.fee_bps),
        ..from.clone()
    };
    if to == from {
        return Ok(from);
    }
    to.version += 1;
    to.updated_at = act.now;
    store::update(tx, &to).await?;
    act.record(
        tx,
        id.to_string(),
        json!({ "from": terms(&from), "to": terms(&to) }),
    )
    .await?;
    Ok(to)
}

/// What the audit log shows of a shop.
fn terms(shop: &Merchant) -> serde_json::Value {
    json!({
        "name": shop.name,
        "shipping_fee": shop.shipping_fee,
        "commission_cap_bps": shop.commission_cap_bps,
        "auto_confirm_days": shop.auto_confirm_days,
        "settle_after_days": shop.settle_after_days,
        "reserve_bps": shop.reserve_bps,
        "fee_bps": shop.fee_bps,
    })
}

/// Gives an account a role in a shop.
pub(super) async fn put_staff(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, account, role): (MerchantId, AccountId, StaffRole),
) -> Result<(), ApiError> {
    own(tx, act, id).await?;
    if !accounts::exists(tx, account).await? {
        return Err(ApiError::not_found());
    }
    let was = store::staff_role(tx, id, account).await?;
    if was == Some(role) {
        return Ok(());
    }
    let (staff, owners) = store::count_staff(tx, id).await?;
    if was.is_none() && staff >= STAFF_MAX {
        let detail = format!("a shop has at most {STAFF_MAX} people");
        return Err(ApiError::new(Code::LimitReached, detail));
    }
    refuse_last(was, owners)?;
    store::put_staff(tx, id, (account, role)).await?;
    let diff = json!({ "account_id": account, "role": [was, role] });
    act.record(tx, id.to_string(), diff).await?;
    Ok(())
}

/// Takes an account out of a shop.
pub(super) async fn delete_staff(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, account): (MerchantId, AccountId),
) -> Result<(), ApiError> {
    own(tx, act, id).await?;
    let was = store::staff_role(tx, id, account).await?;
    let was = was.ok_or_else(ApiError::not_found)?;
    let (_, owners) = store::count_staff(tx, id).await?;
    refuse_last(Some(was), owners)?;
    store::delete_staff(tx, id, account).await?;
    let diff = json!({ "account_id": account, "role": [Some(was), None::<StaffRole>] });
    act.record(tx, id.to_string(), diff).await?;
    Ok(())
}

fn refuse_last(was: Option<StaffRole>, owners: i64) -> Result<(), ApiError> {
    if was == Some(StaffRole::Owner) && owners <= 1 {
        let detail = "this is the shop's last owner: make another one first";
        return Err(ApiError::new(Code::InvalidState, detail));
    }
    Ok(())
}

/// Agrees with a creator on the most commission it may ask.
pub(super) async fn put_cap(
    tx: &mut Tx,
    act: &Act<'_>,
    (id, creator, cap_bps): (MerchantId, CreatorId, i64),
) -> Result<(), ApiError> {
    own(tx, act, id).await?;
    let was = store::cap_of(tx, id, creator).await?;
    if was == Some(cap_bps) {
        return Ok(());
    }
    store::put_cap(tx, id, (creator, cap_bps)).await?;
    let diff = json!({ "creator_id": creator, "cap_bps": [was, Some(cap_bps)] });
    act.record(tx, id.to_string(), diff).await?;
    Ok(())
}

/// The locked shop, if the caller owns it or the platform.
async fn own(tx: &mut Tx, act: &Act<'_>, id: MerchantId) -> Result<Merchant, ApiError> {
    let shop = store::lock(tx, id).await?;
    may_own(tx, act.who, id).await?;
    shop.ok_or_else(ApiError::not_found)
}
