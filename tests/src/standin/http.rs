//! A small HTTP client for the fake's runner endpoint: plain HTTP on loopback, one connection a call.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// More than the longest poll.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The server could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("Connection refused ({0})")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Exchange(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("The HTTP request timed out after 00:00:30.")]
    Timeout,
}

/// The runner endpoint of one server, for one registration.
#[derive(Clone)]
pub(super) struct Server {
    url: String,
    credential: String,
}

impl Server {
    pub(super) fn new(url: &str, credential: &str) -> Self {
        Self {
            url: url.to_owned(),
            credential: credential.to_owned(),
        }
    }

    /// One call below `/_runner/`; the body is `Null` where there is none.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), HttpError> {
        tokio::time::timeout(ANSWER_WITHIN, self.exchange(method, path, body))
            .await
            .unwrap_or(Err(HttpError::Timeout))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<(StatusCode, Value), HttpError> {
        let host = self.url.trim_start_matches("http://").trim_end_matches('/');
        let stream = TcpStream::connect(host).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("/_runner/{path}"))
            .header(header::HOST, host)
            .header(header::CONNECTION, "close")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.credential))
            .body(Full::new(Bytes::from(body.to_string())))?;
        let answer = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let bytes = answer.into_body().collect().await?.to_bytes();
            Ok((
                status,
                serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            ))
        };
        tokio::pin!(answer, connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end once the answer is in; then the answer is ready too.
            _ = &mut connection => answer.await,
        }
    }
}
