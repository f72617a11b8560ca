//! Launches that are held back after failures: of a pool, or of one shape.

use std::time::Duration;

use super::Fleet;
use super::demand::elapsed;
use super::turn::Turn;
use crate::ids::{LaunchId, PoolName};
use crate::matching::Shape;
use crate::pool::Hold;

/// Wait after the first failed launch in a row; doubles with each.
const FIRST_CLOSING: Duration = Duration::from_secs(5);
/// Longest wait after failed launches.
const LONGEST_CLOSING: Duration = Duration::from_secs(5 * 60);
/// How long after its end it is known how often launches of a shape failed.
const FORGOTTEN_HOLD: Duration = Duration::from_secs(60 * 60);

impl Fleet {
    /// A launch failed, and the next one may, too: its pool waits. Not after one of the canary: the next launch
    /// takes the pool's own image, which must not wait for it.
    pub(super) fn failed_by(
        &mut self,
        launch: &LaunchId,
        permanent: bool,
        detail: &str,
        turn: &mut Turn,
    ) {
        let Some(runner) = self.runners.get(launch) else {
            return;
        };
        if !runner.is_canary() {
            let pool = runner.pool.clone();
            self.failed(&pool, permanent, detail, turn);
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
    pub(super) fn hold(
        &mut self,
        pool: &PoolName,
        shape: &Shape,
        unfit: bool,
        detail: &str,
        turn: &mut Turn,
    ) {
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

    /// A process before this one may have had a wrong clock: nothing is held back for longer than it would be now.
    pub(super) fn shorten_holds(&mut self, turn: &mut Turn) {
        let Ok(latest) = turn.now.checked_add(LONGEST_CLOSING) else {
            return;
        };
        for (name, state) in &mut self.pools {
            let before = state.clone();
            state.closed_until = state.closed_until.map(|until| until.min(latest));
            for hold in &mut state.held {
                hold.until = hold.until.min(latest);
            }
            if *state != before {
                turn.changes.pools.insert(name.clone());
            }
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
