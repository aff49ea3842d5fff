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
    histograms: DashMap<Key, Arc<Histogram>>,
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
        self.histogram_of(name, [label, ""])
    }

    /// The histogram of this name and two label values.
    pub fn histogram_of(&self, name: &'static str, labels: [&'static str; 2]) -> Arc<Histogram> {
        let key = (name, labels[0], labels[1]);
        if let Some(histogram) = self.histograms.get(&key) {
            return Arc::clone(&histogram);
        }
        Arc::clone(&self.histograms.entry(key).or_default())
    }

    /// The histogram of bit rates of this name and label value.
    pub fn rates(&self, name: &'static str, label: &'static str) -> Arc<Histogram> {
        let histogram = self.histograms.entry((name, label, ""));
        Arc::clone(&histogram.or_insert_with(|| Arc::new(Histogram::of(Scale::BitsPerSecond))))
    }

    /// All histograms: name, label values (empty where there is none), and what they hold. Sorted.
    pub fn histograms(&self) -> Vec<(&'static str, [&'static str; 2], Arc<Histogram>)> {
        let all = self.histograms.iter();
        let mut all: Vec<_> = all
            .map(|entry| {
                let (name, one, other) = *entry.key();
                (name, [one, other], Arc::clone(entry.value()))
            })
            .collect();
        all.sort_unstable_by_key(|(name, labels, _)| (*name, *labels));
        all
    }
}

/// What a histogram counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scale {
    /// Lengths of time; kept in microseconds, told in seconds.
    #[default]
    Seconds,
    /// Rates.
    BitsPerSecond,
}

const BUCKETS: usize = 13;
/// Upper bounds of the buckets for lengths of time, in microseconds.
const TIMES_US: [u64; BUCKETS] = [
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000,
    5_000_000, 10_000_000,
];
/// The same for rates, in bits per second.
const RATES_BPS: [u64; BUCKETS] = [
    100_000, 250_000, 500_000, 750_000, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000,
    6_000_000, 10_000_000, 20_000_000, 50_000_000,
];
/// A rate above this is none: nothing limits it.
const RATE_BPS_MAX: u64 = 1_000_000_000;

/// How often something took how long, or had which rate.
#[derive(Debug, Default)]
pub struct Histogram {
    scale: Scale,
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    sum: AtomicU64,
}

impl Histogram {
    fn of(scale: Scale) -> Self {
        Self {
            scale,
            ..Self::default()
        }
    }

    /// Takes in one length of time.
    pub fn observe(&self, took: Duration) {
        self.note(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Takes in one rate.
    pub fn observe_bps(&self, rate_bps: u64) {
        self.note(rate_bps.min(RATE_BPS_MAX));
    }

    fn note(&self, value: u64) {
        let place = self.bounds().iter().position(|bound| value <= *bound);
        if let Some(bucket) = place.and_then(|place| self.buckets.get(place)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    const fn bounds(&self) -> &'static [u64; BUCKETS] {
        match self.scale {
            Scale::Seconds => &TIMES_US,
            Scale::BitsPerSecond => &RATES_BPS,
        }
    }

    /// In seconds, or bits per second.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a sum that large has no use for its last digits"
    )]
    fn told(&self, value: u64) -> f64 {
        match self.scale {
            Scale::Seconds => Duration::from_micros(value).as_secs_f64(),
            Scale::BitsPerSecond => value as f64,
        }
    }

    /// How many were at most so large, in seconds or bits per second, bucket by bucket.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut sum = 0;
        let counts = self.bounds().iter().zip(&self.buckets);
        counts.map(move |(bound, bucket)| {
            sum += bucket.load(Ordering::Relaxed);
            (self.told(*bound), sum)
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// All of them together, in seconds or bits per second.
    pub fn sum(&self) -> f64 {
        self.told(self.sum.load(Ordering::Relaxed))
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
        assert_eq!(cumulative[..3], [(0.001, 1), (0.002, 1), (0.005, 2)]);
        assert_eq!(cumulative.last(), Some(&(10.0, 2)));
        assert_eq!((histogram.count(), histogram.sum()), (3, 60.004));
    }

    #[test]
    fn rates_have_buckets_of_their_own_and_an_endless_one_is_capped() {
        let stats = Stats::default();
        let histogram = stats.rates("estimate_bps", "whep");
        for rate_bps in [90_000, 2_000_000, u64::MAX] {
            histogram.observe_bps(rate_bps);
        }
        let cumulative: Vec<_> = stats.rates("estimate_bps", "whep").cumulative().collect();
        assert_eq!(cumulative[0], (100_000.0, 1));
        assert_eq!(cumulative[6], (2_000_000.0, 2));
        assert_eq!((histogram.count(), histogram.sum()), (3, 1_002_090_000.0));
    }
}
