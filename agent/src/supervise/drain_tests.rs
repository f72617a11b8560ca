//! What a drain, a retirement and a shutdown do in every state of the machine.

use std::time::Duration;

use muster_proto::v1::{RunnerOutcome, RunnerPhase};
use rstest::rstest;

use super::console::ConsoleLine;
use super::machine::{Action, Input};
use super::machine_tests::{Bench, exited, listening, result, running};
use super::outcome::Exit;
use super::perflog::Counter;

/// A state to be in. A worker exists where a job runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Unassigned,
    Starting,
    Connected,
    Listening,
    Assigned,
    Running,
    Stopping,
    Orphaned,
    Finishing,
    Finished,
}

impl In {
    fn bench(self) -> Bench {
        let inputs = match self {
            Self::Unassigned => Vec::new(),
            Self::Starting => vec![Input::Started],
            Self::Connected => vec![Input::Started, Input::Console(ConsoleLine::Connected)],
            Self::Listening => listening().to_vec(),
            // Told by the perf files and fetched: nothing presses it for a while.
            Self::Assigned => {
                let mut inputs = listening().to_vec();
                inputs.push(Input::Counter(Counter::JobAssigned));
                inputs
            }
            Self::Running => running(),
            Self::Stopping => [running(), vec![Input::Shutdown("first".into())]].concat(),
            Self::Orphaned => {
                let died = Input::Exited {
                    exit: Exit::Signal(9),
                    worker: true,
                };
                [running(), vec![died]].concat()
            }
            Self::Finishing => [running(), vec![result()]].concat(),
            Self::Finished => [running(), vec![exited(100)]].concat(),
        };
        Bench::after(inputs)
    }

    fn worker(self) -> bool {
        matches!(self, Self::Running | Self::Stopping | Self::Orphaned)
    }
}

/// What happens to it.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// A drain without a deadline.
    Drain,
    /// A drain that ends in 50 s, five more than the lead.
    DrainWithDeadline,
    Retire,
    Shutdown,
    /// A notice of 50 s after one of 300 s.
    SecondNotice,
}

/// What it does: at once, and once a deadline comes near.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Done {
    Idle(RunnerPhase),
    Busy(RunnerPhase),
    Interrupt,
    Kill,
    End(RunnerOutcome),
}

fn done(action: &Action) -> Done {
    match action {
        Action::Drained { idle: true, phase } => Done::Idle(*phase),
        Action::Drained { idle: false, phase } => Done::Busy(*phase),
        Action::Interrupt => Done::Interrupt,
        Action::Kill => Done::Kill,
        Action::Finished(finish) => Done::End(finish.outcome),
        other => panic!("{other:?}"),
    }
}

use Done::{Busy, End, Idle, Interrupt, Kill};
use In::{
    Assigned, Connected, Finished, Finishing, Listening, Orphaned, Running, Starting, Stopping,
    Unassigned,
};
use RunnerOutcome::{Lost, Unused};
use RunnerPhase as P;
use Then::{Drain, DrainWithDeadline, Retire, SecondNotice, Shutdown};

// A drain alone stops nothing: it says what a look shows.
#[rstest]
#[case(Unassigned, Drain, vec![Idle(P::Unassigned)], vec![])]
#[case(Starting, Drain, vec![Idle(P::Starting)], vec![])]
#[case(Connected, Drain, vec![Idle(P::Connected)], vec![])]
#[case(Listening, Drain, vec![Idle(P::Listening)], vec![])]
#[case(Assigned, Drain, vec![Busy(P::Assigned)], vec![])]
#[case(Running, Drain, vec![Busy(P::Running)], vec![])]
#[case(Stopping, Drain, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Orphaned, Drain, vec![Busy(P::Running)], vec![])]
#[case(Finishing, Drain, vec![Busy(P::Running)], vec![])]
#[case(Finished, Drain, vec![], vec![])]
// With a deadline, what still runs is told to stop 45 s before.
#[case(Unassigned, DrainWithDeadline, vec![Idle(P::Unassigned)], vec![(5, End(Unused))])]
#[case(Starting, DrainWithDeadline, vec![Idle(P::Starting)], vec![(5, Interrupt)])]
#[case(Connected, DrainWithDeadline, vec![Idle(P::Connected)], vec![(5, Interrupt)])]
#[case(Listening, DrainWithDeadline, vec![Idle(P::Listening)], vec![(5, Interrupt)])]
#[case(Assigned, DrainWithDeadline, vec![Busy(P::Assigned)], vec![(5, Interrupt)])]
#[case(Running, DrainWithDeadline, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Stopping, DrainWithDeadline, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Orphaned, DrainWithDeadline, vec![Busy(P::Running)], vec![(5, Kill), (5, End(Lost))])]
#[case(Finishing, DrainWithDeadline, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Finished, DrainWithDeadline, vec![], vec![])]
// A retirement stops what is idle, and reports what is not.
#[case(Unassigned, Retire, vec![End(Unused)], vec![])]
#[case(Starting, Retire, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Connected, Retire, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Listening, Retire, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Assigned, Retire, vec![Busy(P::Assigned)], vec![])]
#[case(Running, Retire, vec![Busy(P::Running)], vec![])]
#[case(Stopping, Retire, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Orphaned, Retire, vec![Busy(P::Running)], vec![])]
#[case(Finishing, Retire, vec![Busy(P::Running)], vec![])]
#[case(Finished, Retire, vec![], vec![])]
// A shutdown stops whatever there is, once.
#[case(Unassigned, Shutdown, vec![End(Unused)], vec![])]
#[case(Starting, Shutdown, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Connected, Shutdown, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Listening, Shutdown, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Assigned, Shutdown, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Running, Shutdown, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Stopping, Shutdown, vec![], vec![(5, Interrupt)])]
#[case(Orphaned, Shutdown, vec![Kill, End(Lost)], vec![])]
#[case(Finishing, Shutdown, vec![Interrupt], vec![(5, Interrupt)])]
#[case(Finished, Shutdown, vec![], vec![])]
// Of two notices the earlier deadline counts.
#[case(Unassigned, SecondNotice, vec![Idle(P::Unassigned)], vec![(5, End(Unused))])]
#[case(Starting, SecondNotice, vec![Idle(P::Starting)], vec![(5, Interrupt)])]
#[case(Connected, SecondNotice, vec![Idle(P::Connected)], vec![(5, Interrupt)])]
#[case(Listening, SecondNotice, vec![Idle(P::Listening)], vec![(5, Interrupt)])]
#[case(Assigned, SecondNotice, vec![Busy(P::Assigned)], vec![(5, Interrupt)])]
#[case(Running, SecondNotice, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Stopping, SecondNotice, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Orphaned, SecondNotice, vec![Busy(P::Running)], vec![(5, Kill), (5, End(Lost))])]
#[case(Finishing, SecondNotice, vec![Busy(P::Running)], vec![(5, Interrupt)])]
#[case(Finished, SecondNotice, vec![], vec![])]
fn a_drain_does_the_right_thing_in_every_state(
    #[case] from: In,
    #[case] then: Then,
    #[case] at_once: Vec<Done>,
    #[case] within_nine_seconds: Vec<(u64, Done)>,
) {
    let mut bench = from.bench();
    let worker = from.worker();
    let drain = |deadline| Input::Drain { deadline, worker };
    let near = bench.deadline(50);
    let input = match then {
        Drain => drain(None),
        DrainWithDeadline => drain(near),
        Retire => Input::Retire { worker },
        Shutdown => Input::Shutdown("test".into()),
        SecondNotice => {
            bench.give(drain(bench.deadline(300)));
            drain(near)
        }
    };
    let first: Vec<Done> = bench.give(input).iter().map(done).collect();
    assert_eq!(first, at_once);
    let later: Vec<(u64, Done)> = bench
        .run_to(9)
        .iter()
        .map(|(second, action)| (*second, done(action)))
        .collect();
    assert_eq!(later, within_nine_seconds);
}

#[rstest]
fn what_is_told_to_stop_at_a_deadline_ends_in_time(
    #[values(
        Unassigned, Starting, Connected, Listening, Assigned, Running, Stopping, Orphaned,
        Finishing
    )]
    from: In,
) {
    let mut bench = from.bench();
    bench.give(Input::Drain {
        deadline: bench.deadline(50),
        worker: from.worker(),
    });
    // Nothing that lives obeys: 5 s to the lead, 45 s of grace, 30 s of killing.
    bench.run_to(5 + 45 + 30);
    assert_eq!(bench.machine.phase(), RunnerPhase::Finished, "{from:?}");
}

#[test]
fn a_job_that_slipped_in_before_the_retirement_runs_on() {
    let mut bench = Bench::after(listening());
    let look = Input::Drain {
        deadline: None,
        worker: false,
    };
    assert_eq!(bench.give(look).len(), 1);
    let looked: Vec<Done> = bench
        .give(Input::Retire { worker: true })
        .iter()
        .filter(|action| !matches!(action, Action::Phase { .. }))
        .map(done)
        .collect();
    assert_eq!(looked, [Busy(RunnerPhase::Running)]);
    bench.now += Duration::from_secs(3600);
    assert_eq!(bench.give(Input::Tick), []);
}
