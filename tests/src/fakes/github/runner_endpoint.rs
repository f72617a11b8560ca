//! Where the stand-in runner connects: a plain long poll in place of GitHub's broker.
//!
//! | call | answers |
//! | --- | --- |
//! | `POST /_runner/session` | 200 {session_id}, 401 registration deleted, 409 another session lives |
//! | `DELETE /_runner/session` | 204 |
//! | `GET /_runner/message?session=` | 200 [`Message`], 202 nothing yet, 404 registration deleted |
//! | `POST /_runner/acquire` {request_id} | 200 [`JobMessage`], 404 not yours any more |
//! | `POST /_runner/renew` {request_id} | 200, 404 |
//! | `POST /_runner/complete` {request_id, result} | 200, 404 |
//!
//! Each carries `Authorization: Bearer <ClientId of .credentials>`.

use std::collections::VecDeque;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::jit::guid;
use super::moves::after;
use super::routes::Answer;
use super::shared::Shared;
use super::spec::{Conclusion, JobId};
use super::state::{Runner, Session, State, Task};
use crate::standin::protocol::{JobMessage, TaskResult};

pub(super) use crate::standin::protocol::Message;

/// One request of a runner.
pub(super) struct RunnerCall<'a> {
    pub(super) method: &'a Method,
    /// What follows `/_runner/`.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) credential: &'a str,
    pub(super) body: &'a [u8],
}

#[derive(Deserialize)]
struct About {
    request_id: JobId,
    result: Option<TaskResult>,
}

pub(super) async fn serve(shared: &Shared, call: &RunnerCall<'_>) -> Answer {
    match (call.method, call.path) {
        (&Method::POST, "session") => shared.change(|state| open(state, shared, call.credential)),
        (&Method::DELETE, "session") => shared.change(|state| {
            if let Some(runner) = state.runner_by_credential(call.credential) {
                runner.session = None;
            }
            Answer::empty(StatusCode::NO_CONTENT)
        }),
        (&Method::GET, "message") => poll(shared, call).await,
        (&Method::POST, path @ ("acquire" | "renew" | "complete")) => {
            match serde_json::from_slice::<About>(call.body) {
                Ok(about) => shared.change(|state| work(state, shared, call, path, &about)),
                Err(error) => Answer::error(StatusCode::BAD_REQUEST, &error.to_string()),
            }
        }
        _ => Answer::not_found(),
    }
}

fn open(state: &mut State, shared: &Shared, credential: &str) -> Answer {
    let now = shared.now();
    let online_until = after(now, shared.options.offline_after);
    let Some(runner) = state.runner_by_credential(credential) else {
        return Answer::error(StatusCode::UNAUTHORIZED, "invalid_client");
    };
    if runner.online(now) {
        return Answer::error(StatusCode::CONFLICT, "Error: Conflict");
    }
    let id = guid();
    runner.connected_once = true;
    runner.session = Some(Session {
        id: id.clone(),
        inbox: VecDeque::new(),
        online_until,
    });
    Answer::ok(json!({ "session_id": id }))
}

async fn poll(shared: &Shared, call: &RunnerCall<'_>) -> Answer {
    let until = Instant::now() + shared.options.poll_hold;
    let session = call.query.strip_prefix("session=").unwrap_or_default();
    let mut changed = shared.changed.subscribe();
    let look = |state: &mut State| next_message(state, shared, call.credential, session);
    // A runner that has come back may get work at once. After that, whoever makes work gives it out.
    let mut next = shared.poll(look);
    loop {
        if let Some(answer) = next {
            return answer;
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => return Answer::empty(StatusCode::ACCEPTED),
            _ = changed.changed() => {}
        }
        next = shared.quietly(look);
    }
}

/// What to answer a poll now; `None` to wait.
fn next_message(
    state: &mut State,
    shared: &Shared,
    credential: &str,
    session_id: &str,
) -> Option<Answer> {
    let options = &shared.options;
    let Some(runner) = state.runner_by_credential(credential) else {
        return Some(Answer::error(StatusCode::NOT_FOUND, "RunnerNotFound"));
    };
    let Some(session) = runner
        .session
        .as_mut()
        .filter(|session| session.id == session_id)
    else {
        return Some(Answer::error(StatusCode::NOT_FOUND, "SessionNotFound"));
    };
    session.online_until = after(shared.now(), options.offline_after);
    let message = session.inbox.pop_front()?;
    Some(Answer::ok(
        serde_json::to_value(message).unwrap_or(Value::Null),
    ))
}

fn work(
    state: &mut State,
    shared: &Shared,
    call: &RunnerCall<'_>,
    path: &str,
    about: &About,
) -> Answer {
    let now = shared.now();
    let Some(runner) = state.runner_by_credential(call.credential) else {
        return Answer::not_found();
    };
    let (runner_id, task) = (runner.id, runner.task);
    let id = about.request_id;
    if path == "acquire" {
        if !state.acquire(runner_id, id, &shared.options, now) {
            return Answer::not_found();
        }
        return match message(state, shared, runner_id, id) {
            Some(message) => Answer::ok(message),
            None => Answer::not_found(),
        };
    }
    if !matches!(task, Task::Running { job } if job == id) {
        return Answer::not_found();
    }
    if path == "renew" {
        if let Some(job) = state.jobs.get_mut(&id) {
            job.locked_until = Some(after(now, shared.options.job_lock));
        }
        return Answer::ok(json!({}));
    }
    let Some(result) = about.result else {
        return Answer::error(StatusCode::BAD_REQUEST, "result is missing");
    };
    state.end_job(id, conclusion(result), None, now);
    Answer::ok(json!({}))
}

fn conclusion(result: TaskResult) -> Conclusion {
    match result {
        TaskResult::Succeeded | TaskResult::SucceededWithIssues => Conclusion::Success,
        TaskResult::Failed | TaskResult::Abandoned => Conclusion::Failure,
        TaskResult::Canceled => Conclusion::Cancelled,
        TaskResult::Skipped => Conclusion::Skipped,
    }
}

/// The job as the run service gives it to the runner that acquired it.
fn message(state: &State, shared: &Shared, runner_id: u64, id: JobId) -> Option<Value> {
    let job = state.jobs.get(&id)?;
    let run = state.runs.get(&job.run_id)?;
    let repository = state.repository(&job.spec.repository)?;
    let runner: &Runner = state.runners.get(&runner_id)?;
    let message = JobMessage {
        request_id: id,
        job_guid: guid(),
        display_name: job.spec.name.clone(),
        repository: repository.full_name.clone(),
        repository_id: repository.id,
        run_id: job.run_id,
        run_number: run.number,
        run_attempt: job.run_attempt,
        workflow: job.spec.workflow.clone(),
        runner_name: runner.name.clone(),
        server_url: Some(shared.url.clone()),
        script: job.spec.script.clone(),
    };
    serde_json::to_value(message).ok()
}
