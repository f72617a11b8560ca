//! What GitHub's answers mean. This is the one place that tells a refusal from a delay.

use std::error::Error as _;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use muster_core::Scope;
use serde_json::Value;
use thiserror::Error;
use tokio::time::Instant;

use super::json::Mismatch;
use super::limits::Standing;

/// Longest wait that is ever asked for: the primary limits start anew each hour.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Wait after a limit without a time, as GitHub asks.
/// <https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api#exceeding-the-rate-limit>
const LIMIT_WAIT: Duration = Duration::from_secs(60);

/// Wait after a failure that is not ours.
const FAILURE_WAIT: Duration = Duration::from_secs(5);

/// Characters of an answer that go into an error.
const QUOTED: usize = 300;

/// The call may succeed later as it is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}; worth another try in {} s", .after.as_secs_f64().ceil())]
pub struct RetryLater {
    /// How long to wait at least; one hour at most.
    pub after: Duration,
    /// Why.
    pub reason: String,
}

/// GitHub did not do what was asked. Texts hold no token and at most 300 characters of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GithubError {
    /// Later it may.
    #[error("{0}")]
    Later(#[from] RetryLater),
    /// The app has no installation there.
    #[error("the GitHub App is not installed for {0}")]
    NotInstalled(Scope),
    /// There is no such thing, or the app may not see it (404).
    #[error("not found: {0}")]
    NotFound(String),
    /// It conflicts with what exists (409).
    #[error("conflict: {0}")]
    Conflict(String),
    /// It can't be done in this state, or makes no sense (422).
    #[error("unprocessable: {0}")]
    Unprocessable(String),
    /// It will be refused again until somebody changes something.
    #[error("refused with status {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// GitHub's words.
        message: String,
    },
    /// The answer can't be understood.
    #[error("the answer can't be understood: {0}")]
    Garbled(String),
    /// The request can't be put into words, such as for an empty name.
    #[error("the request can't be made: {0}")]
    Unaskable(String),
}

impl GithubError {
    /// How long to wait if the same call may succeed later; none if it won't.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Later(later) => Some(later.after),
            _ => None,
        }
    }
}

impl From<Mismatch> for GithubError {
    fn from(mismatch: Mismatch) -> Self {
        Self::Garbled(mismatch.to_string())
    }
}

/// The client can't be made.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The app's key is of no use.
    #[error("the private key of the GitHub App can't be used: {0}")]
    Key(String),
    /// The certificates are of no use.
    #[error("the additional CA certificates can't be used: {0}")]
    Ca(reqwest::Error),
    /// The proxy is of no use.
    #[error("the proxy can't be used: {0}")]
    Proxy(String),
    /// The base of the API is of no use.
    #[error("{0} can't be the base of GitHub's API: expected http or https and a host")]
    ApiUrl(url::Url),
    /// TLS or the user agent is of no use.
    #[error("the HTTP client can't be made: {0}")]
    Http(reqwest::Error),
}

/// A whole answer.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Reply {
    /// The body as a document.
    pub(super) fn json(&self) -> Result<Value, GithubError> {
        serde_json::from_slice(&self.body).map_err(|e| GithubError::Garbled(e.to_string()))
    }

    /// What to say to have it again only if it is another then.
    pub(super) fn etag(&self) -> Option<String> {
        Some(
            self.headers
                .get(http::header::ETAG)?
                .to_str()
                .ok()?
                .to_owned(),
        )
    }

    /// Where the limit stands that the call counted against; none where there are no limits.
    pub(super) fn standing(&self) -> Option<Standing> {
        let reset = self.number("x-ratelimit-reset")?;
        let left = reset.saturating_sub(Timestamp::now().as_second());
        Some(Standing {
            limit: u32::try_from(self.number("x-ratelimit-limit")?).ok()?,
            remaining: u32::try_from(self.number("x-ratelimit-remaining")?).ok()?,
            resets_at: Instant::now() + seconds_from(left),
        })
    }

    fn number(&self, header: &str) -> Option<i64> {
        self.headers.get(header)?.to_str().ok()?.parse().ok()
    }

    /// What GitHub says went wrong.
    fn message(&self) -> String {
        let text = match self.json() {
            Ok(Value::Object(fields)) => {
                let mut text = match fields.get("message") {
                    Some(Value::String(message)) => message.clone(),
                    _ => String::new(),
                };
                if let Some(errors) = fields.get("errors") {
                    text = format!("{text} {errors}");
                }
                text
            }
            _ => String::from_utf8_lossy(&self.body).into_owned(),
        };
        text.trim().chars().take(QUOTED).collect()
    }
}

/// A time in which calls must not go out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hold {
    /// All calls of the same caller, or only those that count against the same limit.
    pub(super) everything: bool,
    pub(super) after: Duration,
    pub(super) reason: &'static str,
}

/// Whether an answer forbids the next calls. A limit may be used up by a call that succeeded.
pub(super) fn hold(reply: &Reply, now: Timestamp) -> Option<Hold> {
    let used_up = reply.number("x-ratelimit-remaining") == Some(0);
    if !is_limit(reply) {
        return used_up.then(|| primary(reply, now));
    }
    if let Some(seconds) = reply.number("retry-after") {
        return Some(secondary(seconds_from(seconds)));
    }
    if used_up {
        return Some(primary(reply, now));
    }
    Some(secondary(LIMIT_WAIT))
}

fn is_limit(reply: &Reply) -> bool {
    match reply.status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN => {
            reply.headers.contains_key("retry-after")
                || reply.number("x-ratelimit-remaining") == Some(0)
                || reply.message().to_ascii_lowercase().contains("rate limit")
        }
        _ => false,
    }
}

fn primary(reply: &Reply, now: Timestamp) -> Hold {
    let after = reply
        .number("x-ratelimit-reset")
        .map_or(LIMIT_WAIT, |reset| {
            seconds_from(reset.saturating_sub(now.as_second()))
        });
    Hold {
        everything: false,
        after,
        reason: "GitHub's rate limit is used up",
    }
}

/// Secondary limits are about the caller's behaviour as a whole: whoever goes on with other calls
/// risks to be banned.
fn secondary(after: Duration) -> Hold {
    Hold {
        everything: true,
        after,
        reason: "GitHub asks to slow down",
    }
}

fn seconds_from(seconds: i64) -> Duration {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Duration::from_secs(seconds).clamp(Duration::from_secs(1), LONGEST_WAIT)
}

/// Tells a good answer from a refusal and from a delay.
pub(super) fn check(reply: Reply) -> Result<Reply, GithubError> {
    let status = reply.status;
    // GitHub answers 304 only to those who say what they know.
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(reply);
    }
    if is_limit(&reply)
        && let Some(hold) = hold(&reply, Timestamp::now())
    {
        return Err(later(hold.after, hold.reason));
    }
    let message = reply.message();
    Err(match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => GithubError::NotFound(message),
        StatusCode::CONFLICT => GithubError::Conflict(message),
        StatusCode::UNPROCESSABLE_ENTITY => GithubError::Unprocessable(message),
        StatusCode::REQUEST_TIMEOUT => later(FAILURE_WAIT, "GitHub answered 408"),
        _ if status.is_server_error() => {
            let after = reply
                .number("retry-after")
                .map_or(FAILURE_WAIT, seconds_from);
            later(after, format!("GitHub answered {}", status.as_u16()))
        }
        _ => GithubError::Refused {
            status: status.as_u16(),
            message,
        },
    })
}

/// What a failure below HTTP means: always that it may go later. The URL is left out, the causes
/// are kept.
pub(super) fn network(error: reqwest::Error) -> GithubError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let text: String = text.chars().take(QUOTED).collect();
    later(FAILURE_WAIT, format!("GitHub can't be reached: {text}"))
}

/// What a call that took too long means.
pub(super) fn too_slow(limit: Duration) -> GithubError {
    let reason = format!("GitHub did not answer in {} s", limit.as_secs_f64());
    later(FAILURE_WAIT, reason)
}

fn later(after: Duration, reason: impl Into<String>) -> GithubError {
    GithubError::Later(RetryLater {
        after,
        reason: reason.into(),
    })
}
