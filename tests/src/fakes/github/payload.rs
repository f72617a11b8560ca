//! GitHub's JSON for runs, jobs, repositories and webhooks: real payloads with our values put in.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::deliveries::Outgoing;
use super::jit::guid;
use super::openapi::Description;
use super::spec::{JobId, Status};
use super::state::{Account, Job, Repository, Run, State};

const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

/// What real payloads and the description's examples give to start from.
pub(super) struct Templates {
    /// The fake's own address, in place of `https://api.github.com`.
    pub(super) url: String,
    answers: HashMap<String, Value>,
    repository: Value,
    organization: Value,
    sender: Value,
}

impl Templates {
    pub(super) fn new(description: &Description, url: &str) -> Arc<Self> {
        let real = description
            .examples
            .get("workflow_job")
            .and_then(|all| all.iter().find(|it| it.get("organization").is_some()))
            .cloned()
            .unwrap_or(Value::Null);
        Arc::new(Self {
            url: url.to_owned(),
            answers: description.answers.clone(),
            repository: real["repository"].clone(),
            organization: real["organization"].clone(),
            sender: real["sender"].clone(),
        })
    }

    /// The description's own example of an answer.
    pub(super) fn answer(&self, call: &str) -> Value {
        self.answers.get(call).cloned().unwrap_or(Value::Null)
    }
}

/// A repository, in the long form that payloads have.
pub(super) fn repository(templates: &Templates, repository: &Repository) -> Value {
    let base = &templates.repository;
    let old = base["full_name"].as_str().unwrap_or_default();
    let old_owner = base["owner"]["login"].as_str().unwrap_or_default();
    let owner = repository.owner();
    let text = base
        .to_string()
        .replace(old, &repository.full_name)
        .replace(&format!("/{old_owner}"), &format!("/{owner}"))
        .replace("https://api.github.com", &templates.url);
    let mut value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    value["id"] = json!(repository.id);
    value["name"] = json!(repository.full_name.split('/').next_back());
    value["owner"]["login"] = json!(owner);
    value["pushed_at"] = json!(seconds(repository.pushed_at));
    value["private"] = json!(!repository.public);
    value["visibility"] = json!(if repository.public {
        "public"
    } else {
        "private"
    });
    value
}

/// An enterprise as an installation's account.
pub(super) fn enterprise(account: &Account) -> Value {
    json!({
        "id": account.id,
        "slug": account.login,
        "name": account.login,
        "node_id": "E_fake",
        "html_url": format!("https://github.com/enterprises/{}", account.login),
        "avatar_url": "https://avatars.githubusercontent.com/b/1?v=4",
        "created_at": "2024-01-01T00:00:00Z",
        "updated_at": "2024-01-01T00:00:00Z",
    })
}

/// A job as the API and `workflow_job` show it.
pub(super) fn job(templates: &Templates, job: &Job) -> Value {
    let repo = format!("{}/repos/{}", templates.url, job.spec.repository);
    let host = job.runner.as_ref();
    json!({
        "id": job.id,
        "run_id": job.run_id,
        "run_attempt": job.run_attempt,
        "workflow_name": job.spec.workflow,
        "head_branch": "main",
        "run_url": format!("{repo}/actions/runs/{}", job.run_id),
        "node_id": format!("CR_fake{}", job.id),
        "head_sha": SHA,
        "url": format!("{repo}/actions/jobs/{}", job.id),
        "html_url": format!(
            "https://github.com/{}/actions/runs/{}/job/{}", job.spec.repository, job.run_id, job.id
        ),
        "status": job.status.as_str(),
        "conclusion": job.conclusion.map(super::spec::Conclusion::as_str),
        "created_at": seconds(job.created_at),
        // GitHub gives the time of creation until a runner has started it.
        "started_at": seconds(job.started_at.unwrap_or(job.created_at)),
        "completed_at": job.completed_at.map(seconds),
        "name": job.spec.name,
        "steps": [],
        "check_run_url": format!("{repo}/check-runs/{}", job.id),
        "labels": job.spec.labels,
        "runner_id": host.map(|host| host.id),
        "runner_name": host.map(|host| &host.name),
        "runner_group_id": host.map(|host| host.group_id),
        "runner_group_name": host.map(|host| &host.group_name),
    })
}

/// A workflow run.
pub(super) fn run(templates: &Templates, state: &State, run: &Run) -> Value {
    let jobs = state.jobs_of_run(run.id, None);
    let mut value = templates.answer("GET /repos/{owner}/{repo}/actions/runs/{run_id}");
    let repo = format!("{}/repos/{}", templates.url, run.repository);
    value["id"] = json!(run.id);
    value["name"] = json!(run.workflow);
    value["run_number"] = json!(run.number);
    value["run_attempt"] = json!(run.attempt);
    value["status"] = json!(run.status(&jobs).as_str());
    value["conclusion"] = json!(run.conclusion(&jobs).map(super::spec::Conclusion::as_str));
    value["created_at"] = json!(seconds(run.created_at));
    value["updated_at"] = json!(seconds(run.created_at));
    value["run_started_at"] = json!(seconds(run.created_at));
    value["head_branch"] = json!("main");
    value["head_sha"] = json!(SHA);
    value["path"] = json!(format!(".github/workflows/{}.yml", run.workflow));
    value["url"] = json!(format!("{repo}/actions/runs/{}", run.id));
    value["jobs_url"] = json!(format!("{repo}/actions/runs/{}/jobs", run.id));
    if let Some(known) = state.repository(&run.repository) {
        let described = repository(templates, known);
        value["head_repository"] = described.clone();
        value["repository"] = described;
    }
    value
}

impl State {
    /// Puts a `workflow_job` webhook for the job's present state into the outbox.
    pub(super) fn announce(&mut self, id: JobId) {
        let Some(subject) = self.jobs.get(&id) else {
            return;
        };
        let Some(home) = self.repository(&subject.spec.repository) else {
            return;
        };
        let Some(owner) = self.account(home.owner()) else {
            return;
        };
        let templates = &self.templates;
        let action = match subject.status {
            Status::Waiting => "waiting",
            Status::Queued => "queued",
            Status::InProgress => "in_progress",
            Status::Completed => "completed",
        };
        let mut organization = templates.organization.clone();
        organization["login"] = json!(owner.login);
        organization["id"] = json!(owner.id);
        let body = json!({
            "action": action,
            "workflow_job": job(templates, subject),
            "repository": repository(templates, home),
            "organization": organization,
            "sender": templates.sender,
            "installation": { "id": owner.installation, "node_id": "MDIzOkludGVncmF0aW9uSW5zdGFsbGF0aW9u" },
        });
        let outgoing = Outgoing {
            guid: guid(),
            event: "workflow_job".to_owned(),
            action: Some(action.to_owned()),
            body: body.to_string(),
            redelivery: false,
            wrong_signature: false,
            installation_id: owner.installation,
            repository_id: home.id,
        };
        self.outbox.push_back(outgoing);
    }
}

/// GitHub's times have whole seconds.
fn seconds(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
