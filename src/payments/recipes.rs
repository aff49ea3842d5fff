//! The chains of payments.md 13; pure.

use crate::ids::{AccountId, TransferId};
use crate::ledger::{Chain, Move, Path, Transfer};
use crate::money::Money;

/// R16: an operator puts money into a wallet.
pub(super) fn top_up(id: TransferId, account: AccountId, amount: Money) -> Chain {
    Chain {
        id: format!("R16|{id}"),
        transfers: vec![Transfer {
            what: Move::Posted {
                debit: path("bank:main"),
                credit: wallet(account),
                amount,
            },
            code: "top_up",
            subject: account.to_string(),
        }],
    }
}

/// Where a buyer's balance is.
pub(super) fn wallet(account: AccountId) -> Path {
    path(&format!("wallet:{account}"))
}

fn path(text: &str) -> Path {
    text.parse().expect("the chart of accounts has it")
}
