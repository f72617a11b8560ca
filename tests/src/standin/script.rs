//! What a job does on the stand-in.

use serde::{Deserialize, Serialize};

use super::protocol::TaskResult;

/// A job's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobScript {
    /// Run one after the other, each `bash -e` in the workspace.
    pub steps: Vec<Step>,
    /// How long "Set up job" takes, in milliseconds of the runner's time.
    pub setup_ms: u64,
    /// "Set up job" fails: neither hooks nor steps run.
    pub setup_fails: bool,
    /// The job's result, whatever its steps come to.
    pub result: Option<TaskResult>,
    /// How the worker misbehaves.
    pub worker: WorkerFault,
}

impl Default for JobScript {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            setup_ms: 2_000,
            setup_fails: false,
            result: None,
            worker: WorkerFault::None,
        }
    }
}

/// One `run:` step; in a scenario file a plain text is a step too.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "StepForm")]
pub struct Step {
    /// Shell commands.
    pub run: String,
    /// The step's `if:`.
    pub condition: Condition,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StepForm {
    Text(String),
    Full {
        run: String,
        #[serde(default)]
        condition: Condition,
    },
}

impl From<StepForm> for Step {
    fn from(form: StepForm) -> Self {
        match form {
            StepForm::Text(run) => Self {
                run,
                condition: Condition::Success,
            },
            StepForm::Full { run, condition } => Self { run, condition },
        }
    }
}

impl From<&str> for Step {
    fn from(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            condition: Condition::Success,
        }
    }
}

/// When a step runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Nothing has failed and nobody cancelled.
    #[default]
    Success,
    /// Whatever happened, except a shutdown of the runner.
    Always,
    /// A step has failed.
    Failure,
    /// Someone cancelled.
    Cancelled,
}

/// How a worker misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerFault {
    /// Not at all.
    #[default]
    None,
    /// Unhandled exception after set-up: a stack on stdout, exit 1.
    Crash,
    /// Killed after set-up, as by the OOM killer.
    Killed,
    /// Hangs after set-up, and is deaf to cancellation, SIGINT and SIGTERM.
    Hang,
    /// Completes the job, then never exits (actions/runner#4418).
    Wedge,
    /// No space left for its log: dies with the text of the real one.
    DiskFull,
}
