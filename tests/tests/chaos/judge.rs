//! What must hold at the end.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use muster_coordinator::store::TimelineQuery;
use muster_core::{Job, JobId, JobStatus};
use muster_tests::fakes::github::{Conclusion, JobView, Status};
use serde::Deserialize;

use crate::coordinator::Coordinator;
use crate::game::Terms;
use crate::plant::{ACCOUNT, Plant};

/// A batch as the coordinator stores it, as far as it matters here.
#[derive(Deserialize)]
struct Batch {
    token: String,
    launches: BTreeSet<String>,
    outcome: Option<Outcome>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Dealt(BTreeMap<String, Made>),
    Refused(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Made {
    instance: String,
}

/// Checks all of it; what is wrong is added to the tally.
pub(crate) async fn all(plant: &Plant, coordinator: &Coordinator, terms: Terms) {
    let mut wrong = Vec::new();
    launches(plant, coordinator, &mut wrong).await;
    waste(plant, terms, &mut wrong);
    jobs(plant, coordinator, terms, &mut wrong).await;
    let tally = plant.tally();
    if tally.most > usize::try_from(terms.max).unwrap_or(usize::MAX) {
        wrong.push(format!(
            "{} instances at a time, of {}",
            tally.most, terms.max
        ));
    }
    wrong.extend(tally.second_assignments.iter().cloned());
    drop(tally);
    let refused = plant.aws.throttled();
    if refused > 0 {
        wrong.push(format!("{refused} calls found their bucket empty"));
    }
    wrong.extend(plant.aws.violations());
    wrong.extend(plant.github.violations());
    plant.tally().wrong.extend(wrong);
}

/// One instance for each launch, and a launch for each instance; none is left.
async fn launches(plant: &Plant, coordinator: &Coordinator, wrong: &mut Vec<String>) {
    let rows = coordinator
        .store
        .launch_batches(&ACCOUNT.into(), Timestamp::UNIX_EPOCH)
        .await
        .unwrap();
    let mut launch_of: BTreeMap<String, String> = BTreeMap::new();
    let mut instance_of: BTreeMap<String, String> = BTreeMap::new();
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows {
        let batch: Batch = serde_json::from_str(&row.record).unwrap();
        asked.insert(batch.token.clone(), batch.launches.len());
        let dealt = match batch.outcome {
            Some(Outcome::Dealt(dealt)) => dealt,
            Some(Outcome::Refused(_)) => BTreeMap::new(),
            None => {
                wrong.push(format!("{} has no outcome", batch.token));
                continue;
            }
        };
        for (launch, made) in dealt {
            if let Some(other) = launch_of.insert(made.instance.clone(), launch.clone()) {
                wrong.push(format!("{} is of {launch} and of {other}", made.instance));
            }
            if let Some(other) = instance_of.insert(launch.clone(), made.instance.clone()) {
                wrong.push(format!(
                    "launched twice: {launch} is {} and {other}",
                    made.instance
                ));
            }
        }
    }
    let mut tokens = BTreeSet::new();
    for fleet in plant.aws.fleets() {
        let token = fleet.client_token.unwrap_or_default();
        if !tokens.insert(token.clone()) {
            wrong.push(format!("two fleets of {token}"));
        }
        if fleet.instances.len() > asked.get(&token).copied().unwrap_or(0) {
            wrong.push(format!("{token} has more instances than launches"));
        }
    }
    let tally = plant.tally();
    for (id, born) in &tally.instances {
        if !launch_of.contains_key(id) {
            wrong.push(format!("{id} of {} was dealt to nobody", born.token));
        }
        if !tally.gone.contains(id) {
            wrong.push(format!("{id} is left"));
        }
    }
}

/// Few more instances than jobs: one for each that Spot took back, and some that idled in vain.
fn waste(plant: &Plant, terms: Terms, wrong: &mut Vec<String>) {
    let tally = plant.tally();
    let jobs = usize::try_from(terms.jobs).unwrap_or(usize::MAX);
    let (instances, interrupted) = (tally.instances.len(), tally.interrupted.len());
    if instances > jobs + interrupted + jobs / 20 {
        wrong.push(format!(
            "{instances} instances for {jobs} jobs, of which Spot took {interrupted} back"
        ));
    }
}

/// Each job has ended, the coordinator says of it what GitHub says, and one that failed has a reason.
async fn jobs(plant: &Plant, coordinator: &Coordinator, terms: Terms, wrong: &mut Vec<String>) {
    let jobs = plant.github.jobs();
    if jobs.len() != usize::try_from(terms.jobs).unwrap_or(0) {
        wrong.push(format!("{} jobs of {}", jobs.len(), terms.jobs));
    }
    for job in jobs {
        let id = JobId(i64::try_from(job.id).unwrap_or(0));
        let Ok(Some(known)) = coordinator.store.job(id).await else {
            wrong.push(format!("job {id} is not known"));
            continue;
        };
        let theirs = job.conclusion.map(Conclusion::as_str);
        if job.status != Status::Completed
            || known.status() != JobStatus::Completed
            || known.report.conclusion.as_deref() != theirs
        {
            let ours = (known.status(), &known.report.conclusion);
            wrong.push(format!(
                "job {id} is {ours:?} here and {:?} {theirs:?} there",
                job.status
            ));
        }
        if job.conclusion != Some(Conclusion::Success)
            && let Err(why) = excused(plant, &job).and(told(coordinator, &known).await)
        {
            wrong.push(format!("job {id} ended with {theirs:?}: {why}"));
        }
    }
}

/// Whether the timeline says what became of a job's host.
async fn told(coordinator: &Coordinator, job: &Job) -> Result<(), String> {
    let query = TimelineQuery {
        launch: Some(job.taken_by.clone().ok_or("nobody took it")?),
        limit: 1_000,
        ..TimelineQuery::default()
    };
    let entries = coordinator.store.timeline(query).await;
    let entries = entries.map_err(|error| error.to_string())?;
    let mut entries = entries.iter().map(|stored| &stored.entry);
    entries
        .any(|entry| entry.what == "ended" && !entry.detail.is_empty())
        .then_some(())
        .ok_or_else(|| "the timeline does not say how its host ended".to_owned())
}

/// Whether what ended a job badly was in the game.
fn excused(plant: &Plant, job: &JobView) -> Result<(), String> {
    let tally = plant.tally();
    let Some(runner) = &job.runner_name else {
        return Err("it never ran".to_owned());
    };
    let instance = tally.ran_on.get(runner);
    let interrupted = instance.is_some_and(|id| tally.interrupted.contains(id));
    if tally.meant_to_fail.contains(&job.id) || interrupted {
        return Ok(());
    }
    let given_up = tally.given_up.get(&job.id);
    Err(format!(
        "{given_up:?}, {:?}, on {runner}, {instance:?}",
        job.annotation
    ))
}
