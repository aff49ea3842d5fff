//! The keys that sign offers, in a file of their own.
//!
//! `offer.keys` in the data directory holds one key a line: its number, when it was made in
//! microseconds, and 32 bytes in base64url. The last line signs.
//!
//! Invariants
//! - The file has mode 0600 and is made at the first start.
//! - A key that was followed by another verifies for 24 h more.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::app::{App, new_secret};
use crate::clock::Timestamp;

const FILE: &str = "offer.keys";
const FILE_BYTES_MAX: u64 = 64 * 1024;
const KEY_LEN: usize = 32;
/// The MAC of a token is cut to this.
const MAC_LEN: usize = 16;
/// How long a key verifies after the next one was made: the life of an offer.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the key file is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("reading or writing the key file {0}")]
    Io(PathBuf, #[source] io::Error),
    #[error("the key file {0} may be read by others; run: chmod 600 {0}")]
    Open(PathBuf),
    #[error(
        "the key file {0} cannot be understood; restore it from a backup, or remove it to start \
         with a new one (offers that viewers hold are then refused)"
    )]
    Shape(PathBuf),
}

/// One key.
#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: u32,
    made_at: Timestamp,
    secret: [u8; KEY_LEN],
    key: hmac::Key,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, made_at, .. } = self;
        write!(f, "Key {id} of {made_at}")
    }
}

impl Key {
    fn new(id: u32, made_at: Timestamp, secret: [u8; KEY_LEN]) -> Self {
        Self {
            id,
            made_at,
            secret,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        }
    }

    fn fresh(id: u32, made_at: Timestamp) -> Self {
        let text = new_secret("");
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap_or_default();
        let secret = bytes.try_into().expect("a fresh secret has 32 bytes");
        Self::new(id, made_at, secret)
    }

    pub(super) fn mac(&self, text: &[u8]) -> [u8; MAC_LEN] {
        let tag = hmac::sign(&self.key, text);
        let mut short = [0; MAC_LEN];
        short.copy_from_slice(tag.as_ref().split_at(MAC_LEN).0);
        short
    }

    fn line(&self) -> String {
        let secret = URL_SAFE_NO_PAD.encode(self.secret);
        format!("{} {} {secret}\n", self.id, self.made_at.as_micros())
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (id, made_us, secret) = (words.next()?, words.next()?, words.next()?);
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?;
        let made_at = Timestamp::from_micros(made_us.parse().ok()?);
        let key = Self::new(id.parse().ok()?, made_at, secret.try_into().ok()?);
        words.next().is_none().then_some(key)
    }
}

/// The keys of this server, oldest first; never empty.
#[derive(Clone, Debug)]
pub(super) struct KeyRing(Vec<Key>);

impl KeyRing {
    fn fresh(now: Timestamp) -> Self {
        Self(vec![Key::fresh(1, now)])
    }

    /// One key, as a test knows it.
    #[cfg(test)]
    pub(super) fn of(id: u32, secret: &[u8; KEY_LEN]) -> Self {
        Self(vec![Key::new(id, Timestamp::from_micros(0), *secret)])
    }

    pub(super) fn newest(&self) -> &Key {
        self.0.last().expect("a ring has a key")
    }

    /// The key that signed this text, if it is one that still verifies.
    pub(super) fn signer(&self, now: Timestamp, text: &[u8], mac: &[u8]) -> Option<u32> {
        let nexts = self.0.iter().skip(1).map(Some).chain([None]);
        let valid = self.0.iter().zip(nexts).filter(|(_, next)| {
            let ends_at = next.map(|next| next.made_at.plus(OVERLAP));
            ends_at.is_none_or(|ends_at| now < ends_at)
        });
        let mut signers = valid.filter(|(key, _)| is_same(&key.mac(text), mac));
        signers.next().map(|(key, _)| key.id)
    }

    /// The ring with a fresh key that signs from now on, without keys that verify nothing more.
    fn rotated(&self, now: Timestamp) -> Self {
        let followed_by = |n: usize| self.0.get(n + 1);
        let is_of_use =
            |n: usize| followed_by(n).is_none_or(|next| now < next.made_at.plus(OVERLAP));
        let kept = self.0.iter().enumerate().filter(|(n, _)| is_of_use(*n));
        let mut keys: Vec<Key> = kept.map(|(_, key)| key.clone()).collect();
        keys.push(Key::fresh(self.newest().id.saturating_add(1), now));
        Self(keys)
    }

    fn text(&self) -> String {
        self.0.iter().map(Key::line).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let keys: Option<Vec<Key>> = text.lines().map(Key::parse).collect();
        let keys = keys?;
        let is_in_order = keys.is_sorted_by(|a, b| a.id < b.id);
        (is_in_order && !keys.is_empty()).then_some(Self(keys))
    }
}

/// Compares in a time that tells nothing of where two MACs differ.
fn is_same(one: &[u8; MAC_LEN], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    other.len() == MAC_LEN && std::hint::black_box(differing) == 0
}

/// The keys of this process. Before [`open`] read the file, a key of the process alone signs.
#[derive(Debug)]
pub(super) struct OfferKeys(RwLock<Arc<KeyRing>>);

impl Default for OfferKeys {
    fn default() -> Self {
        let ring = KeyRing::fresh(Timestamp::from_micros(0));
        Self(RwLock::new(Arc::new(ring)))
    }
}

impl OfferKeys {
    pub(super) fn of(app: &App) -> Arc<KeyRing> {
        let keys: Arc<Self> = app.parts.part();
        let ring = keys.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&ring)
    }

    fn set(app: &App, ring: KeyRing) {
        let keys: Arc<Self> = app.parts.part();
        *keys.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }
}

/// Reads the keys of the data directory; makes them when there are none.
///
/// # Errors
/// [`KeyFileError`] says what to do about the file.
pub(crate) fn open_offer_keys(app: &App) -> Result<(), KeyFileError> {
    let path = app.config().data_dir.join(FILE);
    OfferKeys::set(app, open(&path, app.clock.now())?);
    Ok(())
}

/// Makes a fresh key that signs from now on, and returns its number; the former ones verify for
/// 24 h.
///
/// # Errors
/// [`KeyFileError`] says what to do about the file.
pub(crate) fn rotate_offer_keys(app: &App) -> Result<u32, KeyFileError> {
    let path = app.config().data_dir.join(FILE);
    let now = app.clock.now();
    let ring = open(&path, now)?.rotated(now);
    replace(&path, &ring.text()).map_err(|err| KeyFileError::Io(path, err))?;
    let id = ring.newest().id;
    OfferKeys::set(app, ring);
    Ok(id)
}

fn open(path: &Path, now: Timestamp) -> Result<KeyRing, KeyFileError> {
    let io = |err| KeyFileError::Io(path.into(), err);
    match File::open(path) {
        Ok(file) => {
            if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
                return Err(KeyFileError::Open(path.into()));
            }
            let mut text = String::new();
            file.take(FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(io)?;
            KeyRing::parse(&text).ok_or_else(|| KeyFileError::Shape(path.into()))
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {
            let ring = KeyRing::fresh(now);
            create(path, &ring.text()).map_err(io)?;
            Ok(ring)
        }
        Err(err) => Err(io(err)),
    }
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whoever reads the file meanwhile finds the old keys or the new ones, whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("keys.new");
    match fs::remove_file(&beside) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    create(&beside, text)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Folder, NOON};

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let folder = Folder::new();
        let path = folder.path().join(FILE);
        let made = open(&path, NOON).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mac = made.newest().mac(b"x");
        let again = open(&path, NOON.plus(OVERLAP)).unwrap();
        assert_eq!(again.signer(NOON, b"x", &mac), Some(1));
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(open(&path, NOON), Err(KeyFileError::Open(_))));
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let folder = Folder::new();
        let path = folder.path().join(FILE);
        let good = KeyRing::fresh(NOON).newest().line();
        let twice = format!("{good}{good}");
        for bad in ["", "\n", "1 2 short", "x 2 3", &format!("{good}x"), &twice] {
            drop(fs::remove_file(&path));
            create(&path, bad).unwrap();
            assert!(
                matches!(open(&path, NOON), Err(KeyFileError::Shape(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_former_key_verifies_for_a_day_and_the_newest_always() {
        let first = KeyRing::fresh(NOON);
        let old_mac = first.newest().mac(b"x");
        let both = first.rotated(NOON);
        let new_mac = both.newest().mac(b"x");
        let last = Timestamp::from_micros(NOON.plus(OVERLAP).as_micros() - 1);
        assert_eq!(both.signer(last, b"x", &old_mac), Some(1));
        assert_eq!(both.signer(NOON.plus(OVERLAP), b"x", &old_mac), None);
        assert_eq!(both.signer(NOON.plus(OVERLAP * 9), b"x", &new_mac), Some(2));
        let later = both.rotated(NOON.plus(OVERLAP));
        assert_eq!(later.0.len(), 2, "the first verifies nothing more");
        let read = KeyRing::parse(&later.text()).unwrap();
        assert_eq!(read.newest().mac(b"x"), later.newest().mac(b"x"));
    }

    #[test]
    fn a_mac_that_is_cut_or_empty_is_not_the_same() {
        let mac = KeyRing::fresh(NOON).newest().mac(b"x");
        assert!(is_same(&mac, &mac));
        assert!(!is_same(&mac, &mac[..MAC_LEN - 1]));
        assert!(!is_same(&mac, &[]));
        let longer = [mac.as_slice(), &[0]].concat();
        assert!(!is_same(&mac, &longer));
    }
}
