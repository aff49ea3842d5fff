//! The same routes over TLS, with HTTP/2 where the client offers it.

use std::net::SocketAddr;
use std::path::Path;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{AlertDescription, Error};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::tls::{Certificate, settings};
use crate::support::{Folder, TestServer, lamplight};

async fn secured(folder: &Path) -> (TestServer, SocketAddr) {
    let settings = settings(folder);
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server = TestServer::start_with(&settings).await;
    let addr = server.running().bound().https.unwrap();
    (server, addr)
}

/// The status of `/healthz`, over whatever was negotiated.
async fn health_over_http1(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> String {
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_offers_http_2_gets_it_and_one_that_does_not_gets_http_1() {
    let folder = Folder::new();
    let certificate = Certificate::write_to(&folder.0);
    let (server, addr) = secured(&folder.0).await;

    let offered = ["h2", "http/1.1"];
    let stream = certificate.connect(addr, &offered).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let shaken =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.unwrap();
    let request = http::Request::get("https://localhost/healthz");
    let asked = async move {
        let answer = sender.send_request(request.body(String::new()).unwrap());
        answer.await.unwrap().status()
    };
    // Nobody is left to ask once the answer is here, so the connection ends too.
    let (status, ended) = tokio::join!(asked, connection);
    assert_eq!((status.as_u16(), ended.is_ok()), (200, true));

    for offered in [&["http/1.1"][..], &[]] {
        let stream = certificate.connect(addr, offered).await.unwrap();
        assert_eq!(health_over_http1(stream).await, "HTTP/1.1 200 OK");
    }
    assert_eq!(server.get("/healthz").await.status, 200, "the plain port");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_speak_tls_is_closed_and_hurts_nobody() {
    let folder = Folder::new();
    let certificate = Certificate::write_to(&folder.0);
    let (_server, addr) = secured(&folder.0).await;
    // One that says nothing stays; the next are served all the same.
    let _silent = TcpStream::connect(addr).await.unwrap();
    let mut plain = TcpStream::connect(addr).await.unwrap();
    plain
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut said = Vec::new();
    // With a reset or without: what counts is that it ends and holds no page.
    drop(plain.read_to_end(&mut said).await);
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
    let stream = certificate.connect(addr, &[]).await.unwrap();
    assert_eq!(health_over_http1(stream).await, "HTTP/1.1 200 OK");

    let strange = certificate.connect(addr, &["spdy/3"]).await.unwrap_err();
    let alert = Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    assert!(
        strange.to_string().contains(&alert.to_string()),
        "{strange}"
    );
}

#[test]
fn files_that_will_not_do_are_named() {
    let folder = Folder::new();
    Certificate::write_to(&folder.0);
    let other = Folder::new();
    Certificate::write_to(&other.0);
    let at = |folder: &Folder, name: &str| folder.0.join(name).display().to_string();
    let (cert, key) = (at(&folder, "cert.pem"), at(&folder, "key.pem"));
    let cases = [
        (at(&folder, "nowhere.pem"), key.clone()),
        (key.clone(), key.clone()),
        (cert.clone(), cert.clone()),
        (cert, at(&other, "key.pem")),
    ];
    let said = cases.map(|(cert, key)| {
        let output = lamplight(&["serve", "--set", "http.listen=127.0.0.1:0"])
            .env("LAMPLIGHT_DATA_DIR", folder.0.join("data"))
            .env("LAMPLIGHT_HTTP__TLS_CERT", &cert)
            .env("LAMPLIGHT_HTTP__TLS_KEY", &key)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        let last = said.lines().last().unwrap_or_default();
        let said = format!("{last}\n").replace(&folder.0.display().to_string(), "[folder]");
        said.replace(&other.0.display().to_string(), "[other]")
    });
    insta::assert_snapshot!(said.concat());
}
