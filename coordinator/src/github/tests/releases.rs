//! The releases of the official runner.

use super::*;
use crate::runner_versions::{Release, RunnerVersion};

fn release(tag: &str, published_at: &Value) -> Value {
    json!({
        "tag_name": tag, "published_at": published_at, "draft": false, "prerelease": false,
        "assets": [{ "name": "actions-runner-linux-x64" }], "body": "notes"
    })
}

#[tokio::test]
async fn releases_are_read_without_what_is_tried_out_first() {
    let mut draft = release("v2.340.0", &Value::Null);
    draft["draft"] = json!(true);
    let mut tried = release("v2.339.0", &json!("2026-11-20T10:00:00Z"));
    tried["prerelease"] = json!(true);
    let answer = json!([
        draft,
        tried,
        release("v2.338.1", &json!("2026-11-10T10:00:00Z")),
        release("not a version", &json!("2026-11-09T10:00:00Z")),
        { "tag_name": 7 },
        release("v2.337.0", &json!("yesterday")),
        release("v2.336.0", &json!("2026-10-01T10:00:00Z")),
    ]);
    let answer = with(200, &[("etag", "\"one\"")], answer);
    let github = Fake::answering(
        "/actions/runner/releases",
        vec![answer, reply(304, json!(null))],
    );
    let github = github.await;
    let client = github.client();
    let of = |version: &str, at: &str| Release {
        version: RunnerVersion::parse(version).unwrap(),
        published_at: at.parse().unwrap(),
    };
    let read = client.runner_releases(&org(), None).await.unwrap();
    let expected = Fetched::New {
        value: vec![
            of("2.338.1", "2026-11-10T10:00:00Z"),
            of("2.336.0", "2026-10-01T10:00:00Z"),
        ],
        etag: Some("\"one\"".to_owned()),
        calls: 1,
        left_out: 2,
    };
    assert_eq!(read, expected);
    let again = client.runner_releases(&org(), Some("\"one\"")).await;
    assert_eq!(again.unwrap(), Fetched::Same);
    let asked = github.asked("/actions/runner/releases");
    assert!(
        asked[0]
            .line
            .ends_with("/repos/actions/runner/releases?per_page=30"),
        "{asked:?}"
    );
    assert_eq!(asked[1].headers["if-none-match"], "\"one\"");
}

#[tokio::test]
async fn a_server_without_the_runners_repository_says_so() {
    let github = Fake::new(|_| None).await;
    let error = github.client().runner_releases(&org(), None).await;
    assert!(matches!(error, Err(GithubError::NotFound(_))), "{error:?}");
}
