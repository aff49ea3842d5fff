//! Connections in virtual time, against peers that do not do their part.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

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
        send_buffer: SendBuffer::default(),
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

/// What a peer that says this and no more is told, and how long it is borne.
async fn answer_to(fixture: &Fixture, said: &str) -> (String, u64) {
    let (mut peer, stream) = duplex(PIPE_BYTES);
    peer.write_all(said.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let mut answer = Vec::new();
    let hear = async {
        peer.read_to_end(&mut answer).await.unwrap();
        begun.elapsed().as_secs()
    };
    let ((), borne_s) = tokio::join!(serve(&fixture.app, stream, None), hear);
    (String::from_utf8_lossy(&answer).into_owned(), borne_s)
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends_after_ten_seconds() {
    // The last is the beginning of HTTP/2 with its empty settings.
    let cases = [
        "",
        "GE",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ];
    let fixture = fixture().await;
    for said in cases {
        let (answer, borne_s) = answer_to(&fixture, said).await;
        assert_eq!(borne_s, HEADERS_WITHIN.as_secs(), "{said:?}");
        assert!(!answer.contains("200 OK"), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_after_ten_seconds() {
    let head = "POST /whip HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Type: application/sdp\r\nContent-Length: 1000\r\n\r\nv=0\r\n";
    let (answer, borne_s) = answer_to(&fixture().await, head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(borne_s, 10);
}

#[tokio::test]
async fn a_peer_that_does_not_read_its_answer_is_given_up_after_thirty_seconds() {
    let fixture = fixture().await;
    let (mut peer, stream) = duplex(1_024);
    let request = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n";
    peer.write_all(request).await.unwrap();
    let begun = Instant::now();
    serve(&fixture.app, stream, None).await;
    assert_eq!(begun.elapsed().as_secs(), STALLED_AFTER.as_secs());
}
