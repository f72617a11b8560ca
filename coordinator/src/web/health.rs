//! Probes and figures.

use axum::extract::State;
use axum::http::{StatusCode, header};
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

/// The figures, in Prometheus' text format.
pub(super) async fn metrics(State(web): State<Web>) -> impl IntoResponse {
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], web.metrics.render())
}
