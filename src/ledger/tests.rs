//! The ledger on both databases: bounds, holds, repeats, proof. Random lists of chains against a
//! model that knows nothing of the code.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sqlx::Executor;

use super::jobs::close_due;
use super::model::{Chain, Move, Outcome, Path, Transfer};
use super::service::post_all;
use super::store;
use super::{open, post, verify};
use crate::clock::Timestamp;
use crate::db::{Db, Folder, NOON, fresh};
use crate::ids::TransferId;
use crate::money::{Currency, Money};

const CLEARING: &str = "provider:alipay:clearing";
const WALLET: &str = "wallet:acc_1";
const ESCROW: &str = "order:ord_1:escrow";
const RECEIVABLE: &str = "merchant:mch_1:receivable";
const PATHS: [&str; 4] = [CLEARING, WALLET, ESCROW, RECEIVABLE];

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn yuan(amount: i64) -> Money {
    Money::new(amount, Currency::CNY)
}

fn of(what: Move) -> Transfer {
    Transfer {
        what,
        code: "test",
        subject: "ord_1".into(),
    }
}

fn moves(debit: &str, credit: &str, amount: i64) -> Transfer {
    of(Move::Posted {
        debit: path(debit),
        credit: path(credit),
        amount: yuan(amount),
    })
}

fn holds(debit: &str, credit: &str, amount: i64) -> Transfer {
    of(Move::Pending {
        debit: path(debit),
        credit: path(credit),
        amount: yuan(amount),
        timeout: None,
    })
}

fn chain(id: &str, transfers: Vec<Transfer>) -> Chain {
    let id = id.to_owned();
    Chain { id, transfers }
}

struct Fixture {
    db: Db,
    _folder: Folder,
}

impl Fixture {
    async fn new() -> Self {
        let folder = Folder::new();
        let db = fresh(&folder).await;
        let fixture = Self {
            db,
            _folder: folder,
        };
        let mut tx = fixture.db.begin().await.unwrap();
        let accounts = PATHS.map(|text| (path(text), Currency::CNY));
        open(&mut tx, NOON, &accounts).await.unwrap();
        open(&mut tx, NOON, &accounts[1..2]).await.unwrap();
        tx.commit().await.unwrap();
        fixture
    }

    async fn post(&self, chain: Chain) -> Vec<Outcome> {
        let mut tx = self.db.begin().await.unwrap();
        let results = post(&mut tx, NOON, chain).await.unwrap();
        tx.commit().await.unwrap();
        results
    }

    /// Posts one chain of these transfers under a name of its own.
    async fn once(&self, id: &str, transfers: Vec<Transfer>) -> Vec<Outcome> {
        self.post(chain(id, transfers)).await
    }

    async fn check_clean(&self) {
        let report = verify(&self.db, None).await.unwrap();
        assert!(report.is_clean(), "{report}");
    }

    /// Debits and credits, posted then pending.
    async fn balances(&self, of: &str) -> [i64; 4] {
        let sql = "SELECT debits_posted, credits_posted, debits_pending, credits_pending \
                   FROM ledger_accounts WHERE path = $1";
        let row = sqlx::query_as::<_, (i64, i64, i64, i64)>(sql).bind(of);
        let row = row.fetch_one(self.db.readers()).await.unwrap();
        [row.0, row.1, row.2, row.3]
    }

    async fn run(&self, sql: &str) {
        let mut tx = self.db.begin().await.unwrap();
        tx.execute(sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())))
            .await
            .unwrap();
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_chain_is_posted_once_and_whole_and_says_what_failed() {
    let it = Fixture::new().await;
    let captured = vec![moves(CLEARING, WALLET, 1_000)];
    assert_eq!(it.once("a", captured.clone()).await, [Outcome::Created]);
    assert_eq!(it.once("a", captured.clone()).await, [Outcome::Exists]);
    let other = vec![moves(CLEARING, WALLET, 999)];
    assert_eq!(
        it.once("a", other).await,
        [Outcome::ExistsWithDifferentFields]
    );
    let mut longer = captured;
    longer.push(moves(WALLET, ESCROW, 1));
    let twice = [Outcome::ExistsWithDifferentFields; 2];
    assert_eq!(it.once("a", longer).await, twice);

    let too_much = vec![
        moves(WALLET, ESCROW, 600),
        moves(WALLET, ESCROW, 401),
        moves(CLEARING, WALLET, 1),
    ];
    let linked = Outcome::LinkedEventFailed;
    let results = it.once("b", too_much).await;
    assert_eq!(results, [linked, Outcome::ExceedsCredits, linked]);
    assert_eq!(it.balances(WALLET).await, [0, 1_000, 0, 0]);
    // What failed is not remembered: it may be tried again.
    let enough = vec![moves(WALLET, ESCROW, 600), moves(WALLET, ESCROW, 400)];
    assert_eq!(it.once("b", enough).await, [Outcome::Created; 2]);
    assert_eq!(it.balances(ESCROW).await, [0, 1_000, 0, 0]);
    it.check_clean().await;
}

#[tokio::test]
async fn every_other_fault_has_its_word() {
    let it = Fixture::new().await;
    let euro = Currency::try_from(String::from("EUR")).unwrap();
    let in_euro = of(Move::Posted {
        debit: path(CLEARING),
        credit: path(WALLET),
        amount: Money::new(1, euro),
    });
    let unknown = TransferId::derived(&["nothing"]);
    for (transfer, expected) in [
        (moves(CLEARING, "wallet:acc_2", 1), Outcome::AccountNotFound),
        (in_euro, Outcome::AccountNotFound),
        (moves(CLEARING, CLEARING, 1), Outcome::AccountsMustDiffer),
        (moves(CLEARING, WALLET, 0), Outcome::AmountMustBePositive),
        (moves(CLEARING, WALLET, -5), Outcome::AmountMustBePositive),
        (moves(CLEARING, RECEIVABLE, 1), Outcome::ExceedsDebits),
        (moves(WALLET, ESCROW, 1), Outcome::ExceedsCredits),
        (
            of(Move::Void { pending: unknown }),
            Outcome::PendingNotFound,
        ),
    ] {
        assert_eq!(it.once("x", vec![transfer]).await, [expected]);
        assert!(!expected.is_there() && !expected.as_str().is_empty());
    }
    let most = vec![moves(CLEARING, WALLET, i64::MAX)];
    assert_eq!(it.once("most", most).await, [Outcome::Created]);
    let more = vec![moves(CLEARING, WALLET, 1)];
    assert_eq!(it.once("more", more).await, [Outcome::Overflow]);
    let held = vec![holds(WALLET, ESCROW, 1)];
    assert_eq!(it.once("held", held.clone()).await, [Outcome::Created]);
    it.run("UPDATE ledger_accounts SET closed = 1 WHERE path = 'wallet:acc_1'")
        .await;
    let closed = vec![moves(WALLET, ESCROW, 1)];
    assert_eq!(it.once("closed", closed).await, [Outcome::AccountClosed]);
    let pending = chain("held", held).transfer(0);
    let freed = vec![of(Move::Void { pending })];
    assert_eq!(
        it.once("freed", freed).await,
        [Outcome::Created],
        "what is held gets out"
    );
    it.check_clean().await;
}

#[tokio::test]
async fn a_hold_is_resolved_once_and_counts_until_then() {
    let it = Fixture::new().await;
    it.once("fund", vec![moves(CLEARING, WALLET, 1_000)]).await;
    let hold = |id: &str| chain(id, vec![holds(WALLET, ESCROW, 600)]);
    assert_eq!(it.post(hold("h1")).await, [Outcome::Created]);
    assert_eq!(
        it.post(hold("h2")).await,
        [Outcome::ExceedsCredits],
        "it is held already"
    );
    assert_eq!(it.balances(WALLET).await, [0, 1_000, 600, 0]);
    assert_eq!(it.balances(ESCROW).await, [0, 0, 0, 600]);
    let pending = hold("h1").transfer(0);
    let posting = |amount: Option<i64>| {
        let amount = amount.map(yuan);
        vec![of(Move::Post { pending, amount })]
    };
    let too_much = it.once("p0", posting(Some(601))).await;
    assert_eq!(too_much, [Outcome::ExceedsPendingAmount]);
    assert_eq!(it.once("p1", posting(Some(250))).await, [Outcome::Created]);
    assert_eq!(it.once("p1", posting(Some(250))).await, [Outcome::Exists]);
    assert_eq!(it.balances(WALLET).await, [250, 1_000, 0, 0]);
    assert_eq!(it.balances(ESCROW).await, [0, 250, 0, 0]);
    let again = [
        (of(Move::Void { pending }), Outcome::PendingAlreadyPosted),
        (posting(None).remove(0), Outcome::PendingAlreadyPosted),
    ];
    for (transfer, expected) in again {
        assert_eq!(it.once("p2", vec![transfer]).await, [expected]);
    }
    for (id, what, expected) in [
        (
            "h3",
            Move::Void {
                pending: hold("h3").transfer(0),
            },
            Outcome::PendingAlreadyVoided,
        ),
        (
            "h4",
            Move::Expire {
                pending: hold("h4").transfer(0),
            },
            Outcome::PendingExpired,
        ),
    ] {
        assert_eq!(it.post(hold(id)).await, [Outcome::Created]);
        let end = vec![of(what.clone())];
        assert_eq!(
            it.once(&format!("{id}-end"), end.clone()).await,
            [Outcome::Created]
        );
        assert_eq!(it.once(&format!("{id}-again"), end).await, [expected]);
    }
    // Within one chain as well.
    let both = chain(
        "h5",
        vec![holds(WALLET, ESCROW, 1), holds(WALLET, ESCROW, 2)],
    );
    let pending = both.transfer(0);
    let mut transfers = both.transfers;
    transfers.push(of(Move::Post {
        pending,
        amount: None,
    }));
    assert_eq!(it.once("h5", transfers).await, [Outcome::Created; 3]);
    it.check_clean().await;
}

#[tokio::test]
async fn two_connections_cannot_spend_the_same_money_or_resolve_the_same_hold() {
    let it = Fixture::new().await;
    it.once("fund", vec![moves(CLEARING, WALLET, 100)]).await;
    it.once("hold", vec![holds(WALLET, ESCROW, 40)]).await;
    let pending = chain("hold", Vec::new()).transfer(0);
    let spend = (0..8).map(|n| it.once_owned(format!("spend{n}"), moves(WALLET, ESCROW, 25)));
    let spent = futures_util::future::join_all(spend).await;
    let created = |all: &[Vec<Outcome>]| all.iter().filter(|r| **r == [Outcome::Created]).count();
    assert_eq!(created(&spent), 2, "{spent:?}");
    let post = (0..8).map(|n| {
        let amount = None;
        it.once_owned(format!("post{n}"), of(Move::Post { pending, amount }))
    });
    let posted = futures_util::future::join_all(post).await;
    assert_eq!(created(&posted), 1, "{posted:?}");
    assert_eq!(it.balances(WALLET).await, [90, 100, 0, 0]);
    it.check_clean().await;
}

impl Fixture {
    async fn once_owned(&self, id: String, transfer: Transfer) -> Vec<Outcome> {
        self.once(&id, vec![transfer]).await
    }
}

/// Whatever field of whatever row is changed in the file, it is found at that row.
#[tokio::test]
async fn a_change_of_the_file_is_found_where_it_is() {
    let it = Fixture::new().await;
    it.once("fund", vec![moves(CLEARING, WALLET, 1_000)]).await;
    it.once("hold", vec![holds(WALLET, ESCROW, 300)]).await;
    let pending = chain("hold", Vec::new()).transfer(0);
    it.once(
        "post",
        vec![of(Move::Post {
            pending,
            amount: None,
        })],
    )
    .await;
    it.check_clean().await;
    for (column, value) in [
        ("amount", "amount + 1"),
        ("code", "'other'"),
        ("subject", "'ord_2'"),
        ("created_us", "created_us + 1"),
        (
            "kind",
            "CASE kind WHEN 'pending' THEN 'posted' ELSE 'pending' END",
        ),
        ("debit", "credit"),
        ("currency", "'EUR'"),
        ("prev_hash", "hash"),
        ("hash", "prev_hash"),
        ("pos", "pos + 1"),
    ] {
        for seq in 1..=3 {
            let saved = format!(
                "CREATE TABLE saved AS SELECT {column} AS v FROM ledger_transfers WHERE seq = {seq}"
            );
            it.run(&saved).await;
            it.run(&format!(
                "UPDATE ledger_transfers SET {column} = {value} WHERE seq = {seq}"
            ))
            .await;
            let report = verify(&it.db, None).await.unwrap();
            let named = report
                .differences
                .iter()
                .any(|d| d.contains(&format!("transfer {seq} ")));
            assert!(!report.is_clean() && named, "{column} of {seq}: {report}");
            let back = format!(
                "UPDATE ledger_transfers SET {column} = (SELECT v FROM saved) WHERE seq = {seq}"
            );
            it.run(&back).await;
            it.run("DROP TABLE saved").await;
        }
    }
    it.check_clean().await;
    let sql = format!(
        "UPDATE ledger_accounts SET credits_posted = credits_posted + 1 WHERE path = '{ESCROW}'"
    );
    it.run(&sql).await;
    let report = verify(&it.db, None).await.unwrap();
    assert!(
        report.to_string().contains("order:ord_1:escrow says"),
        "{report}"
    );
    assert!(
        verify(&it.db, Some(2)).await.unwrap().is_clean(),
        "hashes alone are right"
    );
}

/// Four accounts, by the rules of payments.md 11 and nothing else.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Debits and credits, posted then pending.
    sums: [[i64; 4]; 4],
    /// Debit, credit, amount of each open hold.
    open: BTreeMap<usize, (usize, usize, i64)>,
}

impl Model {
    fn holds(&self) -> bool {
        self.sums
            .iter()
            .enumerate()
            .all(|(n, [dp, cp, dh, ch])| match n {
                0 => true,
                3 => cp + ch <= *dp,
                _ => dp + dh <= *cp,
            })
    }

    /// The step, or `None` when it may not be.
    fn step(&self, number: usize, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        match *step {
            Step::Move(debit, credit, amount) => {
                (debit != credit).then_some(())?;
                next.sums[debit][0] += amount;
                next.sums[credit][1] += amount;
            }
            Step::Hold(debit, credit, amount) => {
                (debit != credit).then_some(())?;
                next.sums[debit][2] += amount;
                next.sums[credit][3] += amount;
                next.open.insert(number, (debit, credit, amount));
            }
            Step::Post(hold, amount) => {
                let (debit, credit, held) = next.open.remove(&hold)?;
                (amount <= held).then_some(())?;
                next.sums[debit][2] -= held;
                next.sums[credit][3] -= held;
                next.sums[debit][0] += amount;
                next.sums[credit][1] += amount;
            }
            Step::Void(hold) => {
                let (debit, credit, held) = next.open.remove(&hold)?;
                next.sums[debit][2] -= held;
                next.sums[credit][3] -= held;
            }
        }
        next.holds().then_some(next)
    }
}

/// A chain of one transfer; holds are named by the number of their chain.
#[derive(Clone, Debug)]
enum Step {
    Move(usize, usize, i64),
    Hold(usize, usize, i64),
    Post(usize, i64),
    Void(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0..4_usize;
    prop_oneof![
        4 => (side.clone(), side.clone(), 1..200_i64).prop_map(|(d, c, a)| Step::Move(d, c, a)),
        3 => (side.clone(), side, 1..200_i64).prop_map(|(d, c, a)| Step::Hold(d, c, a)),
        2 => (0..60_usize, 1..200_i64).prop_map(|(hold, a)| Step::Post(hold, a)),
        1 => (0..60_usize).prop_map(Step::Void),
    ]
}

fn chain_of(number: usize, step: &Step) -> Chain {
    let name = |n: usize| format!("step{n}");
    let pending = |hold: usize| chain(&name(hold), Vec::new()).transfer(0);
    let what = match *step {
        Step::Move(debit, credit, amount) => moves(PATHS[debit], PATHS[credit], amount),
        Step::Hold(debit, credit, amount) => holds(PATHS[debit], PATHS[credit], amount),
        Step::Post(hold, amount) => of(Move::Post {
            pending: pending(hold),
            amount: Some(yuan(amount)),
        }),
        Step::Void(hold) => of(Move::Void {
            pending: pending(hold),
        }),
    };
    chain(&name(number), vec![what])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// In batches of any size, with every chain given twice.
    #[test]
    fn any_list_of_chains_gives_what_the_rules_say(
        steps in proptest::collection::vec(step(), 1..60),
        batch in 1..20_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let it = Fixture::new().await;
            let mut model = Model::default();
            let chains: Vec<Chain> =
                steps.iter().enumerate().map(|(n, step)| chain_of(n, step)).collect();
            let mut number = 0;
            for some in chains.chunks(batch) {
                let twice = [some, some].concat();
                let mut tx = it.db.begin().await.unwrap();
                let results = post_all(&mut tx, NOON, &twice).await.unwrap();
                tx.commit().await.unwrap();
                let mut there = Vec::new();
                for result in &results[..some.len()] {
                    let next = model.step(number, &steps[number]);
                    let expected = next.is_some();
                    assert_eq!(result[0] == Outcome::Created, expected, "{number}: {result:?}");
                    there.push(expected);
                    model = next.unwrap_or(model);
                    number += 1;
                }
                // What failed is tried again, after all others: the rules say what then.
                for (n, result) in results[some.len()..].iter().enumerate() {
                    if there[n] {
                        assert_eq!(result[0], Outcome::Exists);
                        continue;
                    }
                    let at = number - some.len() + n;
                    let next = model.step(at, &steps[at]);
                    assert_eq!(result[0] == Outcome::Created, next.is_some());
                    model = next.unwrap_or(model);
                }
            }
            for (path, sums) in PATHS.iter().zip(model.sums) {
                assert_eq!(it.balances(path).await, sums, "{path}");
            }
            let debits: i64 = model.sums.iter().map(|s| s[0]).sum();
            let credits: i64 = model.sums.iter().map(|s| s[1]).sum();
            assert_eq!(debits, credits);
            it.check_clean().await;
        });
    }
}

/// The same chains give the same hashes wherever they are posted (invariant M27).
#[tokio::test]
async fn the_hash_of_a_known_list_of_chains_is_known() {
    let it = Fixture::new().await;
    it.once("fund", vec![moves(CLEARING, WALLET, 1_000)]).await;
    it.once("hold", vec![holds(WALLET, ESCROW, 300)]).await;
    let head: (i64, String) = sqlx::query_as("SELECT seq, hash FROM ledger_head")
        .fetch_one(it.db.readers())
        .await
        .unwrap();
    assert_eq!(head.0, 2);
    insta::assert_snapshot!(head.1);
    assert_eq!(NOON, Timestamp::from_micros(1_790_000_000_000_000));
}

/// The clock begins at 2026-09-21T14:13:20Z, 22:13 in the zone of the default.
#[tokio::test]
async fn days_are_closed_in_order_ten_minutes_after_their_end_and_once() {
    let it = crate::app::Fixture::new().await;
    let app = &it.app;
    assert!(!close_due(app).await.unwrap(), "nothing has moved yet");
    let transfer = async |id: &str, amount: i64| {
        let mut tx = app.db.begin().await.unwrap();
        let now = app.clock.now();
        let accounts = PATHS.map(|text| (path(text), Currency::CNY));
        open(&mut tx, now, &accounts).await.unwrap();
        let transfers = vec![moves(CLEARING, WALLET, amount), holds(WALLET, ESCROW, 1)];
        let results = post(&mut tx, now, chain(id, transfers)).await.unwrap();
        assert_eq!(results, [Outcome::Created; 2]);
        tx.commit().await.unwrap();
    };
    let minutes = |n: u64| std::time::Duration::from_secs(n * 60);
    transfer("first-day", 500).await;
    app.clock.advance(minutes(110));
    assert!(!close_due(app).await.unwrap(), "it is 00:03");
    // Of the next day, before the close.
    transfer("second-day", 70).await;
    app.clock.advance(minutes(10));
    assert!(close_due(app).await.unwrap());
    assert!(!close_due(app).await.unwrap(), "once");
    // The server was away for three days.
    app.clock.advance(minutes(3 * 24 * 60));
    while close_due(app).await.unwrap() {}
    let read = async |date: &str| store::find_day(&app.db, date).await.unwrap();
    let first = read("2026-09-21").await.unwrap();
    assert_eq!(first.last_seq, 2);
    assert_eq!(first.totals.moved["CNY"], 500, "a hold moves nothing");
    assert_eq!(first.totals.balances["CNY"]["wallet"], 500);
    assert_eq!(first.totals.balances["CNY"]["provider_clearing"], -500);
    let second = read("2026-09-22").await.unwrap();
    assert_eq!((second.last_seq, second.totals.moved["CNY"]), (4, 570));
    assert_ne!(second.hash, first.hash);
    let quiet = read("2026-09-24").await.unwrap();
    assert_eq!((quiet.last_seq, &quiet.hash), (4, &second.hash));
    assert_eq!(quiet.totals, second.totals);
    assert_eq!(read("2026-09-25").await, None);
    let told = "SELECT COUNT(*) FROM outbox WHERE type = 'ledger.day_closed'";
    let told: (i64,) = sqlx::query_as(told)
        .fetch_one(app.db.readers())
        .await
        .unwrap();
    assert_eq!(told.0, 4);
}
