//! Orders: from a wish to a paid order (commerce.md 7).
//!
//! `reserved -> paid -> fulfilling -> completed`, or out through `expired` and `cancelled`.
//! [`place`], [`pay`], [`close`] and [`ship`] ride on commands of the stock sequencer: stock,
//! order, money and event are one commit.
//!
//! Invariants
//! - The price is copied from what was confirmed by the buyer and never read from it again.
//! - A checkout of several merchants is placed for all of them or for none.
//! - An order becomes `paid` in the transaction of its ledger transfer and of its stock.
//!
//! Not here: counters ([`crate::catalog`]), which transfers money makes ([`crate::payments`]).

mod close;
mod complete;
mod jobs;
mod model;
mod pay;
mod place;
mod routes;
mod ship;
mod store;
#[cfg(test)]
mod tests;
mod views;

pub(crate) use self::jobs::run;
pub(crate) use self::routes::routes;
