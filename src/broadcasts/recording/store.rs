//! Where the objects of recordings are kept: in a directory, in a store that speaks S3
//! ([`super::s3`]), or, for tests, in memory.
//!
//! Invariant: an object is there whole or not at all: a directory writes it under a name of that
//! try alone, syncs it, and renames it.
//!
//! Not here: what the objects are.

use std::io::{self, ErrorKind, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error("there is no object {0}")]
    NotFound(String),
    #[error("{doing} object {key}")]
    Io {
        doing: &'static str,
        key: String,
        #[source]
        source: io::Error,
    },
    #[error("the store took too long for object {0}")]
    TooSlow(String),
}

/// A store of objects by key; a key is pieces of letters, digits, `_`, `-` and `.` between slashes.
#[derive(Debug)]
pub(super) enum Store {
    Directory(Directory),
    #[cfg(feature = "s3")]
    S3(super::s3::S3),
    #[cfg(test)]
    Memory(super::tests::Memory),
}

impl Store {
    /// Keeps an object; in place of the one of this key, if there is one.
    pub(super) async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self {
            Self::Directory(store) => store.put(key, &bytes).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => store.put(key, bytes).await,
            #[cfg(test)]
            Self::Memory(store) => store.put(key, bytes).await,
        }
    }

    /// An object, or some of its bytes.
    pub(super) async fn get(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<Bytes, StoreError> {
        match self {
            Self::Directory(store) => store.get(key, range).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => store.get(key, range).await,
            #[cfg(test)]
            Self::Memory(store) => store.get(key, range),
        }
    }

    /// The keys that begin with `prefix` and have no slash behind it, sorted.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Directory(store) => store.list(prefix).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => store.list(prefix).await,
            #[cfg(test)]
            Self::Memory(store) => Ok(store.list(prefix)),
        }
    }

    /// Removes what writing was cut off in this folder.
    pub(super) async fn sweep(&self, folder: &str) -> Result<(), StoreError> {
        match self {
            Self::Directory(store) => store.sweep(folder).await,
            // A put that was cut off leaves nothing there.
            #[cfg(feature = "s3")]
            Self::S3(_) => Ok(()),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }

    /// Removes an object; one that is not there is removed already.
    pub(super) async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match self {
            Self::Directory(store) => store.delete(key).await,
            #[cfg(feature = "s3")]
            Self::S3(store) => store.delete(key).await,
            #[cfg(test)]
            Self::Memory(store) => {
                store.delete(key);
                Ok(())
            }
        }
    }
}

/// Whether a text can be a key.
pub(super) fn check(key: &str) -> Result<(), StoreError> {
    let is_good = |piece: &str| {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        !piece.is_empty() && !piece.starts_with('.') && piece.bytes().all(is_plain)
    };
    match key.split('/').all(is_good) {
        true => Ok(()),
        false => Err(StoreError::NotFound(key.into())),
    }
}

/// A directory, with a folder for each slash of a key.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    /// Tries to write. One that was given up may go on for a while, beside the next.
    tries: AtomicU64,
}

impl Directory {
    /// The folder is made with the first object.
    pub(super) const fn new(root: PathBuf) -> Self {
        Self {
            root,
            tries: AtomicU64::new(0),
        }
    }

    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check(key)?;
        Ok(self.root.join(key))
    }

    async fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(key)?;
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let folder = self.root.join(folder);
        let number = self.tries.fetch_add(1, Ordering::Relaxed);
        let aside = folder.join(format!(".{name}.{number}.tmp"));
        let written = async {
            fs::create_dir_all(&folder).await?;
            let mut file = File::create(&aside).await?;
            file.write_all(bytes).await?;
            file.sync_all().await?;
            fs::rename(&aside, &path).await?;
            // The name is kept only once its folder is.
            File::open(&folder).await?.sync_all().await
        };
        if let Err(source) = written.await {
            // What a full disk took of it is given back.
            drop(fs::remove_file(&aside).await);
            let (doing, key) = ("writing", key.into());
            return Err(StoreError::Io { doing, key, source });
        }
        Ok(())
    }

    async fn get(&self, key: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        let path = self.path(key)?;
        let read = async {
            let mut file = File::open(&path).await?;
            let mut bytes = Vec::new();
            match range {
                None => file.read_to_end(&mut bytes).await?,
                Some(range) => {
                    file.seek(SeekFrom::Start(range.start)).await?;
                    let mut some = file.take(range.end.saturating_sub(range.start));
                    some.read_to_end(&mut bytes).await?
                }
            };
            Ok(Bytes::from(bytes))
        };
        read.await.map_err(|source: io::Error| match source.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => StoreError::NotFound(key.into()),
            _ => {
                let (doing, key) = ("reading", key.into());
                StoreError::Io { doing, key, source }
            }
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (folder, start) = prefix.rsplit_once('/').unwrap_or(("", prefix));
        let listed = async {
            let mut found = Vec::new();
            let mut all = match fs::read_dir(self.root.join(folder)).await {
                Err(err) if err.kind() == ErrorKind::NotFound => return Ok(found),
                all => all?,
            };
            while let Some(entry) = all.next_entry().await? {
                let name = entry.file_name();
                let name = name.to_str().filter(|name| name.starts_with(start));
                let name = name.filter(|name| !name.starts_with('.'));
                if let Some(name) = name
                    && entry.file_type().await?.is_file()
                {
                    let between = if folder.is_empty() { "" } else { "/" };
                    found.push(format!("{folder}{between}{name}"));
                }
            }
            found.sort_unstable();
            Ok(found)
        };
        listed.await.map_err(|source: io::Error| {
            let (doing, key) = ("listing", prefix.into());
            StoreError::Io { doing, key, source }
        })
    }

    async fn sweep(&self, folder: &str) -> Result<(), StoreError> {
        let path = self.path(folder)?;
        let swept = async {
            let mut all = match fs::read_dir(path).await {
                Err(err) if err.kind() == ErrorKind::NotFound => return Ok(()),
                all => all?,
            };
            while let Some(entry) = all.next_entry().await? {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with('.') && name.ends_with(".tmp") {
                    fs::remove_file(entry.path()).await?;
                }
            }
            Ok(())
        };
        swept.await.map_err(|source: io::Error| {
            let (doing, key) = ("sweeping", folder.into());
            StoreError::Io { doing, key, source }
        })
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.path(key)?).await {
            Err(source) if source.kind() != ErrorKind::NotFound => {
                let (doing, key) = ("removing", key.into());
                Err(StoreError::Io { doing, key, source })
            }
            _ => Ok(()),
        }
    }
}
