//! Runs that are waited for, and run again.

use std::time::Duration;

use muster_core::{Event, RerunAnswer, RerunCall, RunAttempt, RunSeen};

use super::executor::{Again, again};
use crate::backoff::Backoff;
use crate::github::{Fetched, GithubClient, GithubError};

/// Wait before a run is looked at again; grows with each look.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LATER_LOOKS: Duration = Duration::from_secs(60);
/// Wait after GitHub said that a run is under way that had completed: somebody else was faster.
const UNDER_WAY: Duration = Duration::from_secs(2);

/// Waits until a run has completed or has a newer attempt. A run that GitHub doesn't know has neither, and
/// never will.
pub(super) async fn watch(github: &GithubClient, run: &RunAttempt) -> Result<Event, Again> {
    let mut backoff = Backoff::new(FIRST_LOOK, LATER_LOOKS);
    loop {
        let seen = match look(github, run).await {
            Ok(seen) => seen,
            Err(GithubError::NotFound(_)) => Some(RunSeen {
                attempt: run.attempt,
                conclusion: Some("deleted".to_owned()),
                jobs: Vec::new(),
            }),
            Err(error) => return Err(again(&error)),
        };
        if let Some(seen) = seen {
            return Ok(Event::RunCompleted {
                run: run.clone(),
                seen: Box::new(seen),
            });
        }
        tokio::time::sleep(backoff.wait()).await;
    }
}

async fn look(github: &GithubClient, run: &RunAttempt) -> Result<Option<RunSeen>, GithubError> {
    let standing = github.run(&run.repository, run.run_id).await?;
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
    match github
        .jobs_of_run(&run.repository, run.run_id, None)
        .await?
    {
        Fetched::New { value, .. } => Ok(Some(seen(value))),
        // Nothing was said to be known.
        Fetched::Same => Ok(None),
    }
}

/// Has jobs of a run run again, unless it has a newer attempt: that may be what came of a call whose answer
/// was lost.
pub(super) async fn rerun(
    github: &GithubClient,
    run: &RunAttempt,
    call: &RerunCall,
) -> Result<Event, Again> {
    let answered = |answer| {
        let run = run.clone();
        Ok(Event::RerunAnswered { run, answer })
    };
    let standing = match github.run(&run.repository, run.run_id).await {
        Ok(standing) => standing,
        Err(error @ GithubError::NotFound(_)) => {
            return answered(RerunAnswer::Refused(error.to_string()));
        }
        Err(error) => return Err(again(&error)),
    };
    if standing.attempt > run.attempt {
        return answered(RerunAnswer::Newer(standing.attempt));
    }
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
