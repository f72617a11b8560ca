//! Probes and figures.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;

use super::Web;

/// The process runs.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The process should get traffic.
pub(super) async fn ready(State(web): State<Web>) -> (StatusCode, &'static str) {
    if !*web.ready.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    } else if !*web.store.writable().borrow() {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the store can't be written\n",
        )
    } else {
        (StatusCode::OK, "ready\n")
    }
}

/// The answer while the coordinator waits for what it can't start without.
pub(super) async fn starting(asked: &Uri) -> (StatusCode, &'static str) {
    if asked.path() == "/livez" {
        (StatusCode::OK, live().await)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

/// The figures, in Prometheus' text format.
pub(super) async fn metrics(State(web): State<Web>) -> impl IntoResponse {
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], web.metrics.render())
}
