//! How a runner leaves, from each state of its life. A 204 of GitHub's proves nothing; the host does.

#![expect(clippy::unwrap_used, reason = "a test panics when it fails")]
#![expect(dead_code, reason = "shared with other tests")]

mod host;
#[path = "../kit/mod.rs"]
mod kit;

use std::time::Duration;

use muster_core::{
    DeregisterAnswer, Effect, Event, GithubRunnerId, HostPhase, Interruption, JobId, JobStatus,
    Outcome, Registration, Stage, Work,
};
use rstest::rstest;

use self::host::{At, Host, job};

#[rstest]
#[case(At::Launching, &["withdraw"], Stage::Ending)]
#[case(At::Enrolled, &["terminate"], Stage::Ending)]
#[case(At::Minting, &["terminate"], Stage::Ending)]
#[case(At::Assigning, &["deregister"], Stage::Starting)]
#[case(At::Starting, &["drain"], Stage::Starting)]
#[case(At::Idle, &["drain"], Stage::Idle)]
#[case(At::Busy, &["drain"], Stage::Busy)]
fn a_spot_notice_is_answered_at_once(#[case] at: At, #[case] done: &[&str], #[case] stage: Stage) {
    let mut host = Host::at(at);
    assert_eq!(host.spot_notice(), done);
    assert_eq!(host.stage(), stage);
    assert_eq!(
        host.spot_notice(),
        [""; 0],
        "the same notice again changes nothing"
    );
}

#[test]
fn an_idle_host_is_deregistered_then_looks_again_then_goes() {
    let mut host = Host::at(At::Idle);
    host.spot_notice();
    assert_eq!(host.looked(true), ["deregister"]);
    assert_eq!(host.looked(true), [""; 0]);
    assert_eq!(host.deregistered(DeregisterAnswer::Deleted), ["retire"]);
    let (launch, outcome) = (host.launch.clone(), Outcome::Unused);
    let finished = Event::Finished {
        launch,
        outcome,
        reason: "retired".into(),
    };
    assert_eq!(host.tell(finished), ["terminate"]);
}

#[test]
fn a_job_that_slipped_in_although_github_said_deleted_runs_on() {
    let mut host = Host::at(At::Idle);
    host.spot_notice();
    host.looked(true);
    host.deregistered(DeregisterAnswer::Deleted);
    assert_eq!(host.looked(false), [""; 0]);
    assert_eq!(host.stage(), Stage::Busy);
    assert_eq!(host.pass(60), [""; 0]);
}

#[test]
fn a_runner_that_github_calls_busy_is_left_to_run() {
    let mut host = Host::at(At::Idle);
    host.spot_notice();
    host.looked(true);
    assert_eq!(host.deregistered(DeregisterAnswer::Busy), [""; 0]);
    assert_eq!(host.stage(), Stage::Busy);
    let runner = host.fleet.runner(&host.launch).unwrap();
    assert_eq!(
        runner.registration,
        Registration::Exists {
            id: Some(GithubRunnerId(7))
        }
    );
}

#[test]
fn a_host_that_does_not_look_is_asked_again_and_ended_after_its_time() {
    let mut host = Host::at(At::Idle);
    host.spot_notice();
    assert_eq!(host.pass(5), [""; 0]);
    assert_eq!(host.pass(5), ["drain"]);
    assert_eq!(host.pass(140), ["terminate", "deregister"]);
    assert_eq!(host.stage(), Stage::Ending);
}

#[test]
fn a_lost_assignment_never_leads_to_a_second_one() {
    let mut host = Host::at(At::Assigning);
    let (launch, name) = (host.launch.clone(), host.name());
    assert_eq!(
        host.tell(Event::AssignmentLost { launch, name }),
        ["deregister"]
    );
    let back = host.connected(HostPhase::Unassigned, None);
    assert_eq!(host.tell(back), [""; 0]);
    assert_eq!(host.deregistered(DeregisterAnswer::Deleted), ["terminate"]);
}

#[test]
fn a_lost_assignment_that_did_arrive_is_found_by_githubs_answer() {
    let mut host = Host::at(At::Assigning);
    let (launch, name) = (host.launch.clone(), host.name());
    host.tell(Event::AssignmentLost { launch, name });
    assert_eq!(host.deregistered(DeregisterAnswer::Busy), [""; 0]);
    assert_eq!(host.stage(), Stage::Busy);
}

#[test]
fn a_rebalance_recommendation_moves_an_idle_host_and_not_a_busy_one() {
    for (at, done) in [(At::Idle, vec!["drain"]), (At::Busy, vec![])] {
        let mut host = Host::at(at);
        let (launch, kind) = (host.launch.clone(), Interruption::Rebalance);
        assert_eq!(
            host.tell(Event::Interrupted {
                launch,
                kind,
                deadline: None,
                detail: String::new(),
            }),
            done
        );
    }
}

#[test]
fn a_silent_idle_host_is_deregistered_and_goes() {
    let mut host = Host::at(At::Idle);
    host.tell(Event::AgentLost {
        launch: host.launch.clone(),
        heard_at: host.now,
    });
    assert_eq!(host.pass(59), [""; 0]);
    assert_eq!(host.pass(1), ["deregister"]);
    assert_eq!(
        host.pass(30),
        [""; 0],
        "it may have a job: GitHub has not answered"
    );
    host.deregistered(DeregisterAnswer::Deleted);
    assert!(host.pass(60).contains(&"terminate"));
}

#[test]
fn a_silent_busy_host_is_given_github_s_ten_minutes() {
    let mut host = Host::at(At::Busy);
    host.tell(Event::AgentLost {
        launch: host.launch.clone(),
        heard_at: host.now,
    });
    assert_eq!(host.pass(10 * 60), [""; 0]);
    assert_eq!(host.pass(60), ["terminate", "deregister"]);
}

#[test]
fn a_registration_that_github_kept_for_its_job_is_deleted_with_the_job() {
    let mut host = Host::at(At::Busy);
    let name = host.name();
    let told = |status| Event::Job(Box::new(job(status, Some(name.to_string()))));
    host.tell(told(JobStatus::InProgress));
    let terminated = host.tell(Event::OperatorTerminate {
        launch: host.launch.clone(),
        reason: "test".to_owned(),
    });
    assert_eq!(terminated, ["terminate", "deregister"]);
    assert_eq!(host.deregistered(DeregisterAnswer::Busy), [""; 0]);
    assert_eq!(host.pass(1), [""; 0]);
    assert_eq!(host.tell(told(JobStatus::Completed)), ["deregister"]);
    host.deregistered(DeregisterAnswer::Absent);
    assert_eq!(host.tell(told(JobStatus::Completed)), [""; 0]);
}

#[test]
fn an_agent_that_claims_another_assignment_is_ended() {
    let mut host = Host::at(At::Idle);
    let claim = host.connected(HostPhase::Listening, Some("muster-linux-other".into()));
    assert_eq!(host.tell(claim), ["terminate", "deregister"]);
    let work = &host.fleet.runner(&host.launch).unwrap().work;
    assert!(matches!(
        work,
        Work::Over {
            outcome: Some(Outcome::Lost),
            ..
        }
    ));
}

#[test]
fn a_drained_host_does_not_count_as_supply() {
    let mut host = Host::at(At::Idle);
    // The job goes elsewhere, and another one comes.
    host.tell(Event::Job(Box::new(job(
        JobStatus::InProgress,
        Some("somebody-else".into()),
    ))));
    host.spot_notice();
    host.looked(true);
    host.deregistered(DeregisterAnswer::Deleted);
    let (launch, outcome) = (host.launch.clone(), Outcome::Unused);
    host.tell(Event::Finished {
        launch,
        outcome,
        reason: "retired".into(),
    });
    host.tell(Event::Terminated {
        launch: host.launch.clone(),
        gone: true,
    });
    let mut second = job(JobStatus::Queued, None);
    second.id = JobId(2);
    let changes = host.fleet.apply(Event::Job(Box::new(second)), host.now);
    assert!(
        changes
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Launch { .. }))
    );
}

#[test]
fn an_instance_that_ends_before_it_enrolled_holds_its_pool_back() {
    let mut host = Host::at(At::Launching);
    let launch = host.launch.clone();
    host.tell(Event::Launched {
        launch: launch.clone(),
        instance: "i-00000001".into(),
        offering: None,
    });
    let changes = host.fleet.apply(
        Event::InstanceGone {
            launch,
            instance: "i-00000001".into(),
        },
        host.now,
    );
    assert!(
        changes.effects.is_empty(),
        "no launch at once: {:?}",
        changes.effects
    );
    let explained = host.fleet.explain(JobId(1), host.now).unwrap();
    assert!(
        explained
            .next
            .contains("its instance ended before it enrolled"),
        "{}",
        explained.next
    );
    let later = host.now.checked_add(Duration::from_secs(5)).unwrap();
    let changes = host.fleet.apply(Event::Tick, later);
    assert!(
        changes
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Launch { .. }))
    );
}

#[test]
fn a_runner_that_does_not_end_although_its_job_is_completed_is_ended() {
    let mut host = Host::at(At::Busy);
    let name = host.name();
    let begun = job(JobStatus::InProgress, Some(name.to_string()));
    host.tell(Event::Job(Box::new(begun)));
    let mut completed = job(JobStatus::Completed, Some(name.to_string()));
    completed.completed_at = Some(host.now);
    host.tell(Event::Job(Box::new(completed)));
    assert_eq!(host.pass(14 * 60), [""; 0], "its agent still speaks");
    assert!(host.pass(2 * 60).contains(&"terminate"));
}

#[rstest]
#[case(Outcome::StaleVersion, "the pool's image is stale: x")]
#[case(Outcome::Conflict, "its registration was used twice: x")]
#[case(Outcome::VersionRefused, "x")]
#[case(Outcome::StartFailed, "x")]
fn a_runner_that_could_take_no_job_is_replaced_later_and_explained(
    #[case] outcome: Outcome,
    #[case] words: &str,
) {
    let mut host = Host::at(At::Idle);
    host.tell(Event::Finished {
        launch: host.launch.clone(),
        outcome,
        reason: "x".to_owned(),
    });
    let runner = host.fleet.runner(&host.launch).unwrap();
    let Work::Over {
        outcome: ended,
        reason,
    } = &runner.work
    else {
        panic!("{:?}", runner.work)
    };
    assert_eq!((*ended, reason.as_str()), (Some(outcome), words));
}
