//! What time alone brings about: limits that pass, requests that are repeated, things forgotten.

use std::time::Duration;

use jiff::Timestamp;

use super::Fleet;
use super::demand::elapsed;
use super::turn::Turn;
use crate::effect::Effect;
use crate::event::Outcome;
use crate::ids::LaunchId;
use crate::pool::TimeLimits;
use crate::rerun::Cause;
use crate::runner::{Instance, Registration, Runner, Stage, Work};

/// After this long without an answer or an effect, a termination is asked for again.
const TERMINATE_AGAIN: Duration = Duration::from_secs(60);
/// After this long without an answer a launch that nobody needs is withdrawn again.
const WITHDRAW_AGAIN: Duration = Duration::from_secs(60);
/// After this long a deletion that GitHub refused is asked for again.
const DEREGISTER_AGAIN: Duration = Duration::from_secs(60);
/// After this long an agent that didn't answer is asked to drain again.
const DRAIN_AGAIN: Duration = Duration::from_secs(10);
/// An agent whose runner's registration is gone has this long to say whether a job came before that.
const RETIRES_WITHIN: Duration = Duration::from_secs(30);
/// Why a runner ends that is late to listen.
pub(super) const NOT_LISTENED: &str = "its runner did not listen in time";
/// An interrupted instance that is still there this long after its time is ended by us.
const AFTER_DEADLINE: Duration = Duration::from_secs(30);
/// A runner whose job GitHub calls completed has this long to end by itself.
const AFTER_COMPLETION: Duration = Duration::from_secs(120);
/// The same where its agent still speaks: longer than any of the agent's own limits, which let a job end
/// well that GitHub has given up.
const AFTER_COMPLETION_HEARD: Duration = Duration::from_secs(15 * 60);
/// An idle runner is replaced after this part of its lifetime, so that no job is cut short by it.
const RETIRE_AT: f64 = 0.75;
/// Time between two looks at the limits while anything lives.
const PULSE: Duration = Duration::from_secs(1);

impl Fleet {
    pub(super) fn restarted(&mut self, turn: &mut Turn) {
        self.hears_since = turn.now;
        for runner in self.runners.values_mut().filter(|runner| !runner.is_over()) {
            // One that was lost before has all its time again to come back, as nobody listened meanwhile; but since
            // when it is silent tells its end from that of its job.
            if runner.work != Work::Booting && runner.silent_since.is_none() {
                runner.silent_since = Some(turn.now);
                turn.touch(runner);
            }
        }
        // What was withdrawn is known to the process that was told.
        let withdrawn = self.present_runners();
        let withdrawn = withdrawn.filter(|runner| runner.marks.withdrawn_at.is_some());
        let withdrawn: Vec<LaunchId> = withdrawn.map(|runner| runner.launch.clone()).collect();
        for launch in withdrawn {
            self.withdraw(&launch, turn);
        }
        self.shorten_holds(turn);
        self.redecide(turn);
        self.end_trials(turn);
        let orphaned: Vec<LaunchId> = self
            .runners
            .values()
            .filter(|runner| !runner.is_over() && self.pool(&runner.pool).is_none())
            .map(|runner| runner.launch.clone())
            .collect();
        for launch in orphaned {
            self.drain(
                &launch,
                "its pool is not configured any more".to_owned(),
                None,
                turn,
            );
        }
        self.tick(turn);
    }

    pub(super) fn tick(&mut self, turn: &mut Turn) {
        let launches: Vec<LaunchId> = self.current.launches().cloned().collect();
        for launch in launches {
            self.tick_runner(&launch, turn);
        }
        for index in 0..self.spec.pools.len() {
            let surplus = self.surplus(&self.spec.pools[index], turn.now);
            for launch in surplus.launching {
                let asked = self
                    .runners
                    .get(&launch)
                    .and_then(|it| it.marks.withdrawn_at);
                if asked.is_none_or(|at| elapsed(at, turn.now) >= WITHDRAW_AGAIN) {
                    self.withdraw(&launch, turn);
                }
            }
            for launch in surplus.waiting {
                self.drain(&launch, "nobody needs it".to_owned(), None, turn);
            }
        }
        self.tick_jobs(turn);
        self.tick_reruns(turn);
        self.forget(turn);
    }

    fn tick_runner(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        if runner.is_over() {
            self.ask_again(launch, turn);
            return;
        }
        let limits = self
            .pool(&runner.pool)
            .map(|pool| pool.limits)
            .unwrap_or_default();
        if let Some((outcome, reason)) = self.overdue(runner, &limits, turn.now) {
            if outcome == Outcome::StartFailed && self.leaves_first(launch, turn) {
                return;
            }
            let Some(runner) = self.runners.get(launch) else {
                return;
            };
            let silent = runner.silent_since.is_some();
            let retired = runner.drain.as_ref().is_some_and(|drain| drain.retired);
            // What was announced has come, whether or not the host is there to tell.
            let taken = runner.notice.is_some() && outlived(runner, turn.now);
            let aged = elapsed(runner.marks.created_at, turn.now) >= limits.lifetime;
            if (silent || taken) && !aged {
                self.cut_short(launch, Cause::AgentSilent, turn);
            }
            self.end(launch, Some(outcome), reason.clone(), turn);
            if outcome.is_broken() && !retired {
                self.failed_by(launch, false, &reason, turn);
            }
            return;
        }
        let silent = runner
            .silent_since
            .map(|since| self.unanswered(since, turn.now));
        let drain_asked = runner.drain.as_ref().map(|drain| drain.asked_at);
        let waits = matches!(runner.work, Work::Assigning | Work::Starting | Work::Idle);
        let old = elapsed(runner.marks.created_at, turn.now) >= limits.lifetime.mul_f64(RETIRE_AT);
        if runner.work == Work::Idle && runner.drain.is_none() && old {
            self.drain(
                launch,
                "it comes close to its maximum lifetime".to_owned(),
                None,
                turn,
            );
        } else if waits && silent.is_some_and(|silent| silent >= limits.silence) {
            if runner.drain.is_none() {
                let reason = "its agent has been silent for too long".to_owned();
                self.drain(launch, reason, None, turn);
            } else if matches!(runner.registration, Registration::Exists { .. }) {
                self.deregister(launch, turn);
            }
        } else if waits && drain_asked.is_some_and(|at| elapsed(at, turn.now) >= DRAIN_AGAIN) {
            self.ask_to_drain(launch, turn);
        }
    }

    /// Whether a runner has used up one of its times, and which.
    fn overdue(
        &self,
        runner: &Runner,
        limits: &TimeLimits,
        now: Timestamp,
    ) -> Option<(Outcome, String)> {
        let since = |at: Timestamp| self.unanswered(at, now);
        if elapsed(runner.marks.created_at, now) >= limits.lifetime {
            return Some((
                Outcome::Lost,
                "it reached the pool's maximum lifetime".to_owned(),
            ));
        }
        // While it is only asked for, its provider says what holds it up. Another launch would not go
        // faster, and both would be made in the end.
        let launched_at = runner
            .marks
            .launched_at
            .filter(|_| runner.stage() == Stage::Booting);
        if launched_at.is_some_and(|at| since(at) >= limits.boot) {
            return Some((Outcome::StartFailed, "it did not enrol in time".to_owned()));
        }
        if self.starts_too_long(runner, limits, now) {
            return Some((Outcome::StartFailed, NOT_LISTENED.to_owned()));
        }
        if let Some(drain) = &runner.drain {
            if outlived(runner, now) {
                return Some((Outcome::Lost, "it outlived its interruption".to_owned()));
            }
            let silent = runner
                .silent_since
                .is_some_and(|at| since(at) >= limits.silence);
            if drain.retired && silent && runner.work != Work::Busy {
                return Some((
                    Outcome::Lost,
                    "its agent is silent and its registration gone".to_owned(),
                ));
            }
        }
        let job = runner.job.and_then(|job| self.jobs.get(&job));
        // What GitHub has not said to have ended may run on.
        let ended_at = job
            .filter(|job| job.closed.is_none())
            .and_then(|job| job.completed_at);
        if runner.work == Work::Busy
            && ended_at.is_some_and(|at| since(at) >= AFTER_COMPLETION_HEARD)
        {
            let reason = "its job is completed and its runner does not end".to_owned();
            return Some((Outcome::Lost, reason));
        }
        let silent_for = runner.silent_since.map(since)?;
        match runner.work {
            Work::Busy if silent_for >= limits.silence_busy => {
                Some((Outcome::Lost, "its agent fell silent with a job".to_owned()))
            }
            Work::Busy => {
                let ended_at = ended_at?;
                (since(ended_at) >= AFTER_COMPLETION && silent_for >= AFTER_COMPLETION).then(|| {
                    (
                        Outcome::Lost,
                        "its job is completed and its agent silent".to_owned(),
                    )
                })
            }
            Work::Found if silent_for >= limits.silence_busy => {
                Some((Outcome::Lost, "its agent has not come back".to_owned()))
            }
            Work::Enrolled if silent_for >= limits.silence => {
                Some((Outcome::Lost, "its agent fell silent".to_owned()))
            }
            _ => None,
        }
    }

    /// A runner that is not known to listen may do so, and have a job that nobody has told of yet. Only GitHub can
    /// say so, by refusing to delete its registration, and after that its host. Whether that is still to be waited for.
    fn leaves_first(&mut self, launch: &LaunchId, turn: &mut Turn) -> bool {
        let Some(runner) = self.runners.get(launch) else {
            return false;
        };
        if !matches!(runner.work, Work::Assigning | Work::Starting) {
            return false;
        }
        match runner.registration {
            Registration::Exists { .. } => {
                let detail =
                    format!("{NOT_LISTENED}; its registration goes first, in case it has a job");
                turn.tell(runner, "late", detail);
                self.deregister(launch, turn);
                true
            }
            Registration::Deleting { .. } => true,
            _ => {
                let retired = runner.drain.as_ref().filter(|drain| drain.retired);
                retired.is_some_and(|drain| elapsed(drain.asked_at, turn.now) < RETIRES_WITHIN)
            }
        }
    }

    /// Whether a runner has not listened for longer than its pool allows.
    pub(super) fn is_late_to_listen(&self, launch: &LaunchId, now: Timestamp) -> bool {
        self.runners.get(launch).is_some_and(|runner| {
            let limits = self.pool(&runner.pool).map(|pool| pool.limits);
            self.starts_too_long(runner, &limits.unwrap_or_default(), now)
        })
    }

    fn starts_too_long(&self, runner: &Runner, limits: &TimeLimits, now: Timestamp) -> bool {
        let starts = matches!(
            runner.work,
            Work::Enrolled | Work::Assigning | Work::Starting
        );
        let since = runner.marks.registered_at.or(runner.marks.enrolled_at);
        let since = since.unwrap_or(runner.marks.created_at);
        starts && !runner.awaits_registration() && self.unanswered(since, now) >= limits.start
    }

    /// How long a host has had to be heard since a time: while the store was out of order, or no process ran, it may
    /// have spoken in vain.
    fn unanswered(&self, since: Timestamp, now: Timestamp) -> Duration {
        elapsed(since.max(self.hears_since), now)
    }

    /// Repeats what was asked for a runner whose work is over and that is still there.
    fn ask_again(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let now = turn.now;
        if let Instance::Ending { id, asked_at } = &mut runner.instance
            && elapsed(*asked_at, now) >= TERMINATE_AGAIN
        {
            *asked_at = now;
            let instance = id.clone();
            let account = runner.account.clone();
            turn.emit(Effect::Terminate {
                launch: launch.clone(),
                account,
                instance,
                at_once: runner.left_nothing(),
            });
            turn.touch(runner);
        }
        let asked = runner.marks.withdrawn_at;
        let withdraw = asked.is_none_or(|at| elapsed(at, now) >= WITHDRAW_AGAIN);
        if let Registration::Deleting { asked_at, .. } = runner.registration
            && elapsed(asked_at, now) >= DEREGISTER_AGAIN
        {
            self.deregister(launch, turn);
        }
        if withdraw {
            self.withdraw(launch, turn);
        }
    }

    /// How long until the next look at the limits: a second while anything lives, as the limits are
    /// seconds and minutes and a look is cheap; a minute otherwise.
    pub(super) fn pulse(&self) -> Duration {
        if self.current.is_empty() {
            PULSE * 60
        } else {
            PULSE
        }
    }
}

/// Whether a runner is still there although its instance was to go.
fn outlived(runner: &Runner, now: Timestamp) -> bool {
    let deadline = runner.drain.as_ref().and_then(|drain| drain.deadline);
    deadline.is_some_and(|at| elapsed(at, now) >= AFTER_DEADLINE)
}
