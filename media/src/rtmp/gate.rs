//! Who may connect, and how often (spec media.md 3.3).
//!
//! Invariant: tables are bounded; at the bound the oldest entry leaves.

use std::collections::HashMap;
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

#[derive(Debug, Default)]
struct State {
    connections: usize,
    addresses: HashMap<IpAddr, Address>,
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
            make_room(&mut state.addresses, now);
            let fresh = Address {
                waiting: 0,
                second: (now, 0),
                minute: (now, 0),
                closed_until: None,
                seen: now,
            };
            state.addresses.entry(ip).or_insert(fresh).enter(now)?;
        }
        state.connections += 1;
        Ok(Pass {
            gate: self.clone(),
            ip,
            is_waiting: true,
        })
    }
}

impl Address {
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
}

/// Counts one more in a window that starts anew when it is over.
fn tick(window: &mut (Instant, u32), now: Instant, length: Duration) -> u32 {
    if now.saturating_duration_since(window.0) >= length {
        *window = (now, 0);
    }
    window.1 = window.1.saturating_add(1);
    window.1
}

fn make_room(addresses: &mut HashMap<IpAddr, Address>, now: Instant) {
    if addresses.len() < ADDRESSES_MAX {
        return;
    }
    addresses.retain(|_, a| a.waiting > 0 || now.saturating_duration_since(a.seen) < FORGET_AFTER);
    if addresses.len() >= ADDRESSES_MAX {
        let oldest = addresses
            .iter()
            .min_by_key(|(_, a)| a.seen)
            .map(|(ip, _)| *ip);
        oldest.map(|ip| addresses.remove(&ip));
    }
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Pass {
    gate: Gate,
    ip: IpAddr,
    is_waiting: bool,
}

impl Pass {
    /// The connection may publish: it no longer counts as waiting.
    pub(super) fn accepted(&mut self) {
        if std::mem::take(&mut self.is_waiting)
            && let Some(address) = self.gate.lock().addresses.get_mut(&self.ip)
        {
            address.waiting = address.waiting.saturating_sub(1);
        }
    }

    /// The connection's publish was refused: too many of these shut the address out for a while.
    pub(super) fn refused(&mut self, now: Instant) {
        if let Some(address) = self.gate.lock().addresses.get_mut(&self.ip)
            && tick(&mut address.minute, now, MINUTE) >= REFUSED_PER_MINUTE_MAX
        {
            address.closed_until = Some(now + MINUTE);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.accepted();
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
        held[0].accepted();
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
}
