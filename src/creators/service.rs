//! Making a creator.

use serde_json::json;

use super::model::{Creator, NewCreator, OWNED_MAX};
use super::store;
use crate::accounts::{self, Handle};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::events::{self, NewEvent, Stream, SubjectKind};
use crate::ids::CreatorId;

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
