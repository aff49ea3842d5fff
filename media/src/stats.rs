//! Counters a server may export. Atomics only: reading them never touches the media path.

use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

/// Counters of the whole media core.
#[derive(Debug, Default)]
pub struct Stats {
    rejected: DashMap<(&'static str, &'static str), AtomicU64>,
    counters: DashMap<(&'static str, &'static str), AtomicU64>,
}

impl Stats {
    /// Counts one piece of bad input: `rejected_input_total{protocol, reason}`.
    pub fn reject(&self, protocol: &'static str, reason: &'static str) {
        count(&self.rejected, (protocol, reason), 1);
    }

    /// Adds to a counter with one label value, for example `("egress_bytes_total", "whep")`.
    pub fn add(&self, name: &'static str, label: &'static str, by: u64) {
        count(&self.counters, (name, label), by);
    }

    /// All rejections so far: protocol, reason, count. Sorted.
    pub fn rejections(&self) -> Vec<(&'static str, &'static str, u64)> {
        sorted(&self.rejected)
    }

    /// All other counters so far: name, label, count. Sorted.
    pub fn counters(&self) -> Vec<(&'static str, &'static str, u64)> {
        sorted(&self.counters)
    }
}

type Table = DashMap<(&'static str, &'static str), AtomicU64>;

fn count(table: &Table, key: (&'static str, &'static str), by: u64) {
    if let Some(cell) = table.get(&key) {
        cell.fetch_add(by, Ordering::Relaxed);
        return;
    }
    table
        .entry(key)
        .or_default()
        .fetch_add(by, Ordering::Relaxed);
}

fn sorted(table: &Table) -> Vec<(&'static str, &'static str, u64)> {
    let mut rows: Vec<_> = table
        .iter()
        .map(|e| (e.key().0, e.key().1, e.value().load(Ordering::Relaxed)))
        .collect();
    rows.sort_unstable();
    rows
}
