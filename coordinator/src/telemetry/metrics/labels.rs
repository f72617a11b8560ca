//! How the figures name what the core tells apart.

use muster_core::{Difference, LaunchFailure, Loss, RerunAnswer, Trouble};

pub(super) fn difference(kind: Difference) -> &'static str {
    match kind {
        Difference::Job => "job",
        Difference::Status => "status",
        Difference::DeletedJob => "deleted_job",
        Difference::LeftRunner => "left_runner",
        Difference::LostRunner => "lost_runner",
    }
}

pub(super) fn trouble(kind: Trouble) -> &'static str {
    match kind {
        Trouble::Disk => "disk",
        Trouble::Memory => "memory",
        Trouble::OutOfMemoryKill => "out_of_memory_kill",
        Trouble::Connection => "connection",
        Trouble::Conflict => "conflict",
        Trouble::Renewal => "renewal",
        Trouble::CancellationStorm => "cancellation_storm",
        Trouble::SlowSetup => "slow_setup",
        Trouble::OrphanedWorker => "orphaned_worker",
        Trouble::Unknown => "unknown",
    }
}

pub(super) fn loss(kind: Loss) -> &'static str {
    match kind {
        Loss::Unready => "unready",
        Loss::Silent => "silent",
        Loss::Gone => "gone",
        Loss::Taken => "taken",
        Loss::Stuck => "stuck",
    }
}

pub(super) fn launch(outcome: Result<(), LaunchFailure>) -> &'static str {
    match outcome {
        Ok(()) => "launched",
        Err(LaunchFailure::Capacity) => "capacity",
        Err(LaunchFailure::Quota) => "quota",
        Err(LaunchFailure::Throttled) => "throttled",
        Err(LaunchFailure::Unfit) => "unfit",
        Err(LaunchFailure::Withdrawn) => "withdrawn",
        Err(LaunchFailure::Permanent) => "permanent",
    }
}

pub(super) fn rerun(answer: &RerunAnswer) -> &'static str {
    match answer {
        RerunAnswer::Started => "started",
        RerunAnswer::Newer(_) => "newer",
        RerunAnswer::Refused(_) => "refused",
    }
}
