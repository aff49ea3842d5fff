//! Rules of what playlists list: init sections, parts and segments, byte by byte.

use std::collections::{BTreeMap, HashMap};

use super::fetch::{Answer, Client, resolve};
use super::mp4::{self, Fragment, Init};
use super::parse::{Media, Part, Segment};
use super::playlists::SOUND_SLACK_S;
use super::rules::{self, Report, Rule};

const LENGTH_SLACK_S: f64 = 0.005;
/// Bodies of parts are kept for this many segments, to compare them with the whole.
const SEGMENTS_KEPT: usize = 16;
const URIS_KEPT: usize = 20_000;
const DOUBTS_MAX: usize = 64;

/// What was fetched of one rendition.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// By URL.
    pub(super) inits: HashMap<String, Init>,
    /// Parts in order by segment; None where one is unknown or a gap.
    parts: BTreeMap<u64, Vec<Option<Vec<u8>>>>,
    /// Which segment and part a URL was listed for.
    uris: HashMap<String, (u64, Option<usize>)>,
    /// Where the next part begins, in ticks, if nothing broke the line; with its discontinuity.
    expected: Option<(u64, u64)>,
    /// When a segment begins, in seconds of T.
    pub(super) times: BTreeMap<u64, f64>,
    /// Bytes and seconds of complete segments.
    pub(super) sizes: BTreeMap<u64, (u64, f64)>,
    has_begun: bool,
    /// Lengths that are right only if what follows begins anew.
    doubts: Vec<Doubt>,
}

/// Samples that last past the end that is said, by less than the last of them: so it is before a
/// gap, a discontinuity or the end, and nowhere else.
#[derive(Debug)]
struct Doubt {
    msn: u64,
    /// Which part, if it is one.
    part: Option<usize>,
    breaks: u64,
    rule: Rule,
    url: String,
    seen: String,
}

/// One playlist's new media. `hinted` is a hinted part that is already here.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) client: &'a Client,
    pub(super) base: &'a str,
    pub(super) list: &'a Media,
    pub(super) hinted: Option<&'a Answer>,
    /// Fetch the hinted part again, to compare.
    pub(super) is_compared: bool,
}

impl Fetched {
    /// Fetches and judges what is new in a playlist.
    pub(super) async fn take(&mut self, step: &Step<'_>, report: &mut Report) {
        // A player begins at the last independent part; before it nothing was asked for.
        let begin = match (self.has_begun, self.parts.last_key_value()) {
            (true, Some((&msn, _))) => msn,
            _ => step.list.segments.last().map_or(0, |s| s.msn),
        };
        self.has_begun = true;
        self.judge_doubts(step.list, report);
        for segment in step.list.segments.iter().filter(|s| s.msn >= begin) {
            self.take_segment(step, segment, report).await;
        }
        while self.parts.len() > SEGMENTS_KEPT {
            self.parts.pop_first();
        }
        if self.uris.len() > URIS_KEPT {
            self.uris.clear();
        }
    }

    /// What follows is listed now.
    fn judge_doubts(&mut self, list: &Media, report: &mut Report) {
        if list.is_ended {
            self.doubts.clear();
        }
        let is_open = |doubt: &mut Doubt| {
            let own = list.segments.iter().find(|s| s.msn == doubt.msn);
            let next = list.segments.iter().find(|s| s.msn == doubt.msn + 1);
            let more = own.zip(doubt.part).and_then(|(s, n)| s.parts.get(n + 1));
            let is_wrong = match (more, next) {
                (Some(part), _) => !part.is_gap,
                (None, Some(next)) => {
                    let is_first_gap = next.parts.first().is_some_and(|part| part.is_gap);
                    next.breaks == doubt.breaks && !next.is_gap && !is_first_gap
                }
                (None, None) => return list.media_sequence <= doubt.msn,
            };
            report.expect(!is_wrong, doubt.rule, &doubt.url, &doubt.seen);
            false
        };
        let mut doubts = std::mem::take(&mut self.doubts);
        doubts.retain_mut(is_open);
        self.doubts = doubts;
    }

    async fn take_segment(&mut self, step: &Step<'_>, segment: &Segment, report: &mut Report) {
        let init = self.init(step, segment, report).await;
        let from = self.parts.entry(segment.msn).or_default().len();
        for (n, part) in segment.parts.iter().enumerate().skip(from) {
            let place = (segment.msn, Some(n));
            self.name(&part.uri, place, step.base, report);
            let body = if part.is_gap {
                self.expected = None;
                None
            } else {
                self.part(step, (segment, part, n), init.as_ref(), report)
                    .await
            };
            self.parts.entry(segment.msn).or_default().push(body);
        }
        if let Some(uri) = &segment.uri
            && !self.sizes.contains_key(&segment.msn)
            && !segment.is_gap
        {
            self.name(uri, (segment.msn, None), step.base, report);
            self.whole(step, (segment, uri), init.as_ref(), report)
                .await;
        }
        if segment.is_gap {
            self.expected = None;
        }
    }

    /// One URI is one thing.
    fn name(&mut self, uri: &str, place: (u64, Option<usize>), base: &str, report: &mut Report) {
        let before = self.uris.insert(resolve(base, uri), place);
        let seen = format!("{uri} was {before:?}, is {place:?}");
        let is_new = before.is_none_or(|known| known == place);
        report.expect(is_new, rules::URI_REUSED, base, seen);
    }

    async fn init(
        &mut self,
        step: &Step<'_>,
        segment: &Segment,
        report: &mut Report,
    ) -> Option<Init> {
        let url = resolve(step.base, segment.map.as_ref()?);
        if let Some(known) = self.inits.get(&url) {
            return Some(known.clone());
        }
        let answer = fetch(step.client, &url, report).await?;
        match mp4::init(&answer.body) {
            Ok(init) => {
                let is_sound = init.codec.starts_with("mp4a") || init.codec == "Opus";
                let wanted = if is_sound { "audio/mp4" } else { "video/mp4" };
                let found = answer.header("content-type");
                report.expect(found == wanted, rules::TYPE_MEDIA, &url, found);
                self.inits.insert(url, init.clone());
                Some(init)
            }
            Err(why) => {
                report.broken(rules::BOXES, &url, why);
                None
            }
        }
    }

    async fn part(
        &mut self,
        step: &Step<'_>,
        (segment, part, n): (&Segment, &Part, usize),
        init: Option<&Init>,
        report: &mut Report,
    ) -> Option<Vec<u8>> {
        let url = resolve(step.base, &part.uri);
        let hinted = step.hinted.filter(|answer| answer.url == url);
        let body = match hinted {
            Some(answer) if answer.status == 200 => answer.body.clone(),
            Some(answer) => {
                report.broken(rules::HINT_REFUSED, &url, answer.status);
                fetch(step.client, &url, report).await?.body
            }
            None => fetch(step.client, &url, report).await?.body,
        };
        report.parts += 1;
        if hinted.is_some() && step.is_compared {
            let again = fetch(step.client, &url, report).await?;
            let is_same = again.body == body;
            report.expect(
                is_same,
                rules::HINT_DIFFERS,
                &url,
                "other bytes than listed",
            );
        }
        let init = init?;
        let all = match mp4::fragments(&body, init) {
            Ok(all) => all,
            Err(why) => {
                report.broken(rules::BOXES, &url, why);
                self.expected = None;
                return Some(body);
            }
        };
        if n == 0 {
            let begin = seconds(all[0].time, init);
            self.times.insert(segment.msn, begin);
        }
        self.judge_part((segment, part, n), (&all, init), &url, report);
        Some(body)
    }

    fn judge_part(
        &mut self,
        (segment, part, n): (&Segment, &Part, usize),
        (all, init): (&[Fragment], &Init),
        url: &str,
        report: &mut Report,
    ) {
        let is_sync = all[0].is_sync;
        let seen = format!("INDEPENDENT {}, sync {is_sync}", part.is_independent);
        let (lies, hides) = (
            part.is_independent && !is_sync,
            is_sync && !part.is_independent,
        );
        report.expect(!lies, rules::INDEPENDENT_LIE, url, &seen);
        report.expect(!hides, rules::INDEPENDENT_MISSING, url, &seen);
        for fragment in all {
            // Stamps are rounded to ticks: one may be lost or won between two samples.
            if let Some((expected, breaks)) = self.expected
                && breaks == segment.breaks
            {
                let seen = format!("begins at {}, {expected} was to follow", fragment.time);
                let follows = fragment.time.abs_diff(expected) <= 1;
                report.expect(follows, rules::TIME_GAP, url, seen);
            }
            self.expected = Some((fragment.time + fragment.duration, segment.breaks));
        }
        let lasts = total(all, init);
        let seen = format!("samples of {lasts:.6} s, DURATION={}", part.duration_s);
        let doubt = Doubt {
            msn: segment.msn,
            part: Some(n),
            breaks: segment.breaks,
            rule: rules::PART_LENGTH,
            url: url.to_owned(),
            seen,
        };
        self.judge_length(lasts, part.duration_s, (last(all, init), doubt), report);
    }

    /// What is said is what the samples last, or it is doubtful, or wrong.
    fn judge_length(
        &mut self,
        lasts: f64,
        said: f64,
        (last, doubt): (f64, Doubt),
        report: &mut Report,
    ) {
        if (lasts - said).abs() <= LENGTH_SLACK_S {
            return;
        }
        if lasts > said && lasts - last < said && self.doubts.len() < DOUBTS_MAX {
            self.doubts.push(doubt);
            return;
        }
        report.broken(doubt.rule, &doubt.url, doubt.seen);
    }

    /// A complete segment, against its parts.
    async fn whole(
        &mut self,
        step: &Step<'_>,
        (segment, uri): (&Segment, &str),
        init: Option<&Init>,
        report: &mut Report,
    ) {
        let url = resolve(step.base, uri);
        let Some(answer) = fetch(step.client, &url, report).await else {
            return;
        };
        report.segments += 1;
        let bytes = answer.body.len() as u64;
        self.sizes.insert(segment.msn, (bytes, segment.duration_s));
        let parts = self.parts.get(&segment.msn).filter(|all| !all.is_empty());
        let joined = parts.and_then(|all| all.iter().cloned().collect::<Option<Vec<_>>>());
        if let Some(joined) = joined.map(|all| all.concat()) {
            let seen = format!("{bytes} bytes, its parts {}", joined.len());
            let is_same = joined == answer.body;
            report.expect(is_same, rules::SEGMENT_BYTES, &url, seen);
        }
        let Some(init) = init else {
            return;
        };
        match mp4::fragments(&answer.body, init) {
            Ok(all) => {
                let lasts = total(&all, init);
                let seen = format!("samples of {lasts:.6} s, EXTINF:{}", segment.duration_s);
                let off = (segment.duration_s - lasts).abs();
                if step.list.is_sound() && off <= SOUND_SLACK_S {
                    return;
                }
                let doubt = Doubt {
                    msn: segment.msn,
                    part: None,
                    breaks: segment.breaks,
                    rule: rules::SEGMENT_LENGTH,
                    url,
                    seen,
                };
                let said = segment.duration_s;
                self.judge_length(lasts, said, (last(&all, init), doubt), report);
            }
            Err(why) => report.broken(rules::BOXES, &url, why),
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds of a year are exact"
)]
fn seconds(ticks: u64, init: &Init) -> f64 {
    ticks as f64 / f64::from(init.rate)
}

fn total(all: &[Fragment], init: &Init) -> f64 {
    seconds(all.iter().map(|f| f.duration).sum(), init)
}

/// How long the last sample lasts.
fn last(all: &[Fragment], init: &Init) -> f64 {
    all.last().map_or(0.0, |f| seconds(f.last, init))
}

/// Listed media, which has to be there.
async fn fetch(client: &Client, url: &str, report: &mut Report) -> Option<Answer> {
    match client.get(url).await {
        Ok(answer) if answer.status == 200 => {
            report.bytes += answer.body.len() as u64;
            answer.judge_common(report);
            let rule = rules::CACHE_MEDIA;
            answer.judge_cache(rule, "public,max-age=31536000,immutable", report);
            let tag = answer.header("etag");
            report.expect(!tag.is_empty(), rules::ETAG, url, "no ETag");
            Some(answer)
        }
        Ok(answer) => {
            report.broken(rules::MEDIA_GONE, url, answer.status);
            None
        }
        Err(error) => {
            report.broken(rules::MEDIA_GONE, url, format!("{error:#}"));
            None
        }
    }
}
