//! Catalog: what is sold, for how much, and how much of it is there.
//!
//! Invariants
//! - All stock is decided by one writer ([`sequencer`]); counters are a cache of movements.
//! - Price windows of one kind never overlap.
//!
//! Not here: what a viewer is offered in a room (`rooms`), orders (`orders`).

mod goods;
mod sequencer;
mod stock;

pub(crate) use self::goods::{Good, InForce, Terms, goods, in_force, terms};
pub(crate) use self::sequencer::{
    Command, Hold, Refused, Released, Ride, Seat, Sequencer, Units, Verdict, What, run, submit,
};
pub(crate) use self::stock::routes as stock_routes;
