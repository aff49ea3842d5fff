//! Rules of one media playlist, and of what may change from one rendering to the next.

use super::parse::{Media, Segment};
use super::rules::{self, Report};

/// Dates have milliseconds, and sound is cut at its own frames.
pub(super) const DATE_SLACK_S: f64 = 0.06;
const EXACT_S: f64 = 0.000_01;
/// EXTINF and the sum of parts may differ by rounding.
const SUM_SLACK_S: f64 = 0.002;
/// A frame of sound may lie across the bound of a segment, which is the picture's.
pub(super) const SOUND_SLACK_S: f64 = 0.05;

/// Rules of a playlist by itself. `asked` is true when a delta was asked for.
pub(super) fn judge(list: &Media, at: &str, asked: bool, report: &mut Report) {
    judge_head(list, at, report);
    report.expect(
        asked || list.skipped.is_none(),
        rules::UNASKED_SKIP,
        at,
        "EXT-X-SKIP",
    );
    if list.is_ended {
        report.expect(
            list.hint.is_none(),
            rules::END_HINT,
            at,
            "hint with ENDLIST",
        );
    } else {
        report.expect(list.hint.is_some(), rules::HINT_MISSING, at, "no hint");
        let has_type = list.has_type && list.media_sequence > 0;
        report.expect(!has_type, rules::LIVE_TYPE, at, "EXT-X-PLAYLIST-TYPE");
    }
    let is_dated = list.segments.iter().any(|s| s.date.is_some());
    report.expect(is_dated, rules::DATE_MISSING, at, "no date");
    let end: f64 = list.segments.iter().map(|s| s.duration_s).sum();
    let mut start = 0.0;
    for (n, segment) in list.segments.iter().enumerate() {
        let at = format!("{at} line {}", segment.line);
        let is_last = n + 1 == list.segments.len();
        judge_segment(list, segment, is_last, &at, report);
        judge_parts(list, segment, n, &at, report);
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let reach = 3.0 * list.target_s as f64;
        let from_end = end - start;
        let is_listed = !segment.parts.is_empty();
        // Sound ends a frame before or after the picture by which this is decided.
        let is_border = (from_end - reach).abs() <= DATE_SLACK_S;
        let is_free = is_border || segment.is_gap || list.part_target_s.is_none();
        let fits = is_free || (from_end <= reach) == is_listed;
        report.expect(fits, rules::PARTS_OLD, &at, format!("parts {is_listed}"));
        start += segment.duration_s;
    }
    judge_dates(list, at, report);
}

fn judge_head(list: &Media, at: &str, report: &mut Report) {
    let version = list.version;
    let has_map = list.segments.iter().any(|s| s.has_map_tag);
    let least = match list.skipped {
        Some(_) if !list.removed_ranges.is_empty() => 10,
        Some(_) => 9,
        None if has_map => 6,
        None => 1,
    };
    let seen = format!("EXT-X-VERSION:{version}");
    report.expect(version >= least, rules::VERSION, at, &seen);
    let is_ours = version == 9 || (version == 10 && list.skipped.is_some());
    report.expect(is_ours, rules::VERSION_OURS, at, &seen);
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let target = list.target_s as f64;
    if let Some(part) = list.part_target_s {
        let back = list.control_s("PART-HOLD-BACK").unwrap_or(0.0);
        let seen = format!("PART-HOLD-BACK={back} with PART-TARGET={part}");
        report.expect(
            back >= 2.0 * part - EXACT_S,
            rules::PART_HOLD_BACK,
            at,
            &seen,
        );
        let is_three = (back - 3.0 * part).abs() < EXACT_S;
        report.expect(is_three, rules::PART_HOLD_BACK_OURS, at, &seen);
        let blocks = list.control.get("CAN-BLOCK-RELOAD").map(String::as_str);
        report.expect(blocks == Some("YES"), rules::BLOCK_RELOAD, at, "not YES");
    }
    let floors = [
        ("HOLD-BACK", 3.0, rules::HOLD_BACK),
        ("CAN-SKIP-UNTIL", 6.0, rules::SKIP_UNTIL),
    ];
    for (name, times, rule) in floors {
        if let Some(value) = list.control_s(name) {
            let seen = format!("{name}={value} with target duration {target}");
            report.expect(value >= times * target, rule, at, seen);
        }
    }
}

fn judge_segment(list: &Media, segment: &Segment, is_last: bool, at: &str, report: &mut Report) {
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let target = list.target_s as f64;
    let length = segment.duration_s;
    let seen = format!("{length} s with target duration {target}");
    report.expect(length.round() <= target, rules::EXTINF_OVER, at, seen);
    report.expect(segment.date.is_some(), rules::DATE_EACH, at, "no date");
    let is_known = segment.map.is_some() || segment.is_gap || list.skipped.is_some();
    let is_gap = segment.parts.iter().any(|p| p.is_gap);
    report.expect(is_known || is_gap, rules::MAP_MISSING, at, "no EXT-X-MAP");
    let is_mapped = !segment.has_break || segment.has_map_tag || segment.is_gap || is_gap;
    report.expect(is_mapped, rules::MAP_BREAK, at, "no EXT-X-MAP here");
    let whole = segment.parts.iter().all(|p| p.is_gap) || segment.parts.is_empty();
    let fits = segment.uri.is_none() || (segment.is_gap && whole) || (!segment.is_gap && !is_gap);
    report.expect(
        fits,
        rules::GAP_PART,
        at,
        format!("EXT-X-GAP {}", segment.is_gap),
    );
    let sum: f64 = segment.parts.iter().map(|p| p.duration_s).sum();
    if segment.uri.is_some() && !segment.parts.is_empty() {
        let seen = format!("parts of {sum} s in a segment of {length} s");
        // The last frame of a part may last past it, when frames are rare.
        let slack = if is_last {
            SUM_SLACK_S + 0.1
        } else if list.is_sound() {
            SOUND_SLACK_S
        } else {
            SUM_SLACK_S
        };
        report.expect((sum - length).abs() <= slack, rules::PARTS_SUM, at, seen);
    }
}

fn judge_parts(list: &Media, segment: &Segment, n: usize, at: &str, report: &mut Report) {
    let Some(target) = list.part_target_s else {
        return;
    };
    let next = list.segments.get(n + 1).is_some_and(|s| s.is_gap);
    for (i, part) in segment.parts.iter().enumerate() {
        let seen = format!("{} lasts {} s", part.uri, part.duration_s);
        let fits = part.duration_s <= target + EXACT_S;
        report.expect(fits, rules::PART_OVER, at, &seen);
        // Nobody knows yet whether the last part of an open segment ends it.
        let is_last = i + 1 == segment.parts.len();
        let before_gap = segment.parts.get(i + 1).is_some_and(|p| p.is_gap) || (is_last && next);
        let may = part.is_independent || part.is_gap || is_last || before_gap;
        let is_long = part.duration_s >= 0.85 * target - EXACT_S;
        report.expect(may || is_long, rules::PART_SHORT, at, &seen);
    }
}

fn judge_dates(list: &Media, at: &str, report: &mut Report) {
    for pair in list.segments.windows(2) {
        let (Some(before), Some(after)) = (pair[0].date, pair[1].date) else {
            continue;
        };
        let at = format!("{at} line {}", pair[1].line);
        let seen = format!("{before} then {after}, EXTINF {}", pair[0].duration_s);
        report.expect(after >= before, rules::DATE_BACK, &at, &seen);
        let off = (after - before).as_seconds_f64() - pair[0].duration_s;
        let follows = pair[1].has_break || off.abs() <= DATE_SLACK_S;
        report.expect(follows, rules::DATE_JUMP, &at, &seen);
    }
}

/// Rules from one full rendering to a later one.
pub(super) fn judge_change(old: &Media, new: &Media, at: &str, report: &mut Report) {
    let same = [
        (old.target_s == new.target_s, rules::TARGET_CHANGED),
        (
            old.part_target_s == new.part_target_s,
            rules::PART_TARGET_CHANGED,
        ),
        (old.control == new.control, rules::CONTROL_CHANGED),
        (!old.is_ended || old == new, rules::END_CONTINUED),
    ];
    for (holds, rule) in same {
        report.expect(holds, rule, at, "differs from the rendering before");
    }
    let (from, to) = (old.media_sequence, new.media_sequence);
    let seen = format!("{from} then {to}");
    report.expect(to >= from, rules::MEDIA_SEQUENCE, at, seen);
    let (from, to) = (old.next(), new.next());
    report.expect(
        to >= from,
        rules::WENT_BACK,
        at,
        format!("{from:?} then {to:?}"),
    );
    if new.media_sequence < old.media_sequence {
        return;
    }
    let gone = old.segments.iter().filter(|s| s.msn < new.media_sequence);
    // A discontinuity counts when the segment it stands before has left.
    let left = gone.clone().filter(|s| s.has_break).count() as u64;
    let first = new.segments.first();
    // The tag of the first segment may be left out and counted at once.
    let hidden = old
        .segments
        .iter()
        .find(|o| first.is_some_and(|f| f.msn == o.msn && o.has_break && !f.has_break));
    let (was, is) = (old.discontinuity_sequence, new.discontinuity_sequence);
    let grown = was + left + u64::from(hidden.is_some());
    let seen = format!("{was} then {is}, {left} left");
    report.expect(is == grown, rules::DISCONTINUITY_SEQUENCE, at, seen);
    let stays: f64 = new.complete().map(|s| s.duration_s).sum();
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let least = 3.0 * new.target_s as f64;
    let fits = gone.count() == 0 || stays >= least || new.is_ended;
    report.expect(fits, rules::TOO_SHORT, at, format!("{stays} s are left"));
    for segment in &new.segments {
        if let Some(before) = old.segments.iter().find(|s| s.msn == segment.msn) {
            judge_same(before, segment, at, report);
        }
    }
}

/// One segment at two times.
fn judge_same(old: &Segment, new: &Segment, at: &str, report: &mut Report) {
    let at = format!("{at} line {}", new.line);
    let was_open = old.uri.is_none();
    let is_closed_same = old.uri == new.uri
        && old.is_gap == new.is_gap
        && (old.duration_s - new.duration_s).abs() < EXACT_S;
    let is_same = (was_open || is_closed_same)
        && (old.breaks == new.breaks || !old.has_break)
        && old.date == new.date
        && (old.map == new.map || old.map.is_none() || new.map.is_none());
    let seen = format!("segment {} was {old:?}, is {new:?}", new.msn);
    report.expect(is_same, rules::SEGMENT_CHANGED, &at, seen);
    let aged = !was_open && new.parts.is_empty();
    let is_kept = new.parts.len() >= old.parts.len()
        && old.parts.iter().zip(&new.parts).all(|(a, b)| a == b)
        && (was_open || new.parts.len() == old.parts.len());
    let seen = format!(
        "parts of {} were {:?}, are {:?}",
        new.msn, old.parts, new.parts
    );
    report.expect(aged || is_kept, rules::PART_CHANGED, &at, seen);
}

/// A delta, applied to what was known, against the full playlist of the same moment.
pub(super) fn judge_delta(
    (known, full): (&Media, &Media),
    (delta, is_v2): (&Media, bool),
    at: &str,
    report: &mut Report,
) {
    let Some(skipped) = delta.skipped else {
        return;
    };
    let ranges_fit = if is_v2 {
        delta
            .ranges
            .iter()
            .all(|r| full.ranges.get(r.0) == Some(r.1))
            && known
                .ranges
                .keys()
                .all(|id| full.ranges.contains_key(id) || delta.removed_ranges.contains(id))
    } else {
        delta.ranges == full.ranges && delta.removed_ranges.is_empty()
    };
    report.expect(
        ranges_fit,
        rules::DELTA_RANGES,
        at,
        format!("{:?}", delta.ranges),
    );
    let first = delta.media_sequence + skipped;
    let until = full.control_s("CAN-SKIP-UNTIL").unwrap_or(0.0);
    let whole: f64 = full.segments.iter().map(|s| s.duration_s).sum();
    let mut end = 0.0;
    for segment in full.segments.iter().filter(|s| s.msn < first) {
        end += segment.duration_s;
        let age = whole - end;
        let seen = format!("segment {} ends {age:.3} s before the end", segment.msn);
        report.expect(age >= until - EXACT_S, rules::DELTA_TOO_MUCH, at, seen);
    }
    let is_head = delta.media_sequence == full.media_sequence
        && delta.discontinuity_sequence == full.discontinuity_sequence
        && (delta.hint.as_ref(), delta.next()) == (full.hint.as_ref(), full.next());
    report.expect(
        is_head,
        rules::DELTA_DIFFERS,
        at,
        "the head, the end or the hint differs",
    );
    for segment in &full.segments {
        let is_skipped = segment.msn < first;
        let list = if is_skipped { known } else { delta };
        let other = list.segments.iter().find(|s| s.msn == segment.msn);
        let is_same = match other {
            Some(o) if is_skipped => (&o.uri, o.is_gap) == (&segment.uri, segment.is_gap),
            Some(o) => is_whole(o, segment),
            None => false,
        };
        let seen = format!(
            "segment {} is {segment:?}, by the delta {other:?}",
            segment.msn
        );
        report.expect(is_same, rules::DELTA_DIFFERS, at, seen);
    }
}

fn is_whole(delta: &Segment, full: &Segment) -> bool {
    (&delta.uri, delta.is_gap, delta.date) == (&full.uri, full.is_gap, full.date)
        && (&delta.parts, delta.has_break) == (&full.parts, full.has_break)
        && (delta.duration_s - full.duration_s).abs() < EXACT_S
        && (delta.map.is_none() || delta.map == full.map)
}
