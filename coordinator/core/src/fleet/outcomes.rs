//! What became of effects.

use super::Fleet;
use super::turn::Turn;
use crate::canary::Sign;
use crate::effect::Effect;
use crate::event::{DeregisterAnswer, LaunchFailure, MintFailure, Outcome};
use crate::ids::{GithubRunnerId, InstanceId, LaunchId, RunnerName};
use crate::offering::Offering;
use crate::rerun::Cause;
use crate::runner::{Instance, Registration, Work};

/// Names tried for one launch before it is given up.
const MINT_ATTEMPTS: u32 = 3;
/// Why a launch ended whose instance went before it enrolled.
const NEVER_ENROLLED: &str = "its instance ended before it enrolled; its log says why";

impl Fleet {
    pub(super) fn launched(
        &mut self,
        launch: &LaunchId,
        instance: &InstanceId,
        offering: Option<Offering>,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("launched: no launch {launch}"));
            return;
        };
        if runner.instance_id() == Some(instance) {
            return;
        }
        let step = runner.set_instance(
            Instance::Exists {
                id: instance.clone(),
            },
            turn.now,
        );
        if !turn.stepped(runner, step) {
            return;
        }
        let detail = match &offering {
            Some(offering) => format!("{instance}, {offering}"),
            None => instance.to_string(),
        };
        runner.offering = offering;
        turn.tell(runner, "launched", detail);
        if runner.is_over() {
            self.release(launch, turn);
        }
    }

    pub(super) fn launch_failed(
        &mut self,
        launch: &LaunchId,
        failure: LaunchFailure,
        detail: &str,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.instance != Instance::Requested {
            turn.refuse(format!(
                "{launch} was launched, and is now said to have failed: {detail}"
            ));
            return;
        }
        let step = runner.set_instance(Instance::Gone { id: None }, turn.now);
        turn.stepped(runner, step);
        let what = match failure {
            LaunchFailure::Withdrawn => "launch withdrawn",
            _ => "launch failed",
        };
        turn.tell(runner, what, detail);
        let (pool, shape) = (runner.pool.clone(), runner.shape.clone());
        self.end(launch, None, format!("launch failed: {detail}"), turn);
        match failure {
            LaunchFailure::Withdrawn => {}
            LaunchFailure::Permanent => {
                self.take_sign(launch, Sign::Failed, turn);
                self.failed_by(launch, true, detail, turn);
            }
            LaunchFailure::Capacity
            | LaunchFailure::Quota
            | LaunchFailure::Throttled
            | LaunchFailure::Unfit => {
                self.hold(&pool, &shape, failure == LaunchFailure::Unfit, detail, turn);
            }
        }
    }

    pub(super) fn minted(
        &mut self,
        launch: &LaunchId,
        name: &RunnerName,
        id: GithubRunnerId,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            turn.refuse(format!("minted: no launch {launch}"));
            return;
        };
        if runner.name != *name || runner.registration != Registration::Requested {
            if runner.github_id() != Some(id) {
                turn.refuse(format!(
                    "{name} was registered as {id}, and nobody waits for it"
                ));
                let (launch, scope) = (launch.clone(), runner.scope.clone());
                turn.emit(Effect::Deregister {
                    launch,
                    scope,
                    name: name.clone(),
                    id: Some(id),
                });
            }
            return;
        }
        let step = runner.set_registration(Registration::Exists { id: Some(id) }, turn.now);
        turn.stepped(runner, step);
        turn.tell(runner, "registered", format!("GitHub runner {id}"));
        if runner.is_over() {
            self.release(launch, turn);
        } else {
            let step = runner.set_work(Work::Assigning, turn.now);
            if turn.stepped(runner, step) {
                turn.emit(Effect::Assign {
                    launch: launch.clone(),
                    name: name.clone(),
                });
            }
        }
    }

    pub(super) fn mint_failed(
        &mut self,
        launch: &LaunchId,
        name: &RunnerName,
        failure: MintFailure,
        detail: &str,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.name != *name || runner.registration != Registration::Requested {
            turn.refuse(format!(
                "{name}: nobody waits for its registration: {detail}"
            ));
            return;
        }
        turn.tell(runner, "registration failed", detail);
        let exists = failure == MintFailure::NameTaken;
        let next = if exists {
            Registration::Exists { id: None }
        } else {
            Registration::None
        };
        let step = runner.set_registration(next, turn.now);
        turn.stepped(runner, step);
        let silent = runner.silent_since.is_some();
        if exists && runner.is_over() {
            self.release(launch, turn);
        } else if !exists {
            self.not_registered(launch, failure, detail, turn);
        } else if !silent {
            self.mint_another(launch, detail, turn);
        }
        // Or else its agent may have that registration, if the store was put back to a time before it, and says so
        // once it is back.
    }

    /// Gives a host that has no assignment another name: GitHub has a registration of this one, and its configuration is lost.
    /// The call that made it went through, and its answer was lost.
    pub(super) fn mint_another(&mut self, launch: &LaunchId, detail: &str, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.attempt >= MINT_ATTEMPTS {
            self.not_registered(launch, MintFailure::NameTaken, detail, turn);
            return;
        }
        turn.emit(Effect::Deregister {
            launch: launch.clone(),
            scope: runner.scope.clone(),
            name: runner.name.clone(),
            id: runner.github_id(),
        });
        runner.next_attempt();
        self.names.insert(runner.name.clone(), launch.clone());
        self.mint(launch, turn);
    }

    fn not_registered(
        &mut self,
        launch: &LaunchId,
        failure: MintFailure,
        detail: &str,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        let pool = runner.pool.clone();
        let reason = format!("not registered: {detail}");
        self.end(launch, Some(Outcome::StartFailed), reason, turn);
        self.failed(&pool, failure == MintFailure::Refused, detail, turn);
    }

    pub(super) fn held_up(&mut self, launch: &LaunchId, reason: String, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.held_up.as_ref() != Some(&reason) {
            turn.tell(runner, "held up", reason.clone());
            runner.held_up = Some(reason);
        }
    }

    pub(super) fn assignment_lost(
        &mut self,
        launch: &LaunchId,
        name: &RunnerName,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        if runner.work != Work::Assigning || runner.name != *name {
            return;
        }
        // It may have reached the host all the same, so that host must not get another. GitHub knows:
        // if the registration can be deleted, nobody works with it, and the host goes.
        turn.tell(
            runner,
            "assignment lost",
            "its configuration is not held any more",
        );
        self.drain(launch, "its assignment was lost".to_owned(), None, turn);
    }

    pub(super) fn deregistered(
        &mut self,
        launch: &LaunchId,
        name: &RunnerName,
        answer: DeregisterAnswer,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let Registration::Deleting { id, .. } = runner.registration else {
            return;
        };
        if runner.name != *name {
            return;
        }
        if answer == DeregisterAnswer::Busy {
            turn.tell(
                runner,
                "deregistration refused",
                "GitHub says that the runner has a job",
            );
            if runner.is_over() {
                // GitHub gives a dead runner's job up after ten minutes; asked again by the clock.
                return;
            }
            let step = runner.set_registration(Registration::Exists { id }, turn.now);
            turn.stepped(runner, step);
            self.took_a_job(launch, turn);
            return;
        }
        let step = runner.set_registration(Registration::Gone, turn.now);
        turn.stepped(runner, step);
        turn.tell(runner, "deregistered", "");
        self.registration_gone(launch, turn);
    }

    pub(super) fn terminated(&mut self, launch: &LaunchId, gone: bool, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        if gone && matches!(runner.instance, Instance::Ending { .. }) {
            self.instance_gone(launch, turn);
        }
    }

    pub(super) fn instance_reported_gone(
        &mut self,
        launch: &LaunchId,
        instance: &InstanceId,
        turn: &mut Turn,
    ) {
        if self
            .runners
            .get(launch)
            .is_some_and(|r| r.instance == Instance::Requested)
        {
            self.launched(launch, instance, None, turn);
        }
        if self
            .runners
            .get(launch)
            .is_none_or(|r| r.instance_id() != Some(instance))
        {
            turn.refuse(format!(
                "{instance} is gone, and is not the instance of {launch}"
            ));
            return;
        }
        self.instance_gone(launch, turn);
        self.lost_its_instance(launch, turn);
    }

    /// The instance of a launch went by itself. One that never enrolled says that something is wrong
    /// with the pool's image or runner, so the pool waits before it tries again.
    pub(super) fn lost_its_instance(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get(launch).filter(|runner| !runner.is_over()) else {
            return;
        };
        let booting = runner.work == Work::Booting;
        let reason = if booting {
            NEVER_ENROLLED
        } else {
            "its instance is gone"
        };
        self.cut_short(launch, Cause::InstanceGone, turn);
        self.end(launch, Some(Outcome::Lost), reason.to_owned(), turn);
        if booting {
            self.failed_by(launch, false, reason, turn);
        }
    }

    /// The instance of a launch is known to be gone.
    pub(super) fn instance_gone(&mut self, launch: &LaunchId, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let id = runner.instance_id().cloned();
        let step = runner.set_instance(Instance::Gone { id }, turn.now);
        if turn.stepped(runner, step) {
            turn.tell(runner, "instance gone", "");
        }
    }
}
