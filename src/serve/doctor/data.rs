//! The data directory and the database.

use std::path::Path;

use rustix::fs::{Access, access, statvfs};

use super::{Finding, cli};
use crate::app::Secrets;
use crate::config::Config;
use crate::db::{self, Found};

const FREE_BYTES_WANTED: u64 = 1 << 30;
const FREE_BYTES_LEAST: u64 = 64 << 20;

/// Whether the server may write where it keeps everything.
pub(super) fn folder(dir: &Path) -> Finding {
    let check = "data_dir";
    let name = dir.display();
    let Some(there) = nearest(dir) else {
        return Finding::fail(check, format!("{name} cannot be reached; set data_dir"));
    };
    if !there.is_dir() {
        let text = format!("{} is no directory; set data_dir", there.display());
        return Finding::fail(check, text);
    }
    if access(there, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let text = format!(
            "{} may not be written; run as its owner, or: chown it to the user of the server",
            there.display()
        );
        return Finding::fail(check, text);
    }
    if there == dir {
        Finding::ok(check, format!("{name} can be written"))
    } else {
        Finding::ok(check, format!("{name} is made at the first start"))
    }
}

/// The directory, or the nearest above it that exists.
fn nearest(dir: &Path) -> Option<&Path> {
    let mut above = dir.ancestors().map(|path| {
        if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        }
    });
    above.find(|path| path.exists())
}

pub(super) fn free_space(dir: &Path) -> Finding {
    let check = "free disk space";
    let Some(found) = nearest(dir).and_then(|there| statvfs(there).ok()) else {
        return Finding::warn(check, "cannot be read");
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let text = format!("{} MiB", free >> 20);
    let more = format!("{text}; make room, or set data_dir on a larger disk");
    if free < FREE_BYTES_LEAST {
        Finding::fail(check, more)
    } else if free < FREE_BYTES_WANTED {
        Finding::warn(check, more)
    } else {
        Finding::ok(check, text)
    }
}

/// Whether the store of recordings does what it has to; nothing for a directory.
#[cfg(feature = "s3")]
pub(super) async fn store(config: &Config) -> Option<Finding> {
    let check = "record.store";
    let store = config.record.store.as_ref()?;
    let name = store.name();
    Some(match crate::broadcasts::probe_store(store).await {
        Ok(()) => Finding::ok(check, format!("{name} takes, gives, lists and removes")),
        Err(err) => Finding::fail(check, format!("{name}: {}", cli::describe(&err))),
    })
}

/// Whether the key is there, whole, and nobody else's.
pub(super) fn key_file(dir: &Path) -> Finding {
    let check = "key file";
    // Opened where there is none it would be made.
    if !Secrets::path(dir).exists() {
        return Finding::ok(check, "is made at the first start");
    }
    match Secrets::open(dir) {
        Ok(_secrets) => Finding::ok(check, "is whole, and only its owner may read it"),
        Err(err) => Finding::fail(check, cli::describe(&err)),
    }
}

pub(super) async fn database(config: &Config) -> Finding {
    let check = "database";
    match db::look(&config.db.url, &config.data_dir).await {
        Ok(Found::Opens) => Finding::ok(check, "opens"),
        Ok(Found::Absent) => Finding::ok(check, "is made at the first start"),
        Err(err) => {
            let text = cli::describe(&err);
            Finding::fail(
                check,
                format!("{text}; mend db.url, or the rights of its file"),
            )
        }
    }
}
