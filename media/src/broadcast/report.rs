//! What is known of the publish session that is there (spec media.md 8.2).
//!
//! Invariant: reading it never touches the media path; the session puts a new one once a second.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::doctor::{Code, Doctor, Verdict};
use crate::frame::TrackId;
use crate::request::Protocol;

/// Characters of an encoder's name that are kept.
const ENCODER_CHARS_MAX: usize = 128;

/// What a listener knows of its publisher from the start.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The protocol it speaks.
    pub protocol: Protocol,
    /// Bits per second it may send.
    pub bitrate_bps_max: u64,
}

/// What is known of the publish session that is there.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishReport {
    /// Names the session; no right to anything.
    pub id: Arc<str>,
    /// The protocol it speaks; `None` for one inside the process.
    pub protocol: Option<Protocol>,
    /// What the encoder calls itself; the publisher's own words.
    pub encoder: Option<Arc<str>>,
    /// When it was let in.
    pub since: OffsetDateTime,
    /// Mean over 5 s.
    pub bitrate_bps: u64,
    /// Median over 2 s.
    pub frame_rate: Option<f64>,
    /// The newest distance between two keyframes.
    pub gop: Option<Duration>,
    /// How much faster its clock runs than ours, in millionths; known after some minutes.
    pub drift_ppm: Option<f64>,
    /// Thousandths of its packets that were lost for good, where its protocol tells.
    pub loss_per_mille: Option<u64>,
    /// What is wrong with what it sends, the worst first.
    pub verdicts: Vec<Verdict>,
}

/// A track as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackReport {
    /// Which one.
    pub track: TrackId,
    /// Those who read it.
    pub users: usize,
    /// Mean over what the ring holds.
    pub bitrate_bps: u64,
    /// How far it lies behind the publisher's track; `None` before its first frame.
    pub lag: Option<Duration>,
    /// Bytes that the ring holds.
    pub bytes: usize,
    /// FFmpeg's name of the encoder that makes it now.
    pub encoder: Option<&'static str>,
    /// Why it cannot be made, if it cannot.
    pub unavailable: Option<&'static str>,
}

/// What a session gathers about itself.
#[derive(Debug)]
pub(super) struct Notes {
    id: Arc<str>,
    about: Option<About>,
    encoder: Option<Arc<str>>,
    since: OffsetDateTime,
    pub(super) loss_per_mille: Option<u64>,
    pub(super) doctor: Doctor,
}

impl Notes {
    pub(super) fn new(since: OffsetDateTime) -> Self {
        Self {
            id: super::random_text::<SESSION_DIGITS>().into(),
            about: None,
            encoder: None,
            since,
            loss_per_mille: None,
            doctor: Doctor::new(),
        }
    }

    pub(super) const fn introduce(&mut self, about: About) {
        self.about = Some(about);
        let asks_keyframes = matches!(about.protocol, Protocol::Whip);
        self.doctor.expect(about.bitrate_bps_max, asks_keyframes);
    }

    /// The word for the protocol in counters.
    pub(super) fn protocol(&self) -> &'static str {
        self.about.map_or("internal", |about| about.protocol.word())
    }

    /// Whether the name is a new one.
    pub(super) fn name_encoder(&mut self, name: &str) -> bool {
        let is_shown = |c: &char| !c.is_control();
        let shown: String = name
            .chars()
            .filter(is_shown)
            .take(ENCODER_CHARS_MAX)
            .collect();
        let name = Some(shown.trim()).filter(|name| !name.is_empty());
        let is_new = name.is_some() && name != self.encoder.as_deref();
        if is_new {
            self.encoder = name.map(Into::into);
        }
        is_new
    }

    pub(super) fn report(&self, now: Instant, frame_rate: Option<f64>) -> PublishReport {
        PublishReport {
            id: Arc::clone(&self.id),
            protocol: self.about.map(|about| about.protocol),
            encoder: self.encoder.clone(),
            since: self.since,
            bitrate_bps: self.doctor.bitrate_bps(now),
            frame_rate,
            gop: self.doctor.gop(),
            drift_ppm: self.doctor.drift_ppm(),
            loss_per_mille: self.loss_per_mille,
            verdicts: self.doctor.verdicts(),
        }
    }

    pub(super) fn set(&mut self, code: Code, is_so: bool) {
        self.doctor.lasts(code, is_so, 0.0);
    }
}

/// Digits of a session's name: 80 random bits.
const SESSION_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_encoder_is_kept_within_bounds_and_told_once() {
        let mut notes = Notes::new(OffsetDateTime::UNIX_EPOCH);
        assert!(notes.name_encoder(" obs-output\n\u{7} module "));
        assert_eq!(notes.encoder.as_deref(), Some("obs-output module"));
        assert!(!notes.name_encoder("obs-output module"));
        assert!(!notes.name_encoder("\n"));
        assert!(notes.name_encoder(&"x".repeat(1_000)));
        assert_eq!(
            notes.encoder.map(|name| name.len()),
            Some(ENCODER_CHARS_MAX)
        );
    }
}
