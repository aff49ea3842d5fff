//! The machine of a room as a table; rooms and the reconciler on a real database and hub.

use std::time::Duration;

use serde::Serialize;
use sqlx::Row;
use tokio::time::Instant;

use super::jobs::{Gone, reconcile};
use super::model::{
    Ending, GRACE_FOR_EVER, LOST_AFTER, MISSED_AFTER, Media, Move, Room, SCHEDULED_MAX, State,
};
use super::store::Filter;
use super::*;
use crate::accounts::{Handle, create_operator};
use crate::app::Fixture;
use crate::clock::Timestamp;
use crate::creators::{self, NewCreator};
use crate::db::NOON;
use crate::http::Seek;
use crate::ids::{CreatorId, RoomId};

const GONE: Media = Media::Gone(Duration::ZERO);
const LOST: Media = Media::Gone(LOST_AFTER);

pub(super) fn at(state: State) -> Room {
    Room {
        id: RoomId::new(NOON),
        creator: CreatorId::new(NOON),
        creator_name: String::new(),
        creator_handle: String::new(),
        title: String::new(),
        state,
        starts_at: None,
        auto_start: true,
        card_lead_ms: 300,
        price_honour_ms: 8_000,
        interrupt_grace_s: 10,
        live_at: None,
        interrupted_at: Some(NOON),
        ended_at: None,
        version: 1,
        created_at: NOON,
        updated_at: NOON,
    }
}

#[test]
fn a_room_moves_only_along_the_machine() {
    let almost = Media::Gone(LOST_AFTER - Duration::from_millis(1));
    let cases = [
        (State::Scheduled, Media::Sending, Some(Move::GoLive)),
        (State::Scheduled, LOST, None),
        (State::Rehearsal, Media::Sending, None),
        (State::Rehearsal, LOST, None),
        (State::Live, Media::Sending, None),
        (State::Live, almost, None),
        (State::Live, LOST, Some(Move::Interrupt)),
        (State::Interrupted, Media::Sending, Some(Move::Resume)),
        (State::Interrupted, LOST, None),
        (State::Ended, Media::Sending, None),
        (State::Cancelled, Media::Sending, None),
    ];
    for (state, media, expected) in cases {
        assert_eq!(at(state).next(media, NOON), expected, "{state:?} {media:?}");
    }
    let rehearsed = Room {
        auto_start: false,
        ..at(State::Scheduled)
    };
    assert_eq!(rehearsed.next(Media::Sending, NOON), Some(Move::Rehearse));
}

#[test]
fn an_interruption_ends_the_room_after_its_grace_and_never_without_one() {
    let room = at(State::Interrupted);
    let grace = Duration::from_secs(10);
    let just_before = Timestamp::from_micros(NOON.plus(grace).as_micros() - 1);
    assert_eq!(room.next(GONE, just_before), None);
    assert_eq!(
        room.next(GONE, NOON.plus(grace)),
        Some(Move::End(Ending::GraceOver))
    );
    let patient = Room {
        interrupt_grace_s: GRACE_FOR_EVER,
        ..room
    };
    let next_year = NOON.plus(Duration::from_secs(365 * 86_400));
    assert_eq!(patient.next(GONE, next_year), None);
}

#[test]
fn a_show_nobody_began_is_missed_half_an_hour_late() {
    for state in [State::Scheduled, State::Rehearsal] {
        let room = Room {
            starts_at: Some(NOON),
            ..at(state)
        };
        let late = NOON.plus(MISSED_AFTER);
        assert_eq!(room.next(GONE, NOON), None);
        assert_eq!(room.next(GONE, late), Some(Move::Cancel(Ending::Missed)));
        assert_ne!(
            room.next(Media::Sending, late),
            Some(Move::Cancel(Ending::Missed))
        );
    }
}

pub(super) struct Show {
    pub(super) it: Fixture,
    creator: CreatorId,
    gone: Gone,
    now: Instant,
}

impl Show {
    pub(super) async fn new() -> Self {
        let it = Fixture::new().await;
        let owner = create_operator(&it.app, "owner").await.unwrap().account;
        let wish = NewCreator {
            owner,
            handle: Handle::parse("page").unwrap(),
            kind: creators::Kind::Person,
            name: "Page".into(),
            bio: String::new(),
            category: String::new(),
        };
        let mut tx = it.db().begin().await.unwrap();
        let creator = creators::create(&mut tx, NOON, wish).await.unwrap().id;
        tx.commit().await.unwrap();
        Self {
            it,
            creator,
            gone: Gone::new(),
            now: Instant::now(),
        }
    }

    pub(super) fn wish(&self) -> NewRoom {
        NewRoom {
            interrupt_grace_s: 10,
            ..NewRoom::open_ended(self.creator, "A show")
        }
    }

    pub(super) async fn room(&self, wish: NewRoom) -> Result<RoomId, CreateError> {
        let mut tx = self.it.db().begin().await.unwrap();
        let id = create(&mut tx, self.it.app.clock.now(), wish).await?;
        tx.commit().await.unwrap();
        Ok(id)
    }

    /// A publisher whose first frame is in; it goes when dropped.
    pub(super) fn publish(&self, id: RoomId) -> impl Drop + use<> {
        self.it.publish(&id.to_string(), self.now)
    }

    pub(super) async fn look(&mut self) {
        reconcile(&self.it.app, &mut self.gone, self.now)
            .await
            .unwrap();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.it.app.clock.advance(time);
    }

    async fn state(&self, id: RoomId) -> State {
        store::find(self.it.db(), id).await.unwrap().unwrap().state
    }

    async fn told(&self, id: RoomId) -> Vec<String> {
        let sql = "SELECT type FROM outbox WHERE subject_id = $1 ORDER BY subject_seq";
        let query = sqlx::query(sql).bind(id.to_string());
        let rows = query.fetch_all(self.it.db().readers()).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    async fn offsets(&self, id: RoomId) -> Vec<(i64, Option<i64>)> {
        let sql = "SELECT offset_us, last_us - first_us FROM room_timelines WHERE room_id = $1 \
                   ORDER BY first_us";
        let query = sqlx::query(sql).bind(id.to_string());
        let rows = query.fetch_all(self.it.db().readers()).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

const TICK: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_show_goes_live_is_interrupted_comes_back_and_ends() {
    let mut show = Show::new().await;
    let id = show.room(show.wish()).await.unwrap();
    show.look().await;
    assert_eq!(show.state(id).await, State::Scheduled);

    let publisher = show.publish(id);
    show.look().await;
    show.look().await;
    assert_eq!(show.state(id).await, State::Live);
    show.pass(TICK);
    drop(publisher);
    show.look().await;
    assert_eq!(show.state(id).await, State::Live, "lost for less than 5 s");
    show.pass(LOST_AFTER);
    show.look().await;
    assert_eq!(show.state(id).await, State::Interrupted);

    let publisher = show.publish(id);
    show.look().await;
    assert_eq!(show.state(id).await, State::Live);
    drop(publisher);
    show.look().await;
    show.pass(LOST_AFTER);
    show.look().await;
    show.pass(Duration::from_secs(10));
    show.look().await;
    show.look().await;
    assert_eq!(show.state(id).await, State::Ended);
    let told = [
        "room.scheduled",
        "room.live",
        "room.interrupted",
        "room.resumed",
        "room.interrupted",
        "room.ended",
    ];
    assert_eq!(show.told(id).await, told);
}

#[tokio::test]
async fn room_time_runs_on_over_a_new_instance() {
    let mut show = Show::new().await;
    let id = show.room(show.wish()).await.unwrap();
    let publisher = show.publish(id);
    show.look().await;
    show.pass(TICK * 20);
    drop(publisher);
    show.look().await;
    show.pass(TICK * 2);
    // Back before the room counts as interrupted: a new place, no event.
    let publisher = show.publish(id);
    show.look().await;
    show.pass(TICK * 3);
    drop(publisher);
    show.look().await;
    show.pass(LOST_AFTER);
    show.look().await;
    show.pass(TICK * 2);
    let _publisher = show.publish(id);
    show.look().await;
    let offsets = show.offsets(id).await;
    let starts: Vec<_> = offsets
        .iter()
        .map(|(offset, _)| offset / 1_000_000)
        .collect();
    assert_eq!(starts, [0, 22, 32]);
    assert_eq!(
        offsets.last().unwrap().1,
        None,
        "the running one has no end"
    );
}

#[tokio::test]
async fn a_restart_finds_the_room_live_without_a_publisher_and_interrupts_it() {
    let mut show = Show::new().await;
    let id = show.room(show.wish()).await.unwrap();
    drop({
        let publisher = show.publish(id);
        show.look().await;
        publisher
    });
    show.gone = Gone::new();
    show.look().await;
    assert_eq!(show.state(id).await, State::Live);
    show.pass(LOST_AFTER);
    show.look().await;
    assert_eq!(show.state(id).await, State::Interrupted);
}

#[tokio::test]
async fn an_open_ended_room_waits_for_ever() {
    let mut show = Show::new().await;
    let id = show
        .room(NewRoom::open_ended(show.creator, "Demo"))
        .await
        .unwrap();
    drop({
        let publisher = show.publish(id);
        show.look().await;
        publisher
    });
    show.look().await;
    show.pass(LOST_AFTER);
    show.look().await;
    show.pass(TICK * 100_000);
    show.look().await;
    assert_eq!(show.state(id).await, State::Interrupted);
}

#[tokio::test]
async fn a_missed_show_is_cancelled_and_takes_no_publisher() {
    let mut show = Show::new().await;
    let wish = NewRoom {
        starts_at: Some(NOON),
        ..show.wish()
    };
    let id = show.room(wish).await.unwrap();
    show.pass(MISSED_AFTER);
    show.look().await;
    assert_eq!(show.state(id).await, State::Cancelled);
    assert_eq!(show.told(id).await, ["room.scheduled", "room.cancelled"]);
    let sql = "SELECT publish FROM room_access WHERE room_id = $1";
    let query = sqlx::query(sql).bind(id.to_string());
    let row = query.fetch_one(show.it.db().readers()).await.unwrap();
    assert_eq!(row.get::<i64, _>(0), 0);
}

#[tokio::test]
async fn a_creator_announces_twenty_rooms_and_no_more() {
    let show = Show::new().await;
    for _ in 0..SCHEDULED_MAX {
        show.room(show.wish()).await.unwrap();
    }
    let over = show.room(show.wish()).await;
    assert!(matches!(over, Err(CreateError::LimitReached)));
    let stranger = NewRoom::open_ended(CreatorId::new(NOON), "x");
    let unknown = show.room(stranger).await;
    assert!(matches!(unknown, Err(CreateError::NoCreator(_))));
}

#[tokio::test]
async fn lists_are_newest_first_and_filters_narrow_them() {
    let mut show = Show::new().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(show.room(show.wish()).await.unwrap());
        show.pass(TICK);
    }
    let _publisher = show.publish(ids[1]);
    show.look().await;
    let list = async |filter: Filter, seek| {
        let rooms = store::list(show.it.db(), &filter, &seek, 10).await.unwrap();
        rooms.into_iter().map(|room| room.id).collect::<Vec<_>>()
    };
    let newest_first = [ids[2], ids[1], ids[0]];
    assert_eq!(list(Filter::default(), Seek::First).await, newest_first);
    assert_eq!(list(Filter::default(), Seek::After(ids[1])).await, [ids[0]]);
    assert_eq!(
        list(Filter::default(), Seek::Before(ids[1])).await,
        [ids[2]]
    );
    let live = Filter {
        states: vec![State::Live, State::Interrupted],
        ..Filter::default()
    };
    assert_eq!(list(live, Seek::First).await, [ids[1]]);
    let others = Filter {
        creator: Some(CreatorId::new(NOON)),
        ..Filter::default()
    };
    assert!(list(others, Seek::First).await.is_empty());
    let middle = Filter {
        created_from: Some(NOON.plus(TICK)),
        created_before: Some(NOON.plus(TICK * 2)),
        ..Filter::default()
    };
    assert_eq!(list(middle, Seek::First).await, [ids[1]]);
}

#[derive(Serialize)]
struct Data {
    title: &'static str,
}

#[tokio::test]
async fn cards_are_numbered_without_gaps_and_only_while_live() {
    let mut show = Show::new().await;
    let id = show.room(show.wish()).await.unwrap();
    let card = Data { title: "Mug" };
    let early = place_card(&show.it.app, id, &card).await;
    assert!(matches!(early, Err(CardError::NotLive(_))));
    let _publisher = show.publish(id);
    show.look().await;
    for seq in 1..=3 {
        assert_eq!(place_card(&show.it.app, id, &card).await.unwrap(), seq);
    }
    let act = || place_card(&show.it.app, id, &card);
    let (name, text) = show.it.passing_cue(&id.to_string(), act).await;
    assert_eq!(name, "card-4");
    let at = r#""at_us":"#;
    let start = format!(r#"{{"v":1,"room":"{id}","seq":4,"action":"custom",{at}"#);
    assert!(text.starts_with(&start), "{text}");
    let tail = format!(
        r#","issued_us":{},"ttl_us":0,"entry":null,"data":{{"title":"Mug"}}}}"#,
        NOON.as_micros()
    );
    assert!(text.ends_with(&tail), "{text}");
}
