//! One row: a scenario, what the coordinator was told of it, and what is left of it.

use std::path::Path;
use std::time::Duration;

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::session_response::Message;
use muster_proto::v1::{
    Configure, Drain, Retire, RunnerFinished, RunnerOutcome, RunnerPhase, Shutdown, TroubleKind,
};
use muster_tests::scripted::coordinator::{Coordinator, Session};
use muster_tests::scripted::host::{Agent, Host, jit_config, unique_instance_id};
use muster_tests::scripted::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How a job begins in the words of [`Row::told`].
pub(crate) const RUNS: &str = "starting connected listening assigned running";
/// The same without a job.
pub(crate) const LISTENS: &str = "starting connected listening";

/// A row under way.
pub(crate) struct Row {
    pub(crate) host: Host,
    session: Session,
    agent: Agent,
    coordinator: Coordinator,
    told: Vec<String>,
}

/// A row that is over.
pub(crate) struct Played {
    pub(crate) host: Host,
    told: Vec<String>,
    finished: RunnerFinished,
}

/// No limit is met unless a row says so, and those that a row does say are short.
fn limits(own: &Value) -> Value {
    let mut limits = json!({
        "connect": 60, "connect_after_conflict": 60, "acquire": 60, "worker_start": 60,
        "worker_message": 60, "setup": 60, "worker_exit": 60, "look": 0.05, "worker_gone": 60,
        "cancel": 60, "exit_after_result": 60, "hang_grace": 20, "repeat_interrupt": 0.1,
        "give_up": 10, "orphaned_worker": 60, "interrupt_lead": 0.2, "stop_grace": 20,
    });
    for (name, value) in own.as_object().unwrap() {
        limits[name] = value.clone();
    }
    limits
}

impl Row {
    /// The runner is started with this scenario, a thousand times as fast as in life unless it says
    /// otherwise, and the agent with these limits.
    pub(crate) async fn begin(scenario: &str, own_limits: Value) -> Self {
        Self::begin_with(scenario, own_limits, &jit_config(), |_| {}).await
    }

    /// The same with another configuration of the runner, and a host that is made ready first.
    pub(crate) async fn begin_with(
        scenario: &str,
        own_limits: Value,
        jit_config: &str,
        make_ready: impl FnOnce(&mut Host),
    ) -> Self {
        let speed = if scenario.contains("speed") {
            ""
        } else {
            "speed = 1000.0\n"
        };
        let mut coordinator = Coordinator::start(&unique_instance_id()).await;
        let mut host = Host::standin(&coordinator, "");
        let scenario = scenario.replace("{at}", &host.dir.path().display().to_string());
        std::fs::write(
            host.path("runner/scenario.toml"),
            format!("{speed}{scenario}"),
        )
        .unwrap();
        host.config["runner_limits"] = limits(&own_limits);
        make_ready(&mut host);
        let agent = host.start().await;
        let session = coordinator.session().await;
        session.assign("runner-1", jit_config).await;
        Self {
            host,
            session,
            agent,
            coordinator,
            told: Vec::new(),
        }
    }

    /// Waits until the coordinator is told of this, from now on: the word of a phase, `!` and the word of a trouble,
    /// `idle` or `busy` as the answer to a look.
    pub(crate) async fn reach(&mut self, word: &str) {
        loop {
            let kind = self.session.take().await;
            assert!(
                !matches!(kind, Kind::RunnerFinished(_)),
                "{word:?} before {kind:?}"
            );
            let said = said(&kind);
            self.told.extend(said.clone());
            if said.as_deref() == Some(word) {
                return;
            }
        }
    }

    /// Waits until a file of this host is there.
    pub(crate) async fn appears(&self, name: &str) {
        until(name, || self.host.path(name).exists()).await;
    }

    pub(crate) fn touch(&self, name: &str) {
        std::fs::write(self.host.path(name), "").unwrap();
    }

    /// Signals the processes of a program of the runner; there must be one.
    pub(crate) fn signal(&self, program: &str, signal: Signal) {
        let file = self.host.path("runner/bin").join(program);
        let found: Vec<i32> = processes()
            .filter(|(_, dir)| std::fs::read_link(dir.join("exe")).is_ok_and(|exe| exe == file))
            .map(|(pid, _)| pid)
            .collect();
        assert_eq!(found.len(), 1, "{program}: {found:?}");
        kill(Pid::from_raw(found[0]), signal).unwrap();
    }

    pub(crate) async fn configure(&self, lead: Duration, grace: Duration) {
        let configure = Configure {
            interrupt_lead: lead.try_into().ok(),
            stop_grace: grace.try_into().ok(),
            ..Configure::default()
        };
        self.session.send(Message::Configure(configure)).await;
    }

    pub(crate) async fn drain(&self, within: Option<Duration>) {
        let drain = Drain {
            reason: "test".into(),
            deadline: within.map(|within| (std::time::SystemTime::now() + within).into()),
        };
        self.session.send(Message::Drain(drain)).await;
    }

    pub(crate) async fn retire(&self) {
        let retire = Retire {
            reason: "test".into(),
        };
        self.session.send(Message::Retire(retire)).await;
    }

    pub(crate) async fn shut_down(&self) {
        let shutdown = Shutdown {
            reason: "test".into(),
        };
        self.session.send(Message::Shutdown(shutdown)).await;
    }

    /// Waits for the end, of the runner and of the agent, and looks that nothing is left of them.
    pub(crate) async fn play(mut self) -> Played {
        let finished = loop {
            let kind = self.session.take().await;
            if let Kind::RunnerFinished(finished) = kind {
                break finished;
            }
            self.told.extend(said(&kind));
        };
        assert!(self.agent.exit().await.success(), "{finished:?}");
        let id = &self.coordinator.behaviour.instance_id;
        let left = left_behind(id, self.host.dir.path());
        assert!(left.is_empty(), "left behind: {left:?}");
        let starts = self.host.read("work/job/perf/Runner.perf");
        assert!(
            starts.matches("RunnerProcessStarted").count() <= 1,
            "started again"
        );
        Played {
            host: self.host,
            told: self.told,
            finished,
        }
    }
}

/// How the runner's process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Code(i32),
    Signal(i32),
}

impl Played {
    /// The whole of what the coordinator was told, in order, and how it ended.
    pub(crate) fn is(&self, told: &str, outcome: RunnerOutcome, by: By, reason: &str) {
        let finished = &self.finished;
        let ended = match (finished.exit_code, finished.signal) {
            (Some(code), None) => By::Code(code),
            (None, Some(signal)) => By::Signal(signal),
            other => panic!("{other:?}"),
        };
        let all = (self.told.join(" "), finished.outcome(), ended);
        assert_eq!(all, (told.to_owned(), outcome, by), "{}", finished.reason);
        assert!(finished.reason.contains(reason), "{}", finished.reason);
        let succeeded = outcome == RunnerOutcome::Succeeded;
        // A runner that was killed just after its start has said nothing yet.
        if told != "starting" {
            assert_eq!(finished.console_tail.is_empty(), succeeded);
        }
    }

    pub(crate) fn job(&self) -> &str {
        &self.finished.job_display_name
    }
}

/// An event as a word.
fn said(kind: &Kind) -> Option<String> {
    match kind {
        Kind::PhaseChanged(changed) => Some(phase_word(changed.phase())),
        Kind::RunnerTrouble(trouble) => {
            assert!(!trouble.detail.is_empty());
            Some(format!("!{}", trouble_word(trouble.kind())))
        }
        Kind::DrainReport(report) => Some(if report.idle { "idle" } else { "busy" }.into()),
        _ => None,
    }
}

fn phase_word(phase: RunnerPhase) -> String {
    phase
        .as_str_name()
        .trim_start_matches("RUNNER_PHASE_")
        .to_lowercase()
}

fn trouble_word(kind: TroubleKind) -> String {
    kind.as_str_name()
        .trim_start_matches("TROUBLE_KIND_")
        .to_lowercase()
}

/// Every process there is, with its directory.
fn processes() -> impl Iterator<Item = (i32, std::path::PathBuf)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, entry.path()))
    })
}

/// Processes that carry the instance's mark, or that are at home in the host's directory.
fn left_behind(instance_id: &str, dir: &Path) -> Vec<String> {
    let mark = format!("MUSTER_INSTANCE_ID={instance_id}");
    let lives = |proc: &Path| {
        let environment = std::fs::read(proc.join("environ")).unwrap_or_default();
        let marked = environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == mark.as_bytes());
        marked || std::fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    processes()
        .filter(|(_, proc)| lives(proc))
        .map(|(pid, proc)| {
            let command = std::fs::read_to_string(proc.join("cmdline")).unwrap_or_default();
            format!("{pid} {}", command.replace('\0', " "))
        })
        .collect()
}
