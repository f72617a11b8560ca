//! Releases of other people's public repositories.

use serde_json::{Value, json};

use super::super::state::State;
use super::{Answer, Call};

/// The releases of a repository, newest first; those of the official runner are the only ones that are known.
pub(super) fn list(state: &State, call: &Call<'_>) -> Answer {
    if call.repository() != "actions/runner" || state.runner_releases.is_empty() {
        return Answer::not_found();
    }
    let example = state.templates.answer("GET /repos/{owner}/{repo}/releases");
    let mut releases: Vec<Value> = Vec::new();
    for (id, release) in state.runner_releases.iter().enumerate().rev() {
        let mut shown = example[0].clone();
        let at = release.published_at.to_string();
        shown["id"] = json!(id + 1);
        shown["tag_name"] = json!(release.tag);
        shown["name"] = json!(release.tag);
        shown["draft"] = json!(false);
        shown["prerelease"] = json!(release.prerelease);
        shown["created_at"] = json!(at);
        shown["published_at"] = json!(at);
        releases.push(shown);
    }
    Answer::ok(Value::Array(call.page(releases)))
}
