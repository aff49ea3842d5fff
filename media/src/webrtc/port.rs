//! One UDP port for all viewers: telling datagrams apart, sending bursts.
//!
//! A STUN request names its session by the local part of USERNAME (RFC 8445 7.2.2); everything
//! else belongs to the session whose address it comes from.
//!
//! Invariants
//! - A session's inbox is bounded; at the bound the newest datagram is dropped.
//! - What comes from an unknown address is dropped after one look-up.

#![deny(clippy::indexing_slicing)]

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, BytesMut};
use dashmap::DashMap;
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rtc::peer_connection::certificate::RTCCertificate;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// What the socket asks the kernel for, each way.
const KERNEL_BYTES: usize = 4 << 20;
/// Less than this is worth a warning.
const KERNEL_BYTES_MIN: usize = 1 << 20;
/// Datagrams a session may leave unread.
const INBOX_MAX: usize = 256;
/// Addresses remembered, of all sessions.
const ADDRESSES_MAX: usize = 65_536;
const DATAGRAM_BYTES_MAX: usize = 1_500;
const BATCH: usize = 16;

/// How the port is opened.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The addresses put into answers; empty: the one it listens on.
    pub public_addrs: Vec<IpAddr>,
    /// The port put into answers, if a NAT changes it.
    pub public_port: Option<u16>,
    /// Bytes of an RTP payload at most.
    pub payload_bytes_max: usize,
}

/// A datagram for a session.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) bytes: BytesMut,
}

/// The UDP port of all WebRTC media.
pub struct Port {
    socket: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    config: PortConfig,
    certificate: RTCCertificate,
    by_ufrag: DashMap<String, mpsc::Sender<Datagram>>,
    by_address: DashMap<SocketAddr, mpsc::Sender<Datagram>>,
    dropped: AtomicU64,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port")
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}

impl Port {
    /// Opens the port.
    ///
    /// # Errors
    /// The port is taken, or the system has no cryptography.
    pub fn bind(config: PortConfig) -> io::Result<Arc<Self>> {
        let socket = open(config.listen)?;
        let local = socket.local_addr()?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let certificate = super::peer::new_certificate().map_err(io::Error::other)?;
        Ok(Arc::new(Self {
            socket,
            state,
            local,
            config,
            certificate,
            by_ufrag: DashMap::new(),
            by_address: DashMap::new(),
            dropped: AtomicU64::new(0),
        }))
    }

    /// The address it really has.
    pub const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) const fn payload_bytes_max(&self) -> usize {
        self.config.payload_bytes_max
    }

    pub(crate) const fn certificate(&self) -> &RTCCertificate {
        &self.certificate
    }

    /// The addresses put into answers.
    pub(crate) fn candidates(&self) -> Vec<SocketAddr> {
        let port = self.config.public_port.unwrap_or_else(|| self.local.port());
        let mut ips = self.config.public_addrs.clone();
        if ips.is_empty() {
            ips = if self.local.ip().is_unspecified() {
                routed_addresses(self.local.ip())
            } else {
                vec![self.local.ip()]
            };
        }
        ips.into_iter()
            .map(|ip| SocketAddr::new(ip, port))
            .collect()
    }

    /// The local end as `rtc` must see it: one of the candidates, whatever it really is.
    pub(crate) fn inner_addr(&self) -> SocketAddr {
        self.candidates().first().copied().unwrap_or(self.local)
    }

    /// Gives a session its inbox, by its ICE name.
    pub(crate) fn enter(self: &Arc<Self>, ufrag: &str) -> Inbox {
        let (sender, receiver) = mpsc::channel(INBOX_MAX);
        self.by_ufrag.insert(ufrag.to_owned(), sender);
        Inbox {
            port: Arc::clone(self),
            ufrag: ufrag.to_owned(),
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
        let is_stun = bytes.first().is_some_and(|b| *b < 4);
        let name = if is_stun {
            stun_local_name(bytes)
        } else {
            None
        };
        // A STUN response names nobody: like media it belongs to its address.
        let inbox = match name {
            Some(name) => self.named(from, name),
            None => self.by_address.get(&from).map(|s| s.clone()),
        };
        let sent = inbox.map(|inbox| {
            inbox.try_send(Datagram {
                from,
                bytes: bytes.into(),
            })
        });
        if !matches!(sent, Some(Ok(()))) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The session of an ICE name; its address is remembered.
    fn named(&self, from: SocketAddr, name: &str) -> Option<mpsc::Sender<Datagram>> {
        let inbox = self.by_ufrag.get(name)?.clone();
        let is_known = self
            .by_address
            .get(&from)
            .is_some_and(|s| s.same_channel(&inbox));
        if !is_known && self.by_address.len() < ADDRESSES_MAX {
            self.by_address.insert(from, inbox.clone());
        }
        Some(inbox)
    }

    /// Datagrams dropped so far: unknown, or an inbox was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Sends a run of equal datagrams (the last may be shorter) with one call.
    pub(crate) async fn send(&self, to: SocketAddr, run: &[u8], segment: usize) -> io::Result<()> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: run,
            segment_size: (run.len() > segment).then_some(segment),
            src_ip: None,
        };
        self.socket
            .async_io(Interest::WRITABLE, || {
                self.state
                    .try_send(UdpSockRef::from(&self.socket), &transmit)
            })
            .await
    }

    pub(crate) fn segments_max(&self) -> usize {
        self.state.max_gso_segments().max(1)
    }
}

/// A session's datagrams; leaving frees its name and addresses.
#[derive(Debug)]
pub(crate) struct Inbox {
    port: Arc<Port>,
    ufrag: String,
    receiver: mpsc::Receiver<Datagram>,
    addresses: Vec<SocketAddr>,
}

/// Addresses one session may speak from.
const SESSION_ADDRESSES_MAX: usize = 16;

impl Inbox {
    /// The next datagram. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Datagram> {
        let datagram = self.receiver.recv().await?;
        self.note(datagram.from);
        Some(datagram)
    }

    pub(crate) fn try_next(&mut self) -> Option<Datagram> {
        let datagram = self.receiver.try_recv().ok()?;
        self.note(datagram.from);
        Some(datagram)
    }

    fn note(&mut self, from: SocketAddr) {
        if !self.addresses.contains(&from) && self.addresses.len() < SESSION_ADDRESSES_MAX {
            self.addresses.push(from);
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.port.by_ufrag.remove(&self.ufrag);
        self.receiver.close();
        for address in &self.addresses {
            self.port
                .by_address
                .remove_if(address, |_, sender| sender.is_closed());
        }
    }
}

/// Gathers outgoing datagrams into runs that one call can send.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    segment: usize,
    to: Option<SocketAddr>,
    /// What was sent: calls, datagrams, bytes.
    pub(crate) sent: (u64, u64, u64),
}

/// Bytes of one call: what the kernel takes at most.
const RUN_BYTES_MAX: usize = 60_000;

impl Burst {
    /// Adds a datagram; what was gathered goes out first if the two cannot share a call.
    pub(crate) async fn push(&mut self, port: &Port, to: SocketAddr, datagram: &[u8]) {
        let count = self.bytes.len().checked_div(self.segment).unwrap_or(0);
        let fits = self.to == Some(to)
            && datagram.len() <= self.segment
            && self.bytes.len().is_multiple_of(self.segment)
            && count < port.segments_max()
            && self.bytes.len() + datagram.len() <= RUN_BYTES_MAX;
        if !fits {
            self.flush(port).await;
            self.segment = datagram.len();
            self.to = Some(to);
        }
        self.bytes.extend_from_slice(datagram);
        self.sent.1 += 1;
    }

    /// Sends what was gathered. A datagram the network refuses is lost, as any may be.
    pub(crate) async fn flush(&mut self, port: &Port) {
        let Some(to) = self.to.take().filter(|_| !self.bytes.is_empty()) else {
            return;
        };
        self.sent.0 += 1;
        self.sent.2 += u64::try_from(self.bytes.len()).unwrap_or(0);
        drop(port.send(to, &self.bytes, self.segment).await);
        self.bytes.clear();
        self.segment = 0;
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

/// The address this machine would use towards others, and loopback if there is none.
fn routed_addresses(unspecified: IpAddr) -> Vec<IpAddr> {
    let mut found = Vec::new();
    // Connecting a UDP socket sends nothing; it only asks the routing table.
    for (bind, probe) in [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")] {
        if probe.starts_with('[') && unspecified.is_ipv4() {
            continue;
        }
        let asked = std::net::UdpSocket::bind(bind)
            .and_then(|socket| socket.connect(probe).and_then(|()| socket.local_addr()));
        found.extend(
            asked
                .ok()
                .map(|addr| addr.ip())
                .filter(|ip| !ip.is_loopback()),
        );
    }
    if found.is_empty() {
        found.push(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
    }
    found
}

/// The part of USERNAME before the colon in a STUN message (RFC 8489 14.3).
fn stun_local_name(message: &[u8]) -> Option<&str> {
    const HEADER: usize = 20;
    const USERNAME: u16 = 0x0006;
    let mut rest = message.get(HEADER..)?;
    while rest.len() >= 4 {
        let kind = rest.try_get_u16().ok()?;
        let length = usize::from(rest.try_get_u16().ok()?);
        let value = rest.get(..length)?;
        if kind == USERNAME {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_local_name_stands_before_the_colon_after_any_attribute() {
        let mut message = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        message.extend([7; 12]);
        message.extend([0x80, 0x22, 0, 3, b'x', b'y', b'z', 0]);
        message.extend([0, 6, 0, 9]);
        message.extend(b"ours:them\0\0\0");
        assert_eq!(stun_local_name(&message), Some("ours"));
        message.truncate(30);
        assert_eq!(stun_local_name(&message), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_demultiplexer_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = stun_local_name(&bytes);
        }
    }
}
