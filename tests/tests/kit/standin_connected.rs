//! The stand-in runner connected to the fake GitHub.

use std::time::Duration;

use muster_tests::fakes::github::{Conclusion, JobSpec, Options, Status};
use nix::sys::signal::Signal;
use rstest::rstest;
use tokio::process::Child;

use crate::runner::{REMOVED, Root, ended, read_until, rest, signal, with_result};
use crate::support::{App, PATIENCE};

/// A runner of the fake GitHub.
async fn connected(app: &App, name: &str, scenario: &str) -> (Root, Child) {
    let (_, blob) = app.register(name, &["linux"]).await;
    let root = Root::new(scenario);
    let mut command = root.with_blob(&blob);
    with_result(&mut command);
    let child = command.spawn().unwrap();
    (root, child)
}

#[rstest]
#[case::success("true", Conclusion::Success, 100)]
#[case::failure("false", Conclusion::Failure, 102)]
#[tokio::test]
async fn a_connected_runner_takes_one_job_and_is_gone(
    #[case] step: &str,
    #[case] conclusion: Conclusion,
    #[case] expected: i32,
) {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "").await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build it", &["Linux"]).step(step));
    let (code, out, _) = ended(child).await;
    assert_eq!(code, expected, "{out}");
    let job = app
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await
        .unwrap();
    assert_eq!(
        (job.conclusion, job.runner_name.as_deref()),
        (Some(conclusion), Some("r-1"))
    );
    assert!(app.github.runners().is_empty());
    app.assert_conforms();
}

#[tokio::test]
async fn a_connected_runner_is_told_of_a_cancellation() {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "speed = 20.0").await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["linux"]).step("sleep 600"));
    app.github
        .wait_job(job, Status::InProgress, PATIENCE)
        .await
        .unwrap();
    assert!(app.github.cancel_job(job));
    let (code, ..) = ended(child).await;
    assert_eq!(code, 103);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Cancelled)
    );
}

#[tokio::test]
async fn deleting_the_registration_ends_an_idle_connected_runner() {
    let app = App::start().await;
    let (root, mut child) = connected(&app, "r-1", "").await;
    let reader = read_until(&mut child, "Listening for Jobs").await;
    let id = app.github.runners()[0].id;
    assert_eq!(
        app.delete(&format!("/orgs/acme/actions/runners/{id}"))
            .await
            .status(),
        204
    );
    let (code, out, err) = rest(reader, child).await;
    assert_eq!((code, out.as_str()), (0, REMOVED));
    assert!(err.contains("no longer exists"), "{err}");
    assert!(!root.exists(".runner"));
}

#[tokio::test]
async fn a_second_start_with_the_same_blob_meets_a_conflict() {
    let app = App::start().await;
    let (_, blob) = app.register("r-1", &["linux"]).await;
    let (first, second) = (Root::new(""), Root::new("speed = 100000.0"));
    let mut child = first.with_blob(&blob).spawn().unwrap();
    let _reader = read_until(&mut child, "Listening for Jobs").await;
    let (code, _, err) = ended(second.with_blob(&blob).spawn().unwrap()).await;
    assert_eq!(code, 5, "{err}");
}

#[tokio::test]
async fn an_acquire_that_hangs_leaves_the_job_queued_for_another() {
    let app = App::with(Options {
        pickup_timeout: Duration::from_secs(3),
        ..Options::default()
    })
    .await;
    let (_stuck_root, _stuck) = connected(&app, "stuck", "assign = 'acquire_hang'").await;
    let online = || {
        app.github
            .runners()
            .iter()
            .any(|it| it.online)
            .then_some(())
    };
    app.github
        .wait_for("the runner online", PATIENCE, online)
        .await
        .unwrap();
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["linux"]).step("true"));
    let assigned = || app.github.runners()[0].busy.then_some(());
    app.github
        .wait_for("the assignment", PATIENCE, assigned)
        .await
        .unwrap();
    let (_root, child) = connected(&app, "good", "").await;
    let job = app
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await
        .unwrap();
    assert_eq!(job.runner_name.as_deref(), Some("good"));
    assert_eq!(ended(child).await.0, 100);
}

#[tokio::test]
async fn a_crashed_worker_is_reported_by_its_listener() {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "").await;
    let mut spec = JobSpec::new("acme/app", "build", &["linux"]);
    spec.script.worker = muster_tests::standin::script::WorkerFault::Killed;
    let job = app.github.queue_job(spec);
    assert_eq!(ended(child).await.0, 102);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Failure)
    );
}

#[tokio::test]
async fn sigint_while_busy_fails_the_job_at_github() {
    let app = App::start().await;
    let (_root, child) = connected(&app, "r-1", "speed = 20.0").await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["linux"]).step("sleep 600"));
    app.github
        .wait_job(job, Status::InProgress, PATIENCE)
        .await
        .unwrap();
    signal(&child, Signal::SIGINT);
    assert_eq!(ended(child).await.0, 0);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Failure)
    );
}
