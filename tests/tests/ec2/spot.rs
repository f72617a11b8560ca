//! Notices from EventBridge, and capacity that is taken back.

use std::time::Duration;

use muster_coordinator::compute::NoticeKind;
use muster_core::{InstanceId, Interruption, Market, Shape};
use muster_tests::fakes::aws::{self, Effect, Fault};

use crate::kit::{COORDINATOR, Home, PATIENCE, id, order};

#[tokio::test]
async fn a_notice_comes_until_it_is_acknowledged() {
    let options = muster_tests::fakes::aws::Options {
        state_notifications: false,
        ..muster_tests::fakes::aws::Options::default()
    };
    let home = Home::with(options, |_| {}).await;
    let instance = id(&home.launch("l-1").await);
    assert!(
        home.aws
            .interrupt(instance.as_str(), Duration::from_secs(120))
    );
    let received = tokio::time::timeout(PATIENCE, home.provider.notices());
    let notices = received.await.unwrap().unwrap();
    let [notice] = &notices[..] else {
        panic!("{notices:?}");
    };
    assert_eq!(notice.instance, instance);
    let NoticeKind::Interrupted { kind, deadline } = notice.kind else {
        panic!("{notice:?}");
    };
    assert_eq!(kind, Interruption::Spot);
    assert!(deadline.is_some());
    let depth = || home.aws.queue_depth(&home.place);
    assert_eq!(depth(), (0, 1), "hidden, and not gone");
    let receipts = vec![notice.receipt.clone()];
    home.provider.acknowledge(receipts).await.unwrap();
    assert_eq!(depth(), (0, 0));
    home.no_violations();
}

#[tokio::test]
async fn what_is_no_event_of_ec2_is_put_away() {
    let home = Home::start().await;
    for body in ["not json", "{}", "{\"source\":\"aws.s3\"}"] {
        home.aws.send_message(&home.place, body);
    }
    let launched = home.launch("l-1").await;
    home.aws.end(id(&launched).as_str(), "Server.InternalError");
    let notice = loop {
        let notices = home.provider.notices().await.unwrap();
        if let Some(notice) = notices.into_iter().next() {
            break notice;
        }
    };
    assert_eq!(notice.kind, NoticeKind::Gone);
    home.no_violations();
}

#[tokio::test]
async fn capacity_that_is_taken_back_is_left_alone() {
    let home = Home::start().await;
    let first = home.launch("l-1").await.unwrap().offering.unwrap();
    home.provider.close_offering(first.clone()).await;
    for n in 2..8 {
        let next = home.launch(&format!("l-{n}")).await.unwrap();
        let next = next.offering.unwrap();
        assert_eq!(next.market, Market::Spot);
        assert_ne!(next, first);
    }
    home.no_violations();
}

#[tokio::test]
async fn an_instance_whose_launch_has_no_answer_may_be_ours_soon() {
    let home = Home::start().await;
    let nobodys = "i-0000000000000dead".into();
    let soon =
        async |instance: &InstanceId| home.provider.may_be_ours_soon(instance).await.unwrap();
    assert!(!soon(&nobodys).await);
    home.aws
        .inject(Fault::times("CreateFleet", u32::MAX, Effect::LoseAnswer));
    let launch = home.provider.launch(order("l-1", Shape::default()));
    let unanswered = async {
        home.until("the instance", || !home.aws.instances().is_empty())
            .await;
        let made = home.aws.instances().remove(0);
        assert!(soon(&made.id.as_str().into()).await);
        let tags = [("muster:coordinator".to_owned(), COORDINATOR.to_owned())].into();
        let market = aws::Market::Spot;
        let planted = home.aws.plant(&home.place, market, "m7i.large", &tags);
        let planted = planted.unwrap();
        assert!(!soon(&planted.as_str().into()).await, "of no launch");
        assert!(soon(&nobodys).await, "EC2 may not know it yet");
        home.aws.clear_faults();
    };
    let (launched, ()) = tokio::join!(launch, unanswered);
    let instance = id(&launched);
    assert!(soon(&instance).await, "the ledger may not know it yet");
    assert!(!soon(&nobodys).await);
    home.no_violations();
}
