//! Instances of ours that the ledger knows nothing of, as the store was lost or is older than they are.
//!
//! What carries our mark and was launched for a pool of ours gets a row: so it counts against the limits, is seen
//! by operators and ends in time. What it does only its agent can say, whose certificate is of our authority and
//! names instance and pool. One that has an assignment goes on with it, also if its launch is taken for one that was
//! never asked for, as the store was put back to that time. One that has none is ended: nobody knows any more whether
//! it ever had one.

use std::collections::BTreeMap;

use super::Fleet;
use super::turn::Turn;
use crate::event::Outcome;
use crate::ids::{AccountName, InstanceId, JobId, LaunchId, RunnerName};
use crate::listed::{Marked, Origin};
use crate::pool::PoolSpec;
use crate::runner::{Instance, Runner, Work};

/// Whether, as far as the ledger knows, no instance of it was ever there.
fn is_yet_to_come(runner: &Runner) -> bool {
    runner.work == Work::Booting && runner.instance == Instance::Requested
}

impl Fleet {
    /// Lets no account launch anything before its instances were listed once: those that the ledger has lost
    /// count against its limits.
    pub fn list_first(&mut self) {
        let accounts = self.spec.accounts.keys();
        self.unlisted = accounts.map(|account| (account.clone(), None)).collect();
    }

    /// Whether all instances of an account are known, as far as a listing can tell.
    #[must_use]
    pub fn is_listed(&self, account: &AccountName) -> bool {
        !self.unlisted.contains_key(account)
    }

    /// Keeps why an account has not been listed yet, for those who ask.
    pub(super) fn listing_failed(&mut self, account: &AccountName, reason: String) {
        if let Some(last) = self.unlisted.get_mut(account) {
            *last = Some(reason);
        }
    }

    /// Why an account launches nothing at all before its first listing.
    pub(super) fn awaits_listing(&self, account: &AccountName) -> Option<String> {
        let failure = self.unlisted.get(account)?;
        let mut told = format!("the instances of account {account} have not been listed yet");
        if let Some(failure) = failure {
            told.push_str(": ");
            told.push_str(failure);
        }
        Some(told)
    }

    /// Makes a row of each instance that the ledger has lost.
    pub(super) fn enter_found(&mut self, account: &AccountName, alive: &[Marked], turn: &mut Turn) {
        let lost: BTreeMap<&InstanceId, (&Marked, &Origin)> = alive
            .iter()
            .filter_map(|marked| Some((&marked.instance, (marked, marked.origin.as_ref()?))))
            .filter(|(instance, _)| self.runner_of(account, instance).is_none())
            .collect();
        for (marked, origin) in lost.into_values() {
            let marked_as = marked.launch.clone();
            if marked_as
                .as_ref()
                .is_some_and(|launch| self.runners.contains_key(launch))
            {
                continue;
            }
            let Some(pool) = self.pool(&origin.pool).cloned() else {
                continue;
            };
            if pool.account != *account {
                continue;
            }
            let launch = marked_as.unwrap_or_else(|| self.new_launch());
            self.enter(launch, &pool, &marked.instance, origin, turn);
        }
    }

    fn enter(
        &mut self,
        launch: LaunchId,
        pool: &PoolSpec,
        instance: &InstanceId,
        origin: &Origin,
        turn: &mut Turn,
    ) {
        let runner = Runner::found(launch.clone(), pool, instance, origin, turn.now);
        let detail = format!("{instance} carries our mark, and the ledger knew nothing of it");
        turn.tell(&runner, "found", detail);
        self.names.insert(runner.name.clone(), launch.clone());
        self.current.add_runner(&runner);
        self.runners.insert(launch, runner);
    }

    /// The agent of an instance that was found says hello; true if it goes on as what it says to be.
    pub(super) fn adopt(
        &mut self,
        launch: &LaunchId,
        assignment: Option<&RunnerName>,
        turn: &mut Turn,
    ) -> bool {
        let Some(name) = assignment else {
            let reason = "the ledger knew nothing of it, and it has no assignment";
            self.end(launch, None, reason.to_owned(), turn);
            return false;
        };
        let other = self.names.get(name).filter(|other| *other != launch);
        let other = other.cloned();
        let taken = other
            .as_ref()
            .and_then(|other| self.runners.get(other))
            .is_some_and(|other| !is_yet_to_come(other));
        let Some(runner) = self.runners.get_mut(launch) else {
            return false;
        };
        if taken || !runner.may_be_called(name) {
            let reason = format!("its agent claims an assignment that is not its own: {name}");
            self.end(launch, Some(Outcome::Lost), reason, turn);
            return false;
        }
        let old = runner.name.clone();
        let step = runner.adopt(name.clone(), turn.now);
        if !turn.stepped(runner, step) {
            return false;
        }
        turn.tell(runner, "adopted", "its agent has come back");
        self.names.remove(&old);
        self.names.insert(name.clone(), launch.clone());
        if let Some(other) = other {
            let reason = "its instance was there, and has been found";
            self.end(&other, None, reason.to_owned(), turn);
        }
        true
    }

    /// Notes which job a runner has that was adopted, if GitHub has said so before.
    pub(super) fn attribute_to(&mut self, name: &RunnerName, turn: &mut Turn) {
        let jobs = self.jobs.values();
        let jobs = jobs.filter(|job| job.report.runner_name.as_deref() == Some(name.as_str()));
        let ids: Vec<JobId> = jobs.map(crate::job::Job::id).collect();
        for id in ids {
            turn.changes.jobs.insert(id);
            self.attribute(id, turn);
        }
    }
}
