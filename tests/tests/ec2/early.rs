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

    // Once nothing can be received and the next call waits for more, all before it is decided on.
    let decided = || {
        let (visible, kept) = aws.queue_depth(&home);
        let last = aws.calls_of("ReceiveMessage").pop()?;
        (visible == 0 && last.status.is_none()).then_some(kept)
    };
    let kept = || aws.wait_for("the queue to be read", PATIENCE, decided);
    assert_eq!(kept().await.unwrap(), 0, "states of both");
    assert!(aws.recommend_rebalance(&ours.id));
    assert_eq!(kept().await.unwrap(), 1, "it comes again");
    assert!(aws.recommend_rebalance(&other));
    assert_eq!(kept().await.unwrap(), 1, "another's is put away");
}
