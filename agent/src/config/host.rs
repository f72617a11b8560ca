//! What the agent needs to have a runner on this host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::User;
use serde_json::Value;

use super::fields::{Fields, kind};
use crate::supervise::watchdog::Limits;

/// How long an agent without a job waits for its coordinator, unless the configuration says otherwise.
const COORDINATOR_LOST_DEFAULT: Duration = Duration::from_secs(600);
/// The supervisor's directory, unless the configuration says otherwise. In memory, gone with the boot.
const WORK_DIR_DEFAULT: &str = "/run/muster";
/// The unit that runs the runner, unless the configuration says otherwise.
const UNIT_DEFAULT: &str = "muster-runner.service";
/// Names that `runner_environment` may not set, because the agent does.
pub(crate) const RESERVED_ENVIRONMENT: [&str; 7] = [
    "ACTIONS_RUNNER_INPUT_JITCONFIG",
    "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED",
    "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE",
    "RUNNER_PERFLOG",
    "MUSTER_INSTANCE_ID",
    "MUSTER_INTERRUPTION_FILE",
    "MUSTER_INTERRUPTION_HOOK",
];

/// The host's part of the configuration, checked.
#[derive(Clone, Debug)]
pub(crate) struct HostConfig {
    /// The unpacked official runner, this instance's own copy.
    pub(crate) runner_dir: PathBuf,
    /// The agent's own directory.
    pub(crate) work_dir: PathBuf,
    /// How long the agent may live.
    pub(crate) max_lifetime: Duration,
    /// How long the agent goes on without its coordinator when no job runs.
    pub(crate) coordinator_lost: Duration,
    /// Environment of the runner, on top of what the agent gives it.
    pub(crate) runner_environment: BTreeMap<String, String>,
    /// How long each step of the runner may take: an object of seconds, see [`Limits`]. For tests, and
    /// for hosts that are slower than most.
    pub(crate) runner_limits: Limits,
    /// How the runner's process comes about.
    pub(crate) mode: Mode,
}

/// How the runner's process comes about.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// As a child of this process, as its user. `mark` tells its processes from others.
    Child {
        /// Unique to the instance, if the configuration knows it; else the coordinator's name for it.
        mark: Option<String>,
    },
    /// In a unit of systemd, as a user of its own.
    Unit(UnitSettings),
}

/// The unit of the runner.
#[derive(Clone, Debug)]
pub(crate) struct UnitSettings {
    /// Its name, such as `muster-runner.service`.
    pub(crate) name: String,
    /// The user that it runs as.
    pub(crate) user: User,
}

impl HostConfig {
    /// Takes these fields for a process that is the network's part as well.
    pub(super) fn read_alone(fields: &mut Fields, mark: Option<String>) -> Option<Self> {
        let work_dir = fields.directory("work_dir");
        Self::read(fields, work_dir, Some(Mode::Child { mark }))
    }

    /// Takes these fields for the supervisor.
    pub(super) fn read_supervised(fields: &mut Fields) -> Option<Self> {
        let work_dir = fields.directory_or("work_dir", WORK_DIR_DEFAULT);
        let user = fields.user("runner_user", "runner");
        let name = fields
            .optional_string("runner_unit")
            .unwrap_or_else(|| UNIT_DEFAULT.into());
        let mode = match name.as_str() {
            "none" => Some(Mode::Child {
                mark: fields.optional_string("instance_id"),
            }),
            name if name.ends_with(".service") => user.map(|user| {
                Mode::Unit(UnitSettings {
                    name: name.to_owned(),
                    user,
                })
            }),
            name => {
                let shown = format!("{name:?}");
                fields.problem(
                    "runner_unit",
                    &shown,
                    "a name that ends with .service, or none",
                );
                None
            }
        };
        Self::read(fields, work_dir, mode)
    }

    fn read(fields: &mut Fields, work_dir: Option<PathBuf>, mode: Option<Mode>) -> Option<Self> {
        let runner_dir = fields.directory("runner_dir");
        let max_lifetime = fields.optional_seconds("max_lifetime_seconds");
        if max_lifetime.is_none() {
            fields.missing("max_lifetime_seconds", "a number of seconds");
        }
        let coordinator_lost = fields
            .optional_seconds("coordinator_lost_seconds")
            .unwrap_or(COORDINATOR_LOST_DEFAULT);
        let runner_environment = environment(fields);
        let runner_limits = Limits::parse(fields.take("runner_limits"), fields.problems());
        Some(Self {
            runner_dir: runner_dir?,
            work_dir: work_dir?,
            max_lifetime: max_lifetime?,
            coordinator_lost,
            runner_environment,
            runner_limits,
            mode: mode?,
        })
    }
}

fn environment(fields: &mut Fields) -> BTreeMap<String, String> {
    const NAME: &str = "runner_environment";
    let mut environment = BTreeMap::new();
    match fields.take(NAME) {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => {
            for (key, value) in map {
                let named = format!("{NAME}.{key}");
                let reserved = RESERVED_ENVIRONMENT
                    .iter()
                    .any(|r| r.eq_ignore_ascii_case(&key));
                match value {
                    _ if reserved => {
                        fields.problem(&named, "set by the agent", "another name");
                    }
                    _ if key.is_empty() || key.contains(['=', '\0']) => {
                        fields.problem(&named, "not a name", "a name without '=' and NUL");
                    }
                    Value::String(text) if !text.contains('\0') => {
                        environment.insert(key, text);
                    }
                    other => fields.problem(&named, kind(&other), "a string without NUL"),
                }
            }
        }
        Some(other) => fields.problem(NAME, kind(&other), "an object of strings"),
    }
    environment
}
