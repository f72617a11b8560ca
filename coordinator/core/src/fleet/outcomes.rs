//! What became of effects.

use std::time::Duration;

use super::Fleet;
use super::demand::elapsed;
use super::turn::Turn;
use crate::effect::Effect;
use crate::event::{DeregisterAnswer, LaunchFailure, MintFailure, Outcome};
use crate::ids::{GithubRunnerId, InstanceId, LaunchId, PoolName, RunnerName};
use crate::matching::Shape;
use crate::offering::Offering;
use crate::pool::Hold;
use crate::rerun::Cause;
use crate::runner::{Instance, Registration, Work};

/// Names tried for one launch before it is given up.
const MINT_ATTEMPTS: u32 = 3;
/// Why a launch ended whose instance went before it enrolled.
const NEVER_ENROLLED: &str = "its instance ended before it enrolled; its log says why";
/// Wait after the first failed launch in a row; doubles with each.
const FIRST_CLOSING: Duration = Duration::from_secs(5);
/// Longest wait after failed launches.
const LONGEST_CLOSING: Duration = Duration::from_secs(5 * 60);
/// How long after its end it is known how often launches of a shape failed.
const FORGOTTEN_HOLD: Duration = Duration::from_secs(60 * 60);

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
            LaunchFailure::Permanent => self.failed(&pool, true, detail, turn),
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
        let step = runner.set_registration(Registration::Exists { id }, turn.now);
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
        let step = runner.set_registration(Registration::None, turn.now);
        turn.stepped(runner, step);
        let wanted = !runner.is_over() && runner.drain.is_none();
        if failure == MintFailure::NameTaken {
            // The first call went through and its answer was lost: that registration, whose
            // configuration nobody has, goes; the host, which never had one, gets another.
            turn.emit(Effect::Deregister {
                launch: launch.clone(),
                scope: runner.scope.clone(),
                name: name.clone(),
                id: None,
            });
            if wanted && runner.attempt < MINT_ATTEMPTS {
                runner.next_attempt();
                self.names.insert(runner.name.clone(), launch.clone());
                self.mint(launch, turn);
                return;
            }
        }
        let pool = runner.pool.clone();
        self.end(
            launch,
            Some(Outcome::StartFailed),
            format!("not registered: {detail}"),
            turn,
        );
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
            if let Some(id) = id {
                let step = runner.set_registration(Registration::Exists { id }, turn.now);
                turn.stepped(runner, step);
            }
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
        let (pool, booting) = (runner.pool.clone(), runner.work == Work::Booting);
        let reason = if booting {
            NEVER_ENROLLED
        } else {
            "its instance is gone"
        };
        self.cut_short(launch, Cause::InstanceGone, turn);
        self.end(launch, Some(Outcome::Lost), reason.to_owned(), turn);
        if booting {
            self.failed(&pool, false, reason, turn);
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

    /// A pool's launch or registration failed: it waits, longer each time.
    pub(super) fn failed(
        &mut self,
        pool: &PoolName,
        permanent: bool,
        detail: &str,
        turn: &mut Turn,
    ) {
        let state = self.pools.entry(pool.clone()).or_default();
        if !permanent && state.closed_until.is_some_and(|until| until > turn.now) {
            // It waits already: a hundred launches that fail together are one failure.
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let wait = if permanent {
            LONGEST_CLOSING
        } else {
            closing(state.failures)
        };
        state.closed_until = turn.now.checked_add(wait).ok();
        state.last_failure = Some(detail.to_owned());
        turn.changes.pools.insert(pool.clone());
        if let Some(spec) = self.pool(pool) {
            turn.tell_pool(
                spec,
                "launches held back",
                format!("for {}s: {detail}", wait.as_secs()),
            );
        }
    }

    /// There is nothing of one shape to be had: launches of it wait, longer each time. What a job may ask
    /// for by its labels must not stop the jobs that ask for something else.
    fn hold(&mut self, pool: &PoolName, shape: &Shape, unfit: bool, detail: &str, turn: &mut Turn) {
        let now = turn.now;
        let state = self.pools.entry(pool.clone()).or_default();
        let known = state.held.iter().find(|hold| hold.shape == *shape);
        if known.is_some_and(|hold| hold.until > now) {
            // As of pools: what fails together is one failure.
            return;
        }
        let failures = known.map_or(0, |hold| hold.failures).saturating_add(1);
        let wait = if unfit {
            LONGEST_CLOSING
        } else {
            closing(failures)
        };
        state
            .held
            .retain(|hold| hold.shape != *shape && elapsed(hold.until, now) < FORGOTTEN_HOLD);
        state.held.push(Hold {
            shape: shape.clone(),
            failures,
            until: now.checked_add(wait).unwrap_or(now),
            reason: detail.to_owned(),
            unfit,
        });
        turn.changes.pools.insert(pool.clone());
        if let Some(spec) = self.pool(pool) {
            let detail = format!("{shape}, for {}s: {detail}", wait.as_secs());
            turn.tell_pool(spec, "launches held back", detail);
        }
    }

    /// A runner of a pool got as far as it should.
    pub(super) fn worked(&mut self, pool: &PoolName, shape: &Shape, turn: &mut Turn) {
        let Some(state) = self.pools.get_mut(pool) else {
            return;
        };
        let holds = state.held.len();
        state.held.retain(|hold| hold.shape != *shape);
        if state.failures > 0 || state.held.len() < holds {
            state.failures = 0;
            state.closed_until = None;
            state.last_failure = None;
            turn.changes.pools.insert(pool.clone());
        }
    }
}

/// The wait after so many failures in a row.
fn closing(failures: u32) -> Duration {
    let doubled = FIRST_CLOSING.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_CLOSING)
}
