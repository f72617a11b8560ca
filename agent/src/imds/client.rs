//! A client of the metadata service: one token for everything, renewed before it ends.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use hyper::body::Bytes;
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use super::connection::{Answer, Connection, Place};
use super::error::ImdsError;
use super::patience::Patience;

const TOKEN_PATH: &str = "api/token";
const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const TTL_HEADER: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// Life of a token that is asked for, in seconds: the longest that the service gives.
const TTL_ASKED: u64 = 21_600;
/// A token is renewed this long before it ends; one of a short life, at half of it.
const RENEW_EARLY: Duration = Duration::from_secs(120);

/// One service.
pub(crate) struct Client {
    place: Place,
    token: Option<Token>,
    /// Kept from the last exchange.
    connection: Option<Connection>,
}

/// The session token. Its value is marked, so that no log shows it.
#[derive(Debug)]
struct Token {
    value: HeaderValue,
    renew_at: Instant,
}

impl Client {
    /// A client of the service below `base`. Nothing is asked yet.
    pub(crate) fn new(base: &Url) -> Self {
        Self {
            place: Place::new(base),
            token: None,
            connection: None,
        }
    }

    /// Reads `path` below `/latest`. Nothing there (404) is an answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Option<Bytes>, ImdsError> {
        // A token that is no longer accepted is replaced once.
        for _ in 0..2 {
            let token = self.token().await?;
            let answer = self.exchange(Method::GET, path, token).await?;
            match answer.status {
                StatusCode::UNAUTHORIZED => self.token = None,
                StatusCode::NOT_FOUND => {
                    self.note_ttl(&answer.headers);
                    return Ok(None);
                }
                StatusCode::OK => {
                    self.note_ttl(&answer.headers);
                    return Ok(Some(answer.body));
                }
                other => return Err(ImdsError::Status(other)),
            }
        }
        Err(ImdsError::Unauthorized)
    }

    /// Reads `path` below `/latest`, which may not be there yet: asks again until it is, at most a minute
    /// long.
    pub(crate) async fn get_when_there(&mut self, path: &str) -> Result<Bytes, ImdsError> {
        let mut patience = Patience::new(Instant::now());
        loop {
            let failed = match timeout_at(patience.ends(), self.get(path)).await {
                Ok(Ok(Some(body))) => return Ok(body),
                Ok(Ok(None)) => patience.absent(),
                Ok(Err(error)) => error,
                Err(_) => ImdsError::Timeout,
            };
            match patience.next_wait() {
                Some(wait) if failed.is_retryable() => sleep(wait).await,
                _ => return Err(failed),
            }
        }
    }

    /// The token as a header, from the service if there is none that will last.
    async fn token(&mut self) -> Result<(HeaderName, HeaderValue), ImdsError> {
        let now = Instant::now();
        if let Some(token) = self.token.as_ref().filter(|token| now < token.renew_at) {
            return Ok((TOKEN_HEADER, token.value.clone()));
        }
        let asked = (TTL_HEADER, HeaderValue::from(TTL_ASKED));
        let answer = self.exchange(Method::PUT, TOKEN_PATH, asked).await?;
        if answer.status != StatusCode::OK {
            return Err(ImdsError::Status(answer.status));
        }
        let ttl = ttl(&answer.headers).unwrap_or(Duration::from_secs(TTL_ASKED));
        let token = Token::new(&answer.body, ttl, now)?;
        let value = token.value.clone();
        self.token = Some(token);
        Ok((TOKEN_HEADER, value))
    }

    /// Each answer may say how long the token still lives. That brings its renewal forward, never back.
    fn note_ttl(&mut self, headers: &HeaderMap) {
        if let (Some(token), Some(ttl)) = (&mut self.token, ttl(headers)) {
            token.renew_at = token.renew_at.min(Instant::now() + until_renewal(ttl));
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        header: (HeaderName, HeaderValue),
    ) -> Result<Answer, ImdsError> {
        // Taken out: what is dropped or fails in the middle of an exchange is not used again.
        if let Some(kept) = self.connection.take() {
            let request = self.place.request(method.clone(), path, header.clone())?;
            match kept.exchange(request).await {
                Ok((answer, kept)) => {
                    self.connection = kept;
                    return Ok(answer);
                }
                // The service has closed it meanwhile. Every request here may be repeated.
                Err(ImdsError::Broken(error)) => tracing::debug!(%error, "connect again"),
                Err(other) => return Err(other),
            }
        }
        let request = self.place.request(method, path, header)?;
        let (answer, kept) = self.place.connect().await?.exchange(request).await?;
        self.connection = kept;
        Ok(answer)
    }
}

impl Token {
    fn new(text: &[u8], ttl: Duration, now: Instant) -> Result<Self, ImdsError> {
        if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
            return Err(ImdsError::Token);
        }
        let mut value = HeaderValue::from_bytes(text).map_err(|_| ImdsError::Token)?;
        value.set_sensitive(true);
        Ok(Self {
            value,
            renew_at: now + until_renewal(ttl),
        })
    }
}

fn until_renewal(ttl: Duration) -> Duration {
    ttl - RENEW_EARLY.min(ttl / 2)
}

/// The life of the token as an answer states it.
fn ttl(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(TTL_HEADER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(TTL_ASKED)))
}

#[cfg(test)]
mod tests;
