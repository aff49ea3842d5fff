//! Posting recipes: accounts are opened as they are needed, chains are posted whole or not at all.

use super::recipes::{self, Part, Release, Split};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::ids::{AccountId, PaymentId};
use crate::ledger::{self, Chain, Move, Outcome};

/// A payment to be taken out of its buyer's wallet.
#[derive(Clone, Debug)]
pub(crate) struct WalletPay {
    pub(crate) payment: PaymentId,
    pub(crate) buyer: AccountId,
    pub(crate) parts: Vec<Part>,
}

/// Takes each payment whole or not at all, in their order; whether it was taken.
///
/// # Errors
/// The database's error; the transaction must then be rolled back.
pub(crate) async fn pay_from_wallets(
    tx: &mut Tx,
    now: Timestamp,
    payments: &[WalletPay],
) -> sqlx::Result<Vec<bool>> {
    let chains = payments.iter();
    let chains = chains.map(|pay| recipes::wallet_pays(pay.payment, pay.buyer, &pay.parts));
    post(tx, now, chains.collect()).await
}

/// Splits the escrow of completed orders.
///
/// # Errors
/// The database's error, also when an escrow has not what its order says: nothing of this may be
/// committed then.
pub(crate) async fn split_escrows(
    tx: &mut Tx,
    now: Timestamp,
    splits: &[Split],
) -> sqlx::Result<()> {
    let chains = splits.iter().map(recipes::completed).collect();
    all(&post(tx, now, chains).await?)
}

/// Releases settlements that are due.
///
/// # Errors
/// As [`split_escrows`].
pub(crate) async fn release(tx: &mut Tx, now: Timestamp, releases: &[Release]) -> sqlx::Result<()> {
    let chains = releases.iter().map(recipes::released);
    let chains = chains.filter(|chain| !chain.transfers.is_empty()).collect();
    all(&post(tx, now, chains).await?)
}

fn all(posted: &[bool]) -> sqlx::Result<()> {
    if posted.iter().all(|is_posted| *is_posted) {
        return Ok(());
    }
    Err(sqlx::Error::Protocol(
        "the ledger refused what the orders say".into(),
    ))
}

async fn post(tx: &mut Tx, now: Timestamp, chains: Vec<Chain>) -> sqlx::Result<Vec<bool>> {
    if chains.is_empty() {
        return Ok(Vec::new());
    }
    let moves = chains.iter().flat_map(|chain| &chain.transfers);
    let mut sides = Vec::new();
    for transfer in moves {
        if let Move::Posted {
            debit,
            credit,
            amount,
        } = &transfer.what
        {
            sides.push((debit.clone(), amount.currency()));
            sides.push((credit.clone(), amount.currency()));
        }
    }
    ledger::open(tx, now, &sides).await?;
    let results = ledger::post_all(tx, now, &chains).await?;
    let is_posted = |outcomes: &Vec<Outcome>| outcomes.iter().all(|it| it.is_there());
    Ok(results.iter().map(is_posted).collect())
}
