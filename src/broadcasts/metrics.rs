//! Metrics (media.md 8.1): what the process and its media core counted, as Prometheus text.
//!
//! Invariant: no room, key, address or viewer in a label.

use std::fmt::Write as _;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use lamplight_media::stats::Histogram;
use tokio::time::Instant;

use super::outputs;
use crate::app::App;
use crate::http::counted;

/// Prometheus text; on the admin listener only.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let mut text = counted();
    media_metrics(&app, &mut text).expect("a String takes every write");
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// The counters of the media core, under their own names.
fn media_metrics(app: &App, text: &mut String) -> std::fmt::Result {
    let stats = app.media.stats();
    gauges(app, text)?;
    let mut last = "";
    for counter in stats.counters() {
        let name = counter.name;
        if name != last {
            writeln!(text, "# TYPE lamplight_media_{name} counter")?;
            last = name;
        }
        let pairs = labels_of(name).iter().zip(counter.labels);
        let pairs: Vec<String> = pairs
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let (labels, count) = (pairs.join(","), counter.count);
        writeln!(text, "lamplight_media_{name}{{{labels}}} {count}")?;
    }
    for (name, label, histogram) in stats.histograms() {
        if name != last {
            writeln!(text, "# TYPE lamplight_media_{name} histogram")?;
            last = name;
        }
        write_histogram(text, (name, label), &histogram)?;
    }
    Ok(())
}

fn write_histogram(
    text: &mut String,
    (name, label): (&str, &str),
    histogram: &Histogram,
) -> std::fmt::Result {
    let key = labels_of(name).first().unwrap_or(&"kind");
    let name = format!("lamplight_media_{name}");
    for (ms, count) in histogram.cumulative() {
        let bound = Duration::from_millis(ms).as_secs_f64();
        writeln!(
            text,
            "{name}_bucket{{{key}=\"{label}\",le=\"{bound}\"}} {count}"
        )?;
    }
    let (count, sum) = (histogram.count(), histogram.sum().as_secs_f64());
    writeln!(
        text,
        "{name}_bucket{{{key}=\"{label}\",le=\"+Inf\"}} {count}"
    )?;
    writeln!(text, "{name}_sum{{{key}=\"{label}\"}} {sum}")?;
    writeln!(text, "{name}_count{{{key}=\"{label}\"}} {count}")
}

/// What is so now, summed over all broadcasts.
fn gauges(app: &App, text: &mut String) -> std::fmt::Result {
    let now = Instant::now();
    let mut states = [("live", 0_u64), ("awaiting", 0), ("starting", 0)];
    let (mut whep, mut hls, mut ring_bytes, mut converters) = (0, 0, 0, 0);
    for broadcast in app.media.list() {
        let place = match (broadcast.has_publisher(), broadcast.had_media()) {
            (true, true) => 0,
            (false, _) => 1,
            (true, false) => 2,
        };
        states[place].1 += 1;
        let counts = broadcast.audience().counts(now);
        whep += counts.whep.viewers;
        hls += counts.hls.viewers;
        let tracks = broadcast.tracks();
        ring_bytes += tracks.iter().map(|track| track.bytes).sum::<usize>();
        let made = tracks.iter().filter(|t| t.track.is_made() && t.users > 0);
        converters += made.count();
    }
    writeln!(text, "# TYPE lamplight_media_broadcasts gauge")?;
    for (state, count) in states {
        writeln!(
            text,
            "lamplight_media_broadcasts{{state=\"{state}\"}} {count}"
        )?;
    }
    writeln!(text, "# TYPE lamplight_media_viewers gauge")?;
    writeln!(text, "lamplight_media_viewers{{protocol=\"whep\"}} {whep}")?;
    writeln!(text, "lamplight_media_viewers{{protocol=\"hls\"}} {hls}")?;
    writeln!(text, "# TYPE lamplight_media_converters gauge")?;
    writeln!(text, "lamplight_media_converters {converters}")?;
    let (held, window_bytes) = outputs::held_and_bytes(app);
    for (name, value) in [
        ("ring_bytes", ring_bytes),
        ("window_bytes", window_bytes),
        ("hls_held_requests", held),
    ] {
        writeln!(text, "# TYPE lamplight_media_{name} gauge")?;
        writeln!(text, "lamplight_media_{name} {value}")?;
    }
    Ok(())
}

/// The names of the labels of a counter of the core (spec media.md 8.1).
fn labels_of(name: &str) -> &'static [&'static str] {
    match name {
        "hls_gaps_total" | "converter_lag_seconds" => &["kind"],
        "hls_requests_total" => &["class", "status"],
        "keyframe_requests_total" => &["answer"],
        "discontinuities_total" | "publish_takeovers_total" => &["cause"],
        "udp_dropped_total" => &["reason"],
        "hls_part_late_seconds" => &["rendition"],
        "rejected_input_total" | "ingest_frames_dropped_total" => &["protocol", "reason"],
        "ingest_frames_total" | "ingest_bytes_total" => &["protocol", "kind"],
        "publish_sessions_total" | "viewer_sessions_total" => &["protocol", "outcome"],
        "rendition_switches_total" => &["direction", "cause"],
        _ => &["protocol"],
    }
}
