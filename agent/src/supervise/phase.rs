//! How far a runner has come, in the order of its life.

use muster_proto::v1::RunnerPhase;
use serde::{Deserialize, Serialize};

/// A phase. The order is that of a runner's life, which the protocol's numbers don't have.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Nothing was ever started.
    #[default]
    Unassigned,
    /// The process exists.
    Starting,
    /// It reached GitHub and has no session yet.
    Connected,
    /// It waits for a job.
    Listening,
    /// GitHub gave it a job, which doesn't run yet.
    Assigned,
    /// It runs a job.
    Running,
    /// It has ended.
    Finished,
}

impl Phase {
    /// All of them, in order.
    pub(crate) const ALL: [Self; 7] = [
        Self::Unassigned,
        Self::Starting,
        Self::Connected,
        Self::Listening,
        Self::Assigned,
        Self::Running,
        Self::Finished,
    ];

    /// Whether a job is, or may be, the runner's.
    pub(crate) fn busy(self) -> bool {
        matches!(self, Self::Assigned | Self::Running)
    }

    /// The phase in a sentence.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Starting => "starting",
            Self::Connected => "connected",
            Self::Listening => "listening",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Finished => "finished",
        }
    }
}

impl From<Phase> for RunnerPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Unassigned => Self::Unassigned,
            Phase::Starting => Self::Starting,
            Phase::Connected => Self::Connected,
            Phase::Listening => Self::Listening,
            Phase::Assigned => Self::Assigned,
            Phase::Running => Self::Running,
            Phase::Finished => Self::Finished,
        }
    }
}
