//! The judgement of an end, as tables.

use std::time::Duration;

use muster_proto::v1::RunnerOutcome as O;
use rstest::rstest;

use super::console::JobResult;
use super::outcome::{Cause, Exit, Printed, Seen, judge};
use super::phase::Phase::{self, Assigned, Connected, Listening, Running, Starting};

const fn printed(result: JobResult, after_stop: bool) -> Option<Printed> {
    Some(Printed {
        result,
        at: Duration::ZERO,
        after_stop,
        contradicted: false,
    })
}

const DONE: Option<Printed> = printed(JobResult::Succeeded, false);
const BAD: Option<Printed> = printed(JobResult::Failed, false);
const STOPPED: Option<Printed> = printed(JobResult::Canceled, true);

fn drain() -> Option<Cause> {
    Some(Cause::Deadline)
}

#[rstest]
#[case::succeeded(Exit::Code(100), Running, DONE, None, O::Succeeded)]
#[case::succeeded_without_a_console(Exit::Code(100), Running, None, None, O::Succeeded)]
#[case::success_that_is_a_lie(Exit::Code(100), Running, BAD, None, O::Failed)]
#[case::with_issues(Exit::Code(101), Running, None, None, O::Succeeded)]
#[case::failed(Exit::Code(102), Running, BAD, None, O::Failed)]
#[case::the_code_counts_against_a_forged_line(Exit::Code(102), Running, DONE, None, O::Failed)]
#[case::canceled(Exit::Code(103), Running, None, None, O::Canceled)]
#[case::skipped(Exit::Code(104), Running, None, None, O::Succeeded)]
#[case::abandoned(Exit::Code(105), Running, None, None, O::Abandoned)]
#[case::interrupted_with_a_code(Exit::Code(102), Running, None, drain(), O::Interrupted)]
#[case::failed_just_before_the_stop(Exit::Code(102), Running, BAD, drain(), O::Failed)]
#[case::done_in_spite_of_the_stop(
    Exit::Code(100),
    Running,
    printed(JobResult::Succeeded, true),
    drain(),
    O::Succeeded
)]
#[case::never_used(Exit::Code(0), Listening, None, None, O::Unused)]
#[case::retired(Exit::Code(0), Listening, None, Some(Cause::Retired), O::Unused)]
#[case::runner_without_result_codes(Exit::Code(0), Running, BAD, None, O::Failed)]
#[case::success_that_the_code_does_not_name(Exit::Code(0), Running, DONE, None, O::Lost)]
#[case::success_that_the_code_does_not_name(Exit::Code(4), Running, DONE, None, O::Lost)]
#[case::interrupted(Exit::Code(0), Running, STOPPED, drain(), O::Interrupted)]
#[case::success_claimed_before_the_stop(Exit::Code(0), Running, DONE, drain(), O::Interrupted)]
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
#[case::no_worker(Exit::Code(0), Running, None, Some(Cause::NoWorker), O::Lost)]
#[case::worker_gone(Exit::Signal(9), Running, None, Some(Cause::WorkerGone), O::Lost)]
#[case::deaf_worker(Exit::Code(0), Running, None, Some(Cause::NotReceived), O::Lost)]
#[case::wedged_worker(Exit::Signal(9), Running, None, Some(Cause::WorkerNotExited), O::Lost)]
#[case::stuck_cancellation(Exit::Signal(9), Running, None, Some(Cause::NotCancelled), O::Canceled)]
#[case::hangs_after_the_job(Exit::Signal(9), Running, BAD, Some(Cause::NotExited), O::Failed)]
#[case::hangs_after_a_success_it_claims(
    Exit::Signal(9),
    Running,
    DONE,
    Some(Cause::NotExited),
    O::Lost
)]
#[case::bad_configuration(Exit::Code(1), Starting, None, None, O::StartFailed)]
#[case::session_refused(Exit::Code(1), Connected, None, None, O::StartFailed)]
#[case::never_connected(
    Exit::Code(0),
    Starting,
    None,
    Some(Cause::NotListening),
    O::StartFailed
)]
#[case::no_session(
    Exit::Code(0),
    Connected,
    None,
    Some(Cause::NotListening),
    O::StartFailed
)]
#[case::error_while_idle(Exit::Code(2), Listening, None, None, O::Unused)]
#[case::error_in_the_job(Exit::Code(2), Running, None, None, O::Lost)]
#[case::error_after_a_success_it_claims(Exit::Code(2), Running, DONE, None, O::Lost)]
#[case::stale(Exit::Code(4), Listening, None, None, O::StaleVersion)]
#[case::stale(Exit::Code(3), Listening, None, None, O::StaleVersion)]
#[case::stale_with_a_job_it_never_took(Exit::Code(4), Assigned, None, None, O::StaleVersion)]
#[case::stale_after_its_job(Exit::Code(4), Running, BAD, None, O::Failed)]
#[case::update_in_the_middle_of_a_job(Exit::Code(4), Running, None, None, O::Lost)]
#[case::conflict(Exit::Code(5), Starting, None, None, O::Conflict)]
#[case::conflict(Exit::Code(5), Connected, None, None, O::Conflict)]
#[case::refused(Exit::Code(7), Listening, None, None, O::VersionRefused)]
#[case::refused_in_the_job(Exit::Code(7), Running, None, None, O::VersionRefused)]
#[case::terminated(Exit::Code(143), Running, None, None, O::Lost)]
#[case::killed_in_the_job(Exit::Signal(9), Running, None, None, O::Lost)]
#[case::killed_after_the_result(Exit::Signal(9), Running, BAD, None, O::Failed)]
#[case::killed_after_a_success_it_claims(Exit::Signal(9), Running, DONE, None, O::Lost)]
#[case::crashed_at_start(Exit::Signal(6), Starting, None, None, O::StartFailed)]
#[case::crashed_while_idle(Exit::Signal(11), Listening, None, None, O::Unused)]
#[case::stopped_at_start(
    Exit::Signal(2), Starting, None, Some(Cause::Shutdown("x".into())), O::Unused
)]
#[case::never_ended(Exit::Unknown, Running, None, None, O::Lost)]
fn an_end_is_judged_by_its_exit_status_first(
    #[case] exit: Exit,
    #[case] phase: Phase,
    #[case] result: Option<Printed>,
    #[case] stop: Option<Cause>,
    #[case] expected: O,
) {
    let seen = Seen {
        phase,
        result,
        stop,
        ..Seen::default()
    };
    let (outcome, reason) = judge(exit, &seen);
    assert_eq!(outcome, expected, "{reason}");
    assert!(reason.contains(phase.word()), "{reason}");
}

#[rstest]
#[case::version_refused_by_word(
    Exit::Code(1), Seen { phase: Starting, version_refused: true, ..Seen::default() },
    O::VersionRefused, "refuses its version"
)]
#[case::listener_threw(
    Exit::Code(100), Seen { phase: Running, result_missing: true, ..Seen::default() },
    O::Lost, "without a word on its job's result"
)]
#[case::worker_never_read_the_job(
    Exit::Code(102), Seen { phase: Running, result_missing: true, ..Seen::default() },
    O::Lost, "without a word on its job's result"
)]
#[case::given_up_with_a_conflict(
    Exit::Code(0),
    Seen {
        phase: Connected, conflict: true, stop: Some(Cause::NotListening), ..Seen::default()
    },
    O::Conflict, "another session"
)]
#[case::ended_by_the_job_with_a_forged_line(
    Exit::Code(0),
    Seen { phase: Running, result: DONE, stopped_by_other: true, ..Seen::default() },
    O::Lost, "something else told it to stop"
)]
#[case::two_results(
    Exit::Code(0),
    Seen {
        phase: Running,
        result: DONE.map(|printed| Printed { contradicted: true, ..printed }),
        ..Seen::default()
    },
    O::Lost, "Succeeded and then another"
)]
#[case::cancelled_without_result_codes(
    Exit::Code(0),
    Seen {
        phase: Running,
        result: printed(JobResult::Canceled, false),
        cancelled: true,
        ..Seen::default()
    },
    O::Canceled, "result was Canceled"
)]
#[case::broken_off(
    Exit::Code(2),
    Seen { phase: Running, result: printed(JobResult::Canceled, false), ..Seen::default() },
    O::Lost, "result was Canceled"
)]
#[case::update_under_way(
    Exit::Code(1),
    Seen { phase: Listening, updating: true, complaint: Some("x y".into()), ..Seen::default() },
    O::Unused, "it was updating itself; it said: x y"
)]
fn more_is_known_of_some_ends(
    #[case] exit: Exit,
    #[case] seen: Seen,
    #[case] expected: O,
    #[case] words: &str,
) {
    let (outcome, reason) = judge(exit, &seen);
    assert_eq!(outcome, expected, "{reason}");
    assert!(reason.contains(words), "{reason}");
}
