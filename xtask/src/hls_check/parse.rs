//! Playlists, read strictly. On purpose nothing is shared with the code that writes ours: a fault
//! common to both would never be seen.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Attributes by name, values without their quotes.
pub(super) type Attributes = BTreeMap<String, String>;

/// A media playlist.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Media {
    pub(super) version: u64,
    pub(super) target_s: u64,
    pub(super) part_target_s: Option<f64>,
    pub(super) control: Attributes,
    pub(super) media_sequence: u64,
    pub(super) discontinuity_sequence: u64,
    pub(super) has_type: bool,
    pub(super) is_ended: bool,
    pub(super) skipped: Option<u64>,
    pub(super) removed_ranges: Vec<String>,
    /// The lines of each date range by its ID.
    pub(super) ranges: BTreeMap<String, Vec<String>>,
    /// Complete ones, then the open one if it has parts.
    pub(super) segments: Vec<Segment>,
    pub(super) hint: Option<String>,
    pub(super) reports: Vec<Attributes>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Segment {
    pub(super) msn: u64,
    /// None while it is open.
    pub(super) uri: Option<String>,
    pub(super) duration_s: f64,
    pub(super) is_gap: bool,
    pub(super) has_break: bool,
    /// The discontinuities up to and with its own.
    pub(super) breaks: u64,
    /// The map that holds here; whether its tag stands here; None in a delta that skipped it.
    pub(super) map: Option<String>,
    pub(super) has_map_tag: bool,
    pub(super) date: Option<OffsetDateTime>,
    pub(super) parts: Vec<Part>,
    /// The line of its EXTINF, or of its last part.
    pub(super) line: usize,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    pub(super) uri: String,
    pub(super) duration_s: f64,
    pub(super) is_independent: bool,
    pub(super) is_gap: bool,
}

/// A variant or an alternative rendition.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) uri: String,
    pub(super) attributes: Attributes,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Multivariant {
    pub(super) variants: Vec<Stream>,
    pub(super) media: Vec<Stream>,
}

impl Media {
    /// Complete segments.
    pub(super) fn complete(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.uri.is_some())
    }

    /// Whether it is a list of sound: each part can be played by itself.
    pub(super) fn is_sound(&self) -> bool {
        let parts = self.segments.iter().flat_map(|s| &s.parts);
        let mut media = parts.filter(|p| !p.is_gap).peekable();
        media.peek().is_some() && media.all(|p| p.is_independent)
    }

    /// The next part to come, as a blocking reload names it.
    pub(super) fn next(&self) -> (u64, u64) {
        match self.segments.last() {
            Some(open) if open.uri.is_none() => (open.msn, open.parts.len() as u64),
            Some(last) => (last.msn + 1, 0),
            None => (self.media_sequence + self.skipped.unwrap_or(0), 0),
        }
    }

    /// Segment and part that were listed last, as a rendition report names them.
    pub(super) fn last(&self) -> Option<(u64, u64)> {
        let last = self.segments.iter().rev().find(|s| !s.parts.is_empty())?;
        Some((last.msn, last.parts.len() as u64 - 1))
    }

    /// A number of the server control, in seconds.
    pub(super) fn control_s(&self, name: &str) -> Option<f64> {
        self.control.get(name)?.parse().ok()
    }
}

/// Whether a text is a multivariant playlist.
pub(super) fn is_multivariant(text: &str) -> bool {
    text.lines().any(|l| l.starts_with("#EXT-X-STREAM-INF:"))
}

/// The first fault names its line, counted from one.
pub(super) fn media(text: &str) -> Result<Media, String> {
    let mut reader = Reader::default();
    lines(text, |n, line| reader.take(n, line))?;
    reader.finish()
}

pub(super) fn multivariant(text: &str) -> Result<Multivariant, String> {
    let mut out = Multivariant::default();
    let mut waiting: Option<Attributes> = None;
    lines(text, |_, line| {
        let (tag, value) = line.split_once(':').unwrap_or((line, ""));
        match tag {
            "#EXT-X-STREAM-INF" => {
                let found = attributes(value)?;
                need(&found, "BANDWIDTH")?;
                if waiting.replace(found).is_some() {
                    return Err("EXT-X-STREAM-INF without a URI line after it".to_owned());
                }
            }
            "#EXT-X-MEDIA" => {
                let attributes = attributes(value)?;
                for name in ["TYPE", "GROUP-ID", "NAME"] {
                    need(&attributes, name)?;
                }
                if let Some(uri) = attributes.get("URI").cloned() {
                    out.media.push(Stream { uri, attributes });
                }
            }
            _ if line.starts_with('#') => {}
            _ => {
                let attributes = waiting.take().ok_or("a URI without EXT-X-STREAM-INF")?;
                let uri = line.to_owned();
                out.variants.push(Stream { uri, attributes });
            }
        }
        Ok(())
    })?;
    Ok(out)
}

fn lines(
    text: &str,
    mut take: impl FnMut(usize, &str) -> Result<(), String>,
) -> Result<(), String> {
    if text.lines().next() != Some("#EXTM3U") {
        return Err("line 1: not EXTM3U".to_owned());
    }
    for (n, line) in text.lines().enumerate().skip(1) {
        if !line.is_empty() {
            take(n + 1, line).map_err(|why| format!("line {}: {why}: {line}", n + 1))?;
        }
    }
    Ok(())
}

fn need<'a>(attributes: &'a Attributes, name: &str) -> Result<&'a str, String> {
    let value = attributes.get(name).map(String::as_str);
    value.ok_or_else(|| format!("{name} is missing"))
}

/// `NAME=value` separated by commas; a comma inside quotes separates nothing (4.2).
pub(super) fn attributes(text: &str) -> Result<Attributes, String> {
    let mut out = Attributes::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once('=').ok_or("an attribute without a value")?;
        let is_named = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-');
        if !is_named {
            return Err(format!("`{name}` is no attribute name"));
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').ok_or("a quote is left open")?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if out.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(format!("{name} is there twice"));
        }
        rest = match after.strip_prefix(',') {
            Some(rest) => rest,
            None if after.is_empty() => return Ok(out),
            None => return Err("no comma between attributes".to_owned()),
        };
    }
}

fn whole(text: &str) -> Result<u64, String> {
    let is_decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = is_decimal.then(|| text.parse().ok()).flatten();
    number.ok_or_else(|| format!("`{text}` is no decimal integer"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let is_decimal = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse::<f64>().ok().filter(|_| is_decimal);
    number.ok_or_else(|| format!("`{text}` is no number of seconds"))
}

/// The tags of one media playlist, gathered line by line.
#[derive(Default)]
struct Reader {
    out: Media,
    open: Segment,
    extinf: Option<f64>,
    map: Option<String>,
    breaks: u64,
    seen: Vec<String>,
}

impl Reader {
    fn take(&mut self, n: usize, line: &str) -> Result<(), String> {
        let Some(tag) = line.strip_prefix("#EXT") else {
            return if line.starts_with('#') {
                Ok(())
            } else {
                self.close(line, n)
            };
        };
        let (tag, value) = tag.split_once(':').unwrap_or((tag, ""));
        match tag {
            "INF" => {
                let (duration, _) = value.split_once(',').ok_or("EXTINF without its comma")?;
                self.open.line = n;
                self.extinf = Some(seconds(duration)?);
            }
            "-X-DISCONTINUITY" => {
                self.breaks += 1;
                self.open.has_break = true;
            }
            "-X-GAP" => self.open.is_gap = true,
            "-X-PROGRAM-DATE-TIME" => {
                let date = OffsetDateTime::parse(value, &Rfc3339);
                self.open.date = Some(date.map_err(|error| error.to_string())?);
            }
            "-X-MAP" => {
                self.map = Some(need(&attributes(value)?, "URI")?.to_owned());
                self.open.has_map_tag = true;
            }
            "-X-PART" => {
                let part = part(&attributes(value)?)?;
                self.open.line = n;
                self.open.parts.push(part);
            }
            "-X-DATERANGE" => {
                let id = need(&attributes(value)?, "ID")?.to_owned();
                let known = self.out.ranges.entry(id).or_default();
                known.push(value.to_owned());
            }
            "-X-PRELOAD-HINT" => {
                let found = attributes(value)?;
                if need(&found, "TYPE")? == "PART" {
                    self.once("hint of a part")?;
                    self.out.hint = Some(need(&found, "URI")?.to_owned());
                }
            }
            "-X-RENDITION-REPORT" => {
                let found = attributes(value)?;
                whole(need(&found, "LAST-MSN")?)?;
                need(&found, "URI")?;
                self.out.reports.push(found);
            }
            _ => self.head(tag, value)?,
        }
        Ok(())
    }

    /// Tags that stand once in a playlist.
    fn head(&mut self, tag: &str, value: &str) -> Result<(), String> {
        let out = &mut self.out;
        match tag {
            "-X-VERSION" => out.version = whole(value)?,
            "-X-TARGETDURATION" => out.target_s = whole(value)?,
            "-X-MEDIA-SEQUENCE" => out.media_sequence = whole(value)?,
            "-X-DISCONTINUITY-SEQUENCE" => {
                out.discontinuity_sequence = whole(value)?;
                self.breaks = out.discontinuity_sequence;
            }
            "-X-PLAYLIST-TYPE" => out.has_type = true,
            "-X-ENDLIST" => out.is_ended = true,
            "-X-SERVER-CONTROL" => out.control = attributes(value)?,
            "-X-PART-INF" => {
                out.part_target_s = Some(seconds(need(&attributes(value)?, "PART-TARGET")?)?);
            }
            "-X-SKIP" => {
                let found = attributes(value)?;
                out.skipped = Some(whole(need(&found, "SKIPPED-SEGMENTS")?)?);
                let removed = found.get("RECENTLY-REMOVED-DATERANGES");
                out.removed_ranges = removed
                    .map(|ids| ids.split('\t').map(str::to_owned).collect())
                    .unwrap_or_default();
            }
            _ => return Ok(()),
        }
        let is_late = matches!(tag, "-X-MEDIA-SEQUENCE" | "-X-DISCONTINUITY-SEQUENCE")
            && (!self.out.segments.is_empty() || self.open != Segment::default());
        if is_late {
            return Err("a sequence number after the first segment".to_owned());
        }
        self.once(tag)
    }

    fn once(&mut self, tag: &str) -> Result<(), String> {
        if self.seen.iter().any(|seen| seen == tag) {
            return Err(format!("{tag} is there twice"));
        }
        self.seen.push(tag.to_owned());
        Ok(())
    }

    fn close(&mut self, uri: &str, line: usize) -> Result<(), String> {
        let duration = self.extinf.take().ok_or("a URI without EXTINF")?;
        self.open.uri = Some(uri.to_owned());
        self.open.duration_s = duration;
        self.keep(line);
        Ok(())
    }

    fn keep(&mut self, line: usize) {
        let mut segment = std::mem::take(&mut self.open);
        let before = self.out.segments.len() as u64 + self.out.skipped.unwrap_or(0);
        segment.msn = self.out.media_sequence + before;
        segment.breaks = self.breaks;
        segment.map.clone_from(&self.map);
        segment.line = line;
        self.out.segments.push(segment);
    }

    fn finish(mut self) -> Result<Media, String> {
        if self.extinf.is_some() {
            return Err("EXTINF without a URI line after it".to_owned());
        }
        if !self.open.parts.is_empty() {
            self.open.duration_s = self.open.parts.iter().map(|p| p.duration_s).sum();
            let line = self.open.line;
            self.keep(line);
        }
        if !self.seen.iter().any(|tag| tag == "-X-TARGETDURATION") {
            return Err("EXT-X-TARGETDURATION is missing".to_owned());
        }
        Ok(self.out)
    }
}

fn part(found: &Attributes) -> Result<Part, String> {
    let is = |name: &str| match found.get(name).map(String::as_str) {
        None => Ok(false),
        Some("YES") => Ok(true),
        Some(other) => Err(format!("{name} is `{other}`, it can only be YES")),
    };
    Ok(Part {
        uri: need(found, "URI")?.to_owned(),
        duration_s: seconds(need(found, "DURATION")?)?,
        is_independent: is("INDEPENDENT")?,
        is_gap: is("GAP")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_by_the_letter() {
        let read = attributes("A=1,B=\"x,y=z\",C-2=YES").expect("well-formed");
        assert_eq!(read["B"], "x,y=z");
        assert_eq!(read["C-2"], "YES");
        for bad in ["", "A", "a=1", "A=\"x", "A=1,A=2", "A=\"x\"B=2", "A=1,"] {
            assert!(attributes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fault_names_its_line() {
        let cases = [
            ("#EXTM3U8\n", "line 1"),
            ("#EXTM3U\n#EXT-X-TARGETDURATION:4.5\n", "line 2"),
            (
                "#EXTM3U\n#EXT-X-TARGETDURATION:4\nno-extinf.m4s\n",
                "line 3",
            ),
            ("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:-1,\n", "line 3"),
            (
                "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-TARGETDURATION:4\n",
                "line 3",
            ),
            (
                "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-PART:URI=\"a\"\n",
                "line 3",
            ),
            ("#EXTM3U\n#EXTINF:1,\na\n", "TARGETDURATION is missing"),
        ];
        for (text, expected) in cases {
            let why = media(text).expect_err(text);
            assert!(why.contains(expected), "{why} for {text}");
        }
    }

    #[test]
    fn an_open_segment_is_the_last() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:7\n\
            #EXT-X-SKIP:SKIPPED-SEGMENTS=2\n#EXTINF:1.0,\ns9\n\
            #EXT-X-PART:DURATION=0.2,URI=\"p\",INDEPENDENT=YES\n";
        let read = media(text).expect("well-formed");
        assert_eq!(read.next(), (10, 1));
        assert_eq!(read.last(), Some((10, 0)));
        assert_eq!(read.complete().map(|s| s.msn).collect::<Vec<_>>(), [9]);
    }
}
