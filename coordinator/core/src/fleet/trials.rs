//! Which launches take their pool's canary, and what those say of it.

use super::Fleet;
use super::turn::Turn;
use crate::canary::{Sign, Stopped, Tally, Trial, Trialed};
use crate::ids::{ImageId, LaunchId, PoolName};
use crate::runner::Runner;

impl Fleet {
    /// A pool's images are known. Another canary than before begins anew; one that is the pool's own image by now
    /// is none. Without one the trial rests, with what it has counted.
    pub(super) fn images_known(
        &mut self,
        pool: &PoolName,
        own: Option<ImageId>,
        canary: Option<ImageId>,
        turn: &mut Turn,
    ) {
        let Some(spec) = self
            .spec
            .pools
            .iter()
            .find(|spec| spec.name == *pool && spec.canary.is_some())
        else {
            turn.refuse(format!("there is no pool {pool} with a canary"));
            return;
        };
        let Some(canary) = canary else {
            if self.images_told.remove(pool) {
                let detail = "what named its image is gone";
                turn.tell_pool(spec, "canary withdrawn", detail);
                self.withdraw_canaries(pool, turn);
            }
            return;
        };
        self.images_told.insert(pool.clone());
        let state = self.pools.entry(pool.clone()).or_default();
        let on_trial = state.trial.as_ref().map(|trial| &trial.image);
        if own.as_ref() == Some(&canary) {
            if on_trial.is_none() {
                return;
            }
            let detail = format!("{canary} is the pool's own image now");
            turn.tell_pool(spec, "canary adopted", detail);
            state.trial = None;
        } else if on_trial == Some(&canary) {
            let Some(trial) = state.trial.as_mut().filter(|trial| trial.own_image != own) else {
                return;
            };
            // It is measured by another image from here on.
            state.tallies = state.tallies.wrapping_add(1);
            trial.own = Tally::new(state.tallies);
            trial.own_image = own;
        } else {
            turn.tell_pool(spec, "canary begun", canary.as_str());
            state.trial = Some(Trial::new(canary, own, state.tallies));
            state.tallies = state.tallies.wrapping_add(2);
        }
        turn.changes.pools.insert(pool.clone());
    }

    /// Ends the trials of pools that are configured without a canary.
    pub(super) fn end_trials(&mut self, turn: &mut Turn) {
        for spec in &self.spec.pools {
            let state = self.pools.get_mut(&spec.name);
            let state = state.filter(|state| spec.canary.is_none() && state.trial.is_some());
            if let Some(state) = state {
                state.trial = None;
                turn.tell_pool(spec, "canary ended", "the pool is configured without one");
                turn.changes.pools.insert(spec.name.clone());
            }
        }
    }

    /// The part of a new launch of a pool in its trial, and the image it takes if that is the canary. None has a part
    /// before somebody has told since the start that this is the canary still.
    pub(super) fn take_part(
        &mut self,
        pool: usize,
        turn: &mut Turn,
    ) -> (Option<Trialed>, Option<ImageId>) {
        let pool = &self.spec.pools[pool];
        if !self.images_told.contains(&pool.name) {
            return (None, None);
        }
        let trial = self.pools.get_mut(&pool.name);
        let trial = trial.and_then(|state| state.trial.as_mut());
        let (Some(rules), Some(trial)) = (pool.canary, trial) else {
            return (None, None);
        };
        let part = trial.take(rules);
        let image = part.canary.then(|| trial.image.clone());
        turn.changes.pools.insert(pool.name.clone());
        (Some(part), image)
    }

    /// Counts what the runners that changed say of their images.
    pub(super) fn judge(&mut self, turn: &mut Turn) {
        if self.pools.values().all(|state| state.trial.is_none()) {
            return;
        }
        let changed = turn.changes.runners.iter();
        let changed = changed.filter_map(|launch| self.runners.get(launch));
        let signs: Vec<(LaunchId, Sign)> = changed
            .filter(|runner| runner.trialed.is_some())
            .filter_map(|runner| Some((runner.launch.clone(), runner.sign()?)))
            .collect();
        for (launch, sign) in signs {
            self.take_sign(&launch, sign, turn);
        }
    }

    /// Takes back the launches of a pool's canary that have no instance yet: others take the pool's own image.
    fn withdraw_canaries(&mut self, pool: &PoolName, turn: &mut Turn) {
        let launches: Vec<LaunchId> = self.current.launches_of(pool).cloned().collect();
        for launch in launches {
            if self.runners.get(&launch).is_some_and(Runner::is_canary) {
                self.withdraw(&launch, turn);
            }
        }
    }

    /// Counts what a launch says of its image, and stops a canary that fails too often.
    pub(super) fn take_sign(&mut self, launch: &LaunchId, sign: Sign, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        let Some(part) = &mut runner.trialed else {
            return;
        };
        // What has failed stays so.
        if part.sign == Some(sign) || part.sign == Some(Sign::Failed) {
            return;
        }
        let state = self.pools.get_mut(&runner.pool);
        let trial = state.and_then(|state| state.trial.as_mut());
        let before = part.clone();
        part.sign = Some(sign);
        turn.changes.runners.insert(launch.clone());
        let Some(trial) = trial else {
            return;
        };
        trial.note(&before, sign);
        turn.changes.pools.insert(runner.pool.clone());
        let mut pools = self.spec.pools.iter();
        let Some(spec) = pools.find(|spec| spec.name == runner.pool) else {
            return;
        };
        let verdict = spec.canary.and_then(|rules| trial.verdict(rules));
        if let Some(reason) = verdict {
            trial.stopped = Some(Stopped {
                at: turn.now,
                reason: reason.clone(),
            });
            turn.tell_pool(spec, "canary stopped", reason);
            turn.changes.stopped_canaries.push(spec.name.clone());
            let pool = spec.name.clone();
            self.withdraw_canaries(&pool, turn);
        }
    }
}
