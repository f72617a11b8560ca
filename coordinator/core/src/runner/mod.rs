//! A launch, the instance that it made, and the runner on it: three state machines side by side.
//!
//! The instance and the registration can each end before the other, so each has its own state; the
//! runner is gone when both are.

mod steps;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::canary::Trialed;
use crate::event::{Interruption, Outcome};
use crate::ids::{AccountName, GithubRunnerId, InstanceId, JobId, LaunchId, PoolName, RunnerName};
use crate::matching::Shape;
use crate::offering::Offering;
use crate::pool::Scope;
use crate::rerun::Cause;

/// The ledger's row of one launch. Stored whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// The launch.
    pub launch: LaunchId,
    /// Its pool.
    pub pool: PoolName,
    /// Size and market.
    pub shape: Shape,
    /// Where it registers.
    pub scope: Scope,
    /// The account of its instance.
    pub account: AccountName,
    /// Name at GitHub of the present attempt to register.
    pub name: RunnerName,
    /// Which attempt to register that is, from 1.
    pub attempt: u32,
    /// The machine.
    pub instance: Instance,
    /// What capacity the machine came from, where its provider sells more than one kind.
    #[serde(default)]
    pub offering: Option<Offering>,
    /// The entry at GitHub.
    pub registration: Registration,
    /// What it does.
    pub work: Work,
    /// Set once it is to take no new job.
    pub drain: Option<Drain>,
    /// The job it has or had, once GitHub has said which.
    pub job: Option<JobId>,
    /// Name of the job as the runner printed it, a hint.
    pub job_name: Option<String>,
    /// Why its instance or registration could not be had or ended yet, while that is tried again.
    #[serde(default)]
    pub held_up: Option<String>,
    /// Since when its agent is silent; none while it is connected.
    pub silent_since: Option<Timestamp>,
    /// When its agent was surely there: it spoke, or its stream ended. Another process than this may have heard it
    /// later than is stored.
    #[serde(default)]
    pub heard_at: Option<Timestamp>,
    /// Warnings and notices of its agent that the timeline has, and one more once some are left out.
    #[serde(default)]
    pub warnings: u32,
    /// The last notice that its instance will be taken away.
    #[serde(default)]
    pub notice: Option<Interruption>,
    /// Set if it ended in the middle of a job, and neither the job nor an operator ended it.
    #[serde(default)]
    pub cut_short: Option<Cause>,
    /// Number of the last of its agent's events that was taken; 0 before the first.
    #[serde(default)]
    pub heard_through: u64,
    /// Its part in the trial of its pool's canary, if there was one when it was decided.
    #[serde(default)]
    pub trialed: Option<Trialed>,
    /// When it passed each mark of its life.
    pub marks: Marks,
}

/// The machine of a launch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Instance {
    /// The launch is stored; its outcome is not known.
    Requested,
    /// It exists.
    Exists {
        /// Its id.
        id: InstanceId,
    },
    /// Its end was asked for.
    Ending {
        /// Its id.
        id: InstanceId,
        /// When its end was asked for last.
        asked_at: Timestamp,
    },
    /// It never was, or is gone.
    Gone {
        /// Its id, if it ever was.
        id: Option<InstanceId>,
    },
}

/// The entry of a runner at GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Registration {
    /// Not asked for.
    None,
    /// Asked for; the answer is not known.
    Requested,
    /// It exists.
    Exists {
        /// GitHub's id; none until GitHub has said it of a runner that was adopted.
        id: Option<GithubRunnerId>,
    },
    /// Its deletion was asked for.
    Deleting {
        /// GitHub's id, if it was ever known.
        id: Option<GithubRunnerId>,
        /// When it was asked for last.
        asked_at: Timestamp,
    },
    /// It is gone.
    Gone,
}

/// What a runner does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Work {
    /// The instance has not enrolled.
    Booting,
    /// It has enrolled; it gets its registration.
    Enrolled,
    /// Its configuration was handed to the stream.
    Assigning,
    /// It has its configuration; the runner starts.
    Starting,
    /// The runner waits for a job.
    Idle,
    /// The runner has a job.
    Busy,
    /// The ledger had lost its instance, and its agent has not said yet what it does: perhaps it has a job.
    Found,
    /// The work is over. Nothing starts any more.
    Over {
        /// How the runner ended, if it ever ran.
        outcome: Option<Outcome>,
        /// Why, for people.
        reason: String,
    },
}

/// The wish that a runner takes no new job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Why.
    pub reason: String,
    /// When it was wished.
    pub since: Timestamp,
    /// When the instance is taken away, if that is known.
    pub deadline: Option<Timestamp>,
    /// When the agent was asked last.
    pub asked_at: Timestamp,
    /// True once the registration is gone, so that only the host's last look is missing.
    pub retired: bool,
}

/// When a runner passed each mark of its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The launch was decided.
    pub created_at: Timestamp,
    /// Its withdrawal was asked for last: nobody needs it, and its instance is not known.
    #[serde(default)]
    pub withdrawn_at: Option<Timestamp>,
    /// The instance was known.
    pub launched_at: Option<Timestamp>,
    /// It enrolled.
    pub enrolled_at: Option<Timestamp>,
    /// It was registered with GitHub.
    #[serde(default)]
    pub registered_at: Option<Timestamp>,
    /// The runner listened.
    pub listening_at: Option<Timestamp>,
    /// It got a job.
    pub busy_at: Option<Timestamp>,
    /// Its work was over.
    pub over_at: Option<Timestamp>,
    /// Its instance was known to be gone.
    #[serde(default)]
    pub instance_gone_at: Option<Timestamp>,
    /// Instance and registration were gone.
    pub gone_at: Option<Timestamp>,
    /// It entered its present [`Stage`].
    pub stage_since: Timestamp,
}

/// The state of a runner as people see it: one word for the three machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The launch is stored; its outcome is not known.
    Launching,
    /// The instance exists and has not enrolled.
    Booting,
    /// It has enrolled and gets its registration.
    Enrolled,
    /// The assignment is on its way, or the runner starts.
    Starting,
    /// It waits for a job.
    Idle,
    /// It has a job.
    Busy,
    /// The ledger had lost its instance, and its agent has not said yet what it does.
    Found,
    /// Its work is over; instance or registration still exist.
    Ending,
    /// Instance and registration are gone.
    Gone,
}

/// A step that the state does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{launch} can't {step} while it is {state}")]
pub struct Illegal {
    /// The launch.
    pub launch: LaunchId,
    /// The step.
    pub step: &'static str,
    /// The state.
    pub state: String,
}

impl Runner {
    /// The state in one word.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match (&self.work, &self.instance) {
            (Work::Over { .. }, _) if self.is_gone() => Stage::Gone,
            (Work::Over { .. }, _) => Stage::Ending,
            (Work::Booting, Instance::Requested) => Stage::Launching,
            (Work::Booting, _) => Stage::Booting,
            (Work::Enrolled, _) => Stage::Enrolled,
            (Work::Assigning | Work::Starting, _) => Stage::Starting,
            (Work::Idle, _) => Stage::Idle,
            (Work::Busy, _) => Stage::Busy,
            (Work::Found, _) => Stage::Found,
        }
    }

    /// True once neither instance nor registration exist.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.instance, Instance::Gone { .. })
            && matches!(self.registration, Registration::None | Registration::Gone)
    }

    /// Whether its host waits for GitHub to register it, which GitHub's limits may hold up for an hour. Another host
    /// would only stand behind it in that queue.
    pub(crate) fn awaits_registration(&self) -> bool {
        self.work == Work::Enrolled && self.registration == Registration::Requested
    }

    /// Whether nothing on the instance is worth an orderly shutdown: its runner has ended, or never had a
    /// job.
    pub(crate) fn left_nothing(&self) -> bool {
        match &self.work {
            Work::Over { outcome, .. } => {
                self.marks.busy_at.is_none()
                    || outcome.is_some_and(|outcome| outcome != Outcome::Lost)
            }
            _ => false,
        }
    }

    /// Id of the instance, once it is known.
    #[must_use]
    pub fn instance_id(&self) -> Option<&InstanceId> {
        match &self.instance {
            Instance::Requested => None,
            Instance::Exists { id } | Instance::Ending { id, .. } => Some(id),
            Instance::Gone { id } => id.as_ref(),
        }
    }

    /// GitHub's id of the registration, while it is known.
    #[must_use]
    pub fn github_id(&self) -> Option<GithubRunnerId> {
        match self.registration {
            Registration::Exists { id } | Registration::Deleting { id, .. } => id,
            Registration::None | Registration::Requested | Registration::Gone => None,
        }
    }
}
