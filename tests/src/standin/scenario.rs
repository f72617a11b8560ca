//! The scenario file: the only input of the stand-in that the real runner does not have.
//!
//! Named by `FAKE_RUNNER_SCENARIO`, else `scenario.toml` or `scenario.json` in the runner's root,
//! else all defaults. `FAKE_RUNNER_SPEED` overrides `speed`.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::script::JobScript;

/// How this start of the runner goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// How many times faster than real time the runner's own waits are.
    pub speed: f64,
    /// The version that it says it has.
    pub version: String,
    /// From the start to "Connected to GitHub".
    pub connect_ms: u64,
    /// From there to "Listening for Jobs".
    pub session_ms: u64,
    /// SIGINT is swallowed for so long after the start.
    pub deaf_ms: u64,
    /// How the session comes about.
    pub start: Start,
    /// What happens while it listens; `server` polls the address in the JIT configuration, if any.
    pub idle: Idle,
    /// How an assigned job is acquired.
    pub assign: Assign,
    /// From the assignment to "Running job".
    pub acquire_ms: u64,
    /// The job, where no server gives one.
    pub job: ScriptedJob,
    /// Without a server: someone cancels so long after the worker has started.
    pub cancel_after_ms: Option<u64>,
    /// How long a cancelled job may take.
    pub cancel_timeout_ms: u64,
    /// How often the cancellation is delivered again.
    pub cancel_storm: u32,
    /// Counters of a renewal in trouble, written once the worker has started.
    pub renewal: Vec<String>,
    /// What befalls the listener while the worker runs.
    pub in_job: Option<InJob>,
    /// The listener is killed so long after the worker has started; the worker goes on.
    pub die_after_ms: Option<u64>,
    /// From the result line to the exit.
    pub finish_ms: u64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            speed: 1.0,
            version: "2.336.0".to_owned(),
            connect_ms: 1_000,
            session_ms: 300,
            deaf_ms: 0,
            start: Start::Normal,
            idle: Idle::Server,
            assign: Assign::Normal,
            acquire_ms: 500,
            job: ScriptedJob::default(),
            cancel_after_ms: None,
            cancel_timeout_ms: 300_000,
            cancel_storm: 0,
            renewal: Vec::new(),
            in_job: None,
            die_after_ms: None,
            finish_ms: 0,
        }
    }
}

/// How the session comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// At the first try, or as the server says.
    Normal,
    /// The first so many tries meet another session; eight end it.
    Conflict(u32),
    /// 403: version too old or not allowed.
    Forbidden,
    /// The registration is gone.
    RegistrationDeleted,
    /// The clocks differ by more than thirty minutes.
    ClockSkew,
    /// The first so many tries find no server.
    Unreachable(u32),
}

/// What happens while it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Idle {
    /// What the server says; without one, nothing ever.
    Server,
    /// The scripted job comes after so many milliseconds.
    Assign(u64),
    /// The registration is deleted after so many milliseconds.
    Deleted(u64),
    /// The version is refused after so many milliseconds.
    Deprecated(u64),
    /// The OAuth token is revoked after so many milliseconds.
    Revoked(u64),
    /// A poll is refused for good after so many milliseconds.
    PollRefused(u64),
    /// So many rounds of polling fail; ten end it.
    PollErrors(u32),
    /// An update is staged after so many milliseconds.
    Update(u64),
}

/// How an assigned job is acquired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Assign {
    /// It is.
    Normal,
    /// The acknowledgement says that the job is gone (actions/runner#4540).
    AckGone,
    /// `acquirejob` never returns (actions/runner#4668).
    AcquireHang,
    /// 404, 409 or 422: listens for ever, deregistered (actions/runner#4617).
    AcquireLost,
    /// The first renewal fails for good: the job is abandoned without a worker.
    RenewFail,
    /// No worker is made, and nothing says so.
    NoWorker,
    /// The worker never reads the job (actions/runner#4598).
    IpcTimeout,
    /// The same, and the listener waits for ever.
    IpcHang,
}

/// What befalls the listener so many milliseconds after the worker has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InJob {
    /// The version is refused, and the job with it (actions/runner#3366).
    Deprecated(u64),
    /// The tenth failed round of polling ends it, and the job with it.
    PollErrors(u64),
    /// The registration is deleted, and the job with it.
    Deleted(u64),
    /// An exception: exit code 100 and no result (`JobDispatcher.cs:343-355`).
    Throw(u64),
    /// The renewal fails for good: the job is given up (actions/runner#4635).
    Abandon(u64),
}

impl InJob {
    /// When.
    pub fn after_ms(self) -> u64 {
        match self {
            Self::Deprecated(after)
            | Self::PollErrors(after)
            | Self::Deleted(after)
            | Self::Throw(after)
            | Self::Abandon(after) => after,
        }
    }
}

/// A job that no server gives.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScriptedJob {
    /// As printed by "Running job:".
    pub name: String,
    /// `owner/name`.
    pub repository: String,
    /// What it does.
    pub script: JobScript,
}

impl Default for ScriptedJob {
    fn default() -> Self {
        Self {
            name: "build".to_owned(),
            repository: "acme/app".to_owned(),
            script: JobScript::default(),
        }
    }
}

/// Why a scenario can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Named but not readable.
    #[error("read the scenario {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Neither the TOML nor the JSON of a scenario.
    #[error("parse the scenario {path}: {problem}")]
    Parse {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// `FAKE_RUNNER_SPEED` is not a positive number.
    #[error("FAKE_RUNNER_SPEED must be a positive number, not {0:?}")]
    Speed(String),
}

impl Scenario {
    /// The scenario of a runner in `root` with the environment `env`.
    ///
    /// # Errors
    ///
    /// If a file is there but is no scenario.
    pub fn load(root: &Path, env: &HashMap<String, String>) -> Result<Self, ScenarioError> {
        let named = env.get("FAKE_RUNNER_SCENARIO").map(Into::into);
        let beside = ["scenario.toml", "scenario.json"].map(|name| root.join(name));
        let file = named.or_else(|| beside.into_iter().find(|file| file.exists()));
        let mut scenario = match file {
            Some(file) => Self::read(&file)?,
            None => Self::default(),
        };
        if let Some(text) = env.get("FAKE_RUNNER_SPEED") {
            scenario.speed = text
                .parse()
                .ok()
                .filter(|speed| *speed > 0.0)
                .ok_or_else(|| ScenarioError::Speed(text.clone()))?;
        }
        Ok(scenario)
    }

    fn read(file: &Path) -> Result<Self, ScenarioError> {
        let path = file.display().to_string();
        let text = std::fs::read_to_string(file).map_err(|source| ScenarioError::Read {
            path: path.clone(),
            source,
        })?;
        let parsed = if text.trim_start().starts_with('{') {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        parsed.map_err(|problem| ScenarioError::Parse { path, problem })
    }

    /// So much of the runner's own time, as it passes here.
    pub fn wait(&self, millis: u64) -> Duration {
        scaled(millis, self.speed)
    }
}

/// `millis` at `speed` times real time.
pub(super) fn scaled(millis: u64, speed: f64) -> Duration {
    Duration::try_from_secs_f64(Duration::from_millis(millis).as_secs_f64() / speed)
        .unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_reads_the_same_from_toml_and_json() {
        let from_toml: Scenario = toml::from_str(
            "speed = 50.0\nidle = { assign = 20 }\nassign = 'acquire_hang'\n\
             [job.script]\nsteps = ['true', { run = 'false', condition = 'always' }]\n",
        )
        .unwrap();
        let from_json: Scenario = serde_json::from_str(
            r#"{"speed": 50, "idle": {"assign": 20}, "assign": "acquire_hang",
                "job": {"script": {"steps": ["true", {"run": "false", "condition": "always"}]}}}"#,
        )
        .unwrap();
        assert_eq!(from_toml.idle, Idle::Assign(20));
        assert_eq!(from_toml.job.script.steps.len(), 2);
        assert_eq!(format!("{from_toml:?}"), format!("{from_json:?}"));
    }
}
