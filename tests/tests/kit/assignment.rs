//! How the fake GitHub gives jobs to runners.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::fakes::github::{Conclusion, JobSpec, Options, Status};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{App, JITCONFIG, PATIENCE, body};

/// A listener by hand.
struct Hand<'a> {
    app: &'a App,
    credential: String,
    session: String,
}

impl<'a> Hand<'a> {
    async fn listen(app: &'a App, blob: &str) -> Self {
        let files: Value = serde_json::from_slice(&STANDARD.decode(blob).unwrap()).unwrap();
        let text = STANDARD
            .decode(files[".credentials"].as_str().unwrap())
            .unwrap();
        let credentials: Value = serde_json::from_slice(&text).unwrap();
        let credential = credentials["Data"]["ClientId"].as_str().unwrap().to_owned();
        let mut hand = Self {
            app,
            credential,
            session: String::new(),
        };
        let (status, answer) = hand.call(Method::POST, "session", &json!({})).await;
        assert_eq!(status, 200);
        hand.session = answer["session_id"].as_str().unwrap().to_owned();
        hand
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = self.app.request(method, &format!("/_runner/{path}"));
        let answer = request
            .bearer_auth(&self.credential)
            .json(body)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn poll(&self) -> (u16, Value) {
        self.call(
            Method::GET,
            &format!("message?session={}", self.session),
            &json!({}),
        )
        .await
    }
}

#[tokio::test]
async fn a_job_goes_to_a_listener_that_has_all_its_labels() {
    let app = App::with(Options {
        poll_hold: Duration::from_millis(50),
        ..Options::default()
    })
    .await;
    let (_, plain) = app.register("plain", &["linux"]).await;
    let (_, gpu) = app.register("gpu", &["linux", "gpu"]).await;
    let (plain, gpu) = (
        Hand::listen(&app, &plain).await,
        Hand::listen(&app, &gpu).await,
    );
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "train", &["Linux", "GPU"]));
    assert_eq!(plain.poll().await.0, 202);
    let (status, message) = gpu.poll().await;
    assert_eq!(
        (status, message),
        (200, json!({ "type": "job", "request_id": job }))
    );
    let about = json!({ "request_id": job });
    assert_eq!(plain.call(Method::POST, "acquire", &about).await.0, 404);
    let (status, acquired) = gpu.call(Method::POST, "acquire", &about).await;
    assert_eq!((status, &acquired["display_name"]), (200, &json!("train")));
    assert_eq!(app.github.job(job).unwrap().status, Status::InProgress);
    assert_eq!(gpu.call(Method::POST, "renew", &about).await.0, 200);
    let done = json!({ "request_id": job, "result": "Succeeded" });
    assert_eq!(gpu.call(Method::POST, "complete", &done).await.0, 200);
    assert_eq!(
        app.github.job(job).unwrap().conclusion,
        Some(Conclusion::Success)
    );
    assert_eq!(gpu.poll().await.0, 404, "the registration is used up");
    let left: Vec<_> = app.github.runners().into_iter().map(|it| it.name).collect();
    assert_eq!(left, ["plain"]);
    app.assert_conforms();
}

#[tokio::test]
async fn groups_decide_which_repositories_get_their_runners() {
    let app = App::with(Options {
        poll_hold: Duration::from_millis(50),
        ..Options::default()
    })
    .await;
    let group = app
        .github
        .add_group("acme", "private", Some(&["acme/app"]), false);
    let asked = json!({ "name": "r", "runner_group_id": group, "labels": ["x"] });
    let answer = body(app.post(JITCONFIG, &asked).await).await;
    let runner = Hand::listen(&app, answer["encoded_jit_config"].as_str().unwrap()).await;
    app.github
        .queue_job(JobSpec::new("acme/other", "build", &["x"]));
    assert_eq!(runner.poll().await.0, 202);
    app.github
        .queue_job(JobSpec::new("acme/app", "build", &["x"]));
    assert_eq!(runner.poll().await.0, 200);
    let groups = body(
        app.get("/orgs/acme/actions/runner-groups?visible_to_repository=other")
            .await,
    )
    .await;
    assert_eq!(groups["total_count"], 1);
    app.assert_conforms();
}

#[tokio::test]
async fn one_blob_has_one_session() {
    let app = App::start().await;
    let (id, blob) = app.register("r", &["x"]).await;
    let first = Hand::listen(&app, &blob).await;
    assert_eq!(first.call(Method::POST, "session", &json!({})).await.0, 409);
    assert_eq!(
        app.delete(&format!("/orgs/acme/actions/runners/{id}"))
            .await
            .status(),
        204
    );
    assert_eq!(first.poll().await.0, 404);
    assert_eq!(first.call(Method::POST, "session", &json!({})).await.0, 401);
}

#[tokio::test]
async fn an_assignment_not_picked_up_goes_to_another_runner() {
    let app = App::with(Options {
        pickup_timeout: Duration::from_millis(30),
        ..Options::default()
    })
    .await;
    let (_, first) = app.register("first", &["x"]).await;
    let (_, second) = app.register("second", &["x"]).await;
    let first = Hand::listen(&app, &first).await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["x"]));
    assert_eq!(first.poll().await.0, 200);
    let second = Hand::listen(&app, &second).await;
    assert_eq!(second.poll().await.0, 200);
    let about = json!({ "request_id": job });
    assert_eq!(first.call(Method::POST, "acquire", &about).await.0, 404);
}

#[tokio::test]
async fn a_job_without_renewals_fails_with_lost_communication() {
    let app = App::with(Options {
        job_lock: Duration::from_millis(30),
        ..Options::default()
    })
    .await;
    let (_, blob) = app.register("r", &["x"]).await;
    let runner = Hand::listen(&app, &blob).await;
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["x"]));
    assert_eq!(runner.poll().await.0, 200);
    assert_eq!(
        runner
            .call(Method::POST, "acquire", &json!({ "request_id": job }))
            .await
            .0,
        200
    );
    let job = app
        .github
        .wait_job(job, Status::Completed, PATIENCE)
        .await
        .unwrap();
    assert_eq!(job.conclusion, Some(Conclusion::Failure));
    assert!(job.annotation.unwrap().contains("lost communication"));
    assert_eq!(app.github.runners().len(), 0);
}
