//! The survey of one owner's repositories: one call after the other.

mod looks;

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::time::Duration;

use muster_core::{JobStatus, Repository, Scope};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::errors::GithubError;
use super::super::reconcile::jittered;
use super::super::runs::Fetched;
use super::pace::{Calls, Intervals, LONGEST_PAUSE, pause};
use super::place::{Key, Look, Place, key};
use super::{Places, SurveyParts, Surveyed};
use crate::clock;
use crate::engine::Stopped;

/// Time between two lists of the repositories for each page that the list has. A repository that nobody has
/// heard of is noticed so much later.
const LIST_REPOSITORIES: Duration = Duration::from_secs(10);
/// Repositories in one page of the list.
const PAGE: usize = 100;
/// Time between two looks at what the fleet knows and at the pace.
const TAKE_STOCK: Duration = Duration::from_secs(2);

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
    /// What can't be read at present, and why.
    unreadable: BTreeMap<Look, String>,
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
                whole: true,
            },
            listed_at: None,
            list_etag: None,
            stock_taken_at: None,
            unreadable: BTreeMap::new(),
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
        let began = Instant::now();
        let listed = self.list_repositories().await?;
        self.take_stock().await?;
        let now = Instant::now();
        let (look, due) = match self.place.next(&self.intervals, now) {
            Some((look, due)) => (Some(look).filter(|_| due <= now), due),
            None => (None, now + TAKE_STOCK),
        };
        let Some(look) = look else {
            // The fleet may know of a repository, or the list have one, before that.
            let paid = pause(listed, self.pace, began.elapsed());
            return Ok((due - now).min(TAKE_STOCK).max(paid));
        };
        let calls = listed + self.look(look).await?;
        Ok(pause(calls, self.pace, began.elapsed()))
    }

    /// One look. What can't be read is left, as the rest may be readable; only what concerns all of it holds
    /// up the survey. Answers how many calls it took.
    async fn look(&mut self, look: Look) -> Result<u32, Failed> {
        let began = Instant::now();
        self.place.looked(&look, began);
        let calls = match &look {
            Look::Repository(key) => self.look_at_repository(key).await,
            Look::Run(run) => self.look_at_run(*run).await,
        };
        match calls {
            Ok(calls) => {
                self.unreadable.remove(&look);
                Ok(calls)
            }
            Err(Failed::Github(error)) if !concerns_all(&error) => {
                self.calls.note(1, true, began.elapsed());
                let reason = error.to_string();
                if self.unreadable.get(&look) != Some(&reason) {
                    tracing::warn!(
                        owner = self.name,
                        ?look,
                        reason,
                        "GitHub can't be read here"
                    );
                    self.unreadable.insert(look, reason);
                }
                Ok(1)
            }
            Err(failed) => Err(failed),
        }
    }

    /// Says what went wrong, and how long to pause for it.
    fn failed(&mut self, error: &GithubError) -> Duration {
        if matches!(error, GithubError::NotInstalled(scope) if *scope == self.via)
            && self.next_via()
        {
            tracing::info!(owner = self.name, %error, via = %self.via, "another way to it is tried");
            self.listed_at = None;
            return pause(1, self.pace, Duration::ZERO);
        }
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

    /// Goes on to the next repository by which the installation may be found, as it need not reach all that have
    /// a pool. False if it begins anew.
    fn next_via(&mut self) -> bool {
        let (Places::These(names), Scope::Repository { name, .. }) = (&self.places, &mut self.via)
        else {
            return false;
        };
        let after = (Bound::Excluded(name.as_str()), Bound::Unbounded);
        let next = names.range::<str, _>(after).next();
        let found = next.is_some();
        if let Some(next) = next.or_else(|| names.first()) {
            name.clone_from(next);
        }
        found
    }

    /// Reads the list of repositories, if it is time to. Answers how many calls it took.
    async fn list_repositories(&mut self) -> Result<u32, Failed> {
        let pages = self.place.repositories.len() / PAGE + 1;
        let often = LIST_REPOSITORIES * u32::try_from(pages).unwrap_or(u32::MAX);
        if self.listed_at.is_some_and(|at| at.elapsed() < often) {
            return Ok(0);
        }
        let began = Instant::now();
        let known = self.list_etag.as_deref();
        let list = self.parts.client.reached_repositories(&self.via, known);
        let list = match list.await {
            Ok(list) => list,
            Err(error) => {
                // What is known is looked at meanwhile, and no list is begun sooner than after one that goes well.
                self.listed_at = self.listed_at.map(|_| began);
                let calls = u32::try_from(pages).unwrap_or(u32::MAX);
                self.calls.note(calls, true, began.elapsed());
                return Err(error.into());
            }
        };
        let calls = self.note(&list, began);
        self.listed_at = Some(began);
        let Fetched::New {
            value: mut list,
            etag,
            ..
        } = list
        else {
            return Ok(calls);
        };
        self.list_etag = etag;
        if let Places::These(names) = &self.places {
            list.retain(|reached| {
                let name = &reached.repository.name;
                names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
            });
        }
        let open: HashSet<Key> = self.open_repositories().await?.iter().map(key).collect();
        self.place.set_repositories(list, &open, Instant::now());
        self.stock_taken_at = None;
        Ok(calls)
    }

    /// Notes what an answer cost. Answers how many calls it took.
    fn note<T: PartialEq>(&mut self, answer: &Fetched<T>, began: Instant) -> u32 {
        let calls = answer.calls();
        self.calls
            .note(calls, *answer != Fetched::Same, began.elapsed());
        calls
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
            self.place
                .add(repository, Some(clock::now()), Instant::now());
        }
        self.unreadable.retain(|look, _| self.place.has(look));
        let standing = self.parts.client.core_standing(&self.via).await?;
        let settings = self.parts.settings;
        self.pace = self.calls.pace(standing, settings.share, Instant::now());
        let load = self.place.sort_by_heat(self.pace, settings.interval);
        self.intervals = Intervals::of(load, self.pace, settings.interval);
        self.stock_taken_at = Some(Instant::now());
        self.show(self.nothing_readable());
        Ok(())
    }

    /// Why no repository can be read, if none can.
    fn nothing_readable(&self) -> Option<String> {
        let repositories = self.place.repositories.keys().cloned();
        let mut reason = None;
        for look in repositories.map(Look::Repository) {
            reason = Some(self.unreadable.get(&look)?);
        }
        reason.cloned()
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
}

/// Whether a failure is one of the owner's installation, rather than of what was looked at.
fn concerns_all(error: &GithubError) -> bool {
    matches!(error, GithubError::Later(_) | GithubError::NotInstalled(_))
}
