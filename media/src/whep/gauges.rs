//! What is measured of a running session. Atomics only: reading them never touches its media.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
}

impl Gauges {
    pub(super) fn set(&self, measured: Measured) {
        let round_trip = measured.round_trip.map(|trip| trip.as_micros().max(1));
        let round_trip_us = round_trip.and_then(|us| u64::try_from(us).ok());
        for (gauge, value) in [
            (&self.estimate_bps, measured.estimate_bps),
            (&self.round_trip_us, round_trip_us.unwrap_or(0)),
            (&self.loss_per_mille, measured.loss_per_mille),
            (&self.packets, measured.packets),
            (&self.bytes, measured.bytes),
            (&self.skipped, measured.skipped),
            (&self.nacks, measured.nacks),
            (&self.retransmitted, measured.retransmitted),
            (&self.keyframe_requests, measured.keyframe_requests),
        ] {
            gauge.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self) -> Measured {
        let read = |gauge: &AtomicU64| gauge.load(Ordering::Relaxed);
        let round_trip_us = Some(read(&self.round_trip_us)).filter(|us| *us > 0);
        Measured {
            estimate_bps: read(&self.estimate_bps),
            round_trip: round_trip_us.map(Duration::from_micros),
            loss_per_mille: read(&self.loss_per_mille),
            packets: read(&self.packets),
            bytes: read(&self.bytes),
            skipped: read(&self.skipped),
            nacks: read(&self.nacks),
            retransmitted: read(&self.retransmitted),
            keyframe_requests: read(&self.keyframe_requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        };
        gauges.set(measured);
        assert_eq!(gauges.read(), measured);
    }
}
