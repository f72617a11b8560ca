//! Evidence of an instance's identity, signed as the agent signs it.

use std::time::SystemTime;

use aws_credential_types::Credentials as Keys;
use aws_lc_rs::digest;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use muster_proto::sts;
use muster_proto::v1::{AwsStsEvidence, EnrollChallenge};

use crate::fakes::aws::Credentials;

/// The proof that is the answer to a challenge, for one certificate request.
pub(super) fn evidence(
    credentials: &Credentials,
    region: &str,
    challenge: &EnrollChallenge,
    csr: &[u8],
) -> anyhow::Result<AwsStsEvidence> {
    let hash = digest::digest(&digest::SHA256, csr);
    let value = sts::challenge(&challenge.audience, &challenge.nonce, hash.as_ref());
    // By the coordinator's clock, as the agent does.
    let at = challenge.server_time.map(SystemTime::try_from);
    let at = at.and_then(Result::ok).unwrap_or_else(SystemTime::now);
    let identity: Identity = Keys::new(
        credentials.access_key_id.as_str(),
        credentials.secret_access_key.as_str(),
        credentials.session_token.clone(),
        None,
        "swarm",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(sts::SERVICE)
        .time(at)
        .settings(SigningSettings::default())
        .build()?
        .into();
    let host = sts::host(region);
    let url = format!("https://{host}{}", sts::PATH);
    let headers = [
        ("accept", sts::ACCEPT),
        ("content-type", sts::CONTENT_TYPE),
        ("host", host.as_str()),
        (sts::CHALLENGE_HEADER, value.as_str()),
    ];
    let body = SignableBody::Bytes(sts::BODY.as_bytes());
    let request = SignableRequest::new(sts::METHOD, &url, headers.into_iter(), body)?;
    let (instructions, signature) = sign(request, &params)?.into_parts();
    let date = instructions
        .headers()
        .find(|(name, _)| name.eq_ignore_ascii_case("x-amz-date"))
        .map(|(_, date)| date.to_owned());
    Ok(AwsStsEvidence {
        access_key_id: credentials.access_key_id.clone(),
        amz_date: date.unwrap_or_default(),
        region: region.to_owned(),
        session_token: credentials.session_token.clone().unwrap_or_default(),
        signature,
    })
}
