//! Serving HTTP/1.1 with bounds on time and on connections.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longest wait for a whole request head, idle time before it included. An idle connection must
/// live longer than the load balancer's idle time-out, 60 s by default, or it answers 502.
/// <https://docs.aws.amazon.com/elasticloadbalancing/latest/application/load-balancer-troubleshooting.html>
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// Bytes of a request head; larger ones are answered 431.
const MAX_HEAD: usize = 64 * 1024;

/// How long requests may go on after the listener was told to stop.
const DRAIN: Duration = Duration::from_secs(12);

/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until cancelled, then lets running requests end, for 12 s at most.
pub async fn serve(listener: TcpListener, router: Router, cancel: CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let abort = CancellationToken::new();
    while let Some((stream, slot)) = accept(&listener, &slots, &cancel).await {
        let connection = graceful.watch(
            builder()
                .serve_connection(
                    TokioIo::new(stream),
                    TowerToHyperService::new(router.clone()),
                )
                .into_owned(),
        );
        let abort = abort.clone();
        connections.spawn(async move {
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "a web connection ended");
                },
                () = abort.cancelled() => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(open = connections.len(), "web requests are cut off");
        abort.cancel();
    }
    connections.wait().await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    cancel: &CancellationToken,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
                Err(error) => {
                    tracing::warn!(%error, "failed to accept a web connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    cancel.run_until_cancelled(next).await?
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        // A sender that closed its side after half a body still learns what was wrong.
        .half_close(true);
    builder
}
