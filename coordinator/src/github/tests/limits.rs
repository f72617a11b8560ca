//! What GitHub allows, and how it is kept.

use std::time::Instant;

use futures::future::join_all;

use super::*;
use crate::telemetry::Metrics;

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
    let (began, wait) = (Instant::now(), Duration::from_secs(wait));
    assert_eq!(waits(&delete(&client).await.unwrap_err()), wait);
    let again = waits(&delete(&client).await.unwrap_err());
    assert!(
        again <= wait && again + began.elapsed() >= wait,
        "{again:?}"
    );
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
    let mut settings = github.settings(&pkcs8());
    settings.total_timeout = Duration::from_secs(60);
    let client = GithubClient::new(settings).unwrap();
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
async fn what_the_answers_say_of_the_limits_is_shown_by_the_figures() {
    let metrics = Metrics::new().unwrap();
    let shown = |series: &str| metrics.render().contains(series);
    let reset = (Timestamp::now().as_second() + 120).to_string();
    let left = |status, left: &str, body| {
        let headers = [
            ("x-ratelimit-limit", "5000"),
            ("x-ratelimit-remaining", left),
            ("x-ratelimit-reset", reset.as_str()),
        ];
        with(status, &headers, body)
    };
    let (first, second) = (left(204, "4000", json!({})), left(204, "1000", json!({})));
    let mint_answer = left(
        201,
        "4500",
        json!({ "runner": { "id": 23 }, "encoded_jit_config": "c2VjcmV0" }),
    );
    let mut deletions = vec![second, first];
    let github = Fake::new(move |asked| {
        if asked.line.contains("generate-jitconfig") {
            return Some(mint_answer.clone());
        }
        asked.line.starts_with("DELETE").then(|| deletions.pop())?
    })
    .await;
    let mut settings = github.settings(&pkcs8());
    settings.metrics = Some(metrics.clone());
    let client = GithubClient::new(settings).unwrap();
    assert!(!shown("muster_github_rate_limit"));
    delete(&client).await.unwrap();
    assert!(shown(
        "muster_github_rate_limit_remaining{limit=\"core\"} 4000\n"
    ));
    assert!(!shown("limit=\"registration\""));
    delete(&client).await.unwrap();
    assert!(shown(
        "muster_github_rate_limit_remaining{limit=\"core\"} 1000\n"
    ));
    assert!(shown(
        "muster_github_rate_limit_remaining_ratio{limit=\"core\"} 0.2\n"
    ));
    mint(&client, &repository_scope(), "any").await.unwrap();
    assert!(shown(
        "muster_github_rate_limit_remaining_ratio{limit=\"registration\"} 0.9\n"
    ));
}
