//! Cards on a real database and hub: what is handed over, when, and what a restart finds.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::json;
use serde_json::value::to_raw_value;

use super::super::tests::Show;
use super::super::timeline::{Checkpoint, Timeline};
use super::*;
use crate::ids::EntryId;

const S: i64 = 1_000_000;

/// Lets time pass for the media core; only that: a database does not wait for a paused clock.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A room on air.
struct Stage {
    show: Show,
    room: RoomId,
    _publisher: Box<dyn std::any::Any>,
}

impl Stage {
    async fn new() -> Self {
        let mut show = Show::new().await;
        let room = show.room(show.wish()).await.unwrap();
        let publisher = Box::new(show.publish(room));
        show.look().await;
        Self {
            show,
            room,
            _publisher: publisher,
        }
    }

    fn app(&self) -> &App {
        &self.show.it.app
    }

    async fn room(&self) -> Room {
        rooms::find(&self.app().db, self.room)
            .await
            .unwrap()
            .unwrap()
    }

    async fn tend(&self) -> bool {
        tend(self.app(), &self.room().await).await.unwrap()
    }

    /// Commits cards; what is to be handed over.
    async fn commit(&self, cards: Vec<NewCard>) -> Written {
        let app = self.app();
        let mut tx = app.db.begin().await.unwrap();
        let mut desk = Desk::open(&mut tx, app, self.room).await.unwrap();
        for card in cards {
            desk.put(&mut tx, app, By::System, card).await.unwrap();
        }
        let written = desk.finish(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        written
    }

    async fn put(&self, cards: Vec<NewCard>) {
        self.commit(cards).await.hand_over(self.app());
    }

    async fn now_us(&self) -> i64 {
        let mut reader = self.app().db.readers().acquire().await.unwrap();
        let clock = now_of(&mut reader, self.app(), &self.room().await).await;
        clock.unwrap().now_us
    }

    /// Every event, from the first one on.
    async fn all(&self) -> Timeline {
        let mut reader = self.app().db.readers().acquire().await.unwrap();
        let from_the_first = 0;
        let events = store::events_after(&mut reader, self.room, from_the_first).await;
        let mut all = Timeline::behind(Checkpoint::default());
        events.unwrap().into_iter().for_each(|it| all.insert(it));
        all
    }
}

fn custom(n: usize) -> NewCard {
    let data = to_raw_value(&json!({ "n": n })).unwrap();
    NewCard::of(Action::Custom, None, Data::Custom(data))
}

fn pin(name: &str) -> NewCard {
    NewCard::of(Action::Pin, Some(EntryId::derived(&[name])), Data::None)
}

#[tokio::test]
async fn a_card_whose_writer_was_cut_off_is_handed_over_by_the_next_look() {
    let stage = Stage::new().await;
    stage.tend().await;
    let who = None;
    let mut listener = listen(stage.app(), stage.room, who).await.unwrap();
    drop(stage.commit(vec![custom(1)]).await);
    assert!(listener.news.try_recv().is_err(), "nobody was told");
    let later = stage.commit(vec![custom(2)]).await;
    later.hand_over(stage.app());
    assert!(listener.news.try_recv().is_err(), "not before the first");
    stage.tend().await;
    for expected in [1, 2] {
        let heard = listener.news.try_recv().unwrap();
        assert!(matches!(heard, CardNews::Card { seq, .. } if seq == expected));
    }
    stage.tend().await;
    assert!(listener.news.try_recv().is_err(), "once is enough");
}

#[tokio::test]
async fn what_is_rolled_back_is_told_to_nobody_and_takes_no_number() {
    let stage = Stage::new().await;
    let app = stage.app();
    let mut tx = app.db.begin().await.unwrap();
    let mut desk = Desk::open(&mut tx, app, stage.room).await.unwrap();
    desk.put(&mut tx, app, By::System, pin("a")).await.unwrap();
    drop(desk.finish(&mut tx).await.unwrap());
    tx.rollback().await.unwrap();
    stage.put(vec![pin("b")]).await;
    let all = stage.all().await;
    let seqs: Vec<i64> = all.events().map(|it| it.seq).collect();
    assert_eq!(seqs, [1]);
}

#[tokio::test]
async fn cards_of_the_system_wait_for_their_cue_and_lose_none() {
    let stage = Stage::new().await;
    stage.tend().await;
    let broadcast = stage.room.to_string();
    let pins = ["a", "b"].into_iter().cycle().take(24).map(pin).collect();
    let first = || stage.put(pins);
    let (name, _) = stage.show.it.passing_cue(&broadcast, first).await;
    assert_eq!(name, "card-1");
    assert!(stage.tend().await, "over the bounds of the media core");
    for _ in 0..4 {
        pass(Duration::from_secs(1)).await;
        stage.tend().await;
    }
    assert!(!stage.tend().await, "all had their turn");
}

/// C19: what is live, what a snapshot reads, and the fold of every event are the same.
#[tokio::test]
async fn snapshots_of_any_time_are_the_fold_of_all_events() {
    let stage = Stage::new().await;
    let mut runner = TestRunner::deterministic();
    let card = (
        0_usize..5,
        0_i64..50,
        prop_oneof![3 => Just(0_i64), 1 => 1_i64..20],
        0_u8..3,
    );
    let cards = prop::collection::vec(card, 150);
    for _ in 0..5 {
        let now_us = stage.now_us().await;
        let cards = cards.new_tree(&mut runner).unwrap().current();
        let made = cards.into_iter().map(|(kind, ahead_s, ttl_s, of)| {
            let entry = Some(EntryId::derived(&[&of.to_string()]));
            let (action, entry) = match kind {
                0 => (Action::Pin, entry),
                1 => (Action::Unpin, None),
                2 => (Action::ExplainStart, entry),
                3 => (Action::ExplainEnd, None),
                _ => return custom(1),
            };
            NewCard {
                at_us: Some(now_us + S + ahead_s * S),
                ttl_us: ttl_s * S,
                ..NewCard::of(action, entry, Data::None)
            }
        });
        stage.put(made.collect()).await;
        pass(Duration::from_secs(20)).await;
        stage.tend().await;
    }
    let sql = "SELECT COUNT(*) FROM card_checkpoints";
    let query = sqlx::query_as::<_, (i64,)>(sql);
    let (checkpoints,) = query.fetch_one(stage.app().db.readers()).await.unwrap();
    assert!(checkpoints >= 1, "one behind every 256 events in force");

    let all = stage.all().await;
    let seqs: HashSet<i64> = all.events().map(|it| it.seq).collect();
    let expected: HashSet<i64> = (1..=all.seq()).collect();
    assert_eq!(seqs, expected);
    let shown = |cards: &super::super::timeline::Cards, at_us| {
        let pinned = cards.pinned.at(at_us).filter(|it| it.value.is_some());
        let explained = cards.explained.at(at_us).filter(|it| it.value.is_some());
        (pinned.map(|it| it.seq), explained.map(|it| it.seq))
    };
    let end_us = stage.now_us().await;
    let is_inside = false;
    for at_us in (0..end_us).step_by(700_000) {
        let view = snapshot(stage.app(), stage.room().await, When::At(at_us), is_inside).await;
        let view = view.unwrap();
        assert_eq!(view.shown(), shown(&all.at(at_us), at_us), "at {at_us}");
        assert_eq!(view.seq, all.whole_to(at_us), "at {at_us}");
    }
}

#[tokio::test]
async fn a_restart_finds_the_timeline_as_it_was() {
    let stage = Stage::new().await;
    let now_us = stage.now_us().await;
    let ahead = NewCard {
        at_us: Some(now_us + 30 * S),
        ..pin("b")
    };
    stage.put(vec![pin("a"), ahead, custom(1)]).await;
    pass(Duration::from_secs(1)).await;
    Line::retain(stage.app(), &HashSet::new());
    let mut reader = stage.app().db.readers().acquire().await.unwrap();
    let cards = RoomCards::read(&mut reader, stage.app(), stage.room().await).await;
    let cards = cards.unwrap();
    let at_us = cards.clock.now_us;
    assert_eq!(cards.timeline.seq(), 3);
    let pinned = |at_us| cards.timeline.at(at_us).pinned.at(at_us).unwrap().seq;
    assert_eq!((pinned(at_us), pinned(at_us + 31 * S)), (1, 2));
    drop(reader);
    stage.put(vec![custom(2)]).await;
    assert_eq!(stage.all().await.seq(), 4);
}
