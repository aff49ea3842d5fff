//! What the list for seeking far back holds beyond the live one (spec media.md 6.6): segments that
//! have left the live list, by their lines alone. Their bytes are in the store.
//!
//! Invariants
//! - The list is this and the live one behind it, so that numbers and tags are the same.
//! - It leaves in order, as the live one does, and is bounded by its length.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::window::Segment;

/// Which playlist of a rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum List {
    /// The live window.
    Live,
    /// As far back as the store goes, within its bound.
    Dvr,
}

impl List {
    /// The playlist of this name, the last piece of a URL.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Live, Self::Dvr]
            .into_iter()
            .find(|list| list.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live.m3u8",
            Self::Dvr => "dvr.m3u8",
        }
    }
}

/// The segments before those of a live list.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Length of the whole list; zero when there is none.
    length: Duration,
    pub(super) segments: VecDeque<Segment>,
    pub(super) discontinuity_sequence: u64,
    /// Numbers of segments that the store did not take, still in the live list.
    lost: BTreeSet<u64>,
}

impl Past {
    pub(super) const fn new(length: Duration) -> Self {
        Self {
            length,
            segments: VecDeque::new(),
            discontinuity_sequence: 0,
            lost: BTreeSet::new(),
        }
    }

    pub(super) const fn is_kept(&self) -> bool {
        !self.length.is_zero()
    }

    /// A segment leaves the live list, of which `live` is the rest.
    pub(super) fn push(&mut self, segment: &Segment, live: &VecDeque<Segment>) {
        if !self.is_kept() {
            return;
        }
        let mut bare = Segment {
            parts: Vec::new(),
            bytes: Bytes::new(),
            ..segment.clone()
        };
        if self.lost.remove(&bare.msn) {
            forget_media(&mut bare);
        }
        self.segments.push_back(bare);
        let all = self.segments.iter().chain(live);
        let mut lasts: Duration = all.map(|s| s.duration).sum();
        while let Some(oldest) = self.segments.front() {
            lasts = lasts.saturating_sub(oldest.duration);
            if lasts < self.length {
                break;
            }
            self.segments.pop_front();
            let next = self.segments.front().or_else(|| live.front());
            // The tag leaves with its segment: what follows is as many discontinuities in.
            let follows = next.is_some_and(|s| s.is_discontinuity);
            self.discontinuity_sequence += u64::from(follows);
        }
    }

    /// The store did not take a segment: a gap, once it cannot be fetched from memory.
    pub(super) fn lose(&mut self, msn: u64) {
        if !self.is_kept() {
            return;
        }
        if self.segments.back().is_none_or(|newest| newest.msn < msn) {
            self.lost.insert(msn);
            return;
        }
        let at = self.segments.binary_search_by_key(&msn, |s| s.msn);
        if let Some(segment) = at.ok().and_then(|at| self.segments.get_mut(at)) {
            forget_media(segment);
        }
    }

    /// Whether this segment is listed, and in the store.
    pub(super) fn holds(&self, msn: u64) -> bool {
        let at = self.segments.binary_search_by_key(&msn, |s| s.msn);
        let segment = at.ok().and_then(|at| self.segments.get(at));
        segment.is_some_and(|segment| !segment.is_gap)
    }

    /// Whether a listed segment needs this init section.
    pub(super) fn needs_init(&self, number: u32) -> bool {
        self.segments.iter().any(|s| s.init == Some(number))
    }
}

/// Who begins to read behind it knows of no init section either.
const fn forget_media(segment: &mut Segment) {
    segment.is_gap = true;
    segment.init = None;
}
