//! What passes between the supervisor and its runner.

use jiff::Timestamp;
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::{
    DrainReport, PhaseChanged, RunnerFinished, RunnerOutcome, RunnerPhase, RunnerTrouble,
};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{CLEAR_LIMIT, Supervisor};
use crate::config::Mode;
use crate::supervise::cgroup::Cgroup;
use crate::supervise::console::{self, ConsoleLine};
use crate::supervise::diagnostics;
use crate::supervise::grounds::Grounds;
use crate::supervise::jit::{self, JitConfig};
use crate::supervise::listener::{Launch, Listener, ListenerCommand, ListenerEvent};
use crate::supervise::machine::{Action, Finish, Input};
use crate::supervise::outcome::Exit;

/// Commands that may wait for the runner's executor. It takes them at once; more are repetitions.
const COMMANDS: usize = 4;

/// What stands for the logs when the secrets in them can't be masked.
const UNMASKABLE: &str = "left out: the supervisor was started anew, and the runner's secrets, which would have to \
     be masked, were not found any more\n";

/// The runner's process.
#[derive(Debug)]
pub(super) struct Running {
    pid: Option<Pid>,
    commands: mpsc::Sender<ListenerCommand>,
    /// Whether a sample was taken when it printed its job's result.
    result_sampled: bool,
}

impl Running {
    fn new(pid: Option<Pid>, commands: mpsc::Sender<ListenerCommand>) -> Self {
        Self {
            pid,
            commands,
            result_sampled: false,
        }
    }

    /// Its id, as long as it has not been waited for.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.pid
    }
}

impl Supervisor {
    /// Starts the runner. Bounded by systemd's answer, if it runs in a unit.
    pub(super) async fn start_runner(&mut self, config: JitConfig) {
        let started = Listener::start(&Launch {
            runner_dir: &self.config.runner_dir,
            work_dir: &self.config.work_dir,
            mark: &self.mark,
            mode: &self.config.mode,
            jit_config: &config.encoded,
            environment: &self.config.runner_environment,
        })
        .await;
        self.masker.add(config.encoded);
        for part in config.parts {
            self.masker.add(part);
        }
        match started {
            Ok(listener) => {
                self.known.marks.spawned = Some(Timestamp::now());
                self.watch(listener);
                self.feed(Input::Started);
            }
            Err(error) => self.feed(Input::StartFailed(format!("failed to {error}"))),
        }
    }

    /// Looks for the runner that an earlier process has started, or was about to start. Until it is found it
    /// counts as alive: what can't be asked has not ended.
    pub(super) fn find_runner(&mut self) {
        let Mode::Unit(unit) = self.config.mode.clone() else {
            return;
        };
        match jit::parts_on_disk(&self.config.runner_dir) {
            Some(parts) => parts.into_iter().for_each(|part| self.masker.add(part)),
            None => self.secrets_unknown = true,
        }
        // It may have died between the order and the start, or just after it.
        self.feed(Input::Started);
        // What the other process had read and not yet saved is lost.
        self.feed(Input::ConsoleGap);
        let (commands, received) = mpsc::channel(COMMANDS);
        let pid = None;
        self.runner = Some(Running::new(pid, commands));
        let events = self.runner_events_sender.clone();
        let work_dir = self.config.work_dir.clone();
        self.tasks
            .spawn(Listener::find_and_run(unit, work_dir, events, received));
    }

    fn watch(&mut self, listener: Listener) {
        let (commands, received) = mpsc::channel(COMMANDS);
        let pid = listener.pid();
        tracing::info!(pid = pid.map(Pid::as_raw), "runner started");
        if let Some(cgroup) = listener.cgroup() {
            self.found_cgroup(cgroup.clone());
        }
        self.runner = Some(Running::new(pid, commands));
        let events = self.runner_events_sender.clone();
        self.tasks.spawn(listener.run(events, received));
    }

    fn found(&mut self, pid: Option<Pid>, cgroup: Option<Cgroup>) {
        tracing::info!(pid = pid.map(Pid::as_raw), "runner found");
        if let Some(cgroup) = cgroup {
            self.found_cgroup(cgroup);
        }
        if let Some(runner) = &mut self.runner {
            runner.pid = pid;
        }
    }

    /// Nothing is left of the runner's process, and no word on its end. Its worker may still be there.
    fn miss(&mut self) {
        tracing::warn!("the runner is not there, and left no record of its end");
        self.runner = None;
        if self.machine.phase() == RunnerPhase::Starting {
            let reason = "the supervisor died while it started the runner, which is not there";
            self.feed(Input::StartFailed(reason.into()));
        } else {
            let worker = self.grounds.worker_exists();
            let exit = Exit::Unknown;
            self.feed(Input::Exited { exit, worker });
        }
    }

    pub(super) fn found_cgroup(&mut self, cgroup: Cgroup) {
        cgroup.bound();
        self.sampler.watch_cgroup(Some(cgroup.path()));
        self.grounds = Grounds::Cgroup(Some(cgroup));
    }

    pub(super) fn on_runner(&mut self, event: ListenerEvent) {
        match event {
            ListenerEvent::Found { pid, cgroup } => self.found(pid, cgroup),
            ListenerEvent::Missing => self.miss(),
            ListenerEvent::Line(line) => {
                let line = self.masker.mask(&line);
                let meaning = console::parse(&line);
                self.tail.push(line);
                if let ConsoleLine::Version(version) = &meaning {
                    self.known.runner_version.clone_from(version);
                }
                if let ConsoleLine::JobCompleted(..) = meaning {
                    self.sample_result();
                }
                self.feed(Input::Console(meaning));
            }
            ListenerEvent::Counter(counter) => self.feed(Input::Counter(counter)),
            ListenerEvent::HostShutsDown => {
                self.host_shuts_down = true;
                self.shut_down("the host is being shut down".into());
            }
            ListenerEvent::Exited(exit) => {
                tracing::info!(?exit, "runner ended");
                self.runner = None;
                let worker = self.grounds.worker_exists();
                self.feed(Input::Exited { exit, worker });
            }
        }
    }

    /// A last look while the runner lives: with it goes its cgroup, and with that what the kernel killed in it.
    /// Once, as a job can print what the runner does.
    fn sample_result(&mut self) {
        if let Some(runner) = &mut self.runner
            && !std::mem::replace(&mut runner.result_sampled, true)
        {
            self.take_sample();
        }
    }

    /// Gives the machine what happened, and does what it says.
    pub(super) fn feed(&mut self, input: Input) {
        for action in self.machine.handle(input, Instant::now().into_std()) {
            self.perform(action);
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Phase { phase, job } => self.on_phase(phase, job),
            Action::Drained { idle, phase } => {
                tracing::info!(idle, ?phase, "looked at the runner");
                self.report(Kind::DrainReport(DrainReport {
                    idle,
                    phase: phase.into(),
                }));
            }
            Action::Trouble { kind, detail } => {
                tracing::warn!(?kind, detail, "the runner is in trouble");
                self.report(Kind::RunnerTrouble(RunnerTrouble {
                    kind: kind.into(),
                    detail,
                }));
            }
            Action::Interrupt => self.interrupt(),
            Action::Kill => self.kill(),
            Action::Finished(finish) => self.finish(finish),
        }
    }

    fn on_phase(&mut self, phase: RunnerPhase, job: Option<String>) {
        tracing::info!(?phase, job, "runner advanced");
        let marks = &mut self.known.marks;
        match phase {
            RunnerPhase::Listening => {
                marks.listening.get_or_insert_with(Timestamp::now);
            }
            RunnerPhase::Running => {
                marks.job_started.get_or_insert_with(Timestamp::now);
                self.sampler.begin_peaks();
            }
            _ => {}
        }
        self.report(Kind::PhaseChanged(PhaseChanged {
            phase: phase.into(),
            job_display_name: job.unwrap_or_default(),
        }));
    }

    fn interrupt(&self) {
        tracing::info!("telling the runner to stop");
        if let Some(runner) = &self.runner
            && runner
                .commands
                .try_send(ListenerCommand::Interrupt)
                .is_err()
        {
            tracing::debug!("the runner has ended, or is being told already");
        }
    }

    /// Begins to kill everything of the runner.
    fn kill(&mut self) {
        let grounds = self.grounds.clone();
        let runner = self.runner.as_ref().and_then(Running::pid);
        let records = self.config.work_dir.clone();
        self.tasks.spawn(async move {
            let left = grounds.kill_all(runner, &records, CLEAR_LIMIT).await;
            tracing::info!(left, "cleared the runner's processes");
        });
    }

    fn finish(&mut self, finish: Finish) {
        let outcome = finish.outcome;
        tracing::info!(?outcome, reason = finish.reason, "finished");
        // What ran short may be why it ended.
        self.take_sample();
        let peaks = self.sampler.peaks();
        let (exit_code, signal) = match finish.exit {
            Some(Exit::Code(code)) => (Some(code), None),
            Some(Exit::Signal(signal)) => (None, Some(signal)),
            Some(Exit::Unknown) | None => (None, None),
        };
        let (console_tail, diagnostic_tail) = match outcome {
            RunnerOutcome::Succeeded => Default::default(),
            _ if self.secrets_unknown => (UNMASKABLE.to_owned(), String::new()),
            _ => (
                self.tail.text(),
                diagnostics::tail(&self.config.runner_dir, &self.masker),
            ),
        };
        self.report(Kind::RunnerFinished(RunnerFinished {
            outcome: outcome.into(),
            exit_code,
            signal,
            job_display_name: finish.job.unwrap_or_default(),
            reason: finish.reason,
            console_tail,
            diagnostic_tail,
            peaks,
        }));
        // Reported first, so that the coordinator doesn't wait for the clearing. That can wait where the host is being
        // shut down: what is left of the runner's unit holds that up, see `start::record_exit`.
        if !self.host_shuts_down {
            self.kill();
        }
        self.begin_end();
    }
}
