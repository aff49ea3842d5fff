//! What posting does, on accounts in memory; pure. The store loads what a batch of chains touches,
//! and writes what changed.
#![deny(clippy::float_arithmetic, clippy::arithmetic_side_effects)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::model::{Balances, Chain, Flags, Move, Outcome, Row, RowKind, Side, Transfer};
use crate::clock::Timestamp;
use crate::ids::{LedgerAccountId, TransferId};
use crate::money::{Currency, Money};

/// The newest transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: i64,
    pub(super) hash: String,
}

/// An account, loaded.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) currency: Currency,
    pub(super) flags: Flags,
    pub(super) balances: Balances,
}

/// Money that is held, or was.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) debit: LedgerAccountId,
    pub(super) credit: LedgerAccountId,
    pub(super) amount: Money,
    /// What resolved it.
    pub(super) resolved: Option<RowKind>,
}

/// The part of the ledger that a batch touches.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) accounts: BTreeMap<LedgerAccountId, Account>,
    pub(super) holds: HashMap<TransferId, Hold>,
    /// Rows of chains that were there before, in order.
    pub(super) known: HashMap<String, Vec<Row>>,
    pub(super) head: Head,
    /// Rows to be written.
    pub(super) rows: Vec<Row>,
    /// Accounts whose balances changed.
    pub(super) touched: BTreeSet<LedgerAccountId>,
}

/// What a chain would change.
#[derive(Default)]
struct Draft {
    balances: BTreeMap<LedgerAccountId, Balances>,
    holds: HashMap<TransferId, Hold>,
    rows: Vec<Row>,
}

impl Book {
    /// Posts a chain whole, or not at all; what became of each of its transfers.
    pub(super) fn post(&mut self, now: Timestamp, chain: &Chain) -> Vec<Outcome> {
        chain.check();
        if let Some(rows) = self.known.get(&chain.id) {
            return again(rows, chain);
        }
        let mut draft = Draft::default();
        for (pos, transfer) in chain.transfers.iter().enumerate() {
            if let Err(fault) = self.draft(&mut draft, now, (chain, pos, transfer)) {
                let mut all = vec![Outcome::LinkedEventFailed; chain.transfers.len()];
                if let Some(own) = all.get_mut(pos) {
                    *own = fault;
                }
                return all;
            }
        }
        self.take(chain, draft);
        vec![Outcome::Created; chain.transfers.len()]
    }

    fn take(&mut self, chain: &Chain, draft: Draft) {
        for (id, balances) in draft.balances {
            if let Some(account) = self.accounts.get_mut(&id) {
                account.balances = balances;
                self.touched.insert(id);
            }
        }
        self.holds.extend(draft.holds);
        if let Some(last) = draft.rows.last() {
            self.head = Head {
                seq: last.seq,
                hash: last.hash.clone(),
            };
        }
        self.known.insert(chain.id.clone(), draft.rows.clone());
        self.rows.extend(draft.rows);
    }

    fn draft(
        &self,
        draft: &mut Draft,
        now: Timestamp,
        (chain, pos, transfer): (&Chain, usize, &Transfer),
    ) -> Result<(), Outcome> {
        let id = chain.transfer(pos);
        let change = match &transfer.what {
            Move::Posted {
                debit,
                credit,
                amount,
            } => {
                let sides = (debit.id(amount.currency()), credit.id(amount.currency()));
                self.change(sides, *amount, Effect::Move)?
            }
            Move::Pending {
                debit,
                credit,
                amount,
                ..
            } => {
                let sides = (debit.id(amount.currency()), credit.id(amount.currency()));
                self.change(sides, *amount, Effect::Hold)?
            }
            Move::Post { pending, amount } => {
                let hold = self.open_hold(draft, *pending)?;
                let amount = amount.unwrap_or(hold.amount);
                if amount.currency() != hold.amount.currency() {
                    return Err(Outcome::CurrencyMismatch);
                }
                if amount.amount_minor() > hold.amount.amount_minor() {
                    return Err(Outcome::ExceedsPendingAmount);
                }
                let held = hold.amount.amount_minor();
                self.change((hold.debit, hold.credit), amount, Effect::Post { held })?
            }
            Move::Void { pending } | Move::Expire { pending } => {
                let hold = self.open_hold(draft, *pending)?;
                self.change((hold.debit, hold.credit), hold.amount, Effect::Free)?
            }
        };
        self.apply(draft, &change)?;
        draft.resolve(id, transfer, &change, self);
        let row = self.row(draft, now, (chain, pos, transfer), &change);
        draft.rows.push(row);
        Ok(())
    }

    /// The hold that a transfer resolves.
    fn open_hold(&self, draft: &Draft, pending: TransferId) -> Result<Hold, Outcome> {
        let hold = draft
            .holds
            .get(&pending)
            .or_else(|| self.holds.get(&pending));
        let hold = hold.ok_or(Outcome::PendingNotFound)?;
        match hold.resolved {
            None => Ok(hold.clone()),
            Some(RowKind::Post) => Err(Outcome::PendingAlreadyPosted),
            Some(RowKind::Expire) => Err(Outcome::PendingExpired),
            Some(_) => Err(Outcome::PendingAlreadyVoided),
        }
    }

    fn change(
        &self,
        (debit, credit): (LedgerAccountId, LedgerAccountId),
        amount: Money,
        effect: Effect,
    ) -> Result<Change, Outcome> {
        if amount.amount_minor() < 1 {
            return Err(Outcome::AmountMustBePositive);
        }
        if debit == credit {
            return Err(Outcome::AccountsMustDiffer);
        }
        for id in [debit, credit] {
            let account = self.accounts.get(&id).ok_or(Outcome::AccountNotFound)?;
            if account.currency != amount.currency() {
                return Err(Outcome::CurrencyMismatch);
            }
            // What is held there can still be freed.
            if account.flags.is_closed && !matches!(effect, Effect::Free) {
                return Err(Outcome::AccountClosed);
            }
        }
        Ok(Change {
            debit,
            credit,
            amount,
            effect,
        })
    }

    fn apply(&self, draft: &mut Draft, change: &Change) -> Result<(), Outcome> {
        let amount = change.amount.amount_minor();
        for (id, side) in [(change.debit, Side::Debit), (change.credit, Side::Credit)] {
            let account = self.accounts.get(&id).ok_or(Outcome::AccountNotFound)?;
            let balances = draft.balances.entry(id).or_insert(account.balances);
            let done = match change.effect {
                Effect::Move => balances.add_posted(side, amount),
                Effect::Hold => balances.add_pending(side, amount),
                Effect::Free => negated(amount).and_then(|less| balances.add_pending(side, less)),
                Effect::Post { held } => negated(held)
                    .and_then(|less| balances.add_pending(side, less))
                    .and_then(|()| balances.add_posted(side, amount)),
            };
            done.ok_or(Outcome::Overflow)?;
            if let Some(fault) = balances.fault(account.flags) {
                return Err(fault);
            }
        }
        Ok(())
    }

    fn row(
        &self,
        draft: &Draft,
        now: Timestamp,
        (chain, pos, transfer): (&Chain, usize, &Transfer),
        change: &Change,
    ) -> Row {
        let (seq, prev_hash) = match draft.rows.last() {
            Some(last) => (last.seq, &last.hash),
            None => (self.head.seq, &self.head.hash),
        };
        let (kind, pending, timeout) = match &transfer.what {
            Move::Posted { .. } => (RowKind::Posted, None, None),
            Move::Pending { timeout, .. } => (RowKind::Pending, None, *timeout),
            Move::Post { pending, .. } => (RowKind::Post, Some(*pending), None),
            Move::Void { pending } => (RowKind::Void, Some(*pending), None),
            Move::Expire { pending } => (RowKind::Expire, Some(*pending), None),
        };
        let mut row = Row {
            seq: seq.saturating_add(1),
            id: chain.transfer(pos),
            chain: chain.id.clone(),
            pos: i64::try_from(pos).unwrap_or(i64::MAX),
            kind,
            debit: change.debit,
            credit: change.credit,
            amount: change.amount,
            code: transfer.code.into(),
            subject: transfer.subject.clone(),
            pending,
            timeout,
            created_at: now,
            prev_hash: prev_hash.clone(),
            hash: String::new(),
        };
        row.hash = row.hashed();
        row
    }
}

impl Draft {
    fn resolve(&mut self, id: TransferId, transfer: &Transfer, change: &Change, book: &Book) {
        let (pending, kind) = match &transfer.what {
            Move::Posted { .. } => return,
            Move::Pending { .. } => {
                let hold = Hold {
                    debit: change.debit,
                    credit: change.credit,
                    amount: change.amount,
                    resolved: None,
                };
                self.holds.insert(id, hold);
                return;
            }
            Move::Post { pending, .. } => (pending, RowKind::Post),
            Move::Void { pending } => (pending, RowKind::Void),
            Move::Expire { pending } => (pending, RowKind::Expire),
        };
        let known = self.holds.get(pending).or_else(|| book.holds.get(pending));
        if let Some(hold) = known.cloned() {
            let resolved = Some(kind);
            self.holds.insert(*pending, Hold { resolved, ..hold });
        }
    }
}

/// A transfer between accounts that are there.
struct Change {
    debit: LedgerAccountId,
    credit: LedgerAccountId,
    amount: Money,
    effect: Effect,
}

#[derive(Clone, Copy)]
enum Effect {
    Move,
    Hold,
    /// Moves the amount and frees all that was held.
    Post {
        held: i64,
    },
    Free,
}

fn negated(amount: i64) -> Option<i64> {
    amount.checked_neg()
}

/// A chain that was there before.
fn again(rows: &[Row], chain: &Chain) -> Vec<Outcome> {
    let is_same = rows.len() == chain.transfers.len()
        && rows
            .iter()
            .zip(&chain.transfers)
            .all(|(row, t)| row.is_of(t));
    let each = if is_same {
        Outcome::Exists
    } else {
        Outcome::ExistsWithDifferentFields
    };
    vec![each; chain.transfers.len()]
}
