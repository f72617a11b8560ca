//! Signing, installations and their tokens.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures::future::join_all;

use super::super::fake::pkcs1;
use super::*;

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

/// One asks by way of a repository that is gone, the other of one that is there.
#[tokio::test]
async fn who_asks_for_what_is_out_of_reach_speaks_for_himself_only() {
    let github = Fake::new(|asked| {
        if asked.line.contains("acme/gone/installation") {
            return Some(reply(404, json!({ "message": "Not Found" })));
        }
        asked.line.contains("generate-jitconfig").then(minted)
    })
    .await;
    let client = github.client();
    let gone = Scope::Repository {
        owner: "acme".to_owned(),
        name: "gone".to_owned(),
    };
    let scope = repository_scope();
    let (of_gone, of_here) = tokio::join!(
        client.has_runner(&gone, GithubRunnerId(1)),
        mint(&client, &scope, "any"),
    );
    let of_gone = of_gone.unwrap_err();
    assert!(matches!(of_gone, GithubError::NotInstalled(scope) if scope == gone));
    if let Err(error) = of_here {
        panic!("the other is there: {error}");
    }
}
