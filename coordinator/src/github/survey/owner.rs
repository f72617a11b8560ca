//! The survey of one owner's repositories: one call after the other.

use std::collections::HashSet;
use std::time::Duration;

use muster_core::{JobStatus, Repository, Scope};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::errors::GithubError;
use super::super::reconcile::jittered;
use super::super::runs::Fetched;
use super::pace::{Calls, Intervals};
use super::place::{Key, Look, Place, key};
use super::{Places, SurveyParts, Surveyed, news};
use crate::clock;
use crate::engine::Stopped;

/// The statuses of runs in which a job may wait or run.
const OPEN: [&str; 2] = ["queued", "in_progress"];
/// Time between two lists of the repositories for each page that the list has. A repository that nobody has
/// heard of is noticed so much later.
const LIST_REPOSITORIES: Duration = Duration::from_secs(10);
/// Repositories in one page of the list.
const PAGE: usize = 100;
/// Time between two looks at what the fleet knows and at the pace.
const TAKE_STOCK: Duration = Duration::from_secs(2);
/// Longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a look led to nothing.
enum Failed {
    Github(GithubError),
    Stopped,
}

impl From<GithubError> for Failed {
    fn from(error: GithubError) -> Self {
        Self::Github(error)
    }
}

impl From<Stopped> for Failed {
    fn from(_: Stopped) -> Self {
        Self::Stopped
    }
}

pub(super) struct Owner {
    parts: SurveyParts,
    name: String,
    places: Places,
    /// What its installation is found by.
    via: Scope,
    place: Place,
    calls: Calls,
    pace: f64,
    intervals: Intervals,
    listed_at: Option<Instant>,
    list_etag: Option<String>,
    stock_taken_at: Option<Instant>,
    /// The bound that was logged last.
    told: Option<Duration>,
}

impl Owner {
    pub(super) fn new(parts: SurveyParts, name: String, places: Places) -> Self {
        let interval = parts.settings.interval;
        let via = match &places {
            Places::All => Scope::Organization(name.clone()),
            // The owner may be a user.
            Places::These(names) => Scope::Repository {
                owner: name.clone(),
                name: names.first().cloned().unwrap_or_default(),
            },
        };
        Self {
            parts,
            name,
            places,
            via,
            place: Place::default(),
            calls: Calls::default(),
            pace: 1.0,
            intervals: Intervals {
                hot: interval,
                cold: interval,
                runs: interval,
            },
            listed_at: None,
            list_etag: None,
            stock_taken_at: None,
            told: None,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let Some(step) = cancel.run_until_cancelled(self.step()).await else {
                return;
            };
            let pause = match step {
                Ok(pause) => pause,
                Err(Failed::Stopped) => return,
                Err(Failed::Github(error)) => self.failed(&error),
            };
            if cancel
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// One look at what is due, if anything is. Answers how long to pause.
    async fn step(&mut self) -> Result<Duration, Failed> {
        self.list_repositories().await?;
        self.take_stock().await?;
        let now = Instant::now();
        let Some((look, due)) = self.place.next(&self.intervals, now) else {
            return Ok(TAKE_STOCK);
        };
        if due > now {
            // The fleet may know of a repository, or the list have one, before that.
            return Ok((due - now).min(TAKE_STOCK));
        }
        let began = Instant::now();
        self.place.looked(&look, began);
        let calls = match &look {
            Look::Repository(key) => self.look_at_repository(key).await?,
            Look::Run(run) => self.look_at_run(*run).await?,
        };
        let due = Duration::from_secs_f64(f64::from(calls) / self.pace);
        Ok(due.saturating_sub(began.elapsed()))
    }

    /// Says what went wrong, and how long to pause for it.
    fn failed(&mut self, error: &GithubError) -> Duration {
        let pause = match error.retry_after() {
            Some(after) => after.min(LONGEST_PAUSE),
            None => self.parts.settings.interval,
        };
        tracing::warn!(
            owner = self.name,
            %error,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the survey of GitHub is held up"
        );
        self.show(Some(error.to_string()));
        jittered(pause)
    }

    /// Reads the list of repositories, if it is time to.
    async fn list_repositories(&mut self) -> Result<(), Failed> {
        let pages = self.place.repositories.len() / PAGE + 1;
        let often = LIST_REPOSITORIES * u32::try_from(pages).unwrap_or(u32::MAX);
        if self.listed_at.is_some_and(|at| at.elapsed() < often) {
            return Ok(());
        }
        let began = Instant::now();
        let known = self.list_etag.as_deref();
        let list = self
            .parts
            .client
            .reached_repositories(&self.via, known)
            .await?;
        self.calls.note(list != Fetched::Same, began.elapsed());
        self.listed_at = Some(began);
        let Fetched::New {
            value: mut list,
            etag,
        } = list
        else {
            return Ok(());
        };
        self.list_etag = etag;
        if let Places::These(names) = &self.places {
            list.retain(|reached| {
                let name = &reached.repository.name;
                names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
            });
        }
        let open: HashSet<Key> = self.open_repositories().await?.iter().map(key).collect();
        self.place.set_repositories(list, &open);
        self.stock_taken_at = None;
        Ok(())
    }

    /// The repositories of this owner with jobs that have not ended.
    async fn open_repositories(&self) -> Result<Vec<Repository>, Stopped> {
        let owner = self.name.clone();
        self.parts
            .engine
            .query(move |fleet| {
                let open = fleet
                    .jobs()
                    .filter(|job| job.status() != JobStatus::Completed);
                open.map(|job| job.report.repository.clone())
                    .filter(|repository| repository.owner.eq_ignore_ascii_case(&owner))
                    .collect()
            })
            .await
    }

    /// Takes in what the fleet knows, and settles the pace anew.
    async fn take_stock(&mut self) -> Result<(), Failed> {
        if self
            .stock_taken_at
            .is_some_and(|at| at.elapsed() < TAKE_STOCK)
        {
            return Ok(());
        }
        for repository in self.open_repositories().await? {
            self.place.add(repository, Some(clock::now()));
        }
        let standing = self.parts.client.core_standing(&self.via).await?;
        let settings = self.parts.settings;
        self.pace = self.calls.pace(standing, settings.share, Instant::now());
        let load = self.place.sort_by_heat(self.pace, settings.interval);
        self.intervals = Intervals::of(load, self.pace, settings.interval);
        self.stock_taken_at = Some(Instant::now());
        self.show(None);
        Ok(())
    }

    /// Shows how it goes, and logs the bound when it is quite another.
    fn show(&mut self, held_up: Option<String>) {
        let bound = self.intervals.bound();
        let oldest = self.place.oldest_look();
        let load = self
            .place
            .sort_by_heat(self.pace, self.parts.settings.interval);
        let surveyed = Surveyed {
            repositories: load.hot + load.cold,
            hot: load.hot,
            runs: load.runs,
            notice_within: bound,
            oldest_look: oldest.map(|at| at.elapsed()).unwrap_or_default(),
            calls_a_minute: self.pace * 60.0,
            held_up,
        };
        if self
            .told
            .is_none_or(|told| bound > told * 2 || bound * 2 < told)
        {
            tracing::info!(
                owner = self.name,
                repositories = surveyed.repositories,
                open_runs = surveyed.runs,
                seconds = bound.as_secs(),
                "a queued job that no webhook tells of is noticed within this time"
            );
            self.told = Some(bound);
        }
        self.parts.metrics.set_notice(&self.name, bound);
        self.parts.surveys.set(&self.name, surveyed);
    }

    /// Lists the open runs of a repository, and looks at those that are new and those that have ended.
    async fn look_at_repository(&mut self, key: &Key) -> Result<u32, Failed> {
        let mut calls = 0;
        let mut due = Vec::new();
        for status in OPEN {
            let Some(watched) = self.place.repositories.get(key) else {
                return Ok(calls);
            };
            let repository = watched.repository.clone();
            let known = watched.etags.get(status).cloned();
            let began = Instant::now();
            let answer = self
                .parts
                .client
                .runs_with(&repository, status, known.as_deref())
                .await;
            calls += 1;
            let answer = match answer {
                // It was deleted, or taken from the app: the next list of repositories will say so.
                Err(GithubError::NotFound(_)) => {
                    news::missing(&self.parts.engine, &repository, None).await?;
                    return Ok(calls);
                }
                other => other?,
            };
            let same = answer == Fetched::Same;
            self.calls.note(!same, began.elapsed());
            if let Fetched::New { value, etag } = answer {
                due.extend(self.place.set_runs(key, status, value));
                if let Some(watched) = self.place.repositories.get_mut(key) {
                    match etag {
                        Some(etag) => watched.etags.insert(status, etag),
                        None => watched.etags.remove(status),
                    };
                }
            }
        }
        let ended = self.place.unlisted(key);
        for run in due.into_iter().chain(ended) {
            calls += self.look_at_jobs(key, run).await?;
        }
        Ok(calls)
    }

    async fn look_at_run(&mut self, run: i64) -> Result<u32, Failed> {
        let Some(of) = self.place.runs.get(&run).map(|run| run.repository.clone()) else {
            return Ok(0);
        };
        self.look_at_jobs(&of, run).await
    }

    /// Looks at the jobs of a run, which may have ended.
    async fn look_at_jobs(&mut self, of: &Key, run: i64) -> Result<u32, Failed> {
        let Some(watched) = self.place.repositories.get(of) else {
            return Ok(0);
        };
        let repository = watched.repository.clone();
        let known = self.place.runs.get(&run).and_then(|run| run.etag.clone());
        let began = Instant::now();
        self.place.looked(&Look::Run(run), began);
        let answer = self
            .parts
            .client
            .jobs_of_run(&repository, run, known.as_deref())
            .await;
        let answer = match answer {
            Err(GithubError::NotFound(_)) => {
                self.place.forget(run);
                news::missing(&self.parts.engine, &repository, Some(run)).await?;
                return Ok(1);
            }
            other => other?,
        };
        self.calls.note(answer != Fetched::Same, began.elapsed());
        let left = match answer {
            Fetched::Same => None,
            Fetched::New { value, etag } => {
                if let Some(run) = self.place.runs.get_mut(&run) {
                    run.etag = etag;
                }
                news::hand_over(&self.parts.engine, value).await?
            }
        };
        match left {
            Some(left) => self.place.look_again(run, left, &self.intervals),
            None => self.place.settle(run),
        }
        Ok(1)
    }
}
