//! The wallet as a provider: balance in the ledger, no network (payments.md 9).

use super::recipes::{self, Part};
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::ids::{AccountId, PaymentId};
use crate::ledger;

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
    if payments.is_empty() {
        return Ok(Vec::new());
    }
    let mut accounts = Vec::new();
    for pay in payments {
        for part in &pay.parts {
            accounts.push((recipes::wallet(pay.buyer), part.due.currency()));
            accounts.push((recipes::escrow(part.order), part.due.currency()));
        }
    }
    ledger::open(tx, now, &accounts).await?;
    let chains = payments
        .iter()
        .map(|pay| recipes::wallet_pays(pay.payment, pay.buyer, &pay.parts));
    let results = ledger::post_all(tx, now, &chains.collect::<Vec<_>>()).await?;
    let is_taken = |outcomes: &Vec<ledger::Outcome>| outcomes.iter().all(|it| it.is_there());
    Ok(results.iter().map(is_taken).collect())
}
