//! Faults, scripted and at random, and request buckets.

use std::time::Duration;

use aws_sdk_ec2::types::Filter;
use muster_tests::fakes::aws::{Answer, Capacity, Chaos, Effect, Fault, Offering};

use crate::aws_support::{Cloud, PATIENCE, code, codes, ids};

#[tokio::test]
async fn the_next_calls_of_an_action_go_wrong() {
    let cloud = Cloud::start().await;
    let (aws, ec2) = (&cloud.aws, cloud.ec2());
    let subnets = async || ec2.describe_subnets().send().await;
    aws.inject(Fault::times("DescribeSubnets", 2, Effect::Throttle));
    aws.inject(Fault::next("DescribeSubnets", Effect::ServerError(500)));
    aws.inject(Fault::next("DescribeSubnets", Effect::ServerError(503)));
    aws.inject(Fault::next("CreateFleet", Effect::Throttle));
    let unauthorized = Effect::Error {
        status: 403,
        code: "UnauthorizedOperation".to_owned(),
        message: "You are not authorized to perform this operation.".to_owned(),
    };
    aws.inject(Fault::next("DescribeSubnets", unauthorized));
    for wanted in [
        "RequestLimitExceeded",
        "RequestLimitExceeded",
        "InternalError",
        "Unavailable",
        "UnauthorizedOperation",
    ] {
        assert_eq!(code(subnets().await), wanted);
    }
    let garbage = Answer::new(200, "text/xml", "<<<");
    aws.inject(Fault::next("DescribeSubnets", Effect::Answer(garbage)));
    assert!(code(subnets().await).contains("Response"));
    aws.inject(Fault::next("DescribeSubnets", Effect::HangUp));
    assert!(code(subnets().await).contains("DispatchFailure"));
    subnets().await.unwrap();
    cloud.assert_conforms();
}

#[tokio::test]
async fn an_answer_can_be_lost_after_the_deed() {
    let cloud = Cloud::start().await;
    let fleet = || cloud.fleet("mb-1", 1, &[("m7i.large", 'a')]).send();
    let effects = [Effect::LoseAnswer, Effect::ActThenFail(503), Effect::HangUp];
    for effect in effects {
        cloud.aws.inject(Fault::next("CreateFleet", effect));
        fleet().await.unwrap_err();
    }
    assert_eq!(cloud.aws.instances().len(), 1);
    let again = fleet().await.unwrap();
    assert_eq!(ids(&again), [cloud.aws.instances()[0].id.clone()]);
    assert_eq!(cloud.aws.calls_of("CreateFleet").len(), 4);
    cloud.assert_conforms();
}

#[tokio::test]
async fn an_answer_may_never_come() {
    let cloud = Cloud::start().await;
    cloud.aws.inject(Fault::next("*", Effect::Silence));
    let ec2 = cloud.ec2();
    let mut call = tokio::spawn(ec2.describe_subnets().send());
    while cloud.aws.calls_of("DescribeSubnets").is_empty() {
        assert!(
            !call.is_finished(),
            "the call has ended before it was heard"
        );
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    // The SDK gives up by itself, as nothing comes.
    if let Ok(ended) = tokio::time::timeout(Duration::from_hours(1), &mut call).await {
        ended.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn chance_is_the_same_each_time() {
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let cloud = Cloud::start().await;
        cloud.aws.set_chaos(Some(Chaos {
            seed: 7,
            throttle: 0.2,
            server_error: 0.2,
            lost_answer: 0.1,
            hang_up: 0.1,
            capacity: 0.3,
        }));
        let mut outcome = Vec::new();
        for number in 0..30 {
            let token = format!("mb-{number}");
            let fleet = cloud.fleet(&token, 1, &[("m7i.large", 'a')]).send().await;
            outcome.push(match fleet {
                Ok(fleet) => codes(&fleet).join(" "),
                Err(error) => code::<(), _, _>(Err(error)).chars().take(20).collect(),
            });
        }
        assert!(outcome.contains(&"InsufficientInstanceCapacity".to_owned()));
        assert!(outcome.contains(&"RequestLimitExceeded".to_owned()));
        assert!(outcome.contains(&String::new()));
        outcomes.push(outcome);
        cloud.aws.set_chaos(None);
        cloud.launch("mb-last", 1).await;
        cloud.assert_conforms();
    }
    assert_eq!(outcomes[0], outcomes[1]);
}

#[tokio::test(start_paused = true)]
async fn buckets_run_empty_and_fill_again() {
    let cloud = Cloud::start().await;
    let refused = Capacity::Refused("UnfulfillableCapacity".to_owned());
    cloud
        .aws
        .set_capacity(&cloud.home, Offering::any(), refused);
    let fleet = async |number: u32| {
        let token = format!("mb-{number}");
        cloud.fleet(&token, 1, &[("m7i.large", 'a')]).send().await
    };
    for number in 0..50 {
        fleet(number).await.unwrap();
    }
    assert_eq!(code(fleet(50).await), "RequestLimitExceeded");
    assert_eq!(cloud.aws.throttled(), 1);
    tokio::time::advance(Duration::from_secs(1)).await;
    for number in 50..55 {
        fleet(number).await.unwrap();
    }
    assert_eq!(code(fleet(55).await), "RequestLimitExceeded");
    let bucket = cloud.aws.bucket(&cloud.home, "CreateFleet").unwrap();
    assert!(bucket.lowest < 1.0, "{bucket:?}");
    assert_eq!(bucket.refused, 2);
    cloud.assert_conforms();
}

#[tokio::test(start_paused = true)]
async fn looking_without_a_filter_costs_more() {
    let cloud = Cloud::start().await;
    let ec2 = cloud.ec2();
    for _ in 0..50 {
        ec2.describe_instances().send().await.unwrap();
    }
    let more = ec2.describe_instances().send().await;
    assert_eq!(code(more), "RequestLimitExceeded");
    let filter = Filter::builder().name("tag-key").values("*").build();
    let filtered = ec2.describe_instances().filters(filter).send().await;
    filtered.unwrap();
    let bucket = cloud.aws.bucket(&cloud.home, "DescribeInstances");
    assert_eq!(bucket.unwrap().level, 99.0);
    cloud.assert_conforms();
}

/// All else goes without a socket; this is what binaries see.
#[tokio::test]
async fn it_answers_on_a_socket_too() {
    let cloud = Cloud::start().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = "Action=GetCallerIdentity&Version=2011-06-15";
    let request = http::Request::post(&cloud.aws.url)
        .header("host", "sts.eu-central-1.amazonaws.com")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.into())
        .unwrap();
    let request = crate::aws_signatures::signed(request, "sts", &cloud.coordinator());
    let send = async || {
        let request = request.clone().map(reqwest::Body::from);
        let request = reqwest::Request::try_from(request).unwrap();
        client.execute(request).await
    };
    let answer = tokio::time::timeout(PATIENCE, send()).await.unwrap();
    assert_eq!(answer.unwrap().status(), 200);
    cloud.aws.inject(Fault::next("*", Effect::LoseAnswer));
    send().await.unwrap_err();
    let mut config = cloud.ec2().config().to_builder();
    config.set_http_client(None);
    let ec2 = aws_sdk_ec2::Client::from_conf(config.build());
    let subnets = tokio::time::timeout(PATIENCE, ec2.describe_subnets().send());
    assert_eq!(subnets.await.unwrap().unwrap().subnets().len(), 3);
    assert_eq!(cloud.aws.environment()[0].1, cloud.aws.url);
    cloud.assert_conforms();
    cloud.aws.stop().await;
}
