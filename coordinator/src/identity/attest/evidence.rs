//! The five fields that an instance sends, each held to the one form that it can have.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::{AttestAccount, AttestError};

/// How far the time of a signature may be from ours. STS allows no more either
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_aws-signing.html>).
const CLOCK_SKEW_SECONDS: i64 = 5 * 60;
/// Most bytes of a session token.
const TOKEN_MAX: usize = 4 * 1024;

/// What an instance sent, as it came.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// Id of the access key.
    pub access_key_id: &'a str,
    /// When it was signed.
    pub amz_date: &'a str,
    /// Region of the endpoint that it was signed for.
    pub region: &'a str,
    /// Session token of the credentials.
    pub session_token: &'a str,
    /// The signature.
    pub signature: &'a str,
}

/// Token and signature together can be replayed for some minutes, so neither is shown.
impl std::fmt::Debug for Evidence<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Evidence").finish_non_exhaustive()
    }
}

/// Evidence whose fields have the right form. None of them can be more than the value of its place.
#[derive(Clone, Copy)]
pub(super) struct Checked<'a>(Evidence<'a>);

impl<'a> Checked<'a> {
    pub(super) fn new(
        evidence: &Evidence<'a>,
        accounts: &[AttestAccount],
        now: Timestamp,
    ) -> Result<Self, AttestError> {
        if !accounts.iter().any(|entry| entry.region == evidence.region) {
            let expected = "a region that this coordinator launches in";
            return Err(malformed("region", expected));
        }
        if !is_access_key_id(evidence.access_key_id) {
            let expected = "16 to 128 characters of A-Z and 0-9";
            return Err(malformed("access_key_id", expected));
        }
        let Some(signed_at) = parse_date(evidence.amz_date) else {
            let expected = "a time of the form 20260921T141320Z";
            return Err(malformed("amz_date", expected));
        };
        let off = signed_at.as_second().abs_diff(now.as_second());
        if off > CLOCK_SKEW_SECONDS.unsigned_abs() {
            let expected = "a time within five minutes of the coordinator's clock";
            return Err(malformed("amz_date", expected));
        }
        if !is_session_token(evidence.session_token) {
            return Err(malformed("session_token", "up to 4 KiB of base64"));
        }
        if !is_signature(evidence.signature) {
            return Err(malformed("signature", "64 characters of 0-9 and a-f"));
        }
        Ok(Self(*evidence))
    }

    pub(super) fn region(&self) -> &'a str {
        self.0.region
    }

    pub(super) fn amz_date(&self) -> &'a str {
        self.0.amz_date
    }

    pub(super) fn session_token(&self) -> &'a str {
        self.0.session_token
    }

    /// The value of the `authorization` header.
    pub(super) fn authorization(&self, service: &str, signed_headers: &str) -> String {
        let Evidence {
            access_key_id,
            amz_date,
            region,
            signature,
            ..
        } = self.0;
        let date = amz_date.get(..8).unwrap_or_default();
        format!(
            "AWS4-HMAC-SHA256 Credential={access_key_id}/{date}/{region}/{service}/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        )
    }
}

fn malformed(field: &'static str, expected: &'static str) -> AttestError {
    AttestError::Malformed { field, expected }
}

fn is_access_key_id(text: &str) -> bool {
    (16..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

fn is_session_token(text: &str) -> bool {
    (1..=TOKEN_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

fn is_signature(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a text can be the name of a region. It becomes part of a host's name.
pub(super) fn is_region(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A time of exactly the form `20260921T141320Z`.
fn parse_date(text: &str) -> Option<Timestamp> {
    let bytes: &[u8; 16] = text.as_bytes().try_into().ok()?;
    let digits = |at: usize, count: usize| {
        bytes[at..at + count]
            .iter()
            .try_fold(0_i16, |number, byte| {
                let digit = byte.is_ascii_digit().then(|| i16::from(byte - b'0'))?;
                Some(number * 10 + digit)
            })
    };
    let pair = |at: usize| digits(at, 2).and_then(|number| i8::try_from(number).ok());
    if bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let (year, month, day) = (digits(0, 4)?, pair(4)?, pair(6)?);
    let time = DateTime::new(year, month, day, pair(9)?, pair(11)?, pair(13)?, 0).ok()?;
    TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Timestamp, is_region, parse_date};

    #[rstest]
    #[case("20260921T141320Z", Some(1_790_000_000))]
    #[case("20260921T141360Z", None)]
    #[case("20261321T141320Z", None)]
    #[case("20260230T141320Z", None)]
    #[case("20260921 141320Z", None)]
    #[case("20260921T141320z", None)]
    #[case("20260921T14132Z", None)]
    #[case("+0260921T141320Z", None)]
    #[case("2026092１T14132Z", None)]
    fn a_date_has_one_form(#[case] text: &str, #[case] second: Option<i64>) {
        assert_eq!(parse_date(text).map(Timestamp::as_second), second);
    }

    #[rstest]
    #[case("us-gov-east-1", true)]
    #[case("", false)]
    #[case("eu-west-1.example", false)]
    #[case("-", false)]
    #[case("EU", false)]
    fn a_region_is_part_of_a_hosts_name(#[case] text: &str, #[case] is: bool) {
        assert_eq!(is_region(text), is);
    }
}
