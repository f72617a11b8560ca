//! Runner groups, registrations and JIT configurations.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::jit;
use super::super::spec::SecretKind;
use super::super::state::{Group, Runner, Scope, State, Task};
use super::{Answer, Call, integer, not_served, text};

/// The longest runner name that is taken. GitHub gives no figure; 64 is what `config.sh` allows.
const LONGEST_NAME: usize = 64;

pub(super) fn dispatch(state: &mut State, call: &Call<'_>) -> Answer {
    let Some(scope) = call.scope(state) else {
        return Answer::not_found();
    };
    let rest = call
        .template
        .split_once("/actions/")
        .map_or("", |(_, rest)| rest);
    match (call.method, rest) {
        ("GET", "runners") => list(state, call, &scope),
        ("POST", "runners/generate-jitconfig") => generate(state, call, scope),
        ("GET", "runners/{runner_id}") => match find(state, call, &scope) {
            Some(runner) => Answer::ok(describe(runner, call)),
            None => Answer::not_found(),
        },
        ("DELETE", "runners/{runner_id}") => delete(state, call, &scope),
        ("GET", "runner-groups") => groups(state, call, &scope),
        ("GET", "runner-groups/{runner_group_id}") => {
            match state.group(&scope, call.id("runner_group_id")) {
                Some(group) => Answer::ok(describe_group(group)),
                None => Answer::not_found(),
            }
        }
        (method, _) => not_served(state, method, call.template),
    }
}

fn find<'a>(state: &'a State, call: &Call<'_>, scope: &Scope) -> Option<&'a Runner> {
    state
        .runners
        .get(&call.id("runner_id"))
        .filter(|runner| runner.scope == *scope)
}

fn list(state: &State, call: &Call<'_>, scope: &Scope) -> Answer {
    let name = call.query.get("name");
    let all: Vec<Value> = state
        .runners
        .values()
        .filter(|runner| runner.scope == *scope)
        .filter(|runner| name.is_none_or(|name| runner.name == *name))
        .map(|runner| describe(runner, call))
        .collect();
    Answer::ok(json!({ "total_count": all.len(), "runners": call.page(all) }))
}

fn delete(state: &mut State, call: &Call<'_>, scope: &Scope) -> Answer {
    let Some(runner) = find(state, call, scope) else {
        return Answer::not_found();
    };
    if runner.busy() {
        let message = format!(
            "Bad request - Runner \"{}\" is still running a job\"",
            runner.name
        );
        return Answer::error(StatusCode::UNPROCESSABLE_ENTITY, &message);
    }
    let id = runner.id;
    // A runner that works although the API calls it idle keeps its job, and GitHub says 204 too.
    match state.runners.get_mut(&id) {
        Some(runner) if matches!(runner.task, Task::Assigned { .. } | Task::Running { .. }) => {}
        _ => {
            state.runners.remove(&id);
        }
    }
    Answer::empty(StatusCode::NO_CONTENT)
}

fn generate(state: &mut State, call: &Call<'_>, scope: Scope) -> Answer {
    let name = text(&call.body, "name").to_owned();
    if name.is_empty() || name.len() > LONGEST_NAME {
        return Answer::error(StatusCode::UNPROCESSABLE_ENTITY, "Invalid runner name");
    }
    let group_id = integer(&call.body, "runner_group_id");
    let group_name = match &scope {
        // A repository has the default group only.
        Scope::Repository(_) => (group_id == 1).then(|| "Default".to_owned()),
        _ => state
            .group(&scope, group_id)
            .map(|group| group.name.clone()),
    };
    let Some(group_name) = group_name else {
        return Answer::error(StatusCode::NOT_FOUND, "Runner group not found");
    };
    if state
        .runners
        .values()
        .any(|runner| runner.scope == scope && runner.name == name)
    {
        return Answer::error(
            StatusCode::CONFLICT,
            "Already exists - A runner with the name already exists.",
        );
    }
    let labels: Vec<String> = call
        .body
        .get("labels")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_lowercase)
        .collect();
    let runner = Runner {
        id: state.fresh_id(),
        name,
        scope,
        group_id,
        labels,
        credential: jit::guid(),
        session: None,
        connected_once: false,
        task: Task::Idle,
        reported_busy: None,
    };
    let folder = match text(&call.body, "work_folder") {
        "" => "_work",
        folder => folder,
    };
    let encoded = jit::encode(&runner, &group_name, folder, &call.shared.url);
    let given = [
        (SecretKind::JitConfig, encoded.clone()),
        (SecretKind::RunnerCredential, runner.credential.clone()),
    ];
    state.secrets_given.extend(given);
    let body = json!({ "runner": describe(&runner, call), "encoded_jit_config": encoded });
    state.runners.insert(runner.id, runner);
    Answer::json(StatusCode::CREATED, body)
}

fn describe(runner: &Runner, call: &Call<'_>) -> Value {
    let labels: Vec<_> = runner
        .labels
        .iter()
        .zip(1..)
        .map(|(name, id)| json!({ "id": id, "name": name, "type": "custom" }))
        .collect();
    json!({
        "id": runner.id,
        "name": runner.name,
        "os": if runner.connected_once { "Linux" } else { "unknown" },
        "status": if runner.online(call.now) { "online" } else { "offline" },
        "busy": runner.busy(),
        "runner_group_id": runner.group_id,
        "ephemeral": true,
        "labels": labels,
    })
}

fn groups(state: &State, call: &Call<'_>, scope: &Scope) -> Answer {
    let visible_to = call.query.get("visible_to_repository");
    let all: Vec<Value> = state
        .groups
        .iter()
        .filter(|group| group.scope == *scope)
        .filter(|group| match (visible_to, &group.repositories) {
            (Some(wanted), Some(names)) => names
                .iter()
                .any(|name| name.rsplit('/').next() == Some(wanted.as_str())),
            _ => true,
        })
        .map(describe_group)
        .collect();
    Answer::ok(json!({ "total_count": all.len(), "runner_groups": call.page(all) }))
}

fn describe_group(group: &Group) -> Value {
    json!({
        "id": group.id,
        "name": group.name,
        "visibility": if group.repositories.is_some() { "selected" } else { "all" },
        "default": group.id == 1,
        "runners_url": format!("https://api.github.com/runner_groups/{}/runners", group.id),
        "inherited": false,
        "allows_public_repositories": group.allows_public,
        "restricted_to_workflows": false,
        "selected_workflows": [],
        "workflow_restrictions_read_only": false,
    })
}
