//! A fresh database for each store test: SQLite, or PostgreSQL when `LAMPLIGHT_TEST_DB` says so.

#[path = "../../tests/support/postgres.rs"]
mod postgres;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Db;
use crate::app::App;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Sources};

/// A moment of the tests' clock.
pub(crate) const NOON: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// Everything a store or use case needs, over an empty schema. Removed when dropped.
pub(crate) struct Fixture {
    pub(crate) app: App,
    dir: PathBuf,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lamplight-unit-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        let url = postgres::fresh_database().await.unwrap_or_default();
        let config = Config::load(&Sources {
            settings: vec![
                format!("data_dir={:?}", dir.display().to_string()),
                format!("db.url={url:?}"),
            ],
            ..Sources::default()
        });
        let clock = Clock::standing_at(NOON);
        let app = crate::serve::open(config.unwrap(), clock).await.unwrap();
        Self { app, dir }
    }

    pub(crate) fn db(&self) -> &Db {
        &self.app.db
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // SQLite may still hold the file open; the directory goes all the same.
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
