//! Many rows in one statement: what a batch writes costs one round trip a table.

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, Executor};

use super::Tx;

/// Values of one statement: SQLite takes at most 32 766.
const VALUES_MAX: usize = 15_000;

/// A statement that values are bound to.
pub(crate) type Bound = Query<'static, Any, AnyArguments>;

/// A statement about many rows: `head VALUES (…), (…) tail`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bulk<'a> {
    pub(crate) head: &'a str,
    /// Values of a row.
    pub(crate) width: usize,
    pub(crate) tail: &'a str,
}

impl Bulk<'_> {
    /// Runs it for all rows, in as many statements as are needed; how many rows it changed.
    ///
    /// # Errors
    /// The database's error.
    pub(crate) async fn execute<T>(
        self,
        tx: &mut Tx,
        rows: &[T],
        bind: impl Fn(Bound, &T) -> Bound + Send,
    ) -> sqlx::Result<u64>
    where
        T: Sync,
    {
        let mut changed = 0;
        for some in rows.chunks(VALUES_MAX / self.width) {
            let query = some.iter().fold(self.statement(some.len()), &bind);
            changed += tx.execute(query).await?.rows_affected();
        }
        Ok(changed)
    }

    /// The same for a statement that answers with rows.
    ///
    /// # Errors
    /// The database's error.
    pub(crate) async fn fetch<T>(
        self,
        tx: &mut Tx,
        rows: &[T],
        bind: impl Fn(Bound, &T) -> Bound + Send,
    ) -> sqlx::Result<Vec<AnyRow>>
    where
        T: Sync,
    {
        let mut all = Vec::new();
        for some in rows.chunks(VALUES_MAX / self.width) {
            let query = some.iter().fold(self.statement(some.len()), &bind);
            all.extend(tx.fetch_all(query).await?);
        }
        Ok(all)
    }

    fn statement(self, rows: usize) -> Bound {
        let tuples: Vec<String> = (0..rows).map(|row| places(row, self.width)).collect();
        let sql = format!("{} VALUES {} {}", self.head, tuples.join(", "), self.tail);
        sqlx::query(sqlx::AssertSqlSafe(sql))
    }
}

/// `select (…) end` for all of these, in as many statements as are needed.
///
/// # Errors
/// The database's error.
pub(crate) async fn select_in<T: ToString>(
    tx: &mut AnyConnection,
    select: &str,
    end: &str,
    values: impl IntoIterator<Item = T>,
) -> sqlx::Result<Vec<AnyRow>> {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    let mut all = Vec::new();
    for some in values.chunks(VALUES_MAX) {
        let sql = format!("{select} {}{end}", places(0, some.len()));
        let query = sqlx::query(sqlx::AssertSqlSafe(sql));
        let query = some
            .iter()
            .fold(query, |query, value| query.bind(value.clone()));
        all.extend(tx.fetch_all(query).await?);
    }
    Ok(all)
}

/// `($1, $2, …)`: the `n`th tuple of this width.
fn places(n: usize, width: usize) -> String {
    let first = n * width + 1;
    let all: Vec<String> = (first..first + width).map(|n| format!("${n}")).collect();
    format!("({})", all.join(", "))
}
