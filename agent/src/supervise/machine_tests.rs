//! The machine under a clock of the test's own.

use std::time::{Duration, Instant};

use muster_proto::v1::{RunnerOutcome, RunnerPhase};
use proptest::prelude::*;
use rstest::rstest;

use super::console::{ConsoleLine, JobResult};
use super::machine::{Action, Finish, Input, Machine};
use super::outcome::Exit;
use super::perflog::Counter;
use super::watchdog::Limits;

/// A machine, and the time.
struct Bench {
    machine: Machine,
    begin: Instant,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let begin = Instant::now();
        Self {
            machine: Machine::new(Limits::default()),
            begin,
            now: begin,
        }
    }

    /// A machine after these inputs, all at time 0.
    fn after(inputs: impl IntoIterator<Item = Input>) -> Self {
        let mut bench = Self::new();
        for input in inputs {
            bench.give(input);
        }
        bench
    }

    fn give(&mut self, input: Input) -> Vec<Action> {
        self.machine.handle(input, self.now)
    }

    /// Turns the clock from deadline to deadline, up to `seconds` from the begin. What was done, with
    /// the second it was done in.
    fn run_to(&mut self, seconds: u64) -> Vec<(u64, Action)> {
        let end = self.begin + Duration::from_secs(seconds);
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

    fn deadline(&self, seconds: u64) -> Option<Instant> {
        Some(self.begin + Duration::from_secs(seconds))
    }
}

fn listening() -> [Input; 2] {
    [Input::Started, Input::Console(ConsoleLine::Listening)]
}

fn running() -> Vec<Input> {
    let mut inputs = listening().to_vec();
    inputs.push(Input::Console(ConsoleLine::RunningJob("b".into())));
    inputs
}

fn result() -> Input {
    Input::Console(ConsoleLine::JobCompleted("b".into(), JobResult::Failed))
}

fn finished(actions: &[Action]) -> Option<&Finish> {
    actions.iter().find_map(|action| match action {
        Action::Finished(finish) => Some(finish),
        _ => None,
    })
}

fn exited(code: i32) -> Input {
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
#[case::exit_after_the_result([running(), vec![result()]].concat(), 60)]
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
fn waiting_and_working_have_no_limit(#[case] inputs: Vec<Input>) {
    let mut bench = Bench::after(inputs);
    assert_eq!(bench.run_to(100_000), []);
    assert_eq!(bench.machine.next_deadline(), None);
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
    assert_eq!(bench.give(died()), []);
    assert!(bench.machine.wants_looks());
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

fn any_input() -> impl Strategy<Value = Input> {
    let line = prop_oneof![
        Just(ConsoleLine::Listening),
        Just(ConsoleLine::RunningJob("b".into())),
        Just(ConsoleLine::JobCompleted("b".into(), JobResult::Succeeded)),
        Just(ConsoleLine::JobCompleted("b".into(), JobResult::Canceled)),
        Just(ConsoleLine::SessionConflict),
        Just(ConsoleLine::VersionDeprecated),
        Just(ConsoleLine::Other),
    ];
    let counter = prop_oneof![
        Just(Counter::SessionCreated),
        Just(Counter::JobAssigned),
        Just(Counter::JobAcquired),
    ];
    let exit = prop_oneof![
        (0..110).prop_map(Exit::Code),
        (1..16).prop_map(Exit::Signal),
        Just(Exit::Unknown)
    ];
    prop_oneof![
        4 => Just(Input::Started),
        8 => line.prop_map(Input::Console),
        6 => counter.prop_map(Input::Counter),
        1 => (exit, any::<bool>()).prop_map(|(exit, worker)| Input::Exited { exit, worker }),
        2 => any::<bool>().prop_map(|worker| Input::Looked { worker }),
        1 => any::<bool>().prop_map(|worker| Input::Drain { deadline: None, worker }),
        1 => any::<bool>().prop_map(|worker| Input::Retire { worker }),
        1 => Just(Input::Shutdown("x".into())),
        1 => Just(Input::StartFailed("x".into())),
        4 => Just(Input::Tick),
    ]
}

proptest! {
    #[test]
    fn phases_only_advance_and_the_end_comes_once(
        steps in prop::collection::vec((any_input(), 0_u64..40), 0..60),
    ) {
        let mut bench = Bench::new();
        let mut phase = RunnerPhase::Unassigned;
        let mut over = false;
        for (input, seconds) in steps {
            bench.now += Duration::from_secs(seconds);
            for action in bench.give(input) {
                match action {
                    Action::Phase { phase: next, .. } => {
                        prop_assert!(next > phase && !over, "{:?} after {:?}", next, phase);
                        phase = next;
                    }
                    Action::Drained { idle, phase } => {
                        let busy = matches!(phase, RunnerPhase::Assigned | RunnerPhase::Running);
                        prop_assert!(!(idle && busy));
                    }
                    Action::Interrupt | Action::Kill => prop_assert!(!over),
                    Action::Finished(finish) => {
                        prop_assert!(!over, "a second end");
                        prop_assert!(finish.outcome != RunnerOutcome::Unspecified);
                        prop_assert!(!finish.reason.is_empty());
                        over = true;
                    }
                }
            }
            prop_assert_eq!(over, bench.machine.phase() == RunnerPhase::Finished);
            let due = bench.machine.next_deadline().is_none_or(|at| at > bench.now);
            prop_assert!(due, "something due was not done");
        }
    }

    #[test]
    fn a_job_is_never_interrupted_without_a_reason(
        inputs in prop::collection::vec(any_input(), 0..40),
    ) {
        // Nothing that the runner says, no look, drain or retirement stops a job that runs.
        let mut bench = Bench::after(running());
        for input in inputs {
            let ends = matches!(
                input,
                Input::Shutdown(_) | Input::Exited { .. } | Input::Console(ConsoleLine::JobCompleted(..))
            );
            if !ends {
                let actions = bench.give(input);
                prop_assert!(!actions.contains(&Action::Interrupt) && !actions.contains(&Action::Kill));
            }
        }
    }

    #[test]
    fn a_shutdown_ends_within_its_bound_whatever_came_before(
        inputs in prop::collection::vec(any_input(), 0..40),
    ) {
        let mut bench = Bench::after(inputs);
        bench.give(Input::Shutdown("x".into()));
        bench.run_to(45 + 30);
        prop_assert_eq!(bench.machine.phase(), RunnerPhase::Finished);
    }
}
