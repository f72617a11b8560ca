//! Errors as AWS answers them.

/// An error as AWS answers it, in whatever form the service's protocol has.
#[derive(Clone, Debug)]
pub(super) struct AwsError {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
}

impl AwsError {
    pub(super) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// The client's fault, 400.
    pub(super) fn client(code: &str, message: impl Into<String>) -> Self {
        Self::new(400, code, message)
    }

    pub(super) fn invalid_value(message: impl Into<String>) -> Self {
        Self::client("InvalidParameterValue", message)
    }

    /// Too many requests, in the service's words.
    pub(super) fn throttled(service: &str) -> Self {
        match service {
            "ec2" => Self::new(503, "RequestLimitExceeded", "Request limit exceeded."),
            "sts" => Self::client("Throttling", "Rate exceeded"),
            "sqs" => Self::client("RequestThrottled", "Request is throttled."),
            _ => Self::client("ThrottlingException", "Rate exceeded"),
        }
    }

    /// Something broke inside, in the service's words.
    pub(super) fn internal(service: &str, status: u16) -> Self {
        let (code, message) = match (service, status) {
            ("ec2", 503) => (
                "Unavailable",
                "The server is overloaded and can't handle the request.",
            ),
            ("ec2", _) => ("InternalError", "An internal error has occurred"),
            (_, 503) => ("ServiceUnavailable", "The service is unavailable."),
            ("ssm" | "sqs", _) => (
                "InternalServerError",
                "An error occurred on the server side.",
            ),
            _ => ("InternalFailure", "An internal failure has occurred."),
        };
        Self::new(status, code, message)
    }
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No Authorization header, or not as it should be.
    Incomplete,
    /// Nobody has that access key, or its session token is another.
    UnknownKey,
    /// The key is known, the signature another.
    Mismatch,
    /// The request was signed at another time.
    Stale,
    /// The credentials have run out.
    ExpiredKey,
}

impl Refusal {
    /// The error, in the service's words.
    pub(super) fn error(self, service: &str) -> AwsError {
        let (status, code, message) = match (service, self) {
            // EC2 does not say which of both was wrong.
            ("ec2", Self::Incomplete | Self::UnknownKey | Self::Mismatch) => (
                401,
                "AuthFailure",
                "AWS was not able to validate the provided access credentials",
            ),
            ("ec2", Self::Stale | Self::ExpiredKey) => {
                (400, "RequestExpired", "Request has expired.")
            }
            ("ssm" | "sqs", Self::Incomplete) => (
                400,
                "IncompleteSignatureException",
                "Authorization header is incomplete.",
            ),
            ("ssm" | "sqs", Self::UnknownKey) => (
                400,
                "UnrecognizedClientException",
                "The security token included in the request is invalid.",
            ),
            ("ssm" | "sqs", Self::Mismatch | Self::Stale) => (
                400,
                "InvalidSignatureException",
                "The request signature we calculated does not match the signature you provided.",
            ),
            ("ssm" | "sqs", Self::ExpiredKey) => (
                400,
                "ExpiredTokenException",
                "The security token included in the request is expired",
            ),
            (_, Self::Incomplete) => (
                400,
                "IncompleteSignature",
                "Authorization header is incomplete.",
            ),
            (_, Self::UnknownKey) => (
                403,
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
            (_, Self::Mismatch) => (
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            ),
            (_, Self::Stale) => (403, "SignatureDoesNotMatch", "Signature expired."),
            (_, Self::ExpiredKey) => (
                403,
                "ExpiredToken",
                "The security token included in the request is expired",
            ),
        };
        AwsError::new(status, code, message)
    }
}
