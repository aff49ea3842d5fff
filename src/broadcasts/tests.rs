//! Keys and decisions, on a real database and a real hub.

use std::net::SocketAddr;

use lamplight_media::broadcast::EndReason;
use lamplight_media::request::{Decision, Protocol, PublishRequest, Refusal, RefusalCode};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::model::secret_of;
use super::*;
use crate::app::{Fixture, Phase, begin};
use crate::db::NOON;
use crate::ids::RoomId;

#[test]
fn the_key_is_found_wherever_an_encoder_puts_it() {
    let cases = [
        ("live", "live_abc", "live_abc"),
        ("live", "live_abc?token=1", "live_abc"),
        ("live", " live_abc ", "live_abc"),
        ("live/live_abc", "", "live_abc"),
        ("live/live_abc?x", "?y", "live_abc"),
        ("live", "", ""),
        ("live/", "", ""),
    ];
    for (app, name, secret) in cases {
        assert_eq!(secret_of(app, name), secret, "{app} {name}");
    }
}

/// A room with its row and nothing else: this module knows no more of it.
async fn room(it: &Fixture) -> RoomId {
    let room = RoomId::new(NOON);
    let creator = format!("cre_{room}");
    let mut tx = it.db().begin().await.unwrap();
    let sql = "INSERT INTO creators (id, handle, kind, name, bio, category, verification, state, \
               followers, posts, version, created_us, updated_us) \
               VALUES ($1, $1, 'person', '', '', '', 'none', 'active', 0, 0, 1, 0, 0)";
    let query = sqlx::query(sql).bind(&creator);
    query.execute(&mut *tx).await.unwrap();
    let sql = "INSERT INTO rooms (id, creator_id, title, state, auto_start, interrupt_grace_s, \
               card_seq, card_lead_ms, price_honour_ms, version, created_us, updated_us) \
               VALUES ($1, $2, '', 'scheduled', 1, 10, 0, 300, 0, 1, 0, 0)";
    let query = sqlx::query(sql).bind(room.to_string()).bind(&creator);
    query.execute(&mut *tx).await.unwrap();
    open_access(&mut tx, room, NOON).await.unwrap();
    tx.commit().await.unwrap();
    room
}

async fn key(it: &Fixture, room: RoomId) -> Result<NewPublishKey, AddKeyError> {
    let mut tx = it.db().begin().await.unwrap();
    let key = add_key(&mut tx, room, NOON).await?;
    tx.commit().await.unwrap();
    Ok(key)
}

async fn revoke(it: &Fixture, room: RoomId, key: &NewPublishKey) -> bool {
    let mut tx = it.db().begin().await.unwrap();
    let is_revoked = revoke_key(&mut tx, room, key.id, NOON).await.unwrap();
    tx.commit().await.unwrap();
    is_revoked
}

fn question(secret: &str) -> (PublishRequest, oneshot::Receiver<Decision>) {
    let (reply, answer) = oneshot::channel();
    let request = PublishRequest {
        protocol: Protocol::Rtmp,
        app: "live".into(),
        tc_url: String::new(),
        stream_name: secret.into(),
        peer: SocketAddr::from(([127, 0, 0, 1], 1)),
        reply,
    };
    (request, answer)
}

async fn ask(it: &Fixture, secret: &str) -> Decision {
    let (request, answer) = question(secret);
    decide(&it.app, request).await;
    answer.await.unwrap()
}

/// True when a broadcast was opened, even if it is over again.
async fn was_opened(it: &Fixture) -> bool {
    tokio::select! {
        biased;
        _ = it.app.media.next_event() => true,
        () = std::future::ready(()) => false,
    }
}

/// All connections for reading: while they are held, every look-up waits.
async fn hold_readers(it: &Fixture) -> Vec<sqlx::pool::PoolConnection<sqlx::Any>> {
    let readers = it.db().readers();
    let mut held = Vec::new();
    for _ in 0..readers.options().get_max_connections() {
        held.push(readers.acquire().await.unwrap());
    }
    held
}

#[tokio::test]
async fn a_publisher_that_has_given_up_opens_nothing() {
    let it = Fixture::new().await;
    let room = room(&it).await;
    let key = key(&it, room).await.unwrap();
    let (request, answer) = question(&key.secret);
    drop(answer);
    decide(&it.app, request).await;
    assert!(!was_opened(&it).await, "gave up before its turn");

    let held = hold_readers(&it).await;
    let (request, answer) = question(&key.secret);
    let give_up = async {
        tokio::task::yield_now().await;
        drop(answer);
        drop(held);
    };
    tokio::join!(decide(&it.app, request), give_up);
    assert!(
        !was_opened(&it).await,
        "gave up while its key was looked up"
    );
    assert!(matches!(ask(&it, &key.secret).await, Decision::Accept(_)));
    assert!(was_opened(&it).await);
}

fn refused(decision: Decision) -> Refusal {
    match decision {
        Decision::Reject(refusal) => refusal,
        Decision::Accept(_) => panic!("accepted"),
    }
}

#[tokio::test]
async fn a_room_has_two_valid_keys_and_a_deleted_one_makes_place() {
    let it = Fixture::new().await;
    let room = room(&it).await;
    let first = key(&it, room).await.unwrap();
    key(&it, room).await.unwrap();
    assert!(matches!(
        key(&it, room).await,
        Err(AddKeyError::LimitReached)
    ));
    assert!(revoke(&it, room, &first).await);
    assert!(!revoke(&it, room, &first).await, "twice changes nothing");
    key(&it, room).await.unwrap();
}

#[tokio::test]
async fn a_key_belongs_to_one_room() {
    let it = Fixture::new().await;
    let (one, other) = (room(&it).await, room(&it).await);
    let key = key(&it, one).await.unwrap();
    assert!(has_key(it.db(), one, &key.secret).await.unwrap());
    assert!(!has_key(it.db(), other, &key.secret).await.unwrap());
    assert!(!revoke(&it, other, &key).await);
    assert!(has_key(it.db(), one, &key.secret).await.unwrap());
}

#[tokio::test]
async fn every_refusal_has_its_code_and_says_what_to_do() {
    let it = Fixture::with(&["publish.takeover=\"refuse\""]).await;
    let room = room(&it).await;
    let (gone, good) = (key(&it, room).await.unwrap(), key(&it, room).await.unwrap());
    revoke(&it, room, &gone).await;
    let unknown = refused(ask(&it, "live_unknown").await);
    let deleted = refused(ask(&it, &gone.secret).await);
    let Decision::Accept(publisher) = ask(&it, &good.secret).await else {
        panic!("refused");
    };
    assert_eq!(publisher.broadcast().key().as_str(), room.to_string());
    let busy = refused(ask(&it, &good.secret).await);
    publisher.finish(EndReason::Finished);

    let mut tx = it.db().begin().await.unwrap();
    close_publishing(&mut tx, room, NOON).await.unwrap();
    tx.commit().await.unwrap();
    let over = refused(ask(&it, &good.secret).await);
    it.app.phase.send_replace(Phase::Draining);
    let draining = refused(ask(&it, &good.secret).await);
    let codes = [&unknown, &deleted, &busy, &over, &draining].map(|r| r.code);
    let expected = [
        RefusalCode::UnknownKey,
        RefusalCode::NotAllowed,
        RefusalCode::Busy,
        RefusalCode::NotAllowed,
        RefusalCode::TryAgain,
    ];
    assert_eq!(codes, expected);
    let sentences = [unknown, deleted, busy, over, draining].map(|r| r.sentence);
    insta::assert_snapshot!(sentences.join("\n"));
}

/// The same key again (media.md 3.4): the newer connection is let in, until they fight.
#[tokio::test]
async fn a_second_encoder_takes_over_and_two_that_fight_are_told_so() {
    let it = Fixture::new().await;
    let room = room(&it).await;
    let key = key(&it, room).await.unwrap();
    let mut older = it.publish(&room.to_string(), Instant::now());
    for _ in 0..3 {
        let Decision::Accept(newer) = ask(&it, &key.secret).await else {
            panic!("refused");
        };
        assert_eq!(older.ended().await, EndReason::Replaced);
        older = newer;
        begin(&mut older, Instant::now());
    }
    let refusal = refused(ask(&it, &key.secret).await);
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(
        refusal.sentence.contains("Stop one of them"),
        "{}",
        refusal.sentence
    );
    assert!(older.broadcast().has_publisher(), "the one there stays");
}

#[tokio::test]
async fn deleting_a_key_cuts_only_the_publisher_that_came_in_with_it() {
    let it = Fixture::new().await;
    let room = room(&it).await;
    let (one, other) = (key(&it, room).await.unwrap(), key(&it, room).await.unwrap());
    let Decision::Accept(publisher) = ask(&it, &one.secret).await else {
        panic!("refused");
    };
    cut(&it.app, room, other.id);
    assert!(has_publisher(&it.app, room));
    assert_eq!(sending(&it.app, room), None, "no frame came yet");
    cut(&it.app, room, one.id);
    assert_eq!(publisher.ended().await, EndReason::Server);
    assert!(!has_publisher(&it.app, room));
}
