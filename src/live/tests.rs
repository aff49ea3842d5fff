//! What open pages hear beside the timeline, and when a stream ends.

use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use super::hub::{FullError, Hub, Seat, stock_hint};
use super::model::{Message, StockHint};
use crate::app::Fixture;
use crate::db::NOON;
use crate::ids::{AccountId, EntryId, RoomId, VariantId};
use crate::rooms::{CardNews, Listener};

struct Page {
    seat: Seat,
    messages: broadcast::Receiver<Message>,
}

/// A page opened by somebody, and what the room hands over to it.
fn open(
    it: &Fixture,
    room: RoomId,
    account: Option<AccountId>,
) -> Result<(Page, broadcast::Sender<CardNews>), FullError> {
    let (news, heard) = broadcast::channel(16);
    let listener = Listener {
        news: heard,
        newest: 0,
        is_inside: false,
    };
    let entered = Hub::of(&it.app).enter(&it.app, (room, account), listener);
    entered.map(|(seat, messages)| (Page { seat, messages }, news))
}

fn hint(entry: EntryId, left: i64) -> StockHint {
    StockHint {
        entry,
        left: vec![(VariantId::derived(&["v"]), left)],
    }
}

async fn next(page: &mut Page) -> String {
    let heard = tokio::time::timeout(Duration::from_secs(5), page.messages.recv());
    match heard.await.unwrap().unwrap() {
        Message::Hint(event) | Message::Card { event, .. } => {
            String::from_utf8(event.to_vec()).unwrap()
        }
        other => panic!("another message: {other:?}"),
    }
}

#[tokio::test]
async fn hints_of_an_entry_come_twice_a_second_and_the_newest_wins() {
    let it = Fixture::new().await;
    let room = RoomId::new(NOON);
    let (entry, other) = (EntryId::derived(&["a"]), EntryId::derived(&["b"]));
    stock_hint(&it.app, room, &hint(entry, 9));
    let (mut page, _news) = open(&it, room, None).unwrap();
    for left in (1..=5).rev() {
        stock_hint(&it.app, room, &hint(entry, left));
    }
    stock_hint(&it.app, room, &hint(other, 101));
    let variant = VariantId::derived(&["v"]);
    let event = |entry: EntryId, left: &str| {
        format!(
            "event: stock\ndata: {{\"entry\":\"{entry}\",\"left\":{left},\"variants\":\
             [{{\"variant\":\"{variant}\",\"left\":{left}}}]}}\n\n"
        )
    };
    assert_eq!(next(&mut page).await, event(entry, "5"));
    assert_eq!(next(&mut page).await, event(other, "null"));
    let waiting = page.messages.try_recv();
    assert!(matches!(waiting, Err(TryRecvError::Empty)), "{waiting:?}");
    assert_eq!(next(&mut page).await, event(entry, "1"));
}

#[tokio::test]
async fn an_audience_hears_the_room_and_is_forgotten_with_its_last_page() {
    let it = Fixture::new().await;
    let room = RoomId::new(NOON);
    let (mut first, news) = open(&it, room, None).unwrap();
    let (mut second, _unused) = open(&it, room, None).unwrap();
    news.send(CardNews::Card {
        seq: 7,
        envelope: "{}".into(),
    })
    .unwrap();
    let event = "id: 7\nevent: card\ndata: {}\n\n";
    assert_eq!(next(&mut first).await, event);
    assert_eq!(next(&mut second).await, event);
    drop((first.seat, second.seat));
    let forgotten = async {
        while !Hub::of(&it.app).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    let forgotten = tokio::time::timeout(Duration::from_secs(5), forgotten).await;
    forgotten.expect("nobody is left");
}

#[tokio::test]
async fn a_page_that_reads_nothing_is_told_that_it_is_too_far_behind() {
    let it = Fixture::new().await;
    let (mut page, news) = open(&it, RoomId::new(NOON), None).unwrap();
    for seq in 1..=3_000 {
        let envelope = "{}".into();
        news.send(CardNews::Card { seq, envelope }).unwrap();
        tokio::task::yield_now().await;
    }
    let behind = page.messages.recv().await;
    assert!(matches!(behind, Err(RecvError::Lagged(_))), "{behind:?}");
}

#[tokio::test]
async fn hints_of_so_many_entries_at_once_and_no_more() {
    let it = Fixture::new().await;
    let room = RoomId::new(NOON);
    let (page, _news) = open(&it, room, None).unwrap();
    for n in 0..600 {
        let entry = EntryId::derived(&[&n.to_string()]);
        stock_hint(&it.app, room, &hint(entry, 1));
    }
    assert_eq!(page.messages.len(), 500);
}

#[tokio::test]
async fn an_account_has_ten_places_and_gets_them_back() {
    let it = Fixture::new().await;
    let account = Some(AccountId::new(NOON));
    let mut pages = Vec::new();
    for n in 0..10 {
        let room = RoomId::derived(&[&n.to_string()]);
        pages.push(open(&it, room, account).unwrap());
    }
    let room = RoomId::new(NOON);
    assert_eq!(open(&it, room, account).err(), Some(FullError::Account));
    assert!(open(&it, room, None).is_ok(), "others have theirs");
    pages.pop();
    assert!(open(&it, room, account).is_ok());
}
