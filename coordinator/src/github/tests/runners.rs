//! Registering, finding and deleting runners.

use secrecy::ExposeSecret as _;

use super::*;

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
