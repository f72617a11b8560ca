//! What the sweep sees.

use std::collections::BTreeMap;

use muster_tests::fakes::aws::{InstanceState, Market, Options};

use crate::kit::{COORDINATOR, Home, id, known};

fn tags(coordinator: &str) -> BTreeMap<String, String> {
    [("muster:coordinator".to_owned(), coordinator.to_owned())].into()
}

#[tokio::test]
async fn what_carries_our_tag_is_listed_over_many_pages() {
    let options = Options {
        largest_page: 7,
        ..Options::default()
    };
    let home = Home::with(options, |_| {}).await;
    let launched = home.launch_many(30).await;
    let ended = id(&launched[3]);
    home.provider.terminate(&ended, true).await.unwrap();
    home.aws
        .wait_for("the end", crate::kit::PATIENCE, || {
            let instance = home.aws.instance(ended.as_str())?;
            (instance.state == InstanceState::Terminated).then_some(())
        })
        .await
        .unwrap();
    let stray = home
        .aws
        .plant(&home.place, Market::Spot, "m7i.large", &tags(COORDINATOR))
        .unwrap();
    let other = home
        .aws
        .plant(&home.place, Market::Spot, "m7i.large", &tags("another"))
        .unwrap();
    let listed = home.provider.list().await.unwrap();
    let alive = listed.alive.iter();
    let alive: Vec<_> = alive.map(|marked| marked.instance.as_str()).collect();
    assert_eq!(alive.len(), 30, "29 of ours and the stray");
    assert!(alive.contains(&stray.as_str()));
    assert!(!alive.contains(&other.as_str()));
    assert_eq!(listed.gone.len(), 1);
    assert_eq!(listed.gone[0].0, ended);
    home.no_violations();
}

#[tokio::test]
async fn an_instance_can_be_described_among_many() {
    let home = Home::start().await;
    let launched = home.launch_many(5).await;
    let questions = launched.iter().map(|one| {
        let instance = id(one);
        let provider = home.provider.clone();
        async move { (provider.describe(&instance).await.unwrap(), instance) }
    });
    let before = home.served("DescribeInstances");
    for (facts, instance) in futures::future::join_all(questions).await {
        let facts = facts.unwrap();
        let seen = home.aws.instance(instance.as_str()).unwrap();
        assert_eq!(facts.image, seen.image_id);
        assert_eq!(facts.private_ip, Some(seen.private_ip.into()));
        assert_eq!(facts.coordinator.as_deref(), Some(COORDINATOR));
        assert_eq!(facts.batch, seen.client_token);
    }
    assert_eq!(home.served("DescribeInstances"), before + 1, "one question");
    let nobody = home.provider.describe(&"i-0000000000000dead".into()).await;
    assert_eq!(nobody.unwrap(), None);
    home.no_violations();
}

#[tokio::test]
async fn a_stopped_instance_is_still_there() {
    let home = Home::start().await;
    let mut template = home.aws.template(&home.place, "muster").unwrap();
    template.versions[0].ends_on_shutdown = false;
    home.aws.put_template(&home.place, template);
    let instance = id(&home.launch("l-1").await);
    home.aws.power_off(instance.as_str());
    let state = || home.aws.instance(instance.as_str()).unwrap().state;
    let stopped = || state() == InstanceState::Stopped;
    home.until("the stop", stopped).await;
    // Its disk is paid for, and only we end it.
    let listed = home.provider.list().await.unwrap();
    assert_eq!(listed.alive, [known(instance)]);
    home.no_violations();
}
