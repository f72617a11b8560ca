//! Compares GitHub's runners with the ledger: registrations that nobody deletes any more, and those that
//! went by themselves.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{
    Event, GithubRunnerId, LaunchId, Marks, Registered, Registration, RunnerName, Scope,
};
use tokio_util::sync::CancellationToken;

use super::super::errors::GithubError;
use super::super::reconcile::jittered;
use super::SurveyParts;
use crate::clock;
use crate::engine::Stopped;
use crate::store::StoreError;

/// Time between two lists of one scope; a call lists 100 runners.
const INTERVAL: Duration = Duration::from_secs(2 * 60);
/// What every name of a runner of ours begins with.
const OURS: &str = "muster-";
/// Names that the store is asked for in one round: those that the fleet has forgotten.
const FORGOTTEN: usize = 500;
/// Registrations that are looked at singly in one round.
const SINGLY: usize = 20;
/// A registration is left alone for so long after it was made: GitHub's answers lag behind each other.
const YOUNG: Duration = Duration::from_secs(2 * 60);

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Github(#[from] GithubError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Lists the runners of each scope at once and then at intervals, until cancelled.
pub(super) async fn run(parts: SurveyParts, scopes: BTreeSet<Scope>, cancel: CancellationToken) {
    loop {
        for scope in &scopes {
            match cancel.run_until_cancelled(compare(&parts, scope)).await {
                None | Some(Err(Failed::Stopped(_))) => return,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%scope, %error, "runners can't be compared with GitHub's list");
                }
            }
        }
        let pause = tokio::time::sleep(jittered(INTERVAL));
        if cancel.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// A registration that GitHub should know.
struct Expected {
    launch: LaunchId,
    name: RunnerName,
    id: GithubRunnerId,
}

async fn compare(parts: &SurveyParts, scope: &Scope) -> Result<(), Failed> {
    let list = parts.client.list_runners(scope).await?;
    let ids: HashSet<GithubRunnerId> = list.iter().map(|runner| runner.id).collect();
    let mut listed = Vec::new();
    let mut asked = 0;
    for runner in list {
        if !runner.name.as_str().starts_with(OURS) {
            continue;
        }
        let launch = launch_of(parts, &runner.name, &mut asked).await?;
        // Another coordinator may have a pool of the same name: what the ledger doesn't know is not ours.
        if let Some(launch) = launch {
            listed.push(Registered {
                name: runner.name,
                id: runner.id,
                launch,
                busy: runner.busy,
            });
        }
    }
    let scope = scope.clone();
    let event = Event::RunnersListed {
        scope: scope.clone(),
        listed,
    };
    parts.engine.submit(event).await?;
    for missing in unlisted(parts, &scope, ids).await? {
        if parts.client.has_runner(&scope, missing.id).await? {
            continue;
        }
        let Expected { launch, name, .. } = missing;
        parts
            .engine
            .submit(Event::RunnerMissing { launch, name })
            .await?;
    }
    Ok(())
}

/// The launch of a runner, by the fleet or by the ledger of what it has forgotten.
async fn launch_of(
    parts: &SurveyParts,
    name: &RunnerName,
    asked: &mut usize,
) -> Result<Option<LaunchId>, Failed> {
    let wanted = name.clone();
    let known = parts
        .engine
        .query(move |fleet| {
            let runner = fleet.find_runner(wanted.as_str());
            runner.map(|runner| runner.launch.clone())
        })
        .await?;
    if known.is_some() || *asked >= FORGOTTEN {
        return Ok(known);
    }
    *asked += 1;
    let runner = match parts.store.runner(name.as_str()).await {
        // A record of a newer version: that one knows what to do.
        Err(StoreError::Corrupt { .. }) => return Ok(None),
        read => read?,
    };
    Ok(runner
        .filter(|runner| runner.name == *name)
        .map(|runner| runner.launch))
}

/// Some of the registrations that GitHub should know and did not list, those first that were not heard of
/// for the longest.
async fn unlisted(
    parts: &SurveyParts,
    scope: &Scope,
    listed: HashSet<GithubRunnerId>,
) -> Result<Vec<Expected>, Failed> {
    let (scope, now) = (scope.clone(), clock::now());
    let mut expected = parts
        .engine
        .query(move |fleet| {
            let runners = fleet.runners().filter(|runner| runner.scope == scope);
            runners
                .filter(|runner| is_grown(&runner.marks, now))
                .filter_map(|runner| match runner.registration {
                    Registration::Exists { id: Some(id) } if !listed.contains(&id) => Some((
                        runner.marks.stage_since,
                        Expected {
                            launch: runner.launch.clone(),
                            name: runner.name.clone(),
                            id,
                        },
                    )),
                    _ => None,
                })
                .collect::<Vec<_>>()
        })
        .await?;
    expected.sort_by_key(|(since, _)| *since);
    let expected = expected.into_iter().map(|(_, runner)| runner);
    Ok(expected.take(SINGLY).collect())
}

fn is_grown(marks: &Marks, now: Timestamp) -> bool {
    // What was registered before that was noted had enrolled then.
    let made_at = marks.registered_at.or(marks.enrolled_at);
    let young_until = made_at.and_then(|at| at.checked_add(YOUNG).ok());
    young_until.is_some_and(|until| until <= now)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn marks(enrolled: i64, registered: Option<i64>) -> Marks {
        let at = |second: i64| Timestamp::from_second(second).unwrap().to_string();
        serde_json::from_value(json!({
            "created_at": at(0), "launched_at": at(0), "enrolled_at": at(enrolled),
            "registered_at": registered.map(at), "listening_at": null, "busy_at": null,
            "over_at": null, "gone_at": null, "stage_since": at(0),
        }))
        .unwrap()
    }

    #[test]
    fn a_registration_is_young_from_when_it_was_made() {
        let now = Timestamp::from_second(1_000).unwrap();
        assert!(!is_grown(&marks(100, Some(900)), now));
        assert!(is_grown(&marks(100, Some(880)), now));
        assert!(is_grown(&marks(880, None), now));
    }
}
