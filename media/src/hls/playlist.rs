//! Playlist text (spec media.md 6.2, 6.4; RFC 8216bis). Pure: a snapshot in, text out.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::time::Instant;

use super::directives::Skip;
use super::dvr::{List, Past};
use super::mp4;
use super::rendition::RenditionId;
use super::segmenter::Targets;
use super::window::{Segment, Window};
use crate::cue::Cue;

const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A listed cue as every media playlist shows it.
#[derive(Clone, Debug)]
pub(super) struct DateRange {
    pub(super) cue: std::sync::Arc<Cue>,
    pub(super) start: OffsetDateTime,
    pub(super) end: Option<OffsetDateTime>,
    /// When its newest line was added.
    pub(super) changed: Instant,
}

/// A sibling rendition, for its report.
pub(super) struct Sibling<'a> {
    pub(super) id: RenditionId,
    pub(super) window: &'a Window,
}

/// Everything a media playlist shows.
pub(super) struct Snapshot<'a> {
    pub(super) instance: &'a str,
    pub(super) targets: &'a Targets,
    /// Which playlist of the rendition it is.
    pub(super) list: List,
    pub(super) window: &'a Window,
    pub(super) ranges: Vec<&'a DateRange>,
    /// Names of date ranges that left, and when.
    pub(super) removed: &'a VecDeque<(String, Instant)>,
    pub(super) now: Instant,
    pub(super) siblings: Vec<Sibling<'a>>,
    /// True when each segment can be decoded alone: sound, and what we encode.
    pub(super) is_independent: bool,
}

/// Seconds with microseconds, without trailing zeros.
pub(crate) fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:06}", duration.as_secs(), duration.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub(crate) fn date(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC)
        .format(DATE)
        .unwrap_or_default()
}

impl Snapshot<'_> {
    /// The text; with `skip` a delta, if there is anything to leave out.
    pub(super) fn render(&self, skip: Option<Skip>) -> String {
        let mut out = String::with_capacity(4_096);
        let skipped = skip.map_or(0, |_| self.skippable());
        let is_v2 = skip == Some(Skip::DateRanges) && skipped > 0;
        self.write(&mut out, skipped, is_v2)
            .expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String, skipped: usize, is_v2: bool) -> std::fmt::Result {
        let window = self.window;
        self.write_head(out, is_v2)?;
        let past = self.past();
        let first = past.and_then(|past| past.segments.front());
        let first = first.map_or_else(|| window.media_sequence(), |segment| segment.msn);
        let breaks = past.map(|past| past.discontinuity_sequence);
        let breaks = breaks.unwrap_or(window.discontinuity_sequence);
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{first}")?;
        writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{breaks}")?;
        if skipped > 0 {
            write!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
            self.write_removed(out, is_v2)?;
        }
        for range in &self.ranges {
            if !is_v2 || self.is_recent(range.changed) {
                write_range(out, &range.cue, range.start, range.end)?;
            }
        }
        // A skipped segment took its init section's tag along; the player still knows it.
        let before = skipped.checked_sub(1).and_then(|n| self.listed().nth(n));
        let mut init = before.and_then(|s| s.init);
        for (n, segment) in self.listed().enumerate().skip(skipped) {
            if n > 0 || segment.msn == 0 {
                write_break(out, segment)?;
            }
            self.write_segment(out, segment, &mut init)?;
        }
        if let Some(open) = &window.open
            && !open.parts.is_empty()
        {
            write_break(out, open)?;
            self.write_start(out, open, &mut init)?;
            self.write_parts(out, open)?;
        }
        if window.is_ended {
            return writeln!(out, "#EXT-X-ENDLIST");
        }
        let (instance, hint) = (self.instance, window.hinted_part());
        writeln!(
            out,
            "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{instance}-p{hint}.m4s\""
        )?;
        self.write_reports(out)
    }

    /// What comes before the live list.
    fn past(&self) -> Option<&Past> {
        let past = &self.window.past;
        (self.list == List::Dvr).then_some(past)
    }

    /// The complete segments that are listed.
    fn listed(&self) -> impl Iterator<Item = &Segment> {
        let past = self.past().into_iter().flat_map(|past| &past.segments);
        past.chain(&self.window.segments)
    }

    /// The end of the skip line: in a `v2` delta it names the date ranges that have just left.
    fn write_removed(&self, out: &mut String, is_v2: bool) -> std::fmt::Result {
        let removed = self.removed.iter().filter(|r| is_v2 && self.is_recent(r.1));
        let names: Vec<&str> = removed.map(|r| r.0.as_str()).collect();
        if names.is_empty() {
            writeln!(out)
        } else {
            let names = names.join("\t");
            writeln!(out, ",RECENTLY-REMOVED-DATERANGES=\"{names}\"")
        }
    }

    /// Within the skip boundary: a player with a delta may not know of it.
    fn is_recent(&self, at: Instant) -> bool {
        self.now.saturating_duration_since(at) < self.targets.target * 6
    }

    fn write_head(&self, out: &mut String, is_v2: bool) -> std::fmt::Result {
        let Targets { part, target, .. } = *self.targets;
        let version = if is_v2 { 10 } else { 9 };
        writeln!(out, "#EXTM3U")?;
        writeln!(out, "#EXT-X-VERSION:{version}")?;
        if self.is_independent {
            writeln!(out, "#EXT-X-INDEPENDENT-SEGMENTS")?;
        }
        writeln!(out, "#EXT-X-TARGETDURATION:{}", target.as_secs())?;
        writeln!(
            out,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={},HOLD-BACK={},\
             CAN-SKIP-UNTIL={},CAN-SKIP-DATERANGES=YES",
            seconds(part * 3),
            seconds(target * 3),
            seconds(target * 6),
        )?;
        writeln!(out, "#EXT-X-PART-INF:PART-TARGET={}", seconds(part))
    }

    fn write_segment(
        &self,
        out: &mut String,
        segment: &Segment,
        init: &mut Option<u32>,
    ) -> std::fmt::Result {
        self.write_start(out, segment, init)?;
        let from_end = self.window.edge.saturating_since(segment.start);
        if from_end <= self.targets.target * 3 {
            self.write_parts(out, segment)?;
        }
        if segment.is_gap {
            writeln!(out, "#EXT-X-GAP")?;
        }
        writeln!(out, "#EXTINF:{},", seconds(segment.duration))?;
        writeln!(out, "{}-s{}.m4s", self.instance, segment.msn)
    }

    /// MAP where it changes and behind a discontinuity, and the date of the first moment.
    fn write_start(
        &self,
        out: &mut String,
        segment: &Segment,
        init: &mut Option<u32>,
    ) -> std::fmt::Result {
        if let Some(n) = segment.init.filter(|_| !segment.is_gap)
            && (init.replace(n) != Some(n) || segment.is_discontinuity)
        {
            let instance = self.instance;
            writeln!(out, "#EXT-X-MAP:URI=\"{instance}-init{n}.mp4\"")?;
        }
        writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", date(segment.wall))
    }

    fn write_parts(&self, out: &mut String, segment: &Segment) -> std::fmt::Result {
        for part in &segment.parts {
            let (duration, instance, n) = (seconds(part.duration), self.instance, part.number);
            write!(
                out,
                "#EXT-X-PART:DURATION={duration},URI=\"{instance}-p{n}.m4s\""
            )?;
            let kind = match (segment.is_gap, part.is_independent) {
                (true, _) => ",GAP=YES",
                (false, true) => ",INDEPENDENT=YES",
                (false, false) => "",
            };
            writeln!(out, "{kind}")?;
        }
        Ok(())
    }

    fn write_reports(&self, out: &mut String) -> std::fmt::Result {
        for Sibling { id, window } in &self.siblings {
            if let Some((msn, part)) = window.last_part() {
                writeln!(
                    out,
                    "#EXT-X-RENDITION-REPORT:URI=\"../{id}/{}\",LAST-MSN={msn},\
                     LAST-PART={part}",
                    self.list.name()
                )?;
            }
        }
        Ok(())
    }

    /// How far the playlist reaches, counted from its first segment.
    fn end(&self) -> Duration {
        let listed: Duration = self.listed().map(|s| s.duration).sum();
        let open = self
            .window
            .open
            .iter()
            .flat_map(|s| &s.parts)
            .map(|p| p.duration)
            .sum();
        listed.saturating_add(open)
    }

    /// Segments older than six target durations from the end.
    fn skippable(&self) -> usize {
        let (end, until) = (self.end(), self.targets.target * 6);
        let ends = self.listed().scan(Duration::ZERO, |ends, segment| {
            *ends += segment.duration;
            Some(*ends)
        });
        let is_old = |ends: &Duration| end.saturating_sub(*ends) >= until;
        ends.take_while(is_old).count()
    }
}

fn write_break(out: &mut String, segment: &Segment) -> std::fmt::Result {
    if segment.is_discontinuity {
        writeln!(out, "#EXT-X-DISCONTINUITY")
    } else {
        Ok(())
    }
}

/// The lines of a cue that begins at `start` and, if it was closed, ends at `end`.
pub(crate) fn write_range(
    out: &mut String,
    cue: &Cue,
    start: OffsetDateTime,
    end: Option<OffsetDateTime>,
) -> std::fmt::Result {
    write!(
        out,
        "#EXT-X-DATERANGE:ID=\"{}\",CLASS=\"lamplight.{}\",START-DATE=\"{}\"",
        cue.id,
        cue.class,
        date(start)
    )?;
    if let Some(duration) = cue.duration {
        write!(out, ",DURATION={}", seconds(duration))?;
    }
    writeln!(
        out,
        ",X-LAMPLIGHT-T=\"{}\",X-LAMPLIGHT-DATA=\"{}\"",
        cue.t.as_micros(),
        mp4::data(cue)
    )?;
    if let Some(end) = end {
        writeln!(
            out,
            "#EXT-X-DATERANGE:ID=\"{}\",END-DATE=\"{}\"",
            cue.id,
            date(end)
        )?;
    }
    Ok(())
}
