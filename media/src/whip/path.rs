//! The way between a publisher and its connection: ICE is answered here, as for viewers.
//!
//! The connection of the `webrtc` crate speaks ICE too, but knows one path only and believes
//! addresses before they are proven. So it is given one that never changes: the lite end here
//! ([`Lite`]) finds the publisher, over restarts as well, and the connection sees a peer of fixed
//! address whose checks are made here.
//!
//! Invariants
//! - Nothing reaches the connection that did not come from an address of the publisher.
//! - The connection's datagrams leave for where the publisher proved to be.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use crate::webrtc::flight::Flights;
use crate::webrtc::stun::{self, Kind};
use crate::webrtc::{Credentials, Dropped, Inbox, Letter, Lite, Names, Port};

/// Where the connection believes its peer to be; it is never sent to (RFC 5737).
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);
/// Checks towards the connection, which keep it believing that its peer is there.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Of ours that the connection has not read yet.
const INWARD_MAX: usize = 32;

struct State {
    inbox: Inbox,
    ice: Lite,
    /// What the connection calls itself, and its peer.
    within: Names,
    inward: VecDeque<Vec<u8>>,
    checked: Option<Instant>,
    /// Of the connection's handshake: like the viewers' engine it forgets to send again.
    flights: Flights,
    reader: Option<Waker>,
}

/// The way between a publisher and its connection.
pub(super) struct Path {
    port: Arc<Port>,
    state: Mutex<State>,
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Path").finish_non_exhaustive()
    }
}

impl Path {
    /// A path that waits for its publisher. `outside` are the names of the answer, `within` what
    /// the connection calls itself.
    pub(super) fn new(
        port: &Arc<Port>,
        inbox: Inbox,
        outside: Names,
        within: Credentials,
        now: Instant,
    ) -> Self {
        let remote = outside.remote().clone();
        let state = State {
            inbox,
            ice: Lite::new(outside, now.into_std()),
            within: Names::new(within, remote),
            inward: VecDeque::new(),
            checked: None,
            flights: Flights::default(),
            reader: None,
        };
        Self {
            port: Arc::clone(port),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When something authenticated came last.
    pub(super) fn heard(&self) -> Instant {
        Instant::from_std(self.state().ice.heard)
    }

    /// The connection stands: from now on a path must prove itself before it is used.
    pub(super) fn secure(&self) {
        let mut state = self.state();
        state.ice.secure();
        state.flights.forget();
        if let Some(route) = state.ice.route() {
            state.inbox.prove(route);
        }
    }

    /// Keeps the connection's own checks going; to be called once a second or so.
    pub(super) fn tick(&self, now: Instant) {
        self.state().check_within(now);
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let mut state = self.state();
        loop {
            if let Some(ours) = state.inward.pop_front() {
                return Poll::Ready(Ok(ours));
            }
            let letter = match state.inbox.poll_next(cx) {
                Poll::Ready(Some(letter)) => letter,
                Poll::Ready(None) => return Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
                Poll::Pending => {
                    state.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            };
            let datagram = match letter {
                Letter::Datagram(datagram) => datagram,
                Letter::Restart(names) => {
                    state.inbox.rename(&names);
                    state.ice.restart(*names);
                    continue;
                }
            };
            let is_stun = datagram.bytes.first().is_some_and(|first| *first < 4);
            if is_stun {
                state.checked_from(&self.port, datagram.from, &datagram.bytes);
            } else if state.ice.knows(datagram.from) {
                state.answer_again(&self.port, datagram.from, &datagram.bytes);
                return Poll::Ready(Ok(datagram.bytes.to_vec()));
            }
        }
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<usize> {
        let length = transmit.contents.len();
        let mut state = self.state();
        if transmit.contents.first().is_some_and(|first| *first < 4) {
            state.asked_within(transmit.contents);
            return Ok(length);
        }
        let Some(to) = state.ice.route() else {
            return Ok(length);
        };
        if transmit.contents.first().is_some_and(is_dtls) {
            state.flights.sent(transmit.contents);
        }
        drop(state);
        match self.port.try_send(to, transmit.contents, length) {
            Ok(()) => Ok(length),
            // Like any datagram it may be lost; what must arrive is repeated.
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Ok(length),
            Err(err) => Err(err),
        }
    }
}

impl State {
    /// STUN from outside.
    fn checked_from(&mut self, port: &Port, from: SocketAddr, bytes: &[u8]) {
        let now = Instant::now();
        match self.ice.receive(now.into_std(), from, bytes) {
            Ok(answers) => {
                self.inbox.admit(from);
                for answer in answers {
                    // A lost answer is asked for again.
                    drop(port.try_send(from, &answer, answer.len()));
                }
                if self.checked.is_none() {
                    self.check_within(now);
                }
            }
            Err(Dropped::Forged) => port.reject(from, "stun_integrity"),
            Err(Dropped::Useless | Dropped::TooMany) => {}
        }
    }

    /// A client that repeats its part of the handshake did not get ours.
    fn answer_again(&mut self, port: &Port, to: SocketAddr, bytes: &[u8]) {
        if !bytes.first().is_some_and(is_dtls) || !self.flights.is_repetition(bytes) {
            return;
        }
        for datagram in self.flights.repeat() {
            // It is repeated once more if this is lost too.
            drop(port.try_send(to, &datagram, datagram.len()));
        }
    }

    /// A check of the path that never changes, as the publisher would make it.
    fn check_within(&mut self, now: Instant) {
        let is_due = self
            .checked
            .is_none_or(|at| now.saturating_duration_since(at) >= CHECK_EVERY);
        let mut transaction = [0; 12];
        let is_there = self.ice.route().is_some();
        if !is_due || !is_there || getrandom::fill(&mut transaction).is_err() {
            return;
        }
        self.checked = Some(now);
        let (local, remote) = (self.within.local(), self.within.remote());
        let username = format!("{}:{}", local.ufrag, remote.ufrag);
        let check = stun::nomination(transaction, &username, &local.password);
        self.put_inward(check);
    }

    /// STUN from the connection: its checks are answered, its answers were waited for by nobody.
    fn asked_within(&mut self, bytes: &[u8]) {
        let Some(message) = stun::read(bytes) else {
            return;
        };
        if message.kind == Kind::Request {
            let password = &self.within.remote().password;
            let answer = stun::success(message.transaction, PEER, password);
            self.put_inward(answer);
            // A path is taken only by a check that comes after its own was answered, and DTLS does
            // not begin before: without another one now it would wait for the next tick.
            self.checked = None;
            self.check_within(Instant::now());
        }
    }

    fn put_inward(&mut self, datagram: Vec<u8>) {
        if self.inward.len() < INWARD_MAX {
            self.inward.push_back(datagram);
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// RFC 7983 7.
fn is_dtls(first: &u8) -> bool {
    (20..64).contains(first)
}

/// The path, as the connection's socket.
#[derive(Debug)]
pub(super) struct Door {
    path: Arc<Path>,
    local: SocketAddr,
}

impl Door {
    pub(super) const fn new(path: Arc<Path>, local: SocketAddr) -> Self {
        Self { path, local }
    }
}

impl AsyncUdpSocket for Door {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_send(&self, _cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(self.path.send(transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), metas.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let datagram = std::task::ready!(self.path.poll_next(cx))?;
        let length = datagram.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..length), datagram.get(..length)) {
            to.copy_from_slice(from);
        }
        *meta = RecvMeta::default();
        (meta.addr, meta.len, meta.stride) = (PEER, length, length.max(1));
        Poll::Ready(Ok(1))
    }
}
