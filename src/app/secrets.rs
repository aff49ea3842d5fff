//! The node's key file: what it seals and signs, only a holder of the file can read or forge.
//!
//! Invariants
//! - The file has mode 0600 and is made once; without it sealed rows cannot be read.
//! - Secrets are compared by hash, never stored.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{hkdf, hmac};
use sha2::{Digest, Sha256};

const KEY_LEN: usize = 32;
/// Bytes of a MAC that a client carries for us.
const MAC_LEN: usize = 16;

/// Why the key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("reading or writing the key file {0}")]
    Io(PathBuf, #[source] std::io::Error),
    #[error(
        "the key file {0} must hold exactly 32 bytes; restore it from a backup, or remove it to \
         start with a new one (stored answers to repeated requests are then lost)"
    )]
    WrongSize(PathBuf),
    #[error("the key file {0} may be read by others; run: chmod 600 {0}")]
    Open(PathBuf),
}

/// Keys derived from the key file.
#[derive(Debug)]
pub struct Secrets {
    seal: LessSafeKey,
    mac: hmac::Key,
}

impl Secrets {
    /// Reads `secret.key` in `dir`; makes it when it is missing.
    ///
    /// # Errors
    /// [`SecretsError`] says what to do about the file.
    pub fn open(dir: &Path) -> Result<Self, SecretsError> {
        let path = Self::path(dir);
        let io = |err| SecretsError::Io(path.clone(), err);
        let mut key = Vec::new();
        match File::open(&path) {
            Ok(mut file) => {
                if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
                    return Err(SecretsError::Open(path));
                }
                file.read_to_end(&mut key).map_err(io)?;
            }
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => {
                key = random::<KEY_LEN>().to_vec();
                let mut file = OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .map_err(io)?;
                file.write_all(&key)
                    .and_then(|()| file.sync_all())
                    .map_err(io)?;
            }
            Err(err) => return Err(io(err)),
        }
        let key: [u8; KEY_LEN] = key
            .try_into()
            .map_err(|_length: Vec<u8>| SecretsError::WrongSize(path.clone()))?;
        Ok(Self::from_key(&key))
    }

    /// Where the key file is.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("secret.key")
    }

    fn from_key(key: &[u8; KEY_LEN]) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"lamplight").extract(key);
        let seal = UnboundKey::new(&AES_256_GCM, &derive(&root, b"seal"));
        Self {
            seal: LessSafeKey::new(seal.expect("the derived key has the length of the cipher")),
            mac: hmac::Key::new(hmac::HMAC_SHA256, &derive(&root, b"mac")),
        }
    }

    /// Keys of a test.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self::from_key(&[7; KEY_LEN])
    }

    /// Encrypts, with `about` bound to it: opened under another name it is refused.
    pub fn seal(&self, about: &str, plain: &[u8]) -> String {
        let nonce = random::<NONCE_LEN>();
        let mut text = plain.to_vec();
        self.seal
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(about),
                &mut text,
            )
            .expect("bodies are far below the length limit of the cipher");
        URL_SAFE_NO_PAD.encode([nonce.as_slice(), &text].concat())
    }

    /// Decrypts what [`Secrets::seal`] made under the same name.
    pub fn unseal(&self, about: &str, sealed: &str) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self.seal.open_in_place(nonce, Aad::from(about), &mut text);
        plain.ok().map(|p| p.to_vec())
    }

    /// A MAC that a client carries for us.
    pub fn mac(&self, text: &[u8]) -> [u8; MAC_LEN] {
        let tag = hmac::sign(&self.mac, text);
        let mut short = [0; MAC_LEN];
        short.copy_from_slice(tag.as_ref().split_at(MAC_LEN).0);
        short
    }
}

fn derive(root: &hkdf::Prk, purpose: &[u8]) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    root.expand(&[purpose], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .expect("32 bytes are one block of the derivation");
    key
}

/// A fresh secret: the prefix and 32 random bytes in base64url.
pub(crate) fn new_secret(prefix: &str) -> String {
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<KEY_LEN>()))
}

/// SHA-256 in hex: how a secret is stored and looked up.
pub(crate) fn hash(secret: &str) -> String {
    hex(&Sha256::digest(secret.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a String takes every write");
        out
    })
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_only_under_its_name_and_key() {
        let secrets = Secrets::from_key(&[1; KEY_LEN]);
        let sealed = secrets.seal("a", b"live_secret");
        assert_eq!(secrets.unseal("a", &sealed).unwrap(), b"live_secret");
        assert_eq!(secrets.unseal("b", &sealed), None);
        assert_eq!(Secrets::from_key(&[2; KEY_LEN]).unseal("a", &sealed), None);
        assert_eq!(secrets.unseal("a", "short"), None);
    }

    #[test]
    fn a_secret_has_43_characters_after_its_prefix_and_is_never_the_same() {
        let (one, other) = (new_secret("sk_"), new_secret("sk_"));
        assert_eq!(one.len(), 46);
        assert_ne!(one, other);
        assert_ne!(hash(&one), hash(&other));
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner_only() {
        let dir = std::env::temp_dir().join(format!("lamplight-secrets-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let sealed = Secrets::open(&dir).unwrap().seal("x", b"y");
        let path = dir.join("secret.key");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Secrets::open(&dir).unwrap().unseal("x", &sealed).is_some());
        std::fs::write(&path, b"too short").unwrap();
        assert!(matches!(
            Secrets::open(&dir),
            Err(SecretsError::WrongSize(_))
        ));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(Secrets::open(&dir), Err(SecretsError::Open(_))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
