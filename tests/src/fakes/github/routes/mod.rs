//! The REST calls, by the template that the description matched.

mod app;
mod deliveries;
mod releases;
mod runners;
mod runs;

use std::collections::HashMap;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Options;
use super::auth::Caller;
use super::shared::Shared;
use super::state::{AccountKind, Scope, State};

/// One checked request.
pub(super) struct Call<'a> {
    pub(super) shared: &'a Shared,
    pub(super) method: &'a str,
    pub(super) template: &'a str,
    pub(super) path: HashMap<String, String>,
    pub(super) query: HashMap<String, String>,
    pub(super) body: Value,
    pub(super) caller: Option<Caller>,
    pub(super) now: Timestamp,
}

/// What is answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Option<Value>,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
            headers: Vec::new(),
        }
    }

    pub(super) fn ok(body: Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: None,
            headers: Vec::new(),
        }
    }

    /// GitHub's shape of an error.
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        let body = json!({
            "message": message,
            "documentation_url": "https://docs.github.com/rest",
            "status": status.as_str(),
        });
        Self::json(status, body)
    }

    pub(super) fn not_found() -> Self {
        Self::error(StatusCode::NOT_FOUND, "Not Found")
    }
}

impl Call<'_> {
    pub(super) fn options(&self) -> &Options {
        &self.shared.options
    }

    fn parameter(&self, name: &str) -> &str {
        self.path.get(name).map_or("", String::as_str)
    }

    fn id(&self, name: &str) -> u64 {
        self.parameter(name).parse().unwrap_or(0)
    }

    fn repository(&self) -> String {
        format!("{}/{}", self.parameter("owner"), self.parameter("repo"))
    }

    /// Where the runners of the call are, as it was named when it was made.
    fn scope(&self, state: &State) -> Option<Scope> {
        match self.template.split('/').nth(1)? {
            "orgs" => {
                let account = state.account(self.parameter("org"))?;
                (account.kind == AccountKind::Organization)
                    .then(|| Scope::Organization(account.login.clone()))
            }
            "enterprises" => {
                let account = state.account(self.parameter("enterprise"))?;
                (account.kind == AccountKind::Enterprise)
                    .then(|| Scope::Enterprise(account.login.clone()))
            }
            _ => {
                let repository = state.repository(&self.repository())?;
                Some(Scope::Repository(repository.full_name.clone()))
            }
        }
    }

    /// The account that the path talks about, if it names one.
    fn owner(&self) -> Option<&str> {
        ["org", "enterprise", "owner"]
            .iter()
            .find_map(|name| self.path.get(*name))
            .map(String::as_str)
    }

    /// One page of `items`, by `per_page` and `page`.
    fn page<T>(&self, items: Vec<T>) -> Vec<T> {
        let number = |name: &str| {
            self.query
                .get(name)
                .and_then(|text| text.parse::<usize>().ok())
        };
        let size = number("per_page").unwrap_or(30).clamp(1, 100);
        let page = number("page").unwrap_or(1).max(1);
        items
            .into_iter()
            .skip((page - 1) * size)
            .take(size)
            .collect()
    }
}

/// Carries a call out.
pub(super) fn dispatch(state: &mut State, call: &Call<'_>) -> Answer {
    if let Some(refused) = refuse(state, call) {
        return refused;
    }
    let (method, template) = (call.method, call.template);
    if template == "/rate_limit" {
        return app::rate_limit(state, call);
    }
    if template.starts_with("/app/hook/deliveries") {
        return deliveries::dispatch(state, call);
    }
    if template.starts_with("/app") || template.contains("/installation") {
        return app::dispatch(state, call);
    }
    if template.contains("/actions/runner") {
        return runners::dispatch(state, call);
    }
    if template.ends_with("/releases") {
        return releases::list(state, call);
    }
    if template.contains("/actions/") {
        return runs::dispatch(state, call);
    }
    not_served(state, method, template)
}

/// A call that is in the description but that the fake does not play.
fn not_served(state: &mut State, method: &str, template: &str) -> Answer {
    state.violations.push(format!(
        "{method} {template}: the fake does not serve this call"
    ));
    Answer::error(StatusCode::NOT_IMPLEMENTED, "not served by the fake")
}

/// Checks who calls against what is called.
fn refuse(state: &State, call: &Call<'_>) -> Option<Answer> {
    let for_app = call.template.starts_with("/app") || call.template.ends_with("/installation");
    match (call.caller, for_app) {
        (Some(Caller::App), true) => None,
        (Some(Caller::App), false) => Some(Answer::error(
            StatusCode::FORBIDDEN,
            "Resource not accessible by integration",
        )),
        (Some(Caller::Installation(_)), true) => Some(Answer::error(
            StatusCode::UNAUTHORIZED,
            "A JSON web token could not be decoded",
        )),
        // What is public anybody may read.
        (Some(Caller::Installation(_)), false) if call.template.ends_with("/releases") => None,
        (Some(Caller::Installation(id)), false) => {
            let owner = call.owner()?;
            let own = state
                .account(owner)
                .is_some_and(|account| account.installation == id);
            (!own).then(Answer::not_found)
        }
        (None, _) => Some(Answer::error(StatusCode::UNAUTHORIZED, "Bad credentials")),
    }
}

fn integer(body: &Value, name: &str) -> u64 {
    body.get(name).and_then(Value::as_u64).unwrap_or(0)
}

fn text<'a>(body: &'a Value, name: &str) -> &'a str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}
