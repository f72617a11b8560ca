//! Asks GitHub how known jobs are: a webhook may be lost, and its redelivery too.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use muster_core::{Event, JobId, JobStatus, Repository};
use tokio_util::sync::CancellationToken;

use super::errors::GithubError;
use super::reconcile::jittered;
use super::rest::GithubClient;
use crate::clock;
use crate::engine::{Engine, Stopped};

/// Jobs that are asked for in one round: at one round a minute, 3,000 of the 5,000 calls that an
/// installation has in an hour.
const PER_ROUND: usize = 50;

/// Calls at once.
const AT_ONCE: usize = 8;

/// A job is left alone for so long after it was first heard of or last asked for.
const REST: Duration = Duration::from_secs(5 * 60);

/// A job that has not ended, as far as is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    id: JobId,
    repository: Repository,
    known_at: Timestamp,
}

/// Remembers when each open job was asked for.
#[derive(Debug, Default)]
pub struct JobCheck {
    checked: HashMap<JobId, Timestamp>,
}

impl JobCheck {
    /// Asks for open jobs at once and then at each interval, until cancelled or the engine stops.
    pub async fn run(
        mut self,
        client: GithubClient,
        engine: Engine,
        interval: Duration,
        cancel: CancellationToken,
    ) {
        while let Some(Ok(())) = cancel
            .run_until_cancelled(self.refresh(&client, &engine))
            .await
        {
            let pause = tokio::time::sleep(jittered(interval));
            if cancel.run_until_cancelled(pause).await.is_none() {
                return;
            }
        }
    }

    /// Asks for some open jobs, those that were not asked for the longest first, and hands what
    /// GitHub says to the engine. Ends early when GitHub asks to wait.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn refresh(&mut self, client: &GithubClient, engine: &Engine) -> Result<(), Stopped> {
        let open = engine
            .query(|fleet| {
                fleet
                    .jobs()
                    .filter(|job| job.status() != JobStatus::Completed)
                    .map(|job| Open {
                        id: job.id(),
                        repository: job.report.repository.clone(),
                        known_at: job.known_at,
                    })
                    .collect::<Vec<_>>()
            })
            .await?;
        let due = self.due(open, clock::now());
        let mut answers = stream::iter(due)
            .map(|job| async move {
                let answer = client.get_job(&job.repository, job.id).await;
                (job, answer)
            })
            .buffer_unordered(AT_ONCE);
        while let Some((job, answer)) = answers.next().await {
            match answer {
                Ok(report) => engine.submit(Event::Job(Box::new(report))).await?,
                Err(GithubError::Later(later)) => {
                    tracing::info!(reason = %later, "stopped asking for jobs");
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(job = %job.id, repository = %job.repository, %error,
                        "failed to ask for a job");
                }
            }
            self.checked.insert(job.id, clock::now());
        }
        Ok(())
    }

    /// The jobs to ask for now. Forgets those that are not open any more.
    fn due(&mut self, mut open: Vec<Open>, now: Timestamp) -> Vec<Open> {
        let ids: HashSet<_> = open.iter().map(|job| job.id).collect();
        self.checked.retain(|id, _| ids.contains(id));
        let last = |job: &Open| self.checked.get(&job.id).copied().unwrap_or(job.known_at);
        let rested = now.saturating_sub(REST).unwrap_or(Timestamp::MIN);
        open.retain(|job| last(job) <= rested);
        open.sort_by_key(|job| (last(job), job.id));
        open.truncate(PER_ROUND);
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never called: that it compiles shows that the loop can be a task of its own.
    #[expect(dead_code, reason = "checked by the compiler")]
    fn the_loop_can_be_spawned(client: GithubClient, engine: Engine) -> impl Send + 'static {
        let cancel = CancellationToken::new();
        JobCheck::default().run(client, engine, REST, cancel)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn open(id: i64, known_at: i64) -> Open {
        Open {
            id: JobId(id),
            repository: Repository {
                owner: "acme".to_owned(),
                name: "widgets".to_owned(),
                public: false,
                enterprise: None,
            },
            known_at: at(known_at),
        }
    }

    fn ids(jobs: &[Open]) -> Vec<i64> {
        jobs.iter().map(|job| job.id.0).collect()
    }

    #[test]
    fn the_longest_unasked_come_first_and_fresh_ones_rest() {
        let mut check = JobCheck::default();
        check.checked.insert(JobId(1), at(500));
        check.checked.insert(JobId(2), at(900));
        let jobs = vec![open(1, 0), open(2, 0), open(3, 400), open(4, 950)];
        assert_eq!(ids(&check.due(jobs, at(1_000))), [3, 1]);
    }

    #[test]
    fn every_open_job_has_its_turn() {
        let mut check = JobCheck::default();
        let jobs: Vec<_> = (0..120).map(|id| open(id, 0)).collect();
        let mut seen = Vec::new();
        for round in 0..3 {
            let due = check.due(jobs.clone(), at(1_000 + round));
            assert!(due.len() <= PER_ROUND);
            for job in &due {
                check.checked.insert(job.id, at(1_000 + round));
            }
            seen.extend(ids(&due));
        }
        assert_eq!(seen, (0..120).collect::<Vec<_>>());
    }

    #[test]
    fn ended_jobs_are_forgotten() {
        let mut check = JobCheck::default();
        check.checked.insert(JobId(1), at(0));
        assert!(check.due(Vec::new(), at(1_000)).is_empty());
        assert!(check.checked.is_empty());
    }
}
