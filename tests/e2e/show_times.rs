//! The truth about a show, from what the publisher sent: which frame has which T.
//!
//! Independent of the server and of the player: FLV tags are read here by their layout alone.

use std::path::Path;

const HEADER_BYTES: usize = 9 + 4;
const TAG_HEADER_BYTES: usize = 11;
const AUDIO: u8 = 8;
const VIDEO: u8 = 9;

/// When each frame of a show is shown, in the order of its burnt-in counter.
#[derive(Debug)]
pub(crate) struct ShowTimes {
    shown_us: Vec<i64>,
}

impl ShowTimes {
    pub(crate) fn read(recording: &Path) -> Self {
        let bytes = std::fs::read(recording).unwrap();
        Self::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Self {
        let mut first_ms = None;
        let mut shown_ms = Vec::new();
        for tag in tags(bytes) {
            if !tag.is_media() {
                continue;
            }
            // T is the distance to the first stamp of either track.
            let first = *first_ms.get_or_insert(tag.stamp_ms);
            if tag.kind == VIDEO {
                shown_ms.push(tag.stamp_ms - first + tag.composition_ms());
            }
        }
        shown_ms.sort_unstable();
        let shown_us = shown_ms.into_iter().map(|ms| ms * 1_000).collect();
        Self { shown_us }
    }

    /// The counter of the first frame at or after a T.
    pub(crate) fn counter_at(&self, t_us: i64) -> i64 {
        let counter = self.shown_us.partition_point(|&shown_us| shown_us < t_us);
        assert!(counter < self.shown_us.len(), "T {t_us} is after the show");
        i64::try_from(counter).unwrap()
    }
}

struct Tag<'a> {
    kind: u8,
    stamp_ms: i64,
    body: &'a [u8],
}

impl Tag<'_> {
    /// Frames, not codec headers or metadata.
    fn is_media(&self) -> bool {
        matches!(self.kind, AUDIO | VIDEO) && self.body.get(1) == Some(&1)
    }

    fn composition_ms(&self) -> i64 {
        let &[a, b, c] = self.body.get(2..5).unwrap() else {
            panic!("three bytes were asked for")
        };
        // Signed, 24 bits.
        i64::from(i32::from_be_bytes([a, b, c, 0]) >> 8)
    }
}

fn tags(bytes: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut at = HEADER_BYTES;
    std::iter::from_fn(move || {
        let header = bytes.get(at..at + TAG_HEADER_BYTES)?;
        let &[kind, l1, l2, l3, t1, t2, t3, t0, ..] = header else {
            return None;
        };
        let length = usize::try_from(u32::from_be_bytes([0, l1, l2, l3])).unwrap();
        let start = at + TAG_HEADER_BYTES;
        let body = bytes.get(start..start + length)?;
        at = start + length + 4;
        let stamp_ms = i64::from(i32::from_be_bytes([t0, t1, t2, t3]));
        Some(Tag {
            kind,
            stamp_ms,
            body,
        })
    })
}
