//! The machine under a clock of the test's own.

use std::time::{Duration, Instant};

use muster_proto::v1::{RunnerOutcome, RunnerPhase, TroubleKind};
use rstest::rstest;

use super::console::{ConsoleLine, JobResult};
use super::machine::{Action, Finish, Input, Machine};
use super::outcome::Exit;
use super::perflog::Counter::{self, *};
use super::watchdog::Limits;

/// A machine, and the time.
pub(super) struct Bench {
    pub(super) machine: Machine,
    begin: Instant,
    pub(super) now: Instant,
}

impl Bench {
    pub(super) fn new() -> Self {
        let begin = Instant::now();
        Self {
            machine: Machine::new(Limits::default(), begin),
            begin,
            now: begin,
        }
    }

    /// A machine after these inputs, all at time 0.
    pub(super) fn after(inputs: impl IntoIterator<Item = Input>) -> Self {
        let mut bench = Self::new();
        for input in inputs {
            bench.give(input);
        }
        bench
    }

    pub(super) fn give(&mut self, input: Input) -> Vec<Action> {
        self.machine.handle(input, self.now)
    }

    /// Turns the clock from deadline to deadline, up to `seconds` from the begin. What was done, with
    /// the second it was done in.
    pub(super) fn run_to(&mut self, seconds: u64) -> Vec<(u64, Action)> {
        self.run_until(self.begin + Duration::from_secs(seconds))
    }

    pub(super) fn run_until(&mut self, end: Instant) -> Vec<(u64, Action)> {
        let mut done = Vec::new();
        while let Some(at) = self.machine.next_deadline().filter(|at| *at <= end) {
            assert!(at > self.now || done.len() < 1000, "the clock stands still");
            self.now = self.now.max(at);
            let second = (self.now - self.begin).as_secs();
            let actions = self.give(Input::Tick);
            done.extend(actions.into_iter().map(|action| (second, action)));
        }
        self.now = end;
        done
    }

    /// The machine's next deadline, in its own time.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        Some(self.machine.next_deadline()? - self.begin)
    }

    pub(super) fn deadline(&self, seconds: u64) -> Option<Instant> {
        Some(self.begin + Duration::from_secs(seconds))
    }
}

pub(super) fn listening() -> [Input; 2] {
    [Input::Started, Input::Console(ConsoleLine::Listening)]
}

pub(super) fn running() -> Vec<Input> {
    let mut inputs = listening().to_vec();
    inputs.push(Input::Console(ConsoleLine::RunningJob("b".into())));
    inputs
}

/// A runner that listens, has begun these jobs by its console, and has written these counters.
pub(super) fn counted(counters: &[Counter], jobs: &[&str]) -> Vec<Input> {
    let jobs = jobs
        .iter()
        .map(|name| ConsoleLine::RunningJob((*name).into()));
    let mut inputs = listening().to_vec();
    inputs.extend(jobs.map(Input::Console));
    inputs.extend(counters.iter().map(|counter| Input::Counter(*counter)));
    inputs
}

pub(super) fn result() -> Input {
    Input::Console(ConsoleLine::JobCompleted("b".into(), JobResult::Failed))
}

pub(super) fn finished(actions: &[Action]) -> Option<&Finish> {
    actions.iter().find_map(|action| match action {
        Action::Finished(finish) => Some(finish),
        _ => None,
    })
}

pub(super) fn exited(code: i32) -> Input {
    Input::Exited {
        exit: Exit::Code(code),
        worker: false,
    }
}

#[rstest]
#[case::connect(vec![Input::Started], 120)]
#[case::connect_after_a_conflict(
    vec![Input::Started, Input::Console(ConsoleLine::SessionConflict)], 360
)]
#[case::acquire(
    vec![Input::Started, Input::Counter(Counter::SessionCreated), Input::Counter(Counter::JobAssigned)],
    90
)]
#[case::connected_and_no_session(vec![Input::Started, Input::Console(ConsoleLine::Connected)], 120)]
#[case::first_renewal(counted(&[JobAssigned], &["b"]), 90)]
#[case::worker_start(counted(&[JobAssigned, JobAcquired], &["b"]), 60)]
#[case::job_never_sent(counted(&[JobAssigned, JobAcquired, WorkerStarting], &["b"]), 45)]
#[case::job_never_read(
    counted(&[JobAssigned, JobAcquired, WorkerStarting, WorkerStarted, JobSent], &["b"]), 45
)]
#[case::worker_exit(counted(&[JobReceived, SetUpDone, StepsDone], &["b"]), 120)]
#[case::cancellation(counted(&[JobReceived, SetUpDone, JobCancelled], &["b"]), 600)]
#[case::cancellation_gives_time_for_all_else(
    counted(&[JobReceived, SetUpDone, JobCancelled, StepsDone], &["b"]), 600
)]
#[case::exit_after_the_result([running(), vec![result()]].concat(), 60)]
#[case::exit_after_the_result_of_a_cancelled_job(
    [counted(&[JobReceived, JobCancelled], &["b"]), vec![result()]].concat(), 60
)]
fn a_hang_is_ended_by_sigint_and_then_by_force(#[case] inputs: Vec<Input>, #[case] limit: u64) {
    let mut bench = Bench::after(inputs);
    let done = bench.run_to(limit + 14);
    let expected = vec![
        (limit, Action::Interrupt),
        (limit + 5, Action::Interrupt),
        (limit + 10, Action::Kill),
    ];
    assert_eq!(done, expected);
}

#[rstest]
#[case::idle(listening().to_vec())]
#[case::busy(running())]
#[case::busy_without_a_perf_file_of_the_worker(
    counted(&[JobAssigned, JobAcquired, WorkerStarting, JobSent], &["b"])
)]
#[case::busy_with_steps(counted(&[JobAssigned, JobAcquired, JobReceived, SetUpDone], &["b"]))]
#[case::worker_in_the_table_and_not_in_the_perf_files(
    [counted(&[JobAssigned], &["b"]), vec![Input::Looked { worker: true }]].concat()
)]
#[case::look_without_a_counter([running(), vec![Input::Looked { worker: true }]].concat())]
fn waiting_and_working_have_no_limit(#[case] inputs: Vec<Input>) {
    let mut bench = Bench::after(inputs);
    assert_eq!(bench.run_to(100_000), []);
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn a_runner_that_its_job_has_stopped_ends_after_its_worker() {
    let mut bench = Bench::after(running());
    assert_eq!(bench.machine.look_every(), Some(Duration::from_secs(30)));
    bench.give(Input::Looked { worker: false });
    bench.give(Input::Looked { worker: true });
    assert_eq!(bench.machine.next_deadline(), None);
    bench.give(Input::Looked { worker: false });
    bench.now += Duration::from_secs(30);
    bench.give(Input::Looked { worker: false });
    assert_eq!(bench.run_to(600), [(600, Action::Interrupt)]);
}

#[test]
fn a_stop_is_repeated_then_forced_and_then_given_up() {
    let mut bench = Bench::after(running());
    let told = bench.give(Input::Shutdown("x".into()));
    assert_eq!(told, [Action::Interrupt]);
    assert_eq!(bench.give(Input::Shutdown("again".into())), []);
    let done = bench.run_to(1000);
    let interrupts = done.iter().filter(|(_, a)| *a == Action::Interrupt).count();
    assert_eq!(interrupts, 8);
    let first_kill = done.iter().find(|(_, action)| *action == Action::Kill);
    assert_eq!(first_kill.map(|(second, _)| *second), Some(45));
    let Some((75, Action::Finished(finish))) = done.last() else {
        panic!("{done:?}")
    };
    assert_eq!(finish.outcome, RunnerOutcome::Interrupted);
}

#[test]
fn a_drain_without_a_deadline_lets_the_job_run() {
    let mut bench = Bench::after(running());
    let look = Input::Drain {
        deadline: None,
        worker: true,
    };
    let busy = Action::Drained {
        idle: false,
        phase: RunnerPhase::Running,
    };
    assert_eq!(bench.give(look), std::slice::from_ref(&busy));
    assert_eq!(bench.give(Input::Retire { worker: true }), [busy]);
    assert_eq!(bench.run_to(100_000), []);
    let line = ConsoleLine::JobCompleted("b".into(), JobResult::Succeeded);
    bench.give(Input::Console(line));
    let end = bench.give(exited(100));
    assert_eq!(finished(&end).unwrap().outcome, RunnerOutcome::Succeeded);
}

#[test]
fn the_earliest_deadline_counts_and_the_stop_comes_its_lead_before() {
    let mut bench = Bench::after(running());
    for seconds in [120, 300] {
        let deadline = bench.deadline(seconds);
        bench.give(Input::Drain {
            deadline,
            worker: true,
        });
    }
    assert_eq!(bench.run_to(79), [(75, Action::Interrupt)]);
}

#[test]
fn a_deadline_nearer_than_its_lead_stops_at_once() {
    let mut bench = Bench::after(running());
    let deadline = bench.deadline(20);
    let done = bench.give(Input::Drain {
        deadline,
        worker: true,
    });
    assert_eq!(done.last(), Some(&Action::Interrupt));
}

#[test]
fn an_idle_runner_is_retired_and_an_unassigned_agent_ends() {
    let mut bench = Bench::after(listening());
    assert_eq!(
        bench.give(Input::Retire { worker: false }),
        [Action::Interrupt]
    );
    let end = bench.give(exited(0));
    assert_eq!(finished(&end).unwrap().outcome, RunnerOutcome::Unused);

    let mut bench = Bench::new();
    let end = bench.give(Input::Retire { worker: false });
    assert_eq!(finished(&end).unwrap().outcome, RunnerOutcome::Unused);
}

#[test]
fn a_job_that_slips_in_during_the_stop_counts_as_interrupted() {
    let mut bench = Bench::after(listening());
    bench.give(Input::Retire { worker: false });
    bench.give(Input::Console(ConsoleLine::RunningJob("b".into())));
    let end = bench.give(exited(0));
    assert_eq!(finished(&end).unwrap().outcome, RunnerOutcome::Interrupted);
}

#[test]
fn the_worker_of_a_dead_runner_may_go_on_for_ten_minutes() {
    let died = || Input::Exited {
        exit: Exit::Signal(9),
        worker: true,
    };
    let mut bench = Bench::after(running());
    let trouble = bench.give(died());
    assert!(matches!(
        trouble.as_slice(),
        [Action::Trouble {
            kind: TroubleKind::OrphanedWorker,
            ..
        }]
    ));
    assert_eq!(bench.machine.look_every(), Some(Duration::from_secs(1)));
    assert_eq!(bench.give(Input::Looked { worker: true }), []);
    let end = bench.give(Input::Looked { worker: false });
    assert_eq!(finished(&end).unwrap().outcome, RunnerOutcome::Lost);

    let mut bench = Bench::after(running());
    bench.give(died());
    let done = bench.run_to(1000);
    assert_eq!(done[0], (600, Action::Kill));
    assert!(
        matches!(&done[1], (600, Action::Finished(finish)) if finish.outcome == RunnerOutcome::Lost)
    );
    assert_eq!(bench.machine.phase(), RunnerPhase::Finished);
}

#[test]
fn each_phase_is_reported_once_also_one_that_was_passed_unseen() {
    let mut bench = Bench::after([Input::Started]);
    let actions = bench.give(Input::Console(ConsoleLine::RunningJob("b".into())));
    let reported: Vec<_> = actions
        .iter()
        .map(|action| match action {
            Action::Phase { phase, job } => (*phase, job.as_deref()),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        reported,
        [
            (RunnerPhase::Connected, None),
            (RunnerPhase::Listening, None),
            (RunnerPhase::Assigned, None),
            (RunnerPhase::Running, Some("b")),
        ]
    );
    assert_eq!(bench.give(Input::Console(ConsoleLine::Connected)), []);
}

#[test]
fn a_worker_that_outlives_a_listener_killed_before_it_said_so_is_found() {
    let mut bench = Bench::after(listening());
    let actions = bench.give(Input::Exited {
        exit: Exit::Signal(9),
        worker: true,
    });
    assert_eq!(bench.machine.phase(), RunnerPhase::Running);
    assert!(finished(&actions).is_none());
    let end = bench.give(Input::Looked { worker: false });
    let finish = finished(&end).unwrap();
    assert_eq!(finish.outcome, RunnerOutcome::Lost);
    assert!(
        finish.reason.contains("went on for 0 s and then ended"),
        "{}",
        finish.reason
    );
}

#[test]
fn no_runner_is_started_again() {
    let mut bench = Bench::after(listening());
    assert_eq!(bench.give(Input::Started), []);
    bench.give(exited(2));
    assert_eq!(bench.give(Input::Started), []);
    assert_eq!(bench.machine.phase(), RunnerPhase::Finished);
}
