//! What the core wants done. Each effect may be carried out more than once, and must bear it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{
    AccountName, GithubRunnerId, ImageId, InstanceId, LaunchId, PoolName, RunnerName,
};
use crate::matching::Shape;
use crate::offering::Offering;
use crate::pool::Scope;
use crate::rerun::{RerunCall, RunAttempt};

/// One thing that the core wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case")]
pub enum Effect {
    /// Make an instance. The launch id is the client token: the same call twice makes one.
    /// Answered by `Launched` or `LaunchFailed`.
    Launch {
        /// The launch.
        launch: LaunchId,
        /// Its pool.
        pool: PoolName,
        /// Size and market that the jobs it is for asked for.
        shape: Shape,
        /// The pool's canary, if that is what it takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<ImageId>,
    },
    /// Make no instance of a launch after all, if its provider has not been asked yet. Then it is answered
    /// by `LaunchFailed`; else by nothing, and the launch goes on.
    Withdraw {
        /// The launch.
        launch: LaunchId,
        /// The account that it would live in.
        account: AccountName,
    },
    /// Register a runner with GitHub and hold its configuration in memory.
    /// Answered by `Minted` or `MintFailed`.
    Mint {
        /// The launch.
        launch: LaunchId,
        /// Its pool.
        pool: PoolName,
        /// The name to register.
        name: RunnerName,
        /// Labels to register beside the pool's.
        shape: Shape,
    },
    /// Send the configuration to the agent, if it is still held. It is not held any more after this.
    /// Answered by `AssignmentAccepted` from the agent, or `AssignmentLost`.
    Assign {
        /// The launch.
        launch: LaunchId,
        /// The name that was registered.
        name: RunnerName,
    },
    /// Tell the agent to take no new job. Answered by `DrainReported`.
    Drain {
        /// The launch.
        launch: LaunchId,
        /// Why.
        reason: String,
        /// When the instance goes, if known.
        deadline: Option<Timestamp>,
    },
    /// Tell the agent that its registration is gone. Answered by `DrainReported` or `Finished`.
    Retire {
        /// The launch.
        launch: LaunchId,
        /// Why.
        reason: String,
    },
    /// Delete a registration. Without an id it is looked up by name.
    /// Answered by `Deregistered`.
    Deregister {
        /// The launch.
        launch: LaunchId,
        /// Where it is registered.
        scope: Scope,
        /// The name that was registered, or perhaps was.
        name: RunnerName,
        /// GitHub's id, if known.
        id: Option<GithubRunnerId>,
    },
    /// Wait until a run has completed or has a newer attempt. Answered by `RunCompleted` or
    /// `RunLeft`.
    WatchRun {
        /// The attempt that is waited for.
        run: RunAttempt,
    },
    /// Have GitHub run jobs of a completed run again, unless a newer attempt exists: an answer that was
    /// lost shows as one. Answered by `RerunAnswered`.
    Rerun {
        /// The attempt that completed.
        run: RunAttempt,
        /// Which jobs of it.
        call: RerunCall,
    },
    /// End an instance. Answered by `Terminated`.
    Terminate {
        /// The launch.
        launch: LaunchId,
        /// The account that it lives in.
        account: AccountName,
        /// The instance.
        instance: InstanceId,
        /// True if nothing on it is worth an orderly shutdown: its runner has ended, or never had a job.
        #[serde(default)]
        at_once: bool,
    },
    /// Launch nothing from this capacity for a while: the provider takes instances of it back.
    CloseOffering {
        /// The account.
        account: AccountName,
        /// The capacity.
        offering: Offering,
    },
    /// End an instance that carries our mark and that nobody remembers. Not answered.
    TerminateStray {
        /// The account that it lives in.
        account: AccountName,
        /// The instance.
        instance: InstanceId,
    },
}

impl Effect {
    /// Whether the effect must be stored before it is carried out, and carried out after a restart.
    /// The others are messages to an agent, which the core sends anew when the agent connects, and hints
    /// to a provider.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        match self {
            Self::Launch { .. }
            | Self::Mint { .. }
            | Self::Deregister { .. }
            | Self::WatchRun { .. }
            | Self::Rerun { .. }
            | Self::Terminate { .. }
            | Self::TerminateStray { .. } => true,
            Self::Withdraw { .. }
            | Self::Assign { .. }
            | Self::Drain { .. }
            | Self::Retire { .. }
            | Self::CloseOffering { .. } => false,
        }
    }

    /// The launch that the effect is for, if it is for one.
    #[must_use]
    pub fn launch(&self) -> Option<&LaunchId> {
        match self {
            Self::Launch { launch, .. }
            | Self::Withdraw { launch, .. }
            | Self::Mint { launch, .. }
            | Self::Assign { launch, .. }
            | Self::Drain { launch, .. }
            | Self::Retire { launch, .. }
            | Self::Deregister { launch, .. }
            | Self::Terminate { launch, .. } => Some(launch),
            Self::WatchRun { .. }
            | Self::Rerun { .. }
            | Self::CloseOffering { .. }
            | Self::TerminateStray { .. } => None,
        }
    }

    /// Key of a durable effect: a second effect with the same key is the same intent.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Launch { launch, .. } => format!("launch/{launch}"),
            Self::Withdraw { launch, .. } => format!("withdraw/{launch}"),
            Self::Mint { name, .. } => format!("mint/{name}"),
            Self::Assign { launch, .. } => format!("assign/{launch}"),
            Self::Drain { launch, .. } => format!("drain/{launch}"),
            Self::Retire { launch, .. } => format!("retire/{launch}"),
            Self::Deregister { name, .. } => format!("deregister/{name}"),
            Self::WatchRun { run } => format!("watch-run/{}/{}", run.run_id, run.attempt),
            Self::Rerun { run, .. } => format!("rerun/{}/{}", run.run_id, run.attempt),
            Self::Terminate { launch, .. } => format!("terminate/{launch}"),
            Self::CloseOffering { account, offering } => {
                format!("close-offering/{account}/{offering}")
            }
            Self::TerminateStray { instance, .. } => format!("terminate-stray/{instance}"),
        }
    }
}
