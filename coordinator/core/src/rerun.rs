//! Work that was cut short by its host, and what is done about it.
//!
//! GitHub ends such a job with `failure`, as it does a test that failed: only we know that the host went.
//! A job can be run again once its whole run has completed, and only while no newer attempt exists.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{Interruption, JobReport, JobStatus, Repository};
use crate::ids::JobId;
use crate::matching::Market;
use crate::runner::{Instance, Runner};

/// GitHub ends no job of a dead runner sooner than this after its last sign of life: the lease of a job lasts ten
/// minutes and is renewed each minute (actions/runner, `JobDispatcher.cs`). Half a minute is for clocks, and
/// for silence that is noticed late.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(8 * 60 + 30);

/// By so much may a time of GitHub's differ from one of ours.
const CLOCKS: Duration = Duration::from_secs(60);

/// An agent stops a job so long before its instance is taken, at most, with what that takes.
const STOPPED_BEFORE: Duration = Duration::from_secs(60);

/// What a pool does with jobs whose host went in the middle of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RerunPolicy {
    /// How often one job of a run is run again at most, from 1.
    pub attempts: u32,
    /// What the jobs of the new attempt are launched on; none for what the pool would take anyway.
    pub market: Option<Market>,
}

/// Why a host ended in the middle of its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// EC2 took a Spot instance back.
    Spot,
    /// Scheduled maintenance.
    Maintenance,
    /// Auto Scaling took the instance.
    Lifecycle,
    /// The instance is gone, and nobody said why.
    InstanceGone,
    /// Its agent fell silent, and GitHub gave the job up.
    AgentSilent,
    /// Its agent stopped the job, as the host had to go.
    Stopped,
    /// The runner gave the job up: the fault of the infrastructure.
    Abandoned,
}

impl Cause {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Spot => "EC2 took the Spot instance back",
            Self::Maintenance => "EC2 had to maintain the host",
            Self::Lifecycle => "Auto Scaling took the instance away",
            Self::InstanceGone => "its instance is gone",
            Self::AgentSilent => "its agent fell silent",
            Self::Stopped => "its host had to go",
            Self::Abandoned => "its runner gave it up",
        }
    }
}

impl Cause {
    /// Whether it is only concluded from a silence, before which the job may have failed by itself.
    pub(crate) fn is_concluded(self) -> bool {
        matches!(self, Self::InstanceGone | Self::AgentSilent)
    }
}

impl From<Interruption> for Cause {
    fn from(kind: Interruption) -> Self {
        match kind {
            Interruption::Spot | Interruption::Rebalance => Self::Spot,
            Interruption::Maintenance => Self::Maintenance,
            Interruption::Lifecycle => Self::Lifecycle,
        }
    }
}

/// That a job was cut short by its host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutShort {
    /// Why.
    pub cause: Cause,
    /// When that was known.
    pub at: Timestamp,
    /// A failure before this was the job's own, unless it was from `hosts_from` on. None where the agent itself told
    /// of the interruption.
    #[serde(default)]
    pub own_before: Option<Timestamp>,
    /// A failure from here on was its host's. Between the two nobody knows.
    #[serde(default)]
    pub hosts_from: Option<Timestamp>,
    /// What is done about it; none before the job has ended at GitHub, or where the pool does nothing.
    pub rerun: Option<Rerun>,
    /// When that was decided last.
    #[serde(default)]
    pub decided_at: Option<Timestamp>,
}

impl CutShort {
    /// By what a host's runner and its marks say. `told` if its agent told of the interruption.
    pub(crate) fn of(runner: &Runner, cause: Cause, told: bool, now: Timestamp) -> Self {
        let silent_since = runner.silent_since.or(runner.marks.over_at).unwrap_or(now);
        let given_up = |since: Timestamp| since.saturating_add(GIVEN_UP_AFTER).unwrap_or(now);
        let taken_at = runner.drain.as_ref().and_then(|drain| drain.deadline);
        // An agent that can't be heard ends its job shortly before its instance is taken.
        let stopped_from = taken_at
            .filter(|_| runner.notice.is_some())
            .and_then(|at| at.checked_sub(STOPPED_BEFORE).ok());
        let from = |since: Timestamp| {
            let given_up = given_up(since);
            stopped_from.map_or(given_up, |stopped| stopped.min(given_up))
        };
        let heard_at = runner.heard_at.unwrap_or(silent_since).min(silent_since);
        // Where there is no instance, no job ends by itself: its silence may have been noticed late, as events wait
        // while the store is out of order.
        let known_at = runner.marks.instance_gone_at.unwrap_or(now);
        let dead_by = matches!(runner.instance, Instance::Gone { .. })
            .then(|| known_at.saturating_add(CLOCKS).unwrap_or(now));
        let hosts_from = from(silent_since);
        Self {
            cause,
            at: now,
            own_before: (!told).then(|| from(heard_at)),
            hosts_from: (!told).then(|| dead_by.map_or(hosts_from, |dead| dead.min(hosts_from))),
            rerun: None,
            decided_at: None,
        }
    }

    /// Whether a failed job was cut short, by when GitHub says that it ended: a job that ended before GitHub can
    /// have given its runner up has failed by itself. None if that can't be told.
    pub(crate) fn is_borne_out(&self, ended_at: Option<Timestamp>) -> Option<bool> {
        let (Some(own_before), Some(hosts_from)) = (self.own_before, self.hosts_from) else {
            return Some(true);
        };
        match ended_at? {
            at if at >= hosts_from => Some(true),
            at if at < own_before => Some(false),
            _ => None,
        }
    }
}

/// How far the repetition of a job is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Rerun {
    /// Its run has not completed yet, as far as is known.
    Watched {
        /// When the run is looked at again, if it was looked at and could not be judged.
        again_at: Option<Timestamp>,
    },
    /// GitHub was or will be asked; the answer is not known.
    Asked,
    /// It runs again, in this attempt of its run.
    Done {
        /// The attempt.
        attempt: u32,
    },
    /// It is left to people.
    Left {
        /// Why.
        reason: String,
    },
}

impl Rerun {
    /// Whether something is still to be done.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Watched { .. } | Self::Asked)
    }

    /// Whether GitHub was asked for it, or may have been.
    pub(crate) fn counts(&self) -> bool {
        matches!(self, Self::Asked | Self::Done { .. })
    }
}

impl fmt::Display for Rerun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Watched { .. } => f.write_str("waits for its run to complete"),
            Self::Asked => f.write_str("asked for"),
            Self::Done { attempt } => write!(f, "runs again in attempt {attempt}"),
            Self::Left { reason } => write!(f, "left to people: {reason}"),
        }
    }
}

/// What a job has of the attempts before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The job that we asked GitHub to run again, if this is what came of it.
    pub of: Option<JobId>,
    /// How often we asked in this run for a job of this name, over all attempts before.
    pub count: u32,
    /// What it is launched on in place of what its labels and its pool say.
    pub market: Option<Market>,
}

/// One attempt of a workflow run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAttempt {
    /// The repository.
    pub repository: Repository,
    /// GitHub's id of the run.
    pub run_id: i64,
    /// The attempt, from 1.
    pub attempt: u32,
}

impl fmt::Display for RunAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            repository,
            run_id,
            attempt,
        } = self;
        write!(f, "attempt {attempt} of run {run_id} of {repository}")
    }
}

/// A run that has completed, or that has gone on to another attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSeen {
    /// Its newest attempt.
    pub attempt: u32,
    /// How it ended, in GitHub's word; none if the newest attempt has not ended.
    pub conclusion: Option<String>,
    /// The jobs of the attempt that was asked for; empty if there is a newer one.
    pub jobs: Vec<JobReport>,
}

/// What GitHub is asked to run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RerunCall {
    /// One job, with those that need it.
    Job(JobId),
    /// All jobs of the run that did not succeed, with those that need them.
    FailedJobs,
}

/// What became of a request to run something again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RerunAnswer {
    /// GitHub does it.
    Started,
    /// There is a newer attempt already: our own, whose answer was lost, or somebody else's.
    Newer(u32),
    /// GitHub won't, in its words.
    Refused(String),
}

/// Chooses the call that runs the interrupted jobs of a completed run again, and nothing that failed by
/// itself while others must be run again with it.
///
/// GitHub runs one job again, or all that did not succeed; after either, the run is under way, and a
/// second call is refused. So several interrupted jobs go together, unless other jobs failed: those would
/// be repeated too, and may be deployments.
///
/// # Errors
/// Why it is left to people.
pub(crate) fn choose(interrupted: &[JobId], jobs: &[JobReport]) -> Result<RerunCall, String> {
    let others = || jobs.iter().filter(|job| !interrupted.contains(&job.id));
    let ended = |job: &&JobReport, words: &[&str]| {
        job.status == JobStatus::Completed
            && job
                .conclusion
                .as_deref()
                .is_some_and(|word| words.contains(&word))
    };
    let failed: Vec<&str> = others()
        .filter(|job| {
            ended(
                job,
                &["failure", "timed_out", "startup_failure", "action_required"],
            )
        })
        .map(|job| job.name.as_str())
        .collect();
    // What GitHub cancelled when the interrupted job "failed" (`fail-fast`) belongs to it.
    let cancelled = others().any(|job| ended(&job, &["cancelled"]));
    match interrupted {
        [] => Err("none of its jobs was interrupted".to_owned()),
        [one] if !failed.is_empty() || !cancelled => Ok(RerunCall::Job(*one)),
        _ if failed.is_empty() => Ok(RerunCall::FailedJobs),
        _ => Err(format!(
            "GitHub would repeat jobs that failed by themselves, too: {}",
            failed.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fixtures::report;

    #[rstest]
    #[case::one_alone(&[1], &["failure", "success"], Ok(RerunCall::Job(JobId(1))))]
    #[case::one_beside_a_failed_test(&[1], &["failure", "failure"], Ok(RerunCall::Job(JobId(1))))]
    #[case::one_whose_siblings_were_cancelled(&[1], &["failure", "cancelled"], Ok(RerunCall::FailedJobs))]
    #[case::one_with_both(&[1], &["failure", "cancelled", "failure"], Ok(RerunCall::Job(JobId(1))))]
    #[case::several(&[1, 2], &["failure", "failure", "success"], Ok(RerunCall::FailedJobs))]
    #[case::several_and_one_skipped(&[1, 2], &["failure", "failure", "skipped"], Ok(RerunCall::FailedJobs))]
    #[case::several_beside_a_failed_test(&[1, 2], &["failure", "failure", "failure"],
        Err("GitHub would repeat jobs that failed by themselves, too: job 3".to_owned()))]
    #[case::several_beside_one_that_took_too_long(&[1, 2], &["failure", "failure", "success", "timed_out"],
        Err("GitHub would repeat jobs that failed by themselves, too: job 4".to_owned()))]
    #[case::several_beside_one_that_did_not_start(&[1, 2], &["failure", "failure", "startup_failure"],
        Err("GitHub would repeat jobs that failed by themselves, too: job 3".to_owned()))]
    #[case::several_beside_one_that_asks_for_people(&[1, 2], &["failure", "failure", "action_required"],
        Err("GitHub would repeat jobs that failed by themselves, too: job 3".to_owned()))]
    fn the_call_repeats_no_job_that_failed_by_itself(
        #[case] interrupted: &[i64],
        #[case] conclusions: &[&str],
        #[case] expected: Result<RerunCall, String>,
    ) {
        let jobs: Vec<JobReport> = (1..)
            .zip(conclusions)
            .map(|(id, conclusion)| JobReport {
                status: JobStatus::Completed,
                conclusion: Some((*conclusion).to_owned()),
                ..report(id)
            })
            .collect();
        let interrupted: Vec<JobId> = interrupted.iter().copied().map(JobId).collect();
        assert_eq!(choose(&interrupted, &jobs), expected);
    }
}
