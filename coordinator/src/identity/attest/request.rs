//! The request to STS, put together from constants and from fields that were checked.

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, InvalidHeaderValue};
use http::{HeaderMap, HeaderName, HeaderValue};
use muster_proto::sts;

use super::evidence::Checked;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const CHALLENGE: HeaderName = HeaderName::from_static(sts::CHALLENGE_HEADER);

/// A request that is ready to be sent. Method, path and body are [`muster_proto::sts`]'s.
#[derive(Debug)]
pub(super) struct Rebuilt {
    /// The host that was signed.
    pub(super) host: String,
    /// All headers but the length of the body.
    pub(super) headers: HeaderMap,
}

/// Fails only if the challenge has characters that no header has: by a name of the coordinator that has.
pub(super) fn rebuild(
    evidence: &Checked<'_>,
    challenge: &str,
) -> Result<Rebuilt, InvalidHeaderValue> {
    let host = sts::host(evidence.region());
    let secret = |text: &str| {
        let mut value = HeaderValue::from_str(text)?;
        value.set_sensitive(true);
        Ok(value)
    };
    let authorization = evidence.authorization(sts::SERVICE, sts::SIGNED_HEADERS);
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(ACCEPT, HeaderValue::from_static(sts::ACCEPT));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sts::CONTENT_TYPE));
    headers.insert(HOST, HeaderValue::from_str(&host)?);
    headers.insert(DATE, HeaderValue::from_str(evidence.amz_date())?);
    headers.insert(TOKEN, secret(evidence.session_token())?);
    headers.insert(CHALLENGE, HeaderValue::from_str(challenge)?);
    headers.insert(AUTHORIZATION, secret(&authorization)?);
    Ok(Rebuilt { host, headers })
}
