//! Health, readiness, and what the process counts.

use std::sync::OnceLock;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
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

/// What the whole process counted, as Prometheus text.
pub(crate) fn counted() -> String {
    recorder().render()
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
