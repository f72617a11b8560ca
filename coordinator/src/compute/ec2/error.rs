//! What EC2's errors mean. The only place that knows their codes.
//!
//! The table follows Karpenter's (`pkg/errors/errors.go`, `pkg/cache/unavailableofferings.go`) and
//! <https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>.

use std::time::Duration;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use thiserror::Error;

/// How long capacity that ran out is not asked for again (Karpenter: three minutes).
const CAPACITY: Duration = Duration::from_secs(3 * 60);
/// How long a type is not asked for in a zone that doesn't have it.
const UNSUPPORTED: Duration = Duration::from_secs(60 * 60);

/// What an error is about, and so what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One offering has nothing; it is closed for this time.
    Offering(Duration),
    /// One offering gave nothing, and was perhaps not even tried.
    Unfulfilled,
    /// A subnet has no free address; it is closed for this time.
    Subnet(Duration),
    /// The account's quota for a class of types is used up; the class is closed for this time.
    Quota(Duration),
    /// A market is closed to the account for this time, by a missing role or a limit of its fleets.
    Market(Duration),
    /// Too many calls. Nothing was done.
    Throttled,
    /// Nobody knows whether it was done: the same call is to be made again.
    Unknown,
    /// The instance is not known, yet or any more. No proof of anything.
    NotFound,
    /// The same token was used for another request.
    TokenReused,
    /// Our credentials can't be had, or are not taken. Nothing was done; the next ones may do.
    Credentials,
    /// We are not allowed to do it, to this or to anything.
    Denied,
    /// It can't go until somebody changes something.
    Permanent,
}

impl Kind {
    /// Whether it stays as it is until somebody changes something.
    pub(crate) fn stays(self) -> bool {
        matches!(self, Self::Denied | Self::Permanent)
    }

    /// Whether another image may bring it about: one that is gone or not ours, or that doesn't run on the type.
    pub(super) fn may_be_the_images(self) -> bool {
        self.stays() || self == Self::Offering(UNSUPPORTED)
    }

    /// Whether a call that ended so was refused, and the same one would be again.
    pub(super) fn refuses(self) -> bool {
        !matches!(self, Self::Throttled | Self::Unknown | Self::Credentials)
    }
}

/// A call that failed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text}")]
pub(super) struct CallError {
    pub(super) kind: Kind,
    pub(super) text: String,
}

impl CallError {
    /// A call without an answer.
    pub(super) fn unknown(text: impl Into<String>) -> Self {
        Self {
            kind: Kind::Unknown,
            text: text.into(),
        }
    }
}

/// What a code means, of a whole call or of one offering in it. None if it is not in the table.
pub(super) fn kind(code: &str) -> Option<Kind> {
    Some(match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientCapacityOnHost"
        | "InsufficientCapacity"
        | "InsufficientVolumeCapacity"
        | "InsufficientAddressCapacity"
        | "ReservationCapacityExceeded"
        | "SpotMaxPriceTooLow" => Kind::Offering(CAPACITY),
        // An instant fleet tries a few offerings, and says this of all others.
        "UnfulfillableCapacity" => Kind::Unfulfilled,
        // The last is said of an offering whose zone lacks the type
        // (<https://github.com/aws/karpenter-provider-aws/issues/6483>).
        "Unsupported"
        | "UnsupportedOperation"
        | "InvalidInstanceType"
        | "InvalidFleetConfiguration" => Kind::Offering(UNSUPPORTED),
        "InsufficientFreeAddressesInSubnet" | "InvalidSubnetID.NotFound" => Kind::Subnet(CAPACITY),
        "MaxSpotInstanceCountExceeded" | "VcpuLimitExceeded" | "InstanceLimitExceeded" => {
            Kind::Quota(CAPACITY)
        }
        "MaxFleetCountExceeded" | "AuthFailure.ServiceLinkedRoleCreationNotPermitted" => {
            Kind::Market(CAPACITY)
        }
        "RequestLimitExceeded"
        | "Client.RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "RequestThrottled"
        | "EC2ThrottledException" => Kind::Throttled,
        "InternalError" | "InternalFailure" | "ServiceUnavailable" | "Unavailable"
        | "RequestExpired" | "RequestTimeout" => Kind::Unknown,
        "InvalidInstanceID.NotFound" => Kind::NotFound,
        "IdempotentParameterMismatch" | "IdempotentInstanceTerminated" => Kind::TokenReused,
        code if starts(code, &CREDENTIALS) => Kind::Credentials,
        code if starts(code, &DENIED) => Kind::Denied,
        code if starts(code, &PERMANENT) => Kind::Permanent,
        _ => return None,
    })
}

/// Whether a code means that there were too many calls.
pub(crate) fn is_throttle(code: &str) -> bool {
    kind(code) == Some(Kind::Throttled)
}

fn starts(code: &str, with: &[&str]) -> bool {
    with.iter().any(|prefix| code.starts_with(prefix))
}

/// Starts of codes that say that a key is not taken: it has run out, or is rotated just now
/// (<https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html>).
const CREDENTIALS: [&str; 5] = [
    "ExpiredToken",
    "InvalidClientTokenId",
    "InvalidSignature",
    "SignatureDoesNotMatch",
    "UnrecognizedClient",
];

/// Starts of codes that say that we are not allowed to.
const DENIED: [&str; 3] = ["AccessDenied", "AuthFailure", "UnauthorizedOperation"];

/// Starts of other codes that say what somebody must change.
const PERMANENT: [&str; 11] = [
    "Blocked",
    "DryRunOperation",
    "Encrypted",
    "Invalid",
    "Malformed",
    "Missing",
    "NotExportable",
    "OptInRequired",
    "PendingVerification",
    "UnknownParameter",
    "OperationNotPermitted",
];

/// What a failed call means. `what` is the call, for people.
pub(super) fn of_call<E>(what: &str, error: &SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status();
            let code = answer.err().code().unwrap_or_default();
            let message = answer.err().message().unwrap_or_default();
            // A success that can't be read may be one.
            let by_status = if status.is_client_error() && status.as_u16() != 429 {
                Kind::Permanent
            } else {
                Kind::Unknown
            };
            let text = if code.is_empty() {
                format!("{what}: HTTP status {status}")
            } else {
                format!("{what}: {code}: {}", shortened(message))
            };
            CallError {
                kind: kind(code).unwrap_or(by_status),
                text,
            }
        }
        // Nothing was sent: the credentials can't be had, or the request can't be made.
        SdkError::ConstructionFailure(_) => CallError {
            kind: Kind::Credentials,
            text: format!("{what}: {}", chain(error)),
        },
        _ => CallError::unknown(format!("{what}: {}", chain(error))),
    }
}

/// A failed call as text, and what it means; for those outside.
pub(crate) fn call_error<E>(what: &str, error: &SdkError<E, HttpResponse>) -> (String, Kind)
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let error = of_call(what, error);
    (error.text, error.kind)
}

/// Words of the SDK that only name a kind.
const NOISE: [&str; 5] = [
    "dispatch failure",
    "other",
    "io error",
    "timeout error",
    "an error occurred while loading credentials",
];

/// An error with its causes, which the SDK's own text leaves out. Room for a message of AWS's and what
/// led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // What says nothing once there is a cause, and what the one before ends with.
        let noise = NOISE.contains(&text.as_str());
        let told = texts.last().is_some_and(|last| last.ends_with(&text));
        next = error.source();
        if told || (noise && next.is_some()) {
            continue;
        }
        texts.push(text);
    }
    cut(&texts.join(": "), 2 * MOST).to_owned()
}

/// Most bytes of a message.
const MOST: usize = 300;

/// EC2's messages can carry an encoded authorisation failure of kilobytes.
pub(super) fn shortened(text: &str) -> &str {
    cut(text, MOST)
}

fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::capacity("InsufficientInstanceCapacity", Kind::Offering(CAPACITY))]
    #[case::untried("UnfulfillableCapacity", Kind::Unfulfilled)]
    #[case::price("SpotMaxPriceTooLow", Kind::Offering(CAPACITY))]
    #[case::zone("Unsupported", Kind::Offering(UNSUPPORTED))]
    #[case::zone_of_a_fleet("InvalidFleetConfiguration", Kind::Offering(UNSUPPORTED))]
    #[case::addresses("InsufficientFreeAddressesInSubnet", Kind::Subnet(CAPACITY))]
    #[case::spot_quota("MaxSpotInstanceCountExceeded", Kind::Quota(CAPACITY))]
    #[case::quota("VcpuLimitExceeded", Kind::Quota(CAPACITY))]
    #[case::fleets("MaxFleetCountExceeded", Kind::Market(CAPACITY))]
    #[case::linked_role(
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        Kind::Market(CAPACITY)
    )]
    #[case::throttle("RequestLimitExceeded", Kind::Throttled)]
    #[case::internal("InternalError", Kind::Unknown)]
    #[case::not_found("InvalidInstanceID.NotFound", Kind::NotFound)]
    #[case::token("IdempotentParameterMismatch", Kind::TokenReused)]
    #[case::permission("UnauthorizedOperation", Kind::Denied)]
    #[case::permission_of_ssm("AccessDeniedException", Kind::Denied)]
    #[case::key("AuthFailure", Kind::Denied)]
    #[case::expired("ExpiredToken", Kind::Credentials)]
    #[case::expired_of_ssm("ExpiredTokenException", Kind::Credentials)]
    #[case::key_of_sts("InvalidClientTokenId", Kind::Credentials)]
    #[case::key_of_ssm("UnrecognizedClientException", Kind::Credentials)]
    #[case::signature("SignatureDoesNotMatch", Kind::Credentials)]
    #[case::template("InvalidLaunchTemplateId.NotFound", Kind::Permanent)]
    #[case::image("InvalidAMIID.NotFound", Kind::Permanent)]
    #[case::parameter("InvalidParameterValue", Kind::Permanent)]
    #[case::user_data("InvalidUserData.Malformed", Kind::Permanent)]
    fn codes_mean_what_the_table_says(#[case] code: &str, #[case] expected: Kind) {
        assert_eq!(kind(code), Some(expected));
    }

    #[test]
    fn a_code_of_the_future_is_left_to_its_status() {
        assert_eq!(kind("SomethingNew"), None);
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let text = "é".repeat(400);
        assert_eq!(shortened(&text).len(), 300);
        assert_eq!(shortened("short"), "short");
    }
}
