//! One UDP port for all viewers: telling datagrams apart.
//!
//! A STUN request names its session by the local part of USERNAME (RFC 8445 7.2.2); everything
//! else belongs to the session whose address it comes from. A session registers an address once
//! what came from there proved to be its viewer's.
//!
//! Invariants
//! - A session's inbox is bounded; at the bound the newest datagram is dropped.
//! - What comes from an unknown address is dropped after one look-up.
//! - An address that has proven to be a session's cannot be taken from it by another.

#![deny(clippy::indexing_slicing)]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use bytes::BytesMut;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::dtls::Identity;
use super::ice::Names;
use super::penalty::Penalties;
use super::stun;
use crate::broadcast::Broadcasts;

/// What the socket asks the kernel for, each way.
const KERNEL_BYTES: usize = 4 << 20;
/// Less than this is worth a warning.
const KERNEL_BYTES_MIN: usize = 1 << 20;
/// Datagrams a session may leave unread.
const INBOX_MAX: usize = 256;
/// Addresses remembered, of all sessions.
const ADDRESSES_MAX: usize = 65_536;
/// Own addresses offered to a viewer.
const CANDIDATES_MAX: usize = 16;
const DATAGRAM_BYTES_MAX: usize = 1_500;
const BATCH: usize = 16;

/// How the port is opened.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The addresses put into answers; empty: the one it listens on, or all it has.
    pub public_addrs: Vec<IpAddr>,
    /// The port put into answers, if a NAT changes it.
    pub public_port: Option<u16>,
    /// Bytes of an RTP payload at most.
    pub payload_bytes_max: usize,
}

/// What a session is told.
#[derive(Debug)]
pub(crate) enum Letter {
    Datagram(Datagram),
    /// ICE begins again with these names.
    Restart(Box<Names>),
}

/// A datagram for a session.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: BytesMut,
}

/// Whose an address is.
#[derive(Debug)]
struct Owner {
    inbox: mpsc::Sender<Letter>,
    /// True once a connection stood on it.
    is_proven: bool,
}

/// The UDP port of all WebRTC media.
pub struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    candidates: RwLock<Arc<[SocketAddr]>>,
    payload_bytes_max: usize,
    identity: Arc<Identity>,
    by_name: DashMap<String, mpsc::Sender<Letter>>,
    by_address: DashMap<SocketAddr, Owner>,
    penalties: Penalties,
    hub: Arc<Broadcasts>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Port {
    /// Opens the port; `hub` counts what it drops.
    ///
    /// # Errors
    /// The port is taken, or the system has no cryptography.
    pub fn bind(config: PortConfig, hub: Arc<Broadcasts>) -> io::Result<Arc<Self>> {
        let socket = open(config.listen)?;
        let local = socket.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let identity = Identity::new().map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            socket,
            state,
            local,
            candidates: RwLock::new(candidates(config.public_addrs, config.public_port, local)),
            payload_bytes_max: config.payload_bytes_max,
            identity: Arc::new(identity),
            by_name: DashMap::new(),
            by_address: DashMap::new(),
            penalties: Penalties::default(),
            hub,
        }))
    }

    /// The address it really has.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.payload_bytes_max
    }

    pub(crate) const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// The addresses put into answers.
    pub(crate) fn candidates(&self) -> Arc<[SocketAddr]> {
        let candidates = self.candidates.read();
        Arc::clone(&candidates.unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes what is put into answers from now on, as [`PortConfig`] says it; sessions that run
    /// keep theirs.
    pub fn set_public(&self, addrs: Vec<IpAddr>, port: Option<u16>) {
        let fresh = candidates(addrs, port, self.local);
        let mut candidates = self
            .candidates
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *candidates = fresh;
    }

    /// Gives a session its inbox, by its ICE name.
    pub(crate) fn enter(self: &Arc<Self>, ufrag: &str) -> Inbox {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        self.by_name.insert(ufrag.to_owned(), sender.clone());
        Inbox {
            port: Arc::clone(self),
            names: vec![ufrag.to_owned()],
            sender,
            receiver,
            addresses: Vec::new(),
        }
    }

    /// Reads the socket until `cancel`.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        let segments = self.state.gro_segments().max(1);
        let mut memory = vec![vec![0_u8; DATAGRAM_BYTES_MAX * segments]; BATCH];
        let mut metas = [RecvMeta::default(); BATCH];
        loop {
            let received = tokio::select! {
                () = cancel.cancelled() => return,
                received = self.receive(&mut memory, &mut metas) => received,
            };
            let Ok(count) = received else { continue };
            for (buffer, meta) in memory.iter().zip(&metas).take(count) {
                let bytes = buffer.get(..meta.len).unwrap_or_default();
                for datagram in bytes.chunks(meta.stride.max(1)) {
                    self.route(meta.addr, datagram);
                }
            }
        }
    }

    async fn receive(&self, memory: &mut [Vec<u8>], metas: &mut [RecvMeta]) -> io::Result<usize> {
        self.socket
            .async_io(Interest::READABLE, || {
                let mut slices = memory
                    .iter_mut()
                    .map(|m| IoSliceMut::new(m))
                    .collect::<Vec<_>>();
                self.state
                    .recv(UdpSockRef::from(&self.socket), &mut slices, metas)
            })
            .await
    }

    fn route(&self, from: SocketAddr, bytes: &[u8]) {
        let datagram = || {
            let bytes = bytes.into();
            Letter::Datagram(Datagram { from, bytes })
        };
        let is_stun = bytes.first().is_some_and(|b| *b < 4);
        let message = if is_stun { stun::read(bytes) } else { None };
        // A STUN response names nobody: like media it belongs to its address.
        let name = message.and_then(|m| m.username?.split(':').next());
        if is_stun && self.penalties.is_ignored(Instant::now(), from) {
            return self.drop_one("ignored");
        }
        let sent = match name {
            Some(name) => match self.by_name.get(name) {
                Some(inbox) => inbox.try_send(datagram()),
                None => return self.reject(from, "stun_unknown"),
            },
            None => match self.by_address.get(&from) {
                Some(owner) => owner.inbox.try_send(datagram()),
                None => return self.drop_one("unknown"),
            },
        };
        match sent {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.drop_one("inbox_full"),
            Err(TrySendError::Closed(_)) => self.drop_one("unknown"),
        }
    }

    fn drop_one(&self, reason: &'static str) {
        self.hub.stats().add("udp_dropped_total", reason, 1);
    }

    /// Counts a STUN message that proves nothing, and ignores an address that sends many.
    pub(crate) fn reject(&self, from: SocketAddr, reason: &'static str) {
        self.hub.stats().reject("whep", reason);
        self.penalties.note(Instant::now(), from);
    }

    /// Sends a run of equal datagrams (the last may be shorter) with one call.
    pub(crate) async fn send(&self, to: SocketAddr, run: &[u8], segment: usize) -> io::Result<()> {
        let transmit = transmit(to, run, segment);
        self.socket
            .async_io(Interest::WRITABLE, || {
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
            })
            .await
    }

    /// The same without waiting.
    pub(crate) fn try_send(&self, to: SocketAddr, run: &[u8], segment: usize) -> io::Result<()> {
        let transmit = transmit(to, run, segment);
        self.socket.try_io(Interest::WRITABLE, || {
            self.state
                .try_send(UdpSockRef::from(&self.socket), &transmit)
        })
    }

    pub(crate) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }

    /// Makes an address a session's, unless another has proven to be there.
    fn claim(&self, addr: SocketAddr, inbox: &mpsc::Sender<Letter>, is_proven: bool) -> bool {
        let is_full = self.by_address.len() >= ADDRESSES_MAX;
        let owner = Owner {
            inbox: inbox.clone(),
            is_proven,
        };
        match self.by_address.entry(addr) {
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(vacant) => {
                vacant.insert(owner);
                true
            }
            Entry::Occupied(mut held) => {
                let now = held.get();
                let is_ours = now.inbox.same_channel(inbox);
                let is_free = !now.is_proven || now.inbox.is_closed();
                if is_ours && now.is_proven {
                    return true;
                }
                if is_ours || is_free {
                    held.insert(owner);
                }
                is_ours || is_free
            }
        }
    }
}

/// A session's datagrams; leaving frees its names and addresses.
#[derive(Debug)]
pub(crate) struct Inbox {
    port: Arc<Port>,
    names: Vec<String>,
    sender: mpsc::Sender<Letter>,
    receiver: mpsc::Receiver<Letter>,
    addresses: Vec<SocketAddr>,
}

/// ICE names of one session: its restarts.
const NAMES_MAX: usize = 8;

impl Inbox {
    /// What comes next. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Letter> {
        self.receiver.recv().await
    }

    /// The same for those who poll.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Letter>> {
        self.receiver.poll_recv(cx)
    }

    pub(crate) fn try_next(&mut self) -> Option<Letter> {
        self.receiver.try_recv().ok()
    }

    /// Where others reach the session.
    pub(crate) fn address(&self) -> Address {
        Address {
            port: Arc::clone(&self.port),
            inbox: self.sender.clone(),
        }
    }

    /// What comes from this address is the session's, for the address has its password; false
    /// when it is another's.
    pub(crate) fn admit(&mut self, addr: SocketAddr) -> bool {
        let is_ours = self.port.claim(addr, &self.sender, false);
        if is_ours && !self.addresses.contains(&addr) {
            self.addresses.push(addr);
        }
        is_ours
    }

    /// A connection stands on this address.
    pub(crate) fn prove(&mut self, addr: SocketAddr) {
        self.port.claim(addr, &self.sender, true);
    }

    /// The session goes by these names as well; the oldest are forgotten.
    pub(crate) fn rename(&mut self, names: &Names) {
        self.names.push(names.ufrag().to_owned());
        if self.names.len() > NAMES_MAX {
            self.port.by_name.remove(&self.names.remove(0));
        }
    }
}

/// Where a session is reached from within.
#[derive(Clone)]
pub(crate) struct Address {
    port: Arc<Port>,
    inbox: mpsc::Sender<Letter>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

/// Why a session was not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Untold {
    /// It has more to read than it may.
    Busy,
    Gone,
}

impl Address {
    /// Tells the session that ICE begins again, before the first check can come.
    pub(crate) fn restart(&self, names: Names) -> Result<(), Untold> {
        let ufrag = names.ufrag().to_owned();
        let told = self.inbox.try_send(Letter::Restart(Box::new(names)));
        told.map_err(|err| match err {
            TrySendError::Full(_) => Untold::Busy,
            TrySendError::Closed(_) => Untold::Gone,
        })?;
        self.port.by_name.insert(ufrag, self.inbox.clone());
        Ok(())
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        for name in &self.names {
            self.port.by_name.remove(name);
        }
        for address in &self.addresses {
            self.port
                .by_address
                .remove_if(address, |_, owner| owner.inbox.same_channel(&self.sender));
        }
    }
}

fn transmit(to: SocketAddr, run: &[u8], segment: usize) -> Transmit<'_> {
    Transmit {
        destination: to,
        ecn: None,
        contents: run,
        segment_size: (run.len() > segment).then_some(segment),
        src_ip: None,
    }
}

fn open(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(listen),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    if listen.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // The kernel gives what its limits allow; less is no fault, only slower.
    drop(socket.set_recv_buffer_size(KERNEL_BYTES));
    drop(socket.set_send_buffer_size(KERNEL_BYTES));
    if socket.recv_buffer_size()?.min(socket.send_buffer_size()?) < KERNEL_BYTES_MIN {
        warn!(
            "the kernel's UDP buffers are small; run: \
             sysctl -w net.core.rmem_max={KERNEL_BYTES} net.core.wmem_max={KERNEL_BYTES}"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    UdpSocket::from_std(socket.into())
}

/// The addresses put into answers.
fn candidates(mut ips: Vec<IpAddr>, port: Option<u16>, local: SocketAddr) -> Arc<[SocketAddr]> {
    if ips.is_empty() {
        ips = if local.ip().is_unspecified() {
            own_addresses(local.is_ipv6())
        } else {
            vec![local.ip()]
        };
    }
    ips.truncate(CANDIDATES_MAX);
    let port = port.unwrap_or_else(|| local.port());
    let addrs = ips.into_iter().map(|ip| SocketAddr::new(ip, port));
    addrs.collect()
}

/// Those of the interfaces, and loopback if there is nothing else.
fn own_addresses(with_ipv6: bool) -> Vec<IpAddr> {
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_default();
    let all = interfaces.into_iter().filter_map(|i| Some(i.addr?.ip()));
    let all = all.filter(|ip| ip.is_ipv4() || with_ipv6);
    let mut ips: Vec<IpAddr> = all.filter(is_reachable).collect();
    ips.sort_unstable();
    ips.dedup();
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    ips
}

/// Whether others may reach it by its address alone.
fn is_reachable(ip: &IpAddr) -> bool {
    let is_of_link = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !is_of_link
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::Limits;
    use crate::webrtc::ice::Credentials;

    fn port(listen: &str) -> Arc<Port> {
        let config = PortConfig {
            listen: listen.parse().unwrap(),
            public_addrs: Vec::new(),
            public_port: None,
            payload_bytes_max: 1_200,
        };
        Port::bind(config, Broadcasts::new(Limits::default())).unwrap()
    }

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn check(name: &str) -> Vec<u8> {
        stun::tests::check(&format!("{name}:them"), "any password", false)
    }

    /// Where the next datagram came from.
    fn next(inbox: &mut Inbox) -> Option<SocketAddr> {
        match inbox.try_next()? {
            Letter::Datagram(datagram) => Some(datagram.from),
            Letter::Restart(_) => None,
        }
    }

    fn names(ufrag: &str) -> Names {
        let credentials = |ufrag: &str| Credentials {
            ufrag: ufrag.into(),
            password: String::new(),
        };
        Names::new(credentials(ufrag), credentials("them"))
    }

    fn count(port: &Port, reason: &str) -> u64 {
        let counters = port.hub.stats().counters();
        let dropped = counters.iter().find(|c| c.labels[0] == reason);
        let dropped = dropped.map(|c| c.count);
        let rejected = port.hub.stats().rejections();
        let rejected = rejected.iter().find(|r| r.1 == reason).map(|r| r.2);
        dropped.or(rejected).unwrap_or(0)
    }

    #[tokio::test]
    async fn checks_go_by_name_and_all_else_by_an_address_that_was_admitted() {
        let port = port("127.0.0.1:0");
        let mut inbox = port.enter("ours");
        port.route(addr(1), &check("ours"));
        assert_eq!(next(&mut inbox), Some(addr(1)));
        port.route(addr(1), &[0x80, 1]);
        assert_eq!(next(&mut inbox), None, "a check alone proves nothing");
        assert!(inbox.admit(addr(1)));
        port.route(addr(1), &[0x80, 1]);
        port.route(addr(2), &[0x80, 1]);
        assert_eq!(next(&mut inbox), Some(addr(1)));
        assert!(inbox.try_next().is_none());
        assert_eq!(count(&port, "unknown"), 2);
    }

    /// Nothing that a viewer sends leaves a trace once it is gone.
    #[tokio::test]
    async fn a_session_that_goes_leaves_no_name_and_no_address() {
        let port = port("127.0.0.1:0");
        let mut inbox = port.enter("ours");
        for n in 1..1_000 {
            port.route(addr(n), &check("ours"));
        }
        assert!(port.by_address.is_empty());
        assert!(inbox.admit(addr(7)) && inbox.admit(addr(8)));
        assert_eq!(count(&port, "inbox_full"), 999 - 256);
        let address = inbox.address();
        assert_eq!(address.restart(names("again")), Err(Untold::Busy));
        while inbox.try_next().is_some() {}
        assert_eq!(address.restart(names("again")), Ok(()));
        port.route(addr(9), &check("again"));
        let Some(Letter::Restart(names)) = inbox.try_next() else {
            panic!("it is told of the restart first");
        };
        inbox.rename(&names);
        assert_eq!(next(&mut inbox), Some(addr(9)));
        drop(inbox);
        assert!(port.by_address.is_empty() && port.by_name.is_empty());
        assert_eq!(address.restart(*names), Err(Untold::Gone));
    }

    #[tokio::test]
    async fn an_address_with_a_connection_is_not_taken_over_and_one_without_is() {
        let port = port("127.0.0.1:0");
        let (mut first, mut second) = (port.enter("first"), port.enter("second"));
        assert!(first.admit(addr(1)));
        assert!(second.admit(addr(1)), "nothing was proven yet");
        second.prove(addr(1));
        assert!(!first.admit(addr(1)));
        assert!(second.admit(addr(1)));
        port.route(addr(1), &[0x80, 1]);
        assert!(second.try_next().is_some() && first.try_next().is_none());
        drop(second);
        assert!(first.admit(addr(1)), "it is free again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_guesses_names_is_ignored_for_a_while() {
        let port = port("127.0.0.1:0");
        let mut inbox = port.enter("ours");
        for n in 0..60 {
            port.route(addr(1), &check(&format!("guess{n}")));
        }
        assert_eq!(
            (count(&port, "stun_unknown"), count(&port, "ignored")),
            (51, 9)
        );
        port.route(addr(1), &check("ours"));
        assert!(inbox.try_next().is_none());
        port.route(addr(2), &check("ours"));
        assert!(inbox.try_next().is_some(), "others are heard");
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        port.route(addr(1), &check("ours"));
        assert!(inbox.try_next().is_some());
    }

    #[tokio::test]
    async fn a_wildcard_offers_what_the_interfaces_have_and_loopback_only_alone() {
        for (listen, v6) in [("0.0.0.0:0", false), ("127.0.0.1:0", false)] {
            let port = port(listen);
            let all = port.candidates();
            assert!(!all.is_empty() && all.len() <= CANDIDATES_MAX);
            assert!(all.iter().all(|a| a.port() == port.local_addr().port()));
            assert!(all.iter().all(|a| a.is_ipv4() || v6));
            let is_alone = all.len() == 1;
            assert!(
                all.iter().all(|a| is_alone || !a.ip().is_loopback()),
                "{all:?}"
            );
        }
    }

    #[tokio::test]
    async fn other_public_addresses_count_from_the_next_answer_on() {
        let port = port("127.0.0.1:0");
        let public = "203.0.113.7".parse().unwrap();
        port.set_public(vec![public], Some(5_000));
        assert_eq!(*port.candidates(), [SocketAddr::new(public, 5_000)]);
        port.set_public(Vec::new(), None);
        assert_eq!(*port.candidates(), [port.local_addr()]);
    }
}
