//! What a stream shows now: its windows, date ranges and rungs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use super::directives::Skip;
use super::dvr::List;
use super::multivariant::Multivariant;
use super::playlist::DateRange;
use super::rendition::{Rendered, RenditionId};
use super::window::Window;
use crate::cue::CueNews;

/// Date ranges kept at most; the core keeps fewer open.
const RANGES_MAX: usize = 1_000;
/// Date ranges that only the list of the DVR has, as many as a replay; the oldest leaves.
const PAST_RANGES_MAX: usize = 10_000;
/// A rung whose playlist nobody asked for in so long has no viewer (spec media.md 8.3).
const RUNG_STAYS: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) windows: BTreeMap<RenditionId, Window>,
    /// Rungs that somebody asked for, by their lines.
    pub(super) rungs: BTreeMap<u16, Rung>,
    pub(super) ranges: Vec<DateRange>,
    /// Date ranges that left, newest last.
    pub(super) removed: VecDeque<(String, Instant)>,
    /// Those that left the live list and not yet that of the DVR; and those that left that too.
    past_ranges: VecDeque<DateRange>,
    past_removed: VecDeque<(String, Instant)>,
    pub(super) multivariant: Option<Multivariant>,
    /// Each segment of a rung begins with a keyframe, or is a gap.
    pub(super) has_independent_rungs: bool,
    pub(super) rendered: HashMap<(RenditionId, List, Option<Skip>), Arc<Rendered>>,
    pub(super) close: Option<Close>,
}

/// A rung that somebody asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rung {
    pub(super) asked: Instant,
    pub(super) state: RungState,
}

/// What there is of a rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RungState {
    /// Nobody plays it; its list goes on with gaps.
    Idle,
    /// Somebody waits until there is enough of it.
    Starting,
    Ready,
    /// It cannot be made now.
    Refused,
}

/// Why nothing is added any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The broadcast is over: the lists say so.
    Over,
    /// The process stops: the lists stay open, for the next one, but nobody is kept waiting.
    Stopped,
}

impl Shown {
    pub(super) fn is_over(&self) -> bool {
        self.close == Some(Close::Over)
    }

    pub(super) fn window(&self, rendition: RenditionId) -> Option<&Window> {
        self.windows.get(&rendition)
    }

    /// The rendition that all others are cut by.
    pub(super) fn leading(&self) -> Option<&Window> {
        self.window(RenditionId::Src)
            .or_else(|| self.window(RenditionId::Aac))
    }

    /// What a player can go to at once.
    pub(super) fn playable(&self) -> impl Iterator<Item = (RenditionId, &Window)> {
        let is_ready = |id: RenditionId| match id {
            RenditionId::Rung(lines) => {
                let rung = self.rungs.get(&lines);
                rung.is_some_and(|rung| rung.state == RungState::Ready)
            }
            RenditionId::Src | RenditionId::Aac => true,
        };
        let all = self.windows.iter().map(|(id, window)| (*id, window));
        all.filter(move |(id, _)| is_ready(*id))
    }

    pub(super) fn is_starting(&self, lines: u16) -> bool {
        self.rung(lines) == Some(RungState::Starting)
    }

    pub(super) fn is_refused(&self, lines: u16) -> bool {
        self.rung(lines) == Some(RungState::Refused)
    }

    fn rung(&self, lines: u16) -> Option<RungState> {
        self.rungs.get(&lines).map(|rung| rung.state)
    }

    /// Somebody wants to play a rung: true when it has to be started for that. `None` when there
    /// is none of so many lines.
    pub(super) fn ask(&mut self, lines: u16, now: Instant) -> Option<bool> {
        let multivariant = self.multivariant.as_ref();
        multivariant.filter(|m| m.has_rung(lines))?;
        let (asked, state) = (now, RungState::Idle);
        let rung = self.rungs.entry(lines).or_insert(Rung { asked, state });
        rung.asked = now;
        let is_new = rung.state == RungState::Idle;
        if is_new {
            rung.state = RungState::Starting;
        }
        Some(is_new)
    }

    pub(super) fn wanted_rungs(&mut self, now: Instant) -> Vec<u16> {
        for rung in self.rungs.values_mut() {
            if now >= rung.asked + RUNG_STAYS {
                rung.state = RungState::Idle;
            }
        }
        self.wanted().map(|(lines, _)| *lines).collect()
    }

    pub(super) fn rung_deadline(&self) -> Option<Instant> {
        self.wanted().map(|(_, rung)| rung.asked + RUNG_STAYS).min()
    }

    fn wanted(&self) -> impl Iterator<Item = (&u16, &Rung)> {
        let all = self.rungs.iter();
        all.filter(|(_, rung)| rung.state != RungState::Idle)
    }

    /// Shows news of a listed cue; `date` is the time of day of its T.
    pub(super) fn tell(&mut self, news: &CueNews, date: OffsetDateTime) {
        let now = Instant::now();
        match news {
            CueNews::Opened(cue) => {
                if self.ranges.len() >= RANGES_MAX {
                    let oldest = self.ranges.remove(0);
                    self.remember_removed(oldest);
                }
                self.ranges.push(DateRange {
                    cue: Arc::clone(cue),
                    start: date,
                    end: None,
                    changed: now,
                });
            }
            CueNews::Closed { cue, .. } => {
                let range = self.ranges.iter_mut().find(|r| r.cue.id == cue.id);
                if let Some(range) = range {
                    range.end = Some(date);
                    range.changed = now;
                }
            }
        }
    }

    /// The date ranges of a list.
    pub(super) fn ranges(&self, list: List) -> Vec<&DateRange> {
        let past = match list {
            List::Live => None,
            List::Dvr => Some(&self.past_ranges),
        };
        past.into_iter().flatten().chain(&self.ranges).collect()
    }

    /// Names of date ranges that left a list, and when.
    pub(super) const fn removed(&self, list: List) -> &VecDeque<(String, Instant)> {
        match list {
            List::Live => &self.removed,
            List::Dvr => &self.past_removed,
        }
    }

    /// A closed range leaves when no listed segment overlaps it; an open one stays.
    pub(super) fn drop_old_ranges(&mut self) {
        let leading = self.leading();
        let first = leading.and_then(|w| w.segments.front());
        let Some(oldest) = first.map(|s| s.wall) else {
            return;
        };
        let past = leading.and_then(|w| w.past.segments.front());
        let past_oldest = past.map_or(oldest, |s| s.wall);
        let is_before = |range: &DateRange, oldest: OffsetDateTime| {
            let lasts = range.cue.duration.and_then(|d| d.try_into().ok());
            let end = lasts.and_then(|d: time::Duration| range.start.checked_add(d));
            range.end.or(end).is_some_and(|end| end < oldest)
        };
        let is_over = |range: &mut DateRange| is_before(range, oldest);
        let over: Vec<DateRange> = self.ranges.extract_if(.., is_over).collect();
        over.into_iter()
            .for_each(|range| self.remember_removed(range));
        let mut gone = Vec::new();
        self.past_ranges.retain(|range| {
            let is_gone = is_before(range, past_oldest);
            if is_gone {
                gone.push(range.cue.id.clone());
            }
            !is_gone
        });
        for id in gone {
            remember(&mut self.past_removed, id);
        }
    }

    fn remember_removed(&mut self, range: DateRange) {
        remember(&mut self.removed, range.cue.id.clone());
        if !self.leading().is_some_and(|window| window.past.is_kept()) {
            return;
        }
        if self.past_ranges.len() >= PAST_RANGES_MAX
            && let Some(oldest) = self.past_ranges.pop_front()
        {
            remember(&mut self.past_removed, oldest.cue.id.clone());
        }
        self.past_ranges.push_back(range);
    }
}

fn remember(removed: &mut VecDeque<(String, Instant)>, id: String) {
    if removed.len() >= RANGES_MAX {
        removed.pop_front();
    }
    removed.push_back((id, Instant::now()));
}
