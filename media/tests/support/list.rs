//! A media playlist as a player reads it.

use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A part of a segment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) uri: String,
    pub(crate) duration: Duration,
    pub(crate) is_independent: bool,
    pub(crate) is_gap: bool,
}

/// A segment; without `duration` it is still open.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Segment {
    pub(crate) msn: u64,
    pub(crate) uri: Option<String>,
    pub(crate) duration: Option<Duration>,
    pub(crate) date: OffsetDateTime,
    pub(crate) is_discontinuity: bool,
    pub(crate) is_gap: bool,
    pub(crate) map: String,
    pub(crate) parts: Vec<Part>,
}

impl Segment {
    /// Where it begins, in milliseconds since the date of the show.
    pub(crate) fn start_ms(&self) -> i128 {
        let epoch = OffsetDateTime::UNIX_EPOCH + super::SHOW_BEGAN;
        (self.date - epoch).whole_milliseconds()
    }
}

/// A media playlist.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub(crate) text: String,
    pub(crate) media_sequence: u64,
    pub(crate) discontinuity_sequence: u64,
    pub(crate) target: Duration,
    pub(crate) part_target: Duration,
    pub(crate) segments: Vec<Segment>,
    pub(crate) hint: Option<String>,
    pub(crate) is_ended: bool,
}

/// The value of an attribute, quoted or not.
pub(crate) fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, attributes) = line.split_once(':')?;
    let mut rest = attributes;
    while let Some((key, value)) = rest.split_once('=') {
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(',').map_or((value, ""), |(v, r)| (v, r)),
        };
        if key == name {
            return Some(value);
        }
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    None
}

fn seconds(text: &str) -> Duration {
    Duration::from_secs_f64(text.parse().expect("a decimal number"))
}

/// What the tags before a segment or its first part have said of it.
#[derive(Debug, Default)]
struct Said {
    date: Option<OffsetDateTime>,
    is_discontinuity: bool,
    is_gap: bool,
    duration: Option<Duration>,
    parts: Vec<Part>,
}

impl List {
    /// Reads a whole playlist, not a delta.
    pub(crate) fn read(text: &str) -> Self {
        let mut list = Self {
            text: text.to_owned(),
            ..Self::default()
        };
        let (mut said, mut map) = (Said::default(), String::new());
        for line in text.lines() {
            let (tag, value) = line.split_once(':').unwrap_or((line, ""));
            match tag {
                "#EXT-X-MEDIA-SEQUENCE" => list.media_sequence = value.parse().expect("a number"),
                "#EXT-X-DISCONTINUITY-SEQUENCE" => {
                    list.discontinuity_sequence = value.parse().expect("a number");
                }
                "#EXT-X-TARGETDURATION" => list.target = seconds(value),
                "#EXT-X-PART-INF" => {
                    let target = attribute(line, "PART-TARGET");
                    list.part_target = target.map(seconds).unwrap_or_default();
                }
                "#EXT-X-PROGRAM-DATE-TIME" => {
                    said.date = OffsetDateTime::parse(value, &Rfc3339).ok();
                }
                "#EXT-X-MAP" => attribute(line, "URI")
                    .unwrap_or_default()
                    .clone_into(&mut map),
                "#EXT-X-DISCONTINUITY" => said.is_discontinuity = true,
                "#EXT-X-GAP" => said.is_gap = true,
                "#EXT-X-PART" => said.parts.push(part(line)),
                "#EXTINF" => said.duration = Some(seconds(value.trim_end_matches(','))),
                "#EXT-X-PRELOAD-HINT" => list.hint = attribute(line, "URI").map(str::to_owned),
                "#EXT-X-ENDLIST" => list.is_ended = true,
                _ if !line.starts_with('#') => list.end(&mut said, &map, Some(line)),
                _ => {}
            }
        }
        if !said.parts.is_empty() {
            list.end(&mut said, &map, None);
        }
        list
    }

    fn end(&mut self, said: &mut Said, map: &str, uri: Option<&str>) {
        let said = std::mem::take(said);
        let listed = u64::try_from(self.segments.len()).expect("a short list");
        self.segments.push(Segment {
            msn: self.media_sequence + listed,
            uri: uri.map(str::to_owned),
            duration: said.duration,
            date: said.date.expect("every segment has a date"),
            is_discontinuity: said.is_discontinuity,
            is_gap: said.is_gap,
            map: map.to_owned(),
            parts: said.parts,
        });
    }

    /// The complete segments.
    pub(crate) fn complete(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.duration.is_some())
    }

    /// Length of the complete segments.
    pub(crate) fn length(&self) -> Duration {
        self.complete().filter_map(|s| s.duration).sum()
    }

    /// Sequence numbers of the segments that begin with a discontinuity.
    pub(crate) fn breaks(&self) -> Vec<u64> {
        let breaks = self.segments.iter().filter(|s| s.is_discontinuity);
        breaks.map(|s| s.msn).collect()
    }

    /// How many discontinuities come before a listed segment, its own included.
    pub(crate) fn discontinuities(&self, msn: u64) -> u64 {
        let until = self.segments.iter().take_while(|s| s.msn <= msn);
        let marks = until.filter(|s| s.is_discontinuity).count();
        self.discontinuity_sequence + u64::try_from(marks).expect("a short list")
    }

    /// Checks what holds of two renditions of one show: same number, same interval (I23).
    pub(crate) fn check_beside(&self, other: &Self) {
        for one in &self.segments {
            let beside = other.segments.iter().find(|s| s.msn == one.msn);
            let Some(beside) = beside else { continue };
            let says = format!("{}\n{}", self.text, other.text);
            assert_eq!(one.date, beside.date, "segment {}: {says}", one.msn);
            let counts = (
                self.discontinuities(one.msn),
                other.discontinuities(one.msn),
            );
            assert_eq!(counts.0, counts.1, "segment {}: {says}", one.msn);
        }
    }

    /// Checks that this is what a list may have become (spec media.md 6.4): only appends, removals
    /// in order and increments.
    pub(crate) fn check_follows(&self, before: &Self) {
        let says = || format!("before: {}\nnow: {}", before.text, self.text);
        assert!(self.media_sequence >= before.media_sequence, "{}", says());
        assert!(self.discontinuity_sequence >= before.discontinuity_sequence);
        let long = self.target * 3;
        assert!(
            before.length() < long || self.length() >= long,
            "{}",
            says()
        );
        assert!(self.segments.len() + 1_000 > before.segments.len());
        let mut next_hint = before.hint.as_ref();
        for old in before
            .segments
            .iter()
            .filter(|s| s.msn >= self.media_sequence)
        {
            let new = self.segments.iter().find(|s| s.msn == old.msn);
            let new = new.unwrap_or_else(|| panic!("{} left early: {}", old.msn, says()));
            assert_eq!(new.date, old.date, "{}", says());
            // The list may have lost the segment that named the init section to a gap.
            assert!(new.is_gap || new.map == old.map, "{}", says());
            let counts = (
                self.discontinuities(new.msn),
                before.discontinuities(old.msn),
            );
            assert_eq!(counts.0, counts.1, "{}: {}", old.msn, says());
            if old.duration.is_some() {
                assert_eq!(
                    (new.duration, new.is_gap),
                    (old.duration, old.is_gap),
                    "{}",
                    says()
                );
                let kept = new.parts == old.parts || new.parts.is_empty();
                assert!(kept, "parts of {}: {}", old.msn, says());
            } else {
                // A burst may complete it and be long enough to take its parts off the list.
                let is_old = new.duration.is_some() && new.parts.is_empty();
                let goes_on = new.parts.starts_with(&old.parts);
                assert!(is_old || goes_on, "{}: {}", old.msn, says());
            }
        }
        // What was hinted at is the first part that came.
        let known = before.segments.iter().flat_map(|s| &s.parts).last();
        let mut parts = self.segments.iter().flat_map(|s| &s.parts);
        if let Some(known) = known
            && parts.any(|p| p.uri == known.uri)
            && let (Some(first), Some(hint)) = (parts.next(), next_hint.take())
        {
            assert_eq!(&first.uri, hint, "{}", says());
        }
    }

    /// Checks what holds of any media playlist by itself (spec media.md 6.1, 6.3, 6.4).
    pub(crate) fn check(&self) {
        for segment in self.complete() {
            let duration = segment.duration.expect("complete");
            assert!(
                duration.as_secs_f64().round() <= self.target.as_secs_f64(),
                "segment {} lasts {duration:?}: {}",
                segment.msn,
                self.text
            );
        }
        let parts = self.segments.iter().flat_map(|s| &s.parts);
        for part in parts.clone() {
            assert!(part.duration <= self.part_target, "{part:?}");
        }
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        for (one, next) in pairs.filter(|(_, next)| !next.is_discontinuity) {
            assert!(one.date <= next.date, "dates go on: {}", self.text);
        }
        let open = self.segments.iter().position(|s| s.duration.is_none());
        assert!(open.is_none_or(|n| n + 1 == self.segments.len()));
        let first = self.segments.iter().position(|s| !s.parts.is_empty());
        let mut with_parts = self.segments.iter().skip(first.unwrap_or(usize::MAX));
        assert!(
            with_parts.all(|s| !s.parts.is_empty()),
            "parts are listed all or none: {}",
            self.text
        );
        let hint = self.hint.as_ref();
        assert!(parts.clone().all(|p| Some(&p.uri) != hint), "{}", self.text);
    }

    /// Segments follow each other on the time of day, but for a frame of sound across their bound;
    /// the time of day may step at a discontinuity.
    pub(crate) fn check_that_nothing_is_missing(&self) {
        self.check_that_all_follow(Duration::from_millis(25));
    }

    /// The same for sound whose frames last so long.
    pub(crate) fn check_that_all_follow(&self, frame: Duration) {
        let frame_us = i128::try_from(frame.as_micros()).expect("short");
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        for (one, next) in pairs.filter(|(_, next)| !next.is_discontinuity) {
            let length = one.duration.expect("only the last one is open");
            let length = i128::try_from(length.as_micros()).expect("short");
            let apart = (next.start_ms() - one.start_ms()) * 1_000 - length;
            assert!(
                apart.abs() <= frame_us,
                "after {}: {apart} us: {}",
                one.msn,
                self.text
            );
        }
    }
}

fn part(line: &str) -> Part {
    Part {
        uri: attribute(line, "URI")
            .expect("a part has an address")
            .to_owned(),
        duration: seconds(attribute(line, "DURATION").expect("a part has a length")),
        is_independent: attribute(line, "INDEPENDENT") == Some("YES"),
        is_gap: attribute(line, "GAP") == Some("YES"),
    }
}
