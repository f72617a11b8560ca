//! STS: who calls, and roles.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::dispatch::{Tag, typed};
use super::error::AwsError;
use super::keys::{Credentials, Principal};
use super::shared::{Admitted, State};
use crate::fakes::clock::after;

/// A role that may be assumed by any user or role that the fake knows.
#[derive(Clone, Debug)]
pub struct Role {
    /// `arn:aws:iam::<account>:role/<name>`.
    pub arn: String,
    /// What the caller must know, if anything.
    pub external_id: Option<String>,
    /// How long its sessions may be (IAM: 1 h unless set).
    pub longest_session: Duration,
}

/// A role that was assumed.
#[derive(Clone, Debug)]
pub struct Session {
    /// The role.
    pub role_arn: String,
    /// Who assumed it.
    pub by: String,
    /// The name that the caller gave.
    pub name: String,
    /// The external id that the caller sent.
    pub external_id: Option<String>,
    /// Session tags.
    pub tags: BTreeMap<String, String>,
    /// The caller's source identity.
    pub source_identity: Option<String>,
    /// The session policy.
    pub policy: Option<String>,
    /// What was handed out.
    pub access_key_id: String,
    /// When it ends.
    pub expires: Timestamp,
}

pub(super) fn get_caller_identity(call: &Admitted) -> Value {
    let Principal {
        account,
        arn,
        user_id,
        ..
    } = &call.principal;
    json!({ "Account": account, "Arn": arn, "UserId": user_id })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Request {
    role_arn: String,
    role_session_name: String,
    external_id: Option<String>,
    duration_seconds: Option<u64>,
    source_identity: Option<String>,
    policy: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

pub(super) fn assume_role(state: &mut State, call: &Admitted) -> Result<Value, AwsError> {
    let asked: Request = typed(call)?;
    let known = state.roles.iter().find(|role| {
        role.arn == asked.role_arn
            && (role.external_id.is_none() || role.external_id == asked.external_id)
    });
    let parts = asked
        .role_arn
        .strip_prefix("arn:aws:iam::")
        .and_then(|rest| rest.split_once(":role/"));
    let (Some(role), Some((account, path))) = (known, parts) else {
        let message = format!(
            "User: {} is not authorized to perform: sts:AssumeRole on resource: {}",
            call.principal.arn, asked.role_arn
        );
        return Err(AwsError::new(403, "AccessDenied", message));
    };
    let duration = Duration::from_secs(asked.duration_seconds.unwrap_or(3600));
    if duration > role.longest_session {
        let message =
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.";
        return Err(AwsError::client("ValidationError", message));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let session = &asked.role_session_name;
    let user_id = format!("AROAMUSTERFAKEROLE001:{session}");
    let arn = format!("arn:aws:sts::{account}:assumed-role/{name}/{session}");
    let expires = after(state.options.wall.now(), duration);
    let credentials = Credentials::until(expires);
    state.keys.add(
        credentials.clone(),
        Principal {
            account: account.to_owned(),
            arn: arn.clone(),
            user_id: user_id.clone(),
            instance: false,
        },
    );
    state.sessions.push(Session {
        role_arn: asked.role_arn.clone(),
        by: call.principal.arn.clone(),
        name: session.clone(),
        external_id: asked.external_id,
        tags: asked
            .tags
            .into_iter()
            .map(|tag| (tag.key, tag.value))
            .collect(),
        source_identity: asked.source_identity,
        policy: asked.policy,
        access_key_id: credentials.access_key_id.clone(),
        expires,
    });
    Ok(json!({
        "Credentials": credentials.answer(),
        "AssumedRoleUser": { "AssumedRoleId": user_id, "Arn": arn },
    }))
}
