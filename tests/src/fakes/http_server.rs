//! The HTTP side that the fakes of AWS and GitHub share: requests with their bodies, and connections that
//! end when a fault says so.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const LARGEST_BODY: usize = 1 << 20;

/// The connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
#[error("the fake closes the connection")]
pub struct HangUp;

/// Serves until told to stop; connections are cut then.
pub(super) async fn serve<F>(
    listener: TcpListener,
    stop: CancellationToken,
    answer: impl Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Result<Response<Bytes>, HangUp>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let answer = answer.clone();
                connections.spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let answer = answer.clone();
                        async move {
                            let answered = answer(read(request).await?).await?;
                            Ok::<_, HangUp>(answered.map(Full::new))
                        }
                    });
                    // How a connection ends is the client's affair, or a fault that we play.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        }
    }
}

async fn read(request: Request<Incoming>) -> Result<Request<Bytes>, HangUp> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await;
    let body = body.map_err(|_| HangUp)?.to_bytes();
    Ok(Request::from_parts(parts, body))
}
