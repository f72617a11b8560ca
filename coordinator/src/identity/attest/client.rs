//! One question to STS: to a fixed host, without redirects, bounded in time, size and number.

use std::time::Duration;

use http::StatusCode;
use http::header::CONTENT_LENGTH;
use muster_proto::sts;
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use url::Url;

use super::request::Rebuilt;
use super::{AttestSettings, SetupError};

/// Questions at a time. Many more machines than this seldom boot in one second, and one that has to
/// wait waits for milliseconds.
const CALLS: usize = 64;
/// Most bytes of an answer. A good one has about 500.
const ANSWER_MAX: usize = 64 * 1024;
/// Codes of errors that only time is lacking for
/// (<https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>).
const THROTTLES: [&str; 4] = [
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "ServiceUnavailable",
];

/// No answer that says who it was.
#[derive(Debug)]
pub(super) enum CallError {
    /// STS doesn't accept the signature.
    Refused(String),
    /// STS can't be reached, has too much to do, or is broken.
    Unavailable(String),
}

/// The way to STS.
#[derive(Debug)]
pub(super) struct Sts {
    client: Client,
    endpoint: Option<Url>,
    calls: Semaphore,
    time_limit: Duration,
}

impl Sts {
    pub(super) fn new(settings: &AttestSettings) -> Result<Self, SetupError> {
        let mut builder = Client::builder()
            .http1_only()
            .https_only(settings.endpoint.is_none())
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(settings.time_limit)
            .timeout(settings.time_limit)
            .no_proxy();
        if let Some(proxy) = &settings.proxy {
            builder = builder.proxy(Proxy::all(proxy.clone())?);
        }
        Ok(Self {
            client: builder.build()?,
            endpoint: settings.endpoint.clone(),
            calls: Semaphore::new(CALLS),
            time_limit: settings.time_limit,
        })
    }

    /// The body of STS's answer, if that is a success.
    pub(super) async fn ask(&self, request: Rebuilt) -> Result<Vec<u8>, CallError> {
        let limit = self.time_limit;
        // Two limits: with one, in a crowd whoever gets a turn has no time left for the call, and nobody
        // is ever answered.
        let Ok(_permit) = tokio::time::timeout(limit, self.calls.acquire()).await else {
            return Err(too_slow(limit));
        };
        tokio::time::timeout(limit, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(too_slow(limit)))
    }

    async fn exchange(&self, request: Rebuilt) -> Result<Vec<u8>, CallError> {
        let url = match &self.endpoint {
            Some(endpoint) => {
                let mut url = endpoint.clone();
                url.set_path(sts::PATH);
                url.to_string()
            }
            None => format!("https://{}{}", request.host, sts::PATH),
        };
        let response = self
            .client
            .post(url)
            .headers(request.headers)
            .body(sts::BODY)
            .send()
            .await
            .map_err(unreachable)?;
        let status = response.status();
        let body = read(response).await?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::TOO_MANY_REQUESTS => Err(unavailable(status, &body)),
            _ if status.is_server_error() => Err(unavailable(status, &body)),
            _ if code(&body).is_some_and(|code| THROTTLES.contains(&code.as_str())) => {
                Err(unavailable(status, &body))
            }
            _ => Err(CallError::Refused(told(status, &body))),
        }
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, CallError> {
    let too_large =
        || CallError::Refused(format!("STS answered with more than {ANSWER_MAX} bytes"));
    let declared = response
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if declared.is_some_and(|length| length > ANSWER_MAX) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn unreachable(error: reqwest::Error) -> CallError {
    // The URL is ours and says nothing; the causes do.
    let error = error.without_url();
    let mut text = error.to_string();
    let mut next = std::error::Error::source(&error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    CallError::Unavailable(text)
}

fn too_slow(limit: Duration) -> CallError {
    CallError::Unavailable(format!("no answer within {limit:?}"))
}

fn unavailable(status: StatusCode, body: &[u8]) -> CallError {
    CallError::Unavailable(told(status, body))
}

/// What STS said, as far as it may be logged: the message repeats what was signed, token included.
fn told(status: StatusCode, body: &[u8]) -> String {
    match code(body) {
        Some(code) => format!("STS answered {status}, {code}"),
        None => format!("STS answered {status}"),
    }
}

/// The code in the answer of an error, if it is one word.
fn code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(rename = "Error")]
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        #[serde(rename = "Code")]
        code: String,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let code = answer.error.code;
    let word = (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric());
    word.then_some(code)
}
