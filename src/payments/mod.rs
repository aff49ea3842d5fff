//! Payments: whose money moves, and why. Each movement is a recipe of payments.md 13, posted by the
//! ledger.
//!
//! Invariant: only a recipe here writes transfers, and its chain is named by its cause, so that a
//! repeat posts nothing.
//!
//! Not here: how a chain is posted ([`crate::ledger`]); orders. So far there is one recipe: money
//! put into a wallet.

mod recipes;
mod routes;
mod service;

pub(crate) use self::routes::routes;
