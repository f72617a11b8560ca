//! Workflow runs and their jobs.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::moves::RerunRefused;
use super::super::payload;
use super::super::spec::{Conclusion, Status};
use super::super::state::{Job, Run, State};
use super::{Answer, Call, not_served};

pub(super) fn dispatch(state: &mut State, call: &Call<'_>) -> Answer {
    let rest = call
        .template
        .split_once("/actions/")
        .map_or("", |(_, rest)| rest);
    match (call.method, rest) {
        ("GET", "jobs/{job_id}") => match job(state, call) {
            Some(job) => Answer::ok(payload::job(&call.shared.templates, job)),
            None => Answer::not_found(),
        },
        ("POST", "jobs/{job_id}/rerun") => match job(state, call).map(|job| job.id) {
            Some(id) => rerun_answer(&state.rerun_job(id, call.now)),
            None => Answer::not_found(),
        },
        ("GET", "runs") => list(state, call),
        ("GET", "runs/{run_id}") => match run(state, call) {
            Some(run) => Answer::ok(payload::run(&call.shared.templates, state, run)),
            None => Answer::not_found(),
        },
        ("GET", "runs/{run_id}/jobs") => {
            let all = call
                .query
                .get("filter")
                .is_some_and(|filter| filter == "all");
            jobs(state, call, if all { Which::All } else { Which::Latest })
        }
        ("GET", "runs/{run_id}/attempts/{attempt_number}/jobs") => {
            jobs(state, call, Which::Attempt(call.id("attempt_number")))
        }
        ("POST", "runs/{run_id}/cancel") => cancel(state, call),
        ("POST", "runs/{run_id}/rerun") => rerun(state, call, |_| true),
        // "failed" is what did not succeed; what was skipped runs again if what it needs does.
        ("POST", "runs/{run_id}/rerun-failed-jobs") => rerun(state, call, |job| {
            matches!(
                job.conclusion,
                Some(Conclusion::Failure | Conclusion::Cancelled)
            )
        }),
        (method, _) => not_served(state, method, call.template),
    }
}

fn job<'a>(state: &'a State, call: &Call<'_>) -> Option<&'a Job> {
    state.repository(&call.repository())?;
    let job = state.jobs.get(&call.id("job_id"))?;
    job.spec
        .repository
        .eq_ignore_ascii_case(&call.repository())
        .then_some(job)
}

fn run<'a>(state: &'a State, call: &Call<'_>) -> Option<&'a Run> {
    state.repository(&call.repository())?;
    let run = state.runs.get(&call.id("run_id"))?;
    run.repository
        .eq_ignore_ascii_case(&call.repository())
        .then_some(run)
}

/// Newest first, as GitHub lists them.
fn list(state: &State, call: &Call<'_>) -> Answer {
    if state.repository(&call.repository()).is_none() {
        return Answer::not_found();
    }
    let wanted = call.query.get("status").map(String::as_str);
    let all: Vec<Value> = state
        .runs
        .values()
        .rev()
        .filter(|run| run.repository.eq_ignore_ascii_case(&call.repository()))
        .filter(|run| {
            let jobs = state.jobs_of_run(run.id, None);
            wanted.is_none_or(|wanted| {
                run.status(&jobs).as_str() == wanted
                    || run
                        .conclusion(&jobs)
                        .is_some_and(|it| it.as_str() == wanted)
            })
        })
        .map(|run| payload::run(&call.shared.templates, state, run))
        .collect();
    Answer::ok(json!({ "total_count": all.len(), "workflow_runs": call.page(all) }))
}

/// Which jobs of a run are asked for.
#[derive(Clone, Copy)]
enum Which {
    /// All of all attempts.
    All,
    /// For each name the newest.
    Latest,
    Attempt(u64),
}

fn jobs(state: &State, call: &Call<'_>, which: Which) -> Answer {
    let Some(run) = run(state, call) else {
        return Answer::not_found();
    };
    let chosen: Vec<&Job> = match which {
        Which::All => state
            .jobs
            .values()
            .filter(|job| job.run_id == run.id)
            .collect(),
        Which::Latest => state.jobs_of_run(run.id, None),
        Which::Attempt(attempt) => state.jobs_of_run(run.id, Some(attempt)),
    };
    let all: Vec<Value> = chosen
        .into_iter()
        .map(|job| payload::job(&call.shared.templates, job))
        .collect();
    Answer::ok(json!({ "total_count": all.len(), "jobs": call.page(all) }))
}

fn cancel(state: &mut State, call: &Call<'_>) -> Answer {
    let Some(id) = run(state, call).map(|run| run.id) else {
        return Answer::not_found();
    };
    let open: Vec<_> = state
        .jobs_of_run(id, None)
        .into_iter()
        .filter(|job| job.status != Status::Completed)
        .map(|job| job.id)
        .collect();
    if open.is_empty() {
        return Answer::error(
            StatusCode::CONFLICT,
            "Cannot cancel a workflow run that is completed.",
        );
    }
    for job in open {
        state.cancel(job, call.options(), call.now);
    }
    Answer::json(StatusCode::ACCEPTED, json!({}))
}

fn rerun(state: &mut State, call: &Call<'_>, chosen: impl Fn(&Job) -> bool) -> Answer {
    match run(state, call).map(|run| run.id) {
        Some(id) => rerun_answer(&state.rerun(id, call.now, chosen)),
        None => Answer::not_found(),
    }
}

fn rerun_answer(outcome: &Result<(), RerunRefused>) -> Answer {
    match outcome {
        Ok(()) => Answer::json(StatusCode::CREATED, json!({})),
        Err(RerunRefused::Unknown) => Answer::not_found(),
        Err(RerunRefused::StillRunning) => Answer::error(
            StatusCode::FORBIDDEN,
            "The workflow run containing this job is already running",
        ),
        Err(RerunRefused::TooOld) => Answer::error(
            StatusCode::FORBIDDEN,
            "Unable to re-run this workflow run because it was created over a month ago",
        ),
        Err(RerunRefused::TooOften) => Answer::error(
            StatusCode::FORBIDDEN,
            "Unable to re-run this workflow run because it was re-run too often",
        ),
    }
}
