//! Money put into a wallet.

use super::recipes;
use crate::accounts;
use crate::clock::Timestamp;
use crate::db::Tx;
use crate::http::{ApiError, Code};
use crate::ids::{AccountId, TransferId};
use crate::ledger::{self, Move, Outcome};
use crate::money::Money;

/// The most that is moved at once, in minor units (commerce.md 14).
const AMOUNT_MAX: i64 = 10_000_000_000;

/// Why money was not put into a wallet.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopUpError {
    #[error("there is no account {0}")]
    NoAccount(AccountId),
    #[error("amount is 1 to {AMOUNT_MAX} minor units")]
    Amount,
    #[error("the ledger answers {}", .0.as_str())]
    Refused(Outcome),
    #[error(transparent)]
    Db(#[from] sqlx::Error),
}

/// Puts money into the wallet of an account; the transfer that did.
pub(super) async fn top_up(
    tx: &mut Tx,
    now: Timestamp,
    account: AccountId,
    amount: Money,
) -> Result<TransferId, TopUpError> {
    if !(1..=AMOUNT_MAX).contains(&amount.amount_minor()) {
        return Err(TopUpError::Amount);
    }
    if !accounts::exists(tx, account).await? {
        return Err(TopUpError::NoAccount(account));
    }
    let chain = recipes::top_up(TransferId::new(now), account, amount);
    let id = chain.transfer(0);
    let sides = chain
        .transfers
        .iter()
        .flat_map(|transfer| match &transfer.what {
            Move::Posted { debit, credit, .. } => vec![debit.clone(), credit.clone()],
            _ => Vec::new(),
        });
    let sides: Vec<_> = sides.map(|path| (path, amount.currency())).collect();
    ledger::open(tx, now, &sides).await?;
    let results = ledger::post(tx, now, chain).await?;
    match results.into_iter().find(|result| !result.is_there()) {
        Some(refused) => Err(TopUpError::Refused(refused)),
        None => Ok(id),
    }
}

impl From<TopUpError> for ApiError {
    fn from(err: TopUpError) -> Self {
        match err {
            TopUpError::NoAccount(_) => Self::not_found(),
            TopUpError::Amount | TopUpError::Refused(_) => {
                Self::new(Code::AmountOutOfRange, err.to_string()).at("/amount", "range")
            }
            TopUpError::Db(err) => err.into(),
        }
    }
}
