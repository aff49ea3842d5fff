//! The key that signs day closes: Ed25519, from a file of its own.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::app::{App, hex};

const FILE_BYTES_MAX: u64 = 4_096;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignerError {
    #[error("ledger.signing_key_file = {0:?}: cannot be read")]
    Read(PathBuf, #[source] io::Error),
    #[error("ledger.signing_key_file = {0:?}: others may read it; run chmod 600 on it")]
    Open(PathBuf),
    #[error(
        "ledger.signing_key_file = {0:?}: is no Ed25519 key; `openssl genpkey -algorithm ed25519` \
         makes one"
    )]
    Shape(PathBuf),
}

/// The key of this process, if there is one.
#[derive(Debug, Default)]
pub(super) struct Signer(OnceLock<Ed25519KeyPair>);

impl Signer {
    /// The signature of a text in hex; `None` without a key.
    pub(super) fn sign(&self, text: &str) -> Option<String> {
        let key = self.0.get()?;
        Some(hex(key.sign(text.as_bytes()).as_ref()))
    }

    /// What verifies it, in hex.
    pub(super) fn public_key(&self) -> Option<String> {
        Some(hex(self.0.get()?.public_key().as_ref()))
    }
}

/// Reads the key that the configuration names.
///
/// # Errors
/// [`SignerError`] says what to change.
pub(crate) fn open_signing_key(app: &App) -> Result<(), SignerError> {
    if let Some(path) = &app.config().ledger.signing_key_file {
        let key = read(path)?;
        let signer: std::sync::Arc<Signer> = app.parts.part();
        // The first one stays: there is one start.
        drop(signer.0.set(key));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Ed25519KeyPair, SignerError> {
    let io = |err| SignerError::Read(path.into(), err);
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.permissions().mode() & 0o077 != 0 {
        return Err(SignerError::Open(path.into()));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(io)?;
    let bad = || SignerError::Shape(path.into());
    let lines = text.lines().map(str::trim);
    let body: String = lines.filter(|line| !line.starts_with("-----")).collect();
    let der = STANDARD.decode(body).map_err(|_shape| bad())?;
    // Keys of openssl leave out the public half.
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_rejected| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Folder;

    /// Made with `openssl genpkey -algorithm ed25519`; the signature with `openssl pkeyutl -sign
    /// -rawin`.
    const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIHvV7WFZKviJ7NUcPPvs7JHWJFryAdGr1Wo+PwzrZA7y\n\
        -----END PRIVATE KEY-----\n";
    const SIGNATURE: &str = "38e12c76cf4f4b09e5b966fd01c6c01e4e6c8bb5528d191f9c62f7469021842f\
        7d5e29c9f7808ed7b47a14f4a0940d0e33ca607f185146f0ac3560df5af4cb0f";
    const PUBLIC: &str = "458fee80c0889e62f3cdda696b08e8ff101773194128baed303eaf881926957d";

    #[test]
    fn a_key_of_openssl_is_read_when_nobody_else_can_read_it() {
        let folder = Folder::new();
        let path = folder.path().join("ledger.key");
        assert!(matches!(read(&path), Err(SignerError::Read(..))));
        std::fs::write(&path, PEM).unwrap();
        let mode = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, mode(0o640)).unwrap();
        assert!(matches!(read(&path), Err(SignerError::Open(_))));
        std::fs::set_permissions(&path, mode(0o600)).unwrap();
        let signer = Signer(OnceLock::from(read(&path).unwrap()));
        assert_eq!(signer.sign("a day").unwrap(), SIGNATURE);
        assert_eq!(signer.public_key().unwrap(), PUBLIC);
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n").unwrap();
        assert!(matches!(read(&path), Err(SignerError::Shape(_))));
        assert_eq!(Signer::default().sign("a day"), None);
    }
}
