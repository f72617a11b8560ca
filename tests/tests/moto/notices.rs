//! EC2's events, by EventBridge's rule and the queue.

use std::time::Duration;

use muster_coordinator::compute::NoticeKind;
use muster_core::Interruption;
use serde_json::json;
use tokio::time::timeout;

use crate::world::{HERE, World};

/// Announces that EC2 takes an instance back. AWS lets nobody but itself do that; moto does.
pub(crate) async fn announce(world: &World, place: (&str, &str), instance: &str) {
    put(
        world,
        place,
        "EC2 Spot Instance Interruption Warning",
        instance,
        "",
    )
    .await;
}

async fn put(world: &World, place: (&str, &str), kind: &str, instance: &str, state: &str) {
    let detail = json!({ "instance-id": instance, "instance-action": "terminate", "state": state });
    let event = json!({ "Source": "aws.ec2", "DetailType": kind, "Detail": detail.to_string() });
    let put = world
        .moto
        .call(place, "events", "put_events", json!({ "Entries": [event] }))
        .await;
    assert_eq!(put["FailedEntryCount"], 0);
}

#[tokio::test]
async fn events_come_until_they_are_acknowledged() {
    let world = World::start().await;
    let running = world.provider(world.settings(), "here").await;
    let state = "EC2 Instance State-change Notification";
    put(&world, HERE, state, "i-0000000000000000a", "pending").await;
    put(&world, HERE, state, "i-0000000000000000b", "terminated").await;
    announce(&world, HERE, "i-0000000000000000c").await;
    let rebalance = "EC2 Instance Rebalance Recommendation";
    put(&world, HERE, rebalance, "i-0000000000000000d", "").await;

    let mut notices = Vec::new();
    let all = async {
        while notices.len() < 3 {
            notices.extend(running.provider.notices().await.unwrap());
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
    notices.sort_by(|one, other| one.instance.cmp(&other.instance));
    let said: Vec<_> = notices
        .iter()
        .map(|notice| match notice.kind {
            NoticeKind::Gone => (notice.instance.as_str(), "gone"),
            NoticeKind::Interrupted {
                kind: Interruption::Spot,
                deadline: Some(_),
            } => (notice.instance.as_str(), "spot"),
            NoticeKind::Interrupted {
                kind: Interruption::Rebalance,
                deadline: None,
            } => (notice.instance.as_str(), "rebalance"),
            NoticeKind::Interrupted { .. } => panic!("{notice:?}"),
        })
        .collect();
    assert_eq!(
        said,
        [
            ("i-0000000000000000b", "gone"),
            ("i-0000000000000000c", "spot"),
            ("i-0000000000000000d", "rebalance"),
        ]
    );
    let receipts = notices.into_iter().map(|notice| notice.receipt).collect();
    running.provider.acknowledge(receipts).await.unwrap();
    let attributes = json!({
        "QueueUrl": world.made.accounts[0].queue,
        "AttributeNames":
            ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
    });
    let left = world
        .moto
        .call(HERE, "sqs", "get_queue_attributes", attributes)
        .await;
    let left = &left["Attributes"];
    assert_eq!(left["ApproximateNumberOfMessages"], "0", "{left}");
    assert_eq!(left["ApproximateNumberOfMessagesNotVisible"], "0", "{left}");
}
