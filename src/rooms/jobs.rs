//! The reconciler of rooms: compares what is stored with what the media core carries.
//!
//! It has no input and is idempotent, so a restart in the middle of a show needs nothing special:
//! a room that is stored as live without a publisher becomes interrupted like any other.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::warn;

use super::cards::{self, Line};
use super::envelope::Action;
use super::model::{Media, Room, State};
use super::{service, store};
use crate::app::App;
use crate::broadcasts;
use crate::events::Kind;
use crate::ids::RoomId;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// While a publisher is in whose first frame has not come, or a cue waits.
const LOOK_SOON: Duration = Duration::from_millis(100);

/// Since when each room has had no media.
pub(super) type Gone = HashMap<RoomId, Instant>;

/// Runs for ever; may be dropped at any time, since each move is one transaction.
pub(crate) async fn run(app: App) {
    let mut changes = broadcasts::changes(&app);
    let mut gone = Gone::new();
    loop {
        changes.mark_unchanged();
        let wait = match reconcile(&app, &mut gone, Instant::now()).await {
            Ok(is_waiting) if is_waiting => LOOK_SOON,
            Ok(_) => LOOK_EVERY,
            Err(err) => {
                warn!(
                    error = &err as &dyn std::error::Error,
                    "looking after rooms failed"
                );
                LOOK_EVERY
            }
        };
        // Woken early or not, the next look is the same.
        drop(tokio::time::timeout(wait, changes.changed()).await);
    }
}

/// Says on the timeline what ran out and what came back, for ever.
pub(crate) async fn follow_stock(app: App) {
    let mut events = app.bus.subscribe();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                warn!(events.missed = missed, "cards of stock may be missing");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let action = match event.kind {
            Kind::InventorySoldOut => Action::SoldOut,
            Kind::InventoryRestocked => Action::Restock,
            _ => continue,
        };
        let Ok(variant) = event.subject_id.parse() else {
            continue;
        };
        if let Err(err) = cards::tell_stock(&app, variant, action).await {
            let err = &err as &dyn std::error::Error;
            warn!(error = err, variant.id = %variant, "no card of stock");
        }
    }
}

/// Looks at every room once; `true` when a publisher's first frame is awaited, or a card's cue
/// waits for its turn.
pub(super) async fn reconcile(app: &App, gone: &mut Gone, now: Instant) -> sqlx::Result<bool> {
    let rooms = store::active(&app.db).await?;
    let active: HashSet<RoomId> = rooms.iter().map(|room| room.id).collect();
    gone.retain(|id, _| active.contains(id));
    Line::retain(app, &active);
    let mut is_waiting = false;
    for room in &rooms {
        let sending = broadcasts::sending(app, room.id);
        let media = if sending.is_some() {
            gone.remove(&room.id);
            Media::Sending
        } else {
            is_waiting |= broadcasts::has_publisher(app, room.id);
            let since = gone.entry(room.id).or_insert(now);
            Media::Gone(now.saturating_duration_since(*since))
        };
        if let Some(step) = room.next(media, app.clock.now()) {
            service::apply(app, room, step, sending.as_ref()).await?;
        } else if let Some(sending) = sending.filter(|_| room.state == State::Live) {
            keep_timeline(app, room, &sending).await?;
        }
        is_waiting |= cards::tend(app, room).await?;
    }
    Ok(is_waiting)
}

async fn keep_timeline(app: &App, room: &Room, sending: &broadcasts::Sending) -> sqlx::Result<()> {
    if store::has_timeline(&app.db, room.id, &sending.instance).await? {
        return Ok(());
    }
    service::continue_timeline(app, room, sending).await
}
