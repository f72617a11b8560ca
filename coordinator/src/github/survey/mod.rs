//! The survey: looks at GitHub for jobs and runners that webhooks should have told of.
//!
//! For each owner with a pool, its repositories are looked at in turn: the runs that are queued or in
//! progress, and the jobs of each run that is new or has been open for an interval. What differs from what
//! the fleet knows becomes an event. Questions carry the version of the last answer; GitHub answers 304 if
//! nothing changed, which is free. How fast it goes follows from what the hourly limit leaves
//! (`pace.rs`), and so does the time within which a job is noticed: it is logged, it is in
//! `muster_github_notice_seconds`, and `ListPools` shows it.
//!
//! Not surveyed: repositories of pools of an enterprise, whose installation can't list them. There, jobs are
//! found by webhooks, by their redelivery, and by [`super::JobCheck`].

mod news;
mod owner;
mod pace;
mod place;
mod registrations;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use muster_core::{PoolSpec, Scope};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::owner::Owner;
use super::rest::GithubClient;
use crate::engine::Engine;
use crate::store::Ledger;
use crate::telemetry::Metrics;

/// How the survey goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SurveySettings {
    /// Time between two looks at the same, if the budget allows: 1 s to 1 h.
    pub interval: Duration,
    /// Percent of the hourly limit of an installation that may be used by the time it starts anew, whoever
    /// uses it; the rest is left to launches and deletions. 1 to 90.
    pub share: u32,
}

/// How the survey of one owner's repositories goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Surveyed {
    /// Repositories that are looked at.
    pub repositories: usize,
    /// Those of them that are looked at most often.
    pub hot: usize,
    /// Open runs that are looked at.
    pub runs: usize,
    /// How long a queued job may stay unnoticed that no webhook tells of.
    pub notice_within: Duration,
    /// How long ago the repository was looked at that was not for the longest.
    pub oldest_look: Duration,
    /// Calls in a minute that the budget allows at present.
    pub calls_a_minute: f64,
    /// Why it does not go on at present, if it doesn't.
    pub held_up: Option<String>,
}

/// How the surveys go, by owner. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Surveys {
    surveyed: watch::Sender<BTreeMap<String, Surveyed>>,
}

impl Surveys {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<String, Surveyed> {
        self.surveyed.borrow().clone()
    }

    /// All of them, and each change from here on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Surveyed>> {
        self.surveyed.subscribe()
    }

    fn set(&self, owner: &str, surveyed: Surveyed) {
        self.surveyed.send_modify(|all| {
            all.insert(owner.to_owned(), surveyed);
        });
    }
}

/// What a survey works with.
#[derive(Clone, Debug)]
pub struct SurveyParts {
    /// The way to GitHub.
    pub client: GithubClient,
    /// The way to the fleet.
    pub engine: Engine,
    /// The ledger of runners that the fleet has forgotten.
    pub store: Arc<dyn Ledger>,
    /// Where it is shown how it goes.
    pub surveys: Surveys,
    /// The figures.
    pub metrics: Metrics,
    /// How to go about it.
    pub settings: SurveySettings,
}

/// Surveys what the pools serve, at once and then again and again, until cancelled.
pub async fn run(parts: SurveyParts, pools: Vec<PoolSpec>, cancel: CancellationToken) {
    let scopes: BTreeSet<Scope> = pools.iter().map(|pool| pool.scope.clone()).collect();
    let owners = owners(&scopes).into_iter().map(|(name, places)| {
        let owner = Owner::new(parts.clone(), name, places);
        owner.run(cancel.clone())
    });
    let registrations = registrations::run(parts.clone(), scopes, cancel.clone());
    tokio::join!(join_all(owners), registrations);
}

/// Which repositories of an owner are surveyed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    /// All that its installation reaches.
    All,
    /// Those with a pool of their own.
    These(BTreeSet<String>),
}

fn owners(scopes: &BTreeSet<Scope>) -> BTreeMap<String, Places> {
    let mut owners: BTreeMap<String, Places> = BTreeMap::new();
    for scope in scopes {
        match scope {
            Scope::Organization(login) => {
                owners.insert(login.to_lowercase(), Places::All);
            }
            Scope::Repository { owner, name } => {
                let places = owners
                    .entry(owner.to_lowercase())
                    .or_insert_with(|| Places::These(BTreeSet::new()));
                if let Places::These(names) = places {
                    names.insert(name.clone());
                }
            }
            Scope::Enterprise(_) => {}
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_surveyed_once() {
        let repository = |name: &str| Scope::Repository {
            owner: "Solo".to_owned(),
            name: name.to_owned(),
        };
        let scopes = BTreeSet::from([
            Scope::Organization("Acme".to_owned()),
            Scope::Repository {
                owner: "acme".to_owned(),
                name: "app".to_owned(),
            },
            Scope::Enterprise("corp".to_owned()),
            repository("a"),
            repository("b"),
        ]);
        let these = Places::These(["a", "b"].map(str::to_owned).into());
        let expected =
            BTreeMap::from([("acme".to_owned(), Places::All), ("solo".to_owned(), these)]);
        assert_eq!(owners(&scopes), expected);
    }
}
