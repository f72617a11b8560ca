//! The supervision of one runner as a state machine: no I/O, and time only as an argument.
//!
//! It merges what the console, the perf files, the exit status and the process table say into phases
//! that only advance, decides when the runner must be stopped, and in the end what became of it. Each
//! source but the exit status can be forged by the job, so none but that can end anything by itself.

use std::time::Instant;

use muster_proto::v1::{RunnerOutcome, RunnerPhase};

use super::alive::{Alive, Stop};
use super::console::ConsoleLine;
pub(crate) use super::messages::{Action, Finish, Input};
use super::outcome::{Cause, Exit};
use super::perflog::Counter;
use super::watchdog::Limits;

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
                Some(stop) => Some(stop.next()),
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
            self.state = State::Alive(Alive::new(now));
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
                alive.set_result(result, now);
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
                if worker && alive.abandons_job(exit) {
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
        match &mut self.state {
            State::Unassigned => {
                let reason = format!("no runner was started: {}", cause.text());
                self.finish_without_process(RunnerOutcome::Unused, reason, actions);
            }
            State::Alive(alive) => {
                if alive.stop.is_none() {
                    alive.stop = Some(Stop::new(cause, now, &self.limits));
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

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
