//! The client against a GitHub that refuses, stalls, lies and never ends.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::future::join_all;
use jiff::Timestamp;
use muster_core::{
    DeregisterAnswer, GithubRunnerId, JobId, JobStatus, Repository, RunnerName, Scope,
};
use rstest::rstest;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::fake::{Fake, Reply, pkcs1, pkcs8, reply, with};
use super::*;

fn org() -> Scope {
    Scope::Organization("acme".to_owned())
}

fn repository_scope() -> Scope {
    Scope::Repository {
        owner: "acme".to_owned(),
        name: "widgets".to_owned(),
    }
}

fn name() -> RunnerName {
    RunnerName::from("muster-1")
}

fn minted() -> Reply {
    reply(
        201,
        json!({ "runner": { "id": 23 }, "encoded_jit_config": "c2VjcmV0" }),
    )
}

async fn mint(client: &GithubClient, scope: &Scope, group: &str) -> Result<Minted, MintError> {
    let labels = BTreeSet::from(["linux".to_owned(), "self-hosted".to_owned()]);
    client
        .generate_jitconfig(scope, &name(), group, &labels)
        .await
}

async fn delete(client: &GithubClient) -> Result<DeregisterAnswer, GithubError> {
    client.delete_runner(&org(), GithubRunnerId(23)).await
}

fn waits(error: &GithubError) -> Duration {
    error
        .retry_after()
        .unwrap_or_else(|| panic!("expected a delay, not {error}"))
}

#[tokio::test]
async fn a_runner_is_registered_with_the_group_of_that_name() {
    let github = Fake::answering("generate-jitconfig", vec![minted()]).await;
    let client = github.client();
    // Spawned, to show that it may be.
    let minted = tokio::spawn(async move { mint(&client, &org(), "fast").await });
    let minted = minted.await.unwrap().unwrap();
    assert_eq!(minted.id, GithubRunnerId(23));
    assert_eq!(minted.encoded_jit_config.expose_secret(), "c2VjcmV0");
    assert!(!format!("{minted:?}").contains("c2VjcmV0"));

    let asked = &github.asked("generate-jitconfig")[0];
    let line = "POST /api/v3/orgs/acme/actions/runners/generate-jitconfig";
    assert_eq!(asked.line, line);
    assert!(asked.bearer.starts_with("Bearer ghs_"));
    assert_eq!(asked.headers["accept"], "application/vnd.github+json");
    assert_eq!(asked.headers["x-github-api-version"], "2022-11-28");
    assert!(asked.headers.contains_key("user-agent"));
    let body = json!({
        "name": "muster-1", "runner_group_id": 5, "labels": ["linux", "self-hosted"],
        "work_folder": "_work"
    });
    assert_eq!(asked.body, body);
}

#[rstest]
#[case::organization(org(), "orgs/acme")]
#[case::repository(repository_scope(), "repos/acme/widgets")]
#[case::enterprise(Scope::Enterprise("acme-corp".to_owned()), "enterprises/acme-corp")]
#[tokio::test]
async fn each_scope_has_its_paths(#[case] scope: Scope, #[case] path: &str) {
    let github = Fake::answering("generate-jitconfig", vec![minted()]).await;
    mint(&github.client(), &scope, "Default").await.unwrap();
    let jitconfig = format!("{path}/actions/runners/generate-jitconfig");
    assert_eq!(github.asked(&jitconfig).len(), 1);
    assert_eq!(
        github
            .asked(&format!("GET /api/v3/{path}/installation"))
            .len(),
        1
    );
}

#[tokio::test]
async fn an_enterprise_is_found_in_the_list_where_there_is_no_look_up() {
    let github = Fake::new(|asked| {
        if asked.line.ends_with("/installation") {
            return Some(reply(404, json!({})));
        }
        let list = json!([
            { "id": 1, "target_type": "Organization", "account": { "login": "acme-corp" } },
            { "id": 9, "target_type": "Enterprise", "account": { "slug": "acme-corp" } },
        ]);
        (asked.line.contains("/app/installations?")).then(|| reply(200, list))
    })
    .await;
    let scope = Scope::Enterprise("acme-corp".to_owned());
    let found = github.client().list_runners(&scope).await;
    assert!(matches!(found, Err(GithubError::NotFound(_))), "{found:?}");
    assert_eq!(github.asked("installations/9/access_tokens").len(), 1);
}

#[rstest]
#[case::as_github_gives_it(pkcs1())]
#[case::converted(pkcs8())]
#[tokio::test]
async fn the_app_speaks_by_a_signed_token_of_ten_minutes_at_most(#[case] pem: String) {
    let github = Fake::answering("/app/hook", vec![reply(200, json!([]))]).await;
    let client = GithubClient::new(github.settings(&pem)).unwrap();
    client.deliveries(Timestamp::now(), None).await.unwrap();
    let bearer = &github.asked("/app/hook")[0].bearer;
    let parts: Vec<_> = bearer["Bearer ".len()..].split('.').collect();
    let decode = |part: &str| -> Value {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    };
    assert_eq!(decode(parts[0])["alg"], "RS256");
    let claims = decode(parts[1]);
    let now = Timestamp::now().as_second();
    let (issued, expires) = (&claims["iat"], &claims["exp"]);
    let (issued, expires) = (issued.as_i64().unwrap(), expires.as_i64().unwrap());
    assert_eq!(claims["iss"], "4711");
    assert!((now - 65..=now - 60).contains(&issued), "{claims}");
    assert!(expires > now && expires - issued <= 600, "{claims}");
}

#[rstest]
#[case("not a key")]
#[case("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n")]
#[tokio::test]
async fn a_key_of_no_use_is_refused_at_once(#[case] pem: &str) {
    let github = Fake::answering("", vec![reply(500, json!({}))]).await;
    let error = GithubClient::new(github.settings(pem)).unwrap_err();
    assert!(matches!(error, SetupError::Key(_)), "{error}");
}

#[tokio::test]
async fn concurrent_calls_share_one_token_and_one_look_up() {
    let github = Fake::answering("DELETE", vec![reply(204, json!({}))]).await;
    let client = github.client();
    let answers = join_all((0..50).map(|_| delete(&client))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(github.asked("access_tokens").len(), 1);
    assert_eq!(github.asked("/installation").len(), 1 + 1);
}

#[tokio::test]
async fn concurrent_calls_share_one_failure_to_get_a_token() {
    let github = Fake::answering("access_tokens", vec![reply(503, json!({}))]).await;
    let client = github.client();
    let answers = join_all((0..50).map(|_| delete(&client))).await;
    assert!(answers.iter().all(Result::is_err));
    assert_eq!(github.asked("access_tokens").len(), 1);
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_call_made_once_more() {
    let refused = reply(401, json!({ "message": "Bad credentials" }));
    let github = Fake::answering("DELETE", vec![refused, reply(204, json!({}))]).await;
    let client = github.client();
    assert_eq!(delete(&client).await, Ok(DeregisterAnswer::Deleted));
    let bearers: Vec<_> = github
        .asked("DELETE")
        .into_iter()
        .map(|a| a.bearer)
        .collect();
    assert_eq!(bearers.len(), 2);
    assert_ne!(bearers[0], bearers[1]);
    // The new one is kept.
    delete(&client).await.unwrap();
    assert_eq!(github.asked("access_tokens").len(), 2);
}

#[tokio::test]
async fn a_token_that_is_refused_again_ends_the_call() {
    let refused = reply(401, json!({ "message": "Bad credentials" }));
    let github = Fake::answering("DELETE", vec![refused]).await;
    let expected = GithubError::Refused {
        status: 401,
        message: "Bad credentials".to_owned(),
    };
    assert_eq!(delete(&github.client()).await, Err(expected));
    assert_eq!(github.asked("DELETE").len(), 2);
}

#[tokio::test]
async fn a_token_near_its_end_is_replaced_early() {
    // It is good for a minute whatever the server says, so the clock is moved.
    let github = Fake::answering("DELETE", vec![reply(204, json!({}))]).await;
    let client = github.client();
    delete(&client).await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(54 * 60)).await;
    tokio::time::resume();
    delete(&client).await.unwrap();
    assert_eq!(github.asked("access_tokens").len(), 1);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    delete(&client).await.unwrap();
    assert_eq!(github.asked("access_tokens").len(), 2);
}

#[tokio::test]
async fn an_app_that_is_not_installed_is_named() {
    let github = Fake::answering("/installation", vec![reply(404, json!({}))]).await;
    let expected = GithubError::NotInstalled(org());
    assert_eq!(delete(&github.client()).await, Err(expected));
}

#[tokio::test]
async fn an_installation_that_went_is_looked_up_anew_and_not_taken_for_an_absent_runner() {
    let gone = reply(404, json!({ "message": "Integration not found" }));
    let github = Fake::answering("access_tokens", vec![gone]).await;
    let client = github.client();
    for _ in 0..2 {
        let expected = GithubError::NotInstalled(org());
        assert_eq!(delete(&client).await, Err(expected));
    }
    assert_eq!(github.asked("/orgs/acme/installation").len(), 2);
}

#[rstest]
#[case(204, Ok(DeregisterAnswer::Deleted))]
#[case(404, Ok(DeregisterAnswer::Absent))]
#[case(422, Ok(DeregisterAnswer::Busy))]
#[case(403, Err(GithubError::Refused { status: 403, message: "so it is".to_owned() }))]
#[tokio::test]
async fn the_answer_to_a_deletion_is_understood(
    #[case] status: u16,
    #[case] expected: Result<DeregisterAnswer, GithubError>,
) {
    let answer = reply(status, json!({ "message": "so it is" }));
    let github = Fake::answering("DELETE", vec![answer]).await;
    assert_eq!(delete(&github.client()).await, expected);
}

#[rstest]
#[case(409, MintError::NameTaken)]
#[case(422, MintError::Refused("unprocessable: so it is".to_owned()))]
#[case(403, MintError::Refused("refused with status 403: so it is".to_owned()))]
#[case(404, MintError::Refused("not found: so it is".to_owned()))]
#[case(302, MintError::Refused("refused with status 302: so it is".to_owned()))]
#[tokio::test]
async fn a_refused_registration_is_understood(#[case] status: u16, #[case] expected: MintError) {
    let answer = reply(status, json!({ "message": "so it is" }));
    let github = Fake::answering("generate-jitconfig", vec![answer]).await;
    let error = mint(&github.client(), &repository_scope(), "any").await;
    assert_eq!(error.unwrap_err(), expected);
    assert_eq!(github.asked("generate-jitconfig").len(), 1, "no retry here");
}

#[tokio::test]
async fn a_group_that_does_not_exist_is_named() {
    let github = Fake::answering("generate-jitconfig", vec![minted()]).await;
    let error = mint(&github.client(), &org(), "slow").await.unwrap_err();
    let text = "not found: organization acme has no runner group \"slow\" that the app may see";
    assert_eq!(error.to_string(), text);
    assert_eq!(github.asked("generate-jitconfig").len(), 0);
}

#[tokio::test]
async fn a_group_that_was_made_anew_is_found_by_its_name() {
    let mut group = 5;
    let github = Fake::new(move |asked| {
        if asked.line.contains("runner-groups") {
            let groups = json!([{ "id": group, "name": "fast" }]);
            return Some(reply(200, json!({ "runner_groups": groups })));
        }
        if !asked.line.contains("generate-jitconfig") {
            return None;
        }
        if asked.body["name"] == "muster-1" && group == 5 {
            group = 6;
            return Some(minted());
        }
        let known = asked.body["runner_group_id"] == 6;
        Some(if known {
            minted()
        } else {
            reply(404, json!({}))
        })
    })
    .await;
    let client = github.client();
    mint(&client, &org(), "fast").await.unwrap();
    mint(&client, &org(), "fast").await.unwrap();
    let groups: Vec<_> = github
        .asked("generate-jitconfig")
        .iter()
        .map(|asked| asked.body["runner_group_id"].as_i64().unwrap())
        .collect();
    assert_eq!(groups, [5, 5, 6]);
}

#[rstest]
#[case::secondary_with_a_time(
    with(403, &[("retry-after", "90")], json!({ "message": "slow down" })), 90)]
#[case::secondary_by_its_words(
    with(403, &[], json!({ "message": "You have exceeded a secondary rate limit" })), 60)]
#[case::too_many(with(429, &[("retry-after", "7")], json!({})), 7)]
#[case::too_many_without_a_time(with(429, &[], json!({})), 60)]
#[case::absurdly_long(with(429, &[("retry-after", "864000")], json!({})), 3600)]
#[tokio::test]
async fn a_limit_holds_all_calls_of_the_installation_back(#[case] limit: Reply, #[case] wait: u64) {
    let github = Fake::answering("DELETE", vec![limit]).await;
    let client = github.client();
    assert_eq!(waits(&delete(&client).await.unwrap_err()).as_secs(), wait);
    let again = waits(&delete(&client).await.unwrap_err());
    assert!(again <= Duration::from_secs(wait) && again > Duration::from_secs(wait - 3));
    let MintError::Retry(_) = mint(&client, &repository_scope(), "any").await.unwrap_err() else {
        panic!("a registration is held back too");
    };
    assert_eq!(github.asked("DELETE").len(), 1);
    assert_eq!(github.asked("generate-jitconfig").len(), 0);
}

#[rstest]
#[case::refused(403)]
#[case::the_last_that_went_through(204)]
#[tokio::test]
async fn a_used_up_limit_holds_calls_that_count_against_it_back(#[case] status: u16) {
    let reset = (Timestamp::now().as_second() + 120).to_string();
    let github = Fake::new(move |asked| {
        if asked.line.contains("generate-jitconfig") {
            return Some(minted());
        }
        let headers = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", reset.as_str()),
        ];
        (asked.line.starts_with("DELETE")).then(|| with(status, &headers, json!({})))
    })
    .await;
    let client = github.client();
    assert_eq!(delete(&client).await.is_ok(), status == 204);
    let wait = waits(&delete(&client).await.unwrap_err());
    assert!((100..=120).contains(&wait.as_secs()), "{wait:?}");
    assert_eq!(github.asked("DELETE").len(), 1);
    mint(&client, &repository_scope(), "any")
        .await
        .expect("another limit");
}

#[tokio::test]
async fn no_more_than_180_registrations_go_out_in_a_minute() {
    let github = Fake::answering("generate-jitconfig", vec![minted()]).await;
    let client = github.client();
    let scope = repository_scope();
    let answers = join_all((0..200).map(|_| mint(&client, &scope, "any"))).await;
    let held = |answer: &&Result<Minted, MintError>| matches!(answer, Err(MintError::Retry(_)));
    assert_eq!(answers.iter().filter(held).count(), 20);
    assert_eq!(github.asked("generate-jitconfig").len(), 180);
}

#[tokio::test]
async fn a_server_error_is_a_delay() {
    let github = Fake::answering(
        "DELETE",
        vec![with(503, &[("retry-after", "11")], json!({}))],
    );
    let github = github.await;
    let client = github.client();
    assert_eq!(waits(&delete(&client).await.unwrap_err()).as_secs(), 11);
    // It says nothing of other calls.
    assert!(delete(&client).await.is_err());
    assert_eq!(github.asked("DELETE").len(), 2);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_left_in_time() {
    let github = Fake::answering("DELETE", vec![Reply::Never]).await;
    let mut settings = github.settings(&pkcs8());
    settings.total_timeout = Duration::from_millis(200);
    let client = GithubClient::new(settings).unwrap();
    let began = Instant::now();
    let error = delete(&client).await.unwrap_err();
    assert!(
        error.to_string().contains("did not answer in 0.2 s"),
        "{error}"
    );
    assert!(waits(&error) > Duration::ZERO && began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_server_that_can_not_be_reached_is_a_delay() {
    let github = Fake::answering("", vec![Reply::Never]).await;
    let mut settings = github.settings(&pkcs8());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    settings.api_url = url.parse().unwrap();
    let error = delete(&GithubClient::new(settings).unwrap())
        .await
        .unwrap_err();
    assert!(waits(&error) > Duration::ZERO, "{error}");
}

#[rstest]
#[case::garbage(Reply::Bytes("<html>".into()))]
#[case::another_type(reply(200, json!({ "runners": 5 })))]
#[case::huge(Reply::Bytes(vec![b' '; 6 << 20].into()))]
#[tokio::test]
async fn an_answer_of_no_use_is_refused(#[case] answer: Reply) {
    let github = Fake::answering("/actions/runners", vec![answer]).await;
    let error = github.client().list_runners(&org()).await.unwrap_err();
    assert!(matches!(error, GithubError::Garbled(_)), "{error}");
}

#[tokio::test]
async fn errors_quote_little_and_no_secret() {
    let long = "x".repeat(10_000);
    let github = Fake::answering("DELETE", vec![reply(403, json!({ "message": long }))]).await;
    let text = delete(&github.client()).await.unwrap_err().to_string();
    assert!(text.len() < 400, "{} bytes", text.len());
    let config = json!({ "runner": {}, "encoded_jit_config": "c2VjcmV0" });
    let github = Fake::answering("generate-jitconfig", vec![reply(201, config)]).await;
    let error = mint(&github.client(), &repository_scope(), "any").await;
    let error = format!("{:?}", error.unwrap_err());
    assert!(
        error.contains("runner.id") && !error.contains("c2VjcmV0"),
        "{error}"
    );
}

fn runner(id: usize, name: &str) -> Value {
    json!({
        "id": id, "name": name, "os": "linux", "status": "offline", "busy": false,
        "labels": [{ "id": 1, "name": "gpu", "type": "custom" }]
    })
}

fn page_of(line: &str) -> usize {
    let page = line.split("&page=").nth(1).unwrap();
    page.split('&').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn lists_are_read_page_by_page_and_names_compared_exactly() {
    let github = Fake::new(|asked| {
        if !asked.line.contains("/actions/runners?") {
            return None;
        }
        let first = (page_of(&asked.line) - 1) * 100;
        let runners: Vec<_> = (first..(first + 100).min(150))
            .map(|id| runner(id, &format!("muster-{id}")))
            .collect();
        Some(reply(
            200,
            json!({ "total_count": 150, "runners": runners }),
        ))
    })
    .await;
    let client = github.client();
    assert_eq!(client.list_runners(&org()).await.unwrap().len(), 150);
    let name = RunnerName::from("muster-120");
    let found = client.find_runner(&org(), &name).await.unwrap().unwrap();
    let expected = RunnerSummary {
        id: GithubRunnerId(120),
        name,
        online: false,
        busy: false,
        labels: vec!["gpu".to_owned()],
    };
    assert_eq!(found, expected);
    let line = "name=muster-120&per_page=100&page=2";
    assert_eq!(github.asked(line).len(), 1);
    let prefix = RunnerName::from("muster-");
    assert_eq!(client.find_runner(&org(), &prefix).await, Ok(None));
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let full = json!({ "runners": (0..100).map(|id| runner(id, "x")).collect::<Vec<_>>() });
    let github = Fake::answering("/actions/runners", vec![reply(200, full)]).await;
    let error = github.client().list_runners(&org()).await.unwrap_err();
    assert!(error.to_string().contains("more than 200 pages"), "{error}");
    assert_eq!(github.asked("/actions/runners").len(), 200);
}

#[tokio::test]
async fn a_name_that_would_change_the_path_is_not_sent() {
    let github = Fake::answering("", vec![reply(204, json!({}))]).await;
    let client = github.client();
    for login in ["..", ".", ""] {
        let scope = Scope::Organization(login.to_owned());
        let answer = client.delete_runner(&scope, GithubRunnerId(1)).await;
        assert!(
            matches!(answer, Err(GithubError::Unaskable(_))),
            "{answer:?}"
        );
    }
    let scope = Scope::Organization("a/../b?c#d".to_owned());
    let _ = client.delete_runner(&scope, GithubRunnerId(1)).await;
    let lines: Vec<_> = github.asked("").into_iter().map(|a| a.line).collect();
    assert_eq!(lines, ["GET /api/v3/orgs/a%2F..%2Fb%3Fc%23d/installation"]);
}

#[tokio::test]
async fn a_job_is_read_also_where_its_repository_moved() {
    let job = json!({
        "id": 3, "run_id": 4, "run_attempt": 1, "name": "build", "labels": ["gpu"],
        "status": "in_progress", "conclusion": null, "runner_name": "muster-1",
        "started_at": "2026-01-02T03:04:05Z", "completed_at": null
    });
    let github = Fake::new(move |asked| match asked.line.as_str() {
        "GET /api/v3/repos/acme/widgets/actions/jobs/3" => {
            let location = "/api/v3/repositories/99/actions/jobs/3";
            Some(with(301, &[("location", location)], json!({})))
        }
        "GET /api/v3/repositories/99/actions/jobs/3" => Some(reply(200, job.clone())),
        _ => None,
    })
    .await;
    let report = github.client().get_job(&widgets(), JobId(3)).await.unwrap();
    assert_eq!(report.status, JobStatus::InProgress);
    assert_eq!(report.repository, widgets());
    assert_eq!(report.runner_name.as_deref(), Some("muster-1"));
}

#[tokio::test]
async fn a_redirect_to_another_host_is_not_followed() {
    let other = Fake::answering("", vec![reply(200, json!({}))]).await;
    let location = format!("http://{}/x", other.address);
    let away = with(301, &[("location", &location)], json!({}));
    let github = Fake::answering("/actions/jobs", vec![away]).await;
    let answer = github.client().get_job(&widgets(), JobId(3)).await;
    assert!(
        matches!(answer, Err(GithubError::Refused { status: 301, .. })),
        "{answer:?}"
    );
    assert!(other.asked("").is_empty(), "the token would go with it");
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let location = "/api/v3/repos/acme/widgets/actions/jobs/3";
    let circle = with(301, &[("location", location)], json!({}));
    let github = Fake::answering("/actions/jobs", vec![circle]).await;
    let answer = github.client().get_job(&widgets(), JobId(3)).await;
    assert!(answer.is_err());
    assert_eq!(github.asked("/actions/jobs").len(), 4);
}

fn widgets() -> Repository {
    Repository {
        owner: "acme".to_owned(),
        name: "widgets".to_owned(),
        public: true,
        enterprise: None,
    }
}

fn delivery(id: usize, second: i64) -> Value {
    json!({
        "id": id, "guid": format!("guid-{id}"), "event": "workflow_job", "status_code": 502,
        "status": "failed to connect", "redelivery": false, "action": "queued",
        "delivered_at": Timestamp::from_second(second).unwrap().to_string()
    })
}

#[tokio::test]
async fn deliveries_are_followed_by_cursor_back_to_the_time_asked_for() {
    let github = Fake::new(|asked| {
        if asked.line.contains("cursor=v1_2%3D") {
            return Some(reply(200, json!([delivery(2, 200), delivery(3, 100)])));
        }
        let link = "<https://elsewhere.example/app/hook/deliveries?per_page=100&cursor=v1_2%3D>; \
                    rel=\"next\"";
        Some(with(200, &[("link", link)], json!([delivery(1, 300)])))
    })
    .await;
    let since = Timestamp::from_second(150).unwrap();
    let found = github.client().deliveries(since, None).await.unwrap();
    let ids: Vec<_> = found.attempts.iter().map(|attempt| attempt.id).collect();
    assert_eq!((ids, found.more), (vec![1, 2], None));
}

#[tokio::test]
async fn deliveries_without_end_are_given_back_in_parts() {
    let mut page = 0;
    let github = Fake::new(move |_| {
        page += 1;
        let link = format!("<http://x/?cursor={page}>; rel=\"next\"");
        Some(with(200, &[("link", &link)], json!([delivery(page, 300)])))
    })
    .await;
    let client = github.client();
    let first = client
        .deliveries(Timestamp::UNIX_EPOCH, None)
        .await
        .unwrap();
    assert_eq!(first.attempts.len(), 50);
    let second = client
        .deliveries(Timestamp::UNIX_EPOCH, first.more)
        .await
        .unwrap();
    assert_eq!(second.attempts.len(), 50);
    assert_eq!(github.asked("cursor=50").len(), 1);
}

#[tokio::test]
async fn a_redelivery_is_asked_for() {
    let github = Fake::answering("/attempts", vec![reply(202, json!({}))]).await;
    github.client().redeliver(12).await.unwrap();
    let line = "POST /api/v3/app/hook/deliveries/12/attempts";
    assert_eq!(github.asked(line).len(), 1);
}

#[tokio::test]
async fn a_proxy_gets_the_calls_and_its_credentials() {
    let proxy = Fake::answering("DELETE", vec![reply(204, json!({}))]).await;
    let mut settings = proxy.settings(&pkcs8());
    settings.api_url = "http://github.example/api/v3".parse().unwrap();
    settings.proxy = Some(format!("http://{}", proxy.address).parse().unwrap());
    settings.proxy_credentials = Some(SecretString::from("user:password"));
    delete(&GithubClient::new(settings).unwrap()).await.unwrap();
    let headers = &proxy.asked("DELETE")[0].headers;
    assert_eq!(headers["proxy-authorization"], "Basic dXNlcjpwYXNzd29yZA==");
    assert_eq!(headers["host"], "github.example");
}
