//! Health, readiness and metrics.

use std::fmt::Write as _;
use std::sync::OnceLock;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;

use crate::app::{App, Phase};

/// What the probes say.
#[derive(Clone, Copy, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Says that the process runs.
#[utoipa::path(get, path = "/healthz", tag = "operation", responses((status = 200, body = Health)))]
pub(crate) async fn healthz() -> Response {
    shaped(StatusCode::OK, "ok")
}

/// Says whether new sessions are taken.
#[utoipa::path(get, path = "/readyz", tag = "operation",
    responses((status = 200, body = Health), (status = 503, body = Health)))]
pub(crate) async fn readyz(State(app): State<App>) -> Response {
    match app.phase() {
        Phase::Running => shaped(StatusCode::OK, "ready"),
        Phase::Starting => shaped(StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Phase::Draining | Phase::Stopping => shaped(StatusCode::SERVICE_UNAVAILABLE, "draining"),
    }
}

fn shaped(code: StatusCode, status: &'static str) -> Response {
    let body = axum::Json(Health { status });
    (code, [(CACHE_CONTROL, "no-store")], body).into_response()
}

/// Prometheus text; on the admin listener only.
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let mut text = recorder().render();
    media_metrics(&app, &mut text).expect("a String takes every write");
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// Counts from now on; before, counters go nowhere.
pub(crate) fn install_recorder() {
    recorder();
}

/// The recorder of the process, installed on first use.
fn recorder() -> &'static PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER.get_or_init(|| {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        // Another recorder was installed first: ours then shows nothing, which hurts nobody.
        drop(metrics::set_global_recorder(recorder));
        handle
    })
}

/// The counters of the media core, under their own names.
fn media_metrics(app: &App, text: &mut String) -> std::fmt::Result {
    let stats = app.media.stats();
    let live = app.media.list().len();
    writeln!(text, "# TYPE lamplight_media_broadcasts gauge")?;
    writeln!(text, "lamplight_media_broadcasts{{state=\"live\"}} {live}")?;
    let rejections = stats.rejections();
    if !rejections.is_empty() {
        writeln!(text, "# TYPE lamplight_media_rejected_input_total counter")?;
    }
    for (protocol, reason, count) in rejections {
        writeln!(
            text,
            "lamplight_media_rejected_input_total\
             {{protocol=\"{protocol}\",reason=\"{reason}\"}} {count}"
        )?;
    }
    let mut last = "";
    for (name, label, count) in stats.counters() {
        if name != last {
            writeln!(text, "# TYPE lamplight_media_{name} counter")?;
            last = name;
        }
        let key = label_of(name);
        writeln!(text, "lamplight_media_{name}{{{key}=\"{label}\"}} {count}")?;
    }
    Ok(())
}

/// The name of the one label a counter of the core carries (spec media.md 8.1).
fn label_of(name: &str) -> &'static str {
    match name {
        "hls_gaps_total" | "converter_dropped_total" => "kind",
        "hls_requests_total" => "class",
        "keyframe_requests_total" => "answer",
        "discontinuities_total" | "reanchors_total" | "overload_steps_total" => "cause",
        "udp_dropped_total" => "reason",
        _ => "protocol",
    }
}
