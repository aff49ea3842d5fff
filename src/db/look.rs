//! A look at the database that changes nothing, for a server that does not run yet.

use std::path::{Path, PathBuf};

use sqlx::{Connection as _, Executor};
use tokio::time::timeout;

use super::{ACQUIRE_TIMEOUT, OpenError, escaped, options};

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It can be read.
    Opens,
    /// SQLite's file, which the first start makes.
    Absent,
}

/// Opens the database for reading and closes it.
pub(crate) async fn look(url: &str, data_dir: &Path) -> Result<Found, OpenError> {
    sqlx::any::install_default_drivers();
    let url = match url.strip_prefix("sqlite://") {
        Some(rest) => {
            let path = rest.split('?').next().unwrap_or_default();
            // It stands in the URL as it was written there.
            if !PathBuf::from(path).exists() {
                return Ok(Found::Absent);
            }
            read_only(path)
        }
        None if url.is_empty() => {
            let path = data_dir.join("lamplight.db");
            if !path.exists() {
                return Ok(Found::Absent);
            }
            read_only(&escaped(&path)?)
        }
        None => url.to_owned(),
    };
    let reading = async {
        let mut connection = sqlx::AnyConnection::connect_with(&options(&url)?).await?;
        // The first page of SQLite is read no earlier.
        let sql = if url.starts_with("sqlite://") {
            "SELECT COUNT(*) FROM sqlite_master"
        } else {
            "SELECT 1"
        };
        connection.execute(sql).await?;
        Ok(connection.close().await?)
    };
    match timeout(ACQUIRE_TIMEOUT, reading).await {
        Ok(read) => read.map(|()| Found::Opens),
        Err(_elapsed) => Err(sqlx::Error::PoolTimedOut.into()),
    }
}

/// Immutable: else SQLite would lay its log files beside it.
fn read_only(path: &str) -> String {
    format!("sqlite://{path}?mode=ro&immutable=1")
}
