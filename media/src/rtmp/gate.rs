//! Who may connect, and how often (spec media.md 3.3).
//!
//! Invariants
//! - Tables are bounded; at the bound the oldest entry leaves, those of addresses with a connection
//!   that waits or a running ban last.
//! - A connection costs a look-up, whatever the tables hold.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Connections of one node.
const CONNECTIONS_MAX: usize = 4_000;
/// Connections of one address that may not publish yet.
const WAITING_PER_ADDRESS_MAX: usize = 64;
/// New connections of one address in a second.
const NEW_PER_SECOND_MAX: u32 = 50;
/// Refused publishes of one address in a minute.
const REFUSED_PER_MINUTE_MAX: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// Addresses remembered, and for how long after the last they did.
const ADDRESSES_MAX: usize = 65_536;
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// Why a connection is closed on accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    NodeFull,
    AddressFull,
    TooFast,
    RefusedTooOften,
}

impl Turned {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NodeFull => "node_full",
            Self::AddressFull => "address_full",
            Self::TooFast => "too_fast",
            Self::RefusedTooOften => "refused_too_often",
        }
    }
}

#[derive(Debug)]
struct Address {
    waiting: usize,
    second: (Instant, u32),
    minute: (Instant, u32),
    closed_until: Option<Instant>,
    seen: Instant,
}

impl Address {
    const fn new(now: Instant) -> Self {
        Self {
            waiting: 0,
            second: (now, 0),
            minute: (now, 0),
            closed_until: None,
            seen: now,
        }
    }

    fn enter(&mut self, now: Instant) -> Result<(), Turned> {
        self.seen = now;
        if self.closed_until.is_some_and(|until| now < until) {
            return Err(Turned::RefusedTooOften);
        }
        if self.waiting >= WAITING_PER_ADDRESS_MAX {
            return Err(Turned::AddressFull);
        }
        if tick(&mut self.second, now, SECOND) > NEW_PER_SECOND_MAX {
            return Err(Turned::TooFast);
        }
        self.waiting += 1;
        Ok(())
    }

    /// From when on nothing is lost with it; `None` while a connection waits.
    fn idle_since(&self) -> Option<Instant> {
        let since = self.closed_until.map_or(self.seen, |t| t.max(self.seen));
        (self.waiting == 0).then_some(since)
    }
}

/// Counts one more in a window that starts anew when it is over.
fn tick(window: &mut (Instant, u32), now: Instant, length: Duration) -> u32 {
    if now.saturating_duration_since(window.0) >= length {
        *window = (now, 0);
    }
    window.1 = window.1.saturating_add(1);
    window.1
}

/// The addresses remembered, and those that may be forgotten in the order in which they are.
#[derive(Debug, Default)]
struct Addresses {
    all: HashMap<IpAddr, Address>,
    /// By [`Address::idle_since`]: a running ban lies in the future and so comes last.
    idle: BTreeSet<(Instant, IpAddr)>,
}

impl Addresses {
    /// Works on the entry of an address, made if need be.
    fn visit<T>(&mut self, now: Instant, ip: IpAddr, work: impl FnOnce(&mut Address) -> T) -> T {
        if !self.all.contains_key(&ip) {
            self.make_room(now);
        }
        let address = self.all.entry(ip).or_insert_with(|| Address::new(now));
        let before = address.idle_since();
        let done = work(address);
        let after = address.idle_since();
        if before != after
            && let Some(since) = before
        {
            self.idle.remove(&(since, ip));
        }
        if let Some(since) = after {
            self.idle.insert((since, ip));
        }
        done
    }

    /// The same for an address that may have been forgotten; nothing is done then.
    fn visit_known(&mut self, now: Instant, ip: IpAddr, work: impl FnOnce(&mut Address)) {
        if self.all.contains_key(&ip) {
            self.visit(now, ip, work);
        }
    }

    /// One comes, so up to two that are out of date leave, or the oldest when the table is full.
    fn make_room(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some(&(since, ip)) = self.idle.first() else {
                return;
            };
            let is_old = now.saturating_duration_since(since) >= FORGET_AFTER;
            if !is_old && self.all.len() < ADDRESSES_MAX {
                return;
            }
            self.idle.pop_first();
            self.all.remove(&ip);
        }
    }
}

#[derive(Debug, Default)]
struct State {
    connections: usize,
    addresses: Addresses,
}

/// The counts of all connections of one listener.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<State>>);

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a connection in, or says why not. Loopback is free of limits per address.
    pub(super) fn enter(&self, now: Instant, ip: IpAddr) -> Result<Pass, Turned> {
        let mut state = self.lock();
        if state.connections >= CONNECTIONS_MAX {
            return Err(Turned::NodeFull);
        }
        if !ip.is_loopback() {
            state
                .addresses
                .visit(now, ip, |address| address.enter(now))?;
        }
        state.connections += 1;
        Ok(Pass {
            gate: self.clone(),
            ip,
            is_waiting: true,
            is_refused: false,
        })
    }
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    ip: IpAddr,
    is_waiting: bool,
    is_refused: bool,
}

impl Pass {
    /// The connection may publish: it no longer counts as waiting.
    pub(super) fn accepted(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_waiting) {
            let mut state = self.gate.lock();
            state.addresses.visit_known(now, self.ip, |address| {
                address.waiting = address.waiting.saturating_sub(1);
            });
        }
    }

    /// The connection's publish was refused: too many of these shut the address out for a while.
    /// Counts once, whatever is refused on the connection after that.
    pub(super) fn refused(&mut self, now: Instant) {
        if std::mem::replace(&mut self.is_refused, true) {
            return;
        }
        let mut state = self.gate.lock();
        state.addresses.visit_known(now, self.ip, |address| {
            if tick(&mut address.minute, now, MINUTE) >= REFUSED_PER_MINUTE_MAX {
                address.closed_until = Some(now + MINUTE);
            }
        });
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.accepted(Instant::now());
        let mut state = self.gate.lock();
        state.connections = state.connections.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7));
    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test(start_paused = true)]
    async fn an_address_has_sixty_four_waiting_connections_at_most() {
        let gate = Gate::default();
        let mut now = Instant::now();
        let mut held = Vec::new();
        for _ in 0..WAITING_PER_ADDRESS_MAX {
            held.push(gate.enter(now, STRANGER).unwrap());
            now += Duration::from_millis(50);
        }
        assert_eq!(
            gate.enter(now, STRANGER).map(drop),
            Err(Turned::AddressFull)
        );
        assert!(gate.enter(now, LOOPBACK).is_ok());
        held[0].accepted(now);
        assert!(gate.enter(now, STRANGER).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn ten_refusals_in_a_minute_shut_an_address_out_for_a_minute() {
        let gate = Gate::default();
        let now = Instant::now();
        for n in 0..REFUSED_PER_MINUTE_MAX {
            gate.enter(now + SECOND * n, STRANGER)
                .unwrap()
                .refused(now + SECOND * n);
        }
        let then = now + SECOND * 10;
        assert_eq!(
            gate.enter(then, STRANGER).map(drop),
            Err(Turned::RefusedTooOften)
        );
        assert!(gate.enter(then + MINUTE, STRANGER).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_of_connections_is_cut_at_fifty_a_second() {
        let gate = Gate::default();
        let now = Instant::now();
        let good = (0..80)
            .filter(|_| gate.enter(now, STRANGER).is_ok())
            .count();
        assert_eq!(good, 50);
        assert_eq!(gate.lock().connections, 0, "every pass was dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_counts_one_refusal_whatever_it_tries() {
        let gate = Gate::default();
        let now = Instant::now();
        let mut pass = gate.enter(now, STRANGER).unwrap();
        for _ in 0..20 {
            pass.refused(now);
        }
        assert!(gate.enter(now, STRANGER).is_ok());
    }

    fn address(n: usize) -> IpAddr {
        let n = u32::try_from(n).unwrap();
        IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n))
    }

    /// The table is full: who waits or is banned stays, who was seen first of the others goes.
    #[tokio::test(start_paused = true)]
    async fn a_full_table_forgets_the_longest_idle_address_first() {
        let gate = Gate::default();
        let mut now = Instant::now();
        let waiting = gate.enter(now, address(0)).unwrap();
        for _ in 0..REFUSED_PER_MINUTE_MAX {
            gate.enter(now, address(1)).unwrap().refused(now);
        }
        for n in 2..ADDRESSES_MAX {
            now += Duration::from_micros(100);
            drop(gate.enter(now, address(n)).unwrap());
        }
        let knows = |n| gate.lock().addresses.all.contains_key(&address(n));
        for n in ADDRESSES_MAX..ADDRESSES_MAX + 10 {
            now += Duration::from_micros(100);
            drop(gate.enter(now, address(n)).unwrap());
            assert_eq!(gate.lock().addresses.all.len(), ADDRESSES_MAX);
        }
        assert!(knows(0) && knows(1) && !knows(2) && !knows(11) && knows(12));
        let banned = gate.enter(now, address(1)).map(drop);
        assert_eq!(banned, Err(Turned::RefusedTooOften));
        drop(waiting);
    }

    /// What the set of idle addresses holds is what may be forgotten, at every moment.
    #[tokio::test(start_paused = true)]
    async fn addresses_leave_ten_minutes_after_they_were_seen_last() {
        let gate = Gate::default();
        let now = Instant::now();
        let held = gate.enter(now, address(0)).unwrap();
        drop(gate.enter(now, address(1)).unwrap());
        drop(gate.enter(now + FORGET_AFTER, address(2)).unwrap());
        let count = |gate: &Gate| {
            let state = gate.lock();
            (state.addresses.all.len(), state.addresses.idle.len())
        };
        assert_eq!(count(&gate), (2, 1));
        drop(held);
        assert_eq!(count(&gate), (2, 2));
    }
}
