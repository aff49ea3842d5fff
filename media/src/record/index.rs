//! The index, read: what there is of each rendition, segment by segment (spec media.md 1.6).
//!
//! Invariant: segments of a rendition have consecutive numbers; what the rows lack is a gap.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::row::{GapRow, InitRow, Row, SegmentRow, T_US_MAX};
use crate::cue::Cue;
use crate::hls::RenditionId;
use crate::time::MediaTime;

/// Segments of a rendition that the index may lack; more is not believed.
const HOLE_MAX: u64 = 100_000;

/// A recording, as its index describes it.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pub(super) tracks: BTreeMap<RenditionId, Track>,
    pub(super) cues: Vec<Shown>,
    is_ended: bool,
}

/// One rendition.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    pub(super) inits: Vec<InitRow>,
    pub(super) slots: Vec<Slot>,
    /// Intervals that no row told of.
    filled: u64,
    /// The number of the segment that begins a new line of time.
    breaks_at: Option<u64>,
}

/// An interval of a rendition, with or without media.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) msn: u64,
    pub(super) t_us: i64,
    pub(super) duration_us: u64,
    pub(super) wall: OffsetDateTime,
    pub(super) is_discontinuity: bool,
    pub(super) media: Option<Piece>,
}

/// The media of an interval.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) init: u32,
    pub(super) bytes: u64,
    /// Its first picture needs none before it.
    pub(super) is_key_first: bool,
}

/// A cue, and when it was closed.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) cue: Arc<Cue>,
    pub(super) closed: Option<MediaTime>,
}

/// The rows of an index. A torn line is ignored, and so is one of a kind that is not known here.
pub fn read_rows(bytes: &[u8]) -> impl Iterator<Item = Row> {
    let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
    lines.filter_map(|line| serde_json::from_slice(line).ok())
}

impl Index {
    /// Reads an index.
    pub fn read(bytes: &[u8]) -> Self {
        let mut index = Self::default();
        let mut places = HashMap::new();
        for row in read_rows(bytes) {
            index.take(row, &mut places);
        }
        index
    }

    fn take(&mut self, row: Row, places: &mut HashMap<String, usize>) {
        match row {
            Row::Init(row) => {
                let track = self.tracks.entry(row.rendition).or_default();
                if track.inits.iter().all(|known| known.n != row.n) {
                    track.inits.push(row);
                }
            }
            Row::Segment(row) => {
                let track = self.tracks.entry(row.rendition).or_default();
                let is_begun = track.inits.iter().any(|init| init.n == row.init);
                let mut slot = Slot::from(&row);
                if !is_begun {
                    // Without its init section it cannot be played.
                    slot.media = None;
                }
                track.push(slot);
            }
            Row::Gap(row) => {
                let track = self.tracks.entry(row.rendition).or_default();
                track.push(Slot::from(&row));
            }
            Row::Discontinuity(row) => {
                let track = self.tracks.entry(row.rendition).or_default();
                track.breaks_at = Some(row.msn);
            }
            Row::Cue(row) => {
                if let Some(cue) = row.cue()
                    && !places.contains_key(&row.id)
                {
                    places.insert(row.id, self.cues.len());
                    let cue = Arc::new(cue);
                    self.cues.push(Shown { cue, closed: None });
                }
            }
            Row::CueEnd(row) => {
                let place = places.get(&row.id);
                if let Some(shown) = place.and_then(|at| self.cues.get_mut(*at)) {
                    let t_us = row.t_us.clamp(0, T_US_MAX);
                    shown.closed = Some(MediaTime::from_micros(t_us));
                }
            }
            Row::End(_) => self.is_ended = true,
        }
    }

    /// Whether nothing comes after what it lists.
    pub const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Whether there is anything to play.
    pub fn has_media(&self) -> bool {
        let all = self.tracks.values().flat_map(|track| &track.slots);
        all.into_iter().any(|slot| slot.media.is_some())
    }

    /// How long a replay of it takes.
    pub fn duration(&self) -> Duration {
        let slots = self.leading().map(|track| &track.slots);
        let lengths = slots.into_iter().flatten().map(|s| s.duration_us);
        Duration::from_micros(lengths.fold(0, u64::saturating_add))
    }

    /// The stretches of T of which there is media, in their order: what lies between is a gap.
    pub fn stretches(&self) -> Vec<(MediaTime, MediaTime)> {
        let mut stretches: Vec<(MediaTime, MediaTime)> = Vec::new();
        let slots = self.leading().map(|track| &track.slots);
        let kept = slots.into_iter().flatten().filter(|s| s.media.is_some());
        for slot in kept {
            let from = MediaTime::from_micros(slot.t_us);
            let to = from + Duration::from_micros(slot.duration_us);
            match stretches.last_mut() {
                Some((_, end)) if from <= *end => *end = to.max(*end),
                _ => stretches.push((from, to)),
            }
        }
        stretches
    }

    /// The size of a segment or init section, by the last piece of its URL, if it is kept.
    pub fn bytes_of(&self, rendition: RenditionId, instance: &str, file: &str) -> Option<u64> {
        let track = self.tracks.get(&rendition)?;
        let rest = file.strip_prefix(instance)?.strip_prefix('-')?;
        if let Some(n) = rest.strip_prefix("init") {
            let n = number(n.strip_suffix(".mp4")?)?;
            let init = track.inits.iter().find(|init| u64::from(init.n) == n);
            return init.map(|init| init.bytes);
        }
        let msn = number(rest.strip_prefix('s')?.strip_suffix(".m4s")?)?;
        let at = track.slots.binary_search_by_key(&msn, |slot| slot.msn);
        let slot = track.slots.get(at.ok()?)?;
        slot.media.as_ref().map(|media| media.bytes)
    }

    /// The rendition that all others are cut by.
    pub(super) fn leading(&self) -> Option<&Track> {
        let src = self.tracks.get(&RenditionId::Src);
        src.or_else(|| self.tracks.get(&RenditionId::Aac))
    }

    /// The time of day of a point on T, by the segment that holds it.
    pub(super) fn wall(&self, t: MediaTime) -> Option<OffsetDateTime> {
        let slots = &self.leading()?.slots;
        let after = slots.partition_point(|slot| slot.t_us <= t.as_micros());
        let slot = slots.get(after.saturating_sub(1))?;
        let since = t.as_micros().checked_sub(slot.t_us)?;
        slot.wall.checked_add(time::Duration::microseconds(since))
    }
}

/// A number as we write it.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|b| b.is_ascii_digit()) && text.len() < 20;
    let is_canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| is_plain && is_canonical)
}

impl Track {
    /// Appends the next interval; one that was there before is left out.
    fn push(&mut self, mut slot: Slot) {
        let is_near = |us: i64| (0..=T_US_MAX).contains(&us);
        if !is_near(slot.t_us) || !i64::try_from(slot.duration_us).is_ok_and(is_near) {
            return;
        }
        if let Some(last) = self.slots.last() {
            if slot.msn <= last.msn {
                return;
            }
            let missing = slot.msn - last.msn - 1;
            if missing > HOLE_MAX.saturating_sub(self.filled) {
                return;
            }
            self.filled += missing;
            self.fill(missing, &slot);
        }
        slot.is_discontinuity = self.breaks_at.take_if(|msn| *msn == slot.msn).is_some();
        self.slots.push(slot);
    }

    /// Puts gaps of equal length between the last interval and the next.
    fn fill(&mut self, missing: u64, next: &Slot) {
        let Some(last) = self.slots.last().filter(|_| missing > 0) else {
            return;
        };
        let from_us = last.end_us();
        let lasts = u64::try_from(next.t_us.saturating_sub(from_us)).unwrap_or(0);
        let (step, first) = (lasts / missing, last.msn + 1);
        let (mut t_us, mut wall) = (from_us, last.wall);
        wall = shifted(wall, last.duration_us);
        for msn in first..next.msn {
            self.slots.push(Slot {
                msn,
                t_us,
                duration_us: step,
                wall,
                is_discontinuity: false,
                media: None,
            });
            t_us = t_us.saturating_add_unsigned(step);
            wall = shifted(wall, step);
        }
    }
}

fn shifted(wall: OffsetDateTime, by_us: u64) -> OffsetDateTime {
    let by = time::Duration::microseconds(i64::try_from(by_us).unwrap_or(0));
    wall.checked_add(by).unwrap_or(wall)
}

impl Slot {
    pub(super) const fn end_us(&self) -> i64 {
        self.t_us.saturating_add_unsigned(self.duration_us)
    }
}

impl From<&SegmentRow> for Slot {
    fn from(row: &SegmentRow) -> Self {
        Self {
            msn: row.msn,
            t_us: row.t_us,
            duration_us: row.duration_us,
            wall: row.wall,
            is_discontinuity: false,
            media: Some(Piece {
                init: row.init,
                bytes: row.bytes,
                is_key_first: row.keyframes.first().is_some_and(|key| key.offset == 0),
            }),
        }
    }
}

impl From<&GapRow> for Slot {
    fn from(row: &GapRow) -> Self {
        Self {
            msn: row.msn,
            t_us: row.t_us,
            duration_us: row.duration_us,
            wall: row.wall,
            is_discontinuity: false,
            media: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A few rows with holes between them must not make an index of millions.
    #[test]
    fn holes_have_a_bound_in_sum() {
        let gap = |msn: u64| {
            format!(
                "{{\"row\":\"gap\",\"rendition\":\"src\",\"msn\":{msn},\"t_us\":{},\
                 \"duration_us\":1,\"wall\":\"2027-01-15T08:00:00Z\",\"cause\":\"silence\"}}\n",
                msn * 10
            )
        };
        let text: String = (0..20).map(|n| gap(n * (HOLE_MAX / 2))).collect();
        let index = Index::read(text.as_bytes());
        let slots = index.tracks[&RenditionId::Src].slots.len();
        assert_eq!(slots as u64, 2 * (HOLE_MAX / 2) + 1);
    }
}
