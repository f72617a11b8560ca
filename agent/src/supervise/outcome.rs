//! What the end of the runner means: its exit status, weighed with what was seen before.
//!
//! Exit codes as in Constants.cs:150-163 of actions/runner 2.336.0, and 100 + result with
//! `ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED` (Runner.cs:327-331,587-600). An exit code of 0 alone
//! says nothing: it follows a stop, a deletion of the registration and a lost job too.

use muster_proto::v1::{RunnerOutcome, RunnerPhase};

use super::console::JobResult;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It could not be waited for, or didn't end at all.
    Unknown,
}

/// Why the agent told the runner to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its registration is gone and it was idle.
    Retired,
    /// The instance is about to be taken away.
    Deadline,
    /// The agent has to end, for this reason.
    Shutdown(String),
    /// It didn't listen in time.
    NotListening,
    /// It got a job and didn't begin it in time.
    NotAcquired,
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
            Self::NotExited => "it did not end after its job".into(),
        }
    }
}

/// What was seen of a runner before it ended.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The furthest phase.
    pub(crate) phase: RunnerPhase,
    /// The result that the console named, and whether the agent had told the runner to stop before.
    pub(crate) result: Option<(JobResult, bool)>,
    /// Why it was told to stop, if it was.
    pub(crate) stop: Option<Cause>,
    /// The console said that GitHub refuses this version.
    pub(crate) version_refused: bool,
}

/// The outcome, and one sentence for people.
pub(crate) fn judge(exit: Exit, seen: &Seen) -> (RunnerOutcome, String) {
    let outcome = outcome(exit, seen);
    let how = match exit {
        Exit::Code(3 | 4) => "the runner left to update itself: the image is stale".into(),
        Exit::Code(5) => "another session of this registration exists".into(),
        Exit::Code(7) => "GitHub refuses this version of the runner".into(),
        Exit::Code(code) => format!("the runner exited with code {code}"),
        Exit::Signal(signal) => format!("signal {signal} ended the runner"),
        Exit::Unknown => "the runner's end could not be seen".into(),
    };
    let mut reason = format!("{how} in the phase {}", phase_word(seen.phase));
    if let Some((result, _)) = seen.result {
        reason.push_str(&format!(", its job's result was {}", result.word()));
    }
    if let Some(cause) = &seen.stop {
        reason.push_str(&format!(", after it was told to stop: {}", cause.text()));
    }
    if seen.version_refused && exit != Exit::Code(7) {
        reason.push_str(", GitHub refuses its version");
    }
    (outcome, reason)
}

fn outcome(exit: Exit, seen: &Seen) -> RunnerOutcome {
    match exit {
        Exit::Code(7) => return RunnerOutcome::VersionRefused,
        Exit::Code(3 | 4) if seen.result.is_none() => return RunnerOutcome::VersionRefused,
        Exit::Code(5) if seen.phase < RunnerPhase::Assigned => return RunnerOutcome::StartFailed,
        Exit::Code(code) => {
            if let Some(result) = JobResult::from_exit_code(code) {
                return of_exit_result(result, seen);
            }
        }
        Exit::Signal(_) | Exit::Unknown => {}
    }
    if let Some((result, after_stop)) = seen.result {
        return of_result(result, after_stop);
    }
    match seen.phase {
        RunnerPhase::Assigned | RunnerPhase::Running => without_result(exit, seen),
        RunnerPhase::Listening if seen.version_refused => RunnerOutcome::VersionRefused,
        RunnerPhase::Listening => RunnerOutcome::Unused,
        _ => not_listening(exit, seen),
    }
}

/// The exit code names a result. 100 is also the code of a Listener that threw
/// (JobDispatcher.cs:343-355 presets it), so there the console counts.
fn of_exit_result(result: JobResult, seen: &Seen) -> RunnerOutcome {
    let printed = seen.result;
    match (result, printed) {
        (JobResult::Succeeded, Some((printed, after_stop))) => of_result(printed, after_stop),
        (_, printed) => {
            let after_stop = printed.map_or(seen.stop.is_some(), |(_, after_stop)| after_stop);
            of_result(result, after_stop)
        }
    }
}

/// A job that ended after it was told to stop was interrupted, unless it still succeeded. A skipped
/// job had nothing to do: GitHub counts it as passed, so it counts as a success.
fn of_result(result: JobResult, after_stop: bool) -> RunnerOutcome {
    match result {
        JobResult::Succeeded | JobResult::SucceededWithIssues | JobResult::Skipped => {
            RunnerOutcome::Succeeded
        }
        _ if after_stop => RunnerOutcome::Interrupted,
        JobResult::Failed => RunnerOutcome::Failed,
        JobResult::Canceled => RunnerOutcome::Canceled,
        JobResult::Abandoned => RunnerOutcome::Abandoned,
    }
}

/// It had a job, of which no result was seen.
fn without_result(exit: Exit, seen: &Seen) -> RunnerOutcome {
    match &seen.stop {
        Some(Cause::NotAcquired | Cause::NotExited | Cause::NotListening) => RunnerOutcome::Lost,
        Some(_) => RunnerOutcome::Interrupted,
        // "Job not found" as the answer to the acknowledgement (Runner.cs:699-704): the job was gone
        // before it began.
        None if seen.phase == RunnerPhase::Assigned && exit == Exit::Code(0) => {
            RunnerOutcome::Unused
        }
        None => RunnerOutcome::Lost,
    }
}

fn not_listening(exit: Exit, seen: &Seen) -> RunnerOutcome {
    match &seen.stop {
        _ if seen.version_refused => RunnerOutcome::VersionRefused,
        Some(Cause::NotListening) => RunnerOutcome::StartFailed,
        Some(_) => RunnerOutcome::Unused,
        None if exit == Exit::Code(0) => RunnerOutcome::Unused,
        None => RunnerOutcome::StartFailed,
    }
}

/// A phase in a sentence.
pub(crate) fn phase_word(phase: RunnerPhase) -> &'static str {
    match phase {
        RunnerPhase::Unspecified => "unknown",
        RunnerPhase::Unassigned => "unassigned",
        RunnerPhase::Starting => "starting",
        RunnerPhase::Connected => "connected",
        RunnerPhase::Listening => "listening",
        RunnerPhase::Assigned => "assigned",
        RunnerPhase::Running => "running",
        RunnerPhase::Finished => "finished",
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::RunnerOutcome as O;
    use muster_proto::v1::RunnerPhase::{self, Assigned, Listening, Running, Starting};
    use rstest::rstest;

    use super::{Cause, Exit, Seen, judge};
    use crate::supervise::console::JobResult;

    const DONE: Option<(JobResult, bool)> = Some((JobResult::Succeeded, false));
    const BAD: Option<(JobResult, bool)> = Some((JobResult::Failed, false));
    const STOPPED: Option<(JobResult, bool)> = Some((JobResult::Canceled, true));

    fn drain() -> Option<Cause> {
        Some(Cause::Deadline)
    }

    #[rstest]
    #[case::succeeded(Exit::Code(100), Running, DONE, None, O::Succeeded)]
    #[case::succeeded_without_a_line(Exit::Code(100), Running, None, None, O::Succeeded)]
    #[case::success_that_is_a_lie(Exit::Code(100), Running, BAD, None, O::Failed)]
    #[case::with_issues(Exit::Code(101), Running, None, None, O::Succeeded)]
    #[case::failed(Exit::Code(102), Running, BAD, None, O::Failed)]
    #[case::the_code_counts_against_a_forged_line(Exit::Code(102), Running, DONE, None, O::Failed)]
    #[case::canceled(Exit::Code(103), Running, None, None, O::Canceled)]
    #[case::skipped(Exit::Code(104), Running, None, None, O::Succeeded)]
    #[case::abandoned(Exit::Code(105), Running, None, None, O::Abandoned)]
    #[case::interrupted_with_a_code(Exit::Code(102), Running, None, drain(), O::Interrupted)]
    #[case::failed_just_before_the_stop(Exit::Code(102), Running, BAD, drain(), O::Failed)]
    #[case::never_used(Exit::Code(0), Listening, None, None, O::Unused)]
    #[case::retired(Exit::Code(0), Listening, None, Some(Cause::Retired), O::Unused)]
    #[case::old_runner(Exit::Code(0), Running, BAD, None, O::Failed)]
    #[case::interrupted(Exit::Code(0), Running, STOPPED, drain(), O::Interrupted)]
    #[case::done_in_spite_of_the_stop(
        Exit::Code(0), Running, Some((JobResult::Succeeded, true)), drain(), O::Succeeded
    )]
    #[case::interrupted_without_a_line(Exit::Code(0), Running, None, drain(), O::Interrupted)]
    #[case::killed_after_the_stop(Exit::Signal(9), Running, None, drain(), O::Interrupted)]
    #[case::first_renewal_failed(Exit::Code(0), Running, None, None, O::Lost)]
    #[case::job_gone_at_the_acknowledgement(Exit::Code(0), Assigned, None, None, O::Unused)]
    #[case::hangs_after_the_acknowledgement(
        Exit::Code(0),
        Assigned,
        None,
        Some(Cause::NotAcquired),
        O::Lost
    )]
    #[case::hangs_after_the_job(Exit::Signal(9), Running, BAD, Some(Cause::NotExited), O::Failed)]
    #[case::bad_configuration(Exit::Code(1), Starting, None, None, O::StartFailed)]
    #[case::never_connected(
        Exit::Code(0),
        Starting,
        None,
        Some(Cause::NotListening),
        O::StartFailed
    )]
    #[case::error_while_idle(Exit::Code(2), Listening, None, None, O::Unused)]
    #[case::error_in_the_job(Exit::Code(2), Running, None, None, O::Lost)]
    #[case::stale(Exit::Code(4), Listening, None, None, O::VersionRefused)]
    #[case::stale(Exit::Code(3), Listening, None, None, O::VersionRefused)]
    #[case::conflict(Exit::Code(5), Starting, None, None, O::StartFailed)]
    #[case::refused(Exit::Code(7), Listening, None, None, O::VersionRefused)]
    #[case::killed_in_the_job(Exit::Signal(9), Running, None, None, O::Lost)]
    #[case::killed_after_the_result(Exit::Signal(9), Running, BAD, None, O::Failed)]
    #[case::crashed_at_start(Exit::Signal(6), Starting, None, None, O::StartFailed)]
    #[case::stopped_at_start(
        Exit::Signal(2), Starting, None, Some(Cause::Shutdown("x".into())), O::Unused
    )]
    #[case::never_ended(Exit::Unknown, Running, None, None, O::Lost)]
    fn table(
        #[case] exit: Exit,
        #[case] phase: RunnerPhase,
        #[case] result: Option<(JobResult, bool)>,
        #[case] stop: Option<Cause>,
        #[case] expected: O,
    ) {
        let seen = Seen {
            phase,
            result,
            stop,
            version_refused: false,
        };
        let (outcome, reason) = judge(exit, &seen);
        assert_eq!(outcome, expected, "{reason}");
        assert!(!reason.is_empty());
    }

    #[test]
    fn a_refused_version_is_known_from_the_console_too() {
        let seen = Seen {
            phase: Starting,
            result: None,
            stop: None,
            version_refused: true,
        };
        assert_eq!(judge(Exit::Code(1), &seen).0, O::VersionRefused);
    }
}
