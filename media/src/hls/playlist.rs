//! Playlist text (spec media.md 6.2, 6.4; RFC 8216bis). Pure: a snapshot in, text out.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::time::Instant;

use super::directives::Skip;
use super::mp4;
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
    pub(super) name: &'static str,
    pub(super) window: &'a Window,
}

/// Everything a media playlist shows.
pub(super) struct Snapshot<'a> {
    pub(super) instance: &'a str,
    pub(super) targets: &'a Targets,
    pub(super) window: &'a Window,
    pub(super) ranges: &'a [DateRange],
    /// Names of date ranges that left, and when.
    pub(super) removed: &'a VecDeque<(String, Instant)>,
    pub(super) now: Instant,
    pub(super) sibling: Option<Sibling<'a>>,
    /// True when each segment can be decoded alone: sound, and what we encode.
    pub(super) is_independent: bool,
}

/// Seconds with microseconds, without trailing zeros.
fn seconds(duration: Duration) -> String {
    let text = format!("{}.{:06}", duration.as_secs(), duration.subsec_micros());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn date(at: OffsetDateTime) -> String {
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
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", window.media_sequence())?;
        writeln!(
            out,
            "#EXT-X-DISCONTINUITY-SEQUENCE:{}",
            window.discontinuity_sequence
        )?;
        if skipped > 0 {
            write!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
            self.write_removed(out, is_v2)?;
        }
        for range in self.ranges {
            if !is_v2 || self.is_recent(range.changed) {
                write_range(out, range)?;
            }
        }
        // A skipped segment took its init section's tag along; the player still knows it.
        let before = skipped.checked_sub(1).and_then(|n| window.segments.get(n));
        let mut init = before.and_then(|s| s.init);
        for (n, segment) in window.segments.iter().enumerate().skip(skipped) {
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
        self.write_report(out)
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

    /// MAP where it changes, and the date of the first moment.
    fn write_start(
        &self,
        out: &mut String,
        segment: &Segment,
        init: &mut Option<u32>,
    ) -> std::fmt::Result {
        if let Some(n) = segment.init.filter(|_| !segment.is_gap)
            && init.replace(n) != Some(n)
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

    fn write_report(&self, out: &mut String) -> std::fmt::Result {
        let Some(sibling) = &self.sibling else {
            return Ok(());
        };
        let Some((msn, part)) = sibling.window.last_part() else {
            return Ok(());
        };
        let name = sibling.name;
        writeln!(
            out,
            "#EXT-X-RENDITION-REPORT:URI=\"../{name}/live.m3u8\",LAST-MSN={msn},LAST-PART={part}"
        )
    }

    /// How far the playlist reaches, counted from its first segment.
    fn end(&self) -> Duration {
        let listed: Duration = self.window.segments.iter().map(|s| s.duration).sum();
        let open = self
            .window
            .open
            .iter()
            .flat_map(|s| &s.parts)
            .map(|p| p.duration)
            .sum();
        listed.saturating_add(open)
    }

    /// Where a listed segment begins, counted from the first.
    fn offset(&self, segment: &Segment) -> Duration {
        let before = self
            .window
            .segments
            .iter()
            .take_while(|s| s.msn < segment.msn);
        before.map(|s| s.duration).sum()
    }

    /// Segments older than six target durations from the end.
    fn skippable(&self) -> usize {
        let (end, until) = (self.end(), self.targets.target * 6);
        let is_old = |s: &&Segment| {
            let ends = self.offset(s) + s.duration;
            end.saturating_sub(ends) >= until
        };
        self.window.segments.iter().take_while(is_old).count()
    }
}

fn write_break(out: &mut String, segment: &Segment) -> std::fmt::Result {
    if segment.is_discontinuity {
        writeln!(out, "#EXT-X-DISCONTINUITY")
    } else {
        Ok(())
    }
}

fn write_range(out: &mut String, range: &DateRange) -> std::fmt::Result {
    let cue = &range.cue;
    write!(
        out,
        "#EXT-X-DATERANGE:ID=\"{}\",CLASS=\"lamplight.{}\",START-DATE=\"{}\"",
        cue.id,
        cue.class,
        date(range.start)
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
    if let Some(end) = range.end {
        writeln!(
            out,
            "#EXT-X-DATERANGE:ID=\"{}\",END-DATE=\"{}\"",
            cue.id,
            date(end)
        )?;
    }
    Ok(())
}

/// What the multivariant playlist says of the broadcast; frozen for the life of an instance.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Multivariant {
    pub(super) video: Option<VideoFacts>,
    pub(super) audio_codecs: Option<String>,
    pub(super) peak_bps: u64,
    pub(super) mean_bps: u64,
}

/// What it says of the picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VideoFacts {
    pub(super) codecs: String,
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) frame_rate: Option<f64>,
}

impl Multivariant {
    /// The text; with a session its id stands in the URIs of the media playlists.
    pub(super) fn render(&self, session: Option<&str>) -> String {
        let query = session.map(|s| format!("?s={s}")).unwrap_or_default();
        let mut out = String::from("#EXTM3U\n#EXT-X-VERSION:9\n");
        self.write(&mut out, &query)
            .expect("a String takes every write");
        out
    }

    fn write(&self, out: &mut String, query: &str) -> std::fmt::Result {
        let codecs = self
            .video
            .iter()
            .map(|v| v.codecs.as_str())
            .chain(self.audio_codecs.as_deref());
        let codecs = codecs.collect::<Vec<_>>().join(",");
        let Some(video) = &self.video else {
            self.write_rates(out, &codecs)?;
            return writeln!(out, "\naac/live.m3u8{query}");
        };
        if self.audio_codecs.is_some() {
            writeln!(
                out,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"Sound\",DEFAULT=YES,\
                 AUTOSELECT=YES,URI=\"aac/live.m3u8{query}\""
            )?;
        }
        self.write_rates(out, &codecs)?;
        write!(out, ",RESOLUTION={}x{}", video.width, video.height)?;
        if let Some(rate) = video.frame_rate {
            write!(out, ",FRAME-RATE={rate:.3}")?;
        }
        if self.audio_codecs.is_some() {
            write!(out, ",AUDIO=\"aac\"")?;
        }
        writeln!(out, "\nsrc/live.m3u8{query}")
    }

    fn write_rates(&self, out: &mut String, codecs: &str) -> std::fmt::Result {
        let (peak, mean) = (self.peak_bps, self.mean_bps);
        write!(
            out,
            "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={mean}"
        )?;
        write!(out, ",CODECS=\"{codecs}\"")
    }
}
