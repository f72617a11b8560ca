//! The web listener: webhooks, health and metrics over plain HTTP, behind a load balancer.

mod health;
mod server;
#[cfg(test)]
mod tests;
mod webhooks;

use std::fmt;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use secrecy::SecretString;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::store::Ledger;
use crate::telemetry::Metrics;

pub use server::serve;
pub use webhooks::MAX_BODY;

/// What the listener needs.
#[derive(Clone)]
pub struct Web {
    /// Where deliveries are kept before they are answered.
    pub store: Arc<dyn Ledger>,
    /// Webhook secrets; more than one while they are rotated. With none, every delivery is refused.
    pub secrets: watch::Receiver<Arc<[SecretString]>>,
    /// Called when the store holds a new delivery. Must not block.
    pub inbox_ready: Arc<dyn Fn() + Send + Sync>,
    /// The figures: `/metrics` shows them, and each answer to a webhook is counted there.
    pub metrics: Metrics,
    /// Whether this process should get traffic.
    pub ready: watch::Receiver<bool>,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web")
            .field("secrets", &self.secrets.borrow().len())
            .field("ready", &*self.ready.borrow())
            .finish_non_exhaustive()
    }
}

/// The listener before there is anything behind it: the process lives and is not ready. Once `rest` is set it
/// takes all requests.
pub fn front(rest: Arc<OnceLock<Router>>) -> Router {
    Router::new().fallback(move |request: Request| {
        let rest = rest.get().cloned();
        async move {
            match rest {
                Some(rest) => rest.oneshot(request).await.into_response(),
                None => health::starting(request.uri()).await.into_response(),
            }
        }
    })
}

/// All routes of the listener.
pub fn router(web: Web) -> Router {
    let (ready, store) = (web.ready.clone(), Arc::clone(&web.store));
    web.metrics
        .ready_if(move || health::readiness(&ready, &*store).is_ok());
    let probes = Router::new()
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .with_state(web.clone());
    Router::new()
        .route("/webhooks/github", post(webhooks::receive))
        .with_state(Arc::new(webhooks::Intake::new(web)))
        .merge(probes)
}
