//! The supervision of one runner as a state machine: no I/O, and time only as an argument.
//!
//! It merges what the console, the perf files, the exit status and the process table say into phases
//! that only advance, decides when the runner must be stopped, and in the end what became of it. Each
//! source but the exit status can be forged by the job. The worst that a job can do so is to have its
//! own runner stopped, and to have a failure taken for another: nothing that it writes makes a busy runner
//! look idle, takes a phase back, or makes a success of an end whose exit code doesn't name one.

use std::time::{Duration, Instant};

use muster_proto::v1::{RunnerOutcome, RunnerPhase, TroubleKind};
use serde::{Deserialize, Serialize};

use super::alive::{Alive, LOOK_SOON, Time};
pub(crate) use super::messages::{Action, Finish, Input};
use super::outcome::{Cause, Exit};
use super::phase::Phase;
use super::stop::Stop;
use super::watchdog::Limits;

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) limits: Limits,
    /// What its times are counted from.
    pub(super) begin: Instant,
    pub(super) state: State,
    /// When the instance goes, once that is known.
    pub(super) deadline: Option<Time>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Nothing was ever started.
    Unassigned,
    /// The runner's process exists.
    Alive(Box<Alive>),
    /// The runner died in its job without a word, and its worker goes on. Killing it would lose a job
    /// that may still end well: the lock on it lasts 10 minutes.
    Orphaned {
        alive: Box<Alive>,
        exit: Exit,
        since: Time,
    },
    /// The end was reported.
    Finished,
}

impl Machine {
    /// Nothing assigned.
    pub(crate) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            begin: now,
            state: State::Unassigned,
            deadline: None,
        }
    }

    /// The phase at this moment.
    pub(crate) fn phase(&self) -> RunnerPhase {
        self.own_phase().into()
    }

    fn own_phase(&self) -> Phase {
        match &self.state {
            State::Unassigned => Phase::Unassigned,
            State::Alive(alive) | State::Orphaned { alive, .. } => alive.phase,
            State::Finished => Phase::Finished,
        }
    }

    /// Whether a job is, or may be, the runner's.
    pub(crate) fn busy(&self) -> bool {
        self.own_phase().busy()
    }

    /// How long after `now` a job is told to stop, if its instance is to go at a known time.
    pub(crate) fn stops_in(&self, now: Instant) -> Option<std::time::Duration> {
        Some(self.interrupt_at()?.saturating_sub(self.time(now)))
    }

    /// Whether the runner was told to stop and has yet to end.
    pub(crate) fn stopping(&self) -> bool {
        matches!(&self.state, State::Alive(alive) if alive.stop.is_some())
    }

    /// How often the process table must be looked at, if at all, for [`Input::Looked`].
    pub(crate) fn look_every(&self) -> Option<Duration> {
        match &self.state {
            State::Alive(alive) => alive.look_every(&self.limits),
            State::Orphaned { .. } => Some(self.limits.look.min(LOOK_SOON)),
            State::Unassigned | State::Finished => None,
        }
    }

    /// When to call with [`Input::Tick`] at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let limits = &self.limits;
        let next = match &self.state {
            State::Unassigned => self.interrupt_at(),
            State::Orphaned { since, .. } => {
                earliest([Some(*since + limits.orphaned_worker), self.interrupt_at()])
            }
            State::Alive(alive) => {
                let ends = match &alive.stop {
                    Some(stop) => Some(stop.next()),
                    None => earliest([
                        alive.watchdog(limits).map(|(at, _)| at),
                        self.interrupt_at(),
                    ]),
                };
                earliest([ends, alive.soft_deadline(limits)])
            }
            State::Finished => None,
        };
        next.and_then(|at| self.begin.checked_add(at))
    }

    /// Takes in what happened at `now`, and says what is to be done, in order.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        let at = self.time(now);
        match input {
            Input::Settings {
                interrupt_lead,
                stop_grace,
            } => {
                let limits = &mut self.limits;
                limits.interrupt_lead = interrupt_lead.unwrap_or(limits.interrupt_lead);
                limits.stop_grace = stop_grace.unwrap_or(limits.stop_grace);
            }
            Input::Started => self.started(at, &mut actions),
            Input::StartFailed(reason) => {
                if matches!(self.own_phase(), Phase::Unassigned | Phase::Starting) {
                    self.finish_without_process(RunnerOutcome::StartFailed, reason, &mut actions);
                }
            }
            Input::Console(line) => self.alive(|alive| alive.console(line, at, &mut actions)),
            Input::ConsoleGap => self.alive(|alive| alive.console_gap = true),
            Input::Counter(counter) => {
                self.alive(|alive| alive.counter(counter, at, &mut actions));
            }
            Input::Exited { exit, worker } => self.exited(exit, worker, at, &mut actions),
            Input::Looked { worker } => self.looked(worker, at, &mut actions),
            Input::Drain { deadline, worker } => {
                let deadline = deadline.map(|deadline| self.time(deadline));
                self.deadline = earliest([self.deadline, deadline]);
                self.report_look(worker, at, &mut actions);
            }
            Input::Retire { worker } => self.retire(worker, at, &mut actions),
            Input::Shutdown(reason) => self.stop(Cause::Shutdown(reason), at, &mut actions),
            Input::Tick => {}
        }
        self.time_passes(at, &mut actions);
        actions
    }

    /// A moment in the machine's own time. What lies before its beginning is its beginning.
    pub(super) fn time(&self, at: Instant) -> Time {
        at.saturating_duration_since(self.begin)
    }

    fn alive(&mut self, take_in: impl FnOnce(&mut Alive)) {
        if let State::Alive(alive) = &mut self.state {
            take_in(alive);
        }
    }

    fn interrupt_at(&self) -> Option<Time> {
        Some(self.deadline?.saturating_sub(self.limits.interrupt_lead))
    }

    fn started(&mut self, now: Time, actions: &mut Vec<Action>) {
        if matches!(self.state, State::Unassigned) {
            self.state = State::Alive(Box::new(Alive::new(now)));
            actions.push(Action::Phase {
                phase: RunnerPhase::Starting,
                job: None,
            });
        }
    }

    fn exited(&mut self, exit: Exit, worker: bool, now: Time, actions: &mut Vec<Action>) {
        if worker {
            self.alive(|alive| alive.found_worker(now, actions));
        }
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Alive(alive) if worker && alive.abandons_worker(exit) => {
                actions.push(Action::Trouble {
                    kind: TroubleKind::OrphanedWorker,
                    detail: format!(
                        "the runner died in its job; its worker may go on for {} s",
                        self.limits.orphaned_worker.as_secs()
                    ),
                });
                self.state = State::Orphaned {
                    alive,
                    exit,
                    since: now,
                };
            }
            State::Alive(alive) => actions.push(Action::Finished(alive.finish(exit, None))),
            other => self.state = other,
        }
    }

    fn looked(&mut self, worker: bool, now: Time, actions: &mut Vec<Action>) {
        if worker {
            self.alive(|alive| alive.found_worker(now, actions));
        } else {
            self.alive(|alive| alive.found_no_worker(now));
            self.end_orphaned("then ended", now, actions);
        }
    }

    /// Reports the orphaned runner's end, and kills what is left of it. `how` is what became of its
    /// worker.
    fn end_orphaned(&mut self, how: &str, now: Time, actions: &mut Vec<Action>) {
        match std::mem::replace(&mut self.state, State::Finished) {
            State::Orphaned { alive, exit, since } => {
                let after = now.saturating_sub(since).as_secs();
                let orphaned = format!("its worker went on for {after} s and {how}");
                actions.push(Action::Kill);
                actions.push(Action::Finished(alive.finish(exit, Some(orphaned))));
            }
            other => self.state = other,
        }
    }

    /// Says whether the runner is idle, after a fresh look. Once the end is reported, that says it.
    fn report_look(&mut self, worker: bool, now: Time, actions: &mut Vec<Action>) -> bool {
        if matches!(self.state, State::Finished) {
            return false;
        }
        if worker {
            self.looked(true, now, actions);
        }
        let idle = !self.busy() && !worker;
        let phase = self.phase();
        actions.push(Action::Drained { idle, phase });
        idle
    }

    fn retire(&mut self, worker: bool, now: Time, actions: &mut Vec<Action>) {
        let mut looked = Vec::new();
        if self.report_look(worker, now, &mut looked) {
            self.stop(Cause::Retired, now, actions);
        } else {
            actions.append(&mut looked);
        }
    }

    fn stop(&mut self, cause: Cause, now: Time, actions: &mut Vec<Action>) {
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
            State::Orphaned { .. } => {
                let how = format!("was killed: {}", cause.text());
                self.end_orphaned(&how, now, actions);
            }
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
    fn time_passes(&mut self, now: Time, actions: &mut Vec<Action>) {
        let interrupt = self.interrupt_at().is_some_and(|at| at <= now);
        let limits = &self.limits;
        self.state.say_what_is_due(now, limits, actions);
        match &mut self.state {
            State::Alive(alive) => {
                if let Some(stop) = &mut alive.stop {
                    if stop.press(now, limits, actions) {
                        self.exited(Exit::Unknown, false, now, actions);
                    }
                    return;
                }
                let overdue = alive.watchdog(limits).filter(|(at, _)| *at <= now);
                if let Some((_, cause)) = overdue {
                    self.stop(cause, now, actions);
                } else if interrupt {
                    self.stop(Cause::Deadline, now, actions);
                }
            }
            State::Orphaned { since, .. } if *since + limits.orphaned_worker <= now => {
                self.end_orphaned("was killed, as its lock is lost by now", now, actions);
            }
            State::Unassigned | State::Orphaned { .. } if interrupt => {
                self.stop(Cause::Deadline, now, actions);
            }
            State::Unassigned | State::Orphaned { .. } | State::Finished => {}
        }
    }
}

impl State {
    fn say_what_is_due(&mut self, now: Time, limits: &Limits, actions: &mut Vec<Action>) {
        if let Self::Alive(alive) = self {
            alive.say_what_is_due(now, limits, actions);
        }
    }
}

fn earliest<const N: usize>(times: [Option<Time>; N]) -> Option<Time> {
    times.into_iter().flatten().min()
}
