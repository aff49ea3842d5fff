//! Making creators, on a real database.

use super::model::OWNED_MAX;
use super::*;
use crate::accounts::{Handle, create_operator};
use crate::app::Fixture;
use crate::db::NOON;
use crate::ids::{AccountId, CreatorId};

async fn owner(it: &Fixture) -> AccountId {
    create_operator(&it.app, "owner").await.unwrap().account
}

fn wish(owner: AccountId, handle: &str) -> NewCreator {
    NewCreator {
        owner,
        handle: Handle::parse(handle).unwrap(),
        kind: Kind::Person,
        name: "Anna".into(),
        bio: String::new(),
        category: String::new(),
    }
}

async fn make(it: &Fixture, wish: NewCreator) -> Result<CreatorId, CreateError> {
    let mut tx = it.db().begin().await.unwrap();
    let creator = create(&mut tx, NOON, wish).await?;
    tx.commit().await.unwrap();
    Ok(creator.id)
}

#[tokio::test]
async fn a_creator_is_found_by_id_and_by_handle_in_any_case() {
    let it = Fixture::new().await;
    let id = make(&it, wish(owner(&it).await, "Anna-B")).await.unwrap();
    for name in [id.to_string().as_str(), "anna-b", "ANNA-B"] {
        let found = store::find(it.db(), name).await.unwrap().unwrap();
        assert_eq!((found.id, found.handle.as_str()), (id, "anna-b"));
    }
    assert!(store::find(it.db(), "anna").await.unwrap().is_none());
}

#[tokio::test]
async fn an_account_and_a_creator_cannot_share_a_handle() {
    let it = Fixture::new().await;
    let owner = owner(&it).await;
    let taken = make(&it, wish(owner, "Owner")).await;
    assert!(matches!(taken, Err(CreateError::HandleTaken(_))));
}

#[tokio::test]
async fn an_account_owns_ten_creators_and_no_more() {
    let it = Fixture::new().await;
    let owner = owner(&it).await;
    for n in 0..OWNED_MAX {
        make(&it, wish(owner, &format!("page-{n}"))).await.unwrap();
    }
    let over = make(&it, wish(owner, "one-more")).await;
    assert!(matches!(over, Err(CreateError::LimitReached)));
}

#[tokio::test]
async fn the_kinds_are_those_the_database_takes() {
    let it = Fixture::new().await;
    let owner = owner(&it).await;
    for kind in Kind::ALL {
        let handle = format!("page-{}", kind.as_str());
        let wish = NewCreator {
            kind,
            ..wish(owner, &handle)
        };
        let id = make(&it, wish).await.unwrap();
        let found = store::find(it.db(), &id.to_string()).await.unwrap();
        assert_eq!(found.unwrap().kind, kind);
    }
}
