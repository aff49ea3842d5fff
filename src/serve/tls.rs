//! TLS: one certificate for HTTPS and RTMPS.
//!
//! Invariants
//! - A certificate is taken only with the key that belongs to it.
//! - Replacing it touches no open connection: the next handshake takes the new one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsFiles;

/// Why the certificate cannot be used; each says which key to mend.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key} = {path:?}: cannot be read")]
    Read {
        key: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("http.tls_cert = {0:?}: holds no certificate in PEM form (BEGIN CERTIFICATE)")]
    NoCertificate(PathBuf),
    #[error("http.tls_key = {0:?}: holds no private key in PEM form (BEGIN PRIVATE KEY)")]
    NoKey(PathBuf),
    #[error("http.tls_key = {0:?}: is not the key of the first certificate in http.tls_cert")]
    OtherKey(PathBuf),
    #[error("http.tls_cert, http.tls_key: TLS does not take them")]
    Unusable(#[source] rustls::Error),
}

/// What the listeners with TLS share.
#[derive(Debug)]
pub(super) struct Tls {
    certificate: Arc<Certificate>,
}

impl Tls {
    pub(super) fn open(files: &TlsFiles) -> Result<Self, TlsError> {
        let current = RwLock::new(Arc::new(read(files)?));
        let certificate = Arc::new(Certificate { current });
        Ok(Self { certificate })
    }

    /// Takes another certificate for the handshakes to come; keeps the old one if it will not do.
    pub(super) fn replace(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let fresh = Arc::new(read(files)?);
        let current = self.certificate.current.write();
        *current.unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// For HTTPS: HTTP/2 where the client offers it.
    pub(super) fn http(&self) -> Result<TlsAcceptor, TlsError> {
        self.acceptor(&[b"h2", b"http/1.1"])
    }

    /// For RTMPS: encoders name no protocol.
    pub(super) fn rtmp(&self) -> Result<TlsAcceptor, TlsError> {
        self.acceptor(&[])
    }

    fn acceptor(&self, protocols: &[&[u8]]) -> Result<TlsAcceptor, TlsError> {
        let resolver: Arc<Certificate> = Arc::clone(&self.certificate);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The certificate of the next handshake.
#[derive(Debug)]
struct Certificate {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current))
    }
}

/// Named, not the one of the process: a test has none.
fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// When the first certificate ends.
pub(super) fn expires(files: &TlsFiles) -> Result<OffsetDateTime, TlsError> {
    let certified = read(files)?;
    let der = certified.end_entity_cert().map_err(TlsError::Unusable)?;
    let (_rest, certificate) = x509_parser::parse_x509_certificate(der)
        .map_err(|_form| TlsError::NoCertificate(files.cert.clone()))?;
    Ok(certificate.validity().not_after.to_datetime())
}

fn read(files: &TlsFiles) -> Result<CertifiedKey, TlsError> {
    let text = file("http.tls_cert", &files.cert)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| TlsError::NoCertificate(files.cert.clone()))?;
    let text = file("http.tls_key", &files.key)?;
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|_form| TlsError::NoKey(files.key.clone()))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|err| match err {
        rustls::Error::InconsistentKeys(_) => TlsError::OtherKey(files.key.clone()),
        other => TlsError::Unusable(other),
    })
}

fn file(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        key,
        path: path.to_owned(),
        source,
    })
}
