//! What passes between the agent and its runner.

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::{
    DrainReport, PhaseChanged, RunnerFinished, RunnerOutcome, RunnerPhase, RunnerTrouble,
};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Agent, CLEAR_LIMIT, Ending, UNREACHABLE_LIMIT};
use crate::supervise::console::{self, ConsoleLine};
use crate::supervise::descendants::{kill_all, worker_exists};
use crate::supervise::jit::JitConfig;
use crate::supervise::listener::{Launch, Listener, ListenerCommand, ListenerEvent};
use crate::supervise::machine::{Action, Finish, Input};
use crate::supervise::outcome::Exit;

/// Commands that may wait for the runner's executor. It takes them at once; more are repetitions.
const COMMANDS: usize = 4;

/// The runner's process.
#[derive(Debug)]
pub(super) struct Running {
    pid: Option<Pid>,
    commands: mpsc::Sender<ListenerCommand>,
}

impl Running {
    /// Its id, as long as it has not been waited for.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.pid
    }
}

impl Agent {
    pub(super) fn start_runner(&mut self, config: JitConfig) {
        let perf_dir = self.config.work_dir.join("perf");
        let started = Listener::start(&Launch {
            runner_dir: &self.config.runner_dir,
            perf_dir: &perf_dir,
            instance_id: &self.instance_id,
            jit_config: &config.encoded,
            environment: &self.config.runner_environment,
        });
        self.masker.add(config.encoded);
        for part in config.parts {
            self.masker.add(part);
        }
        match started {
            Ok(listener) => {
                let (commands, received) = mpsc::channel(COMMANDS);
                let pid = listener.pid();
                tracing::info!(pid = pid.map(Pid::as_raw), "runner started");
                self.runner = Some(Running { pid, commands });
                let events = self.runner_events.sender.clone();
                self.tasks.spawn(listener.run(events, received));
                self.feed(Input::Started);
            }
            Err(error) => self.feed(Input::StartFailed(format!("failed to {error}"))),
        }
    }

    pub(super) fn on_runner(&mut self, event: ListenerEvent) {
        match event {
            ListenerEvent::Line(line) => {
                let line = self.masker.mask(&line);
                let meaning = console::parse(&line);
                self.tail.push(line);
                if let ConsoleLine::Version(version) = &meaning {
                    self.runner_version.clone_from(version);
                }
                self.feed(Input::Console(meaning));
            }
            ListenerEvent::Counter(counter) => self.feed(Input::Counter(counter)),
            ListenerEvent::Exited(exit) => {
                tracing::info!(?exit, "runner ended");
                self.runner = None;
                self.feed(Input::Exited {
                    exit,
                    worker: worker_exists(),
                });
            }
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
            Action::Phase { phase, job } => {
                tracing::info!(?phase, job, "runner advanced");
                if phase == RunnerPhase::Running {
                    self.sampler.begin_peaks();
                }
                self.report(Kind::PhaseChanged(PhaseChanged {
                    phase: phase.into(),
                    job_display_name: job.unwrap_or_default(),
                }));
            }
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
        let instance_id = self.instance_id.clone();
        let runner = self.runner.as_ref().and_then(Running::pid);
        self.tasks.spawn(async move {
            let left = kill_all(&instance_id, runner, CLEAR_LIMIT).await;
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
        let console_tail = match outcome {
            RunnerOutcome::Succeeded => String::new(),
            _ => self.tail.text(),
        };
        self.report(Kind::RunnerFinished(RunnerFinished {
            outcome: outcome.into(),
            exit_code,
            signal,
            job_display_name: finish.job.unwrap_or_default(),
            reason: finish.reason,
            console_tail,
            peaks,
            ..RunnerFinished::default()
        }));
        // Reported first, so that the coordinator doesn't wait for the clearing.
        self.kill();
        self.ending = Some(Ending {
            until: Instant::now() + UNREACHABLE_LIMIT,
        });
    }
}
