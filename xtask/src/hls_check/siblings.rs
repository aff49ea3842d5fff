//! Rules between renditions: one timeline, true reports, codecs and rates as announced.

use super::fetch::{path, resolve};
use super::parse::{Attributes, Media, Multivariant};
use super::play::Rendition;
use super::playlists::DATE_SLACK_S;
use super::rules::{self, Report};

/// Sound is cut at its own frames.
const TIME_SLACK_S: f64 = 0.1;

/// What a report said of a rendition, to be compared with what comes next of it.
#[derive(Debug)]
pub(super) struct Claim {
    by: String,
    of: usize,
    last: (u64, u64),
}

/// Compares the newest playlists of all renditions.
pub(super) fn judge(all: &[Rendition], report: &mut Report) {
    let Some((first, others)) = all.split_first() else {
        return;
    };
    for other in others {
        let (Some(one), Some(two)) = (&first.full, &other.full) else {
            continue;
        };
        let at = path(&other.url);
        let same = one.target_s == two.target_s;
        report.expect(same, rules::SIBLING_TARGET, at, "another target duration");
        for a in one.complete() {
            let Some(b) = two.complete().find(|s| s.msn == a.msn) else {
                continue;
            };
            if let (Some(x), Some(y)) = (a.date, b.date) {
                let off = (x - y).as_seconds_f64().abs();
                let seen = format!("segment {}: {x} and {y}", a.msn);
                report.expect(off <= DATE_SLACK_S, rules::SIBLING_DATE, at, seen);
            }
            let seen = format!("segment {}: {} and {}", a.msn, a.breaks, b.breaks);
            report.expect(a.breaks == b.breaks, rules::SIBLING_BREAKS, at, seen);
            let off = (a.duration_s - b.duration_s).abs();
            let seen = format!("segment {}: {} and {} s", a.msn, a.duration_s, b.duration_s);
            report.expect(off <= TIME_SLACK_S, rules::SIBLING_SPAN, at, seen);
            let seen = format!("segment {}: {} and {}", a.msn, a.is_gap, b.is_gap);
            // What is made on demand begins with gaps for what it lacks.
            let is_made = a.msn >= begin(one).max(begin(two));
            // Sound goes on while a picture waits for its keyframe, and may stop alone.
            let is_kin = one.is_sound() == two.is_sound();
            let fits = a.is_gap == b.is_gap || !is_made || !is_kin;
            report.expect(fits, rules::GAP_SIBLING, at, seen);
        }
        for (msn, x) in &first.fetched.times {
            if let Some(y) = other.fetched.times.get(msn) {
                let seen = format!("segment {msn} begins at {x:.3} and {y:.3} s");
                let fits = (x - y).abs() <= TIME_SLACK_S;
                report.expect(fits, rules::SIBLING_T, at, seen);
            }
        }
    }
}

/// The first segment that is more than a gap.
fn begin(list: &Media) -> u64 {
    let real = list.complete().find(|s| !s.is_gap);
    real.map_or(u64::MAX, |s| s.msn)
}

/// Reads the reports of a round; nothing may be said that was over two rounds ago.
pub(super) fn claims(all: &[Rendition], report: &mut Report) -> Vec<Claim> {
    let mut out = Vec::new();
    for by in all {
        let Some(list) = by.full.as_ref().filter(|list| !list.is_ended) else {
            continue;
        };
        let mut is_named = vec![false; all.len()];
        for said in &list.reports {
            let Some((of, last)) = said_of(all, by, said) else {
                continue;
            };
            is_named[of] = true;
            if let Some(least) = all[of].lasts.first().copied() {
                let seen = format!("{said:?}, {least:?} was listed two rounds ago");
                report.expect(last >= least, rules::REPORT_FALSE, &by.url, seen);
            }
            let by = by.url.clone();
            out.push(Claim { by, of, last });
        }
        for (other, is_named) in all.iter().zip(is_named) {
            let is_due = other.lasts.len() > 1 && !std::ptr::eq(other, by);
            let seen = format!("nothing of {}", path(&other.url));
            report.expect(is_named || !is_due, rules::REPORT_MISSING, &by.url, seen);
        }
    }
    out
}

fn said_of(all: &[Rendition], by: &Rendition, said: &Attributes) -> Option<(usize, (u64, u64))> {
    let url = resolve(&by.url, said.get("URI")?);
    let of = all.iter().position(|r| path(&r.url) == path(&url))?;
    let msn = said.get("LAST-MSN")?.parse().ok()?;
    let part = said.get("LAST-PART").map_or(Some(0), |p| p.parse().ok())?;
    Some((of, (msn, part)))
}

/// Nothing may have been said that has not come to be one round later.
pub(super) fn judge_claims(all: &[Rendition], claims: &[Claim], report: &mut Report) {
    for claim in claims {
        let Some(last) = all[claim.of].full.as_ref().and_then(|list| list.last()) else {
            continue;
        };
        let seen = format!(
            "says {:?} of {}, which is at {last:?} a round later",
            claim.last,
            path(&all[claim.of].url)
        );
        report.expect(claim.last <= last, rules::REPORT_FALSE, &claim.by, seen);
    }
}

/// Codecs and rates of the multivariant playlist, against what was fetched.
pub(super) fn judge_variants(
    (at, multivariant): (&str, &Multivariant),
    all: &[Rendition],
    report: &mut Report,
) {
    let find = |uri: &str| {
        let url = resolve(at, uri);
        all.iter().find(|r| path(&r.url) == path(&url))
    };
    for variant in &multivariant.variants {
        let Some(main) = find(&variant.uri) else {
            continue;
        };
        let group = variant.attributes.get("AUDIO");
        let beside = multivariant.media.iter().find(|media| {
            media.attributes.get("TYPE").map(String::as_str) == Some("AUDIO")
                && media.attributes.get("GROUP-ID") == group
        });
        let beside = beside.and_then(|media| find(&media.uri));
        let said = variant.attributes.get("CODECS").map_or("", String::as_str);
        let found = [Some(main), beside].into_iter().flatten();
        for init in found.flat_map(|r| r.fetched.inits.values()) {
            let is_said = said.split(',').any(|codec| {
                codec.eq_ignore_ascii_case(&init.codec)
                    || (!init.codec.contains('.') && codec.starts_with(&init.codec))
            });
            let seen = format!("CODECS=\"{said}\", the init section has {}", init.codec);
            report.expect(is_said, rules::CODECS, &main.url, seen);
        }
        judge_rate(&variant.attributes, (main, beside), report);
    }
}

fn judge_rate(
    said: &Attributes,
    (main, beside): (&Rendition, Option<&Rendition>),
    report: &mut Report,
) {
    let target = main.full.as_ref().map_or(0.0, |list| {
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let target = list.target_s as f64;
        target
    });
    let sizes: Vec<(u64, u64, f64)> = main
        .fetched
        .sizes
        .iter()
        .map(|(&msn, &(bytes, lasts))| {
            let more = beside.and_then(|r| r.fetched.sizes.get(&msn));
            (msn, bytes + more.map_or(0, |m| m.0), lasts)
        })
        .collect();
    let peak_bps = peak_bps(&sizes, target);
    let bandwidth = said.get("BANDWIDTH").and_then(|b| b.parse::<f64>().ok());
    let seen = format!("BANDWIDTH={bandwidth:?}, measured {peak_bps:.0}");
    let fits = bandwidth.is_some_and(|said| said * 1.1 >= peak_bps);
    report.expect(fits, rules::BANDWIDTH, &main.url, seen);
}

/// The peak segment bit rate (1): the most that neighbours of 0.5 to 1.5 target durations have.
fn peak_bps(sizes: &[(u64, u64, f64)], target: f64) -> f64 {
    let mut peak = 0.0_f64;
    for from in 0..sizes.len() {
        let (mut bytes, mut lasts) = (0_u64, 0.0);
        for (n, &(msn, size, length)) in sizes[from..].iter().enumerate() {
            if msn != sizes[from].0 + n as u64 {
                break;
            }
            bytes += size;
            lasts += length;
            if lasts > 1.5 * target {
                break;
            }
            if lasts >= 0.5 * target {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                let bits = bytes as f64 * 8.0;
                peak = peak.max(bits / lasts);
            }
        }
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_over_half_to_one_and_a_half_target_durations() {
        // A short one counts only together with its neighbours; a hole parts neighbours.
        let sizes = [
            (0, 1_000, 1.0),
            (1, 1_000, 0.1),
            (2, 500, 1.0),
            (9, 2_000, 1.0),
        ];
        assert!((peak_bps(&sizes[..3], 1.0) - 2_000.0 * 8.0 / 1.1).abs() < 1.0);
        assert!((peak_bps(&sizes, 1.0) - 16_000.0).abs() < 1.0);
    }
}
