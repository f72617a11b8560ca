//! What is asked of EC2, and who gets what.

use std::collections::BTreeSet;

use muster_coordinator::compute::ec2::ImageSource;
use muster_core::{InstanceId, Market, Shape};
use muster_tests::fakes::aws::{self, Image, ParameterKind};

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
async fn a_new_image_goes_to_new_launches_only() {
    let home = Home::of_pool(|pool| {
        pool.image = ImageSource::Parameter("/muster/ami/linux".to_owned());
    })
    .await;
    let old = home.aws.image(&home.place, "x86_64").unwrap();
    let put = |image: &str| {
        let name = "/muster/ami/linux";
        home.aws
            .put_parameter(&home.place, name, ParameterKind::Image, image)
    };
    put(&old);
    let launched = home.launch("l-1").await.unwrap();
    let image_of =
        |home: &Home, instance: &InstanceId| home.aws.instance(instance.as_str()).unwrap().image_id;
    assert_eq!(image_of(&home, &launched.instance), old);

    let new = "ami-0fedcba9876543210";
    let image = Image {
        id: new.to_owned(),
        architecture: "x86_64".to_owned(),
    };
    home.aws.add_image(&home.place, image);
    put(new);
    // The parameter is read each minute; a coordinator that starts reads it at once.
    let home = home.crash().await;
    let later = home.launch("l-2").await.unwrap();
    assert_eq!(image_of(&home, &later.instance), new);
    assert_eq!(image_of(&home, &launched.instance), old);
    // Nor is an instance that enrols measured by what the parameter says by then.
    let mut batches = Vec::new();
    for (instance, image) in [(&launched.instance, old.as_str()), (&later.instance, new)] {
        let facts = home.provider.describe(instance).await.unwrap().unwrap();
        let launched_as = facts.launched_as.unwrap();
        assert_eq!(launched_as.image.as_deref(), Some(image));
        assert_eq!(facts.image, image);
        assert!(launched_as.subnets.contains(&facts.subnet.unwrap()));
        assert_eq!(facts.batch.as_ref(), Some(&launched_as.batch));
        batches.push(launched_as.batch);
    }
    assert_ne!(batches[0], batches[1]);
    home.no_violations();
}

#[tokio::test]
async fn an_image_that_no_parameter_names_keeps_launches_waiting_with_a_reason() {
    let home = Home::of_pool(|pool| {
        pool.image = ImageSource::Parameter("/muster/ami/none".to_owned());
    })
    .await;
    let (events, mut told) = tokio::sync::mpsc::channel(8);
    let mut order = crate::kit::order("l-1", Shape::default());
    order.held_up = muster_coordinator::compute::HeldUp::of("l-1".into(), events);
    let launch = home.provider.launch(order);
    let waits = async {
        loop {
            let Some(muster_core::Event::HeldUp { reason, .. }) = told.recv().await else {
                panic!("nobody tells why");
            };
            if reason.contains("SSM has no parameter /muster/ami/none") {
                let image = home.aws.image(&home.place, "x86_64").unwrap();
                let name = "/muster/ami/none";
                home.aws
                    .put_parameter(&home.place, name, ParameterKind::Image, &image);
                return;
            }
        }
    };
    let (launched, ()) = tokio::join!(launch, waits);
    launched.unwrap();
    home.no_violations();
}
