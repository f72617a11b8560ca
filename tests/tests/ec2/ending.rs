//! How instances end.

use std::time::Duration;

use futures::future::join_all;
use muster_tests::fakes::aws::{Fault, Options, Stages};

use crate::kit::{Home, id, refusal};

#[tokio::test]
async fn ends_share_calls_and_skip_the_shutdown_where_nothing_is_left() {
    let home = Home::start().await;
    let launched = home.launch_many(12).await;
    let ends = launched.iter().enumerate().map(|(n, one)| {
        let instance = id(one);
        let at_once = n % 2 == 0;
        let provider = home.provider.clone();
        async move {
            provider.terminate(&instance, at_once).await.unwrap();
            (instance, at_once)
        }
    });
    for (instance, at_once) in join_all(ends).await {
        let ended = home.aws.instance(instance.as_str()).unwrap();
        assert!(ended.state.is_ending(), "{ended:?}");
        assert_eq!(ended.skip_os_shutdown, at_once);
    }
    assert_eq!(home.served("TerminateInstances"), 2);
    home.no_violations();
}

#[tokio::test]
async fn one_that_ec2_refuses_does_not_keep_the_others() {
    let home = Home::start().await;
    let launched = home.launch_many(9).await;
    let protected = id(&launched[4]);
    home.aws.protect(protected.as_str(), true);
    let ends = launched.iter().map(|one| {
        let instance = id(one);
        let provider = home.provider.clone();
        async move {
            let end = provider.terminate(&instance, true).await;
            (instance, end)
        }
    });
    for (instance, end) in join_all(ends).await {
        if instance == protected {
            let error = end.unwrap_err().to_string();
            assert!(error.contains("OperationNotPermitted"), "{error}");
        } else {
            end.unwrap();
        }
    }
    let alive = home.aws.alive();
    assert_eq!(alive.len(), 1);
    assert_eq!(alive[0].id, protected.as_str());
    home.no_violations();
}

#[tokio::test]
async fn that_ec2_does_not_know_an_instance_is_no_proof_of_its_end() {
    let stages = Stages {
        unknown: Duration::from_secs(3_600),
        ..Stages::default()
    };
    let options = Options {
        stages,
        ..Options::default()
    };
    let home = Home::with(options, |_| {}).await;
    let launched = home.launch("l-1").await;
    let instance = id(&launched);
    // EC2 answers InvalidInstanceID.NotFound just after a launch.
    let gone = home.provider.terminate(&instance, true).await.unwrap();
    assert!(!gone);
    assert_eq!(home.aws.alive().len(), 1, "it runs still");
    assert_eq!(home.aws.calls_of("TerminateInstances").len(), 1);
    home.aws.reveal(instance.as_str());
    home.provider.terminate(&instance, true).await.unwrap();
    assert!(home.aws.alive().is_empty());
    home.no_violations();
}

#[tokio::test]
async fn where_nothing_may_be_ended_few_calls_find_that_out() {
    let home = Home::start().await;
    let launched = home.launch_many(64).await;
    let denied = refusal("UnauthorizedOperation");
    home.aws
        .inject(Fault::times("TerminateInstances", u32::MAX, denied));
    let ends = launched.iter().map(|one| {
        let (instance, provider) = (id(one), home.provider.clone());
        async move { provider.terminate(&instance, true).await }
    });
    for end in join_all(ends).await {
        let error = end.unwrap_err().to_string();
        assert!(error.contains("UnauthorizedOperation"), "{error}");
    }
    let calls = home.aws.calls_of("TerminateInstances").len();
    assert_eq!(calls, 1 + 2 + 4, "in quarters, not one by one");
    home.no_violations();
}

#[tokio::test]
async fn one_that_may_not_be_ended_keeps_a_quarter_at_most() {
    let home = Home::start().await;
    let launched = home.launch_many(16).await;
    // The call, the half and the quarter that have it are denied.
    let denied = refusal("UnauthorizedOperation");
    home.aws
        .inject(Fault::times("TerminateInstances", 3, denied));
    let ends = launched.iter().map(|one| {
        let (instance, provider) = (id(one), home.provider.clone());
        async move { provider.terminate(&instance, true).await }
    });
    let ends = join_all(ends).await;
    assert_eq!(ends.iter().filter(|end| end.is_err()).count(), 4);
    assert_eq!(home.aws.alive().len(), 4);
    home.no_violations();
}
