//! A strict player: all renditions in step, one part a round.
//!
//! Every round asks each rendition at once for its next part three ways: as a blocking reload, by
//! its hint, and now and then as a delta. The rules need no clock: they compare what came.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::fetch::{Answer, Client, path, resolve, with};
use super::media::{Fetched, Step};
use super::parse::{self, Media, Multivariant};
use super::rules::{self, Report};
use super::{playlists, probes, siblings};

/// How long, and by which rules.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) lasts: Duration,
    pub(crate) rounds_max: u64,
    /// Judge by our own promises too.
    pub(crate) is_strict: bool,
    /// Only renditions whose URL has this in it.
    pub(crate) only: Option<String>,
}

const PROBE_ROUND: u64 = 3;
const RENDITIONS_MAX: usize = 32;
/// From so many answers on a tally says something; of fewer in pieces a busy machine is the cause.
const TALLY_MIN: u32 = 10;

/// A media playlist that is being played.
#[derive(Debug)]
pub(super) struct Rendition {
    pub(super) url: String,
    pub(super) full: Option<Media>,
    pub(super) fetched: Fetched,
    /// The last parts it had, of the last rounds, oldest first.
    pub(super) lasts: Vec<(u64, u64)>,
    tally: Tally,
    is_over: bool,
}

/// What a clock cannot tell of one answer, and many tell together.
#[derive(Debug, Default)]
struct Tally {
    /// Blocking reloads; those of them that may be cached as held ones.
    reloads: u32,
    kept_as_held: u32,
    /// Hinted parts; those of them that came piece by piece.
    hinted: u32,
    in_pieces: u32,
}

/// The answers of one round.
struct Round {
    reload: anyhow::Result<Answer>,
    delta: Option<(anyhow::Result<Answer>, bool)>,
    hinted: Option<anyhow::Result<Answer>>,
    wanted: Option<(u64, u64)>,
}

/// Plays and judges.
pub(crate) async fn check(url: &str, settings: &Settings) -> anyhow::Result<Report> {
    let mut report = Report::new(settings.is_strict);
    let client = Client::new()?;
    let answer = client.playlist(url).await?;
    anyhow::ensure!(answer.status == 200, "{url} answers {}", answer.status);
    let text = answer.text(&mut report);
    let text = text.ok_or_else(|| anyhow::anyhow!("{url} is no playlist: {report}"))?;
    answer.judge_common(&mut report);
    let (multivariant, urls) = if parse::is_multivariant(&text) {
        let read = parse::multivariant(&text).map_err(anyhow::Error::msg)?;
        let urls = urls(url, &read);
        (Some(read), urls)
    } else {
        (None, vec![url.to_owned()])
    };
    let wanted = |u: &String| settings.only.as_ref().is_none_or(|word| u.contains(word));
    let urls = urls.into_iter().filter(wanted).take(RENDITIONS_MAX);
    let mut all: Vec<Rendition> = urls.map(Rendition::new).collect();
    anyhow::ensure!(!all.is_empty(), "no rendition to play");
    play(&client, settings, &mut all, &mut report).await;
    for rendition in &all {
        rendition.judge_tally(&mut report);
    }
    if let Some(read) = &multivariant {
        siblings::judge_variants((url, read), &all, &mut report);
    }
    Ok(report)
}

/// Every media playlist once.
fn urls(base: &str, read: &Multivariant) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for stream in read.variants.iter().chain(&read.media) {
        let url = resolve(base, &stream.uri);
        if !out.contains(&url) {
            out.push(url);
        }
    }
    out
}

async fn play(client: &Client, settings: &Settings, all: &mut [Rendition], report: &mut Report) {
    let until = Instant::now() + settings.lasts;
    let mut claims = Vec::new();
    for round in 0..settings.rounds_max {
        if Instant::now() >= until || all.iter().all(|r| r.is_over) {
            break;
        }
        let asked = all.iter().map(|r| r.ask(client, round));
        let answers = join_all(asked).await;
        for (rendition, answers) in all.iter_mut().zip(answers) {
            rendition.take(client, answers, round, report).await;
        }
        siblings::judge_claims(all, &claims, report);
        siblings::judge(all, report);
        claims = siblings::claims(all, report);
        for rendition in all.iter_mut() {
            rendition.remember();
        }
        if round == PROBE_ROUND {
            for rendition in all.iter() {
                probes::run(client, rendition, report).await;
            }
        }
    }
}

impl Rendition {
    fn new(url: String) -> Self {
        Self {
            url,
            full: None,
            fetched: Fetched::default(),
            lasts: Vec::new(),
            tally: Tally::default(),
            is_over: false,
        }
    }

    fn remember(&mut self) {
        if let Some(last) = self.full.as_ref().and_then(Media::last) {
            self.lasts.push(last);
        }
        if self.lasts.len() > 2 {
            self.lasts.remove(0);
        }
    }

    async fn ask(&self, client: &Client, round: u64) -> Round {
        let live = self.full.as_ref().filter(|list| !list.is_ended);
        let blocks = live.filter(|l| l.control.contains_key("CAN-BLOCK-RELOAD"));
        let wanted = blocks.map(Media::next);
        let has_parts = live.is_some_and(|list| list.part_target_s.is_some());
        let directives = match wanted {
            Some((msn, part)) if has_parts => format!("_HLS_msn={msn}&_HLS_part={part}"),
            Some((msn, _)) => format!("_HLS_msn={msn}"),
            None => String::new(),
        };
        if wanted.is_none() && self.full.is_some() {
            // Not a low-latency server: ask again when something can have changed.
            let target = self.full.as_ref().map_or(1, |list| list.target_s);
            tokio::time::sleep(Duration::from_secs(target)).await;
        }
        let url = with(&self.url, &directives);
        let can_skip = live.filter(|l| l.control.contains_key("CAN-SKIP-UNTIL"));
        let is_v2 = round % 4 == 3
            && can_skip.is_some_and(|l| l.control.contains_key("CAN-SKIP-DATERANGES"));
        let delta = async {
            // A known playlist is what a delta is applied to.
            can_skip.filter(|_| round % 2 == 1 && wanted.is_some())?;
            let skip = if is_v2 { "v2" } else { "YES" };
            let url = with(&url, &format!("_HLS_skip={skip}"));
            Some((client.playlist(&url).await, is_v2))
        };
        let hint = async {
            let uri = live?.hint.as_ref()?;
            Some(client.get(&resolve(&self.url, uri)).await)
        };
        let (reload, delta, hinted) = tokio::join!(client.playlist(&url), delta, hint);
        Round {
            reload,
            delta,
            hinted,
            wanted,
        }
    }

    async fn take(&mut self, client: &Client, answers: Round, round: u64, report: &mut Report) {
        if self.is_over {
            return;
        }
        let Some((at, list)) = self.read(answers.reload, false, report) else {
            return;
        };
        playlists::judge(&list, &at, false, report);
        if let Some(wanted) = answers.wanted {
            judge_reload(&list, wanted, &at, report);
        }
        if let Some(old) = &self.full {
            playlists::judge_change(old, &list, &at, report);
        }
        if let Some((answer, is_v2)) = answers.delta
            && let Some((at, delta)) = self.read(answer, true, report)
        {
            playlists::judge(&delta, &at, true, report);
            // Only of one moment they can be compared.
            let same = (delta.next(), delta.media_sequence) == (list.next(), list.media_sequence);
            if let Some(known) = self.full.as_ref().filter(|_| same) {
                playlists::judge_delta((known, &list), (&delta, is_v2), &at, report);
            }
        }
        let hinted = answers.hinted.and_then(Result::ok);
        self.judge_hint(&list, hinted.as_ref(), &at, report);
        let step = Step {
            client,
            base: &self.url,
            list: &list,
            hinted: hinted.as_ref(),
            is_compared: round % 4 == 2,
        };
        self.fetched.take(&step, report).await;
        // What ended is read once more: it is to stay as it is.
        self.is_over = self.full.as_ref().is_some_and(|old| old.is_ended);
        self.full = Some(list);
    }

    /// A reload or a delta; what is wrong with the answer itself is noted.
    fn read(
        &mut self,
        answer: anyhow::Result<Answer>,
        is_delta: bool,
        report: &mut Report,
    ) -> Option<(String, Media)> {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                report.broken(rules::RELOAD_STATUS, path(&self.url), format!("{error:#}"));
                return None;
            }
        };
        answer.judge_common(report);
        if answer.status != 200 {
            let target_s = self.full.as_ref().map_or(1, |list| list.target_s);
            // Who waited as long as a server has to wait is told so.
            let is_late = answer.held >= Duration::from_secs(3 * target_s);
            let is_told = answer.status == 503 && is_late;
            let seen = format!("{} after {:?}", answer.status, answer.held);
            report.expect(is_told, rules::RELOAD_STATUS, &answer.url, seen);
            self.is_over |= answer.status == 404 && !is_delta;
            return None;
        }
        let text = answer.text(report)?;
        match parse::media(&text) {
            Ok(list) => {
                if answer.url.contains("_HLS_msn=") && !list.is_ended {
                    self.tally.reload(&answer, list.target_s, report);
                }
                Some((answer.url, list))
            }
            Err(why) => {
                report.broken(rules::SYNTAX, &answer.url, why);
                None
            }
        }
    }

    /// What was hinted before is what came.
    fn judge_hint(&mut self, list: &Media, hinted: Option<&Answer>, at: &str, report: &mut Report) {
        let Some(old) = &self.full else {
            return;
        };
        let (msn, part) = old.next();
        let listed = |msn: u64, part: u64| {
            let segment = list.segments.iter().find(|s| s.msn == msn)?;
            segment.parts.get(usize::try_from(part).ok()?)
        };
        let came = listed(msn, part).or_else(|| listed(msn + 1, 0));
        if let (Some(hint), Some(came)) = (&old.hint, came)
            && !came.is_gap
        {
            let seen = format!("{hint} was hinted, {} came", came.uri);
            report.expect(*hint == came.uri, rules::HINT_CHANGED, at, seen);
        }
        let target = list.part_target_s.unwrap_or(1.0);
        if let Some(answer) = hinted.filter(|answer| answer.status == 200) {
            self.tally.hinted += 1;
            let is_whole = answer.spread.as_secs_f64() < target / 2.0;
            self.tally.in_pieces += u32::from(!is_whole);
        }
    }

    fn judge_tally(&self, report: &mut Report) {
        let at = path(&self.url);
        let Tally {
            reloads,
            kept_as_held,
            hinted,
            in_pieces,
        } = self.tally;
        let seen = format!("of {reloads} blocking reloads none may be cached for so long");
        let is_kept = reloads < TALLY_MIN || kept_as_held > 0;
        report.expect(is_kept, rules::CACHE_HELD, at, seen);
        let seen = format!("{in_pieces} of {hinted} came piece by piece");
        let is_whole = in_pieces < TALLY_MIN || in_pieces * 4 < hinted;
        report.expect(is_whole, rules::HINT_EARLY, at, seen);
    }
}

impl Tally {
    /// Whether an answer was held is not to be seen in it: it may be cached as one that was, or as
    /// one of the moment.
    fn reload(&mut self, answer: &Answer, target_s: u64, report: &mut Report) {
        self.reloads += 1;
        let found = answer.header("cache-control").replace(' ', "");
        let held = format!("public,max-age={}", 6 * target_s);
        self.kept_as_held += u32::from(found == held);
        let is_either = found == held || found == "public,max-age=1";
        let seen = format!("Cache-Control: {found}, not {held}");
        report.expect(is_either, rules::CACHE_HELD, &answer.url, seen);
    }
}

/// What was waited for is there (6.2.5.2).
fn judge_reload(list: &Media, (msn, part): (u64, u64), at: &str, report: &mut Report) {
    let has_parts = list.part_target_s.is_some();
    let segment = list.segments.iter().find(|s| s.msn == msn);
    let is_there = match segment {
        // A part past the end of a complete segment is the first of the next one.
        Some(s) if has_parts && s.uri.is_some() && !s.is_gap => {
            s.parts.len() as u64 > part || list.next() > (msn + 1, 0) || s.parts.is_empty()
        }
        Some(s) if has_parts && s.uri.is_none() => s.parts.len() as u64 > part,
        Some(s) => s.uri.is_some(),
        None => list.media_sequence > msn,
    };
    let seen = format!("waited for {msn}.{part}, the next is {:?}", list.next());
    report.expect(is_there || list.is_ended, rules::RELOAD_EARLY, at, seen);
}
