//! Who calls: the app by a JWT, or an installation by a token.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;

use super::state::State;

/// The app's key pair, made anew for each fake.
pub(super) struct AppKey {
    pub(super) private_pem: String,
    public: DecodingKey,
}

/// Who a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    App,
    Installation(u64),
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
    exp: i64,
    iss: Issuer,
}

/// `iss` is the app's id, as a number or as text, or its client id.
#[derive(Deserialize)]
#[serde(untagged)]
enum Issuer {
    Number(u64),
    Text(String),
}

impl AppKey {
    pub(super) fn generate() -> Result<Self, aws_lc_rs::error::Unspecified> {
        let pair = KeyPair::generate(KeySize::Rsa2048)?;
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der()?;
        Ok(Self {
            private_pem: pkcs1_pem(pkcs8.as_ref()),
            public: DecodingKey::from_rsa_der(pair.public_key().as_ref()),
        })
    }

    /// Checks a JWT as GitHub does. The error is GitHub's message.
    pub(super) fn verify(
        &self,
        jwt: &str,
        app_id: u64,
        client_id: &str,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        let mut rules = Validation::new(Algorithm::RS256);
        // Checked below, against our clock and with GitHub's limits.
        rules.validate_exp = false;
        rules.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(jwt, &self.public, &rules)
            .map_err(|_| "A JSON web token could not be decoded")?
            .claims;
        let now = now.as_second();
        let issuer_fits = match &claims.iss {
            Issuer::Number(id) => *id == app_id,
            Issuer::Text(text) => *text == app_id.to_string() || text == client_id,
        };
        if !issuer_fits {
            Err("'Issuer' claim ('iss') must be the App's id")
        } else if claims.exp <= now {
            Err(
                "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
            )
        } else if claims.exp - now > 600 {
            Err("'Expiration time' claim ('exp') is too far in the future")
        } else if claims.iat > now {
            Err(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            )
        } else {
            Ok(())
        }
    }
}

/// GitHub hands out PKCS#1 keys; the generator gives PKCS#8, which wraps one.
fn pkcs1_pem(pkcs8: &[u8]) -> String {
    // SEQUENCE (4 bytes), version (3), algorithm (15), OCTET STRING (4): RFC 5958 for RSA-2048.
    const WRAPPER: usize = 26;
    let base64 = STANDARD.encode(&pkcs8[WRAPPER..]);
    let mut pem = "-----BEGIN RSA PRIVATE KEY-----\n".to_owned();
    for line in base64.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END RSA PRIVATE KEY-----\n");
    pem
}

impl State {
    /// The installation that a token speaks for, while it is valid.
    pub(super) fn installation_of(&self, token: &str, now: Timestamp) -> Option<u64> {
        self.tokens
            .get(token)
            .filter(|token| token.expires_at > now)
            .map(|token| token.installation)
    }

    /// Whether the token may do this: the permission that a call needs, from its template.
    pub(super) fn permits(&self, token: &str, method: &str, template: &str) -> bool {
        let Some(permissions) = self
            .tokens
            .get(token)
            .and_then(|token| token.permissions.as_ref())
        else {
            return true;
        };
        let Some(needed) = permission(template) else {
            return true;
        };
        let level = permissions.get(needed).map(String::as_str);
        level == Some("write") || (method == "GET" && level == Some("read"))
    }
}

/// <https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps>
fn permission(template: &str) -> Option<&'static str> {
    let runners = template.contains("/actions/runner");
    match template.split('/').nth(1) {
        Some("orgs") if runners => Some("organization_self_hosted_runners"),
        Some("enterprises") if runners => Some("enterprise_self_hosted_runners"),
        Some("repos") if runners => Some("administration"),
        Some("repos") if template.contains("/actions/") => Some("actions"),
        _ => None,
    }
}
