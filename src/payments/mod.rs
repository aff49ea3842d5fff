//! Payments: whose money moves, and why. Each movement is a recipe of payments.md 13, posted by the
//! ledger.
//!
//! Invariant: only a recipe here writes transfers, and its chain is named by its cause, so that a
//! repeat posts nothing.
//!
//! Not here: how a chain is posted ([`crate::ledger`]); orders. So far there are two recipes: money
//! put into a wallet (R16), and a checkout paid out of one (R1).

mod recipes;
mod routes;
mod service;
mod wallet;

pub(crate) use self::recipes::Part;
pub(crate) use self::routes::routes;
pub(crate) use self::wallet::{WalletPay, pay_from_wallets};
