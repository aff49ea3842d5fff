//! Counters and histograms a server may export. Atomics only: reading them never touches the media
//! path.
//!
//! Invariant: names and labels are fixed texts, so the tables have a bound: the code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;

/// A name, and up to two label values; empty where there is none.
type Key = (&'static str, &'static str, &'static str);

const REJECTED: &str = "rejected_input_total";

/// Counters of the whole media core.
#[derive(Debug, Default)]
pub struct Stats {
    counters: DashMap<Key, AtomicU64>,
    histograms: DashMap<(&'static str, &'static str), Arc<Histogram>>,
}

/// One counter as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counter {
    /// Without the prefix of the core.
    pub name: &'static str,
    /// Label values, in the order of the specification's table; empty where there is none.
    pub labels: [&'static str; 2],
    /// So far.
    pub count: u64,
}

impl Stats {
    /// Counts one piece of bad input: `rejected_input_total{protocol, reason}`.
    pub fn reject(&self, protocol: &'static str, reason: &'static str) {
        self.add_two(REJECTED, [protocol, reason], 1);
    }

    /// Adds to a counter with one label value, for example `("egress_bytes_total", "whep")`.
    pub fn add(&self, name: &'static str, label: &'static str, by: u64) {
        self.add_two(name, [label, ""], by);
    }

    /// Adds to a counter with two label values.
    pub fn add_two(&self, name: &'static str, labels: [&'static str; 2], by: u64) {
        let key = (name, labels[0], labels[1]);
        if let Some(cell) = self.counters.get(&key) {
            cell.fetch_add(by, Ordering::Relaxed);
            return;
        }
        let cell = self.counters.entry(key).or_default();
        cell.fetch_add(by, Ordering::Relaxed);
    }

    /// All counters so far, sorted.
    pub fn counters(&self) -> Vec<Counter> {
        let mut all: Vec<Counter> = (self.counters.iter())
            .map(|entry| {
                let (name, one, other) = *entry.key();
                Counter {
                    name,
                    labels: [one, other],
                    count: entry.value().load(Ordering::Relaxed),
                }
            })
            .collect();
        all.sort_unstable();
        all
    }

    /// All rejections so far: protocol, reason, count. Sorted.
    pub fn rejections(&self) -> Vec<(&'static str, &'static str, u64)> {
        let all = self.counters().into_iter();
        let all = all.filter(|counter| counter.name == REJECTED);
        all.map(
            |Counter {
                 labels: [protocol, reason],
                 count,
                 ..
             }| (protocol, reason, count),
        )
        .collect()
    }

    /// The sum of a counter over all its labels.
    pub fn total(&self, name: &str) -> u64 {
        let all = self.counters.iter().filter(|entry| entry.key().0 == name);
        all.map(|entry| entry.value().load(Ordering::Relaxed)).sum()
    }

    /// The histogram of this name and label value; keep it where it is needed often.
    pub fn histogram(&self, name: &'static str, label: &'static str) -> Arc<Histogram> {
        let histogram = self.histograms.entry((name, label)).or_default();
        Arc::clone(&histogram)
    }

    /// All histograms: name, label value, and what they hold. Sorted.
    pub fn histograms(&self) -> Vec<(&'static str, &'static str, Arc<Histogram>)> {
        let all = self.histograms.iter();
        let mut all: Vec<_> = all
            .map(|entry| (entry.key().0, entry.key().1, Arc::clone(entry.value())))
            .collect();
        all.sort_unstable_by_key(|(name, label, _)| (*name, *label));
        all
    }
}

/// Upper bounds of the buckets, in milliseconds.
pub const BUCKETS_MS: [u64; 13] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000,
];

/// How often something took how long.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Takes in one measurement.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let place = BUCKETS_MS.iter().position(|ms| us <= ms * 1_000);
        if let Some(bucket) = place.and_then(|place| self.buckets.get(place)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// How many took at most so many milliseconds, bucket by bucket.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        let counts = BUCKETS_MS.iter().zip(&self.buckets);
        counts.map(move |(ms, bucket)| {
            sum += bucket.load(Ordering::Relaxed);
            (*ms, sum)
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// How long all took together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_apart_by_both_labels_and_summed_over_them() {
        let stats = Stats::default();
        stats.reject("rtmp", "amf");
        stats.reject("rtmp", "amf");
        stats.reject("whip", "amf");
        stats.add("egress_bytes_total", "whep", 7);
        let all: Vec<_> = stats
            .counters()
            .iter()
            .map(|c| (c.labels, c.count))
            .collect();
        let expected = [
            (["whep", ""], 7),
            (["rtmp", "amf"], 2),
            (["whip", "amf"], 1),
        ];
        assert_eq!(all, expected);
        assert_eq!(stats.total("rejected_input_total"), 3);
    }

    #[test]
    fn a_measurement_is_in_its_bucket_and_all_above() {
        let histogram = Histogram::default();
        for ms in [1, 3, 60_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(cumulative[..3], [(1, 1), (2, 1), (5, 2)]);
        assert_eq!(cumulative.last(), Some(&(10_000, 2)));
        assert_eq!(
            (histogram.count(), histogram.sum().as_millis()),
            (3, 60_004)
        );
    }
}
