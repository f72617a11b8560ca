//! Instances from launch to the end of their hour.

use std::time::Duration;

use aws_sdk_ec2::types::{Filter, Reservation};
use muster_tests::fakes::aws::{InstanceState, Life, Market, Options, Stages};

use crate::aws_support::{Cloud, PATIENCE, code};

fn slow() -> Options {
    Options {
        stages: Stages {
            pending: Duration::from_secs(5),
            shutting_down: Duration::from_secs(30),
            terminated: Duration::from_hours(1),
            unknown: Duration::from_secs(2),
        },
        ..Options::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_goes_through_its_states() {
    let cloud = Cloud::with(slow()).await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let state = || cloud.aws.instance(&id).map(|it| it.state);
    assert_eq!(state(), Some(InstanceState::Pending));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(cloud.described().await[0].1, "running");
    let ended = cloud.ec2().terminate_instances().instance_ids(&id);
    let ended = ended.skip_os_shutdown(true).send().await.unwrap();
    let change = &ended.terminating_instances()[0];
    let name = change.previous_state().unwrap().name().unwrap();
    assert_eq!(name.as_str(), "running");
    assert!(cloud.aws.instance(&id).unwrap().skip_os_shutdown);
    assert_eq!(cloud.described().await[0].1, "shutting-down");
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(cloud.described().await[0].1, "terminated");
    tokio::time::advance(Duration::from_mins(59)).await;
    assert_eq!(cloud.described().await.len(), 1);
    tokio::time::advance(Duration::from_mins(1)).await;
    assert_eq!(cloud.described().await.len(), 0);
    assert_eq!(state(), None);
    cloud.assert_conforms();
}

#[tokio::test(start_paused = true)]
async fn right_after_its_launch_no_call_knows_an_instance() {
    let cloud = Cloud::with(slow()).await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let ec2 = cloud.ec2();
    assert_eq!(cloud.described().await, []);
    let described = ec2.describe_instances().instance_ids(&id).send().await;
    assert_eq!(code(described), "InvalidInstanceID.NotFound");
    let terminated = ec2.terminate_instances().instance_ids(&id).send().await;
    assert_eq!(code(terminated), "InvalidInstanceID.NotFound");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(cloud.described().await, [(id, "pending".to_owned())]);
    cloud.assert_conforms();
}

#[tokio::test]
async fn one_unknown_id_keeps_all_others_alive() {
    let cloud = Cloud::start().await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let ec2 = cloud.ec2();
    let unknown = "i-00000000000000000";
    let call = ec2.terminate_instances().instance_ids(&id);
    let error = call.instance_ids(unknown).send().await.unwrap_err();
    let error = error.into_service_error();
    assert_eq!(error.meta().code(), Some("InvalidInstanceID.NotFound"));
    let message = error.meta().message().unwrap();
    assert!(
        message.contains(unknown) && !message.contains(&id),
        "{message}"
    );
    let malformed = ec2.terminate_instances().instance_ids("i-x").send().await;
    assert_eq!(code(malformed), "InvalidInstanceID.Malformed");
    assert_eq!(cloud.aws.alive().len(), 1);
    cloud.assert_conforms();
}

#[tokio::test]
async fn a_protected_instance_keeps_its_zone_alive() {
    let cloud = Cloud::start().await;
    let fleet = |token, zone| cloud.fleet(token, 2, &[("m7i.large", zone)]).send();
    let a = crate::aws_support::ids(&fleet("mb-1", 'a').await.unwrap());
    let b = crate::aws_support::ids(&fleet("mb-2", 'b').await.unwrap());
    cloud.aws.protect(&a[0], true);
    let all = a.iter().chain(&b).cloned().collect();
    let call = cloud.ec2().terminate_instances();
    let call = call.set_instance_ids(Some(all)).send().await;
    assert_eq!(code(call), "OperationNotPermitted");
    let alive: Vec<_> = cloud.aws.alive().into_iter().map(|it| it.id).collect();
    let mut a = a;
    a.sort();
    assert_eq!(alive, a);
    cloud.assert_conforms();
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let cloud = Cloud::start().await;
    let mut launched = cloud.launch("mb-1", 12).await;
    launched.sort();
    let mut pages = cloud
        .ec2()
        .describe_instances()
        .filters(
            Filter::builder()
                .name("instance-state-name")
                .values("pending")
                .values("running")
                .build(),
        )
        .max_results(5)
        .into_paginator()
        .send();
    let (mut seen, mut sizes) = (Vec::new(), Vec::new());
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        let groups = page.reservations().iter();
        let ids = groups.flat_map(Reservation::instances);
        let ids: Vec<_> = ids.map(|it| it.instance_id().unwrap().to_owned()).collect();
        sizes.push(ids.len());
        seen.extend(ids);
    }
    assert_eq!(sizes, [5, 5, 2]);
    assert_eq!(seen, launched);
    cloud.assert_conforms();
}

#[tokio::test]
async fn instances_are_described_with_what_matters() {
    let cloud = Cloud::start().await;
    let id = cloud.launch("mb-1", 1).await.remove(0);
    let filter = Filter::builder().name("instance-id").values(&id).build();
    let answer = cloud.ec2().describe_instances().filters(filter);
    let answer = answer.send().await.unwrap();
    let it = &answer.reservations()[0].instances()[0];
    let known = cloud.aws.instance(&id).unwrap();
    let address = known.private_ip.to_string();
    assert_eq!(it.private_ip_address(), Some(&*address));
    assert_eq!(it.image_id(), Some(&*known.image_id));
    assert_eq!(it.subnet_id(), Some(&*known.subnet_id));
    assert_eq!(it.instance_lifecycle().unwrap().as_str(), "spot");
    let zone = it.placement().unwrap().availability_zone();
    assert_eq!(zone, Some(&*known.zone));
    let launched = it.launch_time().unwrap().secs();
    assert_eq!(launched, known.launched_at.as_second());
    let none = Filter::builder()
        .name("instance-id")
        .values("i-00000000000000000");
    let none = cloud.ec2().describe_instances().filters(none.build());
    assert_eq!(none.send().await.unwrap().reservations().len(), 0);
    cloud.assert_conforms();
}

#[tokio::test]
async fn a_filter_has_two_hundred_values_at_most() {
    let cloud = Cloud::start().await;
    let ask = |count: u32| {
        let values = (0..count).map(|number| format!("i-{number:017x}"));
        let filter = Filter::builder().name("instance-id");
        let filter = filter.set_values(Some(values.collect())).build();
        cloud.ec2().describe_instances().filters(filter).send()
    };
    ask(200).await.unwrap();
    assert_eq!(code(ask(201).await), "FilterLimitExceeded");
    cloud.assert_conforms();
}

#[tokio::test]
async fn a_world_is_told_of_lives() {
    let cloud = Cloud::start().await;
    let mut lives = cloud.aws.lives();
    let mut next = async || {
        let step = tokio::time::timeout(PATIENCE, lives.next()).await;
        step.unwrap().unwrap()
    };
    let id = cloud.launch("mb-1", 1).await.remove(0);
    assert!(matches!(next().await, Life::Launched(it) if it.id == id));
    assert!(matches!(next().await, Life::Running(it) if it.id == id));
    cloud.aws.power_off(&id);
    assert!(matches!(next().await, Life::Ending(it) if it.id == id));
    assert!(matches!(next().await, Life::Ended(it) if it.id == id));
    cloud.aws.doom(&cloud.home, 1);
    cloud.launch("mb-2", 1).await;
    assert!(matches!(next().await, Life::Launched(_)));
    let Life::Ended(it) = next().await else {
        panic!("a doomed instance ran");
    };
    assert_eq!(it.reason.as_deref(), Some("Server.InternalError"));
}

#[tokio::test]
async fn instances_that_nobody_asked_for_can_be_there() {
    let cloud = Cloud::start().await;
    let tags = [("muster:coordinator".to_owned(), "test".to_owned())];
    let planted = cloud
        .aws
        .plant(&cloud.home, Market::Spot, "m7i.large", &tags.into());
    assert_eq!(cloud.described().await[0].0, planted.unwrap());
    cloud.assert_conforms();
}
