//! Drain and end: how a runner leaves, and what must be gone afterwards.

use jiff::Timestamp;

use super::Fleet;
use super::time::NOT_LISTENED;
use super::turn::Turn;
use crate::effect::Effect;
use crate::event::Outcome;
use crate::ids::LaunchId;
use crate::loss::Loss;
use crate::rerun::Cause;
use crate::runner::{Drain, Instance, Registration, Work};

impl Fleet {
    /// Lets a runner take no new job and leave when it is done.
    pub(super) fn drain(
        &mut self,
        launch: &LaunchId,
        reason: String,
        deadline: Option<Timestamp>,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("drain: no launch {launch}"));
            return;
        };
        if runner.is_over() {
            turn.refuse(format!("drain: {launch} is over"));
            return;
        }
        if let Some(drain) = &mut runner.drain {
            let sooner = deadline.is_some_and(|new| drain.deadline.is_none_or(|old| new < old));
            if sooner {
                drain.deadline = deadline;
                turn.touch(runner);
                self.ask_to_drain(launch, turn);
            }
            return;
        }
        turn.tell(runner, "draining", reason.clone());
        let now = turn.now;
        runner.drain = Some(Drain {
            reason: reason.clone(),
            since: now,
            deadline,
            asked_at: now,
            retired: false,
        });
        match runner.work {
            Work::Booting | Work::Enrolled => self.end(launch, None, reason, turn),
            Work::Assigning => self.deregister(launch, turn),
            Work::Starting | Work::Idle if runner.silent_since.is_some() => {
                self.deregister(launch, turn);
            }
            Work::Starting | Work::Idle | Work::Busy => self.ask_to_drain(launch, turn),
            // Its agent is asked once it has come.
            Work::Found | Work::Over { .. } => {}
        }
    }

    /// Tells the agent of its drain, or that its registration is gone.
    pub(super) fn ask_to_drain(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let Some(drain) = &mut runner.drain else {
            return;
        };
        drain.asked_at = turn.now;
        let (launch, reason) = (launch.clone(), drain.reason.clone());
        if drain.retired {
            turn.emit(Effect::Retire { launch, reason });
        } else {
            turn.emit(Effect::Drain {
                launch,
                reason,
                deadline: drain.deadline,
            });
        }
        turn.touch(runner);
    }

    /// The host looked at its runner.
    pub(super) fn drain_reported(&mut self, launch: &LaunchId, idle: bool, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        if runner.is_over() {
            return;
        }
        if !idle {
            if matches!(runner.work, Work::Starting | Work::Idle) {
                self.took_a_job(launch, turn);
            }
            return;
        }
        let waits = matches!(runner.work, Work::Starting | Work::Idle);
        if runner.drain.is_some()
            && waits
            && matches!(runner.registration, Registration::Exists { .. })
        {
            self.deregister(launch, turn);
        }
    }

    /// Asks GitHub to delete the registration of a launch.
    pub(super) fn deregister(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let id = runner.github_id();
        let step = runner.set_registration(
            Registration::Deleting {
                id,
                asked_at: turn.now,
            },
            turn.now,
        );
        if turn.stepped(runner, step) {
            turn.emit(Effect::Deregister {
                launch: launch.clone(),
                scope: runner.scope.clone(),
                name: runner.name.clone(),
                id,
            });
        }
    }

    /// A registration is gone while the runner may still be at work.
    pub(super) fn registration_gone(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let late = self.is_late_to_listen(launch, turn.now);
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let unasked = if late {
            NOT_LISTENED
        } else {
            "its registration is gone"
        };
        match runner.work {
            Work::Booting | Work::Enrolled | Work::Assigning => {
                let reason = runner.drain.as_ref().map(|drain| drain.reason.clone());
                let outcome = late.then_some(Outcome::StartFailed);
                // It may have had a job all the same, of which its agent could tell nobody.
                self.cut_short(launch, Cause::AgentSilent, turn);
                self.end(
                    launch,
                    outcome,
                    reason.unwrap_or_else(|| unasked.to_owned()),
                    turn,
                );
            }
            Work::Starting | Work::Idle => {
                // 204 is no proof that no job was given: the host looks again before it stops.
                let now = turn.now;
                let drain = runner.drain.get_or_insert_with(|| Drain {
                    reason: unasked.to_owned(),
                    since: now,
                    deadline: None,
                    asked_at: now,
                    retired: false,
                });
                drain.retired = true;
                self.ask_to_drain(launch, turn);
            }
            Work::Busy | Work::Found | Work::Over { .. } => return,
        }
        if late {
            // From here on another is launched in its place.
            self.failed_by(launch, false, NOT_LISTENED, turn);
        }
    }

    /// Ends the work of a launch, and sees to it that instance and registration go.
    pub(super) fn end(
        &mut self,
        launch: &LaunchId,
        outcome: Option<Outcome>,
        reason: String,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("end: no launch {launch}"));
            return;
        };
        if runner.is_over() {
            return;
        }
        turn.changes.losses.extend(Loss::of(runner, outcome));
        let step = runner.set_work(
            Work::Over {
                outcome,
                reason: reason.clone(),
            },
            turn.now,
        );
        turn.stepped(runner, step);
        turn.tell(runner, "ended", reason);
        self.release(launch, turn);
    }

    /// Asks for the end of whatever is left of a launch whose work is over.
    pub(super) fn release(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if let Instance::Exists { id } = &runner.instance {
            let instance = id.clone();
            let next = Instance::Ending {
                id: instance.clone(),
                asked_at: turn.now,
            };
            let step = runner.set_instance(next, turn.now);
            turn.stepped(runner, step);
            turn.emit(Effect::Terminate {
                launch: launch.clone(),
                account: runner.account.clone(),
                instance,
                at_once: runner.left_nothing(),
            });
        }
        if matches!(runner.registration, Registration::Exists { .. }) {
            self.deregister(launch, turn);
        }
        self.withdraw(launch, turn);
    }

    /// Asks for no instance of a launch whose instance is not known, if that can still be had.
    pub(super) fn withdraw(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.instance == Instance::Requested {
            runner.marks.withdrawn_at = Some(turn.now);
            turn.emit(Effect::Withdraw {
                launch: launch.clone(),
                account: runner.account.clone(),
            });
            turn.touch(runner);
        }
    }

    /// Wants a registration for a launch. Only ever called for a host that has had no assignment.
    pub(super) fn mint(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let step = runner.set_registration(Registration::Requested, turn.now);
        if turn.stepped(runner, step) {
            turn.emit(Effect::Mint {
                launch: launch.clone(),
                pool: runner.pool.clone(),
                name: runner.name.clone(),
                shape: runner.shape.clone(),
            });
        }
    }
}
