//! Cue news on its way into parts (spec media.md 1.5 rules 1 and 3).
//!
//! Invariants
//! - News is carried by the part that holds its T, of the picture or, where there is none, of the
//!   sound; news for a silence by the first part after it.
//! - News for a T that was cut already is not carried: listed cues are in the playlists.

use crate::cue::{AHEAD_COUNT_MAX, CueKind, CueNews};
use crate::time::MediaTime;

use super::segmenter::PartCut;

/// News that may wait: all that may be ahead, and what a part or a gap holds besides.
const NEWS_MAX: usize = 2 * AHEAD_COUNT_MAX;

/// News that no part has carried yet.
#[derive(Debug)]
pub(super) struct News {
    waiting: Vec<CueNews>,
    /// Frames before this are in parts already.
    carried_until: MediaTime,
    /// News had to leave since a part carried some.
    has_lost: bool,
}

impl News {
    pub(super) const fn new() -> Self {
        Self {
            waiting: Vec::new(),
            carried_until: MediaTime::ZERO,
            has_lost: false,
        }
    }

    /// Keeps news until its part comes. True when for the first time in a silence the oldest had to
    /// leave for it.
    pub(super) fn hear(&mut self, news: CueNews) -> bool {
        if time_of(&news) < self.carried_until {
            return false;
        }
        let is_full = self.waiting.len() >= NEWS_MAX;
        if is_full {
            self.waiting.remove(0);
        }
        self.waiting.push(news);
        is_full && !std::mem::replace(&mut self.has_lost, true)
    }

    /// The news whose T is shown in this part.
    pub(super) fn carry(&mut self, part: &PartCut) -> Vec<CueNews> {
        // A picture that is shown later than the next one decoded is still in this part.
        let shown = part.frames.iter().map(|f| f.pts).max();
        let last = part.frames.last().map_or(part.end, |f| f.dts);
        let length = part.end.micros_since(last);
        let shown_until = shown.map_or(part.end, |pts| pts.shifted(length));
        self.carried_until = self.carried_until.max(part.end);
        self.has_lost = false;
        let is_due = |news: &mut CueNews| time_of(news) < shown_until;
        self.waiting.extract_if(.., is_due).collect()
    }
}

/// When it takes effect.
pub(super) fn time_of(news: &CueNews) -> MediaTime {
    match news {
        CueNews::Opened(cue) => cue.t,
        CueNews::Closed { t, .. } => *t,
    }
}

/// Whether playlists show it.
pub(super) fn is_listed(news: &CueNews) -> bool {
    let (CueNews::Opened(cue) | CueNews::Closed { cue, .. }) = news;
    cue.kind == CueKind::Listed
}
