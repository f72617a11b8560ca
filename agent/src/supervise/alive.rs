//! A runner that lives: what was seen of it, and what it must do by when.

use std::time::Duration;

use muster_proto::v1::TroubleKind;
use serde::{Deserialize, Serialize};

use super::console::{ConsoleLine, JobResult};
use super::messages::{Action, Finish};
use super::outcome::{self, Cause, Exit, Printed, Seen};
use super::perflog::Counter;
use super::phase::Phase;
use super::stop::Stop;
use super::troubles::Troubles;
use super::watchdog::Limits;

/// Between two looks at the process table while a worker is awaited.
pub(super) const LOOK_SOON: Duration = Duration::from_secs(1);

/// A moment, counted from the machine's beginning.
pub(super) type Time = Duration;

/// What is known of the runner.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Alive {
    /// When its process was made.
    started: Time,
    /// The furthest phase.
    pub(super) phase: Phase,
    /// How far its job has come by the perf files, and since when.
    stage: Stage,
    stage_since: Time,
    /// The worker writes a perf file.
    worker_counts: bool,
    /// Since when no worker is in the process table, although a job runs.
    no_worker_since: Option<Time>,
    /// Name of its job.
    pub(super) job: Option<String>,
    /// The console's word on the job.
    result: Option<Printed>,
    /// The console named the job.
    job_named: bool,
    /// Lines of the console may have been missed.
    pub(super) console_gap: bool,
    /// It met another session of its registration.
    conflict: bool,
    /// The console said that GitHub refuses its version.
    version_refused: bool,
    /// It updates itself.
    updating: bool,
    /// It began to stop before it was told to.
    stopped_by_other: bool,
    /// The last thing that it complained of.
    complaint: Option<String>,
    /// When its job was first cancelled.
    cancelled_at: Option<Time>,
    troubles: Troubles,
    /// Set once it was told to stop.
    pub(super) stop: Option<Stop>,
}

/// How far a job has come. None of it is required: a runner that writes no perf files stays at the
/// first stage, and nothing is expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// There is none, or nothing is known of it.
    Unknown,
    /// The runner was told of it.
    Assigned,
    /// The runner has fetched it and holds the lock on it.
    Acquired,
    /// A worker was found in the process table, so the perf files lag or fail.
    WorkerFound,
    /// The runner makes a worker.
    WorkerStarting,
    /// The runner has sent it the job.
    Sent,
    /// The worker has read it.
    Received,
    /// "Set up job" is over.
    SetUp,
    /// All of its steps are.
    StepsDone,
}

impl Alive {
    /// Just started.
    pub(super) fn new(now: Time) -> Self {
        Self {
            started: now,
            phase: Phase::Starting,
            stage: Stage::Unknown,
            stage_since: now,
            worker_counts: false,
            no_worker_since: None,
            job: None,
            result: None,
            job_named: false,
            console_gap: false,
            conflict: false,
            version_refused: false,
            updating: false,
            stopped_by_other: false,
            complaint: None,
            cancelled_at: None,
            troubles: Troubles::default(),
            stop: None,
        }
    }

    /// Goes through the phases up to `phase`. Never back.
    pub(super) fn advance(&mut self, phase: Phase, actions: &mut Vec<Action>) {
        for next in Phase::ALL {
            if next > self.phase && next <= phase {
                self.phase = next;
                let job = self.job.clone().filter(|_| next == Phase::Running);
                actions.push(Action::Phase {
                    phase: next.into(),
                    job,
                });
            }
        }
    }

    /// Takes in a line of the console.
    pub(super) fn console(&mut self, line: ConsoleLine, now: Time, actions: &mut Vec<Action>) {
        match line {
            ConsoleLine::Connected => self.advance(Phase::Connected, actions),
            ConsoleLine::Listening => {
                self.reconnected();
                self.advance(Phase::Listening, actions);
            }
            ConsoleLine::RunningJob(name) => {
                self.job.get_or_insert(name);
                self.job_named = true;
                self.advance(Phase::Running, actions);
            }
            ConsoleLine::JobCompleted(name, result) => {
                if !name.is_empty() {
                    self.job.get_or_insert(name);
                }
                self.set_result(result, now);
                self.advance(Phase::Running, actions);
            }
            ConsoleLine::SessionConflict => self.met_another_session(actions),
            ConsoleLine::ConnectError(problem) if problem.contains("Conflict") => {
                self.met_another_session(actions);
            }
            ConsoleLine::ConnectError(problem) => {
                let detail = format!("it can't reach GitHub and tries again: {problem}");
                let connection = &mut self.troubles.connection;
                connection.on(TroubleKind::Connection, detail, actions);
            }
            ConsoleLine::Reconnected => self.reconnected(),
            ConsoleLine::ClockSkew(text) => {
                let detail = format!("the clock of this host may be wrong: {text}");
                let connection = &mut self.troubles.connection;
                connection.on(TroubleKind::Connection, detail, actions);
                self.complaint = Some(text);
            }
            ConsoleLine::VersionDeprecated => self.version_refused = true,
            ConsoleLine::Updating => self.updating = true,
            ConsoleLine::Exiting => self.stopped_by_other |= self.stop.is_none(),
            ConsoleLine::Complaint(text) => self.complaint = Some(text),
            ConsoleLine::Version(_) | ConsoleLine::Other => {}
        }
    }

    /// Takes in a counter of the perf files.
    pub(super) fn counter(&mut self, counter: Counter, now: Time, actions: &mut Vec<Action>) {
        let (phase, stage) = match counter {
            Counter::SessionCreated => (Phase::Listening, Stage::Unknown),
            Counter::JobAssigned => (Phase::Assigned, Stage::Assigned),
            Counter::JobAcquired => (Phase::Running, Stage::Acquired),
            Counter::WorkerStarting => (Phase::Running, Stage::WorkerStarting),
            Counter::WorkerStarted => {
                self.worker_counts = true;
                (Phase::Running, Stage::WorkerStarting)
            }
            Counter::JobSent => (Phase::Running, Stage::Sent),
            Counter::JobReceived => (Phase::Running, Stage::Received),
            Counter::SetUpDone => (Phase::Running, Stage::SetUp),
            Counter::StepsDone => (Phase::Running, Stage::StepsDone),
            Counter::JobCancelled => {
                self.cancelled_at.get_or_insert(now);
                self.troubles.cancelled(now, actions);
                return;
            }
            Counter::UpdateRequested => {
                self.updating = true;
                return;
            }
            Counter::RenewalFailing => {
                let detail = "its lock on the job is not renewed: it can't reach GitHub";
                let renewal = &mut self.troubles.renewal;
                renewal.on(TroubleKind::Renewal, detail.into(), actions);
                return;
            }
            Counter::RenewalRecovered => {
                self.troubles.renewal.over();
                return;
            }
        };
        self.reach(stage, now);
        self.advance(phase, actions);
    }

    /// A look at the process table showed a worker. It exists for a job only (JobDispatcher.cs: one
    /// process per job).
    pub(super) fn found_worker(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.no_worker_since = None;
        if self.stage > Stage::Unknown {
            self.reach(Stage::WorkerFound, now);
        }
        self.advance(Phase::Running, actions);
    }

    /// A look at the process table showed no worker.
    pub(super) fn found_no_worker(&mut self, now: Time) {
        if self.phase == Phase::Running {
            self.no_worker_since.get_or_insert(now);
        }
    }

    /// How often the process table must be looked at. A runner that is about to make a worker would be
    /// stopped if its files didn't say that it has; one that runs a job may have been stopped itself.
    pub(super) fn look_every(&self, limits: &Limits) -> Option<Duration> {
        let soon = matches!(self.stage, Stage::Assigned | Stage::Acquired);
        match &self.stop {
            None if soon => Some(limits.look.min(LOOK_SOON)),
            None if self.phase == Phase::Running => Some(limits.look),
            _ => None,
        }
    }

    fn reach(&mut self, stage: Stage, now: Time) {
        if stage > self.stage {
            self.stage = stage;
            self.stage_since = now;
        }
    }

    /// One job, one result: the first counts, since what follows can only be forged, or shows that the
    /// first was.
    fn set_result(&mut self, result: JobResult, now: Time) {
        match &mut self.result {
            Some(printed) => printed.contradicted |= printed.result != result,
            none => {
                *none = Some(Printed {
                    result,
                    at: now,
                    after_stop: self.stop.is_some(),
                    contradicted: false,
                });
            }
        }
    }

    fn met_another_session(&mut self, actions: &mut Vec<Action>) {
        self.conflict = true;
        let detail = "another session of its registration exists, and it tries again";
        let conflict = &mut self.troubles.conflict;
        conflict.on(TroubleKind::Conflict, detail.into(), actions);
    }

    fn reconnected(&mut self) {
        self.troubles.connection.over();
        self.troubles.conflict.over();
    }

    /// Whether this end leaves a worker alone that nobody has ended. A runner that ends by itself has
    /// waited for its worker.
    pub(super) fn abandons_worker(&self, exit: Exit) -> bool {
        let clean = match exit {
            Exit::Code(code) => code == 0 || JobResult::from_exit_code(code).is_some(),
            Exit::Signal(_) | Exit::Unknown => false,
        };
        self.phase == Phase::Running && self.stop.is_none() && !clean
    }

    /// The next thing that the runner must have done, by when, and what it is if it hasn't.
    pub(super) fn watchdog(&self, limits: &Limits) -> Option<(Time, Cause)> {
        if let Some(printed) = &self.result {
            return Some((printed.at + limits.exit_after_result, Cause::NotExited));
        }
        let ignored = self
            .cancelled_at
            .map(|at| (at + limits.cancel, Cause::NotCancelled));
        let gone = self
            .no_worker_since
            .map(|at| (at + limits.worker_gone, Cause::WorkerGone));
        let since = self.stage_since;
        let due = match self.stage {
            Stage::Unknown if self.phase < Phase::Listening => {
                let limit = if self.conflict {
                    limits.connect_after_conflict
                } else {
                    limits.connect
                };
                (self.started + limit, Cause::NotListening)
            }
            Stage::Assigned => (since + limits.acquire, Cause::NotAcquired),
            Stage::Acquired => (since + limits.worker_start, Cause::NoWorker),
            Stage::WorkerStarting => (since + limits.worker_message, Cause::NotReceived),
            Stage::Sent if self.worker_counts => {
                (since + limits.worker_message, Cause::NotReceived)
            }
            Stage::StepsDone => (since + limits.worker_exit, Cause::WorkerNotExited),
            _ => return ignored.or(gone),
        };
        // A cancelled job has its minutes before anything else is expected of it.
        ignored.or(gone.filter(|gone| gone.0 < due.0)).or(Some(due))
    }

    /// When something is to be said that ends nothing.
    pub(super) fn soft_deadline(&self, limits: &Limits) -> Option<Time> {
        (self.stage == Stage::Received && self.troubles.setup_unsaid())
            .then(|| self.stage_since + limits.setup)
    }

    /// Says what is due at `now` and ends nothing.
    pub(super) fn say_what_is_due(
        &mut self,
        now: Time,
        limits: &Limits,
        actions: &mut Vec<Action>,
    ) {
        if self.soft_deadline(limits).is_some_and(|at| at <= now) {
            self.troubles.slow_setup(limits.setup, actions);
        }
    }

    /// The end, judged. `orphaned` is what became of a worker that outlived the runner.
    pub(super) fn finish(self, exit: Exit, orphaned: Option<String>) -> Finish {
        let seen = Seen {
            phase: self.phase,
            result_missing: self.job_named && self.result.is_none() && !self.console_gap,
            result: self.result,
            stop: self.stop.map(|stop| stop.cause),
            cancelled: self.cancelled_at.is_some(),
            conflict: self.conflict,
            version_refused: self.version_refused,
            updating: self.updating,
            stopped_by_other: self.stopped_by_other,
            orphaned,
            complaint: self.complaint,
        };
        let (outcome, reason) = outcome::judge(exit, &seen);
        Finish {
            outcome,
            exit: Some(exit),
            job: self.job,
            reason,
        }
    }
}
