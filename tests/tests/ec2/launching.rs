//! What is asked of EC2, and who gets what.

use std::collections::BTreeSet;

use muster_coordinator::compute::HeldUp;
use muster_core::{Event, Market, Shape};
use muster_tests::fakes::aws::{self, Effect, Fault};

use crate::kit::{COORDINATOR, Home, id};

#[tokio::test]
async fn one_launch_is_one_call_with_all_that_belongs_in_it() {
    let home = Home::start().await;
    let launched = home.launch("l-1").await.unwrap();
    let offering = launched.offering.unwrap();
    assert_eq!(offering.market, Market::Spot);
    assert!(["m7i.large", "c7i.xlarge"].contains(&offering.instance_type.as_str()));

    let instance = home.aws.instance(launched.instance.as_str()).unwrap();
    assert_eq!(instance.zone, offering.zone);
    assert_eq!(instance.tags["muster:coordinator"], COORDINATOR);
    assert_eq!(instance.tags["muster:pool"], "linux");
    assert_eq!(
        instance.client_token.as_ref(),
        Some(&instance.tags["muster:batch"])
    );
    let fleets = home.aws.fleets();
    assert_eq!(fleets.len(), 1);
    for resource in ["instance", "volume", "fleet"] {
        let tags = &fleets[0].tag_specifications[resource];
        assert_eq!(tags["muster:coordinator"], COORDINATOR, "{resource}");
    }
    let call = &home.aws.calls_of("CreateFleet")[0].parameters;
    assert_eq!(call["Type"], "instant");
    assert_eq!(
        call["SpotOptions"]["AllocationStrategy"],
        "price-capacity-optimized"
    );
    assert_eq!(
        call["SpotOptions"]["InstanceInterruptionBehavior"],
        "terminate"
    );
    home.no_violations();
}

#[tokio::test]
async fn launches_that_come_together_share_a_call() {
    let home = Home::start().await;
    let launched = home.launch_many(40).await;
    let instances: BTreeSet<_> = launched.iter().map(id).collect();
    assert_eq!(instances.len(), 40, "each has its own");
    assert_eq!(home.aws.instances().len(), 40);
    assert!(
        home.served("CreateFleet") <= 3,
        "{:?}",
        home.aws.all_served()
    );
    home.no_violations();
}

#[tokio::test]
async fn a_size_that_is_asked_for_chooses_the_type() {
    let home = Home::start().await;
    let shape = Shape {
        cpus: Some(4),
        ..Shape::default()
    };
    let big = home.launch_shape("l-1", shape).await.unwrap();
    assert_eq!(big.offering.unwrap().instance_type, "c7i.xlarge");
    let shape = Shape {
        market: Some(Market::OnDemand),
        ..Shape::default()
    };
    let kept = home.launch_shape("l-2", shape).await.unwrap();
    assert_eq!(kept.offering.unwrap().market, Market::OnDemand);
    let instance = home.aws.instance(kept.instance.as_str()).unwrap();
    assert_eq!(instance.market, aws::Market::OnDemand);
    home.no_violations();
}

#[tokio::test]
async fn no_call_asks_for_more_than_five_hundred() {
    let home = Home::start().await;
    home.aws
        .inject(Fault::times("DescribeSubnets", u32::MAX, Effect::HangUp));
    let home = home.crash().await;
    let (events, mut told) = tokio::sync::mpsc::channel(4_096);
    let launches = (0..501).map(|n| {
        let mut order = crate::kit::order(&format!("l-{n:05}"), Shape::default());
        order.held_up = HeldUp::of(order.launch.clone(), events.clone());
        home.provider.launch(order)
    });
    let all_wait = async {
        let mut waiting = BTreeSet::new();
        while waiting.len() < 501 {
            if let Some(Event::HeldUp { launch, .. }) = told.recv().await {
                waiting.insert(launch);
            }
        }
        home.aws.clear_faults();
    };
    let (launched, ()) = tokio::join!(futures::future::join_all(launches), all_wait);
    assert!(launched.iter().all(Result::is_ok));
    let mut targets: Vec<_> = home.aws.fleets().iter().map(|it| it.target).collect();
    targets.sort_unstable();
    assert_eq!(targets, [1, 500]);
    home.no_violations();
}
