//! Metrics (media.md 8.1): what the process and its media core counted, as Prometheus text.
//!
//! Invariant: no room, key, address or viewer in a label.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use lamplight_media::frame::Kind;
use lamplight_media::stats::Histogram;
use tokio::time::Instant;

use super::{outputs, recording};
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
        let (labels, count) = (labelled(name, counter.labels), counter.count);
        writeln!(text, "lamplight_media_{name}{{{labels}}} {count}")?;
    }
    for (name, labels, histogram) in stats.histograms() {
        if name != last {
            writeln!(text, "# TYPE lamplight_media_{name} histogram")?;
            last = name;
        }
        write_histogram(text, (name, labels), &histogram)?;
    }
    Ok(())
}

/// Label names and values, as they stand between braces.
fn labelled(name: &str, labels: [&str; 2]) -> String {
    let pairs = labels_of(name).iter().zip(labels);
    let pairs: Vec<String> = pairs
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    pairs.join(",")
}

fn write_histogram(
    text: &mut String,
    (name, labels): (&str, [&str; 2]),
    histogram: &Histogram,
) -> std::fmt::Result {
    let labels = labelled(name, labels);
    let name = format!("lamplight_media_{name}");
    for (bound, count) in histogram.cumulative() {
        writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
    }
    let (count, sum) = (histogram.count(), histogram.sum());
    writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(text, "{name}_sum{{{labels}}} {sum}")?;
    writeln!(text, "{name}_count{{{labels}}} {count}")
}

/// What is so now, summed over all broadcasts.
fn gauges(app: &App, text: &mut String) -> std::fmt::Result {
    let now = Instant::now();
    let mut states = [("live", 0_u64), ("awaiting", 0), ("starting", 0)];
    let mut viewers = [("whep", 0_u64), ("hls", 0), ("flv", 0), ("rtmp", 0)];
    let mut ring_bytes = 0;
    for broadcast in app.media.list() {
        let place = match (broadcast.has_publisher(), broadcast.had_media()) {
            (true, true) => 0,
            (false, _) => 1,
            (true, false) => 2,
        };
        states[place].1 += 1;
        let counts = broadcast.audience().counts(now);
        for ((_, sum), output) in
            viewers
                .iter_mut()
                .zip([counts.whep, counts.hls, counts.flv, counts.rtmp])
        {
            *sum += output.viewers;
        }
        let tracks = broadcast.tracks();
        ring_bytes += tracks.iter().map(|track| track.bytes).sum::<usize>();
    }
    writeln!(text, "# TYPE lamplight_media_broadcasts gauge")?;
    for (state, count) in states {
        writeln!(
            text,
            "lamplight_media_broadcasts{{state=\"{state}\"}} {count}"
        )?;
    }
    writeln!(text, "# TYPE lamplight_media_viewers gauge")?;
    for (protocol, count) in viewers {
        let labels = format!("protocol=\"{protocol}\"");
        writeln!(text, "lamplight_media_viewers{{{labels}}} {count}")?;
    }
    writeln!(text, "# TYPE lamplight_media_converters gauge")?;
    let mut converters = BTreeMap::new();
    for job in app.media.converters().jobs() {
        let kind = match job.track().kind() {
            Kind::Video => "video",
            Kind::Audio => "audio",
        };
        *converters.entry([kind, job.encoder()]).or_insert(0_u64) += 1;
    }
    for (labels, count) in converters {
        let labels = labelled("converters", labels);
        writeln!(text, "lamplight_media_converters{{{labels}}} {count}")?;
    }
    let (held, window_bytes) = outputs::held_and_bytes(app);
    for (name, value) in [
        ("ring_bytes", ring_bytes),
        ("window_bytes", window_bytes),
        ("hls_held_requests", held),
        ("store_queue_segments", recording::waiting(app)),
    ] {
        writeln!(text, "# TYPE lamplight_media_{name} gauge")?;
        writeln!(text, "lamplight_media_{name} {value}")?;
    }
    Ok(())
}

/// The names of the labels of a counter of the core (spec media.md 8.1).
fn labels_of(name: &str) -> &'static [&'static str] {
    match name {
        "hls_gaps_total"
        | "converter_dropped_total"
        | "store_bytes_total"
        | "store_dropped_total" => &["kind"],
        "converters" | "converter_frame_seconds" | "converter_lag_seconds" => &["kind", "encoder"],
        "hls_requests_total" => &["class", "status"],
        "keyframe_requests_total" => &["answer"],
        "discontinuities_total" | "publish_takeovers_total" | "overload_steps_total" => &["cause"],
        "udp_dropped_total" => &["reason"],
        "hls_part_late_seconds" => &["rendition"],
        "playlist_render_seconds" => &["class"],
        "rejected_input_total" | "ingest_frames_dropped_total" => &["protocol", "reason"],
        "ingest_frames_total" | "ingest_bytes_total" => &["protocol", "kind"],
        "publish_sessions_total" | "viewer_sessions_total" => &["protocol", "outcome"],
        "rendition_switches_total" => &["direction", "cause"],
        _ => &["protocol"],
    }
}
