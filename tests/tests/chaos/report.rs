//! The figures of a run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use muster_tests::fakes::github::Conclusion;

use crate::game::Terms;
use crate::plant::Plant;

/// The figures of a run, and what was wrong.
#[derive(Debug)]
pub(crate) struct Report {
    terms: Terms,
    conclusions: BTreeMap<&'static str, usize>,
    instances: usize,
    spot: usize,
    interrupted: usize,
    most: usize,
    kills: u32,
    questions: u64,
    /// Calls of AWS by action: all, and by their error.
    calls: BTreeMap<String, (usize, BTreeMap<String, usize>)>,
    github_calls: u64,
    deliveries: usize,
    lost_deliveries: usize,
    refused: u64,
    wait: [Duration; 3],
    played: Duration,
    took: Duration,
    pub(crate) wrong: Vec<String>,
}

impl Report {
    pub(crate) fn of(plant: &Plant, terms: Terms, played: Duration, took: Duration) -> Self {
        let mut conclusions: BTreeMap<_, usize> = BTreeMap::new();
        let mut waits = Vec::new();
        for job in plant.github.jobs() {
            let word = job.conclusion.map_or("none", Conclusion::as_str);
            *conclusions.entry(word).or_default() += 1;
            if let Some(started) = job.started_at {
                let wait = started.duration_since(job.created_at);
                waits.push(Duration::try_from(wait).unwrap_or_default());
            }
        }
        let mut calls: BTreeMap<_, (usize, BTreeMap<_, usize>)> = BTreeMap::new();
        for call in plant.aws.calls() {
            let counted = calls.entry(call.action).or_default();
            counted.0 += 1;
            if let Some(error) = call.error {
                *counted.1.entry(error).or_default() += 1;
            }
        }
        let deliveries = plant.github.deliveries();
        let tally = plant.tally();
        Self {
            terms,
            conclusions,
            instances: tally.instances.len(),
            spot: tally.instances.values().filter(|born| born.spot).count(),
            interrupted: tally.interrupted.len(),
            most: tally.most,
            kills: tally.kills,
            questions: tally.questions,
            calls,
            github_calls: plant.github.all_served().values().sum(),
            lost_deliveries: deliveries
                .iter()
                .filter(|it| !(200..300).contains(&it.status_code))
                .count(),
            deliveries: deliveries.len(),
            refused: plant.aws.throttled(),
            wait: [50, 99, 100].map(|share| percentile(&mut waits, share)),
            played,
            took,
            wrong: tally.wrong.clone(),
        }
    }
}

fn percentile(times: &mut [Duration], share: usize) -> Duration {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get(last * share / 100).copied().unwrap_or_default()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms {
            seed, jobs, max, ..
        } = self.terms;
        writeln!(f, "seed {seed}: {jobs} jobs, at most {max} instances")?;
        writeln!(f, "jobs: {:?}", self.conclusions)?;
        writeln!(
            f,
            "instances: {}, of them {} Spot, {} taken back; {} at a time",
            self.instances, self.spot, self.interrupted, self.most
        )?;
        writeln!(
            f,
            "coordinator: {} kills, {} questions why a job waits",
            self.kills, self.questions
        )?;
        for (action, (all, errors)) in &self.calls {
            writeln!(f, "calls: {action}: {all}, errors {errors:?}")?;
        }
        writeln!(f, "calls that found their bucket empty: {}", self.refused)?;
        writeln!(
            f,
            "GitHub: {} calls, {} deliveries, {} of them lost",
            self.github_calls, self.deliveries, self.lost_deliveries
        )?;
        let [median, worse, worst] = self.wait.map(|wait| wait.as_secs());
        writeln!(
            f,
            "wait for a runner: p50 {median} s, p99 {worse} s, worst {worst} s"
        )?;
        writeln!(
            f,
            "time: {:.0} min of compressed time in {:.0} s",
            self.played.as_secs_f64() / 60.0,
            self.took.as_secs_f64()
        )?;
        writeln!(f, "wrong: {}", self.wrong.len())?;
        for wrong in self.wrong.iter().take(50) {
            writeln!(f, "  {wrong}")?;
        }
        Ok(())
    }
}
