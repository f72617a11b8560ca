//! Who may call, and with what.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::error::Refusal;
use super::sigv4::{Authorization, Signed};
use super::xml::iso;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The AWS account.
    pub account: String,
    /// As `GetCallerIdentity` answers it.
    pub arn: String,
    /// As `GetCallerIdentity` answers it.
    pub user_id: String,
    /// Whether this is an instance, which may call nothing but `GetCallerIdentity`.
    pub instance: bool,
}

/// Credentials, as they are handed out.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Begins with `AKIA` if it stays, with `ASIA` if it ends.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// What goes with a key that ends.
    pub session_token: Option<String>,
    /// When that is.
    pub expires: Option<Timestamp>,
}

impl Credentials {
    /// New ones that end at `expires`.
    pub(super) fn until(expires: Timestamp) -> Self {
        let random = |length: usize| -> String {
            const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
            let letter = |byte: u8| char::from(LETTERS[usize::from(byte % 32)]);
            let mut bytes = vec![0; length];
            rand::fill(&mut bytes[..]);
            bytes.into_iter().map(letter).collect()
        };
        Self {
            access_key_id: format!("ASIA{}", random(16)),
            secret_access_key: random(40),
            // Longer than a line and with all letters that base64 has, as AWS's.
            session_token: Some(format!("IQoJb3JpZ2luX2VjE//+{}==", random(256))),
            expires: Some(expires),
        }
    }

    /// As the metadata service shows them.
    pub(super) fn metadata(&self, now: Timestamp) -> Value {
        json!({
            "Code": "Success", "LastUpdated": seconds(now), "Type": "AWS-HMAC",
            "AccessKeyId": self.access_key_id, "SecretAccessKey": self.secret_access_key,
            "Token": self.session_token, "Expiration": self.expires.map(seconds),
        })
    }

    /// As `AssumeRole` answers them.
    pub(super) fn answer(&self) -> Value {
        json!({
            "AccessKeyId": self.access_key_id, "SecretAccessKey": self.secret_access_key,
            "SessionToken": self.session_token, "Expiration": self.expires.map(iso),
        })
    }
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// All keys by access key id.
#[derive(Default)]
pub(super) struct Keys(HashMap<String, (Credentials, Principal)>);

impl Keys {
    pub(super) fn add(&mut self, credentials: Credentials, principal: Principal) {
        let id = credentials.access_key_id.clone();
        self.0.insert(id, (credentials, principal));
    }

    pub(super) fn remove(&mut self, access_key_id: &str) {
        self.0.remove(access_key_id);
    }

    pub(super) fn credentials_of(&self, arn: &str) -> Option<Credentials> {
        let found = self.0.values().find(|(_, principal)| principal.arn == arn);
        found.map(|(credentials, _)| credentials.clone())
    }

    /// Makes credentials run out.
    pub(super) fn expire(&mut self, access_key_id: &str, at: Timestamp) {
        if let Some((credentials, _)) = self.0.get_mut(access_key_id) {
            credentials.expires = Some(at);
        }
    }

    /// Who signed a request.
    pub(super) fn verify(
        &self,
        authorization: &Authorization,
        request: &Signed<'_>,
        now: Timestamp,
    ) -> Result<Principal, Refusal> {
        let (credentials, principal) = self
            .0
            .get(&authorization.access_key_id)
            .ok_or(Refusal::UnknownKey)?;
        let token = request.headers.get("x-amz-security-token");
        if token.map(http::HeaderValue::as_bytes)
            != credentials.session_token.as_deref().map(str::as_bytes)
        {
            return Err(Refusal::UnknownKey);
        }
        authorization.verify(&credentials.secret_access_key, request, now)?;
        if credentials.expires.is_some_and(|expires| expires <= now) {
            return Err(Refusal::ExpiredKey);
        }
        Ok(principal.clone())
    }
}
