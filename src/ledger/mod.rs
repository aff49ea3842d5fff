//! The ledger: accounts, transfers between them, and the proof that nothing is missing
//! (payments.md 11).
//!
//! Invariants
//! - Transfers are only ever inserted, each with the hash of the one before; balances are a cache
//!   that changes in the transaction of its transfer.
//! - A chain of transfers is there whole or not at all, once.
//! - Per currency the debits equal the credits; a flagged account never crosses its bound, pending
//!   transfers counted.
//!
//! Not here: which transfers a payment, refund or settlement makes (`payments`).

mod book;
mod jobs;
mod model;
mod routes;
mod service;
mod signer;
mod store;
#[cfg(test)]
mod tests;
mod verify;

pub(crate) use self::jobs::run;
pub(crate) use self::model::{Chain, Move, Outcome, Path, Transfer};
pub(crate) use self::routes::routes;
pub(crate) use self::service::{open, post, post_all};
pub(crate) use self::signer::open_signing_key;
pub(crate) use self::verify::verify;
