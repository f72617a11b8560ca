//! What an agent warns of. Nothing is decided by it: it is for those who look for reasons later.

/// What runs short on an instance, or ails its runner, while its work goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Little space is left on the runner's disk.
    Disk,
    /// Little memory is left, or tasks stall for want of it.
    Memory,
    /// The kernel killed a process of the job for want of memory.
    OutOfMemoryKill,
    /// The runner can't reach GitHub.
    Connection,
    /// Another session of the runner's registration exists.
    Conflict,
    /// The runner's lock on its job is not renewed.
    Renewal,
    /// GitHub cancels the job again and again.
    CancellationStorm,
    /// The job's setup takes very long.
    SlowSetup,
    /// The runner died in its job, and the job's worker goes on.
    OrphanedWorker,
    /// A kind that this version doesn't know.
    Unknown,
}

impl Trouble {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Disk,
        Self::Memory,
        Self::OutOfMemoryKill,
        Self::Connection,
        Self::Conflict,
        Self::Renewal,
        Self::CancellationStorm,
        Self::SlowSetup,
        Self::OrphanedWorker,
        Self::Unknown,
    ];

    /// In a word or two, for the timeline.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Disk => "disk low",
            Self::Memory => "memory low",
            Self::OutOfMemoryKill => "out of memory",
            Self::Connection => "github unreachable",
            Self::Conflict => "session conflict",
            Self::Renewal => "job not renewed",
            Self::CancellationStorm => "cancellation storm",
            Self::SlowSetup => "slow setup",
            Self::OrphanedWorker => "runner died in its job",
            Self::Unknown => "unknown trouble",
        }
    }
}
