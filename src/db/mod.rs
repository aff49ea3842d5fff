//! Records: SQLite beside the server by default, PostgreSQL by URL, one SQL text for both.
//!
//! Invariants
//! - SQLite has exactly one writing connection; a [`Tx`] holds it from `BEGIN IMMEDIATE` on.
//! - What is committed is on disk (`synchronous = FULL`, `synchronous_commit = on`).
//! - A dropped [`Tx`] rolls back.
//!
//! Not here: any table. Stores of the modules own their SQL.

mod bulk;
mod look;
mod row;
#[cfg(test)]
mod testing;

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Any, AnyConnection, AnyPool, Executor, SqlSafeStr, Transaction};
use tokio::sync::Notify;

pub(crate) use self::bulk::{Bound, Bulk, select_in};
pub(crate) use self::look::{Found, look};
pub(crate) use self::row::parsed;
#[cfg(test)]
pub(crate) use self::testing::{Folder, NOON, fresh};

/// Readers beside the one writer of SQLite.
const SQLITE_READERS_MAX: u32 = 4;
const POSTGRES_WRITERS_MAX: u32 = 8;
const POSTGRES_READERS_MAX: u32 = 8;
/// How long a caller waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// `(number, name, SQLite, PostgreSQL)`
const MIGRATIONS: [(i64, &str, &str, &str); 6] = [
    (
        1,
        "init",
        include_str!("../../migrations/sqlite/0001_init.sql"),
        include_str!("../../migrations/postgres/0001_init.sql"),
    ),
    (
        2,
        "ledger",
        include_str!("../../migrations/sqlite/0002_ledger.sql"),
        include_str!("../../migrations/postgres/0002_ledger.sql"),
    ),
    (
        3,
        "catalog",
        include_str!("../../migrations/sqlite/0003_catalog.sql"),
        include_str!("../../migrations/postgres/0003_catalog.sql"),
    ),
    (
        4,
        "accounts",
        include_str!("../../migrations/sqlite/0004_accounts.sql"),
        include_str!("../../migrations/postgres/0004_accounts.sql"),
    ),
    (
        5,
        "cards",
        include_str!("../../migrations/sqlite/0005_cards.sql"),
        include_str!("../../migrations/postgres/0005_cards.sql"),
    ),
    (
        6,
        "orders",
        include_str!("../../migrations/sqlite/0006_orders.sql"),
        include_str!("../../migrations/postgres/0006_orders.sql"),
    ),
];

/// Which database is behind the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "db.url must start with sqlite:// or postgres://; empty means SQLite in the data directory"
    )]
    UnknownScheme,
    #[error("the path of the database is not UTF-8: {0}")]
    Path(String),
    #[error("opening the database")]
    Db(#[from] sqlx::Error),
}

/// A cheap handle on the database.
#[derive(Clone, Debug)]
pub struct Db {
    engine: Engine,
    writers: AnyPool,
    readers: AnyPool,
    news: Arc<Notify>,
}

impl Db {
    /// Opens the database at `url`; the empty URL is SQLite in `data_dir`.
    ///
    /// # Errors
    /// [`OpenError`] when the URL is of no kind we know, or nothing answers there.
    pub async fn open(url: &str, data_dir: &Path) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        if url.is_empty() {
            let url = sqlite_url(&data_dir.join("lamplight.db"))?;
            return Self::open_sqlite(&url).await;
        }
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("sqlite") => Self::open_sqlite(url).await,
            Some("postgres" | "postgresql") => Self::open_postgres(url).await,
            _ => Err(OpenError::UnknownScheme),
        }
    }

    async fn open_sqlite(url: &str) -> Result<Self, OpenError> {
        let options = options(url)?;
        let writers = pool(1)
            .after_connect(|connection, _| {
                let sql = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                           PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 5000;";
                Box::pin(async move { connection.execute(sql).await.map(|_| ()) })
            })
            .connect_with(options.clone())
            .await?;
        let readers = pool(SQLITE_READERS_MAX)
            .after_connect(|connection, _| {
                let sql = "PRAGMA query_only = ON; PRAGMA busy_timeout = 5000;";
                Box::pin(async move { connection.execute(sql).await.map(|_| ()) })
            })
            .connect_lazy_with(options);
        Ok(Self::new(Engine::Sqlite, writers, readers))
    }

    async fn open_postgres(url: &str) -> Result<Self, OpenError> {
        let options = options(url)?;
        let writers = pool(POSTGRES_WRITERS_MAX)
            .connect_with(options.clone())
            .await?;
        let readers = pool(POSTGRES_READERS_MAX).connect_lazy_with(options);
        Ok(Self::new(Engine::Postgres, writers, readers))
    }

    fn new(engine: Engine, writers: AnyPool, readers: AnyPool) -> Self {
        Self {
            engine,
            writers,
            readers,
            news: Arc::default(),
        }
    }

    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// [`MigrateError`] when a migration fails or an applied one was edited.
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        self.migrator().run(&self.writers).await
    }

    /// The numbers and names of all migrations of this binary.
    pub fn migrations() -> impl Iterator<Item = (i64, &'static str)> {
        MIGRATIONS
            .iter()
            .map(|(number, name, _, _)| (*number, *name))
    }

    fn migrator(&self) -> Migrator {
        let migrations = MIGRATIONS
            .iter()
            .map(|(number, name, sqlite, postgres)| {
                let sql = match self.engine {
                    Engine::Sqlite => *sqlite,
                    Engine::Postgres => *postgres,
                };
                let (name, sql) = ((*name).into(), sql.into_sql_str());
                let runs_outside_tx = false;
                Migration::new(*number, name, MigrationType::Simple, sql, runs_outside_tx)
            })
            .collect();
        Migrator::with_migrations(migrations)
    }

    /// Begins a write transaction.
    ///
    /// # Errors
    /// [`sqlx::Error::PoolTimedOut`] when no connection gets free in time.
    pub async fn begin(&self) -> sqlx::Result<Tx> {
        let inner = match self.engine {
            Engine::Sqlite => self.writers.begin_with("BEGIN IMMEDIATE").await?,
            Engine::Postgres => self.writers.begin().await?,
        };
        Ok(Tx {
            inner,
            engine: self.engine,
            news: Arc::clone(&self.news),
            has_news: false,
        })
    }

    /// For reads outside a transaction.
    pub const fn readers(&self) -> &AnyPool {
        &self.readers
    }

    /// Notified after each commit of a [`Tx`] that was marked by [`Tx::tell_after_commit`].
    pub fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// Waits for running transactions and closes all connections.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writers.close().await;
    }
}

/// A write transaction. Nothing of it exists until [`Tx::commit`] returned.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    engine: Engine,
    news: Arc<Notify>,
    has_news: bool,
}

impl Tx {
    /// Wakes the relay once this transaction is committed.
    pub fn tell_after_commit(&mut self) {
        self.has_news = true;
    }

    /// What locks the rows of a `SELECT` until the end of the transaction, put behind it. SQLite
    /// has one writer, which needs no locks.
    pub(crate) const fn for_update(&self) -> &'static str {
        match self.engine {
            Engine::Sqlite => "",
            Engine::Postgres => " FOR UPDATE",
        }
    }

    /// # Errors
    /// The database's error; whether the commit happened is then unknown.
    pub async fn commit(self) -> sqlx::Result<()> {
        self.inner.commit().await?;
        if self.has_news {
            self.news.notify_one();
        }
        Ok(())
    }

    /// # Errors
    /// The database's error; nothing of the transaction exists then either.
    pub async fn rollback(self) -> sqlx::Result<()> {
        self.inner.rollback().await
    }
}

impl Deref for Tx {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.inner
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }
}

fn pool(connections_max: u32) -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(connections_max)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(cfg!(not(test)))
}

fn options(url: &str) -> Result<AnyConnectOptions, OpenError> {
    Ok(AnyConnectOptions::from_str(url)?)
}

/// The path as a URL that creates the file when it is missing.
fn sqlite_url(path: &Path) -> Result<String, OpenError> {
    Ok(format!("sqlite://{}?mode=rwc", escaped(path)?))
}

/// The whole path as it stands in a URL.
fn escaped(path: &Path) -> Result<String, OpenError> {
    let bad_path = || OpenError::Path(path.display().to_string());
    let absolute = std::path::absolute(path).map_err(|_io| bad_path())?;
    let text = absolute.to_str().ok_or_else(bad_path)?;
    let escaped = text.chars().map(|c| match c {
        ' ' | '%' | '?' | '#' => format!("%{:02X}", u32::from(c)),
        _ => c.into(),
    });
    Ok(escaped.collect())
}
