//! Requests no player makes, or makes seldom: bad directives, ranges, unknown names.

use super::fetch::{Answer, Client, resolve, with};
use super::play::Rendition;
use super::rules::{self, Report};

/// Asks them once of one rendition.
pub(super) async fn run(client: &Client, rendition: &Rendition, report: &mut Report) {
    directives(client, rendition, report).await;
    plain(client, rendition, report).await;
    ranges(client, rendition, report).await;
    unknown(client, rendition, report).await;
}

async fn directives(client: &Client, rendition: &Rendition, report: &mut Report) {
    let Some(list) = &rendition.full else {
        return;
    };
    let far = list.next().0 + 100;
    let msn = list.media_sequence;
    let cases = [
        (rules::BAD_DIRECTIVE, "_HLS_part=0".to_owned()),
        (rules::BAD_DIRECTIVE_OURS, format!("_HLS_msn={far}")),
        (rules::BAD_DIRECTIVE_OURS, "_HLS_msn=0x10".to_owned()),
        (rules::BAD_DIRECTIVE_OURS, "_HLS_msn=-1".to_owned()),
        (
            rules::BAD_DIRECTIVE_OURS,
            format!("_HLS_msn={msn}&_HLS_msn={msn}"),
        ),
        (
            rules::BAD_DIRECTIVE_OURS,
            format!("_HLS_msn={msn}&_HLS_part=x"),
        ),
    ];
    for (rule, directives) in cases {
        let url = with(&rendition.url, &directives);
        if let Some(answer) = ask(client.playlist(&url).await, rule, report) {
            report.expect(answer.status == 400, rule, &url, answer.status);
            if answer.status == 400 {
                answer.judge_cache(rules::CACHE_ERROR, "public,max-age=1", report);
            }
        }
    }
}

async fn plain(client: &Client, rendition: &Rendition, report: &mut Report) {
    let rule = rules::CACHE_PLAIN;
    if let Some(answer) = ask(client.playlist(&rendition.url).await, rule, report) {
        answer.judge_cache(rule, "public,max-age=1", report);
    }
}

async fn ranges(client: &Client, rendition: &Rendition, report: &mut Report) {
    let segments = rendition.full.iter().flat_map(|list| list.complete());
    let Some(segment) = segments.filter(|s| !s.is_gap).last() else {
        return;
    };
    let uri = segment.uri.as_deref().unwrap_or_default();
    let url = resolve(&rendition.url, uri);
    let Some(whole) = ask(client.get(&url).await, rules::RANGE, report) else {
        return;
    };
    let asked = [("range", "bytes=4-19")];
    if let Some(some) = ask(client.get_with(&url, &asked).await, rules::RANGE, report) {
        let wanted = whole.body.get(4..20).unwrap_or_default();
        let says = format!("bytes 4-19/{}", whole.body.len());
        let is_right =
            some.status == 206 && some.body == wanted && some.header("content-range") == says;
        let seen = format!("{} {}", some.status, some.header("content-range"));
        report.expect(is_right, rules::RANGE, &url, seen);
    }
    let asked = [("range", "bytes=999999999-")];
    let rule = rules::RANGE_BAD;
    if let Some(none) = ask(client.get_with(&url, &asked).await, rule, report) {
        report.expect(none.status == 416, rule, &url, none.status);
    }
}

async fn unknown(client: &Client, rendition: &Rendition, report: &mut Report) {
    let url = resolve(&rendition.url, "no-such-s999999999.m4s");
    let rule = rules::UNKNOWN_MEDIA;
    if let Some(answer) = ask(client.get(&url).await, rule, report) {
        report.expect(answer.status == 404, rule, &url, answer.status);
        if answer.status == 404 {
            answer.judge_cache(rules::CACHE_ERROR, "public,max-age=1", report);
        }
    }
}

fn ask(answer: anyhow::Result<Answer>, rule: rules::Rule, report: &mut Report) -> Option<Answer> {
    match answer {
        Ok(answer) => {
            answer.judge_common(report);
            Some(answer)
        }
        Err(error) => {
            report.broken(rule, "no answer", format!("{error:#}"));
            None
        }
    }
}
