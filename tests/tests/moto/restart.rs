//! A coordinator that ends between a call and its answer.

use muster_coordinator::compute::ec2::Ec2Settings;

use crate::proxy::{Fault, Proxy};
use crate::world::World;

#[tokio::test]
async fn a_coordinator_that_dies_before_the_answer_finds_its_instances() {
    let world = World::start().await;
    let proxy = Proxy::start(world.moto.port).await;
    let settings = Ec2Settings {
        endpoint: Some(proxy.url()),
        ..world.settings()
    };
    let running = world.provider(settings.clone(), "here").await;
    proxy.next("CreateFleet", Fault::AnswerWithheld);
    let launching: Vec<_> = ["l-1", "l-2"]
        .map(|launch| tokio::spawn(running.launching(launch, "linux")))
        .into();
    proxy.wait_for("CreateFleet", 1).await;
    // It is carried out by then, or will be: the second call waits for the first one's end.
    running.crash().await;
    for launch in launching {
        launch.await.unwrap().unwrap_err();
    }

    let running = world.provider(settings, "here").await;
    let (one, other) = tokio::join!(
        running.launch("l-1", "linux"),
        running.launch("l-2", "linux")
    );
    let ids = [one.unwrap(), other.unwrap()];
    world.made_once(&ids).await;
    let calls = proxy.seen("CreateFleet");
    assert_eq!(calls.len(), 2);
    assert!(
        calls[0].token.is_some() && calls[0].token == calls[1].token,
        "{calls:?}"
    );

    // A third start knows what came of it without asking.
    running.crash().await;
    let settings = Ec2Settings {
        endpoint: Some(proxy.url()),
        ..world.settings()
    };
    let running = world.provider(settings, "here").await;
    assert!(ids.contains(&running.launch("l-1", "linux").await.unwrap()));
    assert_eq!(proxy.seen("CreateFleet").len(), 2);
}
