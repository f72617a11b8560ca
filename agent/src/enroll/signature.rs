//! The signature over the one form of request that [`muster_proto::sts`] holds.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign as sign_v4};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use muster_proto::sts;
use muster_proto::v1::{AwsStsEvidence, EnrollChallenge};
use ring::digest;
use secrecy::ExposeSecret as _;

use super::credentials::InstanceCredentials;

/// Most characters of the coordinator's name: it becomes part of a header.
const AUDIENCE_MAX: usize = 255;

/// The evidence for a challenge and a certificate request. None if the challenge names somebody whose
/// name can't be signed.
pub(super) fn evidence(
    credentials: &InstanceCredentials,
    challenge: &EnrollChallenge,
    csr: &[u8],
    at: SystemTime,
) -> Option<AwsStsEvidence> {
    let audience = &challenge.audience;
    if !is_audience(audience) {
        return None;
    }
    let hash = digest::digest(&digest::SHA256, csr);
    let value = sts::challenge(audience, &challenge.nonce, hash.as_ref());
    let signed = sign(credentials, (sts::CHALLENGE_HEADER, &value), at)?;
    Some(AwsStsEvidence {
        access_key_id: credentials.access_key_id.clone(),
        amz_date: signed.amz_date,
        region: credentials.region.clone(),
        session_token: credentials.session_token.expose_secret().to_owned(),
        signature: signed.signature,
    })
}

/// What a signature adds to the request.
#[derive(Debug)]
struct Signed {
    amz_date: String,
    signature: String,
}

fn sign(
    credentials: &InstanceCredentials,
    challenge: (&str, &str),
    at: SystemTime,
) -> Option<Signed> {
    let identity: Identity = Credentials::new(
        credentials.access_key_id.as_str(),
        credentials.secret_access_key.expose_secret(),
        Some(credentials.session_token.expose_secret().to_owned()),
        None,
        "instance",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(&credentials.region)
        .name(sts::SERVICE)
        .time(at)
        .settings(SigningSettings::default())
        .build()
        .ok()?
        .into();
    let host = sts::host(&credentials.region);
    let url = format!("https://{host}{}", sts::PATH);
    // Date and session token are added by the signing itself.
    let headers = [
        ("accept", sts::ACCEPT),
        ("content-type", sts::CONTENT_TYPE),
        ("host", &host),
        challenge,
    ];
    let body = SignableBody::Bytes(sts::BODY.as_bytes());
    let request = SignableRequest::new(sts::METHOD, &url, headers.into_iter(), body).ok()?;
    let (instructions, signature) = sign_v4(request, &params).ok()?.into_parts();
    let amz_date = instructions
        .headers()
        .find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"))
        .map(|(_, date)| date.to_owned())?;
    Some(Signed {
        amz_date,
        signature,
    })
}

/// Nothing that could end the field, the header, or be trimmed from it.
fn is_audience(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    (1..=AUDIENCE_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use muster_proto::v1::EnrollChallenge;
    use rstest::rstest;

    use super::{InstanceCredentials, evidence, sign};

    fn credentials() -> InstanceCredentials {
        InstanceCredentials {
            region: "us-east-1".into(),
            access_key_id: "ASIAEXAMPLE".into(),
            secret_access_key: "secret".into(),
            session_token: "SESSIONTOKEN".into(),
        }
    }

    fn at() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn challenge(audience: &str) -> EnrollChallenge {
        EnrollChallenge {
            nonce: vec![7; 32],
            audience: audience.into(),
            ..EnrollChallenge::default()
        }
    }

    /// botocore makes the same of these values, bit for bit.
    #[test]
    fn the_signature_is_the_known_one() {
        let challenge = (
            "x-runner-challenge",
            "v1;coord.example;nonce=abc;csr-sha256=def",
        );
        let signed = sign(&credentials(), challenge, at()).unwrap();
        assert_eq!(signed.amz_date, "20260921T141320Z");
        assert_eq!(
            signed.signature,
            "f94421b2bd6926c7cf0f4dc8877bf662b67fd9dcb584330eeb3b7866c1bbf472"
        );
    }

    /// The coordinator's tests have the same (`identity/attest/tests/request.rs`), made by other code.
    #[test]
    fn the_evidence_is_what_the_coordinator_expects() {
        let mut credentials = credentials();
        credentials.region = "cn-north-1".into();
        let evidence = evidence(&credentials, &challenge("muster.test"), b"csr", at()).unwrap();
        assert_eq!(
            evidence.signature,
            "33e270178d24109f39b3a221d28221b4c9985f06e334d4f39c4e484d7738ff76"
        );
    }

    #[test]
    fn the_evidence_is_for_one_challenge_and_one_request() {
        let credentials = credentials();
        let for_csr = |csr: &[u8]| evidence(&credentials, &challenge("c"), csr, at()).unwrap();
        let one = for_csr(b"csr");
        assert_eq!(one, for_csr(b"csr"));
        assert_ne!(one.signature, for_csr(b"other").signature);
        let mut other = challenge("c");
        other.nonce[0] = 8;
        let other = evidence(&credentials, &other, b"csr", at()).unwrap();
        assert_ne!(one.signature, other.signature);
        assert_eq!(one.region, "us-east-1");
        assert_eq!(one.session_token, "SESSIONTOKEN");
    }

    #[rstest]
    #[case::none("")]
    #[case::field("a;nonce=00")]
    #[case::header("a\r\nx-evil: 1")]
    #[case::space("a b")]
    fn a_name_that_could_change_the_request_is_not_signed(#[case] audience: &str) {
        assert!(evidence(&credentials(), &challenge(audience), b"csr", at()).is_none());
    }
}
