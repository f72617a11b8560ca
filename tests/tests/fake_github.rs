//! The fake GitHub against what is known of the real one.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::fakes::github::{
    Conclusion, Effect, Fault, JobSpec, Mischief, Options, Status, WebhookFault, sign,
};
use reqwest::Method;
use serde_json::{Value, json};

use support::{App, PATIENCE, body};

const JITCONFIG: &str = "/orgs/acme/actions/runners/generate-jitconfig";

#[tokio::test]
async fn an_app_jwt_is_checked_for_key_issuer_and_times() {
    let app = App::start().await;
    for (iat, exp, expected) in [
        (-60, 540, 200),
        (-60, 700, 401),
        (60, 540, 401),
        (-600, -1, 401),
    ] {
        let answer = app
            .request(Method::GET, "/orgs/acme/installation")
            .bearer_auth(app.jwt(iat, exp))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected, "iat {iat}, exp {exp}");
    }
    let forged = app.jwt(-60, 540);
    let forged = format!("{}AAAA", &forged[..forged.len() - 4]);
    let answer = app
        .request(Method::GET, "/app")
        .bearer_auth(forged)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(
        app.get("/app/installations").await.status(),
        401,
        "a token is no JWT"
    );
    app.assert_conforms();
}

#[tokio::test]
async fn a_token_expires_and_reaches_its_own_account_only() {
    let app = App::with(Options {
        token_lifetime: Duration::ZERO,
        enterprise: Some("acme-inc".to_owned()),
        ..Options::default()
    })
    .await;
    assert_eq!(app.get("/orgs/acme/actions/runners").await.status(), 401);
    let mut app = App::start().await;
    app.github.add_repository("other/thing", false);
    assert_eq!(app.get("/orgs/other/actions/runners").await.status(), 404);
    app.token = app.token_for("other").await;
    assert_eq!(app.get("/orgs/other/actions/runners").await.status(), 200);
    app.assert_conforms();
}

#[tokio::test]
async fn installations_and_repositories_are_listed_as_described() {
    let app = App::with(Options {
        enterprise: Some("acme-inc".to_owned()),
        ..Options::default()
    })
    .await;
    app.github.add_repository("acme/app", true);
    for path in [
        "/app",
        "/app/installations",
        "/orgs/acme/installation",
        "/repos/acme/app/installation",
        "/enterprises/acme-inc/installation",
    ] {
        let answer = app
            .request(Method::GET, path)
            .bearer_auth(app.jwt(-60, 540))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    let repositories = body(app.get("/installation/repositories").await).await;
    assert_eq!(repositories["repositories"][0]["full_name"], "acme/app");
    let limits = body(app.get("/rate_limit").await).await;
    assert_eq!(
        limits["resources"]["actions_runner_registration"]["limit"],
        10_000
    );
    app.assert_conforms();
}

#[tokio::test]
async fn a_jit_configuration_is_made_once_per_name_with_the_labels_asked_for() {
    let app = App::start().await;
    let (id, blob) = app.register("r-1", &["Linux", "GPU"]).await;
    let files: Value = serde_json::from_slice(&STANDARD.decode(blob).unwrap()).unwrap();
    let settings = STANDARD.decode(files[".runner"].as_str().unwrap()).unwrap();
    let settings: Value = serde_json::from_slice(&settings).unwrap();
    assert_eq!(settings["AgentId"], id.to_string());
    assert_eq!(settings["Ephemeral"], "true");
    let again = json!({ "name": "r-1", "runner_group_id": 1, "labels": ["x"] });
    assert_eq!(app.post(JITCONFIG, &again).await.status(), 409);
    let group = json!({ "name": "r-2", "runner_group_id": 99, "labels": ["x"] });
    assert_eq!(app.post(JITCONFIG, &group).await.status(), 404);
    let unnamed = json!({ "name": "", "runner_group_id": 1, "labels": ["x"] });
    assert_eq!(app.post(JITCONFIG, &unnamed).await.status(), 422);
    let listed = body(
        app.get("/orgs/acme/actions/runners?per_page=100&name=r-1")
            .await,
    )
    .await;
    let labels: Vec<_> = listed["runners"][0]["labels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["name"])
        .collect();
    assert_eq!(labels, ["linux", "gpu"]);
    assert_eq!(listed["runners"][0]["status"], "offline");
    app.assert_conforms();
}

#[tokio::test]
async fn repositories_and_enterprises_have_runners_of_their_own() {
    let mut app = App::with(Options {
        enterprise: Some("acme-inc".to_owned()),
        ..Options::default()
    })
    .await;
    app.github.add_repository("acme/app", false);
    let asked = json!({ "name": "r", "runner_group_id": 1, "labels": ["x"] });
    let path = "/repos/acme/app/actions/runners/generate-jitconfig";
    assert_eq!(app.post(path, &asked).await.status(), 201);
    assert_eq!(
        app.post(JITCONFIG, &asked).await.status(),
        201,
        "names are unique per scope"
    );
    app.token = app.token_for("acme-inc").await;
    let path = "/enterprises/acme-inc/actions/runners/generate-jitconfig";
    assert_eq!(app.post(path, &asked).await.status(), 201);
    assert_eq!(
        app.get("/enterprises/acme-inc/actions/runner-groups")
            .await
            .status(),
        200
    );
    app.assert_conforms();
}

#[tokio::test]
async fn deleting_a_runner_answers_204_422_or_404() {
    let app = App::start().await;
    let (id, _) = app.register("r-1", &["x"]).await;
    let path = format!("/orgs/acme/actions/runners/{id}");
    app.github.report_busy("r-1", Some(true));
    assert_eq!(app.delete(&path).await.status(), 422);
    app.github.report_busy("r-1", None);
    assert_eq!(app.delete(&path).await.status(), 204);
    assert_eq!(app.delete(&path).await.status(), 404);
    app.assert_conforms();
}

#[tokio::test]
async fn what_departs_from_the_description_is_a_violation() {
    let app = App::start().await;
    let bad = json!({ "name": "r", "runner_group_id": "1", "labels": [] });
    assert_eq!(app.post(JITCONFIG, &bad).await.status(), 422);
    assert_eq!(
        app.get("/orgs/acme/actions/runners?page_size=3")
            .await
            .status(),
        422
    );
    assert_eq!(app.get("/orgs/acme/actions/nothing").await.status(), 404);
    let found = app.github.take_violations();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("runner_group_id"), "{found:?}");
    assert!(found[1].contains("page_size"), "{found:?}");
}

#[tokio::test]
async fn faults_hit_as_often_as_programmed() {
    let app = App::start().await;
    let asked = |name: &str| json!({ "name": name, "runner_group_id": 1, "labels": ["x"] });
    app.github.inject(
        Fault::status("generate-jitconfig", 1, 429)
            .method("POST")
            .header("retry-after", "7"),
    );
    let answer = app.post(JITCONFIG, &asked("a")).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (429, &"7".parse().unwrap())
    );
    app.github
        .inject(Fault::new("generate-jitconfig", 1, Effect::LoseAnswer));
    let lost = app
        .request(Method::POST, JITCONFIG)
        .bearer_auth(&app.token)
        .json(&asked("a"))
        .send()
        .await;
    assert!(lost.is_err());
    assert_eq!(
        app.post(JITCONFIG, &asked("a")).await.status(),
        409,
        "it happened all the same"
    );
    app.github
        .inject(Fault::new("/runners", 1, Effect::DropConnection));
    let dropped = app
        .request(Method::GET, "/orgs/acme/actions/runners")
        .bearer_auth(&app.token)
        .send()
        .await;
    assert!(dropped.is_err());
    assert_eq!(app.get("/orgs/acme/actions/runners").await.status(), 200);
    app.assert_conforms();
}

#[tokio::test]
async fn a_minute_has_180_jit_configurations() {
    let app = App::start().await;
    for n in 0..180 {
        app.register(&format!("r-{n}"), &["x"]).await;
    }
    let asked = json!({ "name": "one-more", "runner_group_id": 1, "labels": ["x"] });
    let answer = app.post(JITCONFIG, &asked).await;
    assert_eq!(answer.status(), 403);
    assert!(answer.headers().contains_key("retry-after"));
    let pages = body(
        app.get("/orgs/acme/actions/runners?per_page=100&page=2")
            .await,
    )
    .await;
    assert_eq!(
        (
            pages["total_count"].as_u64(),
            pages["runners"].as_array().map(Vec::len)
        ),
        (Some(180), Some(80))
    );
    app.assert_conforms();
}

#[tokio::test]
async fn unchanged_answers_are_not_sent_again() {
    let app = App::start().await;
    let first = app.get("/orgs/acme/actions/runners").await;
    let again = app
        .request(Method::GET, "/orgs/acme/actions/runners")
        .bearer_auth(&app.token)
        .header("if-none-match", &first.headers()["etag"])
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 304);
}

#[tokio::test]
async fn runs_and_jobs_are_listed_cancelled_and_run_again() {
    let app = App::start().await;
    let jobs = app.github.queue_run(vec![
        JobSpec::new("acme/app", "build", &["x"]),
        JobSpec::new("acme/app", "test", &["x"]).needs("build"),
    ]);
    assert_eq!(
        jobs.len(),
        1,
        "a job comes into being when its needs are met"
    );
    let run = app.github.job(jobs[0]).unwrap().run_id;
    let runs = body(app.get("/repos/acme/app/actions/runs?status=queued").await).await;
    assert_eq!(
        (&runs["total_count"], &runs["workflow_runs"][0]["id"]),
        (&json!(1), &json!(run))
    );
    let rerun = format!("/repos/acme/app/actions/jobs/{}/rerun", jobs[0]);
    assert_eq!(
        app.post(&rerun, &json!({})).await.status(),
        403,
        "it still runs"
    );
    assert!(app.github.cancel_job(jobs[0]));
    let all = app.github.jobs();
    assert_eq!(all[1].conclusion, Some(Conclusion::Skipped));
    assert_eq!(app.post(&rerun, &json!({})).await.status(), 201);
    let listed = body(
        app.get(&format!(
            "/repos/acme/app/actions/runs/{run}/jobs?filter=latest"
        ))
        .await,
    )
    .await;
    assert_eq!(listed["jobs"][0]["run_attempt"], 2);
    let first = body(
        app.get(&format!(
            "/repos/acme/app/actions/runs/{run}/attempts/1/jobs"
        ))
        .await,
    )
    .await;
    assert_eq!(first["total_count"], 2);
    let one = body(
        app.get(&format!("/repos/acme/app/actions/jobs/{}", jobs[0]))
            .await,
    )
    .await;
    assert_eq!(one["conclusion"], "cancelled");
    assert_eq!(
        app.get(&format!("/repos/acme/app/actions/runs/{run}"))
            .await
            .status(),
        200
    );
    let cancel = format!("/repos/acme/app/actions/runs/{run}/cancel");
    assert_eq!(
        app.request(Method::POST, &cancel)
            .bearer_auth(&app.token)
            .send()
            .await
            .unwrap()
            .status(),
        202
    );
    app.assert_conforms();
}

/// A receiver of webhooks that answers with a status that the test sets.
#[derive(Clone)]
struct Receiver {
    secret: String,
    seen: Arc<Mutex<Vec<(String, Value, bool)>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Receiver {
    async fn start(app: &App) -> Self {
        let receiver = Self {
            secret: app.github.webhook_secret().to_owned(),
            seen: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::ACCEPTED)),
        };
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(receiver.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        app.github
            .set_webhook_url(&format!("http://{}/hook", listener.local_addr().unwrap()));
        tokio::spawn(axum::serve(listener, router).into_future());
        receiver
    }

    fn answer_with(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    /// Actions in the order of arrival, and whether each was signed as it should be.
    fn seen(&self) -> Vec<(String, bool)> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .map(|(_, body, signed)| (body["action"].as_str().unwrap().to_owned(), *signed))
            .collect()
    }
}

async fn receive(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("x-github-event"), "workflow_job");
    let signed = header("x-hub-signature-256") == sign(&receiver.secret, &body);
    let payload = serde_json::from_slice(&body).unwrap();
    receiver
        .seen
        .lock()
        .unwrap()
        .push((header("x-github-delivery"), payload, signed));
    *receiver.status.lock().unwrap()
}

async fn deliveries(app: &App, count: usize) {
    let reached = || (app.github.deliveries().len() >= count).then_some(());
    app.github
        .wait_for("deliveries", PATIENCE, reached)
        .await
        .unwrap();
}

#[tokio::test]
async fn webhooks_are_signed_and_never_sent_again_by_themselves() {
    let app = App::start().await;
    let receiver = Receiver::start(&app).await;
    receiver.answer_with(StatusCode::INTERNAL_SERVER_ERROR);
    let job = app
        .github
        .queue_job(JobSpec::new("acme/app", "build", &["x"]));
    deliveries(&app, 1).await;
    let failed = app
        .request(Method::GET, "/app/hook/deliveries?status=failure")
        .bearer_auth(app.jwt(-60, 540))
        .send()
        .await
        .unwrap();
    let failed = body(failed).await;
    assert_eq!(failed[0]["status_code"], 500);
    receiver.answer_with(StatusCode::OK);
    let path = format!("/app/hook/deliveries/{}/attempts", failed[0]["id"]);
    let again = app
        .request(Method::POST, &path)
        .bearer_auth(app.jwt(-60, 540))
        .send()
        .await
        .unwrap();
    assert_eq!(again.status(), 202);
    deliveries(&app, 2).await;
    let seen = receiver.seen.lock().unwrap().clone();
    assert_eq!(seen[0].0, seen[1].0, "the same delivery id");
    assert!(
        seen.iter()
            .all(|(_, body, signed)| *signed && body["workflow_job"]["id"] == job)
    );
    assert!(app.github.deliveries()[1].redelivery);
    app.assert_conforms();
}

#[tokio::test]
async fn webhooks_can_be_dropped_doubled_overtaken_and_missigned() {
    let app = App::start().await;
    let receiver = Receiver::start(&app).await;
    let fault = |mischief| WebhookFault {
        action: Some("queued".to_owned()),
        times: 1,
        mischief,
    };
    let mut expected = 0;
    let mut run = async |mischief: Mischief, count: usize| {
        app.github.disturb_webhooks(fault(mischief));
        let job = app
            .github
            .queue_job(JobSpec::new("acme/app", "build", &["x"]));
        // The second webhook of each job must find the first one gone.
        if mischief != Mischief::Overtake && count > 1 {
            deliveries(&app, expected + count - 1).await;
        }
        app.github.cancel_job(job);
        expected += count;
        deliveries(&app, expected).await;
        let seen = receiver.seen();
        receiver.seen.lock().unwrap().clear();
        seen
    };
    let (queued, ended) = (("queued".to_owned(), true), ("completed".to_owned(), true));
    assert_eq!(run(Mischief::Drop, 1).await, [ended.clone()]);
    assert_eq!(run(Mischief::Fail, 2).await, [ended.clone()]);
    assert_eq!(
        run(Mischief::Duplicate, 3).await,
        [queued.clone(), queued.clone(), ended.clone()]
    );
    assert_eq!(run(Mischief::Overtake, 2).await, [ended.clone(), queued]);
    assert_eq!(
        run(Mischief::WrongSignature, 2).await,
        [("queued".to_owned(), false), ended]
    );
    app.assert_conforms();
}

#[tokio::test]
async fn a_job_waits_for_approval_before_it_is_queued() {
    let app = App::start().await;
    let mut spec = JobSpec::new("acme/app", "deploy", &["x"]);
    spec.needs_approval = true;
    let job = app.github.queue_job(spec);
    assert_eq!(app.github.job(job).unwrap().status, Status::Waiting);
    assert!(app.github.approve_job(job));
    assert_eq!(app.github.job(job).unwrap().status, Status::Queued);
    app.assert_conforms();
}

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
