//! Catalog: what is sold, for how much, and how much of it is there.
//!
//! Invariants
//! - All stock is decided by one writer ([`sequencer`]); counters are a cache of movements.
//! - Price windows of one kind never overlap.
//! - Variants and prices change behind the lock of their product, whose version rises with them.
//!
//! Not here: what a viewer is offered in a room (`rooms`), orders (`orders`).

mod access;
mod bulk;
mod goods;
mod merchants;
mod model;
mod prices;
mod routes;
mod sequencer;
mod service;
mod stock;
mod store;
#[cfg(test)]
mod tests;
mod views;

#[expect(unused_imports, reason = "rooms and what is sold in them come next")]
pub(crate) use self::access::{StaffRole, may};
pub(crate) use self::goods::{Good, Terms, goods, terms};
#[expect(unused_imports, reason = "rooms and what is sold in them come next")]
pub(crate) use self::merchants::{commission_cap, merchant, staff_role};
#[expect(unused_imports, reason = "rooms and what is sold in them come next")]
pub(crate) use self::model::{Merchant, MerchantStatus, PriceKind, PriceRow};
#[expect(unused_imports, reason = "rooms and what is sold in them come next")]
pub(crate) use self::prices::prices_in_force;
pub(crate) use self::routes::routes;
pub(crate) use self::sequencer::{
    Command, Hold, Refused, Released, Ride, Seat, Sequencer, Units, Verdict, What, run, submit,
};
pub(crate) use self::stock::routes as stock_routes;
