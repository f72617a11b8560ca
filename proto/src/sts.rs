//! The one form of `sts:GetCallerIdentity` request that proves which instance an agent runs on.
//!
//! Agent and coordinator each put it together from here; what goes over the wire is only what the other
//! can't know ([`AwsStsEvidence`](crate::v1::AwsStsEvidence)). It is the form that the AWS SDKs send
//! (aws-sdk-sts, `get_caller_identity`), with one header more.

/// Method of the request.
pub const METHOD: &str = "POST";
/// Path of the request.
pub const PATH: &str = "/";
/// Body of the request.
pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
/// Value of `accept`: the answer comes as JSON, which is parsed strictly.
pub const ACCEPT: &str = "application/json";
/// Value of `content-type`.
pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";
/// The header that makes the signature fresh, and good for one certificate request only.
pub const CHALLENGE_HEADER: &str = "x-muster-challenge";
/// The headers that are signed, in the order of the canonical request.
pub const SIGNED_HEADERS: &str =
    "accept;content-type;host;x-amz-date;x-amz-security-token;x-muster-challenge";
/// The service in the scope of the signature.
pub const SERVICE: &str = "sts";

/// Value of [`CHALLENGE_HEADER`]: who asks, the nonce, and SHA-256 of the certificate request.
#[must_use]
pub fn challenge(audience: &str, nonce: &[u8], csr_sha256: &[u8]) -> String {
    format!(
        "v1;{audience};nonce={};csr-sha256={}",
        hex(nonce),
        hex(csr_sha256)
    )
}

/// Host of the regional endpoint. A region of no known partition is taken to be of `aws`
/// (botocore, `endpoints.json`: the partitions and their suffixes).
#[must_use]
pub fn host(region: &str) -> String {
    const PARTITIONS: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("eusc-", "amazonaws.eu"),
        ("us-iso-", "c2s.ic.gov"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
    ];
    let suffix = PARTITIONS
        .iter()
        .find(|(prefix, _)| region.starts_with(prefix))
        .map_or("amazonaws.com", |(_, suffix)| suffix);
    format!("sts.{region}.{suffix}")
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| DIGITS[usize::from(nibble)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{challenge, host};

    #[test]
    fn a_challenge_names_all_that_it_binds() {
        assert_eq!(
            challenge("muster.example", &[0, 0xab], &[0xff, 0x10]),
            "v1;muster.example;nonce=00ab;csr-sha256=ff10"
        );
    }

    #[test]
    fn hosts_follow_the_partition() {
        // aws-iam-authenticator, pkg/token/token_test.go, TestSTSEndpoints
        for (region, expected) in [
            ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
            ("us-gov-east-1", "sts.us-gov-east-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
        ] {
            assert_eq!(host(region), expected);
        }
    }
}
