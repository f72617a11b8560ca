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
pub(super) async fn watch(github: &GithubClient, watched: &Watched, run: &RunAttempt) -> Event {
    let watching = watched.one_more();
    let left = |reason| {
        let run = run.clone();
        Event::RunLeft { run, reason }
    };
    let mut known = Known::default();
    let mut backoff = Backoff::new(FIRST_LOOK, LATER_LOOKS);
    let mut refusals = Refusals::default();
    loop {
        let wait = match look(github, run, &mut known).await {
            Ok(Some(seen)) => return completed(run, seen),
            Ok(None) if known.is_too_old(clock::now()) => {
                return left(
                    "its run did not complete in the 35 days that GitHub allows".to_owned(),
                );
            }
            Ok(None) => {
                refusals = Refusals::default();
                backoff.wait()
            }
            Err(GithubError::NotFound(_)) => return completed(run, deleted(run)),
            Err(GithubError::Later(later)) => {
                tracing::info!(%run, reason = %later, "a run that is watched is looked at later");
                later.after.max(backoff.wait())
            }
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
mod tests;
