//! What must hold after each event.

use super::*;

impl World {
    pub(super) fn check(&self, event: &str) {
        for runner in self.fleet.runners() {
            assert_eq!(
                Some(runner),
                self.runners.get(&runner.launch),
                "invariant 10: {event} changed a runner and did not say so"
            );
        }
        for job in self.fleet.jobs() {
            assert_eq!(
                Some(job),
                self.jobs.get(&job.id()),
                "invariant 10: {event} changed a job"
            );
        }
        for pool in self.fleet.pools() {
            self.check_trial(&pool.name, event);
        }
        let alive = |pool: Option<&PoolSpec>| {
            self.fleet
                .runners()
                .filter(|runner| !runner.instance_is_gone())
                .filter(|runner| pool.is_none_or(|pool| runner.pool == pool.name))
                .count()
        };
        assert!(
            alive(None) <= ACCOUNT_MAX as usize,
            "invariant 6: the account is over its maximum"
        );
        for pool in self.fleet.pools() {
            assert!(
                alive(Some(pool)) <= pool.max as usize,
                "invariant 6: {} is over",
                pool.name
            );
        }
    }

    /// A trial counts what became of each of its launches once, and is stored as it is.
    fn check_trial(&self, pool: &PoolName, event: &str) {
        let trial = self.fleet.pool_state(pool).trial;
        let stored = self.pools.get(pool).and_then(|state| state.trial.clone());
        assert_eq!(trial, stored, "invariant 10: {event} changed a trial");
        let Some(trial) = trial else { return };
        for tally in [trial.canary, trial.own] {
            let runners = self.trialed.values().filter(|it| it.pool == *pool);
            let parts = runners.filter_map(|runner| runner.trialed.as_ref());
            let parts: Vec<_> = parts.filter(|part| part.tally == tally.number).collect();
            let count = |sign| parts.iter().filter(|part| part.sign == Some(sign)).count();
            let counted = (parts.len(), count(Sign::Good), count(Sign::Failed));
            let told = [tally.launches, tally.good, tally.failed].map(|it| it as usize);
            assert_eq!(told, <[usize; 3]>::from(counted), "{event}: {trial:?}");
        }
    }
}
