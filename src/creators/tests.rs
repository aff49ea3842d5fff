//! Making creators, on a real database.

use super::model::{Grant, OPERATED_MAX, OPERATORS_MAX, OWNED_MAX};
use super::rights::{Bits, Preset};
use super::service::{Actor, OperatorError, Reply};
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

/// The rows of community.md 3, as letters: what each preset has.
#[test]
fn the_presets_are_those_of_the_table() {
    use Bit as B;
    let page = [B::EditPage, B::ManageOperators];
    let posts = [B::WritePosts, B::PublishPosts];
    let live = [B::GoLive, B::AssistLive];
    let show = [B::ModerateChat, B::ManageCards];
    let money = [B::ViewFinance, B::ViewAnalytics];
    let last = [B::ManagePayout, B::CloseCreator];
    let reply = B::ReplyAsCreator;
    let all = [
        &page[..],
        &posts,
        &live,
        &show,
        &[B::ManageAds],
        &money,
        &last,
        &[reply],
    ];
    let admin = [
        &page[..],
        &posts,
        &live,
        &show,
        &[B::ManageAds],
        &money,
        &[reply],
    ];
    let table: [(Preset, Vec<Bit>); 11] = [
        (Preset::Owner, all.concat()),
        (Preset::Admin, admin.concat()),
        (
            Preset::Editor,
            [&posts[..], &[B::ViewAnalytics, reply]].concat(),
        ),
        (
            Preset::LiveHost,
            [&live[..], &show, &[B::ViewAnalytics, reply]].concat(),
        ),
        (
            Preset::LiveAssistant,
            [&[B::AssistLive][..], &show].concat(),
        ),
        (Preset::ChatModerator, vec![B::ModerateChat]),
        (Preset::ProductManager, vec![B::WritePosts, B::ManageCards]),
        (Preset::AdOperator, vec![B::ManageAds, B::ViewAnalytics]),
        (Preset::Finance, [&money[..], &[B::ManagePayout]].concat()),
        (Preset::Analyst, vec![B::ViewAnalytics]),
        (Preset::CustomerService, vec![reply]),
    ];
    for (preset, bits) in table {
        assert_eq!(preset.bits(), bits.into_iter().collect(), "{preset:?}");
    }
    assert_eq!(Preset::Owner.bits(), Bits::ALL);
    // The numbers are stored: they stay.
    let numbers = Bit::ALL.map(|bit| Bits::from_iter([bit]).as_number());
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(n, number)| *number == 1 << n)
    );
}

/// Asks an account and lets it accept.
async fn join(
    it: &Fixture,
    (creator, by): (CreatorId, AccountId),
    account: AccountId,
    preset: Preset,
) -> Result<(), OperatorError> {
    let actor = Actor {
        account: by,
        bits: Bits::ALL,
    };
    let grant = Grant {
        preset,
        bits: preset.bits(),
        expires_at: None,
    };
    let mut tx = it.db().begin().await.unwrap();
    store::lock(&mut tx, creator).await.unwrap();
    let asked = service::invite(&mut tx, NOON, actor, (creator, account), grant).await?;
    let invite = asked.invite.unwrap();
    service::reply(&mut tx, NOON, (invite, account), Reply::Accept).await?;
    tx.commit().await.unwrap();
    Ok(())
}

#[tokio::test]
async fn a_creator_has_fifty_operators_and_an_account_operates_thirty() {
    let it = Fixture::new().await;
    let owner = owner(&it).await;
    let account = async |n: i64| {
        let made = create_operator(&it.app, &format!("account-{n}")).await;
        made.unwrap().account
    };
    let page = make(&it, wish(owner, "a-page")).await.unwrap();
    for n in 1..OPERATORS_MAX {
        let account = account(n).await;
        join(&it, (page, owner), account, Preset::Editor)
            .await
            .unwrap();
    }
    let more = account(OPERATORS_MAX).await;
    let over = join(&it, (page, owner), more, Preset::Editor).await;
    assert!(matches!(over, Err(OperatorError::LimitReached)));

    let busy = account(99).await;
    for n in 0..=OPERATED_MAX {
        let owner = account(100 + n).await;
        let page = make(&it, wish(owner, &format!("page-{n}"))).await.unwrap();
        let joined = join(&it, (page, owner), busy, Preset::Editor).await;
        assert_eq!(joined.is_ok(), n < OPERATED_MAX, "{n}");
    }
}
