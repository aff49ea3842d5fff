//! The chains of payments.md 13; pure.

use crate::ids::{AccountId, OrderId, PaymentId, TransferId};
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

/// R1: a wallet pays a checkout, each order into its own escrow.
pub(super) fn wallet_pays(payment: PaymentId, buyer: AccountId, orders: &[Part]) -> Chain {
    let transfer = |part: &Part| Transfer {
        what: Move::Posted {
            debit: wallet(buyer),
            credit: escrow(part.order),
            amount: part.due,
        },
        code: "capture",
        subject: part.order.to_string(),
    };
    Chain {
        id: format!("R1|{payment}"),
        transfers: orders.iter().map(transfer).collect(),
    }
}

/// What one order of a checkout owes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) order: OrderId,
    pub(crate) due: Money,
}

/// Where money of an order is until its receipt is confirmed.
pub(super) fn escrow(order: OrderId) -> Path {
    path(&format!("order:{order}:escrow"))
}

/// Where a buyer's balance is.
pub(super) fn wallet(account: AccountId) -> Path {
    path(&format!("wallet:{account}"))
}

fn path(text: &str) -> Path {
    text.parse().expect("the chart of accounts has it")
}
