//! What GitHub's list of runners says, against the ledger.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Fleet;
use super::demand::elapsed;
use super::turn::Turn;
use crate::changes::Difference;
use crate::effect::Effect;
use crate::event::Registered;
use crate::ids::{LaunchId, RunnerName};
use crate::pool::Scope;
use crate::runner::Registration;

/// A registration must be listed without a launch that lives for so long before it is deleted: lists lag.
const GRACE: Duration = Duration::from_secs(2 * 60);

impl Fleet {
    /// Finds the registrations that nobody deletes any more. Only a further listing convicts.
    pub(super) fn runners_listed(
        &mut self,
        scope: &Scope,
        listed: Vec<Registered>,
        turn: &mut Turn,
    ) {
        let before = self.left_runners.remove(scope).unwrap_or_default();
        let mut suspects = BTreeMap::new();
        for each in listed {
            self.learn_id(&each, turn);
            if each.busy || self.is_cared_for(&each) {
                continue;
            }
            let since = before.get(&each.name).copied().unwrap_or(turn.now);
            if elapsed(since, turn.now) < GRACE {
                suspects.insert(each.name, since);
                continue;
            }
            // Asked again after another grace, should it still be there.
            suspects.insert(each.name.clone(), turn.now);
            self.tell_left(&each, turn);
            turn.changes.differences.push(Difference::LeftRunner);
            turn.emit(Effect::Deregister {
                launch: each.launch,
                scope: scope.clone(),
                name: each.name,
                id: Some(each.id),
            });
        }
        self.left_runners.insert(scope.clone(), suspects);
    }

    /// Takes GitHub's id of a registration that was known by its name only.
    fn learn_id(&mut self, registered: &Registered, turn: &mut Turn) {
        if let Some(runner) = self.runners.get_mut(&registered.launch)
            && runner.name == registered.name
            && runner.registration == (Registration::Exists { id: None })
        {
            let id = Some(registered.id);
            runner.registration = Registration::Exists { id };
            turn.touch(runner);
        }
    }

    /// Whether a launch that lives, or the end of one, looks after a registration.
    fn is_cared_for(&self, registered: &Registered) -> bool {
        let Some(runner) = self.runners.get(&registered.launch) else {
            return false;
        };
        let current = runner.name == registered.name;
        let deleting = matches!(runner.registration, Registration::Deleting { .. });
        current && (!runner.is_over() || deleting)
    }

    fn tell_left(&self, registered: &Registered, turn: &mut Turn) {
        let detail = format!(
            "reconciliation: GitHub still has {} ({}), and its launch is over",
            registered.name, registered.id
        );
        match self.runners.get(&registered.launch) {
            Some(runner) => turn.tell(runner, "registration left", detail),
            None => turn.refuse(detail),
        }
    }

    /// GitHub does not know a registration that should be there.
    pub(super) fn runner_missing(&mut self, launch: &LaunchId, name: &RunnerName, turn: &mut Turn) {
        let Some(runner) = self.runners.get_mut(launch) else {
            return;
        };
        if runner.name != *name || !matches!(runner.registration, Registration::Exists { .. }) {
            return;
        }
        let step = runner.set_registration(Registration::Gone, turn.now);
        if turn.stepped(runner, step) {
            let detail = "reconciliation: GitHub does not know it any more";
            turn.tell(runner, "registration missing", detail);
            turn.changes.differences.push(Difference::LostRunner);
            self.registration_gone(launch, turn);
        }
    }
}
