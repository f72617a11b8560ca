//! The instance metadata service, version 2: whether EC2 takes this instance back.
//!
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::backoff;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Longest time between two looks when the service fails: it throttles per instance.
const INTERVAL_FAILING: Duration = Duration::from_secs(16);
/// Longest time for one request.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Largest answer, in bytes.
const BODY_MAX: usize = 64 * 1024;
/// Life of a token, in seconds: the longest that the service gives.
const TOKEN_SECONDS: &str = "21600";
const TOKEN_PATH: &str = "latest/api/token";
const ACTION_PATH: &str = "latest/meta-data/spot/instance-action";

/// The notice of a Spot interruption.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Notice {
    /// "terminate", "stop" or "hibernate".
    pub(crate) action: String,
    /// When.
    pub(crate) time: Timestamp,
    #[serde(skip)]
    pub(crate) kind: muster_proto::v1::InterruptionKind,
    #[serde(skip)]
    pub(crate) deadline: Option<Timestamp>,
    #[serde(skip)]
    pub(crate) detail: String,
}

/// A request failed.
#[derive(Debug, Error)]
enum ImdsError {
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("make the request: {0}")]
    Request(#[from] http::Error),
    #[error("read the answer: {0}")]
    Body(String),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("not a notice: {0}")]
    Notice(#[from] serde_json::Error),
}

/// stub
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cadence {
    /// a
    Busy,
    /// b
    Idle,
}
/// stub
pub(crate) async fn watch(
    base: Url,
    _c: tokio::sync::watch::Receiver<Cadence>,
    notices: mpsc::Sender<Notice>,
) {
    watch_spot(base, notices).await
}

/// Looks every 2 s, with jitter, until there is a notice; sends it and ends.
pub(crate) async fn watch_spot(base: Url, notices: mpsc::Sender<Notice>) {
    let mut client = Client { base, token: None };
    let mut failures = 0_u32;
    loop {
        match client.spot_notice().await {
            Ok(Some(mut notice)) => {
                notice.deadline = Some(notice.time);
                notice.kind = muster_proto::v1::InterruptionKind::Spot;
                tracing::warn!(action = notice.action, time = %notice.time, "interruption notice");
                if notices.send(notice).await.is_err() {
                    tracing::debug!("nobody waits for the notice any more");
                }
                return;
            }
            Ok(None) => failures = 0,
            Err(error) => {
                if failures == 0 {
                    tracing::warn!(%error, "metadata service failed");
                }
                failures = (failures + 1).min(8);
            }
        }
        let interval = (INTERVAL * 2_u32.pow(failures.saturating_sub(1))).min(INTERVAL_FAILING);
        sleep(backoff::around(interval)).await;
    }
}

/// One service.
struct Client {
    base: Url,
    token: Option<String>,
}

impl Client {
    async fn spot_notice(&mut self) -> Result<Option<Notice>, ImdsError> {
        // A token that is no longer accepted is replaced once.
        for _ in 0..2 {
            let token = match self.token.take() {
                Some(token) => token,
                None => self.fetch_token().await?,
            };
            let headers = [("x-aws-ec2-metadata-token", token.as_str())];
            let (status, body) = self.request(Method::GET, ACTION_PATH, &headers).await?;
            match status {
                StatusCode::UNAUTHORIZED => {}
                StatusCode::NOT_FOUND => {
                    self.token = Some(token);
                    return Ok(None);
                }
                StatusCode::OK => {
                    self.token = Some(token);
                    return Ok(Some(serde_json::from_slice(&body)?));
                }
                other => {
                    self.token = Some(token);
                    return Err(ImdsError::Status(other));
                }
            }
        }
        Err(ImdsError::Status(StatusCode::UNAUTHORIZED))
    }

    async fn fetch_token(&self) -> Result<String, ImdsError> {
        let headers = [("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS)];
        let (status, body) = self.request(Method::PUT, TOKEN_PATH, &headers).await?;
        if status != StatusCode::OK {
            return Err(ImdsError::Status(status));
        }
        String::from_utf8(body.to_vec()).map_err(|e| ImdsError::Body(e.to_string()))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(StatusCode, Bytes), ImdsError> {
        timeout(TIMEOUT, self.exchange(method, path, headers))
            .await
            .map_err(|_| ImdsError::Timeout)?
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(StatusCode, Bytes), ImdsError> {
        let host = self.base.host_str().unwrap_or_default();
        let port = self.base.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let base = self.base.path().trim_end_matches('/');
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}/{path}"))
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::CONNECTION, "close");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), BODY_MAX)
                .collect()
                .await
                .map_err(|e| ImdsError::Body(e.to_string()))?
                .to_bytes();
            Ok((status, body))
        };
        // The connection is driven here, beside its one request, so that no task is left behind.
        tokio::pin!(answer, connection);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = &mut connection => {
                ended?;
                answer.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;
    use tokio::task::JoinSet;

    use super::{Client, ImdsError, watch_spot};

    const NOTICE: &str = r#"{"action":"terminate","time":"2026-09-18T08:22:00Z"}"#;

    /// A service under `/i-1` that answers each request by `answer(request)`, and keeps what it got.
    struct Service {
        base: url::Url,
        requests: Arc<Mutex<Vec<String>>>,
        _tasks: JoinSet<()>,
    }

    impl Service {
        async fn start(answer: fn(&str) -> (u16, &'static str)) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let base = format!("http://{}/i-1", listener.local_addr().unwrap());
            let requests = Arc::new(Mutex::new(Vec::new()));
            let mut tasks = JoinSet::new();
            let seen = requests.clone();
            tasks.spawn(async move {
                loop {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut text = String::new();
                    while !text.ends_with("\r\n\r\n") {
                        let byte = stream.read_u8().await.unwrap();
                        text.push(char::from(byte).to_ascii_lowercase());
                    }
                    let (status, body) = answer(&text);
                    seen.lock().unwrap().push(text);
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.unwrap();
                    // The agent may hang up on a body that is too long.
                    let _ = stream.write_all(body.as_bytes()).await;
                }
            });
            Self {
                base: base.parse().unwrap(),
                requests,
                _tasks: tasks,
            }
        }

        fn client(&self) -> Client {
            Client {
                base: self.base.clone(),
                token: None,
            }
        }
    }

    /// What the real service does: no answer without a token.
    fn guarded(request: &str, then: (u16, &'static str)) -> (u16, &'static str) {
        if request.starts_with("put /i-1/latest/api/token ") {
            let ttl = request.contains("x-aws-ec2-metadata-token-ttl-seconds: 21600\r\n");
            if ttl { (200, "tok") } else { (400, "") }
        } else if !request.contains("x-aws-ec2-metadata-token: tok\r\n") {
            (401, "")
        } else if request.starts_with("get /i-1/latest/meta-data/spot/instance-action ") {
            then
        } else {
            (500, "")
        }
    }

    #[tokio::test]
    async fn a_notice_is_found_and_sent_once() {
        let service = Service::start(|request| guarded(request, (200, NOTICE))).await;
        let (notices, mut received) = mpsc::channel(1);
        watch_spot(service.base.clone(), notices).await;
        let notice = received.recv().await.unwrap();
        assert_eq!(notice.action, "terminate");
        assert_eq!(notice.time.to_string(), "2026-09-18T08:22:00Z");
        assert_eq!(received.recv().await, None);
    }

    #[tokio::test]
    async fn no_notice_is_no_error_and_the_token_is_kept() {
        let service = Service::start(|request| guarded(request, (404, ""))).await;
        let mut client = service.client();
        for _ in 0..3 {
            assert_eq!(client.spot_notice().await.unwrap(), None);
        }
        assert_eq!(service.requests.lock().unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_token_that_is_not_accepted_is_replaced_once() {
        let service = Service::start(|request| guarded(request, (200, NOTICE))).await;
        let mut client = service.client();
        client.token = Some("old".into());
        assert!(client.spot_notice().await.unwrap().is_some());

        let service = Service::start(|request| guarded(request, (401, ""))).await;
        let error = service.client().spot_notice().await.unwrap_err();
        assert!(
            matches!(error, ImdsError::Status(status) if status == 401),
            "{error}"
        );
    }

    #[tokio::test]
    async fn what_is_not_a_notice_is_an_error() {
        let service = Service::start(|request| guarded(request, (200, "<html>"))).await;
        let error = service.client().spot_notice().await.unwrap_err();
        assert!(matches!(error, ImdsError::Notice(_)), "{error}");

        static FLOOD: [u8; super::BODY_MAX + 1] = [b'x'; super::BODY_MAX + 1];
        let service =
            Service::start(|request| guarded(request, (200, std::str::from_utf8(&FLOOD).unwrap())))
                .await;
        let error = service.client().spot_notice().await.unwrap_err();
        assert!(matches!(error, ImdsError::Body(_)), "{error}");
    }
}
