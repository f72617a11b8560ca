//! What passes between the fake GitHub, the listener and the worker.

use serde::{Deserialize, Serialize};

use super::script::JobScript;

/// What a poll brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// A job was assigned; it must be acquired.
    Job {
        /// The job.
        request_id: u64,
    },
    /// Someone cancelled the job.
    Cancel {
        /// The job.
        request_id: u64,
        /// How long the runner may take, in milliseconds.
        timeout_ms: u64,
    },
}

/// A job as the runner gets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobMessage {
    /// The job's id at the server.
    pub request_id: u64,
    /// The job's GUID.
    pub job_guid: String,
    /// As printed by "Running job:".
    pub display_name: String,
    /// `owner/name`.
    pub repository: String,
    /// The repository's id.
    pub repository_id: u64,
    /// The run.
    pub run_id: u64,
    /// The run's number within its workflow.
    pub run_number: u64,
    /// Counts from 1.
    pub run_attempt: u64,
    /// The workflow's name.
    pub workflow: String,
    /// The runner's name.
    pub runner_name: String,
    /// Where the result is told; `None` without a server.
    pub server_url: Option<String>,
    /// What to do.
    pub script: JobScript,
}

/// What the listener sends to the worker, one JSON object a line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Run this job.
    Job {
        /// The job.
        job: Box<JobMessage>,
        /// What the worker shows to the server.
        credential: String,
        /// How many times faster than real time the runner's own waits are.
        speed: f64,
    },
    /// The job was cancelled.
    Cancel,
    /// The runner shuts down.
    Shutdown,
}

/// How a job ended (actions/runner `src/Sdk/DTWebApi/WebApi/TaskResult.cs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskResult {
    /// All went well.
    Succeeded,
    /// Went well, with warnings.
    SucceededWithIssues,
    /// A step failed.
    Failed,
    /// Someone cancelled it, or the runner shut down.
    Canceled,
    /// Not run.
    Skipped,
    /// Given up by the runner.
    Abandoned,
}

const ALL: [TaskResult; 6] = [
    TaskResult::Succeeded,
    TaskResult::SucceededWithIssues,
    TaskResult::Failed,
    TaskResult::Canceled,
    TaskResult::Skipped,
    TaskResult::Abandoned,
];

impl TaskResult {
    /// The exit code that stands for it: 100 and up
    /// (actions/runner `src/Runner.Common/Util/TaskResultUtil.cs:8-19`).
    pub fn exit_code(self) -> u8 {
        100 + self as u8
    }

    /// The result that a worker's exit code stands for.
    pub fn of_exit_code(code: i32) -> Option<Self> {
        ALL.into_iter()
            .find(|result| i32::from(result.exit_code()) == code)
    }
}

/// A random GUID (version 4), as .NET and GitHub make them.
pub fn guid() -> String {
    let mut n: u128 = rand::random();
    n = n & !(0xf << 76) | (4 << 76);
    n = n & !(0b11 << 62) | (0b10 << 62);
    let hex = format!("{n:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
