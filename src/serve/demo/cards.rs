//! The cards of the demo: one every 20 s, on the frame it belongs to.
//!
//! A card goes the way every cue goes ([`crate::rooms::place_card`]): numbered and committed first,
//! then handed to the media core, so that all players show it on the same frame.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{debug, warn};

use crate::app::App;
use crate::ids::RoomId;
use crate::money::{Currency, Money};
use crate::rooms::{self, CardError};
use crate::serve::Server;

const EVERY: Duration = Duration::from_secs(20);

/// What the show sells, in turn: title and price in minor units.
const GOODS: [(&str, i64); 6] = [
    ("Enamel mug, 350 ml", 1_999),
    ("Beeswax candle, 40 h", 2_450),
    ("Linen apron, undyed", 8_900),
    ("Cast-iron pan, 26 cm", 15_900),
    ("Storm lantern, brass", 32_000),
    ("Tea towel, set of three", 3_600),
];

#[derive(Debug, Serialize)]
struct Card<'a> {
    title: &'a str,
    price: Money,
}

/// Fires a card every [`EVERY`] while the room is live.
pub(super) fn start(server: &Server, room: RoomId) {
    let app = server.app().clone();
    let tasks = &server.app().tasks;
    tasks.spawn_until_stop("demo.cards", run(app, room));
}

async fn run(app: App, room: RoomId) {
    let mut ticks = interval_at(Instant::now() + EVERY, EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for (title, price) in GOODS.into_iter().cycle() {
        ticks.tick().await;
        let price = Money::new(price, Currency::CNY);
        match rooms::place_card(&app, room, &Card { title, price }).await {
            Ok(seq) => debug!(card.seq = seq, "card placed"),
            Err(CardError::NotLive(_)) => debug!("no card: the room is not live"),
            Err(err) => warn!(error = &err as &dyn std::error::Error, "no card"),
        }
    }
}
