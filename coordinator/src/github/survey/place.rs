//! What is known of one owner's repositories and open runs, and which of it is looked at next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::Repository;
use tokio::time::Instant;

use super::super::repositories::ReachedRepository;
use super::pace::{Intervals, Load, hot_at_most};

/// Repositories that are watched; beyond, those that nobody pushed to for the longest are not.
const MAX_REPOSITORIES: usize = 10_000;
/// Runs that are watched; beyond, new ones are read once, when they are found.
const MAX_RUNS: usize = 5_000;

/// `owner/name` in lower case, as GitHub's names ignore case.
pub(super) type Key = String;

/// A repository and what it said last.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) repository: Repository,
    /// When something happened in it: a push, or a job of which we heard.
    active_at: Option<Timestamp>,
    hot: bool,
    looked_at: Option<Instant>,
    /// By status of runs.
    pub(super) etags: HashMap<&'static str, String>,
    /// Its open runs, by status, as far as they were listed.
    pub(super) runs: HashMap<&'static str, Vec<i64>>,
}

/// An open run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) repository: Key,
    looked_at: Option<Instant>,
    pub(super) etag: Option<String>,
    /// False once no list of open runs has it any more.
    listed: bool,
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    Repository(Key),
    Run(i64),
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) repositories: BTreeMap<Key, Watched>,
    pub(super) runs: BTreeMap<i64, Run>,
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
    ) {
        list.sort_by_key(|reached| std::cmp::Reverse(reached.pushed_at));
        list.truncate(MAX_REPOSITORIES);
        let listed: HashSet<Key> = list.iter().map(|it| key(&it.repository)).collect();
        self.repositories
            .retain(|key, _| listed.contains(key) || open.contains(key));
        for reached in list {
            self.add(reached.repository, reached.pushed_at);
        }
        let known = &self.repositories;
        self.runs
            .retain(|_, run| known.contains_key(&run.repository));
    }

    /// Notes that something happened in a repository, which may be new.
    pub(super) fn add(&mut self, repository: Repository, active_at: Option<Timestamp>) {
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
                        looked_at: None,
                        etags: HashMap::new(),
                        runs: HashMap::new(),
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

    /// What is due first, and when.
    pub(super) fn next(&self, intervals: &Intervals, now: Instant) -> Option<(Look, Instant)> {
        let due = |looked_at: Option<Instant>, interval| looked_at.map_or(now, |at| at + interval);
        let repositories = self.repositories.iter().map(|(key, it)| {
            let interval = if it.hot {
                intervals.hot
            } else {
                intervals.cold
            };
            // Of those that were never looked at, the hot come first.
            let rank = (due(it.looked_at, interval), it.looked_at.is_some(), !it.hot);
            (rank, Look::Repository(key.clone()))
        });
        let runs = self.runs.iter().map(|(id, run)| {
            let rank = (
                due(run.looked_at, intervals.runs),
                run.looked_at.is_some(),
                false,
            );
            (rank, Look::Run(*id))
        });
        let first = repositories.chain(runs).min_by_key(|(rank, _)| *rank);
        first.map(|((due, ..), look)| (look, due))
    }

    /// Notes that a look was had.
    pub(super) fn looked(&mut self, look: &Look, now: Instant) {
        match look {
            Look::Repository(key) => {
                if let Some(watched) = self.repositories.get_mut(key) {
                    watched.looked_at = Some(now);
                }
            }
            Look::Run(id) => {
                if let Some(run) = self.runs.get_mut(id) {
                    run.looked_at = Some(now);
                }
            }
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

    /// Takes the open runs of a repository of one status. Answers those that are new.
    pub(super) fn set_runs(&mut self, of: &Key, status: &'static str, runs: Vec<i64>) -> Vec<i64> {
        let Some(watched) = self.repositories.get_mut(of) else {
            return Vec::new();
        };
        watched.runs.insert(status, runs.clone());
        let mut new = Vec::new();
        for run in runs {
            if let Some(known) = self.runs.get_mut(&run) {
                known.listed = true;
                continue;
            }
            new.push(run);
            if self.runs.len() < MAX_RUNS {
                self.runs.insert(
                    run,
                    Run {
                        repository: of.clone(),
                        looked_at: None,
                        etag: None,
                        listed: true,
                    },
                );
            }
        }
        new
    }

    /// The runs of a repository that no list has any more: their jobs have ended, and perhaps nobody told of
    /// it. They are kept until they are [`settled`](Self::settle).
    pub(super) fn unlisted(&mut self, of: &Key) -> Vec<i64> {
        let Some(watched) = self.repositories.get(of) else {
            return Vec::new();
        };
        let open: HashSet<i64> = watched.runs.values().flatten().copied().collect();
        let mut ended = Vec::new();
        for (id, run) in &mut self.runs {
            if run.repository == *of && run.listed && !open.contains(id) {
                run.listed = false;
                ended.push(*id);
            }
        }
        ended
    }

    /// All that a run says is known to the fleet: one that no list has is forgotten.
    pub(super) fn settle(&mut self, run: i64) {
        if self.runs.get(&run).is_some_and(|run| !run.listed) {
            self.runs.remove(&run);
        }
    }

    /// Forgets a run that GitHub does not know any more.
    pub(super) fn forget(&mut self, run: i64) {
        self.runs.remove(&run);
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
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn reached(name: &str, pushed: i64) -> ReachedRepository {
        ReachedRepository {
            repository: Repository {
                owner: "acme".to_owned(),
                name: name.to_owned(),
                public: false,
                enterprise: None,
            },
            pushed_at: Timestamp::from_second(pushed).ok(),
        }
    }

    fn place(count: i64) -> Place {
        let mut place = Place::default();
        let list = (0..count)
            .map(|n| reached(&format!("r{n:03}"), n))
            .collect();
        place.set_repositories(list, &HashSet::new());
        place
    }

    /// How often each repository is looked at in so many seconds, with one look in 400 ms.
    async fn looks(place: &mut Place, seconds: u64) -> HashMap<Key, usize> {
        let mut looks = HashMap::new();
        let until = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < until {
            let load = place.sort_by_heat(5.0, TEN);
            let intervals = Intervals::of(load, 5.0, TEN);
            let Some((look, due)) = place.next(&intervals, Instant::now()) else {
                break;
            };
            tokio::time::sleep_until(due).await;
            place.looked(&look, Instant::now());
            if let Look::Repository(key) = look {
                *looks.entry(key).or_default() += 1;
            }
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        looks
    }

    #[tokio::test(start_paused = true)]
    async fn few_repositories_are_all_looked_at_in_each_interval() {
        let looks = looks(&mut place(10), 100).await;
        assert_eq!(looks.len(), 10);
        assert!(
            looks.values().all(|count| (9..=11).contains(count)),
            "{looks:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn lively_ones_are_looked_at_more_often_and_no_other_is_left_out() {
        let looks = looks(&mut place(200), 300).await;
        assert_eq!(looks.len(), 200, "each had its turn");
        let liveliest = looks["acme/r199"];
        assert!((20..=30).contains(&liveliest), "{liveliest}");
        assert!(looks["acme/r000"] <= 4, "{}", looks["acme/r000"]);
    }

    #[tokio::test(start_paused = true)]
    async fn repositories_come_and_go_and_those_with_open_jobs_stay() {
        let mut place = place(3);
        place.set_runs(&"acme/r000".to_owned(), "queued", vec![7]);
        place.set_runs(&"acme/r001".to_owned(), "queued", vec![8]);
        let open = HashSet::from(["acme/r001".to_owned()]);
        place.set_repositories(vec![reached("R002", 5), reached("new", 9)], &open);
        let keys: Vec<_> = place.repositories.keys().cloned().collect();
        assert_eq!(keys, ["acme/new", "acme/r001", "acme/r002"]);
        assert_eq!(place.runs.keys().copied().collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn runs_are_new_once_and_gone_once() {
        let mut place = place(1);
        let of = "acme/r000".to_owned();
        assert_eq!(place.set_runs(&of, "queued", vec![1, 2]), [1, 2]);
        assert_eq!(place.set_runs(&of, "queued", vec![2]), [0; 0]);
        assert_eq!(place.set_runs(&of, "in_progress", vec![1]), [0; 0]);
        assert_eq!(place.unlisted(&of), [0; 0]);
        place.set_runs(&of, "in_progress", Vec::new());
        assert_eq!(place.unlisted(&of), [1]);
        assert_eq!(place.unlisted(&of), [0; 0]);
        place.settle(2);
        assert_eq!(place.runs.len(), 2, "one is open, the other not settled");
        place.settle(1);
        assert_eq!(place.runs.keys().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut place = place(10_500);
        assert_eq!(place.repositories.len(), MAX_REPOSITORIES);
        assert!(
            !place.repositories.contains_key("acme/r000"),
            "the coldest are left out"
        );
        place.add(reached("one-more", 1).repository, None);
        assert_eq!(place.repositories.len(), MAX_REPOSITORIES);
        let of = "acme/r9999".to_owned();
        let runs: Vec<i64> = (0..6_000).collect();
        assert_eq!(place.set_runs(&of, "queued", runs).len(), 6_000);
        assert_eq!(place.runs.len(), MAX_RUNS);
    }
}
