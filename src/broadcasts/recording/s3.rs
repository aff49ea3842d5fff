//! Recordings in a store that speaks S3, through `object_store`.
//!
//! Invariants
//! - An object is there whole or not at all: the store promises that of each put.
//! - Every request ends: [`WITHIN`], tries included.
//!
//! Not here: what the objects are; the tries of the keeper beyond.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectStore, ObjectStoreExt,
    PutPayload, RetryConfig,
};

use super::store::{StoreError, check};
use crate::app::new_secret;
use crate::config::S3Store;

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// For one object; the keeper gives a request up after ten seconds.
const WITHIN: Duration = Duration::from_secs(9);
const RETRIES_MAX: usize = 2;
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Keys of one list.
const LISTED_MAX: usize = 100_000;
const CREDENTIALS_BYTES_MAX: u64 = 4_096;
/// The folder of objects that `lamplight doctor` tries the store with.
const PROBES: &str = "probes";

/// Why the store could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum S3Error {
    #[error("record.s3_credentials_file = {0:?}: cannot be read")]
    Read(PathBuf, #[source] io::Error),
    #[error("record.s3_credentials_file = {0:?}: others may read it; run chmod 600 on it")]
    Open(PathBuf),
    #[error(
        "record.s3_credentials_file = {0:?}: write the id of the access key on its first line and \
         its secret on the second"
    )]
    Shape(PathBuf),
    #[error(
        "record.s3_endpoint = {0:?}: write https://HOST[:PORT]; http:// is taken for this machine \
         alone, as in http://127.0.0.1:9000"
    )]
    Endpoint(String),
    #[error("record.store = {0:?}: the store cannot be used so")]
    Build(String, #[source] Box<Error>),
}

/// A bucket, or a part of one.
#[derive(Debug)]
pub(super) struct S3 {
    store: AmazonS3,
    prefix: ObjectPath,
}

impl S3 {
    /// Sends nothing yet.
    pub(super) fn open(config: &S3Store) -> Result<Self, S3Error> {
        let (id, secret) = credentials(&config.credentials_file)?;
        let mut options = ClientOptions::new()
            .with_connect_timeout(CONNECT_WITHIN)
            .with_timeout(WITHIN);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&config.bucket)
            .with_region(&config.region)
            .with_access_key_id(id)
            .with_secret_access_key(secret)
            .with_retry(RetryConfig {
                backoff: BackoffConfig {
                    init_backoff: RETRY_AFTER,
                    ..BackoffConfig::default()
                },
                max_retries: RETRIES_MAX,
                retry_timeout: WITHIN,
            });
        if let Some(endpoint) = &config.endpoint {
            options = options.with_allow_http(is_plain(endpoint)?);
            // A store of one's own seldom has a name for each bucket.
            builder = builder
                .with_endpoint(endpoint)
                .with_virtual_hosted_style_request(false);
        }
        let built = builder.with_client_options(options).build();
        let store = built.map_err(|err| S3Error::Build(config.name(), Box::new(err)))?;
        Ok(Self {
            store,
            prefix: ObjectPath::from(config.prefix.as_str()),
        })
    }

    /// Of a key.
    fn path(&self, key: &str) -> Result<ObjectPath, StoreError> {
        check(key)?;
        Ok(self.folder(key))
    }

    /// Of a key, or of nothing: all there is.
    fn folder(&self, key: &str) -> ObjectPath {
        let path = format!("{}/{key}", self.prefix);
        ObjectPath::from(path.trim_matches('/'))
    }

    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let put = self.store.put(&path, PutPayload::from(bytes));
        put.await.map_err(|err| failed("writing", key, err))?;
        Ok(())
    }

    pub(super) async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, StoreError> {
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let path = self.path(key)?;
        let read = async {
            let found = self.store.get_opts(&path, options).await?;
            found.bytes().await
        };
        read.await.map_err(|err| failed("reading", key, err))
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (folder, start) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let path = self.folder(folder);
        let mut found = Vec::new();
        let listed = async {
            // By folder, as the store pages them; those of folders in it are passed over.
            let mut all = self.store.list(Some(&path));
            while let Some(object) = all.try_next().await? {
                let rest: Option<Vec<_>> =
                    object.location.prefix_match(&path).map(Iterator::collect);
                let Some([name]) = rest.as_deref() else {
                    continue;
                };
                if name.as_ref().starts_with(start) && found.len() < LISTED_MAX {
                    let between = if folder.is_empty() { "" } else { "/" };
                    found.push(format!("{folder}{between}{}", name.as_ref()));
                }
            }
            Ok(())
        };
        listed.await.map_err(|err| failed("listing", prefix, err))?;
        found.sort_unstable();
        Ok(found)
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.path(key)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(err) => Err(failed("removing", key, err)),
        }
    }
}

/// Whether a store does all that is asked of one: an object is put, read, listed and removed.
///
/// # Errors
/// What to change, or what the store said.
pub(super) async fn probe(config: &S3Store) -> Result<(), ProbeError> {
    let store = S3::open(config)?;
    let key = format!("{PROBES}/{}", new_secret("probe-"));
    store.put(&key, Bytes::from_static(b"probe")).await?;
    let some = store.get(&key, Some(1..3)).await?;
    let listed = store.list(&format!("{PROBES}/")).await?;
    store.delete(&key).await?;
    if some != "ro" || !listed.contains(&key) {
        return Err(ProbeError::Differs(key));
    }
    Ok(())
}

/// Why a store will not do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    #[error(transparent)]
    Config(#[from] S3Error),
    #[error("the store does not take or give an object")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the store gives other bytes or another list than were put: {0}")]
    Differs(String),
}

impl From<StoreError> for ProbeError {
    fn from(err: StoreError) -> Self {
        Self::Store(Box::new(err))
    }
}

fn failed(doing: &'static str, key: &str, err: Error) -> StoreError {
    match err {
        Error::NotFound { .. } => StoreError::NotFound(key.into()),
        err => StoreError::Io {
            doing,
            key: key.into(),
            source: io::Error::other(err),
        },
    }
}

/// Whether an endpoint is without TLS, which only this machine may be.
fn is_plain(endpoint: &str) -> Result<bool, S3Error> {
    let bad = || S3Error::Endpoint(endpoint.into());
    let uri: http::Uri = endpoint.parse().map_err(|_shape| bad())?;
    let host = uri.host().ok_or_else(bad)?;
    let has_path = !matches!(uri.path(), "" | "/");
    let is_here = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") if !has_path => Ok(false),
        Some("http") if is_here && !has_path => Ok(true),
        _ => Err(bad()),
    }
}

/// The id of the access key, and its secret.
fn credentials(path: &Path) -> Result<(String, String), S3Error> {
    let read = |err| S3Error::Read(path.into(), err);
    let file = File::open(path).map_err(read)?;
    if file.metadata().map_err(read)?.permissions().mode() & 0o077 != 0 {
        return Err(S3Error::Open(path.into()));
    }
    let mut text = String::new();
    file.take(CREDENTIALS_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(read)?;
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    match lines.as_slice() {
        [id, secret] if !id.is_empty() && !secret.is_empty() => {
            Ok(((*id).to_owned(), (*secret).to_owned()))
        }
        _ => Err(S3Error::Shape(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Folder;

    #[test]
    fn plain_http_is_for_this_machine() {
        assert!(is_plain("http://127.0.0.1:9000").unwrap());
        assert!(is_plain("http://[::1]:9000").unwrap());
        assert!(is_plain("http://localhost").unwrap());
        assert!(!is_plain("https://store.test:9000").unwrap());
        for bad in [
            "http://10.0.0.1",
            "store.test",
            "ftp://127.0.0.1",
            "https://a.test/b",
            "",
        ] {
            is_plain(bad).unwrap_err();
        }
    }

    #[test]
    fn credentials_are_two_lines_that_nobody_else_reads() {
        let folder = Folder::new();
        let path = folder.path().join("s3.key");
        assert!(matches!(credentials(&path), Err(S3Error::Read(..))));
        std::fs::write(&path, "AKIA\nsecret\n").unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode(0o644)).unwrap();
        assert!(matches!(credentials(&path), Err(S3Error::Open(_))));
        std::fs::set_permissions(&path, mode(0o600)).unwrap();
        let expected = ("AKIA".to_owned(), "secret".to_owned());
        assert_eq!(credentials(&path).unwrap(), expected);
        for bad in ["", "AKIA\n", "a\nb\nc\n", "\nsecret\n"] {
            std::fs::write(&path, bad).unwrap();
            let refused = credentials(&path);
            assert!(matches!(refused, Err(S3Error::Shape(_))), "{bad:?}");
        }
    }
}
