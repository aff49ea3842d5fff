//! A low-latency show as text and bytes: segments of one second, five parts each, three renditions.
//!
//! Everything follows from the number of parts there are; a fault changes one thing.

use std::fmt::Write as _;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::fault::Fault;
use super::fragment;

pub(super) const RENDITIONS: [&str; 3] = ["src", "low", "aac"];
/// Parts in a segment.
pub(super) const PARTS: u64 = 5;
const WINDOW: u64 = 10;
const GAP: u64 = 16;
const BREAKS: [u64; 2] = [5, 15];
/// When a fault that changes something happens, in parts.
const THEN: u64 = 78;
/// The show is over after so many parts.
pub(super) const END: u64 = 96;
const START_UNIX_S: i64 = 1_700_000_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Show {
    pub(super) fault: Option<Fault>,
}

/// Where a rendering is: of which rendition, after how many parts, and from which segment.
#[derive(Clone, Copy, Debug)]
struct View<'a> {
    of: &'a str,
    edge: u64,
    first: u64,
    is_over: bool,
}

impl Show {
    pub(super) fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// True for a sound rendition that is to differ from its siblings.
    fn differs(&self, of: &str, fault: Fault) -> bool {
        of == "aac" && self.is(fault)
    }

    fn is_gap(&self, of: &str, msn: u64) -> bool {
        msn == GAP && !(of == "low" && self.is(Fault::GapAlone))
    }

    fn is_break(&self, of: &str, msn: u64) -> bool {
        BREAKS.contains(&msn) && !self.differs(of, Fault::SiblingBreaks)
    }

    pub(super) fn multivariant(&self) -> String {
        let low = self.is(Fault::BandwidthLow);
        let bandwidth = if low { 1_000 } else { 200_000 };
        let wrong = self.is(Fault::CodecsWrong);
        let codecs = if wrong { "avc1.42e01e" } else { "avc1.64001f" };
        let mut out = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"aac\",NAME=\"Sound\",\
            URI=\"aac/live.m3u8\"\n"
            .to_owned();
        for of in ["src", "low"] {
            writeln!(
                out,
                "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},CODECS=\"{codecs},mp4a.40.2\",\
                 AUDIO=\"aac\"\n{of}/live.m3u8"
            )
            .expect("a String takes every write");
        }
        out
    }

    /// A media playlist after `edge` parts.
    pub(super) fn playlist(&self, of: &str, edge: u64, skip: Option<&str>) -> String {
        let back = self.is(Fault::WentBack) && edge == THEN;
        let edge = if back { edge - 3 } else { edge };
        let is_over = edge >= END;
        let complete = edge / PARTS;
        let short = self.is(Fault::TooShort) && edge >= THEN;
        let mut first = complete.saturating_sub(if short { 2 } else { WINDOW });
        if self.is(Fault::SequenceBack) && edge == THEN {
            first -= 1;
        }
        let view = View {
            of,
            edge,
            first,
            is_over,
        };
        let skip = skip.or_else(|| self.is(Fault::SkipUnasked).then_some("YES"));
        // Six seconds are 30 parts; what ends before them is old.
        let kept = (edge - 30) / PARTS;
        let more = if self.is(Fault::DeltaTooMuch) { 2 } else { 0 };
        let skipped = skip.map_or(0, |_| kept.saturating_sub(first) + more);
        let mut out = String::new();
        self.write_head(&mut out, view, (skipped, skip))
            .expect("a String takes every write");
        self.write_body(&mut out, view, skipped)
            .expect("a String takes every write");
        out
    }

    fn write_head(
        &self,
        out: &mut String,
        view: View<'_>,
        (skipped, skip): (u64, Option<&str>),
    ) -> std::fmt::Result {
        let is_then = view.edge >= THEN;
        let value = |fault: Fault, wrong: &'static str, right: &'static str| {
            if self.is(fault) { wrong } else { right }
        };
        let changes = |fault: Fault, wrong: &'static str, right: &'static str| {
            if self.is(fault) && is_then {
                wrong
            } else {
                right
            }
        };
        let is_v2 = skip == Some("v2") && skipped > 0;
        let version = if is_v2 { "10" } else { "9" };
        let version = value(Fault::VersionLow, "5", version);
        let version = value(Fault::VersionHigh, "11", version);
        let other = self.differs(view.of, Fault::SiblingTarget);
        let target = changes(Fault::TargetChanges, "2", if other { "2" } else { "1" });
        let part = changes(Fault::PartTargetChanges, "0.21", "0.2");
        let part_back = value(Fault::PartHoldBackSmall, "0.3", "0.6");
        let part_back = value(Fault::PartHoldBackLarge, "0.8", part_back);
        let back = value(Fault::HoldBackSmall, "2", "6");
        let back = changes(Fault::ControlChanges, "5", back);
        let until = value(Fault::SkipUntilSmall, "4", if other { "12" } else { "6" });
        let blocks = value(
            Fault::NoBlocking,
            "CAN-BLOCK-RELOAD=NO",
            "CAN-BLOCK-RELOAD=YES",
        );
        writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{version}")?;
        writeln!(out, "#EXT-X-TARGETDURATION:{target}")?;
        writeln!(
            out,
            "#EXT-X-SERVER-CONTROL:{blocks},PART-HOLD-BACK={part_back},HOLD-BACK={back},\
             CAN-SKIP-UNTIL={until},CAN-SKIP-DATERANGES=YES\n#EXT-X-PART-INF:PART-TARGET={part}"
        )?;
        if self.is(Fault::LiveType) {
            writeln!(out, "#EXT-X-PLAYLIST-TYPE:EVENT")?;
        }
        if self.is(Fault::Misspelt) && is_then {
            writeln!(out, "#EXT-X-PART:DURATION=0.2 URI=\"x\"")?;
        }
        let gone = (0..view.first).filter(|&msn| self.is_break(view.of, msn));
        let breaks = if self.is(Fault::BreaksStuck) {
            0
        } else {
            gone.count()
        };
        writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", view.first)?;
        writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{breaks}")?;
        if skipped > 0 {
            writeln!(out, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}")?;
        }
        let drops = self.is(Fault::DeltaRanges) && skipped > 0;
        if !drops && !is_v2 {
            writeln!(out, "#EXT-X-DATERANGE:ID=\"a\",START-DATE=\"{}\"", date(0))?;
        }
        Ok(())
    }

    fn write_body(&self, out: &mut String, view: View<'_>, skipped: u64) -> std::fmt::Result {
        let from = view.first + skipped;
        let mut init = None;
        for msn in from..=view.edge / PARTS {
            self.write_segment(out, view, msn, (&mut init, skipped > 0))?;
        }
        if view.is_over {
            writeln!(out, "#EXT-X-ENDLIST")?;
        }
        let mut hint = self.part_uri(view.of, view.edge, view.edge);
        if self.is(Fault::HintChanged) {
            hint.push_str("?hint");
        }
        let is_hinted = !view.is_over || self.is(Fault::EndHint);
        if is_hinted && !self.is(Fault::HintMissing) {
            writeln!(out, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{hint}\"")?;
        }
        let last = view.edge - 1;
        let mut last = (last / PARTS, last % PARTS);
        if self.is(Fault::ReportAhead) {
            last.1 += 2;
        }
        if self.is(Fault::ReportStale) {
            last.0 -= 2;
        }
        let siblings = RENDITIONS.iter().filter(|&&of| of != view.of);
        for of in siblings.filter(|_| !self.is(Fault::ReportMissing)) {
            writeln!(
                out,
                "#EXT-X-RENDITION-REPORT:URI=\"../{of}/live.m3u8\",LAST-MSN={},LAST-PART={}",
                last.0, last.1
            )?;
        }
        Ok(())
    }

    fn write_segment(
        &self,
        out: &mut String,
        view: View<'_>,
        msn: u64,
        (init, is_delta): (&mut Option<u64>, bool),
    ) -> std::fmt::Result {
        let View { of, edge, .. } = view;
        let is_complete = (msn + 1) * PARTS <= edge;
        if msn * PARTS == edge {
            return Ok(());
        }
        let is_break = self.is_break(of, msn);
        if is_break {
            writeln!(out, "#EXT-X-DISCONTINUITY")?;
        }
        let n = if self.is(Fault::MapNotRepeated) {
            0
        } else {
            generation(msn)
        };
        if init.replace(n) != Some(n) && !self.is(Fault::MapMissing) {
            writeln!(out, "#EXT-X-MAP:URI=\"init{n}.mp4\"")?;
        }
        let is_undated = self.is(Fault::DateMissing) && msn == 13;
        if !is_undated && !self.is(Fault::DatesMissing) {
            let mut ms = i64::try_from(msn).expect("small numbers") * 1_000;
            let jump = self.is(Fault::DateJump) && msn >= 13;
            ms += if jump { 500 } else { 0 };
            ms -= if self.is(Fault::DateBack) && msn == 13 {
                3_000
            } else {
                0
            };
            ms += if self.differs(of, Fault::SiblingDate) {
                200
            } else {
                0
            };
            writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", date(ms))?;
        }
        let reach = if self.is(Fault::PartsTooLong) { 40 } else { 15 };
        if edge - msn * PARTS <= reach {
            let end = edge.min((msn + 1) * PARTS);
            for n in msn * PARTS..end {
                self.write_part(out, view, n)?;
            }
        }
        if !is_complete {
            return Ok(());
        }
        if self.is_gap(of, msn) && !self.is(Fault::GapPart) {
            writeln!(out, "#EXT-X-GAP")?;
        }
        let lasts = match self.fault {
            Some(Fault::ExtinfOver) if msn == 13 => "1.6",
            Some(Fault::PartsSum | Fault::SegmentLength) if msn == 13 => "0.9",
            Some(Fault::SiblingSpan) if msn == 13 && of == "aac" => "0.7",
            _ => "1",
        };
        let other = self.is(Fault::SegmentChanges) && edge >= THEN
            || self.is(Fault::DeltaDiffers) && is_delta;
        let mark = if other { "?other" } else { "" };
        writeln!(out, "#EXTINF:{lasts},\ns{msn}.m4s{mark}")
    }

    fn write_part(&self, out: &mut String, view: View<'_>, n: u64) -> std::fmt::Result {
        let (msn, inside) = (n / PARTS, n % PARTS);
        let lasts = match self.fault {
            Some(Fault::PartLengthNear) if n == THEN => "0.19",
            Some(Fault::PartOver) if inside == 2 => "0.25",
            Some(Fault::PartShort) if inside == 2 => "0.1",
            _ => "0.2",
        };
        let uri = self.part_uri(view.of, n, view.edge);
        write!(out, "#EXT-X-PART:DURATION={lasts},URI=\"{uri}\"")?;
        let is_key = inside == 0 || view.of == "aac";
        let hides = self.is(Fault::IndependentMissing);
        let lies = self.is(Fault::IndependentLie) && inside == 2;
        if self.is_gap(view.of, msn) {
            write!(out, ",GAP=YES")?;
        } else if (is_key && !hides) || lies {
            write!(out, ",INDEPENDENT=YES")?;
        }
        writeln!(out)
    }

    fn part_uri(&self, of: &str, n: u64, edge: u64) -> String {
        let reused = self.is(Fault::UriReused) && n == THEN;
        let n = if reused { n - 1 } else { n };
        let other = self.is(Fault::PartChanges) && of == "src" && edge >= n + 3;
        let mark = if other { "?other" } else { "" };
        format!("p{n}.m4s{mark}")
    }

    /// The bytes of a part; None for a gap.
    pub(super) fn part(&self, of: &str, n: u64) -> Option<Vec<u8>> {
        if self.is_gap(of, n / PARTS) {
            return None;
        }
        let is_sound = of == "aac";
        let (samples, lasts, rate) = if is_sound {
            (10, 960, 48_000)
        } else {
            (5, 3_600, 90_000)
        };
        let mut time = n * u64::from(samples * lasts);
        time += if self.is(Fault::TimeGap) && n >= THEN {
            900
        } else {
            0
        };
        time += if self.differs(of, Fault::SiblingTime) {
            rate
        } else {
            0
        };
        let short = self.is(Fault::SamplesShort) && n == THEN;
        let samples = if short { samples - 1 } else { samples };
        let is_key = is_sound || n.is_multiple_of(PARTS);
        let mut bytes = fragment::part(time, samples, lasts, is_key);
        if self.is(Fault::Garbled) && n == THEN {
            bytes[1] = 0xff;
        }
        Some(bytes)
    }

    pub(super) fn segment(&self, of: &str, msn: u64) -> Option<Vec<u8>> {
        if self.is(Fault::SegmentGone) && msn >= 14 {
            return None;
        }
        let parts = (msn * PARTS..(msn + 1) * PARTS).map(|n| self.part(of, n));
        let mut bytes = parts.collect::<Option<Vec<_>>>()?.concat();
        if self.is(Fault::SegmentDiffers) {
            let last = bytes.last_mut()?;
            *last ^= 1;
        }
        Some(bytes)
    }
}

/// Which init section a segment has.
fn generation(msn: u64) -> u64 {
    BREAKS.iter().filter(|&&at| at <= msn).count() as u64
}

fn date(ms: i64) -> String {
    let start = OffsetDateTime::from_unix_timestamp(START_UNIX_S).expect("in range");
    let at = start + Duration::milliseconds(ms);
    at.format(&Rfc3339).expect("in range")
}
