//! What GitHub says of a job.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::JobId;

/// What GitHub says of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// GitHub's id.
    pub id: JobId,
    /// Id of the workflow run.
    pub run_id: i64,
    /// Attempt of the run, from 1; old payloads lack it.
    pub run_attempt: Option<u32>,
    /// The repository.
    pub repository: Repository,
    /// Name of the workflow.
    pub workflow: Option<String>,
    /// Name of the job.
    pub name: String,
    /// Labels that it asks for, as written.
    pub labels: Vec<String>,
    /// Its status.
    pub status: JobStatus,
    /// How it ended, in GitHub's word.
    pub conclusion: Option<String>,
    /// The runner that took it.
    pub runner_name: Option<String>,
    /// When GitHub made it.
    pub created_at: Option<Timestamp>,
    /// When a runner started it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub completed_at: Option<Timestamp>,
    /// The app installation that told of it.
    pub installation: Option<i64>,
}

/// The repository of a job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Repository {
    /// Login of the owner.
    pub owner: String,
    /// Name without the owner.
    pub name: String,
    /// Whether anybody can read it, and so, on GitHub, propose code that runs in its jobs.
    pub public: bool,
    /// Slug of the enterprise, if the payload names one.
    pub enterprise: Option<String>,
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Status of a job. The order is the order of its life; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// GitHub waits for something, such as an approval.
    Waiting,
    /// It waits for a runner.
    Queued,
    /// It runs.
    InProgress,
    /// It has ended.
    Completed,
}
