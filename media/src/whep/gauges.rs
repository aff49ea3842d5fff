//! What is measured of a running session. Atomics only: reading them never touches its media.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::terms::Rendition;
use crate::time::MediaTime;

/// What was measured of a session, at most a second ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// What its path is believed to carry, in bits per second. It grows beyond what is sent while
    /// nothing speaks against it: read it as a bound, not as a capacity.
    pub estimate_bps: u64,
    /// To the viewer and back; `None` before its first report.
    pub round_trip: Option<Duration>,
    /// The part of the picture's packets that was lost last, in thousandths.
    pub loss_per_mille: u64,
    /// Datagrams sent, and their bytes.
    pub packets: u64,
    /// Bytes of the datagrams.
    pub bytes: u64,
    /// Pictures passed over.
    pub skipped: u64,
    /// Packets that the viewer asked for again.
    pub nacks: u64,
    /// Packets that were sent again.
    pub retransmitted: u64,
    /// Times the viewer could not go on without a keyframe.
    pub keyframe_requests: u64,
    /// Frames of picture and sound sent.
    pub frames: u64,
    /// How often the picture moved to another rendition.
    pub switches: u64,
    /// What is shown; `None` before the first picture and while there is only sound.
    pub rendition: Option<Rendition>,
    /// How long the picture that is due has waited.
    pub pacer: Duration,
    /// From the offer to the first frame sent; `None` before it.
    pub first_frame: Option<Duration>,
    /// How far the newest frame sent lies behind what is now.
    pub lag: Duration,
}

/// Where a session writes it down.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    estimate_bps: AtomicU64,
    /// Zero: not known.
    round_trip_us: AtomicU64,
    loss_per_mille: AtomicU64,
    packets: AtomicU64,
    bytes: AtomicU64,
    skipped: AtomicU64,
    nacks: AtomicU64,
    retransmitted: AtomicU64,
    keyframe_requests: AtomicU64,
    frames: AtomicU64,
    switches: AtomicU64,
    /// Zero: none; one: the source; else the lines of a rung.
    rendition: AtomicU64,
    pacer_us: AtomicU64,
    /// Zero: none yet.
    first_frame_us: AtomicU64,
    lag_us: AtomicU64,
    /// One more than the microseconds; zero: nothing was sent.
    sent_us: AtomicU64,
}

impl Gauges {
    pub(super) fn set(&self, measured: Measured) {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let known_us = |time: Option<Duration>| time.map_or(0, |time| us(time).max(1));
        let rendition = match measured.rendition {
            None => 0,
            Some(Rendition::Source) => 1,
            Some(Rendition::Rung(lines)) => lines.into(),
        };
        for (gauge, value) in [
            (&self.estimate_bps, measured.estimate_bps),
            (&self.round_trip_us, known_us(measured.round_trip)),
            (&self.loss_per_mille, measured.loss_per_mille),
            (&self.packets, measured.packets),
            (&self.bytes, measured.bytes),
            (&self.skipped, measured.skipped),
            (&self.nacks, measured.nacks),
            (&self.retransmitted, measured.retransmitted),
            (&self.keyframe_requests, measured.keyframe_requests),
            (&self.frames, measured.frames),
            (&self.switches, measured.switches),
            (&self.rendition, rendition),
            (&self.pacer_us, us(measured.pacer)),
            (&self.first_frame_us, known_us(measured.first_frame)),
            (&self.lag_us, us(measured.lag)),
        ] {
            gauge.store(value, Ordering::Relaxed);
        }
    }

    /// A frame of this T was sent; noted at once, since a buyer may name it the next moment.
    pub(super) fn sent(&self, t: MediaTime) {
        let us = u64::try_from(t.as_micros()).unwrap_or(0);
        self.sent_us.fetch_max(us + 1, Ordering::Relaxed);
    }

    /// T of the newest frame sent.
    pub(super) fn newest(&self) -> Option<MediaTime> {
        let us = self.sent_us.load(Ordering::Relaxed).checked_sub(1)?;
        i64::try_from(us).ok().map(MediaTime::from_micros)
    }

    pub(super) fn read(&self) -> Measured {
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let time = |gauge: &AtomicU64| Duration::from_micros(read(gauge));
        let known = |gauge: &AtomicU64| Some(time(gauge)).filter(|time| !time.is_zero());
        let rendition = match read(&self.rendition) {
            0 => None,
            1 => Some(Rendition::Source),
            lines => u16::try_from(lines).ok().map(Rendition::Rung),
        };
        Measured {
            estimate_bps: read(&self.estimate_bps),
            round_trip: known(&self.round_trip_us),
            loss_per_mille: read(&self.loss_per_mille),
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            skipped: read(&self.skipped),
            nacks: read(&self.nacks),
            retransmitted: read(&self.retransmitted),
            keyframe_requests: read(&self.keyframe_requests),
            frames: read(&self.frames),
            switches: read(&self.switches),
            rendition,
            pacer: time(&self.pacer_us),
            first_frame: known(&self.first_frame_us),
            lag: time(&self.lag_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_frame_is_never_an_older_one() {
        let gauges = Gauges::default();
        assert_eq!(gauges.newest(), None);
        for us in [0, 40_000, 20_000] {
            gauges.sent(MediaTime::from_micros(us));
        }
        assert_eq!(gauges.newest(), Some(MediaTime::from_micros(40_000)));
    }

    #[test]
    fn what_was_written_down_is_what_is_read() {
        let gauges = Gauges::default();
        assert_eq!(gauges.read(), Measured::default());
        let measured = Measured {
            estimate_bps: 1,
            round_trip: Some(Duration::from_millis(30)),
            loss_per_mille: 3,
            packets: 4,
            bytes: 5,
            skipped: 6,
            nacks: 7,
            retransmitted: 8,
            keyframe_requests: 9,
            frames: 10,
            switches: 11,
            rendition: Some(Rendition::Rung(480)),
            pacer: Duration::from_millis(12),
            first_frame: Some(Duration::from_millis(13)),
            lag: Duration::from_millis(14),
        };
        gauges.set(measured);
        assert_eq!(gauges.read(), measured);
        let source = Measured {
            rendition: Some(Rendition::Source),
            ..measured
        };
        gauges.set(source);
        assert_eq!(gauges.read(), source);
    }
}
