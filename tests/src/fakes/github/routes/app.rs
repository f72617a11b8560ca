//! The app, its installations and their tokens.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::limits::Bucket;
use super::super::moves::after;
use super::super::payload;
use super::super::spec::SecretKind;
use super::super::state::{Account, AccountKind, State, Token};
use super::{Answer, Call, not_served, text};
use crate::fakes::github::auth::Caller;

pub(super) fn dispatch(state: &mut State, call: &Call<'_>) -> Answer {
    match (call.method, call.template) {
        ("GET", "/app") => app(call),
        ("GET", "/app/installations") => {
            let all = state
                .accounts
                .values()
                .map(|account| installation(call, account))
                .collect();
            Answer::ok(Value::Array(call.page(all)))
        }
        ("GET", "/app/installations/{installation_id}") => {
            found(call, by_installation(state, call.id("installation_id")))
        }
        ("POST", "/app/installations/{installation_id}/access_tokens") => token(state, call),
        ("GET", "/orgs/{org}/installation") => {
            let account = state
                .account(call.parameter("org"))
                .filter(|account| account.kind == AccountKind::Organization);
            found(call, account)
        }
        ("GET", "/enterprises/{enterprise}/installation") => {
            let account = state
                .account(call.parameter("enterprise"))
                .filter(|account| account.kind == AccountKind::Enterprise);
            found(call, account)
        }
        ("GET", "/repos/{owner}/{repo}/installation") => {
            let owner = state
                .repository(&call.repository())
                .map(|it| it.owner().to_owned());
            found(call, owner.and_then(|owner| state.account(&owner)))
        }
        ("GET", "/installation/repositories") => repositories(state, call),
        (method, template) => not_served(state, method, template),
    }
}

/// `GET /rate_limit`: where the budgets stand; does not count itself.
pub(super) fn rate_limit(state: &mut State, call: &Call<'_>) -> Answer {
    let installation = match call.caller {
        Some(Caller::Installation(id)) => id,
        _ => 0,
    };
    let mut standing = |bucket| {
        let at = state.budgets.standing(installation, bucket, call.now);
        json!({
            "limit": at.limit, "used": at.used, "remaining": at.limit.saturating_sub(at.used),
            "reset": at.reset.as_second(),
        })
    };
    let core = standing(Bucket::Core);
    let registration = standing(Bucket::Registration);
    Answer::ok(json!({
        "resources": {
            "core": core, "search": core, "actions_runner_registration": registration,
        },
        "rate": core,
    }))
}

fn by_installation(state: &State, id: u64) -> Option<&Account> {
    state
        .accounts
        .values()
        .find(|account| account.installation == id)
}

fn found(call: &Call<'_>, account: Option<&Account>) -> Answer {
    account.map_or_else(Answer::not_found, |account| {
        Answer::ok(installation(call, account))
    })
}

fn app(call: &Call<'_>) -> Answer {
    let mut body = call.shared.templates.answer("GET /app");
    body["id"] = json!(call.options().app_id);
    body["client_id"] = json!(call.options().client_id);
    Answer::ok(body)
}

/// An installation, after the description's own example.
fn installation(call: &Call<'_>, account: &Account) -> Value {
    let mut body = call.shared.templates.answer("GET /orgs/{org}/installation");
    body["id"] = json!(account.installation);
    body["app_id"] = json!(call.options().app_id);
    body["client_id"] = json!(call.options().client_id);
    body["target_id"] = json!(account.id);
    body["permissions"] = permissions();
    body["events"] = json!(["workflow_job"]);
    match account.kind {
        AccountKind::Organization => {
            body["target_type"] = json!("Organization");
            body["account"]["login"] = json!(account.login);
            body["account"]["id"] = json!(account.id);
        }
        AccountKind::Enterprise => {
            body["target_type"] = json!("Enterprise");
            body["account"] = payload::enterprise(account);
        }
    }
    body
}

/// What the app was granted.
fn permissions() -> Value {
    json!({
        "organization_self_hosted_runners": "write", "administration": "write",
        "actions": "write", "metadata": "read",
    })
}

fn token(state: &mut State, call: &Call<'_>) -> Answer {
    let installation = call.id("installation_id");
    if by_installation(state, installation).is_none() {
        return Answer::not_found();
    }
    let asked = call
        .body
        .get("permissions")
        .and_then(Value::as_object)
        .map(|asked| {
            asked
                .iter()
                .map(|(name, level)| (name.clone(), level.as_str().unwrap_or("").to_owned()))
                .collect()
        });
    let value = format!("ghs_{:036x}", rand::random::<u128>());
    let expires_at = after(call.now, call.options().token_lifetime);
    let granted = asked
        .as_ref()
        .map_or_else(permissions, |asked| json!(asked));
    let given = (SecretKind::InstallationToken, value.clone());
    state.secrets_given.push(given);
    state.tokens.insert(
        value.clone(),
        Token {
            installation,
            expires_at,
            permissions: asked,
        },
    );
    let body = json!({
        "token": value,
        "expires_at": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "permissions": granted,
        "repository_selection": if text(&call.body, "repositories").is_empty() { "all" } else { "selected" },
    });
    Answer::json(StatusCode::CREATED, body)
}

fn repositories(state: &State, call: &Call<'_>) -> Answer {
    let Some(Caller::Installation(id)) = call.caller else {
        return Answer::not_found();
    };
    let owner = by_installation(state, id)
        .map(|account| account.login.clone())
        .unwrap_or_default();
    let all: Vec<_> = state
        .repositories
        .values()
        .filter(|repository| repository.owner().eq_ignore_ascii_case(&owner))
        .map(|repository| payload::repository(&call.shared.templates, repository))
        .collect();
    Answer::ok(json!({ "total_count": all.len(), "repositories": call.page(all) }))
}
