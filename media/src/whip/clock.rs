//! RTP time to the publisher's clock (spec media.md 1.4 rule 6): by arrival at first, by sender
//! reports once both streams have one.
//!
//! Invariants
//! - Picture keeps the line it was given; only sound moves, at most 1 % of the time passed.
//! - Reports that cannot be are ignored.

use tokio::time::Instant;

use crate::frame::Kind;
use crate::time::{SourceTime, Unwrap32, micros};

/// A report may move the sound this far from where it arrived: more is no report of this stream.
const MOVE_US_MAX: i64 = 3_000_000;
const SLEW_PER_CENT: i64 = 1;

/// One stream's line.
#[derive(Clone, Copy, Debug)]
struct Line {
    rate: u32,
    unwrap: Unwrap32,
    /// `source = rtp + offset`.
    offset_us: Option<i64>,
    /// Where it stood by arrival.
    arrival_us: i64,
    /// `ntp = rtp + report`.
    report_us: Option<i64>,
    /// The newest stamp given out.
    last_us: Option<i64>,
}

impl Line {
    fn new(rate: u32) -> Self {
        Self {
            rate,
            unwrap: Unwrap32::default(),
            offset_us: None,
            arrival_us: 0,
            report_us: None,
            last_us: None,
        }
    }

    fn rtp_us(&mut self, rtp_time: u32) -> i64 {
        let ticks = i128::from(self.unwrap.push(rtp_time));
        let us = (ticks * 1_000_000).div_euclid(i128::from(self.rate));
        i64::try_from(us).unwrap_or(i64::MAX)
    }
}

/// The clock of one publisher.
#[derive(Clone, Copy, Debug)]
pub(super) struct RtpClock {
    began: Instant,
    video: Line,
    audio: Line,
}

impl RtpClock {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            video: Line::new(90_000),
            audio: Line::new(48_000),
        }
    }

    fn line(&mut self, kind: Kind) -> &mut Line {
        match kind {
            Kind::Video => &mut self.video,
            Kind::Audio => &mut self.audio,
        }
    }

    /// Where something lies that arrived now with this time.
    pub(super) fn stamp(&mut self, now: Instant, kind: Kind, rtp_time: u32) -> SourceTime {
        let arrived_us = micros(now.saturating_duration_since(self.began));
        let target = self.audio_target();
        let line = self.line(kind);
        let rtp_us = line.rtp_us(rtp_time);
        let offset_us = *line.offset_us.get_or_insert_with(|| {
            line.arrival_us = arrived_us - rtp_us;
            line.arrival_us
        });
        if kind == Kind::Audio
            && let Some(target) = target
            && let Some(last_us) = line.last_us
        {
            let passed = (rtp_us + offset_us - last_us).max(0);
            let most = passed * SLEW_PER_CENT / 100;
            line.offset_us = Some(offset_us + (target - offset_us).clamp(-most, most));
        }
        let source_us = rtp_us + line.offset_us.unwrap_or(offset_us);
        line.last_us = Some(source_us);
        SourceTime::from_micros(source_us)
    }

    /// A sender report: at this NTP time the stream stood at this RTP time.
    pub(super) fn report(&mut self, kind: Kind, ntp: u64, rtp_time: u32) {
        // Zero and all ones say that the sender has no clock.
        if ntp == 0 || ntp == u64::MAX {
            return;
        }
        let line = self.line(kind);
        if line.offset_us.is_none() {
            return;
        }
        let ntp_us = i64::try_from((u128::from(ntp) * 1_000_000) >> 32).unwrap_or(0);
        // A copy: a report must not move the rounds of the count.
        let mut copy = *line;
        line.report_us = Some(ntp_us - copy.rtp_us(rtp_time));
    }

    /// Where the reports put the sound, once both streams have one.
    fn audio_target(&self) -> Option<i64> {
        let (video, audio) = (&self.video, &self.audio);
        let target = video.offset_us? + audio.report_us? - video.report_us?;
        let is_near = (target - audio.arrival_us).abs() <= MOVE_US_MAX;
        (audio.offset_us.is_some() && is_near).then_some(target)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The NTP time of so many microseconds.
    fn ntp(us: u64) -> u64 {
        u64::try_from((u128::from(3_900_000_000_000_000 + us) << 32) / 1_000_000).unwrap()
    }

    struct Play {
        clock: RtpClock,
        began: Instant,
    }

    impl Play {
        fn start() -> Self {
            let began = Instant::now();
            Self {
                clock: RtpClock::new(began),
                began,
            }
        }

        fn stamp(&mut self, ms: u64, kind: Kind, rtp_time: u32) -> i64 {
            let now = self.began + Duration::from_millis(ms);
            self.clock.stamp(now, kind, rtp_time).as_micros()
        }
    }

    #[test]
    fn at_first_each_stream_lies_where_it_arrived_and_rounds_are_no_jump() {
        let mut play = Play::start();
        assert_eq!(play.stamp(40, Kind::Video, u32::MAX - 899), 40_000);
        assert_eq!(play.stamp(75, Kind::Audio, 5), 75_000);
        assert_eq!(play.stamp(90, Kind::Video, 2_100), 40_000 + 33_333);
        assert_eq!(play.stamp(95, Kind::Audio, 965), 95_000);
    }

    #[test]
    fn reports_of_both_move_the_sound_slowly_to_where_it_belongs() {
        let mut play = Play::start();
        play.stamp(0, Kind::Video, 0);
        // It was made with the first picture, but came 50 ms later.
        play.stamp(50, Kind::Audio, 0);
        play.clock.report(Kind::Audio, ntp(0), 0);
        assert_eq!(
            play.stamp(70, Kind::Audio, 960),
            70_000,
            "one report says nothing"
        );
        play.clock.report(Kind::Video, ntp(0), 0);
        let mut last = 70_000;
        for n in 2_u32..600 {
            let at = u64::from(n) * 20 + 50;
            let us = play.stamp(at, Kind::Audio, n * 960);
            assert!(
                (last + 19_700..=last + 20_000).contains(&us),
                "{us} after {last}"
            );
            last = us;
        }
        assert_eq!(last, 599 * 20_000, "in time with the picture");
    }

    #[test]
    fn reports_that_cannot_be_change_nothing() {
        for (ntp_audio, ntp_video) in [(u64::MAX, ntp(0)), (0, ntp(0)), (ntp(0), ntp(60_000_000))] {
            let mut play = Play::start();
            play.stamp(0, Kind::Video, 0);
            play.stamp(50, Kind::Audio, 0);
            play.clock.report(Kind::Audio, ntp_audio, 0);
            play.clock.report(Kind::Video, ntp_video, 0);
            for n in 1_u32..100 {
                let at = u64::from(n) * 20 + 50;
                let us = play.stamp(at, Kind::Audio, n * 960);
                assert_eq!(us, i64::from(n) * 20_000 + 50_000);
            }
        }
    }
}
