//! The supervision of one runner as a state machine: no I/O, and time only as an argument.
//!
//! It merges what the console, the perf files, the exit status and the process table say into phases
//! that only advance, decides when the runner must be stopped, and in the end what became of it. Each
//! source but the exit status can be forged by the job, so none but that can end anything by itself.

use std::time::{Duration, Instant};

use muster_proto::v1::{RunnerOutcome, RunnerPhase};

use super::console::{ConsoleLine, JobResult};
use super::outcome::{self, Cause, Exit, Seen};
use super::perflog::Counter;
use super::watchdog::Limits;

/// What happened.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// The runner's process exists.
    Started,
    /// It could not be made, for this reason.
    StartFailed(String),
    /// It printed a line.
    Console(ConsoleLine),
    /// A counter appeared in its perf files.
    Counter(Counter),
    /// It ended; `worker` says whether a worker process is still there.
    Exited {
        /// How.
        exit: Exit,
        /// Whether its worker goes on.
        worker: bool,
    },
    /// A look at the process table.
    Looked {
        /// Whether a worker process exists.
        worker: bool,
    },
    /// Take no new job; `deadline` is when the instance goes.
    Drain {
        /// When the instance goes, if that is known.
        deadline: Option<Instant>,
        /// A fresh look: whether a worker process exists.
        worker: bool,
    },
    /// The registration is gone.
    Retire {
        /// A fresh look: whether a worker process exists.
        worker: bool,
    },
    /// Stop whatever runs, for this reason.
    Shutdown(String),
    /// New settings; what is none stays as it was.
    Settings {
        /// How long before a deadline a runner is told to stop.
        interrupt_lead: Option<Duration>,
        /// How long it may take then.
        stop_grace: Option<Duration>,
    },
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Report that the runner advanced to this phase.
    Phase {
        /// The phase.
        phase: RunnerPhase,
        /// Name of the job, once one runs and it is known.
        job: Option<String>,
    },
    /// Report what the look at the runner showed.
    Drained {
        /// Nothing is assigned to it.
        idle: bool,
        /// Its phase.
        phase: RunnerPhase,
    },
    /// Send SIGINT to the runner's process, and to it only.
    Interrupt,
    /// Kill the runner and every descendant.
    Kill,
    /// Report the end. Nothing follows.
    Finished(Finish),
}

/// The end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finish {
    /// What it came to.
    pub(crate) outcome: RunnerOutcome,
    /// How the process ended, if there was one.
    pub(crate) exit: Option<Exit>,
    /// Name of its job.
    pub(crate) job: Option<String>,
    /// One sentence for people.
    pub(crate) reason: String,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    limits: Limits,
    state: State,
    /// When the instance goes, once that is known.
    deadline: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// Nothing was ever started.
    Unassigned,
    /// The runner's process exists.
    Alive(Alive),
    /// The runner died in its job without a word, and its worker goes on. Killing it would lose a job
    /// that may still end well: the lock on it lasts 10 minutes.
    Orphaned {
        alive: Alive,
        exit: Exit,
        until: Instant,
    },
    /// The end was reported.
    Finished,
}

#[derive(Debug)]
struct Alive {
    phase: RunnerPhase,
    /// Since when.
    since: Instant,
    conflict: bool,
    job: Option<String>,
    result: Option<Printed>,
    version_refused: bool,
    stop: Option<Stop>,
}

/// The console's word on the job.
#[derive(Debug)]
struct Printed {
    result: JobResult,
    at: Instant,
    after_stop: bool,
}

/// The runner was told to stop.
#[derive(Debug)]
struct Stop {
    cause: Cause,
    /// When to tell it again.
    repeat_at: Instant,
    /// When to kill it, and then again.
    kill_at: Instant,
    /// When to stop waiting for its end.
    give_up_at: Instant,
}

impl Machine {
    /// Nothing assigned.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Unassigned,
            deadline: None,
        }
    }

    /// The phase at this moment.
    pub(crate) fn phase(&self) -> RunnerPhase {
        match &self.state {
            State::Unassigned => RunnerPhase::Unassigned,
            State::Alive(alive) | State::Orphaned { alive, .. } => alive.phase,
            State::Finished => RunnerPhase::Finished,
        }
    }

    /// Whether a job is, or may be, the runner's.
    pub(crate) fn busy(&self) -> bool {
        matches!(self.phase(), RunnerPhase::Assigned | RunnerPhase::Running)
    }

    /// Whether the runner was told to stop and has yet to end.
    pub(crate) fn stopping(&self) -> bool {
        matches!(&self.state, State::Alive(alive) if alive.stop.is_some())
    }

    /// Whether the process table must be looked at from time to time.
    pub(crate) fn wants_looks(&self) -> bool {
        matches!(self.state, State::Orphaned { .. })
    }

    /// When to call with [`Input::Tick`] at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Unassigned => self.interrupt_at(),
            State::Orphaned { until, .. } => earliest([Some(*until), self.interrupt_at()]),
            State::Alive(alive) => match &alive.stop {
                Some(stop) => earliest([
                    Some(stop.repeat_at),
                    Some(stop.kill_at),
                    Some(stop.give_up_at),
                ]),
                None => earliest([
                    alive.watchdog(&self.limits).map(|(at, _)| at),
                    self.interrupt_at(),
                ]),
            },
            State::Finished => None,
        }
    }

    /// Takes in what happened at `now`, and says what is to be done, in order.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Settings {
                interrupt_lead,
                stop_grace,
            } => {
                let limits = &mut self.limits;
                limits.interrupt_lead = interrupt_lead.unwrap_or(limits.interrupt_lead);
                limits.stop_grace = stop_grace.unwrap_or(limits.stop_grace);
            }
            Input::Started => self.started(now, &mut actions),
            Input::StartFailed(reason) => {
                if matches!(self.state, State::Unassigned) {
                    self.finish_without_process(RunnerOutcome::StartFailed, reason, &mut actions);
                }
            }
            Input::Console(line) => self.console(line, now, &mut actions),
            Input::Counter(counter) => {
                let phase = match counter {
                    Counter::SessionCreated => RunnerPhase::Listening,
                    Counter::JobAssigned => RunnerPhase::Assigned,
                    Counter::JobAcquired => RunnerPhase::Running,
                };
                self.advance(phase, now, &mut actions);
            }
            Input::Exited { exit, worker } => self.exited(exit, worker, now, &mut actions),
            Input::Looked { worker } => self.looked(worker, now, &mut actions),
            Input::Drain { deadline, worker } => {
                self.deadline = earliest([self.deadline, deadline]);
                self.report_look(worker, now, &mut actions);
            }
            Input::Retire { worker } => self.retire(worker, now, &mut actions),
            Input::Shutdown(reason) => self.stop(Cause::Shutdown(reason), now, &mut actions),
            Input::Tick => {}
        }
        self.time_passes(now, &mut actions);
        actions
    }

    fn interrupt_at(&self) -> Option<Instant> {
        // A lead longer than all time so far means: at once.
        let deadline = self.deadline?;
        let lead = self.limits.interrupt_lead;
        Some(deadline.checked_sub(lead).unwrap_or(deadline))
    }

    fn started(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Unassigned) {
            self.state = State::Alive(Alive {
                phase: RunnerPhase::Starting,
                since: now,
                conflict: false,
                job: None,
                result: None,
                version_refused: false,
                stop: None,
            });
            actions.push(Action::Phase {
                phase: RunnerPhase::Starting,
                job: None,
            });
        }
    }

    fn console(&mut self, line: ConsoleLine, now: Instant, actions: &mut Vec<Action>) {
        let State::Alive(alive) = &mut self.state else {
            return;
        };
        match line {
            ConsoleLine::Listening => self.advance(RunnerPhase::Listening, now, actions),
            ConsoleLine::RunningJob(name) => {
                alive.job.get_or_insert(name);
                self.advance(RunnerPhase::Running, now, actions);
            }
            ConsoleLine::JobCompleted(name, result) => {
                alive.job.get_or_insert(name);
                // One job, one result: the first one, since what follows could only be forged.
                alive.result.get_or_insert(Printed {
                    result,
                    at: now,
                    after_stop: alive.stop.is_some(),
                });
                self.advance(RunnerPhase::Running, now, actions);
            }
            ConsoleLine::SessionConflict => alive.conflict = true,
            ConsoleLine::VersionDeprecated => alive.version_refused = true,
            ConsoleLine::Version(_) | ConsoleLine::Other => {}
        }
    }

    fn advance(&mut self, phase: RunnerPhase, now: Instant, actions: &mut Vec<Action>) {
        if let State::Alive(alive) = &mut self.state
            && phase > alive.phase
        {
            alive.phase = phase;
            alive.since = now;
            let job = alive.job.clone();
            actions.push(Action::Phase { phase, job });
        }
    }

    fn exited(&mut self, exit: Exit, worker: bool, now: Instant, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Alive(alive) => {
                let clean = JobResult::from_code(exit).is_some() || exit == Exit::Code(0);
                let abandons = alive.phase == RunnerPhase::Running
                    && alive.result.is_none()
                    && alive.stop.is_none()
                    && !clean;
                if abandons && worker {
                    self.state = State::Orphaned {
                        alive,
                        exit,
                        until: now + self.limits.orphaned_worker,
                    };
                } else {
                    actions.push(Action::Finished(alive.finish(exit)));
                }
            }
            other => self.state = other,
        }
    }

    fn looked(&mut self, worker: bool, now: Instant, actions: &mut Vec<Action>) {
        if worker {
            // A worker exists for a job only (JobDispatcher.cs: one process per job).
            self.advance(RunnerPhase::Running, now, actions);
        } else {
            self.end_orphaned(actions);
        }
    }

    /// Reports the orphaned runner's end, and kills what is left of it.
    fn end_orphaned(&mut self, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Orphaned { alive, exit, .. } => {
                actions.push(Action::Kill);
                actions.push(Action::Finished(alive.finish(exit)));
            }
            other => self.state = other,
        }
    }

    /// Says whether the runner is idle, after a fresh look.
    fn report_look(&mut self, worker: bool, now: Instant, actions: &mut Vec<Action>) -> bool {
        if worker {
            self.looked(true, now, actions);
        }
        let idle = !self.busy() && !worker;
        let phase = self.phase();
        actions.push(Action::Drained { idle, phase });
        idle
    }

    fn retire(&mut self, worker: bool, now: Instant, actions: &mut Vec<Action>) {
        let mut looked = Vec::new();
        if self.report_look(worker, now, &mut looked) {
            self.stop(Cause::Retired, now, actions);
        } else {
            actions.append(&mut looked);
        }
    }

    fn stop(&mut self, cause: Cause, now: Instant, actions: &mut Vec<Action>) {
        let grace = match cause {
            Cause::NotListening | Cause::NotAcquired | Cause::NotExited => self.limits.hang_grace,
            Cause::Retired | Cause::Deadline | Cause::Shutdown(_) => self.limits.stop_grace,
        };
        match &mut self.state {
            State::Unassigned => {
                let reason = format!("no runner was started: {}", cause.text());
                self.finish_without_process(RunnerOutcome::Unused, reason, actions);
            }
            State::Alive(alive) => {
                if alive.stop.is_none() {
                    alive.stop = Some(Stop {
                        cause,
                        repeat_at: now + self.limits.repeat_interrupt,
                        kill_at: now + grace,
                        give_up_at: now + grace + self.limits.give_up,
                    });
                    actions.push(Action::Interrupt);
                }
            }
            State::Orphaned { .. } => self.end_orphaned(actions),
            State::Finished => {}
        }
    }

    fn finish_without_process(
        &mut self,
        outcome: RunnerOutcome,
        reason: String,
        actions: &mut Vec<Action>,
    ) {
        self.state = State::Finished;
        actions.push(Action::Finished(Finish {
            outcome,
            exit: None,
            job: None,
            reason,
        }));
    }

    /// Does what is due at `now`.
    fn time_passes(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let interrupt = self.interrupt_at().is_some_and(|at| at <= now);
        match &mut self.state {
            State::Alive(Alive {
                stop: Some(stop), ..
            }) => {
                let give_up = stop.press(now, &self.limits, actions);
                if give_up {
                    self.exited(Exit::Unknown, false, now, actions);
                }
            }
            State::Alive(alive) => {
                let overdue = alive.watchdog(&self.limits).filter(|(at, _)| *at <= now);
                if let Some((_, cause)) = overdue {
                    self.stop(cause, now, actions);
                } else if interrupt {
                    self.stop(Cause::Deadline, now, actions);
                }
            }
            State::Orphaned { until, .. } if *until <= now => self.end_orphaned(actions),
            State::Unassigned | State::Orphaned { .. } if interrupt => {
                self.stop(Cause::Deadline, now, actions);
            }
            State::Unassigned | State::Orphaned { .. } | State::Finished => {}
        }
    }
}

impl Alive {
    /// The next thing that the runner must have done, by when, and what it is if it hasn't.
    fn watchdog(&self, limits: &Limits) -> Option<(Instant, Cause)> {
        if let Some(printed) = &self.result {
            return Some((printed.at + limits.exit_after_result, Cause::NotExited));
        }
        match self.phase {
            RunnerPhase::Starting => {
                let limit = if self.conflict {
                    limits.connect_after_conflict
                } else {
                    limits.connect
                };
                Some((self.since + limit, Cause::NotListening))
            }
            RunnerPhase::Assigned => Some((self.since + limits.acquire, Cause::NotAcquired)),
            _ => None,
        }
    }

    fn finish(self, exit: Exit) -> Finish {
        let seen = Seen {
            phase: self.phase,
            result: self.result.map(|p| (p.result, p.after_stop)),
            stop: self.stop.map(|stop| stop.cause),
            version_refused: self.version_refused,
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

impl Stop {
    /// Repeats the signal, or kills. True once the runner's end is no longer waited for.
    fn press(&mut self, now: Instant, limits: &Limits, actions: &mut Vec<Action>) -> bool {
        if now >= self.give_up_at {
            actions.push(Action::Kill);
            return true;
        }
        if now >= self.kill_at {
            self.kill_at = now + limits.repeat_interrupt;
            self.repeat_at = self.give_up_at;
            actions.push(Action::Kill);
        } else if now >= self.repeat_at {
            self.repeat_at = now + limits.repeat_interrupt;
            actions.push(Action::Interrupt);
        }
        false
    }
}

impl JobResult {
    fn from_code(exit: Exit) -> Option<Self> {
        match exit {
            Exit::Code(code) => Self::from_exit_code(code),
            Exit::Signal(_) | Exit::Unknown => None,
        }
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
