//! Images that SSM parameters name.

use std::collections::BTreeMap;

use muster_coordinator::compute::ec2::ImageSource;
use muster_core::{Event, InstanceId, Shape};
use muster_tests::fakes::aws::{Image, Options, ParameterKind};
use rstest::rstest;

use crate::kit::{Home, id};

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
        tags: BTreeMap::new(),
    };
    home.aws.add_image(&home.place, image);
    put(new);
    // One that was read before, one that may have been, and one that begins when that is learnt.
    let read = home.served("GetParameters");
    let again = || home.served("GetParameters") >= read + 3;
    home.until("the parameter to be read", again).await;
    let later = home.launch("l-2").await.unwrap();
    assert_eq!(image_of(&home, &later.instance), new);
    assert_eq!(image_of(&home, &launched.instance), old);
    // Nor is an instance that enrols measured by what the parameter says by then, nor by another process.
    let home = home.crash().await;
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

/// A home of two pools whose images are named by parameters; gives the second one's parameter.
async fn two_pools() -> (Home, &'static str) {
    let (good, bad) = ("/muster/ami/good", "/muster/ami/bad");
    let home = Home::with(Options::default(), |settings| {
        for (pool, parameter) in [("linux", good), ("other", bad)] {
            let mut changed = settings.pools[&"linux".into()].clone();
            changed.image = ImageSource::Parameter(parameter.to_owned());
            settings.pools.insert(pool.into(), changed);
        }
    })
    .await;
    let image = home.aws.image(&home.place, "x86_64").unwrap();
    home.aws
        .put_parameter(&home.place, good, ParameterKind::Image, &image);
    (home, bad)
}

#[rstest]
#[case::missing(None, "SSM has no parameter /muster/ami/bad")]
#[case::no_image(
    Some((ParameterKind::Text, "latest")),
    "parameter /muster/ami/bad names no image: \"latest\""
)]
#[case::denied(Some((ParameterKind::Denied, "")), "AccessDeniedException")]
#[tokio::test]
async fn a_bad_parameter_keeps_its_own_pool_only(
    #[case] value: Option<(ParameterKind, &str)>,
    #[case] why: &str,
) {
    let (home, bad) = two_pools().await;
    if let Some((kind, value)) = value {
        home.aws.put_parameter(&home.place, bad, kind, value);
    }
    let (events, mut told) = tokio::sync::mpsc::channel(64);
    let mut other = crate::kit::order("l-2", Shape::default());
    other.pool = "other".into();
    other.held_up = muster_coordinator::compute::HeldUp::of("l-2".into(), events);
    let other = home.provider.launch(other);
    let good = async {
        id(&home.launch("l-1").await);
        loop {
            match told.recv().await {
                Some(Event::HeldUp { reason, .. }) if reason.contains(why) => break,
                Some(_) => {}
                None => panic!("nobody tells why"),
            }
        }
        let read = home.aws.calls_of("GetParameters").len();
        let again = || home.aws.calls_of("GetParameters").len() >= read + 4;
        home.until("the parameters to be read again", again).await;
        assert_eq!(home.served("DescribeSubnets"), 1, "that went well");
        let image = home.aws.image(&home.place, "x86_64").unwrap();
        home.aws
            .put_parameter(&home.place, bad, ParameterKind::Image, &image);
    };
    let (other, ()) = tokio::join!(other, good);
    other.unwrap();
    home.no_violations();
}
