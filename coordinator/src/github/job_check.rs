//! Asks GitHub how single jobs are that there is doubt about, and those that nothing was heard of for
//! long: a webhook may be lost, its redelivery too, and the survey doesn't reach every repository.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use muster_core::{Event, Job, JobId, JobReport, JobStatus, Repository};
use tokio_util::sync::CancellationToken;

use super::errors::GithubError;
use super::reconcile::jittered;
use super::rest::GithubClient;
use crate::clock;
use crate::engine::{Engine, Stopped};

/// Calls in an hour, in the long run: a seventh of the 5,000 that an installation has at least.
const PER_HOUR: f64 = 720.0;

/// Calls that may be made at once after a time without any.
const SAVED: f64 = 50.0;

/// Calls at once.
const AT_ONCE: usize = 8;

/// A job is left alone for so long after it was first heard of or last asked for.
const REST: Duration = Duration::from_secs(5 * 60);

/// The same for a job that GitHub did not know, or that an idle runner waits for.
const SHORT_REST: Duration = Duration::from_secs(60);

/// A job that has not ended, as far as is known here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    id: JobId,
    repository: Repository,
    known_at: Timestamp,
    urgency: Urgency,
}

/// How much hangs on the answer. The greatest comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// It goes its way, as far as is known.
    None,
    /// It may have been deleted, or started unheard.
    Some,
    /// It is not served before there is an answer.
    Great,
}

impl Open {
    fn of(job: &Job) -> Self {
        let urgency = match job {
            _ if job.doubted => Urgency::Great,
            _ if job.passed_over || job.missing_since.is_some() => Urgency::Some,
            _ => Urgency::None,
        };
        Self {
            id: job.id(),
            repository: job.report.repository.clone(),
            known_at: job.known_at,
            urgency,
        }
    }
}

/// Remembers when each open job was asked for, and how many calls may be made.
#[derive(Debug)]
pub struct JobCheck {
    checked: HashMap<JobId, Timestamp>,
    /// Jobs that GitHub can't be asked for before a time. They keep their place among the others.
    later: HashMap<JobId, Timestamp>,
    saved: f64,
    saved_at: Option<Timestamp>,
}

impl Default for JobCheck {
    fn default() -> Self {
        Self {
            checked: HashMap::new(),
            later: HashMap::new(),
            saved: SAVED,
            saved_at: None,
        }
    }
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

    /// Asks for some open jobs, the doubtful first, then those that were not asked for the longest, and
    /// hands what GitHub says to the engine.
    ///
    /// # Errors
    /// When the engine has stopped.
    pub async fn refresh(&mut self, client: &GithubClient, engine: &Engine) -> Result<(), Stopped> {
        let open = engine
            .query(|fleet| {
                fleet
                    .jobs()
                    .filter(|job| job.status() != JobStatus::Completed)
                    .map(Open::of)
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
            if let Some(event) = self.answered(&job, answer, clock::now()) {
                engine.submit(event).await?;
            }
        }
        Ok(())
    }

    /// What an answer comes to. One that can't be had now stands in nobody's way: jobs of another installation have
    /// other limits.
    fn answered(
        &mut self,
        job: &Open,
        answer: Result<JobReport, GithubError>,
        now: Timestamp,
    ) -> Option<Event> {
        if let Err(GithubError::Later(later)) = &answer {
            let wait = later.after.max(SHORT_REST);
            let until = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
            self.later.insert(job.id, until);
            if later.after >= SHORT_REST {
                // A limit that is known: no call was made, but for the first one that met it.
                self.saved = (self.saved + 1.0).min(SAVED);
            }
        } else {
            self.checked.insert(job.id, now);
        }
        match answer {
            Ok(report) => Some(Event::JobFound(Box::new(report))),
            Err(GithubError::Later(later)) => {
                tracing::debug!(job = %job.id, reason = %later, "a job is asked for later");
                None
            }
            Err(error) => {
                tracing::warn!(job = %job.id, repository = %job.repository, %error,
                    "failed to ask for a job");
                matches!(error, GithubError::NotFound(_))
                    .then_some(Event::JobMissing { job: job.id })
            }
        }
    }

    /// The jobs to ask for now. Forgets those that are not open any more.
    fn due(&mut self, mut open: Vec<Open>, now: Timestamp) -> Vec<Open> {
        let ids: HashSet<_> = open.iter().map(|job| job.id).collect();
        self.checked.retain(|id, _| ids.contains(id));
        self.later
            .retain(|id, until| ids.contains(id) && *until > now);
        let asked = |job: &Open| self.checked.get(&job.id).copied();
        let last = |job: &Open| asked(job).unwrap_or(job.known_at);
        open.retain(|job| {
            if self.later.contains_key(&job.id) {
                return false;
            }
            let rest = match job.urgency {
                Urgency::Great if asked(job).is_none() => return true,
                Urgency::Great | Urgency::Some => SHORT_REST,
                Urgency::None => REST,
            };
            last(job) <= now.saturating_sub(rest).unwrap_or(Timestamp::MIN)
        });
        open.sort_by_key(|job| (std::cmp::Reverse(job.urgency), last(job), job.id));
        open.truncate(self.spend(open.len(), now));
        open
    }

    /// How many of some calls may be made now.
    fn spend(&mut self, wanted: usize, now: Timestamp) -> usize {
        let since = self
            .saved_at
            .map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.saved_at = Some(now);
        self.saved = (self.saved + since.max(0.0) * PER_HOUR / 3_600.0).min(SAVED);
        let mut granted = 0;
        while granted < wanted && self.saved >= 1.0 {
            self.saved -= 1.0;
            granted += 1;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::super::errors::RetryLater;
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
            urgency: Urgency::None,
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
    fn every_open_job_has_its_turn_within_the_budget() {
        let mut check = JobCheck::default();
        let jobs: Vec<_> = (0..120).map(|id| open(id, 0)).collect();
        let mut seen = Vec::new();
        for second in 1_000..2_000 {
            for job in check.due(jobs.clone(), at(second)) {
                check.checked.insert(job.id, at(second));
                seen.push(job.id.0);
            }
            let most = 50 + (second - 1_000) / 5;
            assert!(i64::try_from(seen.len()).unwrap() <= most);
        }
        assert_eq!(seen[..120], (0..120).collect::<Vec<_>>());
    }

    #[test]
    fn a_doubtful_job_is_asked_for_at_once_and_before_all_others() {
        let mut check = JobCheck::default();
        let doubted = Open {
            urgency: Urgency::Great,
            ..open(1, 999)
        };
        let missing = Open {
            urgency: Urgency::Some,
            ..open(2, 930)
        };
        let due = check.due(
            vec![open(3, 0), missing, doubted.clone(), open(4, 930)],
            at(1_000),
        );
        assert_eq!(ids(&due), [1, 2, 3]);
        check.checked.insert(JobId(1), at(1_000));
        assert_eq!(ids(&check.due(vec![doubted.clone()], at(1_059))), [0; 0]);
        assert_eq!(ids(&check.due(vec![doubted], at(1_060))), [1]);
    }

    #[test]
    fn one_that_is_to_be_asked_for_later_lets_the_others_go_first() {
        let mut check = JobCheck {
            saved: 2.0,
            ..JobCheck::default()
        };
        let jobs = vec![open(1, 0), open(2, 10), open(3, 20)];
        let first = check.due(jobs.clone(), at(1_000));
        assert_eq!(ids(&first), [1, 2]);
        let later = |seconds| {
            Err(GithubError::Later(RetryLater {
                after: Duration::from_secs(seconds),
                reason: "the limit is used up".to_owned(),
            }))
        };
        for (job, seconds) in first.iter().zip([5, 600]) {
            assert!(check.answered(job, later(seconds), at(1_000)).is_none());
        }
        assert_eq!(
            ids(&check.due(jobs.clone(), at(1_005))),
            [3],
            "a call was left"
        );
        // It has kept its place, and the other waits for its limit.
        check.saved = SAVED;
        assert_eq!(ids(&check.due(jobs.clone(), at(1_060))), [1, 3]);
        assert_eq!(ids(&check.due(jobs, at(1_600))), [1, 2, 3]);
    }

    #[test]
    fn ended_jobs_are_forgotten() {
        let mut check = JobCheck::default();
        check.checked.insert(JobId(1), at(0));
        assert!(check.due(Vec::new(), at(1_000)).is_empty());
        assert!(check.checked.is_empty());
    }
}
