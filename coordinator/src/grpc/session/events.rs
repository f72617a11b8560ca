//! From the agent's words to the core's. Texts are cut to a length; unknown kinds are nothing.

use muster_core::{Event, HostPhase, Interruption, LaunchId, Outcome, RunnerName, Trouble};
use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::{
    AgentEvent, Hello, InterruptionKind, InterruptionNotice, ResourceKind, RunnerFinished,
    RunnerOutcome, RunnerPhase, TroubleKind,
};
use tracing::{debug, warn};

use crate::grpc::time::from_wire;

/// Most bytes of a reason.
const MAX_REASON: usize = 1024;
/// Most bytes of the words of a notice or a warning.
const MAX_DETAIL: usize = 256;
/// Most bytes of the display name of a job.
const MAX_JOB_NAME: usize = 256;
/// Most bytes of the name of a runner; GitHub allows 64 characters.
const MAX_RUNNER_NAME: usize = 64;
/// Most bytes of the tail of a console, and of diagnostic logs, that are logged.
const MAX_CONSOLE: usize = 64 * 1024;

/// The event for the core; none if it is of a kind or a value that this version doesn't know.
pub(super) fn to_core(launch: &LaunchId, event: AgentEvent) -> Option<Event> {
    let launch = launch.clone();
    let event = match event.kind? {
        Kind::AssignmentAccepted(accepted) => Event::AssignmentAccepted {
            launch,
            name: runner_name(&accepted.runner_name)?,
        },
        Kind::PhaseChanged(changed) => Event::PhaseChanged {
            launch,
            phase: phase(changed.phase())?,
            job_name: Some(changed.job_display_name)
                .filter(|name| !name.is_empty())
                .map(|name| shortened(&name, MAX_JOB_NAME).to_owned()),
        },
        Kind::RunnerFinished(finished) => Event::Finished {
            launch,
            outcome: outcome(finished.outcome()),
            reason: shortened(&finished.reason, MAX_REASON).to_owned(),
        },
        Kind::InterruptionNotice(notice) => Event::Interrupted {
            launch,
            kind: interruption(&notice),
            deadline: notice.deadline.as_ref().and_then(from_wire),
            detail: one_line(&notice.detail, MAX_DETAIL),
        },
        Kind::DrainReport(report) => Event::DrainReported {
            launch,
            idle: report.idle,
        },
        Kind::ResourceWarning(warning) => Event::Troubled {
            launch,
            kind: resource(warning.kind()),
            detail: one_line(&warning.detail, MAX_DETAIL),
        },
        Kind::RunnerTrouble(met) => Event::Troubled {
            launch,
            kind: trouble(met.kind()),
            detail: one_line(&met.detail, MAX_DETAIL),
        },
    };
    Some(event)
}

/// Logs what the core doesn't take: the end of the console, and kinds that are unknown.
pub(super) fn log(launch: &LaunchId, runner: &str, event: &AgentEvent) {
    match &event.kind {
        Some(Kind::RunnerFinished(finished))
            if !finished.console_tail.is_empty() || !finished.diagnostic_tail.is_empty() =>
        {
            log_console(launch, runner, finished);
        }
        Some(_) => {}
        None => debug!(%launch, runner, event.sequence, "an event of an unknown kind"),
    }
}

fn log_console(launch: &LaunchId, runner: &str, finished: &RunnerFinished) {
    warn!(
        %launch,
        runner,
        job = shortened(&finished.job_display_name, MAX_JOB_NAME),
        outcome = finished.outcome().as_str_name(),
        exit_code = finished.exit_code,
        signal = finished.signal,
        reason = shortened(&finished.reason, MAX_REASON),
        console = tail(&finished.console_tail, MAX_CONSOLE),
        diagnostics = tail(&finished.diagnostic_tail, MAX_CONSOLE),
        "the runner did not end as it should"
    );
}

/// What the runner was doing when the stream was opened. A phase that is unknown here is taken for a
/// job that runs, so that nothing disturbs it, unless the agent has had no assignment at all.
pub(super) fn phase_of_hello(hello: &Hello) -> HostPhase {
    phase(hello.phase()).unwrap_or(if hello.runner_name.is_empty() {
        HostPhase::Unassigned
    } else {
        HostPhase::Running
    })
}

/// The name of a runner, if there is one of a form that we give.
pub(super) fn runner_name(text: &str) -> Option<RunnerName> {
    let well_formed = !text.is_empty()
        && text.len() <= MAX_RUNNER_NAME
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    well_formed.then(|| RunnerName::from(text))
}

/// The beginning of a text, at most so many bytes.
pub(super) fn shortened(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The beginning of a text as one line: what could break it up is blank.
fn one_line(text: &str, bytes: usize) -> String {
    shortened(text, bytes).replace(char::is_control, " ")
}

/// The end of a text, at most so many bytes.
fn tail(text: &str, bytes: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes))..]
}

fn phase(phase: RunnerPhase) -> Option<HostPhase> {
    match phase {
        RunnerPhase::Unspecified => None,
        RunnerPhase::Unassigned => Some(HostPhase::Unassigned),
        RunnerPhase::Starting | RunnerPhase::Connected => Some(HostPhase::Starting),
        RunnerPhase::Listening => Some(HostPhase::Listening),
        RunnerPhase::Assigned => Some(HostPhase::Assigned),
        RunnerPhase::Running => Some(HostPhase::Running),
        RunnerPhase::Finished => Some(HostPhase::Finished),
    }
}

fn outcome(outcome: RunnerOutcome) -> Outcome {
    match outcome {
        RunnerOutcome::Succeeded => Outcome::Succeeded,
        RunnerOutcome::Failed => Outcome::Failed,
        RunnerOutcome::Canceled => Outcome::Canceled,
        RunnerOutcome::Interrupted => Outcome::Interrupted,
        RunnerOutcome::Abandoned => Outcome::Abandoned,
        RunnerOutcome::Unused => Outcome::Unused,
        RunnerOutcome::StartFailed => Outcome::StartFailed,
        RunnerOutcome::VersionRefused => Outcome::VersionRefused,
        RunnerOutcome::StaleVersion => Outcome::StaleVersion,
        RunnerOutcome::Conflict => Outcome::Conflict,
        RunnerOutcome::Unspecified | RunnerOutcome::Lost => Outcome::Lost,
    }
}

fn interruption(notice: &InterruptionNotice) -> Interruption {
    match notice.kind() {
        InterruptionKind::Unspecified | InterruptionKind::Spot => Interruption::Spot,
        InterruptionKind::Rebalance => Interruption::Rebalance,
        InterruptionKind::Maintenance => Interruption::Maintenance,
        InterruptionKind::Lifecycle => Interruption::Lifecycle,
    }
}

fn resource(kind: ResourceKind) -> Trouble {
    match kind {
        ResourceKind::Unspecified => Trouble::Unknown,
        ResourceKind::Disk => Trouble::Disk,
        ResourceKind::Memory => Trouble::Memory,
        ResourceKind::OutOfMemoryKill => Trouble::OutOfMemoryKill,
    }
}

fn trouble(kind: TroubleKind) -> Trouble {
    match kind {
        TroubleKind::Unspecified => Trouble::Unknown,
        TroubleKind::Connection => Trouble::Connection,
        TroubleKind::Conflict => Trouble::Conflict,
        TroubleKind::Renewal => Trouble::Renewal,
        TroubleKind::CancellationStorm => Trouble::CancellationStorm,
        TroubleKind::SlowSetup => Trouble::SlowSetup,
        TroubleKind::OrphanedWorker => Trouble::OrphanedWorker,
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1::{
        AssignmentAccepted, DrainReport, PhaseChanged, ResourceWarning, RunnerTrouble,
    };
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn core(kind: Kind) -> Option<Event> {
        let event = AgentEvent {
            sequence: 1,
            at: None,
            kind: Some(kind),
        };
        to_core(&LaunchId::from("a"), event)
    }

    #[test]
    fn an_event_of_an_unknown_kind_is_nothing() {
        let event = AgentEvent::default();
        assert_eq!(to_core(&LaunchId::from("a"), event), None);
    }

    #[test]
    fn a_phase_of_a_newer_agent_is_nothing() {
        let changed = PhaseChanged {
            phase: 99,
            job_display_name: String::new(),
        };
        assert_eq!(core(Kind::PhaseChanged(changed)), None);
    }

    #[test]
    fn an_outcome_of_a_newer_agent_is_lost_and_its_reason_is_cut() {
        let finished = RunnerFinished {
            outcome: 99,
            reason: "ü".repeat(4_000),
            ..RunnerFinished::default()
        };
        let Some(Event::Finished {
            outcome, reason, ..
        }) = core(Kind::RunnerFinished(finished))
        else {
            panic!("no end");
        };
        assert_eq!(outcome, Outcome::Lost);
        assert_eq!(reason.len(), MAX_REASON);
    }

    #[rstest]
    #[case(RunnerOutcome::StaleVersion, Outcome::StaleVersion)]
    #[case(RunnerOutcome::Conflict, Outcome::Conflict)]
    #[case(RunnerOutcome::VersionRefused, Outcome::VersionRefused)]
    #[case(RunnerOutcome::Unspecified, Outcome::Lost)]
    fn each_outcome_is_passed_on_as_itself(#[case] told: RunnerOutcome, #[case] expected: Outcome) {
        assert_eq!(outcome(told), expected);
    }

    #[rstest]
    #[case(0, Interruption::Spot)]
    #[case(2, Interruption::Rebalance)]
    #[case(3, Interruption::Maintenance)]
    #[case(4, Interruption::Lifecycle)]
    #[case(99, Interruption::Spot)]
    fn a_notice_of_an_unknown_kind_is_a_spot_notice(
        #[case] kind: i32,
        #[case] expected: Interruption,
    ) {
        let deadline = Some(prost_types::Timestamp {
            seconds: 100,
            nanos: -1,
        });
        let notice = InterruptionNotice {
            kind,
            deadline,
            detail: "instance-action:\nterminate".to_owned(),
        };
        assert_eq!(
            core(Kind::InterruptionNotice(notice)),
            Some(Event::Interrupted {
                launch: "a".into(),
                kind: expected,
                deadline: None,
                detail: "instance-action: terminate".to_owned(),
            })
        );
    }

    fn warned(kind: i32) -> Kind {
        let detail = "x".repeat(4_000);
        Kind::ResourceWarning(ResourceWarning { kind, detail })
    }

    fn met(kind: i32) -> Kind {
        let detail = "x".repeat(4_000);
        Kind::RunnerTrouble(RunnerTrouble { kind, detail })
    }

    #[rstest]
    #[case(warned(1), Trouble::Disk)]
    #[case(warned(3), Trouble::OutOfMemoryKill)]
    #[case(warned(99), Trouble::Unknown)]
    #[case(met(1), Trouble::Connection)]
    #[case(met(6), Trouble::OrphanedWorker)]
    #[case(met(99), Trouble::Unknown)]
    fn warnings_are_passed_on_and_their_words_cut(#[case] kind: Kind, #[case] expected: Trouble) {
        let expected = Event::Troubled {
            launch: "a".into(),
            kind: expected,
            detail: "x".repeat(MAX_DETAIL),
        };
        assert_eq!(core(kind), Some(expected));
    }

    #[test]
    fn reports_and_names_are_passed_on() {
        assert_eq!(
            core(Kind::DrainReport(DrainReport {
                idle: true,
                phase: 3
            })),
            Some(Event::DrainReported {
                launch: "a".into(),
                idle: true
            })
        );
        let accepted = |name: &str| {
            core(Kind::AssignmentAccepted(AssignmentAccepted {
                runner_name: name.to_owned(),
            }))
        };
        assert!(accepted("muster-linux-a").is_some());
        assert!(accepted("").is_none());
        assert!(accepted("two words").is_none());
    }

    #[rstest]
    #[case("", 0, HostPhase::Unassigned)]
    #[case("muster-a", 99, HostPhase::Running)]
    #[case("muster-a", 3, HostPhase::Listening)]
    fn an_unknown_phase_with_an_assignment_may_be_a_job(
        #[case] runner_name: &str,
        #[case] phase: i32,
        #[case] expected: HostPhase,
    ) {
        let hello = Hello {
            runner_name: runner_name.to_owned(),
            phase,
            ..Hello::default()
        };
        assert_eq!(phase_of_hello(&hello), expected);
    }

    proptest! {
        #[test]
        fn texts_are_cut_between_characters(text in "\\PC{0,40}", bytes in 0..50_usize) {
            prop_assert!(shortened(&text, bytes).len() <= bytes);
            prop_assert!(tail(&text, bytes).len() <= bytes);
            prop_assert!(text.starts_with(shortened(&text, bytes)));
            prop_assert!(text.ends_with(tail(&text, bytes)));
        }
    }
}
