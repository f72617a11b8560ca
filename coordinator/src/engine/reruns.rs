//! Runs that are waited for, and run again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Event, RerunAnswer, RerunCall, RunAttempt, RunSeen};
use tokio::time::Instant;

use super::executor::{Again, again};
use crate::backoff::Backoff;
use crate::clock;
use crate::github::{Fetched, GithubClient, GithubError, RunStanding};

/// Wait before a run is looked at again; grows with each look.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LATER_LOOKS: Duration = Duration::from_secs(60);
/// What each other run that is watched adds to it: many runs make 720 looks in an hour, a seventh of the 5,000
/// calls that an installation has at least. Most are answered 304, and don't count.
const FOR_EACH_OTHER: Duration = Duration::from_secs(5);
/// Longest wait after a refusal.
const AFTER_REFUSALS: Duration = Duration::from_secs(15 * 60);
/// A refusal that has lasted so long is not going to be mended.
const REFUSED_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// GitHub ends a run after 35 days (<https://docs.github.com/en/actions/reference/limits>).
const LONGEST_RUN: Duration = Duration::from_secs(35 * 24 * 60 * 60);
/// Wait after GitHub said that a run is under way that had completed: somebody else was faster.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// How many runs are watched. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched(Arc<AtomicU32>);

impl Watched {
    fn one_more(&self) -> Watching {
        self.0.fetch_add(1, Ordering::Relaxed);
        Watching(self.clone())
    }
}

/// One of the runs that are watched.
struct Watching(Watched);

impl Watching {
    /// How long to wait at least, so that all looks together keep to their budget.
    fn share(&self) -> Duration {
        let others = self.0.0.load(Ordering::Relaxed).saturating_sub(1);
        FOR_EACH_OTHER.saturating_mul(others)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until a run has completed or has a newer attempt, or until that can't be expected any more. A run that
/// GitHub doesn't know has neither, and never will.
pub(super) async fn watch(
    github: &GithubClient,
    watched: &Watched,
    run: &RunAttempt,
) -> Result<Event, Again> {
    let watching = watched.one_more();
    let left = |reason| {
        let run = run.clone();
        Ok(Event::RunLeft { run, reason })
    };
    let mut known = Known::default();
    let mut backoff = Backoff::new(FIRST_LOOK, LATER_LOOKS);
    let mut refusals = Refusals::default();
    loop {
        let wait = match look(github, run, &mut known).await {
            Ok(Some(seen)) => return Ok(completed(run, seen)),
            Ok(None) if known.is_too_old(clock::now()) => {
                return left(
                    "its run did not complete in the 35 days that GitHub allows".to_owned(),
                );
            }
            Ok(None) => {
                refusals = Refusals::default();
                backoff.wait()
            }
            Err(GithubError::NotFound(_)) => return Ok(completed(run, deleted(run))),
            Err(error @ GithubError::Later(_)) => return Err(again(&error)),
            Err(error) if refusals.have_lasted(Instant::now()) => {
                return left(format!("GitHub can't be asked for its run: {error}"));
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::warn!(%run, reason, "a run that is watched can't be looked at");
                refusals.backoff.wait()
            }
        };
        tokio::time::sleep(watching.share().saturating_add(wait)).await;
    }
}

/// What is known of a run from the looks before.
#[derive(Debug, Default)]
struct Known {
    etag: Option<String>,
    started_at: Option<Timestamp>,
}

impl Known {
    fn is_too_old(&self, now: Timestamp) -> bool {
        let age = self.started_at.map(|at| now.duration_since(at));
        age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > LONGEST_RUN))
    }
}

/// Refusals without anything else between them.
#[derive(Debug)]
struct Refusals {
    since: Option<Instant>,
    backoff: Backoff,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            since: None,
            backoff: Backoff::new(LATER_LOOKS, AFTER_REFUSALS),
        }
    }
}

impl Refusals {
    /// Notes one more. True if there is no end to them.
    fn have_lasted(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) >= REFUSED_FOR
    }
}

fn completed(run: &RunAttempt, seen: RunSeen) -> Event {
    Event::RunCompleted {
        run: run.clone(),
        seen: Box::new(seen),
    }
}

fn deleted(run: &RunAttempt) -> RunSeen {
    RunSeen {
        attempt: run.attempt,
        conclusion: Some("deleted".to_owned()),
        jobs: Vec::new(),
    }
}

async fn look(
    github: &GithubClient,
    run: &RunAttempt,
    known: &mut Known,
) -> Result<Option<RunSeen>, GithubError> {
    let answer = github.run(&run.repository, run.run_id, known.etag.as_deref());
    let standing = match answer.await? {
        Fetched::Same => return Ok(None),
        Fetched::New { value, etag, .. } => {
            known.started_at = value.started_at;
            // Once it has completed, its jobs are to be read, however often it takes.
            known.etag = etag.filter(|_| !value.completed);
            value
        }
    };
    let seen = |jobs| RunSeen {
        attempt: standing.attempt,
        conclusion: standing.conclusion.clone(),
        jobs,
    };
    if standing.attempt > run.attempt {
        return Ok(Some(seen(Vec::new())));
    }
    if !standing.completed {
        return Ok(None);
    }
    let jobs = github.jobs_of_run(&run.repository, run.run_id, None).await;
    match jobs? {
        // Which jobs are run again depends on all of them.
        Fetched::New { left_out, .. } if left_out > 0 => Err(GithubError::Garbled(format!(
            "{left_out} of its jobs can't be read"
        ))),
        Fetched::New { value, .. } => Ok(Some(seen(value))),
        // Nothing was said to be known.
        Fetched::Same => Ok(None),
    }
}

async fn standing(github: &GithubClient, run: &RunAttempt) -> Result<RunStanding, GithubError> {
    match github.run(&run.repository, run.run_id, None).await? {
        Fetched::New { value, .. } => Ok(value),
        Fetched::Same => Err(GithubError::Garbled(
            "a run is the same as nothing".to_owned(),
        )),
    }
}

/// Has jobs of a run run again, unless it has a newer attempt: that may be what came of a call whose answer
/// was lost. `leads` is asked after that look: a process that stood still meanwhile may have a successor, whose own
/// new attempt has completed by now.
pub(super) async fn rerun(
    github: &GithubClient,
    leads: impl Future<Output = Result<(), Again>>,
    run: &RunAttempt,
    call: &RerunCall,
) -> Result<Event, Again> {
    let answered = |answer| {
        let run = run.clone();
        Ok(Event::RerunAnswered { run, answer })
    };
    let standing = match standing(github, run).await {
        Ok(standing) => standing,
        Err(error @ GithubError::NotFound(_)) => {
            return answered(RerunAnswer::Refused(error.to_string()));
        }
        Err(error) => return Err(again(&error)),
    };
    if standing.attempt > run.attempt {
        return answered(RerunAnswer::Newer(standing.attempt));
    }
    leads.await?;
    match github.rerun(run, call).await {
        Ok(()) => answered(RerunAnswer::Started),
        Err(error) if is_under_way(&error) => Err(Again {
            after: UNDER_WAY,
            reason: error.to_string(),
        }),
        Err(error @ (GithubError::Later(_) | GithubError::Garbled(_))) => Err(again(&error)),
        Err(error) => answered(RerunAnswer::Refused(error.to_string())),
    }
}

/// GitHub answers 403 "already running" to whoever would run a run again that has not completed.
fn is_under_way(error: &GithubError) -> bool {
    matches!(error, GithubError::Refused { status: 403, message }
        if message.to_ascii_lowercase().contains("already running"))
}

#[cfg(test)]
mod tests {
    use muster_core::Repository;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::github::fake::{Fake, reply, with};

    const RUN: &str = "runs/5";

    fn attempt() -> RunAttempt {
        RunAttempt {
            repository: Repository {
                owner: "acme".to_owned(),
                name: "widgets".to_owned(),
                public: false,
                enterprise: None,
            },
            run_id: 5,
            attempt: 1,
        }
    }

    fn run(status: &str, started: &str) -> Value {
        json!({ "id": 5, "run_attempt": 1, "status": status, "run_started_at": started })
    }

    #[tokio::test]
    async fn a_run_that_is_the_same_costs_nothing() {
        let mut looks = 0;
        let github = Fake::new(move |asked| {
            if asked.line.contains("runs/5/jobs") {
                return Some(reply(200, json!({ "jobs": [] })));
            }
            if !asked.line.contains(RUN) {
                return None;
            }
            looks += 1;
            let now = Timestamp::now().to_string();
            Some(match looks {
                1 => with(200, &[("etag", "\"a\"")], run("in_progress", &now)),
                2 => with(304, &[], Value::Null),
                _ => with(200, &[("etag", "\"b\"")], run("completed", &now)),
            })
        })
        .await;
        let watched = Watched::default();
        let event = watch(&github.client(), &watched, &attempt()).await;
        assert!(matches!(event, Ok(Event::RunCompleted { .. })));
        let known = |asked: &crate::github::fake::Asked| {
            let known = asked.headers.get("if-none-match");
            known.map(|known| known.to_str().unwrap().to_owned())
        };
        let asked: Vec<_> = github.asked("runs/5").iter().map(known).collect();
        let tag = Some("\"a\"".to_owned());
        assert_eq!(asked, [None, tag.clone(), tag, None]);
        assert_eq!(
            watched.0.load(Ordering::Relaxed),
            0,
            "it is watched no more"
        );
    }

    #[tokio::test]
    async fn a_run_that_is_older_than_github_allows_is_left() {
        let body = run("in_progress", "2026-01-02T03:04:05Z");
        let github = Fake::answering(RUN, vec![reply(200, body)]).await;
        let event = watch(&github.client(), &Watched::default(), &attempt()).await;
        let Ok(Event::RunLeft { run, reason }) = event else {
            panic!("it is watched for ever")
        };
        assert_eq!(run, attempt());
        assert!(reason.contains("35 days"), "{reason}");
    }

    #[tokio::test]
    async fn a_run_with_a_job_that_cannot_be_read_is_not_judged() {
        let github = Fake::new(|asked| {
            let now = Timestamp::now().to_string();
            let jobs = asked.line.contains("runs/5/jobs");
            let odd = || reply(200, json!({ "jobs": [{ "id": "odd" }] }));
            let done = || reply(200, run("completed", &now));
            let run = asked.line.contains(RUN);
            run.then(|| if jobs { odd() } else { done() })
        })
        .await;
        let seen = look(&github.client(), &attempt(), &mut Known::default()).await;
        assert!(matches!(seen, Err(GithubError::Garbled(_))), "{seen:?}");
    }

    #[test]
    fn the_more_runs_are_watched_the_longer_each_waits() {
        let watched = Watched::default();
        let one = watched.one_more();
        assert_eq!(one.share(), Duration::ZERO);
        let others: Vec<_> = (0..99).map(|_| watched.one_more()).collect();
        let looks_an_hour = 100.0 * 3_600.0 / one.share().as_secs_f64();
        assert!(looks_an_hour < 730.0, "{looks_an_hour}");
        drop(others);
        assert_eq!(one.share(), Duration::ZERO);
    }

    #[rstest]
    #[case::leads(true, 1)]
    #[case::leads_no_more(false, 0)]
    #[tokio::test]
    async fn only_a_leader_has_a_run_run_again(#[case] leads: bool, #[case] calls: usize) {
        let now = Timestamp::now().to_string();
        let github = Fake::new(move |asked| {
            let post = asked.line.starts_with("POST");
            let look = || reply(200, run("completed", &now));
            let known = asked.line.contains(RUN);
            known.then(|| if post { reply(201, json!({})) } else { look() })
        })
        .await;
        let lead = async {
            let again = Again {
                after: Duration::ZERO,
                reason: "another leads".to_owned(),
            };
            leads.then_some(()).ok_or(again)
        };
        let answer = rerun(&github.client(), lead, &attempt(), &RerunCall::FailedJobs).await;
        let started = Event::RerunAnswered {
            run: attempt(),
            answer: RerunAnswer::Started,
        };
        assert_eq!(answer.ok(), leads.then_some(started));
        let asked = github.asked(RUN);
        let posts = asked.iter().filter(|it| it.line.starts_with("POST"));
        assert_eq!(posts.count(), calls);
    }

    #[test]
    fn only_a_refusal_that_lasts_is_final() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert!(!refusals.have_lasted(now));
        assert!(!refusals.have_lasted(now + REFUSED_FOR / 2));
        assert!(refusals.have_lasted(now + REFUSED_FOR));
    }
}
