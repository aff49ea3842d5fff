//! The ingest doctor: looks at what a publisher sends and names the setting that would mend it
//! (spec media.md 3.6).
//!
//! [`measure`] keeps the numbers, [`mod@verdict`] holds the words.
//!
//! Invariants
//! - Looking at a frame takes bounded time and memory; conditions are judged once a second.
//! - A verdict goes [`CLEARS_AFTER`] after its condition was seen last.
//!
//! Not here: clocks; what the server does with a verdict.

mod measure;
mod verdict;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use self::measure::{Keyframes, Lag, Silences, Steps, Volume};
pub use self::verdict::{Code, Severity, Verdict};
use crate::bitstream::h264;
use crate::frame::{Codec, Kind, TrackInfo};
use crate::time::MediaTime;

/// A verdict stays so long after its condition was seen last.
pub const CLEARS_AFTER: Duration = Duration::from_secs(30);

const LOOK_EVERY: Duration = Duration::from_secs(1);
const GOP_MAX: Duration = Duration::from_secs(3);
const VARIATION_PERCENT_MAX: f64 = 20.0;
/// Encoders begin with a burst; what comes behind it is not late.
const BURST: Duration = Duration::from_secs(5);
const LATE_US: i64 = 1_000_000;
const SILENCE: Duration = Duration::from_millis(500);
const SILENCES_MAX: usize = 3;
const MISSING_PERCENT_MAX: f64 = 2.0;
const DRIFT_PPM_MAX: f64 = 100.0;
const DRIFT_MINUTES: u64 = 10;
/// Before that a drift is more noise than clock.
const DRIFT_MINUTES_MIN: u64 = 2;
const SKEW_US_MAX: i64 = 300_000;
/// For both tracks to appear.
const TRACKS_WITHIN: Duration = Duration::from_secs(5);
const SOUND_HZ: u32 = 48_000;
const LINES_MAX: u32 = 1_080;

/// One frame as it arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) kind: Kind,
    pub(crate) t: MediaTime,
    /// Server time since the epoch.
    pub(crate) elapsed_us: i64,
    pub(crate) is_reordered: bool,
    pub(crate) is_key: bool,
    pub(crate) bytes: usize,
    /// T was anchored anew in the middle of the session.
    pub(crate) is_reanchored: bool,
}

/// What changed in the list of verdicts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Found(Verdict),
    Cleared(Code),
}

#[derive(Clone, Copy, Debug)]
struct Finding {
    since: MediaTime,
    seen: Instant,
    value: f64,
    is_told: bool,
}

/// What is looked at per kind of media.
#[derive(Debug, Default)]
struct Track {
    has_come: bool,
    lag: Lag,
}

/// Looks at one publish session.
#[derive(Debug)]
pub(crate) struct Doctor {
    limit_bps: u64,
    /// Keyframes are asked for, so when they come says nothing of a setting.
    asks_keyframes: bool,
    first: Option<Instant>,
    newest: MediaTime,
    last: Option<Instant>,
    looked: Option<Instant>,
    keyframes: Keyframes,
    volume: Volume,
    steps: Steps,
    silences: Silences,
    video: Track,
    audio: Track,
    /// Conditions of the parameters, which hold until others come.
    lasting: BTreeMap<Code, f64>,
    findings: BTreeMap<Code, Finding>,
}

impl Doctor {
    pub(crate) fn new() -> Self {
        Self {
            limit_bps: u64::MAX,
            asks_keyframes: false,
            first: None,
            newest: MediaTime::ZERO,
            last: None,
            looked: None,
            keyframes: Keyframes::default(),
            volume: Volume::default(),
            steps: Steps::default(),
            silences: Silences::default(),
            video: Track::default(),
            audio: Track::default(),
            lasting: BTreeMap::new(),
            findings: BTreeMap::new(),
        }
    }

    /// What the key allows, and whether the server asks for keyframes.
    pub(crate) const fn expect(&mut self, limit_bps: u64, asks_keyframes: bool) {
        (self.limit_bps, self.asks_keyframes) = (limit_bps, asks_keyframes);
    }

    /// The publisher set the parameters of a track.
    pub(crate) fn track(&mut self, info: &TrackInfo) {
        match info.audio_rate() {
            Some(rate) => self.lasts(Code::AudioRate, rate != SOUND_HZ, f64::from(rate)),
            None => {
                let (width, height) = info.picture_size().unwrap_or_default();
                let lines = width.min(height);
                let is_odd = width % 2 == 1 || height % 2 == 1;
                self.lasts(Code::SizeOdd, is_odd || lines > LINES_MAX, f64::from(lines));
                self.lasts(Code::Profile, is_unusual(info), 0.0);
            }
        }
    }

    /// Something that is so until the session ends, or no more.
    pub(crate) fn lasts(&mut self, code: Code, is_so: bool, value: f64) {
        if is_so {
            self.lasting.insert(code, value);
        } else {
            self.lasting.remove(&code);
        }
    }

    /// Something happened.
    pub(crate) fn find(&mut self, now: Instant, code: Code, value: f64) {
        let found = self.findings.entry(code).or_insert(Finding {
            since: self.newest,
            seen: now,
            value,
            is_told: false,
        });
        (found.seen, found.value) = (now, value);
    }

    /// A frame came.
    pub(crate) fn observe(&mut self, now: Instant, seen: &Seen) {
        let first = *self.first.get_or_insert(now);
        let passed = now.saturating_duration_since(first);
        self.newest = self.newest.max(seen.t);
        let last = self.last.replace(now).unwrap_or(now);
        if now.saturating_duration_since(last) >= SILENCE {
            self.silences.note(now);
        }
        self.volume.add(passed.as_secs(), seen.bytes);
        if seen.is_reanchored {
            self.find(now, Code::Timestamps, 0.0);
            self.keyframes.restart();
            self.steps.restart();
            (self.video.lag, self.audio.lag) = (Lag::default(), Lag::default());
        }
        if seen.kind == Kind::Video {
            self.keyframes.note(now, seen.t, seen.is_key);
            self.steps.note(seen.t);
            if seen.is_reordered {
                self.find(now, Code::Bframes, 0.0);
            }
        }
        let lag_us = seen.elapsed_us - seen.t.as_micros();
        let track = match seen.kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        };
        track.has_come = true;
        if passed >= BURST {
            let late_us = lag_us - track.lag.floor_us().unwrap_or(lag_us);
            track.lag.note(passed.as_secs(), lag_us);
            if late_us > LATE_US {
                self.find(now, Code::UploadUnstable, seconds(late_us));
            }
        }
    }

    /// Whether [`Self::look`] is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let since = self.looked.map(|at| now.saturating_duration_since(at));
        since.is_none_or(|since| since >= LOOK_EVERY)
    }

    /// Judges what was seen; what changed since the last look.
    pub(crate) fn look(&mut self, now: Instant) -> Vec<Change> {
        self.looked = Some(now);
        let Some(first) = self.first else {
            return Vec::new();
        };
        let passed = now.saturating_duration_since(first);
        for (code, value) in self.lasting.clone() {
            self.find(now, code, value);
        }
        self.judge_keyframes(now);
        self.judge_flow(now, passed);
        if passed >= TRACKS_WITHIN {
            let (has_picture, has_sound) = (self.video.has_come, self.audio.has_come);
            if !has_picture {
                self.find(now, Code::NoVideo, 0.0);
            }
            if !has_sound {
                self.find(now, Code::NoAudio, 0.0);
            }
        }
        self.changes(now)
    }

    fn judge_keyframes(&mut self, now: Instant) {
        let longest = self.keyframes.distance().filter(|d| *d > GOP_MAX);
        if let Some(distance) = longest {
            self.find(now, Code::GopLong, distance.as_secs_f64());
        }
        let variation = self.keyframes.variation().filter(|_| !self.asks_keyframes);
        if let Some(percent) = variation.filter(|percent| *percent > VARIATION_PERCENT_MAX) {
            self.find(now, Code::GopIrregular, percent);
        }
    }

    fn judge_flow(&mut self, now: Instant, passed: Duration) {
        let bps = self.volume.bps(passed.as_secs());
        if bps > self.limit_bps {
            let kbps = u32::try_from(bps / 1_000).unwrap_or(u32::MAX);
            self.find(now, Code::BitrateHigh, f64::from(kbps));
        }
        if self.silences.in_minute(now) > SILENCES_MAX {
            self.find(now, Code::UploadUnstable, SILENCE.as_secs_f64());
        }
        let missing = self.steps.missing_percent();
        if let Some(percent) = missing.filter(|percent| *percent > MISSING_PERCENT_MAX) {
            self.find(now, Code::FramesDropped, percent);
        }
        if let Some((ppm, minutes)) = self.drift()
            && minutes >= DRIFT_MINUTES
            && ppm.abs() > DRIFT_PPM_MAX
        {
            self.find(now, Code::ClockDrift, ppm);
        }
        let lags = (self.video.lag.recent_us(), self.audio.lag.recent_us());
        if let (Some(video), Some(audio)) = lags
            && (video - audio).abs() > SKEW_US_MAX
        {
            self.find(now, Code::AvSkew, seconds(audio - video) * 1e3);
        }
    }

    fn drift(&self) -> Option<(f64, u64)> {
        let track = if self.video.has_come {
            &self.video
        } else {
            &self.audio
        };
        track.lag.drift()
    }

    fn changes(&mut self, now: Instant) -> Vec<Change> {
        let is_over = |found: &Finding| now.saturating_duration_since(found.seen) >= CLEARS_AFTER;
        let cleared: Vec<Code> = (self.findings.iter())
            .filter(|(_, found)| is_over(found))
            .map(|(code, _)| *code)
            .collect();
        for code in &cleared {
            self.findings.remove(code);
        }
        let mut changes: Vec<Change> = cleared.into_iter().map(Change::Cleared).collect();
        let limit_kbps = self.limit_kbps();
        for (code, found) in &mut self.findings {
            if !std::mem::replace(&mut found.is_told, true) {
                changes.push(Change::Found(verdict(*code, found, limit_kbps)));
            }
        }
        changes
    }

    /// What is wrong, the worst first.
    pub(crate) fn verdicts(&self) -> Vec<Verdict> {
        let limit_kbps = self.limit_kbps();
        let mut all: Vec<Verdict> = (self.findings.iter())
            .map(|(code, found)| verdict(*code, found, limit_kbps))
            .collect();
        all.sort_by_key(|verdict| std::cmp::Reverse(verdict.code.severity()));
        all
    }

    const fn limit_kbps(&self) -> u64 {
        self.limit_bps / 1_000
    }

    /// Bits per second, mean over 5 s.
    pub(crate) fn bitrate_bps(&self, now: Instant) -> u64 {
        let first = self.first.unwrap_or(now);
        let second = now.saturating_duration_since(first).as_secs();
        self.volume.bps(second)
    }

    /// The newest distance between two keyframes.
    pub(crate) fn gop(&self) -> Option<Duration> {
        self.keyframes
            .closed()
            .or_else(|| self.keyframes.distance())
    }

    /// How much faster the publisher's clock runs than ours, in millionths.
    pub(crate) fn drift_ppm(&self) -> Option<f64> {
        let known = self
            .drift()
            .filter(|(_, minutes)| *minutes >= DRIFT_MINUTES_MIN);
        known.map(|(ppm, _)| ppm)
    }
}

fn verdict(code: Code, found: &Finding, limit_kbps: u64) -> Verdict {
    Verdict {
        code,
        since: found.since,
        value: code.unit().map(|_| found.value),
        sentence: code.sentence(found.value, limit_kbps),
    }
}

/// 4:2:2, 4:4:4, more than 8 bits, or fields instead of frames.
fn is_unusual(info: &TrackInfo) -> bool {
    if info.codec != Codec::H264 {
        return false;
    }
    let facts = h264::Config::parse(&info.config).and_then(|config| config.facts());
    facts.is_ok_and(|facts| {
        let depths = facts.depths;
        facts.is_interlaced || depths.chroma > 1 || depths.luma_bits.max(depths.chroma_bits) > 8
    })
}

fn seconds(us: i64) -> f64 {
    let sign = if us < 0 { -1.0 } else { 1.0 };
    sign * Duration::from_micros(us.unsigned_abs()).as_secs_f64()
}

#[cfg(test)]
mod tests;
