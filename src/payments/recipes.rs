//! The chains of payments.md 13; pure.

use crate::ids::{AccountId, CreatorId, MerchantId, OrderId, PaymentId, SettlementId, TransferId};
use crate::ledger::{Chain, Move, Path, Transfer};
use crate::money::{Currency, Money};

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

/// R7: a completed order is split; its escrow ends at 0.
pub(super) fn completed(split: &Split) -> Chain {
    let order = split.order;
    let shares = split.shares.iter().filter(|share| share.amount > 0);
    let transfer = |share: &Share| Transfer {
        what: Move::Posted {
            debit: escrow(order),
            credit: pending(&share.party),
            amount: Money::new(share.amount, split.currency),
        },
        code: "split",
        subject: order.to_string(),
    };
    Chain {
        id: format!("R7|{order}"),
        transfers: shares.map(transfer).collect(),
    }
}

/// R10: what is due is released, less what is withheld of a merchant's part.
pub(super) fn released(release: &Release) -> Chain {
    let settlement = release.settlement;
    let mut transfers = Vec::new();
    for share in &release.shares {
        let mut move_to = |credit: Path, amount: i64| {
            if amount > 0 {
                transfers.push(Transfer {
                    what: Move::Posted {
                        debit: pending(&share.party),
                        credit,
                        amount: Money::new(amount, release.currency),
                    },
                    code: "release",
                    subject: settlement.to_string(),
                });
            }
        };
        match &share.party {
            Party::Merchant(merchant) => {
                let withheld = withheld(share.amount, release.reserve_bps);
                move_to(path(&format!("merchant:{merchant}:reserve")), withheld);
                let available = path(&format!("merchant:{merchant}:available"));
                move_to(available, share.amount - withheld);
            }
            Party::Creator(creator) => {
                move_to(path(&format!("creator:{creator}:available")), share.amount);
            }
            // What the platform earns is earned when the order is completed.
            Party::Platform => {}
        }
    }
    Chain {
        id: format!("R10|{settlement}"),
        transfers,
    }
}

/// The part of an amount in basis points, rounded down.
fn withheld(amount: i64, bps: i64) -> i64 {
    let part = i128::from(amount) * i128::from(bps) / 10_000;
    i64::try_from(part).expect("a part is within the whole")
}

/// Who has a part of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    Merchant(MerchantId),
    Creator(CreatorId),
    Platform,
}

impl Party {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Merchant(_) => "merchant",
            Self::Creator(_) => "creator",
            Self::Platform => "platform",
        }
    }

    /// Empty for the platform.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Merchant(id) => id.to_string(),
            Self::Creator(id) => id.to_string(),
            Self::Platform => String::new(),
        }
    }

    pub(crate) fn parse(kind: &str, id: &str) -> Option<Self> {
        match kind {
            "merchant" => id.parse().ok().map(Self::Merchant),
            "creator" => id.parse().ok().map(Self::Creator),
            "platform" => Some(Self::Platform),
            _ => None,
        }
    }
}

/// What one party has of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) party: Party,
    pub(crate) amount: i64,
}

/// A completed order, split.
#[derive(Clone, Debug)]
pub(crate) struct Split {
    pub(crate) order: OrderId,
    pub(crate) currency: Currency,
    pub(crate) shares: Vec<Share>,
}

/// A settlement that is due.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    pub(crate) settlement: SettlementId,
    pub(crate) currency: Currency,
    pub(crate) reserve_bps: i64,
    pub(crate) shares: Vec<Share>,
}

/// Where a share is until it is released.
fn pending(party: &Party) -> Path {
    match party {
        Party::Merchant(merchant) => path(&format!("merchant:{merchant}:pending")),
        Party::Creator(creator) => path(&format!("creator:{creator}:pending")),
        Party::Platform => path("platform:revenue"),
    }
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
