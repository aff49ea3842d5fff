//! What a connection of the `webrtc` crate runs on: the session's own task, and the shared port.
//!
//! The crate wants to start tasks and open sockets. Here its futures join the [`Crew`] that the
//! session drives, so that they end with it, and its socket is the session's [`Path`].
//!
//! Invariants
//! - Nothing is spawned; at most [`FUTURES_MAX`] futures wait to be taken in.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, Runtime,
};

use super::path::{Door, Path};

/// Futures that wait to be taken in: a connection starts one, and a few more at most.
const FUTURES_MAX: usize = 16;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The futures of one connection.
pub(super) struct Crew {
    waiting: mpsc::Receiver<Work>,
    running: FuturesUnordered<Work>,
}

impl fmt::Debug for Crew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew")
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}

impl Crew {
    /// A crew, and the runtime whose futures join it.
    pub(super) fn new(path: &Arc<Path>) -> (Self, Arc<dyn Runtime>) {
        let (join, waiting) = mpsc::channel(FUTURES_MAX);
        let runtime = Inward {
            join,
            path: Arc::clone(path),
        };
        let crew = Self {
            waiting,
            running: FuturesUnordered::new(),
        };
        (crew, Arc::new(runtime))
    }

    /// Drives the futures; for ever. Cancel-safe.
    pub(super) async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(work) = self.waiting.recv() => self.running.push(work),
                Some(()) = self.running.next() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Drives the futures while `other` is awaited.
    pub(super) async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = other => done,
            () = self.run() => unreachable!("a crew runs for ever"),
        }
    }
}

/// The runtime of one connection.
struct Inward {
    join: mpsc::Sender<Work>,
    path: Arc<Path>,
}

impl fmt::Debug for Inward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inward").finish_non_exhaustive()
    }
}

/// A future that joined.
struct Joined {
    abort: CancellationToken,
    is_done: Arc<AtomicBool>,
}

impl JoinHandle for Joined {
    fn detach(&self) {}

    fn abort(&self) {
        self.abort.cancel();
    }

    fn is_finished(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }
}

impl Runtime for Inward {
    fn spawn(&self, future: Work) -> Box<dyn JoinHandle> {
        let joined = Joined {
            abort: CancellationToken::new(),
            is_done: Arc::default(),
        };
        let (abort, is_done) = (joined.abort.clone(), Arc::clone(&joined.is_done));
        let work: Work = Box::pin(async move {
            tokio::select! {
                () = abort.cancelled() => {}
                () = future => {}
            }
            is_done.store(true, Ordering::Release);
        });
        if self.join.try_send(work).is_err() {
            // The session is over, or the crate starts more than it ever did.
            tracing::debug!("a future of a connection was not taken in");
            joined.is_done.store(true, Ordering::Release);
        }
        Box::new(joined)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let local = socket.local_addr()?;
        Ok(Arc::new(Door::new(Arc::clone(&self.path), local)))
    }

    fn wrap_tcp_listener(
        &self,
        _listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connect_tcp<'a>(
        &'a self,
        _remote: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn resolve_host<'a>(
        &'a self,
        _host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        // A server asks nobody where it is, and never resolves what a publisher names.
        Box::pin(std::future::ready(Err(io::ErrorKind::Unsupported.into())))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        Box::new(Ticks(tokio::time::interval(period)))
    }

    fn block_on(&self, _future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        tracing::error!("a connection wanted to block its thread");
    }

    fn name(&self) -> &'static str {
        "session"
    }
}

struct Ticks(tokio::time::Interval);

impl AsyncInterval for Ticks {
    fn tick(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            self.0.tick().await;
        })
    }
}
