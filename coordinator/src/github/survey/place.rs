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
    /// By status of runs.
    pub(super) etags: HashMap<&'static str, String>,
    /// Its open runs, by status, as far as they were listed.
    runs: HashMap<&'static str, Vec<i64>>,
    /// Whose turn it is among the runs of a list that aren't watched.
    unwatched: usize,
}

/// An open run.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) repository: Key,
    /// When it was found to be open, or to have ended.
    found_at: Instant,
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
                        etags: HashMap::new(),
                        runs: HashMap::new(),
                        unwatched: 0,
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
            ((due > now, turn, due), Look::Repository(key.clone()))
        });
        let known = self.runs.iter().filter_map(|(id, run)| {
            let due = run.looked_at? + intervals.runs;
            Some(((due > now, due, due), Look::Run(*id)))
        });
        let found = self.runs.iter().filter(|(_, run)| run.looked_at.is_none());
        let found = found.min_by_key(|(_, run)| run.found_at);
        let found = found.map(|(id, run)| (Look::Run(*id), run.found_at));
        let other = repositories.chain(known).min_by_key(|(rank, _)| *rank);
        let other = other.map(|((.., due), look)| (look, due));
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
        place.set_repositories(list, &HashSet::new(), Instant::now());
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
    async fn a_new_repository_has_its_turn_among_those_that_are_overdue() {
        let (mut place, intervals) = (place(10), Intervals::of(Load::default(), 5.0, TEN));
        let mut looks = 0;
        let mut look = |place: &mut Place| {
            let next = place.next(&intervals, Instant::now());
            let (look, _) = next.unwrap();
            place.looked(&look, Instant::now());
            looks += 1;
            (look, looks)
        };
        // Calls take longer than anybody thought: each look is late.
        for _ in 0..20 {
            look(&mut place);
            tokio::time::sleep(TEN).await;
        }
        place.add(reached("new", 1).repository, None, Instant::now());
        let new = Look::Repository("acme/new".to_owned());
        loop {
            tokio::time::sleep(TEN).await;
            let (look, looks) = look(&mut place);
            if look == new {
                break;
            }
            assert!(looks <= 20 + 11, "it starves");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn new_runs_go_first_in_turn_with_what_is_due() {
        let (mut place, intervals) = (place(3), Intervals::of(Load::default(), 5.0, TEN));
        let of = "acme/r000".to_owned();
        tokio::time::sleep(TEN).await;
        set_runs(&mut place, &of, "queued", (1..=4).collect());
        let mut order = Vec::new();
        while let Some((look, due)) = place.next(&intervals, Instant::now())
            && due <= Instant::now()
        {
            place.looked(&look, Instant::now());
            order.push(match look {
                Look::Run(id) => id.to_string(),
                Look::Repository(_) => "-".to_owned(),
            });
        }
        assert_eq!(order.join(" "), "1 - 2 - 3 - 4");
    }

    fn set_runs(place: &mut Place, of: &Key, status: &'static str, runs: Vec<i64>) -> Vec<i64> {
        let etag = Some("tag".to_owned());
        place.set_runs(of, status, runs, etag, Instant::now())
    }

    /// The runs that were found and not looked at yet.
    fn found(place: &Place) -> Vec<i64> {
        let found = place.runs.iter().filter(|(_, run)| run.looked_at.is_none());
        found.map(|(id, _)| *id).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn repositories_come_and_go_and_those_with_open_jobs_stay() {
        let mut place = place(3);
        set_runs(&mut place, &"acme/r000".to_owned(), "queued", vec![7]);
        set_runs(&mut place, &"acme/r001".to_owned(), "queued", vec![8]);
        let open = HashSet::from(["acme/r001".to_owned()]);
        let list = vec![reached("R002", 5), reached("new", 9)];
        place.set_repositories(list, &open, Instant::now());
        let keys: Vec<_> = place.repositories.keys().cloned().collect();
        assert_eq!(keys, ["acme/new", "acme/r001", "acme/r002"]);
        assert_eq!(place.runs.keys().copied().collect::<Vec<_>>(), [8]);
    }

    #[test]
    fn runs_are_new_once_and_gone_once() {
        let (mut place, now) = (place(1), Instant::now());
        let of = "acme/r000".to_owned();
        set_runs(&mut place, &of, "queued", vec![1, 2]);
        assert_eq!(found(&place), [1, 2]);
        for run in [1, 2] {
            place.looked(&Look::Run(run), now);
        }
        set_runs(&mut place, &of, "queued", vec![2]);
        set_runs(&mut place, &of, "in_progress", vec![1]);
        place.look_at_ended(&of, now);
        assert_eq!(found(&place), [0; 0]);
        set_runs(&mut place, &of, "in_progress", Vec::new());
        place.look_at_ended(&of, now);
        assert_eq!(found(&place), [1]);
        place.looked(&Look::Run(1), now);
        place.look_at_ended(&of, now);
        assert_eq!(found(&place), [0; 0]);
        place.settle(2);
        assert_eq!(place.runs.len(), 2, "one is open, the other not settled");
        place.settle(1);
        assert_eq!(place.runs.keys().copied().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn memory_is_bounded_and_what_it_has_no_room_for_is_read_in_turn() {
        let mut place = place(10_500);
        assert_eq!(place.repositories.len(), MAX_REPOSITORIES);
        assert!(
            !place.repositories.contains_key("acme/r000"),
            "the coldest are left out"
        );
        place.add(reached("one-more", 1).repository, None, Instant::now());
        assert_eq!(place.repositories.len(), MAX_REPOSITORIES);
        let of = "acme/r9999".to_owned();
        let runs: Vec<i64> = (0..5_025).collect();
        let mut read = HashSet::new();
        for _ in 0..3 {
            let some = set_runs(&mut place, &of, "queued", runs.clone());
            assert_eq!(some.len(), UNWATCHED_AT_ONCE);
            read.extend(some);
            assert!(place.repositories[&of].etags.is_empty(), "it is read whole");
        }
        assert_eq!(place.runs.len(), MAX_RUNS);
        assert_eq!(read, (5_000..5_025).collect());
        set_runs(&mut place, &of, "queued", (0..10).collect());
        assert_eq!(place.repositories[&of].etags["queued"], "tag");
    }
}
