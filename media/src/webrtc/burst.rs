//! What a session sends: datagrams gathered into runs that one call takes.
//!
//! Invariants
//! - Nothing is kept per session but what the socket did not take, and that is bounded.
//! - Of a run all datagrams have one size but the last, which may be shorter.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use super::Port;

/// What a session sends: counts, and what the socket did not take yet.
#[derive(Debug, Default)]
pub(crate) struct Burst {
    /// Runs that wait for the socket: where to, bytes of a datagram, all of them.
    waiting: VecDeque<(SocketAddr, usize, Vec<u8>)>,
    waiting_bytes: usize,
    /// Calls of the socket.
    pub(crate) calls: u64,
    pub(crate) datagrams: u64,
    pub(crate) bytes: u64,
    /// Runs that did not go at once.
    pub(crate) blocked: u64,
}

/// Bytes of one call: what the kernel takes at most.
const RUN_BYTES_MAX: usize = 60_000;
/// Bytes a session may leave waiting for the socket; what is more is lost.
const WAITING_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// Runs are put together here, by whichever session the thread serves: memory that every
    /// session had for itself would be cold each time.
    static RUN: RefCell<Vec<u8>> = RefCell::default();
}

impl Burst {
    /// Sends what `fill` puts together, in as few calls as can be. What the socket does not take
    /// waits for [`Self::settle`].
    pub(crate) fn gather(&mut self, port: &Port, to: SocketAddr, fill: impl FnOnce(&mut Run<'_>)) {
        RUN.with_borrow_mut(|bytes| {
            bytes.clear();
            let mut run = Run {
                bytes,
                segment: 0,
                to,
                port,
                burst: self,
            };
            fill(&mut run);
            run.flush();
        });
    }

    /// Waits until the socket took everything. A datagram the network refuses is lost, as any may
    /// be.
    pub(crate) async fn settle(&mut self, port: &Port) {
        while let Some((to, segment, run)) = self.waiting.front() {
            drop(port.send(*to, run, *segment).await);
            self.waiting.pop_front();
        }
        self.waiting_bytes = 0;
    }

    fn count(&mut self, run: &[u8], segment: usize) {
        self.calls += 1;
        self.datagrams += u64::try_from(run.len().div_ceil(segment)).unwrap_or(0);
        self.bytes += u64::try_from(run.len()).unwrap_or(0);
    }

    fn keep(&mut self, to: SocketAddr, run: &[u8], segment: usize) {
        self.blocked += 1;
        if self.waiting_bytes + run.len() <= WAITING_BYTES_MAX {
            self.waiting_bytes += run.len();
            self.waiting.push_back((to, segment, run.to_vec()));
        }
    }
}

/// Datagrams of one session, of which those of equal size leave with one call.
pub(crate) struct Run<'a> {
    bytes: &'a mut Vec<u8>,
    segment: usize,
    to: SocketAddr,
    port: &'a Port,
    burst: &'a mut Burst,
}

impl Run<'_> {
    /// Where to append a datagram of exactly so many bytes; what was gathered goes out first if
    /// the two cannot share a call.
    pub(crate) fn datagram(&mut self, size: usize) -> &mut Vec<u8> {
        let count = self.bytes.len().checked_div(self.segment).unwrap_or(0);
        let fits = size <= self.segment
            && self.bytes.len().is_multiple_of(self.segment)
            && count < self.port.segments_max()
            && self.bytes.len() + size <= RUN_BYTES_MAX;
        if !fits {
            self.flush();
            self.segment = size;
        }
        self.bytes
    }

    /// Takes back the datagram that begins here.
    pub(crate) fn forget(&mut self, start: usize) {
        self.bytes.truncate(start);
    }

    fn flush(&mut self) {
        let (bytes, segment) = (&self.bytes[..], self.segment);
        if bytes.is_empty() || segment == 0 {
            return;
        }
        self.burst.count(bytes, segment);
        let sent = if self.burst.waiting.is_empty() {
            self.port.try_send(self.to, bytes, segment)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        };
        if sent.is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock) {
            self.burst.keep(self.to, bytes, segment);
        }
        self.bytes.clear();
    }
}
