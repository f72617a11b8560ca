//! Probes and figures.

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse;
use tokio::sync::watch;

use super::Web;
use crate::store::Ledger;

/// The process runs.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The process should get traffic.
pub(super) async fn ready(State(web): State<Web>) -> (StatusCode, &'static str) {
    match readiness(&web.ready, &*web.store) {
        Ok(()) => (StatusCode::OK, "ready\n"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// Whether the process should get traffic, or why not.
pub(super) fn readiness(
    ready: &watch::Receiver<bool>,
    store: &dyn Ledger,
) -> Result<(), &'static str> {
    if !*ready.borrow() {
        Err("not ready\n")
    } else if !*store.writable().borrow() {
        Err("not ready: the store can't be written\n")
    } else {
        Ok(())
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
