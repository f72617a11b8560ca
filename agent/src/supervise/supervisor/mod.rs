//! The dispatcher of the host's half: one task that owns the runner and all that is known of it, takes
//! every event in turn, and has executors do the rest. What is decided, and when, is in
//! [`crate::supervise::machine`].

mod contact;
#[cfg(test)]
mod deadline_tests;
#[cfg(test)]
mod ending_tests;
mod journal;
mod life;
mod orders;
mod runner;
mod saved;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use muster_proto::v1::agent_event::Kind;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use self::contact::Contact;
use self::journal::Journal;
use self::life::Life;
use self::saved::{Saved, StateFile};
use crate::config::{HostConfig, Mode};
use crate::local::{HostState, Marks, Notice, Report, ToFront, heard};
use crate::sample::Sampler;
use crate::signals::Signals;
use crate::steady::Steady;
use crate::supervise::descendants::reap_adopted;
use crate::supervise::grounds::Grounds;
use crate::supervise::listener::ListenerEvent;
use crate::supervise::machine::{Input, Machine};
use crate::supervise::tail::{Masker, Tail};
use crate::systemd::Notifier;

/// Time between two samples until the coordinator says otherwise.
const SAMPLE_DEFAULT: Duration = Duration::from_secs(5);
/// How long the end waits for its acknowledgement, or as long as the agent waits for a coordinator without a job
/// if that is shorter. The same whether there seems to be a stream or not: one that is broken looks alive for
/// [`crate::tls`]'s 20 s, and a coordinator that loses its store for half a minute keeps its streams open.
const UNREACHABLE_LIMIT: Duration = Duration::from_secs(60);
/// How long clearing away what the runner left may take.
const CLEAR_LIMIT: Duration = Duration::from_secs(5);
/// How long the executors may take to end.
const TASKS_LIMIT: Duration = Duration::from_secs(2);
/// Events of the runner's executor that may wait. A full queue holds it back, and in the end the
/// runner's pipe.
const EVENTS: usize = 64;

/// The host's half of the agent.
#[derive(Debug)]
pub(crate) struct Supervisor {
    config: HostConfig,
    /// Marks the runner's processes.
    mark: String,
    signals: Signals,
    notifier: Notifier,
    life: Life,
    machine: Machine,
    grounds: Grounds,
    sampler: Sampler,
    sample_interval: Duration,
    sample_at: Instant,
    /// The last look at the process table that was due.
    looked_at: Instant,
    masker: Masker,
    tail: Tail,
    /// The runner's process, while it is waited for.
    runner: Option<runner::Running>,
    /// What outlives this process.
    known: Known,
    state_file: Option<StateFile>,
    /// The coordinator doesn't want to hear from this instance.
    unwanted: bool,
    /// The runner was started by another process, and its secrets can't be told from other text.
    secrets_unknown: bool,
    /// The job's interruption hook was run.
    hook_ran: bool,
    /// Somebody shuts the host down, and its runner has ended with it.
    host_shuts_down: bool,
    ending: Option<Ending>,
    contact: Contact,
    front: Option<ToFront>,
    fronts: mpsc::Receiver<ToFront>,
    /// Said once this turn is saved.
    outgoing: Vec<Report>,
    told: HostState,
    runner_events: mpsc::Receiver<ListenerEvent>,
    runner_events_sender: mpsc::Sender<ListenerEvent>,
    tasks: JoinSet<()>,
}

/// What is known of the one runner.
#[derive(Debug, Default)]
struct Known {
    journal: Journal,
    /// Name in the one assignment, once there was one.
    runner_name: Option<String>,
    /// As the runner printed it.
    runner_version: String,
    marks: Marks,
    /// What time it was before there was a job, which may set the clock.
    steady: Option<Steady>,
    /// Notices that were reported.
    notices: Vec<Notice>,
    /// Nothing may start any more.
    draining: bool,
    /// How long the pool lets its instances live, where that is more than the image says.
    lifetime: Option<Duration>,
}

/// After the end was reported.
#[derive(Debug)]
struct Ending {
    /// When to go, heard or not.
    until: Instant,
}

/// How the supervisor's run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The work is over, and nothing is left of it. Signals may still come.
    Over(Signals),
    /// This process was asked to end; the runner goes on in its unit.
    Interrupted,
}

impl Supervisor {
    /// A supervisor that has had no assignment. `age` is how much of its life has passed.
    pub(crate) fn new(
        config: HostConfig,
        mark: String,
        age: Duration,
        signals: Signals,
        fronts: mpsc::Receiver<ToFront>,
    ) -> Self {
        let now = Instant::now();
        let (runner_events_sender, runner_events) = mpsc::channel(EVENTS);
        Self {
            signals,
            notifier: Notifier::new(),
            life: Life::new(config.max_lifetime, age, now),
            machine: Machine::new(config.runner_limits, now.into_std()),
            grounds: match &config.mode {
                Mode::Child { .. } => Grounds::Descendants { mark: mark.clone() },
                Mode::Unit(_) => Grounds::Cgroup(None),
            },
            sampler: Sampler::new(config.runner_dir.clone()),
            sample_interval: SAMPLE_DEFAULT,
            sample_at: now + SAMPLE_DEFAULT,
            looked_at: now,
            masker: Masker::default(),
            tail: Tail::default(),
            runner: None,
            known: Known::default(),
            state_file: None,
            unwanted: false,
            secrets_unknown: false,
            hook_ran: false,
            host_shuts_down: false,
            ending: None,
            contact: Contact::new(now),
            front: None,
            fronts,
            outgoing: Vec::new(),
            told: HostState::default(),
            runner_events,
            runner_events_sender,
            tasks: JoinSet::new(),
            config,
            mark,
        }
    }

    /// From now on `secret` is masked in what is reported.
    pub(crate) fn mask(&mut self, secret: SecretString) {
        self.masker.add(secret);
    }

    /// Goes on where an earlier process ended, and saves for the next one, in the file `path`.
    pub(crate) fn resume(&mut self, path: PathBuf) -> anyhow::Result<()> {
        let file = StateFile::new(path);
        let saved = file.load();
        self.state_file = Some(file);
        if let Some((saved, age)) = saved? {
            tracing::info!(
                runner = saved.runner_name,
                "going on where another left off"
            );
            self.restore(saved, age);
        }
        Ok(())
    }

    /// Runs until the work is over and reported and nothing is left of it, or this process shall end and
    /// its runner can go on without it.
    pub(crate) async fn run(mut self) -> Ended {
        self.notifier.ready();
        self.time_passes();
        self.end_turn();
        while !self.is_done() {
            let wake = self.next_wake();
            tokio::select! {
                Some(event) = self.runner_events.recv() => self.on_runner(event),
                Some(front) = self.fronts.recv() => self.on_front(front),
                order = heard(&mut self.front) => match order {
                    Some(order) => self.on_order(order).await,
                    None => self.lose_front(),
                },
                signal = self.signals.recv() => {
                    if self.outlived_by_runner() {
                        tracing::info!(signal, "ending; the runner goes on");
                        return Ended::Interrupted;
                    }
                    self.shut_down(format!("the agent got {signal}"));
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an executor failed");
                    }
                }
                () = sleep_until(wake) => {}
            }
            self.time_passes();
            self.end_turn();
        }
        Ended::Over(self.clear_away().await)
    }

    /// Whether the runner lives on without this process, and another one will find it.
    fn outlived_by_runner(&self) -> bool {
        matches!(self.config.mode, Mode::Unit(_)) && self.state_file.is_some()
    }

    /// When the loop must turn at the latest.
    fn next_wake(&self) -> Instant {
        let times = [
            Some(self.sample_at),
            self.machine.next_deadline().map(Instant::from_std),
            self.machine
                .look_every()
                .map(|every| self.looked_at + every),
            self.ending.as_ref().map(|ending| ending.until),
            self.ending.is_none().then(|| self.life.ends()),
            self.lost_at(),
            self.notifier.next(),
        ];
        times.into_iter().flatten().min().unwrap_or(self.sample_at)
    }

    /// When the coordinator counts as lost. Never while a job runs.
    fn lost_at(&self) -> Option<Instant> {
        if self.ending.is_some() || self.machine.busy() || self.machine.stopping() {
            return None;
        }
        Some(self.contact.down_since()? + self.config.coordinator_lost)
    }

    /// Does what is due.
    fn time_passes(&mut self) {
        let now = Instant::now();
        self.notifier.alive(now);
        self.feed(Input::Tick);
        if let Some(interval) = self.machine.look_every()
            && self.looked_at + interval <= now
        {
            self.looked_at = now;
            let worker = self.grounds.worker_exists();
            self.feed(Input::Looked { worker });
        }
        if self.ending.is_none() && self.life.is_over(now, UNREACHABLE_LIMIT) {
            // This makes the runner stop, and the machine sees to the rest.
            self.shut_down("the agent's longest life is over".into());
        }
        if self.lost_at().is_some_and(|at| at <= now) {
            self.shut_down("the coordinator was out of reach for too long".into());
        }
        if self.sample_at <= now {
            self.sample_at = now + self.sample_interval;
            if let Grounds::Descendants { .. } = self.grounds {
                reap_adopted(self.runner.as_ref().and_then(runner::Running::pid));
            }
            self.take_sample();
        }
    }

    /// Reads the resource use, and reports what begins to run short.
    fn take_sample(&mut self) {
        let sample = self.sampler.take();
        for warning in self.sampler.warnings(&sample) {
            tracing::warn!(kind = warning.kind().as_str_name(), "{}", warning.detail);
            self.report(Kind::ResourceWarning(warning));
        }
        self.outgoing.push(Report::Sample(sample));
    }

    fn shut_down(&mut self, reason: String) {
        tracing::info!(reason, "shutting down");
        self.known.draining = true;
        self.feed(Input::Shutdown(reason));
    }

    fn report(&mut self, kind: Kind) {
        let event = self.known.journal.push(kind, Timestamp::now());
        self.outgoing.push(event);
    }

    /// The end was reported, or had been by an earlier process.
    fn begin_end(&mut self) {
        let patience = UNREACHABLE_LIMIT.min(self.config.coordinator_lost);
        self.ending = Some(Ending {
            until: Instant::now() + patience,
        });
    }

    fn is_done(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| {
            self.unwanted || self.known.journal.is_empty() || ending.until <= Instant::now()
        })
    }

    /// Ends every process of the runner and every task.
    async fn clear_away(mut self) -> Signals {
        let runner = self.runner.as_ref().and_then(runner::Running::pid);
        let records = &self.config.work_dir;
        let left = self.grounds.kill_all(runner, records, CLEAR_LIMIT).await;
        if left > 0 {
            tracing::error!(left, "processes of the runner can't be killed");
        }
        if !self.known.journal.is_empty() {
            tracing::warn!("the coordinator did not acknowledge the end");
        }
        self.tell(Report::Done);
        // Dropping the receivers lets executors run to their end.
        drop((self.front, self.runner, self.runner_events, self.fronts));
        let ended = timeout(TASKS_LIMIT, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if ended.await.is_err() {
            tracing::warn!("executors did not end in time");
        }
        self.signals
    }
}
