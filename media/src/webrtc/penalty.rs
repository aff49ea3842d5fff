//! Addresses that send STUN which proves nothing: above a rate they are ignored for a while.
//!
//! Invariant: the table is bounded; when it is full of addresses it starts anew.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many a second are a mistake; more are none.
const BAD_PER_S_MAX: u32 = 50;
const IGNORED: Duration = Duration::from_secs(10);
const ADDRESSES_MAX: usize = 65_536;

#[derive(Clone, Copy, Debug)]
struct Entry {
    since: Instant,
    count: u32,
    ignored_until: Option<Instant>,
}

/// What was counted against addresses.
#[derive(Debug, Default)]
pub(crate) struct Penalties {
    entries: Mutex<HashMap<SocketAddr, Entry>>,
}

impl Penalties {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing from there is looked at now.
    pub(crate) fn is_ignored(&self, now: Instant, from: SocketAddr) -> bool {
        let entries = self.lock();
        let until = entries.get(&from).and_then(|entry| entry.ignored_until);
        until.is_some_and(|until| now < until)
    }

    /// Counts a bad message.
    pub(crate) fn note(&self, now: Instant, from: SocketAddr) {
        let mut entries = self.lock();
        if entries.len() >= ADDRESSES_MAX && !entries.contains_key(&from) {
            entries.clear();
        }
        let fresh = Entry {
            since: now,
            count: 0,
            ignored_until: None,
        };
        let entry = entries.entry(from).or_insert(fresh);
        if now.saturating_duration_since(entry.since) >= Duration::from_secs(1) {
            *entry = fresh;
        }
        entry.count += 1;
        if entry.count > BAD_PER_S_MAX {
            entry.ignored_until = Some(now + IGNORED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[tokio::test(start_paused = true)]
    async fn only_more_than_fifty_in_a_second_are_held_against_an_address() {
        let (penalties, start) = (Penalties::default(), Instant::now());
        for second in 0..5 {
            let now = start + Duration::from_secs(second);
            (0..50).for_each(|_| penalties.note(now, addr(1)));
            assert!(!penalties.is_ignored(now, addr(1)));
        }
        let now = start + Duration::from_secs(4);
        penalties.note(now, addr(1));
        assert!(penalties.is_ignored(now, addr(1)) && !penalties.is_ignored(now, addr(2)));
        let later = now + IGNORED;
        assert!(penalties.is_ignored(later - Duration::from_millis(1), addr(1)));
        assert!(!penalties.is_ignored(later, addr(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_everywhere_does_not_grow_the_table() {
        let penalties = Penalties::default();
        for n in 0..200_000_u32 {
            let [_, a, b, c] = n.to_be_bytes();
            penalties.note(Instant::now(), SocketAddr::from(([10, a, b, c], 1)));
        }
        assert!(penalties.lock().len() <= ADDRESSES_MAX);
    }
}
