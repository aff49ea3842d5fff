//! The ledger in SQL. Rows of accounts are locked in the order of their ids, the head last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::any::AnyRow;
use sqlx::{Executor, Row as _};
use time::Date;
use time::macros::format_description;

use super::book::{Account, Book, Head, Hold};
use super::model::{Balances, Chain, Day, Flags, Move, NO_HASH, Path, Row, RowKind, Totals};
use crate::clock::Timestamp;
use crate::db::{Bound, Bulk, Db, Tx, parsed, select_in};
use crate::http::Seek;
use crate::ids::{LedgerAccountId, TransferId};
use crate::money::{Currency, Money};

const ROW_COLUMNS: &str = "seq, id, chain, pos, kind, debit, credit, amount, currency, code, \
                           subject, pending_id, timeout_us, created_us, prev_hash, hash";
const ROW_WIDTH: usize = 16;

/// Makes accounts that are not there yet.
pub(super) async fn open(
    tx: &mut Tx,
    now: Timestamp,
    accounts: &[(Path, Currency)],
) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "INSERT INTO ledger_accounts (id, path, currency, kind, flag_dc, flag_cd, closed, \
               debits_posted, credits_posted, debits_pending, credits_pending, created_us)",
        width: 12,
        tail: "ON CONFLICT DO NOTHING",
    };
    let bind = |query: Bound, (path, currency): &(Path, Currency)| {
        let flags = path.flags();
        let query = query
            .bind(path.id(*currency).to_string())
            .bind(path.as_str().to_owned())
            .bind(currency.as_str().to_owned())
            .bind(path.kind().as_str())
            .bind(i64::from(flags.debits_within_credits))
            .bind(i64::from(flags.credits_within_debits));
        let query = (0..5).fold(query, |query, _zero| query.bind(0_i64));
        query.bind(now.as_micros())
    };
    bulk.execute(tx, accounts, bind).await?;
    Ok(())
}

/// Loads and locks what chains touch.
pub(super) async fn load(tx: &mut Tx, chains: &[Chain]) -> sqlx::Result<Book> {
    let moves = || chains.iter().flat_map(|chain| &chain.transfers);
    let pending: BTreeSet<TransferId> = moves().filter_map(|t| pending_of(&t.what)).collect();
    let mut holds = holds(tx, &pending).await?;
    let mut wanted: BTreeSet<LedgerAccountId> = moves().flat_map(|t| sides_of(&t.what)).collect();
    wanted.extend(holds.values().flat_map(|hold| [hold.debit, hold.credit]));
    let accounts = accounts(tx, &wanted).await?;
    // What another transaction did meanwhile is seen from here on: it had these locks.
    resolutions(tx, &mut holds).await?;
    let known = known(tx, chains).await?;
    let head = head(tx).await?;
    Ok(Book {
        accounts,
        holds,
        known,
        head,
        rows: Vec::new(),
        touched: BTreeSet::new(),
    })
}

fn pending_of(what: &Move) -> Option<TransferId> {
    match what {
        Move::Posted { .. } | Move::Pending { .. } => None,
        Move::Post { pending, .. } | Move::Void { pending } | Move::Expire { pending } => {
            Some(*pending)
        }
    }
}

fn sides_of(what: &Move) -> Vec<LedgerAccountId> {
    match what {
        Move::Posted {
            debit,
            credit,
            amount,
        }
        | Move::Pending {
            debit,
            credit,
            amount,
            ..
        } => [debit, credit].map(|p| p.id(amount.currency())).to_vec(),
        _ => Vec::new(),
    }
}

/// The pending transfers among these; none counts as resolved yet.
async fn holds(tx: &mut Tx, ids: &BTreeSet<TransferId>) -> sqlx::Result<HashMap<TransferId, Hold>> {
    let select = "SELECT id, debit, credit, amount, currency FROM ledger_transfers \
                  WHERE kind = 'pending' AND id IN";
    let mut holds = HashMap::new();
    for row in select_in(tx, select, "", ids.iter()).await? {
        let hold = Hold {
            debit: parsed(&row, 1)?,
            credit: parsed(&row, 2)?,
            amount: money(&row, 3)?,
            resolved: None,
        };
        holds.insert(parsed(&row, 0)?, hold);
    }
    Ok(holds)
}

async fn accounts(
    tx: &mut Tx,
    ids: &BTreeSet<LedgerAccountId>,
) -> sqlx::Result<BTreeMap<LedgerAccountId, Account>> {
    let select = "SELECT id, currency, flag_dc, flag_cd, closed, debits_posted, credits_posted, \
                  debits_pending, credits_pending FROM ledger_accounts WHERE id IN";
    let order = format!(" ORDER BY id{}", tx.for_update());
    let mut accounts = BTreeMap::new();
    for row in select_in(tx, select, &order, ids.iter()).await? {
        accounts.insert(parsed(&row, 0)?, account(&row)?);
    }
    Ok(accounts)
}

fn account(row: &AnyRow) -> sqlx::Result<Account> {
    let is_set = |at: usize| row.try_get::<i64, _>(at).map(|flag| flag != 0);
    Ok(Account {
        currency: currency(row, 1)?,
        flags: Flags {
            debits_within_credits: is_set(2)?,
            credits_within_debits: is_set(3)?,
            is_closed: is_set(4)?,
        },
        balances: Balances {
            debits_posted: row.try_get(5)?,
            credits_posted: row.try_get(6)?,
            debits_pending: row.try_get(7)?,
            credits_pending: row.try_get(8)?,
        },
    })
}

async fn resolutions(tx: &mut Tx, holds: &mut HashMap<TransferId, Hold>) -> sqlx::Result<()> {
    let select = "SELECT r.pending_id, t.kind FROM ledger_resolutions r \
                  JOIN ledger_transfers t ON t.id = r.transfer_id WHERE r.pending_id IN";
    let ids: BTreeSet<TransferId> = holds.keys().copied().collect();
    for row in select_in(tx, select, "", ids).await? {
        if let Some(hold) = holds.get_mut(&parsed(&row, 0)?) {
            hold.resolved = Some(kind(&row, 1)?);
        }
    }
    Ok(())
}

/// The rows of those chains that are there already.
async fn known(tx: &mut Tx, chains: &[Chain]) -> sqlx::Result<HashMap<String, Vec<Row>>> {
    let ids: BTreeSet<&str> = chains.iter().map(|chain| chain.id.as_str()).collect();
    let select = format!("SELECT {ROW_COLUMNS} FROM ledger_transfers WHERE chain IN");
    let mut known: HashMap<String, Vec<Row>> = HashMap::new();
    for row in select_in(tx, &select, " ORDER BY chain, pos", ids).await? {
        let row = read(&row)?;
        known.entry(row.chain.clone()).or_default().push(row);
    }
    Ok(known)
}

async fn head(tx: &mut Tx) -> sqlx::Result<Head> {
    let sql = format!(
        "SELECT seq, hash FROM ledger_head WHERE one = 1{}",
        tx.for_update()
    );
    let row = tx.fetch_one(sqlx::query(sqlx::AssertSqlSafe(sql))).await?;
    Ok(Head {
        seq: row.try_get(0)?,
        hash: row.try_get(1)?,
    })
}

/// Writes what posting changed.
pub(super) async fn save(tx: &mut Tx, book: &Book) -> sqlx::Result<()> {
    if book.rows.is_empty() {
        return Ok(());
    }
    insert(tx, &book.rows).await?;
    resolve(tx, &book.rows).await?;
    let touched = book.touched.iter();
    let touched = touched.filter_map(|id| Some((*id, book.accounts.get(id)?.balances)));
    update(tx, &touched.collect::<Vec<_>>()).await?;
    let sql = "UPDATE ledger_head SET seq = $1, hash = $2 WHERE one = 1";
    let query = sqlx::query(sql).bind(book.head.seq).bind(&book.head.hash);
    tx.execute(query).await?;
    Ok(())
}

async fn insert(tx: &mut Tx, rows: &[Row]) -> sqlx::Result<()> {
    let head = format!("INSERT INTO ledger_transfers ({ROW_COLUMNS})");
    let bulk = Bulk {
        head: &head,
        width: ROW_WIDTH,
        tail: "",
    };
    let bind = |query: Bound, row: &Row| {
        query
            .bind(row.seq)
            .bind(row.id.to_string())
            .bind(row.chain.clone())
            .bind(row.pos)
            .bind(row.kind.as_str())
            .bind(row.debit.to_string())
            .bind(row.credit.to_string())
            .bind(row.amount.amount_minor())
            .bind(row.amount.currency().as_str().to_owned())
            .bind(row.code.clone())
            .bind(row.subject.clone())
            .bind(row.pending.map(|id| id.to_string()))
            .bind(row.timeout.map(Timestamp::as_micros))
            .bind(row.created_at.as_micros())
            .bind(row.prev_hash.clone())
            .bind(row.hash.clone())
    };
    bulk.execute(tx, rows, bind).await?;
    Ok(())
}

async fn resolve(tx: &mut Tx, rows: &[Row]) -> sqlx::Result<()> {
    let resolving = rows.iter().filter_map(|row| Some((row.pending?, row.id)));
    let resolving: Vec<(TransferId, TransferId)> = resolving.collect();
    let bulk = Bulk {
        head: "INSERT INTO ledger_resolutions (pending_id, transfer_id)",
        width: 2,
        tail: "",
    };
    let bind = |query: Bound, (pending, by): &(TransferId, TransferId)| {
        query.bind(pending.to_string()).bind(by.to_string())
    };
    bulk.execute(tx, &resolving, bind).await?;
    Ok(())
}

async fn update(tx: &mut Tx, touched: &[(LedgerAccountId, Balances)]) -> sqlx::Result<()> {
    let bulk = Bulk {
        head: "WITH changed (id, dp, cp, dh, ch) AS (",
        width: 5,
        tail: ") UPDATE ledger_accounts SET debits_posted = changed.dp, \
               credits_posted = changed.cp, debits_pending = changed.dh, \
               credits_pending = changed.ch FROM changed WHERE ledger_accounts.id = changed.id",
    };
    let bind = |query: Bound, (id, balances): &(LedgerAccountId, Balances)| {
        query
            .bind(id.to_string())
            .bind(balances.debits_posted)
            .bind(balances.credits_posted)
            .bind(balances.debits_pending)
            .bind(balances.credits_pending)
    };
    bulk.execute(tx, touched, bind).await?;
    Ok(())
}

/// An account as it stands in the database.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) path: String,
    pub(super) account: Account,
}

/// Accounts of one page, by id.
pub(super) async fn accounts_after(
    tx: &mut sqlx::AnyConnection,
    after: &str,
    limit: i64,
) -> sqlx::Result<Vec<(LedgerAccountId, Stored)>> {
    let sql =
        format!("SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts WHERE id > $1 ORDER BY id LIMIT $2");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(after)
        .bind(limit);
    tx.fetch_all(query).await?.iter().map(stored).collect()
}

const ACCOUNT_COLUMNS: &str = "id, currency, flag_dc, flag_cd, closed, debits_posted, \
                               credits_posted, debits_pending, credits_pending, path";

/// Accounts whose path begins so, by id.
pub(super) async fn list_accounts(
    db: &Db,
    prefix: &str,
    seek: &Seek<LedgerAccountId>,
    limit: u32,
) -> sqlx::Result<Vec<(LedgerAccountId, Stored)>> {
    let (from, order) = match seek {
        Seek::First => (String::new(), "id > $3 ORDER BY id"),
        Seek::After(id) => (id.to_string(), "id > $3 ORDER BY id"),
        Seek::Before(id) => (id.to_string(), "id < $3 ORDER BY id DESC"),
    };
    let sql = format!(
        "SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts \
         WHERE substr(path, 1, CAST($1 AS INTEGER)) = $2 AND {order} LIMIT $4"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(i64::try_from(prefix.len()).unwrap_or(i64::MAX))
        .bind(prefix)
        .bind(from)
        .bind(i64::from(limit) + 1)
        .fetch_all(db.readers())
        .await?;
    rows.iter().map(stored).collect()
}

pub(super) async fn find_account(db: &Db, id: LedgerAccountId) -> sqlx::Result<Option<Stored>> {
    let sql = format!("SELECT {ACCOUNT_COLUMNS} FROM ledger_accounts WHERE id = $1");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string());
    let row = query.fetch_optional(db.readers()).await?;
    let found = row.as_ref().map(stored).transpose()?;
    Ok(found.map(|(_, stored)| stored))
}

fn stored(row: &AnyRow) -> sqlx::Result<(LedgerAccountId, Stored)> {
    let stored = Stored {
        path: row.try_get(9)?,
        account: account(row)?,
    };
    Ok((parsed(row, 0)?, stored))
}

/// Transfers from or to an account, newest first.
pub(super) async fn list_transfers(
    db: &Db,
    id: LedgerAccountId,
    seek: &Seek<i64>,
    limit: u32,
) -> sqlx::Result<Vec<Row>> {
    let (from, bound, order) = match seek {
        Seek::First => (i64::MAX, "seq < $2", "DESC"),
        Seek::After(seq) => (*seq, "seq < $2", "DESC"),
        Seek::Before(seq) => (*seq, "seq > $2", "ASC"),
    };
    // Each side by its own index; no transfer has both.
    let side = |side: &str| {
        format!(
            "SELECT * FROM (SELECT {ROW_COLUMNS} FROM ledger_transfers WHERE {side} = $1 \
             AND {bound} ORDER BY seq {order} LIMIT $3) AS {side}s"
        )
    };
    let sql = format!(
        "{} UNION ALL {} ORDER BY seq {order} LIMIT $3",
        side("debit"),
        side("credit")
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(id.to_string())
        .bind(from)
        .bind(i64::from(limit) + 1)
        .fetch_all(db.readers())
        .await?;
    rows.iter().map(read).collect()
}

pub(super) async fn find_transfer(db: &Db, id: TransferId) -> sqlx::Result<Option<Row>> {
    let sql = format!("SELECT {ROW_COLUMNS} FROM ledger_transfers WHERE id = $1");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id.to_string());
    let row = query.fetch_optional(db.readers()).await?;
    row.as_ref().map(read).transpose()
}

/// Transfers of one page, by number.
pub(super) async fn rows_after(
    tx: &mut sqlx::AnyConnection,
    seq: i64,
    limit: i64,
) -> sqlx::Result<Vec<Row>> {
    let sql =
        format!("SELECT {ROW_COLUMNS} FROM ledger_transfers WHERE seq > $1 ORDER BY seq LIMIT $2");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(seq).bind(limit);
    tx.fetch_all(query).await?.iter().map(read).collect()
}

/// The pending transfers of a page, and which transfer resolved each.
pub(super) async fn resolved_by(
    tx: &mut sqlx::AnyConnection,
    ids: &[TransferId],
) -> sqlx::Result<HashMap<TransferId, (Row, Option<TransferId>)>> {
    let mut found = HashMap::new();
    let columns: Vec<String> = ROW_COLUMNS.split(", ").map(|c| format!("t.{c}")).collect();
    let select = format!(
        "SELECT {}, r.transfer_id FROM ledger_transfers t \
         LEFT JOIN ledger_resolutions r ON r.pending_id = t.id WHERE t.id IN",
        columns.join(", ")
    );
    for row in select_in(tx, &select, "", ids).await? {
        let by: Option<String> = row.try_get(ROW_WIDTH)?;
        let by = by.and_then(|text| text.parse().ok());
        let row = read(&row)?;
        found.insert(row.id, (row, by));
    }
    Ok(found)
}

/// The head, for reading.
pub(super) async fn head_of(tx: &mut sqlx::AnyConnection) -> sqlx::Result<Head> {
    let sql = "SELECT seq, hash FROM ledger_head WHERE one = 1";
    let row = tx.fetch_one(sqlx::query(sql)).await?;
    Ok(Head {
        seq: row.try_get(0)?,
        hash: row.try_get(1)?,
    })
}

/// How many resolutions there are.
pub(super) async fn count_resolutions(tx: &mut sqlx::AnyConnection) -> sqlx::Result<i64> {
    let sql = "SELECT COUNT(*) FROM ledger_resolutions";
    tx.fetch_one(sqlx::query(sql)).await?.try_get(0)
}

/// The newest day that was closed.
pub(super) async fn last_day(tx: &mut Tx) -> sqlx::Result<Option<Day>> {
    let sql = format!("{DAY_COLUMNS} ORDER BY date DESC LIMIT 1");
    let row = tx
        .fetch_optional(sqlx::query(sqlx::AssertSqlSafe(sql)))
        .await?;
    row.as_ref().map(read_day).transpose()
}

pub(super) async fn find_day(db: &Db, date: &str) -> sqlx::Result<Option<Day>> {
    let sql = format!("{DAY_COLUMNS} WHERE date = $1");
    let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(date);
    let row = query.fetch_optional(db.readers()).await?;
    row.as_ref().map(read_day).transpose()
}

const DAY_COLUMNS: &str = "SELECT date, last_seq, hash, totals, signature FROM ledger_days";

fn read_day(row: &AnyRow) -> sqlx::Result<Day> {
    let (date, totals): (String, String) = (row.try_get(0)?, row.try_get(3)?);
    Ok(Day {
        date: Date::parse(&date, format_description!("[year]-[month]-[day]")).map_err(decode)?,
        last_seq: row.try_get(1)?,
        hash: row.try_get(2)?,
        totals: serde_json::from_str(&totals).map_err(decode)?,
        signature: row.try_get(4)?,
    })
}

pub(super) async fn insert_day(tx: &mut Tx, now: Timestamp, day: &Day) -> sqlx::Result<()> {
    let sql = "INSERT INTO ledger_days (date, last_seq, hash, totals, signature, created_us) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let totals = serde_json::to_string(&day.totals).map_err(decode)?;
    let query = sqlx::query(sql)
        .bind(day.date.to_string())
        .bind(day.last_seq)
        .bind(&day.hash)
        .bind(totals)
        .bind(&day.signature)
        .bind(now.as_micros());
    tx.execute(query).await?;
    Ok(())
}

/// When the first transfer was made.
pub(super) async fn first_transfer_at(tx: &mut Tx) -> sqlx::Result<Option<Timestamp>> {
    let sql = "SELECT created_us FROM ledger_transfers WHERE seq = 1";
    let row = tx.fetch_optional(sqlx::query(sql)).await?;
    let us = row.map(|row| row.try_get(0)).transpose()?;
    Ok(us.map(Timestamp::from_micros))
}

/// Number and hash of the newest transfer before a moment, of those after `from` or that one.
pub(super) async fn last_before(
    tx: &mut Tx,
    moment: Timestamp,
    from: i64,
) -> sqlx::Result<(i64, String)> {
    // A transfer of a day may be numbered behind one of the next: the first of these ends the day.
    let sql = "SELECT seq, hash FROM ledger_transfers WHERE seq >= $1 AND seq < \
               (SELECT COALESCE(MIN(seq), 9223372036854775807) FROM ledger_transfers \
               WHERE seq > $1 AND created_us >= $2) ORDER BY seq DESC LIMIT 1";
    let query = sqlx::query(sql).bind(from).bind(moment.as_micros());
    match tx.fetch_optional(query).await? {
        Some(row) => Ok((row.try_get(0)?, row.try_get(1)?)),
        None => Ok((from, NO_HASH.into())),
    }
}

/// Adds what moved in some transfers, from the first exclusive to the last inclusive.
pub(super) async fn add_totals(
    tx: &mut Tx,
    (from, to): (i64, i64),
    totals: &mut Totals,
) -> sqlx::Result<()> {
    for side in ["debit", "credit"] {
        let sql = format!(
            "SELECT a.kind, t.currency, CAST(SUM(t.amount) AS BIGINT) FROM ledger_transfers t \
             JOIN ledger_accounts a ON a.id = t.{side} WHERE t.seq > $1 AND t.seq <= $2 \
             AND t.kind IN ('posted', 'post') GROUP BY a.kind, t.currency"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(from).bind(to);
        for row in tx.fetch_all(query).await? {
            let (kind, currency): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let amount: i64 = row.try_get(2)?;
            let full = || sqlx::Error::Decode("the totals of the ledger overflow".into());
            let balances = totals.balances.entry(currency.clone()).or_default();
            let balance = balances.entry(kind).or_default();
            let signed = if side == "debit" { -amount } else { amount };
            *balance = balance.checked_add(signed).ok_or_else(full)?;
            if side == "debit" {
                let moved = totals.moved.entry(currency).or_default();
                *moved = moved.checked_add(amount).ok_or_else(full)?;
            }
        }
    }
    Ok(())
}

/// A transaction that reads one state of the database.
pub(super) async fn begin_reading(db: &Db) -> sqlx::Result<sqlx::Transaction<'static, sqlx::Any>> {
    let mut tx = db.readers().begin().await?;
    if db.engine() == crate::db::Engine::Postgres {
        let sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        tx.execute(sql).await?;
    }
    Ok(tx)
}

fn read(row: &AnyRow) -> sqlx::Result<Row> {
    let pending: Option<String> = row.try_get(11)?;
    let pending = pending.map(|id| id.parse::<TransferId>().map_err(decode));
    let timeout: Option<i64> = row.try_get(12)?;
    Ok(Row {
        seq: row.try_get(0)?,
        id: parsed(row, 1)?,
        chain: row.try_get(2)?,
        pos: row.try_get(3)?,
        kind: kind(row, 4)?,
        debit: parsed(row, 5)?,
        credit: parsed(row, 6)?,
        amount: money(row, 7)?,
        code: row.try_get(9)?,
        subject: row.try_get(10)?,
        pending: pending.transpose()?,
        timeout: timeout.map(Timestamp::from_micros),
        created_at: Timestamp::from_micros(row.try_get(13)?),
        prev_hash: row.try_get(14)?,
        hash: row.try_get(15)?,
    })
}

/// An amount, and its currency beside it.
fn money(row: &AnyRow, at: usize) -> sqlx::Result<Money> {
    Ok(Money::new(row.try_get(at)?, currency(row, at + 1)?))
}

fn currency(row: &AnyRow, at: usize) -> sqlx::Result<Currency> {
    let text: String = row.try_get(at)?;
    Currency::try_from(text).map_err(decode)
}

fn kind(row: &AnyRow, at: usize) -> sqlx::Result<RowKind> {
    let text: String = row.try_get(at)?;
    RowKind::parse(&text).ok_or_else(|| sqlx::Error::Decode("kind".into()))
}

fn decode(err: impl std::error::Error + Send + Sync + 'static) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(err))
}
