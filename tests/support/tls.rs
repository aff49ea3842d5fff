//! A certificate of a test's own, and a client that trusts nothing else.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The name in every certificate made here.
const NAME: &str = "localhost";

/// A self-signed certificate.
#[derive(Debug)]
pub(crate) struct Certificate {
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Makes one and writes `cert.pem` and `key.pem` into the folder.
    pub(crate) fn write_to(folder: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let der = made.cert.der().clone();
        Self { der }
    }

    /// A TLS connection to a server that must show this certificate.
    pub(crate) async fn connect(
        &self,
        addr: SocketAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let stream = TcpStream::connect(addr).await?;
        let name = ServerName::try_from(NAME).unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// Settings that switch TLS on with the files of this folder, on a free port.
pub(crate) fn settings(folder: &Path) -> [String; 3] {
    let path = |name| folder.join(name).display().to_string();
    [
        format!("http.tls_cert={:?}", path("cert.pem")),
        format!("http.tls_key={:?}", path("key.pem")),
        "http.tls_listen=127.0.0.1:0".to_owned(),
    ]
}
