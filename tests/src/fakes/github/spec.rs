//! What tests say to the fake and what they see of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::standin::script::JobScript;

/// A workflow job's id, as in `workflow_job.id`.
pub type JobId = u64;

/// A job to be queued.
#[derive(Clone, Debug)]
pub struct JobSpec {
    /// `owner/name`; owner and repository come into being when first named.
    pub repository: String,
    /// The workflow's name.
    pub workflow: String,
    /// The job's display name, unique within its run.
    pub name: String,
    /// `runs-on`.
    pub labels: Vec<String>,
    /// Whether the repository is public; runner groups may refuse those.
    pub public: bool,
    /// Names of jobs of the same run that must have succeeded before.
    pub needs: Vec<String>,
    /// Whether the job waits for an approval (`waiting`) before it is queued.
    pub needs_approval: bool,
    /// What the stand-in runner does when it gets the job.
    pub script: JobScript,
}

impl JobSpec {
    /// A job of workflow `ci` in a private repository, with no steps yet.
    pub fn new(repository: &str, name: &str, labels: &[&str]) -> Self {
        Self {
            repository: repository.to_owned(),
            workflow: "ci".to_owned(),
            name: name.to_owned(),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            public: false,
            needs: Vec::new(),
            needs_approval: false,
            script: JobScript::default(),
        }
    }

    /// Adds a step that runs `command` in a shell.
    #[must_use]
    pub fn step(mut self, command: &str) -> Self {
        self.script.steps.push(command.into());
        self
    }

    /// Makes the job wait for another of its run.
    #[must_use]
    pub fn needs(mut self, name: &str) -> Self {
        self.needs.push(name.to_owned());
        self
    }
}

/// `workflow_job.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Waits for an approval.
    Waiting,
    /// Waits for a runner.
    Queued,
    /// A runner has it.
    InProgress,
    /// Ended; the conclusion says how.
    Completed,
}

impl Status {
    /// GitHub's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

/// `workflow_job.conclusion`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    /// All steps succeeded.
    Success,
    /// A step failed, or the runner was lost.
    Failure,
    /// Someone cancelled it.
    Cancelled,
    /// A job that it needs did not succeed.
    Skipped,
}

impl Conclusion {
    /// GitHub's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
        }
    }
}

/// What can be known of a job.
#[derive(Clone, Debug)]
pub struct JobView {
    /// The job.
    pub id: JobId,
    /// Its run.
    pub run_id: u64,
    /// Counts from 1.
    pub run_attempt: u64,
    /// The display name.
    pub name: String,
    /// `owner/name`.
    pub repository: String,
    /// Where it stands.
    pub status: Status,
    /// How it ended; `None` until completed.
    pub conclusion: Option<Conclusion>,
    /// The runner that has or had it.
    pub runner_name: Option<String>,
    /// Why it ended when no runner said so, such as "lost communication".
    pub annotation: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a runner acquired it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
}

/// What can be known of a runner registration.
#[derive(Clone, Debug)]
pub struct RunnerView {
    /// The registration's id.
    pub id: u64,
    /// Its unique name.
    pub name: String,
    /// Stored lower-case, none added.
    pub labels: Vec<String>,
    /// The runner group.
    pub group_id: u64,
    /// Whether a listener polls.
    pub online: bool,
    /// Whether it has a job.
    pub busy: bool,
}

/// What a secret that GitHub gave out is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// An installation's access token, `ghs_…`.
    InstallationToken,
    /// `encoded_jit_config`, whole.
    JitConfig,
    /// What the runner of a JIT configuration shows to GitHub.
    RunnerCredential,
}

/// What a fault does to a request that it matches.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answers with this status, these headers and GitHub's error shape; nothing happens.
    Answer {
        /// HTTP status.
        status: u16,
        /// Extra headers, such as `retry-after`.
        headers: Vec<(String, String)>,
    },
    /// Closes the connection before anything happens.
    DropConnection,
    /// Does what was asked, then closes the connection instead of answering.
    LoseAnswer,
    /// Waits first, then goes on as usual.
    Delay(Duration),
}

/// A programmed failure of the REST API.
#[derive(Clone, Debug)]
pub struct Fault {
    /// `GET`, `POST`, …; `None` for any.
    pub method: Option<String>,
    /// A part of the request's path, such as `generate-jitconfig`; empty for any.
    pub path: String,
    /// How many requests it hits before it is used up.
    pub times: u32,
    /// What it does.
    pub effect: Effect,
}

impl Fault {
    /// Answers the next `times` requests whose path contains `path` with `status`.
    pub fn status(path: &str, times: u32, status: u16) -> Self {
        Self::new(
            path,
            times,
            Effect::Answer {
                status,
                headers: Vec::new(),
            },
        )
    }

    /// Hits the next `times` requests whose path contains `path`.
    pub fn new(path: &str, times: u32, effect: Effect) -> Self {
        Self {
            method: None,
            path: path.to_owned(),
            times,
            effect,
        }
    }

    /// Limits the fault to one method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Adds a header to the answer, if the fault answers.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Effect::Answer { headers, .. } = &mut self.effect {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }
}

/// What happens to a webhook on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Never sent and never recorded, as in an outage.
    Drop,
    /// Recorded as failed without being sent; can be redelivered.
    Fail,
    /// Sent twice with the same delivery id.
    Duplicate,
    /// Held back until the next one has been sent.
    Overtake,
    /// Sent with a signature made with another secret.
    WrongSignature,
}

/// A programmed disturbance of webhooks.
#[derive(Clone, Debug)]
pub struct WebhookFault {
    /// Only this action (`queued`, `in_progress`, `completed`); `None` for all.
    pub action: Option<String>,
    /// How many it hits.
    pub times: u32,
    /// What it does.
    pub mischief: Mischief,
}

/// One attempt to deliver a webhook.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// This attempt's id.
    pub id: u64,
    /// `X-GitHub-Delivery`: the same for each attempt.
    pub guid: String,
    /// `workflow_job`, …
    pub event: String,
    /// `queued`, …
    pub action: Option<String>,
    /// When it was sent.
    pub delivered_at: Timestamp,
    /// Whether someone asked for it again.
    pub redelivery: bool,
    /// What the receiver answered; 0 if it did not within 10 s, or could not be reached.
    pub status_code: u16,
    /// How long that took.
    pub duration: Duration,
    /// The body, exactly as sent.
    pub body: String,
    pub(super) installation_id: u64,
    pub(super) repository_id: u64,
}

/// A release of the official runner.
#[derive(Clone, Debug)]
pub struct RunnerRelease {
    /// Such as `v2.336.0`.
    pub tag: String,
    /// When it was published.
    pub published_at: jiff::Timestamp,
    /// Whether it is tried out first.
    pub prerelease: bool,
}
