//! Payments: whose money moves, and why. Each movement is a recipe of payments.md 13, posted by the
//! ledger.
//!
//! Invariant: only a recipe here writes transfers, and its chain is named by its cause, so that a
//! repeat posts nothing.
//!
//! Not here: how a chain is posted ([`crate::ledger`]); orders. So far there are the recipes for
//! money put into a wallet (R16), a checkout paid out of one (R1), an order split when it is
//! completed (R7) and released when it is due (R10).

mod post;
mod recipes;
mod routes;
mod service;
mod split;

pub(crate) use self::post::{WalletPay, pay_from_wallets, release, split_escrows};
pub(crate) use self::recipes::{Part, Party, Release, Share, Split};
pub(crate) use self::routes::routes;
pub(crate) use self::split::spread;
