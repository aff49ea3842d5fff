//! The truth about a show, from what the publisher sent: which frame has which T.
//!
//! Independent of the server and of the player.

use std::path::Path;

use bytes::Bytes;

use crate::flv::{VIDEO, tags};

/// When each frame of a show is shown, in the order of its burnt-in counter.
#[derive(Debug)]
pub(crate) struct ShowTimes {
    shown_us: Vec<i64>,
}

impl ShowTimes {
    pub(crate) fn read(recording: &Path) -> Self {
        Self::of(&std::fs::read(recording).unwrap().into())
    }

    fn of(bytes: &Bytes) -> Self {
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
