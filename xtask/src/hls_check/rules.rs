//! The rules by their stable names, and what is known to be broken.
//!
//! `must` is what RFC 8216bis, CMAF or HTTP demand of everybody; `ours` is what Lamplight promises
//! beyond (spec media.md 6), judged only when it is asked for.

use std::collections::BTreeMap;
use std::fmt;

/// Who demands a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Must,
    Ours,
}

/// One sentence a server keeps or breaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    pub(crate) says: &'static str,
}

macro_rules! rules {
    ($($name:ident $level:ident $id:literal $says:literal)*) => {
        $(pub(super) const $name: Rule = Rule { id: $id, level: Level::$level, says: $says };)*
        /// Every rule.
        pub(crate) const ALL: &[Rule] = &[$($name),*];
    };
}

rules! {
    SYNTAX Must "playlist-syntax"
        "A playlist is UTF-8, begins with EXTM3U, and its tags are well-formed (4.1, 4.2)."
    VERSION Must "version"
        "EXT-X-VERSION is at least 9 with EXT-X-SKIP, 10 when date ranges are skipped, 6 with \
         EXT-X-MAP (8)."
    VERSION_OURS Ours "version-9"
        "EXT-X-VERSION is 9, and 10 only in a v2 delta (media.md 6.1)."
    TARGET_CHANGED Must "target-duration-changed"
        "EXT-X-TARGETDURATION does not change (6.2.1)."
    PART_TARGET_CHANGED Must "part-target-changed"
        "EXT-X-PART-INF does not change (6.2.1)."
    CONTROL_CHANGED Must "server-control-changed"
        "EXT-X-SERVER-CONTROL does not change (4.4.3.8)."
    EXTINF_OVER Must "extinf-over-target"
        "EXTINF, rounded, is at most the target duration (4.4.3.1)."
    PART_HOLD_BACK Must "part-hold-back"
        "PART-HOLD-BACK is present with parts and at least twice the part target (4.4.3.8)."
    PART_HOLD_BACK_OURS Ours "part-hold-back-3"
        "PART-HOLD-BACK is exactly three part targets (media.md 6.1)."
    HOLD_BACK Must "hold-back"
        "HOLD-BACK is at least three target durations (4.4.3.8)."
    SKIP_UNTIL Must "can-skip-until"
        "CAN-SKIP-UNTIL is at least six target durations (4.4.3.8)."
    BLOCK_RELOAD Must "can-block-reload"
        "A low-latency playlist has CAN-BLOCK-RELOAD=YES (B.1)."
    PART_OVER Must "part-over-target"
        "A part lasts at most the part target (4.4.4.9)."
    PART_SHORT Must "part-too-short"
        "A part lasts 85 % of the part target, unless it is independent, the last of its \
         segment, a gap or before one (4.4.4.9)."
    PARTS_SUM Must "parts-sum"
        "The parts of a segment last as long as its EXTINF says (4.4.4.9)."
    PARTS_OLD Ours "parts-all-or-none"
        "The parts of a segment are listed while it starts at most three target durations \
         before the end (media.md 6.4)."
    LIVE_TYPE Must "playlist-type-live"
        "A playlist from which segments leave has no EXT-X-PLAYLIST-TYPE (6.2.2)."
    MEDIA_SEQUENCE Must "media-sequence-decreased"
        "EXT-X-MEDIA-SEQUENCE never decreases (4.4.3.2)."
    DISCONTINUITY_SEQUENCE Must "discontinuity-sequence"
        "EXT-X-DISCONTINUITY-SEQUENCE grows by each discontinuity that left, and by nothing \
         else (6.2.2)."
    SEGMENT_CHANGED Must "segment-changed"
        "What is listed of a segment does not change (6.2.1)."
    PART_CHANGED Must "part-changed"
        "What is listed of a part does not change (6.2.1)."
    WENT_BACK Must "playlist-went-back"
        "Segments and parts are only appended at the end of a playlist (6.2.1)."
    URI_REUSED Must "uri-reused"
        "One URI denotes one segment or part (6.2.1)."
    TOO_SHORT Must "playlist-too-short"
        "A segment stays if removing it leaves less than three target durations (6.2.2)."
    END_CONTINUED Must "endlist-continued"
        "Nothing changes after EXT-X-ENDLIST (4.4.3.4)."
    END_HINT Must "endlist-hint"
        "There is no preload hint after EXT-X-ENDLIST (4.4.5.3)."
    SIBLING_TARGET Must "sibling-target"
        "All renditions have one target duration (4.4.3.1, 6.2.4)."
    SIBLING_DATE Must "sibling-date"
        "A media sequence number has one date in all renditions (6.2.4)."
    SIBLING_BREAKS Must "sibling-discontinuity"
        "A media sequence number has one discontinuity number in all renditions (6.2.4)."
    SIBLING_SPAN Ours "sibling-interval"
        "A media sequence number is one interval of T in all renditions (media.md 6.3)."
    SIBLING_T Must "sibling-time"
        "Matching content has matching timestamps in all renditions (6.2.4)."
    DATE_MISSING Must "date-missing"
        "A low-latency playlist dates its segments with EXT-X-PROGRAM-DATE-TIME (B.1)."
    DATE_EACH Ours "date-on-each"
        "Every segment carries EXT-X-PROGRAM-DATE-TIME before its first part (media.md 6.4)."
    DATE_JUMP Must "date-jump"
        "Dates follow from one another by EXTINF, but for discontinuities (4.4.4.6)."
    DATE_BACK Must "date-backwards"
        "Dates never go back (4.4.4.6)."
    MAP_MISSING Must "map-missing"
        "fMP4 segments have an EXT-X-MAP (3.1.2)."
    MAP_BREAK Ours "map-after-discontinuity"
        "Where the media's parameters may change, at an EXT-X-DISCONTINUITY, EXT-X-MAP is given \
         anew (media.md 6.6)."
    DELTA_DIFFERS Must "delta-differs"
        "A delta update, applied, is the full playlist (6.2.5.1)."
    DELTA_TOO_MUCH Must "delta-skips-too-much"
        "A delta update skips only what is older than the skip boundary (6.2.5.1)."
    DELTA_RANGES Must "delta-date-ranges"
        "A delta without v2 has all date ranges; with v2 it lists the new ones and names the \
         removed (4.4.5.2)."
    UNASKED_SKIP Must "skip-unasked"
        "EXT-X-SKIP is only sent when it was asked for (6.2.5.1)."
    HINT_MISSING Ours "hint-missing"
        "The next part is always hinted while the show goes on (media.md 6.4)."
    HINT_CHANGED Ours "hint-changed"
        "The hinted URI is the one listed next, as an equal string (media.md 6.4)."
    HINT_REFUSED Must "hint-refused"
        "A hinted part that comes to be can be fetched (6.2.6)."
    HINT_DIFFERS Must "hint-differs"
        "The bytes of a hinted part are those of the listed part (6.2.6)."
    HINT_EARLY Ours "hint-bytes-early"
        "Not one byte of a hinted part is sent before it is whole (media.md 6.5)."
    REPORT_MISSING Must "report-missing"
        "A low-latency playlist reports on every other rendition (B.1)."
    REPORT_FALSE Must "report-false"
        "A rendition report names the last segment and part of that rendition (4.4.5.4)."
    RELOAD_EARLY Must "reload-early"
        "A blocking reload answers with a playlist that has what it waits for (6.2.5.2)."
    RELOAD_STATUS Must "reload-status"
        "A blocking reload of the next part succeeds (6.2.5.2)."
    BAD_DIRECTIVE Must "bad-directive"
        "_HLS_part without _HLS_msn is 400 (6.2.5.2)."
    BAD_DIRECTIVE_OURS Ours "bad-directive-ours"
        "Far, repeated and non-decimal directives are 400 at once (media.md 6.5)."
    CACHE_HELD Ours "cache-held"
        "A held playlist may be cached for six target durations (media.md 6.5)."
    CACHE_PLAIN Ours "cache-plain"
        "A playlist without directives may be cached for one second (media.md 6.5)."
    CACHE_MEDIA Ours "cache-media"
        "Init sections, segments and parts are immutable (media.md 6.5)."
    CACHE_ERROR Ours "cache-error"
        "400 and 404 may be cached for one second (media.md 6.5)."
    TYPE_PLAYLIST Must "type-playlist"
        "A playlist is application/vnd.apple.mpegurl or audio/mpegurl (4)."
    TYPE_MEDIA Ours "type-media"
        "Media is video/mp4 or audio/mp4 by its track (media.md 6.5)."
    GZIP_MISSING Ours "gzip-missing"
        "Playlists are gzipped for who takes it (B.1 recommends it)."
    GZIP_INVALID Must "gzip-invalid"
        "A gzipped body unpacks to the playlist (RFC 9110 8.4)."
    VARY Must "vary"
        "A compressed answer varies by Accept-Encoding (RFC 9110 12.5.5)."
    RANGE Ours "range"
        "A range of a complete segment is answered 206 with those bytes (media.md 6.5)."
    RANGE_BAD Ours "range-unsatisfiable"
        "A range beyond the end is 416 (media.md 6.5)."
    CORS Ours "cors"
        "Every answer allows every origin and exposes the length (media.md 6.5)."
    COOKIE Ours "no-cookie"
        "No answer sets a cookie or redirects (media.md 6.5)."
    ETAG Ours "etag"
        "Media has an ETag (media.md 6.5)."
    UNKNOWN_MEDIA Must "unknown-media"
        "Media that never was is 404 (RFC 9110)."
    MEDIA_GONE Must "media-missing"
        "What is listed can be fetched (6.2.1, 6.2.2)."
    SEGMENT_BYTES Must "segment-differs"
        "A segment is its parts one after another, byte for byte (4.4.4.9)."
    BOXES Must "boxes"
        "Init sections and fragments are well-formed CMAF: ftyp, moov with one track; moof, \
         mdat (3.1.2)."
    INDEPENDENT_LIE Must "independent-lie"
        "INDEPENDENT=YES only if the part begins with a sync sample (4.4.4.9)."
    INDEPENDENT_MISSING Ours "independent-missing"
        "A part whose first sample is a sync sample is INDEPENDENT=YES (media.md 6.3)."
    TIME_GAP Must "time-gap"
        "Decode times go on without a hole or an overlap within a discontinuity (3, 6.3.3)."
    PART_LENGTH Must "part-length"
        "The samples of a part last as long as DURATION says (4.4.4.9)."
    SEGMENT_LENGTH Must "segment-length"
        "The samples of a segment last as long as EXTINF says (4.4.4.1)."
    CODECS Must "codecs"
        "CODECS names every codec of the init sections (4.4.6.2)."
    BANDWIDTH Must "bandwidth"
        "BANDWIDTH is at least the measured peak, within 10 % (4.4.6.2)."
    GAP_PART Must "gap-part"
        "A part with GAP=YES is in a segment with EXT-X-GAP, and the reverse (4.4.4.7)."
    GAP_SIBLING Ours "gap-sibling"
        "A silence is a gap in all renditions at once (media.md 6.6)."
}

/// How often a rule was broken, and where first.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) times: u32,
    /// At most [`EVIDENCE_MAX`], each an URL (and line) and what was seen there.
    pub(crate) evidence: Vec<String>,
}

const EVIDENCE_MAX: usize = 3;

/// What a check found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    broken: BTreeMap<&'static str, Broken>,
    is_strict: bool,
    pub(crate) playlists: u64,
    pub(crate) parts: u64,
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
}

impl Report {
    pub(crate) fn new(is_strict: bool) -> Self {
        Self {
            is_strict,
            ..Self::default()
        }
    }

    pub(super) fn broken(&mut self, rule: Rule, at: &str, seen: impl fmt::Display) {
        if rule.level == Level::Ours && !self.is_strict {
            return;
        }
        let entry = self.broken.entry(rule.id).or_insert_with(|| Broken {
            rule,
            times: 0,
            evidence: Vec::new(),
        });
        entry.times = entry.times.saturating_add(1);
        if entry.evidence.len() < EVIDENCE_MAX {
            entry.evidence.push(format!("{at}: {seen}"));
        }
    }

    /// Notes a broken rule unless a fact holds.
    pub(super) fn expect(&mut self, holds: bool, rule: Rule, at: &str, seen: impl fmt::Display) {
        if !holds {
            self.broken(rule, at, seen);
        }
    }

    /// The names of the rules that were broken.
    pub(crate) fn ids(&self) -> Vec<&'static str> {
        self.broken.keys().copied().collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for broken in self.broken.values() {
            let Rule { id, level, says } = broken.rule;
            let level = match level {
                Level::Must => "must",
                Level::Ours => "ours",
            };
            writeln!(f, "{id} ({level}, {} times): {says}", broken.times)?;
            for evidence in &broken.evidence {
                writeln!(f, "    {evidence}")?;
            }
        }
        let judged = ALL
            .iter()
            .filter(|rule| self.is_strict || rule.level == Level::Must);
        write!(
            f,
            "{} of {} rules broken; {} playlists, {} parts, {} segments, {} bytes read",
            self.broken.len(),
            judged.count(),
            self.playlists,
            self.parts,
            self.segments,
            self.bytes
        )
    }
}
