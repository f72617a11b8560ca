//! More demand than EC2's buckets hold: no call is made to be refused.

use futures::future::join_all;
use muster_core::Shape;
use muster_tests::fakes::aws::{Effect, Fault, Options};

use crate::kit::{Home, id};

fn shape(n: usize) -> Shape {
    Shape {
        labels: [format!("muster/shape={n}")].into(),
        ..Shape::default()
    }
}

#[tokio::test]
async fn launches_of_many_shapes_stay_within_the_bucket() {
    let home = Home::start().await;
    let names: Vec<String> = (0..65).map(|n| format!("l-{n:05}")).collect();
    let launches = names.iter().enumerate();
    let launched = join_all(launches.map(|(n, name)| home.launch_shape(name, shape(n)))).await;
    assert!(launched.iter().all(Result::is_ok), "{launched:?}");
    assert_eq!(home.served("CreateFleet"), 65, "each its own call");
    assert_eq!(home.aws.throttled(), 0);
    home.no_violations();
}

#[tokio::test]
async fn after_a_throttle_launches_go_at_the_rate_of_the_bucket() {
    let home = Home::start().await;
    home.aws
        .inject(Fault::next("CreateFleet", Effect::Throttle));
    home.launch("l-1").await.unwrap();
    let names = ["l-2", "l-3", "l-4"];
    let launches = names.iter().enumerate();
    join_all(launches.map(|(n, name)| home.launch_shape(name, shape(n)))).await;
    let calls = home.aws.calls_of("CreateFleet");
    let (first, last) = (calls[0].at, calls[4].at);
    let took = last.duration_since(first);
    assert!(took.as_millis() >= 790, "4 calls at 5/s: {took:?}");
    home.no_violations();
}

#[tokio::test]
async fn ends_that_ec2_refuses_one_by_one_stay_within_the_bucket() {
    let home = Home::start().await;
    let launched = home.launch_many(250).await;
    for one in &launched {
        home.aws.protect(id(one).as_str(), true);
    }
    // From here on nothing waits for anything but time.
    tokio::time::pause();
    let ends = launched.iter().map(|one| {
        let (instance, provider) = (id(one), home.provider.clone());
        async move { provider.terminate(&instance, true).await }
    });
    assert!(join_all(ends).await.iter().all(Result::is_err));
    let calls = home.aws.calls_of("TerminateInstances").len();
    assert!(calls >= 250, "{calls}");
    assert_eq!(home.aws.throttled(), 0);
    home.no_violations();
}

#[tokio::test]
async fn lists_of_many_pages_stay_within_the_bucket() {
    let options = Options {
        largest_page: 2,
        ..Options::default()
    };
    let home = Home::with(options, |_| {}).await;
    home.launch_many(20).await;
    // What it asks the store for, it knows from now on: the store's thread has no part in a time that is paused.
    home.provider.list().await.unwrap();
    tokio::time::pause();
    let lists = join_all((0..20).map(|_| home.provider.list())).await;
    for listed in lists {
        assert_eq!(listed.unwrap().alive.len(), 20);
    }
    let pages = home.served("DescribeInstances");
    assert!(pages >= 200, "{pages}");
    assert_eq!(home.aws.throttled(), 0);
    home.no_violations();
}
