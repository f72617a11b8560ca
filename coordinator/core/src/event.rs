//! What the core is told. Every event may come twice, late, or never.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{
    AccountName, GithubRunnerId, ImageId, InstanceId, JobId, LaunchId, PoolName, RunnerName,
};
pub use crate::job_report::{JobReport, JobStatus, Repository};
use crate::listed::Marked;
use crate::offering::Offering;
use crate::pool::Scope;
use crate::rerun::{RerunAnswer, RunAttempt, RunSeen};
use crate::trouble::Trouble;

/// One thing that the core is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// GitHub told of a job, by webhook: perhaps late, and perhaps not for the first time.
    Job(Box<JobReport>),
    /// We looked at a job at GitHub: this is how it is now.
    JobFound(Box<JobReport>),
    /// We looked for a job at GitHub, and there is no such job.
    JobMissing {
        /// The job.
        job: JobId,
    },
    /// GitHub listed the runners of a scope. What the list lacks may exist all the same: entries get lost
    /// while it is read page by page.
    RunnersListed {
        /// The scope.
        scope: Scope,
        /// Those that the ledger knows.
        listed: Vec<Registered>,
    },
    /// We looked for one registration at GitHub, and there is none.
    RunnerMissing {
        /// The launch.
        launch: LaunchId,
        /// The name that was registered.
        name: RunnerName,
    },
    /// A run that was waited for has completed, or has a newer attempt.
    RunCompleted {
        /// The attempt that was waited for.
        run: RunAttempt,
        /// How it is now.
        seen: Box<RunSeen>,
    },
    /// A run is waited for no longer, and whether it has completed is not known.
    RunLeft {
        /// The attempt that was waited for.
        run: RunAttempt,
        /// Why, for people.
        reason: String,
    },
    /// What became of a request to run jobs again.
    RerunAnswered {
        /// The attempt whose jobs they are.
        run: RunAttempt,
        /// The answer.
        answer: RerunAnswer,
    },

    /// The provider made the instance of a launch.
    Launched {
        /// The launch.
        launch: LaunchId,
        /// The instance.
        instance: InstanceId,
        /// What capacity it came from, if the provider sells more than one kind.
        offering: Option<Offering>,
    },
    /// The provider will not make the instance of a launch.
    LaunchFailed {
        /// The launch.
        launch: LaunchId,
        /// What kind of failure it is.
        failure: LaunchFailure,
        /// The provider's words.
        detail: String,
    },
    /// GitHub registered a runner; its configuration is held in memory, to be assigned.
    Minted {
        /// The launch.
        launch: LaunchId,
        /// The name that was registered.
        name: RunnerName,
        /// GitHub's id for it.
        id: GithubRunnerId,
    },
    /// GitHub will not register a runner.
    MintFailed {
        /// The launch.
        launch: LaunchId,
        /// The name that was asked for.
        name: RunnerName,
        /// What kind of failure it is.
        failure: MintFailure,
        /// GitHub's words.
        detail: String,
    },
    /// What a launch waits for could not be done yet, and is tried again.
    HeldUp {
        /// The launch.
        launch: LaunchId,
        /// Why.
        reason: String,
    },
    /// The instances of an account could not be listed.
    ListingFailed {
        /// The account.
        account: AccountName,
        /// Why.
        reason: String,
    },
    /// An assignment can't be sent, as its configuration was lost with the process that held it, or
    /// was sent before.
    AssignmentLost {
        /// The launch.
        launch: LaunchId,
        /// The name that was registered.
        name: RunnerName,
    },
    /// GitHub answered a request to delete a registration.
    Deregistered {
        /// The launch.
        launch: LaunchId,
        /// The name that was registered.
        name: RunnerName,
        /// The answer.
        answer: DeregisterAnswer,
    },
    /// The provider answered a request to terminate an instance.
    Terminated {
        /// The launch.
        launch: LaunchId,
        /// True if the instance is known to be gone; false if the request was only accepted.
        gone: bool,
    },
    /// The provider knows that an instance of ours is gone, asked or not.
    InstanceGone {
        /// The launch.
        launch: LaunchId,
        /// The instance.
        instance: InstanceId,
    },
    /// The provider listed every instance that carries our mark.
    InstancesListed {
        /// The account that was listed.
        account: AccountName,
        /// How long an instance must be missing from its lists before it counts as gone.
        absence: Duration,
        /// The instances that are not gone.
        alive: Vec<Marked>,
        /// Instances that are listed as gone.
        gone: Vec<InstanceId>,
    },
    /// The images of a pool that has a canary are known.
    ImagesKnown {
        /// The pool.
        pool: PoolName,
        /// Its own image; none if the launch template has it.
        own: Option<ImageId>,
        /// Its canary; none once what names it is gone.
        canary: Option<ImageId>,
    },

    /// An instance proved its identity.
    Enrolled {
        /// The launch.
        launch: LaunchId,
        /// The instance.
        instance: InstanceId,
    },
    /// What an instance did shows that it may not be in our hands alone.
    Distrusted {
        /// The launch.
        launch: LaunchId,
        /// What.
        reason: String,
    },
    /// An agent says something by a number. What was taken by this number or a higher one before changes
    /// nothing.
    Said {
        /// The launch.
        launch: LaunchId,
        /// 1 for the agent's first event, then one more for each.
        sequence: u64,
        /// When it was there for sure: not after it said so, however late that is taken here.
        heard_at: Timestamp,
        /// What it says.
        event: Box<Event>,
    },
    /// An agent gives numbers from 1 again.
    CountsAnew {
        /// The launch.
        launch: LaunchId,
    },
    /// An agent opened its stream.
    AgentConnected {
        /// The launch.
        launch: LaunchId,
        /// What the runner was doing, in the agent's words.
        phase: HostPhase,
        /// The runner that the agent was assigned to be, if it was.
        assignment: Option<RunnerName>,
        /// When it was there for sure.
        heard_at: Timestamp,
    },
    /// An agent has not been heard for too long, or its stream ended.
    AgentLost {
        /// The launch.
        launch: LaunchId,
        /// When it was there for sure, for the last time.
        heard_at: Timestamp,
    },
    /// An agent took its assignment.
    AssignmentAccepted {
        /// The launch.
        launch: LaunchId,
        /// The runner that it is now.
        name: RunnerName,
    },
    /// The runner on an instance reached another phase.
    PhaseChanged {
        /// The launch.
        launch: LaunchId,
        /// The phase.
        phase: HostPhase,
        /// Display name of the job, a hint.
        job_name: Option<String>,
    },
    /// The runner on an instance has ended.
    Finished {
        /// The launch.
        launch: LaunchId,
        /// How.
        outcome: Outcome,
        /// The agent's words.
        reason: String,
    },
    /// An instance will be taken away.
    Interrupted {
        /// The launch.
        launch: LaunchId,
        /// By whom.
        kind: Interruption,
        /// When, if known.
        deadline: Option<Timestamp>,
        /// The notice in the words of its source; empty if there are none.
        detail: String,
    },
    /// An agent warns of something that may end its job later, or that explains why nothing happens.
    Troubled {
        /// The launch.
        launch: LaunchId,
        /// What.
        kind: Trouble,
        /// The agent's words.
        detail: String,
    },
    /// An agent looked at its runner, as `Drain` and `Retire` ask.
    DrainReported {
        /// The launch.
        launch: LaunchId,
        /// True if nothing is assigned and no worker process exists.
        idle: bool,
    },

    /// An operator lets a runner take no new job.
    OperatorDrain {
        /// The launch.
        launch: LaunchId,
        /// Who and why.
        reason: String,
    },
    /// An operator ends an instance now.
    OperatorTerminate {
        /// The launch.
        launch: LaunchId,
        /// Who and why.
        reason: String,
    },
    /// An operator pauses a pool, or resumes it.
    OperatorPause {
        /// The pool.
        pool: PoolName,
        /// Who and why; none resumes.
        paused: Option<String>,
    },

    /// The process has started and the state is restored: nobody is connected.
    Restarted,
    /// Nothing could be stored for a while, and so nobody was heard: whoever had a limit to keep meanwhile has all of
    /// its time again. To be told before the next [`Event::Tick`].
    Resumed,
    /// Time has passed.
    Tick,
}

/// A runner in GitHub's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its name.
    pub name: RunnerName,
    /// GitHub's id.
    pub id: GithubRunnerId,
    /// The launch that it was registered for.
    pub launch: LaunchId,
    /// Whether GitHub thinks that it has a job.
    pub busy: bool,
}

/// Why an instance was not launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchFailure {
    /// None to be had at present; later, or elsewhere, it may go.
    Capacity,
    /// The account may not have more; somebody may ask for a higher quota.
    Quota,
    /// Too many calls; only time is lacking.
    Throttled,
    /// The provider has nothing of the size and kind that is asked for, whenever it is asked.
    Unfit,
    /// It was withdrawn before the provider was asked.
    Withdrawn,
    /// It can't go until somebody changes something.
    Permanent,
}

/// Why a runner was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintFailure {
    /// The name exists: most likely the answer to an earlier call was lost.
    NameTaken,
    /// GitHub refuses, and will refuse again.
    Refused,
}

/// GitHub's answer to the deletion of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeregisterAnswer {
    /// It is deleted. Not a proof that no job was given to it.
    Deleted,
    /// There was none.
    Absent,
    /// The runner has a job.
    Busy,
}

/// What the runner on an instance does, in the agent's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostPhase {
    /// The agent has had no assignment.
    Unassigned,
    /// The runner was started and doesn't listen yet.
    Starting,
    /// It waits for a job.
    Listening,
    /// It was given a job.
    Assigned,
    /// It runs a job.
    Running,
    /// It has ended.
    Finished,
}

/// How a runner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A job ran and succeeded.
    Succeeded,
    /// A job ran and failed.
    Failed,
    /// A job ran and was cancelled.
    Canceled,
    /// A job ran and was stopped, as the instance had to go.
    Interrupted,
    /// A job was taken and given up: the fault of the infrastructure.
    Abandoned,
    /// No job ran.
    Unused,
    /// The runner could not be started, or died before it listened.
    StartFailed,
    /// It died or hung in the middle of a job, or nobody knows.
    Lost,
    /// GitHub refuses this version of the runner.
    VersionRefused,
    /// The runner left to update itself: the image is stale.
    StaleVersion,
    /// Another session of the same registration exists: it was used twice.
    Conflict,
}

impl Outcome {
    /// Whether the runner never came so far that it could take a job, as the next one of its pool may
    /// not either.
    pub(crate) fn is_broken(self) -> bool {
        matches!(
            self,
            Self::StartFailed | Self::VersionRefused | Self::StaleVersion | Self::Conflict
        )
    }

    /// What to tell operators: the agent's words, and what they come to where those don't say it.
    pub(crate) fn explained(self, reason: &str) -> String {
        match self {
            Self::StaleVersion => format!("the pool's image is stale: {reason}"),
            Self::Conflict => format!("its registration was used twice: {reason}"),
            _ => reason.to_owned(),
        }
    }
}

/// Who takes an instance away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// EC2 takes a Spot instance back.
    Spot,
    /// EC2 recommends to leave.
    Rebalance,
    /// Scheduled maintenance.
    Maintenance,
    /// Auto Scaling terminates the instance.
    Lifecycle,
}
