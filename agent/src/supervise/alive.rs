//! A runner that lives: what was seen of it, and what it must do by when.

use std::time::Instant;

use muster_proto::v1::RunnerPhase;

use super::console::JobResult;
use super::messages::{Action, Finish};
use super::outcome::{self, Cause, Exit, Seen};
use super::watchdog::Limits;

/// What is known of the runner.
#[derive(Debug)]
pub(super) struct Alive {
    /// The furthest phase.
    pub(super) phase: RunnerPhase,
    /// Since when.
    pub(super) since: Instant,
    /// It met another session of its registration.
    pub(super) conflict: bool,
    /// Name of its job.
    pub(super) job: Option<String>,
    /// The console's word on the job.
    result: Option<Printed>,
    /// The console said that GitHub refuses its version.
    pub(super) version_refused: bool,
    /// Set once it was told to stop.
    pub(super) stop: Option<Stop>,
}

#[derive(Debug)]
struct Printed {
    result: JobResult,
    at: Instant,
    after_stop: bool,
}

/// The runner was told to stop.
#[derive(Debug)]
pub(super) struct Stop {
    cause: Cause,
    /// When to tell it again.
    repeat_at: Instant,
    /// When to kill it, and then again.
    kill_at: Instant,
    /// When to stop waiting for its end.
    give_up_at: Instant,
}

impl Alive {
    /// Just started.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: RunnerPhase::Starting,
            since: now,
            conflict: false,
            job: None,
            result: None,
            version_refused: false,
            stop: None,
        }
    }

    /// The console named the job's result. One job, one result: the first counts, since what follows
    /// could only be forged.
    pub(super) fn set_result(&mut self, result: JobResult, now: Instant) {
        self.result.get_or_insert(Printed {
            result,
            at: now,
            after_stop: self.stop.is_some(),
        });
    }

    /// Whether this end leaves a job alone that nobody has ended.
    pub(super) fn abandons_job(&self, exit: Exit) -> bool {
        let clean = match exit {
            Exit::Code(code) => code == 0 || JobResult::from_exit_code(code).is_some(),
            Exit::Signal(_) | Exit::Unknown => false,
        };
        self.phase == RunnerPhase::Running && self.result.is_none() && self.stop.is_none() && !clean
    }

    /// The next thing that the runner must have done, by when, and what it is if it hasn't.
    pub(super) fn watchdog(&self, limits: &Limits) -> Option<(Instant, Cause)> {
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

    /// The end, judged.
    pub(super) fn finish(self, exit: Exit) -> Finish {
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
    /// Told at `now`.
    pub(super) fn new(cause: Cause, now: Instant, limits: &Limits) -> Self {
        let grace = match cause {
            Cause::NotListening | Cause::NotAcquired | Cause::NotExited => limits.hang_grace,
            Cause::Retired | Cause::Deadline | Cause::Shutdown(_) => limits.stop_grace,
        };
        Self {
            cause,
            repeat_at: now + limits.repeat_interrupt,
            kill_at: now + grace,
            give_up_at: now + grace + limits.give_up,
        }
    }

    /// When to call [`Stop::press`] at the latest.
    pub(super) fn next(&self) -> Instant {
        self.repeat_at.min(self.kill_at).min(self.give_up_at)
    }

    /// Repeats the signal, or kills. True once the runner's end is no longer waited for.
    pub(super) fn press(
        &mut self,
        now: Instant,
        limits: &Limits,
        actions: &mut Vec<Action>,
    ) -> bool {
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
