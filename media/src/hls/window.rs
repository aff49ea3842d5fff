//! The live window of one rendition: what is listed, what can be fetched.
//!
//! Invariants
//! - Changes are appends, removals in order, and increments (I24).
//! - A media name never denotes two contents (I28): numbers are never reused.
//! - Memory is bounded: [`Bounds`]. Short of it, what is no longer listed leaves first, then the
//!   oldest of the list, which keeps [`Bounds::length_min`].

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::dvr::Past;
use crate::time::MediaTime;

/// Bytes of one rendition's window.
const BYTES_MAX: usize = 128 << 20;
/// How much longer than its own length and the window's a segment stays, after it was listed.
const STAYS_EXTRA: Duration = Duration::from_secs(4);
/// Segments this close are one after the other; a frame of sound may lie across their bound.
const JOINED_US: i64 = 100_000;

/// How much a window holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Length of the list.
    pub(super) length: Duration,
    /// The list stays this long even when memory is short.
    pub(super) length_min: Duration,
    /// Bytes of all that can be fetched.
    pub(super) bytes_max: usize,
    /// Length of the list that reaches farther back; zero when there is none.
    pub(super) dvr: Duration,
}

impl Bounds {
    /// Without a list that reaches farther back.
    pub(super) fn new(length: Duration, target: Duration) -> Self {
        Self {
            length,
            length_min: target * 3,
            bytes_max: BYTES_MAX,
            dvr: Duration::ZERO,
        }
    }
}

/// A part, complete.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) number: u64,
    pub(super) duration: Duration,
    pub(super) is_independent: bool,
    /// Empty in a gap.
    pub(super) bytes: Bytes,
}

/// A segment; complete once it has `bytes`.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) msn: u64,
    pub(super) start: MediaTime,
    /// When its first picture is shown.
    pub(super) shown_from: MediaTime,
    pub(super) wall: OffsetDateTime,
    pub(super) is_discontinuity: bool,
    /// An interval without media.
    pub(super) is_gap: bool,
    /// Number of its init section; a gap has that of the segment before it, if any.
    pub(super) init: Option<u32>,
    pub(super) parts: Vec<Part>,
    pub(super) duration: Duration,
    pub(super) bytes: Bytes,
    pub(super) listed: Option<Instant>,
}

/// Where a new segment begins.
pub(super) struct Opening {
    pub(super) start: MediaTime,
    pub(super) shown_from: MediaTime,
    pub(super) wall: OffsetDateTime,
    pub(super) is_discontinuity: bool,
    /// No media will come in it.
    pub(super) is_gap: bool,
}

/// The window of one rendition.
#[derive(Debug)]
pub(super) struct Window {
    bounds: Bounds,
    /// Complete segments, listed.
    pub(super) segments: VecDeque<Segment>,
    pub(super) open: Option<Segment>,
    /// Complete segments, no longer listed, still served.
    gone: VecDeque<Segment>,
    /// What only the list of the DVR has.
    pub(super) past: Past,
    pub(super) inits: VecDeque<(u32, Bytes)>,
    /// Where the newest complete segment ended.
    ended_at: Option<MediaTime>,
    /// How far the list reaches; it never goes back.
    pub(super) edge: MediaTime,
    next_msn: u64,
    next_part: u64,
    media_parts: u64,
    next_init: u32,
    pub(super) discontinuity_sequence: u64,
    bytes: usize,
    pub(super) is_ended: bool,
}

impl Window {
    pub(super) const fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            segments: VecDeque::new(),
            open: None,
            gone: VecDeque::new(),
            past: Past::new(bounds.dvr),
            inits: VecDeque::new(),
            ended_at: None,
            edge: MediaTime::ZERO,
            next_msn: 0,
            next_part: 0,
            media_parts: 0,
            next_init: 0,
            discontinuity_sequence: 0,
            bytes: 0,
            is_ended: false,
        }
    }

    /// The window of a rung that begins now: what `src` lists has its number here.
    pub(super) fn beside(bounds: Bounds, src: &Self) -> Self {
        Self {
            next_msn: src.media_sequence(),
            discontinuity_sequence: src.discontinuity_sequence,
            ..Self::new(bounds)
        }
    }

    /// The listed segments, the open one last.
    pub(super) fn listed_segments(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter().chain(&self.open)
    }

    /// Media without a gap up to the edge; none before a segment of it is whole. Shaka looks into
    /// one before it plays.
    pub(super) fn playable(&self) -> Duration {
        if self.segments.back().is_none_or(|s| s.is_gap) {
            return Duration::ZERO;
        }
        let newest = self.listed_segments().rev().take_while(|s| !s.is_gap);
        newest
            .flat_map(|s| &s.parts)
            .map(|part| part.duration)
            .sum()
    }

    /// A new init section; the segments from now on use it. An equal one changes nothing.
    pub(super) fn set_init(&mut self, init: Bytes) {
        if self.inits.back().is_some_and(|last| last.1 == init) {
            return;
        }
        self.inits.push_back((self.next_init, init));
        self.next_init += 1;
    }

    pub(super) fn begin(&mut self, opening: Opening) {
        let init = self.inits.back().map(|i| i.0);
        self.open = Some(Segment {
            msn: self.next_msn,
            start: opening.start,
            shown_from: opening.shown_from,
            wall: opening.wall,
            is_discontinuity: opening.is_discontinuity,
            is_gap: opening.is_gap,
            init,
            parts: Vec::new(),
            duration: Duration::ZERO,
            bytes: Bytes::new(),
            listed: None,
        });
        self.next_msn += 1;
    }

    /// Lists a part; without bytes it is one of a gap.
    pub(super) fn append(&mut self, duration: Duration, is_independent: bool, bytes: Bytes) {
        let Some(open) = &mut self.open else { return };
        self.bytes += bytes.len();
        self.media_parts += u64::from(!open.is_gap);
        open.parts.push(Part {
            number: self.next_part,
            duration,
            is_independent,
            bytes,
        });
        self.next_part += 1;
        let lasts: Duration = open.parts.iter().map(|p| p.duration).sum();
        self.edge = self.edge.max(open.start + lasts);
    }

    /// Completes the open segment. Returns how many segments left the list too early, for want of
    /// memory.
    pub(super) fn end(&mut self, now: Instant, end: MediaTime) -> usize {
        let Some(mut segment) = self.open.take() else {
            return 0;
        };
        // Sound begins with the picture's segment, but its frames only where its last one ended.
        let before = self.ended_at.filter(|at| {
            let apart = segment.start.micros_since(*at).abs();
            apart < JOINED_US
        });
        segment.duration = end.saturating_since(before.unwrap_or(segment.start));
        self.ended_at = Some(end);
        self.edge = self.edge.max(end);
        segment.listed = Some(now);
        segment.bytes = joined(&mut segment.parts);
        self.segments.push_back(segment);
        self.evict(now)
    }

    fn evict(&mut self, now: Instant) -> usize {
        while self.outlasts(self.bounds.length) {
            self.unlist();
        }
        let is_over = |s: &Segment| {
            let stays = s.duration + self.bounds.length + STAYS_EXTRA;
            s.listed
                .is_none_or(|at| now.saturating_duration_since(at) > stays)
        };
        for _ in 0..self.gone.iter().take_while(|s| is_over(s)).count() {
            self.forget();
        }
        let mut early = 0;
        while self.bytes > self.bounds.bytes_max {
            if self.gone.is_empty() {
                if !self.outlasts(self.bounds.length_min) {
                    break;
                }
                self.unlist();
                early += 1;
            }
            self.forget();
        }
        let oldest = self.all().find_map(|s| s.init).unwrap_or(0);
        while self.inits.len() > 1 && self.inits.front().is_some_and(|i| i.0 < oldest) {
            self.inits.pop_front();
        }
        early
    }

    /// Whether the list is that long even without its oldest segment.
    fn outlasts(&self, length: Duration) -> bool {
        let listed: Duration = self.segments.iter().map(|s| s.duration).sum();
        let oldest = self.segments.front();
        oldest.is_some_and(|s| listed.saturating_sub(s.duration) >= length)
    }

    /// Takes the oldest segment off the list; it can still be fetched.
    fn unlist(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            // The tag leaves with its segment: what follows is as many discontinuities in.
            let follows = self.segments.front().is_some_and(|s| s.is_discontinuity);
            self.discontinuity_sequence += u64::from(follows);
            self.past.push(&segment, &self.segments);
            self.gone.push_back(segment);
        }
    }

    /// Lets go of the oldest segment that is no longer listed.
    fn forget(&mut self) {
        if let Some(segment) = self.gone.pop_front() {
            self.bytes -= segment.bytes.len();
        }
    }

    /// All segments that can be fetched, oldest first, the open one last.
    fn all(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.gone.iter().chain(&self.segments).chain(&self.open)
    }

    pub(super) fn init(&self, number: u32) -> Option<Bytes> {
        self.inits
            .iter()
            .find(|i| i.0 == number)
            .map(|i| i.1.clone())
    }

    /// A complete segment.
    pub(super) fn segment(&self, msn: u64) -> Option<Bytes> {
        let complete = self.gone.iter().chain(&self.segments);
        complete
            .rev()
            .find(|s| s.msn == msn && !s.is_gap)
            .map(|s| s.bytes.clone())
    }

    pub(super) fn part(&self, number: u64) -> Option<Bytes> {
        let parts = self.all().rev().flat_map(|s| s.parts.iter().rev());
        parts
            .take(4_096)
            .find(|p| p.number == number)
            .map(|p| p.bytes.clone())
            .filter(|bytes| !bytes.is_empty())
    }

    /// The number of the next part, which the playlist hints at.
    pub(super) const fn hinted_part(&self) -> u64 {
        self.next_part
    }

    /// `EXT-X-MEDIA-SEQUENCE`: of the first segment in the list, or of the one that will be.
    pub(super) fn media_sequence(&self) -> u64 {
        let first = self.segments.front().or(self.open.as_ref());
        first.map_or(self.next_msn, |s| s.msn)
    }

    /// Sequence number of the newest complete segment.
    pub(super) fn last_complete(&self) -> Option<u64> {
        self.segments.back().map(|s| s.msn)
    }

    /// Parts listed in all.
    pub(super) const fn parts_made(&self) -> u64 {
        self.next_part
    }

    /// Bytes of all that can be fetched.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Length of the list.
    pub(super) fn listed(&self) -> Duration {
        self.listed_segments()
            .flat_map(|s| &s.parts)
            .map(|part| part.duration)
            .sum()
    }

    /// Parts with media listed in all.
    pub(super) const fn media_parts(&self) -> u64 {
        self.media_parts
    }

    /// The newest part: sequence number of its segment, index within it.
    pub(super) fn last_part(&self) -> Option<(u64, usize)> {
        let newest = self.segments.iter().chain(&self.open).rev();
        newest
            .filter(|s| !s.parts.is_empty())
            .map(|s| (s.msn, s.parts.len() - 1))
            .next()
    }
}

/// Joins the parts into the segment's bytes and makes them views of it, so that nothing is held
/// twice (I22).
fn joined(parts: &mut [Part]) -> Bytes {
    let size = parts.iter().map(|p| p.bytes.len()).sum();
    let mut all = BytesMut::with_capacity(size);
    for part in &*parts {
        all.extend_from_slice(&part.bytes);
    }
    let all = all.freeze();
    let mut from = 0;
    for part in parts {
        let to = from + part.bytes.len();
        part.bytes = all.slice(from..to);
        from = to;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    /// Two-second segments of one megabyte each, one after the other.
    fn filled(bounds: Bounds, segments: i64) -> Window {
        let mut window = Window::new(bounds);
        for n in 0..segments {
            let at = |n: i64| MediaTime::from_micros(n * 2_000_000);
            window.begin(Opening {
                start: at(n),
                shown_from: at(n),
                wall: OffsetDateTime::UNIX_EPOCH,
                is_discontinuity: false,
                is_gap: false,
            });
            window.append(Duration::from_secs(2), true, Bytes::from(vec![0; MB]));
            window.end(Instant::now(), at(n + 1));
        }
        window
    }

    const BOUNDS: Bounds = Bounds {
        length: Duration::from_secs(40),
        length_min: Duration::from_secs(12),
        bytes_max: 128 * MB,
        dvr: Duration::ZERO,
    };

    #[tokio::test(start_paused = true)]
    async fn short_of_memory_what_is_no_longer_listed_leaves_first() {
        let bytes_max = 25 * MB;
        let window = filled(
            Bounds {
                bytes_max,
                ..BOUNDS
            },
            60,
        );
        assert_eq!(window.segments.len(), 20, "the list is whole");
        assert_eq!(window.gone.len(), 5);
        assert_eq!(window.media_sequence(), 40);
    }

    #[tokio::test(start_paused = true)]
    async fn short_of_more_memory_the_list_gets_shorter_one_segment_at_a_time() {
        let bytes_max = 10 * MB;
        let window = filled(
            Bounds {
                bytes_max,
                ..BOUNDS
            },
            60,
        );
        assert_eq!((window.segments.len(), window.gone.len()), (10, 0));
        assert_eq!(window.media_sequence(), 50);
        assert!(window.segment(50).is_some(), "what is listed is there");
    }

    #[tokio::test(start_paused = true)]
    async fn three_target_durations_stay_however_little_memory_there_is() {
        let bytes_max = MB;
        let window = filled(
            Bounds {
                bytes_max,
                ..BOUNDS
            },
            60,
        );
        assert_eq!((window.segments.len(), window.gone.len()), (6, 0));
        assert_eq!(window.bytes, 6 * MB);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_list_names_the_segment_that_comes_next() {
        let mut window = filled(BOUNDS, 3);
        window.segments.clear();
        assert_eq!(window.media_sequence(), 3);
    }
}
