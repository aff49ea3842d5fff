//! `lamplight ledger verify`: everything computed anew from the transfers, and compared
//! (payments.md 11 L8). Reads only; memory is that of the accounts and one page.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::book::Head;
use super::model::{Balances, Flags, NO_HASH, Row, RowKind, Side};
use super::store;
use crate::db::Db;
use crate::ids::{LedgerAccountId, TransferId};

/// Differences that are listed.
const LISTED_MAX: usize = 100;
const PAGE: i64 = 2_000;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) transfers: u64,
    pub(crate) accounts: u64,
    /// The first of them, in order.
    pub(crate) differences: Vec<String>,
    /// How many there are.
    pub(crate) found: u64,
    /// Money that came in and has no owner yet: account, and amount in minor units.
    pub(crate) suspense: Vec<(String, i64)>,
}

impl Report {
    pub(crate) const fn is_clean(&self) -> bool {
        self.found == 0
    }

    fn note(&mut self, difference: impl fmt::Display) {
        self.found += 1;
        if self.differences.len() < LISTED_MAX {
            self.differences.push(difference.to_string());
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.differences {
            writeln!(f, "{difference}")?;
        }
        let listed = u64::try_from(self.differences.len()).unwrap_or(u64::MAX);
        if self.found > listed {
            writeln!(f, "and {} more", self.found - listed)?;
        }
        for (path, amount) in &self.suspense {
            writeln!(f, "suspense: {path} holds {amount}")?;
        }
        write!(
            f,
            "{} transfers over {} accounts: {}",
            self.transfers,
            self.accounts,
            if self.is_clean() {
                "clean"
            } else {
                "NOT clean"
            }
        )
    }
}

/// Verifies all transfers, or the chain of hashes from a number on.
///
/// # Errors
/// The database's error, also for rows that cannot be read.
pub(crate) async fn verify(db: &Db, from: Option<i64>) -> sqlx::Result<Report> {
    let mut tx = store::begin_reading(db).await?;
    let mut audit = Audit::begin(&mut tx, from).await?;
    loop {
        let rows = store::rows_after(&mut tx, audit.head.seq, PAGE).await?;
        if rows.is_empty() {
            break;
        }
        let pending: BTreeSet<TransferId> = rows.iter().filter_map(|row| row.pending).collect();
        let pending: Vec<TransferId> = pending.into_iter().collect();
        let holds = store::resolved_by(&mut tx, &pending).await?;
        for row in rows {
            audit.take(row, &holds);
        }
    }
    audit.end(&mut tx).await
}

/// What was computed so far.
struct Audit {
    report: Report,
    head: Head,
    chain: Option<(String, i64)>,
    flags: BTreeMap<LedgerAccountId, (Flags, String)>,
    balances: BTreeMap<LedgerAccountId, Balances>,
    stored: BTreeMap<LedgerAccountId, Balances>,
    resolved: i64,
    /// Balances are only known from the first transfer on.
    is_whole: bool,
}

impl Audit {
    async fn begin(tx: &mut sqlx::AnyConnection, from: Option<i64>) -> sqlx::Result<Self> {
        let mut audit = Self {
            report: Report::default(),
            head: Head {
                seq: 0,
                hash: NO_HASH.into(),
            },
            chain: None,
            flags: BTreeMap::new(),
            balances: BTreeMap::new(),
            stored: BTreeMap::new(),
            resolved: 0,
            is_whole: true,
        };
        if let Some(from) = from.filter(|from| *from > 1) {
            // The one before says what its successor has to begin with.
            let before = store::rows_after(tx, from - 2, 1).await?;
            if let Some(row) = before.into_iter().next().filter(|row| row.seq == from - 1) {
                audit.head = Head {
                    seq: row.seq,
                    hash: row.hash,
                };
                audit.chain = Some((row.chain, row.pos));
                audit.is_whole = false;
            }
        }
        let mut after = String::new();
        loop {
            let page = store::accounts_after(tx, &after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = last.to_string();
            for (id, stored) in page {
                audit.report.accounts += 1;
                audit.flags.insert(id, (stored.account.flags, stored.path));
                audit.stored.insert(id, stored.account.balances);
            }
        }
        Ok(audit)
    }

    fn take(&mut self, row: Row, holds: &HashMap<TransferId, (Row, Option<TransferId>)>) {
        self.report.transfers += 1;
        let at = format!("transfer {} ({})", row.seq, row.id);
        if row.seq != self.head.seq + 1 {
            let expected = self.head.seq + 1;
            self.report
                .note(format!("{at}: number {expected} is missing"));
        }
        if row.prev_hash != self.head.hash {
            self.report
                .note(format!("{at}: does not follow from the transfer before"));
        }
        if row.hash != row.hashed() {
            self.report
                .note(format!("{at}: was changed: its hash is another"));
        }
        let place = match &self.chain {
            Some((chain, pos)) if *chain == row.chain => pos + 1,
            _ => 0,
        };
        if row.pos != place {
            self.report.note(format!(
                "{at}: stands at {} of its chain, not {place}",
                row.pos
            ));
        }
        self.balance(&at, &row, holds);
        self.head = Head {
            seq: row.seq,
            hash: row.hash,
        };
        self.chain = Some((row.chain, row.pos));
    }

    fn balance(
        &mut self,
        at: &str,
        row: &Row,
        holds: &HashMap<TransferId, (Row, Option<TransferId>)>,
    ) {
        let amount = row.amount.amount_minor();
        let mut freed = 0;
        if let Some(pending) = row.pending {
            self.resolved += 1;
            match holds.get(&pending) {
                Some((hold, by)) if hold.kind == RowKind::Pending && hold.seq < row.seq => {
                    freed = hold.amount.amount_minor();
                    let is_same = (hold.debit, hold.credit) == (row.debit, row.credit);
                    if *by != Some(row.id) || !is_same || amount > freed {
                        self.report
                            .note(format!("{at}: is not what resolved {pending}"));
                    }
                }
                _ => self
                    .report
                    .note(format!("{at}: there is no hold {pending}")),
            }
        }
        if !self.is_whole {
            return;
        }
        for (id, side) in [(row.debit, Side::Debit), (row.credit, Side::Credit)] {
            let Some((flags, path)) = self.flags.get(&id) else {
                self.report.note(format!("{at}: there is no account {id}"));
                continue;
            };
            let balances = self.balances.entry(id).or_default();
            let less = 0_i64.saturating_sub(freed);
            let done = match row.kind {
                RowKind::Posted => balances.add_posted(side, amount),
                RowKind::Pending => balances.add_pending(side, amount),
                RowKind::Post => balances
                    .add_pending(side, less)
                    .and_then(|()| balances.add_posted(side, amount)),
                RowKind::Void | RowKind::Expire => balances.add_pending(side, less),
            };
            let fault = balances.fault(*flags);
            if done.is_none() || fault.is_some() {
                self.report.note(format!("{at}: {path} crosses its bound"));
            }
        }
    }

    async fn end(mut self, tx: &mut sqlx::AnyConnection) -> sqlx::Result<Report> {
        let head = store::head_of(tx).await?;
        if head != self.head {
            let (seq, said) = (self.head.seq, head.seq);
            self.report.note(format!(
                "the head says {said}, the last transfer is {seq}, or has another hash"
            ));
        }
        if !self.is_whole {
            return Ok(self.report);
        }
        let said = store::count_resolutions(tx).await?;
        if said != self.resolved {
            let resolved = self.resolved;
            self.report.note(format!(
                "{said} resolutions, {resolved} transfers that resolve"
            ));
        }
        for (id, stored) in &self.stored {
            let computed = self.balances.get(id).copied().unwrap_or_default();
            let Some((_, path)) = self.flags.get(id) else {
                continue;
            };
            if computed != *stored {
                self.report.note(format!(
                    "{path} says {stored:?}, its transfers {computed:?}"
                ));
            }
            let left = computed
                .credits_posted
                .saturating_sub(computed.debits_posted);
            if path.ends_with(":suspense") && left != 0 {
                self.report.suspense.push((path.clone(), left));
            }
        }
        Ok(self.report)
    }
}
