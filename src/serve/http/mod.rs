//! The HTTP listeners: HTTP/1.1 and HTTP/2 on one port, in the clear or over TLS.
//!
//! Bounds (media.md 8.5): TLS handshake within 10 s, the first request within 10 s of it; headers
//! 16 KiB within 10 s; bodies as [`crate::http`] reads them; 250 streams per HTTP/2 connection, 32
//! of them waiting; a peer that takes less than 4 KiB a second for 30 s is dropped ([`steady`]); at
//! most [`CONNECTIONS_MAX`] connections a listener, beyond which new ones wait in the kernel's
//! queue.

mod socket;
mod steady;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::{debug, warn};

use self::socket::Socket;
use self::steady::{STALLED_AFTER, Steady};
use crate::app::{App, Phase};
use crate::http::{Hangup, Held, Peer, SendBuffer};

/// The name of a connection's task.
pub(super) const CONNECTION: &str = "http.connection";

const CONNECTIONS_MAX: usize = 32_768;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const HEADER_BYTES_MAX: u32 = 16 * 1024;
const HEADERS_WITHIN: Duration = Duration::from_secs(10);
const STREAMS_MAX: u32 = 250;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Serves `routes` until the server stops.
pub(super) fn start(app: &App, name: &'static str, listener: TcpListener, routes: Router) {
    let accepting = accept(app.clone(), listener, routes, None);
    app.tasks.spawn_until_stop(name, accepting);
}

/// The same over TLS.
pub(super) fn start_tls(
    app: &App,
    name: &'static str,
    listener: TcpListener,
    routes: Router,
    tls: TlsAcceptor,
) {
    let accepting = accept(app.clone(), listener, routes, Some(tls));
    app.tasks.spawn_until_stop(name, accepting);
}

async fn accept(app: App, listener: TcpListener, routes: Router, tls: Option<TlsAcceptor>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let builder = Arc::new(builder());
    let mut warned: Option<Instant> = None;
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let place = place.expect("nobody closes the semaphore");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.reached(Phase::Stopping) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                tune(&stream);
                let connection = Connection {
                    app: app.clone(),
                    builder: Arc::clone(&builder),
                    routes: routes.clone(),
                    place,
                    send_buffer: SendBuffer::default(),
                };
                let stream = Socket::new(stream, connection.send_buffer.clone());
                let run = connection.run(stream, peer, tls.clone());
                app.tasks.spawn_until_stop(CONNECTION, run);
            }
            Err(err) if is_of_peer(&err) => {}
            Err(err) => {
                // Out of file descriptors: what is open must go on, so wait for one to close.
                if warned.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                    warn!(error = &err as &dyn std::error::Error, "cannot accept");
                    warned = Some(Instant::now());
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_peer(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .max_buf_size(usize::try_from(HEADER_BYTES_MAX).unwrap_or(usize::MAX));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(STALLED_AFTER)
        .keep_alive_timeout(STALLED_AFTER);
    builder
}

/// One accepted connection.
struct Connection {
    app: App,
    builder: Arc<Builder<TokioExecutor>>,
    routes: Router,
    place: OwnedSemaphorePermit,
    send_buffer: SendBuffer,
}

impl Connection {
    async fn run<S>(self, stream: S, peer: SocketAddr, tls: Option<TlsAcceptor>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = Steady::new(stream);
        let Some(tls) = tls else {
            let (addr, is_secure) = (peer, false);
            return self.serve(stream, Peer { addr, is_secure }).await;
        };
        let shaken = tokio::select! {
            shaken = timeout(HANDSHAKE_WITHIN, tls.accept(stream)) => shaken,
            () = self.app.reached(Phase::Stopping) => return,
        };
        match shaken {
            Ok(Ok(stream)) => {
                let (addr, is_secure) = (peer, true);
                self.serve(stream, Peer { addr, is_secure }).await;
            }
            Ok(Err(err)) => debug!(error = &err as &dyn std::error::Error, "no TLS handshake"),
            Err(_elapsed) => debug!("no TLS handshake in time"),
        }
    }

    async fn serve<S>(self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (routes, send_buffer) = (self.routes, self.send_buffer);
        let (held, asked) = (Held::default(), Arc::new(AtomicBool::new(false)));
        let was_asked = Arc::clone(&asked);
        let (hangup, hung_up) = Hangup::pair();
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(held.clone());
            request.extensions_mut().insert(hangup.clone());
            request.extensions_mut().insert(send_buffer.clone());
            let routes = routes.clone();
            async move { routes.oneshot(request).await }
        });
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = hung_up.cancelled() => return debug!("a handler hung up"),
            () = unasked(&was_asked) => return debug!("no request in time"),
            () = self.app.reached(Phase::Stopping) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(err) = ended {
            debug!(
                error = err.as_ref() as &dyn std::error::Error,
                "connection broke"
            );
        }
        drop(self.place);
    }
}

/// Ends when the first request has not come in its time. Only the first: telling the versions of
/// HTTP apart has no time of its own, and a connection of HTTP/2 may say nothing for ever.
async fn unasked(asked: &AtomicBool) {
    sleep(HEADERS_WITHIN).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

/// Small writes leave at once; a peer that acknowledges nothing for a while is given up.
fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(STALLED_AFTER)));
    if let Err(err) = tuned {
        debug!(
            error = &err as &dyn std::error::Error,
            "cannot tune a socket"
        );
    }
}
