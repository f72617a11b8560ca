//! One HTTP/1.1 connection to the service, used again for as long as both sides keep it.
//!
//! It goes straight to the address: no proxy is ever asked, whatever `HTTP_PROXY` says, because nothing
//! here reads it. (A proxy would answer with its own instance's metadata, or the internet's.)

use std::pin::Pin;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use super::error::ImdsError;

/// Longest time for a connection: the service is on this host.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Longest time for a request and the whole of its answer.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Largest answer, in bytes.
pub(super) const BODY_MAX: usize = 64 * 1024;
/// Largest head of an answer, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// Where the service is.
#[derive(Debug)]
pub(super) struct Place {
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// What stands in the `Host` header.
    authority: String,
    /// What stands before `/latest`, without a final slash.
    prefix: String,
}

/// What the service said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// An open connection. It is driven only while a request is under way, so no task is left behind.
pub(super) struct Connection {
    sender: http1::SendRequest<Empty<Bytes>>,
    driver: Pin<Box<http1::Connection<TokioIo<TcpStream>, Empty<Bytes>>>>,
}

impl Place {
    pub(super) fn new(base: &Url) -> Self {
        // `host_str` puts IPv6 addresses into brackets.
        let host = base.host_str().unwrap_or_default();
        let authority = match base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };
        Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: base.port_or_known_default().unwrap_or(80),
            authority,
            prefix: base.path().trim_end_matches('/').to_owned(),
        }
    }

    /// A request for `path` below `/latest`.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        (name, value): (HeaderName, HeaderValue),
    ) -> Result<Request<Empty<Bytes>>, ImdsError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/latest/{path}", self.prefix))
            .header(header::HOST, &self.authority)
            .header(name, value)
            .body(Empty::new())?;
        Ok(request)
    }

    pub(super) async fn connect(&self) -> Result<Connection, ImdsError> {
        let stream = timeout(
            CONNECT_LIMIT,
            TcpStream::connect((self.host.as_str(), self.port)),
        )
        .await
        .map_err(|_| ImdsError::ConnectTimeout {
            address: self.authority.clone(),
        })?
        .map_err(|source| ImdsError::Connect {
            address: self.authority.clone(),
            source,
        })?;
        let (sender, driver) = http1::Builder::new()
            .max_buf_size(HEAD_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Connection {
            sender,
            driver: Box::pin(driver),
        })
    }
}

impl Connection {
    /// Sends a request and reads the whole answer. Gives the connection back if it can be used again.
    pub(super) async fn exchange(
        self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Answer, Option<Self>), ImdsError> {
        timeout(ANSWER_LIMIT, self.exchange_in_own_time(request))
            .await
            .map_err(|_| ImdsError::Timeout)?
    }

    async fn exchange_in_own_time(
        mut self,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Answer, Option<Self>), ImdsError> {
        let Self { sender, driver } = &mut self;
        let mut keep = true;
        let answer = {
            let answer = answer(sender, request);
            tokio::pin!(answer);
            tokio::select! {
                biased;
                // First, so that a connection which the service has closed is not written to.
                ended = driver => {
                    ended?;
                    keep = false;
                    answer.await
                }
                answer = &mut answer => answer,
            }
        }?;
        let keep = keep && stays_open(answer.version, &answer.answer.headers);
        Ok((answer.answer, keep.then_some(self)))
    }
}

struct Versioned {
    answer: Answer,
    version: Version,
}

async fn answer(
    sender: &mut http1::SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
) -> Result<Versioned, ImdsError> {
    sender.ready().await?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Err(match error.downcast::<hyper::Error>() {
                Ok(error) => ImdsError::from(*error),
                Err(error) => {
                    debug_assert!(error.is::<LengthLimitError>(), "{error}");
                    ImdsError::TooLong
                }
            });
        }
    };
    Ok(Versioned {
        answer: Answer {
            status: head.status,
            headers: head.headers,
            body,
        },
        version: head.version,
    })
}

/// The real service may close after each answer, and says so.
fn stays_open(version: Version, headers: &HeaderMap) -> bool {
    let closes = headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    version == Version::HTTP_11 && !closes
}
