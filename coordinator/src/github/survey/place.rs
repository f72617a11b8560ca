//! What is known of one owner's repositories and open runs, and which of it is looked at next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::Repository;
use tokio::time::Instant;

use super::super::repositories::ReachedRepository;
use super::pace::{Intervals, Load, hot_at_most};
use crate::chance;

/// Repositories that are watched; beyond, those that nobody pushed to for the longest are not.
const MAX_REPOSITORIES: usize = 10_000;
/// Runs that are watched; beyond, some of the others are read when their repository is looked at.
const MAX_RUNS: usize = 5_000;
/// Runs of one list that are read although they aren't watched.
const UNWATCHED_AT_ONCE: usize = 10;

/// `owner/name` in lower case, as GitHub's names ignore case.
pub(super) type Key = String;

/// A repository and what it said last.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) repository: Repository,
    /// When something happened in it: a push, or a job of which we heard.
    active_at: Option<Timestamp>,
    hot: bool,
    found_at: Instant,
    looked_at: Option<Instant>,
    /// As that of a [`Run`].
    lot: u64,
    /// By status of runs.
    pub(super) etags: HashMap<&'static str, String>,
    /// Its open runs, by status, as far as they were listed.
    runs: HashMap<&'static str, Vec<i64>>,
    /// Whose turn it is among the runs of a list that aren't watched.
    unwatched: usize,
    /// Counts the looks at some of its lists only.
    turn: usize,
}

/// An open run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) repository: Key,
    /// When it was found to be open, or to have ended.
    found_at: Instant,
    /// Orders what was found together: a process that is started again and again looks at others first each
    /// time, and so at all in the end.
    lot: u64,
    /// None until it is looked at as what it was found to be.
    looked_at: Option<Instant>,
    pub(super) etag: Option<String>,
    /// When its jobs were read last, rather than found to be the same.
    pub(super) read_at: Option<Timestamp>,
    /// False once no list of open runs has it any more.
    listed: bool,
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Look {
    Repository(Key),
    Run(i64),
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) repositories: BTreeMap<Key, Watched>,
    pub(super) runs: BTreeMap<i64, Run>,
    /// True after a look at a run that was just found: it is another's turn, if one is due.
    others_turn: bool,
}

fn lot() -> u64 {
    chance::seed().unwrap_or_default()
}

pub(super) fn key(repository: &Repository) -> Key {
    repository.to_string().to_lowercase()
}

impl Place {
    /// Takes a new list of repositories. What is not in it any more is forgotten, unless jobs of it are
    /// open.
    pub(super) fn set_repositories(
        &mut self,
        mut list: Vec<ReachedRepository>,
        open: &HashSet<Key>,
        now: Instant,
    ) {
        list.sort_by_key(|reached| std::cmp::Reverse(reached.pushed_at));
        list.truncate(MAX_REPOSITORIES);
        let listed: HashSet<Key> = list.iter().map(|it| key(&it.repository)).collect();
        self.repositories
            .retain(|key, _| listed.contains(key) || open.contains(key));
        for reached in list {
            self.add(reached.repository, reached.pushed_at, now);
        }
        let known = &self.repositories;
        self.runs
            .retain(|_, run| known.contains_key(&run.repository));
    }

    /// Notes that something happened in a repository, which may be new.
    pub(super) fn add(
        &mut self,
        repository: Repository,
        active_at: Option<Timestamp>,
        now: Instant,
    ) {
        let key = key(&repository);
        let room = self.repositories.len() < MAX_REPOSITORIES;
        match self.repositories.get_mut(&key) {
            Some(watched) => {
                watched.active_at = watched.active_at.max(active_at);
                // It may have been made public, or private.
                watched.repository = repository;
            }
            None if room => {
                self.repositories.insert(
                    key,
                    Watched {
                        repository,
                        active_at,
                        hot: false,
                        found_at: now,
                        looked_at: None,
                        lot: lot(),
                        etags: HashMap::new(),
                        runs: HashMap::new(),
                        unwatched: 0,
                        turn: 0,
                    },
                );
            }
            None => {}
        }
    }

    /// Has the liveliest repositories looked at more often than the others.
    pub(super) fn sort_by_heat(&mut self, pace: f64, interval: Duration) -> Load {
        let most = hot_at_most(pace, interval);
        let mut times: Vec<_> = self.repositories.values().map(|it| it.active_at).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        let least = times.get(most.saturating_sub(1)).copied().flatten();
        let mut hot = 0;
        for watched in self.repositories.values_mut() {
            watched.hot = watched.active_at >= least && hot < most;
            hot += usize::from(watched.hot);
        }
        Load {
            hot,
            cold: self.repositories.len() - hot,
            runs: self.runs.len(),
        }
    }

    /// What is due first, and when. What was never looked at is due at once, and comes before what is overdue
    /// once it has waited for an interval; with the first look at many, the liveliest are not forgotten. Runs
    /// that were just found go first, in turn with all else that is due: in them jobs wait of which nobody has
    /// heard.
    pub(super) fn next(&self, intervals: &Intervals, now: Instant) -> Option<(Look, Instant)> {
        let repositories = self.repositories.iter().map(|(key, it)| {
            let interval = if it.hot {
                intervals.hot
            } else {
                intervals.cold
            };
            let due = it.looked_at.map_or(it.found_at, |at| at + interval);
            let turn = it.looked_at.unwrap_or(it.found_at) + interval;
            (
                (due > now, turn, due, it.lot),
                Look::Repository(key.clone()),
            )
        });
        let known = self.runs.iter().filter_map(|(id, run)| {
            let due = run.looked_at? + intervals.runs;
            Some(((due > now, due, due, run.lot), Look::Run(*id)))
        });
        let found = self.runs.iter().filter(|(_, run)| run.looked_at.is_none());
        let found = found.min_by_key(|(_, run)| (run.found_at, run.lot));
        let found = found.map(|(id, run)| (Look::Run(*id), run.found_at));
        let other = repositories.chain(known).min_by_key(|(rank, _)| *rank);
        let other = other.map(|((_, _, due, _), look)| (look, due));
        let others_turn = self.others_turn && other.as_ref().is_some_and(|(_, due)| *due <= now);
        found.filter(|_| !others_turn).or(other)
    }

    /// Notes that a look was had.
    pub(super) fn looked(&mut self, look: &Look, now: Instant) {
        self.others_turn = false;
        match look {
            Look::Repository(key) => {
                if let Some(watched) = self.repositories.get_mut(key) {
                    watched.looked_at = Some(now);
                }
            }
            Look::Run(id) => {
                if let Some(run) = self.runs.get_mut(id) {
                    self.others_turn = run.looked_at.replace(now).is_none();
                }
            }
        }
    }

    /// Which look at some of its lists only this is, for a repository.
    pub(super) fn next_turn(&mut self, key: &Key) -> usize {
        let Some(watched) = self.repositories.get_mut(key) else {
            return 0;
        };
        watched.turn = watched.turn.wrapping_add(1);
        watched.turn
    }

    /// Whether there is still what a look was at.
    pub(super) fn has(&self, look: &Look) -> bool {
        match look {
            Look::Repository(key) => self.repositories.contains_key(key),
            Look::Run(id) => self.runs.contains_key(id),
        }
    }

    /// Has a run looked at again soon, and whole.
    pub(super) fn look_again(&mut self, run: i64, in_time: Duration, intervals: &Intervals) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.etag = None;
            let early = intervals.runs.saturating_sub(in_time);
            run.looked_at = run.looked_at.and_then(|at| at.checked_sub(early));
        }
    }

    /// Takes the open runs of a repository of one status, and the version of that list. Those that are new are
    /// looked at next. Answers some that there is no room for: the list is read whole until there is.
    pub(super) fn set_runs(
        &mut self,
        of: &Key,
        status: &'static str,
        runs: Vec<i64>,
        etag: Option<String>,
        now: Instant,
    ) -> Vec<i64> {
        let Some(watched) = self.repositories.get_mut(of) else {
            return Vec::new();
        };
        watched.runs.insert(status, runs.clone());
        let mut unwatched = Vec::new();
        for run in runs {
            if let Some(known) = self.runs.get_mut(&run) {
                known.listed = true;
            } else if self.runs.len() < MAX_RUNS {
                self.runs.insert(
                    run,
                    Run {
                        repository: of.clone(),
                        found_at: now,
                        lot: lot(),
                        looked_at: None,
                        etag: None,
                        read_at: None,
                        listed: true,
                    },
                );
            } else {
                unwatched.push(run);
            }
        }
        match etag.filter(|_| unwatched.is_empty()) {
            Some(etag) => watched.etags.insert(status, etag),
            None => watched.etags.remove(status),
        };
        if !unwatched.is_empty() {
            let first = watched.unwatched % unwatched.len();
            watched.unwatched = first + UNWATCHED_AT_ONCE;
            unwatched.rotate_left(first);
            unwatched.truncate(UNWATCHED_AT_ONCE);
        }
        unwatched
    }

    /// Has the runs of a repository looked at next that no list has any more: their jobs have ended, and
    /// perhaps nobody told of it. They are kept until they are [`settled`](Self::settle).
    pub(super) fn look_at_ended(&mut self, of: &Key, now: Instant) {
        let Some(watched) = self.repositories.get(of) else {
            return;
        };
        let open: HashSet<i64> = watched.runs.values().flatten().copied().collect();
        for (id, run) in &mut self.runs {
            if run.repository == *of && run.listed && !open.contains(id) {
                run.listed = false;
                run.looked_at = None;
                run.found_at = now;
            }
        }
    }

    /// All that a run says is known to the fleet: one that no list has is forgotten.
    pub(super) fn settle(&mut self, run: i64) {
        if self.runs.get(&run).is_some_and(|run| !run.listed) {
            self.runs.remove(&run);
        }
    }

    /// Forgets a run that GitHub does not know any more. If it does again, its repository must say so.
    pub(super) fn forget(&mut self, run: i64) {
        if let Some(run) = self.runs.remove(&run)
            && let Some(watched) = self.repositories.get_mut(&run.repository)
        {
            watched.etags.clear();
        }
    }

    /// Has a repository and its runs read whole the next time, whether or not they are the same then.
    pub(super) fn read_anew(&mut self, of: &Key) {
        if let Some(watched) = self.repositories.get_mut(of) {
            watched.etags.clear();
        }
        for run in self.runs.values_mut().filter(|run| run.repository == *of) {
            run.etag = None;
        }
    }

    /// Since when the repository that was not looked at for the longest was not.
    pub(super) fn oldest_look(&self) -> Option<Instant> {
        self.repositories
            .values()
            .filter_map(|it| it.looked_at)
            .min()
    }
}

#[cfg(test)]
mod tests;
