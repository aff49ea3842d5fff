//! Letting publishers in, cutting them off, and knowing who sends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lamplight_media::broadcast::{
    Broadcast, BroadcastKey, EndReason, Event, OpenError, PublishPolicy, Publisher, Takeover,
};
use lamplight_media::request::{DECISION_TIMEOUT, Decision, PublishRequest, Refusal, RefusalCode};
use lamplight_media::time::MediaTime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{error, info};

use super::model::{Sending, secret_of};
use super::{admission, outputs, store};
use crate::app::App;
use crate::config;
use crate::ids::{KeyId, RoomId};

/// What this module remembers of its broadcasts.
#[derive(Debug, Default)]
struct Desk {
    /// Counts every coming and going of a publisher.
    changed: watch::Sender<u64>,
    /// The key each live broadcast was opened with.
    keys: Mutex<HashMap<RoomId, KeyId>>,
}

impl Desk {
    fn of(app: &App) -> Arc<Self> {
        app.parts.part()
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<RoomId, KeyId>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes whenever a publisher came or went, or its tracks changed.
pub(crate) fn changes(app: &App) -> watch::Receiver<u64> {
    Desk::of(app).changed.subscribe()
}

/// Answers a publisher: in with its key, or out with a sentence that says what to do. One that has
/// given up is neither looked up nor let in: its broadcast would keep out its next try.
#[tracing::instrument(name = "broadcasts.decide", skip_all)]
pub(crate) async fn decide(app: &App, request: PublishRequest) {
    if request.reply.is_closed() {
        return;
    }
    let secret = secret_of(&request.app, &request.stream_name);
    let admitted = match timeout(DECISION_TIMEOUT, admit(app, secret)).await {
        Ok(admitted) => admitted,
        Err(_elapsed) => Err(refusal(
            RefusalCode::TryAgain,
            "The server is busy. Try again in a few seconds.",
        )),
    };
    if request.reply.is_closed() {
        return;
    }
    let decision = match admitted.and_then(|key| open(app, key.room, key.id)) {
        Ok(publisher) => Decision::Accept(publisher),
        Err(refusal) => {
            info!(reason = refusal.code.reason(), "publisher refused");
            Decision::Reject(refusal)
        }
    };
    // A publisher that left meanwhile takes its broadcast with it: the answer drops it.
    drop(request.reply.send(decision));
}

/// The key of a publisher who may come in.
pub(super) async fn admit(app: &App, secret: &str) -> Result<store::FoundKey, Refusal> {
    if !app.is_open() {
        return Err(refusal(
            RefusalCode::TryAgain,
            "The server is restarting. Try again in a few seconds.",
        ));
    }
    if !admission::has_room_for_publisher(app) {
        return Err(refusal(
            RefusalCode::TryAgain,
            "The server has no memory left for another broadcast. Try again later.",
        ));
    }
    let found = store::find_key(&app.db, secret).await.map_err(|err| {
        error!(
            error = &err as &dyn std::error::Error,
            "looking up a key failed"
        );
        refusal(
            RefusalCode::TryAgain,
            "The server cannot check the key now. Try again in a few seconds.",
        )
    })?;
    let key = found.ok_or_else(|| {
        refusal(
            RefusalCode::UnknownKey,
            "This stream key is not known. Copy the key of your room again, whole and without \
             spaces, into Settings > Stream > Stream Key.",
        )
    })?;
    if key.is_revoked {
        return Err(refusal(
            RefusalCode::NotAllowed,
            "This stream key was deleted. Make a new key for the room and publish with that.",
        ));
    }
    if !key.may_publish {
        return Err(refusal(
            RefusalCode::NotAllowed,
            "The room of this stream key has ended. Make a new room and publish with its key.",
        ));
    }
    Ok(key)
}

/// Whether [`open`] would let a publisher into a room now.
pub(super) fn may_open(app: &App, room: RoomId) -> Result<(), Refusal> {
    let name = BroadcastKey::new(&room.to_string());
    let may = app.media.may_join(&name, Instant::now(), policy(app));
    may.map_err(refusal_of)
}

pub(super) fn open(app: &App, room: RoomId, key: KeyId) -> Result<Publisher, Refusal> {
    let desk = Desk::of(app);
    // Held over both steps, so that a key deleted in between finds the broadcast it opened.
    let mut keys = desk.keys();
    let name = BroadcastKey::new(&room.to_string());
    let at = (Instant::now(), app.clock.now().to_datetime());
    let publisher = app.media.join(name, at, policy(app)).map_err(refusal_of)?;
    keys.insert(room, key);
    Ok(publisher)
}

fn refusal_of(err: OpenError) -> Refusal {
    match err {
        OpenError::Busy => refusal(
            RefusalCode::Busy,
            "Somebody publishes into this room already. Stop the other encoder, then start again.",
        ),
        OpenError::TwoEncoders => refusal(
            RefusalCode::Busy,
            "Two encoders use this stream key in turn. Stop one of them; this one may come in \
             again after 30 seconds.",
        ),
        OpenError::Full => refusal(
            RefusalCode::TryAgain,
            "The server carries as many broadcasts as it may. Try again later.",
        ),
    }
}

fn policy(app: &App) -> PublishPolicy {
    let config = app.config();
    let publish = &config.publish;
    PublishPolicy {
        takeover: match publish.takeover {
            config::Takeover::Newest => Takeover::Newest,
            config::Takeover::Refuse => Takeover::Refuse,
        },
        grace: publish.grace,
        stop_grace: publish.stop_grace,
    }
}

fn refusal(code: RefusalCode, sentence: &str) -> Refusal {
    Refusal {
        code,
        sentence: sentence.into(),
    }
}

/// Cuts the publisher that came in with a key, if it is still there. Called after the commit that
/// withdrew the key.
pub(crate) fn cut(app: &App, room: RoomId, key: KeyId) {
    let desk = Desk::of(app);
    let is_its = desk.keys().get(&room) == Some(&key);
    if let Some(broadcast) = find(app, room).filter(|_| is_its) {
        broadcast.end(EndReason::Server);
    }
}

/// Cuts whoever publishes into a room that is over.
pub(crate) fn end(app: &App, room: RoomId) {
    if let Some(broadcast) = find(app, room) {
        broadcast.end(EndReason::Server);
    }
}

/// Whether a publisher is in, with media or not yet.
pub(crate) fn has_publisher(app: &App, room: RoomId) -> bool {
    find(app, room).is_some_and(|broadcast| broadcast.has_publisher())
}

/// The media that comes in for a room, once the first frame is here.
pub(crate) fn sending(app: &App, room: RoomId) -> Option<Sending> {
    let broadcast = find(app, room)?;
    broadcast.is_sending().then(|| Sending {
        instance: broadcast.instance().into(),
        first_at: broadcast.wall(MediaTime::ZERO).into(),
    })
}

pub(super) fn find(app: &App, room: RoomId) -> Option<Arc<Broadcast>> {
    app.media.find(&BroadcastKey::new(&room.to_string()))
}

/// Reads the news of the media core for the life of the server.
pub(crate) async fn news(app: App) {
    let desk = Desk::of(&app);
    loop {
        let event = app.media.next_event().await;
        match &event {
            Event::Verdict(broadcast, code, verdict) => {
                let (code, is_found) = (code.word(), verdict.is_some());
                let value = verdict.as_ref().and_then(|verdict| verdict.value);
                info!(broadcast.id = %broadcast.key(), verdict.code = code, verdict.value = value,
                    is_found, "verdict");
                continue;
            }
            Event::Viewers(_) => continue,
            Event::Started(broadcast) => {
                info!(broadcast.id = %broadcast.key(), broadcast.instance = broadcast.instance(),
                    "publisher came");
                outputs::start(&app, broadcast);
            }
            Event::Lost(broadcast) => {
                info!(broadcast.id = %broadcast.key(), "publisher went, waiting for it");
            }
            Event::Returned(broadcast) => {
                info!(broadcast.id = %broadcast.key(), "publisher is back");
            }
            Event::RecordingReady(_) => continue,
            Event::Ended(broadcast, reason) => {
                info!(broadcast.id = %broadcast.key(), reason = reason.reason(),
                    "broadcast over");
                forget(&app, &desk, broadcast);
                outputs::forget_later(&app, broadcast);
            }
            _ => {}
        }
        desk.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Forgets the key of a broadcast that ended, unless the room has a new one already.
fn forget(app: &App, desk: &Desk, broadcast: &Broadcast) {
    let Ok(room) = broadcast.key().as_str().parse::<RoomId>() else {
        return;
    };
    let mut keys = desk.keys();
    if find(app, room).is_none() {
        keys.remove(&room);
    }
}
