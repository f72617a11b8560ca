//! `Runner.Listener`: takes a JIT configuration, connects, waits for one job, has a worker run it.

mod idle;
mod in_job;
mod job;
mod session;
mod signals;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::diag::{Diag, Perf, complain, say};
use super::files::{self, Settings};
use super::http::Server;
use super::protocol::TaskResult;
use super::scenario::Scenario;

/// `Constants.Runner.ReturnCode` (actions/runner `src/Runner.Common/Constants.cs:150-163`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// 0: more than one thing, and not always a success.
    Success,
    Terminated,
    Retryable,
    RunOnceUpdating,
    SessionConflict,
    VersionDeprecated,
    /// 100 and up, where `ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED` is set.
    Job(TaskResult),
}

impl Ending {
    fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Terminated => 1,
            Self::Retryable => 2,
            Self::RunOnceUpdating => 4,
            Self::SessionConflict => 5,
            Self::VersionDeprecated => 7,
            Self::Job(result) => result.exit_code(),
        }
    }
}

/// One start of the listener.
struct Listener {
    root: PathBuf,
    /// The process's environment with `.env` over it.
    env: HashMap<String, String>,
    scenario: Scenario,
    settings: Settings,
    server: Option<Server>,
    perf: Perf,
    diag: Diag,
    shutdown: CancellationToken,
}

/// The whole program. Answers its exit code.
pub async fn run() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(root) = root() else {
        return ExitCode::FAILURE;
    };
    let mut env: HashMap<String, String> = std::env::vars().collect();
    apply_env_file(&root, &mut env);
    let scenario = match Scenario::load(&root, &env) {
        Ok(scenario) => scenario,
        Err(error) => {
            complain(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    match args.first().map(String::as_str) {
        Some("--version") => {
            say(&scenario.version);
            return ExitCode::SUCCESS;
        }
        Some("warmup") => {
            tokio::time::sleep(scenario.wait(1_000)).await;
            return ExitCode::SUCCESS;
        }
        Some("configure" | "remove") => return ExitCode::FAILURE,
        _ => {}
    }
    let perf = Perf::new(env.get("RUNNER_PERFLOG"), "Runner");
    perf.count("RunnerProcessStarted");
    let shutdown = CancellationToken::new();
    if let Err(error) = signals::listen(
        &shutdown,
        scenario.wait(30_000),
        scenario.wait(scenario.deaf_ms),
    ) {
        complain(&format!("An error occurred: {error}"));
        return ExitCode::from(Ending::Retryable.code());
    }
    let diag = Diag::open(&root, "Runner");
    let listener = Listener {
        server: None,
        settings: Settings::default(),
        root,
        env,
        scenario,
        perf,
        diag,
        shutdown,
    };
    ExitCode::from(listener.configure_and_run(&args).await.code())
}

/// The folder above `bin`.
fn root() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.parent()?.parent().map(Path::to_owned)
}

/// `.env` in the root: a variable a line, over the process's own (`Program.cs:172-199`).
fn apply_env_file(root: &Path, env: &mut HashMap<String, String>) {
    let text = std::fs::read_to_string(root.join(".env")).unwrap_or_default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        env.insert(name.to_owned(), value.to_owned());
    }
}

impl Listener {
    async fn configure_and_run(mut self, args: &[String]) -> Ending {
        self.diag.info(
            "Listener",
            &format!(
                "Runner is built for Linux (X64), version {}",
                self.scenario.version
            ),
        );
        if let Err(error) = std::fs::read_dir(&self.root) {
            complain(&format!("An error occurred: {error}"));
            return Ending::Terminated;
        }
        let blob = self.take_input("jitconfig", args);
        if let Some(Err(error)) = blob.map(|blob| files::unpack(&blob, &self.root)) {
            complain(&error.to_string());
            return Ending::Terminated;
        }
        let Some(settings) = files::settings(&self.root) else {
            complain(
                "An error occurred: Not configured. Run config.(sh/cmd) to configure the runner.",
            );
            return Ending::Terminated;
        };
        self.server = settings
            .server_url
            .as_deref()
            .map(|url| Server::new(url, &settings.credential));
        self.settings = settings;
        let work = self.root.join(&self.settings.work_folder);
        if std::fs::create_dir_all(&work).is_err() {
            complain(&format!(
                "Fail to create and validate runner's work directory '{}'.",
                work.display()
            ));
            return Ending::Terminated;
        }
        let session = match self.open_session().await {
            Ok(session) => session,
            Err(ending) => return ending,
        };
        self.perf.count("SessionCreated");
        say(&format!(
            "Current runner version: '{}'",
            self.scenario.version
        ));
        self.say_now("Listening for Jobs");
        let ending = self.listen(&session).await;
        self.close_session().await;
        ending
    }

    /// A command-line input: from argv, else from the environment, where it is taken away so that
    /// no child inherits it (`CommandSettings.cs:64-70,110-140`).
    fn take_input(&mut self, name: &str, args: &[String]) -> Option<String> {
        let flag = format!("--{name}");
        let given = args
            .iter()
            .position(|arg| *arg == flag)
            .and_then(|at| args.get(at + 1))
            .cloned();
        let variable = format!("ACTIONS_RUNNER_INPUT_{name}");
        let from_env = self
            .env
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(&variable))
            .map(|(_, value)| value.clone());
        self.env.retain(|key, _| {
            !key.to_ascii_uppercase()
                .starts_with("ACTIONS_RUNNER_INPUT_")
        });
        given.or(from_env).filter(|value| !value.trim().is_empty())
    }

    /// Waits so many milliseconds of the runner's time. `false`: a shutdown came first.
    async fn wait(&self, millis: u64) -> bool {
        self.wait_for(self.scenario.wait(millis)).await
    }

    async fn wait_for(&self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.shutdown.cancelled() => false,
        }
    }

    fn say_now(&self, text: &str) {
        say(&format!("{}: {text}", super::diag::stamp()));
    }

    fn complain_now(&self, text: &str) {
        complain(&format!("{}: {text}", super::diag::stamp()));
    }

    /// Whether a variable is set to what .NET takes for true.
    fn flag(&self, name: &str) -> bool {
        self.env.get(name).is_some_and(|value| {
            ["1", "true", "y", "yes", "t"]
                .iter()
                .any(|yes| value.eq_ignore_ascii_case(yes))
        })
    }

    /// The exit after a job: its result if the agent asked for it, else 0.
    fn after_job(&self, result: TaskResult) -> Ending {
        if self.flag("ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED") {
            Ending::Job(result)
        } else {
            Ending::Success
        }
    }
}
