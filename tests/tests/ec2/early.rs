//! Notices of an instance before anybody knows whose it is.

use std::collections::BTreeMap;

use muster_tests::fakes::aws::{Effect, Fault, Market};
use muster_tests::fakes::github::JobSpec;
use muster_tests::world::{Compute, Options, World};

use crate::kit::PATIENCE;

#[tokio::test]
async fn a_notice_is_kept_while_the_launch_of_its_instance_has_no_answer() {
    let options = Options {
        compute: Compute::Ec2,
        ..Options::default()
    };
    let world = World::start(options).await.unwrap();
    let aws = &world.cloud.as_ref().unwrap().aws;
    let home = aws.home();
    aws.inject(Fault::times("CreateFleet", u32::MAX, Effect::LoseAnswer));
    let job = JobSpec::new("octo-org/hello", "build", &["self-hosted", "linux"]);
    world.github.queue_job(job.step("true"));
    let made = || aws.instances().into_iter().next();
    let ours = aws.wait_for("an instance", PATIENCE, made).await.unwrap();
    let tags = BTreeMap::from([("muster:coordinator".to_owned(), "another".to_owned())]);
    let other = aws.plant(&home, Market::Spot, "m7i.large", &tags).unwrap();

    // Received, and hidden until it comes again; what tells the states of both is put away.
    let depth = |wanted| move || (aws.queue_depth(&aws.home()) == wanted).then_some(());
    let idle = depth((0, 0));
    aws.wait_for("an empty queue", PATIENCE, idle)
        .await
        .unwrap();
    assert!(aws.recommend_rebalance(&ours.id));
    let kept = depth((0, 1));
    aws.wait_for("the notice to be read", PATIENCE, kept)
        .await
        .unwrap();
    let put_away = aws.served("DeleteMessageBatch");
    assert!(aws.recommend_rebalance(&other));
    let more = || (aws.served("DeleteMessageBatch") > put_away).then_some(());
    aws.wait_for("another's notice to be put away", PATIENCE, more)
        .await
        .unwrap();
    let (visible, hidden) = aws.queue_depth(&home);
    assert_eq!(visible + hidden, 1, "ours comes again");
}
