//! What goes wrong between the agent and the metadata service.

use std::time::Duration;

use http::StatusCode;
use thiserror::Error;

use super::connection::{ANSWER_LIMIT, BODY_MAX, CONNECT_LIMIT};

/// A request failed.
#[derive(Debug, Error)]
pub(crate) enum ImdsError {
    /// Nothing listens there, or the way is barred.
    #[error("connect to {address}: {source}")]
    Connect {
        /// Host and port.
        address: String,
        source: std::io::Error,
    },
    /// Nothing answers there. On EC2: the metadata service is off, or a firewall drops packets.
    #[error("connect to {address}: no answer within {CONNECT_LIMIT:?}")]
    ConnectTimeout {
        /// Host and port.
        address: String,
    },
    /// The request was taken and not answered.
    #[error("no answer within {ANSWER_LIMIT:?}")]
    Timeout,
    /// The connection ended inside an exchange.
    #[error("the connection broke: {0}")]
    Broken(#[source] hyper::Error),
    /// Something else than a metadata service listens there.
    #[error("not an HTTP answer: {0}")]
    Garbage(#[source] hyper::Error),
    /// An answer longer than any that the service gives.
    #[error("the answer is longer than {BODY_MAX} bytes")]
    TooLong,
    /// The service gave a token that can't be a header's value.
    #[error("the token is not one line of visible characters")]
    Token,
    /// A token that the service had just given was not accepted either.
    #[error("a new token was refused (status 401)")]
    Unauthorized,
    /// Any status that has no meaning of its own here.
    #[error("status {0}")]
    Status(StatusCode),
    /// What was waited for did not appear.
    #[error("nothing there after {tries} tries in {waited:?} (status 404)")]
    Absent {
        /// How often it was asked for.
        tries: u32,
        waited: Duration,
    },
    /// The request can't be written: its path is not one.
    #[error("make the request: {0}")]
    Request(#[from] http::Error),
}

impl ImdsError {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Timeout
            | Self::Broken(_)
            | Self::Unauthorized
            | Self::Absent { .. } => true,
            Self::Status(status) => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Garbage(_) | Self::TooLong | Self::Token | Self::Request(_) => false,
        }
    }
}

impl From<hyper::Error> for ImdsError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_status() {
            Self::Garbage(error)
        } else {
            Self::Broken(error)
        }
    }
}
