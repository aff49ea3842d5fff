//! Making a creator, changing its page, and who operates it.

use serde_json::json;

use super::model::{
    Creator, Grant, INVITED_FOR, NewCreator, OPERATED_MAX, OPERATORS_MAX, OWNED_MAX, Operator,
    Standing,
};
use super::rights::{Bits, Preset};
use super::store;
use crate::accounts::{self, Handle};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, NewEvent, Stream, SubjectKind};
use crate::ids::{AccountId, CreatorId, InviteId};

/// Why no creator was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    #[error("the handle {0} is taken, or looks like one that is")]
    HandleTaken(Handle),
    #[error("an account owns at most {OWNED_MAX} creators")]
    LimitReached,
    #[error("writing the creator")]
    Db(#[from] sqlx::Error),
}

/// Makes a creator with its owner.
pub(crate) async fn create(
    tx: &mut Tx,
    now: Timestamp,
    wish: NewCreator,
) -> Result<Creator, CreateError> {
    if store::count_owned(tx, wish.owner).await? >= OWNED_MAX {
        return Err(CreateError::LimitReached);
    }
    let id = CreatorId::new(now);
    if !accounts::claim_handle(tx, &wish.handle, &id.to_string()).await? {
        return Err(CreateError::HandleTaken(wish.handle));
    }
    let creator = Creator {
        id,
        handle: wish.handle.to_string(),
        kind: wish.kind,
        name: wish.name,
        bio: wish.bio,
        category: wish.category,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    store::insert(tx, &creator).await?;
    store::insert_owner(tx, id, wish.owner, now).await?;
    let event = NewEvent {
        kind: events::Kind::CreatorCreated,
        subject_kind: SubjectKind::Creator,
        subject_id: id.to_string(),
        streams: vec![Stream::Social, Stream::Creator(id)],
        data: json!({ "handle": creator.handle, "name": creator.name }),
    };
    events::append(tx, now, event).await?;
    Ok(creator)
}

/// Tells that a page was changed.
pub(super) async fn tell_changed(
    tx: &mut Tx,
    now: Timestamp,
    creator: &Creator,
) -> sqlx::Result<()> {
    let event = NewEvent {
        kind: events::Kind::CreatorChanged,
        subject_kind: SubjectKind::Creator,
        subject_id: creator.id.to_string(),
        streams: vec![Stream::Social, Stream::Creator(creator.id)],
        data: json!({ "handle": creator.handle, "name": creator.name }),
    };
    events::append(tx, now, event).await?;
    Ok(())
}

/// Why operators of a creator stay as they are.
#[derive(Debug, thiserror::Error)]
pub(super) enum OperatorError {
    #[error("there is no such creator, operator or invitation")]
    NotFound,
    #[error("there is no such account")]
    NoAccount,
    #[error("nobody gives or takes more than they may do themselves")]
    GrantExceedsOwn,
    #[error("this account operates the creator already, or is asked to")]
    IsThere,
    #[error(
        "a creator has at most {OPERATORS_MAX} operators, an account operates at most \
         {OPERATED_MAX} creators and owns at most {OWNED_MAX}"
    )]
    LimitReached,
    #[error("this is the last owner; make another one first")]
    LastOwner,
    #[error("this invitation was answered, withdrawn, or ran out")]
    Gone,
    #[error("writing the operator")]
    Db(#[from] sqlx::Error),
}

/// Who does something to the operators of a creator, and what they may do themselves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Actor {
    pub(super) account: AccountId,
    pub(super) bits: Bits,
}

/// Asks an account to operate a creator, which is locked.
pub(super) async fn invite(
    tx: &mut Tx,
    now: Timestamp,
    actor: Actor,
    (creator, account): (CreatorId, AccountId),
    grant: Grant,
) -> Result<Operator, OperatorError> {
    if !grant.bits.is_within(actor.bits) {
        return Err(OperatorError::GrantExceedsOwn);
    }
    if !accounts::is_there(tx, account).await? {
        return Err(OperatorError::NoAccount);
    }
    let former = store::operator(tx, creator, account).await?;
    let standing = former.as_ref().map(|it| it.standing(now));
    if let Some(Standing::Active | Standing::Pending) = standing {
        return Err(OperatorError::IsThere);
    }
    if store::count_operators(tx, creator, now).await? >= OPERATORS_MAX {
        return Err(OperatorError::LimitReached);
    }
    let operator = Operator {
        creator,
        account,
        handle: String::new(),
        display_name: String::new(),
        preset: grant.preset,
        bits: grant.bits,
        state: Standing::Pending,
        expires_at: grant.expires_at,
        invited_by: actor.account,
        invite: Some(InviteId::new(now)),
        invite_until: Some(now.plus(INVITED_FOR)),
        version: former.map_or(1, |it| it.version + 1),
        created_at: now,
        updated_at: now,
    };
    write(tx, now, operator).await
}

/// What an invited account says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Accept,
    Decline,
}

/// Answers an invitation.
pub(super) async fn reply(
    tx: &mut Tx,
    now: Timestamp,
    (invite, account): (InviteId, AccountId),
    reply: Reply,
) -> Result<Operator, OperatorError> {
    let found = store::invited(tx, invite).await?;
    let found = found.filter(|it| it.account == account);
    let creator = found.ok_or(OperatorError::NotFound)?.creator;
    let is_there = store::lock(tx, creator).await?.is_some();
    // Read again now that nobody else can change it.
    let operator = store::operator(tx, creator, account).await?;
    let mut operator = operator.ok_or(OperatorError::NotFound)?;
    let is_open = operator.standing(now) == Standing::Pending && operator.invite == Some(invite);
    if !is_open || !is_there {
        return Err(OperatorError::Gone);
    }
    if reply == Reply::Decline {
        operator.state = Standing::Left;
    } else {
        let is_full = store::count_operated(tx, account, now).await? >= OPERATED_MAX;
        let owns = operator.preset == Preset::Owner;
        if is_full || (owns && store::count_owned(tx, account).await? >= OWNED_MAX) {
            return Err(OperatorError::LimitReached);
        }
        operator.state = Standing::Active;
    }
    operator.version += 1;
    operator.updated_at = now;
    write(tx, now, operator).await
}

/// Gives an operator other rights. The creator is locked.
pub(super) async fn regrant(
    tx: &mut Tx,
    now: Timestamp,
    actor: Actor,
    mut operator: Operator,
    grant: Grant,
) -> Result<Operator, OperatorError> {
    if !grant.bits.is_within(actor.bits) || !operator.bits.is_within(actor.bits) {
        return Err(OperatorError::GrantExceedsOwn);
    }
    let was_owner = operator.is_owner();
    operator.preset = grant.preset;
    operator.bits = grant.bits;
    operator.expires_at = grant.expires_at;
    if was_owner && !operator.is_owner() {
        keep_an_owner(tx, &operator).await?;
    }
    operator.version += 1;
    operator.updated_at = now;
    write(tx, now, operator).await
}

/// Ends what an operator may do: it leaves, or is sent away. The creator is locked.
pub(super) async fn dismiss(
    tx: &mut Tx,
    now: Timestamp,
    actor: Actor,
    mut operator: Operator,
) -> Result<Operator, OperatorError> {
    let leaves = operator.account == actor.account;
    if !leaves && !operator.bits.is_within(actor.bits) {
        return Err(OperatorError::GrantExceedsOwn);
    }
    if operator.is_owner() {
        keep_an_owner(tx, &operator).await?;
    }
    operator.state = if leaves {
        Standing::Left
    } else {
        Standing::Revoked
    };
    operator.version += 1;
    operator.updated_at = now;
    write(tx, now, operator).await
}

/// Refuses to lose the last owner.
async fn keep_an_owner(tx: &mut Tx, operator: &Operator) -> Result<(), OperatorError> {
    if store::count_other_owners(tx, operator.creator, operator.account).await? == 0 {
        return Err(OperatorError::LastOwner);
    }
    Ok(())
}

/// Writes and tells; the operator as it is shown.
async fn write(tx: &mut Tx, now: Timestamp, operator: Operator) -> Result<Operator, OperatorError> {
    store::put_operator(tx, &operator).await?;
    let creator = operator.creator;
    let event = NewEvent {
        kind: events::Kind::OperatorChanged,
        subject_kind: SubjectKind::Creator,
        subject_id: creator.to_string(),
        streams: vec![Stream::Social, Stream::Creator(creator)],
        data: json!({
            "account_id": operator.account,
            "state": operator.state.as_str(),
            "preset": operator.preset.as_str(),
        }),
    };
    events::append(tx, now, event).await?;
    let written = store::operator(tx, creator, operator.account).await?;
    written.ok_or(OperatorError::NotFound)
}
