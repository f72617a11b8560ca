//! The life of one job under an agent that is one process.

use muster_proto::v1::agent_event::Kind;
use muster_proto::v1::{RunnerOutcome, RunnerPhase};

use muster_tests::scripted::coordinator::{Coordinator, TOKEN};
use muster_tests::scripted::host::{Host, jit_config, lives, unique_instance_id};

use crate::steps::{assigned, phase, reached, retire};

#[tokio::test]
async fn a_job_runs_and_each_step_is_reported_in_order() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        env > ../environment; pwd > ../directory; umask > ../umask; ls -l /proc/$$/fd > ../files
        perf SessionCreated; listen
        perf MessageReceived_RunnerJobRequest; sleep 0.6
        run_job "build (linux)"; complete "build (linux)" Succeeded; exit 100
        "#,
    );
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    assert_eq!(session.hello.phase(), RunnerPhase::Unassigned);
    assert_eq!(session.hello.last_sequence, 0);
    assert!(session.hello.kernel_started_at.is_some());
    session.assign("runner-1", &jit_config()).await;

    let Kind::AssignmentAccepted(accepted) = session.take().await else {
        panic!("the assignment comes first")
    };
    assert_eq!(accepted.runner_name, "runner-1");
    for wanted in [
        (RunnerPhase::Starting, ""),
        (RunnerPhase::Connected, ""),
        (RunnerPhase::Listening, ""),
        (RunnerPhase::Assigned, ""),
        (RunnerPhase::Running, "build (linux)"),
    ] {
        assert_eq!(phase(&session.take().await), Some(wanted));
    }
    let Kind::RunnerFinished(finished) = session.take().await else {
        panic!("the end comes last")
    };
    assert_eq!(finished.outcome(), RunnerOutcome::Succeeded, "{finished:?}");
    assert_eq!(finished.exit_code, Some(100));
    assert_eq!(finished.job_display_name, "build (linux)");
    assert_eq!(finished.console_tail, "");
    assert!(finished.peaks.unwrap().memory_used_bytes > 0);
    assert_eq!(agent.exit().await.code(), Some(0));

    let environment = host.read("environment");
    let id = &coordinator.behaviour.instance_id;
    for entry in [
        format!("ACTIONS_RUNNER_INPUT_JITCONFIG={}", jit_config()),
        "ACTIONS_RUNNER_RETURN_JOB_RESULT_FOR_HOSTED=1".into(),
        "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1".into(),
        "LANG=C.UTF-8".into(),
        format!("MUSTER_INSTANCE_ID={id}"),
    ] {
        assert!(environment.lines().any(|line| line == entry), "{entry}");
    }
    assert!(!environment.contains("AGENT_SECRET") && !environment.contains(TOKEN));
    assert_eq!(
        host.read("directory").trim(),
        host.path("runner").to_str().unwrap()
    );
    assert_eq!(host.read("umask").trim(), "0022");
    let files = host.read("files");
    assert!(
        files.contains("/dev/null") && files.contains("pipe:"),
        "{files}"
    );
    assert!(
        !files.contains("instance.lock") && !files.contains("socket:"),
        "{files}"
    );
    let log = host.read("log");
    assert!(log.contains("\"launch\":\"l-1\""), "{log}");
    assert!(!log.contains(TOKEN) && !log.contains(&jit_config()));
}

#[tokio::test]
async fn a_failed_job_brings_the_console_in_order_without_secrets() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        listen; run_job b
        for n in 1 2 3 4; do echo "out $n"; echo "err $n" >&2; done
        echo "blob=$ACTIONS_RUNNER_INPUT_JITCONFIG"
        echo "key=dGhlLXByaXZhdGUta2V5LW9mLXRlc3Q="
        complete b Failed; exit 102
        "#,
    );
    let (agent, mut session) = assigned(&host, &mut coordinator).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Failed);
    let tail = finished.console_tail;
    let order = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\nout 4\nerr 4\n";
    assert!(tail.contains(order), "{tail}");
    assert!(!tail.contains(&jit_config()), "{tail}");
    assert!(!tail.contains("dGhlLXByaXZhdGUta2V5"), "{tail}");
    agent.exit().await;
}

#[tokio::test]
async fn descendants_that_left_the_session_die_with_the_job() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    // One keeps the mark in its environment; one has dropped it and its parent.
    let host = Host::new(
        &coordinator,
        r#"
        setsid sh -c 'echo $$ > ../escaped; exec sleep 300' > /dev/null 2>&1 &
        (setsid env -i /bin/sh -c 'echo $$ > ../bare; exec /bin/sleep 300' > /dev/null 2>&1 &)
        while [ ! -s ../escaped ] || [ ! -s ../bare ]; do sleep 0.01; done
        listen; run_job b; complete b Succeeded; exit 100
        "#,
    );
    let (agent, mut session) = reached(&host, &mut coordinator, RunnerPhase::Running).await;
    session.finished().await;
    assert!(agent.exit().await.success());
    for name in ["escaped", "bare"] {
        let pid = host.read(name);
        assert!(!pid.is_empty() && !lives(&pid), "{name} {pid}");
    }
}

#[tokio::test]
async fn a_launch_runs_once() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "listen; idle");
    let first = host.start().await;
    let mut session = coordinator.session().await;
    assert!(host.start().await.exit().await.success());
    assert!(host.read("log").contains("already running"));
    session.send(retire()).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Unused);
    assert!(first.exit().await.success());
    assert!(host.start().await.exit().await.success());
    assert!(host.read("log").contains("this launch has run before"));
    let enrolments = &coordinator.behaviour.enrolments;
    assert_eq!(enrolments.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_can_not_start_is_reported() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "");
    std::fs::remove_file(host.path("runner/bin/Runner.Listener")).unwrap();
    let (agent, mut session) = assigned(&host, &mut coordinator).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::StartFailed);
    assert!(
        finished.reason.contains("Runner.Listener"),
        "{}",
        finished.reason
    );
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_configuration_that_reaches_outside_is_refused() {
    use base64::Engine as _;
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(&coordinator, "touch ../started");
    let agent = host.start().await;
    let mut session = coordinator.session().await;
    let blob = base64::prelude::BASE64_STANDARD.encode(r#"{"../x":"e30="}"#);
    session.assign("runner-1", &blob).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::StartFailed);
    assert!(agent.exit().await.success());
    assert!(!host.path("started").exists());
}

#[tokio::test]
async fn a_descendant_that_holds_the_console_delays_nothing_and_hides_nothing() {
    let mut coordinator = Coordinator::start(&unique_instance_id()).await;
    let host = Host::new(
        &coordinator,
        r#"
        (while :; do echo noise; sleep 0.01; done) &
        listen; run_job b; complete b Failed; echo the last line; exit 102
        "#,
    );
    let (agent, mut session) = assigned(&host, &mut coordinator).await;
    let finished = session.finished().await;
    assert_eq!(finished.outcome(), RunnerOutcome::Failed);
    let tail = finished.console_tail;
    assert!(tail.contains("the last line\n"), "{tail}");
    assert!(agent.exit().await.success());
}

#[tokio::test]
async fn a_bad_configuration_is_a_usage_error_that_shows_no_secret() {
    let coordinator = Coordinator::start(&unique_instance_id()).await;
    let mut host = Host::new(&coordinator, "");
    host.config["runner_dir"] = "relative".into();
    host.config["surprise"] = 1.into();
    assert_eq!(host.start().await.exit().await.code(), Some(64));
    let text = host.read("log");
    assert!(
        text.contains("runner_dir") && text.contains("surprise"),
        "{text}"
    );
    assert!(!text.contains(TOKEN), "{text}");
    assert!(!host.path("work/started").exists());
}
