//! Opening accounts and posting chains, in the caller's transaction.

use super::model::{Chain, Outcome, Path};
use super::store;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::money::Currency;

/// Opens accounts; those that are open stay as they are.
///
/// # Errors
/// The database's error.
pub(crate) async fn open(
    tx: &mut Tx,
    now: Timestamp,
    accounts: &[(Path, Currency)],
) -> sqlx::Result<()> {
    store::open(tx, now, accounts).await
}

/// Posts a chain whole or not at all; what became of each of its transfers. A chain that is there
/// already is not posted again.
///
/// # Errors
/// The database's error; the transaction must then be rolled back.
pub(crate) async fn post(tx: &mut Tx, now: Timestamp, chain: Chain) -> sqlx::Result<Vec<Outcome>> {
    let chains = [chain];
    let mut results = post_all(tx, now, &chains).await?;
    Ok(results.pop().unwrap_or_default())
}

/// The same for many chains, in their order, with as many statements as one takes: those that fail
/// leave the others alone.
///
/// # Errors
/// The database's error; the transaction must then be rolled back.
pub(crate) async fn post_all(
    tx: &mut Tx,
    now: Timestamp,
    chains: &[Chain],
) -> sqlx::Result<Vec<Vec<Outcome>>> {
    let mut book = store::load(tx, chains).await?;
    let results = chains.iter().map(|chain| book.post(now, chain)).collect();
    store::save(tx, &book).await?;
    Ok(results)
}
