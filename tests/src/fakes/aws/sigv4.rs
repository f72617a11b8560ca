//! Signature Version 4, seen from the side that verifies it.
//!
//! Written from AWS's description, apart from the crate that Muster signs with.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::time::Duration;

use aws_lc_rs::{digest, hmac};
use http::HeaderMap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use url::form_urlencoded;

use super::error::Refusal;

/// How far a request's time may be from now.
const SKEW: Duration = Duration::from_mins(5);

/// An `Authorization` header, read.
#[derive(Debug)]
pub(super) struct Authorization {
    pub(super) access_key_id: String,
    date: String,
    pub(super) region: String,
    pub(super) service: String,
    signed: Vec<String>,
    signature: String,
}

/// A request, as far as it is signed.
pub(super) struct Signed<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a [u8],
}

impl Authorization {
    /// Reads `AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…`.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        let text = one(headers, "authorization")?;
        let rest = text.strip_prefix("AWS4-HMAC-SHA256 ")?;
        let (mut credential, mut signed, mut signature) = (None, None, None);
        for part in rest.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed,
                "Signature" => &mut signature,
                _ => return None,
            };
            if slot.replace(value).is_some() {
                return None;
            }
        }
        let scope: Vec<&str> = credential?.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = scope[..] else {
            return None;
        };
        Some(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            signed: signed?.split(';').map(str::to_owned).collect(),
            signature: signature?.to_owned(),
        })
    }

    /// Whether the request was signed with this secret, all that must be signed, and just now.
    pub(super) fn verify(
        &self,
        secret: &str,
        request: &Signed<'_>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let stamp = one(request.headers, "x-amz-date").ok_or(Refusal::Incomplete)?;
        let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", stamp)
            .ok()
            .and_then(|time| TimeZone::UTC.to_timestamp(time).ok())
            .ok_or(Refusal::Incomplete)?;
        let must = ["host", "x-amz-date"];
        let token = request.headers.contains_key("x-amz-security-token");
        let mut must = must
            .into_iter()
            .chain(token.then_some("x-amz-security-token"));
        if !self.signed.is_sorted() || !must.all(|name| self.signed.iter().any(|had| had == name)) {
            return Err(Refusal::Incomplete);
        }
        if stamp.get(..8) != Some(&*self.date) {
            return Err(Refusal::Mismatch);
        }
        let scope = format!(
            "{}/{}/{}/aws4_request",
            self.date, self.region, self.service
        );
        let canonical = self.canonical(request).ok_or(Refusal::Incomplete)?;
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}",
            sha256(canonical.as_bytes())
        );
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [&*self.date, &self.region, &self.service, "aws4_request"] {
            key = mac(&key, part);
        }
        if hex(&mac(&key, &to_sign)) != self.signature {
            return Err(Refusal::Mismatch);
        }
        if now.duration_since(time).unsigned_abs() > SKEW {
            return Err(Refusal::Stale);
        }
        Ok(())
    }

    fn canonical(&self, request: &Signed<'_>) -> Option<String> {
        let mut query: Vec<(String, String)> = form_urlencoded::parse(request.query.as_bytes())
            .map(|(name, value)| (encode(&name, ""), encode(&value, "")))
            .collect();
        query.sort();
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut headers = String::new();
        for name in &self.signed {
            let mut values = Vec::new();
            for value in request.headers.get_all(name) {
                let words: Vec<&str> = value.to_str().ok()?.split_whitespace().collect();
                values.push(words.join(" "));
            }
            if values.is_empty() {
                return None;
            }
            headers.push_str(&format!("{name}:{}\n", values.join(",")));
        }
        Some(format!(
            "{}\n{}\n{}\n{headers}\n{}\n{}",
            request.method,
            // What stands in the path is encoded once more, for all services but S3.
            encode(request.path, "/"),
            query.join("&"),
            self.signed.join(";"),
            sha256(request.body)
        ))
    }
}

/// The value of a header that is there exactly once.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

fn encode(text: &str, plain: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let letter = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(letter) || plain.contains(letter) {
            out.push(letter);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
