//! The REST calls of the fake GitHub against what is known of the real ones.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_tests::fakes::github::{Conclusion, Effect, Fault, JobSpec, Options, Status};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{App, JITCONFIG, body};

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
