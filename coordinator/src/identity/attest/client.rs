//! One question to STS: to a fixed host, without redirects, bounded in time, size and number.

use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, DATE};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use muster_proto::sts;
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Response};
use serde::Deserialize;
use tokio::sync::Semaphore;
use url::Url;

use super::request::Rebuilt;
use super::{AttestSettings, SetupError};
use crate::telemetry::{AwsOutcome, Metrics};

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

/// From where on a refusal is the fault of our clock. STS allows five minutes, of which the request has
/// used some.
const CLOCK_OFF: Duration = Duration::from_secs(4 * 60);
/// Code for a key that STS doesn't know, which may be one that EC2 gave out just now.
const UNKNOWN_KEY: &str = "InvalidClientTokenId";

/// No answer that says who it was.
#[derive(Debug)]
pub(super) enum CallError {
    /// STS doesn't accept the signature.
    Refused(String),
    /// STS can't be reached, has too much to do, is broken, or can't know yet.
    Unavailable(String),
}

/// The way to STS.
#[derive(Debug)]
pub(super) struct Sts {
    client: Client,
    endpoint: Option<Url>,
    calls: Semaphore,
    time_limit: Duration,
    metrics: Option<Metrics>,
}

/// What STS said, whatever it is.
#[derive(Debug)]
struct Said {
    status: StatusCode,
    body: Vec<u8>,
    /// How far its clock is ahead of ours, if it says what time it is.
    ahead: Option<SignedDuration>,
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
            metrics: settings.metrics.clone(),
        })
    }

    /// The body of STS's answer, if that is a success.
    pub(super) async fn ask(&self, request: Rebuilt) -> Result<Vec<u8>, CallError> {
        let host = request.host.clone();
        let limit = self.time_limit;
        // Two limits: with one, in a crowd whoever gets a turn has no time left for the call, and nobody
        // is ever answered.
        let Ok(_permit) = tokio::time::timeout(limit, self.calls.acquire()).await else {
            return Err(too_slow(limit));
        };
        let said = tokio::time::timeout(limit, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(too_slow(limit)));
        let outcome = said.as_ref().map_or(AwsOutcome::Unanswered, Said::outcome);
        if let Some(metrics) = &self.metrics {
            metrics.aws_call("sts", "GetCallerIdentity", outcome);
        }
        said.and_then(Said::into_answer)
            .map_err(|error| match error {
                CallError::Unavailable(reason) => {
                    CallError::Unavailable(format!("{host}: {reason}"))
                }
                refused @ CallError::Refused(_) => refused,
            })
    }

    async fn exchange(&self, request: Rebuilt) -> Result<Said, CallError> {
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
        let ahead = ahead_of_us(&response, Timestamp::now());
        let body = read(response).await?;
        Ok(Said {
            status,
            body,
            ahead,
        })
    }
}

impl Said {
    fn outcome(&self) -> AwsOutcome {
        match self.status {
            StatusCode::OK => AwsOutcome::Done,
            _ if self.is_throttle() => AwsOutcome::Throttled,
            status if status.is_client_error() => AwsOutcome::Refused,
            _ => AwsOutcome::Failed,
        }
    }

    fn is_throttle(&self) -> bool {
        self.status == StatusCode::TOO_MANY_REQUESTS
            || code(&self.body).is_some_and(|code| THROTTLES.contains(&code.as_str()))
    }

    fn into_answer(self) -> Result<Vec<u8>, CallError> {
        let Self {
            status,
            ref body,
            ahead,
        } = self;
        match status {
            StatusCode::OK => Ok(self.body),
            _ if status.is_server_error() || self.is_throttle() => {
                Err(CallError::Unavailable(told(status, body)))
            }
            _ if status.is_client_error() => Err(refusal(status, body, ahead)),
            _ => Err(CallError::Refused(told(status, body))),
        }
    }
}

/// How far STS's clock is ahead of ours, if it says what time it is.
fn ahead_of_us(response: &Response, now: Timestamp) -> Option<SignedDuration> {
    let date = response.headers().get(DATE)?.to_str().ok()?;
    let theirs = rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(theirs.duration_since(now))
}

/// Why STS refuses: a proof that is wrong, or what is not the instance's fault and may pass.
fn refusal(status: StatusCode, body: &[u8], ahead: Option<SignedDuration>) -> CallError {
    let told = told(status, body);
    if let Some(ahead) = ahead.filter(|ahead| ahead.unsigned_abs() > CLOCK_OFF) {
        let seconds = ahead.unsigned_abs().as_secs();
        let how = if ahead.is_positive() {
            "behind"
        } else {
            "ahead of"
        };
        return CallError::Unavailable(format!(
            "{told}; this coordinator's clock is {seconds} s {how} STS's, and instances sign with it: set it"
        ));
    }
    if code(body).is_some_and(|code| code == UNKNOWN_KEY) {
        return CallError::Unavailable(format!("{told}: it may not know a key that is new"));
    }
    CallError::Refused(told)
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
