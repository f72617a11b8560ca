//! What GitHub's API answers.

use std::sync::Arc;

use futures::FutureExt as _;
use http::{Method, Response};
use muster_core::{JobStatus, RunnerName};
use serde_json::{Value, json};

use super::{Github, Job, OWNER, REPOSITORIES, Runner};
use crate::github::simulated::{Answer, Question, Way};
use crate::simulation::world::{Fate, Service, State, World};

pub(super) const INSTALLATION: i64 = 7;
/// Entries of a page.
const PAGE: usize = 100;

/// The way of one process to GitHub.
pub(in crate::simulation) fn way(world: &World, life: u64) -> Way {
    let world = world.clone();
    Way(Arc::new(move |question| {
        let world = world.clone();
        async move { go(&world, life, question).await }.boxed()
    }))
}

async fn go(world: &World, life: u64, question: Question) -> Answer {
    world.pause(life, "before a call of GitHub").await;
    let fate = world.fate(Service::Github);
    if fate == Fate::Failed {
        return match world.lock().below(2) {
            0 => Err("the connection broke".to_owned()),
            _ => Ok(reply(502, &json!({ "message": "Bad Gateway" }))),
        };
    }
    let answer = unless_known(answer(world, &question), &question);
    let path = question.url.path();
    if question.method != Method::GET {
        let status = answer.status().as_u16();
        world.tell(format!("life {life} {} {path} {status}", question.method));
    }
    world.pause(life, "after a call of GitHub").await;
    if fate == Fate::Unanswered {
        return Err("the connection broke before the answer".to_owned());
    }
    Ok(answer)
}

/// GitHub answers 304 to who knows the answer already.
fn unless_known(mut answer: Response<Vec<u8>>, question: &Question) -> Response<Vec<u8>> {
    if question.method != Method::GET || answer.status() != 200 {
        return answer;
    }
    let digest = answer
        .body()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |digest, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let etag = format!("\"{digest:016x}\"");
    if question.known.as_ref() == Some(&etag) {
        return Response::builder().status(304).body(Vec::new()).unwrap();
    }
    answer.headers_mut().insert("etag", etag.parse().unwrap());
    answer
}

fn reply(status: u16, body: &Value) -> Response<Vec<u8>> {
    let response = Response::builder().status(status);
    response.body(body.to_string().into_bytes()).unwrap()
}

fn unknown() -> Response<Vec<u8>> {
    reply(404, &json!({ "message": "Not Found" }))
}

fn answer(world: &World, question: &Question) -> Response<Vec<u8>> {
    let path: Vec<&str> = question.url.path().trim_matches('/').split('/').collect();
    let get = question.method == Method::GET;
    match path.as_slice() {
        [.., "installation"] if get => reply(200, &json!({ "id": INSTALLATION })),
        ["app", "installations", _, "access_tokens"] => {
            let end = jiff::Timestamp::now() + std::time::Duration::from_secs(3600);
            let token = json!({ "token": "ghs_simulated", "expires_at": end.to_string() });
            reply(201, &token)
        }
        ["app", "hook", "deliveries"] => deliveries(&world.lock().github, question),
        ["app", "hook", "deliveries", id, "attempts"] => match id.parse() {
            Ok(id) if super::redeliver(world, id) => reply(202, &json!({})),
            _ => unknown(),
        },
        ["installation", "repositories"] => {
            let all = REPOSITORIES.map(repository);
            reply(
                200,
                &json!({ "total_count": all.len(), "repositories": all }),
            )
        }
        ["orgs", _, "actions", "runner-groups"] => {
            let groups = json!([{ "id": 1, "name": "Default" }]);
            reply(200, &json!({ "total_count": 1, "runner_groups": groups }))
        }
        ["orgs", _, "actions", "runners", rest @ ..] => runners(world, question, rest),
        ["repos", _, name, "actions", rest @ ..] => actions(world, question, name, rest),
        _ => unknown(),
    }
}

fn runners(world: &World, question: &Question, rest: &[&str]) -> Response<Vec<u8>> {
    match (rest, &question.method) {
        (["generate-jitconfig"], _) => mint(world, question),
        ([], _) => {
            let state = world.lock();
            let wanted = parameter(question, "name");
            let all = state.github.runners.iter();
            let all: Vec<Value> = all
                .filter(|(_, runner)| {
                    wanted
                        .as_ref()
                        .is_none_or(|wanted| runner.name.contains(wanted.as_str()))
                })
                .map(|(id, runner)| summary(*id, runner))
                .collect();
            reply(200, &page(question, "runners", &all))
        }
        ([id], method) => {
            let mut state = world.lock();
            let id: i64 = id.parse().unwrap_or_default();
            match state.github.runners.get(&id) {
                None => unknown(),
                Some(runner) if method == Method::GET => reply(200, &summary(id, runner)),
                Some(runner) if runner.job.is_some() => {
                    let told = json!({ "message": "Runner is currently running a job" });
                    reply(422, &told)
                }
                Some(_) => {
                    let gone = state.github.runners.remove(&id);
                    drop(state);
                    if let Some(host) = gone.and_then(|runner| runner.host) {
                        crate::simulation::host::tell(
                            world,
                            &host,
                            crate::simulation::host::News::Deregistered,
                        );
                    }
                    reply(204, &Value::Null)
                }
            }
        }
        _ => unknown(),
    }
}

fn mint(world: &World, question: &Question) -> Response<Vec<u8>> {
    let body = question.body.as_ref().unwrap_or(&Value::Null);
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    let labels = body["labels"].as_array().into_iter().flatten();
    let labels = labels.filter_map(|label| Some(label.as_str()?.to_owned()));
    let labels = labels.collect();
    let intent = muster_core::Effect::Mint {
        launch: "".into(),
        pool: "".into(),
        name: RunnerName::new(&name),
        shape: muster_core::Shape::default(),
    };
    let mut state = world.lock();
    let intended = state.disk.wants(&intent.key());
    if state
        .github
        .runners
        .values()
        .any(|runner| runner.name == name)
    {
        return reply(409, &json!({ "message": "Already exists" }));
    }
    let id = state.github.id();
    let runner = Runner {
        name: name.clone(),
        labels,
        host: None,
        job: None,
    };
    let config = format!("jit-{id}");
    let answer = json!({ "runner": summary(id, &runner), "encoded_jit_config": config });
    state.github.runners.insert(id, runner);
    drop(state);
    if !intended {
        world.violated(&format!(
            "invariant 2: {name} is registered and no intent is stored"
        ));
    }
    reply(201, &answer)
}

fn summary(id: i64, runner: &Runner) -> Value {
    let labels: Vec<Value> = runner
        .labels
        .iter()
        .map(|label| json!({ "name": label }))
        .collect();
    json!({
        "id": id,
        "name": runner.name,
        "os": "linux",
        "status": if runner.host.is_some() { "online" } else { "offline" },
        "busy": runner.job.is_some(),
        "labels": labels,
    })
}

fn actions(world: &World, question: &Question, name: &str, rest: &[&str]) -> Response<Vec<u8>> {
    let id = |text: &str| text.parse::<i64>().unwrap_or_default();
    match rest {
        ["runs"] => {
            let state = world.lock();
            let wanted = parameter(question, "status").unwrap_or_default();
            let open = state.github.open.iter().rev();
            let runs: Vec<Value> = open
                .filter(|run| in_repository(&state, **run, name))
                .filter(|run| status_of_run(&state.github, **run) == wanted)
                .map(|run| json!({ "id": run }))
                .collect();
            reply(200, &page(question, "workflow_runs", &runs))
        }
        ["runs", run] => {
            let state = world.lock();
            let Some(known) = state.github.runs.get(&id(run)) else {
                return unknown();
            };
            let body = json!({
                "id": id(run),
                "run_attempt": known.attempt,
                "status": status_of_run(&state.github, id(run)),
                "conclusion": state.github.conclusion(known),
            });
            reply(200, &body)
        }
        ["runs", run, "jobs"] => {
            let state = world.lock();
            let Some(known) = state.github.runs.get(&id(run)) else {
                return unknown();
            };
            let jobs: Vec<Value> = known
                .jobs
                .iter()
                .filter_map(|id| state.github.jobs.get(id))
                .map(|each| job(each, known.repository))
                .collect();
            reply(200, &page(question, "jobs", &jobs))
        }
        ["runs", run, "rerun-failed-jobs"] => again(world, id(run), None),
        ["jobs", job, "rerun"] => {
            let run = world.lock().github.jobs.get(&id(job)).map(|job| job.run);
            again(world, run.unwrap_or_default(), Some(id(job)))
        }
        ["jobs", wanted] => {
            let state = world.lock();
            match state.github.jobs.get(&id(wanted)) {
                Some(found) => reply(200, &job(found, name)),
                None => unknown(),
            }
        }
        _ => unknown(),
    }
}

fn again(world: &World, run: i64, only: Option<i64>) -> Response<Vec<u8>> {
    let attempt = world.lock().github.runs.get(&run).map(|run| run.attempt);
    let intended = attempt.is_some_and(|attempt| {
        let key = format!("rerun/{run}/{attempt}");
        world.lock().disk.wants(&key)
    });
    if !super::run_again(world, run, only) {
        return reply(
            403,
            &json!({ "message": "This workflow is already running" }),
        );
    }
    if !intended {
        world.violated(&format!(
            "invariant 2: run {run} is run again and no intent is stored"
        ));
    }
    reply(201, &json!({}))
}

fn in_repository(state: &State, run: i64, name: &str) -> bool {
    let run = state.github.runs.get(&run);
    run.is_some_and(|run| run.repository == name)
}

/// How a run stands. What GitHub calls one with queued jobs beside others that wait is not known: here each may be
/// called any of it.
fn status_of_run(github: &Github, id: i64) -> &'static str {
    let Some(run) = github.runs.get(&id) else {
        return "completed";
    };
    let is = |status| {
        let mut jobs = run.jobs.iter().filter_map(|id| github.jobs.get(id));
        jobs.any(|job| job.status == status)
    };
    if is(JobStatus::InProgress) {
        "in_progress"
    } else if is(JobStatus::Queued) {
        match id % 4 {
            0 => "pending",
            1 => "waiting",
            _ => "queued",
        }
    } else {
        "completed"
    }
}

/// A job as the API and webhooks tell it. Times are whole seconds.
pub(super) fn job(job: &Job, repository: &str) -> Value {
    let time = |at: Option<jiff::Timestamp>| {
        at.and_then(|at| jiff::Timestamp::from_second(at.as_second()).ok())
            .map(|at| at.to_string())
    };
    json!({
        "id": job.id,
        "run_id": job.run,
        "run_attempt": job.attempt,
        "run_url": format!("https://api.github.com/repos/{OWNER}/{repository}/actions/runs/{}", job.run),
        "workflow_name": "CI",
        "name": job.name,
        "labels": ["self-hosted", job.label],
        "status": match job.status {
            JobStatus::Waiting => "waiting",
            JobStatus::Queued => "queued",
            JobStatus::InProgress => "in_progress",
            JobStatus::Completed => "completed",
        },
        "conclusion": job.conclusion,
        "runner_name": job.runner,
        "created_at": time(Some(job.created)),
        "started_at": time(job.started.or(Some(job.created))),
        "completed_at": time(job.completed),
    })
}

pub(super) fn repository(name: &str) -> Value {
    json!({
        "name": name,
        "private": true,
        "visibility": "private",
        "archived": false,
        "disabled": false,
        "owner": { "login": OWNER },
        "pushed_at": null,
    })
}

fn deliveries(github: &Github, question: &Question) -> Response<Vec<u8>> {
    let cursor = parameter(question, "cursor").and_then(|cursor| cursor.parse().ok());
    let end = cursor.unwrap_or(github.attempts.len());
    let start = end.saturating_sub(PAGE);
    let page: Vec<Value> = github.attempts[start..end.min(github.attempts.len())]
        .iter()
        .rev()
        .map(|attempt| {
            json!({
                "id": attempt.id,
                "guid": attempt.guid,
                "delivered_at": attempt.at.to_string(),
                "event": "workflow_job",
                "status_code": attempt.status,
            })
        })
        .collect();
    let mut response = reply(200, &Value::from(page));
    if start > 0 {
        let link =
            format!("<https://api.github.com/app/hook/deliveries?cursor={start}>; rel=\"next\"");
        response.headers_mut().insert("link", link.parse().unwrap());
    }
    response
}

fn parameter(question: &Question, name: &str) -> Option<String> {
    let mut pairs = question.url.query_pairs();
    let (_, value) = pairs.find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

fn page(question: &Question, field: &str, all: &[Value]) -> Value {
    let page: usize = parameter(question, "page")
        .and_then(|page| page.parse().ok())
        .unwrap_or(1);
    let shown: Vec<&Value> = all.iter().skip((page - 1) * PAGE).take(PAGE).collect();
    json!({ "total_count": all.len(), field: shown })
}
