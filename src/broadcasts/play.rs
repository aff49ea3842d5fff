//! RTMP play (media.md 7): who may watch; then the session is known to the media API.
//!
//! Not here: the dialogue, which frames a viewer is sent.

use axum::extract::Query;
use http::{HeaderMap, Uri};
use lamplight_media::broadcast::BroadcastKey;
use lamplight_media::flv::viewer::{Control, Terms};
use lamplight_media::request::{
    DECISION_TIMEOUT, PlayDecision, PlayGrant, PlayRequest, Refusal, RefusalCode,
};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{Instrument, info};

use super::flv::{self, Sessions, Watching, Wish};
use crate::app::{App, new_secret};
use crate::http::{ApiError, Code};

const RTMP: &str = "rtmp";
/// The application under which rooms are played.
const APP: &str = "live";

/// Answers a player: what it may watch, or a sentence that says what to do.
#[tracing::instrument(name = "broadcasts.decide_play", skip_all)]
pub(crate) async fn decide(app: &App, request: PlayRequest) {
    if request.reply.is_closed() {
        return;
    }
    let PlayRequest {
        app: name,
        room,
        query,
        reply,
        ..
    } = request;
    let judged = match timeout(DECISION_TIMEOUT, judge(app, &name, &room, &query)).await {
        Ok(judged) => judged,
        Err(_elapsed) => Err(refusal(
            RefusalCode::TryAgain,
            "The server is busy. Try again in a few seconds.",
        )),
    };
    let mut terms = match judged {
        Ok(terms) => terms,
        Err(refusal) => {
            info!(reason = refusal.code.reason(), "player refused");
            drop(reply.send(PlayDecision::Reject(refusal)));
            return;
        }
    };
    let id = new_secret("rtmp_");
    terms.session = Some(id.as_str().into());
    let (opened, session) = oneshot::channel();
    let grant = PlayGrant {
        broadcast: BroadcastKey::new(&room),
        terms,
        opened,
    };
    // One that has left meanwhile is not waited for.
    if reply.send(PlayDecision::Accept(grant)).is_ok() {
        watch_over(app, (id, room), session);
    }
}

async fn judge(app: &App, name: &str, room: &str, query: &str) -> Result<Terms, Refusal> {
    if name != APP {
        return Err(refusal(
            RefusalCode::UnknownRoom,
            "Rooms are played at rtmp://HOST/live/ROOM.",
        ));
    }
    let wish = read(query)?;
    let viewer = flv::let_in(app, room, &wish, &HeaderMap::new()).await;
    let viewer = viewer.map_err(|error| refusal_of(&error))?;
    flv::terms(app, &wish, viewer).map_err(|error| refusal_of(&error))
}

fn read(query: &str) -> Result<Wish, Refusal> {
    let uri = Uri::try_from(format!("/?{query}")).ok();
    let wish = uri.and_then(|uri| Query::<Wish>::try_from_uri(&uri).ok());
    wish.map(|Query(wish)| wish).ok_or_else(|| {
        refusal(
            RefusalCode::Unsupported,
            "What stands behind the ? cannot be read: token=, rendition= and audio= are known, \
             joined by &.",
        )
    })
}

fn refusal_of(error: &ApiError) -> Refusal {
    match error.code() {
        Code::NotFound => refusal(
            RefusalCode::UnknownRoom,
            "There is no such room. Copy its id again: rtmp://HOST/live/ROOM.",
        ),
        Code::Unauthenticated => refusal(
            RefusalCode::NotAllowed,
            "This room is private: put ?token= and a playback token of it that has not expired \
             behind its id.",
        ),
        Code::Forbidden => refusal(RefusalCode::NotAllowed, "This room takes no viewers now."),
        Code::Unservable => refusal(
            RefusalCode::Unsupported,
            "rendition is src, or v and the lines of a rung, as in v480; audio is aac or opus.",
        ),
        _ => refusal(
            RefusalCode::TryAgain,
            "The server is full or stopping. Try again in a few seconds.",
        ),
    }
}

fn refusal(code: RefusalCode, sentence: &str) -> Refusal {
    let sentence = sentence.into();
    Refusal { code, sentence }
}

/// Lists the session while it lasts, once it has begun.
fn watch_over(app: &App, (id, room): (String, String), session: oneshot::Receiver<Control>) {
    let (sessions, clock) = (Sessions::of(app), app.clone());
    let span = tracing::info_span!("rtmp.session", broadcast.id = %room);
    let run = async move {
        let Ok(control) = session.await else { return };
        let watching = Watching {
            protocol: RTMP,
            room,
            control: control.clone(),
            since: clock.clock.now(),
        };
        sessions.viewers.insert(id.clone(), watching);
        control.gone().await;
        sessions.viewers.remove(&id);
    };
    app.tasks.spawn("rtmp.session", run.instrument(span));
}
