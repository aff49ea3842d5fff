//! A fresh database for each store test: SQLite, or PostgreSQL when `LAMPLIGHT_TEST_DB` says so.

#[path = "../../tests/support/postgres.rs"]
mod postgres;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::Db;
use crate::clock::Timestamp;

/// A moment of the tests' clock.
pub(crate) const NOON: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);

/// A directory of one test, removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("lamplight-unit-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // SQLite may still hold a file open; the directory goes all the same.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An empty database with its schema.
pub(crate) async fn fresh(folder: &Folder) -> Db {
    let url = postgres::fresh_database().await.unwrap_or_default();
    let db = Db::open(&url, folder.path()).await.unwrap();
    db.migrate().await.unwrap();
    db
}
