//! What the end of the runner means: its exit status, weighed with what was seen before.
//!
//! Exit codes as in Constants.cs:150-163 of actions/runner 2.336.0, and 100 + result with
//! `ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED` (Runner.cs:327-331,587-600). An exit code of 0 alone
//! says nothing: it follows a stop, a deletion of the registration and a lost job too. The console can
//! be written by the job, and be read away by it: a success is what the exit code calls one, and nothing else.
//! No version that GitHub still lets register is known to ignore the variable.

use muster_proto::v1::RunnerOutcome;
use serde::{Deserialize, Serialize};

use super::alive::Time;
use super::console::JobResult;
use super::phase::Phase;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be waited for, or didn't end at all.
    Unknown,
}

/// Why the agent told the runner to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// Its registration is gone and it was idle.
    Retired,
    /// The instance is about to be taken away.
    Deadline,
    /// The agent has to end, for this reason.
    Shutdown(String),
    /// It didn't listen in time.
    NotListening,
    /// It got a job and didn't fetch it in time.
    NotAcquired,
    /// It fetched a job and didn't make a worker in time.
    NoWorker,
    /// Its worker didn't read the job in time.
    NotReceived,
    /// Its job was cancelled and didn't end in time.
    NotCancelled,
    /// Its worker went away and it named no result in time.
    WorkerGone,
    /// The steps of its job were over and its worker didn't end in time.
    WorkerNotExited,
    /// Its job was over and it didn't end in time.
    NotExited,
}

impl Cause {
    /// Why, for people.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Retired => "its registration was deleted".into(),
            Self::Deadline => "the instance is about to be taken away".into(),
            Self::Shutdown(reason) => reason.clone(),
            Self::NotListening => "it did not listen in time".into(),
            Self::NotAcquired => "it was given a job and did not begin it in time".into(),
            Self::NoWorker => "it had fetched its job and started no worker in time".into(),
            Self::NotReceived => "its worker did not read the job in time".into(),
            Self::NotCancelled => "its job was cancelled and did not end in time".into(),
            Self::WorkerGone => "its worker is gone and it did not end".into(),
            Self::WorkerNotExited => "its worker did not end after the job's last step".into(),
            Self::NotExited => "it did not end after its job".into(),
        }
    }

    /// Whether the runner is at fault, so that it is given less time.
    pub(super) fn is_hang(&self) -> bool {
        !matches!(self, Self::Retired | Self::Deadline | Self::Shutdown(_))
    }
}

/// What the console said of the job's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Printed {
    /// The first that it named.
    pub(crate) result: JobResult,
    /// When.
    pub(crate) at: Time,
    /// The agent had told the runner to stop before.
    pub(crate) after_stop: bool,
    /// It named another one later.
    pub(crate) contradicted: bool,
}

/// What was seen of a runner before it ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The furthest phase.
    pub(crate) phase: Phase,
    /// The result that the console named.
    pub(crate) result: Option<Printed>,
    /// The console named the job and should have named a result.
    pub(crate) result_missing: bool,
    /// Why it was told to stop, if it was.
    pub(crate) stop: Option<Cause>,
    /// GitHub cancelled its job.
    pub(crate) cancelled: bool,
    /// It met another session of its registration.
    pub(crate) conflict: bool,
    /// The console said that GitHub refuses this version.
    pub(crate) version_refused: bool,
    /// It was updating itself.
    pub(crate) updating: bool,
    /// It began to stop before the agent told it to.
    pub(crate) stopped_by_other: bool,
    /// What became of its worker, if that outlived it.
    pub(crate) orphaned: Option<String>,
    /// The last thing that it complained of.
    pub(crate) complaint: Option<String>,
}

/// The outcome, and one sentence for people.
pub(crate) fn judge(exit: Exit, seen: &Seen) -> (RunnerOutcome, String) {
    (outcome(exit, seen), reason(exit, seen))
}

fn reason(exit: Exit, seen: &Seen) -> String {
    let how = match exit {
        Exit::Code(3 | 4) => "the runner left to update itself: the image is stale".into(),
        Exit::Code(5) => "another session of this registration exists".into(),
        Exit::Code(7) => "GitHub refuses this version of the runner".into(),
        Exit::Code(code) => format!("the runner exited with code {code}"),
        Exit::Signal(signal) => format!("signal {signal} ended the runner"),
        Exit::Unknown => "the runner's end could not be seen".into(),
    };
    let mut reason = format!("{how} in the phase {}", seen.phase.word());
    if let Some(printed) = &seen.result {
        reason.push_str(&format!(", its job's result was {}", printed.result.word()));
        if printed.contradicted {
            reason.push_str(" and then another");
        }
    } else if seen.result_missing {
        reason.push_str(", without a word on its job's result");
    }
    if let Some(cause) = &seen.stop {
        reason.push_str(&format!(", after it was told to stop: {}", cause.text()));
    }
    if seen.stopped_by_other {
        reason.push_str(", after something else told it to stop");
    }
    if let Some(orphaned) = &seen.orphaned {
        reason.push_str(&format!(", {orphaned}"));
    }
    if seen.version_refused && exit != Exit::Code(7) {
        reason.push_str(", GitHub refuses its version");
    }
    if seen.conflict && exit != Exit::Code(5) {
        reason.push_str(", it had met another session of its registration");
    }
    if seen.updating && !matches!(exit, Exit::Code(3 | 4)) {
        reason.push_str(", it was updating itself");
    }
    if let Some(complaint) = &seen.complaint {
        reason.push_str(&format!("; it said: {complaint}"));
    }
    reason
}

fn outcome(exit: Exit, seen: &Seen) -> RunnerOutcome {
    match exit {
        Exit::Code(7) => return RunnerOutcome::VersionRefused,
        Exit::Code(3 | 4) if seen.phase < Phase::Running => return RunnerOutcome::StaleVersion,
        Exit::Code(5) if seen.phase < Phase::Assigned => return RunnerOutcome::Conflict,
        Exit::Code(code) => {
            if let Some(result) = JobResult::from_exit_code(code) {
                return of_exit_result(result, seen);
            }
        }
        Exit::Signal(_) | Exit::Unknown => {}
    }
    if let Some(printed) = &seen.result {
        return of_printed(*printed, seen);
    }
    match seen.phase {
        Phase::Assigned | Phase::Running => without_result(exit, seen),
        Phase::Listening if seen.version_refused => RunnerOutcome::VersionRefused,
        Phase::Listening => RunnerOutcome::Unused,
        _ => not_listening(exit, seen),
    }
}

/// The exit code names a result. 100 is also the code of a Listener that threw
/// (JobDispatcher.cs:343-355 presets it), and 102 that of one whose worker never read the job, but then
/// the console names no result.
fn of_exit_result(result: JobResult, seen: &Seen) -> RunnerOutcome {
    match (result, seen.result) {
        (JobResult::Succeeded, Some(printed)) => of_result(printed.result, printed.after_stop),
        (JobResult::Succeeded | JobResult::Failed, None) if seen.result_missing => {
            without_result(Exit::Unknown, seen)
        }
        (_, printed) => {
            let after_stop = printed.map_or(seen.stop.is_some(), |printed| printed.after_stop);
            of_result(result, after_stop)
        }
    }
}

/// The console alone names a result. A job may claim a failure, which harms itself only; a success it must
/// not claim.
fn of_printed(printed: Printed, seen: &Seen) -> RunnerOutcome {
    // A runner that stops in the middle of a job says "Canceled" too.
    let broken_off =
        printed.result == JobResult::Canceled && !printed.after_stop && !seen.cancelled;
    if broken_off || passed(printed.result) {
        return without_result(Exit::Unknown, seen);
    }
    of_result(printed.result, printed.after_stop)
}

/// A job that ended after it was told to stop was interrupted, unless it still succeeded.
fn of_result(result: JobResult, after_stop: bool) -> RunnerOutcome {
    match result {
        _ if passed(result) => RunnerOutcome::Succeeded,
        _ if after_stop => RunnerOutcome::Interrupted,
        JobResult::Canceled => RunnerOutcome::Canceled,
        JobResult::Abandoned => RunnerOutcome::Abandoned,
        _ => RunnerOutcome::Failed,
    }
}

/// A skipped job had nothing to do: GitHub counts it as passed, so it counts as a success.
fn passed(result: JobResult) -> bool {
    matches!(
        result,
        JobResult::Succeeded | JobResult::SucceededWithIssues | JobResult::Skipped
    )
}

/// It had a job, of which no result is known.
fn without_result(exit: Exit, seen: &Seen) -> RunnerOutcome {
    match &seen.stop {
        Some(Cause::NotCancelled) => RunnerOutcome::Canceled,
        Some(cause) if cause.is_hang() => RunnerOutcome::Lost,
        Some(_) => RunnerOutcome::Interrupted,
        // "Job not found" as the answer to the acknowledgement (Runner.cs:699-704): the job was gone
        // before it began.
        None if seen.phase == Phase::Assigned && exit == Exit::Code(0) => RunnerOutcome::Unused,
        None => RunnerOutcome::Lost,
    }
}

fn not_listening(exit: Exit, seen: &Seen) -> RunnerOutcome {
    match &seen.stop {
        _ if seen.version_refused => RunnerOutcome::VersionRefused,
        Some(Cause::NotListening) if seen.conflict => RunnerOutcome::Conflict,
        Some(Cause::NotListening) => RunnerOutcome::StartFailed,
        Some(_) => RunnerOutcome::Unused,
        None if exit == Exit::Code(0) => RunnerOutcome::Unused,
        None => RunnerOutcome::StartFailed,
    }
}
