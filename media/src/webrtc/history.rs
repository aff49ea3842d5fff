//! What was sent, so that it can be sent again (spec media.md 4.4): from a bounded history, each
//! packet at most once a round trip, and no more than a fifth of what is sent anyway.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::frame::RtpPayload;

/// A packet is not sent again within this, however short the way is.
const AGAIN_MIN: Duration = Duration::from_millis(50);
/// Of each so many bytes sent, one may be sent again.
const SHARE: usize = 5;
/// What may be saved up, and what is there at the start.
const SAVED_BYTES_MAX: usize = 128 << 10;
const SAVED_BYTES_AT_START: usize = 16 << 10;

/// The packets of one frame.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Number of the first packet, with the rounds of its sequence number.
    pub(crate) first: u64,
    pub(crate) timestamp: u32,
    pub(crate) payload_type: u8,
    pub(crate) payloads: Arc<[RtpPayload]>,
    /// What stands in the headers beside; see [`super::stream`].
    pub(crate) marks: Marks,
    /// Packets without content.
    pub(crate) is_padding: bool,
}

/// What the headers of a frame's packets carry in extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// NTP time of capture, in the first packet, with the name of the section.
    pub(crate) captured: Option<u64>,
    /// The number of the first packet among all of the connection.
    pub(crate) transport: Option<u16>,
}

/// The newest packets of one stream.
#[derive(Debug)]
pub(crate) struct History {
    sent: VecDeque<Sent>,
    packets: usize,
    packets_max: usize,
    /// When a packet was last sent again, by number modulo the bound; made with the first loss.
    again: Vec<Option<Instant>>,
}

impl History {
    pub(crate) const fn new(packets_max: usize) -> Self {
        Self {
            sent: VecDeque::new(),
            packets: 0,
            packets_max,
            again: Vec::new(),
        }
    }

    /// Remembers a frame; the oldest leave.
    pub(crate) fn push(&mut self, sent: Sent) {
        if !self.again.is_empty() {
            for number in (sent.first..).take(sent.payloads.len()) {
                let slot = self.slot(number);
                self.again[slot] = None;
            }
        }
        self.packets += sent.payloads.len();
        self.sent.push_back(sent);
        while let Some(oldest) = self.sent.front() {
            let left = self.packets - oldest.payloads.len();
            if left < self.packets_max {
                break;
            }
            self.packets = left;
            self.sent.pop_front();
        }
    }

    /// The packet of a sequence number: its frame, and its place in it.
    pub(crate) fn find(&self, sequence: u16) -> Option<(&Sent, usize)> {
        let newest = self.sent.back()?;
        let count = u64::try_from(newest.payloads.len()).ok()?;
        let head = newest.first + count;
        let low = u16::try_from(head & 0xffff).ok()?;
        let back = u64::from(low.wrapping_sub(sequence));
        let reach = u64::try_from(self.packets_max).ok()?;
        if back == 0 || back > reach {
            return None;
        }
        let number = head.checked_sub(back)?;
        let at = self.sent.partition_point(|sent| sent.first <= number);
        let sent = self.sent.get(at.checked_sub(1)?)?;
        let place = usize::try_from(number - sent.first).ok()?;
        (place < sent.payloads.len()).then_some((sent, place))
    }

    /// Whether a packet may be sent again now; if so, it counts as sent.
    pub(crate) fn may_repeat(
        &mut self,
        now: Instant,
        number: u64,
        round_trip: Option<Duration>,
    ) -> bool {
        if self.again.is_empty() {
            self.again = vec![None; self.packets_max];
        }
        let slot = self.slot(number);
        let pause = round_trip.unwrap_or_default().max(AGAIN_MIN);
        let is_due = self.again[slot].is_none_or(|at| now.saturating_duration_since(at) >= pause);
        if is_due {
            self.again[slot] = Some(now);
        }
        is_due
    }

    fn slot(&self, number: u64) -> usize {
        usize::try_from(number).unwrap_or(0) % self.packets_max
    }
}

/// Bytes that may be sent again.
#[derive(Debug)]
pub(crate) struct Allowance {
    bytes: usize,
}

impl Allowance {
    pub(crate) const fn new() -> Self {
        let bytes = SAVED_BYTES_AT_START;
        Self { bytes }
    }

    /// So much was sent for the first time.
    pub(crate) fn earn(&mut self, bytes: usize) {
        self.bytes = (self.bytes + bytes / SHARE).min(SAVED_BYTES_MAX);
    }

    /// Whether so much may be sent again; if so, it is spent.
    pub(crate) fn spend(&mut self, bytes: usize) -> bool {
        let left = self.bytes.checked_sub(bytes);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sent(first: u64, packets: usize) -> Sent {
        let payloads: Vec<RtpPayload> = (first..)
            .take(packets)
            .map(|n| Bytes::from(n.to_string()).into())
            .collect();
        Sent {
            first,
            timestamp: 0,
            payload_type: 96,
            payloads: payloads.into(),
            marks: Marks::default(),
            is_padding: false,
        }
    }

    fn found(history: &History, sequence: u16) -> Option<String> {
        let (sent, place) = history.find(sequence)?;
        Some(String::from_utf8(sent.payloads[place].body.to_vec()).unwrap())
    }

    #[test]
    fn a_packet_is_found_over_rounds_until_it_is_too_old() {
        let mut history = History::new(512);
        assert_eq!(found(&history, 0), None);
        let mut next = 65_000_u64;
        for packets in (1..=9).cycle().take(400) {
            history.push(sent(next, packets));
            next += u64::try_from(packets).unwrap();
            let newest = next - 1;
            for back in 0..505_u64 {
                let number = newest - back;
                let sequence = u16::try_from(number % 65_536).unwrap();
                let expected = (number >= 65_000).then(|| number.to_string());
                assert_eq!(
                    found(&history, sequence),
                    expected,
                    "{back} before {newest}"
                );
            }
            let ahead = u16::try_from(next % 65_536).unwrap();
            assert_eq!(found(&history, ahead), None, "not yet sent");
            let far = u16::try_from((next + 65_536 - 600) % 65_536).unwrap();
            assert_eq!(found(&history, far), None, "long ago");
        }
        assert!(history.packets < 512 + 9);
    }

    #[test]
    fn a_frame_larger_than_the_history_is_there_as_far_as_it_reaches() {
        let mut history = History::new(128);
        history.push(sent(10, 1_000));
        assert_eq!(found(&history, 1_009).as_deref(), Some("1009"));
        assert_eq!(found(&history, 882).as_deref(), Some("882"));
        assert_eq!(found(&history, 881), None);
        history.push(sent(1_010, 1));
        assert_eq!(found(&history, 1_010).as_deref(), Some("1010"));
        assert_eq!(found(&history, 1_009).as_deref(), Some("1009"));
        history.push(sent(1_011, 127));
        assert_eq!(found(&history, 1_009), None);
        assert_eq!(history.sent.len(), 2);
    }

    #[test]
    fn a_packet_is_sent_again_once_a_round_trip() {
        let mut history = History::new(128);
        history.push(sent(0, 128));
        let now = tokio::time::Instant::now().into_std();
        let ms = |ms| now + Duration::from_millis(ms);
        for (trip_ms, pause) in [(0, 50), (20, 50), (200, 200)] {
            let trip = Some(Duration::from_millis(trip_ms));
            let number = trip_ms;
            assert!(history.may_repeat(ms(0), number, trip));
            assert!(!history.may_repeat(ms(pause - 1), number, trip));
            assert!(history.may_repeat(ms(0), number + 1, trip), "another one");
            assert!(history.may_repeat(ms(pause), number, trip));
        }
        // A new packet in the place of an old one was never sent again.
        history.push(sent(128, 1));
        assert!(history.may_repeat(ms(200), 128, None));
    }

    #[test]
    fn no_more_than_a_fifth_is_sent_again() {
        let mut allowance = Allowance::new();
        while allowance.spend(1_000) {}
        let (mut sent, mut again) = (0, 0);
        for _ in 0..10_000 {
            allowance.earn(1_200);
            sent += 1_200;
            while allowance.spend(1_200) {
                again += 1_200;
            }
        }
        assert!(again * 5 <= sent + 1_200, "{again} of {sent}");
        assert!(again * 5 > sent - 12_000, "{again} of {sent}");
        allowance.earn(usize::MAX / 2);
        assert!(!allowance.spend(SAVED_BYTES_MAX + 1));
    }
}
