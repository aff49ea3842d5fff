//! What a doctor measures of a stream. Pure; each keeps a bounded past.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::time::MediaTime;

/// How far back keyframes count.
const RECENT: Duration = Duration::from_secs(30);
const DISTANCES_MAX: usize = 64;
/// Fewer distances show no pattern.
const DISTANCES_MIN: usize = 3;
/// Keyframes closer than this may come as they like.
const REGULAR_FROM: Duration = Duration::from_secs(1);

/// How far keyframes are apart.
#[derive(Debug, Default)]
pub(super) struct Keyframes {
    last_key: Option<MediaTime>,
    newest: Option<MediaTime>,
    distances: VecDeque<(Instant, Duration)>,
}

impl Keyframes {
    pub(super) fn note(&mut self, now: Instant, t: MediaTime, is_key: bool) {
        self.newest = Some(t);
        if !is_key {
            return;
        }
        if let Some(last) = self.last_key.replace(t) {
            if self.distances.len() >= DISTANCES_MAX {
                self.distances.pop_front();
            }
            self.distances.push_back((now, t.saturating_since(last)));
        }
        let is_old = |(at, _): &(Instant, Duration)| now.saturating_duration_since(*at) > RECENT;
        // One stays: it is what the encoder does.
        while self.distances.len() > 1 && self.distances.front().is_some_and(is_old) {
            self.distances.pop_front();
        }
    }

    /// The newest distance, or the open one when that is longer already.
    pub(super) fn distance(&self) -> Option<Duration> {
        let open = self.newest.zip(self.last_key);
        let open = open.map(|(newest, key)| newest.saturating_since(key));
        let closed = self.distances.back().map(|(_, distance)| *distance);
        open.max(closed).filter(|distance| !distance.is_zero())
    }

    /// The newest whole distance.
    pub(super) fn closed(&self) -> Option<Duration> {
        self.distances.back().map(|(_, distance)| *distance)
    }

    /// By how many percent of the longest the distances differ, if they are long enough to matter.
    pub(super) fn variation(&self) -> Option<f64> {
        let all = || self.distances.iter().map(|(_, distance)| *distance);
        let (longest, shortest) = (all().max()?, all().min()?);
        let is_judged = self.distances.len() >= DISTANCES_MIN && longest > REGULAR_FROM;
        let ratio = shortest.as_secs_f64() / longest.as_secs_f64();
        is_judged.then_some((1.0 - ratio) * 100.0)
    }

    /// What comes next has nothing to do with what was.
    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

const VOLUME_SECONDS: usize = 5;

/// How much comes: the mean over the last five whole seconds.
#[derive(Debug, Default)]
pub(super) struct Volume {
    seconds: VecDeque<(u64, u64)>,
}

impl Volume {
    pub(super) fn add(&mut self, second: u64, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        match self.seconds.back_mut() {
            Some((at, sum)) if *at == second => *sum += bytes,
            _ => self.seconds.push_back((second, bytes)),
        }
        while self.seconds.len() > VOLUME_SECONDS + 1 {
            self.seconds.pop_front();
        }
    }

    /// Bits per second; seconds in which nothing came count.
    pub(super) fn bps(&self, second: u64) -> u64 {
        let length = u64::try_from(VOLUME_SECONDS).unwrap_or(1);
        let first = self.seconds.front().map_or(second, |(at, _)| *at);
        let from = first.max(second.saturating_sub(length));
        let whole = second.saturating_sub(from);
        let in_reach = self
            .seconds
            .iter()
            .filter(|(at, _)| (from..second).contains(at));
        let bytes: u64 = in_reach.map(|(_, bytes)| bytes).sum();
        (bytes * 8).checked_div(whole).unwrap_or(0)
    }
}

/// A bucket of arrivals, and how many are kept: a minute.
const BUCKET_S: u64 = 5;
const BUCKETS_MAX: usize = 12;
const MINUTE_S: u64 = 60;
const MINUTES_MAX: usize = 12;

/// How late a track arrives, by the shortest delay in each span of time: what is left of network
/// and queues then is the difference of the clocks.
#[derive(Debug, Default)]
pub(super) struct Lag {
    buckets: VecDeque<(u64, i64)>,
    minutes: VecDeque<(u64, i64)>,
}

impl Lag {
    pub(super) fn note(&mut self, second: u64, lag_us: i64) {
        lower(&mut self.buckets, second / BUCKET_S, lag_us, BUCKETS_MAX);
        lower(&mut self.minutes, second / MINUTE_S, lag_us, MINUTES_MAX);
    }

    /// The shortest delay of the last minute.
    pub(super) fn floor_us(&self) -> Option<i64> {
        self.buckets.iter().map(|(_, lag)| *lag).min()
    }

    /// The shortest delay of the last seconds.
    pub(super) fn recent_us(&self) -> Option<i64> {
        let newest = self.buckets.iter().rev().take(2);
        newest.map(|(_, lag)| *lag).min()
    }

    /// How much faster the publisher's clock runs than ours, in millionths, and over how many
    /// minutes that was seen.
    pub(super) fn drift(&self) -> Option<(f64, u64)> {
        let mut whole = self.minutes.iter().rev().skip(1);
        let (last, last_us) = whole.next()?;
        let (first, first_us) = whole.last()?;
        let minutes = last - first;
        let us = i32::try_from(first_us - last_us).ok()?;
        let span_us = f64::from(u32::try_from(minutes * MINUTE_S).ok()?) * 1e6;
        Some((f64::from(us) / span_us * 1e6, minutes))
    }
}

fn lower(spans: &mut VecDeque<(u64, i64)>, span: u64, lag_us: i64, most: usize) {
    match spans.back_mut() {
        Some((at, lag)) if *at == span => *lag = lag_us.min(*lag),
        _ => spans.push_back((span, lag_us)),
    }
    while spans.len() > most {
        spans.pop_front();
    }
}

const STEPS_SPAN: Duration = Duration::from_secs(10);
const STEPS_MAX: usize = 2_048;
/// Fewer say nothing of how many are missing.
const STEPS_MIN: usize = 50;

/// The time between pictures.
#[derive(Debug, Default)]
pub(super) struct Steps {
    last: Option<MediaTime>,
    steps: VecDeque<(MediaTime, i64)>,
}

impl Steps {
    pub(super) fn note(&mut self, t: MediaTime) {
        if let Some(last) = self.last.replace(t) {
            self.steps.push_back((t, t.micros_since(last)));
        }
        let is_old = |(at, _): &(MediaTime, i64)| t.saturating_since(*at) > STEPS_SPAN;
        while self.steps.len() > STEPS_MAX || self.steps.front().is_some_and(is_old) {
            self.steps.pop_front();
        }
    }

    /// How many percent of the pictures are missing between the others.
    pub(super) fn missing_percent(&self) -> Option<f64> {
        if self.steps.len() < STEPS_MIN {
            return None;
        }
        // Two steps together: a picture that was only moved is late in one and early in the other.
        let pairs = self.steps.iter().zip(self.steps.iter().skip(1));
        let mut sorted: Vec<i64> = pairs.map(|((_, one), (_, other))| one + other).collect();
        sorted.sort_unstable();
        let usual = *sorted.get(sorted.len() / 2)? / 2;
        if usual <= 0 {
            return None;
        }
        let missing = |pair: &i64| (pair + usual / 4) / usual - 2;
        let missing: i64 = sorted.iter().map(missing).filter(|n| *n > 0).sum();
        // Each is in two pairs.
        let missing = f64::from(u32::try_from(missing).ok()?) / 2.0;
        let came = f64::from(u32::try_from(self.steps.len()).ok()?);
        Some(missing / (missing + came) * 100.0)
    }

    pub(super) fn restart(&mut self) {
        *self = Self::default();
    }
}

const SILENCES_MAX: usize = 64;

/// Moments in which nothing came.
#[derive(Debug, Default)]
pub(super) struct Silences(VecDeque<Instant>);

impl Silences {
    pub(super) fn note(&mut self, now: Instant) {
        if self.0.len() >= SILENCES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }

    /// How many there were in the minute before `now`.
    pub(super) fn in_minute(&self, now: Instant) -> usize {
        let is_new = |at: &&Instant| now.saturating_duration_since(**at).as_secs() < MINUTE_S;
        self.0.iter().rev().take_while(is_new).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: i64) -> MediaTime {
        MediaTime::from_micros(us)
    }

    #[test]
    fn volume_is_the_mean_of_whole_seconds_and_silence_counts() {
        let mut volume = Volume::default();
        assert_eq!(volume.bps(0), 0);
        for second in 0..3 {
            volume.add(second, 1_000);
        }
        assert_eq!(volume.bps(3), 8_000);
        assert_eq!(volume.bps(6), 3_200, "two of five seconds had none");
        assert_eq!(volume.bps(60), 0);
    }

    #[test]
    fn every_tenth_picture_left_out_is_a_tenth_missing_and_jitter_is_none() {
        let mut steps = Steps::default();
        for n in (0..300).filter(|n| n % 10 != 9) {
            steps.note(at(n * 33_333));
        }
        let missing = steps.missing_percent().unwrap();
        assert!((9.0..11.0).contains(&missing), "{missing}");
        let mut steps = Steps::default();
        for n in 0..300 {
            let wobble = if n % 2 == 0 { 12_000 } else { 0 };
            steps.note(at(n * 33_333 + wobble));
        }
        assert_eq!(steps.missing_percent(), Some(0.0));
    }

    #[test]
    fn a_slow_clock_is_a_delay_that_grows_whatever_the_network_adds() {
        let mut lag = Lag::default();
        for second in 0..780_u64 {
            let grown = i64::try_from(second).unwrap() * 200;
            let jitter = i64::try_from(second * 7_919 % 31).unwrap() * 1_000;
            lag.note(second, 50_000 + grown + jitter);
        }
        let (ppm, minutes) = lag.drift().unwrap();
        assert!((-230.0..-170.0).contains(&ppm), "{ppm}");
        assert_eq!(minutes, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn the_distance_of_keyframes_counts_the_one_that_is_open() {
        let mut keyframes = Keyframes::default();
        let now = Instant::now();
        assert_eq!(keyframes.distance(), None);
        for n in 0..=4 {
            keyframes.note(now, at(n * 2_000_000), true);
        }
        assert_eq!(keyframes.distance(), Some(Duration::from_secs(2)));
        assert_eq!(keyframes.variation(), Some(0.0));
        keyframes.note(now, at(13_000_000), false);
        assert_eq!(keyframes.distance(), Some(Duration::from_secs(5)));
        assert_eq!(keyframes.closed(), Some(Duration::from_secs(2)));
        keyframes.note(now, at(13_500_000), true);
        assert!(keyframes.variation().unwrap() > 60.0);
    }
}
