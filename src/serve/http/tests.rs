//! Connections in virtual time, against peers that do not do their part.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::app::Fixture;
use crate::config::TlsFiles;
use crate::router;
use crate::serve::tls::Tls;

const PIPE_BYTES: usize = 64 * 1024;

/// An app whose clock for timeouts stands until everything waits.
async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    tokio::time::pause();
    fixture
}

/// Serves one connection; the future ends with it.
fn serve(app: &App, stream: DuplexStream, tls: Option<TlsAcceptor>) -> impl Future<Output = ()> {
    let places = Arc::new(Semaphore::new(1));
    let connection = Connection {
        app: app.clone(),
        builder: Arc::new(builder()),
        routes: router::routes(app),
        place: places.try_acquire_owned().unwrap(),
    };
    connection.run(stream, (Ipv4Addr::LOCALHOST, 1).into(), tls)
}

fn acceptor() -> TlsAcceptor {
    let name = format!("lamplight-http-tls-{}", std::process::id());
    let dir = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = TlsFiles {
        cert: dir.join("cert.pem"),
        key: dir.join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let acceptor = Tls::open(&files).unwrap().http().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    acceptor
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_given_up_after_ten_seconds() {
    let fixture = fixture().await;
    let (mut peer, stream) = duplex(PIPE_BYTES);
    let begun = Instant::now();
    serve(&fixture.app, stream, Some(acceptor())).await;
    assert_eq!(begun.elapsed().as_secs(), HANDSHAKE_WITHIN.as_secs());
    assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "closed");
}
