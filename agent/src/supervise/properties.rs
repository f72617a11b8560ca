//! What holds of the machine whatever comes, in whatever order, at whatever time. The numbers are those
//! of the invariants in the design.

use std::time::Duration;

use muster_proto::v1::{RunnerOutcome, RunnerPhase};
use proptest::prelude::*;

use super::console::{self, ConsoleLine, JobResult, LINE_MAX};
use super::lines::Lines;
use super::machine::{Action, Input, Machine};
use super::machine_tests::{Bench, listening, running};
use super::outcome::Exit;
use super::perflog::Counter;
use super::phase::Phase;
use super::watchdog::Limits;

fn any_result() -> impl Strategy<Value = JobResult> {
    prop::sample::select(vec![
        JobResult::Succeeded,
        JobResult::SucceededWithIssues,
        JobResult::Failed,
        JobResult::Canceled,
        JobResult::Skipped,
        JobResult::Abandoned,
    ])
}

fn any_line() -> impl Strategy<Value = ConsoleLine> {
    prop_oneof![
        Just(ConsoleLine::Connected),
        Just(ConsoleLine::Listening),
        Just(ConsoleLine::RunningJob("b".into())),
        any_result().prop_map(|result| ConsoleLine::JobCompleted("b".into(), result)),
        Just(ConsoleLine::SessionConflict),
        Just(ConsoleLine::ConnectError("time-out".into())),
        Just(ConsoleLine::Reconnected),
        Just(ConsoleLine::ClockSkew("skew".into())),
        Just(ConsoleLine::VersionDeprecated),
        Just(ConsoleLine::Updating),
        Just(ConsoleLine::Exiting),
        Just(ConsoleLine::Complaint("x".into())),
        Just(ConsoleLine::Other),
    ]
}

fn any_counter() -> impl Strategy<Value = Counter> {
    prop::sample::select(vec![
        Counter::SessionCreated,
        Counter::JobAssigned,
        Counter::JobAcquired,
        Counter::WorkerStarting,
        Counter::WorkerStarted,
        Counter::JobSent,
        Counter::JobReceived,
        Counter::SetUpDone,
        Counter::StepsDone,
        Counter::JobCancelled,
        Counter::UpdateRequested,
        Counter::RenewalFailing,
        Counter::RenewalRecovered,
    ])
}

/// What the job can write.
fn forgeable() -> impl Strategy<Value = Input> {
    prop_oneof![
        any_line().prop_map(Input::Console),
        any_counter().prop_map(Input::Counter),
    ]
}

/// What stands on the console when a job writes to it too: the lines of both, cut and glued anywhere.
fn any_text() -> impl Strategy<Value = String> {
    const PIECES: [&str; 11] = [
        "\n",
        "2026-08-01 10:00:00Z: ",
        "Job b",
        " completed with result: ",
        "Succeeded",
        "Running job: b\n",
        "Listening for Jobs\n",
        "Exiting...\n",
        "Current runner version: '2.1.0'\n",
        "\u{1b}[0m",
        "xxxx",
    ];
    let piece = prop_oneof![
        6 => prop::sample::select(PIECES.to_vec()).prop_map(str::to_owned),
        3 => any_result().prop_map(|result| {
            format!("2026-08-01 10:00:00Z: Job b completed with result: {}\n", result.word())
        }),
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat())
}

fn any_exit() -> impl Strategy<Value = Exit> {
    prop_oneof![
        3 => (0..110).prop_map(Exit::Code),
        1 => (1..16).prop_map(Exit::Signal),
        1 => Just(Exit::Unknown)
    ]
}

/// Anything, with deadlines as seconds from the moment that it is given.
fn any_step() -> impl Strategy<Value = (Step, u64)> {
    let step = prop_oneof![
        4 => Just(Step::Give(Input::Started)),
        14 => forgeable().prop_map(Step::Give),
        1 => (any_exit(), any::<bool>())
            .prop_map(|(exit, worker)| Step::Give(Input::Exited { exit, worker })),
        2 => any::<bool>().prop_map(|worker| Step::Give(Input::Looked { worker })),
        1 => any::<bool>().prop_map(|worker| Step::Give(Input::Drain { deadline: None, worker })),
        1 => (0_u64..300, any::<bool>()).prop_map(|(seconds, worker)| Step::DrainIn(seconds, worker)),
        1 => any::<bool>().prop_map(|worker| Step::Give(Input::Retire { worker })),
        1 => Just(Step::Give(Input::Shutdown("x".into()))),
        1 => Just(Step::Give(Input::StartFailed("x".into()))),
        1 => Just(Step::Give(Input::ConsoleGap)),
        1 => (1_u64..100, 1_u64..100).prop_map(|(lead, grace)| Step::Give(Input::Settings {
            interrupt_lead: Some(Duration::from_secs(lead)),
            stop_grace: Some(Duration::from_secs(grace)),
        })),
        4 => Just(Step::Give(Input::Tick)),
    ];
    (step, 0_u64..40)
}

#[derive(Clone, Debug)]
enum Step {
    Give(Input),
    DrainIn(u64, bool),
}

impl Step {
    fn input(self, bench: &Bench) -> Input {
        match self {
            Self::Give(input) => input,
            Self::DrainIn(seconds, worker) => Input::Drain {
                deadline: Some(bench.now + Duration::from_secs(seconds)),
                worker,
            },
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    prop::collection::vec(any_step(), 0..60)
}

fn rank(phase: RunnerPhase) -> usize {
    let known = Phase::ALL
        .iter()
        .position(|own| RunnerPhase::from(*own) == phase);
    known.expect("a phase of the machine's")
}

fn busy(phase: RunnerPhase) -> bool {
    matches!(phase, RunnerPhase::Assigned | RunnerPhase::Running)
}

proptest! {
    #[test]
    fn phases_only_advance_the_end_comes_once_and_last_and_nothing_due_waits(steps in steps()) {
        let mut bench = Bench::new();
        let mut phase = RunnerPhase::Unassigned;
        let (mut lives, mut over) = (false, false);
        for (step, seconds) in steps {
            bench.now += Duration::from_secs(seconds);
            let input = step.input(&bench);
            for action in bench.give(input) {
                prop_assert!(!over, "{:?} after the end", action);
                match action {
                    Action::Phase { phase: next, .. } => {
                        prop_assert_eq!(rank(next), rank(phase) + 1, "{:?} after {:?}", next, phase);
                        phase = next;
                        lives = true;
                    }
                    Action::Drained { idle, phase } => prop_assert!(!(idle && busy(phase))),
                    Action::Trouble { detail, .. } => prop_assert!(lives && !detail.is_empty()),
                    Action::Interrupt | Action::Kill => prop_assert!(lives, "nothing to signal"),
                    Action::Finished(finish) => {
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
    fn a_deadline_is_the_end_within_lead_grace_and_the_killing(
        steps in steps(), notice in 0_u64..300, worker in any::<bool>(),
    ) {
        let mut bench = Bench::new();
        for (step, seconds) in steps {
            bench.now += Duration::from_secs(seconds);
            // The coordinator's settings are the defaults, so that the bound is known.
            if !matches!(step, Step::Give(Input::Settings { .. })) {
                let input = step.input(&bench);
                bench.give(input);
            }
        }
        let limits = Limits::default();
        let deadline = bench.now + Duration::from_secs(notice);
        let stops_at = deadline.checked_sub(limits.interrupt_lead).unwrap().max(bench.now);
        bench.give(Input::Drain { deadline: Some(deadline), worker });
        bench.run_until(stops_at + limits.stop_grace + limits.give_up);
        prop_assert_eq!(bench.machine.phase(), RunnerPhase::Finished);
    }

    #[test]
    fn a_shutdown_ends_within_its_bound_whatever_came_before(steps in steps()) {
        let mut bench = Bench::new();
        for (step, _) in steps {
            if !matches!(step, Step::Give(Input::Settings { .. })) {
                let input = step.input(&bench);
                bench.give(input);
            }
        }
        bench.give(Input::Shutdown("x".into()));
        bench.run_to(45 + 30);
        prop_assert_eq!(bench.machine.phase(), RunnerPhase::Finished);
    }

    #[test]
    fn a_job_is_never_stopped_without_a_reason(
        steps in prop::collection::vec(any_step(), 0..40),
    ) {
        // No time passes. Nothing that the runner says, no look, drain or retirement stops a job.
        let mut bench = Bench::after(running());
        for (step, _) in steps {
            let Step::Give(input) = step else { continue };
            if matches!(input, Input::Shutdown(_) | Input::Exited { .. }) {
                continue;
            }
            let actions = bench.give(input);
            prop_assert!(!actions.contains(&Action::Interrupt) && !actions.contains(&Action::Kill));
        }
    }

    #[test]
    fn invariant_9_an_idle_runner_stops_in_the_moment_of_its_retirement(
        inputs in prop::collection::vec(
            prop_oneof![
                Just(Input::Console(ConsoleLine::Connected)),
                Just(Input::Console(ConsoleLine::Listening)),
                Just(Input::Counter(Counter::SessionCreated)),
                Just(Input::Console(ConsoleLine::SessionConflict)),
                Just(Input::Drain { deadline: None, worker: false }),
                Just(Input::Tick),
            ],
            0..20,
        ),
    ) {
        let mut bench = Bench::after([Input::Started].into_iter().chain(inputs));
        let actions = bench.give(Input::Retire { worker: false });
        prop_assert_eq!(actions, [Action::Interrupt]);
    }

    #[test]
    fn invariant_11_nothing_forged_makes_a_busy_runner_look_idle(
        worker_found in any::<bool>(),
        forged in prop::collection::vec((forgeable(), 0_u64..30), 0..60),
        looks in prop::collection::vec((0_usize..60, any::<bool>()), 0..8),
    ) {
        let mut bench = if worker_found {
            Bench::after(listening().into_iter().chain([Input::Looked { worker: true }]))
        } else {
            Bench::after(running())
        };
        for (index, (input, seconds)) in forged.into_iter().enumerate() {
            bench.now += Duration::from_secs(seconds);
            for action in bench.give(input) {
                prop_assert!(!matches!(action, Action::Phase { .. }), "{:?}", action);
                prop_assert!(!matches!(action, Action::Finished(_)) || bench.machine.phase() == RunnerPhase::Finished);
            }
            // Stopping comes of a limit that the job let pass, and harms nobody else. Until its process
            // has ended, it is busy; given up, it is over.
            for (_, worker) in looks.iter().filter(|(at, _)| *at == index) {
                let over = bench.machine.phase() == RunnerPhase::Finished;
                let drained = bench.give(Input::Drain { deadline: None, worker: *worker });
                prop_assert!(over || drained.iter().any(|action| {
                    matches!(action, Action::Drained { idle: false, phase: RunnerPhase::Running })
                }), "{:?}", drained);
            }
            let over = bench.machine.phase() == RunnerPhase::Finished;
            prop_assert!(over || bench.machine.busy());
        }
    }

    #[test]
    fn invariant_11_no_forged_word_is_a_success_that_the_exit_status_does_not_allow(
        written in prop::collection::vec((any_text(), any_counter(), 0_u64..20), 0..20),
        exit in any_exit(),
        shut_down in any::<bool>(),
    ) {
        let mut bench = Bench::after(running());
        let mut lines = Lines::new(LINE_MAX);
        let mut inputs = Vec::new();
        for (text, counter, seconds) in written {
            let read = lines.push(text.as_bytes()).into_iter();
            inputs.extend(read.map(|line| (Input::Console(console::parse(&line)), seconds)));
            inputs.push((Input::Counter(counter), 0));
        }
        inputs.extend(shut_down.then(|| (Input::Shutdown("x".into()), 0)));
        inputs.extend(lines.finish().map(|line| (Input::Console(console::parse(&line)), 0)));
        inputs.push((Input::Exited { exit, worker: false }, 0));
        let mut end = None;
        for (input, seconds) in inputs {
            bench.now += Duration::from_secs(seconds);
            for action in bench.give(input) {
                if let Action::Finished(finish) = action {
                    end = Some(finish);
                }
            }
        }
        let finish = end.expect("it has exited");
        if finish.outcome == RunnerOutcome::Succeeded {
            let named = matches!(finish.exit, Some(Exit::Code(100 | 101 | 104)));
            prop_assert!(named, "{:?}", finish);
        }
    }

    #[test]
    fn invariant_11_forged_trouble_is_bounded(
        forged in prop::collection::vec((forgeable(), 0_u64..5), 0..600),
    ) {
        let mut bench = Bench::after(running());
        let mut said = 0;
        for (input, seconds) in forged {
            bench.now += Duration::from_secs(seconds);
            let actions = bench.give(input);
            said += actions.iter().filter(|a| matches!(a, Action::Trouble { .. })).count();
        }
        prop_assert!(said <= 5 * 8 + 1, "{}", said);
    }

    #[test]
    fn a_machine_restored_at_any_point_does_what_it_would_have_done(
        steps in steps(), cut in 0_usize..60, away in 0_u64..100,
    ) {
        let mut plain = Bench::new();
        let mut restored = Bench::new();
        for (index, (step, seconds)) in steps.into_iter().enumerate() {
            let wait = Duration::from_secs(seconds);
            plain.now += wait;
            restored.now += wait;
            if index == cut {
                let text = serde_json::to_string(&restored.machine.snapshot()).unwrap();
                let snapshot = serde_json::from_str(&text).unwrap();
                // The process is away for a while, and the clock goes on.
                plain.now += Duration::from_secs(away);
                restored.now += Duration::from_secs(away);
                let age = restored.machine.age(restored.now);
                let now = restored.now;
                restored.machine = Machine::restore(snapshot, Limits::default(), age, now);
            }
            prop_assert_eq!(
                plain.next_deadline(), restored.next_deadline(), "after step {}", index
            );
            let (one, other) = (step.clone().input(&plain), step.input(&restored));
            prop_assert_eq!(plain.give(one), restored.give(other));
            prop_assert_eq!(plain.machine.phase(), restored.machine.phase());
            prop_assert_eq!(plain.machine.look_every(), restored.machine.look_every());
        }
    }
}
