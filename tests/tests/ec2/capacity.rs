//! When EC2 has nothing: what is tried next, and what is said.

use muster_coordinator::compute::LaunchError;
use muster_core::{LaunchFailure, Market};
use muster_tests::fakes::aws::{self, Answer, Capacity, Effect, Fault, Offering};
use rstest::rstest;

use crate::kit::{Home, refusal};

fn refused(code: &str) -> Capacity {
    Capacity::Refused(code.to_owned())
}

#[tokio::test]
async fn other_offerings_come_before_on_demand() {
    let home = Home::start().await;
    let cheap = Offering::instance_type("m7i.large");
    home.aws
        .set_capacity(&home.place, cheap, refused("InsufficientInstanceCapacity"));
    let launched = home.launch("l-1").await.unwrap().offering.unwrap();
    assert_eq!(launched.market, Market::Spot);
    assert_eq!(launched.instance_type, "c7i.xlarge");
    home.no_violations();
}

#[tokio::test]
async fn on_demand_comes_when_spot_has_nothing() {
    let home = Home::start().await;
    let spot = Offering::market(aws::Market::Spot);
    home.aws
        .set_capacity(&home.place, spot, refused("InsufficientInstanceCapacity"));
    let launched = home.launch("l-1").await.unwrap().offering.unwrap();
    assert_eq!(launched.market, Market::OnDemand);
    assert_eq!(home.served("CreateFleet"), 2);
    // What had nothing is not asked again.
    home.launch("l-2").await.unwrap();
    assert_eq!(home.served("CreateFleet"), 3);
    home.no_violations();
}

#[tokio::test]
async fn a_pool_without_a_fallback_says_what_was_tried() {
    let home = Home::of_pool(|pool| pool.on_demand_fallback = false).await;
    let spot = Offering::market(aws::Market::Spot);
    home.aws
        .set_capacity(&home.place, spot, refused("UnfulfillableCapacity"));
    let error = home.launch("l-1").await.unwrap_err();
    let LaunchError::Failed { failure, detail } = error else {
        panic!("{error}");
    };
    assert_eq!(failure, LaunchFailure::Capacity);
    assert!(detail.contains("UnfulfillableCapacity"), "{detail}");
    assert!(detail.contains("spot m7i.large in"), "{detail}");
    assert!(home.aws.instances().is_empty());
    home.no_violations();
}

#[tokio::test]
async fn an_offering_that_was_not_tried_is_tried_next() {
    let home = Home::of_pool(|pool| pool.on_demand_fallback = false).await;
    for (instance_type, code) in [
        ("m7i.large", "InsufficientInstanceCapacity"),
        ("c7i.xlarge", "UnfulfillableCapacity"),
    ] {
        let all = Offering::instance_type(instance_type);
        home.aws.set_capacity(&home.place, all, refused(code));
    }
    home.launch("l-1").await.unwrap_err();
    let calls = home.aws.calls_of("CreateFleet");
    let [_, second] = &calls[..] else {
        panic!("{calls:?}");
    };
    let asked = second.parameters.to_string();
    assert!(!asked.contains("m7i.large"), "{asked}");
    assert!(asked.contains("c7i.xlarge"), "{asked}");
    home.no_violations();
}

#[tokio::test]
async fn a_type_that_a_zone_lacks_holds_back_nothing_but_itself() {
    let home = Home::of_pool(|pool| {
        pool.types = vec!["m7i.large".to_owned()];
        pool.subnets.truncate(2);
    })
    .await;
    let zones: Vec<String> = home.aws.subnets(&home.place)[..2]
        .iter()
        .map(|subnet| subnet.zone.clone())
        .collect();
    let of = |zone: &String| Offering::of(aws::Market::Spot, "m7i.large", zone);
    let lacking = refused("InvalidFleetConfiguration");
    home.aws.set_capacity(&home.place, of(&zones[1]), lacking);
    home.provider
        .close_offering(muster_core::Offering {
            market: Market::Spot,
            instance_type: "m7i.large".to_owned(),
            zone: zones[0].clone(),
        })
        .await;
    // Nothing is left of Spot but what isn't there: that is no reason to ask for nothing at all.
    let launched = home.launch("l-1").await.unwrap().offering.unwrap();
    assert_eq!(launched.market, Market::OnDemand);
    assert_eq!(home.served("CreateFleet"), 2);
    home.no_violations();
}

#[tokio::test]
async fn a_part_is_taken_and_the_rest_comes_from_elsewhere() {
    let home = Home::start().await;
    let spot = Offering::market(aws::Market::Spot);
    home.aws
        .set_capacity(&home.place, spot.clone(), Capacity::Left(7));
    let launched = home.launch_many(20).await;
    let markets = launched.iter().map(|one| {
        let offering = one.as_ref().unwrap().offering.clone();
        offering.unwrap().market
    });
    let spot = markets.filter(|market| *market == Market::Spot).count();
    assert!(spot >= 7, "{spot}");
    assert_eq!(home.aws.instances().len(), 20, "none twice, none missing");
    home.no_violations();
}

#[tokio::test]
async fn fewer_than_asked_and_no_error_is_noticed() {
    let home = Home::start().await;
    let spot = Offering::market(aws::Market::Spot);
    home.aws
        .set_capacity(&home.place, spot, Capacity::LeftInSilence(3));
    let launched = home.launch_many(10).await;
    assert!(launched.iter().all(Result::is_ok), "{launched:?}");
    assert_eq!(home.aws.instances().len(), 10);
    home.no_violations();
}

#[rstest]
#[case::fleets("MaxFleetCountExceeded")]
#[case::linked_role("AuthFailure.ServiceLinkedRoleCreationNotPermitted")]
#[tokio::test]
async fn what_holds_for_all_types_closes_the_whole_market(#[case] code: &str) {
    let home = Home::start().await;
    let one = Offering::market(aws::Market::Spot);
    home.aws.set_capacity(&home.place, one, refused(code));
    let launched = home.launch("l-1").await.unwrap().offering.unwrap();
    assert_eq!(launched.market, Market::OnDemand);
    // Though Spot would have something now, it is left alone for a while.
    home.aws.clear_capacity(&home.place);
    let launched = home.launch("l-2").await.unwrap().offering.unwrap();
    assert_eq!(launched.market, Market::OnDemand);
    home.no_violations();
}

#[rstest]
#[case::spot("MaxSpotInstanceCountExceeded", Market::Spot, false)]
#[case::on_demand("VcpuLimitExceeded", Market::OnDemand, false)]
#[case::instances("InstanceLimitExceeded", Market::OnDemand, false)]
#[case::the_whole_call("VcpuLimitExceeded", Market::OnDemand, true)]
#[tokio::test]
async fn a_quota_closes_the_types_that_share_it_and_no_others(
    #[case] code: &str,
    #[case] market: Market,
    #[case] whole: bool,
) {
    let home = Home::of_pools(|settings| {
        let linux = settings.pools.get_mut(&"linux".into()).unwrap();
        linux.market = market;
        linux.on_demand_fallback = false;
        linux.types = vec!["m7i.large".to_owned()];
        let mut gpu = linux.clone();
        gpu.types = vec!["g5.xlarge".to_owned()];
        settings.pools.insert("gpu".into(), gpu);
    })
    .await;
    if whole {
        home.aws.inject(Fault::next("CreateFleet", refusal(code)));
    } else {
        let gpus = Offering::instance_type("g5.xlarge");
        home.aws.set_capacity(&home.place, gpus, refused(code));
    }
    let of_gpu = |launch: &str| {
        let mut order = crate::kit::order(launch, muster_core::Shape::default());
        order.pool = "gpu".into();
        home.provider.launch(order)
    };
    for launch in ["l-1", "l-2"] {
        let LaunchError::Failed { failure, .. } = of_gpu(launch).await.unwrap_err() else {
            panic!("{launch} is not refused");
        };
        assert_eq!(failure, LaunchFailure::Quota, "{launch}");
    }
    assert_eq!(home.aws.calls_of("CreateFleet").len(), 1, "once for both");
    let launched = home.launch("l-3").await.unwrap().offering.unwrap();
    assert_eq!(launched.instance_type, "m7i.large");
    assert_eq!(launched.market, market);
    home.no_violations();
}

#[tokio::test]
async fn a_quota_of_both_markets_is_said_to_be_one() {
    let home = Home::start().await;
    let any = Offering::any();
    home.aws
        .set_capacity(&home.place, any, refused("VcpuLimitExceeded"));
    let error = home.launch("l-1").await.unwrap_err();
    let LaunchError::Failed { failure, detail } = error else {
        panic!("{error}");
    };
    assert_eq!(failure, LaunchFailure::Quota);
    assert!(detail.contains("VcpuLimitExceeded"), "{detail}");
    home.no_violations();
}

#[rstest]
#[case::permission(
    "UnauthorizedOperation",
    "You are not authorized to perform this operation."
)]
#[case::template("InvalidLaunchTemplateName.NotFoundException", "no such template")]
#[tokio::test]
async fn what_somebody_must_change_stops_the_pool_and_is_said(
    #[case] code: &str,
    #[case] message: &str,
) {
    let home = Home::start().await;
    home.aws.inject(Fault::next(
        "CreateFleet",
        Effect::Error {
            status: 403,
            code: code.to_owned(),
            message: message.to_owned(),
        },
    ));
    let error = home.launch("l-1").await.unwrap_err();
    let LaunchError::Failed { failure, detail } = error else {
        panic!("{error}");
    };
    assert_eq!(failure, LaunchFailure::Permanent);
    assert_eq!(detail, format!("CreateFleet: {code}: {message}"));
    home.no_violations();
}

#[tokio::test]
async fn a_template_that_is_gone_is_named() {
    let home = Home::start().await;
    home.aws.remove_template(&home.place, "muster");
    let error = home.launch("l-1").await.unwrap_err().to_string();
    assert!(error.contains("InvalidLaunchTemplate"), "{error}");
    home.no_violations();
}

#[rstest]
#[case::throttled("RequestLimitExceeded")]
#[case::broken("InternalError")]
#[tokio::test]
async fn an_offering_that_ec2_is_too_busy_for_is_asked_for_again_in_the_same_market(
    #[case] code: &str,
) {
    let home = Home::start().await;
    let spot = Offering::market(aws::Market::Spot);
    home.aws.set_capacity(&home.place, spot, refused(code));
    let (events, mut told) = tokio::sync::mpsc::channel(64);
    let mut order = crate::kit::order("l-1", muster_core::Shape::default());
    order.held_up = muster_coordinator::compute::HeldUp::of("l-1".into(), events);
    let busy = async {
        let asked = || home.served("CreateFleet") >= 4;
        home.until("some calls", asked).await;
        home.aws.clear_capacity(&home.place);
    };
    let (launched, ()) = tokio::join!(home.provider.launch(order), busy);
    assert_eq!(launched.unwrap().offering.unwrap().market, Market::Spot);
    let mut reasons = Vec::new();
    while let Ok(muster_core::Event::HeldUp { reason, .. }) = told.try_recv() {
        reasons.push(reason);
    }
    let says = |reason: &String| reason.contains(code);
    assert!(reasons.iter().any(says), "{reasons:?}");
    let calls = home.aws.calls_of("CreateFleet");
    for call in &calls {
        let capacity = &call.parameters["TargetCapacitySpecification"];
        assert_eq!(capacity["DefaultTargetCapacityType"], "spot");
    }
    if code == "RequestLimitExceeded" {
        // The bucket is known to be empty: five calls a second are left.
        for two in calls.windows(2) {
            let gap = two[1].at.duration_since(two[0].at);
            assert!(gap.as_millis() >= 195, "{gap:?}");
        }
    }
    home.no_violations();
}

#[rstest]
#[case::quota("MaxSpotInstanceCountExceeded")]
#[case::capacity("InsufficientInstanceCapacity")]
#[case::addresses("InsufficientFreeAddressesInSubnet")]
#[tokio::test]
async fn a_call_that_is_refused_as_a_whole_closes_what_it_asked_for(#[case] code: &str) {
    let home = Home::start().await;
    home.aws.inject(Fault::next("CreateFleet", refusal(code)));
    for launch in ["l-1", "l-2"] {
        let launched = home.launch(launch).await.unwrap().offering.unwrap();
        assert_eq!(launched.market, Market::OnDemand, "{launch}");
    }
    assert_eq!(home.aws.calls_of("CreateFleet").len(), 3);
    home.no_violations();
}

#[tokio::test]
async fn a_launch_that_gets_nothing_from_call_to_call_ends_with_ec2s_words() {
    let home = Home::start().await;
    // EC2 speaks of one offering only; the others stay open.
    let subnet = &home.aws.subnets(&home.place)[0];
    let answer = format!(
        "<CreateFleetResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>r</requestId><fleetId>fleet-1</fleetId><errorSet><item>\
         <launchTemplateAndOverrides><overrides><instanceType>m7i.large</instanceType>\
         <subnetId>{}</subnetId></overrides></launchTemplateAndOverrides>\
         <lifecycle>spot</lifecycle><errorCode>UnfulfillableCapacity</errorCode>\
         <errorMessage>in its own words</errorMessage></item></errorSet>\
         <fleetInstanceSet/></CreateFleetResponse>",
        subnet.id
    );
    let answer = Answer::new(200, "text/xml", answer);
    home.aws
        .inject(Fault::times("CreateFleet", 4, Effect::Answer(answer)));
    let error = home.launch("l-1").await.unwrap_err();
    let LaunchError::Failed { failure, detail } = error else {
        panic!("{error}");
    };
    assert_eq!(failure, LaunchFailure::Capacity);
    assert_eq!(
        detail,
        "EC2 gave nothing in 4 calls; at last: UnfulfillableCapacity: in its own words"
    );
    home.no_violations();
}
