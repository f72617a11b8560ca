//! Where the time from queued to started went.

use std::time::Duration;

use jiff::Timestamp;
use muster_core::{Job, Runner};
use muster_proto::v1;

use crate::grpc::time::{duration, until};

/// Splits the wait of a job by the marks that its runner passed.
///
/// The marks are of two clocks: GitHub says when the job was queued and started, we say the rest. So
/// each mark is taken to lie between the one before it and the end: no part is negative, and a part
/// whose mark lies before its beginning did not happen, as the runner was further already when the
/// job came. What remains after the last known mark is the pick-up of a job that started; the parts
/// of a started job whose runner is known add up to the total. While it waits, or if nobody knows
/// its runner, only the parts that are known to have ended are set.
pub(super) fn breakdown(job: &Job, runner: Option<&Runner>, now: Timestamp) -> v1::WaitBreakdown {
    let queued = job.queued_at();
    let end = job
        .started_at
        .or(job.completed_at)
        .unwrap_or(now)
        .max(queued);
    let end = match job.started_at {
        Some(started) => within_the_second(started, runner).max(end),
        None => end,
    };
    let mut cursor = queued;
    let mut part = |mark: Option<Timestamp>| {
        let mark = mark?.min(end);
        let length = (mark > cursor).then(|| until(mark, cursor))?;
        cursor = mark;
        Some(length)
    };
    let known = part(Some(job.known_at)).unwrap_or(Duration::ZERO);
    let marks = runner.map(|runner| &runner.marks);
    let decision = part(marks.map(|marks| marks.created_at));
    let launch = part(marks.and_then(|marks| marks.launched_at));
    let boot = part(marks.and_then(|marks| marks.enrolled_at));
    let registration = part(marks.and_then(|marks| marks.listening_at));
    let pickup = (job.started_at.is_some() && runner.is_some()).then(|| until(end, cursor));
    let wire = |length: Option<Duration>| length.map(duration);
    v1::WaitBreakdown {
        delivery: wire(Some(known)),
        decision: wire(decision),
        launch: wire(launch),
        boot: wire(boot),
        registration: wire(registration),
        pickup: wire(pickup),
        total: wire(Some(until(end, queued))),
    }
}

/// When a job has started that GitHub says did so in this second: its times are whole seconds, rounded down, and
/// a mark of its runner in that second came before.
fn within_the_second(started: Timestamp, runner: Option<&Runner>) -> Timestamp {
    let listening = runner.and_then(|runner| runner.marks.listening_at);
    listening
        .filter(|listening| listening.as_second() == started.as_second())
        .map_or(started, |listening| listening.max(started))
}

#[cfg(test)]
mod tests {
    use muster_core::{JobStatus, Work};
    use proptest::prelude::*;

    use super::*;
    use crate::grpc::sample::{at, job, runner};

    fn seconds(part: Option<prost_types::Duration>) -> Option<i64> {
        part.map(|part| part.seconds)
    }

    fn parts(wait: &v1::WaitBreakdown) -> [Option<i64>; 6] {
        [
            wait.delivery,
            wait.decision,
            wait.launch,
            wait.boot,
            wait.registration,
            wait.pickup,
        ]
        .map(seconds)
    }

    fn started(queued: i64, known: i64, started: i64) -> Job {
        let mut job = job(JobStatus::InProgress);
        job.report.created_at = Some(at(queued));
        job.known_at = at(known);
        job.started_at = Some(at(started));
        job
    }

    fn marked(marks: [Option<i64>; 4]) -> Runner {
        let mut runner = runner("launch-a", Work::Busy);
        let [created, launched, enrolled, listening] = marks.map(|mark| mark.map(at));
        runner.marks.created_at = created.unwrap_or(at(0));
        runner.marks.launched_at = launched;
        runner.marks.enrolled_at = enrolled;
        runner.marks.listening_at = listening;
        runner
    }

    #[test]
    fn a_job_that_waited_for_its_own_launch_shows_all_parts() {
        let runner = marked([Some(103), Some(110), Some(130), Some(135)]);
        let wait = breakdown(&started(100, 102, 140), Some(&runner), at(999));
        let expected = [Some(2), Some(1), Some(7), Some(20), Some(5), Some(5)];
        assert_eq!(parts(&wait), expected);
        assert_eq!(seconds(wait.total), Some(40));
    }

    #[test]
    fn an_idle_runner_leaves_delivery_and_pickup() {
        let runner = marked([Some(10), Some(20), Some(30), Some(40)]);
        let wait = breakdown(&started(100, 102, 103), Some(&runner), at(999));
        assert_eq!(parts(&wait), [Some(2), None, None, None, None, Some(1)]);
    }

    #[test]
    fn a_job_that_starts_in_the_second_of_its_launch_shows_all_parts() {
        let mut runner = marked([None; 4]);
        let mark = |millis| at(100) + Duration::from_millis(millis);
        runner.marks.created_at = mark(300);
        runner.marks.launched_at = Some(mark(400));
        runner.marks.enrolled_at = Some(mark(500));
        runner.marks.listening_at = Some(mark(600));
        let wait = breakdown(&started(100, 100, 100), Some(&runner), at(999));
        let millis = |part: Option<prost_types::Duration>| part.unwrap().nanos / 1_000_000;
        let parts = [wait.decision, wait.launch, wait.boot, wait.registration];
        assert_eq!(parts.map(millis), [300, 100, 100, 100]);
        assert_eq!((millis(wait.pickup), millis(wait.total)), (0, 600));
    }

    #[test]
    fn a_job_that_waits_counts_to_now_and_ended_parts_only() {
        let mut job = job(JobStatus::Queued);
        job.report.created_at = Some(at(100));
        job.known_at = at(101);
        let wait = breakdown(&job, None, at(160));
        assert_eq!(parts(&wait), [Some(1), None, None, None, None, None]);
        assert_eq!(seconds(wait.total), Some(60));
    }

    #[test]
    fn a_job_cancelled_in_the_queue_waited_until_then() {
        let mut job = job(JobStatus::Completed);
        job.report.created_at = Some(at(100));
        job.known_at = at(101);
        job.completed_at = Some(at(130));
        assert_eq!(seconds(breakdown(&job, None, at(999)).total), Some(30));
    }

    #[test]
    fn a_start_before_its_queueing_is_no_wait() {
        let runner = marked([Some(103), Some(110), None, None]);
        let wait = breakdown(&started(100, 102, 90), Some(&runner), at(999));
        assert_eq!(parts(&wait), [Some(0), None, None, None, None, Some(0)]);
        assert_eq!(seconds(wait.total), Some(0));
    }

    proptest! {
        #[test]
        fn no_part_is_negative_and_the_parts_of_a_started_job_add_up(
            queued in 0..100_i64,
            known in 0..100_i64,
            start in 0..100_i64,
            marks in proptest::array::uniform4(proptest::option::of(0..120_i64)),
        ) {
            let wait = breakdown(&started(queued, known, start), Some(&marked(marks)), at(200));
            let parts = parts(&wait);
            prop_assert!(parts.iter().flatten().all(|&part| part >= 0));
            prop_assert_eq!(Some(parts.iter().flatten().sum()), seconds(wait.total));
        }

        #[test]
        fn the_parts_of_a_job_without_a_runner_never_exceed_the_total(
            queued in 0..100_i64,
            known in 0..100_i64,
            now in 0..200_i64,
        ) {
            let mut job = job(JobStatus::Queued);
            job.report.created_at = Some(at(queued));
            job.known_at = at(known);
            let wait = breakdown(&job, None, at(now));
            let sum: i64 = parts(&wait).iter().flatten().sum();
            prop_assert!(sum >= 0 && Some(sum) <= seconds(wait.total));
        }
    }
}
